//! What the runner and the helper are asked to do: operator -> pod.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::gpu::GpuRequest;
use super::pins::SnapshotPin;
use super::progress::InputProblem;
use super::record::Cause;
use super::text::one_line;

/// What the runner shall run. Travels as JSON in a pod annotation, which a downward API volume shows untouched:
/// Kubernetes rewrites `$$` and `$(NAME)` in `command`, `args` and `env`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// What to execute.
    pub command: Command,
    /// The command is ended after this many seconds; none: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_limit_seconds: Option<u64>,
    /// Seconds between TERM and KILL, after the time limit and when asked to stop.
    pub stop_grace_seconds: u64,
    /// The working directory may hold this many bytes; none: no limit of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// What a run with GPUs needs before its command; none: it asked for no GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<GpuRequest>,
    /// What the command finds besides its image, in the order of the spec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<RequestedInput>,
    /// Inputs that are not in place after this many seconds end the attempt; none: there is nothing to stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staging_seconds: Option<u64>,
    /// For how long the command waits for inputs that cannot be had.
    #[serde(default, skip_serializing_if = "InputPatience::is_usual")]
    pub patience: InputPatience,
    /// Paths of read-write volumes below the working directory, relative to it: never part of the output.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// Where the output goes; none: no store is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub save: Option<SaveRequest>,
    /// Tags in `save.repository` of the snapshots of earlier attempts, the newest attempt first: the first that there is, is put
    /// back before the command starts. Empty: the attempt starts with nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resume_from: Vec<String>,
    /// How registries are spoken to.
    #[serde(default, skip_serializing_if = "Registries::is_default")]
    pub registries: Registries,
    /// Where outputs of this namespace are beside `save.repository`, `host[:port]/repository`: the store's login is for
    /// these alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own_repositories: Vec<String>,
}

impl Request {
    /// A command and nothing else: no limits, nothing staged, nothing saved.
    #[must_use]
    pub fn new(command: Command, stop_grace_seconds: u64) -> Self {
        Self {
            command,
            time_limit_seconds: None,
            stop_grace_seconds,
            disk_bytes: None,
            gpus: None,
            inputs: Vec::new(),
            staging_seconds: None,
            patience: InputPatience::default(),
            volumes: Vec::new(),
            save: None,
            resume_from: Vec::new(),
            registries: Registries::default(),
            own_repositories: Vec::new(),
        }
    }
}

/// A command is data: it is never spliced into a shell line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Command {
    /// Text for bash if the image has it, else sh, after the image's `.bashrc`.
    Shell(String),
    /// A program and its arguments, executed without any shell.
    Argv(Vec<String>),
}

/// The helper's order to the runner to end the command, or not to begin it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndOrder {
    /// Becomes the record's. None: the user asked for the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Becomes the record's: one line, at most [`DETAIL_MAX_BYTES`](crate::contract::DETAIL_MAX_BYTES).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl EndOrder {
    /// An order with a detail that is one line of a bounded length.
    #[must_use]
    pub fn new(cause: Cause, detail: &str) -> Self {
        Self { cause: Some(cause), detail: one_line(detail) }
    }

    /// The user's.
    #[must_use]
    pub fn stop() -> Self {
        Self { cause: None, detail: String::new() }
    }
}

/// One input: where the command finds it, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestedInput {
    /// As in the spec: relative to the working directory, absolute, or `.`.
    pub path: String,
    /// Where it comes from.
    pub source: InputSource,
    /// What an earlier attempt had, `sha256:<hex>`: another content ends this one as [`Cause::InputChanged`]. None: it is
    /// not known, or the source itself says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The permission bits of a file that the helper writes: of a text, a download and a `ConfigMap`'s files. None: 0644,
    /// or 0755 where a text or a `ConfigMap`'s file begins with `#!`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// What is in a registry is a file: an attempt before has found that out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_file: bool,
}

impl RequestedInput {
    /// An input of which nothing more is known, whose files have the permission bits that are usual.
    #[must_use]
    pub fn new(path: impl Into<String>, source: InputSource) -> Self {
        Self { path: path.into(), source, digest: None, mode: None, is_file: false }
    }
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
    /// The last snapshot of another run.
    Snapshot(SnapshotInput),
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
        /// Of the `ConfigMap` or the Secret.
        #[serde(default)]
        name: String,
        /// A Secret: it is written to no disk, and nothing of it is told.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        secret: bool,
    },
    /// The kubelet mounts it for the command: nothing to stage but what it is mounted over.
    Mounted,
}

impl InputSource {
    /// The helper puts it into a volume of inputs.
    #[must_use]
    pub fn is_staged(&self) -> bool {
        !matches!(self, Self::Mounted)
    }

