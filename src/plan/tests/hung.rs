//! Pods that do not end, because something in them cannot be killed.

use super::*;
use crate::api::status::Waiting;
use crate::contract::{NotSaved, Progress, ProgressStage, SaveFailure, Saved, StoreTrouble};

fn unkillable(record: Record) -> Record {
    let detail = "process 7 (cat, state D) could not be killed".to_owned();
    Record { unkillable: true, detail, ..record }
}

fn time_is_up() -> Record {
    unkillable(Record { cause: Some(Cause::TimeLimitExceeded), ..killed(9) })
}

fn limited(retry: u32) -> BundleRun {
    run_of(json!({"image": "registry:5000/team/image:v1", "command": "true", "timeLimit": "10s",
        "retry": {"interruptions": retry}}))
}

/// The helper has reported at 9, the kubelet sees the run container run, and may have started the helper anew.
fn hung(record: &Record, again: bool) -> PodCase {
    let mut pod = pod().running(5);
    let ended = json!({"terminated": {"exitCode": 0, "message": told(record), "finishedAt": time(9)}});
    let helper = &mut pod.0["status"]["initContainerStatuses"][0];
    if again {
        helper["lastState"] = ended;
    } else {
        helper["state"] = ended;
    }
    pod
}

/// The plan of the first second at which the kubelet can be slow no more.
fn judged(run: &BundleRun, pod: &PodCase) -> Plan {
    let told = with_status(run, &written(&look_at(run, pod, 15)));
    look_at(&told, pod, 30)
}

#[test]
fn a_container_that_cannot_be_killed_ends_its_attempt_on_the_helpers_word() {
    for again in [false, true] {
        let pod = hung(&time_is_up(), again);
        let plan = judged(&limited(3), &pod);
        assert_eq!(words(&plan), ["Delete r-1", "Write Pending", "Tell NodeHung"]);
        let status = written(&plan);
        let attempt = &status.attempts[0];
        assert_eq!((attempt.cause.as_deref(), attempt.node.as_deref()), (Some("NodeHung"), Some("node-a")));
        assert!(status.message.unwrap().contains("process 7 (cat, state D) could not be killed"));
        let last = words(&judged(&limited(0), &pod));
        assert_eq!(last, ["Delete r-1", "Write Failed", "Release r-1", "Tell NodeHung"]);
        let deleted = words(&judged(&limited(0), &pod.deleted(20)));
        assert_eq!(deleted, ["Write Failed", "Release r-1", "Tell NodeHung"], "asked once");
    }
}

#[test]
fn a_kubelet_that_may_be_slow_has_its_time_whatever_the_nodes_clock_says() {
    for ahead in [-3600, -16, -1, 0, 14, 16, 30, 3600] {
        let mut pod = hung(&time_is_up(), false);
        let ended = &mut pod.0["status"]["initContainerStatuses"][0]["state"]["terminated"];
        ended["finishedAt"] = json!(time(9 + ahead));
        // A node that was silent and is back has not been waited for for that long.
        let silent = Waiting {
            stage: Some("Node".into()),
            reason: Some("NodeNotResponding".into()),
            since: Some(Time(at(-900))),
            deadline: Some(Time(at(-300))),
            ..Waiting::default()
        };
        let mut before = in_phase(Phase::Running);
        before.status.as_mut().unwrap().waiting = Some(silent);
        for run in [limited(3), in_phase(Phase::Finalizing), before] {
            let plan = look_at(&run, &pod, 10);
            assert_eq!((words(&plan), plan.next), (vec!["Write Finalizing".to_owned()], seconds(15)), "{ahead}");
            let told = with_status(&run, &written(&plan));
            let waiting = told.status.as_ref().unwrap().waiting.clone().unwrap();
            assert_eq!(
                (waiting.reason.as_deref(), waiting.since, waiting.deadline, waiting.until.as_deref()),
                (
                    Some("ContainerNotEnding"),
                    Some(Time(at(10))),
                    Some(Time(at(25))),
                    Some("the deadline, then the attempt ends without waiting for the container")
                )
            );
            assert_eq!(look_at(&told, &pod, 24), Plan::after(Duration::from_secs(1)), "{ahead}");
            let plan = look_at(&told, &pod, 25);
            assert_eq!(words(&plan), ["Delete r-1", "Write Pending", "Tell NodeHung"], "{ahead}");
        }
    }
}

