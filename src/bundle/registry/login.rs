//! User names and passwords for registries, from Docker configuration files.

use crate::bundle::{Access, Error, ErrorKind};
use crate::oci::Reference;
use base64::Engine;
use serde::Deserialize;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;

/// The user of who has a token only, as Azure has it.
const TOKEN_USER: &str = "00000000-0000-0000-0000-000000000000";

/// As whom a registry is asked.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::bundle) struct Login {
    pub(in crate::bundle) user: String,
    /// Or the identity token, when that is all there is.
    pub(in crate::bundle) password: String,
    /// An OAuth 2 refresh token.
    pub(in crate::bundle) identity_token: Option<String>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    #[serde(rename = "auth")]
    encoded: Option<String>,
    username: Option<String>,
    password: Option<String>,
    #[serde(rename = "identitytoken")]
    identity_token: Option<String>,
}

/// The logins for a repository, in the order in which they are tried: the store's first where they may be used at all.
///
/// # Errors
/// There is none, and a configuration could not be read.
pub(super) fn logins_for(access: &Access, reference: &Reference) -> Result<Vec<Login>, Error> {
    let configs: Vec<&String> = configs_of_store(access, reference).chain(&access.docker_configs).collect();
    matching(&configs, &reference.host, &reference.repository)
}

/// The logins for writing to a repository: the store's, and the user's own only where the store has none.
///
/// # Errors
/// As [`logins_for`].
pub(super) fn logins_to_write(access: &Access, reference: &Reference) -> Result<Vec<Login>, Error> {
    let of_store: Vec<&String> = configs_of_store(access, reference).collect();
    let logins = matching(&of_store, &reference.host, &reference.repository)?;
    if logins.is_empty() { logins_for(access, reference) } else { Ok(logins) }
}

/// Those of the store, where they may be used at all.
fn configs_of_store<'a>(access: &'a Access, reference: &Reference) -> impl Iterator<Item = &'a String> {
    let is_own = access.store.repositories.iter().any(|own| is_below(own, reference));
    access.store.docker_configs.iter().filter(move |_| is_own)
}

fn is_below(own: &str, reference: &Reference) -> bool {
    let Ok(own) = Reference::parse_repository(own) else { return false };
    let rest = reference.repository.strip_prefix(&own.repository);
    own.host == reference.host && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Those whose key is a beginning of `host/repository`: text by text, the longest key first, as the kubelet takes them.
fn matching(configs: &[&String], host: &str, repository: &str) -> Result<Vec<Login>, Error> {
    let mut logins: Vec<Login> = vec![];
    let mut trouble = None;
    for (number, text) in configs.iter().enumerate() {
        match of_config(text, host, repository) {
            Ok(found) => {
                for login in found {
                    if !logins.contains(&login) {
                        logins.push(login);
                    }
                }
            }
            Err(why) => {
                let number = number + 1;
                let message = format!("Docker configuration {number} for {host} cannot be read: {why}");
                trouble.get_or_insert(Error::new(ErrorKind::Denied, message));
            }
        }
    }
    match trouble {
        Some(trouble) if logins.is_empty() => Err(trouble),
        _ => Ok(logins),
    }
}

fn of_config(text: &str, host: &str, repository: &str) -> Result<Vec<Login>, &'static str> {
    // A message of the parser could quote a part of the secret.
    let config: DockerConfig = serde_json::from_str(text).map_err(|_| "it is no JSON with auths")?;
    let matching = config.auths.iter().filter_map(|(key, auth)| Some((matches(key, host, repository)?, auth)));
    let mut matching: Vec<(usize, &Auth)> = matching.collect();
    matching.sort_by_key(|(length, _)| Reverse(*length));
    let logins: Result<Vec<Option<Login>>, _> = matching.into_iter().map(|(_, auth)| auth.login()).collect();
    Ok(logins?.into_iter().flatten().collect())
}

impl Auth {
    fn login(&self) -> Result<Option<Login>, &'static str> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let identity_token = given(&self.identity_token);
        let (user, password) = match (&self.username, &self.password) {
            (Some(user), Some(password)) => (user.clone(), password.clone()),
            _ => self.decoded()?.unwrap_or_default(),
        };
        let (user, password) = match (user.is_empty() && password.is_empty(), &identity_token) {
            (true, None) => return Ok(None),
            (_, Some(token)) if password.is_empty() => {
                (if user.is_empty() { TOKEN_USER.to_owned() } else { user }, token.clone())
            }
            _ => (user, password),
        };
        Ok(Some(Login { user, password, identity_token }))
    }

    /// `auth`, a user and a password in one.
    fn decoded(&self) -> Result<Option<(String, String)>, &'static str> {
        let Some(auth) = self.encoded.as_deref().filter(|auth| !auth.is_empty()) else { return Ok(None) };
        let engine = base64::engine::general_purpose::GeneralPurpose::new(
            &base64::alphabet::STANDARD,
            base64::engine::GeneralPurposeConfig::new()
                .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
        );
        let bytes = engine.decode(auth.trim()).map_err(|_| "auth is no base64")?;
        let text = String::from_utf8(bytes).map_err(|_| "auth is no text")?;
        let (user, password) = text.split_once(':').ok_or("auth is no user:password")?;
        Ok(Some((user.to_owned(), password.trim_end_matches('\0').to_owned())))
    }
}

