//! The facts we use of a pod, and nothing else of it: a full `Pod` costs ten times the memory in the cache.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Resource;
use serde::{Deserialize, Serialize};

use crate::contract::{Message, MissingRecord, Pins};
use crate::names;
use crate::plan::words::wait_reason::Reason;

/// A slim view of a pod. Field names are Kubernetes' own; everything else is dropped when decoding.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Resource)]
#[resource(inherit = Pod)]
pub struct PodFacts {
    /// Name, uid, labels, finalizers, owner and deletion time; of annotations the cache keeps only the pins.
    pub metadata: ObjectMeta,
    /// See [`SpecFacts`].
    #[serde(default)]
    pub spec: SpecFacts,
    /// See [`StatusFacts`].
    #[serde(default)]
    pub status: StatusFacts,
}

/// What we use of a pod's spec.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SpecFacts {
    /// The node the pod is bound to.
    pub node_name: Option<String>,
    /// How long the helper may take after the end of the run container.
    pub termination_grace_period_seconds: Option<i64>,
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

impl ContainerFacts {
    /// What its container before this one said when it failed.
    fn last_words(&self) -> Option<&str> {
        self.last_state.terminated.as_ref()?.message.as_deref().filter(|words| Message::decode(words).is_none())
    }
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
    /// Such as `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerStatusUnknown`.
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
    Foreign,
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

    /// The command runs, and the helper has something to report.
    #[must_use]
    pub fn has_news(&self) -> bool {
        let helper = self.helper().filter(|helper| helper.state.running.is_some());
        helper.is_some_and(|helper| helper.ready == Some(false)) && self.stage() == Stage::Running
    }

    /// A condition by its type.
    #[must_use]
    pub fn condition(&self, type_: &str) -> Option<&ConditionFacts> {
        self.status.conditions.iter().find(|c| c.type_ == type_)
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
    fn helper_ended(&self) -> Option<&TerminatedFacts> {
        let helper = self.helper()?;
        let before = || helper.last_state.terminated.as_ref().filter(|ended| ended.exit_code == 0);
        helper.state.terminated.as_ref().or_else(before)
    }

    /// When the helper reported that the runner is gone and something of the run could not be killed, or that the runner
    /// died, while its container has not ended; none: there is nothing of the kind. The run container can write what the
    /// report is made of, so that only what lasts is to be believed.
    #[must_use]
    pub fn hung_since(&self) -> Option<Timestamp> {
        self.run()?.state.running.as_ref()?;
        let ended = self.helper_ended().filter(|ended| ended.exit_code == 0)?;
        let report = self.message()?.report;
        let hangs = match (&report.record, report.missing) {
            (Some(record), _) => record.unkillable,
            (None, Some(MissingRecord::RunnerDied | MissingRecord::Unreadable)) => true,
            (None, Some(MissingRecord::NeverStarted) | None) => false,
        };
        ended.finished_at.as_ref().filter(|_| hangs).map(|t| t.0)
    }

    /// What was fixed when the pod was made. Of a pod of an older operator: nothing.
    #[must_use]
    pub fn pins(&self) -> Pins {
        let text = self.metadata.annotations.as_ref().and_then(|all| all.get(names::PINS_ANNOTATION));
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
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

    /// Where the pod stands on its way: all that decides whether a change of a pod is worth a plan.
    #[must_use]
    pub fn stage(&self) -> Stage<'_> {
        let phase_ended = matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let run = self.run().map(|c| &c.state);
        let helper = self.helper().map(|c| &c.state);
        let run_ended = run.is_some_and(|s| s.terminated.is_some());
        let helper_ended = helper.is_some_and(|s| s.terminated.is_some());
        let never_bound = self.spec.node_name.is_none();
        if (run_ended && helper_ended) || phase_ended || (self.is_deleting() && never_bound) {
            return Stage::Ended;
        }
        if self.hung_since().is_some() {
            return Stage::Hung;
        }
        if self.is_deleting() {
            return Stage::Deleting;
        }
        if run_ended {
            return Stage::Finalizing;
        }
        if run.is_some_and(|s| s.running.is_some()) {
            // With inputs a startup probe tells when the command begins.
            let staging = self.run().is_some_and(|c| c.started == Some(false));
            return if staging { Stage::Staging } else { Stage::Running };
        }
        if never_bound {
            return match self.condition("PodScheduled") {
                Some(c) if c.status == "False" => Stage::Waiting(Wait {
                    kind: WaitKind::Scheduling,
                    reason: c.reason.as_deref().unwrap_or("Unschedulable"),
                    message: c.message.as_deref().unwrap_or_default(),
                }),
                _ => Stage::Starting,
            };
        }
        [self.helper(), self.run()]
            .into_iter()
            .flatten()
            .find_map(|container| {
                let waiting = container.state.waiting.as_ref()?;
                let reason = waiting.reason.as_deref().unwrap_or_default();
                let kind = WaitKind::of_container(&container.name, reason)?;
                // Better than the kubelet's: that it backs off.
                let words = container.last_words().or(waiting.message.as_deref());
                Some(Stage::Waiting(Wait { kind, reason, message: words.unwrap_or_default() }))
            })
            .unwrap_or(Stage::Starting)
    }
}

/// See [`PodFacts::stage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage<'a> {
    /// On its way without trouble: being scheduled, pulled or prepared.
    Starting,
    /// Held up.
    Waiting(Wait<'a>),
    /// The run container waits for its inputs.
    Staging,
    /// The command runs.
    Running,
    /// The run container has ended, the helper has not.
    Finalizing,
    /// The helper has reported, and the run container does not end.
    Hung,
    /// Asked to go away, not gone.
    Deleting,
    /// All containers have ended, or none will ever start.
    Ended,
}

/// What a pod waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wait<'a> {
    /// Decides deadline, blame and hint.
    pub kind: WaitKind,
    /// Kubernetes' reason.
    pub reason: &'a str,
    /// Kubernetes' message.
    pub message: &'a str,
}

