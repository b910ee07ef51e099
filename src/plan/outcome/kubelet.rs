//! What the kubelet says of the end of a pod.

use super::{Ending, Outcome, ending_words};
use crate::plan::facts::pod::PodFacts;
use crate::plan::words::cause::Cause;
use crate::plan::words::message::{Meaning, Source, meaning};

pub(super) fn refused_or_evicted_by_the_kubelet(ending: &Ending) -> Option<Outcome> {
    told_by_the_kubelet(ending.pod)
}

/// `Evicted`, `UnexpectedAdmissionError`, `OutOfcpu`, `NodeAffinity`, `Terminated` (node shutdown), `Preempting`...:
/// the kubelet ended the pod or never took it.
fn told_by_the_kubelet(pod: &PodFacts) -> Option<Outcome> {
    let reason = pod.status.reason.as_deref().filter(|r| !r.is_empty())?;
    let message = pod.status.message.clone().unwrap_or_default();
    let limit = match meaning(Source::Eviction, &message).filter(|_| reason == "Evicted") {
        Some(Meaning::EmptyDirIsFull) => Some(Cause::EmptyDirLimitExceeded),
        Some(Meaning::EphemeralStorageIsUsedUp) => Some(Cause::EphemeralStorageLimitExceeded),
        _ => None,
    };
    Some(match limit {
        Some(limit) => Outcome::new(limit, message),
        None => Outcome::told_by_kubernetes(Cause::of_kubernetes(reason), reason, message),
    })
}

/// The container runtime did not start the entry: the image and the request do not fit together, or the node is not in
/// order. Where nobody knows, it is the node's: the entry is not the user's.
pub(super) fn container_could_not_start(ending: &Ending) -> Option<Outcome> {
    let ended =
        ending.run_ended().filter(|t| matches!(t.reason.as_deref(), Some("StartError" | "ContainerCannotRun")))?;
    let message = ended.message.clone().unwrap_or_default();
    let cause = match meaning(Source::Runtime, &message) {
        Some(Meaning::CudaIsTooNew) => Cause::CudaTooNew,
        Some(Meaning::GpuIsUnavailable) => Cause::GpuUnavailable,
        Some(Meaning::MemoryIsTooSmall) => Cause::OutOfMemory,
        Some(Meaning::ImageDoesNotFit | Meaning::UserIsUnknown) => Cause::ContainerCannotStart,
        _ => Cause::NeverStarted,
    };
    Some(Outcome::new(cause, message))
}

/// The whole container was killed, the runner with it.
pub(super) fn out_of_memory_says_the_kubelet(ending: &Ending) -> Option<Outcome> {
    (ending.run_ended()?.reason.as_deref() == Some("OOMKilled")).then(|| {
        let message = "the kernel killed the whole container because resources.memory was used up";
        Outcome::new(Cause::OutOfMemory, message)
    })
}

pub(super) fn deleted(ending: &Ending) -> Option<Outcome> {
    ending.pod.is_deleting().then(|| why_asked(ending))
}

/// The kubelet's own evictions and shutdowns leave a reason; API evictions, preemptions and drains a condition; a plain
/// deletion neither. What the user asked for by `stop` or `suspend` is told as that, whoever passed it on.
pub(super) fn why_asked(ending: &Ending) -> Outcome {
    let pod = ending.pod;
    if let Some(outcome) = told_by_the_kubelet(pod) {
        return outcome;
    }
    if let Some(disruption) = pod.disruption() {
        let reason = disruption.reason.as_deref().filter(|r| !r.is_empty()).unwrap_or(Cause::Disrupted.name());
        let message = disruption.message.clone().unwrap_or_default();
        return Outcome::told_by_kubernetes(Cause::of_kubernetes(reason), reason, message);
    }
    if pod.is_deleted_by_force() {
        let saved = ending.message.is_some_and(|message| message.report.saved.is_some());
        let what_it_left = if saved { "is saved" } else { "could not be saved" };
        // The kubelet gives it two seconds all the same.
        let how = ending.record().map_or_else(|| "was killed".to_owned(), ending_words);
        let message = format!(
            "the pod was deleted by force, without any grace: the command {how}, and what it left {what_it_left}"
        );
        return Outcome::new(Cause::PodDeleted, message);
    }
    if let Some(wish) = ending.wish {
        return Outcome::wished(wish, ending);
    }
    Outcome::of(if pod.is_deleting() { Cause::PodDeleted } else { Cause::AskedToStop })
}
