//! What the operator records. Written by nobody else; the field docs are what `kubectl explain bundlerun.status` prints.

#![allow(clippy::doc_markdown)] // these docs are read in a terminal

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// Attempts kept in [`BundleRunStatus::attempts`]: the last ones.
pub const ATTEMPTS_KEPT: usize = 10;

/// The record of a run: what ran, where, how it ended and why. Written only by the operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BundleRunStatus {
    /// Where the run is in its life: Waiting (for its inputs, or suspended), Pending (queued, scheduled, pulling its
    /// image, staging), Running, Finalizing (saving the output), and finally Succeeded, Failed or Stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,

    /// One word for why the run is in this phase, for programs. Example: `TimeLimitExceeded`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,

    /// One sentence for why the run is in this phase, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// The `metadata.generation` the operator last acted on; -1 before it saw the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// When the operator first saw `stop: true` on the run while it was not over. From then on it is being stopped,
    /// whatever becomes of the field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub stop_requested_at: Option<Time>,

    /// When the operator first saw `suspend: true` on the run, until the run goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub suspended_at: Option<Time>,

    /// Number of the current or last attempt, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,

    /// How many of the attempts before this one failed and were followed by another, as `retry.limit` allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retried_failures: Option<u32>,

    /// How many of the attempts before this one were ended by `suspend`, which counts against nothing; those that neither
    /// failed nor were suspended were interrupted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspensions: Option<u32>,

    /// How many of the attempts before this one were interrupted without counting for `retry.interruptions`: the node could
    /// not mount an input, which the next one copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncounted_interruptions: Option<u32>,

    /// The last 10 attempts, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub attempts: Vec<Attempt>,

    /// The image that was asked for and the one that ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<RecordedImage>,

    /// The inputs as they were pinned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub inputs: Vec<RecordedInput>,

    /// Node of the current or last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,

    /// When the command of the last attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub start_time: Option<Time>,

    /// When the command of the last attempt ended, which is before its output is saved; without a record of it, when
    /// the run reached its final phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub finish_time: Option<Time>,

    /// How long the command of the last attempt ran, for people: its two largest units. Programs read
    /// `usage.wallMilliseconds`. Example: `1h12m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,

    /// Where the time of the last attempt went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Timeline>,

    /// Exit code of the command, 0 to 255, if it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,

    /// Number of the signal that ended the command, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,

    /// Why the run ended, whose matter it is and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<RunResult>,

    /// What the run waits for, and until when. Unset when it waits for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,

    /// What the last attempt used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,

    /// The GPUs of the last attempt, when known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub gpus: Vec<Gpu>,

    /// The output: where it is and how it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,

    /// Conditions for `kubectl wait` and GitOps tools: Finished, Complete, Failed, Stopped, InputsReady, Scheduled, OutputSaved,
    /// DiskNearlyFull, Ready, Reconciling, Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Where a run is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Created; held by `suspend`, or its inputs are not there yet.
    #[default]
    Waiting,
    /// Its pod is queued, being scheduled, pulling its image or staging its inputs.
    Pending,
    /// The command runs.
    Running,
    /// The command has ended, its output is being saved.
    Finalizing,
    /// Final: the command ended with 0 and its output is safe.
    Succeeded,
    /// Final: it did not.
    Failed,
    /// Final: ended because `stop` was set.
    Stopped,
}

impl Phase {
    /// All of them, in the order of a run's life.
    pub const ALL: [Self; 7] =
        [Self::Waiting, Self::Pending, Self::Running, Self::Finalizing, Self::Succeeded, Self::Failed, Self::Stopped];

    /// Nothing follows it.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Stopped)
    }
}

/// One attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// Number of the attempt, from 1.
    pub attempt: u32,

    /// Name of its pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,

    /// Uid of its pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,

    /// Node it ran on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,

    /// When its command began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub start_time: Option<Time>,

    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub finish_time: Option<Time>,

    /// Why it ended, in one word. Example: `PodDeleted`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,

    /// The same in a sentence, when another attempt follows: with how much of an output that could not be saved is in the
    /// store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// Exit code of its command, if it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,

    /// Number of the signal that ended its command, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,

    /// The snapshot that it began with, `repository@sha256:<hex>`; none: an empty working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_from: Option<String>,

    /// What it left, as a saved bundle by digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
}

