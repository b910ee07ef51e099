//! What the helper says of the ending and of the output: helper -> operator.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::record::Record;

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_zero_len(n: &usize) -> bool {
    *n == 0
}

/// First line of the helper's termination message: all that the operator needs to end a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Report {
    /// The runner's record; none: it left none that can be read, `missing` says why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<Record>,
    /// Why there is no record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<MissingRecord>,
    /// The snapshot that the attempt went on from, `repository@sha256:<hex>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumed_from: Option<String>,
    /// Inputs that are files, as was found out when the container had directories in their places, by their index.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub late_files: BTreeSet<usize>,
    /// Regular files in the working directory at the end.
    pub files: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// The saved output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saved: Option<Saved>,
    /// Why there is none, where it was to be saved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_saved: Option<NotSaved>,
    /// How much of an output that is not saved the store has; none: all is saved, or it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub so_far: Option<SavedSoFar>,
    /// How many bytes of the message, after the first line, are a line of digests (of inputs that the helper looked up).
    #[serde(skip_serializing_if = "is_zero_len")]
    pub inputs_len: usize,
    /// How many bytes of the message, after the line of digests, are the tail of stdout; those of stderr follow.
    pub stdout_len: usize,
    /// See `stdout_len`.
    pub stderr_len: usize,
}

/// How far saving came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SavedSoFar {
    /// Bytes that the store has for good: the next save does not send them again, where they are the same.
    pub stored_bytes: u64,
    /// Bytes of the output.
    pub total_bytes: u64,
}

/// Why the helper has no record to pass on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MissingRecord {
    /// The run container never started.
    NeverStarted,
    /// The runner died without a word (killed from outside, or the node ran out of memory).
    RunnerDied,
    /// There is something in its place that is no record.
    Unreadable,
}

/// Longest name with its reason of what an output lacks, in bytes.
pub const SKIPPED_NAME_MAX_BYTES: usize = 80;

/// The output as it is in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Saved {
    /// Digest of its manifest, as it was read back: `sha256:<hex>`.
    pub digest: String,
    /// Bytes that went to the store; what it had already is not among them.
    pub pushed_bytes: u64,
    /// Sockets, devices and FIFOs, files that could not be read or kept changing: left out, and listed in the bundle.
    #[serde(skip_serializing_if = "super::record::is_zero")]
    pub skipped: u64,
    /// Among them, what would be output had the run's processes let us read it: files without permission, or that kept
    /// changing.
    #[serde(skip_serializing_if = "super::record::is_zero")]
    pub withheld: u64,
    /// Among them, what the machine failed to read until it was given up.
    #[serde(skip_serializing_if = "super::record::is_zero")]
    pub damaged: u64,
    /// The first of them, the worst reasons first, at most three, each with its reason and at most
    /// [`SKIPPED_NAME_MAX_BYTES`] long: `a.sock (a socket)`. They give way where the message has no room.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped_names: Vec<String>,
    /// A container runtime that mounts the image shows what an input of it is: no name that would be a deletion, all of it
    /// readable for every user.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub mountable: bool,
}

/// Why there is no saved output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NotSaved {
    /// What stood in the way.
    pub failure: SaveFailure,
    /// One line for the user: what was tried, on what, and the answer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What stood in the way of saving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SaveFailure {
    /// The registry does not know us, or not let us write.
    StoreDenied,
    /// The registry has no such repository.
    StoreNotFound,
    /// The registry's quota is used up.
    StoreQuotaExceeded,
    /// The registry does not answer, or with errors, until the deadline.
    StoreUnreachable,
    /// The registry's certificate is not trusted.
    StoreTls,
    /// The store does not take an output of this size.
    OutputTooLarge,
    /// There was more to save than time for it.
    SaveDeadlineExceeded,
    /// The registry gave back something else than what it was given.
    StoreCorrupt,
    /// The helper could not do its own work.
    HelperFailed,
}
