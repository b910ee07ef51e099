//! Facts -> status: phase, conditions, times, the record. A condition's transition time moves only when it flips.

mod measured;
mod unknown;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use self::unknown::INTERRUPTED;
use crate::api::BundleRun;
use crate::api::spec::Input;
use crate::api::status::{
    ATTEMPTS_KEPT, Attempt, BundleRunStatus, Phase, RecordedImage, RecordedInput, RunResult, Timeline, Waiting,
};
use crate::bundle::sha256;
use crate::contract::{Message, Record, Resumed, Saved, both_ends, time_for_people};
use crate::oci::{by_digest, digest_of};
use crate::plan::facts::pod::PodFacts;
use crate::plan::facts::wish::Wish;
use crate::plan::outcome::{Outcome, costs_nothing, lacking, unsaved};
use crate::plan::pod;
use crate::plan::status::measured::{
    between, finished_at, gpus, output, started_at, timeline, usage, within_its_container,
};
use crate::plan::words::cause::Verdict;
use crate::plan::words::condition::{self, ConditionType};
use crate::plan::words::wait_reason::{Reason, Wait, WaitStage};

pub(crate) use self::unknown::unknown_message;

/// Longest `status.message` and `status.waiting.message`, in bytes.
const MESSAGE_MAX_BYTES: usize = 1024;
/// Longest `status.attempts[].message`, in bytes.
const ATTEMPT_MESSAGE_MAX_BYTES: usize = 400;

/// What `status.waiting.until` says of a wait that passes by itself.
pub(in crate::plan) const STARTS_THEN: &str = "the deadline, then the run starts";
const NEXT_STARTS_THEN: &str = "the deadline, then the next attempt starts";

/// The same of an attempt whose container does not end.
pub(in crate::plan) const ENDS_WITHOUT_IT: &str =
    "the deadline, then the attempt ends without waiting for the container";

/// The same of a run whose pod was deleted and does not end.
pub(in crate::plan) const POD_HAS_TO_END: &str = "the end of the pod, which has no deadline";

const POD_KEPT: &str = "the API server does not let its pod be ";

/// `Reconciling` and `Ready` of a run that is not over.
const ACTIVE: [&str; 2] = ["True", "False"];

/// How many of the attempts before this one were interrupted at no cost.
pub(in crate::plan) fn uncounted(status: &BundleRunStatus, attempt: u32) -> u32 {
    // Older versions wrote no number, and of many attempts the object has the last ones only.
    let is_one = |entry: &&Attempt| entry.attempt < attempt && entry.cause.as_deref().is_some_and(costs_nothing);
    let seen = u32::try_from(status.attempts.iter().filter(is_one).count()).unwrap_or(u32::MAX);
    status.uncounted_interruptions.unwrap_or_default().max(seen)
}

/// What will go wrong, while the command runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::plan) struct Doubt {
    /// [`ConditionType::OutputSaved`] or [`ConditionType::DiskNearlyFull`].
    pub(in crate::plan) condition: ConditionType,
    /// Of outputs, one of those of outputs that are not saved, or that there is no store.
    pub(in crate::plan) reason: String,
    pub(in crate::plan) message: String,
}

impl Doubt {
    /// Told once for each reason: the words can differ each time, as with the number of a request in them.
    pub(in crate::plan) fn is_told(&self, status: &BundleRunStatus) -> bool {
        let reason = condition::as_reason(&self.reason);
        let is_it = |known: &Condition| known.type_ == self.condition.name() && known.reason == reason;
        status.conditions.iter().filter(|known| condition::is_warning(known)).any(is_it)
    }

    fn status(&self) -> &'static str {
        if self.condition == ConditionType::OutputSaved { "Unknown" } else { "True" }
    }
}

/// An attempt that is over, and all that is known of it.
#[derive(Clone, Copy)]
pub(in crate::plan) struct AttemptEnd<'a> {
    /// The image that was asked for.
    pub(in crate::plan) requested: &'a str,
    pub(in crate::plan) attempt: u32,
    /// None: it has none, or none any more.
    pub(in crate::plan) pod: Option<&'a PodFacts>,
    /// The helper's last words.
    pub(in crate::plan) message: Option<&'a Message>,
    pub(in crate::plan) outcome: &'a Outcome,
}

