//! Raw spec -> valid run: the only fallible part of a plan, and it tells all problems at once.
//!
//! The API server has already refused most bad input (schema and CEL). What is checked here is what CEL cannot say,
//! and what an object stored under an older schema may still hold.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMapKeySelector, EnvVar, EnvVarSource, SecretKeySelector};

use crate::api::spec::{self, BundleRunSpec, DEFAULT_GPU_PROFILE, Outputs, Resources, Retry};
use crate::api::{BundleRun, Quantity, duration};
use crate::contract::{Command, InputSource, Request};
use crate::names;
use crate::oci::place;
use crate::plan::facts::settings::Settings;
use crate::plan::own_address::own_host;
use crate::plan::pod::gpu::Gpus;
use crate::plan::pod::inputs::Inputs;
use crate::plan::pod::mounts::{in_container, unexpanded};
use crate::plan::pod::valid_run::{ClaimMount, PINS_MAX_BYTES, REQUEST_MAX_BYTES, Snapshots, ValidRun};

/// Annotations have room for 256 KiB: for the request, the run's own, the administrator's, and this.
const CREATED_BY_MAX_BYTES: usize = 500;
/// `retry.backoff` when unset; doubled so often at most, which is enough for any that is less than the longest.
const BACKOFF: Duration = Duration::from_secs(10);
const BACKOFF_DOUBLES: u32 = 10;
const BACKOFF_MAX: Duration = Duration::from_mins(10);
/// `resources.cpus` of runs that say none, in thousandths.
pub(crate) const DEFAULT_CPU_MILLIS: u64 = 1000;
/// `resources.memory` of runs that say none.
pub(crate) const DEFAULT_MEMORY_BYTES: u64 = 2 << 30;

