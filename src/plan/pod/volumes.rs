//! The volumes of a pod, and the Secrets that it reads.

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, DownwardAPIVolumeSource, EmptyDirVolumeSource, KeyToPath, ObjectFieldSelector,
    PersistentVolumeClaimVolumeSource, SecretVolumeSource, Volume,
};

use super::Attempt;
use super::inputs::Inputs;
use super::mounts::{backstop, bytes};
use super::valid_run::ValidRun;
use crate::names::{self, files, volumes};
use crate::plan::facts::settings::Settings;

/// A run may name as many itself; a pod shall not have a volume for each of any number.
const ACCOUNT_PULL_SECRETS_MAX: usize = 16;

pub(super) fn all(request: &ValidRun, inputs: Inputs, credentials: Vec<String>) -> Vec<Volume> {
    let empty_dir = |name: &str, source| Volume { name: name.into(), empty_dir: Some(source), ..Volume::default() };
    let mut all = vec![
        empty_dir(volumes::BUNDLE, backstop(request.disk_bytes)),
        empty_dir(volumes::OUTPUT, backstop(request.disk_bytes)),
        empty_dir(volumes::CACHE, backstop(request.disk_bytes)),
        empty_dir(volumes::BIN, EmptyDirVolumeSource::default()),
        empty_dir(volumes::RECORD, EmptyDirVolumeSource::default()),
        Volume {
            name: volumes::REQUEST.into(),
            downward_api: Some(DownwardAPIVolumeSource { items: Some(told(inputs)), default_mode: None }),
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

/// What the helper is told, as files.
fn told(inputs: Inputs) -> Vec<DownwardAPIVolumeFile> {
    let mut files =
        vec![annotation(files::REQUEST, names::REQUEST_ANNOTATION), annotation(files::STOP, names::STOP_ANNOTATION)];
    if inputs.await_a_run() {
        files.push(annotation(files::AWAITED_RUNS, names::AWAITED_RUNS_ANNOTATION));
    }
    files
}

/// An annotation of the pod as a file.
fn annotation(path: &str, name: &str) -> DownwardAPIVolumeFile {
    let field_path = format!("metadata.annotations['{name}']");
    let field_ref = Some(ObjectFieldSelector { field_path, api_version: None });
    DownwardAPIVolumeFile { path: path.into(), field_ref, ..DownwardAPIVolumeFile::default() }
}

fn same_path(key: &str) -> KeyToPath {
    KeyToPath { key: key.into(), path: key.into(), mode: None }
}

/// Names of the Secrets with credentials that the helper needs: the store's, then those for the registries of inputs, the
/// run's own before those of its service account.
pub(super) fn credentials(request: &ValidRun, attempt: &Attempt, settings: &Settings) -> Vec<String> {
    let inputs = Inputs::of(request, attempt, settings);
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

pub(super) fn credentials_volume(index: usize) -> String {
    format!("{}-{index}", volumes::CREDENTIALS)
}

pub(super) fn claim_volume(index: usize) -> String {
    format!("claim-{index}")
}
