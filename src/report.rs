//! The contracts between the processes of a run: operator -> runner ([`Request`]) and runner -> helper -> operator
//! ([`Record`], [`Report`]). Only data, its size limits and its encoding; no I/O.
//!
//! An operator must read what an older one's pods leave behind: fields are only ever added, with a default.

use serde::{Deserialize, Serialize};

/// What the kubelet keeps of one termination message, in bytes (`MaxContainerTerminationMessageLength`).
pub const MESSAGE_MAX_BYTES: usize = 4096;
/// The first line of a termination message stays below this, so that a cut message still tells the ending.
pub const FIRST_LINE_MAX_BYTES: usize = 900;
/// The helper reads no more than this of a record: the run container can write that file.
pub const RECORD_MAX_BYTES: usize = 8 * 1024;
/// Longest `detail` of a record, in bytes.
pub const DETAIL_MAX_BYTES: usize = 200;

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

/// Why a run ended other than by its command ending by itself, as seen inside the pod.
///
/// The name is what `status.reason` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cause {
    /// The command ran longer than `timeLimit`.
    TimeLimitExceeded,
    /// The working directory grew over `resources.disk`.
    DiskLimitExceeded,
    /// The image's `.bashrc` ended the shell before the command began.
    BashrcEndedShell,
    /// `command` needs a shell and the image has none that starts.
    NoShell,
    /// The program of `argv` is not in the image (exit code 127).
    CommandNotFound,
    /// The program of `argv` is there but cannot be executed (exit code 126).
    CommandNotExecutable,
    /// Kubernetes started the container a second time; the command was not started again.
    StartedTwice,
    /// The request could not be read or understood.
    RequestUnreadable,
    /// The runner could not do its own work (its directories, pipes or files).
    RunnerFailed,
    /// Inputs could not be put in place.
    StagingFailed,
}

/// How the command ended: written by the runner, read by the helper.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// Set when it was not just the command ending by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Exit code of the command, 0 to 255, if it exited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Signal that ended the command, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The platform asked the run to stop (SIGTERM) before the command ended by itself: exit 0 is then no success.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub asked_to_stop: bool,
    /// When the command began, milliseconds since the epoch; none: it never did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at_ms: Option<i64>,
    /// When the command had ended and all that it left was reaped, milliseconds since the epoch.
    pub finished_at_ms: i64,
    /// What the run used.
    pub usage: Usage,
    /// One line for the user: what failed, or a warning. At most [`DETAIL_MAX_BYTES`].
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What a run used, of the command and all its descendants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Usage {
    /// From the command's start to its end, milliseconds.
    pub wall_ms: u64,
    /// CPU time in user mode, milliseconds.
    pub cpu_user_ms: u64,
    /// CPU time in the kernel, milliseconds.
    pub cpu_system_ms: u64,
    /// Peak memory of the container (cgroup), or of the largest process where the cgroup tells none. Bytes.
    pub memory_peak_bytes: u64,
    /// Processes the kernel killed for memory in this container (cgroup `oom_kill`).
    #[serde(skip_serializing_if = "is_zero")]
    pub oom_kills: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Record {
    /// The exit code the run container ends with: the command's own, `128 + signal`, or the fixed one of a [`Cause`].
    /// The operator compares it with what the kubelet saw, because the run container can write the record.
    #[must_use]
    pub fn container_exit_code(&self) -> i32 {
        match (self.cause, self.exit_code, self.signal) {
            (Some(cause), _, _) => cause.container_exit_code(),
            (None, Some(code), _) => code,
            (None, None, Some(signal)) => 128 + signal,
            (None, None, None) => 255,
        }
    }
}

impl Cause {
    /// The run container's exit code for this cause. 124, 126 and 127 are what shells and `timeout` use.
    #[must_use]
    pub fn container_exit_code(self) -> i32 {
        match self {
            Cause::TimeLimitExceeded => 124,
            Cause::CommandNotFound => 127,
            Cause::CommandNotExecutable => 126,
            Cause::DiskLimitExceeded
            | Cause::BashrcEndedShell
            | Cause::NoShell
            | Cause::StartedTwice
            | Cause::RequestUnreadable
            | Cause::RunnerFailed
            | Cause::StagingFailed => 125,
        }
    }
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
    /// Regular files in the working directory at the end.
    pub files: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// How many bytes of the message, after the first line, are the tail of stdout; those of stderr follow.
    pub stdout_len: usize,
    /// See `stdout_len`.
    pub stderr_len: usize,
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

/// A decoded termination message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The first line.
    pub report: Report,
    /// Last part of stdout; valid UTF-8 without control characters but tab and newline.
    pub stdout_tail: String,
    /// Last part of stderr, likewise.
    pub stderr_tail: String,
}
