//! A pod -> what it requests of a node, as the scheduler counts it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::names;
use crate::plan::facts::node::units;

/// In the units of nodes: CPUs in thousandths, all else in whole units. The helper is a sidecar, so that both containers
/// count at once; what is requested for the whole pod counts instead.
pub(in crate::plan) fn requests(pod: &Pod) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    let Some(spec) = &pod.spec else { return all };
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        for (resource, amount) in requested(container.resources.as_ref()) {
            let sum: &mut u64 = all.entry(resource).or_default();
            *sum = sum.saturating_add(amount);
        }
    }
    all.extend(requested(spec.resources.as_ref()));
    all
}

/// The same of the run's own container: what the user asked for, but for the disk.
pub(in crate::plan) fn requests_of_run(pod: &Pod) -> BTreeMap<String, u64> {
    let is_run = |container: &&Container| container.name == names::RUN_CONTAINER;
    let run = pod.spec.as_ref().and_then(|spec| spec.containers.iter().find(is_run));
    run.map(|run| requested(run.resources.as_ref())).unwrap_or_default()
}

/// A limit without a request is one.
fn requested(resources: Option<&ResourceRequirements>) -> BTreeMap<String, u64> {
    let limits = resources.and_then(|r| r.limits.as_ref());
    let requests = resources.and_then(|r| r.requests.as_ref());
    let amounts = limits.into_iter().chain(requests).flatten();
    amounts.filter_map(|(name, Quantity(text))| Some((name.clone(), units(name, text)?))).collect()
}
