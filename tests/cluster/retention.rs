//! For how long ended pods and runs are kept.

use bundlerun::api::{BundleRun, BundleRunStatus, Phase};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::audit::{self, text};
use crate::common::{Space, condition_of, eventually, left, saved_file, stdout, together, traced, watch_until};
use crate::settings::OwnOperator;

async fn set(space: &Space, run: &str, field: &str, value: Value) {
    let patch = Patch::Merge(json!({"spec": {field: value}}));
    space.runs().patch(run, &PatchParams::default(), &patch).await.unwrap();
}

/// When the end of a run was recorded.
fn over_at(status: &BundleRunStatus) -> Timestamp {
    condition_of(status, "Finished").unwrap().last_transition_time.0
}

/// The operator's requests about a resource of a namespace, as `verb name`, with their time.
fn requests(space: &Space, resource: &str) -> Vec<(String, Timestamp)> {
    let are_meant = |event: &Value| {
        text(event, "/objectRef/namespace") == space.name && text(event, "/objectRef/resource") == resource
    };
    let said = |event: &Value| format!("{} {}", text(event, "/verb"), text(event, "/objectRef/name"));
    audit::of_operator(are_meant).iter().map(|event| (said(event), audit::received(event))).collect()
}

/// When the operator deleted it; the log is written a moment later.
async fn deleted_at(space: &Space, resource: &str, name: &str) -> Timestamp {
    let delete = format!("delete {name}");
    eventually(&delete, async || {
        let all = requests(space, resource);
        all.iter().find(|(what, _)| *what == delete).map(|(_, at)| *at).ok_or(all)
    })
    .await
}

#[tokio::test]
async fn a_pod_that_is_not_kept_goes_when_its_record_is_written_and_nothing_else_is() {
    let space = Space::new().await;
    let spec = json!({"command": "echo kept; [ \"$BUNDLE_ATTEMPT\" = 2 ]", "podRetention": "0s",
        "retry": {"limit": 1, "backoff": "0s"}});
    let ended = space.run("r", spec).await;
    together(["r-1", "r-2"].map(|pod| space.gone::<Pod>(pod))).await;
    assert_eq!(
        (ended.phase, stdout(&ended), ended.attempts.len()),
        (Some(Phase::Succeeded), "kept\n", 2),
        "{ended:#?}"
    );
    assert_eq!(saved_file(&ended, "stdout"), "kept\n", "the log is in the bundle");
    let now = space.runs().get("r").await.unwrap();
    assert_eq!(now.status, Some(ended), "and the record is as it was");

    together(["r-1", "r-2"].map(|pod| deleted_at(&space, "pods", pod))).await;
    let last = requests(&space, "bundleruns").into_iter().map(|(_, at)| at).max().unwrap();
    assert!(last <= deleted_at(&space, "pods", "r-2").await, "nothing is written of it");
    space.end().await;
}

#[tokio::test]
async fn pods_of_all_attempts_go_in_time_and_not_before() {
    let space = Space::new().await;
    let trace = space.claim("trace").await;
    let kept = SignedDuration::from_secs(5);
    let mut spec = traced("[ \"$BUNDLE_ATTEMPT\" = 2 ] || exit 7; while [ ! -e trace/go ]; do sleep 0.2; done");
    spec["retry"] = json!({"limit": 1, "backoff": "0s"});
    spec["podRetention"] = json!("5s");
    space.start("r", spec).await;
    space.until("r", "to run again", |s| s.phase == Some(Phase::Running) && s.attempt == Some(2)).await;
    space.gone::<Pod>("r-1").await;
    let running = space.runs().get("r").await.unwrap().status.unwrap();
    assert_eq!(running.phase, Some(Phase::Running), "it goes on meanwhile");
    let first = running.attempts[0].finish_time.as_ref().unwrap().0;
    assert!(deleted_at(&space, "pods", "r-1").await >= first + kept);

    std::fs::write(trace.join("go"), "").unwrap();
    let ended = space.end_of("r").await;
    space.gone::<Pod>("r-2").await;
    assert_eq!(ended.phase, Some(Phase::Succeeded));
    assert!(deleted_at(&space, "pods", "r-2").await >= over_at(&ended) + kept);
    space.end().await;
}

