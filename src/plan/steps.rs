//! The one function that decides: observed facts in, steps out.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::facts::{PodFacts, PodSeen, Stage, Wait, WaitKind};
use super::outcome::{self, Ending, Outcome, Verdict};
use super::request::{self, RunRequest};
use super::settings::Settings;
use super::status::{self, Draft};
use super::{outcome::gave_up, pod};
use crate::api::{BundleRun, BundleRunStatus, Phase};

/// A run that ends sooner is never written as Running: one write less (design: budgets).
const RUNNING_WRITE_AFTER: SignedDuration = SignedDuration::from_secs(2);
/// Finalizing is written when it lasts longer than this.
const FINALIZING_WRITE_AFTER: SignedDuration = SignedDuration::from_secs(10);
/// A pod on its way without trouble is written as waiting after this.
const STARTING_WRITE_AFTER: SignedDuration = SignedDuration::from_secs(10);
/// A wait that is told already is told anew at most this often.
const TELL_AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(15);
/// A refused pod is tried again after this.
const REFUSED_RETRY: Duration = Duration::from_secs(15);
/// A foreign pod of our name is looked at again after this.
const FOREIGN_RETRY: Duration = Duration::from_secs(5);

/// All that a decision may depend on.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The run as last seen or written, whichever is newer.
    pub run: &'a BundleRun,
    /// The pod of the current attempt.
    pub pod: PodSeen<'a>,
    /// The API server's answer when this reconcile tried to create the pod.
    pub refusal: Option<&'a Refusal>,
    /// When this process last wrote the run's status.
    pub written_at: Option<Timestamp>,
}

/// Why the API server does not take the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A quota is used up: wait.
    QuotaExceeded(String),
    /// A policy, or something the pod names does not exist: wait a while, somebody may mend it.
    Forbidden(String),
    /// Pod Security refuses this pod and will go on doing so.
    PodSecurity(String),
    /// The pod is invalid: it will never be taken.
    Invalid(String),
    /// A pod of that name exists and is not ours.
    NameTaken,
    /// The namespace is going away, and the run with it.
    NamespaceTerminating,
}

/// What shall be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In this order; the first that fails ends the plan.
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
    /// Delete a pod of ours with its own grace.
    DeletePod(PodRef),
    /// Take our finalizer off a pod.
    Release(PodRef),
    /// Tell the user by an event.
    Tell(Notice),
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
pub struct Notice {
    /// Normal or Warning.
    pub severity: Severity,
    /// CamelCase.
    pub reason: String,
    /// For people.
    pub note: String,
}

/// Severity of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
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
    fn nothing() -> Self {
        Self::default()
    }

    fn after(next: Duration) -> Self {
        Self { steps: Vec::new(), next: Some(next) }
    }

    fn then(mut self, step: impl Into<Option<Step>>) -> Self {
        self.steps.extend(step.into());
        self
    }

    fn write(self, draft: Draft) -> Self {
        let step = draft.changed().map(|s| Step::WriteStatus(Box::new(s)));
        self.then(step)
    }

    fn tell(self, severity: Severity, reason: &str, note: &str) -> Self {
        self.then(Step::Tell(Notice { severity, reason: reason.into(), note: note.into() }))
    }
}

/// Decides what shall be done about one run. Total and deterministic.
#[must_use]
pub fn plan(observed: &Observed, settings: &Settings, now: Timestamp) -> Plan {
    let run = observed.run;
    if run.metadata.deletion_timestamp.is_some() {
        return clean_up(observed.pod);
    }
    if run.status.as_ref().and_then(|s| s.phase).is_some_and(is_terminal) {
        return clean_up(observed.pod);
    }
    let request = match request::validate(run, settings) {
        Ok(request) => request,
        Err(problems) => return refuse_spec(run, observed.pod, &problems, now),
    };
    let (attempt, pod_name) = status::current_pod(run);
    let decision = Decision { run, request: &request, settings, now, attempt, written_at: observed.written_at };
    match (observed.pod, observed.refusal) {
        (PodSeen::Ours(pod), _) => decision.follow(pod),
        (PodSeen::Absent, None) if decision.pod_was_recorded() => decision.end(None, &Outcome::pod_gone(&pod_name)),
        (PodSeen::Absent, None) => {
            let image = status::image_to_pull(&request.image, run.status.as_ref(), attempt);
            let pod = pod::build(&request, attempt, &image, settings);
            Plan::nothing().then(Step::CreatePod(Box::new(pod)))
        }
        (PodSeen::Foreign, _) => decision.refused(&Refusal::NameTaken),
        (PodSeen::Absent, Some(refusal)) => decision.refused(refusal),
    }
}

fn is_terminal(phase: Phase) -> bool {
    matches!(phase, Phase::Succeeded | Phase::Failed | Phase::Stopped)
}

