//! What went wrong, in kinds that the caller can act on.

use std::fmt::Display;
use std::io;

/// What went wrong, in kinds that the caller can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// There is no such repository, manifest, blob, or path in the image.
    NotFound,
    /// The registry does not know us, or does not let us.
    Denied,
    /// The registry's quota is used up.
    Quota,
    /// No answer, or answers that may be others later, after all retries.
    Unreachable,
    /// The registry's certificate is not trusted, or it speaks no TLS.
    Tls,
    /// Larger than a limit: ours or the registry's.
    TooLarge,
    /// Content that is not what it should be: another digest, no archive, an archive that reaches out of its place.
    Invalid,
    /// The disk is full.
    DiskFull,
    /// Anything else of this machine.
    Local,
}

/// What was tried, on what, and why it failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// See [`ErrorKind`].
    pub kind: ErrorKind,
    /// For people: one line.
    pub message: String,
    /// Entries of a tree that the machine failed to read, at most [`MOST_DAMAGED`]: the sha256 of the path of each.
    pub damaged: Vec<String>,
}

/// As many entries are named in one error.
pub(super) const MOST_DAMAGED: usize = 2000;

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let message: String = message.into();
        // One line, whatever a registry or a file name put into it.
        let message = message.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>();
        Self { kind, message: message.join(" "), damaged: vec![] }
    }

    /// See [`ErrorKind::Unreachable`].
    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unreachable, message)
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::TooLarge, message)
    }

    /// Of this machine: `what` is what was tried, as in "cannot <what>".
    pub(crate) fn local(what: impl Display, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::DiskFull,
            _ => ErrorKind::Local,
        };
        Self::new(kind, format!("cannot {what}: {error}"))
    }
}

impl From<crate::oci::Error> for Error {
    fn from(error: crate::oci::Error) -> Self {
        Self::invalid(error.to_string())
    }
}

/// Bytes as text for people: what is not UTF-8 is replaced, and a very long path is cut in its middle.
pub(super) fn shown(path: &[u8]) -> String {
    const MOST: usize = 200;
    let text = String::from_utf8_lossy(path).replace(char::is_control, "?");
    if text.chars().count() <= MOST {
        return text;
    }
    let start: String = text.chars().take(MOST / 2).collect();
    let mut end: Vec<char> = text.chars().rev().take(MOST / 2).collect();
    end.reverse();
    format!("{start}...{}", end.into_iter().collect::<String>())
}