#[test]
fn the_next_attempt_lets_the_hung_pod_go_and_prefers_another_node() {
    let status = written(&judged(&limited(3), &hung(&time_is_up(), false)));
    let next = look(&with_status(&limited(3), &status), PodSeen::Absent, 300);
    assert_eq!(words(&next), ["Release r-1", "Create r-2"]);
    let pod = serde_json::to_value(created(&next)).unwrap();
    let preferred = &pod["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"];
    assert_eq!(preferred[0]["preference"]["matchFields"][0]["values"], json!(["node-a"]));
}

#[test]
fn what_a_command_left_behind_does_not_undo_its_own_end() {
    for (record, reason) in [(record(0), "Completed"), (record(3), "CommandFailed"), (killed(11), "CommandKilled")] {
        let plan = judged(&limited(3), &hung(&unkillable(record), false));
        let status = written(&plan);
        assert_eq!((words(&plan)[0].as_str(), status.reason.as_deref()), ("Delete r-1", Some(reason)));
        assert!(status.message.unwrap().contains("could not be killed"));
    }
}

#[test]
fn a_runner_that_died_in_a_container_that_does_not_end_is_hung() {
    let mut pod = pod().running(5);
    let report = Report { missing: Some(MissingRecord::RunnerDied), ..Report::default() };
    let message = Message::encode(&report, b"", b"");
    pod.0["status"]["initContainerStatuses"][0]["state"] =
        json!({"terminated": {"exitCode": 0, "message": message, "finishedAt": time(9)}});
    assert_eq!(words(&judged(&limited(0), &pod)), ["Delete r-1", "Write Failed", "Release r-1", "Tell NodeHung"]);
}

#[test]
fn what_the_kubelet_sees_end_after_all_has_its_own_cause() {
    let status = written(&look_at(&limited(0), &pod().reported(&time_is_up()), 30));
    assert_eq!(status.reason.as_deref(), Some("TimeLimitExceeded"));
    let crashed = pod().running(5);
    let mut saying_little = hung(&time_is_up(), true);
    saying_little.0["status"]["initContainerStatuses"][0]["lastState"]["terminated"]["exitCode"] = json!(137);
    for pod in [crashed, saying_little, hung(&record(0), false)] {
        assert_eq!(written(&look_at(&limited(0), &pod, 8)).phase, Some(Phase::Running), "the helper is not done");
    }
}

/// A plan after the helper was asked and gave this answer.
fn answered(run: &BundleRun, pod: &PodCase, progress: Option<Progress>, second: i64) -> Plan {
    let mut pod = pod.clone();
    pod.0["status"]["podIP"] = json!("10.0.0.7");
    let pod = pod.facts();
    let progress = progress.map_or(ProgressSeen::NotAsked, |progress| ProgressSeen::Answered(Some(progress)));
    let observed = Observed { progress, written_at: Some(at(second)), ..nothing_but(run, PodSeen::Ours(&pod)) };
    plan(&observed, &settings(), at(second))
}

/// Its last words, which the kubelet will never tell.
#[allow(clippy::unnecessary_wraps)] // what an answer is
fn last_words(record: &Record, damaged: u64) -> Option<Progress> {
    let saved = Saved { digest: DIGEST.to_owned(), skipped: damaged, damaged, ..Saved::default() };
    let report = Report { record: Some(record.clone()), saved: Some(saved), ..Report::default() };
    Some(Progress { report: Message::encode(&report, b"", b""), ..Progress::of(ProgressStage::Saving) })
}