/// The record is written, or nobody wants it: only the pod is left to be ended and let go.
fn clean_up(pod: PodSeen) -> Plan {
    let PodSeen::Ours(pod) = pod else { return Plan::nothing() };
    let release = pod.is_held().then(|| Step::Release(PodRef::of(pod)));
    match pod.stage() {
        Stage::Ended | Stage::Deleting => Plan::nothing().then(release),
        _ => Plan::nothing().then(Step::DeletePod(PodRef::of(pod))).then(release),
    }
}

/// The spec was stored under rules that let more through than ours.
fn refuse_spec(run: &BundleRun, pod: PodSeen, problems: &[String], now: Timestamp) -> Plan {
    let outcome = Outcome::failed("InvalidSpec", crate::api::status::Blame::User, problems.join("; "))
        .hint("apply the run again under another name, with these fields corrected");
    let (attempt, _) = status::current_pod(run);
    let requested = run.spec.image.clone().unwrap_or_default();
    let mut plan = Plan::nothing().write(Draft::of(run, now).ended(&requested, attempt, None, None, &outcome)).tell(
        Severity::Warning,
        &outcome.cause,
        &outcome.message,
    );
    plan.steps.extend(clean_up(pod).steps);
    plan
}

/// One run with a valid request: what is decided about it.
struct Decision<'a> {
    run: &'a BundleRun,
    request: &'a RunRequest,
    settings: &'a Settings,
    now: Timestamp,
    attempt: u32,
    written_at: Option<Timestamp>,
}

