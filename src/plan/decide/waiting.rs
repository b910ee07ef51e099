//! What holds a run up: what is said of it, how often, and when it is given up.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{Decision, until};
use crate::api::Phase;
use crate::api::status::Waiting;
use crate::plan::facts::node::NodeSeen;
use crate::plan::facts::pod::PodFacts;
use crate::plan::facts::pod_events::obstacle;
use crate::plan::outcome::gave_up;
use crate::plan::status::{STARTS_THEN, cut};
use crate::plan::steps::{EventType, Plan, PodRef, Step};
use crate::plan::words::wait_reason::{Deadline, Reason, Wait, WaitStage};

/// A pod on its way without trouble is written as waiting after this.
const STARTING_WRITE_AFTER: SignedDuration = SignedDuration::from_secs(10);
/// A pod that no scheduler has looked at is looked at again after this.
const UNBOUND_AGAIN: Duration = Duration::from_secs(15);
/// A wait that is told already is told again with other words after a quarter of the time that it has lasted, but at most
/// and at least this often.
const TELL_AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(15);
const TELL_AGAIN_AFTER_MAX: SignedDuration = SignedDuration::from_mins(5);
/// A helper that crashed is trusted again when it has run for this long.
const HELPER_TRIAL: SignedDuration = SignedDuration::from_secs(10);
/// The scheduler of a pod that names none.
const DEFAULT_SCHEDULER: &str = "default-scheduler";
/// A foreign pod of our name is looked at again after this.
const FOREIGN_RETRY: Duration = Duration::from_secs(5);
/// What the API server does not take is tried again after this at the latest.
const RETRY_MAX: SignedDuration = SignedDuration::from_mins(1);