/// Validates a run. The error lists every problem, each naming its field.
pub(in crate::plan) fn validate(run: &BundleRun, settings: &Settings) -> Result<ValidRun, Vec<String>> {
    let spec = &run.spec;
    let mut problems = Problems(Vec::new());

    problems.0.extend(twice(spec));
    let command = problems.check("spec", command(spec));
    let resources = &spec.resources;
    let cpu_millis =
        problems.check("spec.resources.cpus", parse(resources.cpus.as_ref(), DEFAULT_CPU_MILLIS, Quantity::millis));
    let memory_bytes = problems.check("spec.resources.memory", memory(resources));
    let disk_bytes = problems.check("spec.resources.disk", disk_bytes(resources, settings));
    let shared_memory_bytes =
        problems.check("spec.resources.sharedMemory", shared_memory(resources, memory_bytes, settings));
    let time_limit_seconds = problems.check(
        "spec.timeLimit",
        spec.time_limit.as_deref().map(duration::parse_seconds).transpose().map_err(|e| e.to_string()),
    );
    let grace = problems.check("spec.stopGrace", allowed_stop_grace(spec, settings));
    problems.check("spec.podRetention", own_pod_retention(spec));
    let gpus = problems.check("spec.gpuProfile", gpus(spec, settings));
    problems.0.extend(gpus_as_extended(resources, settings));
    let volumes: Vec<ClaimMount> = spec.volumes.iter().map(claim_mount).collect();
    if let Some(gpus) = &gpus {
        for (i, volume) in volumes.iter().enumerate() {
            problems.check(&format!("spec.volumes[{i}].path"), beside_the_driver(volume, gpus));
        }
    }

    for (i, input) in spec.inputs.iter().enumerate() {
        problems.check(&format!("spec.inputs[{i}]"), one_source(input));
    }
    problems.check("spec.outputs.exclude", globs(&spec.outputs.exclude));
    let snapshots = problems.check("spec.outputs.snapshots", snapshots(&spec.outputs));
    problems.0.extend(snapshots_without_a_store(spec, settings));
    problems.0.extend(store_secret_used(spec, settings));
    problems.0.extend(inputs_on_the_pod_itself(spec));
    problems.0.extend(outputs_of_others(spec, run.metadata.namespace.as_deref().unwrap_or_default(), settings));

    let request = match (command, time_limit_seconds, grace, disk_bytes) {
        (Some(command), Some(time_limit_seconds), Some(grace), Some(disk_bytes)) => {
            let request = Request {
                time_limit_seconds,
                disk_bytes: Some(disk_bytes),
                gpus: gpus.as_ref().and_then(Gpus::request),
                inputs: Inputs { spec: &spec.inputs, pins: &BTreeMap::new(), image_volumes: false }.requested(),
                volumes: spec.volumes.iter().map(|v| v.path.clone()).filter(|path| !path.starts_with('/')).collect(),
                registries: settings.registries.clone(),
                ..Request::new(command, grace.as_secs())
            };
            problems.check(&largest_field(&request), fits_a_pod(&request)).map(|()| request)
        }
        _ => None,
    };

    match (cpu_millis, memory_bytes, disk_bytes, shared_memory_bytes, gpus, request) {
        (
            Some(cpu_millis),
            Some(memory_bytes),
            Some(disk_bytes),
            Some(shared_memory_bytes),
            Some(gpus),
            Some(request),
        ) if problems.0.is_empty() => Ok(ValidRun {
            name: run.metadata.name.clone().unwrap_or_default(),
            namespace: run.metadata.namespace.clone().unwrap_or_default(),
            uid: run.metadata.uid.clone().unwrap_or_default(),
            queue: run.metadata.labels.as_ref().and_then(|l| l.get(names::KUEUE_QUEUE_LABEL)).cloned(),
            created_by: created_by(run),
            request,
            inputs: spec.inputs.clone(),
            exclude: spec.outputs.exclude.clone(),
            snapshots: snapshots.unwrap_or_default(),
            resumes: spec.retry.resume,
            default_image: spec.image.is_none(),
            env: spec.env.iter().map(env_var).collect(),
            volumes,
            gpus,
            gpu_profile: spec.gpu_profile.clone(),
            cpu_millis,
            memory_bytes,
            disk_bytes,
            shared_memory_bytes,
            extended: spec.resources.extended.clone(),
            run_as_user: spec.run_as_user,
            run_as_group: spec.run_as_group,
            fs_group: spec.fs_group,
            pod_labels: spec.pod_labels.clone(),
            pod_annotations: spec.pod_annotations.clone(),
            node_selector: spec.node_selector.clone(),
            tolerations: spec.tolerations.clone(),
            priority_class_name: spec.priority_class_name.clone(),
            scheduler_name: spec.scheduler_name.clone(),
            image_pull_secrets: spec.image_pull_secrets.iter().map(|s| s.name.clone()).collect(),
            service_account_name: spec.service_account_name.clone(),
        }),
        _ => Err(problems.0),
    }
}

/// One that would not fit the pod's annotations is no name of a user.
fn created_by(run: &BundleRun) -> Option<String> {
    let name = run.metadata.annotations.as_ref()?.get(names::CREATED_BY_ANNOTATION)?;
    (name.len() <= CREATED_BY_MAX_BYTES).then(|| name.clone())
}

/// The problems found so far.
struct Problems(Vec<String>);

impl Problems {
    /// Keeps the value, or notes the problem with the field's name.
    fn check<T>(&mut self, field: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|problem| self.0.push(format!("{field}: {problem}"))).ok()
    }
}

/// The time before the attempt that follows a failure of the run's own, which is the `failures`th.
pub(in crate::plan) fn backoff(retry: &Retry, failures: u32) -> Duration {
    let first = retry.backoff.as_deref().and_then(|text| duration::parse_seconds(text).ok());
    let first = first.map_or(BACKOFF, Duration::from_secs);
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(BACKOFF_DOUBLES));

    doubled.min(BACKOFF_MAX.max(first))
}

