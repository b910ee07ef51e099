//! Why an input is not in place, as far as the run is concerned.

use crate::bundle::{Error, ErrorKind};
use crate::contract::{Cause, RequestedInput, one_line};
use std::io;

/// Why an input could not be looked up or staged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::helper) enum Failure {
    /// Another try would end the same way.
    Final(Cause, String),
    /// May pass by itself.
    Passing(String),
}

impl Failure {
    /// The same, with the input named.
    pub(in crate::helper) fn of(self, input: &RequestedInput) -> Self {
        // Long paths must leave room for what is wrong.
        let path: String = one_line(&input.path).chars().take(60).collect();
        let named = |detail: String| format!("input {path}: {detail}");
        match self {
            Failure::Final(cause, detail) => Failure::Final(cause, named(detail)),
            Failure::Passing(detail) => Failure::Passing(named(detail)),
        }
    }

    /// For people.
    pub(in crate::helper) fn why(&self) -> &str {
        match self {
            Failure::Final(_, why) | Failure::Passing(why) => why,
        }
    }

    /// What went wrong when we wrote an input.
    pub(in crate::helper) fn writing(error: &io::Error) -> Self {
        if is_full(error) { full("") } else { Failure::Passing(format!("cannot be written: {error}")) }
    }
}

/// What the run may put on a disk is counted, so it was others who filled it: another node has room.
fn full(what: &str) -> Failure {
    Failure::Final(Cause::StagingFailed, format!("the disk of the node is full{what}"))
}

/// The disk, or our part of it, is used up.
pub(in crate::helper) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

impl From<Error> for Failure {
    fn from(Error { kind, message, .. }: Error) -> Self {
        match kind {
            ErrorKind::NotFound => Failure::Final(Cause::InputNotFound, message),
            ErrorKind::Denied => Failure::Final(Cause::InputDenied, message),
            ErrorKind::Invalid => Failure::Final(Cause::InputInvalid, message),
            ErrorKind::TooLarge => Failure::Final(Cause::InputTooLarge, message),
            ErrorKind::DiskFull => full(&format!(": {message}")),
            ErrorKind::Quota | ErrorKind::Unreachable | ErrorKind::Tls | ErrorKind::Local => Failure::Passing(message),
        }
    }
}
