//! Where a pod stands on its way, and what a plan does about it.

use super::*;
use crate::plan::facts::stage::Stage;
use crate::plan::words::cause::Verdict;
use crate::plan::words::wait_reason::WaitStage;

fn stage(pod: &PodCase) -> String {
    match pod.facts().stage() {
        Stage::Waiting(wait) => format!("Waiting {:?} {}", wait.stage, wait.reason),
        other => format!("{other:?}"),
    }
}

#[test]
fn every_pod_is_in_one_stage() {
    let crashed = json!({"terminated": {"exitCode": 1}});
    let cases = [
        (pod(), "Starting"),
        (pod().unschedulable("0/3"), "Waiting Scheduling Unschedulable"),
        (pod().gated(&["g"]), "Waiting Queue SchedulingGated"),
        // The gate is gone, and the scheduler has not looked yet.
        (pod().gated(&[]), "Starting"),
        (pod().bound(), "Starting"),
        (pod().helper_waits("PodInitializing"), "Starting"),
        (pod().run_waits("PodInitializing"), "Starting"),
        (pod().run_waits("ContainerCreating"), "Starting"),
        (pod().run_waits("ErrImagePull"), "Waiting Image ErrImagePull"),
        (pod().run_waits("ImagePullBackOff"), "Waiting Image ImagePullBackOff"),
        (pod().run_waits("ErrImageNeverPull"), "Waiting Image ErrImageNeverPull"),
        (pod().run_waits("InvalidImageName"), "Waiting ImageName InvalidImageName"),
        (pod().run_waits("CreateContainerConfigError"), "Waiting Config CreateContainerConfigError"),
        (pod().run_waits("CreateContainerError"), "Waiting Config CreateContainerError"),
        (pod().helper_waits("ImagePullBackOff"), "Waiting HelperImage ImagePullBackOff"),
        (pod().helper_waits("InvalidImageName"), "Waiting HelperImage InvalidImageName"),
        (pod().helper_waits("CrashLoopBackOff"), "Waiting Helper CrashLoopBackOff"),
        (pod().running(5), "Running"),
        // A native sidecar that crashed while the command runs is started again.
        (pod().running(5).helper(&crashed), "Running"),
        (pod().running(5).helper_waits("CrashLoopBackOff"), "Running"),
        (pod().run_ended(0, "Completed"), "Finalizing"),
        (pod().run_ended(0, "Completed").helper_ended(0, ""), "Ended"),
        (pod().reported(&record(0)), "Ended"),
        (pod().failed("OutOfcpu", ""), "Ended"),
        (pod().running(5).deleted(6), "Deleting"),
        (pod().run_ended(0, "Completed").deleted(6), "Deleting"),
        (pod().bound().deleted(6), "Deleting"),
        (pod().reported(&record(0)).deleted(6), "Ended"),
        // No scheduler binds a pod that is being deleted.
        (pod().deleted(6), "Ended"),
        (pod().unschedulable("0/3").deleted(6), "Ended"),
    ];
    for (pod, expected) in cases {
        assert_eq!(stage(&pod), expected, "{:#}", pod.0);
    }
}

#[test]
fn every_kind_of_waiting_has_a_stage_of_its_own() {
    let stages: std::collections::BTreeSet<_> = WaitStage::ALL.iter().map(|stage| stage.name()).collect();
    assert_eq!(stages.len(), WaitStage::ALL.len());
}

#[test]
fn only_our_controller_reference_makes_a_pod_ours() {
    assert_eq!(pod().facts().owner(), Some(("r", "u")));
    let reference = |field: &str, value: Value| {
        let mut pod = pod();
        pod.0["metadata"]["ownerReferences"][0][field] = value;
        pod.facts().owner().is_some()
    };
    assert!(!reference("kind", json!("Job")));
    assert!(!reference("apiVersion", json!("batch/v1")));
    assert!(!reference("controller", json!(false)));
    assert!(!reference("controller", Value::Null));
}

#[test]
fn a_new_run_gets_its_pod_and_a_timer_and_no_write() {
    let plan = look(&run(), PodSeen::Absent, 0);
    assert_eq!(words(&plan), ["Create r-1"]);
    assert_eq!(plan.next, seconds(10), "the first sight of a starting pod triggers no plan");
}

