//! What goes into a plan and what comes out of it: facts and steps.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use crate::api::{BundleRun, BundleRunStatus, Skew};
use crate::contract::{PodOrder, Progress};
use crate::plan::facts::node::{Capacity, NodeSeen};
use crate::plan::facts::parents::Parents;
use crate::plan::facts::pod::{PodFacts, PodSeen};
use crate::plan::facts::pod_events::PodEvent;
use crate::plan::status::Draft;
use crate::plan::words::message::{Meaning, Source, meaning};

/// All that a decision may depend on.
#[derive(Clone, Debug)]
pub struct Observed<'a> {
    /// The run as last seen or written, whichever is newer.
    pub run: &'a BundleRun,
    /// In what the installed definition is not this version's.
    pub skew: &'a Skew,
    /// The pod of the current attempt.
    pub pod: PodSeen<'a>,
    /// The pods of the run's earlier attempts that are still there, each with the number of its attempt.
    pub earlier: &'a [(u32, Arc<PodFacts>)],
    /// The node of the current attempt's pod.
    pub node: NodeSeen,
    /// What the nodes have, if that is known; only looked up while there is no pod, or it has no node.
    pub capacity: Option<&'a Capacity>,
    /// The runs that are its inputs; only looked up while there is no pod, or one that waits for a snapshot of theirs.
    pub parents: &'a Parents,
    /// The API server's answer when this reconcile tried to create the pod.
    pub refusal: Option<&'a Refusal>,
    /// The API server's answer when this reconcile tried to change or delete the pod.
    pub pod_kept: Option<&'a PodKept>,
    /// The helper's answer when this reconcile asked it.
    pub progress: ProgressSeen,
    /// The pull secrets of the run's service account, when this reconcile asked for them.
    pub pull_secrets: Option<&'a [String]>,
    /// The warnings about the pod, when this reconcile asked for them.
    pub pod_events: Option<&'a [PodEvent]>,
    /// When this process last wrote the run's status.
    pub written_at: Option<Timestamp>,
    /// Since when this process acts: whatever others have recorded was before.
    pub acting_since: Timestamp,
}

/// What is known of how far a helper is.
#[allow(clippy::large_enum_variant)] // one plan has one
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProgressSeen {
    /// It was not asked.
    #[default]
    NotAsked,
    /// It was asked: none, it gave no answer.
    Answered(Option<Progress>),
}

/// Why the API server does not take the pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// A quota is used up: wait.
    QuotaExceeded(String),
    /// A policy, or something the pod names does not exist: wait a while, somebody may mend it.
    Forbidden(String),
    /// The API server fails, or a webhook that it asks. Wait.
    Unavailable(String),
    /// Pod Security refuses this pod and will go on doing so.
    PodSecurity(String),
    /// The pod is invalid: it will never be taken as it is.
    Invalid {
        /// Of the API server.
        message: String,
        /// What it finds wrong, where it says that field by field.
        fields: Vec<InvalidField>,
    },
    /// A pod of that name exists and is not ours: this one, unless it went meanwhile.
    NameTaken(Option<Box<PodFacts>>),
    /// The namespace is going away, and the run with it.
    NamespaceTerminating(String),
}

/// A field of the pod that the API server finds wrong: a cause in the details of its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidField {
    /// Such as `spec.tolerations[0].key`, of the pod as the API server has it after all that has changed it on its way.
    pub path: String,
    /// Such as `Invalid value: "a b": name part must consist of ...`.
    pub words: String,
}

impl Refusal {
    /// What a refusal to create a pod means, by the HTTP status and its message.
    #[must_use]
    pub fn of(code: u16, message: String) -> Self {
        match meaning(Source::Admission, &message) {
            Some(Meaning::QuotaUsedUp) => Self::QuotaExceeded(message),
            Some(Meaning::PodSecurity | Meaning::PodSecurityOfDriver | Meaning::PodSecurityOfRoot) => {
                Self::PodSecurity(message)
            }
            Some(Meaning::NamespaceIsGoing) => Self::NamespaceTerminating(message),
            Some(Meaning::AdmissionFails) => Self::Unavailable(message),
            Some(Meaning::PodIsInvalid) => Self::Invalid { message, fields: Vec::new() },
            // Whatever its status is: a policy says 422 unless it was told otherwise, and a webhook 400.
            Some(_) => Self::Forbidden(message),
            None => match code {
                413 => Self::Invalid { message, fields: Vec::new() },
                // Also where the operator's own token has run out, and where another write came between.
                401 | 408 | 409 | 429 | 500.. => Self::Unavailable(message),
                // Also in words that nobody knows: they may be those of a proxy.
                _ => Self::Forbidden(message),
            },
        }
    }

