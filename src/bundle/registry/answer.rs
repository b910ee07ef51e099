//! What a registry's answer, or its silence, means.

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
pub(super) fn no_answer(what: &str, host: &str, error: &reqwest::Error) -> Failure {
    let (tls, mut why) = reason(error);
    if tls && why.contains("InvalidContentType") {
        "it speaks no TLS (plain HTTP is for registries that the settings list as insecure)".clone_into(&mut why);
    }
    // What we made ourselves: a URL that is none, or a redirection that we refuse.
    let ours = error.is_builder() || error.is_redirect();
    let kind = match (tls, ours) {
        (true, _) => ErrorKind::Tls,
        (_, true) => ErrorKind::Invalid,
        _ => ErrorKind::Unreachable,
    };
    let error = Error::new(kind, format!("cannot {what} at {host}: {why}"));
    Failure { error, transient: kind == ErrorKind::Unreachable, after: None }
}

/// At which request an answer came: a few mean something else there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// To a token endpoint, which is often no part of the registry.
    Token,
    /// The end of an upload, with its body.
    UploadEnd,
    /// Any other to the registry, or to where it redirected us.
    Other,
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
        Err(_) => Err(Failure::transient(late())),
    }
}

/// What an answer means. `transient` is what a few tries within minutes can get over.
fn judge(step: Step, what: &str, host: &str, status: StatusCode, after: Option<Duration>, body: &[u8]) -> Failure {
    let said = Said::read(body);
    let (kind, transient) = meaning(step, status.as_u16(), body.is_empty(), &said);
    let mut text = said.shown();
    if !text.is_empty() {
        text.insert_str(0, ": ");
    }
    if kind == ErrorKind::Denied && said.says(&["expired"]) {
        text.push_str(" (the login in the Secret has run out: renew it)");
    }
    Failure { error: Error::new(kind, format!("cannot {what} at {host}: {status}{text}")), transient, after }
}

/// The arms are in the order in which they count.
#[allow(clippy::match_same_arms)]
fn meaning(step: Step, status: u16, is_empty: bool, said: &Said) -> (ErrorKind, bool) {
    const BROKEN: (ErrorKind, bool) = (ErrorKind::Unreachable, true);
    let code = |codes: &[&str]| codes.iter().any(|code| said.has_code(code));
    match status {
        // Words of quotas mean a rate there.
        408 | 425 | 429 => BROKEN,
        507 => (ErrorKind::Quota, false),
        500..=599 if said.is_of_a_full_disk() => (ErrorKind::Quota, false),
        // Of S3, when an upload of the registry's has more parts than it takes.
        500..=599 if said.says(&["part number must be"]) => (ErrorKind::TooLarge, false),
        500..=599 => BROKEN,
        // An upload that the registry has forgotten, or whose other half another replica knows.
        404 if code(&["BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID"]) => BROKEN,
        404 if step == Step::UploadEnd && !code(&["NAME_UNKNOWN"]) => BROKEN,
        // No registry of the name that was asked for, or a wrong address: nothing that the store lacks.
        404 | 410 if step == Step::Token && said.codes.is_empty() => (ErrorKind::Denied, false),
        404 | 410 => (ErrorKind::NotFound, false),
        _ if code(&["MANIFEST_REFERENCE_LIMIT", "MANIFEST_SIZE_LIMIT"]) => (ErrorKind::TooLarge, false),
        _ if said.is_of_quota() => (ErrorKind::Quota, false),
        413 => (ErrorKind::TooLarge, false),
        // Of a store to which the registry has redirected us: a new link is good again.
        400 | 403 if code(&["ExpiredToken", "RequestTimeTooSkewed"]) => BROKEN,
        403 if code(&["AccessDenied"]) && said.says(&["request has expired"]) => BROKEN,
        403 | 405 if said.is_of_maintenance() => BROKEN,
        405 if said.is_of_too_many_layers() => (ErrorKind::TooLarge, false),
        // A cache of another registry takes no pushes, ever. All else takes them when its maintenance is over.
        405 if step != Step::Token && !code(&["UNSUPPORTED"]) => BROKEN,
        // Harbor tells of a project that does not exist as if we had no login.
        401 if said.says(&["not found"]) && step != Step::Token => (ErrorKind::NotFound, false),
        401 | 403 | 405 | 412 | 451 => (ErrorKind::Denied, false),
        400 | 409 if said.is_of_an_immutable_tag() => (ErrorKind::Denied, false),
        // Two writers, or one and a clean-up.
        409 => BROKEN,
        416 if step == Step::UploadEnd => BROKEN,
        400 if is_empty || code(&["CONNECTIONRESET", "REQUESTCANCELED"]) => BROKEN,
        400 if code(&["BLOB_UPLOAD_INVALID"]) && !said.says(&["does not have any parts"]) => BROKEN,
        400 if code(&["DIGEST_INVALID", "SIZE_INVALID"]) && step == Step::UploadEnd => (ErrorKind::Invalid, true),
        // A token that has run out, with no question for another.
        400 if said.says(&["token has expired"]) => (ErrorKind::Denied, true),
        _ if code(&["DENIED", "UNAUTHORIZED"]) => (ErrorKind::Denied, false),
        _ => (ErrorKind::Invalid, false),
    }
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
        at: String,
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
            let step = match &*expected.at {
                "token" => Step::Token,
                "upload-end" => Step::UploadEnd,
                _ => Step::Other,
            };
            let body = exchange.body.filter(|_| expected.at != "blob-head").unwrap_or_default();
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