/// What the API server refuses where lists are maps, and an object stored under another definition may have: a second
/// item under one key. In a pod it would hide the first, or make the API server refuse the pod with its own words.
fn twice(spec: &BundleRunSpec) -> Vec<String> {
    let lists: [(&str, &str, Vec<&str>); 4] = [
        ("env", "name", spec.env.iter().map(|v| v.name.as_str()).collect()),
        ("inputs", "path", spec.inputs.iter().map(|i| i.path.as_str()).collect()),
        ("volumes", "path", spec.volumes.iter().map(|v| v.path.as_str()).collect()),
        ("imagePullSecrets", "name", spec.image_pull_secrets.iter().map(|s| s.name.as_str()).collect()),
    ];
    let mut problems = Vec::new();
    for (list, key, values) in lists {
        let mut seen = HashMap::new();
        for (i, value) in values.into_iter().enumerate() {
            match seen.entry(value) {
                Entry::Vacant(free) => _ = free.insert(i),
                Entry::Occupied(first) => {
                    problems.push(format!("spec.{list}[{i}].{key}: {value:?} is that of spec.{list}[{}]", first.get()));
                }
            }
        }
    }
    problems
}

fn command(spec: &BundleRunSpec) -> Result<Command, String> {
    match (&spec.command, &spec.argv) {
        (Some(text), None) => Ok(Command::Shell(text.clone())),
        (None, Some(argv)) if !argv.is_empty() => Ok(Command::Argv(argv.clone())),
        _ => Err("set exactly one of command and argv".into()),
    }
}

fn parse<E: ToString>(
    quantity: Option<&Quantity>,
    default: u64,
    parse: impl FnOnce(&Quantity) -> Result<u64, E>,
) -> Result<u64, String> {
    quantity.map_or(Ok(default), |q| parse(q).map_err(|e| e.to_string()))
}

fn memory(resources: &Resources) -> Result<u64, String> {
    parse(resources.memory.as_ref(), DEFAULT_MEMORY_BYTES, Quantity::bytes)
}

/// How much a run may write, by the settings of today.
pub(in crate::plan) fn disk_bytes(resources: &Resources, settings: &Settings) -> Result<u64, String> {
    parse(resources.disk.as_ref(), settings.disk_bytes, Quantity::bytes)
}

/// How large `/dev/shm` is, by the settings of today.
pub(in crate::plan) fn shared_memory_bytes(resources: &Resources, settings: &Settings) -> Option<u64> {
    shared_memory(resources, memory(resources).ok(), settings).ok()
}

/// How long the command of a run has between TERM and KILL.
pub(in crate::plan) fn stop_grace(run: &BundleRun, settings: &Settings) -> Duration {
    own_stop_grace(&run.spec).ok().flatten().unwrap_or(settings.stop_grace)
}

/// How long the pod of an attempt of this run is kept after the attempt is over.
pub(in crate::plan) fn pod_retention(run: &BundleRun, settings: &Settings) -> Duration {
    own_pod_retention(&run.spec).ok().flatten().unwrap_or(settings.pod_retention)
}

fn own_stop_grace(spec: &BundleRunSpec) -> Result<Option<Duration>, String> {
    own_duration(spec.stop_grace.as_deref())
}

fn own_pod_retention(spec: &BundleRunSpec) -> Result<Option<Duration>, String> {
    own_duration(spec.pod_retention.as_deref())
}

fn own_duration(text: Option<&str>) -> Result<Option<Duration>, String> {
    let seconds = text.map(duration::parse_seconds).transpose();
    seconds.map(|seconds| seconds.map(Duration::from_secs)).map_err(|error| error.to_string())
}

/// A drain of a node waits for it: how long it may be is the administrator's.
fn allowed_stop_grace(spec: &BundleRunSpec, settings: &Settings) -> Result<Duration, String> {
    let Some(grace) = own_stop_grace(spec)? else { return Ok(settings.stop_grace) };
    let most = settings.max_stop_grace;
    if grace > most {
        let seconds = most.as_secs();
        return Err(format!("at most {seconds}s here, by the administrator's setting maxStopGrace"));
    }
    Ok(grace)
}

fn shared_memory(resources: &Resources, memory_bytes: Option<u64>, settings: &Settings) -> Result<u64, String> {
    let memory_bytes = memory_bytes.unwrap_or(u64::MAX);
    let Some(asked) = &resources.shared_memory else { return Ok(settings.shared_memory_bytes.min(memory_bytes)) };
    let asked = asked.bytes().map_err(|e| e.to_string())?;
    if asked > memory_bytes {
        return Err("must not be more than memory: files in /dev/shm count as memory".into());
    }
    Ok(asked)
}

