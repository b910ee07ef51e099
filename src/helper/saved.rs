//! What became of saving, and how long there is for it: left by one process for another.

use crate::contract::{NotSaved, Saved};
use crate::helper::markers::read_json;
use crate::names::files;
use crate::runner::Paths;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A saved output with its size: what the child leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedOutput {
    /// For the message.
    #[serde(flatten)]
    pub(super) saved: Saved,
    /// Regular files in it.
    #[serde(default)]
    pub(super) files: u64,
    /// Their size.
    #[serde(default)]
    pub(super) bytes: u64,
    /// What of it is not as usual, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) note: String,
}

/// A try that failed: what the child leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FailedTry {
    /// Why.
    #[serde(flatten)]
    pub(super) not_saved: NotSaved,
    /// How far it was, as in [`Progress::done_bytes`].
    #[serde(default)]
    pub(super) done_bytes: u64,
}

/// Until when the output may be saved; a restarted helper has no more time.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SaveUntil {
    /// Since the epoch.
    pub(super) ms: u64,
    /// From then on, since the epoch, what cannot be read is given up, so that the rest is saved in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) give_up_ms: Option<u64>,
}

/// When what cannot be read is given up: the last quarter of the time is for the rest.
pub(super) fn give_up_at(paths: &Paths) -> Option<SystemTime> {
    let until: SaveUntil = read_json(&paths.bin, files::SAVE_UNTIL)?;
    UNIX_EPOCH.checked_add(Duration::from_millis(until.give_up_ms?))
}
