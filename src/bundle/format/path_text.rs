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