fn gpus(spec: &BundleRunSpec, settings: &Settings) -> Result<Gpus, String> {
    let name = spec.gpu_profile.as_deref().unwrap_or(DEFAULT_GPU_PROFILE);
    let Some(profile) = settings.gpu_profiles.get(name) else {
        let known: Vec<_> = settings.gpu_profiles.keys().map(String::as_str).collect();
        return Err(format!("there is no profile {name:?}; the admin has defined: {}", known.join(", ")));
    };
    Ok(Gpus { count: spec.resources.gpus, profile: profile.clone() })
}

/// GPUs that are asked for beside `gpus` would have neither their driver nor their bounds.
fn gpus_as_extended(resources: &Resources, settings: &Settings) -> Vec<String> {
    let profile_of = |name: &str| settings.gpu_profiles.iter().find(|(_, profile)| profile.resource_name == name);
    let named = resources.extended.keys().filter_map(|name| Some((name, profile_of(name)?.0)));
    named
        .map(|(name, profile)| {
            format!("spec.resources.extended: {name:?} is that of the GPU profile {profile:?}: ask for it with gpus")
        })
        .collect()
}

fn beside_the_driver(volume: &ClaimMount, gpus: &Gpus) -> Result<(), String> {
    let Some(driver) = gpus.driver_collides_with(&volume.mount_path) else { return Ok(()) };
    Err(format!(
        "{:?} and the GPU driver at {driver:?} would hide each other: mount the claim elsewhere",
        volume.mount_path
    ))
}

/// The annotations of the pod hold it, with what is added for an attempt.
fn fits_a_pod(request: &Request) -> Result<(), String> {
    let room = REQUEST_MAX_BYTES.saturating_sub(request.inputs.len() * PINS_MAX_BYTES);
    let size = serde_json::to_string(request).map_err(|e| e.to_string())?.len();
    if size > room {
        return Err(format!(
            "takes {size} bytes as JSON with the rest of the request, and at most {room} fit a pod (a control character takes six): put \
             the text into a ConfigMap or an image"
        ));
    }
    Ok(())
}

/// The field that takes most of a request.
fn largest_field(request: &Request) -> String {
    let bytes = |value: Result<String, serde_json::Error>| value.map_or(0, |json| json.len());
    let command = match request.command {
        Command::Shell(_) => "spec.command",
        Command::Argv(_) => "spec.argv",
    };
    let command = (bytes(serde_json::to_string(&request.command)), command.to_owned());
    let inputs = request.inputs.iter().enumerate().map(|(i, input)| {
        let field = if matches!(input.source, InputSource::Text(_)) { ".text" } else { "" };
        (bytes(serde_json::to_string(input)), format!("spec.inputs[{i}]{field}"))
    });
    inputs.chain([command]).max_by_key(|(bytes, _)| *bytes).map(|(_, field)| field).unwrap_or_default()
}

fn one_source(input: &spec::Input) -> Result<(), String> {
    let sources = [
        input.run.is_some(),
        input.image.is_some(),
        input.claim.is_some(),
        input.config_map.is_some(),
        input.secret.is_some(),
        input.text.is_some(),
        input.url.is_some(),
    ];
    match sources.into_iter().filter(|there| *there).count() {
        1 => Ok(()),
        _ => Err("set exactly one source: run, image, claim, configMap, secret, text or url".into()),
    }
}

fn snapshots(outputs: &Outputs) -> Result<Snapshots, String> {
    let wanted = outputs.snapshots.clone().unwrap_or_default();
    let every = wanted.every.as_deref().map(duration::parse_seconds).transpose();
    let every_seconds = every.map_err(|error| format!("every: {error}"))?;
    globs(wanted.exclude.as_deref().unwrap_or_default()).map_err(|error| format!("exclude: {error}"))?;
    Ok(Snapshots { every_seconds, exclude: wanted.exclude })
}

