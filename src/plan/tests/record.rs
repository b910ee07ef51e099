//! What is written of an ended run.

use super::*;
use crate::api::status::{Timeline, Usage};

fn ended(record: &Record) -> BundleRunStatus {
    written(&look_at(&run(), &pod().reported(record), 12))
}

#[test]
fn everything_that_was_seen_is_on_the_object() {
    let mut full = record(3);
    full.usage.cpu_user_ms = 1500;
    full.usage.cpu_system_ms = 20;
    full.usage.memory_peak_bytes = 4096;
    let status = ended(&full);
    assert_eq!((status.exit_code, status.signal, status.attempt), (Some(3), None, Some(1)));
    assert_eq!((status.start_time, status.finish_time), (Some(Time(at(5))), Some(Time(at(8)))));
    let usage = Usage {
        wall_milliseconds: Some(2500),
        cpu_user_milliseconds: Some(1500),
        cpu_system_milliseconds: Some(20),
        memory_peak_bytes: Some(4096),
    };
    assert_eq!((status.usage, status.duration.as_deref()), (Some(usage), Some("2s")));
    let output = status.output.unwrap();
    assert_eq!((output.files, output.bytes), (Some(2), Some(7)));
    assert_eq!((output.stdout_tail.as_deref(), output.stderr_tail.as_deref()), (Some("out\n"), Some("err\n")));
    assert_eq!(status.attempts.len(), 1);
    assert_eq!(status.attempts[0].exit_code, Some(3));
    assert_eq!(status.attempts[0].cause.as_deref(), Some("CommandFailed"));
}

#[test]
fn the_timeline_tells_where_the_time_went() {
    let timeline = Timeline {
        waiting_milliseconds: Some(1000),
        scheduling_milliseconds: Some(1000),
        pulling_milliseconds: Some(3000),
        running_milliseconds: Some(2500),
        saving_milliseconds: Some(1000),
        ..Timeline::default()
    };
    assert_eq!(ended(&record(0)).timeline, Some(timeline));
}

#[test]
fn the_next_attempt_waits_from_the_end_of_the_last_one() {
    let run = with_status(&run(), &written(&look_at(&run(), &pod().failed("Evicted", ""), 100)));
    let mut second = pod().of_attempt(2).reported(&record(0));
    second.0["metadata"]["creationTimestamp"] = json!(time(107));
    assert_eq!(written(&look_at(&run, &second, 200)).timeline.unwrap().waiting_milliseconds, Some(7000));
}

#[test]
fn no_time_is_negative() {
    let scheduled_early = pod().reported(&record(0)).condition("PodScheduled", "True", "", "", -5);
    let timeline = written(&look_at(&run(), &scheduled_early, 12)).timeline.unwrap();
    assert_eq!(timeline.scheduling_milliseconds, Some(0));
}

#[test]
fn a_command_that_never_began_used_nothing() {
    let status = ended(&never_ran(Cause::NoShell));
    assert_eq!((status.usage, status.duration, status.timeline.unwrap().running_milliseconds), (None, None, None));
    assert!(status.conditions.iter().all(|c| c.type_ != "OutputSaved"));
}

#[test]
fn no_attempt_begins_after_its_end() {
    // The runtime noted the start of the container at 5, when the runner had given up already.
    let finished_at_ms = at(4).as_millisecond() + 900;
    let late = ended(&Record { finished_at_ms, ..never_ran(Cause::CommandNotFound) });
    let forged = ended(&Record { started_at_ms: Some(at(9).as_millisecond()), finished_at_ms, ..record(0) });
    for status in [late, forged] {
        assert_eq!((status.start_time, status.finish_time), (Some(Time(at(4))), Some(Time(at(4)))));
        assert_eq!(status.attempts[0].start_time, Some(Time(at(4))));
    }
}

