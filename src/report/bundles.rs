//! What the helper is asked to stage and to save, and what it says of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One input: where the command finds it, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestedInput {
    /// As in the spec: relative to the working directory, absolute, or `.`.
    pub path: String,
    /// Where it comes from.
    pub source: InputSource,
}

/// Where an input comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum InputSource {
    /// A bundle or any other image in a registry: downloaded and unpacked by the helper.
    Image {
        /// `host[:port]/repository` with `@digest` or `:tag`.
        reference: String,
        /// File or directory in it; none: all of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<String>,
    },
    /// A file with this text.
    Text(String),
    /// A file to download.
    Url {
        /// http or https.
        href: String,
        /// 64 lower-case hex digits.
        sha256: String,
    },
    /// The kubelet has mounted it for the helper, at `<sources>/<index of the input>`; it is copied, so that the command
    /// finds the same from its start to its end.
    Copied {
        /// The name of the one file there that is the input; none: the whole directory is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<String>,
    },
    /// The kubelet mounts it for the command: nothing to stage but what it is mounted over.
    Mounted {
        /// A file, not a directory.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        file: bool,
        /// It is mounted for the helper as well, at `<sources>/<index of the input>`: nothing there means that it does not
        /// exist.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        shown: bool,
    },
}

impl InputSource {
    /// The helper puts it into the volume of inputs.
    #[must_use]
    pub fn is_staged(&self) -> bool {
        !matches!(self, Self::Mounted { .. })
    }
}

/// What an input was when its run began: every attempt gets the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pin {
    /// `host[:port]/repository@sha256:<hex>`.
    pub reference: String,
    /// Uid of the run whose output it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_uid: Option<String>,
    /// See [`Saved::mountable`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mountable: bool,
}

/// What the operator must know later of a pod that it made; an annotation of the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pins {
    /// Where the output goes, `host[:port]/repository`; none: no store is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// By the index of the input.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<usize, Pin>,
}

/// Where the output goes and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SaveRequest {
    /// `host[:port]/repository`.
    pub repository: String,
    /// Never used before.
    pub tag: String,
    /// Globs relative to the working directory: what they match is not saved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Longest time for saving after the command ended by itself, in seconds.
    pub deadline_seconds: u64,
    /// Longest time for saving after the run was asked to stop, in seconds.
    pub interrupted_seconds: u64,
    /// Said of how the output was made, in an artifact beside it: the image that was asked for, names and uids.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub made_by: serde_json::Map<String, serde_json::Value>,
}

/// How registries are spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Registries {
    /// `host[:port]` of those that speak plain HTTP.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub insecure: Vec<String>,
    /// PEM of certificate authorities trusted beside the usual ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

impl Registries {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The output as it is in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Saved {
    /// Digest of its manifest, as it was read back: `sha256:<hex>`.
    pub digest: String,
    /// Bytes that went to the store; what it had already is not among them.
    pub pushed_bytes: u64,
    /// Sockets, devices and FIFOs, files that could not be read or kept changing: left out, and listed in the bundle.
    #[serde(skip_serializing_if = "super::is_zero")]
    pub skipped: u64,
    /// A container runtime that mounts the image shows what an input of it is: no name that would be a deletion, all of it
    /// readable for every user.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub mountable: bool,
}

/// How far staging or saving has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// What the helper is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProgressStage {
    /// Putting inputs in place.
    Staging,
    /// Saving the output.
    Saving,
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
