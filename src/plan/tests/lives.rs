//! Whole lives: a script of what the pod looks like, and the steps of all plans in between.

use super::*;
use crate::contract::PodOrder;
use crate::plan::facts::pod::StopOrder;

/// A run and its operator: plans are made when something happens and when a timer is due; steps are applied.
struct Life {
    run: BundleRun,
    pod: Option<PodFacts>,
    now: i64,
    timer: Option<i64>,
    written_at: Option<Timestamp>,
    plans: usize,
    steps: Vec<String>,
}

impl Life {
    fn of(run: BundleRun) -> Self {
        let mut life = Self { run, pod: None, now: 0, timer: None, written_at: None, plans: 0, steps: Vec::new() };
        life.look();
        life
    }

    /// Time passes; then the pod looks like this.
    fn then(mut self, second: i64, pod: &PodCase) -> Self {
        self = self.until(second);
        self.pod = Some(pod.facts());
        self.look();
        self
    }

    fn until(mut self, second: i64) -> Self {
        while let Some(due) = self.timer.filter(|due| *due <= second) {
            self.now = due;
            self.look();
        }
        self.now = second;
        self
    }

    fn look(&mut self) {
        assert!(self.plans < 100, "there is no end to it: {:?}", self.steps);
        self.plans += 1;
        let seen = self.pod.as_ref().map_or(PodSeen::Absent, PodSeen::Ours);
        let observed = Observed { written_at: self.written_at, ..nothing_but(&self.run, seen) };
        let plan = plan(&observed, &settings(), at(self.now));
        self.steps.extend(words(&plan));
        self.timer = plan.next.map(|next| self.now + i64::try_from(next.as_secs()).unwrap());
        for step in plan.steps {
            match step {
                Step::WriteStatus(status) => {
                    if status.attempt != self.run.status.as_ref().unwrap().attempt.or(Some(1)) {
                        self.pod = None;
                    }
                    self.run = with_status(&self.run, &status);
                    self.written_at = Some(at(self.now));
                }
                Step::OrderStop { order, .. } => {
                    let annotations = self.pod.as_mut().unwrap().metadata.annotations.get_or_insert_default();
                    annotations.insert(crate::names::STOP_ANNOTATION.to_owned(), order.to_string());
                }
                Step::TellOfRuns { runs, .. } => {
                    let annotations = self.pod.as_mut().unwrap().metadata.annotations.get_or_insert_default();
                    annotations.insert(crate::names::AWAITED_RUNS_ANNOTATION.to_owned(), runs);
                }
                Step::RemoveFinalizer(_) => {
                    if let Some(pod) = &mut self.pod {
                        pod.metadata.finalizers = None;
                    }
                }
                Step::CreatePod(created) => {
                    let attempt = crate::plan::current_pod(&self.run).0;
                    assert_eq!(created.metadata.name, Some(format!("r-{attempt}")));
                    let mut pod = pod().of_attempt(attempt).facts();
                    pod.metadata.creation_timestamp = Some(Time(at(self.now)));
                    self.pod = Some(pod);
                }
                Step::DeletePod { .. }
                | Step::AskProgress { .. }
                | Step::AskPullSecrets { .. }
                | Step::AskEvents(_)
                | Step::DeleteRun
                | Step::Event(_) => {}
            }
        }
    }

    /// Checks the steps of a day, and how often it was looked at.
    fn is(self, steps: &[&str], plans: usize) {
        let life = self.until(24 * 3600);
        assert_eq!(life.steps, steps);
        assert_eq!(life.plans, plans);
    }
}

#[test]
fn a_short_run_costs_three_writes_and_one_event_and_a_delete_of_its_pod_an_hour_later() {
    Life::of(run())
        .then(2, &pod().bound())
        .then(3, &pod().running(3))
        .then(4, &pod().run_ended(0, "Completed"))
        .then(5, &pod().reported(&record(0)))
        .is(&["Create r-1", "Write Succeeded", "Release r-1", "Tell Completed", "Delete r-1"], 6);
}

#[test]
fn a_longer_run_costs_one_write_more() {
    Life::of(run())
        .then(3, &pod().running(3))
        .then(60, &pod().run_ended(0, "Completed").finished(60))
        .then(61, &pod().reported(&record(0)))
        .then(62, &pod().reported(&record(0)).let_go())
        .is(&["Create r-1", "Write Running", "Write Succeeded", "Release r-1", "Tell Completed", "Delete r-1"], 7);
}

