//! A number of GPUs -> what the pod needs for it. Infallible: the profile was looked up when the request was validated.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvVar, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::settings::GpuProfile;

/// `count` GPUs of one profile.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Gpus {
    pub(super) count: u32,
    pub(super) profile: GpuProfile,
}

impl Gpus {
    /// The device plugin's limit; none for no GPU: a limit of 0 would still need the plugin's resource to exist.
    pub(super) fn limits(&self) -> BTreeMap<String, Quantity> {
        self.if_any(|| (self.profile.resource_name.clone(), Quantity(self.count.to_string()))).into_iter().collect()
    }

    /// CUDA images bake in `NVIDIA_VISIBLE_DEVICES=all`, and the NVIDIA runtime would hand a pod without a limit every
    /// GPU of the node. A pod's env comes after the device plugin's, so nothing may be set when there is a limit.
    pub(super) fn env(&self) -> Option<EnvVar> {
        (self.count == 0).then(|| EnvVar {
            name: "NVIDIA_VISIBLE_DEVICES".into(),
            value: Some("void".into()),
            ..EnvVar::default()
        })
    }

    pub(super) fn runtime_class_name(&self) -> Option<String> {
        self.if_any(|| self.profile.runtime_class_name.clone()).flatten()
    }

    pub(super) fn tolerations(&self) -> Vec<Toleration> {
        self.if_any(|| self.profile.tolerations.clone()).unwrap_or_default()
    }

    pub(super) fn node_selector(&self) -> BTreeMap<String, String> {
        self.if_any(|| self.profile.node_selector.clone()).unwrap_or_default()
    }

    fn if_any<T>(&self, f: impl FnOnce() -> T) -> Option<T> {
        (self.count > 0).then(f)
    }
}
