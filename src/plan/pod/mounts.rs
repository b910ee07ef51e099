//! The small parts that pods are made of: mounts, sizes, variables.

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, EnvVar, VolumeMount};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::names;

/// Headroom of the working directory's backstop over `resources.disk`; the helper ends the run long before.
const DISK_BACKSTOP_BYTES: u64 = 1 << 30;

pub(super) fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount { name: volume.into(), mount_path: path.into(), ..VolumeMount::default() }
}

pub(super) fn read_only(mount: VolumeMount) -> VolumeMount {
    VolumeMount { read_only: Some(true), ..mount }
}

pub(super) fn bytes(n: u64) -> Quantity {
    Quantity(n.to_string())
}

/// Thousandths of a CPU.
pub(super) fn millis(n: u64) -> Quantity {
    Quantity(format!("{n}m"))
}

/// A volume of which the helper keeps the limit: what the kubelet does is only a backstop.
pub(super) fn backstop(disk_bytes: u64) -> EmptyDirVolumeSource {
    let most = disk_bytes.saturating_mul(2).saturating_add(DISK_BACKSTOP_BYTES);
    EmptyDirVolumeSource { size_limit: Some(bytes(most)), medium: None }
}

/// Where a path of the spec is in the run container.
pub(in crate::plan) fn in_container(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", names::paths::BUNDLE) }
}

/// Kubernetes expands $(NAME) and $$ in values: doubling every $ hands it to the process unchanged.
pub(in crate::plan) fn unexpanded(value: &str) -> String {
    value.replace('$', "$$")
}

/// A variable whose value reaches the process as it is.
pub(super) fn literal(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.into(), value: Some(unexpanded(value)), ..EnvVar::default() }
}
