//! The one function that decides: observed facts in, steps out.

mod capacity;
mod create;
mod hung;
mod invalid;
mod lasting;
mod node;
mod pin;
mod refused;
mod retention;
mod skew;
mod waiting;
mod wished;

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::status::Attempt;
use crate::api::{BundleRun, BundleRunStatus, Phase, Skew};
use crate::contract::{Message, Pins};
use crate::plan::facts::image;
use crate::plan::facts::node::{Capacity, NodeSeen};
use crate::plan::facts::parents::Parents;
use crate::plan::facts::pod::{PodFacts, PodSeen};
use crate::plan::facts::pod_events::PodEvent;
use crate::plan::facts::settings::Settings;
use crate::plan::facts::stage::Stage;
use crate::plan::facts::wish::Wish;
use crate::plan::outcome::{self, Ending, Outcome};
use crate::plan::status::{self, AttemptEnd, Draft};
use crate::plan::steps::{EventType, Observed, Plan, PodRef, ProgressSeen, Refusal, Step};
use crate::plan::validate;
use crate::plan::words::cause::{Cause, Verdict};
use crate::plan::words::wait_reason::WaitStage;

/// The wait before the attempt after one whose command never started; doubles with each attempt. What the platform
/// refuses at once (a device plugin that is down) must not use up all attempts in a few seconds.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// Times of ours and of the API server's that are nearer to each other say nothing of which came first.
const CLOCKS_APART: SignedDuration = SignedDuration::from_secs(5);
/// A run that ends sooner is never written as Running: one write less (design: budgets).
const RUNNING_WRITE_AFTER: SignedDuration = SignedDuration::from_secs(2);

/// The event of a pod that the API server does not let be changed or deleted.
const POD_KEPT: &str = "PodChangeRefused";

/// Decides what shall be done about one run. Total and deterministic.
#[must_use]
pub fn plan(observed: &Observed, settings: &Settings, now: Timestamp) -> Plan {
    let run = observed.run;
    if run.metadata.deletion_timestamp.is_some() {
        return clean_up(observed, settings).then(release_last(run, status::current_pod(run).0));
    }
    if retention::is_past(observed, now) {
        return clean_up(observed, settings).then(Step::DeleteRun);
    }
    let plan = if run.is_over() {
        // Nothing else of a terminal run changes.
        clean_up(observed, settings).write(Draft::of(run, now))
    } else {
        tell_kept(decide(observed, settings, now), observed, now)
    };
    retention::kept(plan, observed, settings, now)
}

/// The run is not over.
fn decide(observed: &Observed, settings: &Settings, now: Timestamp) -> Plan {
    let run = observed.run;
    let (attempt, pod_name) = status::current_pod(run);
    let mended = mended(observed, settings);
    let seen = mended.as_ref().map_or(observed.pod, PodSeen::Ours);
    let ours = match seen {
        PodSeen::Ours(pod) => Some(pod),
        PodSeen::Absent | PodSeen::Foreign(_) => None,
    };
    let requested = image::requested(run, ours, settings);
    let decision = Decision {
        run,
        requested: &requested,
        settings,
        pod_made: ours.and_then(PodFacts::created_at),
        skew: observed.skew,
        node: observed.node,
        capacity: observed.capacity,
        parents: observed.parents,
        now,
        attempt,
        progress: observed.progress.clone(),
        pull_secrets: observed.pull_secrets,
        pod_events: observed.pod_events,
        written_at: observed.written_at,
        acting_since: observed.acting_since,
        pod_is_kept: observed.pod_kept.is_some(),
    };
    match (seen, observed.refusal) {
        // It was valid when it was made: rules and settings of today do not end what runs.
        (PodSeen::Ours(pod), _) => decision.follow(pod),
        (PodSeen::Absent | PodSeen::Foreign(_), None) if decision.pod_was_recorded() => {
            decision.end(None, &Outcome::pod_gone(&pod_name))
        }
        // There is nothing to end and nothing to save.
        (PodSeen::Absent | PodSeen::Foreign(_), _) if run.is_being_stopped() => {
            decision.end(None, &Outcome::stopped_without_pod(attempt)).then(release_last(run, attempt))
        }
        (PodSeen::Absent | PodSeen::Foreign(_), _) if run.spec.suspend => decision.suspended(),
        (PodSeen::Absent | PodSeen::Foreign(_), _) if decision.wish().is_some() => decision.go_on(),
        (PodSeen::Absent, None) => decision.create(),
        (PodSeen::Foreign(pod), _) => decision.name_taken(Some(pod)).then(release_last(run, attempt)),
        (PodSeen::Absent, Some(Refusal::NameTaken(pod))) => decision.name_taken(pod.as_deref()),
        (PodSeen::Absent, Some(refusal)) => decision.refused(refusal),
    }
}