#[test]
fn a_short_run_is_never_written_as_running() {
    let plan = look_at(&run(), &pod().running(5), 5);
    assert_eq!((words(&plan).len(), plan.next), (0, seconds(2)));
    assert_eq!(
        words(&look_at(&run(), &pod().reported(&record(0)), 6)),
        ["Write Succeeded", "Release r-1", "Tell Completed"]
    );
}

#[test]
fn running_is_written_once() {
    let plan = look_at(&run(), &pod().running(5), 7);
    assert_eq!(words(&plan), ["Write Running"]);
    let status = written(&plan);
    assert_eq!(status.start_time, Some(Time(at(5))));
    assert_eq!(status.node.as_deref(), Some("node-a"));
    assert_eq!(status.attempts[0].uid.as_deref(), Some("p1"));
    assert_eq!(look_at(&with_status(&run(), &status), &pod().running(5), 60), Plan::default());
}

#[test]
fn a_clock_that_is_ahead_holds_up_nothing() {
    assert_eq!(words(&look_at(&run(), &pod().running(3600), 7)), ["Write Running"]);
    assert_eq!(look_at(&run(), &pod().running(8), 7).next, seconds(3), "a second is no more than rounding");
}

#[test]
fn finalizing_is_written_when_it_lasts() {
    let run = in_phase(Phase::Running);
    let saving = pod().run_ended(0, "Completed");
    let plan = look_at(&run, &saving, 9);
    assert_eq!((words(&plan).len(), plan.next), (0, seconds(9)));
    let plan = look_at(&run, &saving, 18);
    assert_eq!(words(&plan), ["Write Finalizing"]);
    assert_eq!(words(&look_at(&with_status(&run, &written(&plan)), &saving, 30)).len(), 0);
}

#[test]
fn a_deletion_that_lasts_is_told_as_such() {
    let plan = look_at(&in_phase(Phase::Running), &pod().running(5).deleted(20), 31);
    assert_eq!(words(&plan), ["Write Finalizing"]);
    assert_eq!(written(&plan).reason.as_deref(), Some("PodDeleted"));
}

#[test]
fn a_terminal_run_costs_no_step() {
    for phase in [Phase::Succeeded, Phase::Failed, Phase::Stopped] {
        assert_eq!(look(&in_phase(phase), PodSeen::Absent, 99), Plan::default());
        assert_eq!(look(&in_phase(phase), PodSeen::Foreign(&foreign("r").facts()), 99), Plan::default());
        assert_eq!(look_at(&in_phase(phase), &pod().reported(&record(0)).let_go(), 99), Plan::default());
        assert_eq!(words(&look_at(&in_phase(phase), &pod().reported(&record(0)), 99)), ["Release r-1"]);
        assert_eq!(words(&look_at(&in_phase(phase), &pod().running(5), 99)), ["Delete r-1", "Release r-1"]);
    }
}

#[test]
fn of_a_terminal_run_nothing_changes_but_the_generation_that_was_seen() {
    for phase in [Phase::Succeeded, Phase::Failed, Phase::Stopped] {
        let mut run = in_phase(phase);
        run.metadata.generation = Some(2);
        run.spec.stop = true;
        let plan = look(&run, PodSeen::Absent, 99);
        let status = written(&plan);
        assert_eq!(status.observed_generation, Some(2));
        assert_eq!(BundleRunStatus { observed_generation: Some(1), ..status.clone() }, run.status.clone().unwrap());
        assert_eq!((plan.steps.len(), look(&with_status(&run, &status), PodSeen::Absent, 99)), (1, Plan::default()));
    }
}

#[test]
fn a_deleted_run_lets_its_pods_go() {
    let mut run = in_attempt(2);
    run.metadata.deletion_timestamp = Some(Time(at(50)));
    assert_eq!(words(&look(&run, PodSeen::Absent, 51)), ["Release r-1"]);
    let running = pod().of_attempt(2).running(5);
    assert_eq!(words(&look_at(&run, &running, 51)), ["Delete r-2", "Release r-2", "Release r-1"]);
}