impl<'a> Decision<'a> {
    fn status(&self) -> Option<&'a BundleRunStatus> {
        self.run.status.as_ref()
    }

    fn phase(&self) -> Option<Phase> {
        self.status().and_then(|s| s.phase)
    }

    fn draft(&self) -> Draft<'a> {
        Draft::of(self.run, self.now)
    }

    /// The object names the pod of this attempt: it existed, so its absence is a loss.
    fn pod_was_recorded(&self) -> bool {
        self.status().is_some_and(|s| s.attempts.iter().any(|a| a.attempt == self.attempt && a.uid.is_some()))
    }

    /// The pod exists: what its stage asks for.
    fn follow(&self, pod: &PodFacts) -> Plan {
        match pod.stage() {
            Stage::Starting => self.starting(pod),
            Stage::Waiting(wait) => self.waiting(pod, &wait),
            Stage::Running => self.running(pod),
            Stage::Finalizing => {
                let ended = pod.run().and_then(|c| c.state.terminated.as_ref()?.finished_at.as_ref());
                self.finalizing(pod, ended.map_or(self.now, |t| t.0), None)
            }
            Stage::Deleting => {
                let since = pod.delete_asked_at().unwrap_or(self.now);
                self.finalizing(pod, since, Some("PodDeleted"))
            }
            Stage::Ended => {
                let message = pod.message();
                let waiting = self.status().and_then(|s| s.waiting.as_ref());
                let outcome = outcome::decide(&Ending { pod, message: message.as_ref(), waiting });
                self.end(Some(pod), &outcome)
            }
        }
    }

    /// Nothing is wrong; it is only written when it lasts, or when something else was written before.
    fn starting(&self, pod: &PodFacts) -> Plan {
        let since = pod.created_at().unwrap_or(self.now);
        let wait = Wait {
            kind: WaitKind::Starting,
            reason: "ContainerCreating",
            message: "the node pulls the image and prepares the volumes",
        };
        match self.due(since, STARTING_WRITE_AFTER) {
            None => Plan::nothing().write(self.draft().waiting(Phase::Pending, self.attempt, &wait, None)),
            Some(left) if self.status().is_some_and(|s| s.waiting.is_some()) => {
                Plan::after(left).write(self.draft().starting(self.attempt))
            }
            Some(left) => Plan::after(left),
        }
    }

    fn waiting(&self, pod: &PodFacts, wait: &Wait) -> Plan {
        let known =
            self.status().and_then(|s| s.waiting.as_ref()).filter(|w| w.stage.as_deref() == Some(wait.kind.stage()));
        let since = known.and_then(|w| w.since.as_ref()).map_or(self.now, |t| t.0);
        let deadline = self.deadline(wait.kind, since);
        if deadline.is_some_and(|d| d <= self.now) && known.is_some() {
            return Plan::nothing().then(Step::DeletePod(PodRef::of(pod)));
        }
        let left = deadline.map(|d| until(self.now, d));
        // The kubelet alternates between the failure and its back-off: one of them says enough.
        if known.is_some() && wait.kind != WaitKind::Scheduling {
            return Plan { steps: Vec::new(), next: left };
        }
        if let Some(soon) = self.written_at.filter(|_| known.is_some()).and_then(|at| self.due(at, TELL_AGAIN_AFTER)) {
            return Plan::after(soon);
        }
        let draft = self.draft().waiting(Phase::Pending, self.attempt, wait, deadline);
        let plan = Plan { steps: Vec::new(), next: left }.write(draft);
        if known.is_some() { plan } else { plan.tell(Severity::Warning, wait.reason, wait.message) }
    }

    fn deadline(&self, kind: WaitKind, since: Timestamp) -> Option<Timestamp> {
        let after = match kind {
            WaitKind::Scheduling | WaitKind::Starting => return None,
            WaitKind::ImageName => Duration::ZERO,
            WaitKind::Image | WaitKind::HelperImage => self.settings.image_deadline,
            WaitKind::Config | WaitKind::Admission => self.settings.config_deadline,
        };
        since.checked_add(after).ok()
    }

    fn running(&self, pod: &PodFacts) -> Plan {
        if self.phase() == Some(Phase::Running) {
            return Plan::nothing();
        }
        let started = pod.run().and_then(|c| c.state.running.as_ref()?.started_at.as_ref());
        match self.due(started.map_or(self.now, |t| t.0), RUNNING_WRITE_AFTER) {
            Some(left) => Plan::after(left),
            None => Plan::nothing().write(self.draft().running(&self.request.image, self.attempt, pod)),
        }
    }

    fn finalizing(&self, pod: &PodFacts, since: Timestamp, reason: Option<&str>) -> Plan {
        if self.phase() == Some(Phase::Finalizing) {
            return Plan::nothing();
        }
        match self.due(since, FINALIZING_WRITE_AFTER) {
            Some(left) => Plan::after(left),
            None => Plan::nothing().write(self.draft().finalizing(&self.request.image, self.attempt, pod, reason)),
        }
    }

    /// The attempt is over: record it, let the pod go, and announce the next attempt if one is due.
    fn end(&self, pod: Option<&PodFacts>, outcome: &Outcome) -> Plan {
        let message = pod.and_then(PodFacts::message);
        let image = &self.request.image;
        let release = pod.filter(|p| p.is_held()).map(|p| Step::Release(PodRef::of(p)));
        // Every attempt before this one was interrupted: own failures are not retried by this version.
        if outcome.verdict == Verdict::Interrupted && self.attempt <= self.request.interruptions {
            let draft = self.draft().interrupted(image, self.attempt, pod, message.as_ref(), outcome);
            return Plan::after(Duration::ZERO).write(draft).then(release).tell(
                Severity::Warning,
                &outcome.cause,
                &outcome.message,
            );
        }
        let severity = if outcome.verdict == Verdict::Succeeded { Severity::Normal } else { Severity::Warning };
        Plan::nothing()
            .write(self.draft().ended(image, self.attempt, pod, message.as_ref(), outcome))
            .then(release)
            .tell(severity, &outcome.cause, &outcome.message)
    }

    /// The API server does not take the pod: wait with a deadline, or end.
    fn refused(&self, refusal: &Refusal) -> Plan {
        let (reason, message, retry) = match refusal {
            Refusal::NamespaceTerminating => return Plan::nothing(),
            Refusal::Invalid(message) => {
                let outcome = Outcome::failed("PodInvalid", crate::api::status::Blame::User, message)
                    .hint("correct the field the message names, in a new run");
                return self.end(None, &outcome);
            }
            Refusal::PodSecurity(message) => {
                let outcome = Outcome::failed("PodSecurity", crate::api::status::Blame::User, message)
                    .hint("set runAsUser to fit the restricted level; a driver on the host needs a namespace at the privileged level");
                return self.end(None, &outcome);
            }
            Refusal::QuotaExceeded(message) => ("QuotaExceeded", message.as_str(), REFUSED_RETRY),
            Refusal::Forbidden(message) => ("Forbidden", message.as_str(), REFUSED_RETRY),
            Refusal::NameTaken => {
                ("PodNameTaken", "a pod of this name exists and belongs to something else", FOREIGN_RETRY)
            }
        };
        let wait = Wait { kind: WaitKind::Admission, reason, message };
        let known = self.status().and_then(|s| s.waiting.as_ref()).filter(|w| w.reason.as_deref() == Some(reason));
        let since = known.and_then(|w| w.since.as_ref()).map_or(self.now, |t| t.0);
        // A quota is a queue: it may take as long as it takes.
        let deadline = match refusal {
            Refusal::QuotaExceeded(_) => None,
            _ => self.deadline(WaitKind::Admission, since),
        };
        if let Some(waiting) = known.filter(|_| deadline.is_some_and(|d| d <= self.now)) {
            return self.end(None, &gave_up(waiting));
        }
        let plan = Plan::after(retry).write(self.draft().waiting(Phase::Waiting, self.attempt, &wait, deadline));
        if known.is_some() { plan } else { plan.tell(Severity::Warning, reason, message) }
    }

    /// How long until `since + wait`; none when that has passed.
    fn due(&self, since: Timestamp, wait: SignedDuration) -> Option<Duration> {
        let at = since.checked_add(wait).ok()?;
        (at > self.now).then(|| until(self.now, at))
    }
}

fn until(now: Timestamp, at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or_default()
}
