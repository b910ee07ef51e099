//! Inputs of a validated request -> what the helper is asked to stage, and volumes and mounts.
//!
//! Bundles, images, texts, downloads and `ConfigMaps` are put into one volume by the helper, while the node pulls the
//! user's image; of that volume the run container has a read-only mount for each input. Claims and Secrets are mounted
//! by the kubelet: a claim may be large, and a Secret shall not be written to a disk.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, EmptyDirVolumeSource, KeyToPath, PersistentVolumeClaimVolumeSource, SecretVolumeSource,
    Volume, VolumeMount,
};

use super::pod::{mount, read_only};
use crate::api::spec::{Input, KeySource};
use crate::names::{paths, volumes};
use crate::report::{InputSource, Pin, RequestedInput};

/// Readable for every user of an image.
const READABLE: i32 = 0o444;

/// What the runner and the helper are told of the inputs. `pins` are by index.
pub(super) fn requested(inputs: &[Input], pins: &BTreeMap<usize, Pin>) -> Vec<RequestedInput> {
    let requested = |(index, input): (usize, &Input)| RequestedInput {
        path: input.path.clone(),
        source: source(input, pins.get(&index)),
    };
    inputs.iter().enumerate().map(requested).collect()
}

fn source(input: &Input, pin: Option<&Pin>) -> InputSource {
    let image = |reference: &str, path: Option<&String>| InputSource::Image {
        reference: pin.map_or(reference, |pin| pin.reference.as_str()).to_owned(),
        path: path.cloned(),
    };
    if let Some(run) = &input.run {
        return image("", run.path.as_ref());
    }
    if let Some(source) = &input.image {
        return image(&source.reference, source.path.as_ref());
    }
    if let Some(url) = &input.url {
        return InputSource::Url { href: url.href.clone(), sha256: url.sha256.clone() };
    }
    if let Some(config_map) = &input.config_map {
        return InputSource::Copied { file: config_map.key.clone() };
    }
    if input.secret.is_some() || input.claim.is_some() {
        return InputSource::Mounted { file: input.secret.as_ref().is_some_and(|secret| secret.key.is_some()) };
    }
    InputSource::Text(input.text.clone().unwrap_or_default())
}

/// Something has to come from elsewhere before the command can start.
pub(super) fn take_time(inputs: &[Input]) -> bool {
    inputs.iter().any(|i| i.run.is_some() || i.image.is_some() || i.url.is_some() || i.config_map.is_some())
}

/// Something comes from a registry.
pub(super) fn need_registries(inputs: &[Input]) -> bool {
    inputs.iter().any(|input| input.run.is_some() || input.image.is_some())
}

/// The pod's volumes for the inputs.
pub(super) fn pod_volumes(inputs: &[Input]) -> Vec<Volume> {
    let mut all: Vec<Volume> = inputs
        .iter()
        .any(is_staged)
        .then(|| Volume {
            name: volumes::INPUTS.into(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        })
        .into_iter()
        .collect();
    for (index, input) in inputs.iter().enumerate() {
        let volume = Volume { name: volume_name(index), ..Volume::default() };
        if let Some(source) = &input.config_map {
            all.push(Volume {
                config_map: Some(ConfigMapVolumeSource {
                    name: source.name.clone(),
                    items: item(source),
                    default_mode: Some(READABLE),
                    optional: None,
                }),
                ..volume
            });
        } else if let Some(source) = &input.secret {
            all.push(Volume {
                secret: Some(SecretVolumeSource {
                    secret_name: Some(source.name.clone()),
                    items: item(source),
                    default_mode: Some(READABLE),
                    optional: None,
                }),
                ..volume
            });
        } else if let Some(claim) = &input.claim {
            all.push(Volume {
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: claim.name.clone(),
                    read_only: None,
                }),
                ..volume
            });
        }
    }
    all
}

/// What the helper has to see.
pub(super) fn helper_mounts(inputs: &[Input]) -> Vec<VolumeMount> {
    let mut mounts: Vec<VolumeMount> =
        inputs.iter().any(is_staged).then(|| mount(volumes::INPUTS, paths::INPUTS)).into_iter().collect();
    for (index, input) in inputs.iter().enumerate() {
        let at = format!("{}/{index}", paths::SOURCES);
        // It copies the one, and makes links to the entries of the other.
        if input.config_map.is_some() || (input.path == "." && !is_staged(input)) {
            mounts.push(read_only(VolumeMount { sub_path: sub_path(input), ..mount(&volume_name(index), &at) }));
        }
    }
    mounts
}

/// What the command sees.
pub(super) fn run_mounts(inputs: &[Input]) -> Vec<VolumeMount> {
    let mount_of = |(index, input): (usize, &Input)| {
        let at = match input.path.as_str() {
            "." => format!("{}/{index}", paths::SOURCES),
            path => super::request::in_container(path),
        };
        read_only(if is_staged(input) {
            VolumeMount { sub_path: Some(index.to_string()), ..mount(volumes::INPUTS, &at) }
        } else {
            VolumeMount { sub_path: sub_path(input), ..mount(&volume_name(index), &at) }
        })
    };
    inputs.iter().enumerate().map(mount_of).collect()
}

fn is_staged(input: &Input) -> bool {
    input.secret.is_none() && input.claim.is_none()
}

fn sub_path(input: &Input) -> Option<String> {
    match (&input.claim, &input.secret) {
        (Some(claim), _) => claim.path.clone(),
        // Mounted as a file; the whole Secret is a directory.
        (_, Some(secret)) => secret.key.clone(),
        _ => None,
    }
}

fn item(source: &KeySource) -> Option<Vec<KeyToPath>> {
    let key = source.key.clone()?;
    Some(vec![KeyToPath { path: key.clone(), key, mode: None }])
}

fn volume_name(index: usize) -> String {
    format!("input-{index}")
}