#[test]
fn a_missing_pod_is_never_success() {
    let run = with_status(&run(), &written(&look_at(&run(), &pod().running(5), 7)));
    let other = foreign("other").facts();
    for seen in [PodSeen::Absent, PodSeen::Foreign(&other)] {
        let plan = look(&run, seen, 60);
        assert_eq!(words(&plan), ["Write Pending", "Tell PodGone"]);
        let status = written(&plan);
        assert_eq!((status.attempt, status.attempts[0].cause.as_deref()), (Some(2), Some("PodGone")));
    }
}

#[test]
fn interruptions_are_retried_up_to_their_limit() {
    let asked = Record { asked_to_stop: true, ..record(143) };
    for attempt in 1..=3 {
        let run = if attempt == 1 { run() } else { in_attempt(attempt) };
        let plan = look_at(&run, &pod().of_attempt(attempt).reported(&asked).deleted(7), 9);
        assert_eq!(words(&plan), ["Write Pending", "Tell PodDeleted"]);
        assert_eq!(plan.next, seconds(0));
        let status = written(&plan);
        assert_eq!((status.attempt, status.result, status.finish_time), (Some(attempt + 1), None, None));
    }
    let plan = look_at(&in_attempt(4), &pod().of_attempt(4).reported(&asked).deleted(7), 9);
    assert_eq!(words(&plan), ["Write Failed", "Release r-4", "Tell PodDeleted"]);
    let mut run = run();
    run.spec.retry.interruptions = Some(0);
    assert_eq!(words(&look_at(&run, &pod().reported(&asked).deleted(7), 9))[0], "Write Failed");
}

#[test]
fn a_failure_is_followed_by_another_attempt_as_often_as_retry_says() {
    let failing = |retry: Value| run_of(json!({"image": "i:1", "command": "false", "retry": retry}));
    let run = failing(json!({"limit": 2, "backoff": "5s", "interruptions": 1}));
    let failed = |attempt: u32| pod().of_attempt(attempt).reported(&record(3));
    let plan = look_at(&run, &failed(1), 9);
    assert_eq!((words(&plan), plan.next), (vec!["Write Pending".into(), "Tell CommandFailed".into()], seconds(0)));
    let status = written(&plan);
    assert_eq!((status.attempt, status.retried_failures, status.result.clone()), (Some(2), Some(1), None));
    let message = status.message.as_deref().unwrap();
    assert_eq!(
        (status.reason.as_deref(), message),
        (Some("RetryBackOff"), "attempt 1 failed: the command exited with 3")
    );
    let waiting = status.waiting.clone().unwrap();
    assert_eq!((waiting.stage.as_deref(), waiting.deadline), (Some("Retry"), Some(Time(at(14)))));
    assert_eq!(waiting.until.as_deref(), Some("the deadline, then the next attempt starts"));

    // An interruption between two failures counts for itself, and the wait doubles with each failure.
    let second = with_status(&run, &status);
    let left = |run: &BundleRun, now: i64| {
        let plan = look(run, PodSeen::Absent, now);
        plan.next.filter(|_| words(&plan).iter().all(|step| step.starts_with("Release")))
    };
    assert_eq!(left(&second, 9), seconds(5));
    assert_eq!(words(&look(&second, PodSeen::Absent, 14)), ["Release r-1", "Create r-2"]);
    let mut stopped = second.clone();
    stopped.spec.stop = true;
    let status = written(&look(&stopped, PodSeen::Absent, 10));
    assert_eq!((status.phase, status.waiting), (Some(Phase::Stopped), None));
    assert!(status.message.unwrap().contains("before attempt 2 had started"));
    // Its pod goes before it has a node: that is another wait.
    let gone = pod().of_attempt(2).unschedulable("0/3 nodes").deleted(15);
    let anew = with_status(&second, &written(&look_at(&second, &gone, 16)));
    assert_eq!((anew.status.as_ref().unwrap().attempt, left(&anew, 16)), (Some(2), seconds(20)));
    let asked = Record { asked_to_stop: true, ..record(143) };
    let third = with_status(&second, &written(&look_at(&second, &pod().of_attempt(2).reported(&asked).deleted(7), 9)));
    assert_eq!(third.status.as_ref().unwrap().retried_failures, Some(1));
    let again = pod().of_attempt(3).reported(&asked).deleted(7);
    assert_eq!(words(&look_at(&third, &again, 9))[0], "Write Failed", "one interruption");
    let fourth = with_status(&third, &written(&look_at(&third, &failed(3), 9)));
    assert_eq!((fourth.status.as_ref().unwrap().retried_failures, left(&fourth, 9)), (Some(2), seconds(10)));
    let last = written(&look_at(&fourth, &failed(4), 9));
    assert_eq!((last.phase, last.reason.as_deref()), (Some(Phase::Failed), Some("CommandFailed")));

    // Others are not.
    let once = |retry: Value, pod: &PodCase| words(&look_at(&failing(retry), pod, 9))[0] == "Write Failed";
    assert!(once(json!({}), &failed(1)) && once(json!({"limit": 1, "causes": ["CommandKilled"]}), &failed(1)));
    assert!(once(json!({"limit": 1, "causes": []}), &failed(1)));
    let killed = pod().reported(&Record { exit_code: None, signal: Some(11), ..record(0) });
    assert!(!once(json!({"limit": 1, "causes": ["CommandKilled"]}), &killed));
    let late = pod().reported(&Record { cause: Some(crate::contract::Cause::TimeLimitExceeded), ..record(143) });
    assert!(once(json!({"limit": 1}), &late) && !once(json!({"limit": 1, "causes": ["TimeLimitExceeded"]}), &late));
    let mut stopped = failing(json!({"limit": 1}));
    stopped.spec.stop = true;
    assert_ne!(written(&look_at(&stopped, &failed(1), 9)).phase, Some(Phase::Pending));
}

