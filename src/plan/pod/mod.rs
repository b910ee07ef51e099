//! Validated request -> pod. Infallible.

pub(in crate::plan) mod affinity;
pub(in crate::plan) mod gpu;
pub(in crate::plan) mod inputs;
mod provenance;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Capabilities, Container, DownwardAPIVolumeFile, DownwardAPIVolumeSource, EmptyDirVolumeSource, EnvVar, ExecAction,
    HTTPGetAction, KeyToPath, Lifecycle, LifecycleHandler, LocalObjectReference, ObjectFieldSelector,
    PersistentVolumeClaimVolumeSource, Pod, PodSecurityContext, PodSpec, Probe, ResourceRequirements, SeccompProfile,
    SecretVolumeSource, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use serde_json::{Map, Value};

use crate::contract::{GIVE_UP_SECONDS, Pin, Pins, Request, SaveRequest};
use crate::names::{self, files, paths, volumes};
use crate::oci::without_tag_and_digest;
use crate::plan::facts::settings::Settings;
use crate::plan::pod::inputs::Inputs;
use crate::plan::validate::{PINS_MAX_BYTES, REQUEST_MAX_BYTES, RunRequest};

/// What the helper has after the runner's grace and the time for saving, to count the files and report.
const REPORT_GRACE_SECONDS: u64 = 30;
/// Headroom of the working directory's backstop over `resources.disk`; the helper ends the run long before.
const DISK_BACKSTOP_BYTES: u64 = 1 << 30;
/// The helper's memory limit: over four times its measured peak, when it only watches, and when it stages or saves.
const HELPER_MEMORY: &str = "64Mi";
const HELPER_MEMORY_WITH_BUNDLES: &str = "512Mi";
/// A run may name as many itself; a pod shall not have a volume for each of any number.
const ACCOUNT_PULL_SECRETS_MAX: usize = 16;
/// Between two looks at whether the command has begun.
const STARTED_PERIOD_SECONDS: u64 = 2;

/// Name of the pod of an attempt.
pub(in crate::plan) fn pod_name(run: &str, attempt: u32) -> String {
    format!("{run}-{attempt}")
}

/// One attempt of a run.
#[derive(Clone, Copy, Debug)]
pub(in crate::plan) struct Attempt<'a> {
    /// Its number, from 1.
    pub(in crate::plan) number: u32,
    /// The image that was asked for.
    pub(in crate::plan) requested: &'a str,
    /// What to pull: the requested image, or its digest once that is known.
    pub(in crate::plan) image: &'a str,
    /// Of inputs, by their index.
    pub(in crate::plan) pins: &'a BTreeMap<usize, Pin>,
    /// Of inputs that an earlier attempt had and that could have changed since, by their index.
    pub(in crate::plan) digests: &'a BTreeMap<usize, String>,
    /// Names of the pull secrets of the service account, where they were asked for.
    pub(in crate::plan) account_pull_secrets: &'a [String],
}

