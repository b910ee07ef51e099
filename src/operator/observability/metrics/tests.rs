use kube_runtime::reflector;
use kube_runtime::watcher::Event;
use serde_json::{Value, json};

use super::*;

fn status(value: Value) -> BundleRunStatus {
    serde_json::from_value(value).unwrap()
}

/// The lines of the exposition that begin with one of these and do not say zero.
fn lines(metrics: &Metrics, begins: &[&str]) -> Vec<String> {
    let (runs, _writer) = reflector::store();
    let text = metrics.exposition(&runs, &Leadership::always());
    let lines = text.lines().filter(|line| !line.ends_with(" 0") && !line.ends_with(" 0.0"));
    lines.filter(|line| begins.iter().any(|begin| line.starts_with(begin))).map(str::to_owned).collect()
}

const RUNNING: &str = "2026-01-02T03:04:05Z";
const ENDED: &str = "2026-01-02T03:05:05Z";

fn running() -> BundleRunStatus {
    let attempt = json!({"attempt": 1, "uid": "u1", "startTime": RUNNING});
    status(json!({"phase": "Running", "attempt": 1, "attempts": [attempt]}))
}

fn ended(phase: &str, result: &Value) -> BundleRunStatus {
    let attempt =
        json!({"attempt": 1, "uid": "u1", "startTime": RUNNING, "finishTime": ENDED, "cause": result["cause"]});
    let timeline = json!({"waitingMilliseconds": 1000, "schedulingMilliseconds": 3000,
        "pullingMilliseconds": 9000, "runningMilliseconds": 60_000, "savingMilliseconds": 2000});
    let output = json!({"bundle": "r@sha256:1", "files": 2, "bytes": 1000});
    status(json!({"phase": phase, "attempt": 1, "attempts": [attempt], "timeline": timeline, "output": output,
        "result": result}))
}

#[test]
fn an_ending_becomes_numbers_once() {
    let metrics = Metrics::new();
    let after = ended("Succeeded", &json!({"cause": "Completed"}));
    metrics.status_written("ml", 2, Some(&running()), &after);
    metrics.status_written("ml", 2, Some(&after), &after);
    let expected = [
        r#"bundlerun_completions_total{phase="Succeeded",cause="Completed",blame="None"} 1"#,
        "bundlerun_run_duration_seconds_sum 60.0",
        "bundlerun_run_duration_seconds_count 1",
        r#"bundlerun_gpu_seconds_total{run_namespace="ml",verdict="Succeeded"} 120.0"#,
        "bundlerun_saved_bytes_total 1000",
    ];
    let begins = [
        "bundlerun_completions",
        "bundlerun_run_duration_seconds_sum",
        "bundlerun_run_duration_seconds_count",
        "bundlerun_gpu",
        "bundlerun_saved",
        "bundlerun_attempts",
    ];
    assert_eq!(lines(&metrics, &begins), expected);
    let mut sums = lines(&metrics, &["bundlerun_waiting_seconds_sum"]);
    sums.sort();
    let sum = |stage: &str, seconds: &str| format!("bundlerun_waiting_seconds_sum{{stage=\"{stage}\"}} {seconds}");
    let expected = [("pulling", "9.0"), ("saving", "2.0"), ("scheduling", "3.0"), ("waiting", "1.0")];
    assert_eq!(sums, expected.map(|(stage, seconds)| sum(stage, seconds)));
}