#[test]
fn a_helper_that_cannot_end_is_believed_at_its_port() {
    let ended = pod().run_ended(0, "Completed");
    assert_eq!(words(&answered(&limited(3), &ended, None, 20)), ["Ask 10.0.0.7"]);
    let plan = answered(&limited(3), &ended, last_words(&record(0), 1), 20);
    assert_eq!(words(&plan), ["Delete r-1", "Write Failed", "Release r-1", "Tell OutputDamaged"]);
    let plan = answered(&limited(3), &ended, last_words(&record(0), 0), 20);
    assert_eq!(written(&plan).phase, Some(Phase::Succeeded), "the output is safe, and nobody else speaks there");
}

#[test]
fn a_command_past_its_time_whose_helper_hangs_too_is_asked_about() {
    let told = in_phase(Phase::Running);
    let run = BundleRun { spec: limited(0).spec, ..told };
    let pod = pod().running(5);
    // 10 s, 30 s of grace, 10 s until the runner gives up, a minute for all that is slow.
    assert_eq!(answered(&run, &pod, None, 20), Plan::after(Duration::from_secs(95)));
    assert_eq!(words(&answered(&run, &pod, None, 115)), ["Ask 10.0.0.7"]);
    let saving = Progress { hangs: "reading a for 20 s".to_owned(), ..Progress::of(ProgressStage::Saving) };
    let status = written(&answered(&run, &pod, Some(saving), 116));
    assert_eq!(status.phase, Some(Phase::Finalizing));
    assert_eq!(
        status.message.as_deref(),
        Some("the output is being saved; the disk gives no answer: reading a for 20 s")
    );
    let saving = with_status(&run, &status);
    let plan = answered(&saving, &pod, last_words(&time_is_up(), 1), 150);
    assert_eq!(words(&plan), ["Delete r-1", "Write Failed", "Release r-1", "Tell NodeHung"]);
    let forged = written(&answered(&saving, &pod, last_words(&record(0), 0), 150));
    assert_eq!(forged.reason.as_deref(), Some("NodeHung"), "whoever listens there: no success without the kubelet");
}

#[test]
fn a_run_of_which_nothing_is_heard_long_after_its_time_is_ended() {
    let told = in_phase(Phase::Running);
    let run = BundleRun { spec: limited(0).spec, ..told };
    let mut silent = pod().running(5);
    silent.0["spec"]["terminationGracePeriodSeconds"] = json!(3630);
    // Its 10 s, its grace and a minute, and all the time that the kubelet would give a pod that is deleted.
    assert_eq!(answered(&run, &silent, None, 115 + 3600).steps.len(), 1, "it is asked");
    let asked = |progress, second| {
        let facts = silent.facts();
        let observed = Observed { progress, ..nothing_but(&run, PodSeen::Ours(&facts)) };
        plan(&observed, &settings(), at(second))
    };
    assert_eq!(words(&asked(ProgressSeen::Answered(None), 115 + 3600)), [""; 0]);
    let ended = asked(ProgressSeen::Answered(None), 200 + 3630);
    assert_eq!(words(&ended), ["Delete r-1", "Write Failed", "Release r-1", "Tell NodeHung"]);
}

#[test]
fn a_command_that_may_have_waited_long_for_its_inputs_has_all_its_time() {
    let mut run = BundleRun { spec: limited(0).spec, ..in_phase(Phase::Running) };
    run.spec.inputs = vec![serde_json::from_value(json!({"path": "a", "text": "b"})).unwrap()];
    let mut silent = pod().running(5);
    silent.0["spec"]["terminationGracePeriodSeconds"] = json!(60);
    let facts = silent.facts();
    let asked = |second| {
        let observed = Observed { progress: ProgressSeen::Answered(None), ..nothing_but(&run, PodSeen::Ours(&facts)) };
        words(&plan(&observed, &settings(), at(second)))
    };
    // The inputs of these settings may take an hour.
    for second in [115, 1000, 115 + 3600] {
        assert_eq!(asked(second), [""; 0]);
    }
    assert_eq!(asked(300 + 3600), ["Delete r-1", "Write Failed", "Release r-1", "Tell NodeHung"]);
}

