//! What a server says of a file, by which a download goes on where it was cut off (RFC 9110, sections 13 and 14).

use reqwest::header::{ACCEPT_RANGES, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, LAST_MODIFIED};
use serde::{Deserialize, Serialize};

/// One version of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Version {
    /// For `If-Range`: a strong entity tag, or else a date. Of two versions within a second the date is the same: the
    /// checksum of all tells.
    pub(super) validator: String,
    /// In bytes; none, if it was not said.
    pub(super) length: Option<u64>,
}

impl Version {
    /// Of an answer with all of a file; none: it does not say which version that is, or that it has no ranges.
    pub(super) fn of(headers: &HeaderMap, length: Option<u64>) -> Option<Self> {
        if text(headers, ACCEPT_RANGES) == Some("none") {
            return None;
        }
        Some(Self { validator: validator(headers)?.to_owned(), length })
    }

    /// Whether an answer of status 206 has the bytes from `start` on of this version. Then the same with the length that
    /// the answer says.
    pub(super) fn goes_on(&self, headers: &HeaderMap, start: u64) -> Option<Self> {
        let (first, length) = content_range(text(headers, CONTENT_RANGE)?)?;
        // A server that does not know `If-Range` gives what is asked for of any version.
        let same = validator(headers).is_none_or(|validator| validator == self.validator)
            && (self.length.is_none() || length.is_none() || self.length == length);
        (first == start && same).then(|| Self { length: self.length.or(length), ..self.clone() })
    }
}

/// A weak entity tag is none that goes with a range.
fn validator(headers: &HeaderMap) -> Option<&str> {
    let tag = text(headers, ETAG).filter(|tag| tag.starts_with('"'));
    tag.or_else(|| text(headers, LAST_MODIFIED))
}

/// The first byte, and of how many; `*`: the server does not know.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, length) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let length = if length == "*" { None } else { Some(length.parse().ok()?) };
    (first <= last && length.is_none_or(|length| last < length)).then_some((first, length))
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    const DATE: &str = "Thu, 01 Jan 2026 00:00:00 GMT";

    fn headers(all: &[(HeaderName, &'static str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    fn version(validator: &str, length: Option<u64>) -> Version {
        Version { validator: validator.to_owned(), length }
    }

    #[test]
    fn a_version_is_known_by_a_strong_tag_or_by_a_date() {
        let of = |all: &[_]| Version::of(&headers(all), Some(7)).map(|version| version.validator);
        for (all, validator) in [
            (&[(ETAG, "\"a\""), (LAST_MODIFIED, DATE)][..], Some("\"a\"")),
            (&[(ETAG, "W/\"a\""), (LAST_MODIFIED, DATE)], Some(DATE)),
            (&[(ETAG, "W/\"a\"")], None),
            (&[], None),
            (&[(ETAG, "\"a\""), (ACCEPT_RANGES, "bytes")], Some("\"a\"")),
            (&[(ETAG, "\"a\""), (ACCEPT_RANGES, "none")], None),
        ] {
            assert_eq!(of(all).as_deref(), validator, "{all:?}");
        }
    }

    #[test]
    fn only_the_same_version_from_the_same_byte_goes_on() {
        let known = version("\"a\"", Some(10));
        let says = |range: &'static str, more: &[(HeaderName, &'static str)]| {
            headers(&[&[(CONTENT_RANGE, range)], more].concat())
        };
        for (headers, goes_on) in [
            (says("bytes 4-9/10", &[(ETAG, "\"a\"")]), true),
            // Less than was asked for: the rest is asked for later.
            (says("bytes 4-7/10", &[]), true),
            (says("bytes 4-9/*", &[]), true),
            (says("bytes 3-9/10", &[]), false),
            (says("bytes 4-9/11", &[]), false),
            (says("bytes 4-10/10", &[]), false),
            (says("bytes 9-4/10", &[]), false),
            (says("bytes */10", &[]), false),
            (says("pages 4-9/10", &[]), false),
            (says("bytes 4-9/10", &[(ETAG, "\"b\"")]), false),
            (says("bytes 4-9/10", &[(LAST_MODIFIED, DATE)]), false),
            // Of several parts.
            (HeaderMap::new(), false),
        ] {
            assert_eq!(known.goes_on(&headers, 4), goes_on.then(|| known.clone()), "{headers:?}");
        }
        let unknown = version("\"a\"", None);
        assert_eq!(unknown.goes_on(&says("bytes 4-9/10", &[]), 4), Some(known));
    }
}
