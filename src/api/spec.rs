//! What the user asks for. The field docs are what `kubectl explain bundlerun.spec` prints.
//!
//! These are the raw types, as stored: what the schema cannot say is checked again where a spec is turned into a
//! request. Bounds and patterns stand here at their field; the rules in CEL are in [`super::crd`].

#![allow(clippy::doc_markdown)] // these docs are read in a terminal

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Toleration;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_ignored::Path;

use super::duration;
use super::quantity::Quantity;
use super::schema;
use super::status::{BundleRunStatus, Phase};

/// Restarts after interruptions by the platform when `retry.interruptions` is unset.
pub const DEFAULT_INTERRUPTIONS: u32 = 3;
/// The GPU profile when `gpuProfile` is unset.
pub const DEFAULT_GPU_PROFILE: &str = "default";

/// What to run, where, with what, and what to keep. All but `suspend`, `stop`, `podRetention` and
/// `ttlSecondsAfterFinished` is fixed once the run exists: for something else, create a run with another name.
#[allow(clippy::duplicated_attributes)] // columns have types and priorities in common
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "bundlerun.dev",
    version = "v1alpha1",
    kind = "BundleRun",
    plural = "bundleruns",
    singular = "bundlerun",
    shortname = "br",
    namespaced,
    status = "BundleRunStatus",
    selectable = ".status.phase",
    derive = "Default",
    derive = "PartialEq",
    doc = "A BundleRun runs one command in a container image and keeps its whole working directory as the output, with a record of exactly what ran and how it ended.",
    printcolumn(name = "Phase", json_path = ".status.phase", type_ = "string"),
    printcolumn(name = "Reason", json_path = ".status.reason", type_ = "string"),
    printcolumn(name = "GPUs", json_path = ".spec.resources.gpus", type_ = "integer"),
    printcolumn(name = "Attempt", json_path = ".status.attempt", type_ = "integer"),
    printcolumn(name = "Age", json_path = ".metadata.creationTimestamp", type_ = "date"),
    printcolumn(name = "Image", json_path = ".status.image.requested", type_ = "string", priority = 1),
    printcolumn(name = "Node", json_path = ".status.node", type_ = "string", priority = 1),
    printcolumn(name = "Duration", json_path = ".status.duration", type_ = "string", priority = 1),
    printcolumn(name = "Exit", json_path = ".status.exitCode", type_ = "integer", priority = 1),
    printcolumn(name = "Output", json_path = ".status.output.bundle", type_ = "string", priority = 1),
    printcolumn(name = "Message", json_path = ".status.message", type_ = "string", priority = 1)
)]
#[serde(rename_all = "camelCase", remote = "Self")] // read and written by the impls below
pub struct BundleRunSpec {
    /// Fields of the object that this version does not know, as `spec.inputs[].lease`: it was stored under a newer
    /// definition, and what it says must not be ignored.
    #[serde(skip)]
    #[schemars(skip)]
    pub unknown_fields: Vec<String>,

    /// Container image the command runs in, by tag or digest. Default: the operator's CPU image when
    /// `resources.gpus` is 0, else its GPU image. Example: `docker.io/library/python:3.13`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))] // its shape is a rule: the pattern would bury the message
    pub image: Option<String>,

    /// Command line for a shell: bash if the image has it, else sh; the `.bashrc` in the image's WORKDIR is sourced
    /// first and the image's ENTRYPOINT is not used. Exactly one of `command` and `argv` is set.
    /// Example: `python train.py --epochs 3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100_000))]
    pub command: Option<String>,

    /// Program and arguments, executed without any shell, for images that have none; the image's ENTRYPOINT is not
    /// used. Exactly one of `command` and `argv` is set. Example: `["/app/train", "--epochs", "3"]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), inner(length(max = 20_000)), extend("x-kubernetes-list-type" = "atomic"))]
    pub argv: Option<Vec<String>>,

    /// Environment variables of the command; they win over the image's. Values reach the process unchanged:
    /// `$(NAME)` is not expanded. Default: none. Example: `[{name: SEED, value: "7"}]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvVar>,

