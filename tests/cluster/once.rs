//! One pod per attempt, one execution per attempt, whatever happens around it. The command leaves a line on a claim
//! each time it starts, so that a second start cannot hide.

use std::collections::BTreeSet;
use std::time::Duration;

use bundlerun::api::{BundleRunStatus, Phase};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::common::{Space, cause, eventually, run, starts, stdout, together, traced};
use crate::settings::OwnOperator;

#[tokio::test]
async fn the_same_manifest_applied_again_changes_nothing() {
    let space = Space::new().await;
    let trace = space.claim("trace").await;
    let manifest = run("same", traced("sleep 1"));
    let apply = PatchParams::apply("test").force();
    for _ in 0..2 {
        space.runs().patch("same", &apply, &Patch::Apply(&manifest)).await.unwrap();
    }
    let ended = space.end_of("same").await;
    let before = space.runs().get("same").await.unwrap();
    let after = space.runs().patch("same", &apply, &Patch::Apply(&manifest)).await.unwrap();
    assert_eq!(before.resource_version(), after.resource_version(), "a no-op");
    assert_eq!(ended.phase, Some(Phase::Succeeded));
    assert_eq!(starts(&trace), ["same 1"]);
    assert_eq!(space.pods().list(&ListParams::default()).await.unwrap().items.len(), 1);
    space.end().await;
}

#[tokio::test]
async fn a_pod_deleted_by_hand_is_an_interruption_and_the_next_attempt_runs_once() {
    let space = Space::new().await;
    let trace = space.claim("trace").await;
    // The first attempt would run for ever; the second ends at once.
    space.start("deleted", traced("[ \"$BUNDLE_ATTEMPT\" = 2 ] || sleep 1h")).await;
    space.pod_running("deleted-1").await;
    eventually("the command to start", async || if starts(&trace).is_empty() { Err("not yet") } else { Ok(()) }).await;
    space.pods().delete("deleted-1", &DeleteParams::default()).await.unwrap();
    let ended = space.end_of("deleted").await;
    assert_eq!(starts(&trace), ["deleted 1", "deleted 2"]);
    assert_eq!((ended.phase, ended.attempt), (Some(Phase::Succeeded), Some(2)));
    let causes: Vec<_> = ended.attempts.iter().map(|a| a.cause.clone().unwrap()).collect();
    assert_eq!(causes, ["PodDeleted", "Completed"]);
    assert!(ended.attempts[0].finish_time <= ended.attempts[1].start_time, "attempts never overlap: {ended:#?}");
    space.end().await;
}

#[tokio::test]
async fn a_failed_command_is_tried_again_as_often_as_it_may() {
    let space = Space::new().await;
    let trace = space.claim("trace").await;
    let failing = |retry: Value| {
        let mut spec = traced("[ \"$BUNDLE_ATTEMPT\" = 3 ] || exit 7");
        spec["retry"] = retry;
        spec
    };
    let resuming = json!({"command": "cat step || { echo 1 >step; \"$BUNDLE_SNAPSHOT\" >snapshot && kill -SEGV $$; }",
        "retry": {"limit": 1, "backoff": "0s", "resume": true}});
    let waits = |status: &BundleRunStatus| status.reason.as_deref() == Some("RetryBackOff");
    let twice = async {
        space.start("twice", failing(json!({"limit": 2, "backoff": "15s"}))).await;
        let waiting = space.until("twice", "to wait for its second attempt", waits).await.waiting.unwrap();
        (space.end_of("twice").await, waiting)
    };
    let ((twice, waiting), once, resumed) = tokio::join!(
        twice,
        space.run("once", failing(json!({"limit": 1, "backoff": "1s"}))),
        space.run("resumed", resuming),
    );
    let causes = |status: &BundleRunStatus| -> Vec<_> {
        status.attempts.iter().map(|attempt| attempt.cause.clone().unwrap()).collect()
    };
    assert_eq!((twice.phase, twice.retried_failures), (Some(Phase::Succeeded), Some(2)), "{twice:#?}");
    assert_eq!(causes(&twice), ["CommandFailed", "CommandFailed", "Completed"]);
    let begun = twice.attempts[1].start_time.as_ref().unwrap();
    assert!(
        begun >= waiting.deadline.as_ref().unwrap() && waiting.deadline > twice.attempts[0].finish_time,
        "{twice:#?}"
    );
    assert_eq!((once.phase, once.exit_code, once.attempt), (Some(Phase::Failed), Some(7), Some(2)), "{once:#?}");
    let mut all = starts(&trace);
    all.sort_unstable();
    assert_eq!(all, ["once 1", "once 2", "twice 1", "twice 2", "twice 3"]);
    assert_eq!((causes(&resumed), stdout(&resumed)), (vec!["CommandKilled".into(), "Completed".into()], "1\n"));
    space.end().await;
}

#[tokio::test]
async fn a_deleted_pod_is_never_success() {
    let space = Space::new().await;
    // The command ends well when asked to stop: that is no success.
    let spec = json!({"command": "trap 'exit 0' TERM; echo ready; while true; do sleep 0.1; done",
        "retry": {"interruptions": 0}});
    space.start("deleted", spec).await;
    space.pod_running("deleted-1").await;
    eventually("the command to start", async || {
        if space.logs("deleted-1").await.contains("ready") { Ok(()) } else { Err("not yet") }
    })
    .await;
    space.pods().delete("deleted-1", &DeleteParams::default()).await.unwrap();
    let ended = space.end_of("deleted").await;
    assert_eq!((ended.phase, cause(&ended), ended.exit_code), (Some(Phase::Failed), "PodDeleted", Some(0)));
    space.gone::<Pod>("deleted-1").await;
    space.end().await;
}

#[tokio::test]
async fn the_operator_killed_ten_times_starts_no_command_twice_and_loses_no_record() {
    let space = Space::with_own_operators().await;
    let operator = OwnOperator::usual(&space).await;
    let trace = space.claim("trace").await;
    let names: Vec<_> = (0..20).map(|i| format!("run-{i:02}")).collect();
    // Moments without pattern, the same in every run of the test.
    let moments = [0, 70, 900, 310, 1700, 20, 2600, 450, 1200, 3300];
    let mut waiting = names.iter();
    for moment in moments {
        // Two new runs before each kill, so that every phase is met.
        for name in waiting.by_ref().take(2) {
            space.start(name, traced("sleep 2; echo done")).await;
        }
        tokio::time::sleep(Duration::from_millis(moment)).await;
        operator.kill().await;
    }
    operator.ready().await;
    let ended = together(names.iter().map(|name| space.end_of(name))).await;
    for (name, status) in names.iter().zip(&ended) {
        assert_eq!((status.phase, status.attempt), (Some(Phase::Succeeded), Some(1)), "{name}: {status:#?}");
        assert_eq!(stdout(status), "done\n", "{name}");
    }
    let expected: BTreeSet<_> = names.iter().map(|n| format!("{n} 1")).collect();
    assert_eq!(starts(&trace), expected.into_iter().collect::<Vec<_>>());
    assert_eq!(space.pods().list(&ListParams::default()).await.unwrap().items.len(), names.len());
    // The release follows the record.
    let pods: Vec<_> = names.iter().map(|name| format!("{name}-1")).collect();
    together(pods.iter().map(|pod| space.pod_until(pod, "to be let go", |pod| pod.finalizers().is_empty()))).await;
    space.end().await;
}