/// The image that was asked for and the one that ran.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordedImage {
    /// As in the spec, or the operator's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<String>,

    /// Digest of the image that ran. Example: `sha256:9f86d081...`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,

    /// The image that ran, by digest, to be pasted into `spec.image` of another run.
    /// Example: `docker.io/library/python@sha256:9f86d081...`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// One input as it was pinned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordedInput {
    /// As in the spec.
    pub path: String,

    /// Digest of what the command found there, `sha256:<hex>`: of the manifest of a bundle or an image; of the content of
    /// a text, of a download, or of the one key of a ConfigMap; of a whole ConfigMap, that of the lines that `sha256sum`
    /// prints of its keys in their order. Claims and Secrets have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,

    /// The bundle or image, by digest: all attempts use this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,

    /// Uid of the run whose output, or snapshot, it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_uid: Option<String>,

    /// True if it lacks files that the command of its run did not let be read (`SavedInPart`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_part: bool,

    /// True if this input is a file. Set when an attempt found that out only after its container had started with a
    /// directory in its place; later attempts use it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_file: bool,
}

/// Milliseconds spent in each stage of an attempt, in this order. All but `staging` and `running` are whole seconds, as
/// Kubernetes' times are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timeline {
    /// Milliseconds until its inputs were ready and nothing held it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_milliseconds: Option<u64>,

    /// Milliseconds in a queue before the scheduler saw the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_milliseconds: Option<u64>,

    /// Milliseconds until the pod had a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling_milliseconds: Option<u64>,

    /// Milliseconds to pull the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pulling_milliseconds: Option<u64>,

    /// Milliseconds to put the inputs in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staging_milliseconds: Option<u64>,

    /// Milliseconds the command ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_milliseconds: Option<u64>,

    /// Milliseconds to save the output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saving_milliseconds: Option<u64>,
}

/// Why a run ended, whose matter it is and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunResult {
    /// What ended the run, in one word. Example: `TimeLimitExceeded`.
    pub cause: String,

    /// Whose matter it is; unset on success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blame: Option<Blame>,

    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Whose matter an ending is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Blame {
    /// The run itself: its command, image or requests.
    User,
    /// The cluster: nodes, network, storage, drivers.
    Platform,
    /// What a quota of the namespace, or of the store, does not allow.
    Quota,
    /// What an administrator's admission rule refuses: a policy, a webhook, a Pod Security level, a `LimitRange`, or a
    /// node's rule on signatures.
    Policy,
}

/// What a run waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// The stage it waits in: `Inputs`, `Admission`, `Queue`, `Scheduling`, `ImagePull`, `Configuration` and so on. Example: `Scheduling`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,

    /// What it waits for, in one word. Example: `Unschedulable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,

    /// What it waits for, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// What to do about it, in one sentence. Example: `create it before the deadline, and the run goes on`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,

    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub since: Option<Time>,

    /// When the wait is given up if it has not ended, or when it ends by itself: `until` says which. Unset: see `until`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub deadline: Option<Time>,

    /// How long it may last, and what follows, in words: `no deadline`, or such as
    /// `the deadline, then the run ends: ImagePullFailed` or `the deadline, then the run starts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// What an attempt used, as measured in its container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Milliseconds from the command's start to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_milliseconds: Option<u64>,

    /// CPU milliseconds in user mode, of the command and all its descendants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_user_milliseconds: Option<u64>,

    /// CPU milliseconds in the kernel, of the command and all its descendants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_system_milliseconds: Option<u64>,

    /// Largest memory use, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak_bytes: Option<u64>,
}

/// One GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    /// Unique id of the device. Example: `GPU-4f1d0b1c-...`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,

    /// Model name. Example: `NVIDIA H200`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,

    /// Version of the driver on the node. Example: `570.86.15`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver_version: Option<String>,
}

/// The output: where it is and how it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// The saved bundle, by digest. Unset: not saved, see the condition OutputSaved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,

    /// The bundle can be mounted as an image volume as it is: it has no names that images take for deletions, and all of
    /// it is readable for every user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mountable: Option<bool>,

    /// Number of regular files in the working directory at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,

    /// Their size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,

    /// The end of the command's standard output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_tail: Option<String>,

    /// The end of the command's standard error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_tail: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Until v0.1.0 durations were seconds with a fraction. To be deleted when objects of that time need not be read.
    #[test]
    fn a_status_with_durations_in_seconds_is_read_and_written_without_them() {
        let stored = json!({
            "phase": "Succeeded",
            "attempt": 1,
            "timeline": {"waiting": 1.0, "scheduling": 2, "staging": 0.25, "running": 3.001, "saving": 1.0},
            "usage": {"wallSeconds": 3.001, "cpuUserSeconds": 0.002, "cpuSystemSeconds": 0.001, "memoryPeakBytes": 4096},
        });
        let status: BundleRunStatus = serde_json::from_value(stored).unwrap();
        let expected = json!({"phase": "Succeeded", "attempt": 1, "timeline": {}, "usage": {"memoryPeakBytes": 4096}});
        assert_eq!(serde_json::to_value(status).unwrap(), expected);
    }
}
