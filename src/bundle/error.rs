//! What went wrong, in kinds that the caller can act on.

use std::error::Error as StdError;
use std::fmt::{self, Display};
use std::io;
use std::sync::Arc;

use crate::contract::both_ends;

/// What went wrong, in kinds that the caller can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The registry has no such repository, manifest or blob.
    NotFound,
    /// There is no such path in the image.
    PathNotFound,
    /// The registry does not know us, or does not let us.
    Denied,
    /// The registry's quota is used up.
    Quota,
    /// No answer, or answers that may be others later, after all retries.
    Unreachable,
    /// Nobody knows a host of this name.
    UnknownHost,
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
#[derive(Clone, Debug)]
pub struct Error {
    /// See [`ErrorKind`].
    pub kind: ErrorKind,
    /// For people: one line, which says what the source says.
    pub message: String,
    /// Entries of a tree that the machine failed to read, at most `MOST_DAMAGED`: the sha256 of the path of each.
    pub damaged: Vec<String>,
    /// Of this machine, or of a connection.
    pub(crate) source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// As many entries are named in one error.
pub(super) const MOST_DAMAGED: usize = 2000;

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let message: String = message.into();
        // One line, whatever a registry or a file name put into it.
        let message = message.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>();
        Self { kind, message: message.join(" "), damaged: vec![], source: None }
    }

    /// The same, with what it comes from.
    pub(crate) fn caused_by(self, source: impl StdError + Send + Sync + 'static) -> Self {
        Self { source: Some(Arc::new(source)), ..self }
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
        let kind = if is_full(&error) { ErrorKind::DiskFull } else { ErrorKind::Local };
        Self::new(kind, format!("cannot {what}: {error}")).caused_by(error)
    }
}

/// The disk, or our part of it, is used up.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

impl From<crate::oci::Error> for Error {
    fn from(error: crate::oci::Error) -> Self {
        Self::invalid(error.to_string()).caused_by(error)
    }
}

/// Bytes as text for people: what is not UTF-8 is replaced, and a very long path is cut in its middle.
pub(super) fn shown(path: &[u8]) -> String {
    const MOST: usize = 200;
    let text = String::from_utf8_lossy(path).replace(char::is_control, "?");
    both_ends(&text, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_this_machine_keeps_its_source() {
        for (kind, is) in [
            (io::ErrorKind::StorageFull, ErrorKind::DiskFull),
            (io::ErrorKind::QuotaExceeded, ErrorKind::DiskFull),
            (io::ErrorKind::FileTooLarge, ErrorKind::DiskFull),
            (io::ErrorKind::PermissionDenied, ErrorKind::Local),
        ] {
            let error = Error::local("write a", kind);
            let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
            assert_eq!((error.kind, source.map(io::Error::kind)), (is, Some(kind)));
            assert_eq!(error.to_string(), format!("cannot write a: {}", source.unwrap()));
        }
        assert!(Error::invalid("no\narchive").source().is_none());
    }
}
