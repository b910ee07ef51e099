//! Why a request failed, and when the server wants to be asked again.

use crate::bundle::ErrorKind;
use jiff::Timestamp;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use std::error::Error;
use std::time::Duration;

/// What stood in the way of a request, and the innermost reason: TLS, a name that nobody knows (a name server that gives
/// no answer is another matter), or the connection.
pub(crate) fn reason(error: &reqwest::Error) -> (ErrorKind, String) {
    if error.is_timeout() {
        return (ErrorKind::Unreachable, "no answer in time".to_owned());
    }
    let mut why = error.to_string();
    let mut next = error.source();
    while let Some(inner) = next {
        why = inner.to_string();
        if inner.is::<rustls::Error>() {
            if why.contains("InvalidContentType") {
                "it speaks no TLS".clone_into(&mut why);
            }
            return (ErrorKind::Tls, why);
        }
        // An io::Error hides what it wraps from `source`.
        let wrapped = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => inner.source(),
        };
    }
    if host_is_unknown(&why) {
        return (ErrorKind::UnknownHost, "there is no host of this name".to_owned());
    }
    (ErrorKind::Unreachable, without_number(&why))
}

/// By the words for `EAI_NONAME` and `EAI_NODATA` of musl and of glibc: the standard library keeps no code.
fn host_is_unknown(why: &str) -> bool {
    let words = [
        "Name does not resolve",
        "Name has no usable address",
        "Name or service not known",
        "No address associated with hostname",
    ];
    words.iter().any(|words| why.ends_with(words))
}

/// `Connection refused (os error 111)` without the number, which helps nobody.
fn without_number(why: &str) -> String {
    why.split_once(" (os error ").map_or(why, |(words, _)| words).to_owned()
}

/// How long a server asks to wait, if it does.
pub(crate) fn asked_wait(headers: &HeaderMap) -> Option<Duration> {
    wait_of(headers.get(RETRY_AFTER)?.to_str().ok()?, Timestamp::now())
}

/// `Retry-After`: seconds, or a date.
fn wait_of(after: &str, now: Timestamp) -> Option<Duration> {
    let after = after.trim();
    if let Ok(seconds) = after.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(after).ok()?;
    // One that has passed means now.
    Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_nobody_knows_is_told_from_a_name_server_that_is_silent() {
        let of = |words: &str| host_is_unknown(&format!("failed to lookup address information: {words}"));
        // musl, glibc.
        assert!(of("Name does not resolve") && of("Name or service not known"));
        assert!(!of("Try again") && !of("Temporary failure in name resolution") && !of("Non-recoverable error"));
        assert_eq!(without_number("Connection refused (os error 111)"), "Connection refused");
    }

    #[test]
    fn times_to_wait_are_read() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        for (after, seconds) in [
            ("120", Some(120.0)),
            (" 1.5 ", Some(1.5)),
            ("Fri, 02 Jan 2026 03:05:05 GMT", Some(60.0)),
            ("Fri, 02 Jan 2026 03:03:05 GMT", Some(0.0)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(wait_of(after, now), seconds.map(Duration::from_secs_f64), "{after}");
        }
    }
}
