//! A world in which nothing happens any more: every run ends, or says that it waits and that there is no deadline.

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use super::any::{Reached, any_event, any_node, any_pod, any_progress, any_run, for_all};
use super::*;

/// Plans of one run until it says what it is at.
const PLANS_MAX: usize = 1000;
/// Then the helper gives no answer any more.
const ANSWERS: usize = 20;
/// By then the operator has looked again, whatever a plan asked for.
const MUCH_LATER: i64 = 90 * 24 * 3600;

/// What stands still: the pod, its node, its helper's answers, the events about it.
struct Still {
    run: BundleRun,
    pod: Option<PodFacts>,
    node: NodeSeen,
    progress: ProgressSeen,
    events: Vec<PodEvent>,
    settings: Settings,
    now: i64,
    written_at: Option<Timestamp>,
}

impl Still {
    /// The plan after all that it asked for was answered.
    fn look(&self) -> Plan {
        let pod = self.pod.as_ref().map_or(PodSeen::Absent, PodSeen::Ours);
        let nothing = Observed { node: self.node, written_at: self.written_at, ..nothing_but(&self.run, pod) };
        let first = plan(&nothing, &self.settings, at(self.now));
        let asks =
            |step: &Step| matches!(step, Step::AskProgress { .. } | Step::AskEvents(_) | Step::AskPullSecrets { .. });
        if !first.steps.iter().any(asks) {
            return first;
        }
        let progress = match &self.progress {
            ProgressSeen::NotAsked => ProgressSeen::Answered(None),
            answered @ ProgressSeen::Answered(_) => answered.clone(),
        };
        let (pod_events, pull_secrets) = (Some(self.events.as_slice()), Some(&[][..]));
        let plan = plan(&Observed { progress, pull_secrets, pod_events, ..nothing }, &self.settings, at(self.now));
        assert!(!plan.steps.iter().any(asks), "it asks what it was told: {plan:?}");
        plan
    }

    /// Whether anything was done. Of a pod that is deleted nothing else is ever seen.
    fn carry_out(&mut self, plan: &Plan) -> bool {
        for step in &plan.steps {
            match step {
                Step::WriteStatus(status) => {
                    if status.attempt != self.run.status.as_ref().unwrap().attempt.or(Some(1)) {
                        self.pod = None;
                    }
                    self.run = with_status(&self.run, status);
                    self.written_at = Some(at(self.now));
                }
                Step::DeletePod { grace, .. } => {
                    // None: the attempt is over, and its pod is no longer looked at.
                    let Some(pod) = &mut self.pod else { continue };
                    let grace = grace.map_or(60, |grace| i64::try_from(grace.as_secs()).unwrap());
                    pod.metadata.deletion_timestamp = Some(Time(at(self.now + grace)));
                    pod.metadata.deletion_grace_period_seconds = Some(grace);
                }
                Step::OrderStop { order, .. } => {
                    let annotations = self.pod.as_mut().unwrap().metadata.annotations.get_or_insert_default();
                    annotations.insert(crate::names::STOP_ANNOTATION.to_owned(), order.to_string());
                }
                Step::RemoveFinalizer(_) => {
                    if let Some(pod) = &mut self.pod {
                        pod.metadata.finalizers = None;
                    }
                }
                _ => {}
            }
        }
        self.pod = self.pod.take().filter(|pod| !is_removed(pod));
        !plan.steps.is_empty()
    }
}

/// The API server waits for no kubelet where there is no node.
fn is_removed(pod: &PodFacts) -> bool {
    pod.is_deleting() && pod.spec.node_name.is_none() && !pod.is_held()
}

/// The kubelet says of every container that runs since when.
fn is_of_a_kubelet(pod: &PodFacts, now: i64) -> bool {
    let running =
        [pod.run(), pod.helper()].into_iter().flatten().filter_map(|container| container.state.running.as_ref());
    // Deletion is asked for now, and the time is when the grace is over.
    let latest = at(now + 600);
    let is_deleted_soon = pod.metadata.deletion_timestamp.as_ref().is_none_or(|time| time.0 <= latest);
    is_deleted_soon && running.into_iter().all(|running| running.started_at.is_some())
}

fn is_at_its_end(still: &Still, plan: &Plan) -> Option<&'static str> {
    let goes = plan.steps.iter().any(|step| matches!(step, Step::CreatePod(_) | Step::DeleteRun));
    if goes || still.run.metadata.deletion_timestamp.is_some() {
        return Some("goes on, or goes");
    }
    still.run.is_over().then_some("ends")
}

/// What a run says of itself at which nothing is done any more.
fn says_that_it_has_none(still: &Still) -> &'static str {
    let status = still.run.status.as_ref().unwrap();
    if let Some(waiting) = &status.waiting {
        let until = waiting.until.as_deref().unwrap_or_default();
        assert!(until.contains("no deadline"), "nobody looks when its time has come: {:#?}", still.run);
        return if waiting.deadline.is_some() { "was given up, and does not go" } else { "waits without a deadline" };
    }
    // Finalizing: it was, of an attempt that has since been seen to run. As long as it runs, that is what it is.
    let runs = matches!(status.phase, Some(Phase::Running | Phase::Finalizing));
    assert!(runs, "{:#?}\n{:#?}", still.run, still.pod);
    assert!(still.run.spec.time_limit.is_none(), "{:#?}", still.run);
    "runs without a limit"
}

#[test]
fn whatever_stands_still_ends_or_says_that_it_has_no_deadline() {
    let reached = Reached::default();
    let seen = (any_run().boxed(), of(any_pod()), 0i64..400, any_node(), any_progress().boxed());
    let around = (vec(any_event(), 0..3), any::<(bool, bool)>());
    for_all(1500, &(seen, around), |((mut run, pod, now, node, progress), (events, (store, gives_up)))| {
        let settings = if store { super::bundles::with_store() } else { settings() };
        let settings = Settings { node_lost_after: gives_up.then(|| Duration::from_mins(2)), ..settings };
        let pod = pod.map(|pod| pod.facts()).filter(|pod| !is_removed(pod));
        if pod.as_ref().is_some_and(|pod| !is_of_a_kubelet(pod, now)) {
            reached.note("shown by no kubelet");
            return;
        }
        // A wait that no operator has told: what is told already is not told again.
        run.status.as_mut().unwrap().waiting = None;
        let mut still = Still { run, pod, node, progress, events, settings, now, written_at: None };
        let mut much_later = false;
        for number in 0..PLANS_MAX {
            if number == ANSWERS {
                still.progress = ProgressSeen::Answered(None);
            }
            let plan = still.look();
            let acted = still.carry_out(&plan);
            if let Some(end) = is_at_its_end(&still, &plan) {
                reached.note(end);
                return;
            }
            match plan.next {
                Some(next) => still.now += i64::try_from(next.as_secs()).unwrap().max(1),
                None if acted && !much_later => {}
                None if much_later => break,
                None => {
                    still.now += MUCH_LATER;
                    much_later = true;
                }
            }
        }
        reached.note(says_that_it_has_none(&still));
    });
    reached.at_least(&[
        ("goes on, or goes", 50),
        ("ends", 200),
        ("waits without a deadline", 30),
        ("was given up, and does not go", 5),
    ]);
}
