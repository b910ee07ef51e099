//! `host[:port]/repository:tag` and `host[:port]/repository@digest`, as Docker reads them.

use super::{Digest, Error};

/// Where a manifest is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// With its port, as it is written; `docker.io` when it is not.
    pub host: String,
    /// Without the host.
    pub repository: String,
    /// The digest if there is one, else the tag, else `latest`.
    pub manifest: String,
}

impl Reference {
    /// Reads a reference.
    ///
    /// # Errors
    /// The text is not a reference; the message says what in it is wrong.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Error(format!("{text:?} is not an image reference: {why}"));
        let Parts { name, tag, digest } = parts(text);
        if digest.is_some_and(|digest| Digest::parse(digest).is_err()) {
            return Err(wrong("its digest is not sha256: and 64 hex digits"));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong("its tag has other characters than letters, digits, _ . -"));
        }
        let (host, repository) = split_host(name);
        if !is_host(&host) {
            return Err(wrong("invalid host"));
        }
        if !is_repository(&repository) {
            return Err(wrong("its repository has other characters than a-z, 0-9, . _ - /"));
        }
        let manifest = digest.or(tag).unwrap_or("latest").to_owned();
        Ok(Self { host, repository, manifest })
    }

    /// Reads the name of a repository, without tag and digest.
    ///
    /// # Errors
    /// The text is not such a name.
    pub fn parse_repository(text: &str) -> Result<Self, Error> {
        let reference = Self::parse(text)?;
        if without_tag_and_digest(text) == text {
            Ok(reference)
        } else {
            Err(Error(format!("{text:?} is not a repository but a reference")))
        }
    }
}

/// What is before the tag and the digest of a reference, as it is written. The rest is not checked.
#[must_use]
pub fn without_tag_and_digest(reference: &str) -> &str {
    parts(reference).name
}

/// `<repository>@<digest>`, in the repository that a reference names.
#[must_use]
pub fn by_digest(reference: &str, digest: &str) -> String {
    format!("{}@{digest}", without_tag_and_digest(reference))
}

/// The digest that a reference ends with.
#[must_use]
pub fn digest_of(reference: &str) -> Option<Digest> {
    Digest::parse(reference.rsplit_once('@')?.1).ok()
}

/// The registry and the repository that a reference names, each written in one way only. Of `host` alone the repository
/// is empty.
#[must_use]
pub fn place(reference: &str) -> (String, String) {
    let has_host = |first: &str| first.contains(['.', ':']) || first == "localhost";
    let (host, repository) = match reference.split_once('/') {
        Some((host, rest)) if has_host(host) => (host, without_tag_and_digest(rest)),
        None if has_host(reference) && !reference.contains('@') && !without_tag_and_digest(reference).is_empty() => {
            // `python:3` is an image, `host:5000` a registry: a tag is no number with a dot or `localhost` before it.
            match reference.split_once(':') {
                Some((name, _)) if !has_host(name) => ("docker.io", name),
                _ => (reference, ""),
            }
        }
        _ => ("docker.io", without_tag_and_digest(reference)),
    };
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix(":443").or_else(|| host.strip_suffix(":80")).unwrap_or(&host).trim_end_matches('.');
    let host = if matches!(host, "index.docker.io" | "registry-1.docker.io") { "docker.io" } else { host };
    (host.to_owned(), repository.to_owned())
}

struct Parts<'a> {
    /// Host and repository.
    name: &'a str,
    tag: Option<&'a str>,
    digest: Option<&'a str>,
}

fn parts(reference: &str) -> Parts<'_> {
    let (name, digest) = match reference.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (reference, None),
    };
    // A colon behind the last slash begins a tag, one before it a port.
    match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => Parts { name, tag: Some(tag), digest },
        _ => Parts { name, tag: None, digest },
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
            assert!(Reference::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Reference::parse_repository("localhost:5000/a/b").is_ok());
        for wrong in ["localhost:5000/a/b:t", &format!("a/b@{digest}")] {
            assert!(Reference::parse_repository(wrong).is_err(), "{wrong}");
        }
        assert!(Reference::parse("-/x:y z/").unwrap_err().to_string().contains("repository"));
        assert!(Reference::parse("h ost:1/x").unwrap_err().to_string().ends_with("invalid host"));
    }
}
