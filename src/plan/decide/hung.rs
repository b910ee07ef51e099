//! Pods that do not end: something in them hangs in the node's kernel, and no KILL reaches it. The container of such a
//! process never ends, and what the kubelet would say then is never said. So the attempt is ended on the helper's word,
//! which comes by its termination message where the run container hangs, and by its progress port where its own does.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{Decision, until};
use crate::api::Phase;
use crate::api::duration::parse_seconds;
use crate::api::status::Waiting;
use crate::contract::{Message, ProgressStage};
use crate::plan::facts::pod::PodFacts;
use crate::plan::outcome::{self, Outcome};
use crate::plan::status::ENDS_WITHOUT_IT;
use crate::plan::steps::{Plan, Step};
use crate::plan::words::cause::Verdict;
use crate::plan::words::wait_reason::{Deadline, Reason};

/// What the helper and the kubelet may need beyond the pod's own times.
const SLACK: SignedDuration = SignedDuration::from_secs(60);
/// The runner gives up on processes that it cannot kill after this.
const KILL_PATIENCE: SignedDuration = SignedDuration::from_secs(10);
/// Between two questions to a helper that may hang.
const ASK_AGAIN: Duration = Duration::from_secs(30);

impl Decision<'_> {
    /// The helper has reported that something of the run cannot be killed. The kubelet may be slow to say that its container has
    /// ended after all. How long it has been is told by the object: the pod has times of the node's clock alone.
    pub(super) fn hung(&self, pod: &PodFacts) -> Plan {
        let told = self.told(Reason::ContainerNotEnding).and_then(|waiting| Some(waiting.deadline.as_ref()?.0));
        if let Some(deadline) = told {
            let left = until(self.now, deadline);
            return if left.is_zero() { self.end_hung(pod, pod.message().as_ref()) } else { Plan::after(left) };
        }
        let after = self.settings.given_up_after(Deadline::Hung).unwrap_or_default();
        let deadline = self.now.checked_add(after).unwrap_or(self.now);
        let message = "the helper has reported, and the node does not say that the command's container has ended: something \
            of it may hang there";
        let wait = Reason::ContainerNotEnding.wait(message);
        let draft = self.draft().finalizing(self.requested, self.attempt, pod, None, None);
        let draft =
            draft.waiting(Phase::Finalizing, self.attempt, &wait, None).passing_by(Some(deadline), ENDS_WITHOUT_IT);
        Plan::after(after).write(draft)
    }

    /// The helper was asked, and said its last words: it cannot end.
    pub(super) fn told_by_the_helper_itself(&self) -> Option<Message> {
        Message::decode(&self.answer()?.report)
    }

    /// The command should be over, whatever the containers look like.
    pub(super) fn is_past_its_time(&self, pod: &PodFacts) -> bool {
        self.its_time(pod).is_some() && self.until_past_its_time(pod).is_none()
    }

    /// How long until then; none: it is, or has all time.
    pub(super) fn until_past_its_time(&self, pod: &PodFacts) -> Option<Duration> {
        let (started, time) = self.its_time(pod)?;
        self.due(started, time.checked_add(SLACK)?)
    }

    /// A helper that hangs, too, is asked.
    pub(super) fn past_its_time(&self, pod: &PodFacts) -> Plan {
        if let Some(asks) = self.ask(pod) {
            return asks;
        }
        let (started, time) = self.its_time(pod).unwrap_or((self.now, SignedDuration::ZERO));
        if self.progress_of(ProgressStage::Saving).is_some() {
            return self.finalizing(pod, started.checked_add(time).unwrap_or(self.now), None);
        }
        // It says nothing of an end, and would have had time for it.
        let at_the_longest = time.saturating_add(self.longest_staging());
        self.overdue(pod, started, at_the_longest).unwrap_or_else(|| Plan::after(ASK_AGAIN))
    }

    /// The helper was to give up what the command waits for, as was told, and does not answer. None: it has time, or
    /// answers.
    pub(super) fn staging_hangs(&self, pod: &PodFacts, told: &Waiting) -> Option<Plan> {
        let (since, time) = time_of(told)?;
        if self.until_overdue(pod, since, time).is_some() {
            return None;
        }
        if let Some(asks) = self.ask(pod) {
            return Some(asks);
        }
        if self.answer().is_some() { None } else { self.overdue(pod, since, time) }
    }

    /// How long until then.
    pub(super) fn until_staging_hangs(&self, pod: &PodFacts, told: &Waiting) -> Option<Duration> {
        let (since, time) = time_of(told)?;
        self.until_overdue(pod, since, time)
    }

    /// How long after its container the command may have begun: that waits for what the command goes on from.
    fn longest_staging(&self) -> SignedDuration {
        let spec = &self.run.spec;
        if spec.inputs.is_empty() && !spec.retry.resume {
            return SignedDuration::ZERO;
        }
        SignedDuration::try_from(self.settings.staging_deadline).unwrap_or(SignedDuration::MAX)
    }

    /// When the command began at the earliest, and how long it has, by its time limit and its grace; none: it has all time.
    fn its_time(&self, pod: &PodFacts) -> Option<(Timestamp, SignedDuration)> {
        let limit = parse_seconds(self.run.spec.time_limit.as_deref()?).ok()?;
        let time = SignedDuration::try_from(Duration::from_secs(limit).saturating_add(self.stop_grace())).ok()?;
        let started = pod.run_started_at()?.0;
        // By a node's clock that is ahead it is yet to start.
        let started = if started > self.now { self.was_in(&[Phase::Running, Phase::Finalizing]) } else { started };
        Some((started, time.checked_add(KILL_PATIENCE)?))
    }

    /// The run container ended at `since`, or had to within `time` of it, and the helper has not in all the time that the
    /// kubelet gives it: it hangs, and does not answer either. None: it has time.
    pub(super) fn overdue(&self, pod: &PodFacts, since: Timestamp, time: SignedDuration) -> Option<Plan> {
        pod.spec.termination_grace_period_seconds?;
        self.until_overdue(pod, since, time).is_none().then(|| self.end_hung(pod, None))
    }

    /// How long until then; none: it is, or the pod does not say how long it has.
    pub(super) fn until_overdue(&self, pod: &PodFacts, since: Timestamp, time: SignedDuration) -> Option<Duration> {
        let grace = SignedDuration::from_secs(pod.spec.termination_grace_period_seconds?);
        self.due(since, time.saturating_add(grace).saturating_add(SLACK))
    }

    /// The pod is deleted although it will not go: the node shall end it as soon as it can, and tell that it is no more of
    /// use. That goes first: once the end is recorded, nobody looks at this pod again.
    pub(super) fn end_hung(&self, pod: &PodFacts, message: Option<&Message>) -> Plan {
        let outcome = outcome::decide(&self.ending(pod, message, true));
        // Nobody but the helper may speak at that port once the run container has ended. Before, a success needs the
        // kubelet's word.
        let by_the_port = self.told_by_the_helper_itself().is_some();
        let run_ended = pod.run().is_some_and(|c| c.state.terminated.is_some());
        let outcome = if by_the_port && !run_ended && outcome.verdict() == Verdict::Succeeded {
            Outcome::node_hung(message.and_then(|message| message.report.record.as_ref()))
        } else {
            outcome
        };
        let mut plan = self.end_as_told(Some(pod), message, &outcome);
        if !pod.is_deleting() {
            plan.steps.insert(0, Step::delete(pod));
        }
        plan
    }
}

/// Since when a run waits, and for how long at most.
fn time_of(wait: &Waiting) -> Option<(Timestamp, SignedDuration)> {
    let (since, deadline) = (wait.since.as_ref()?.0, wait.deadline.as_ref()?.0);
    Some((since, deadline.duration_since(since).max(SignedDuration::ZERO)))
}
