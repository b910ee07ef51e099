//! Paths in JSON: as text where they are UTF-8, else in base 64.

use crate::bundle::Error;
use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;

/// The text, or the base 64.
pub(super) fn write_bytes(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(BASE64.encode(bytes))),
    }
}

/// None: neither is there.
pub(super) fn read_bytes(text: Option<String>, base64: Option<&String>) -> Result<Option<Vec<u8>>, Error> {
    match (text, base64) {
        (Some(text), _) => Ok(Some(text.into_bytes())),
        (None, Some(base64)) => {
            BASE64.decode(base64).map(Some).map_err(|_| Error::invalid("the bundle's list has wrong base 64"))
        }
        (None, None) => Ok(None),
    }
}

/// The same in one text: base 64 is behind a character that no path has.
pub(in crate::bundle) mod one_text {
    use serde::{Deserialize, Deserializer, Serializer, de};

    const IS_BASE64: char = '\0';

    pub(in crate::bundle) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        match super::write_bytes(bytes) {
            (Some(text), _) => to.serialize_str(&text),
            (None, base64) => to.serialize_str(&format!("{IS_BASE64}{}", base64.unwrap_or_default())),
        }
    }

    pub(in crate::bundle) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        let bytes = match text.strip_prefix(IS_BASE64) {
            Some(base64) => super::read_bytes(None, Some(&base64.to_owned())),
            None => Ok(Some(text.into_bytes())),
        };
        bytes.map(Option::unwrap_or_default).map_err(de::Error::custom)
    }
}
