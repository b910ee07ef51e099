//! What the operator must know of a pod that it made.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What an input was when its run began: every attempt gets the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pin {
    /// `host[:port]/repository@sha256:<hex>`; of a snapshot that is to be found, without the digest.
    pub reference: String,
    /// Uid of the run whose output it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_uid: Option<String>,
    /// See [`Saved::mountable`](crate::contract::Saved::mountable).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mountable: bool,
    /// It lacks files that its command did not let be read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_part: bool,
    /// An attempt before has found out that it is a file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_file: bool,
    /// It is a snapshot of the run, of which the helper finds out the digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotPin>,
}

impl Pin {
    /// It is a snapshot of a run that goes on: it may have none yet.
    #[must_use]
    pub fn awaits_its_run(&self) -> bool {
        self.snapshot.is_some_and(|of| !of.ended)
    }
}

/// What is known of the snapshots of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotPin {
    /// How many attempts it has had: there is no snapshot of one with a larger number yet.
    pub attempts: u32,
    /// It has ended: there will be no other.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
}

/// What the operator must know later of a pod that it made; an annotation of the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pins {
    /// Where the output goes, `host[:port]/repository`; none: no store is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The image of a run that names none: the default may be another one later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_image: Option<String>,
    /// By the index of the input.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<usize, Pin>,
}
