//! What a registry's answer, or its silence, means.

use super::meaning::{Answer, Meaning, Step, meaning};
use super::said::Said;
use crate::bundle::retry::Failure;
use crate::bundle::transport::{asked_wait, reason};
use crate::bundle::{Error, ErrorKind};
use bytes::Bytes;
use reqwest::{Response, StatusCode};
use std::time::Duration;

/// As much of an error's body is read.
const LONGEST_BODY: usize = 64 << 10;

/// No answer: `what` is what was tried, as in "cannot <what>".
pub(super) fn no_answer(what: &str, host: &str, error: reqwest::Error) -> Failure {
    // It may be one of a store behind the registry, with a signature in it.
    let error = error.without_url();
    let (obstacle, mut why) = reason(&error);
    if why == "it speaks no TLS" {
        why.push_str(" (plain HTTP is for registries that the settings list as insecure)");
    }
    // What we made ourselves: a URL that is none, or a redirection that we refuse.
    let ours = error.is_builder() || error.is_redirect();
    let kind = if ours && obstacle != ErrorKind::Tls { ErrorKind::Invalid } else { obstacle };
    let error = Error::new(kind, format!("cannot {what} at {host}: {why}")).caused_by(error);
    Failure { error, transient: matches!(kind, ErrorKind::Unreachable | ErrorKind::UnknownHost), after: None }
}

/// An answer that is not success.
pub(super) async fn refusal(step: Step, what: &str, host: &str, mut response: Response) -> Failure {
    let status = response.status();
    let after = asked_wait(response.headers());
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
    judge(step, what, &who(host, response.url()), status, after, &body)
}

/// Who answered: a redirection leads to hosts that the user has never heard of.
fn who(host: &str, answered: &reqwest::Url) -> String {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    match answered.host_str() {
        Some(other) if name != "docker.io" && !name.eq_ignore_ascii_case(other) && !host.starts_with('[') => {
            format!("{other}, where {host} sent us")
        }
        _ => host.to_owned(),
    }
}

/// The whole of an answer's body, of at most `most` bytes.
pub(super) async fn whole(mut response: Response, most: usize, what: &str, host: &str) -> Result<Bytes, Failure> {
    let read = async {
        let mut body = vec![];
        while let Some(chunk) = response.chunk().await.map_err(|error| no_answer(what, host, error))? {
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
        Err(_) => Err(Failure::transient(late())),
    }
}

/// An answer, with all that is known of it, as an error.
fn judge(step: Step, what: &str, host: &str, status: StatusCode, after: Option<Duration>, body: &[u8]) -> Failure {
    let said = Said::read(body);
    let answer = Answer { step, status: status.as_u16(), is_empty: body.is_empty(), said: &said };
    let Meaning { kind, transient } = meaning(&answer);
    let mut text = said.shown();
    if !text.is_empty() {
        text.insert_str(0, ": ");
    }
    if kind == ErrorKind::Denied && said.says(&["expired"]) {
        text.push_str(" (the login in the Secret has run out: renew it)");
    }
    Failure { error: Error::new(kind, format!("cannot {what} at {host}: {status}{text}")), transient, after }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, body: &[u8]) -> Failure {
        judge(Step::Other, "push", "h:1", StatusCode::from_u16(status).unwrap(), None, body)
    }

    #[test]
    fn answers_become_kinds() {
        let quota = r#"{"errors":[{"code":"DENIED","message":"adding 5 MiB of storage resource, which when updated to current usage of 9 MiB will exceed the configured upper limit of 10 MiB."}]}"#;
        for (status, body, kind, transient) in [
            (401, "", ErrorKind::Denied, false),
            (403, r#"{"errors":[{"code":"DENIED","message":"requested access is denied"}]}"#, ErrorKind::Denied, false),
            (403, quota, ErrorKind::Quota, false),
            (429, "quota of the namespace is used up", ErrorKind::Unreachable, true),
            (429, r#"{"errors":[{"code":"TOOMANYREQUESTS"}]}"#, ErrorKind::Unreachable, true),
            (404, r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#, ErrorKind::NotFound, false),
            (413, "<html>too large</html>", ErrorKind::TooLarge, false),
            (400, r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#, ErrorKind::Invalid, false),
            (500, "", ErrorKind::Unreachable, true),
            (503, "", ErrorKind::Unreachable, true),
            (507, "", ErrorKind::Quota, false),
        ] {
            let failure = judged(status, body.as_bytes());
            assert_eq!((failure.error.kind, failure.transient), (kind, transient), "{status} {body}");
        }
    }

    #[test]
    fn the_registry_is_quoted_in_one_line() {
        let body = "{\"errors\":[{\"code\":\"X\",\"message\":\"a\\nb\"}]}";
        let failure = judged(403, body.as_bytes());
        assert_eq!(failure.error.message, "cannot push at h:1: 403 Forbidden: X (a?b)");
        let long = judged(403, &vec![b'x'; 100_000]);
        assert!(long.error.message.len() < 400);
        let expired = judged(403, br#"{"errors":[{"message":"Your authorization token has expired."}]}"#);
        assert!(expired.error.message.contains("renew"), "{}", expired.error);
    }

    #[test]
    fn the_host_behind_a_redirection_is_named() {
        let url = |url: &str| reqwest::Url::parse(url).unwrap();
        assert_eq!(who("h:5000", &url("https://h:5000/v2/")), "h:5000");
        assert_eq!(who("h", &url("https://s3.example/x")), "s3.example, where h sent us");
        assert_eq!(who("docker.io", &url("https://registry-1.docker.io/v2/")), "docker.io");
    }

    #[derive(serde::Deserialize)]
    struct Expected {
        kind: String,
        transient: serde_json::Value,
    }

    #[test]
    fn errors_of_real_registries_are_understood() {
        let mut wrong = vec![];
        let mut seen = 0;
        for exchange in super::super::shapes::of_step("error") {
            let name = exchange.name();
            let expected: Expected = serde_json::from_value(exchange.expect.clone()).unwrap();
            let status = StatusCode::from_u16(exchange.status).unwrap();
            if status.is_success() {
                // A page where a manifest should be: who reads it as one sees that.
                continue;
            }
            let (step, body) = (exchange.error_step(), exchange.error_body());
            let failure = judge(step, "push", "h", status, None, body.as_bytes());
            // A text, such as "until-deadline", is beyond one request: whoever has the deadline comes back for it.
            let transient = expected.transient.as_bool().unwrap_or(failure.transient);
            let got = format!("{:?}/{}", failure.error.kind, failure.transient);
            seen += 1;
            if got != format!("{}/{transient}", expected.kind) {
                wrong.push(format!("{name}: {got}, not {}/{}", expected.kind, expected.transient));
            }
        }
        assert!(seen > 100 && wrong.is_empty(), "{seen} seen, wrong:\n{}", wrong.join("\n"));
    }
}
