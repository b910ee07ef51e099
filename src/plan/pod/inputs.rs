//! Inputs of a validated request -> what the helper is asked to stage, and volumes and mounts.
//!
//! Bundles, images, texts, downloads and `ConfigMaps` are put into one volume by the helper, while the node pulls the
//! user's image, and Secrets into one that is in memory, because they shall not be written to a disk; of those volumes the
//! run container has a read-only mount for each input. Claims, which may be large, are mounted by the kubelet. So are whole
//! outputs of other runs where the cluster has image volumes: the node keeps them for the next run.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, EmptyDirVolumeSource, ImageVolumeSource, KeyToPath, PersistentVolumeClaimVolumeSource,
    SecretVolumeSource, Volume, VolumeMount,
};

use super::Attempt;
use super::mounts::{backstop, bytes, in_container, mount, read_only};
use super::valid_run::ValidRun;
use crate::api::spec::{Input, KeySource};
use crate::contract::{InputSource, Pin, RequestedInput, SnapshotInput};
use crate::names::{self, paths, volumes};
use crate::plan::facts::settings::Settings;

/// The API server takes no larger one.
const CONFIG_MAP_MAX_BYTES: u64 = 1 << 20;
/// The same, with room for what each file takes of a file system.
const SECRET_MAX_BYTES: u64 = 4 << 20;

/// Readable for the helper, whoever it is.
const READABLE: i32 = 0o444;

/// A pod with a volume of something that does not exist waits in silence; the helper waits and tells.
const ABSENCE_IS_TOLD: Option<bool> = Some(true);

/// The inputs of one attempt, by their index in the spec.
#[derive(Clone, Copy, Debug)]
pub(in crate::plan) struct Inputs<'a> {
    pub(in crate::plan) spec: &'a [Input],
    pub(in crate::plan) pins: &'a BTreeMap<usize, Pin>,
    /// Whether the cluster has image volumes.
    pub(in crate::plan) image_volumes: bool,
}

impl<'a> Inputs<'a> {
    pub(super) fn of(run: &'a ValidRun, attempt: &Attempt<'a>, settings: &Settings) -> Self {
        Self { spec: &run.inputs, pins: attempt.pins, image_volumes: settings.image_volumes }
    }

    fn each(self) -> impl Iterator<Item = (usize, &'a Input, Option<&'a Pin>)> {
        self.spec.iter().enumerate().map(move |(index, input)| (index, input, self.pins.get(&index)))
    }

    /// What is mounted as an image volume: of a part of a bundle nobody knows yet whether it is a file, which image
    /// volumes cannot be.
    fn as_image<'p>(self, input: &Input, pin: Option<&'p Pin>) -> Option<&'p Pin> {
        let whole = input.run.as_ref().is_some_and(|run| run.path.is_none());
        pin.filter(|pin| self.image_volumes && whole && pin.mountable)
    }

    fn is_staged(self, input: &Input, pin: Option<&Pin>) -> bool {
        input.claim.is_none() && self.as_image(input, pin).is_none()
    }

    fn is_staged_on_disk(self, input: &Input, pin: Option<&Pin>) -> bool {
        self.is_staged(input, pin) && input.secret.is_none()
    }

    /// What the runner and the helper are told.
    pub(in crate::plan) fn requested(self) -> Vec<RequestedInput> {
        let requested = |(_, input, pin): (usize, &Input, Option<&Pin>)| RequestedInput {
            path: input.path.clone(),
            source: match self.as_image(input, pin) {
                Some(_) => InputSource::Mounted,
                None => source(input, pin),
            },
            digest: None,
            mode: input.mode,
            is_file: pin.is_some_and(|pin| pin.is_file),
        };
        self.each().map(requested).collect()
    }

    /// One of them is a snapshot of a run that may have none yet.
    pub(in crate::plan) fn await_a_run(self) -> bool {
        self.pins.values().any(Pin::awaits_its_run)
    }

    /// Something has to come from elsewhere before the command can start.
    pub(in crate::plan) fn take_time(self) -> bool {
        self.each().any(|(_, input, pin)| self.is_staged(input, pin) && input.text.is_none())
    }

    /// The helper fetches something from a registry.
    pub(in crate::plan) fn need_registries(self) -> bool {
        self.each().any(|(_, i, pin)| self.is_staged(i, pin) && (i.run.is_some() || i.image.is_some()))
    }

    /// The helper fetches something that is no output of a run.
    pub(in crate::plan) fn need_logins_of_users(self) -> bool {
        self.each().any(|(_, input, _)| input.image.is_some())
    }

    /// The node fetches something from the store.
    pub(in crate::plan) fn need_the_store_on_nodes(self) -> bool {
        self.each().any(|(_, input, pin)| self.as_image(input, pin).is_some())
    }

    /// The volumes that the helper stages to, with their mounts in it.
    fn staged_to(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let any_on_disk = self.each().any(|(_, input, pin)| self.is_staged_on_disk(input, pin));
        let on_disk = any_on_disk.then_some((volumes::INPUTS, paths::INPUTS));
        let in_memory = (self.secrets() > 0).then_some((volumes::SECRETS, paths::SECRETS));
        on_disk.into_iter().chain(in_memory)
    }

    fn secrets(self) -> u64 {
        self.spec.iter().filter(|input| input.secret.is_some()).map(|_| 1).sum()
    }

    /// What the helper may put into the volume of inputs: all of them together have as much room as the working directory.
    pub(in crate::plan) fn staged_bytes(self, disk_bytes: u64) -> u64 {
        let staged = self.each().filter(|(_, input, pin)| self.is_staged_on_disk(input, *pin));
        let sizes = staged.map(|(_, input, _)| match (&input.text, &input.config_map) {
            (Some(text), _) => text.len() as u64,
            (_, Some(_)) => CONFIG_MAP_MAX_BYTES,
            // Nobody knows before it is fetched.
            _ => u64::MAX,
        });
        sizes.fold(0, u64::saturating_add).min(disk_bytes)
    }

    /// The pod's volumes.
    pub(in crate::plan) fn pod_volumes(self, disk_bytes: u64) -> Vec<Volume> {
        let staged = self.staged_to().map(|(name, _)| Volume {
            name: name.into(),
            empty_dir: Some(match name {
                volumes::SECRETS => EmptyDirVolumeSource {
                    medium: Some("Memory".into()),
                    size_limit: Some(bytes(self.secrets() * SECRET_MAX_BYTES)),
                },
                _ => backstop(disk_bytes),
            }),
            ..Volume::default()
        });
        let of = |(index, input, pin)| volume(index, input, self.as_image(input, pin));
        staged.chain(self.each().filter_map(of)).collect()
    }

    /// What the helper has to see: it copies `ConfigMaps` and Secrets, and makes links to the
    /// entries of what is mounted at `.`.
    pub(in crate::plan) fn helper_mounts(self) -> Vec<VolumeMount> {
        let inputs = self.staged_to().map(|(volume, at)| mount(volume, at));
        let source = |(index, input, pin): (usize, &Input, Option<&Pin>)| {
            let listed = input.path == "." && !self.is_staged(input, pin);
            (input.config_map.is_some() || input.secret.is_some() || listed).then(|| {
                let at = format!("{}/{index}", paths::SOURCES);
                let sub_path = self.sub_path(input, pin);
                read_only(VolumeMount { sub_path, ..mount(&volume_name(index), &at) })
            })
        };
        inputs.chain(self.each().filter_map(source)).collect()
    }

    /// What the command sees.
    pub(in crate::plan) fn run_mounts(self) -> Vec<VolumeMount> {
        let mount_of = |(index, input, pin): (usize, &Input, Option<&Pin>)| {
            let at = match input.path.as_str() {
                "." => format!("{}/{index}", paths::SOURCES),
                path => in_container(path),
            };
            read_only(if self.is_staged(input, pin) {
                let volume = if input.secret.is_some() { volumes::SECRETS } else { volumes::INPUTS };
                VolumeMount { sub_path: Some(index.to_string()), ..mount(volume, &at) }
            } else {
                VolumeMount { sub_path: self.sub_path(input, pin), ..mount(&volume_name(index), &at) }
            })
        };
        self.each().map(mount_of).collect()
    }

    fn sub_path(self, input: &Input, pin: Option<&Pin>) -> Option<String> {
        match &input.claim {
            Some(claim) => claim.path.clone(),
            None => self.as_image(input, pin).map(|_| names::bundle::CONTENTS.to_owned()),
        }
    }
}

