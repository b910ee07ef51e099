//! The facts we use of nodes, and nothing else of them: a full `Node` has the list of its images, and a heartbeat.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use serde::{Deserialize, Serialize};

use super::pod::ConditionFacts;
use crate::api::Quantity;

/// The first Kubernetes, as (major, minor), whose image volumes are generally available.
pub const IMAGE_VOLUMES_SINCE: (u32, u32) = (1, 36);

/// Kinds of resources kept of a node.
const RESOURCES_KEPT: usize = 32;

/// A node as it is decoded: everything else is dropped then.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Resource)]
#[resource(inherit = Node)]
pub struct NodeObject {
    /// Its name is used.
    pub metadata: ObjectMeta,
    /// See [`NodeSpecFacts`].
    #[serde(default)]
    pub spec: NodeSpecFacts,
    /// See [`NodeStatusFacts`].
    #[serde(default)]
    pub status: NodeStatusFacts,
}

/// What we use of a node's spec.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpecFacts {
    /// It gets no new pods.
    pub unschedulable: bool,
}

/// What we use of a node's status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatusFacts {
    /// `Ready` is used.
    pub conditions: Vec<ConditionFacts>,
    /// What pods may request of it.
    pub allocatable: BTreeMap<String, String>,
    /// See [`NodeInfoFacts`].
    pub node_info: NodeInfoFacts,
}

/// The versions of what a node runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeInfoFacts {
    /// As `containerd://2.2.1`.
    pub container_runtime_version: String,
    /// As `v1.36.0`.
    pub kubelet_version: String,
}

impl NodeInfoFacts {
    /// Whether the node can mount a directory of an image. A runtime that we do not know cannot.
    fn mounts_images(&self) -> bool {
        let Some((runtime, version)) = self.container_runtime_version.split_once("://") else { return false };
        let least = match runtime {
            // 2.1 has image volumes, but mounts all of the image, whatever `subPath` says, and tells nobody.
            "containerd" => (2, 2),
            "cri-o" => (1, 33),
            _ => return false,
        };
        major_and_minor(version) >= Some(least) && major_and_minor(&self.kubelet_version) >= Some(IMAGE_VOLUMES_SINCE)
    }
}

/// `(2, 2)` of `2.2.0-rc.1`, and `(1, 36)` of `v1.36.1-gke.100`.
fn major_and_minor(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.trim_start_matches('v').split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// A node as it is kept: what changes with a heartbeat is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Since when its kubelet is silent, as the control plane says; none: it answers, or nothing is said.
    pub silent_since: Option<Timestamp>,
    /// CPUs in thousandths, memory and disk in bytes, extended resources by number.
    pub allocatable: Box<[(Box<str>, u64)]>,
    /// It takes new pods, and cannot mount images as volumes.
    pub lacks_image_volumes: bool,
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
            lacks_image_volumes: !node.spec.unschedulable && !node.status.node_info.mounts_images(),
        }
    }
}

/// An amount of a resource: CPUs in thousandths, all others in whole units; none: it is no amount.
pub(in crate::plan) fn units(resource: &str, text: &str) -> Option<u64> {
    let quantity = Quantity::from(text);
    if resource == "cpu" { quantity.millis() } else { quantity.bytes() }.ok()
}

/// What nodes have: the most that one has of each resource, and what is not on all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// How many nodes there are.
    pub nodes: usize,
    /// In the units of [`NodeFacts::allocatable`].
    pub largest: BTreeMap<Box<str>, u64>,
    /// There is one that takes new pods and cannot mount images as volumes.
    pub lacks_image_volumes: bool,
}

impl Capacity {
    /// Of these nodes.
    #[must_use]
    pub fn of<'a>(nodes: impl IntoIterator<Item = &'a NodeFacts>) -> Self {
        let mut all = Self::default();
        for node in nodes {
            all.nodes += 1;
            all.lacks_image_volumes |= node.lacks_image_volumes;
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
        assert_eq!((all.nodes, all.largest), (2, largest));
    }

    fn versions(runtime: &str, kubelet: &str) -> NodeInfoFacts {
        NodeInfoFacts { container_runtime_version: runtime.into(), kubelet_version: kubelet.into() }
    }

    #[test]
    fn a_node_mounts_images_if_its_kubelet_and_its_runtime_are_known_to() {
        for (runtime, kubelet, mounts) in [
            ("containerd://2.2.0-rc.1", "v1.36.0", true),
            ("containerd://2.2.9", "v1.36.2-gke.1234000", true),
            ("containerd://2.10.1-k3s1", "v1.37.0+k3s1", true),
            ("containerd://3.0.0", "v1.36.0", true),
            ("cri-o://1.33.0", "v1.36.1", true),
            ("cri-o://1.36.0-3.rhaos4.23.git1234567.el9", "v1.36.0", true),
            ("containerd://2.1.4", "v1.36.0", false),
            ("containerd://1.7.27", "v1.36.0", false),
            ("containerd://1.7.28-0ubuntu1~24.04.1", "v1.36.0", false),
            ("cri-o://1.32.5", "v1.36.0", false),
            ("containerd://2.2.0", "v1.35.3-eks-1234567", false),
            ("docker://27.1", "v1.36.0", false),
            ("docker://27.1.1", "v1.36.0", false),
            ("containerd://Unknown", "v1.36.0", false),
            ("containerd://2", "v1.36.0", false),
            ("containerd://2.2.0", "", false),
            ("2.2.0", "v1.36.0", false),
            ("", "", false),
        ] {
            assert_eq!(versions(runtime, kubelet).mounts_images(), mounts, "{runtime} {kubelet}");
        }
    }

    #[test]
    fn one_node_that_takes_pods_and_cannot_mount_images_is_one_too_many() {
        let lacks = |nodes: &[(&str, bool)]| {
            let facts = nodes.iter().map(|(runtime, unschedulable)| {
                let info = json!({"containerRuntimeVersion": runtime, "kubeletVersion": "v1.36.0"});
                let spec = json!({"unschedulable": unschedulable});
                let node = json!({"metadata": {"name": "a"}, "spec": spec, "status": {"nodeInfo": info}});
                NodeFacts::of(&serde_json::from_value(node).unwrap())
            });
            Capacity::of(&facts.collect::<Vec<_>>()).lacks_image_volumes
        };
        let (new, old) = ("containerd://2.2.0", "containerd://1.7.27");
        assert!(lacks(&[(new, false), (old, false)]) && lacks(&[(old, false)]));
        assert!(!lacks(&[(new, false), (old, true)]), "a node that is cordoned gets no pod");
        assert!(!lacks(&[(new, false), (new, false)]));
        assert!(!lacks(&[]), "nothing is known: as the version says");
    }
}