/// A status in the making: the run's present one, changed by the named steps below.
pub(in crate::plan) struct Draft<'a> {
    run: &'a BundleRun,
    status: BundleRunStatus,
    now: Timestamp,
    pod_made: Option<Timestamp>,
}

impl<'a> Draft<'a> {
    pub(in crate::plan) fn of(run: &'a BundleRun, now: Timestamp) -> Self {
        let mut status = run.status.clone().unwrap_or_default();
        status.observed_generation = run.metadata.generation;
        Self { run, status, now, pod_made: None }
    }

    /// When the pod of the attempt was made.
    pub(in crate::plan) fn with_pod_made(self, pod_made: Option<Timestamp>) -> Self {
        Self { pod_made, ..self }
    }

    /// The status, if it differs from what the object has.
    pub(in crate::plan) fn changed(mut self) -> Option<BundleRunStatus> {
        if self.run.status.as_ref() == Some(&self.status) {
            return None;
        }
        // Older versions wrote reasons as they came, and the definition refuses a status with such a one.
        for condition in &mut self.status.conditions {
            condition.reason = condition::as_reason(&condition.reason);
            // All of them hold for what was looked at, also those that have not changed.
            condition.observed_generation = self.status.observed_generation;
        }
        Some(self.status)
    }

    /// Held up: by what, since when, and when it is given up.
    pub(in crate::plan) fn waiting(
        mut self,
        phase: Phase,
        attempt: u32,
        wait: &Wait,
        deadline: Option<Timestamp>,
    ) -> Self {
        if wait.stage != WaitStage::Queue {
            self.leave_queue();
        }
        let same_stage = self.status.waiting.as_ref().filter(|w| w.stage.as_deref() == Some(wait.stage.name()));
        let since = same_stage.and_then(|w| w.since.clone()).unwrap_or(Time(self.now));
        let message = cut(wait.message);
        self.status.waiting = Some(Waiting {
            stage: Some(wait.stage.name().into()),
            reason: Some(wait.reason.into()),
            message: Some(message.clone()),
            hint: Some(wait.hint()),
            since: Some(since),
            deadline: deadline.map(Time),
            until: Some(wait.until(deadline.is_some())),
        });
        self.status.attempt = Some(attempt);
        if wait.stage == WaitStage::Inputs {
            self.set(ConditionType::InputsReady, "False", wait.reason, &message);
        }
        if matches!(wait.stage, WaitStage::Queue | WaitStage::Scheduling) {
            self.set(ConditionType::Scheduled, "False", wait.reason, "");
        }
        // For kstatus: nothing is done about a run that the user holds.
        let conditions = if wait.stage == WaitStage::Suspended { ["False", "Unknown"] } else { ACTIVE };
        self.standing(phase, Some(wait.reason), Some(message), conditions)
    }

    /// How long the pod was in a queue is written down when it has left it: Kubernetes keeps no time of that.
    fn leave_queue(&mut self) {
        let known = self.status.waiting.as_ref().and_then(|waiting| waiting.stage.as_deref());
        if known == Some(WaitStage::Queue.name()) {
            let queued_milliseconds = between(self.pod_made, Some(self.now));
            self.status.timeline = Some(Timeline { queued_milliseconds, ..Timeline::default() });
        }
    }

    /// What to do about the wait, where more is known than its reason tells.
    pub(in crate::plan) fn hinting(mut self, hint: String) -> Self {
        if let Some(waiting) = &mut self.status.waiting {
            waiting.hint = Some(hint);
        }
        self
    }

    /// The wait ends by itself at that time, if it is known.
    pub(in crate::plan) fn passing_by(mut self, at: Option<Timestamp>, then: &str) -> Self {
        if let (Some(waiting), Some(at)) = (&mut self.status.waiting, at) {
            waiting.deadline = Some(Time(at));
            waiting.until = Some(then.to_owned());
        }
        self
    }

    /// The wait was given up, and the pod does not go: what it was for stays, because that decides about the ending.
    pub(in crate::plan) fn given_up_and_held_up(mut self, why: &str, hint: String) -> Self {
        if let Some(waiting) = &mut self.status.waiting {
            waiting.hint = Some(hint);
            waiting.until = Some(POD_HAS_TO_END.to_owned());
            waiting.since.get_or_insert(Time(self.now));
        }
        self.status.phase.get_or_insert(Phase::Pending);
        self.status.message = Some(cut(why));
        self
    }