#[test]
fn a_slow_pull_and_a_slow_save_are_each_told_once() {
    Life::of(run())
        .then(2, &pod().run_waits("PodInitializing"))
        .then(90, &pod().running(90))
        .then(200, &pod().run_ended(0, "Completed").finished(200))
        .then(260, &pod().reported(&record(0)))
        .is(
            &[
                "Create r-1",
                "Write Pending",
                "Write Running",
                "Write Finalizing",
                "Write Succeeded",
                "Release r-1",
                "Tell Completed",
                "Delete r-1",
            ],
            9,
        );
}

#[test]
fn a_typo_in_the_image_ends_at_its_deadline_however_often_the_kubelet_changes_its_words() {
    let typo = |reason| pod().run_waits(reason).saying("dial tcp: lookup rgistry: no such host");
    let mut life = Life::of(run()).then(4, &typo("ErrImagePull"));
    for second in (10..120).step_by(10) {
        let words = if second % 20 == 0 { "ErrImagePull" } else { "ImagePullBackOff" };
        life = life.then(second, &typo(words));
    }
    life.until(124).then(150, &PodCase::deleted(typo("ImagePullBackOff"), 124).failed("", "")).is(
        &[
            "Create r-1",
            "Write Pending",
            "Tell ErrImagePull",
            "Delete r-1",
            "Write Failed",
            "Release r-1",
            "Tell ImagePullFailed",
        ],
        15,
    );
}

#[test]
fn a_run_that_is_interrupted_for_ever_ends() {
    let mut life = Life::of(run());
    for attempt in 1..=4 {
        let second = i64::from(attempt) * 100;
        life = life.then(second, &pod().of_attempt(attempt).running(second));
        life = life.then(second + 50, &pod().of_attempt(attempt).running(second).failed("Evicted", "low on memory"));
    }
    let status = life.run.status.as_ref().unwrap();
    assert_eq!((status.phase, status.attempts.len()), (Some(Phase::Failed), 4));
    let created: Vec<_> = life.steps.iter().filter(|s| s.starts_with("Create")).collect();
    assert_eq!(created, ["Create r-1", "Create r-2", "Create r-3", "Create r-4"]);
    let released: Vec<_> = life.steps.iter().filter(|s| s.starts_with("Release")).collect();
    assert_eq!(released, ["Release r-1", "Release r-2", "Release r-3", "Release r-4"], "each once");
    let last = life.steps.len() - 3;
    assert_eq!(life.steps[last..], ["Write Failed", "Release r-4", "Tell Evicted"]);
}

#[test]
fn a_busy_cluster_is_told_now_and_then() {
    let mut life = Life::of(run());
    for second in 1..=60 {
        life = life.then(second, &pod().unschedulable(&format!("0/{second} nodes are available")));
    }
    let writes = life.steps.iter().filter(|s| s.starts_with("Write")).count();
    let events = life.steps.iter().filter(|s| s.starts_with("Tell")).count();
    assert_eq!((writes, events), (4, 1));
}

#[test]
fn an_operator_that_starts_over_writes_nothing_twice() {
    let running = pod().running(3);
    let life = Life::of(run()).then(3, &running).until(60);
    let mut again = Life { written_at: None, plans: 0, steps: Vec::new(), ..life };
    again.look();
    again.is(&[], 1);
}

#[test]
fn an_attempt_refused_before_its_command_began_is_followed_later_and_later() {
    let refused = |attempt| pod().of_attempt(attempt).failed("UnexpectedAdmissionError", "no healthy devices");
    let first = Life::of(run()).then(100, &refused(1));
    let status = first.run.status.clone().unwrap();
    assert_eq!((status.attempt, status.attempts.len()), (Some(2), 1));
    let gone = |second| look(&first.run, PodSeen::Absent, second);
    let let_go = vec!["Release r-1".to_owned()];
    assert_eq!((words(&gone(105)), gone(105).next), (let_go, seconds(5)), "a drain does not wait for the next");
    assert_eq!(words(&gone(110)), ["Release r-1", "Create r-2"]);

    let second = Life::of(first.run.clone()).then(200, &refused(2));
    let again = |at| look(&second.run, PodSeen::Absent, at);
    assert_eq!((words(&again(205)), again(205).next), (vec!["Release r-2".to_owned()], seconds(15)));
}

#[test]
fn an_attempt_whose_command_ran_is_followed_at_once() {
    let evicted = pod().running(50).failed("Evicted", "low on memory");
    let life = Life::of(run()).then(50, &pod().running(50)).then(60, &evicted);
    assert_eq!(words(&look(&life.run, PodSeen::Absent, 60)), ["Release r-1", "Create r-2"]);
}

