//! What lasts is told again and again, with how far it is.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::Decision;
use crate::api::Phase;
use crate::contract::{
    InputTrouble, NotSaved, Progress, ProgressStage, StoreTrouble, Warning, WarningKind, size_for_people,
    time_for_people,
};
use crate::plan::facts::pod::PodFacts;
use crate::plan::status::{Doubt, began_empty};
use crate::plan::steps::{EventType, Plan, ProgressSeen, Step};
use crate::plan::words::condition::{self, ConditionType};
use crate::plan::words::wait_reason::{Reason, WaitStage};

/// Staging and saving are written when they last longer than this,
const WRITE_AFTER: SignedDuration = SignedDuration::from_secs(10);
/// and then this often (design: budgets).
const AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(30);
/// A helper that has told something is asked again after this: there may be more.
const NEWS_AGAIN_AFTER: Duration = Duration::from_mins(1);
/// The reason of the event that an attempt found no snapshot to go on from.
const NOT_RESUMED: &str = "NotResumed";
/// Deadlines that differ by less are one.
const SAME_DEADLINE: SignedDuration = SignedDuration::from_secs(60);
/// A helper whose store refuses the output is asked again after this.
const HELD_AGAIN_AFTER: Duration = Duration::from_secs(10);

impl Decision<'_> {
    /// The container is there and waits for its inputs.
    pub(super) fn staging(&self, pod: &PodFacts) -> Plan {
        let since = pod.run_started_at().map_or(self.now, |t| t.0);
        let wait = self.known(WaitStage::Staging);
        let told = wait.is_some();
        let moves = pod.pins().repository.is_some() || pod.run().is_some_and(|c| c.started == Some(false));
        // One that can be asked again and again is, in its turn.
        let is_asked = moves && pod.status.pod_ip.is_some();
        if let Some(wait) = wait.filter(|_| !is_asked || self.is_silent())
            && let Some(plan) = self.staging_hangs(pod, wait)
        {
            return plan;
        }
        let next = wait.and_then(|wait| self.until_staging_hangs(pod, wait));
        self.lasting(pod, since, told, moves, next, |this| {
            if told && this.is_silent() {
                return Plan::nothing();
            }
            if let Some(trouble) = this.store_trouble().filter(|trouble| trouble.holds) {
                return this.held_by_the_store(pod, trouble);
            }
            if let Some(trouble) = this.progress_of(ProgressStage::Staging).and_then(|progress| progress.input.as_ref())
            {
                return this.held_by_an_input(pod, trouble);
            }
            let message = match this.words(ProgressStage::Staging) {
                Some(words) => format!("the inputs are being put in place: {words}"),
                None => "the inputs are being put in place; the command starts when they are".to_owned(),
            };
            let wait = Reason::StagingInputs.wait(&message);
            let deadline = this.given_up_at(pod);
            Plan::nothing().write(this.draft_of(pod).waiting(Phase::Pending, this.attempt, &wait, deadline))
        })
    }

    /// When the helper gives up what the command waits for: as it says, or, of one that does not, by when at the latest.
    fn given_up_at(&self, pod: &PodFacts) -> Option<Timestamp> {
        let said = self.answer().and_then(|progress| progress.given_up_at_ms);
        let said = said.and_then(|ms| Timestamp::from_second(ms.div_euclid(1000)).ok());
        said.or_else(|| {
            let helper = pod.helper().and_then(|c| c.state.running.as_ref()?.started_at.as_ref());
            let begun = helper.or(pod.run_started_at()).map(|t| t.0);
            // A node's clock that is ahead gives it no more time.
            let since = || self.known(WaitStage::Staging).and_then(|wait| Some(wait.since.as_ref()?.0));
            let begun = begun.filter(|begun| *begun <= self.now).or_else(since).unwrap_or(self.now);
            begun.checked_add(self.settings.staging_deadline).ok()
        })
    }

    /// The helper has something to report of a run container that runs: it is asked, once until that changes.
    /// `next`: something else is due then.
    pub(super) fn with_news(&self, pod: &PodFacts, next: Option<Duration>) -> Plan {
        if self.progress == ProgressSeen::NotAsked {
            let asks = self.ask(pod);
            // Without an address it cannot be asked, which hides nothing of what the kubelet says.
            if asks.is_none() && self.phase() != Some(Phase::Running) {
                return self.tell_running(pod, next, &self.lasting_doubts(pod));
            }
            return asks.unwrap_or_else(|| Plan::nothing_until(next));
        }
        let wait = self.known(WaitStage::Staging);
        if self.is_silent() && (self.warns() || wait.is_some()) {
            let hangs = wait.and_then(|wait| self.staging_hangs(pod, wait));
            // What is due now is so only once the helper has said what the command does.
            let next = next.filter(|next| !next.is_zero());
            return hangs.unwrap_or_else(|| Plan::after(HELD_AGAIN_AFTER).or_after(next));
        }
        if let Some(trouble) = self.store_trouble().filter(|trouble| trouble.holds) {
            // Nothing of the pod changes when the command starts after all.
            return Plan { next: Some(HELD_AGAIN_AFTER), ..self.held_by_the_store(pod, trouble) };
        }
        let doubts = self.doubts(pod);
        // Whether there is news does not change when there is more of it.
        let next = if doubts.is_empty() { next } else { next.into_iter().chain([NEWS_AGAIN_AFTER]).min() };
        self.tell_running(pod, next, &doubts)
    }

    /// The command runs, and this is in doubt meanwhile: what is new is an event, too.
    pub(super) fn tell_running(&self, pod: &PodFacts, next: Option<Duration>, doubts: &[Doubt]) -> Plan {
        let resumed = self.answer().and_then(|progress| progress.resumed.clone());
        let begins_empty = resumed.as_ref().is_some_and(|resumed| resumed.from.is_none());
        let draft = self.draft().running(self.requested, self.attempt, pod, doubts);
        let mut plan = Plan::nothing_until(next).write(draft.resumed(self.attempt, resumed));
        if begins_empty && self.phase() != Some(Phase::Running) {
            plan = plan.event(EventType::Warning, NOT_RESUMED, &began_empty(self.attempt));
        }
        let is_new = |doubt: &&Doubt| !self.status().is_some_and(|status| doubt.is_told(status));
        let new = doubts.iter().filter(is_new);
        new.fold(plan, |plan, doubt| plan.event(EventType::Warning, &doubt.reason, &doubt.message))
    }

    /// What does not change while the command runs: snapshots that were asked for, and have no place to go.
    pub(super) fn lasting_doubts(&self, pod: &PodFacts) -> Vec<Doubt> {
        let spec = &self.run.spec;
        let snapshots = spec.outputs.snapshots.as_ref().and_then(|snapshots| snapshots.every.as_ref());
        let asked = [spec.retry.resume.then_some("retry.resume"), snapshots.map(|_| "outputs.snapshots")];
        let asked: Vec<_> = asked.into_iter().flatten().collect();
        if asked.is_empty() || pod.pins().repository.is_some() {
            return Vec::new();
        }
        let have = if asked.len() == 1 { "has" } else { "have" };
        let message = format!(
            "no store is configured: {} {have} no effect, because there are no snapshots, and the output goes with the pod",
            asked.join(" and ")
        );
        vec![Doubt { condition: ConditionType::OutputSaved, reason: condition::NO_STORE.to_owned(), message }]
    }

    /// What will go wrong, as things are while the command runs: of each condition the worst.
    fn doubts(&self, pod: &PodFacts) -> Vec<Doubt> {
        let mut doubts = self.lasting_doubts(pod);
        if let Some(StoreTrouble { not_saved: NotSaved { failure, detail }, .. }) = self.store_trouble() {
            let message = format!("the store did not accept an upload; the output is saved when it does: {detail}");
            doubts.push(Doubt { condition: ConditionType::OutputSaved, reason: format!("{failure:?}"), message });
        }
        let Some(progress) = self.progress_of(ProgressStage::Running) else { return doubts };
        let mut warnings = progress.warnings.clone();
        warnings.sort_by_key(|warning| warning.kind);
        // Of a helper that knows no other warning.
        let too_large = Warning { kind: WarningKind::OutputTooLarge, detail: progress.trouble.clone() };
        warnings.extend((!progress.trouble.is_empty()).then_some(too_large));
        for Warning { kind, detail } in warnings {
            let condition = match kind {
                WarningKind::OutputTooLarge | WarningKind::SaveDeadlineExceeded => ConditionType::OutputSaved,
                WarningKind::DiskNearlyFull => ConditionType::DiskNearlyFull,
            };
            if doubts.iter().all(|known| known.condition != condition) {
                doubts.push(Doubt { condition, reason: format!("{kind:?}"), message: detail });
            }
        }
        doubts
    }

    /// The store refuses the output, and the command does not start.
    fn held_by_the_store(&self, pod: &PodFacts, trouble: &StoreTrouble) -> Plan {
        let detail = &trouble.not_saved.detail;
        self.held(
            pod,
            Reason::StoreRefused,
            &format!("the store refuses the output, so the command does not start: {detail}"),
        )
    }

    /// An input cannot be had, and the command does not start.
    fn held_by_an_input(&self, pod: &PodFacts, InputTrouble { problem, detail }: &InputTrouble) -> Plan {
        self.held(pod, Reason::of_an_input(*problem), &format!("the command does not start without {detail}"))
    }

    fn held(&self, pod: &PodFacts, reason: Reason, message: &str) -> Plan {
        let wait = reason.wait(message);
        let deadline = self.given_up_at(pod);
        let known = self.known(WaitStage::Staging).filter(|known| known.reason.as_deref() == Some(wait.reason));
        // Told once: the words can differ each time, as with the number of a request in them. Another input that is waited
        // for has a deadline of its own.
        let is_same = |(told, now): (&Time, Timestamp)| now.duration_since(told.0).abs() <= SAME_DEADLINE;
        if known.is_some_and(|known| known.deadline.as_ref().zip(deadline).is_none_or(is_same)) {
            return Plan::nothing();
        }
        let plan = Plan::nothing().write(self.draft_of(pod).waiting(Phase::Pending, self.attempt, &wait, deadline));
        if known.is_some() { plan } else { plan.event(EventType::Warning, wait.reason, wait.message) }
    }

    fn store_trouble(&self) -> Option<&StoreTrouble> {
        self.answer()?.store.as_ref()
    }

    /// The object says what will go wrong.
    pub(super) fn warns(&self) -> bool {
        self.status().is_some_and(|status| status.conditions.iter().any(condition::is_warning))
    }

    /// The command has ended, or was told to.
    pub(super) fn finalizing(&self, pod: &PodFacts, since: Timestamp, reason: Option<&str>) -> Plan {
        let told = self.phase() == Some(Phase::Finalizing) && self.known(WaitStage::Node).is_none();
        // Also without a store: a helper that hangs has something to say that nobody else would.
        let moves = pod.pins().repository.is_some() || pod.status.pod_ip.is_some();
        self.lasting(pod, since, told, moves, self.until_held_up(pod), |this| {
            let known = || this.status()?.message.clone();
            let message = this.saving_words().or_else(|| known().filter(|_| told && this.is_silent()));
            Plan::nothing().write(this.draft().finalizing(this.requested, this.attempt, pod, reason, message))
        })
    }

    /// `write` when it has lasted for a while, and then again and again, with the helper's answer if it can be asked.
    /// `moves`: it can be asked more than once. `next`: something else is due then.
    fn lasting(
        &self,
        pod: &PodFacts,
        since: Timestamp,
        told: bool,
        moves: bool,
        next: Option<Duration>,
        write: impl FnOnce(&Self) -> Plan,
    ) -> Plan {
        let soonest = |left: Option<Duration>| next.into_iter().chain(left).min();
        if !told && let Some(left) = self.due(since, WRITE_AFTER) {
            return Plan::nothing_until(soonest(Some(left)));
        }
        if told && !moves {
            return Plan::nothing_until(next);
        }
        if told && let Some(left) = self.written_at.and_then(|at| self.due(at, AGAIN_AFTER)) {
            return Plan::nothing_until(soonest(Some(left)));
        }
        if let Some(asks) = self.ask(pod).filter(|_| moves) {
            return asks;
        }
        let again = moves.then(|| AGAIN_AFTER.unsigned_abs());
        Plan { next: soonest(again), ..write(self) }
    }

    /// The helper was asked and did not answer, as one on a busy node: that changes nothing of what was told.
    fn is_silent(&self) -> bool {
        self.progress == ProgressSeen::Answered(None)
    }

    /// Asks the helper how far it is; none: it was asked, or has no address.
    pub(super) fn ask(&self, pod: &PodFacts) -> Option<Plan> {
        let ip = pod.status.pod_ip.clone().filter(|_| self.progress == ProgressSeen::NotAsked)?;
        Some(Plan::nothing().then(Step::AskProgress { ip }))
    }

    fn words(&self, stage: ProgressStage) -> Option<String> {
        words(self.progress_of(stage)?)
    }

    pub(super) fn progress_of(&self, stage: ProgressStage) -> Option<&Progress> {
        self.answer().filter(|progress| progress.stage == stage)
    }

    /// What the helper said when it was asked; `None`: it was not, or did not answer.
    pub(super) fn answer(&self) -> Option<&Progress> {
        match &self.progress {
            ProgressSeen::Answered(progress) => progress.as_ref(),
            ProgressSeen::NotAsked => None,
        }
    }

    /// None: nothing is known but that it is being saved.
    fn saving_words(&self) -> Option<String> {
        let progress = self.progress_of(ProgressStage::Saving)?;
        let how_far = words(progress).map(|words| format!(": {words}"));
        let said = |what: &str, words: &str| (!words.is_empty()).then(|| format!("; {what}: {words}"));
        let hangs = said("the disk gives no answer", &progress.hangs);
        let trouble = said("the last try failed", &progress.trouble);
        let known: Vec<String> = [how_far, hangs, trouble].into_iter().flatten().collect();
        (!known.is_empty()).then(|| format!("the output is being saved{}", known.concat()))
    }
}

