//! What Kubernetes says of a pod that it prepares on a node: of volumes and networks that are not to be had only events
//! tell.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::plan::words::wait_reason::Reason;

/// An event about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEvent {
    /// Such as `FailedMount`.
    pub reason: String,
    /// For people.
    pub note: String,
    /// When it was last repeated.
    pub seen: Option<Timestamp>,
}

/// The kubelet repeats what lasts every two minutes, and tells of it every five at least.
const FRESH: SignedDuration = SignedDuration::from_mins(10);

/// What the kubelet says when it has nothing to add to the volume's own event.
const IN_GENERAL: &str = "Unable to attach or mount volumes";

/// Why the pod is not prepared, by the newest event that says it, and the reason to wait that it is.
pub(in crate::plan) fn obstacle(events: &[PodEvent], now: Timestamp) -> Option<(Reason, &PodEvent)> {
    let fresh = events.iter().filter(|event| event.seen.is_none_or(|seen| now.duration_since(seen) < FRESH));
    let told = fresh.filter_map(|event| Some((Reason::of_an_event(&event.reason)?, event)));
    told.max_by_key(|(_, event)| (!event.note.starts_with(IN_GENERAL), event.seen))
}