    /// Read-only files and directories the command finds at their `path`; never part of the output. Default: none.
    /// Example: `[{path: data, run: {name: prepare}}]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["path"]))]
    pub inputs: Vec<Input>,

    /// Read-write persistent volumes, for checkpoints and caches; shared by all attempts and not part of the output.
    /// Default: none. Example: `[{path: checkpoints, claim: {name: my-claim}}]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["path"]))]
    pub volumes: Vec<Volume>,

    /// Devices, CPU, memory and disk of the run. Example: `{gpus: 1, cpus: 8, memory: 32Gi}`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resources: Resources,

    /// Name of one of the GPU profiles the administrator defined. Default: `default`. Example: `mig-1g`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63), extend("pattern" = schema::PROFILE_NAME))]
    pub gpu_profile: Option<String>,

    /// How long the command may run; staging inputs and saving the output do not count. Days, hours, minutes and
    /// seconds, from `1s` to `365d`. Default: no limit. Example: `1d12h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("pattern" = duration::PATTERN))]
    pub time_limit: Option<String>,

    /// How long the command has between SIGTERM and SIGKILL: at its time limit, when it is stopped, and when its pod is
    /// deleted. Days, hours, minutes and seconds, from `1s` to the most that the administrator allows (10m unless set).
    /// Default: the operator's setting (30s). Example: `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("pattern" = duration::PATTERN))]
    pub stop_grace: Option<String>,

    /// What of the working directory is kept. Default: everything. Example: `{exclude: ["*.tmp"]}`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub outputs: Outputs,

    /// How often the command is started again after an end that is not its success. Example: `{interruptions: 0}`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub retry: Retry,

    /// Inputs may come from runs that failed or were stopped. Default: false. Example: `true`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub allow_failed_inputs: bool,

    /// What becomes of the run when a run that is an input failed, was stopped, or left no saved output: `Fail` ends it as
    /// well, `Wait` holds it until a run made anew under that name succeeds. Default: Fail. Example: `Wait`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_input_failure: OnInputFailure,

    /// Holds the run: it has no pod. An attempt that runs is ended as by `stop`, what is there is saved, and another follows
    /// when this is taken back; that counts against nothing in `retry`. May be changed at any time. Default: false.
    /// Example: `true`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub suspend: bool,

    /// Ends the run now and keeps what is there. May be set at any time; taking it back has no effect once the operator
    /// has seen it.
    /// Default: false. Example: `true`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stop: bool,

    /// Labels a node must have. Default: none beyond those of the GPU profile. Example: `{zone: a}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::labels")]
    pub node_selector: BTreeMap<String, String>,

    /// Taints of nodes that the run accepts, as in a pod. Default: none beyond those of the GPU profile.
    /// Example: `[{key: dedicated, operator: Equal, value: ml, effect: NoSchedule}]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::tolerations")]
    pub tolerations: Vec<Toleration>,

    /// Name of the PriorityClass of the pod. Default: the cluster's default class. Example: `batch-low`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), extend("pattern" = schema::NAME))]
    pub priority_class_name: Option<String>,

    /// Name of the scheduler that places the pod. Default: the cluster's default scheduler. Example: `volcano`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), extend("pattern" = schema::NAME))]
    pub scheduler_name: Option<String>,

    /// Secrets with credentials for the registries of the image and of `image` inputs, which are read with those of the
    /// service account too. Default: those of the service account. Example: `[{name: registry-login}]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub image_pull_secrets: Vec<SecretReference>,

    /// Service account of the pod; its token is not mounted. Default: `default`. Example: `research`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), extend("pattern" = schema::NAME))]
    pub service_account_name: Option<String>,

    /// User id of all containers of the pod. Default: the user the image names. Example: `1000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub run_as_user: Option<i64>,

    /// Group id of all containers of the pod, with `runAsUser`. Default: that of the user in the image, else 0.
    /// Example: `1000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub run_as_group: Option<i64>,

    /// Group id that volumes are made writable for, where their driver can do that, and that the processes of the pod
    /// have too. Default: that of `runAsUser` in runs with `volumes`, else none. Example: `2000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub fs_group: Option<i64>,