#[test]
fn a_command_on_a_node_whose_clock_is_ahead_has_all_its_time() {
    for ahead in [60, 3600, 365 * 24 * 3600] {
        let mut pod = pod().running(5 + ahead);
        pod.0["spec"]["terminationGracePeriodSeconds"] = json!(60);
        let told = with_status(&limited(0), &written(&look_at(&limited(0), &pod, 6)));
        let looked = |now, written_at: Option<i64>| {
            let facts = pod.facts();
            let written_at = written_at.map(at);
            plan(
                &Observed { written_at, acting_since: at(7), ..nothing_but(&told, PodSeen::Ours(&facts)) },
                &settings(),
                at(now),
            )
        };
        assert_eq!(words(&looked(7, Some(6))), [""; 0], "ahead by {ahead} s");
        assert_eq!(words(&looked(7, None)), [""; 0], "ahead by {ahead} s, for an operator that was started anew");
        let hangs = ["Delete r-1", "Write Failed", "Release r-1", "Tell NodeHung"];
        assert_eq!(words(&looked(1000, Some(6))), hangs, "ahead by {ahead} s");
    }
}

#[test]
fn a_command_that_has_its_time_before_it_is_left_alone() {
    let told = in_phase(Phase::Running);
    for (limit, next) in [("10s", seconds(95)), ("1h", seconds(3685)), ("365d", seconds(365 * 86_400 + 85))] {
        let mut run = told.clone();
        run.spec.time_limit = Some(limit.to_owned());
        let plan = answered(&run, &pod().running(5), None, 20);
        assert_eq!((words(&plan), plan.next), (vec![], next), "{limit}");
    }
}

#[test]
fn a_helper_that_cannot_end_beside_a_run_container_that_does_not_end_says_so_by_its_readiness() {
    let run = BundleRun { spec: limited(0).spec, ..in_phase(Phase::Running) };
    let mut pod = pod().running(5);
    pod.0["status"]["initContainerStatuses"][0]["ready"] = json!(false);
    assert_eq!(words(&answered(&run, &pod, None, 20)), ["Ask 10.0.0.7"]);
    let plan = answered(&run, &pod, last_words(&time_is_up(), 1), 20);
    assert_eq!(words(&plan), ["Delete r-1", "Write Failed", "Release r-1", "Tell NodeHung"]);
}

#[test]
fn a_helper_that_hangs_and_says_nothing_has_the_time_that_the_kubelet_gives_it() {
    let mut pod = pod().run_ended(0, "Completed");
    pod.0["spec"]["terminationGracePeriodSeconds"] = json!(100);
    assert_eq!(words(&answered(&limited(0), &pod, None, 167)), ["Ask 10.0.0.7"]);
    let plan = answered(&limited(0), &pod, None, 168);
    assert_eq!(words(&plan), ["Delete r-1", "Write Failed", "Release r-1", "Tell NodeHung"]);
}

#[test]
fn a_helper_that_hangs_while_it_puts_inputs_in_place_is_given_up() {
    let mut pod = pod().running(5);
    pod.0["status"]["containerStatuses"][0]["started"] = json!(false);
    pod.0["spec"]["terminationGracePeriodSeconds"] = json!(60);
    let facts = pod.facts();
    let asked = |run: &BundleRun, progress, second| {
        let observed = Observed { progress, ..nothing_but(run, PodSeen::Ours(&facts)) };
        plan(&observed, &settings(), at(second))
    };
    let silent = || ProgressSeen::Answered(None);
    let told = with_status(&limited(0), &written(&asked(&limited(0), silent(), 20)));
    assert_eq!(told.status.as_ref().unwrap().reason.as_deref(), Some("StagingInputs"));
    // It would have given up an hour after it began, and has its grace and a minute.
    assert_eq!(words(&asked(&told, silent(), 5 + 3600 + 115)), [""; 0]);
    let hangs = ["Delete r-1", "Write Failed", "Release r-1", "Tell NodeHung"];
    assert_eq!(words(&asked(&told, silent(), 5 + 3600 + 125)), hangs);
    let alive = || ProgressSeen::Answered(Some(Progress::of(ProgressStage::Staging)));
    assert!(!words(&asked(&told, alive(), 5 + 3600 + 125)).contains(&hangs[0].to_owned()));
}

