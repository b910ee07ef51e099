//! Who we are to a registry: nobody, a user with a password, or the bearer of a token.

use super::answer::{no_answer, refusal, whole};
use super::login::Login;
use super::meaning::Step;
use crate::bundle::retry::Failure;
use crate::bundle::{Error, ErrorKind};
use reqwest::header::{CONTENT_TYPE, HeaderMap, WWW_AUTHENTICATE};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A registry that says nothing else means this.
const TOKEN_LIFE: Duration = Duration::from_mins(1);
/// No token is trusted for longer.
const TOKEN_LIFE_MAX: Duration = Duration::from_hours(24);
/// A token this near to its end is not used any more.
const TOKEN_MARGIN: Duration = Duration::from_secs(10);
/// A body is sent with a token that lives for as long, or half of its life.
pub(super) const AHEAD_OF_A_BODY: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Auth {
    /// In the order in which they are tried.
    logins: Vec<Login>,
    /// `repository:<name>:<actions>`.
    scope: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Which of the logins.
    login: usize,
    /// The registry has let it write: no other one follows it.
    writes: bool,
    how: How,
}

#[derive(Clone, Debug, Default)]
enum How {
    /// Until the registry asks.
    #[default]
    Nobody,
    Basic,
    Bearer(Bearer),
}

#[derive(Clone, Debug)]
struct Bearer {
    token: String,
    until: Instant,
    life: Duration,
    question: Question,
}

/// A challenge, and who made it: what another token is got by.
#[derive(Clone, Debug)]
struct Question {
    challenge: String,
    asked_by: Url,
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
    pub(super) fn new(logins: Vec<Login>, repository: &str, actions: &str) -> Self {
        Self { logins, scope: format!("repository:{repository}:{actions}"), state: Mutex::default() }
    }

    pub(super) fn apply(&self, request: RequestBuilder) -> RequestBuilder {
        let (login, how) = self.now();
        match (how, login) {
            (How::Basic, Some(login)) => request.basic_auth(&login.user, Some(&login.password)),
            (How::Bearer(bearer), _) if Instant::now() < bearer.until => request.bearer_auth(bearer.token),
            _ => request,
        }
    }

    /// Which login is used now, by its number.
    pub(super) fn login_number(&self) -> usize {
        self.state().login
    }

    /// What the login of this number was refused may be granted to the next one: false if there is none. Others may
    /// have gone on to it before.
    pub(super) fn try_next(&self, refused: usize) -> bool {
        let mut state = self.state();
        if state.login == refused && !state.writes && refused + 1 < self.logins.len() {
            *state = State { login: refused + 1, ..State::default() };
        }
        state.login != refused
    }

    /// The registry has let the login of this number write: the rest is pushed with it too. Half by one login and half by
    /// another would help nobody.
    pub(super) fn stay(&self, number: usize) {
        let mut state = self.state();
        if state.login != number {
            *state = State { login: number, ..State::default() };
        }
        state.writes = true;
    }

    /// Drops a token, and whether there was one.
    pub(super) fn forget(&self) -> bool {
        matches!(std::mem::take(&mut self.state().how), How::Bearer(_))
    }

    /// Gets another token when this one has not so much time left.
    pub(super) async fn renew(&self, http: &reqwest::Client, host: &str, ahead: Duration) -> Result<(), Failure> {
        let How::Bearer(bearer) = self.now().1 else { return Ok(()) };
        let left = bearer.until.saturating_duration_since(Instant::now());
        if left.is_zero() || left < ahead.min(bearer.life / 2) {
            self.ask(http, host, bearer.question).await?;
        }
        Ok(())
    }