#[tokio::test]
async fn what_a_run_says_of_it_can_change_after_its_end() {
    let space = Space::new().await;
    let ended = space.run("r", json!({"command": "true", "podRetention": "1h"})).await;
    set(&space, "r", "podRetention", json!("0s")).await;
    space.gone::<Pod>("r-1").await;
    let now = watch_until(space.runs(), "r", "to be current", |run: Option<&BundleRun>| {
        run.and_then(|run| run.status.as_ref()).is_some_and(|status| status.observed_generation == Some(2))
    })
    .await
    .unwrap();
    let mut current = BundleRunStatus { observed_generation: Some(2), ..ended };
    current.conditions.iter_mut().for_each(|condition| condition.observed_generation = Some(2));
    assert_eq!(now.status.unwrap(), current);

    let trace = space.claim("trace").await;
    let mut waits = traced("while [ ! -e trace/go ]; do sleep 0.2; done");
    waits["ttlSecondsAfterFinished"] = json!(1);
    space.start("stays", waits).await;
    left(&trace, "starts").await;
    set(&space, "stays", "ttlSecondsAfterFinished", Value::Null).await;
    std::fs::write(trace.join("go"), "").unwrap();
    space.end_of("stays").await;
    // It ends later, and is kept as long as the other was to be.
    space.start("goes", json!({"command": "true", "ttlSecondsAfterFinished": 1})).await;
    space.gone::<BundleRun>("goes").await;
    set(&space, "r", "ttlSecondsAfterFinished", json!(0)).await;
    space.gone::<BundleRun>("r").await;
    assert!(space.runs().get_opt("stays").await.unwrap().is_some(), "and is still there");
    space.end().await;
}

#[tokio::test]
async fn a_run_is_deleted_in_time_and_those_that_have_it_as_input_go_on() {
    let space = Space::new().await;
    let trace = space.claim("trace").await;
    let parent = space.run("parent", json!({"command": "echo 7 >seven"})).await;
    let of_parent = json!([{"path": "p", "run": {"name": "parent"}}]);
    let mut spec = traced("while [ ! -e trace/go ]; do sleep 0.2; done; cat p/seven");
    spec["inputs"] = of_parent.clone();
    space.start("child", spec).await;
    left(&trace, "starts").await;
    set(&space, "parent", "ttlSecondsAfterFinished", json!(5)).await;
    space.gone::<BundleRun>("parent").await;
    space.gone::<Pod>("parent-1").await;
    let deleted = deleted_at(&space, "bundleruns", "parent").await;
    assert!(deleted >= over_at(&parent) + SignedDuration::from_secs(5));

    space.start("late", json!({"command": "true", "inputs": of_parent})).await;
    let waiting = |s: &BundleRunStatus| s.waiting.as_ref().and_then(|w| w.reason.as_deref()) == Some("InputMissing");
    space.until("late", "to wait for its input", waiting).await;
    std::fs::write(trace.join("go"), "").unwrap();
    let child = space.end_of("child").await;
    assert_eq!((child.phase, stdout(&child)), (Some(Phase::Succeeded), "7\n"), "{child:#?}");
    assert_eq!(saved_file(&parent, "seven"), "7\n", "the store keeps it");
    space.end().await;
}

#[tokio::test]
async fn an_operator_that_starts_goes_on_with_what_is_kept() {
    let space = Space::with_own_operators().await;
    let operator = OwnOperator::usual(&space).await;
    let kept = SignedDuration::from_secs(20);
    let (timed, lives, _, _) = tokio::join!(
        space.run("timed", json!({"command": "true", "podRetention": "20s"})),
        space.run("lives", json!({"command": "true", "ttlSecondsAfterFinished": 20})),
        space.run("changed", json!({"command": "true"})),
        space.run("kept", json!({"command": "true"})),
    );
    operator.stop().await;
    // As somebody does while the operator is away.
    set(&space, "changed", "podRetention", json!("1s")).await;
    operator.go_on().await;
    together(["timed-1", "changed-1"].map(|pod| space.gone::<Pod>(pod))).await;
    space.gone::<BundleRun>("lives").await;
    space.gone::<Pod>("lives-1").await;
    assert!(deleted_at(&space, "pods", "timed-1").await >= over_at(&timed) + kept);
    assert!(deleted_at(&space, "bundleruns", "lives").await >= over_at(&lives) + kept);
    let pod = space.pods().get("kept-1").await.unwrap();
    assert_eq!((pod.metadata.deletion_timestamp.clone(), pod.finalizers()), (None, [].as_slice()));
    space.end().await;
}
