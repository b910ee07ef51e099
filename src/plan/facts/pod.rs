//! The facts we use of a pod, and nothing else of it: a full `Pod` costs ten times the memory in the cache.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Resource;
use serde::{Deserialize, Serialize};

use crate::contract::{Message, Pins, PodOrder};
use crate::names;

/// A slim view of a pod. Field names are Kubernetes' own; everything else is dropped when decoding.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Resource)]
#[resource(inherit = Pod)]
pub struct PodFacts {
    /// Name, uid, labels, finalizers, owner and deletion time; of annotations the cache keeps only
    /// the pins and what its helper was told.
    pub metadata: ObjectMeta,
    /// See [`SpecFacts`].
    #[serde(default)]
    pub spec: SpecFacts,
    /// See [`StatusFacts`].
    #[serde(default)]
    pub status: StatusFacts,
}

/// The user's order to end, on its way to the helper: see [`PodOrder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopOrder {
    /// The pod was made by an operator that gave none.
    NotListened,
    /// It can be given.
    NotGiven,
    /// It was.
    Given(PodOrder),
}

/// What we use of a pod's spec.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SpecFacts {
    /// The node the pod is bound to.
    pub node_name: Option<String>,
    /// What holds the scheduler back until somebody removes it, as Kueue does.
    pub scheduling_gates: Vec<SchedulingGateFacts>,
    /// How long the helper may take after the end of the run container.
    pub termination_grace_period_seconds: Option<i64>,
}

/// A scheduling gate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SchedulingGateFacts {
    /// Such as `kueue.x-k8s.io/admission`.
    pub name: String,
}

/// What we use of a pod's status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusFacts {
    /// Pending, Running, Succeeded, Failed or Unknown.
    pub phase: Option<String>,
    /// Why the pod is in this phase, such as `Evicted`.
    pub reason: Option<String>,
    /// The same for people.
    pub message: Option<String>,
    /// `PodScheduled`, `DisruptionTarget` and so on.
    pub conditions: Vec<ConditionFacts>,
    /// Where the helper can be asked how far it is.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// The run container is among these.
    pub container_statuses: Vec<ContainerFacts>,
    /// The helper (a native sidecar) is among these.
    pub init_container_statuses: Vec<ContainerFacts>,
}

/// A pod condition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConditionFacts {
    /// Name of the condition.
    #[serde(rename = "type")]
    pub type_: String,
    /// True, False or Unknown.
    pub status: String,
    /// CamelCase reason.
    pub reason: Option<String>,
    /// The same for people.
    pub message: Option<String>,
    /// When the status last flipped.
    pub last_transition_time: Option<Time>,
}

/// A container's status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerFacts {
    /// Name of the container.
    pub name: String,
    /// Whether its postStart hook is done; until then the next container is not created.
    pub started: Option<bool>,
    /// Of the helper: false while it has something to report (its readiness probe fails).
    pub ready: Option<bool>,
    /// `<repository>@<digest>` once pulled.
    #[serde(rename = "imageID")]
    pub image_id: String,
    /// At most one of the three is set.
    pub state: StateFacts,
    /// How its container before this one ended, if there was one.
    pub last_state: StateFacts,
}

/// A container's state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StateFacts {
    /// Not started yet.
    pub waiting: Option<WaitingFacts>,
    /// Running.
    pub running: Option<RunningFacts>,
    /// Ended.
    pub terminated: Option<TerminatedFacts>,
}

/// Why a container has not started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WaitingFacts {
    /// Such as `ContainerCreating` or `ImagePullBackOff`.
    pub reason: Option<String>,
    /// The same for people.
    pub message: Option<String>,
}

/// Since when a container runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RunningFacts {
    /// Whole seconds.
    pub started_at: Option<Time>,
}

/// How a container ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TerminatedFacts {
    /// Exit code as the kubelet saw it.
    pub exit_code: i32,
    /// Such as `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerStatusUnknown`, `Unknown`.
    pub reason: Option<String>,
    /// Termination message.
    pub message: Option<String>,
    /// None when the container never started.
    pub started_at: Option<Time>,
    /// Whole seconds.
    pub finished_at: Option<Time>,
}

