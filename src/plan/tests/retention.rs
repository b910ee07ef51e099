//! For how long pods of attempts that are over, and runs that are over, are kept. In the settings pods are kept for an
//! hour.

use std::sync::Arc;

use super::*;
use crate::plan::Settings;

const HOUR: i64 = 3600;

/// A run that is over since 12, as its end was recorded; its command ended at 8.
fn over(spec: Value) -> BundleRun {
    let run = run_of(spec);
    with_status(&run, &written(&look_at(&run, &pod().reported(&record(0)), 12)))
}

#[allow(clippy::needless_pass_by_value)] // reads better without a reference
fn spec(more: Value) -> Value {
    let mut spec = json!({"image": "registry:5000/team/image:v1", "command": "true"});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

fn ended() -> PodCase {
    pod().reported(&record(0))
}

/// The steps, and when it is looked again.
fn seen(run: &BundleRun, pod: &PodCase, second: i64) -> (Vec<String>, Option<i64>) {
    steps_and_next(&look_at(run, pod, second))
}

fn steps_and_next(plan: &Plan) -> (Vec<String>, Option<i64>) {
    (words(plan), plan.next.map(|next| i64::try_from(next.as_secs()).unwrap()))
}

fn steps(words: &[&str], next: impl Into<Option<i64>>) -> (Vec<String>, Option<i64>) {
    (words.iter().map(|word| (*word).to_owned()).collect(), next.into())
}

#[test]
fn a_pod_is_deleted_an_hour_after_the_end_was_recorded() {
    let end = look_at(&run(), &ended(), 12);
    assert_eq!(steps_and_next(&end), steps(&["Write Succeeded", "Release r-1", "Tell Completed"], HOUR));
    let run = over(spec(json!({})));
    let pod = ended().let_go();
    assert_eq!(seen(&run, &pod, 12), steps(&[], HOUR));
    assert_eq!(seen(&run, &pod, 12 + HOUR - 1), steps(&[], 1));
    assert_eq!(seen(&run, &pod, 12 + HOUR), steps(&["Delete r-1"], None));
    assert_eq!(seen(&run, &pod.deleted(12 + HOUR), 13 + HOUR), steps(&[], None), "once");
}

#[test]
fn a_pod_that_is_not_kept_is_deleted_when_the_record_is_written_and_the_pod_is_let_go() {
    let run = run_of(spec(json!({"podRetention": "0s"})));
    let end = &["Write Succeeded", "Release r-1", "Tell Completed", "Delete r-1"];
    assert_eq!(seen(&run, &ended(), 12), steps(end, None));
    let run = over(serde_json::to_value(&run.spec).unwrap());
    // The operator was killed after the write.
    assert_eq!(seen(&run, &ended(), 20), steps(&["Release r-1", "Delete r-1"], None));
}

#[test]
fn how_long_a_pod_is_kept_can_change_before_and_after_the_end() {
    let mut run = over(spec(json!({"podRetention": "1m"})));
    let pod = ended().let_go();
    assert_eq!(seen(&run, &pod, 13), steps(&[], 59));
    run.spec.pod_retention = Some("2h".to_owned());
    assert_eq!(seen(&run, &pod, 13), steps(&[], 2 * HOUR - 1));
    run.spec.pod_retention = None;
    assert_eq!(seen(&run, &pod, 13), steps(&[], HOUR - 1));
    run.spec.pod_retention = Some("later".to_owned());
    assert_eq!(seen(&run, &pod, 13), steps(&[], HOUR - 1), "as the settings say");
    run.spec.pod_retention = Some("1s".to_owned());
    assert_eq!(seen(&run, &pod, 13), steps(&["Delete r-1"], None));
}

#[test]
fn no_pod_is_deleted_that_is_not_over() {
    let short = |more: PodCase| seen(&run_of(spec(json!({"podRetention": "0s"}))), &more, 60).0;
    assert_eq!(short(pod().running(5)), ["Write Running"]);
    let foreign = foreign("other").reported(&record(0)).facts();
    let run = over(spec(json!({"podRetention": "0s"})));
    assert_eq!(steps_and_next(&look(&run, PodSeen::Foreign(&foreign), 60)), steps(&[], None));
}

/// The plan for a run with pods of earlier attempts.
fn beside(run: &BundleRun, earlier: &[(u32, PodCase)], pod: PodSeen, second: i64) -> (Vec<String>, Option<i64>) {
    let earlier: Vec<_> = earlier.iter().map(|(attempt, pod)| (*attempt, Arc::new(pod.facts()))).collect();
    steps_and_next(&plan(&Observed { earlier: &earlier, ..nothing_but(run, pod) }, &settings(), at(second)))
}

/// The pod of an attempt that was evicted.
fn evicted(attempt: u32) -> PodCase {
    pod().of_attempt(attempt).running(5).failed("Evicted", "low on memory")
}

/// In its second attempt, the first having ended at 20.
fn tried_again(spec: Value) -> BundleRun {
    let run = run_of(spec);
    with_status(&run, &written(&look_at(&run, &evicted(1), 20)))
}

#[test]
fn the_pod_of_an_earlier_attempt_is_deleted_while_the_run_goes_on() {
    let run = tried_again(spec(json!({})));
    let running = pod().of_attempt(2).running(40).facts();
    let run = with_status(&run, &written(&look(&run, PodSeen::Ours(&running), 60)));
    let let_go = [(1, evicted(1).let_go())];
    assert_eq!(beside(&run, &let_go, PodSeen::Ours(&running), 61), steps(&[], 20 + HOUR - 61));
    assert_eq!(beside(&run, &let_go, PodSeen::Ours(&running), 20 + HOUR), steps(&["Delete r-1"], None));
    let deleted = [(1, evicted(1).let_go().deleted(20 + HOUR))];
    assert_eq!(beside(&run, &deleted, PodSeen::Ours(&running), 21 + HOUR), steps(&[], None));
    let runs = [(1, pod().running(5))];
    assert_eq!(beside(&run, &runs, PodSeen::Ours(&running), 21 + HOUR), steps(&[], None), "it has not ended");
}

#[test]
fn a_suspended_run_leaves_no_pod_for_ever() {
    let mut run = tried_again(spec(json!({})));
    run.spec.suspend = true;
    let run = with_status(&run, &written(&look(&run, PodSeen::Absent, 30)));
    let pods = [(1, evicted(1).let_go())];
    assert_eq!(beside(&run, &pods, PodSeen::Absent, 40), steps(&[], 20 + HOUR - 40));
    assert_eq!(beside(&run, &pods, PodSeen::Absent, 20 + HOUR), steps(&["Delete r-1"], None));
}

#[test]
fn an_attempt_whose_pod_is_not_kept_is_followed_as_any() {
    let run = run_of(spec(json!({"podRetention": "0s"})));
    let end = look_at(&run, &evicted(1), 20);
    assert_eq!(steps_and_next(&end), steps(&["Write Pending", "Tell Evicted", "Release r-1", "Delete r-1"], 0));
    let next = tried_again(serde_json::to_value(&run.spec).unwrap());
    // The release has failed.
    let held = beside(&next, &[(1, evicted(1))], PodSeen::Absent, 21);
    assert_eq!(held.0, ["Release r-1", "Create r-2", "Delete r-1"]);
}

#[test]
fn pods_of_all_attempts_go_when_the_run_is_over_and_those_that_are_not_on_the_object_first() {
    let mut run = over(spec(json!({})));
    let status = run.status.as_mut().unwrap();
    status.attempt = Some(12);
    let attempt = |attempt: u32| Attempt {
        attempt,
        finish_time: Some(Time(at(i64::from(attempt)))),
        ..status.attempts[0].clone()
    };
    status.attempts = (3..=12).map(attempt).collect();
    let pods: Vec<_> = (1..=11).map(|attempt| (attempt, evicted(attempt).let_go())).collect();
    let last = ended().of_attempt(12).let_go().facts();
    let seen = |second| beside(&run, &pods, PodSeen::Ours(&last), second);
    // The end was recorded at 12.
    assert_eq!(seen(13).0, ["Delete r-1", "Delete r-2"]);
    assert_eq!(seen(4 + HOUR).0, ["Delete r-1", "Delete r-2", "Delete r-3", "Delete r-4"]);
    let (all, next) = seen(12 + HOUR);
    assert_eq!((all.len(), next), (12, None));
}

#[test]
fn a_run_is_deleted_its_time_after_its_end_was_recorded() {
    let mut run = over(spec(json!({"ttlSecondsAfterFinished": 60})));
    let pod = ended().let_go();
    assert_eq!(seen(&run, &pod, 12), steps(&[], 60));
    assert_eq!(seen(&run, &pod, 71), steps(&[], 1));
    assert_eq!(seen(&run, &pod, 72), steps(&["Delete the run"], None), "its pod goes with it");
    assert_eq!(seen(&run, &ended(), 72), steps(&["Release r-1", "Delete the run"], None));
    assert_eq!(steps_and_next(&look(&run, PodSeen::Absent, 72)), steps(&["Delete the run"], None));
    run.spec.ttl_seconds_after_finished = Some(100);
    assert_eq!(seen(&run, &pod, 72), steps(&[], 40));
    run.spec.ttl_seconds_after_finished = None;
    assert_eq!(seen(&run, &pod, 72), steps(&[], HOUR - 60));
    run.spec.ttl_seconds_after_finished = Some(0);
    // What else there would be to write goes with it.
    run.metadata.generation = Some(2);
    assert_eq!(seen(&run, &pod, 12), steps(&["Delete the run"], None));
    run.metadata.deletion_timestamp = Some(Time(at(12)));
    assert_eq!(seen(&run, &pod, 72), steps(&[], None), "somebody else's finalizer is on it");
}

#[test]
fn the_end_of_a_run_without_a_pod_sets_its_time_too() {
    let run = run_of(json!({"ttlSecondsAfterFinished": 60}));
    assert_eq!(steps_and_next(&look(&run, PodSeen::Absent, 5)), steps(&["Write Failed", "Tell InvalidSpec"], 60));
}

#[test]
fn a_run_that_is_not_over_is_never_deleted() {
    let run = run_of(spec(json!({"ttlSecondsAfterFinished": 0})));
    for pod in [pod(), pod().running(5), pod().run_ended(0, "Completed"), ended()] {
        let steps = seen(&run, &pod, 100_000).0;
        assert!(!steps.contains(&"Delete the run".to_owned()), "{steps:?}");
    }
    // The phase decides, whatever else is on the object.
    let mut odd = over(spec(json!({"podRetention": "0s", "ttlSecondsAfterFinished": 0})));
    odd.status.as_mut().unwrap().phase = Some(Phase::Running);
    assert_eq!(seen(&odd, &pod().running(5).let_go(), 100_000).0, [""; 0]);
    let (steps, next) =
        seen(&tried_again(serde_json::to_value(&run.spec).unwrap()), &pod().of_attempt(2).running(40), 100_000);
    assert!(!steps.contains(&"Delete the run".to_owned()) && next.is_none(), "{steps:?} {next:?}");
}

#[test]
fn saving_may_take_longer_than_what_is_over_is_kept() {
    let run = run_of(spec(json!({"ttlSecondsAfterFinished": 60})));
    let saved = look_at(&run, &ended(), 2 * HOUR);
    assert_eq!(written(&saved).finish_time, Some(Time(at(8))));
    assert_eq!(steps_and_next(&saved), steps(&["Write Succeeded", "Release r-1", "Tell Completed"], 60));
}

/// The end as it was recorded, by a clock that is this much ahead of ours.
fn recorded_ahead(run: &BundleRun, seconds: i64) -> BundleRun {
    let mut run = run.clone();
    let status = run.status.as_mut().unwrap();
    status.finish_time = Some(Time(at(12 + seconds)));
    for condition in &mut status.conditions {
        condition.last_transition_time = Time(at(12 + seconds));
    }
    run
}

#[test]
fn an_end_that_is_ahead_of_our_clock_is_waited_for_neither_too_short_nor_for_ever() {
    let run = over(spec(json!({"podRetention": "30s", "ttlSecondsAfterFinished": 60})));
    let pod = ended().let_go();
    let plan_at = |run: &BundleRun, second| {
        let facts = pod.facts();
        // This operator began after the end.
        let observed = Observed { acting_since: at(20), ..nothing_but(run, PodSeen::Ours(&facts)) };
        steps_and_next(&plan(&observed, &settings(), at(second)))
    };
    // Our own clock may have been set back a little since.
    let near = recorded_ahead(&run, 100);
    assert_eq!(plan_at(&near, 20), steps(&[], 122));
    assert_eq!(plan_at(&near, 142), steps(&["Delete r-1"], 30));
    for ahead in [2 * HOUR, 365 * 24 * HOUR] {
        let run = recorded_ahead(&run, ahead);
        assert_eq!(plan_at(&run, 20), steps(&[], 30), "{ahead}");
        assert_eq!(plan_at(&run, 50), steps(&["Delete r-1"], 30), "{ahead}");
        assert_eq!(plan_at(&run, 80), steps(&["Delete the run"], None), "{ahead}");
    }
    // An object of an earlier version has no condition.
    let mut run = run;
    run.status.as_mut().unwrap().conditions.clear();
    assert_eq!(plan_at(&run, 20), steps(&[], 8 + 30 - 20));
}

#[test]
fn a_node_whose_clock_is_ahead_keeps_no_pod_of_an_earlier_attempt_longer_than_the_run_does() {
    let mut run = over(spec(json!({})));
    let status = run.status.as_mut().unwrap();
    status.attempt = Some(2);
    status.attempts[0].finish_time = Some(Time(at(365 * 24 * HOUR)));
    let pods = [(1, evicted(1).let_go())];
    assert_eq!(beside(&run, &pods, PodSeen::Absent, 12), steps(&[], HOUR));
    assert_eq!(beside(&run, &pods, PodSeen::Absent, 12 + HOUR), steps(&["Delete r-1"], None));
}

#[test]
fn what_is_kept_longer_than_there_are_years_is_kept() {
    let run = over(spec(json!({"podRetention": "584942417355y"})));
    let settings = Settings { pod_retention: Duration::from_secs(u64::MAX), ..settings() };
    let facts = ended().let_go().facts();
    let plan = plan(&nothing_but(&run, PodSeen::Ours(&facts)), &settings, at(HOUR * 24 * 365));
    assert!(words(&plan).is_empty() && plan.next.is_some());
}