#[test]
fn a_helper_that_hangs_is_found_out_where_the_end_of_the_command_has_no_time() {
    let mut pod = pod().run_ended(137, "ContainerStatusUnknown");
    pod.0["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"] = json!(null);
    pod.0["spec"]["terminationGracePeriodSeconds"] = json!(60);
    let facts = pod.facts();
    let look_at = |run: &BundleRun, second| {
        let (progress, written_at) = (ProgressSeen::Answered(None), Some(at(20)));
        plan(&Observed { progress, written_at, ..nothing_but(run, PodSeen::Ours(&facts)) }, &settings(), at(second))
    };
    let told = with_status(&limited(0), &written(&look_at(&limited(0), 20)));
    assert_eq!(told.status.as_ref().unwrap().phase, Some(Phase::Finalizing));
    assert!(!words(&look_at(&told, 135)).contains(&"Tell NodeHung".to_owned()));
    assert!(words(&look_at(&told, 145)).contains(&"Tell NodeHung".to_owned()));
}

/// Its end is ahead as well.
#[test]
fn a_helper_on_a_node_whose_clock_is_ahead_has_all_its_time_to_save() {
    let mut pod = pod().run_ended(0, "Completed");
    pod.0["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"] = json!(time(3600));
    pod.0["spec"]["terminationGracePeriodSeconds"] = json!(60);
    let facts = pod.facts();
    let look_at = |run: &BundleRun, written_at: Option<i64>, second| {
        let (progress, written_at) = (ProgressSeen::Answered(None), written_at.map(at));
        plan(&Observed { progress, written_at, ..nothing_but(run, PodSeen::Ours(&facts)) }, &settings(), at(second))
    };
    let first = look_at(&limited(0), None, 20);
    assert_eq!(words(&first), ["Write Finalizing"]);
    let told = with_status(&limited(0), &written(&first));
    assert!(!words(&look_at(&told, Some(20), 135)).contains(&"Tell NodeHung".to_owned()));
    assert!(words(&look_at(&told, Some(20), 145)).contains(&"Tell NodeHung".to_owned()), "one that hangs is found out");
}

#[test]
fn a_helper_that_held_the_command_and_hangs_then_is_given_up_without_haste() {
    let run = limited(0);
    let mut pod = pod().running(5);
    pod.0["status"]["initContainerStatuses"][0]["ready"] = json!(false);
    pod.0["spec"]["terminationGracePeriodSeconds"] = json!(60);
    let facts = pod.facts();
    let look_at = |run: &BundleRun, progress, second| {
        let observed = Observed { progress, written_at: Some(at(20)), ..nothing_but(run, PodSeen::Ours(&facts)) };
        plan(&observed, &settings(), at(second))
    };
    let not_saved = NotSaved { failure: SaveFailure::StoreDenied, detail: "403".to_owned() };
    let store = Some(StoreTrouble { not_saved, holds: true });
    let given_up_at_ms = Some(at(125).as_millisecond());
    let held = Progress { store, given_up_at_ms, ..Progress::of(ProgressStage::Staging) };
    let told = with_status(&run, &written(&look_at(&run, ProgressSeen::Answered(Some(held)), 20)));
    assert_eq!(told.status.as_ref().unwrap().waiting.as_ref().unwrap().reason.as_deref(), Some("StoreRefused"));
    // The time limit has passed by now, and no look follows at once.
    let silent = look_at(&told, ProgressSeen::Answered(None), 200);
    assert_eq!((words(&silent), silent.next), (vec![], seconds(10)));
    let hangs = ["Delete r-1", "Write Failed", "Release r-1", "Tell NodeHung"];
    assert_eq!(words(&look_at(&told, ProgressSeen::Answered(None), 250)), hangs);
}
