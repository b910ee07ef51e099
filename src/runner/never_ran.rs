//! Endings in which the command never began.

use crate::contract::{Cause, Record};

/// Why the command never began.
#[derive(Debug, Default)]
pub(crate) struct NeverRan {
    /// None: the platform asked to stop.
    pub(crate) cause: Option<Cause>,
    pub(crate) detail: String,
    /// How long inputs were waited for.
    pub(crate) staging_ms: u64,
}

impl NeverRan {
    pub(crate) fn because(cause: Cause, detail: impl Into<String>) -> Self {
        Self { cause: Some(cause), detail: detail.into(), staging_ms: 0 }
    }

    /// The platform asked to stop before there was anything to stop.
    pub(crate) fn asked_to_stop() -> Self {
        Self { cause: None, detail: "asked to stop before the command began".to_owned(), staging_ms: 0 }
    }

    /// The record of it. 126 and 127 are also the command's exit code, as from a shell.
    pub(crate) fn into_record(self) -> Record {
        let exit_code = match self.cause {
            Some(cause @ (Cause::CommandNotFound | Cause::CommandNotExecutable)) => Some(cause.container_exit_code()),
            _ => None,
        };
        Record {
            cause: self.cause,
            exit_code,
            asked_to_stop: self.cause.is_none(),
            staging_ms: self.staging_ms,
            detail: self.detail,
            ..Record::default()
        }
    }
}
