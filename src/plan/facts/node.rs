//! The facts we use of nodes, and nothing else of them: a full `Node` has the list of its images, and a heartbeat.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use serde::{Deserialize, Serialize};

use super::pod::ConditionFacts;
use crate::api::Quantity;

/// Kinds of resources kept of a node.
const RESOURCES_KEPT: usize = 32;

/// A node as it is decoded: everything else is dropped then.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Resource)]
#[resource(inherit = Node)]
pub struct NodeObject {
    /// Its name is used.
    pub metadata: ObjectMeta,
    /// See [`NodeStatusFacts`].
    #[serde(default)]
    pub status: NodeStatusFacts,
}

/// What we use of a node's status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatusFacts {
    /// `Ready` is used.
    pub conditions: Vec<ConditionFacts>,
    /// What pods may request of it.
    pub allocatable: BTreeMap<String, String>,
}

/// A node as it is kept: what changes with a heartbeat is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Since when its kubelet is silent, as the control plane says; none: it answers, or nothing is said.
    pub silent_since: Option<Timestamp>,
    /// CPUs in thousandths, memory and disk in bytes, extended resources by number.
    pub allocatable: Box<[(Box<str>, u64)]>,
}

impl NodeFacts {
    /// What is kept of a node.
    #[must_use]
    pub fn of(node: &NodeObject) -> Self {
        let ready = node.status.conditions.iter().find(|c| c.type_ == "Ready");
        let silent = ready.filter(|ready| ready.status == "Unknown");
        let extended = |name: &str| name.contains('/') || name.starts_with("hugepages-");
        let is_kept = |name: &str| ["cpu", "memory", "ephemeral-storage"].contains(&name) || extended(name);
        let kept = node.status.allocatable.iter().filter(|(name, _)| is_kept(name));
        let amounts = kept.filter_map(|(name, text)| Some((name.as_str().into(), units(name, text)?)));
        Self {
            silent_since: silent.and_then(|ready| ready.last_transition_time.as_ref()).map(|Time(at)| *at),
            allocatable: amounts.take(RESOURCES_KEPT).collect(),
        }
    }
}

/// An amount of a resource: CPUs in thousandths, all others in whole units; none: it is no amount.
pub(in crate::plan) fn units(resource: &str, text: &str) -> Option<u64> {
    let quantity = Quantity::from(text);
    if resource == "cpu" { quantity.millis() } else { quantity.bytes() }.ok()
}

/// The most that one node has of each resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// How many nodes there are.
    pub nodes: usize,
    /// In the units of [`NodeFacts::allocatable`].
    pub largest: BTreeMap<Box<str>, u64>,
}

impl Capacity {
    /// Of these nodes.
    #[must_use]
    pub fn of<'a>(nodes: impl IntoIterator<Item = &'a NodeFacts>) -> Self {
        let mut all = Self::default();
        for node in nodes {
            all.nodes += 1;
            for (resource, amount) in &node.allocatable {
                match all.largest.get_mut(resource) {
                    Some(largest) => *largest = (*largest).max(*amount),
                    None => drop(all.largest.insert(resource.clone(), *amount)),
                }
            }
        }
        all
    }
}

/// What is known of the node of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeSeen {
    /// Nothing: the pod has none, or the operator may not read nodes.
    #[default]
    Unknown,
    /// There is no Node object of that name.
    Gone,
    /// Its kubelet is in touch with the control plane.
    Answers,
    /// Its kubelet has been silent since then.
    Silent(Timestamp),
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(ready: &str, allocatable: &Value) -> NodeObject {
        serde_json::from_value(json!({
            "metadata": {"name": "a", "labels": {"l": "v"}, "resourceVersion": "7"},
            "spec": {"podCIDR": "10.0.0.0/24", "taints": [{"key": "k", "effect": "NoSchedule"}]},
            "status": {
                "allocatable": allocatable,
                "conditions": [
                    {"type": "MemoryPressure", "status": "Unknown", "lastTransitionTime": "2026-01-01T00:00:01Z"},
                    {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:02Z",
                        "lastHeartbeatTime": "2026-01-01T00:00:03Z"}],
                "images": [{"names": ["a:1"], "sizeBytes": 5}],
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_node_is_silent_when_the_control_plane_knows_nothing_of_it_and_not_when_it_says_that_it_is_not_ready() {
        let silent = |ready| NodeFacts::of(&node(ready, &json!({}))).silent_since.is_some();
        assert!(silent("Unknown") && !silent("True") && !silent("False"));
    }

    #[test]
    fn of_all_that_a_node_has_the_amounts_that_pods_ask_for_are_kept() {
        let allocatable = json!({"cpu": "3920m", "memory": "8010148Ki", "pods": "110", "nvidia.com/gpu": "8",
            "ephemeral-storage": "47093746742", "hugepages-2Mi": "0", "broken.example/x": "many"});
        let kept = NodeFacts::of(&node("True", &allocatable));
        let expected = [
            ("cpu", 3920),
            ("ephemeral-storage", 47_093_746_742),
            ("hugepages-2Mi", 0),
            ("memory", 8_010_148 << 10),
            ("nvidia.com/gpu", 8),
        ];
        assert_eq!(kept.allocatable.iter().map(|(name, n)| (name.as_ref(), *n)).collect::<Vec<_>>(), expected);
        let bytes = size_of_val(&kept) + kept.allocatable.iter().map(|a| size_of_val(a) + a.0.len()).sum::<usize>();
        assert!(bytes < 300, "5,000 nodes are kept: {bytes}");
    }

    #[test]
    fn the_largest_node_may_be_another_one_for_each_resource() {
        let nodes = [json!({"cpu": "4", "nvidia.com/gpu": "8"}), json!({"cpu": "64"})];
        let nodes = nodes.map(|allocatable| NodeFacts::of(&node("True", &allocatable)));
        let all = Capacity::of(&nodes);
        let largest = BTreeMap::from([("cpu".into(), 64_000), ("nvidia.com/gpu".into(), 8)]);
        assert_eq!(all, Capacity { nodes: 2, largest });
    }
}
