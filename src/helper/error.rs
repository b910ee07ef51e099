//! What the helper could not do, with what stood in its way.

use std::error::Error as _;
use std::fmt;

use crate::contract::log_line;

/// What was tried, and why it failed: shown with all that caused it.
#[derive(Debug, thiserror::Error)]
pub(super) struct Error {
    /// As in "cannot write /a/b".
    what: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        let mut next = self.source();
        while let Some(error) = next {
            write!(f, ": {error}")?;
            // One of ours has shown the rest.
            next = error.source().filter(|_| !error.is::<Error>());
        }
        Ok(())
    }
}

impl Error {
    /// `what` was tried.
    pub(super) fn new(what: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { what: what.into(), source: source.into() }
    }
}

/// Says in the log what could not be done, where it is no reason to stop.
pub(super) fn log_failure(done: Result<(), impl fmt::Display>) {
    if let Err(error) = done {
        log_line!("bundle-operator helper: {error}");
    }
}

/// For the log, the kubelet and marks, which take text.
impl From<Error> for String {
    fn from(error: Error) -> Self {
        error.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn an_error_says_all_and_keeps_its_source() {
        let error = Error::new("cannot write /a", io::Error::from(io::ErrorKind::StorageFull));
        let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        assert_eq!(source.map(io::Error::kind), Some(io::ErrorKind::StorageFull));
        assert_eq!(String::from(Error::new("cannot mark", error)), "cannot mark: cannot write /a: no storage space");
    }
}