    /// The image that the pod is made of, also while it waits.
    pub(in crate::plan) fn with_image(mut self, requested: &str) -> Self {
        self.status.image.get_or_insert_default().requested = Some(requested.to_owned());
        self
    }

    /// The same, and what the pod tells of where it is.
    pub(in crate::plan) fn placed(mut self, requested: &str, pod: &PodFacts) -> Self {
        self.place(pod);
        self.with_image(requested)
    }

    fn place(&mut self, pod: &PodFacts) {
        self.status.node.clone_from(&pod.spec.node_name);
        if let Some(scheduled) = pod.condition("PodScheduled") {
            let reason = if scheduled.status == "True" { condition::SCHEDULED } else { Reason::Unschedulable.name() };
            let at = scheduled.last_transition_time.clone();
            self.set_at(ConditionType::Scheduled, &scheduled.status, reason, "", at);
        }
    }

    /// Nothing holds it up any more.
    pub(in crate::plan) fn starting(mut self, attempt: u32) -> Self {
        self.leave_queue();
        self.status.waiting = None;
        self.status.attempt = Some(attempt);
        self.active(Phase::Pending, None, Some("nothing holds it up: its pod is being started".to_owned()))
    }

    /// The run container runs.
    pub(in crate::plan) fn running(mut self, requested: &str, attempt: u32, pod: &PodFacts, doubts: &[Doubt]) -> Self {
        self.leave_queue();
        self.doubt(doubts);
        self.status.waiting = None;
        self.observe_pod(requested, attempt, pod);
        self.status.start_time = self.attempt_mut(attempt).and_then(|a| a.start_time.clone());
        let message = self.while_it_runs(attempt);
        self.active(Phase::Running, None, message)
    }

    /// What the attempt goes on from, where its helper was asked.
    pub(in crate::plan) fn resumed(mut self, attempt: u32, resumed: Option<Resumed>) -> Self {
        let Some(Resumed { from }) = resumed else { return self };
        let is_empty = from.is_none();
        if let Some(entry) = self.attempt_mut(attempt) {
            entry.resumed_from = from;
        }
        self.status.message = self.while_it_runs(attempt);
        if is_empty {
            let told = [began_empty(attempt)].into_iter().chain(self.status.message);
            self.status.message = Some(cut(&told.collect::<Vec<_>>().join("; ")));
        }
        self
    }

    /// What the attempt goes on from, and what will go wrong.
    fn while_it_runs(&mut self, attempt: u32) -> Option<String> {
        let from = self.attempt_mut(attempt).and_then(|entry| entry.resumed_from.clone());
        let resumed = from.map(|from| format!("attempt {attempt} resumed from {from}"));
        let told = self.status.conditions.iter().filter(|condition| condition::is_warning(condition));
        let told: Vec<_> = resumed.into_iter().chain(told.map(|condition| condition.message.clone())).collect();
        (!told.is_empty()).then(|| cut(&told.join("; ")))
    }

    /// What is told and holds no more is taken back.
    fn doubt(&mut self, doubts: &[Doubt]) {
        let holds = |known: &Condition| doubts.iter().any(|doubt| doubt.condition.name() == known.type_);
        self.status.conditions.retain(|known| !condition::is_warning(known) || holds(known));
        for doubt in doubts {
            if !doubt.is_told(&self.status) {
                self.set(doubt.condition, doubt.status(), &doubt.reason, &doubt.message);
            }
        }
    }

    /// The user asked for the end, and the pod is about to be told or deleted.
    pub(in crate::plan) fn ending(mut self, wish: Wish) -> Self {
        let asked_at = match wish {
            Wish::Stop => &mut self.status.stop_requested_at,
            Wish::Suspend => &mut self.status.suspended_at,
        };
        asked_at.get_or_insert_with(|| whole_seconds(self.now));
        self.status.waiting = None;
        let phase = self.status.phase.unwrap_or(Phase::Pending);
        let is_told = self.status.reason.as_deref() == Some(wish.reason());
        let kept = self.status.message.take().filter(|message| is_told && message.contains(POD_KEPT));
        let in_vain = if wish == Wish::Stop && !self.run.spec.stop { ", although it was taken back" } else { "" };
        let message = kept.unwrap_or_else(|| format!("{} was set: the attempt is being ended{in_vain}", wish.field()));
        self.active(phase, Some(wish.reason()), Some(message))
    }