/// What the caches tell of the pod of the current attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PodSeen<'a> {
    /// There is none of that name: never made, or gone.
    Absent,
    /// The pod of this run and attempt.
    Ours(&'a PodFacts),
    /// A pod of that name that belongs to somebody else, such as a deleted run of the same name.
    Foreign(&'a PodFacts),
}

impl PodFacts {
    /// The user's container.
    #[must_use]
    pub fn run(&self) -> Option<&ContainerFacts> {
        self.status.container_statuses.iter().find(|c| c.name == names::RUN_CONTAINER)
    }

    /// The native sidecar.
    #[must_use]
    pub fn helper(&self) -> Option<&ContainerFacts> {
        self.status.init_container_statuses.iter().find(|c| c.name == names::HELPER_CONTAINER)
    }

    /// What it waits for in a queue; none: it is in none, or is out of it.
    #[must_use]
    pub fn queued(&self) -> Option<String> {
        let gates: Vec<_> = self.spec.scheduling_gates.iter().map(|gate| gate.name.as_str()).collect();
        let gates = match gates.as_slice() {
            [] => return None,
            [gate] => format!("its scheduling gate {gate} is removed"),
            gates => format!("its scheduling gates {} are removed", gates.join(", ")),
        };
        let label = |labels: &BTreeMap<String, String>| labels.get(names::KUEUE_QUEUE_LABEL).cloned();
        let queue = self.metadata.labels.as_ref().and_then(label);
        let queue = queue.map(|queue| format!("; it is in the queue {queue}")).unwrap_or_default();
        Some(format!("the pod waits until {gates}{queue}"))
    }

    /// A condition by its type.
    #[must_use]
    pub fn condition(&self, type_: &str) -> Option<&ConditionFacts> {
        self.status.conditions.iter().find(|c| c.type_ == type_)
    }

    /// Kubernetes ends the pod for a reason of its own.
    #[must_use]
    pub fn disruption(&self) -> Option<&ConditionFacts> {
        self.condition("DisruptionTarget").filter(|condition| condition.status == "True")
    }

    /// Its volumes are mounted and its network is set up: a container of it began, or could.
    #[must_use]
    pub fn is_prepared(&self) -> bool {
        let began = |c: &ContainerFacts| c.state.running.is_some() || c.state.terminated.is_some();
        self.condition("PodReadyToStartContainers").is_some_and(|c| c.status == "True")
            || self.status.init_container_statuses.iter().chain(&self.status.container_statuses).any(began)
    }

    /// When the run container began; none: it never did, as far as the kubelet knows.
    #[must_use]
    pub fn run_started_at(&self) -> Option<&Time> {
        let state = &self.run()?.state;
        let started = match (&state.running, &state.terminated) {
            (Some(running), _) => running.started_at.as_ref(),
            (None, Some(terminated)) => terminated.started_at.as_ref(),
            (None, None) => None,
        };
        // The container runtime's zero is 1970.
        started.filter(|t| t.0.as_second() > 0)
    }

    /// When the pod was made.
    #[must_use]
    pub fn created_at(&self) -> Option<Timestamp> {
        self.metadata.creation_timestamp.as_ref().map(|t| t.0)
    }

    /// The helper's last words, if it had any.
    #[must_use]
    pub fn message(&self) -> Option<Message> {
        Message::decode(self.helper_ended()?.message.as_deref()?)
    }

    /// How the helper ended. The kubelet starts one again and again that has reported while the run container has not
    /// ended: it says the same each time.
    pub(super) fn helper_ended(&self) -> Option<&TerminatedFacts> {
        let helper = self.helper()?;
        let before = || helper.last_state.terminated.as_ref().filter(|ended| ended.exit_code == 0);
        helper.state.terminated.as_ref().or_else(before)
    }

    /// The run container and the helper have ended, and a container that is not ours has not.
    #[must_use]
    pub fn is_left_to_others(&self) -> bool {
        let run_ended = self.run().is_some_and(|run| run.state.terminated.is_some());
        run_ended && self.helper_ended().is_some() && self.others().any(|other| other.state.terminated.is_none())
    }

    /// The containers that others have put into the pod: those that come first, before those that run beside the command.
    pub(super) fn others(&self) -> impl Iterator<Item = &ContainerFacts> {
        let ours = [names::RUN_CONTAINER, names::HELPER_CONTAINER];
        let all = self.status.init_container_statuses.iter().chain(&self.status.container_statuses);
        all.filter(move |container| !ours.contains(&container.name.as_str()))
    }

    /// The container of others that runs, and that the command has to wait for.
    #[must_use]
    pub fn init_container_of_others(&self) -> Option<&str> {
        let is_first = |c: &&ContainerFacts| c.name != names::HELPER_CONTAINER && c.started != Some(true);
        let mut first = self.status.init_container_statuses.iter().filter(is_first);
        first.find(|c| c.state.running.is_some()).map(|c| c.name.as_str())
    }

    /// What was fixed when the pod was made. Of one [without](Self::without_its_pins): nothing.
    #[must_use]
    pub fn pins(&self) -> Pins {
        let text = self.metadata.annotations.as_ref().and_then(|all| all.get(names::PINS_ANNOTATION));
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// It has none: nothing was fixed, or somebody took the annotation away.
    #[must_use]
    pub fn without_its_pins(&self) -> bool {
        let text = self.metadata.annotations.as_ref().and_then(|all| all.get(names::PINS_ANNOTATION));
        text.is_none_or(|text| serde_json::from_str::<Pins>(text).is_err())
    }

    /// The same, with these.
    #[must_use]
    pub fn with_pins(mut self, pins: &Pins) -> Self {
        let text = serde_json::to_string(pins).unwrap_or_default();
        self.metadata.annotations.get_or_insert_default().insert(names::PINS_ANNOTATION.to_owned(), text);
        self
    }

    /// What its helper was told of the user's wish to end.
    #[must_use]
    pub fn stop_order(&self) -> StopOrder {
        match self.metadata.annotations.as_ref().and_then(|all| all.get(names::STOP_ANNOTATION)) {
            None => StopOrder::NotListened,
            Some(text) => text.parse().map_or(StopOrder::NotGiven, StopOrder::Given),
        }
    }

    /// What its helper was told of the runs whose snapshots it looks for; none: it looks for none, or was made by an operator
    /// that does not tell.
    #[must_use]
    pub fn told_of_runs(&self) -> Option<&str> {
        let annotations = self.metadata.annotations.as_ref()?;
        annotations.get(names::AWAITED_RUNS_ANNOTATION).map(String::as_str)
    }

    /// Deletion was asked for, by anybody.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// When deletion was asked for; the timestamp on the object is when the grace ends.
    #[must_use]
    pub fn delete_asked_at(&self) -> Option<Timestamp> {
        let ends = self.metadata.deletion_timestamp.as_ref()?.0;
        let grace = SignedDuration::from_secs(self.metadata.deletion_grace_period_seconds.unwrap_or(0));
        ends.checked_sub(grace).ok()
    }

    /// Without a grace: the node was not waited for. The API server deletes a pod without a node so, too.
    #[must_use]
    pub fn is_deleted_by_force(&self) -> bool {
        self.is_deleting() && self.metadata.deletion_grace_period_seconds == Some(0) && self.spec.node_name.is_some()
    }

    /// Our finalizer is still on it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.metadata.finalizers.iter().flatten().any(|f| f == names::POD_FINALIZER)
    }

    /// Name and uid of the run that owns it. Labels prove nothing: whoever may create pods may set them.
    #[must_use]
    pub fn owner(&self) -> Option<(&str, &str)> {
        let owners = self.metadata.owner_references.iter().flatten();
        owners
            .filter(|o| o.kind == names::KIND && o.api_version.starts_with(names::GROUP) && o.controller == Some(true))
            .map(|o| (o.name.as_str(), o.uid.as_str()))
            .next()
    }
}