/// The pod of one attempt.
pub(in crate::plan) fn build(request: &RunRequest, attempt: &Attempt, settings: &Settings) -> Pod {
    let mut node_selector = request.gpus.node_selector();
    node_selector.extend(request.node_selector.clone());
    let mut tolerations = request.tolerations.clone();
    tolerations.extend(request.gpus.tolerations());
    let saving = settings.store.as_ref().map_or(0, |store| store.deadline.as_secs());
    let grace = settings.stop_grace.as_secs() + saving + REPORT_GRACE_SECONDS;
    let inputs = inputs(request, attempt, settings);
    let complete = complete(request, attempt, settings);
    let pull_secrets = pull_secrets(request, attempt, settings);
    let credentials = credentials(request, attempt, settings);
    Pod {
        metadata: metadata(request, attempt, &complete),
        spec: Some(PodSpec {
            restart_policy: Some("Never".into()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(i64::try_from(grace).unwrap_or(i64::MAX)),
            security_context: Some(PodSecurityContext {
                run_as_user: request.run_as_user,
                run_as_non_root: request.run_as_user.map(|uid| uid != 0),
                // The file system of a claim's disk is root's: without a group only root could write to it.
                fs_group: fs_group(request),
                fs_group_change_policy: fs_group(request).map(|_| "OnRootMismatch".into()),
                seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), ..SeccompProfile::default() }),
                ..PodSecurityContext::default()
            }),
            runtime_class_name: request.gpus.runtime_class_name(),
            node_selector: (!node_selector.is_empty()).then_some(node_selector),
            tolerations: (!tolerations.is_empty()).then_some(tolerations),
            priority_class_name: request.priority_class_name.clone(),
            scheduler_name: request.scheduler_name.clone(),
            service_account_name: request.service_account_name.clone(),
            image_pull_secrets: (!pull_secrets.is_empty())
                .then(|| pull_secrets.into_iter().map(|name| LocalObjectReference { name }).collect()),
            init_containers: Some(vec![helper(request, inputs, &credentials, settings)]),
            containers: vec![run(request, attempt, inputs, &complete)],
            volumes: Some(pod_volumes(request, inputs, credentials)),
            ..PodSpec::default()
        }),
        status: None,
    }
}

/// Whether [`Attempt::account_pull_secrets`] makes a difference to the pod.
pub(in crate::plan) fn needs_pull_secrets_of_account(
    request: &RunRequest,
    attempt: &Attempt,
    settings: &Settings,
) -> bool {
    let inputs = inputs(request, attempt, settings);
    inputs.need_logins_of_users() || (request.image_pull_secrets.is_empty() && inputs.need_the_store_on_nodes())
}

/// Names of the Secrets with which the node pulls. For a pod that names none the API server adds those of the service
/// account, and only for such a one: where the node needs the store's as well, all are named.
fn pull_secrets(request: &RunRequest, attempt: &Attempt, settings: &Settings) -> Vec<String> {
    let mut names = request.image_pull_secrets.clone();
    if let Some(store) = &settings.store
        && inputs(request, attempt, settings).need_the_store_on_nodes()
    {
        if names.is_empty() {
            names.extend(attempt.account_pull_secrets.iter().cloned());
        }
        if !names.contains(&store.secret_name) {
            names.push(store.secret_name.clone());
        }
    }
    names
}

fn fs_group(request: &RunRequest) -> Option<i64> {
    request.run_as_user.filter(|_| !request.volumes.is_empty())
}

fn inputs<'a>(request: &'a RunRequest, attempt: &Attempt<'a>, settings: &Settings) -> Inputs<'a> {
    Inputs { spec: &request.inputs, pins: attempt.pins, image_volumes: settings.image_volumes }
}

/// The request with what this attempt adds to it.
fn complete(request: &RunRequest, attempt: &Attempt, settings: &Settings) -> Request {
    let uid8 = request.uid.get(..8).unwrap_or(&request.uid);
    let inputs = inputs(request, attempt, settings);
    let mut requested = inputs.requested();
    for (index, input) in requested.iter_mut().enumerate() {
        input.digest = attempt.digests.get(&index).cloned();
    }
    let mut complete = Request {
        inputs: requested,
        staging_seconds: inputs.take_time().then_some(settings.staging_deadline.as_secs()),
        save: settings.store.as_ref().map(|store| SaveRequest {
            repository: store.repository(&request.namespace),
            tag: format!("{}.{}.{uid8}", request.name, attempt.number),
            exclude: request.exclude.clone(),
            deadline_seconds: store.deadline.as_secs(),
            interrupted_seconds: store.when_interrupted.as_secs(),
            give_up_seconds: GIVE_UP_SECONDS,
            made_by: provenance::identity(request, attempt),
        }),
        own_repositories: own_repositories(request, attempt, settings),
        ..request.request.clone()
    };
    tell_details(&mut complete, provenance::details(request, attempt));
    complete
}

