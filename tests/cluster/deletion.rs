//! Deleting a run, at any phase, leaves nothing and hangs nowhere.

use bundlerun::api::{BundleRun, Phase};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, PropagationPolicy};
use serde_json::{Value, json};

use crate::common::{Space, together};
use crate::settings::OwnOperator;

/// A run in each phase that it can stay in, by name.
async fn one_of_each(space: &Space) -> Vec<&'static str> {
    let runs: [(&str, Value); 6] = [
        ("unschedulable", json!({"command": "true", "resources": {"gpus": 64}})),
        ("no-image", json!({"image": "localhost:5000/nothing:here", "command": "true"})),
        ("running", json!({"command": "sleep 1h"})),
        ("stubborn", json!({"command": "trap '' TERM; while true; do sleep 1; done"})),
        ("succeeded", json!({"command": "true"})),
        ("failed", json!({"command": "false"})),
    ];
    let names = runs.iter().map(|(name, _)| *name).collect();
    together(runs.into_iter().map(|(name, spec)| space.start(name, spec))).await;
    let waits = |name| space.until(name, "to wait", |s| s.waiting.is_some());
    let runs = |name| space.until(name, "to run", |s| s.phase == Some(Phase::Running));
    tokio::join!(
        waits("unschedulable"),
        waits("no-image"),
        runs("running"),
        runs("stubborn"),
        space.end_of("succeeded"),
        space.end_of("failed"),
    );
    names
}

async fn all_gone(space: &Space, names: &[&str]) {
    together(names.iter().map(|name| space.gone::<BundleRun>(name))).await;
    together(names.iter().map(|name| async move { space.gone::<Pod>(&format!("{name}-1")).await })).await;
}

#[tokio::test]
async fn deleting_a_run_in_any_phase_leaves_nothing() {
    let space = Space::new().await;
    let names = one_of_each(&space).await;
    for name in &names {
        space.runs().delete(name, &DeleteParams::default()).await.unwrap();
    }
    all_gone(&space, &names).await;
    space.end().await;
}

#[tokio::test]
async fn deleting_a_run_in_the_foreground_ends_its_pods_first_and_hangs_nowhere() {
    let space = Space::new().await;
    let names = one_of_each(&space).await;
    let foreground =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
    for name in &names {
        space.runs().delete(name, &foreground).await.unwrap();
    }
    all_gone(&space, &names).await;
    space.end().await;
}

#[tokio::test]
async fn a_run_deleted_just_after_it_was_made_leaves_nothing() {
    let space = Space::new().await;
    let names = ["a", "b", "c", "d"];
    for name in names {
        space.start(name, json!({"command": "sleep 1h"})).await;
        space.runs().delete(name, &DeleteParams::default()).await.unwrap();
    }
    all_gone(&space, &names).await;
    space.end().await;
}

#[tokio::test]
async fn deleting_the_namespace_with_runs_in_every_phase_hangs_nowhere() {
    let space = Space::new().await;
    one_of_each(&space).await;
    space.end().await;
}

#[tokio::test]
async fn a_run_deleted_while_the_operator_was_down_leaves_nothing() {
    let space = Space::with_own_operators().await;
    let operator = OwnOperator::usual(&space).await;
    let names = one_of_each(&space).await;
    operator.stop().await;
    for name in &names {
        space.runs().delete(name, &DeleteParams::default()).await.unwrap();
    }
    together(names.iter().map(|name| space.gone::<BundleRun>(name))).await;
    // The pods still hold what nobody has looked at.
    let held = space.pods().get("running-1").await.unwrap();
    assert!(!held.finalizers().is_empty());
    operator.go_on().await;
    all_gone(&space, &names).await;
    space.end().await;
}

#[tokio::test]
async fn a_namespace_deleted_while_the_operator_was_down_goes_when_it_is_back() {
    let space = Space::with_own_operators().await;
    let operator = OwnOperator::usual(&space).await;
    one_of_each(&space).await;
    operator.stop().await;
    let namespaces: kube::Api<k8s_openapi::api::core::v1::Namespace> = kube::Api::all(space.client.clone());
    namespaces.delete(&space.name, &DeleteParams::default()).await.unwrap();
    // Kubernetes deletes a namespace's pods before all else, and these are held by our finalizer.
    space.pod_until("running-1", "to be deleted", |pod| pod.metadata.deletion_timestamp.is_some()).await;
    operator.go_on().await;
    crate::common::watch_until(namespaces, &space.name, "to be gone", |n| n.is_none()).await;
}

#[tokio::test]
async fn a_run_of_the_same_name_made_after_a_deletion_is_another_run() {
    let space = Space::new().await;
    space.start("again", json!({"command": "trap '' TERM; while true; do sleep 1; done"})).await;
    let first = space.pod_running("again-1").await;
    space.runs().delete("again", &DeleteParams::default()).await.unwrap();
    // The first run's pod still ends: its name is taken until then.
    space.start("again", json!({"command": "echo second"})).await;
    let waiting = space.waits_at("again", "Admission").await.waiting.unwrap();
    let message = waiting.message.unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("PreviousPod"), "{message}");
    // The pod is deleted a moment after its run; then it is known until when it may take.
    let told = space.until("again", "to know until when", |status| {
        status.waiting.as_ref().is_some_and(|waiting| waiting.deadline.is_some())
    });
    assert_eq!(told.await.waiting.unwrap().until.as_deref(), Some("the deadline, then the run starts"));
    assert!(message.starts_with("pod again-1 of an earlier run of this name has not ended yet"));
    let ended = space.end_of("again").await;
    assert_eq!(ended.phase, Some(Phase::Succeeded), "{ended:#?}");
    assert_ne!(ended.attempts[0].uid, first.uid());
    space.end().await;
}