    /// The same, of a pod that is invalid with what is wrong with it.
    #[must_use]
    pub fn naming(self, fields: Vec<InvalidField>) -> Self {
        match self {
            Self::Invalid { message, .. } => Self::Invalid { message, fields },
            other => other,
        }
    }
}

/// The API server does not let a pod of ours be changed or deleted: a policy, a webhook, or a role that lacks a verb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodKept {
    /// It was to be deleted; else, to be changed.
    pub is_deletion: bool,
    /// The words of the API server.
    pub words: String,
}

/// What shall be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In this order; the first that fails ends the plan, unless it is one on a pod that the API server refuses.
    pub steps: Vec<Step>,
    /// Look again after this, if nothing happens before.
    pub next: Option<Duration>,
}

/// One effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Create the pod of an attempt under its deterministic name.
    CreatePod(Box<Pod>),
    /// Write the whole status.
    WriteStatus(Box<BundleRunStatus>),
    /// Delete a pod of ours.
    DeletePod {
        /// Which.
        pod: PodRef,
        /// Between TERM and KILL; `None`: what the pod was made with, which has room for saving.
        grace: Option<Duration>,
    },
    /// Tell the helper of a pod that the user asked for the end.
    OrderStop {
        /// Which.
        pod: PodRef,
        /// What it is told.
        order: PodOrder,
    },
    /// Tell the helper of a pod what became of the runs whose snapshots it looks for.
    TellOfRuns {
        /// Which.
        pod: PodRef,
        /// As in [`crate::names::AWAITED_RUNS_ANNOTATION`].
        runs: String,
    },
    /// Take our finalizer off a pod.
    RemoveFinalizer(PodRef),
    /// Delete the run, if it is still as it was observed.
    DeleteRun,
    /// Ask the helper of a pod how far it is: worth another plan.
    AskProgress {
        /// Address of the pod.
        ip: String,
    },
    /// Read which pull secrets a service account has: worth another plan.
    AskPullSecrets {
        /// Of the account.
        namespace: String,
        /// Name of the account.
        account: String,
    },
    /// Read the warnings about a pod: worth another plan.
    AskEvents(PodRef),
    /// Tell the user by an event.
    Event(Event),
}

impl Step {
    /// Deletes a pod with the grace that it was made with.
    pub(in crate::plan) fn delete(pod: &PodFacts) -> Self {
        Step::DeletePod { pod: PodRef::of(pod), grace: None }
    }

    /// What kind of effect it is, in words.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Step::CreatePod(_) => "create pod",
            Step::WriteStatus(_) => "write status",
            Step::DeletePod { .. } => "delete pod",
            Step::OrderStop { .. } => "order to stop",
            Step::TellOfRuns { .. } => "tell of awaited runs",
            Step::RemoveFinalizer(_) => "remove finalizer",
            Step::DeleteRun => "delete run",
            Step::AskProgress { .. } => "ask for progress",
            Step::AskPullSecrets { .. } => "read a service account",
            Step::AskEvents(_) => "read the events of a pod",
            Step::Event(_) => "create event",
        }
    }
}

/// A pod by name and uid: nothing is done to a later pod of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRef {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// Uid of the pod.
    pub uid: String,
}

/// An event on the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Normal or Warning.
    pub type_: EventType,
    /// CamelCase.
    pub reason: String,
    /// For people.
    pub note: String,
}

/// Type of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// As expected.
    Normal,
    /// Somebody may want to look.
    Warning,
}

impl PodRef {
    /// A pod in a cache.
    #[must_use]
    pub fn of(pod: &PodFacts) -> Self {
        let metadata = &pod.metadata;
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
        }
    }
}

impl Plan {
    pub(in crate::plan) fn nothing() -> Self {
        Self::default()
    }

    pub(in crate::plan) fn after(next: Duration) -> Self {
        Self::nothing_until(Some(next))
    }

    /// None: until something happens.
    pub(in crate::plan) fn nothing_until(next: Option<Duration>) -> Self {
        Self { steps: Vec::new(), next }
    }

    /// Looks again after this at the latest.
    pub(in crate::plan) fn or_after(self, next: impl Into<Option<Duration>>) -> Self {
        Self { next: self.next.into_iter().chain(next.into()).min(), ..self }
    }

    pub(in crate::plan) fn then(mut self, step: impl Into<Option<Step>>) -> Self {
        self.steps.extend(step.into());
        self
    }

    pub(in crate::plan) fn write(self, draft: Draft) -> Self {
        let step = draft.changed().map(|s| Step::WriteStatus(Box::new(s)));
        self.then(step)
    }

    pub(in crate::plan) fn event(self, type_: EventType, reason: &str, note: &str) -> Self {
        self.then(Step::Event(Event { type_, reason: reason.into(), note: note.into() }))
    }
}