    /// Labels of the pod, beside the operator's. Those that the administrator sets win. Default: none.
    /// Example: `{cost-center: "4711"}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::labels")]
    pub pod_labels: BTreeMap<String, String>,

    /// Annotations of the pod, beside the operator's, at most 8000 bytes. Those that the administrator sets win.
    /// Default: none. Example: `{karpenter.sh/do-not-disrupt: "true"}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::annotations")]
    pub pod_annotations: BTreeMap<String, String>,

    /// How long the pod of an attempt is kept after its end, for `kubectl logs`; the record stays, and what was saved. Of
    /// more than ten attempts the pods of the last ten. May be changed at any time. Days, hours, minutes and seconds, from
    /// `0s` to `365d`. Default: the operator's setting (1h). Example: `10m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("pattern" = duration::PATTERN))]
    pub pod_retention: Option<String>,

    /// Seconds after its end when the whole BundleRun is deleted, record and pods; what was saved stays in the store. Keep
    /// it unset for runs that GitOps tools apply: they would create and run it again. May be changed at any time. Default:
    /// never. Example: `604800`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub ttl_seconds_after_finished: Option<u32>,
}

impl<'de> Deserialize<'de> for BundleRunSpec {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut unknown_fields = BTreeSet::new();
        let mut note = |path: Path| _ = unknown_fields.insert(shown(&path));
        // Not this trait's function, but the derived one of the same name.
        let spec = Self::deserialize(serde_ignored::Deserializer::new(from, &mut note))?;
        Ok(Self { unknown_fields: unknown_fields.into_iter().collect(), ..spec })
    }
}

/// As `spec.inputs[].lease`: which of the items it is makes no other field of it.
fn shown(path: &Path) -> String {
    match path {
        Path::Root => "spec".to_owned(),
        Path::Seq { parent, .. } => format!("{}[]", shown(parent)),
        Path::Map { parent, key } => format!("{}.{key}", shown(parent)),
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => shown(parent),
    }
}

impl Serialize for BundleRunSpec {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, to)
    }
}

impl BundleRun {
    /// Its phase is terminal.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.status.as_ref().and_then(|status| status.phase).is_some_and(Phase::is_terminal)
    }

    /// `stop` is set, or was when the operator looked.
    #[must_use]
    pub fn is_being_stopped(&self) -> bool {
        if bug!("stop can be taken back") {
            return self.spec.stop;
        }
        self.spec.stop || self.status.as_ref().is_some_and(|status| status.stop_requested_at.is_some())
    }
}

/// What becomes of the run when a run that is an input failed, was stopped, or left no saved output: `Fail` ends it as
/// well, `Wait` holds it until a run made anew under that name succeeds. Default: Fail. Example: `Wait`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnInputFailure {
    /// It ends, as `InputFailed` or `InputNotSaved`.
    #[default]
    Fail,
    /// It waits, without a deadline.
    Wait,
}

/// One environment variable: a literal value, or a key of a Secret or ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Name of the variable. Names the platform sets (`BUNDLE_*` and those of the GPU driver) are refused.
    /// Example: `SEED`.
    #[schemars(length(min = 1, max = 256), extend("pattern" = schema::ENV_NAME))]
    pub name: String,

    /// Literal value, passed on unchanged. It is a text: quote what YAML takes for a number or a truth value, as in
    /// `"0.1"` and `"true"`. Exactly one of `value` and `valueFrom` is set. Example: `"7"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32_768))]
    pub value: Option<String>,

    /// Where the value comes from. Exactly one of `value` and `valueFrom` is set.
    /// Example: `{secretKeyRef: {name: wandb, key: token}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvVarSource>,
}

/// Where the value of a variable comes from: exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvVarSource {
    /// A key of a Secret in the namespace of the run. Example: `{name: wandb, key: token}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeySelector>,

    /// A key of a ConfigMap in the namespace of the run. Example: `{name: settings, key: seed}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeySelector>,
}

