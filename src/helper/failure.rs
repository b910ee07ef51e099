//! Why an input is not in place, as far as the run is concerned.

use crate::bundle::{Error, ErrorKind, is_full};
use crate::contract::{Cause, InputProblem, InputTrouble, Request, RequestedInput, both_ends, one_line};
use crate::helper;
use std::io;

/// Why an input could not be looked up or staged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::helper) enum Failure {
    /// Another try would end the same way.
    Permanent(Cause, String),
    /// The one who has the input may give it later.
    Awaited(InputProblem, String),
    /// May pass by itself.
    Transient(String),
}

impl Failure {
    /// The same, with the input named.
    pub(in crate::helper) fn of(self, input: &RequestedInput) -> Self {
        // Long paths must leave room for what is wrong.
        let path = both_ends(&one_line(&input.path), 60);
        let named = |detail: String| format!("input {path}: {detail}");
        match self {
            Failure::Permanent(cause, detail) => Failure::Permanent(cause, named(detail)),
            Failure::Awaited(problem, detail) => Failure::Awaited(problem, named(detail)),
            Failure::Transient(detail) => Failure::Transient(named(detail)),
        }
    }

    /// For people.
    pub(in crate::helper) fn why(&self) -> &str {
        match self {
            Failure::Permanent(_, why) | Failure::Awaited(_, why) | Failure::Transient(why) => why,
        }
    }

    /// The same of an input of this request: where it is in the store, whoever refuses it is the platform.
    pub(in crate::helper) fn of_one(self, input: &RequestedInput, request: &Request) -> Self {
        let mut repositories = request.save.iter().map(|save| &save.repository).chain(&request.own_repositories);
        let is_in_the_store = input.source.in_a_registry().is_some_and(|(reference, _)| {
            repositories.any(|repository| {
                let rest = reference.strip_prefix(repository.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['@', ':']))
            })
        });
        match self.of(input) {
            Failure::Awaited(InputProblem::Denied | InputProblem::NoServer, detail) if is_in_the_store => {
                Failure::Awaited(InputProblem::Store, detail)
            }
            failure => failure,
        }
    }

    /// What is waited for; none: waiting is no use.
    pub(in crate::helper) fn awaited(&self) -> Option<InputTrouble> {
        let (problem, detail) = match self {
            Failure::Permanent(..) => return None,
            Failure::Awaited(problem, detail) => (*problem, detail),
            Failure::Transient(detail) => (InputProblem::NoAnswer, detail),
        };
        Some(InputTrouble { problem, detail: one_line(detail) })
    }

    /// What went wrong when we wrote an input.
    pub(in crate::helper) fn writing(error: &io::Error) -> Self {
        if is_full(error) { full("") } else { Failure::Transient(format!("cannot be written: {error}")) }
    }
}

/// What the run may put on a disk is counted, so it was others who filled it: another node has room.
fn full(what: &str) -> Failure {
    Failure::Permanent(Cause::StagingFailed, format!("the disk of the node is full{what}"))
}

/// What we failed to note.
impl From<helper::Error> for Failure {
    fn from(error: helper::Error) -> Self {
        Failure::Transient(error.to_string())
    }
}

impl From<Error> for Failure {
    fn from(Error { kind, message, .. }: Error) -> Self {
        match kind {
            ErrorKind::NotFound => Failure::Awaited(InputProblem::NotFound, message),
            ErrorKind::Denied => Failure::Awaited(InputProblem::Denied, message),
            ErrorKind::UnknownHost | ErrorKind::Tls => Failure::Awaited(InputProblem::NoServer, message),
            ErrorKind::PathNotFound => Failure::Permanent(Cause::InputNotFound, message),
            ErrorKind::Invalid => Failure::Permanent(Cause::InputInvalid, message),
            ErrorKind::TooLarge => Failure::Permanent(Cause::InputTooLarge, message),
            ErrorKind::DiskFull => full(&format!(": {message}")),
            ErrorKind::Quota | ErrorKind::Unreachable | ErrorKind::Local => Failure::Transient(message),
        }
    }
}