    /// The API server does not let the pod be changed or deleted: in which words is told once, as they may differ each time.
    pub(in crate::plan) fn pod_kept(mut self, is_deletion: bool, words: &str) -> Self {
        let about = format!("{POD_KEPT}{}", if is_deletion { "deleted: " } else { "changed: " });
        let known = self.status.message.as_deref().unwrap_or_default();
        if known.contains(if is_deletion { &about } else { POD_KEPT }) {
            return self;
        }
        let before = known.split(POD_KEPT).next().unwrap_or_default().trim_end_matches("; ");
        let separator = if before.is_empty() { "" } else { "; " };
        self.status.message = Some(cut(&format!("{before}{separator}{about}{words}")));
        self
    }

    /// The user holds the run, which has no pod.
    pub(in crate::plan) fn suspended(mut self, attempt: u32) -> Self {
        self.status.suspended_at.get_or_insert_with(|| whole_seconds(self.now));
        let told =
            if attempt == 1 { String::new() } else { format!("; attempt {} is in status.attempts", attempt - 1) };
        let message = format!("suspend is set: attempt {attempt} begins when it is taken back{told}");
        self.waiting(Phase::Waiting, attempt, &Reason::Suspended.wait(&message), None)
    }

    /// The user holds it no more.
    pub(in crate::plan) fn going_on(mut self, attempt: u32) -> Self {
        self.status.suspended_at = None;
        self.status.waiting = None;
        self.active(Phase::Pending, None, Some(format!("suspend was taken back: attempt {attempt} begins")))
    }

    /// The command has ended or was told to, the helper has not.
    pub(in crate::plan) fn finalizing(
        mut self,
        requested: &str,
        attempt: u32,
        pod: &PodFacts,
        reason: Option<&str>,
        message: Option<String>,
    ) -> Self {
        self.status.waiting = None;
        self.observe_pod(requested, attempt, pod);
        self.active(Phase::Finalizing, reason, message)
    }

    /// The pod of the attempt is gone before anything of it was done: it has another, later.
    pub(in crate::plan) fn begun_anew(mut self, attempt: u32, pod: &PodFacts, outcome: &Outcome) -> Self {
        self.leave_queue();
        self.status.waiting = None;
        self.status.attempt = Some(attempt);
        self.status.conditions.retain(|c| c.type_ != ConditionType::Scheduled.name());
        let entry = Attempt {
            attempt,
            pod: pod.metadata.name.clone(),
            finish_time: Some(whole_seconds(self.now)),
            cause: Some(outcome.cause().to_owned()),
            message: Some(both_ends(&outcome.message, ATTEMPT_MESSAGE_MAX_BYTES)),
            ..Attempt::default()
        };
        self.record(entry);
        let when = if outcome.is_suspension() { " when suspend is taken back" } else { "" };
        let text =
            format!("the pod of attempt {attempt} had no node yet, and is made again{when}: {}", outcome.message);
        self.active(Phase::Pending, Some(outcome.cause()), Some(cut(&text)))
    }

    /// The attempt ended in a way that is not the run's end: the next one is announced here. `after`: how long that one waits
    /// if the run itself failed.
    pub(in crate::plan) fn followed(mut self, end: &AttemptEnd, after: Duration) -> Self {
        let AttemptEnd { attempt, outcome, .. } = *end;
        self.end_attempt(end);
        if let Some(entry) = self.attempt_mut(attempt) {
            entry.message = Some(both_ends(&outcome.message, ATTEMPT_MESSAGE_MAX_BYTES));
        }
        self.doubt(&[]);
        self.status.waiting = None;
        self.status.timeline = None;
        self.status.start_time = None;
        self.status.node = None;
        self.status.conditions.retain(|c| c.type_ != ConditionType::Scheduled.name());
        self.status.attempt = Some(attempt + 1);
        if outcome.is_suspension() {
            *self.status.suspensions.get_or_insert_default() += 1;
            let was = if outcome.is_as_wanted() { " " } else { INTERRUPTED };
            let text = format!("attempt {attempt}{was}{}", outcome.message);
            return self.active(Phase::Pending, Some(outcome.cause()), Some(cut(&text)));
        }
        if outcome.verdict() != Verdict::Failed {
            if outcome.costs_nothing() {
                self.status.uncounted_interruptions = Some(uncounted(&self.status, attempt).saturating_add(1));
            }
            let text = format!("attempt {attempt}{INTERRUPTED}{}", outcome.message);
            return self.active(Phase::Pending, Some(outcome.cause()), Some(cut(&text)));
        }
        *self.status.retried_failures.get_or_insert_default() += 1;
        let text = format!("attempt {attempt} failed: {}", outcome.message);
        let due = self.now.checked_add(after).ok().map(whole_seconds).map(|due| due.0);
        let wait = Reason::RetryBackOff.wait(&text);

        self.waiting(Phase::Pending, attempt + 1, &wait, None).passing_by(due, NEXT_STARTS_THEN)
    }