/// A key of a Secret or ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeySelector {
    /// Name of the object. Example: `wandb`.
    #[schemars(length(max = 253), extend("pattern" = schema::NAME))]
    pub name: String,

    /// Key in its data. Example: `token`.
    #[schemars(length(max = 253), extend("pattern" = schema::DATA_KEY))]
    pub key: String,

    /// The variable is left out when the object or the key does not exist. Default: false, the run waits for it.
    /// Example: `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}

/// One read-only input: a path and exactly one source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// Where the command finds it: relative to the working directory, or absolute; `.` puts the entries of a directory
    /// into the working directory. Example: `data`.
    #[schemars(length(max = 512))] // its shape is a rule, as that of all paths: a pattern would bury the message
    pub path: String,

    /// The output of another run of this namespace, or its last snapshot. Example: `{name: prepare, path: train.csv}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunSource>,

    /// A bundle or any image in a registry. Example: `{reference: registry.example.com/models@sha256:...}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSource>,

    /// A persistent volume claim of this namespace, mounted read-only. Example: `{name: datasets, path: imagenet}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<ClaimSource>,

    /// A ConfigMap of this namespace, or one of its keys. Example: `{name: scripts, key: train.py}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<KeySource>,

    /// A Secret of this namespace, or one of its keys. Example: `{name: token}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<KeySource>,

    /// The text of a small file. Example: `print("hello")`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 60_000))]
    pub text: Option<String>,

    /// A file to download. Example: `{href: "https://example.com/a.tar", sha256: ...}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<UrlSource>,

    /// Permission bits of the file, or of each file, of a text, ConfigMap, Secret or url, from 0 to 0777; in JSON, which
    /// has no octal numbers, 511. The files are not the command's own: what it may do is in the last digit. Default:
    /// 0444 for Secrets; else 0644, and 0755 for a text, or file of a ConfigMap, that begins with `#!`. Example: `0755`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 511))]
    pub mode: Option<u32>,
}

/// The output of another run, or a snapshot of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunSource {
    /// Name of the run. Example: `prepare`.
    #[schemars(length(max = 52), extend("pattern" = schema::NAME))]
    pub name: String,

    /// File or directory in its output, by its whole path; any name that was saved can be written here. Default: all of
    /// it. Example: `logs/2026-11-26T09:00.csv`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub path: Option<String>,

    /// `latest`: instead of the output, the last snapshot that there is when this run starts. This run does not wait for
    /// the end of the other and does not mind how it ends; it waits for a first snapshot. Default: the output.
    /// Example: `latest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<WhichSnapshot>,
}

/// `latest`: instead of the output, the last snapshot that there is when this run starts. This run does not wait for
/// the end of the other and does not mind how it ends; it waits for a first snapshot. Default: the output.
/// Example: `latest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum WhichSnapshot {
    /// The last one of the newest attempt that has one.
    Latest,
}

/// An image in a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageSource {
    /// The image, by tag or digest. Example: `registry.example.com/models:v3`.
    #[schemars(length(max = 512))]
    pub reference: String,

    /// File or directory in it, by its whole path. Default: all of it. Example: `weights`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub path: Option<String>,
}

/// A persistent volume claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimSource {
    /// Name of the PersistentVolumeClaim in the namespace of the run. Example: `datasets`.
    #[schemars(length(max = 253), extend("pattern" = schema::NAME))]
    pub name: String,

    /// Directory in the volume, relative. Default: all of it. Example: `team-a/checkpoints`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub path: Option<String>,
}

/// A Secret or ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeySource {
    /// Name of the object. Example: `scripts`.
    #[schemars(length(max = 253), extend("pattern" = schema::NAME))]
    pub name: String,

    /// Key whose value is the file. Default: a directory with a file for every key. Example: `train.py`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), extend("pattern" = schema::DATA_KEY))]
    pub key: Option<String>,
}

/// A file to download.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UrlSource {
    /// Address of the file, http or https. Example: `https://example.com/data.csv`.
    #[schemars(length(max = 2048))]
    pub href: String,

    /// SHA-256 of its content, 64 lower-case hex digits; other content is refused.
    /// Example: `9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08`.
    #[schemars(length(max = 64))]
    pub sha256: String,
}