/// How long the match is, if the key is one for the repository.
fn matches(key: &str, host: &str, repository: &str) -> Option<usize> {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (key_host, path) = key.split_once('/').unwrap_or((key, ""));
    if !host_matches(key_host, host) {
        return None;
    }
    // Docker's own keys end so: they mean the whole registry.
    let path = path.trim_end_matches('/');
    let path = if matches!(path, "v1" | "v2") { "" } else { path };
    let rest = repository.strip_prefix(path)?;
    // A key without wildcards is the more exact one.
    let exact = usize::from(!key_host.contains('*'));
    (path.is_empty() || rest.is_empty() || rest.starts_with('/')).then_some(path.len() * 2 + exact)
}

fn host_matches(key: &str, host: &str) -> bool {
    let plain = |host: &str| match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        other => other.to_ascii_lowercase(),
    };
    let (key, host) = (plain(key), plain(host));
    if !key.contains('*') {
        return key == host;
    }
    let (key, host): (Vec<_>, Vec<_>) = (key.split('.').collect(), host.split('.').collect());
    let part = |(key, host): (&&str, &&str)| match key.split_once('*') {
        Some((start, end)) => host.len() >= start.len() + end.len() && host.starts_with(start) && host.ends_with(end),
        None => key == host,
    };
    key.len() == host.len() && key.iter().zip(&host).all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(config: &str, host: &str, repository: &str) -> Option<String> {
        matching(&[&config.to_owned()], host, repository).unwrap().into_iter().next().map(|login| login.user)
    }

    #[test]
    fn the_longest_key_counts() {
        let config = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "aHViOnB3"},
            "h.example:5000": {"username": "all", "password": "p"},
            "h.example:5000/team": {"username": "team", "password": "p"},
            "h.example:5000/team/one": {"username": "one", "password": "p"},
            "https://old.example/v1/": {"username": "old", "password": "p"},
            "*.wild.example": {"username": "wild", "password": "p"},
            "a.wild.example": {"username": "a", "password": "p"},
            "helper.example": {}
        }}"#;
        for (host, repository, expected) in [
            ("docker.io", "library/busybox", Some("hub")),
            ("h.example:5000", "other/x", Some("all")),
            ("h.example:5000", "team/x", Some("team")),
            ("h.example:5000", "teams/x", Some("all")),
            ("h.example:5000", "team/one", Some("one")),
            ("h.example", "team/one", None),
            ("old.example", "x", Some("old")),
            ("a.wild.example", "x", Some("a")),
            ("b.wild.example", "x", Some("wild")),
            ("b.c.wild.example", "x", None),
            ("helper.example", "x", None),
        ] {
            assert_eq!(user(config, host, repository).as_deref(), expected, "{host}/{repository}");
        }
    }

    #[test]
    fn all_texts_count_and_a_broken_one_is_said_without_its_secret() {
        let texts = [
            r#"{"auths": {"other": {"username": "x", "password": "y"}}}"#.to_owned(),
            r#"{"auths": {"h": {"auth": "dTpwOnc"}, "h/x": {"username": "long", "password": "p"}}}"#.to_owned(),
            "broken".to_owned(),
            r#"{"auths": {"h": {"username": "third", "password": "p"}}}"#.to_owned(),
        ];
        let texts: Vec<&String> = texts.iter().collect();
        let logins = matching(&texts, "h", "x").unwrap();
        assert_eq!(logins.iter().map(|login| &*login.user).collect::<Vec<_>>(), ["long", "u", "third"]);
        assert_eq!(logins[1].password, "p:w");
        assert!(!format!("{logins:?}").contains("p:w"));
        for broken in
            ["secret", r#"{"auths": {"h": {"auth": "!secret"}}}"#, r#"{"auths": {"h": {"auth": "c2VjcmV0"}}}"#]
        {
            let error = matching(&[&broken.to_owned()], "h", "x").unwrap_err();
            assert_eq!(error.kind, ErrorKind::Denied);
            assert!(!error.message.contains("secret"), "{error}");
        }
    }

    #[test]
    fn an_identity_token_stands_for_a_password() {
        let of = |auth: &str| {
            let config = format!(r#"{{"auths": {{"h": {auth}}}}}"#);
            let login = matching(&[&config], "h", "x").unwrap().remove(0);
            (login.user, login.password, login.identity_token)
        };
        let token = || Some("t".to_owned());
        assert_eq!(of(r#"{"identitytoken": "t"}"#), (TOKEN_USER.to_owned(), "t".to_owned(), token()));
        // `u:`, as `docker login` writes it.
        assert_eq!(of(r#"{"auth": "dTo=", "identitytoken": "t"}"#), ("u".to_owned(), "t".to_owned(), token()));
        assert_eq!(of(r#"{"auth": "dTpw", "identitytoken": ""}"#), ("u".to_owned(), "p".to_owned(), None));
    }

    #[test]
    fn the_stores_login_is_for_outputs_of_the_own_namespace() {
        let config = |user: &str| format!(r#"{{"auths": {{"h:5000": {{"username": "{user}", "password": "p"}}}}}}"#);
        let mut access = Access { docker_configs: vec![config("own")], ..Access::default() };
        access.store.repositories = vec!["h:5000/bundles/a".to_owned()];
        access.store.docker_configs = vec![config("store")];
        for (reference, users) in [
            ("h:5000/bundles/a:t", vec!["store", "own"]),
            ("h:5000/bundles/a/b:t", vec!["store", "own"]),
            ("h:5000/bundles/ab:t", vec!["own"]),
            ("h:5000/bundles/b:t", vec!["own"]),
            ("h:5000/bundles:t", vec!["own"]),
            ("h:5000/other/bundles/a:t", vec!["own"]),
            ("h:5001/bundles/a:t", vec![]),
        ] {
            let logins = logins_for(&access, &Reference::parse(reference).unwrap()).unwrap();
            assert_eq!(logins.iter().map(|login| &*login.user).collect::<Vec<_>>(), users, "{reference}");
        }
    }
}
