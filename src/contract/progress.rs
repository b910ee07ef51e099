//! How far staging or saving has come: helper -> operator.

use serde::{Deserialize, Serialize};

use super::record::{Cause, is_zero};
use super::report::NotSaved;
use super::snapshot::Resumed;

/// How far staging or saving has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// What the helper is doing.
    pub stage: ProgressStage,
    /// Bytes that are done with.
    #[serde(default)]
    pub done_bytes: u64,
    /// Bytes in all, as far as known; 0: not known.
    #[serde(default)]
    pub total_bytes: u64,
    /// Of a save: bytes that the store has for good, whatever becomes of this try.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stored_bytes: u64,
    /// How fast `done_bytes` has grown of late; 0: not known, or not at all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes_per_second: u64,
    /// One line: why the last try failed, while it is tried again. Of versions before, while the command runs: why its
    /// output is too large.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trouble: String,
    /// Why the store did not accept an upload when it was last asked; none: it did, or nobody asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreTrouble>,
    /// What will go wrong, while the command runs; at most one of each kind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    /// What holds the command up, while inputs are put in place; none: nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<InputTrouble>,
    /// When what holds the command up before it starts is given up, in milliseconds since 1970; none: nothing does, or it
    /// is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up_at_ms: Option<i64>,
    /// What the attempt goes on from; none: it is not known yet, or the attempt was not to go on from anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed: Option<Resumed>,
    /// One line: what on the disk has given no answer for a while; empty: nothing hangs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hangs: String,
    /// The helper's [`super::Message`], whole, when all is done and the helper's container cannot end because a process in
    /// it hangs in the kernel: the kubelet will never tell it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub report: String,
}

impl Progress {
    /// Nothing is known of how far a stage has come.
    #[must_use]
    pub fn of(stage: ProgressStage) -> Self {
        let (done_bytes, total_bytes, stored_bytes, bytes_per_second) = Default::default();
        let (trouble, store, warnings, input, given_up_at_ms, resumed, hangs, report) = Default::default();
        Self {
            stage,
            done_bytes,
            total_bytes,
            stored_bytes,
            bytes_per_second,
            trouble,
            store,
            warnings,
            input,
            given_up_at_ms,
            resumed,
            hangs,
            report,
        }
    }
}

/// What will go wrong if the command goes on as it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// See [`WarningKind`].
    pub kind: WarningKind,
    /// One line for the user, with the figures.
    pub detail: String,
}

/// What can go wrong, the worst for the output first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum WarningKind {
    /// There is more than can be saved.
    OutputTooLarge,
    /// What the store has not yet would take longer than there is time for saving.
    SaveDeadlineExceeded,
    /// The disk that the run asked for is nearly full.
    DiskNearlyFull,
}

impl WarningKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::OutputTooLarge, Self::SaveDeadlineExceeded, Self::DiskNearlyFull];
}

/// Why the store does not accept an upload, before the command or while it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreTrouble {
    /// Its answer, and the words for it.
    #[serde(flatten)]
    pub not_saved: NotSaved,
    /// The command does not start for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub holds: bool,
}

/// Why an input is not in place, and is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InputTrouble {
    /// See [`InputProblem`].
    pub problem: InputProblem,
    /// One line for the user: the input, what was tried, on what, and the answer.
    pub detail: String,
}

/// What is wrong with an input that is waited for, in the order in which it is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum InputProblem {
    /// The store, whose it is, does not let us read it, is unknown, or shows a certificate that is not trusted.
    Store,
    /// Its server or registry says that there is no such thing.
    NotFound,
    /// Its server or registry does not let us read it.
    Denied,
    /// There is no such host, or its certificate is not trusted.
    NoServer,
    /// A `ConfigMap` or a Secret, or a key of it, does not exist.
    Absent,
    /// No answer, or one that may be another later.
    NoAnswer,
    /// The run has no snapshot yet.
    NoSnapshot,
}

impl InputProblem {
    /// What ends the attempt when the input has been waited for long enough.
    #[must_use]
    pub fn ends_as(self) -> Cause {
        match self {
            Self::Store => Cause::StoreRefused,
            Self::NotFound | Self::Absent | Self::NoSnapshot => Cause::InputNotFound,
            Self::Denied => Cause::InputDenied,
            Self::NoServer => Cause::InputUnreachable,
            Self::NoAnswer => Cause::StagingFailed,
        }
    }
}

/// What the helper is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProgressStage {
    /// Putting inputs in place, or waiting for what else the command needs.
    Staging,
    /// Watching the command.
    Running,
    /// Saving the output.
    Saving,
}
