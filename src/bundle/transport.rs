//! Why a request failed, and when the server wants to be asked again.

use jiff::Timestamp;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use std::error::Error;
use std::time::Duration;

/// Whether it is about TLS, and the innermost reason.
pub(crate) fn reason(error: &reqwest::Error) -> (bool, String) {
    if error.is_timeout() {
        return (false, "no answer in time".to_owned());
    }
    let mut why = error.to_string();
    let mut next = error.source();
    while let Some(inner) = next {
        why = inner.to_string();
        if inner.is::<rustls::Error>() {
            return (true, why);
        }
        // An io::Error hides what it wraps from `source`.
        let wrapped = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => inner.source(),
        };
    }
    (false, why)
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
