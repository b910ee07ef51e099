//! How far staging or saving has come: helper -> operator.

use serde::{Deserialize, Serialize};

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
    /// One line: why the last try failed, while it is tried again.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trouble: String,
}

/// What the helper is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProgressStage {
    /// Putting inputs in place.
    Staging,
    /// Saving the output.
    Saving,
}