/// Adds to what is said of how the output is made, if the annotation has room for it.
fn tell_details(complete: &mut Request, details: Map<String, Value>) {
    let pins = complete.inputs.len() * PINS_MAX_BYTES;
    let json_len = |text: serde_json::Result<String>| text.map_or(usize::MAX, |text| text.len());
    let taken = json_len(serde_json::to_string(complete)).saturating_add(json_len(serde_json::to_string(&details)));
    let Some(save) = &mut complete.save else { return };
    if taken.saturating_add(pins) <= REQUEST_MAX_BYTES {
        save.made_by.extend(details);
    } else {
        let names: Vec<_> = details.keys().cloned().collect();
        save.made_by.insert("leftOut".to_owned(), names.into());
    }
}

/// Where outputs of this namespace are that were saved before the store's URL was changed.
fn own_repositories(request: &RunRequest, attempt: &Attempt, settings: &Settings) -> Vec<String> {
    let Some(store) = &settings.store else { return Vec::new() };
    let today = store.repository(&request.namespace);
    let of_runs =
        attempt.pins.values().filter(|pin| pin.run_uid.is_some()).map(|pin| without_tag_and_digest(&pin.reference));
    let is_own = |repository: &&str| repository.rsplit('/').next() == Some(&request.namespace);
    let before: BTreeSet<&str> = of_runs.filter(is_own).filter(|repository| *repository != today).collect();
    before.into_iter().map(str::to_owned).collect()
}

fn metadata(request: &RunRequest, attempt: &Attempt, complete: &Request) -> ObjectMeta {
    let pins =
        Pins { repository: complete.save.as_ref().map(|save| save.repository.clone()), inputs: attempt.pins.clone() };
    // Maps with texts as keys, and nothing that fails: an error is no case.
    let json = |text: serde_json::Result<String>| text.unwrap_or_default();
    let mut annotations =
        BTreeMap::from([(names::REQUEST_ANNOTATION.to_owned(), json(serde_json::to_string(complete)))]);
    if pins != Pins::default() {
        annotations.insert(names::PINS_ANNOTATION.to_owned(), json(serde_json::to_string(&pins)));
    }
    let mut labels = BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), "bundlerun".to_owned()),
        ("app.kubernetes.io/managed-by".to_owned(), names::OPERATOR.to_owned()),
        ("app.kubernetes.io/part-of".to_owned(), "bundlerun".to_owned()),
        (names::RUN_LABEL.to_owned(), request.name.clone()),
        (names::RUN_UID_LABEL.to_owned(), request.uid.clone()),
        (names::ATTEMPT_LABEL.to_owned(), attempt.number.to_string()),
    ]);
    labels.extend(request.queue.clone().map(|queue| (names::KUEUE_QUEUE_LABEL.to_owned(), queue)));
    ObjectMeta {
        name: Some(pod_name(&request.name, attempt.number)),
        namespace: Some(request.namespace.clone()),
        labels: Some(labels),
        annotations: Some(annotations),
        finalizers: Some(vec![names::POD_FINALIZER.to_owned()]),
        owner_references: Some(vec![OwnerReference {
            api_version: format!("{}/{}", names::GROUP, names::VERSION),
            kind: names::KIND.into(),
            name: request.name.clone(),
            uid: request.uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }]),
        ..ObjectMeta::default()
    }
}

