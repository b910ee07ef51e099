//! The node of a pod does not answer, or does not confirm that the pod has ended: what is told, and when the attempt is
//! given up.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{Decision, until};
use crate::api::Phase;
use crate::plan::facts::node::NodeSeen;
use crate::plan::facts::pod::PodFacts;
use crate::plan::facts::stage::Stage;
use crate::plan::outcome::Outcome;
use crate::plan::status::POD_HAS_TO_END;
use crate::plan::steps::{EventType, Plan, Step};
use crate::plan::words::cause::Cause;
use crate::plan::words::wait_reason::Reason;

/// A pod that is still there so long after its grace does not end.
const HELD_UP_AFTER: SignedDuration = SignedDuration::from_secs(60);

impl Decision<'_> {
    /// The kubelet has not been heard of: whatever the pod looks like, nobody knows what it does. The next attempt has to
    /// wait until somebody vouches that this one has ended: the kubelet when it is back, or who declares the node out of
    /// service or deletes its object (Kubernetes then fails the pod); or until the administrator's deadline.
    pub(super) fn silent(&self, pod: &PodFacts, stage: &Stage) -> Option<Plan> {
        let NodeSeen::Silent(since) = self.node else { return None };
        let node = pod.spec.node_name.as_deref()?;
        let deadline = self.settings.node_lost_after.and_then(|after| since.checked_add(after).ok());
        if deadline.is_some_and(|deadline| deadline <= self.now) {
            return Some(self.give_up_node(pod, node, since));
        }
        let left = deadline.map(|deadline| until(self.now, deadline));
        if *stage == Stage::Deleting && self.was_given_up(pod) {
            return Some(self.given_up_and_held_up(pod).or_after(left));
        }
        let known = self.told(Reason::NodeNotResponding);
        if known.is_some_and(|known| known.deadline.as_ref().map(|t| t.0) == deadline) {
            return Some(Plan::nothing_until(left));
        }
        let message = format!(
            "node {node} has not answered since {since}: the command may still run there; the run goes on when the node \
             is back, when it is declared out of service (taint node.kubernetes.io/out-of-service), or when its Node \
             object is deleted"
        );
        let wait = Reason::NodeNotResponding.wait(&message);
        let phase = match stage {
            Stage::Deleting | Stage::Finalizing | Stage::Hung => Phase::Finalizing,
            Stage::Running => Phase::Running,
            _ => Phase::Pending,
        };
        let plan = Plan::nothing_until(left).write(self.draft().waiting(phase, self.attempt, &wait, deadline));
        let is_news = known.is_none();
        Some(if is_news { plan.event(EventType::Warning, wait.reason, wait.message) } else { plan })
    }

    /// The attempt is over for the run, whether or not it has ended on the node. The pod is deleted, so that the kubelet
    /// ends it should it come back; nothing that it says then is looked at.
    fn give_up_node(&self, pod: &PodFacts, node: &str, since: Timestamp) -> Plan {
        let message = format!(
            "node {node} has not answered since {since}, and the attempt was given up; its command may still run there"
        );
        let mut plan = self.end_as_told(Some(pod), None, &Outcome::new(Cause::NodeLost, message));
        if !pod.is_deleting() {
            plan.steps.insert(0, Step::delete(pod));
        }
        plan
    }

    /// The pod was to end, and has not, long after its grace: its containers may run on.
    pub(super) fn held_up(&self, pod: &PodFacts) -> Option<Plan> {
        if self.until_held_up(pod).is_some() {
            return None;
        }
        let (reason, message) = self.not_confirmed(pod)?;
        if self.told(reason).is_some() {
            return Some(Plan::nothing());
        }
        let wait = reason.wait(&message);
        let draft = self.draft().waiting(Phase::Finalizing, self.attempt, &wait, None);
        Some(Plan::nothing().write(draft).event(EventType::Warning, wait.reason, wait.message))
    }

    /// The same of a pod that was given up before its command had started. What it waited for stays on the object: it
    /// decides about the ending.
    pub(super) fn given_up_and_held_up(&self, pod: &PodFacts) -> Plan {
        if let Some(left) = self.until_held_up(pod) {
            return Plan::after(left);
        }
        let is_told = self.status().and_then(|s| s.waiting.as_ref()?.until.as_deref()) == Some(POD_HAS_TO_END);
        let Some((reason, message)) = self.not_confirmed(pod).filter(|_| !is_told) else { return Plan::nothing() };
        let wait = reason.wait(&message);
        let draft = self.draft().given_up_and_held_up(&message, wait.hint());
        Plan::nothing().write(draft).event(EventType::Warning, wait.reason, wait.message)
    }

    /// Who does not confirm that a deleted pod has ended; none: it has no node.
    fn not_confirmed(&self, pod: &PodFacts) -> Option<(Reason, String)> {
        let ends = pod.metadata.deletion_timestamp.as_ref()?.0;
        let node = pod.spec.node_name.as_deref()?;
        let by_force = if pod.is_deleted_by_force() { "was deleted by force and " } else { "" };
        let may_be_left = if pod.run_started_at().is_some() {
            "the command may still run there"
        } else {
            "a container of it may still be there"
        };
        Some(match self.node {
            NodeSeen::Answers => (
                Reason::PodNotEnding,
                format!(
                    "the pod {by_force}was to end by {ends}, and node {node}, which answers, has not confirmed it: \
                     something of it may hang there"
                ),
            ),
            _ => (
                Reason::NodeNotResponding,
                format!(
                    "the pod {by_force}was to end by {ends}, and node {node} has not confirmed it: {may_be_left}; \
                     the run goes on when the node is back or its Node object is deleted"
                ),
            ),
        })
    }

    /// How long until a pod that was deleted counts as held up by its node; none: it does, or is not being deleted.
    pub(super) fn until_held_up(&self, pod: &PodFacts) -> Option<Duration> {
        let at = pod.metadata.deletion_timestamp.as_ref()?.0.checked_add(HELD_UP_AFTER).ok()?;
        (at > self.now).then(|| until(self.now, at))
    }
}