/// A pod whose helper was told at this second; none: it would listen.
fn told(at_second: Option<i64>, mut seen: PodCase) -> PodCase {
    let order = at_second.map(|second| at(second).to_string()).unwrap_or_default();
    seen.0["metadata"]["annotations"] = json!({crate::names::STOP_ANNOTATION: order});
    seen
}

/// A run that runs, and is to stop from then on.
fn stopped_at_forty(run: BundleRun) -> Life {
    let mut life = Life::of(run).then(3, &told(None, pod().running(3))).until(39);
    life.run.spec.stop = true;
    life.then(40, &told(None, pod().running(3))).then(41, &told(Some(40), pod().running(3)))
}

#[test]
fn a_run_that_is_stopped_is_told_and_has_all_time_to_save() {
    let asked = Record { asked_to_stop: true, ..record(143) };
    let life = stopped_at_forty(run())
        .then(50, &told(Some(40), pod().run_ended(143, "Error")))
        .then(55, &told(Some(40), pod().reported(&asked)));
    let message = life.run.status.as_ref().unwrap().message.as_deref();
    assert_eq!(message, Some("ended because stop was set: the command exited with 143"));
    life.is(
        &[
            "Create r-1",
            "Write Running",
            "Write Running",
            "Stop r-1",
            "Write Finalizing",
            "Write Stopped",
            "Release r-1",
            "Tell Stopped",
            "Delete r-1",
        ],
        8,
    );
}

#[test]
fn what_does_not_end_in_time_when_it_is_stopped_is_deleted() {
    let longer = run_of(json!({"image": "registry:5000/team/image:v1", "command": "true", "stopGrace": "5m"}));
    // Thirty seconds after the grace.
    for (run, deleted_at) in [(run(), 100), (longer, 370)] {
        assert_eq!(stopped_at_forty(run.clone()).until(deleted_at - 1).steps.last().unwrap(), "Stop r-1");
        assert_eq!(stopped_at_forty(run).until(deleted_at).steps.last().unwrap(), "Delete r-1");
    }
}

fn set_suspend(mut life: Life, second: i64, suspend: bool) -> Life {
    life = life.until(second);
    life.run.spec.suspend = suspend;
    life.look();
    life
}

#[test]
fn a_run_that_is_suspended_goes_on_with_another_attempt_and_is_charged_nothing() {
    let asked = Record { asked_to_stop: true, ..record(143) };
    let never = run_of(json!({"command": "true", "retry": {"interruptions": 0}}));
    let mut life = Life::of(never).then(3, &told(None, pod().running(3))).until(39);
    life.run.spec.suspend = true;
    life = life.then(40, &told(None, pod().running(3))).then(41, &told(Some(40), pod().running(3)));
    let status = |life: &Life| life.run.status.clone().unwrap();
    assert_eq!((status(&life).suspended_at, status(&life).reason.as_deref()), (Some(Time(at(40))), Some("Suspending")));
    life = life.then(55, &told(Some(40), pod().reported(&asked))).until(3600);
    let held = status(&life);
    assert_eq!((held.phase, held.attempt, held.suspensions), (Some(Phase::Waiting), Some(2), Some(1)));
    assert_eq!(held.attempts[0].cause.as_deref(), Some("Suspended"));
    assert_eq!(
        held.message.as_deref(),
        Some("suspend is set: attempt 2 begins when it is taken back; attempt 1 is in status.attempts")
    );
    let waiting = held.waiting.unwrap();
    assert_eq!((waiting.stage.as_deref(), waiting.until.as_deref()), (Some("Suspended"), Some("no deadline")));
    life = set_suspend(life, 4000, false);
    assert_eq!(status(&life).suspended_at, None);
    life.then(4003, &pod().of_attempt(2).running(4003)).then(4004, &pod().of_attempt(2).reported(&record(0))).is(
        &[
            "Create r-1",
            "Write Running",
            "Write Running",
            "Stop r-1",
            "Write Pending",
            "Tell Suspended",
            "Release r-1",
            "Write Waiting",
            "Write Pending",
            "Release r-1",
            "Create r-2",
            "Write Succeeded",
            "Release r-2",
            "Tell Completed",
            "Delete r-2",
        ],
        12,
    );
}

#[test]
fn what_a_suspension_has_met_of_the_node_is_not_forgotten() {
    let suspended = BundleRunStatus { suspended_at: Some(Time(at(40))), ..in_attempt(1).status.unwrap() };
    let run = with_status(&run(), &suspended);
    let refused = pod().running(3).failed("UnexpectedAdmissionError", "no healthy devices");
    let told = with_status(&run, &written(&look_at(&run, &refused, 60)));
    let status = told.status.clone().unwrap();
    let cause = status.attempts.last().unwrap().cause.as_deref();
    assert_eq!((cause, status.suspensions), (Some("UnexpectedAdmissionError"), Some(1)));
    let goes_on = with_status(&told, &written(&look(&told, PodSeen::Absent, 61)));
    let next = look(&goes_on, PodSeen::Absent, 600);
    assert!(created(&next).spec.as_ref().unwrap().affinity.is_some(), "another node if there is one");
}

