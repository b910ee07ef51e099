//! Who we are to a registry: nobody, a user with a password, or the bearer of a token.

use super::answer::{no_answer, refusal, whole};
use super::login::Login;
use super::retry::Failure;
use crate::bundle::{Error, ErrorKind};
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use reqwest::{RequestBuilder, Url};
use serde::Deserialize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A registry that says nothing else means this.
const TOKEN_LIFE: Duration = Duration::from_mins(1);
/// No token is trusted for longer.
const TOKEN_LIFE_MAX: Duration = Duration::from_hours(24);
/// A token this near to its end is not used any more.
const TOKEN_MARGIN: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Auth {
    login: Option<Login>,
    /// `repository:<name>:<actions>`.
    scope: String,
    state: Mutex<State>,
}

#[derive(Clone, Debug, Default)]
enum State {
    /// Until the registry asks.
    #[default]
    Nobody,
    Basic,
    Bearer {
        token: String,
        until: Instant,
    },
}

/// Docker's token specification has `token`, OAuth 2 has `access_token`; registries send either, and Docker Hub both.
/// See <https://distribution.github.io/distribution/spec/auth/token/>.
#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    /// Seconds.
    expires_in: Option<u64>,
}

impl TokenAnswer {
    /// The token and how long it may be used. A token that lives shorter than our margin is used for half its life.
    fn read(body: &[u8]) -> Result<(String, Duration), &'static str> {
        let answer: Self = serde_json::from_slice(body).map_err(|_| "the answer is not a token")?;
        let given = [answer.token, answer.access_token].into_iter().flatten().find(|token| !token.is_empty());
        let token = given.ok_or("the answer has no token")?;
        let life = answer.expires_in.filter(|seconds| *seconds > 0).map_or(TOKEN_LIFE, Duration::from_secs);
        let life = life.min(TOKEN_LIFE_MAX);
        Ok((token, life.saturating_sub(TOKEN_MARGIN).max(life / 2)))
    }
}

impl Auth {
    pub(super) fn new(login: Option<Login>, repository: &str, actions: &str) -> Self {
        Self { login, scope: format!("repository:{repository}:{actions}"), state: Mutex::default() }
    }

    pub(super) fn apply(&self, request: RequestBuilder) -> RequestBuilder {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match (state, &self.login) {
            (State::Basic, Some(login)) => request.basic_auth(&login.user, Some(&login.password)),
            (State::Bearer { token, until }, _) if Instant::now() < until => request.bearer_auth(token),
            _ => request,
        }
    }

    /// Answers a 401: what the registry asks for is used from now on.
    pub(super) async fn answer(&self, http: &reqwest::Client, host: &str, headers: &HeaderMap) -> Result<(), Failure> {
        let asked = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenges: Vec<&str> = asked.collect();
        let is = |scheme: &'static str| {
            move |challenge: &&&str| {
                challenge.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
            }
        };
        let state = if let Some(challenge) = challenges.iter().find(is("bearer ")) {
            self.token(http, host, challenge).await?
        } else if challenges.iter().any(|challenge| is("basic")(&challenge)) && self.login.is_some() {
            State::Basic
        } else {
            return Err(self.denied(host).into());
        };
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        Ok(())
    }

    pub(super) fn denied(&self, host: &str) -> Error {
        let whom = match &self.login {
            Some(login) => format!("as {:?}", login.user),
            None => "without a login: no Docker configuration has one for it".to_owned(),
        };
        Error::new(ErrorKind::Denied, format!("{host} does not let us use {} ({whom})", self.scope))
    }

    async fn token(&self, http: &reqwest::Client, host: &str, challenge: &str) -> Result<State, Failure> {
        let what = "get a token";
        let wrong = |why: &str| Error::new(ErrorKind::Denied, format!("cannot {what} for {host}: {why}"));
        let realm = parameter(challenge, "realm").ok_or_else(|| wrong("it names no realm"))?;
        let mut url = Url::parse(&realm).map_err(|_| wrong("its realm is no URL"))?;
        let token_host = url.host_str().unwrap_or_default().to_owned();
        let own_host = host.rsplit_once(':').map_or(host, |(name, _)| name);
        if self.login.is_some() && url.scheme() != "https" && token_host != own_host {
            return Err(wrong("its realm would send the password unencrypted to another host").into());
        }
        if let Some(service) = parameter(challenge, "service") {
            url.query_pairs_mut().append_pair("service", &service);
        }
        url.query_pairs_mut().append_pair("scope", &self.scope);
        let mut request = http.get(url).timeout(super::ANSWER);
        if let Some(login) = &self.login {
            request = request.basic_auth(&login.user, Some(&login.password));
        }
        let response = request.send().await.map_err(|error| no_answer(what, &token_host, &error))?;
        if !response.status().is_success() {
            return Err(refusal(what, &token_host, response).await);
        }
        let body = whole(response, 1 << 20, what, &token_host).await?;
        let (token, life) = TokenAnswer::read(&body).map_err(wrong)?;
        Ok(State::Bearer { token, until: Instant::now() + life })
    }
}

/// `name="value"` of a challenge.
fn parameter(challenge: &str, name: &str) -> Option<String> {
    let mut rest = challenge.split_once(' ')?.1;
    loop {
        let (key, after) = rest.split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').map_or((after, ""), |(value, after)| (value, after)),
        };
        if key.trim_matches([' ', ',']).eq_ignore_ascii_case(name) {
            return Some(value.to_owned());
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_registrys_token_is_understood() {
        let long = Duration::from_secs(290);
        for (body, token, life) in [
            // Docker Hub.
            (r#"{"token":"t","access_token":"t","expires_in":300,"issued_at":"2026-01-01T00:00:00Z"}"#, "t", long),
            // Harbor, GitLab, GHCR.
            (r#"{"token":"t","expires_in":300}"#, "t", long),
            (r#"{"token":"t"}"#, "t", Duration::from_secs(50)),
            // Azure.
            (r#"{"access_token":"a"}"#, "a", Duration::from_secs(50)),
            (r#"{"token":"","access_token":"a","expires_in":300}"#, "a", long),
            (r#"{"token":"t","expires_in":10}"#, "t", Duration::from_secs(5)),
            (r#"{"token":"t","expires_in":0}"#, "t", Duration::from_secs(50)),
        ] {
            assert_eq!(TokenAnswer::read(body.as_bytes()), Ok((token.to_owned(), life)), "{body}");
        }
        for body in ["", "[]", "{}", r#"{"token":""}"#] {
            assert!(TokenAnswer::read(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn challenges_are_read() {
        let challenge = r#"Bearer realm="https://auth.example/token?x=1,2",service="h, i",scope="repository:a:pull""#;
        assert_eq!(parameter(challenge, "realm").as_deref(), Some("https://auth.example/token?x=1,2"));
        assert_eq!(parameter(challenge, "service").as_deref(), Some("h, i"));
        assert_eq!(parameter(challenge, "Scope").as_deref(), Some("repository:a:pull"));
        assert_eq!(parameter(challenge, "error"), None);
        assert_eq!(parameter("Bearer realm=x, service=y", "service").as_deref(), Some("y"));
        assert_eq!(parameter("Bearer", "realm"), None);
    }
}
