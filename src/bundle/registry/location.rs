//! The place that an upload got.

use crate::bundle::retry::Failure;
use crate::bundle::{Error, ErrorKind};
use reqwest::header::LOCATION;
use reqwest::{Response, Url};

/// Why a body cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// A broken answer, of a registry or of a proxy before it.
    NotNamed,
    /// It was asked in TLS: the body is not sent in clear text.
    Unencrypted,
}

impl NoPlace {
    pub(super) fn of(self, what: &str, host: &str) -> Failure {
        let (kind, why) = match self {
            Self::NotNamed => (ErrorKind::Unreachable, "it names no place for an upload"),
            Self::Unencrypted => (
                ErrorKind::Tls,
                "it names a place for an upload without TLS; a proxy before it may lack X-Forwarded-Proto",
            ),
        };
        let error = Error::new(kind, format!("cannot {what} at {host}: {why}"));
        Failure { error, transient: self == Self::NotNamed, after: None }
    }
}

/// The header's value.
pub(super) fn of(response: &Response) -> Option<&str> {
    response.headers().get(LOCATION)?.to_str().ok()
}

/// Where the body goes. It may be another host, which gets none of our credentials. `answered` is who has named it: a
/// redirection can have led there.
pub(super) fn target(answered: &Url, location: Option<&str>) -> Result<Url, NoPlace> {
    let location = location.filter(|location| !location.is_empty()).ok_or(NoPlace::NotNamed)?;
    let first = location.split('/').next().unwrap_or_default();
    let joined = if !location.contains("://") && first.contains(['.', ':']) && !first.starts_with('.') {
        // A host without a scheme.
        Url::parse(&format!("{}://{location}", answered.scheme()))
    } else {
        answered.join(location)
    };
    let target = joined.map_err(|_| NoPlace::NotNamed)?;
    match (answered.scheme(), target.scheme()) {
        (_, "https") | ("http", "http") => Ok(target),
        (_, "http") => Err(NoPlace::Unencrypted),
        _ => Err(NoPlace::NotNamed),
    }
}

#[cfg(test)]
mod tests {
    use super::super::shapes;
    use super::*;

    #[test]
    fn places_of_real_registries_are_found() {
        for exchange in shapes::of_step("upload-start") {
            let name = exchange.name();
            let location = exchange.header("location");
            let host = match location.and_then(|location| location.split_once("://")) {
                Some((_, rest)) if exchange.expected("location_kind") == Some("absolute") => {
                    rest.split('/').next().unwrap()
                }
                _ => "registry.example:5000",
            };
            let answered = Url::parse(&format!("https://{host}/v2/a/blobs/uploads/")).unwrap();
            let got = target(&answered, location);
            let Some(location) = location else {
                let failure = got.unwrap_err().of("push", "h");
                assert_eq!((failure.error.kind, failure.transient), (ErrorKind::Unreachable, true), "{name}");
                continue;
            };
            if location.starts_with("http://") {
                assert_eq!(got.unwrap_err().of("push", "h").error.kind, ErrorKind::Tls, "{name}");
                continue;
            }
            let got = got.unwrap();
            let is_at_home = got.origin() == answered.origin();
            assert_eq!(is_at_home, exchange.expected("location_kind") != Some("other-host"), "{name}: {got}");
            assert!(got.as_str().ends_with(location.trim_start_matches("https://")), "{name}: {got}");
            assert_eq!(got.query().is_some(), exchange.expect["keeps_query"].as_bool().unwrap(), "{name}: {got}");
        }
    }

    #[test]
    fn a_place_is_seen_from_who_has_named_it() {
        let answered = Url::parse("https://two.example/v2/a/blobs/uploads/").unwrap();
        let at = |location| target(&answered, Some(location)).map(|url| url.to_string());
        assert_eq!(at("/v2/x?a=b").unwrap(), "https://two.example/v2/x?a=b");
        assert_eq!(at("x").unwrap(), "https://two.example/v2/a/blobs/uploads/x");
        assert_eq!(at("three.example:5000/x").unwrap(), "https://three.example:5000/x");
        assert_eq!(at("file:///x"), Err(NoPlace::NotNamed));
        assert_eq!(at("http://two.example/x"), Err(NoPlace::Unencrypted));
        assert_eq!(target(&answered, None), Err(NoPlace::NotNamed));
        let plain = Url::parse("http://two.example/v2/").unwrap();
        assert!(target(&plain, Some("http://two.example/x")).is_ok());
    }
}