#[test]
fn every_cause_that_retry_names_is_one_of_a_failure() {
    let names =
        ["CommandFailed", "CommandKilled", "OutOfMemory", "TimeLimitExceeded", "DiskLimitExceeded", "OutputNotSaved"];
    for name in names {
        let retry =
            crate::api::spec::Retry { causes: serde_json::from_value(json!([name])).unwrap(), ..Default::default() };
        assert!(
            retry.is_for(name) && crate::plan::Cause::named(name).unwrap().0.verdict() == Verdict::Failed,
            "{name}"
        );
    }
}

#[test]
fn the_wait_before_another_attempt_doubles_up_to_ten_minutes_or_what_is_asked() {
    let wait = |backoff: Option<&str>, failures: u32| {
        let retry = crate::api::spec::Retry { backoff: backoff.map(str::to_owned), ..Default::default() };
        crate::plan::validate::backoff(&retry, failures).as_secs()
    };
    assert_eq!([1, 2, 3, 7, 100].map(|failures| wait(None, failures)), [10, 20, 40, 600, 600]);
    assert_eq!(
        [wait(Some("0s"), 5), wait(Some("1h"), 1), wait(Some("1h"), 9), wait(Some("365d"), 100)],
        [0, 3600, 3600, 31_536_000]
    );
}