/// A pod of ours from which somebody took the annotation that says where its output goes. Without it, an output that was not
/// saved would count as none that was to be saved.
fn mended(observed: &Observed, settings: &Settings) -> Option<PodFacts> {
    let PodSeen::Ours(pod) = observed.pod else { return None };
    let namespace = observed.run.metadata.namespace.as_deref().unwrap_or_default();
    let repository = settings.store.as_ref()?.repository(namespace);
    let report = pod.message().filter(|_| pod.without_its_pins())?.report;
    let was_to_be_saved = report.saved.is_some() || report.not_saved.is_some();
    was_to_be_saved.then(|| pod.clone().with_pins(&Pins { repository: Some(repository), ..Pins::default() }))
}

/// The record is written, or nobody wants it: only the pod is left to be ended and let go.
fn clean_up(observed: &Observed, settings: &Settings) -> Plan {
    let PodSeen::Ours(pod) = observed.pod else { return Plan::nothing() };
    let release = pod.is_held().then(|| Step::RemoveFinalizer(PodRef::of(pod)));
    let goes_on = !matches!(pod.stage(), Stage::Ended | Stage::Deleting);
    let delete =
        end_of_others(pod, validate::stop_grace(observed.run, settings)).or_else(|| goes_on.then(|| Step::delete(pod)));
    Plan::nothing().then(delete).then(release)
}

/// Deletes a pod of ours that has ended but for containers that others put into it: nothing is left to be saved, and its
/// devices are held.
fn end_of_others(pod: &PodFacts, grace: Duration) -> Option<Step> {
    (pod.is_left_to_others() && !pod.is_deleting())
        .then(|| Step::DeletePod { pod: PodRef::of(pod), grace: Some(grace) })
}

/// The plan, and the words of the API server where it does not let the pod be changed or deleted.
fn tell_kept(mut plan: Plan, observed: &Observed, now: Timestamp) -> Plan {
    let Some(kept) = observed.pod_kept else { return plan };
    if kept.is_deletion {
        plan.steps.retain(|step| !matches!(step, Step::DeletePod { .. }));
    }
    if plan.steps.iter().any(|step| matches!(step, Step::WriteStatus(_))) {
        return plan;
    }
    let Some(status) = Draft::of(observed.run, now).pod_kept(kept.is_deletion, &kept.words).changed() else {
        return plan;
    };
    plan.then(Step::WriteStatus(Box::new(status))).event(EventType::Warning, POD_KEPT, &kept.words)
}

/// The plan, and the event of an ending that it records.
fn tell(plan: Plan, outcome: &Outcome) -> Plan {
    let type_ = if outcome.is_as_wanted() { EventType::Normal } else { EventType::Warning };
    plan.event(type_, outcome.cause(), &outcome.message)
}

/// The pod of the attempt before is let go with the next one and not where its end is recorded: a plan looks at one pod
/// only, so a release that failed there would never be tried again.
fn release_last(run: &BundleRun, attempt: u32) -> Option<Step> {
    let last = run.status.as_ref()?.attempts.iter().find(|a| a.attempt + 1 == attempt)?;
    Some(Step::RemoveFinalizer(PodRef {
        namespace: run.metadata.namespace.clone()?,
        name: last.pod.clone()?,
        uid: last.uid.clone()?,
    }))
}

