//! Valid run -> pod. Infallible.

pub(in crate::plan) mod affinity;
mod containers;
pub(in crate::plan) mod gpu;
pub(in crate::plan) mod inputs;
pub(in crate::plan) mod mounts;
mod provenance;
mod requests;
pub(in crate::plan) mod valid_run;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{LocalObjectReference, Pod, PodSecurityContext, PodSpec, SeccompProfile};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use serde_json::{Map, Value};

pub(in crate::plan) use self::requests::{requests, requests_of_run};

use self::inputs::Inputs;
use self::valid_run::{PINS_MAX_BYTES, REQUEST_MAX_BYTES, ValidRun};
use crate::contract::{GIVE_UP_SECONDS, InputPatience, InputSource, Pin, Pins, Request, SaveRequest, SnapshotRequest};
use crate::names;
use crate::names::bundle::{input_tag, output_tag, snapshot_tag};
use crate::oci::without_tag_and_digest;
use crate::plan::facts::settings::Settings;

/// What the helper has after the runner's grace and the time for saving, to count the files and report.
const REPORT_GRACE_SECONDS: u64 = 30;
/// Earlier attempts of which a snapshot is looked for.
const MOST_LOOKED_FOR: usize = 50;

/// Name of the pod of an attempt.
#[must_use]
pub fn pod_name(run: &str, attempt: u32) -> String {
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
    /// The command began in an attempt before: large files of its output may be in the store.
    pub(in crate::plan) follows_command: bool,
}

/// The pod of one attempt.
pub(in crate::plan) fn build(request: &ValidRun, attempt: &Attempt, settings: &Settings) -> Pod {
    let mut node_selector = request.gpus.node_selector();
    node_selector.extend(request.node_selector.clone());
    let mut tolerations = request.tolerations.clone();
    tolerations.extend(request.gpus.tolerations());
    let saving = settings.store.as_ref().map_or(0, |store| store.deadline.as_secs());
    let grace = request.request.stop_grace_seconds + saving + REPORT_GRACE_SECONDS;
    let inputs = Inputs::of(request, attempt, settings);
    let complete = complete(request, attempt, settings);
    let pull_secrets = pull_secrets(request, attempt, settings);
    let credentials = volumes::credentials(request, attempt, settings);
    Pod {
        metadata: metadata(request, attempt, &complete, settings),
        spec: Some(PodSpec {
            restart_policy: Some("Never".into()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(i64::try_from(grace).unwrap_or(i64::MAX)),
            security_context: Some(PodSecurityContext {
                run_as_user: request.run_as_user,
                run_as_group: request.run_as_group,
                run_as_non_root: request.run_as_user.map(|uid| uid != 0),
                // The file system of a claim's disk is root's: without a group only root could write to it.
                fs_group: fs_group(request),
                fs_group_change_policy: fs_group(request).map(|_| "OnRootMismatch".into()),
                seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), ..SeccompProfile::default() }),
                ..PodSecurityContext::default()
            }),
            resources: containers::of_pod(request, inputs, settings),
            runtime_class_name: request.gpus.runtime_class_name(),
            node_selector: (!node_selector.is_empty()).then_some(node_selector),
            tolerations: (!tolerations.is_empty()).then_some(tolerations),
            priority_class_name: request.priority_class_name.clone(),
            scheduler_name: request.scheduler_name.clone(),
            service_account_name: request.service_account_name.clone(),
            image_pull_secrets: (!pull_secrets.is_empty())
                .then(|| pull_secrets.into_iter().map(|name| LocalObjectReference { name }).collect()),
            init_containers: Some(vec![containers::helper(request, inputs, &credentials, settings)]),
            containers: vec![containers::run(request, attempt, inputs, &complete)],
            volumes: Some(volumes::all(request, inputs, credentials)),
            ..PodSpec::default()
        }),
        status: None,
    }
}

/// Whether [`Attempt::account_pull_secrets`] makes a difference to the pod.
pub(in crate::plan) fn needs_pull_secrets_of_account(
    request: &ValidRun,
    attempt: &Attempt,
    settings: &Settings,
) -> bool {
    let inputs = Inputs::of(request, attempt, settings);
    inputs.need_logins_of_users() || (request.image_pull_secrets.is_empty() && inputs.need_the_store_on_nodes())
}

