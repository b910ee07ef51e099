//! A run that can be made a pod of.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvVar, Toleration};

use super::gpu::Gpus;
use crate::api::{Quantity, spec};
use crate::contract::Request;

/// Room for the request annotation: Kubernetes allows 256 KiB for all annotations of an object.
pub(in crate::plan) const REQUEST_MAX_BYTES: usize = 250_000;
/// What the pin of one input may add to the annotations: a reference, twice, and a uid.
pub(in crate::plan) const PINS_MAX_BYTES: usize = 1000;

/// When snapshots are taken, and of what.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::plan) struct Snapshots {
    pub(in crate::plan) every_seconds: Option<u64>,
    /// None: what is not saved either.
    pub(in crate::plan) exclude: Option<Vec<String>>,
}

/// A run whose every field is known to be usable.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::plan) struct ValidRun {
    pub(in crate::plan) name: String,
    pub(in crate::plan) namespace: String,
    pub(in crate::plan) uid: String,
    pub(in crate::plan) queue: Option<String>,
    /// Who created it, as far as the cluster says so.
    pub(in crate::plan) created_by: Option<String>,
    /// What the runner and the helper are told, but for what depends on the attempt and the pins.
    pub(in crate::plan) request: Request,
    pub(in crate::plan) inputs: Vec<spec::Input>,
    pub(in crate::plan) exclude: Vec<String>,
    pub(in crate::plan) snapshots: Snapshots,
    /// Later attempts go on from the last snapshot.
    pub(in crate::plan) resumes: bool,
    /// The run names no image.
    pub(in crate::plan) default_image: bool,
    pub(in crate::plan) env: Vec<EnvVar>,
    pub(in crate::plan) volumes: Vec<ClaimMount>,
    pub(in crate::plan) gpus: Gpus,
    pub(in crate::plan) gpu_profile: Option<String>,
    pub(in crate::plan) cpu_millis: u64,
    pub(in crate::plan) memory_bytes: u64,
    pub(in crate::plan) disk_bytes: u64,
    pub(in crate::plan) shared_memory_bytes: u64,
    /// Other extended resources and huge pages, as the run writes them.
    pub(in crate::plan) extended: BTreeMap<String, Quantity>,
    pub(in crate::plan) run_as_user: Option<i64>,
    pub(in crate::plan) run_as_group: Option<i64>,
    pub(in crate::plan) fs_group: Option<i64>,
    pub(in crate::plan) pod_labels: BTreeMap<String, String>,
    pub(in crate::plan) pod_annotations: BTreeMap<String, String>,
    pub(in crate::plan) node_selector: BTreeMap<String, String>,
    pub(in crate::plan) tolerations: Vec<Toleration>,
    pub(in crate::plan) priority_class_name: Option<String>,
    pub(in crate::plan) scheduler_name: Option<String>,
    pub(in crate::plan) image_pull_secrets: Vec<String>,
    pub(in crate::plan) service_account_name: Option<String>,
}

/// A persistent volume claim and where the command finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::plan) struct ClaimMount {
    /// Absolute path in the container.
    pub(in crate::plan) mount_path: String,
    pub(in crate::plan) claim: String,
    pub(in crate::plan) sub_path: Option<String>,
}