/// One read-write persistent volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Where the command finds it: relative to the working directory, or absolute. Example: `checkpoints`.
    #[schemars(length(max = 512))]
    pub path: String,

    /// The claim that is mounted there. Example: `{name: my-claim}`.
    pub claim: ClaimSource,
}

/// Devices, CPU, memory and disk of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Number of whole GPUs. Default: 0. Example: `1`.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(range(min = 0, max = 1024))]
    pub gpus: u32,

    /// CPU cores, requested and limited. A fraction is `500m` or a text, `"0.5"`: the API server refuses the bare number
    /// 0.5. Default: 1. Example: `500m` or `8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Quantity>,

    /// Memory in bytes, requested and limited; files in `/dev/shm` count. Default: 2Gi. Example: `32Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,

    /// Size in bytes that the working directory may reach, the caches as well, and all inputs together. The pod requests
    /// `ephemeral-storage` for each: twice as much, and as much again at most for inputs that are copied. Default: the
    /// operator's setting (10Gi). Example: `100Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Quantity>,

    /// Size of `/dev/shm` in bytes, at most `memory`. Default: the operator's setting. Example: `8Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_memory: Option<Quantity>,

    /// Other extended resources that nodes advertise, in whole numbers, and huge pages in bytes. GPUs have `gpus`.
    /// Default: none. Example: `{rdma/hca: 1, hugepages-2Mi: 512Mi}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub extended: BTreeMap<String, Quantity>,
}

/// What of the working directory is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outputs {
    /// Globs of paths from the working directory, with or without a slash before them; what they match is not saved, nor
    /// what is in it. `*` stops at a slash, `**` does not: `*.tmp` is about the top directory, `**/*.tmp` about all.
    /// Default: none. Example: `["/cache", "**/*.tmp"]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 512)), extend("x-kubernetes-list-type" = "atomic"))]
    pub exclude: Vec<String>,

    /// When the working directory is kept in the store while the command runs. The command can always ask for it, by the
    /// program `$BUNDLE_SNAPSHOT`. Default: only when it asks. Example: `{every: 10m}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<Snapshots>,
}

/// When the working directory is kept while the command runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Snapshots {
    /// A snapshot is taken this long after the one before, as days, hours, minutes and seconds, from `10s`. Each file in it is
    /// consistent by itself, not with the others: a command that asks by `$BUNDLE_SNAPSHOT` knows better when. Default: none
    /// but those that the command asks for. Example: `10m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("pattern" = duration::PATTERN))]
    pub every: Option<String>,

    /// Globs as in `outputs.exclude`: what they match is in no snapshot. Default: those of `outputs.exclude`.
    /// Example: `["**/*.log"]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 512)), extend("x-kubernetes-list-type" = "atomic"))]
    pub exclude: Option<Vec<String>>,
}

/// How often a command is started again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Restarts after failures that `causes` names. Default: 0. Example: `2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub limit: Option<u32>,

    /// Restarts after interruptions by the platform, such as a lost node; they do not count as failures of the run.
    /// Default: 3. Example: `100`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub interruptions: Option<u32>,

    /// The time between a failure that `limit` counts and the next attempt. Doubles with each, up to ten minutes. Days,
    /// hours, minutes and seconds. Default: 10s. Example: `1m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("pattern" = duration::PATTERN))]
    pub backoff: Option<String>,

    /// The failures that are followed by another attempt, by their cause; no other failure is. Default: CommandFailed,
    /// CommandKilled and OutOfMemory. Example: `[CommandKilled]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 6), extend("x-kubernetes-list-type" = "atomic"))]
    pub causes: Option<Vec<RetriedCause>>,

    /// The next attempt begins with the working directory as it was in the last snapshot of the attempts before, instead of an
    /// empty one; `BUNDLE_RESUMED_FROM` tells which that was. Snapshots are taken where `outputs.snapshots` says so, or
    /// the command asks for them by `$BUNDLE_SNAPSHOT`, and the operator has a store; without one the attempt begins
    /// empty, and `status.message` says so. Default: false. Example: `true`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resume: bool,
}

