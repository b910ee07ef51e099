//! What becomes of a snapshot that the command asks for, and where an attempt goes on: helper -> run container.

use serde::{Deserialize, Serialize};

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SnapshotAnswer {
    /// It is in the store: `repository@sha256:<hex>`.
    Taken(String),
    /// It is not: one line, why.
    Failed(String),
}

/// What is in the working directory before the command starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resumed {
    /// The snapshot, `repository@sha256:<hex>`; none: there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}
