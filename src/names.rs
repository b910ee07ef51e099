//! Every string this project owns, each in one place.
//!
//! Two processes that meet through a name (the operator writes it, the runner reads it) must take it from here.

/// API group of our resources.
pub const GROUP: &str = "bundlerun.dev";
/// The served and stored version.
pub const VERSION: &str = "v1alpha1";
/// Kind of the one resource there is.
pub const KIND: &str = "BundleRun";
/// Name of its `CustomResourceDefinition`.
pub const DEFINITION: &str = "bundleruns.bundlerun.dev";
/// Plural, as in URLs and RBAC rules.
pub const PLURAL: &str = "bundleruns";
/// Short name for `kubectl get br`.
pub const SHORT_NAME: &str = "br";

/// Field manager of every write and reporting controller of every event.
pub const OPERATOR: &str = "bundle-operator";

/// Name of the Lease that replicas of the operator hold in turn.
pub const LEASE: &str = "bundle-operator";

/// Name of the `ConfigMap` beside the operator that says what runs get that say nothing; every user may read it.
pub const DEFAULTS: &str = "bundle-operator-defaults";

/// Finalizer on pods: holds a pod until its ending is recorded on its `BundleRun`.
pub const POD_FINALIZER: &str = "bundlerun.dev/record";
/// Pod annotation that carries the [`crate::contract::Request`] as JSON.
pub const REQUEST_ANNOTATION: &str = "bundlerun.dev/request";

/// Pod annotation, empty until the user asks for the end; then a [`crate::contract::PodOrder`]. The helper sees it as a
/// file. A pod without it was made by an operator that does not write it.
pub const STOP_ANNOTATION: &str = "bundlerun.dev/stop";

/// Pod annotation of a run that waits for a snapshot of another: what became of those runs since the pod was made, as JSON,
/// [`crate::contract::SnapshotPin`] by uid; empty: nothing. Who waits for the first snapshot of a run that has ended waits in
/// vain. The helper sees it as a file.
pub const AWAITED_RUNS_ANNOTATION: &str = "bundlerun.dev/awaited-runs";

/// Pod annotation with the pins of inputs and the repository of the output, as JSON: what the operator must know of a pod
/// that it made.
pub const PINS_ANNOTATION: &str = "bundlerun.dev/pins";

/// Annotation with the name of the user who created the run, where a policy of the cluster writes it; copied to pods.
pub const CREATED_BY_ANNOTATION: &str = "bundlerun.dev/created-by";

/// Pod label: name of the run.
pub const RUN_LABEL: &str = "bundlerun.dev/run";
/// Pod label: uid of the run, so that a run of the same name made later is another one.
pub const RUN_UID_LABEL: &str = "bundlerun.dev/run-uid";
/// Pod label: number of the attempt, from 1.
pub const ATTEMPT_LABEL: &str = "bundlerun.dev/attempt";
/// Label Kueue reads on the run; copied to the pod as Job users expect.
pub const KUEUE_QUEUE_LABEL: &str = "kueue.x-k8s.io/queue-name";

/// Domains whose labels and annotations on pods are the operator's, or the queue's.
pub const KEPT_DOMAINS: [&str; 3] = [GROUP, "app.kubernetes.io", "kueue.x-k8s.io"];