#[test]
fn an_ending_without_a_record_has_the_time_it_was_seen() {
    let plan = look_at(&in_attempt(4), &pod().of_attempt(4).failed("Evicted", "low on memory"), 12);
    let status = written(&plan);
    assert_eq!((status.finish_time, status.exit_code, status.output), (Some(Time(at(12))), None, None));
}

#[test]
fn a_warning_of_the_runner_is_told() {
    let status = ended(&Record { detail: ".bashrc returned status 1".into(), ..record(0) });
    assert_eq!(status.message.as_deref(), Some("the command exited with 0; .bashrc returned status 1"));
}

#[test]
fn a_forged_record_makes_no_status_that_the_api_server_refuses() {
    for ms in [i64::MIN, -377_705_000_000_000, -1, 0, i64::MAX] {
        let mut forged = Record { started_at_ms: Some(ms), finished_at_ms: ms, ..record(0) };
        forged.usage = crate::contract::Usage { memory_peak_bytes: u64::MAX, wall_ms: u64::MAX, ..forged.usage };
        let status = ended(&forged);
        // The container was there from 5 to 8, as far as the kubelet knows.
        let (start, finish) = (status.start_time.unwrap(), status.finish_time.unwrap());
        assert!(at(0) <= start.0 && start <= finish && finish.0 <= at(13), "{ms}: {start:?}, {finish:?}");
        let longest = Some(13_000);
        assert_eq!(status.usage.unwrap().wall_milliseconds, longest);
        assert_eq!(status.timeline.unwrap().running_milliseconds, longest);
        assert_eq!(status.usage.unwrap().memory_peak_bytes, Some(i64::MAX.unsigned_abs()));
    }
}

#[test]
fn a_record_of_a_container_that_the_kubelet_has_lost_has_no_times_from_before_its_pod() {
    let forged = Record { started_at_ms: Some(0), finished_at_ms: 0, ..record(0) };
    let mut lost = pod().reported(&forged);
    let ended = &mut lost.0["status"]["containerStatuses"][0]["state"]["terminated"];
    *ended = json!({"exitCode": 137, "reason": "ContainerStatusUnknown"});
    let status = written(&look_at(&run(), &lost, 20));
    let made = lost.facts().created_at().unwrap();
    let start = status.start_time.or_else(|| status.attempts[0].start_time.clone()).unwrap().0;
    assert!(made.duration_since(start).as_secs() <= 5, "{start}");
    assert!(status.usage.unwrap().wall_milliseconds <= Some(25_000));
}

#[test]
fn sizes_over_an_int64_are_cut() {
    let report = Report { record: Some(record(0)), files: u64::MAX, bytes: u64::MAX, ..Report::default() };
    let pod = pod().run_ended(0, "Completed").helper_ended(0, &Message::encode(&report, b"", b""));
    let output = written(&look_at(&run(), &pod, 12)).output.unwrap();
    assert_eq!((output.files, output.bytes), (Some(i64::MAX.unsigned_abs()), Some(i64::MAX.unsigned_abs())));
}

#[test]
fn the_last_ten_attempts_are_kept() {
    let mut run = run();
    run.spec.retry.interruptions = Some(100);
    for attempt in 1..=15 {
        let plan = look_at(&run, &pod().of_attempt(attempt).failed("Evicted", ""), 12);
        run = with_status(&run, &written(&plan));
    }
    let attempts: Vec<_> = run.status.unwrap().attempts.iter().map(|a| a.attempt).collect();
    assert_eq!(attempts, (6..=15).collect::<Vec<_>>());
}

#[test]
fn the_next_attempt_has_no_start_and_no_node_yet() {
    let running = with_status(&run(), &written(&look_at(&run(), &pod().running(5), 7)));
    let status = written(&look_at(&running, &pod().running(5).failed("Evicted", ""), 12));
    assert_eq!((status.start_time, status.node, status.phase), (None, None, Some(Phase::Pending)));
    assert_eq!(status.attempts[0].node.as_deref(), Some("node-a"));
    assert!(status.message.unwrap().starts_with("attempt 1 was interrupted: "));
}
