//! `stop`, as people and GitOps set it and take it back.

use bundlerun::api::Phase;
use bundlerun::names;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde_json::json;

use crate::admission::PodPolicy;
use crate::common::{Space, stdout, watch_until};

async fn set(space: &Space, run: &str, stop: bool) {
    let patch = Patch::Merge(json!({"spec": {"stop": stop}}));
    space.runs().patch(run, &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test]
async fn a_stop_that_is_taken_back_while_the_pod_ends_is_a_stop() {
    let space = Space::new().await;
    let saves =
        "trap 'echo saving; while [ ! -e /tmp/go ]; do sleep 0.1; done; exit 0' TERM; while true; do sleep 0.1; done";
    space.start("stopped", json!({"command": saves})).await;
    space.until("stopped", "to run", |s| s.phase == Some(Phase::Running)).await;
    set(&space, "stopped", true).await;
    space.until("stopped", "to have seen it", |s| s.stop_requested_at.is_some()).await;
    set(&space, "stopped", false).await;
    // Its helper is told; the pod is not deleted, and has all time for saving.
    let told = |pod: &Pod| pod.annotations().get(names::STOP_ANNOTATION).is_some_and(|order| !order.is_empty());
    let pod = space.pod_until("stopped-1", "to be told", told).await;
    assert_eq!(pod.metadata.deletion_timestamp, None);
    let ended = space.end_of("stopped").await;
    assert_eq!((ended.phase, ended.attempt, ended.attempts.len()), (Some(Phase::Stopped), Some(1), 1), "{ended:#?}");
    assert!(stdout(&ended).contains("saving"));
    let message = ended.message.as_deref().unwrap();
    assert!(
        message.starts_with("ended because stop was set: the command was ended by signal 9 (SIGKILL)"),
        "{message}"
    );
    space.end().await;
}

/// A policy lets the pod be neither changed nor deleted: that is on the run, and it ends when the policy lets it.
#[tokio::test]
async fn a_stop_that_a_policy_is_in_the_way_of_is_told_and_carried_out_later() {
    let space = Space::new().await;
    space.start("held", json!({"command": "echo kept >file; sleep 1h"})).await;
    space.until("held", "to run", |s| s.phase == Some(Phase::Running)).await;
    let changes = PodPolicy::denying(&space, "UPDATE", "false", "nothing changes here").await;
    let deletions = PodPolicy::denying(&space, "DELETE", "false", "nothing goes").await;
    set(&space, "held", true).await;
    for (what, policy) in [("changed", "nothing changes here"), ("deleted", "nothing goes")] {
        let message =
            format!("stop was set: the attempt is being ended; the API server does not let its pod be {what}: ");
        let says = |s: &bundlerun::api::BundleRunStatus| {
            s.message.as_deref().is_some_and(|told| told.starts_with(&message) && told.contains(policy))
        };
        space.until("held", "to say why it does not end", says).await;
    }
    assert!(space.events("held").await.iter().any(|event| event.reason.as_deref() == Some("PodChangeRefused")));
    deletions.end(&space).await;
    let ended = space.end_of("held").await;
    assert_eq!((ended.phase, ended.attempts.len()), (Some(Phase::Stopped), 1), "{ended:#?}");
    assert!(ended.output.unwrap().bundle.is_some(), "it could not be told, and had its time to save");
    changes.end(&space).await;
    space.gone::<Pod>("held-1").await;
    space.end().await;
}

#[tokio::test]
async fn a_finished_run_whose_spec_changes_is_current_for_kstatus() {
    let space = Space::new().await;
    let ended = space.run("over", json!({"command": "true"})).await;
    set(&space, "over", true).await;
    let now = watch_until(space.runs(), "over", "to be current", |run: Option<&bundlerun::api::BundleRun>| {
        run.is_some_and(|run| {
            let seen = run.status.as_ref().and_then(|status| status.observed_generation);
            run.meta().generation == Some(2) && seen == Some(2)
        })
    })
    .await
    .unwrap();
    let status = now.status.unwrap();
    assert_eq!((status.phase, status.finish_time), (Some(Phase::Succeeded), ended.finish_time));
    space.end().await;
}