/// What the kubelet has to mount for an input, for the helper or for the command.
fn volume(index: usize, input: &Input, image: Option<&Pin>) -> Option<Volume> {
    let volume = Volume { name: volume_name(index), ..Volume::default() };
    if let Some(source) = &input.config_map {
        return Some(Volume {
            config_map: Some(ConfigMapVolumeSource {
                name: source.name.clone(),
                items: item(source),
                default_mode: Some(READABLE),
                optional: ABSENCE_IS_TOLD,
            }),
            ..volume
        });
    }
    if let Some(source) = &input.secret {
        return Some(Volume {
            secret: Some(SecretVolumeSource {
                secret_name: Some(source.name.clone()),
                items: item(source),
                default_mode: Some(READABLE),
                optional: ABSENCE_IS_TOLD,
            }),
            ..volume
        });
    }
    if let Some(claim) = &input.claim {
        return Some(Volume {
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.name.clone(),
                read_only: None,
            }),
            ..volume
        });
    }
    image.map(|pin| Volume {
        image: Some(ImageVolumeSource {
            reference: Some(pin.reference.clone()),
            pull_policy: Some("IfNotPresent".into()),
        }),
        ..volume
    })
}

fn source(input: &Input, pin: Option<&Pin>) -> InputSource {
    let image = |reference: &str, path: Option<&String>| InputSource::Image {
        reference: pin.map_or(reference, |pin| pin.reference.as_str()).to_owned(),
        path: path.cloned(),
    };
    if let (Some(run), Some(Pin { reference, run_uid, snapshot: Some(of), .. })) = (&input.run, pin) {
        return InputSource::Snapshot(SnapshotInput {
            repository: reference.clone(),
            run: run.name.clone(),
            run_uid: run_uid.clone().unwrap_or_default(),
            of: *of,
            // That of the run which has it as an input.
            tag: String::new(),
            path: run.path.clone(),
        });
    }
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
        return InputSource::config_map(&config_map.name, config_map.key.clone());
    }
    if let Some(secret) = &input.secret {
        return InputSource::secret(&secret.name, secret.key.clone());
    }
    if input.claim.is_some() {
        return InputSource::Mounted;
    }
    InputSource::Text(input.text.clone().unwrap_or_default())
}

fn item(source: &KeySource) -> Option<Vec<KeyToPath>> {
    let key = source.key.clone()?;
    Some(vec![KeyToPath { path: key.clone(), key, mode: None }])
}

fn volume_name(index: usize) -> String {
    format!("input-{index}")
}