/// It held nothing, and nothing ran.
#[test]
fn a_pod_that_is_deleted_before_it_has_a_node_costs_no_attempt() {
    let gone = || pod().unschedulable("0/3 nodes are available: 3 Insufficient cpu.").deleted(7);
    let waited = with_status(&run(), &written(&look_at(&run(), &pod().unschedulable("0/3 nodes"), 3)));
    let plan = look_at(&waited, &gone(), 8);
    assert_eq!(
        (words(&plan), plan.next),
        (vec!["Write Pending".to_owned(), "Release r-1".to_owned(), "Tell PodDeleted".to_owned()], seconds(10))
    );
    let told = with_status(&waited, &written(&plan));
    let status = told.status.as_ref().unwrap();
    assert_eq!(
        (status.attempt, status.waiting.as_ref(), status.reason.as_deref()),
        (Some(1), None, Some("PodDeleted"))
    );
    assert!(status.message.as_ref().unwrap().contains("had no node yet, and is made again"));
    assert_eq!(words(&look_at(&told, &gone().let_go(), 9)).len(), 0, "it is told once");
    // It is made again under its name, after a while.
    let plan = look(&told, PodSeen::Absent, 9);
    assert_eq!((words(&plan).len(), plan.next), (0, seconds(9)));
    assert_eq!(words(&look(&told, PodSeen::Absent, 18)), ["Create r-1"]);
    let mut again = gone();
    again.0["metadata"]["creationTimestamp"] = json!(time(18));
    let plan = look_at(&told, &again, 19);
    assert_eq!(
        words(&plan),
        ["Write Pending", "Release r-1", "Tell PodDeleted"],
        "and again, as often as it is deleted"
    );
    // As ever where the run is to stop, where a node had it, and where we gave it up ourselves.
    let mut stopped = waited.clone();
    stopped.spec.stop = true;
    assert_eq!(words(&look_at(&stopped, &gone(), 8))[0], "Write Stopped");
    let bound = pod().bound().failed("", "").deleted(7);
    assert_eq!(written(&look_at(&waited, &bound, 8)).attempt, Some(2));
    // The attempt that follows is recorded as any.
    let plan = look_at(&told, &pod().running(25), 30);
    let attempts = written(&plan).attempts;
    assert_eq!((attempts.len(), attempts[0].uid.as_deref(), attempts[0].finish_time.as_ref()), (1, Some("p1"), None));
}

#[test]
fn where_a_pod_is_stands_on_the_object_while_it_waits() {
    let unbound = written(&look_at(&run(), &pod().unschedulable("0/3 nodes"), 3));
    let condition = |status: &BundleRunStatus| {
        let scheduled = status.conditions.iter().find(|c| c.type_ == "Scheduled").unwrap();
        (scheduled.status.clone(), scheduled.reason.clone())
    };
    let image = |status: &BundleRunStatus| status.image.as_ref().unwrap().requested.clone().unwrap();
    assert_eq!(condition(&unbound), ("False".into(), "Unschedulable".into()));
    assert_eq!((image(&unbound).as_str(), unbound.node.as_deref()), ("registry:5000/team/image:v1", None));
    let staging = pod().running(5).staging();
    for bound in [staging, pod().run_waits("ErrImagePull"), pod().run_waits("PodInitializing")] {
        let told = with_status(&run(), &unbound);
        let status = written(&look_at(&told, &bound, 200));
        assert_eq!((condition(&status), status.node.as_deref()), (("True".into(), "Scheduled".into()), Some("node-a")));
    }
    let refused = written(&refused(&run(), &Refusal::of(403, "exceeded quota: q".into()), 1));
    assert_eq!(image(&refused), "registry:5000/team/image:v1");
}

#[test]
fn the_pod_of_an_interrupted_attempt_is_let_go_before_the_next_is_made() {
    assert_eq!(words(&look(&in_attempt(2), PodSeen::Absent, 20)), ["Release r-1", "Create r-2"]);
}

#[test]
fn own_failures_are_not_retried() {
    let plan = look_at(&run(), &pod().reported(&record(1)), 9);
    assert_eq!(words(&plan), ["Write Failed", "Release r-1", "Tell CommandFailed"]);
}

#[test]
fn a_pod_on_a_node_that_does_not_answer_is_told() {
    let lost = pod().running(5).deleted(100);
    let run = in_phase(Phase::Running);
    let plan = look_at(&run, &lost, 115);
    assert_eq!((words(&plan), plan.next), (vec!["Write Finalizing".to_owned()], seconds(105)));
    let run = with_status(&run, &written(&plan));
    let plan = look_at(&run, &lost, 220);
    assert_eq!(words(&plan), ["Write Finalizing", "Tell NodeNotResponding"]);
    let status = written(&plan);
    assert!(status.message.as_deref().unwrap().contains("node-a"));
    let run = with_status(&run, &status);
    assert_eq!(look_at(&run, &lost, 9999), Plan::default());
    // The Node object was deleted, and the garbage collector ended the pod.
    let collected = lost.failed("", "").condition("DisruptionTarget", "True", "DeletionByPodGC", "", 9999);
    assert_eq!(words(&look_at(&run, &collected, 9999)), ["Write Pending", "Tell DeletionByPodGC"]);
}