fn globs(patterns: &[String]) -> Result<(), String> {
    let wrong = patterns.iter().filter_map(|pattern| globset::Glob::new(pattern).err());
    let wrong: Vec<_> = wrong.map(|error| error.to_string()).collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

/// Without a store no run has snapshots.
fn snapshots_without_a_store(spec: &BundleRunSpec, settings: &Settings) -> Vec<String> {
    let wants = |input: &spec::Input| input.run.as_ref().is_some_and(|run| run.snapshot.is_some());
    let wanting = spec.inputs.iter().enumerate().filter(|(_, input)| settings.store.is_none() && wants(input));
    let why = "runs have no snapshots here, because the administrator has configured no store";
    wanting.map(|(i, _)| format!("spec.inputs[{i}].run.snapshot: {why}")).collect()
}

/// Whoever has the store's credentials can overwrite the outputs of others.
fn store_secret_used(spec: &BundleRunSpec, settings: &Settings) -> Vec<String> {
    let Some(store) = &settings.store else { return Vec::new() };
    let env = spec.env.iter().enumerate().filter_map(|(i, var)| {
        let name = &var.value_from.as_ref()?.secret_key_ref.as_ref()?.name;
        (*name == store.secret_name).then(|| format!("spec.env[{i}].valueFrom.secretKeyRef.name"))
    });
    let inputs = spec.inputs.iter().enumerate().filter_map(|(i, input)| {
        let name = &input.secret.as_ref()?.name;
        (*name == store.secret_name).then(|| format!("spec.inputs[{i}].secret.name"))
    });
    env.chain(inputs)
        .map(|field| format!("{field}: the Secret with the credentials of the store is not for commands"))
        .collect()
}

/// References that nodes and helpers could read with the store's login, and this namespace has no business with.
fn outputs_of_others(spec: &BundleRunSpec, namespace: &str, settings: &Settings) -> Vec<String> {
    let Some(store) = &settings.store else { return Vec::new() };
    let image = spec.image.iter().map(|image| ("spec.image".to_owned(), image));
    let inputs =
        spec.inputs.iter().enumerate().filter_map(|(i, input)| {
            Some((format!("spec.inputs[{i}].image.reference"), &input.image.as_ref()?.reference))
        });
    image
        .chain(inputs)
        .filter(|(_, reference)| store.is_of_another_namespace(reference, namespace))
        .map(|(field, reference)| {
            let prefix = &store.prefix;
            format!(
                "{field}: {reference:?} is in the store of outputs, of which {prefix}/{namespace} is this namespace's"
            )
        })
        .collect()
}

/// Images and downloads are fetched in the pod, where `localhost` is the pod itself: no node's registry answers there. The
/// image of the run is pulled by the node, where it can be the right name.
fn inputs_on_the_pod_itself(spec: &BundleRunSpec) -> Vec<String> {
    let own = |input: &spec::Input| match (&input.image, &input.url) {
        (Some(image), _) => {
            own_host(&place(&image.reference).0)?;
            Some(("image.reference", image.reference.clone(), "the registry"))
        }
        // The rest of an address may have secrets in it.
        (_, Some(url)) => Some(("url.href", own_host(&url.href)?, "the server")),
        _ => None,
    };
    let inputs = spec.inputs.iter().enumerate().filter_map(|(i, input)| Some((i, own(input)?)));
    inputs
        .map(|(i, (field, shown, who))| {
            format!(
                "spec.inputs[{i}].{field}: {shown:?} is on the pod itself, because inputs are fetched in the pod: name \
                 {who} by an address that pods can reach"
            )
        })
        .collect()
}

fn env_var(var: &spec::EnvVar) -> EnvVar {
    EnvVar {
        name: var.name.clone(),
        value: var.value.as_deref().map(unexpanded),
        value_from: var.value_from.as_ref().map(|from| EnvVarSource {
            secret_key_ref: from.secret_key_ref.as_ref().map(|k| SecretKeySelector {
                name: k.name.clone(),
                key: k.key.clone(),
                optional: k.optional,
            }),
            config_map_key_ref: from.config_map_key_ref.as_ref().map(|k| ConfigMapKeySelector {
                name: k.name.clone(),
                key: k.key.clone(),
                optional: k.optional,
            }),
            ..EnvVarSource::default()
        }),
    }
}

fn claim_mount(volume: &spec::Volume) -> ClaimMount {
    let mount_path = in_container(&volume.path);
    ClaimMount { mount_path, claim: volume.claim.name.clone(), sub_path: volume.claim.path.clone() }
}