    /// The run's end. After this nothing but `observedGeneration` changes, its own and that of its conditions.
    pub(in crate::plan) fn ended(mut self, end: &AttemptEnd) -> Self {
        let (finish, record) = self.end_attempt(end);
        let record = record.as_ref();
        let AttemptEnd { attempt, pod, message, outcome, .. } = *end;
        self.status.waiting = None;
        self.status.suspended_at = None;
        self.status.attempt = Some(attempt);
        self.status.start_time = self.attempt_mut(attempt).and_then(|a| a.start_time.clone());
        self.status.finish_time = Some(finish);
        let queued = self.status.timeline.as_ref().and_then(|timeline| timeline.queued_milliseconds);
        self.status.timeline = Some(timeline(self.run, attempt, pod, record, queued));
        self.status.exit_code = record.and_then(|r| r.exit_code);
        self.status.signal = record.and_then(|r| r.signal);
        self.status.gpus = record.map(gpus).unwrap_or_default();
        self.status.usage = record.filter(|r| r.started_at_ms.is_some()).map(usage);
        self.status.duration = self.status.usage.and_then(|usage| usage.wall_milliseconds).map(time_for_people);
        self.status.output = message.map(|message| output(message, bundle(pod, message)));
        self.status.result =
            Some(RunResult { cause: outcome.cause().to_owned(), blame: outcome.blame(), hint: outcome.hint() });
        self.status.reason = Some(outcome.cause().to_owned());
        let mut text = outcome.message.clone();
        if let Some(warning) = record.filter(|r| r.cause.is_none() && !r.detail.is_empty()) {
            text = format!("{text}; {}", warning.detail);
        }
        self.status.message = Some(cut(&text));
        let cause = outcome.cause();
        self.status.conditions.retain(|c| c.type_ != ConditionType::Reconciling.name());
        self.doubt(&[]);
        if let Some((status, reason, text)) = pod.zip(message).and_then(|(pod, message)| saved(pod, message)) {
            self.set(ConditionType::OutputSaved, status, &reason, &text);
        }
        let (phase, condition) = match outcome.verdict() {
            Verdict::Succeeded => (Phase::Succeeded, ConditionType::Complete),
            Verdict::Stopped => (Phase::Stopped, ConditionType::Stopped),
            Verdict::Failed | Verdict::Interrupted => (Phase::Failed, ConditionType::Failed),
        };
        self.status.phase = Some(phase);
        self.set(ConditionType::Finished, "True", cause, "");
        self.set(condition, "True", cause, "");
        if phase == Phase::Succeeded {
            self.set(ConditionType::Ready, "True", cause, "");
        } else {
            self.set(ConditionType::Stalled, "True", cause, "");
            self.set(ConditionType::Ready, "False", cause, "");
        }
        self
    }

    fn active(self, phase: Phase, reason: Option<&str>, message: Option<String>) -> Self {
        self.standing(phase, reason, message, ACTIVE)
    }

    fn standing(
        mut self,
        phase: Phase,
        reason: Option<&str>,
        message: Option<String>,
        [reconciling, ready]: [&str; 2],
    ) -> Self {
        self.status.phase = Some(phase);
        self.status.reason = reason.map(str::to_owned);
        self.status.message = message;
        let word = format!("{phase:?}");
        self.set(ConditionType::Reconciling, reconciling, reason.unwrap_or(&word), "");
        self.set(ConditionType::Ready, ready, reason.unwrap_or(&word), "");
        self
    }

