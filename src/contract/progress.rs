//! How far staging or saving has come: helper -> operator.

use serde::{Deserialize, Serialize};

use super::report::NotSaved;

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
    /// One line: why the last try failed, while it is tried again; what will go wrong, while the command runs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trouble: String,
    /// Why the store did not accept an upload when it was last asked; none: it did, or nobody asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreTrouble>,
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
        let (done_bytes, total_bytes, trouble, store, hangs, report) = Default::default();
        Self { stage, done_bytes, total_bytes, trouble, store, hangs, report }
    }
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
