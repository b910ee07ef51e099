//! `host[:port]/repository:tag` and `host[:port]/repository@digest`, as Docker reads them.

use super::{Error, ErrorKind};

/// Where a manifest is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    /// As it is written, `docker.io` when it is not.
    pub(super) host: String,
    /// Without the host.
    pub(super) repository: String,
    /// The digest if there is one, else the tag, else `latest`.
    pub(super) manifest: String,
}

impl Reference {
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Error::invalid(format!("{text:?} is no image reference: {why}"));
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        // A colon behind the last slash begins a tag, one before it a port.
        let (name, tag) = match name.rsplit_once(':') {
            Some((before, tag)) if !tag.contains('/') => (before, Some(tag)),
            _ => (name, None),
        };
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return Err(wrong("its digest is not sha256: and 64 hex digits"));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong("its tag has other characters than letters, digits, _ . -"));
        }
        let (host, repository) = split_host(name);
        if !is_host(&host) {
            return Err(wrong("its host is none"));
        }
        if !is_repository(&repository) {
            return Err(wrong("its repository has other characters than a-z, 0-9, . _ - /"));
        }
        let manifest = digest.or(tag).unwrap_or("latest").to_owned();
        Ok(Self { host, repository, manifest })
    }

    /// Of a repository, without tag and digest.
    pub(super) fn parse_repository(text: &str) -> Result<Self, Error> {
        let reference = Self::parse(text)?;
        let tag = text.rsplit_once(':').is_some_and(|(_, tag)| !tag.contains('/'));
        if tag || text.contains('@') {
            return Err(Error::new(ErrorKind::Invalid, format!("{text:?} is no repository but a reference")));
        }
        Ok(reference)
    }
}

fn split_host(name: &str) -> (String, String) {
    match name.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => {
            let host = if host == "index.docker.io" { "docker.io" } else { host };
            let library = host == "docker.io" && !rest.contains('/');
            (host.to_owned(), if library { format!("library/{rest}") } else { rest.to_owned() })
        }
        Some(_) => ("docker.io".to_owned(), name.to_owned()),
        None => ("docker.io".to_owned(), format!("library/{name}")),
    }
}

/// `sha256:` and 64 lower-case hex digits.
pub(super) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

fn is_tag(tag: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    (1..=128).contains(&tag.len()) && tag.bytes().all(known) && !tag.starts_with(['.', '-'])
}

fn is_host(host: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']' | b'_');
    (1..=255).contains(&host.len()) && host.bytes().all(known)
}

fn is_repository(repository: &str) -> bool {
    let known = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    let part = |part: &str| {
        part.bytes().all(known)
            && part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.ends_with(|c: char| c.is_ascii_alphanumeric())
    };
    repository.len() <= 255 && repository.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_docker_reads_them() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let at = format!("h.example/a/b:tag@{digest}");
        for (text, host, repository, manifest) in [
            ("busybox", "docker.io", "library/busybox", "latest"),
            ("docker.io/busybox:1", "docker.io", "library/busybox", "1"),
            ("index.docker.io/a/b", "docker.io", "a/b", "latest"),
            ("user/image:v1", "docker.io", "user/image", "v1"),
            ("localhost/x", "localhost", "x", "latest"),
            ("localhost:5000/x", "localhost:5000", "x", "latest"),
            ("10.0.0.1:5000/bundles/ns:run.1.abc", "10.0.0.1:5000", "bundles/ns", "run.1.abc"),
            (&at, "h.example", "a/b", &digest),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!((&*reference.host, &*reference.repository, &*reference.manifest), (host, repository, manifest));
        }
        for wrong in ["", "a b", "Upper", "x:", "h.example/", "x@sha256:12", "h.example/../x", "x:ta/g?", "x:a b"] {
            assert_eq!(Reference::parse(wrong).unwrap_err().kind, ErrorKind::Invalid, "{wrong}");
        }
        assert!(Reference::parse_repository("localhost:5000/a/b").is_ok());
        assert!(Reference::parse_repository("localhost:5000/a/b:t").is_err());
    }
}
