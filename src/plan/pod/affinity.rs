//! Earlier attempts -> the nodes that the next one had better not be on, or must not.

use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PreferredSchedulingTerm,
};

use crate::api::BundleRunStatus;
use crate::plan::words::cause::Cause;

/// The pod, to be put on another node than those where earlier attempts met a cause that is the node's; where there is
/// no other, on one of them again. Never on one where an attempt was given up that may still be alive.
pub(in crate::plan) fn rather_elsewhere(mut pod: Pod, status: Option<&BundleRunStatus>) -> Pod {
    let rather_not = met(status, Cause::is_of_the_node);
    let never = met(status, |cause| cause == Cause::NodeLost);
    if let Some(spec) = pod.spec.as_mut().filter(|_| !(rather_not.is_empty() && never.is_empty())) {
        let terms = |nodes: &[&str]| {
            (!nodes.is_empty())
                .then(|| NodeSelectorTerm { match_fields: Some(is_none_of(nodes)), match_expressions: None })
        };
        let preferred = terms(&rather_not).map(|preference| vec![PreferredSchedulingTerm { preference, weight: 100 }]);
        let required = terms(&never).map(|term| NodeSelector { node_selector_terms: vec![term] });
        spec.affinity = Some(Affinity {
            node_affinity: Some(NodeAffinity {
                preferred_during_scheduling_ignored_during_execution: preferred,
                required_during_scheduling_ignored_during_execution: required,
            }),
            ..Affinity::default()
        });
    }
    pod
}

/// The nodes where attempts ended with such a cause, each once.
fn met(status: Option<&BundleRunStatus>, such: impl Fn(Cause) -> bool) -> Vec<&str> {
    let attempts = status.into_iter().flat_map(|s| &s.attempts);
    let met = attempts.filter(|a| {
        let cause = a.cause.as_deref().and_then(Cause::named);
        cause.is_some_and(|(cause, _)| such(cause))
    });
    let mut nodes: Vec<&str> = met.filter_map(|a| a.node.as_deref()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

/// By the node's name, which its label `kubernetes.io/hostname` need not be; such a requirement takes one value.
fn is_none_of(nodes: &[&str]) -> Vec<NodeSelectorRequirement> {
    let is_not = |node: &&str| NodeSelectorRequirement {
        key: "metadata.name".into(),
        operator: "NotIn".into(),
        values: Some(vec![(*node).to_owned()]),
    };
    nodes.iter().map(is_not).collect()
}