#[test]
fn a_retried_attempt_counts_its_cause_and_its_gpus_and_is_no_completion() {
    let metrics = Metrics::new();
    let first = json!({"attempt": 1, "uid": "u1", "startTime": RUNNING, "finishTime": ENDED, "cause": "PodDeleted"});
    let retried = status(json!({"phase": "Pending", "attempt": 2, "attempts": [first]}));
    metrics.status_written("ml", 1, Some(&running()), &retried);
    let second = json!({"attempt": 2, "uid": "u2"});
    let again = status(json!({"phase": "Pending", "attempt": 2, "attempts": [first, second]}));
    metrics.status_written("ml", 1, Some(&retried), &again);
    let begins = ["bundlerun_attempts_retried", "bundlerun_gpu", "bundlerun_completions", "bundlerun_saved"];
    let expected = [
        r#"bundlerun_attempts_retried_total{cause="PodDeleted"} 1"#,
        r#"bundlerun_gpu_seconds_total{run_namespace="ml",verdict="Interrupted"} 60.0"#,
    ];
    assert_eq!(lines(&metrics, &begins), expected);
    // What the second went on from is told when it has ended.
    let mut third = again.clone();
    third.attempt = Some(3);
    third.attempts[1].finish_time = again.attempts[0].finish_time.clone();
    third.attempts[1].resumed_from = Some("r@sha256:0".into());
    metrics.status_written("ml", 1, Some(&again), &third);
    let seconds = lines(&metrics, &["bundlerun_attempts_retried_seconds"]);
    assert_eq!(seconds, [r#"bundlerun_attempts_retried_seconds_total{from="snapshot"} 60.0"#]);
}

#[test]
fn a_reason_that_is_not_ours_is_other_so_that_labels_stay_few() {
    let metrics = Metrics::new();
    for i in 0..100 {
        let result = json!({"cause": format!("SomebodysReason{i}"), "blame": "Platform"});
        metrics.status_written("ml", 0, Some(&running()), &ended("Failed", &result));
    }
    let result = json!({"cause": "TimeLimitExceeded", "blame": "User"});
    metrics.status_written("ml", 0, None, &ended("Failed", &result));
    let mut found = lines(&metrics, &["bundlerun_completions"]);
    found.sort();
    let expected = [
        r#"bundlerun_completions_total{phase="Failed",cause="TimeLimitExceeded",blame="User"} 1"#,
        r#"bundlerun_completions_total{phase="Failed",cause="other",blame="Platform"} 100"#,
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_message_that_nobody_knows_is_counted_by_who_said_it() {
    let metrics = Metrics::new();
    let waits = |stage: &str, reason: &str, message: &str| {
        let waiting = json!({"stage": stage, "reason": reason, "message": message});
        status(json!({"phase": "Pending", "attempt": 1, "waiting": waiting}))
    };
    let new = waits("ImagePull", "ErrImagePull", "the registry says something new");
    metrics.status_written("ml", 0, None, &new);
    metrics.status_written("ml", 0, Some(&new), &new);
    metrics.status_written("ml", 0, None, &waits("ImagePull", "ErrImagePull", "manifest unknown"));
    metrics.status_written("ml", 0, None, &waits("Inputs", "InputMissing", "words of ours"));
    let evicted = json!({"attempt": 1, "uid": "u1", "finishTime": ENDED, "cause": "Evicted"});
    let message = "attempt 1 was interrupted: something new";
    let retried = json!({"phase": "Pending", "attempt": 2, "attempts": [evicted], "message": message});
    metrics.status_written("ml", 0, Some(&running()), &status(retried));
    let mut found = lines(&metrics, &["bundlerun_unknown_messages"]);
    found.sort();
    let expected = ["eviction", "image"].map(|s| format!("bundlerun_unknown_messages_total{{source=\"{s}\"}} 1"));
    assert_eq!(found, expected);
}

#[test]
fn runs_are_counted_as_the_cache_has_them() {
    let metrics = Metrics::new();
    let (runs, mut writer) = reflector::store();
    for (name, phase) in [("a", "Running"), ("b", "Running"), ("c", "Failed")] {
        let run = json!({"metadata": {"name": name, "namespace": "n"}, "spec": {"command": "true"},
            "status": {"phase": phase}});
        writer.apply_watcher_event(&Event::Apply(serde_json::from_value(run).unwrap()));
    }
    let unreadable = json!({"metadata": {"name": "d", "namespace": "n"}, "spec": {"command": 7}});
    writer.apply_watcher_event(&Event::Apply(serde_json::from_value(unreadable).unwrap()));
    let text = metrics.exposition(&runs, &Leadership::not_yet());
    for line in [
        r#"bundlerun_runs{phase="Running"} 2"#,
        r#"bundlerun_runs{phase="Failed"} 1"#,
        r#"bundlerun_runs{phase="Waiting"} 0"#,
        "bundlerun_invalid_objects 1",
        r#"leader_election_master_status{name="bundle-operator"} 0"#,
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_run_waits_in_the_queue_once_however_often_it_is_triggered() {
    let metrics = Metrics::new();
    for _ in 0..3 {
        metrics.triggered("a", Some("n"));
    }
    metrics.triggered("b", Some("n"));
    metrics.taken("b", Some("n"));
    metrics.reconcile_begun();
    metrics.reconciled(ReconcileResult::Failed, Duration::from_millis(5));
    metrics.answered(&Method::PUT, Some(StatusCode::CONFLICT));
    metrics.answered(&Method::GET, None);
    let mut found = lines(
        &metrics,
        &["workqueue", "rest_client", "controller_runtime_reconcile_errors", "controller_runtime_reconcile_total"],
    );
    found.sort();
    let expected = [
        r#"controller_runtime_reconcile_errors_total{controller="bundlerun"} 1"#,
        r#"controller_runtime_reconcile_total{controller="bundlerun",result="error"} 1"#,
        r#"rest_client_requests_total{code="409",method="PUT"} 1"#,
        r#"rest_client_requests_total{code="<error>",method="GET"} 1"#,
        r#"workqueue_adds_total{name="bundlerun"} 4"#,
        r#"workqueue_depth{name="bundlerun"} 1"#,
    ];
    assert_eq!(found, expected);
}
