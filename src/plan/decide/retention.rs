//! For how long what is over is kept: the pods of attempts, and the run itself. The times are on the object, so nothing is
//! written for it, and an operator that starts goes on from there.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::until;
use crate::api::{BundleRun, BundleRunStatus, Phase};
use crate::plan::facts::pod::{PodFacts, PodSeen};
use crate::plan::facts::settings::Settings;
use crate::plan::facts::stage::Stage;
use crate::plan::status::current_pod;
use crate::plan::steps::{Observed, Plan, PodRef, Step};
use crate::plan::validate;
use crate::plan::words::condition::ConditionType;

/// A clock is set back by less than this, if it is.
const CLOCK_SET_BACK: SignedDuration = SignedDuration::from_hours(1);

/// The run has been over for as long as it is to be kept.
pub(super) fn is_past(observed: &Observed, now: Timestamp) -> bool {
    let status = observed.run.status.as_ref();
    status.and_then(|status| Over::of(status, observed, now).left_of_run()) == Some(Duration::ZERO)
}

/// The plan, with what becomes of all that is over when it is carried out.
pub(super) fn kept(mut plan: Plan, observed: &Observed, settings: &Settings, now: Timestamp) -> Plan {
    let run = observed.run;
    let written = plan.steps.iter().find_map(|step| match step {
        Step::WriteStatus(status) => Some(status.clone()),
        _ => None,
    });
    let Some(status) = written.as_deref().or(run.status.as_ref()) else { return plan };
    let over = Over::of(status, observed, now);
    let keep = validate::pod_retention(run, settings);
    let current = match observed.pod {
        PodSeen::Ours(pod) => Some((current_pod(run).0, pod)),
        PodSeen::Absent | PodSeen::Foreign(_) => None,
    };
    let earlier = observed.earlier.iter().map(|(attempt, pod)| (*attempt, &**pod));
    let ended = earlier.chain(current).filter(|(_, pod)| pod.stage() == Stage::Ended && !pod.is_deleting());
    for (attempt, pod) in ended {
        plan = match over.left_of_pod(attempt, keep) {
            Some(Duration::ZERO) => delete(plan, pod),
            left => plan.or_after(left),
        };
    }
    plan.or_after(over.left_of_run())
}

/// The record of its attempt is written: it is let go if it is not yet, and deleted.
fn delete(plan: Plan, pod: &PodFacts) -> Plan {
    let this = PodRef::of(pod);
    let is_let_go = !pod.is_held() || plan.steps.contains(&Step::RemoveFinalizer(this.clone()));
    let is_deleted = plan.steps.iter().any(|step| matches!(step, Step::DeletePod { pod, .. } if *pod == this));
    plan.then((!is_let_go).then_some(Step::RemoveFinalizer(this))).then((!is_deleted).then(|| Step::delete(pod)))
}

/// What of a run is over, and since when.
struct Over<'a> {
    run: &'a BundleRun,
    status: &'a BundleRunStatus,
    /// None: the run is not over.
    since: Option<Timestamp>,
    now: Timestamp,
}

impl<'a> Over<'a> {
    /// A run is over when its end was recorded: that may be long after the end of its command, and is by the clock of an
    /// operator. A time that is far ahead of ours was written by another one, before this began to act; one that is a little
    /// ahead may be our own, from before our clock was set back.
    fn of(status: &'a BundleRunStatus, observed: &Observed<'a>, now: Timestamp) -> Self {
        let finished = status.conditions.iter().find(|condition| condition.type_ == ConditionType::Finished.name());
        // Objects of earlier versions have no such condition.
        let recorded = finished.map(|condition| &condition.last_transition_time).or(status.finish_time.as_ref());
        let since = recorded.filter(|_| status.phase.is_some_and(Phase::is_terminal)).map(|time| time.0);
        let is_far_ahead = |since: Timestamp| since.duration_since(now) > CLOCK_SET_BACK;
        let since = since.map(|since| if is_far_ahead(since) { observed.acting_since } else { since });
        Self { run: observed.run, status, since, now }
    }

    /// How long until the run itself is deleted; none: it is not over, or is kept.
    fn left_of_run(&self) -> Option<Duration> {
        let ttl = self.run.spec.ttl_seconds_after_finished?;
        Some(self.left(self.since?, Duration::from_secs(ttl.into())))
    }

    /// How long until the pod of an attempt is deleted; none: it is not over.
    fn left_of_pod(&self, attempt: u32, keep: Duration) -> Option<Duration> {
        if attempt >= self.status.attempt.unwrap_or(1) {
            return Some(self.left(self.since?, keep));
        }
        let known = self.status.attempts.iter().find(|known| known.attempt == attempt);
        // The oldest are not on the object any more: a run that is tried again and again leaves no more pods than that.
        let Some(finish) = known.and_then(|known| known.finish_time.as_ref()) else { return Some(Duration::ZERO) };
        // By the clock of a node, which may be ahead.
        let since = self.since.map_or(finish.0, |over| over.min(finish.0));
        Some(self.left(since, keep))
    }

    fn left(&self, since: Timestamp, keep: Duration) -> Duration {
        let due = SignedDuration::try_from(keep).ok().and_then(|keep| since.checked_add(keep).ok());
        until(self.now, due.unwrap_or(Timestamp::MAX))
    }
}
