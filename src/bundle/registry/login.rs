//! User names and passwords for registries, from Docker configuration files.

use crate::bundle::{Error, ErrorKind};
use base64::Engine;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;

/// As whom a registry is asked.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::bundle) struct Login {
    pub(in crate::bundle) user: String,
    pub(in crate::bundle) password: String,
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
}

/// The login for a repository: of the first text that has one, that of the longest key which is a beginning of
/// `host/repository`, as the kubelet takes it.
pub(in crate::bundle) fn login_for(configs: &[String], host: &str, repository: &str) -> Result<Option<Login>, Error> {
    for (number, text) in configs.iter().enumerate() {
        let wrong = |why: &str| {
            let number = number + 1;
            Error::new(ErrorKind::Denied, format!("Docker configuration {number} for {host} cannot be read: {why}"))
        };
        // A message of the parser could quote a part of the secret.
        let config: DockerConfig = serde_json::from_str(text).map_err(|_| wrong("it is no JSON with auths"))?;
        let matching = config.auths.iter().filter_map(|(key, auth)| Some((matches(key, host, repository)?, auth)));
        let Some((_, auth)) = matching.max_by_key(|(length, _)| *length) else { continue };
        if let Some(login) = auth.login().map_err(wrong)? {
            return Ok(Some(login));
        }
    }
    Ok(None)
}

impl Auth {
    fn login(&self) -> Result<Option<Login>, &'static str> {
        if let (Some(user), Some(password)) = (&self.username, &self.password) {
            return Ok(Some(Login { user: user.clone(), password: password.clone() }));
        }
        let Some(auth) = self.encoded.as_deref().filter(|auth| !auth.is_empty()) else { return Ok(None) };
        let engine = base64::engine::general_purpose::GeneralPurpose::new(
            &base64::alphabet::STANDARD,
            base64::engine::GeneralPurposeConfig::new()
                .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
        );
        let bytes = engine.decode(auth.trim()).map_err(|_| "auth is no base64")?;
        let text = String::from_utf8(bytes).map_err(|_| "auth is no text")?;
        let (user, password) = text.split_once(':').ok_or("auth is no user:password")?;
        Ok(Some(Login { user: user.to_owned(), password: password.trim_end_matches('\0').to_owned() }))
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
        login_for(&[config.to_owned()], host, repository).unwrap().map(|login| login.user)
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
    fn the_first_text_with_an_entry_counts_and_a_broken_one_is_said_without_its_secret() {
        let texts = [
            r#"{"auths": {"other": {"username": "x", "password": "y"}}}"#.to_owned(),
            r#"{"auths": {"h": {"auth": "dTpwOnc"}}}"#.to_owned(),
        ];
        let login = login_for(&texts, "h", "x").unwrap().unwrap();
        assert_eq!((&*login.user, &*login.password), ("u", "p:w"));
        assert!(!format!("{login:?}").contains("p:w"));
        for broken in
            ["secret", r#"{"auths": {"h": {"auth": "!secret"}}}"#, r#"{"auths": {"h": {"auth": "c2VjcmV0"}}}"#]
        {
            let error = login_for(&[broken.to_owned()], "h", "x").unwrap_err();
            assert_eq!(error.kind, ErrorKind::Denied);
            assert!(!error.message.contains("secret"), "{error}");
        }
    }
}