    /// What a pod tells while it lives and after: node, digest, times.
    fn observe_pod(&mut self, requested: &str, attempt: u32, pod: &PodFacts) {
        self.status.attempt = Some(attempt);
        self.place(pod);
        let known = self.status.image.take().and_then(|i| i.digest);
        // The repository before it may be another one that holds the same digest. Without one it is the id of an image's
        // configuration, which the runtime shows for images that no registry gave it: nothing can be pulled by that.
        let digest = pod.run().and_then(|c| digest_of(&c.image_id)).map(|digest| digest.to_string()).or(known);
        let reference = digest.as_deref().map(|digest| by_digest(requested, digest));
        self.status.image = Some(RecordedImage { requested: Some(requested.to_owned()), digest, reference });
        self.pin_inputs(pod);
        let entry = Attempt {
            attempt,
            pod: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            node: pod.spec.node_name.clone(),
            start_time: pod.run_started_at().cloned(),
            resumed_from: self.attempt_mut(attempt).and_then(|known| known.resumed_from.clone()),
            ..Attempt::default()
        };
        self.record(entry);
    }

    fn record(&mut self, entry: Attempt) {
        match self.attempt_mut(entry.attempt) {
            Some(known) => *known = entry,
            None => self.status.attempts.push(entry),
        }
        let excess = self.status.attempts.len().saturating_sub(ATTEMPTS_KEPT);
        self.status.attempts.drain(..excess);
    }

    /// The inputs as they were fixed when the pod was made.
    fn pin_inputs(&mut self, pod: &PodFacts) {
        let inputs = &self.run.spec.inputs;
        if inputs.is_empty() {
            return;
        }
        if self.status.inputs.is_empty() {
            let entry = |input: &Input| RecordedInput { path: input.path.clone(), ..RecordedInput::default() };
            self.status.inputs = inputs.iter().map(entry).collect();
        }
        for (index, pin) in pod.pins().inputs {
            if let Some(entry) = self.status.inputs.get_mut(index) {
                entry.run_uid = pin.run_uid;
                entry.in_part = pin.in_part;
                if pin.snapshot.is_none() {
                    entry.digest = digest_of(&pin.reference).map(|digest| digest.to_string());
                    entry.reference = Some(pin.reference);
                }
            }
        }
        for (entry, input) in self.status.inputs.iter_mut().zip(inputs) {
            if entry.digest.is_none() {
                entry.digest = told_by_the_spec(input);
            }
        }
        self.set(ConditionType::InputsReady, "True", condition::PINNED, "");
    }

    /// What the helper found under the tags of images and of snapshots, and in `ConfigMaps`: later attempts get the same.
    fn pin_found(&mut self, message: &Message, pod: Option<&PodFacts>) {
        let pins = pod.map(|pod| pod.pins().inputs).unwrap_or_default();
        for (index, digest) in &message.input_digests {
            let Some((input, entry)) = self.run.spec.inputs.get(*index).zip(self.status.inputs.get_mut(*index)) else {
                continue;
            };
            if input.config_map.is_some() && entry.digest.is_none() {
                entry.digest = Some(digest.clone());
            }
            let of_snapshot = pins.get(index).filter(|pin| pin.snapshot.is_some()).map(|pin| &pin.reference);
            let repository = input.image.as_ref().map(|image| &image.reference).or(of_snapshot);
            if let Some(repository) = repository.filter(|_| entry.reference.is_none()) {
                entry.digest = Some(digest.clone());
                entry.reference = Some(by_digest(repository, digest));
            }
        }
        for index in &message.report.late_files {
            if let Some(entry) = self.status.inputs.get_mut(*index) {
                entry.is_file = true;
            }
        }
    }

    /// Returns when it ended, by its record, or now; and that record, as far as it is to be believed.
    fn end_attempt(&mut self, end: &AttemptEnd) -> (Time, Option<Record>) {
        let AttemptEnd { requested, attempt, pod, message, outcome } = *end;
        self.leave_queue();
        if let Some(pod) = pod {
            self.observe_pod(requested, attempt, pod);
        } else if self.status.image.is_none() {
            let requested = Some(requested.to_owned());
            self.status.image = Some(RecordedImage { requested, ..RecordedImage::default() });
        }
        if let Some(message) = message {
            self.pin_found(message, pod);
        }
        let told = message.and_then(|message| message.report.record.as_ref());
        let believed = told.map(|record| within_its_container(record, pod, self.now));
        let record = believed.as_ref();
        let bundle = pod.zip(message).and_then(|(pod, message)| bundle(Some(pod), message));
        let finish = whole_seconds(record.and_then(finished_at).unwrap_or(self.now));
        if let Some(entry) = self.attempt_mut(attempt) {
            // Without a command the container's start is what there is, and the runtime takes that time late: the
            // runner may be over by then.
            let started = record.and_then(started_at).map(whole_seconds).or(entry.start_time.take());
            entry.start_time = started.map(|started| started.min(finish.clone()));
            entry.finish_time = Some(finish.clone());
            entry.cause = Some(outcome.cause().to_owned());
            entry.exit_code = record.and_then(|r| r.exit_code);
            entry.signal = record.and_then(|r| r.signal);
            entry.bundle = bundle;
            let resumed_from = message.and_then(|message| message.report.resumed_from.clone());
            entry.resumed_from = resumed_from.or(entry.resumed_from.take());
        }
        (finish, believed)
    }