/// `1.2 GiB of 3.4 GiB, 20.0 MiB a second, 1m52s left`.
fn words(progress: &Progress) -> Option<String> {
    let (done, total, rate) = (progress.done_bytes, progress.total_bytes, progress.bytes_per_second);
    let how_far = match (done, total) {
        (0, 0) => return None,
        (done, 0) => size_for_people(done),
        (done, total) => format!("{} of {}", size_for_people(done.min(total)), size_for_people(total)),
    };
    let at_rate = (rate > 0).then(|| format!(", {} a second", size_for_people(rate)));
    let seconds = total.saturating_sub(done).checked_div(rate).filter(|seconds| *seconds > 0);
    let left = seconds.map(|seconds| format!(", {} left", time_for_people(seconds.saturating_mul(1000))));
    Some(how_far + &at_rate.unwrap_or_default() + &left.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_it_is_has_a_rate_and_the_time_that_is_left() {
        let progress =
            |done_bytes, total_bytes| Progress { done_bytes, total_bytes, ..Progress::of(ProgressStage::Saving) };
        assert_eq!(words(&progress(0, 0)), None);
        assert_eq!(words(&progress(1 << 20, 0)).as_deref(), Some("1.0 MiB"));
        assert_eq!(words(&progress(3 << 20, 2 << 20)).as_deref(), Some("2.0 MiB of 2.0 MiB"));
        let at_rate = |progress| Progress { bytes_per_second: 20 << 20, ..progress };
        let told = words(&at_rate(progress(1 << 30, 3 << 30)));
        assert_eq!(told.as_deref(), Some("1.0 GiB of 3.0 GiB, 20.0 MiB a second, 1m42s left"));
        assert_eq!(words(&at_rate(progress(1 << 30, 0))).as_deref(), Some("1.0 GiB, 20.0 MiB a second"));
        assert_eq!(
            words(&at_rate(progress(1 << 30, 1 << 30))).as_deref(),
            Some("1.0 GiB of 1.0 GiB, 20.0 MiB a second")
        );
    }
}