/// Kinds of waiting, by who can end them; on the object they are `waiting.stage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WaitKind {
    /// Runs whose outputs are inputs do not exist or have not ended.
    Inputs,
    /// The API server refuses the pod: a quota, a policy, a missing service account.
    Admission,
    /// No node fits yet; may take as long as the queue is.
    Scheduling,
    /// The image cannot be pulled, or not yet.
    Image,
    /// The reference is no image reference: waiting is pointless.
    ImageName,
    /// The same for the helper's image, which is the platform's.
    HelperImage,
    /// The helper does not stay up.
    Helper,
    /// A Secret, `ConfigMap`, key or user that the container needs is missing.
    Config,
    /// The node does not confirm the end of a pod that was deleted.
    Node,
    /// Nothing is wrong, it just takes long: pulling a large image, mounting a slow volume.
    Starting,
    /// Nothing is wrong, the inputs just take long.
    Staging,
}

impl WaitKind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Inputs,
        Self::Staging,
        Self::Admission,
        Self::Scheduling,
        Self::Image,
        Self::ImageName,
        Self::HelperImage,
        Self::Helper,
        Self::Node,
        Self::Config,
        Self::Starting,
    ];

    /// What `status.waiting.stage` shows.
    #[must_use]
    pub fn stage(self) -> &'static str {
        match self {
            Self::Inputs => "Inputs",
            Self::Staging => "Staging",
            Self::Admission => "Admission",
            Self::Scheduling => "Scheduling",
            Self::Image => "ImagePull",
            Self::ImageName => "ImageName",
            Self::HelperImage => "HelperImagePull",
            Self::Helper => "Helper",
            Self::Node => "Node",
            Self::Config => "Configuration",
            Self::Starting => "Starting",
        }
    }

    /// What a container waits for, by the reason the kubelet gives while it retries; normal progress
    /// (`ContainerCreating`, `PodInitializing`) is none.
    fn of_container(container: &str, reason: &str) -> Option<Self> {
        let kind = Reason::of_the_kubelet(reason)?.kind();
        if container == names::HELPER_CONTAINER { kind.of_the_helper() } else { Some(kind) }
    }
}