/// The native sidecar. Its postStart hook returns when *prepare* is done, so the run container starts after it, while
/// a startup probe would cost every run two seconds.
fn helper(request: &RunRequest, inputs: Inputs, credentials: &[String], settings: &Settings) -> Container {
    let subcommand = |name: &str| vec![paths::OPERATOR_BINARY.to_owned(), "helper".to_owned(), name.to_owned()];
    Container {
        name: names::HELPER_CONTAINER.into(),
        image: Some(settings.helper_image.clone()),
        image_pull_policy: Some("IfNotPresent".into()),
        command: Some(subcommand("run")),
        env: proxy_env(settings),
        restart_policy: Some("Always".into()),
        lifecycle: Some(Lifecycle {
            post_start: Some(LifecycleHandler {
                exec: Some(ExecAction { command: Some(subcommand("prepared")) }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        // By this the operator learns that there is something to ask for, without asking each helper again and again.
        readiness_probe: settings.store.is_some().then(|| Probe {
            http_get: Some(HTTPGetAction {
                path: Some("/ready".into()),
                port: IntOrString::Int(names::PROGRESS_PORT.into()),
                ..HTTPGetAction::default()
            }),
            period_seconds: Some(10),
            timeout_seconds: Some(5),
            failure_threshold: Some(2),
            ..Probe::default()
        }),
        resources: Some(ResourceRequirements {
            requests: Some(quantities([("cpu", "10m"), ("memory", "16Mi")])),
            limits: Some(quantities([(
                "memory",
                if settings.store.is_some() || inputs.take_time() { HELPER_MEMORY_WITH_BUNDLES } else { HELPER_MEMORY },
            )])),
            ..ResourceRequirements::default()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            // Root with one capability reads what any user wrote, 0600 included, and with another gives the working
            // directory to the image's user. With `runAsUser` both containers share that uid, nothing is needed, and the
            // pod fits the restricted Pod Security level.
            run_as_user: request.run_as_user.is_none().then_some(0),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".into()]),
                add: request.run_as_user.is_none().then(|| vec!["CHOWN".into(), "DAC_OVERRIDE".into()]),
            }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(
            [
                mount(volumes::BUNDLE, paths::BUNDLE_VOLUME),
                read_only(mount(volumes::OUTPUT, paths::OUTPUT)),
                read_only(mount(volumes::CACHE, paths::CACHE)),
                mount(volumes::BIN, paths::BIN),
                mount(volumes::RECORD, paths::RECORD),
                read_only(mount(volumes::REQUEST, paths::REQUEST)),
            ]
            .into_iter()
            .chain(inputs.helper_mounts())
            .chain(
                (0..credentials.len())
                    .map(|i| read_only(mount(&credentials_volume(i), &format!("{}/{i}", paths::CREDENTIALS)))),
            )
            .collect(),
        ),
        ..Container::default()
    }
}

/// The user's container: `workingDir` stays unset so that the runner starts in the image's WORKDIR, where the
/// `.bashrc` is, and as the image's user.
fn run(request: &RunRequest, attempt: &Attempt, inputs: Inputs, complete: &Request) -> Container {
    let image = attempt.image;
    let mut limits =
        quantities([("cpu", format!("{}m", request.cpu_millis)), ("memory", request.memory_bytes.to_string())]);
    limits.extend(request.gpus.limits());
    let mut requests = limits.clone();
    // A request only: the kubelet answers an overrun of a limit with an eviction that loses the record.
    requests.insert("ephemeral-storage".into(), bytes(ephemeral_storage(request, inputs)));
    Container {
        name: names::RUN_CONTAINER.into(),
        image: Some(image.to_owned()),
        // A tag is looked up at each attempt that names one; a digest cannot change.
        image_pull_policy: Some(if image.contains('@') { "IfNotPresent" } else { "Always" }.into()),
        command: Some(vec![paths::RUNNER.into(), "run".into()]),
        env: Some(environment(request, attempt.number)),
        startup_probe: complete.staging_seconds.map(|seconds| Probe {
            exec: Some(ExecAction { command: Some(vec![paths::RUNNER.into(), "started".into()]) }),
            period_seconds: i32::try_from(STARTED_PERIOD_SECONDS).ok(),
            timeout_seconds: Some(10),
            // The helper keeps the deadline and says what is missing; this is only in case it does not.
            failure_threshold: i32::try_from(seconds / STARTED_PERIOD_SECONDS + 60).ok(),
            ..Probe::default()
        }),
        resources: Some(ResourceRequirements {
            requests: Some(requests),
            limits: Some(limits),
            ..ResourceRequirements::default()
        }),
        security_context: request.run_as_user.map(|_| SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(
            [
                VolumeMount { sub_path: Some(paths::WORK_SUB_PATH.into()), ..mount(volumes::BUNDLE, paths::BUNDLE) },
                mount(volumes::OUTPUT, paths::OUTPUT),
                mount(volumes::CACHE, paths::CACHE),
                read_only(mount(volumes::BIN, paths::BIN)),
                mount(volumes::RECORD, paths::RECORD),
                read_only(mount(volumes::REQUEST, paths::REQUEST)),
                mount(volumes::SHM, "/dev/shm"),
            ]
            .into_iter()
            .chain(request.gpus.driver_mount())
            .chain(request.volumes.iter().enumerate().map(|(i, volume)| VolumeMount {
                sub_path: volume.sub_path.clone(),
                ..mount(&claim_volume(i), &volume.mount_path)
            }))
            .chain(inputs.run_mounts())
            .collect(),
        ),
        ..Container::default()
    }
}

/// The working directory with what the command says, the caches, and the inputs may each take `resources.disk`.
fn ephemeral_storage(request: &RunRequest, inputs: Inputs) -> u64 {
    let staged = inputs.staged_bytes(request.disk_bytes);
    request.disk_bytes.saturating_mul(2).saturating_add(staged)
}

/// The user's variables come after ours, so that HOME can be set; names that must stay ours are refused by the CRD.
fn environment(request: &RunRequest, attempt: u32) -> Vec<EnvVar> {
    let literal = |name: &str, value: String| EnvVar { name: name.into(), value: Some(value), ..EnvVar::default() };
    let cpus = request.cpu_millis.div_ceil(1000);
    let mut env = vec![
        literal("HOME", paths::BUNDLE.into()),
        literal("CODALAB", "true".into()),
        literal("BUNDLE_STDOUT", format!("{}/{}", paths::OUTPUT, files::STDOUT)),
        literal("BUNDLE_STDERR", format!("{}/{}", paths::OUTPUT, files::STDERR)),
        literal("BUNDLE_NAME", request.name.clone()),
        literal("BUNDLE_UID", request.uid.clone()),
        literal("BUNDLE_ATTEMPT", attempt.to_string()),
        literal("BUNDLE_CPUS", cpus.to_string()),
        literal("BUNDLE_MEMORY_BYTES", request.memory_bytes.to_string()),
        literal("BUNDLE_GPUS", request.gpus.count.to_string()),
    ];
    env.extend(request.gpus.env());
    env.retain(|ours| request.env.iter().all(|theirs| theirs.name != ours.name));
    env.extend(request.env.iter().cloned());
    env.extend(request.gpus.no_devices());
    env
}

fn proxy_env(settings: &Settings) -> Option<Vec<EnvVar>> {
    let variable = |(name, value): (&str, String)| EnvVar {
        name: name.into(),
        // Kubernetes expands $(NAME) and $$ in values.
        value: Some(value.replace('$', "$$")),
        ..EnvVar::default()
    };
    let env: Vec<EnvVar> = settings.proxy.env().into_iter().map(variable).collect();
    (!env.is_empty()).then_some(env)
}

/// Names of the Secrets with credentials that the helper needs: the store's, then those for the registries of inputs, the
/// run's own before those of its service account.
fn credentials(request: &RunRequest, attempt: &Attempt, settings: &Settings) -> Vec<String> {
    let inputs = inputs(request, attempt, settings);
    let mut of_inputs: Vec<String> = Vec::new();
    if inputs.need_registries() {
        of_inputs.extend(request.image_pull_secrets.iter().cloned());
    }
    if inputs.need_logins_of_users() {
        for name in attempt.account_pull_secrets.iter().take(ACCOUNT_PULL_SECRETS_MAX) {
            if !of_inputs.contains(name) {
                of_inputs.push(name.clone());
            }
        }
    }
    let store = settings.store.as_ref().map(|store| store.secret_name.clone());
    store.into_iter().chain(of_inputs).collect()
}

fn credentials_volume(index: usize) -> String {
    format!("{}-{index}", volumes::CREDENTIALS)
}

fn pod_volumes(request: &RunRequest, inputs: Inputs, credentials: Vec<String>) -> Vec<Volume> {
    let empty_dir = |name: &str, source| Volume { name: name.into(), empty_dir: Some(source), ..Volume::default() };
    let mut all = vec![
        empty_dir(volumes::BUNDLE, backstop(request.disk_bytes)),
        empty_dir(volumes::OUTPUT, backstop(request.disk_bytes)),
        empty_dir(volumes::CACHE, backstop(request.disk_bytes)),
        empty_dir(volumes::BIN, EmptyDirVolumeSource::default()),
        empty_dir(volumes::RECORD, EmptyDirVolumeSource::default()),
        Volume {
            name: volumes::REQUEST.into(),
            downward_api: Some(DownwardAPIVolumeSource {
                items: Some(vec![DownwardAPIVolumeFile {
                    path: files::REQUEST.into(),
                    field_ref: Some(ObjectFieldSelector {
                        field_path: format!("metadata.annotations['{}']", names::REQUEST_ANNOTATION),
                        api_version: None,
                    }),
                    ..DownwardAPIVolumeFile::default()
                }]),
                default_mode: None,
            }),
            ..Volume::default()
        },
        empty_dir(
            volumes::SHM,
            EmptyDirVolumeSource {
                medium: Some("Memory".into()),
                size_limit: Some(bytes(request.shared_memory_bytes)),
            },
        ),
    ];
    all.extend(request.gpus.driver_volume());
    all.extend(request.volumes.iter().enumerate().map(|(i, volume)| Volume {
        name: claim_volume(i),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: volume.claim.clone(),
            read_only: None,
        }),
        ..Volume::default()
    }));
    all.extend(inputs.pod_volumes(request.disk_bytes));
    all.extend(credentials.into_iter().enumerate().map(|(i, name)| Volume {
        name: credentials_volume(i),
        // Its absence is an answer of the registry's, not a pod that cannot start.
        secret: Some(SecretVolumeSource {
            secret_name: Some(name),
            optional: Some(true),
            // One of them is there, by the type of the Secret.
            items: Some([files::DOCKER_CONFIG, files::DOCKER_CFG].map(same_path).into()),
            default_mode: None,
        }),
        ..Volume::default()
    }));
    all
}

fn same_path(key: &str) -> KeyToPath {
    KeyToPath { key: key.into(), path: key.into(), mode: None }
}

/// A volume of which the helper keeps the limit: what the kubelet does is only a backstop.
pub(in crate::plan) fn backstop(disk_bytes: u64) -> EmptyDirVolumeSource {
    let most = disk_bytes.saturating_mul(2).saturating_add(DISK_BACKSTOP_BYTES);
    EmptyDirVolumeSource { size_limit: Some(bytes(most)), medium: None }
}

fn claim_volume(index: usize) -> String {
    format!("claim-{index}")
}

pub(in crate::plan) fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount { name: volume.into(), mount_path: path.into(), ..VolumeMount::default() }
}

pub(in crate::plan) fn read_only(mount: VolumeMount) -> VolumeMount {
    VolumeMount { read_only: Some(true), ..mount }
}

fn bytes(n: u64) -> Quantity {
    Quantity(n.to_string())
}

fn quantities<V: Into<String>, const N: usize>(pairs: [(&str, V); N]) -> BTreeMap<String, Quantity> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), Quantity(value.into()))).collect()
}