#[test]
fn a_run_that_is_stopped_after_it_was_suspended_is_followed_by_nothing() {
    let mut life = Life::of(run()).then(3, &told(None, pod().running(3))).until(39);
    life.run.spec.suspend = true;
    life = life.then(40, &told(None, pod().running(3)));
    let order = |life: &Life| life.pod.as_ref().unwrap().stop_order();
    let StopOrder::Given(first) = order(&life) else { panic!("{:?}", life.steps) };
    assert!(first.is_followed);
    life.run.spec.stop = true;
    life.look();
    assert_eq!(order(&life), StopOrder::Given(PodOrder { is_followed: false, ..first }));
    let asked = Record { asked_to_stop: true, ..record(143) };
    life = life.then(50, &told(Some(40), pod().reported(&asked)));
    assert_eq!(life.run.status.unwrap().phase, Some(Phase::Stopped));
}

#[test]
fn a_run_that_is_made_suspended_has_no_pod_until_it_is_not() {
    let held = Life::of(run_of(json!({"command": "true", "suspend": true}))).until(600);
    let status = held.run.status.clone().unwrap();
    let ready = |type_: &str| status.conditions.iter().find(|c| c.type_ == type_).map(|c| (&*c.status, &*c.reason));
    assert_eq!(ready("Ready"), Some(("Unknown", "Suspended")));
    assert_eq!(ready("Reconciling"), Some(("False", "Suspended")));
    assert_eq!((status.phase, status.attempt, status.suspensions), (Some(Phase::Waiting), Some(1), None));
    let mut stopped = set_suspend(Life::of(run_of(json!({"command": "true", "suspend": true}))), 700, true);
    stopped.run.spec.stop = true;
    stopped.look();
    assert_eq!(stopped.run.status.as_ref().unwrap().phase, Some(Phase::Stopped));
    assert_eq!(stopped.run.status.unwrap().suspended_at, None);
    let goes_on = set_suspend(held, 700, false).until(701);
    assert_eq!(goes_on.steps, ["Write Waiting", "Write Pending", "Create r-1"]);
}

#[test]
fn a_command_that_ended_before_it_was_suspended_has_ended() {
    let mut life = Life::of(run()).then(3, &pod().running(3)).then(60, &pod().run_ended(0, "Completed").finished(60));
    life.run.spec.suspend = true;
    life.look();
    life = life.then(61, &pod().reported(&record(0)));
    assert_eq!(life.run.status.unwrap().phase, Some(Phase::Succeeded));
    // One whose pod had no node yet costs no attempt.
    let mut life = Life::of(run()).then(3, &pod().unschedulable("0/3"));
    life.run.spec.suspend = true;
    life.look();
    assert_eq!(life.steps.last().unwrap(), "Delete r-1");
    let gone = life.then(5, &pod().unschedulable("0/3").deleted(4));
    let status = gone.run.status.clone().unwrap();
    assert_eq!((status.attempt, status.suspensions), (Some(1), None), "{status:#?}");
}

#[test]
fn what_others_put_into_a_pod_holds_it_no_longer_than_the_stop_grace() {
    let delete = "Delete r-1 within 30 s".to_owned();
    let steps = |run: &BundleRun, pod: &PodCase| words(&look_at(run, pod, 12));
    let ended = pod().reported(&record(0)).beside_another(false);
    let first = steps(&run(), &ended);
    assert_eq!(first.iter().position(|step| *step == delete), Some(1), "after the record is written: {first:?}");
    let over = with_status(&run(), &written(&look_at(&run(), &ended, 12)));
    for helper_runs_again in [false, true] {
        let pod = pod().reported(&record(0)).beside_another(helper_runs_again);
        assert_eq!(steps(&over, &pod)[0], delete, "the operator may have been away");
        assert!(!steps(&over, &pod.deleted(12)).contains(&delete), "once");
    }
    // The same of an attempt that another one follows, and never of a pod that the kubelet ends.
    let asked = Record { asked_to_stop: true, ..record(143) };
    assert!(steps(&run(), &pod().reported(&asked).deleted(7)).iter().all(|step| *step != delete));
    assert!(steps(&run(), &pod().reported(&record(0))).iter().all(|step| !step.starts_with("Delete")));
}