/// Whether this key of a label or annotation is of one of [`KEPT_DOMAINS`], or of a domain below one.
#[must_use]
pub fn is_kept_key(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else { return false };
    KEPT_DOMAINS.iter().any(|kept| domain.strip_suffix(kept).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
}

/// Native sidecar made of our image: prepares, watches and reports.
pub const HELPER_CONTAINER: &str = "bundle";
/// The user's container.
pub const RUN_CONTAINER: &str = "run";

/// Port of the helper container: how far staging or saving has come, at `/progress`.
pub const PROGRESS_PORT: u16 = 8687;

/// What a bundle is made of, as an image in a registry.
pub mod bundle {
    /// Annotation of the image's manifest that makes it a bundle; its value is the version of the layout.
    pub const MARK: &str = "bundlerun.dev/bundle";
    /// The layout that is written.
    pub const LAYOUT: &str = "v2";
    /// The layout before it, which is still read.
    pub const LAYOUT_V1: &str = "v1";
    /// Annotation of the last layer: where in it the index of its gzip members is, and the sha256 of that.
    pub const INDEX: &str = "bundlerun.dev/index";
    /// Directory in the image with the entries of the working directory.
    pub const CONTENTS: &str = "contents";
    /// Directory in the image with the entries that a tool would take for deletions, by number.
    pub const ESCAPED: &str = "escaped";
    /// Directory in the image with the parts of files that are larger than a blob may be.
    pub const PARTS: &str = "parts";
    /// File in the image, alone in the last layer, that lists all entries.
    pub const FILES: &str = "files.json";
    /// Type of the artifact that a working directory was while its command ran.
    pub const SNAPSHOT: &str = "application/vnd.bundlerun.snapshot.v1+json";
    /// Type of the artifact that says how a bundle was made.
    pub const PROVENANCE: &str = "application/vnd.bundlerun.provenance.v1+json";

    /// Tag of the output of an attempt, in the repository of its namespace: never used before.
    #[must_use]
    pub fn output_tag(run: &str, uid: &str, attempt: u32) -> String {
        format!("{run}.{attempt}.{}", short(uid))
    }

    /// Tag of the last snapshot of an attempt.
    #[must_use]
    pub fn snapshot_tag(run: &str, uid: &str, attempt: u32) -> String {
        format!("{}.s", output_tag(run, uid, attempt))
    }

    /// Tag of the snapshot that all attempts of a run have as this one of its inputs.
    #[must_use]
    pub fn input_tag(run: &str, uid: &str, input: usize) -> String {
        format!("{run}.{}.{input}.i", short(uid))
    }

    /// Tag of what a user has uploaded, by the hex digits of its digest: what has the tag never changes.
    #[must_use]
    pub fn upload_tag(hex: &str) -> String {
        format!("upload.{}", hex.get(..16).unwrap_or(hex))
    }

    /// As much of a uid as a tag has room for.
    fn short(uid: &str) -> &str {
        uid.get(..8).unwrap_or(uid)
    }
}

/// Names of the pod's volumes.
pub mod volumes {
    /// The working directory (emptyDir).
    pub const BUNDLE: &str = "bundle";
    /// What the command says (emptyDir, writable in the run container).
    pub const OUTPUT: &str = "output";
    /// Caches of the command (emptyDir, writable in the run container).
    pub const CACHE: &str = "cache";
    /// The runner and the helper's marks (emptyDir, read-only in the run container).
    pub const BIN: &str = "bin";
    /// What the runner leaves for the helper (emptyDir, writable in the run container).
    pub const RECORD: &str = "record";
    /// The request annotation as a file (downward API).
    pub const REQUEST: &str = "request";
    /// `/dev/shm` (emptyDir in memory).
    pub const SHM: &str = "shm";
    /// The host's GPU driver (hostPath of a GPU profile).
    pub const DRIVER: &str = "driver";
    /// What the helper stages (emptyDir, read-only in the run container).
    pub const INPUTS: &str = "inputs";
    /// What the helper stages of Secrets (emptyDir in memory, read-only in the run container).
    pub const SECRETS: &str = "secrets";
    /// Credentials of the store and of registries of inputs (Secrets; never in the run container).
    pub const CREDENTIALS: &str = "credentials";
}

/// Absolute paths inside the containers; both containers see a volume at the same place.
pub mod paths {
    /// Working directory and HOME of the command; kept as the output. In the run container the mount of [`WORK_SUB_PATH`]
    /// of [`super::volumes::BUNDLE`]; the helper, which makes that directory, has it at [`WORK`].
    pub const BUNDLE: &str = "/bundle";
    /// Parent of all that is ours in a container; users can mount nothing at or below it.
    pub const OURS: &str = "/.bundlerun";
    /// In the helper: mount of all of [`super::volumes::BUNDLE`].
    pub const BUNDLE_VOLUME: &str = "/.bundlerun/bundle";
    /// In the helper: the working directory.
    pub const WORK: &str = "/.bundlerun/bundle/work";
    /// The working directory in its volume: a directory that the kubelet makes is root's.
    pub const WORK_SUB_PATH: &str = "work";
    /// Mount of [`super::volumes::OUTPUT`].
    pub const OUTPUT: &str = "/.bundlerun/output";
    /// Mount of [`super::volumes::CACHE`].
    pub const CACHE: &str = "/.bundlerun/cache";
    /// Mount of [`super::volumes::BIN`].
    pub const BIN: &str = "/.bundlerun/bin";
    /// Entry of the run container.
    pub const RUNNER: &str = "/.bundlerun/bin/bundle-runner";
    /// The program that asks for a snapshot, in the run container.
    pub const SNAPSHOT: &str = "/.bundlerun/bin/snapshot";
    /// Mount of [`super::volumes::RECORD`].
    pub const RECORD: &str = "/.bundlerun/record";
    /// Mount of [`super::volumes::REQUEST`].
    pub const REQUEST: &str = "/.bundlerun/request";
    /// Mount of [`super::volumes::INPUTS`]; input `i` of the spec is `<INPUTS>/<i>`.
    pub const INPUTS: &str = "/.bundlerun/inputs";
    /// Mount of [`super::volumes::SECRETS`]; a Secret that is input `i` of the spec is `<SECRETS>/<i>`.
    pub const SECRETS: &str = "/.bundlerun/secrets";
    /// In the helper: `ConfigMaps` and Secrets that it copies; in the run container: what is mounted for an input at `.`.
    pub const SOURCES: &str = "/.bundlerun/sources";
    /// In the helper: one directory for each Secret with credentials, the store's first.
    pub const CREDENTIALS: &str = "/.bundlerun/credentials";
    /// The operator (and helper) in our image.
    pub const OPERATOR_BINARY: &str = "/bundle-operator";
    /// The runner in our image; *prepare* copies it to [`RUNNER`].
    pub const RUNNER_IN_IMAGE: &str = "/bundle-runner";
    /// Where the kubelet reads the helper's last words.
    pub const TERMINATION_MESSAGE: &str = "/dev/termination-log";
}

/// File names within the mounts of [`paths`].
pub mod files {
    /// In [`super::paths::REQUEST`]: the request, JSON.
    pub const REQUEST: &str = "request.json";
    /// In [`super::paths::REQUEST`]: [`super::STOP_ANNOTATION`].
    pub const STOP: &str = "stop";
    /// In [`super::paths::REQUEST`]: [`super::AWAITED_RUNS_ANNOTATION`].
    pub const AWAITED_RUNS: &str = "awaited-runs.json";
    /// In [`super::paths::RECORD`]: made with `O_EXCL` by the runner before the command starts.
    pub const STARTED: &str = "started";
    /// In [`super::paths::RECORD`]: the [`crate::contract::Record`], JSON, renamed into place when the command has ended.
    pub const RECORD: &str = "record.json";
    /// In [`super::paths::RECORD`]: values of variables as the container has them, by name, JSON; see
    /// [`crate::contract::SaveRequest::told_variables`].
    pub const VARIABLES: &str = "variables.json";
    /// In [`super::paths::RECORD`]: made by the runner when the command has begun.
    pub const BEGAN: &str = "began";
    /// In [`super::paths::RECORD`]: links to the libraries of the host's GPU driver, made by the runner.
    pub const DRIVER: &str = "driver";
    /// In [`super::paths::BIN`]: the runner holds a `flock` on it for as long as it lives. The command cannot take it away.
    pub const LOCK: &str = "lock";
    /// In [`super::paths::BIN`]: *prepare* is done, the run container may start.
    pub const PREPARED: &str = "prepared";
    /// In [`super::paths::BIN`]: every input is in place, the command may start.
    pub const STAGED: &str = "staged";
    /// In [`super::paths::BIN`]: the working directory is the runner's user's, as far as we can make it.
    pub const OWNED: &str = "owned";
    /// In [`super::paths::BIN`]: the helper's order to the runner to end the command; holds a [`crate::contract::EndOrder`].
    pub const END: &str = "end";
    /// In [`super::paths::BIN`]: the empty file that becomes [`END`]. The runner opens it before the command, which can take
    /// its right to open any more (`prlimit --nofile`).
    pub const END_TO_BE: &str = "end-to-be";
    /// In [`super::paths::RECORD`]: directory with one file for each snapshot that the command asks for. In
    /// [`super::paths::BIN`]: the same with the answers, a [`crate::contract::SnapshotAnswer`] each.
    pub const SNAPSHOTS: &str = "snapshots";
    /// In [`super::paths::BIN`]: what came of the last snapshot, a [`crate::contract::SnapshotAnswer`].
    pub const SNAPSHOT: &str = "snapshot.json";
    /// In [`super::paths::BIN`]: what snapshots have pushed.
    pub const SNAPSHOT_KNOWN: &str = "snapshot-known.json";
    /// In [`super::paths::BIN`]: an empty directory.
    pub const NOTHING: &str = "nothing";
    /// In [`super::paths::BIN`]: what the attempt goes on from, a [`crate::contract::Resumed`].
    pub const RESUMED: &str = "resumed.json";
    /// In [`super::paths::BIN`]: the termination message, once written; a restarted helper repeats it.
    pub const REPORTED: &str = "reported";
    /// In [`super::paths::BIN`]: what the helper made in the working directory, which is no output.
    pub const MOUNT_POINTS: &str = "mount-points.json";
    /// In [`super::paths::BIN`]: digests of the inputs that were looked up at registries, by their index.
    pub const PINNED: &str = "pinned.json";
    /// In [`super::paths::BIN`]: what was found out about inputs at registries.
    pub const LOOKED_UP: &str = "looked-up.json";
    /// In [`super::paths::BIN`], followed by its index: an input is in place.
    pub const STAGED_INPUT: &str = "staged.";
    /// In [`super::paths::BIN`], followed by its index: of which version of a file the place of an input has the beginning.
    pub const PARTIAL_INPUT: &str = "partial.";
    /// In [`super::paths::BIN`]: one line, why inputs could not be looked up or staged so far.
    pub const TROUBLE: &str = "trouble";
    /// In [`super::paths::BIN`]: what is wrong with inputs that are waited for, a [`crate::contract::InputTrouble`] each, by
    /// their index.
    pub const AWAITED: &str = "awaited.json";
    /// In [`super::paths::BIN`], followed by what is waited for: when it is given up, in milliseconds since 1970.
    pub const GIVEN_UP_AT: &str = "given-up-at.";
    /// In [`super::paths::BIN`]: what the store said when it was asked for an upload, before the command.
    pub const STORE: &str = "store.json";
    /// In [`super::paths::BIN`]: the command may start, whatever the store says. Made for each run that has a store.
    pub const STORE_CHECKED: &str = "store-checked";
    /// In [`super::paths::BIN`]: until when the output may be saved.
    pub const SAVE_UNTIL: &str = "save-until.json";
    /// In [`super::paths::BIN`]: a child has begun to save the output.
    pub const SAVE_BEGUN: &str = "save-begun";
    /// In [`super::paths::BIN`]: the [`crate::contract::Saved`] output, with its size.
    pub const SAVED: &str = "saved.json";
    /// In [`super::paths::BIN`]: the [`crate::contract::NotSaved`] of the last try.
    pub const NOT_SAVED: &str = "not-saved.json";
    /// In [`super::paths::BIN`]: how much was counted in the working directory.
    pub const MEASURED: &str = "measured.json";
    /// In [`super::paths::BIN`]: all is reported, and the helper's container cannot end.
    pub const CANNOT_END: &str = "cannot-end";
    /// In [`super::paths::BIN`]: digests of large files that were found out before the output is saved.
    pub const DIGESTS: &str = "digests.json";
    /// In [`super::paths::BIN`]: entries of the output that the last tries failed to read.
    pub const DAMAGED: &str = "damaged.json";
    /// In [`super::paths::BIN`]: how far staging or saving has come, a [`crate::contract::Progress`].
    pub const PROGRESS: &str = "progress.json";
    /// In [`super::paths::BIN`], followed by its kind, while the command runs: one line, what will go wrong.
    pub const WARNING: &str = "warning.";
    /// In each directory of [`super::paths::CREDENTIALS`]: a Docker configuration file.
    pub const DOCKER_CONFIG: &str = ".dockerconfigjson";
    /// In each directory of [`super::paths::CREDENTIALS`]: what Docker had before it, the logins by their registries.
    pub const DOCKER_CFG: &str = ".dockercfg";
    /// In [`super::paths::OUTPUT`]: the command's standard output. Its name in the bundle, too, unless the command has
    /// made something of this name.
    pub const STDOUT: &str = "stdout";
    /// In [`super::paths::OUTPUT`]: the command's standard error. See [`STDOUT`].
    pub const STDERR: &str = "stderr";
}
