//! How the command ended: runner -> helper.

use serde::{Deserialize, Serialize};

use super::gpu::GpuFacts;

/// The helper reads no more than this of a record: the run container can write that file.
pub const RECORD_MAX_BYTES: usize = 8 * 1024;

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
    /// Inputs could not be put in place, for a reason that another attempt may not meet.
    StagingFailed,
    /// The store refuses outputs, so that there was no point in running the command.
    StoreRefused,
    /// An input, or the path in it, does not exist.
    InputNotFound,
    /// The registry does not let us read an input.
    InputDenied,
    /// There is no server of the name that an input's address has, or its certificate is not trusted.
    InputUnreachable,
    /// An input is not what it should be: another checksum, no image, an archive that reaches out of its place.
    InputInvalid,
    /// An input is larger than the disk or the limits allow.
    InputTooLarge,
    /// An input is not what the first attempt had.
    InputChanged,
    /// The GPUs, or the driver that they need, are not in the container.
    GpuUnavailable,
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
    /// Something of the command could not be killed and is still there: it holds what it has (GPUs, files) until the node
    /// is started anew. `detail` names it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unkillable: bool,
    /// When the command began, milliseconds since the epoch; none: it never did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at_ms: Option<i64>,
    /// From the runner's start until every input was in place, or until it gave up waiting, milliseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub staging_ms: u64,
    /// When the command had ended and all that it left was reaped, milliseconds since the epoch.
    pub finished_at_ms: i64,
    /// What the run used.
    pub usage: Usage,
    /// The GPUs it had, when known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<GpuFacts>,
    /// One line for the user: what failed, or a warning. At most [`DETAIL_MAX_BYTES`](crate::contract::DETAIL_MAX_BYTES).
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
    /// Processes the kernel killed because this container's memory limit was reached (cgroup `oom_kill`).
    #[serde(skip_serializing_if = "is_zero")]
    pub oom_kills: u64,
    /// Processes of this container that the kernel killed for want of memory elsewhere, such as on a full node.
    #[serde(skip_serializing_if = "is_zero")]
    pub oom_kills_from_outside: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
pub(super) fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Record {
    /// The exit code the run container ends with: the command's own, `128_i32.saturating_add(signal)`, or the fixed one of a [`Cause`].
    /// The operator compares it with what the kubelet saw, because the run container can write the record.
    #[must_use]
    pub fn container_exit_code(&self) -> i32 {
        match (self.cause, self.exit_code, self.signal) {
            (Some(cause), _, _) => cause.container_exit_code(),
            (None, Some(code), _) => code,
            (None, None, Some(signal)) => 128_i32.saturating_add(signal),
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
            | Cause::StagingFailed
            | Cause::StoreRefused
            | Cause::InputNotFound
            | Cause::InputDenied
            | Cause::InputUnreachable
            | Cause::InputInvalid
            | Cause::InputTooLarge
            | Cause::InputChanged
            | Cause::GpuUnavailable => 125,
        }
    }
}