impl Retry {
    /// How many attempts the platform may interrupt.
    #[must_use]
    pub fn interruptions(&self) -> u32 {
        self.interruptions.unwrap_or(DEFAULT_INTERRUPTIONS)
    }

    /// Whether a failure of this cause, by its name on the object, is followed by another attempt.
    #[must_use]
    pub fn is_for(&self, cause: &str) -> bool {
        let causes = self.causes.as_deref().unwrap_or(&RetriedCause::DEFAULT);
        causes.iter().any(|retried| retried.name() == cause)
    }
}

/// The cause of a failure that another attempt may mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RetriedCause {
    /// The command exited with another code than 0.
    CommandFailed,
    /// A signal ended the command.
    CommandKilled,
    /// The memory that was asked for was used up.
    OutOfMemory,
    /// The command ran longer than `timeLimit`: each attempt has as much.
    TimeLimitExceeded,
    /// The working directory, or the caches, grew over `resources.disk`.
    DiskLimitExceeded,
    /// The command exited with 0, and its output could not be saved.
    OutputNotSaved,
}

impl RetriedCause {
    const DEFAULT: [Self; 3] = [Self::CommandFailed, Self::CommandKilled, Self::OutOfMemory];

    /// As it is on the object.
    fn name(self) -> &'static str {
        match self {
            Self::CommandFailed => "CommandFailed",
            Self::CommandKilled => "CommandKilled",
            Self::OutOfMemory => "OutOfMemory",
            Self::TimeLimitExceeded => "TimeLimitExceeded",
            Self::DiskLimitExceeded => "DiskLimitExceeded",
            Self::OutputNotSaved => "OutputNotSaved",
        }
    }
}

/// A Secret by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretReference {
    /// Name of the Secret in the namespace of the run. Example: `registry-login`.
    #[schemars(length(max = 253), extend("pattern" = schema::NAME))]
    pub name: String,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn unknown(spec: Value) -> Vec<String> {
        serde_json::from_value::<BundleRunSpec>(spec).unwrap().unknown_fields
    }

    #[test]
    fn fields_that_this_version_does_not_know_are_noticed_wherever_they_are() {
        let spec = json!({
            "command": "true",
            "desiredState": "Run",
            "inputs": [
                {"path": "a", "run": {"name": "a", "select": "latest"}},
                {"path": "b", "url": {"href": "http://b", "sha256": "0", "headers": []}, "lease": 1},
            ],
            "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "b"}}}],
            "resources": {"gpus": 1, "claims": []},
            "tolerations": [{"operator": "Exists", "until": "x"}],
            "nodeSelector": {"anything": "goes"},
        });
        let expected = [
            "spec.desiredState",
            "spec.env[].valueFrom.fieldRef",
            "spec.inputs[].lease",
            "spec.inputs[].run.select",
            "spec.inputs[].url.headers",
            "spec.resources.claims",
            "spec.tolerations[].until",
        ];
        assert_eq!(unknown(spec), expected);
        assert!(unknown(json!({"command": "true", "nodeSelector": {"a": "b"}, "stop": true})).is_empty());
    }

    #[test]
    fn every_field_of_the_definition_is_known() {
        let definition = serde_json::to_value(crate::api::crd::crd().unwrap()).unwrap();
        let spec = definition.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec").unwrap();
        let example = example(spec);
        assert_eq!(unknown(example.clone()), [""; 0], "{example:#}");
    }

    /// With every field.
    fn example(schema: &Value) -> Value {
        if let Some(fields) = schema["properties"].as_object() {
            return fields.iter().map(|(name, field)| (name.clone(), example(field))).collect();
        }
        if let Some(of_all) = schema.get("additionalProperties") {
            return json!({"a": example(of_all)});
        }
        match (schema["enum"].as_array(), schema["type"].as_str()) {
            (Some(words), _) => words[0].clone(),
            (None, Some("array")) => json!([example(&schema["items"])]),
            (None, Some("integer")) => json!(1),
            (None, Some("boolean")) => json!(true),
            _ => json!("x"),
        }
    }
}
