//! Earlier attempts -> the nodes that the next one had better not be on.

use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm, Pod, PreferredSchedulingTerm,
};

use crate::api::BundleRunStatus;
use crate::plan::words::cause::Cause;

/// The pod, to be put on another node than those where earlier attempts met a cause that is the node's; where there is
/// no other, on one of them again.
pub(in crate::plan) fn rather_elsewhere(mut pod: Pod, status: Option<&BundleRunStatus>) -> Pod {
    let nodes = met(status);
    if let Some(spec) = pod.spec.as_mut().filter(|_| !nodes.is_empty()) {
        spec.affinity = Some(Affinity { node_affinity: Some(preferring_others(&nodes)), ..Affinity::default() });
    }
    pod
}

/// The nodes, each once.
fn met(status: Option<&BundleRunStatus>) -> Vec<&str> {
    let attempts = status.into_iter().flat_map(|s| &s.attempts);
    let met = attempts.filter(|a| {
        let cause = a.cause.as_deref().and_then(Cause::named);
        cause.is_some_and(|(cause, _)| cause.is_of_the_node())
    });
    let mut nodes: Vec<&str> = met.filter_map(|a| a.node.as_deref()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

/// By the node's name, which its label `kubernetes.io/hostname` need not be; such a requirement takes one value.
fn preferring_others(nodes: &[&str]) -> NodeAffinity {
    let is_not = |node: &&str| NodeSelectorRequirement {
        key: "metadata.name".into(),
        operator: "NotIn".into(),
        values: Some(vec![(*node).to_owned()]),
    };
    let preference =
        NodeSelectorTerm { match_fields: Some(nodes.iter().map(is_not).collect()), match_expressions: None };
    NodeAffinity {
        preferred_during_scheduling_ignored_during_execution: Some(vec![PreferredSchedulingTerm {
            preference,
            weight: 100,
        }]),
        ..NodeAffinity::default()
    }
}
