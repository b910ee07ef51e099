//! The two containers of a pod: the helper, and the user's.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, EnvVar, ExecAction, HTTPGetAction, Lifecycle, LifecycleHandler, Probe,
    ResourceRequirements, SecurityContext, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Attempt;
use super::inputs::Inputs;
use super::mounts::{bytes, literal, millis, mount, read_only};
use super::valid_run::ValidRun;
use super::volumes::{claim_volume, credentials_volume};
use crate::api::Quantity;
use crate::contract::Request;
use crate::names::{self, files, paths, volumes};
use crate::plan::facts::settings::{Qos, Settings};

/// The helper's memory limit: over four times its measured peak, when it only watches, and when it stages or saves.
const HELPER_MEMORY: u64 = 64 << 20;
const HELPER_MEMORY_WITH_BUNDLES: u64 = 512 << 20;
/// What it asks for.
const HELPER_MEMORY_REQUEST: u64 = 16 << 20;
const HELPER_CPU_REQUEST_MILLIS: u64 = 10;
/// Its CPU limit in a pod that is Guaranteed by its containers: less hashes at tens of megabytes a second.
const HELPER_CPU_LIMIT_MILLIS: u64 = 500;
/// Between two looks at whether the command has begun.
const STARTED_PERIOD_SECONDS: u64 = 2;

/// The native sidecar. Its postStart hook returns when *prepare* is done, so the run container starts after it, while
/// a startup probe would cost every run two seconds.
pub(super) fn helper(request: &ValidRun, inputs: Inputs, credentials: &[String], settings: &Settings) -> Container {
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
        readiness_probe: Some(Probe {
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
        resources: Some(HelperUse::of(inputs, settings).resources()),
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

/// What the helper container asks for, and what it may use.
struct HelperUse {
    cpu_millis: u64,
    cpu_limit_millis: Option<u64>,
    memory_bytes: u64,
    memory_limit_bytes: u64,
}

impl HelperUse {
    fn of(inputs: Inputs, settings: &Settings) -> Self {
        let set = &settings.helper;
        let with_bundles = settings.store.is_some() || inputs.take_time();
        let memory = if with_bundles { HELPER_MEMORY_WITH_BUNDLES } else { HELPER_MEMORY };
        let memory_limit_bytes = set.memory_limit_bytes.unwrap_or(memory);
        let cpu_millis = set.cpu_request_millis.unwrap_or(HELPER_CPU_REQUEST_MILLIS);
        if settings.qos == Qos::Guaranteed && !settings.pod_resources {
            let cpu_millis = set.cpu_limit_millis.unwrap_or(HELPER_CPU_LIMIT_MILLIS);
            return Self {
                cpu_millis,
                cpu_limit_millis: Some(cpu_millis),
                memory_bytes: memory_limit_bytes,
                memory_limit_bytes,
            };
        }
        Self {
            cpu_millis,
            cpu_limit_millis: set.cpu_limit_millis,
            memory_bytes: set.memory_request_bytes.unwrap_or(HELPER_MEMORY_REQUEST),
            memory_limit_bytes,
        }
    }

    fn resources(&self) -> ResourceRequirements {
        // As people write them: refusals of LimitRanges quote them.
        let memory = |n| ("memory".to_owned(), (&Quantity::of_bytes(n)).into());
        let cpu = |n| ("cpu".to_owned(), millis(n));
        ResourceRequirements {
            requests: Some([cpu(self.cpu_millis), memory(self.memory_bytes)].into()),
            limits: Some(self.cpu_limit_millis.map(cpu).into_iter().chain([memory(self.memory_limit_bytes)]).collect()),
            ..ResourceRequirements::default()
        }
    }
}

/// Resources of the whole pod: with requests that are limits it is Guaranteed, and the helper may use what the command
/// leaves. `None`: it has none of its own.
pub(super) fn of_pod(run: &ValidRun, inputs: Inputs, settings: &Settings) -> Option<ResourceRequirements> {
    if settings.qos != Qos::Guaranteed || !settings.pod_resources {
        return None;
    }
    let helper = HelperUse::of(inputs, settings);
    let cpu = run.cpu_millis.saturating_add(helper.cpu_limit_millis.unwrap_or(helper.cpu_millis));
    let memory = run.memory_bytes.saturating_add(helper.memory_limit_bytes);
    let all = BTreeMap::from([("cpu".to_owned(), millis(cpu)), ("memory".to_owned(), bytes(memory))]);
    Some(ResourceRequirements { requests: Some(all.clone()), limits: Some(all), ..ResourceRequirements::default() })
}

/// The user's container: `workingDir` stays unset so that the runner starts in the image's WORKDIR, where the
/// `.bashrc` is, and as the image's user.
pub(super) fn run(request: &ValidRun, attempt: &Attempt, inputs: Inputs, complete: &Request) -> Container {
    let image = attempt.image;
    let mut limits = BTreeMap::from([
        ("cpu".to_owned(), millis(request.cpu_millis)),
        ("memory".to_owned(), bytes(request.memory_bytes)),
    ]);
    limits.extend(request.extended.iter().map(|(name, amount)| (name.clone(), amount.into())));
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
fn ephemeral_storage(request: &ValidRun, inputs: Inputs) -> u64 {
    let staged = inputs.staged_bytes(request.disk_bytes);
    request.disk_bytes.saturating_mul(2).saturating_add(staged)
}

/// The user's variables come after ours, so that HOME can be set; names that must stay ours are refused by the CRD.
fn environment(request: &ValidRun, attempt: u32) -> Vec<EnvVar> {
    let cpus = request.cpu_millis.div_ceil(1000);
    let mut env = vec![
        literal("HOME", paths::BUNDLE),
        literal("CODALAB", "true"),
        literal("BUNDLE_STDOUT", &format!("{}/{}", paths::OUTPUT, files::STDOUT)),
        literal("BUNDLE_STDERR", &format!("{}/{}", paths::OUTPUT, files::STDERR)),
        literal("BUNDLE_SNAPSHOT", paths::SNAPSHOT),
        literal("BUNDLE_NAME", &request.name),
        literal("BUNDLE_UID", &request.uid),
        literal("BUNDLE_ATTEMPT", &attempt.to_string()),
        literal("BUNDLE_CPUS", &cpus.to_string()),
        literal("BUNDLE_MEMORY_BYTES", &request.memory_bytes.to_string()),
        literal("BUNDLE_GPUS", &request.gpus.count.to_string()),
    ];
    let time_limit = request.request.time_limit_seconds;
    env.extend(time_limit.map(|seconds| literal("BUNDLE_TIME_LIMIT_SECONDS", &seconds.to_string())));
    env.extend(request.gpus.env());
    env.retain(|ours| request.env.iter().all(|theirs| theirs.name != ours.name));
    env.extend(request.env.iter().cloned());
    env.extend(request.gpus.no_devices());
    env
}

fn proxy_env(settings: &Settings) -> Option<Vec<EnvVar>> {
    let env: Vec<EnvVar> = settings.proxy.env().into_iter().map(|(name, value)| literal(name, &value)).collect();
    (!env.is_empty()).then_some(env)
}