    /// Answers a 401: what the registry asks for is used from now on. False: it asks for nothing that we know.
    pub(super) async fn answer(
        &self,
        http: &reqwest::Client,
        host: &str,
        asked_by: &Url,
        headers: &HeaderMap,
    ) -> Result<bool, Failure> {
        let asked = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenges: Vec<&str> = asked.collect();
        let is = |scheme: &'static str| {
            move |challenge: &&&str| {
                challenge.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
            }
        };
        if let Some(challenge) = challenges.iter().find(is("bearer ")) {
            let question = Question { challenge: (*challenge).to_owned(), asked_by: asked_by.clone() };
            self.ask(http, host, question).await?;
        } else if challenges.iter().any(|challenge| is("basic")(&challenge)) && self.now().0.is_some() {
            self.state().how = How::Basic;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    pub(super) fn denied(&self, host: &str) -> Error {
        let users: Vec<String> = self.logins.iter().map(|login| format!("{:?}", login.user)).collect();
        let whom = match users.join(" and as ") {
            users if users.is_empty() => "without a login: no Docker configuration has one for it".to_owned(),
            users => format!("as {users}"),
        };
        Error::new(ErrorKind::Denied, format!("{host} does not let us use {} ({whom})", self.scope))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> (Option<&Login>, How) {
        let state = self.state();
        (self.logins.get(state.login), state.how.clone())
    }

    /// Gets a token and uses it from now on.
    async fn ask(&self, http: &reqwest::Client, host: &str, question: Question) -> Result<(), Failure> {
        let number = self.login_number();
        let (token, life) = self.token(http, host, &question, self.logins.get(number)).await?;
        let bearer = Bearer { token, until: Instant::now() + life, life, question };
        let mut state = self.state();
        if state.login == number {
            state.how = How::Bearer(bearer);
        }
        Ok(())
    }

    async fn token(
        &self,
        http: &reqwest::Client,
        host: &str,
        question: &Question,
        login: Option<&Login>,
    ) -> Result<(String, Duration), Failure> {
        let what = "get a token";
        let wrong = |why: &str| Error::new(ErrorKind::Denied, format!("cannot {what} for {host}: {why}"));
        let Question { challenge, asked_by } = question;
        let realm = parameter(challenge, "realm").ok_or_else(|| wrong("it names no realm"))?;
        let url = asked_by.join(&realm).map_err(|_| wrong("its realm is no URL"))?;
        let token_host = url.host_str().unwrap_or_default().to_owned();
        if login.is_some() && url.scheme() != "https" && url.host_str() != asked_by.host_str() {
            return Err(wrong("its realm would send the password unencrypted to another host").into());
        }
        let service = parameter(challenge, "service");
        let mut asked: Vec<(&str, &str)> = service.iter().map(|service| ("service", service.as_str())).collect();
        asked.push(("scope", &self.scope));
        let response = Self::answer_of_endpoint(http, &url, &asked, login).await;
        let response = response.map_err(|error| no_answer(what, &token_host, error))?;
        if !response.status().is_success() {
            return Err(refusal(Step::Token, what, &token_host, response).await);
        }
        let body = whole(response, 1 << 20, what, &token_host).await?;
        Ok(TokenAnswer::read(&body).map_err(wrong)?)
    }

    async fn answer_of_endpoint(
        http: &reqwest::Client,
        url: &Url,
        asked: &[(&str, &str)],
        login: Option<&Login>,
    ) -> Result<Response, reqwest::Error> {
        if let Some(token) = login.and_then(|login| login.identity_token.as_deref()) {
            let mut form = url.clone();
            form.set_query(None);
            form.query_pairs_mut()
                .extend_pairs([("grant_type", "refresh_token"), ("client_id", "bundlerun"), ("refresh_token", token)])
                .extend_pairs(asked);
            let request = http.post(url.clone()).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
            let body = form.query().unwrap_or_default().to_owned();
            let response = request.body(body).timeout(super::ANSWER).send().await?;
            // Endpoints that know no OAuth say so in many ways; some take the token for a password.
            let knows_none = [
                StatusCode::BAD_REQUEST,
                StatusCode::UNAUTHORIZED,
                StatusCode::NOT_FOUND,
                StatusCode::METHOD_NOT_ALLOWED,
            ];
            if !knows_none.contains(&response.status()) {
                return Ok(response);
            }
        }
        let mut url = url.clone();
        url.query_pairs_mut().extend_pairs(asked);
        let mut request = http.get(url).timeout(super::ANSWER);
        if let Some(login) = login {
            request = request.basic_auth(&login.user, Some(&login.password));
        }
        request.send().await
    }
}

/// `name="value"` of a challenge.
fn parameter(challenge: &str, name: &str) -> Option<String> {
    let mut rest = challenge.split_once(' ')?.1;
    loop {
        let (key, after) = rest.split_once('=')?;
        let (value, after) = if let Some(quoted) = after.strip_prefix('"') {
            unquoted(quoted)?
        } else {
            let (value, after) = after.split_once(',').unwrap_or((after, ""));
            (value.to_owned(), after)
        };
        if key.trim_matches([' ', ',']).eq_ignore_ascii_case(name) {
            return Some(value);
        }
        rest = after;
    }
}

/// Up to the closing quote, with what a backslash takes out of its meaning; and what follows.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::shapes;
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

    #[test]
    fn challenges_of_real_registries_are_read() {
        for exchange in shapes::of_step("challenge") {
            let name = exchange.name();
            let challenge = exchange.header("www-authenticate").unwrap();
            let scheme = challenge.split_once(' ').unwrap().0;
            assert!(scheme.eq_ignore_ascii_case(exchange.expected("scheme").unwrap()), "{name}");
            for field in ["realm", "service", "scope", "error"] {
                let got = parameter(challenge, field);
                assert_eq!(got.as_deref(), exchange.expected(field), "{name}: {field}");
            }
        }
    }

    #[test]
    fn tokens_of_real_registries_are_used_and_not_for_too_long() {
        for exchange in shapes::of_step("token") {
            let (name, body) = (exchange.name(), exchange.body.clone().unwrap_or_default());
            let token = TokenAnswer::read(body.as_bytes()).ok();
            assert_eq!(token.as_ref().map(|(token, _)| &**token), exchange.expected("token"), "{name}");
            if let Some((_, life)) = token {
                let most = Duration::from_secs(exchange.expect["expires_in"].as_u64().unwrap());
                assert!(life > Duration::ZERO && life <= most, "{name}: {life:?}");
            }
        }
    }

    #[test]
    fn the_next_login_is_tried_once_by_all_who_were_refused() {
        let login = |user: &str| Login { user: user.to_owned(), password: String::new(), identity_token: None };
        let auth = Auth::new(vec![login("a"), login("b")], "r", "pull");
        let first = auth.login_number();
        assert!(auth.try_next(first) && auth.try_next(first));
        assert_eq!(auth.login_number(), 1);
        assert!(!auth.try_next(1));
        assert!(auth.denied("h").message.ends_with("(as \"a\" and as \"b\")"));
    }

    #[test]
    fn a_login_that_may_write_is_the_last_one() {
        let login = |user: &str| Login { user: user.to_owned(), password: String::new(), identity_token: None };
        let auth = Auth::new(["a", "b", "c"].map(login).to_vec(), "r", "pull,push");
        assert!(auth.try_next(0));
        auth.stay(1);
        assert!(!auth.try_next(1));
        assert!(auth.try_next(0), "whoever asked as the first one asks again");
        // Others were refused meanwhile, and had gone on.
        let auth = Auth::new(["a", "b", "c"].map(login).to_vec(), "r", "pull,push");
        assert!(auth.try_next(0));
        auth.stay(0);
        assert_eq!(auth.login_number(), 0);
    }
}