    /// What is fetched from a registry: where it is, with or without a tag or a digest, and the path in it.
    #[must_use]
    pub fn in_a_registry(&self) -> Option<(&str, Option<&str>)> {
        match self {
            Self::Image { reference, path } => Some((reference, path.as_deref())),
            Self::Snapshot(SnapshotInput { repository, path, .. }) => Some((repository, path.as_deref())),
            _ => None,
        }
    }

    /// It is in memory and in memory only.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        matches!(self, Self::Copied { secret: true, .. })
    }

    /// A `ConfigMap`, or what it has under a key.
    #[must_use]
    pub fn config_map(name: impl Into<String>, key: Option<String>) -> Self {
        Self::Copied { file: key, name: name.into(), secret: false }
    }

    /// A Secret, or what it has under a key.
    #[must_use]
    pub fn secret(name: impl Into<String>, key: Option<String>) -> Self {
        Self::Copied { file: key, name: name.into(), secret: true }
    }
}

/// A snapshot of another run, which the helper looks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotInput {
    /// Where it is, `host[:port]/repository`.
    pub repository: String,
    /// Name of the other run.
    pub run: String,
    /// Uid of the other run.
    pub run_uid: String,
    /// See [`SnapshotPin`].
    #[serde(flatten)]
    pub of: SnapshotPin,
    /// The tag that it is given when it is found: all attempts get this one, and the registry keeps it.
    pub tag: String,
    /// File or directory in it; none: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Most of [`SaveRequest::told_variables`] with their values as JSON, in bytes: what all of a `ConfigMap` can be.
pub const VARIABLES_MAX_BYTES: usize = 1024 * 1024;

/// For how long a command waits for an input that cannot be had, in seconds: then the run's GPUs are free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InputPatience {
    /// For one that is refused: a server that is being deployed anew says so, too.
    pub refused_seconds: u64,
    /// For one whose server gives no answer, or an answer that may be another later.
    pub silent_seconds: u64,
    /// For a `ConfigMap` or a Secret that does not exist.
    pub absent_seconds: u64,
}

impl Default for InputPatience {
    fn default() -> Self {
        Self::USUAL
    }
}

impl InputPatience {
    /// Where nothing else is asked for.
    pub const USUAL: Self = Self { refused_seconds: 120, silent_seconds: 600, absent_seconds: 300 };

    #[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }

    /// For an input that has this problem.
    #[must_use]
    pub fn with(self, problem: InputProblem) -> Duration {
        Duration::from_secs(match problem {
            InputProblem::Store | InputProblem::NotFound | InputProblem::Denied | InputProblem::NoServer => {
                self.refused_seconds
            }
            InputProblem::Absent => self.absent_seconds,
            InputProblem::NoAnswer => self.silent_seconds,
            // As long as all of staging may take.
            InputProblem::NoSnapshot => u64::MAX,
        })
    }
}

/// See [`SaveRequest::give_up_seconds`].
pub const GIVE_UP_SECONDS: u64 = 300;

fn give_up_seconds() -> u64 {
    GIVE_UP_SECONDS
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
    /// Longest time for saving after the platform asked for the end, in seconds.
    pub interrupted_seconds: u64,
    /// The command began in an earlier attempt, which may have sent some of it: what is the same is not sent again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follows_command: bool,
    /// What cannot be read in three tries over this time, in seconds, is given up, and the rest is saved.
    #[serde(default = "give_up_seconds")]
    pub give_up_seconds: u64,
    /// Said of how the output was made, in an artifact beside it: names and uids, the image, resources, the environment,
    /// where inputs come from.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub made_by: serde_json::Map<String, serde_json::Value>,
    /// Variables of the spec that come from `ConfigMaps`: the runner leaves their values for the helper, for that artifact.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told_variables: Vec<String>,
    /// No blob may have more bytes; none: as many as is usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_blob_bytes: Option<u64>,
    /// How large files are pushed while the command runs; none: they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<Background>,
    /// The working directory while the command runs; none: the pod was made by an operator that knows no snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<SnapshotRequest>,
}

/// How the working directory is kept while the command runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotRequest {
    /// In the repository of the output: of this attempt's last snapshot.
    pub tag: String,
    /// Globs relative to the working directory: what they match is in no snapshot. None: what is not saved either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude: Option<Vec<String>>,
    /// Taken so often, in seconds; none: only when the command asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_seconds: Option<u64>,
    /// One more is taken when the platform, or `suspend`, has ended the command and it has ended in order: the next attempt
    /// goes on there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_end: bool,
}

/// What the helper does beside the command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Background {
    /// A file is pushed when it has not changed for so long.
    pub quiet_seconds: u64,
    /// Files that are pushed at once.
    pub connections: u32,
    /// Of all of them; none: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// How many bytes may have been pushed in vain, in percent of what large files have.
    pub waste_percent: u32,
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
