//! An attempt that has no pod: it is made, if the spec can be run and nothing is in the way.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::SignedDuration;

use super::pin::{self, Unready};
use super::{Decision, RETRY_AFTER, release_last, until};
use crate::api::status::Attempt;
use crate::contract::Pin;
use crate::plan::facts::image;
use crate::plan::outcome::Outcome;
use crate::plan::pod::{self, affinity};
use crate::plan::steps::{Plan, Step};
use crate::plan::validate;
use crate::plan::words::cause::Cause;
use crate::plan::words::wait_reason::{Reason, WaitStage};

/// A new pod that has not been heard of since is looked at after this: its first sight triggers no plan.
const LOOK_AFTER_CREATE: Duration = Duration::from_secs(10);
/// A run that settings do not allow any more is looked at again after this: an operator that starts with others looks at all.
const SETTINGS_RETRY: Duration = Duration::from_mins(1);
/// The service account of a pod that names none.
const DEFAULT_ACCOUNT: &str = "default";

impl Decision<'_> {
    /// There is no pod and never was: make it, if the spec can be run.
    pub(super) fn create(&self) -> Plan {
        if let Some(plan) = self.of_another_version() {
            return plan;
        }
        if let Some(left) = self.retry_in() {
            // A node that is being drained does not wait for that.
            return Plan::after(left).then(release_last(self.run, self.attempt));
        }
        let pinned = match validate::validate(self.run, self.settings) {
            Ok(request) => self.pins().map(|pins| (request, pins)),
            // It may be valid for who made the definition.
            Err(problems) if self.skew.differs => return self.not_valid_here(&problems),
            // It was valid when it was first looked at, and its spec cannot change: a setting did.
            Err(problems) if self.was_valid() => {
                return self.not_admitted(Reason::SettingsChanged, &problems.join("; "), SETTINGS_RETRY);
            }
            // Stored under rules that let more through than ours, or asking for what no setting has.
            Err(problems) => Err(Unready::Ends(Outcome::new(Cause::InvalidSpec, problems.join("; ")))),
        };
        match pinned {
            Ok((request, pins)) => {
                let image = image::image_to_pull(self.requested, self.status(), self.attempt);
                let digests = pin::digests(self.run);
                let attempt = pod::Attempt {
                    number: self.attempt,
                    requested: self.requested,
                    image: &image,
                    pins: &pins,
                    digests: &digests,
                    account_pull_secrets: self.pull_secrets.unwrap_or_default(),
                    follows_command: self.follows_command(),
                };
                if self.pull_secrets.is_none() && pod::needs_pull_secrets_of_account(&request, &attempt, self.settings)
                {
                    let account = request.service_account_name.unwrap_or_else(|| DEFAULT_ACCOUNT.to_owned());
                    return Plan::nothing().then(Step::AskPullSecrets { namespace: request.namespace, account });
                }
                let pod = affinity::rather_elsewhere(pod::build(&request, &attempt, self.settings), self.status());
                Plan::after(LOOK_AFTER_CREATE)
                    .then(release_last(self.run, self.attempt))
                    .then(Step::CreatePod(Box::new(pod)))
            }
            Err(Unready::Waits(reason, message)) => self.inputs_missing(reason.wait(&message)),
            Err(Unready::Ends(outcome)) => {
                let mut plan = self.end(None, &outcome);
                plan.steps.extend(release_last(self.run, self.attempt));
                plan
            }
        }
    }

    /// It had a pod, or waited for something that is looked at after its spec.
    fn was_valid(&self) -> bool {
        let before = [Reason::PreviousPod, Reason::PodNameTaken, Reason::Suspended].map(Reason::name);
        let is_after = |reason: &str| !before.contains(&reason);
        let waiting = self.status().and_then(|status| status.waiting.as_ref()?.reason.as_deref());
        let waited = waiting.is_some_and(is_after) && self.known(WaitStage::Version).is_none();
        self.attempt > 1 || self.entry(self.attempt).is_some() || waited
    }

    /// Whether the command began in an attempt before.
    pub(super) fn follows_command(&self) -> bool {
        let entries = self.status().map_or(&[][..], |status| &status.attempts);
        entries.iter().any(|entry| entry.attempt < self.attempt && entry.start_time.is_some())
    }

    pub(super) fn pins(&self) -> Result<BTreeMap<usize, Pin>, Unready> {
        let namespace = self.run.metadata.namespace.as_deref().unwrap_or_default();
        let store = self.settings.store.as_ref().map(|store| store.repository(namespace));
        let mut pins = pin::pin(self.run, self.parents, store.as_deref())?;
        // The pod may get to any node. Where they are not known, it is copied, which any node can.
        if self.capacity.is_none_or(|nodes| nodes.lacks_image_volumes) {
            for pin in pins.values_mut() {
                pin.mountable = false;
            }
        }
        Ok(pins)
    }

    /// How long this attempt has to wait because the last one failed, or did not even start its command, or because its own
    /// pod went before it had a node.
    fn retry_in(&self) -> Option<Duration> {
        if let Some(due) = self.known(WaitStage::Retry).and_then(|waiting| waiting.deadline.as_ref()) {
            return (due.0 > self.now).then(|| until(self.now, due.0));
        }
        let cause = |a: &Attempt| Some(Cause::named(a.cause.as_deref()?)?.0);
        let never_began = |a: &Attempt| {
            let cause = cause(a);
            let is_before_it = a.start_time.is_none() || cause.is_some_and(Cause::is_before_the_command);
            is_before_it && cause != Some(Cause::Suspended)
        };
        let last = || self.entry(self.attempt.checked_sub(1)?).filter(|last| never_began(last));
        let last = self.entry(self.attempt).filter(|last| never_began(last)).or_else(last)?;
        let wait = RETRY_AFTER.saturating_mul(1 << (last.attempt - 1).min(6));
        self.due(last.finish_time.as_ref()?.0, SignedDuration::try_from(wait).ok()?)
    }
}