/// One run that is not over: what is decided about it.
struct Decision<'a> {
    run: &'a BundleRun,
    /// The image that was asked for.
    requested: &'a str,
    settings: &'a Settings,
    pod_made: Option<Timestamp>,
    skew: &'a Skew,
    node: NodeSeen,
    capacity: Option<&'a Capacity>,
    parents: &'a Parents,
    now: Timestamp,
    attempt: u32,
    progress: ProgressSeen,
    pull_secrets: Option<&'a [String]>,
    pod_events: Option<&'a [PodEvent]>,
    written_at: Option<Timestamp>,
    acting_since: Timestamp,
    /// It could not be changed or deleted just now.
    pod_is_kept: bool,
}

impl<'a> Decision<'a> {
    fn status(&self) -> Option<&'a BundleRunStatus> {
        self.run.status.as_ref()
    }

    fn stop_grace(&self) -> Duration {
        validate::stop_grace(self.run, self.settings)
    }

    fn phase(&self) -> Option<Phase> {
        self.status().and_then(|s| s.phase)
    }

    fn draft(&self) -> Draft<'a> {
        Draft::of(self.run, self.now).with_pod_made(self.pod_made)
    }

    /// The same, with what the pod tells of where it is.
    fn draft_of(&self, pod: &PodFacts) -> Draft<'a> {
        self.draft().placed(self.requested, pod)
    }

    /// The object names the pod of this attempt: it existed, so its absence is a loss.
    fn pod_was_recorded(&self) -> bool {
        self.entry(self.attempt).is_some_and(|entry| entry.uid.is_some())
    }

    fn waits_until_a_deadline(&self) -> bool {
        let waiting = self.status().and_then(|s| s.waiting.as_ref()).filter(|_| self.known(WaitStage::Node).is_none());
        waiting.is_some_and(|w| w.deadline.is_some())
    }

    fn wish(&self) -> Option<Wish> {
        Wish::of(self.run)
    }

    /// The wish that the attempt is ended for: what `suspend` finds ending by itself ends as it would have.
    fn wish_acted_on(&self) -> Option<Wish> {
        let is_recorded = self.status().is_some_and(|status| status.suspended_at.is_some());
        self.wish().filter(|wish| *wish == Wish::Stop || is_recorded)
    }

    /// How many of the attempts before this one failed by themselves.
    fn failures(&self) -> u32 {
        if bug!("an interruption is a failure") {
            return self.attempt.saturating_sub(1);
        }
        self.status().and_then(|s| s.retried_failures).unwrap_or_default()
    }

    /// How many of the attempts before this one were interrupted at no cost.
    fn uncounted(&self) -> u32 {
        self.status().map_or(0, |status| status::uncounted(status, self.attempt))
    }

    /// Whether an attempt that ended so is followed by another.
    fn is_tried_again(&self, outcome: &Outcome) -> bool {
        let retry = &self.run.spec.retry;
        match outcome.verdict() {
            Verdict::Interrupted if outcome.is_suspension() && !bug!("a suspension is an interruption") => true,
            // The next attempt has what could not be mounted as a copy: that it was tried costs nothing.
            Verdict::Interrupted if outcome.costs_nothing() => true,
            // Whatever failed, was suspended or cost nothing is counted; the other attempts before this one were interrupted.
            Verdict::Interrupted => {
                let others = self.failures().saturating_add(self.suspensions()).saturating_add(self.uncounted());
                self.attempt.saturating_sub(others) <= retry.interruptions()
            }
            Verdict::Failed => {
                (self.failures() < retry.limit.unwrap_or_default() || bug!("failures are tried again for ever"))
                    && retry.is_for(outcome.cause())
                    && !self.run.is_being_stopped()
            }
            Verdict::Succeeded | Verdict::Stopped => false,
        }
    }

    /// The pod exists: what its helper has to know, and what its stage asks for.
    fn follow(&self, pod: &PodFacts) -> Plan {
        let stage = pod.stage();
        let told = self.tell_of_runs(pod, &stage);
        let Plan { steps, next } = self.follow_stage(pod, stage);
        // Last: one that fails ends the plan.
        Plan { steps: steps.into_iter().chain(told).collect(), next }
    }

    /// A helper that waits for the first snapshot of a run that has ended, or was deleted, would wait until its deadline;
    /// and it does not know of the attempts that the run has had since the pod was made.
    fn tell_of_runs(&self, pod: &PodFacts, stage: &Stage<'_>) -> Option<Step> {
        let told = pod.told_of_runs()?;
        let may_wait = matches!(stage, Stage::Starting | Stage::Waiting(_) | Stage::Staging);
        let runs = may_wait.then(|| pin::awaited_runs(&pod.pins(), self.parents))??;
        (runs != told).then(|| Step::TellOfRuns { pod: PodRef::of(pod), runs })
    }

    fn follow_stage(&self, pod: &PodFacts, stage: Stage<'_>) -> Plan {
        if let Some(wish) = self.wish()
            && matches!(stage, Stage::Starting | Stage::Waiting(_) | Stage::Staging | Stage::Running)
        {
            return self.end_as_wished(pod, &stage, wish);
        }
        if let Some(message) = self.told_by_the_helper_itself().filter(|_| stage != Stage::Ended) {
            return self.end_hung(pod, Some(&message));
        }
        if !matches!(stage, Stage::Hung | Stage::Ended)
            && let Some(plan) = self.silent(pod, &stage)
        {
            return plan;
        }
        match stage {
            Stage::Staging => self.staging(pod),
            Stage::Starting => self.starting(pod),
            Stage::Waiting(wait) => self.waiting(pod, &wait),
            Stage::Running => self.running(pod),
            Stage::Finalizing => {
                let ended = pod.run().and_then(|c| c.state.terminated.as_ref()?.finished_at.as_ref()).map(|t| t.0);
                // A kubelet that has lost the container does not say when, and one whose clock is ahead says nothing of use:
                // it may be long ago.
                let ended = ended.filter(|ended| ended.duration_since(self.now) < CLOCKS_APART);
                let since = ended.unwrap_or(Timestamp::UNIX_EPOCH);
                let ended = ended.unwrap_or_else(|| self.was_in(&[Phase::Finalizing]));
                let reason = self.wish_acted_on().map(Wish::reason);
                self.overdue(pod, ended, SignedDuration::ZERO).unwrap_or_else(|| {
                    let plan = self.finalizing(pod, since, reason);
                    plan.or_after(self.until_overdue(pod, ended, SignedDuration::ZERO))
                })
            }
            Stage::Deleting => self.deleting(pod),
            Stage::Hung => self.hung(pod),
            Stage::Ended => {
                let message = pod.message();
                let outcome = outcome::decide(&self.ending(pod, message.as_ref(), false));
                let was_nowhere = pod.is_deleting() && pod.spec.node_name.is_none() && message.is_none();
                if was_nowhere && outcome.verdict() == Verdict::Interrupted && !self.run.is_being_stopped() {
                    return self.begin_anew(pod, &outcome);
                }
                self.end(Some(pod), &outcome)
            }
        }
    }

    /// The pod went before it had a node: nothing of the attempt has happened, and it is made again under its name.
    fn begin_anew(&self, pod: &PodFacts, outcome: &Outcome) -> Plan {
        let plan = Plan::after(RETRY_AFTER);
        let release = pod.is_held().then(|| Step::RemoveFinalizer(PodRef::of(pod)));
        let told_at =
            self.entry(self.attempt).filter(|known| known.uid.is_none()).and_then(|known| known.finish_time.as_ref());
        if told_at.zip(pod.created_at()).is_some_and(|(at, made)| made.duration_since(at.0) < CLOCKS_APART) {
            return plan.then(release);
        }
        let draft = self.draft().begun_anew(self.attempt, pod, outcome);
        tell(plan.write(draft).then(release), outcome)
    }

    fn entry(&self, attempt: u32) -> Option<&'a Attempt> {
        self.status()?.attempts.iter().find(|a| a.attempt == attempt)
    }

    fn ending<'b>(&'b self, pod: &'b PodFacts, message: Option<&'b Message>, hangs: bool) -> Ending<'b> {
        let waiting = self.status().and_then(|s| s.waiting.as_ref());
        let shared_memory_bytes = validate::shared_memory_bytes(&self.run.spec.resources, self.settings);
        Ending { pod, message, waiting, shared_memory_bytes, hangs, wish: self.wish_acted_on() }
    }

    /// Nothing of it has to be saved, and what it waited for decides about its ending.
    fn was_given_up(&self, pod: &PodFacts) -> bool {
        pod.run_started_at().is_none() && self.waits_until_a_deadline()
    }

    fn deleting(&self, pod: &PodFacts) -> Plan {
        if self.was_given_up(pod) {
            return self.given_up_and_held_up(pod);
        }
        if let Some(plan) = self.held_up(pod) {
            return plan;
        }
        let reason = self.wish_acted_on().map_or(Cause::PodDeleted.name(), Wish::reason);
        self.finalizing(pod, pod.delete_asked_at().unwrap_or(self.now), Some(reason))
    }

    fn running(&self, pod: &PodFacts) -> Plan {
        let phase = self.phase();
        // That its node was silent is taken back.
        let is_told =
            matches!(phase, Some(Phase::Running | Phase::Finalizing)) && self.known(WaitStage::Node).is_none();
        if is_told && self.is_past_its_time(pod) {
            return self.past_its_time(pod);
        }
        // Of one that is past it already, as after a time without an operator, the record that it runs comes first.
        let next = if self.is_past_its_time(pod) { Some(Duration::ZERO) } else { self.until_past_its_time(pod) };
        if is_told && (phase == Some(Phase::Finalizing) || !(pod.has_news() || self.warns())) {
            return Plan::nothing_until(next);
        }
        let started = pod.run().and_then(|c| c.state.running.as_ref()?.started_at.as_ref());
        if !is_told && let Some(left) = self.due(started.map_or(self.now, |t| t.0), RUNNING_WRITE_AFTER) {
            return Plan::after(left);
        }
        if pod.has_news() {
            return self.with_news(pod, next);
        }
        // Only its helper knows what an attempt goes on from.
        let asks = || self.ask(pod).filter(|_| self.run.spec.retry.resume && self.attempt > 1);
        if !is_told && let Some(asks) = asks() {
            return asks;
        }
        self.tell_running(pod, next, &self.lasting_doubts(pod))
    }

    /// The attempt is over: record it, let the pod go, and announce the next attempt if one is due.
    fn end(&self, pod: Option<&PodFacts>, outcome: &Outcome) -> Plan {
        self.end_as_told(pod, pod.and_then(PodFacts::message).as_ref(), outcome)
    }

    /// [`Self::end`] with the helper's last words, however they came.
    fn end_as_told(&self, pod: Option<&PodFacts>, message: Option<&Message>, outcome: &Outcome) -> Plan {
        let wished;
        let outcome = match self.wish_acted_on() {
            Some(wish) if outcome.verdict() == Verdict::Interrupted && !outcome.is_suspension() => {
                wished = Outcome::wished_and_interrupted(wish, outcome);
                &wished
            }
            _ => outcome,
        };
        let end = AttemptEnd { requested: self.requested, attempt: self.attempt, pod, message, outcome };
        let others = pod.and_then(|pod| end_of_others(pod, self.stop_grace()));
        if self.is_tried_again(outcome) {
            let after = validate::backoff(&self.run.spec.retry, self.failures() + 1);
            let draft = self.draft().followed(&end, after);
            return tell(Plan::after(Duration::ZERO).write(draft).then(others), outcome);
        }
        let release = pod.filter(|p| p.is_held()).map(|p| Step::RemoveFinalizer(PodRef::of(p)));
        if bug!("the finalizer is removed before the record") {
            return tell(Plan::nothing().then(release).write(self.draft().ended(&end)).then(others), outcome);
        }
        tell(Plan::nothing().write(self.draft().ended(&end)).then(others).then(release), outcome)
    }

    /// When the run was in one of these phases at the latest: the status says that it is, or it is only now.
    fn was_in(&self, phases: &[Phase]) -> Timestamp {
        // What the status says was written by this process, or before it.
        let told = self.written_at.unwrap_or(self.acting_since);
        if self.phase().is_some_and(|phase| phases.contains(&phase)) { told } else { self.now }
    }

    /// How long until `since + wait`; none when that has passed. `since` is by a node's clock or the API server's: one
    /// that is ahead of ours by more than the wait holds up nothing.
    fn due(&self, since: Timestamp, wait: SignedDuration) -> Option<Duration> {
        let ahead = since.duration_since(self.now) > wait;
        let at = since.checked_add(wait).ok()?;
        (at > self.now && !ahead).then(|| until(self.now, at))
    }
}

fn until(now: Timestamp, at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or_default()
}
