//! What a registry's answer, or its silence, means.

use super::retry::Failure;
use crate::bundle::error::shown;
use crate::bundle::{Error, ErrorKind};
use bytes::Bytes;
use reqwest::{Response, StatusCode};
use std::error::Error as _;
use std::time::Duration;

/// As much of an error's text is kept.
const LONGEST_TEXT: usize = 300;
/// As much of an error's body is read.
const LONGEST_BODY: usize = 64 << 10;

/// No answer: `what` is what was tried, as in "cannot <what>".
pub(super) fn no_answer(what: &str, host: &str, error: &reqwest::Error) -> Failure {
    let (tls, why) = cause(error);
    // What we made ourselves: a URL that is none, or a redirection that we refuse.
    let ours = error.is_builder() || error.is_redirect();
    let kind = match (tls, ours) {
        (true, _) => ErrorKind::Tls,
        (_, true) => ErrorKind::Invalid,
        _ => ErrorKind::Unreachable,
    };
    let error = Error::new(kind, format!("cannot {what} at {host}: {why}"));
    Failure { error, passing: kind == ErrorKind::Unreachable, after: None }
}

/// Whether it is about TLS, and the innermost reason.
fn cause(error: &reqwest::Error) -> (bool, String) {
    if error.is_timeout() {
        return (false, "no answer in time".to_owned());
    }
    let mut why = error.to_string();
    let mut next = error.source();
    while let Some(inner) = next {
        why = inner.to_string();
        if inner.is::<rustls::Error>() {
            if why.contains("InvalidContentType") {
                "it speaks no TLS (plain HTTP is for registries that the settings list as insecure)"
                    .clone_into(&mut why);
            }
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

/// An answer that is not success.
pub(super) async fn refusal(what: &str, host: &str, mut response: Response) -> Failure {
    let status = response.status();
    let after = response.headers().get("retry-after").and_then(|after| after.to_str().ok()?.trim().parse().ok());
    let mut body = vec![];
    let read = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() > LONGEST_BODY {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(super::ANSWER, read).await;
    judge(what, host, status, after.map(Duration::from_secs), &body)
}

/// The whole of an answer's body, of at most `most` bytes.
pub(super) async fn whole(mut response: Response, most: usize, what: &str, host: &str) -> Result<Bytes, Failure> {
    let read = async {
        let mut body = vec![];
        while let Some(chunk) = response.chunk().await.map_err(|error| no_answer(what, host, &error))? {
            body.extend_from_slice(&chunk);
            if body.len() > most {
                return Err(Error::too_large(format!("cannot {what} at {host}: more than {most} bytes")).into());
            }
        }
        Ok(body.into())
    };
    let late = || Error::new(ErrorKind::Unreachable, format!("cannot {what} at {host}: no answer in time"));
    match tokio::time::timeout(super::ANSWER, read).await {
        Ok(body) => body,
        Err(_) => Err(Failure { error: late(), passing: true, after: None }),
    }
}

fn judge(what: &str, host: &str, status: StatusCode, after: Option<Duration>, body: &[u8]) -> Failure {
    let said = Said::read(body);
    let passing = matches!(status.as_u16(), 408 | 425 | 429 | 500..=599) && status != StatusCode::INSUFFICIENT_STORAGE;
    let kind = match status.as_u16() {
        _ if said.is_of_quota() => ErrorKind::Quota,
        507 => ErrorKind::Quota,
        401 | 403 | 405 | 451 => ErrorKind::Denied,
        404 | 410 => ErrorKind::NotFound,
        413 => ErrorKind::TooLarge,
        _ if passing => ErrorKind::Unreachable,
        _ if said.code == "DENIED" || said.code == "UNAUTHORIZED" => ErrorKind::Denied,
        _ => ErrorKind::Invalid,
    };
    let text = if said.text.is_empty() { String::new() } else { format!(": {}", said.text) };
    let error = Error::new(kind, format!("cannot {what} at {host}: {status}{text}"));
    Failure { error, passing: passing && kind != ErrorKind::Quota, after }
}

/// The registry's own words.
struct Said {
    code: String,
    text: String,
}

impl Said {
    /// `{"errors": [{"code", "message", "detail"}]}`, or any text.
    fn read(body: &[u8]) -> Self {
        let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let first = value.get("errors").and_then(|errors| errors.get(0)).unwrap_or(&value);
        let field = |name: &str| first.get(name).and_then(|field| field.as_str()).unwrap_or_default().to_owned();
        let code = field("code");
        let message = [field("message"), field("detail"), field("details")].into_iter().find(|text| !text.is_empty());
        let text = match message {
            Some(message) if code.is_empty() => message,
            Some(message) => format!("{code} ({message})"),
            None if !code.is_empty() => code.clone(),
            None => String::from_utf8_lossy(body).into_owned(),
        };
        let text: String = shown(text.trim().as_bytes()).chars().take(LONGEST_TEXT).collect();
        Self { code, text }
    }

    /// There is no code of its own for it: Harbor, Quay, `GitLab` and cloud registries say it in words.
    fn is_of_quota(&self) -> bool {
        let text = self.text.to_ascii_lowercase();
        text.contains("quota") || (text.contains("exceed") && text.contains("storage"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_become_kinds() {
        let quota = r#"{"errors":[{"code":"DENIED","message":"adding 5 MiB of storage resource, which when updated to current usage of 9 MiB will exceed the configured upper limit of 10 MiB."}]}"#;
        for (status, body, kind, passing) in [
            (401, "", ErrorKind::Denied, false),
            (403, r#"{"errors":[{"code":"DENIED","message":"requested access is denied"}]}"#, ErrorKind::Denied, false),
            (403, quota, ErrorKind::Quota, false),
            (429, "quota of the namespace is used up", ErrorKind::Quota, false),
            (429, r#"{"errors":[{"code":"TOOMANYREQUESTS"}]}"#, ErrorKind::Unreachable, true),
            (404, r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#, ErrorKind::NotFound, false),
            (413, "<html>too large</html>", ErrorKind::TooLarge, false),
            (400, r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#, ErrorKind::Invalid, false),
            (500, "", ErrorKind::Unreachable, true),
            (503, "", ErrorKind::Unreachable, true),
            (507, "", ErrorKind::Quota, false),
        ] {
            let failure = judge("push", "h", StatusCode::from_u16(status).unwrap(), None, body.as_bytes());
            assert_eq!((failure.error.kind, failure.passing), (kind, passing), "{status} {body}");
        }
    }

    #[test]
    fn the_registry_is_quoted_in_one_line() {
        let body = "{\"errors\":[{\"code\":\"X\",\"message\":\"a\\nb\"}]}";
        let failure = judge("push", "h:1", StatusCode::FORBIDDEN, None, body.as_bytes());
        assert_eq!(failure.error.message, "cannot push at h:1: 403 Forbidden: X (a?b)");
        let long = judge("push", "h", StatusCode::FORBIDDEN, None, &vec![b'x'; 100_000]);
        assert!(long.error.message.len() < 400);
    }
}
