//! A number of GPUs -> what the pod needs for it. Infallible: the profile was looked up when the request was validated.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1::{EnvVar, HostPathVolumeSource, Toleration, Volume, VolumeMount};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::mounts::literal;
use crate::contract::{GpuRequest, HostDriver};
use crate::names::volumes;
use crate::plan::facts::settings::{Driver, GpuProfile};

/// `count` GPUs of one profile.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::plan) struct Gpus {
    pub(in crate::plan) count: u32,
    pub(in crate::plan) profile: GpuProfile,
}

impl Gpus {
    /// The device plugin's limit; none for no GPU: a limit of 0 would still need the plugin's resource to exist.
    pub(in crate::plan) fn limits(&self) -> BTreeMap<String, Quantity> {
        self.if_any(|| (self.profile.resource_name.clone(), Quantity(self.count.to_string()))).into_iter().collect()
    }

    /// What a run without GPUs must have, and nobody can change: CUDA images bake in `NVIDIA_VISIBLE_DEVICES=all`, and
    /// the NVIDIA runtime would hand a pod without a limit every GPU of the node. A pod's env comes after the device
    /// plugin's, so nothing may be set when there is a limit.
    pub(in crate::plan) fn no_devices(&self) -> Option<EnvVar> {
        (self.count == 0).then(|| literal("NVIDIA_VISIBLE_DEVICES", "void"))
    }

    /// The profile's variables.
    pub(in crate::plan) fn env(&self) -> Vec<EnvVar> {
        self.if_any(|| self.profile.env.iter().map(|(name, value)| literal(name, value)).collect()).unwrap_or_default()
    }

    /// What the runner has to do; nothing for no GPU.
    pub(in crate::plan) fn request(&self) -> Option<GpuRequest> {
        self.if_any(|| GpuRequest {
            count: self.count,
            preflight: self.profile.preflight.clone(),
            driver: self.host_driver().map(|(_, inside)| inside.clone()),
        })
    }

    /// The host's folder with the driver.
    pub(in crate::plan) fn driver_volume(&self) -> Option<Volume> {
        self.host_driver().map(|(path, _)| Volume {
            name: volumes::DRIVER.into(),
            // No type: with `Directory` a pod on a node without the driver would wait in silence, while the runner
            // finds an empty folder and says so.
            host_path: Some(HostPathVolumeSource { path: path.to_owned(), type_: None }),
            ..Volume::default()
        })
    }

    /// Where the run container sees it.
    pub(in crate::plan) fn driver_mount(&self) -> Option<VolumeMount> {
        self.host_driver().map(|(_, inside)| VolumeMount {
            name: volumes::DRIVER.into(),
            mount_path: inside.mount_path.clone(),
            read_only: Some(true),
            ..VolumeMount::default()
        })
    }

    /// Whether a mount at this path and the driver's would hide each other.
    pub(in crate::plan) fn driver_collides_with(&self, path: &str) -> Option<&str> {
        let (_, inside) = self.host_driver()?;
        let (path, mount) = (Path::new(path), Path::new(&inside.mount_path));
        (path.starts_with(mount) || mount.starts_with(path)).then_some(inside.mount_path.as_str())
    }

    fn host_driver(&self) -> Option<(&str, &HostDriver)> {
        match &self.profile.driver {
            Driver::HostPath { path, inside } if self.count > 0 => Some((path, inside)),
            _ => None,
        }
    }

    pub(in crate::plan) fn runtime_class_name(&self) -> Option<String> {
        self.if_any(|| self.profile.runtime_class_name.clone()).flatten()
    }

    pub(in crate::plan) fn tolerations(&self) -> Vec<Toleration> {
        self.if_any(|| self.profile.tolerations.clone()).unwrap_or_default()
    }

    pub(in crate::plan) fn node_selector(&self) -> BTreeMap<String, String> {
        self.if_any(|| self.profile.node_selector.clone()).unwrap_or_default()
    }

    fn if_any<T>(&self, f: impl FnOnce() -> T) -> Option<T> {
        (self.count > 0).then(f)
    }
}