/// Names of the Secrets with which the node pulls. For a pod that names none the API server adds those of the service
/// account, and only for such a one: where the node needs the store's as well, all are named.
fn pull_secrets(request: &ValidRun, attempt: &Attempt, settings: &Settings) -> Vec<String> {
    let mut names = request.image_pull_secrets.clone();
    if let Some(store) = &settings.store
        && Inputs::of(request, attempt, settings).need_the_store_on_nodes()
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

fn fs_group(request: &ValidRun) -> Option<i64> {
    request.fs_group.or(request.run_as_user.filter(|_| !request.volumes.is_empty()))
}

/// The request with what this attempt adds to it.
fn complete(request: &ValidRun, attempt: &Attempt, settings: &Settings) -> Request {
    let inputs = Inputs::of(request, attempt, settings);
    let resume_from = resume_from(request, attempt.number, settings);
    let mut requested = inputs.requested();
    for (index, input) in requested.iter_mut().enumerate() {
        input.digest = attempt.digests.get(&index).cloned();
        if let InputSource::Snapshot(snapshot) = &mut input.source {
            snapshot.tag = input_tag(&request.name, &request.uid, index);
        }
    }
    let usual = InputPatience::default();
    let mut complete = Request {
        inputs: requested,
        staging_seconds: (inputs.take_time() || !resume_from.is_empty()).then_some(settings.staging_deadline.as_secs()),
        patience: InputPatience {
            absent_seconds: if inputs.take_time() { settings.config_deadline.as_secs() } else { usual.absent_seconds },
            ..usual
        },
        save: settings.store.as_ref().map(|store| SaveRequest {
            repository: store.repository(&request.namespace),
            tag: output_tag(&request.name, &request.uid, attempt.number),
            exclude: request.exclude.clone(),
            deadline_seconds: store.deadline.as_secs(),
            interrupted_seconds: store.when_interrupted.as_secs(),
            follows_command: attempt.follows_command,
            give_up_seconds: GIVE_UP_SECONDS,
            made_by: provenance::identity(request, attempt),
            max_blob_bytes: store.max_blob_bytes,
            background: store.background.clone(),
            snapshots: Some(SnapshotRequest {
                tag: snapshot_tag(&request.name, &request.uid, attempt.number),
                exclude: request.snapshots.exclude.clone(),
                every_seconds: request.snapshots.every_seconds,
                at_end: request.resumes,
            }),
            told_variables: provenance::told_variables(request),
        }),
        resume_from,
        own_repositories: own_repositories(request, attempt, settings),
        ..request.request.clone()
    };
    tell_details(&mut complete, provenance::details(request, attempt));
    complete
}

/// The snapshots of the attempts before, the newest first.
fn resume_from(request: &ValidRun, attempt: u32, settings: &Settings) -> Vec<String> {
    if !request.resumes || settings.store.is_none() {
        return vec![];
    }
    let before = (1..attempt).rev().take(MOST_LOOKED_FOR);
    before.map(|attempt| snapshot_tag(&request.name, &request.uid, attempt)).collect()
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
fn own_repositories(request: &ValidRun, attempt: &Attempt, settings: &Settings) -> Vec<String> {
    let Some(store) = &settings.store else { return Vec::new() };
    let today = store.repository(&request.namespace);
    let of_runs =
        attempt.pins.values().filter(|pin| pin.run_uid.is_some()).map(|pin| without_tag_and_digest(&pin.reference));
    let is_own = |repository: &&str| repository.rsplit('/').next() == Some(&request.namespace);
    let before: BTreeSet<&str> = of_runs.filter(is_own).filter(|repository| *repository != today).collect();
    before.into_iter().map(str::to_owned).collect()
}

/// The operator's labels and annotations win over the administrator's, and those over the run's.
fn metadata(request: &ValidRun, attempt: &Attempt, complete: &Request, settings: &Settings) -> ObjectMeta {
    let pins = Pins {
        repository: complete.save.as_ref().map(|save| save.repository.clone()),
        default_image: request.default_image.then(|| attempt.requested.to_owned()),
        inputs: attempt.pins.clone(),
    };
    // Maps with texts as keys, and nothing that fails: an error is no case.
    let json = |text: serde_json::Result<String>| text.unwrap_or_default();
    let mut annotations = request.pod_annotations.clone();
    annotations.extend(settings.pod_annotations.clone());
    annotations.extend(request.created_by.clone().map(|user| (names::CREATED_BY_ANNOTATION.to_owned(), user)));
    annotations.insert(names::REQUEST_ANNOTATION.to_owned(), json(serde_json::to_string(complete)));
    annotations.insert(names::STOP_ANNOTATION.to_owned(), String::new());
    if Inputs::of(request, attempt, settings).await_a_run() {
        annotations.insert(names::AWAITED_RUNS_ANNOTATION.to_owned(), String::new());
    }
    if pins != Pins::default() {
        annotations.insert(names::PINS_ANNOTATION.to_owned(), json(serde_json::to_string(&pins)));
    }
    let mut labels = request.pod_labels.clone();
    labels.extend(settings.pod_labels.clone());
    labels.extend([
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
        finalizers: (!bug!("no finalizer")).then(|| vec![names::POD_FINALIZER.to_owned()]),
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