impl Decision<'_> {
    /// Nothing is wrong; it is only written when it lasts, or when something else was written before.
    pub(super) fn starting(&self, pod: &PodFacts) -> Plan {
        if let Some(plan) = self.helper_on_trial(pod) {
            return plan;
        }
        if self.known(WaitStage::Queue).is_some() {
            // The scheduler's turn has come just now.
            return Plan::after(STARTING_WRITE_AFTER.unsigned_abs()).write(self.draft().starting(self.attempt));
        }
        let since = pod.created_at().map_or(self.now, |created| self.out_of_the_queue(created));
        if let Some(left) = self.due(since, STARTING_WRITE_AFTER) {
            let told = self.status().is_some_and(|s| s.waiting.is_some());
            let plan = Plan::after(left);
            return if told { plan.write(self.draft().starting(self.attempt)) } else { plan };
        }
        if pod.spec.node_name.is_some() { self.being_prepared(pod) } else { self.not_seen_by_scheduler() }
    }

    /// A scheduler that looked at a pod and found no node leaves a condition.
    fn not_seen_by_scheduler(&self) -> Plan {
        let scheduler = self.run.spec.scheduler_name.as_deref().unwrap_or(DEFAULT_SCHEDULER);
        let message = format!("no scheduler has looked at the pod yet: does one of the name {scheduler} run?");
        let wait = Reason::NotSeenByScheduler.wait(&message);
        // Being bound to a node is no event that a plan is made for.
        Plan::after(UNBOUND_AGAIN).write(self.draft().waiting(Phase::Pending, self.attempt, &wait, None))
    }

    /// The node pulls the image, or prepares what has to be there before: of that only events tell, and they are read
    /// later and later, as what is told already is told again.
    fn being_prepared(&self, pod: &PodFacts) -> Plan {
        let known = self.known(WaitStage::Starting);
        let since = known.and_then(|known| known.since.as_ref()).map_or(self.now, |t| t.0);
        // What was told is kept to, whatever is in the way now.
        let deadline = match known {
            Some(known) => known.deadline.as_ref().map(|t| t.0),
            None => given_up_at(self.now, self.settings.given_up_after(Deadline::Starting)),
        };
        let is_over = known.is_some() && deadline.is_some_and(|deadline| deadline <= self.now);
        if is_over && pod.is_prepared() {
            return Plan::nothing().then(Step::delete(pod));
        }
        let left = deadline.map(|deadline| until(self.now, deadline));
        let runs_before = pod
            .init_container_of_others()
            .map(|name| format!("{name} runs, which something else has put into the pod to be run before the command"));
        let message = runs_before.as_deref().unwrap_or("the node pulls the image and prepares the volumes");
        let pulls = Reason::ContainerCreating.wait(message);
        if pod.is_prepared() {
            let draft = self.draft_of(pod).waiting(Phase::Pending, self.attempt, &pulls, deadline);
            return Plan::nothing_until(left).write(draft);
        }
        let Some(events) = self.pod_events else { return Plan::nothing().then(Step::AskEvents(PodRef::of(pod))) };
        let obstacle = obstacle(events, self.now);
        let told = known.and_then(|known| known.reason.as_deref());
        let is_news = obstacle.is_some_and(|(_, event)| told != Some(&*event.reason));
        if is_over && !is_news {
            return Plan::nothing().then(Step::delete(pod));
        }
        let again = again_after(self.now.duration_since(since)).unsigned_abs();
        let plan = Plan::after(again).or_after(left);
        let wait = match obstacle {
            Some((reason, event)) => Wait { reason: &event.reason, ..reason.wait(&event.note) },
            // Silence changes nothing of what was told.
            None if known.is_some() => return plan,
            None => pulls,
        };
        let plan = plan.write(self.draft_of(pod).waiting(Phase::Pending, self.attempt, &wait, deadline));
        let plan = if is_news { plan.event(EventType::Warning, wait.reason, wait.message) } else { plan };
        // The last word of the node decides what the attempt ends as.
        if is_over { plan.then(Step::delete(pod)) } else { plan }
    }

    /// When the scheduler's turn came for a pod that was made then.
    fn out_of_the_queue(&self, created: Timestamp) -> Timestamp {
        let queued = self.status().and_then(|s| s.timeline.as_ref()?.queued_milliseconds).map(Duration::from_millis);
        queued.and_then(|queued| created.checked_add(queued).ok()).unwrap_or(created)
    }

    /// A helper that crashes runs for a moment between two crashes: its wait, and the deadline of it, goes on until it has
    /// stayed up for a while.
    fn helper_on_trial(&self, pod: &PodFacts) -> Option<Plan> {
        self.known(WaitStage::Helper)?;
        let running = pod.helper().and_then(|c| c.state.running.as_ref());
        let left = match running {
            Some(running) => Some(self.due(running.started_at.as_ref()?.0, HELPER_TRIAL)?),
            None => None,
        };
        let plan = self.waiting(
            pod,
            &Wait {
                stage: WaitStage::Helper,
                deadline: WaitStage::Helper.deadline(),
                reason: "",
                message: "",
                to_do: "",
            },
        );
        Some(Plan { next: plan.next.into_iter().chain(left).min(), ..plan })
    }

    /// The wait of this kind that the object tells already.
    pub(super) fn known(&self, stage: WaitStage) -> Option<&Waiting> {
        self.status()?.waiting.as_ref().filter(|w| w.stage.as_deref() == Some(stage.name()))
    }

    pub(super) fn waiting(&self, pod: &PodFacts, wait: &Wait) -> Plan {
        let before = self.known(wait.stage);
        let known = before.filter(|known| !is_another(known, wait));
        let since = known.and_then(|w| w.since.as_ref()).map_or(self.now, |t| t.0);
        // What was told is kept to: the settings may have changed since, and the ending is judged by it. Whatever else comes up,
        // a container has no more time than it was told: two errors may take turns.
        let told = before.and_then(|told| told.deadline.as_ref()).map(|t| t.0);
        let binds = known.is_some() || wait.stage != WaitStage::Image;
        if binds && told.is_some_and(|told| told <= self.now) {
            return Plan::nothing().then(Step::delete(pod));
        }
        let deadline = if known.is_some() {
            told
        } else {
            let own = given_up_at(since, self.settings.given_up_after(wait.deadline));
            own.map(|own| told.filter(|_| binds).map_or(own, |told| own.min(told)))
        };
        let left = deadline.map(|d| until(self.now, d));
        // The kubelet alternates between the failure and its back-off: one of them says enough.
        if known.is_some() && !matches!(wait.stage, WaitStage::Scheduling | WaitStage::Queue) {
            return Plan::nothing_until(left);
        }
        let again = again_after(self.now.duration_since(since));
        let is_told = before.is_some() && wait.deadline != Deadline::AtOnce;
        if let Some(soon) = self.written_at.filter(|_| is_told).and_then(|at| self.due(at, again)) {
            return Plan::after(soon).or_after(left);
        }
        let told = match wait.stage {
            WaitStage::Scheduling => Some(self.why_no_node(pod, wait.message)),
            WaitStage::Queue => pod.queued().map(|words| (words, wait.to_do)),
            _ => None,
        };
        let (message, to_do) =
            told.as_ref().map_or((wait.message, wait.to_do), |(message, to_do)| (message.as_str(), *to_do));
        let wait = &Wait { message, to_do, ..*wait };
        let draft = self.draft_of(pod).waiting(Phase::Pending, self.attempt, wait, deadline);
        let plan = Plan::nothing_until(left).write(draft);
        // A queue is as it should be.
        let type_ = if wait.stage == WaitStage::Queue { EventType::Normal } else { EventType::Warning };
        if known.is_some() { plan } else { plan.event(type_, wait.reason, wait.message) }
    }

    /// Runs that are inputs are not there yet: their changes trigger the next look, so there is nothing to ask for.
    pub(super) fn inputs_missing(&self, wait: Wait) -> Plan {
        let known = self.known(wait.stage);
        let told = |w: &Waiting| w.reason.as_deref() == Some(wait.reason) && w.message.as_deref() == Some(wait.message);
        if known.is_some_and(told) {
            return Plan::nothing();
        }
        if let Some(soon) = self.written_at.filter(|_| known.is_some()).and_then(|at| self.due(at, TELL_AGAIN_AFTER)) {
            return Plan::after(soon);
        }
        // The default of that day, which the administrator may change while it waits.
        let draft = self.draft().with_image(self.requested);
        Plan::nothing().write(draft.waiting(Phase::Waiting, self.attempt, &wait, None))
    }

    /// A pod of the name that the attempt's has to have is there, and is not the run's. `pod`: it, unless it went since.
    pub(super) fn name_taken(&self, pod: Option<&PodFacts>) -> Plan {
        let name = self.run.metadata.name.as_deref();
        let is_of_an_earlier_run = |pod: &PodFacts| pod.owner().is_some_and(|(owner, _)| Some(owner) == name);
        // It went between two questions.
        let Some(pod) = pod else { return Plan::after(FOREIGN_RETRY) };
        if !pod.is_deleting() && !is_of_an_earlier_run(pod) {
            let message = "a pod of this name exists and belongs to something else";
            return self.not_admitted(Reason::PodNameTaken, message, FOREIGN_RETRY);
        }
        let whose = if is_of_an_earlier_run(pod) { "an earlier run of this name" } else { "somebody else" };
        let until = pod.metadata.deletion_timestamp.as_ref().map_or_else(
            || "; it is about to be deleted".to_owned(),
            |at| format!(": it has until {} to save its output and to end", at.0),
        );
        let silent = match (self.node, pod.spec.node_name.as_deref()) {
            (NodeSeen::Silent(since), Some(node)) => {
                format!(
                    "; its node {node} has not answered since {since}, and has to be back, or declared out of service, first"
                )
            }
            _ => String::new(),
        };
        let message = format!("pod {} of {whose} has not ended yet{until}{silent}", PodRef::of(pod).name);
        // A node that is silent ends nothing in time, and one that had its time keeps to nothing.
        let ends_by =
            pod.metadata.deletion_timestamp.as_ref().map(|at| at.0).filter(|at| silent.is_empty() && *at > self.now);
        let hint = Reason::PreviousPod.wait(&message).hint();
        self.not_admitted_with(Reason::PreviousPod, &message, hint, FOREIGN_RETRY, ends_by)
    }

    /// There is no pod, because of this: the API server is asked again after `retry`, or an eighth of the time that it has
    /// been so for.
    pub(super) fn not_admitted(&self, reason: Reason, message: &str, retry: Duration) -> Plan {
        self.not_admitted_with(reason, message, reason.wait(message).hint(), retry, None)
    }

    /// The same, with a hint of its own. `ends_by`: what is in the way is gone by then.
    pub(super) fn not_admitted_with(
        &self,
        reason: Reason,
        message: &str,
        hint: String,
        retry: Duration,
        ends_by: Option<Timestamp>,
    ) -> Plan {
        let wait = reason.wait(message);
        let told = self.told(reason);
        let since = told.and_then(|w| w.since.as_ref()).map_or(self.now, |t| t.0);
        let deadline = given_up_at(since, self.settings.given_up_after(reason.deadline()));
        let retry = retry.max((self.now.duration_since(since) / 8).min(RETRY_MAX).unsigned_abs());
        if let Some(waiting) = told.filter(|_| deadline.is_some_and(|d| d <= self.now)) {
            return self.end(None, &gave_up(waiting));
        }
        let plan = Plan::after(retry);
        // The numbers in the message of a quota change all the time.
        // That of a pod which ends changes once, when it is known until when it may take.
        if told.is_some() && reason != Reason::PreviousPod && self.is_told_enough(since) {
            return plan;
        }
        let draft = self.draft().waiting(Phase::Pending, self.attempt, &wait, deadline);
        let plan = plan.write(draft.with_image(self.requested).hinting(hint).passing_by(ends_by, STARTS_THEN));
        if told.is_some() { plan } else { plan.event(EventType::Warning, wait.reason, message) }
    }

    /// The wait for this reason that the object shows.
    pub(super) fn told(&self, reason: Reason) -> Option<&Waiting> {
        self.status()?.waiting.as_ref().filter(|waiting| waiting.reason.as_deref() == Some(reason.name()))
    }

    /// What is told already is told again later and later: a wait of an hour costs some ten writes.
    fn is_told_enough(&self, since: Timestamp) -> bool {
        self.written_at.is_some_and(|at| self.due(at, again_after(self.now.duration_since(since))).is_some())
    }
}

fn again_after(waited: SignedDuration) -> SignedDuration {
    (waited / 4).clamp(TELL_AGAIN_AFTER, TELL_AGAIN_AFTER_MAX)
}

fn given_up_at(since: Timestamp, after: Option<Duration>) -> Option<Timestamp> {
    since.checked_add(after?).ok()
}

/// What is waited for is not what it was: a registry that did not answer says now that there is no such image, or a Secret is
/// there now and the node cannot give the GPUs.
fn is_another(known: &Waiting, wait: &Wait) -> bool {
    let (reason, message) = (known.reason.as_deref().unwrap_or_default(), known.message.as_deref().unwrap_or_default());
    let before = Reason::of_the_kubelet(reason, message);
    match wait.stage {
        // Of a pod that its node prepares.
        WaitStage::Starting => before.is_none(),
        WaitStage::Image => wait.says_why() && before.is_some_and(|before| before.deadline() != wait.deadline),
        WaitStage::Config | WaitStage::Helper => {
            let now = Reason::of_the_kubelet(wait.reason, wait.message);
            let names_another = now == Some(Reason::ConfigurationMissing) && cut(wait.message) != message;
            (wait.says_why() && before.is_some() && before != now) || (before == now && names_another)
        }
        _ => false,
    }
}