    fn attempt_mut(&mut self, attempt: u32) -> Option<&mut Attempt> {
        self.status.attempts.iter_mut().find(|a| a.attempt == attempt)
    }

    fn set(&mut self, type_: ConditionType, status: &str, reason: &str, message: &str) {
        self.set_at(type_, status, reason, message, None);
    }

    fn set_at(&mut self, type_: ConditionType, status: &str, reason: &str, message: &str, at: Option<Time>) {
        let known = self.status.conditions.iter_mut().find(|c| c.type_ == type_.name());
        let flipped_at = match &known {
            Some(known) if known.status == status => known.last_transition_time.clone(),
            _ => at.unwrap_or_else(|| whole_seconds(self.now)),
        };
        let condition = Condition {
            type_: type_.name().into(),
            status: status.into(),
            reason: condition::as_reason(reason),
            message: message.into(),
            last_transition_time: flipped_at,
            observed_generation: self.run.metadata.generation,
        };
        match known {
            Some(known) => *known = condition,
            None => self.status.conditions.push(condition),
        }
    }
}

/// It was to go on from a snapshot, and there was none.
pub(in crate::plan) fn began_empty(attempt: u32) -> String {
    format!("attempt {attempt} began with an empty working directory: the attempts before it left no snapshot")
}

/// The digest of an input whose content the spec fixes.
fn told_by_the_spec(input: &Input) -> Option<String> {
    if let Some(text) = &input.text {
        return Some(sha256(text.as_bytes()));
    }
    if let Some(url) = &input.url {
        return Some(format!("sha256:{}", url.sha256));
    }
    digest_of(&input.image.as_ref()?.reference).map(|digest| digest.to_string())
}

/// The saved output, `repository@digest`.
fn bundle(pod: Option<&PodFacts>, message: &Message) -> Option<String> {
    let saved = message.report.saved.as_ref()?;
    Some(format!("{}@{}", pod?.pins().repository?, saved.digest))
}

/// Status, reason and message of the condition `OutputSaved`; none: there was nothing to save.
fn saved(pod: &PodFacts, message: &Message) -> Option<(&'static str, String, String)> {
    let report = &message.report;
    if let Some(saved) = &report.saved {
        let (status, reason) = match saved {
            Saved { damaged: 1.., .. } => ("False", condition::OUTPUT_DAMAGED),
            Saved { withheld: 1.., .. } => ("True", condition::SAVED_IN_PART),
            Saved { .. } => ("True", condition::SAVED),
        };
        return Some((status, reason.into(), lacking(saved).unwrap_or_default()));
    }
    if let Some((failure, words)) = unsaved(pod, message) {
        return Some(("False", format!("{failure:?}"), words));
    }
    report.record.as_ref().filter(|r| r.started_at_ms.is_some())?;
    Some(("False", condition::NO_STORE.into(), "no store is configured: the output went with the pod".into()))
}

/// Kubernetes' `Time` has whole seconds.
fn whole_seconds(t: Timestamp) -> Time {
    Time(Timestamp::from_second(t.as_second()).unwrap_or(t))
}

/// As messages are on the object.
pub(in crate::plan) fn cut(text: &str) -> String {
    both_ends(text, MESSAGE_MAX_BYTES)
}

/// Number and pod name of the run's current attempt.
#[must_use]
pub fn current_pod(run: &BundleRun) -> (u32, String) {
    let attempt = run.status.as_ref().and_then(|s| s.attempt).unwrap_or(1).max(1);
    (attempt, pod::pod_name(run.metadata.name.as_deref().unwrap_or_default(), attempt))
}
