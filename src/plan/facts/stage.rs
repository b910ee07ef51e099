//! Where a pod stands on its way: all that decides whether a change of a pod is worth a plan.

use super::pod::{ContainerFacts, PodFacts};
use crate::contract::{Message, MissingRecord};
use crate::names;
use crate::plan::words::message::{Meaning, Source, meaning};
use crate::plan::words::wait_reason::{Deadline, Reason, Wait, WaitStage};

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

impl PodFacts {
    /// Where the pod stands on its way.
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
        if self.is_hung() {
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
            if let Some(gate) = self.spec.scheduling_gates.first() {
                return Stage::Waiting(Reason::Queued.wait(&gate.name));
            }
            return match self.condition("PodScheduled") {
                // The condition stays until the scheduler has looked.
                Some(c) if c.reason.as_deref() == Some(Reason::Queued.name()) => Stage::Starting,
                Some(c) if c.status == "False" => {
                    let message = c.message.as_deref().unwrap_or_default();
                    if meaning(Source::Scheduler, message) == Some(Meaning::ClaimIsMissing) {
                        return Stage::Waiting(Reason::ClaimMissing.wait(of_the_claim(message)));
                    }
                    let reason = c.reason.as_deref().unwrap_or(Reason::Unschedulable.name());
                    Stage::Waiting(Wait { reason, ..Reason::Unschedulable.wait(message) })
                }
                _ => Stage::Starting,
            };
        }
        [self.helper(), self.run()]
            .into_iter()
            .flatten()
            .find_map(|container| {
                let (reason, message) = container.awaits()?;
                let wait = awaited_by(&container.name, reason, message)?;
                let of_an_input = container.name == names::RUN_CONTAINER && self.mounts_what_is_named_in(message);
                Some(Stage::Waiting(if of_an_input { Reason::InputNotMounted.wait(message) } else { wait }))
            })
            .or_else(|| self.others().find_map(of_others))
            .unwrap_or(Stage::Starting)
    }

    /// An input that the node mounts is what the message is about: of image volumes that cannot be pulled the kubelet speaks
    /// as of images, and of one that cannot be mounted the runtime does not say which it is.
    fn mounts_what_is_named_in(&self, message: &str) -> bool {
        let fails = || meaning(Source::Runtime, message) == Some(Meaning::ImageVolumeFails);
        let inputs = self.pins().inputs;
        inputs.values().any(|pin| pin.mountable && (message.contains(&pin.reference) || fails()))
    }

    /// The command runs, and the helper has something to report.
    #[must_use]
    pub fn has_news(&self) -> bool {
        let helper = self.helper().filter(|helper| helper.state.running.is_some());
        helper.is_some_and(|helper| helper.ready == Some(false)) && self.stage() == Stage::Running
    }

    /// The helper has reported that the runner is gone and something of the run could not be killed, or that the runner died,
    /// while its container has not ended. The run container can write what the report is made of, so that only what lasts is
    /// to be believed.
    #[must_use]
    pub fn is_hung(&self) -> bool {
        let runs = self.run().is_some_and(|run| run.state.running.is_some());
        let reported = || self.helper_ended().filter(|ended| ended.exit_code == 0).and_then(|_| self.message());
        let Some(Message { report, .. }) = runs.then(reported).flatten() else { return false };
        match (&report.record, report.missing) {
            (Some(record), _) => record.unkillable,
            (None, Some(MissingRecord::RunnerDied | MissingRecord::Unreadable)) => true,
            (None, Some(MissingRecord::NeverStarted) | None) => false,
        }
    }
}

impl ContainerFacts {
    /// Reason and message of its waiting; none: it does not wait.
    fn awaits(&self) -> Option<(&str, &str)> {
        let waiting = self.state.waiting.as_ref()?;
        // Its own words are better than the kubelet's: that it backs off.
        let message = self.last_words().or(waiting.message.as_deref());
        Some((waiting.reason.as_deref().unwrap_or_default(), message.unwrap_or_default()))
    }

    /// What its container before this one said when it failed.
    fn last_words(&self) -> Option<&str> {
        self.last_state.terminated.as_ref()?.message.as_deref().filter(|words| Message::decode(words).is_none())
    }
}

/// `persistentvolumeclaim "x" not found`: what the scheduler says before and after that is how it looked for nodes.
fn of_the_claim(message: &str) -> &str {
    const END: &str = "not found";
    let words = message.find("persistentvolumeclaim \"").and_then(|begin| message.get(begin..));
    words.and_then(|words| words.get(..words.find(END)? + END.len())).unwrap_or(message)
}

/// A container that something else has put into the pod, which has to start before the command does. Its kubelet's message
/// names the image.
fn of_others(container: &ContainerFacts) -> Option<Stage<'_>> {
    let (reason, message) = container.awaits()?;
    Reason::of_the_kubelet(reason, message)?;
    let (stage, deadline) = (WaitStage::Starting, Deadline::Starting);
    Some(Stage::Waiting(Wait { stage, deadline, reason, message, to_do: OF_ANOTHER }))
}

/// What to do about a container that is somebody else's.
const OF_ANOTHER: &str = "tell the administrator: it is about a container that something else has put into the pod, such as \
    a service mesh, and that has to start before the command does";

/// What to do about a container that is the platform's.
const OF_THE_HELPER: &str =
    "tell the administrator if it stays: it is the operator's own container that does not start";

/// What a container waits for, by what the kubelet says while it retries; `None`: it makes progress as usual
/// (`ContainerCreating`, `PodInitializing`).
fn awaited_by<'a>(container: &str, reason: &'a str, message: &'a str) -> Option<Wait<'a>> {
    let wait = Wait { reason, ..Reason::of_the_kubelet(reason, message)?.wait(message) };
    if container != names::HELPER_CONTAINER {
        return Some(wait);
    }
    let stage = wait.stage.of_the_helper()?;
    // Whatever is wrong with it, it is the platform's, which mends it or does not.
    let deadline = if wait.deadline == Deadline::None { Deadline::None } else { stage.deadline() };
    Some(Wait { stage, deadline, to_do: OF_THE_HELPER, ..wait })
}
