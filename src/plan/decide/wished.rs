//! Ends that the user asks for, and what a suspended run does meanwhile: nothing.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{Decision, release_last};
use crate::contract::PodOrder;
use crate::plan::facts::pod::{PodFacts, StopOrder};
use crate::plan::facts::stage::Stage;
use crate::plan::facts::wish::Wish;
use crate::plan::steps::{Plan, PodRef, Step};
use crate::plan::words::wait_reason::WaitStage;

/// A helper that was ordered to stop has passed that on, and the command has ended, within its grace and this.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// A pod that could not be changed for so long is deleted. What its helper is told in time leaves all time for saving, so that a
/// webhook that starts anew, or a role that is not known yet, is waited for.
const ORDER_PATIENCE: SignedDuration = SignedDuration::from_mins(1);

impl Decision<'_> {
    /// A command that runs is told through its helper, so that its output has all the time that others have; a pod whose
    /// command does not run yet, whose helper does not pass it on, or that the API server does not let be changed, is
    /// deleted some time later.
    pub(super) fn end_as_wished(&self, pod: &PodFacts, stage: &Stage<'_>, wish: Wish) -> Plan {
        // On the record first: the field may be taken back before the pod has ended.
        let told = Plan::nothing().write(self.draft().ending(wish));
        let runs = matches!(stage, Stage::Staging | Stage::Running);
        let patience = SignedDuration::try_from(self.stop_grace().saturating_add(STOP_PATIENCE)).ok();
        let left = match pod.stop_order() {
            StopOrder::NotGiven if runs && self.pod_is_kept => {
                let asked = self.wished_at(wish).unwrap_or(self.now);
                self.due(asked, ORDER_PATIENCE)
            }
            StopOrder::NotGiven if runs => {
                let order = PodOrder { at: self.now, is_followed: wish == Wish::Suspend };
                return told.then(Step::OrderStop { pod: PodRef::of(pod), order });
            }
            StopOrder::Given(order) if runs && order.is_followed && wish == Wish::Stop => {
                let order = PodOrder { is_followed: false, ..order };
                return told.then(Step::OrderStop { pod: PodRef::of(pod), order });
            }
            StopOrder::Given(order) if runs => patience.and_then(|patience| self.due(order.at, patience)),
            _ => None,
        };
        match left {
            Some(_) => Plan { next: left, ..told },
            None => told.then(Step::delete(pod)),
        }
    }

    /// When it was first seen; none: it has just been.
    fn wished_at(&self, wish: Wish) -> Option<Timestamp> {
        let status = self.status()?;
        let at = match wish {
            Wish::Stop => &status.stop_requested_at,
            Wish::Suspend => &status.suspended_at,
        };
        at.as_ref().map(|time| time.0)
    }

    /// There is no pod, and there is to be none.
    pub(super) fn suspended(&self) -> Plan {
        // First: once the wait is written, nobody looks at that pod again before the run goes on.
        let is_told = self.known(WaitStage::Suspended).is_some();
        let release = release_last(self.run, self.attempt).filter(|_| !is_told);
        let draft = self.draft().with_image(self.requested).suspended(self.attempt);
        Plan::nothing().then(release).write(draft)
    }

    /// `suspend` was taken back.
    pub(super) fn go_on(&self) -> Plan {
        Plan::after(Duration::ZERO).write(self.draft().going_on(self.attempt))
    }

    /// How many of the attempts before this one were ended by `suspend`.
    pub(super) fn suspensions(&self) -> u32 {
        self.status().and_then(|s| s.suspensions).unwrap_or_default()
    }
}
