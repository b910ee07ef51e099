//! Pods that no plan looks at: of other attempts, and of runs that are gone while a policy forbids every change.

use bundlerun::api::Phase;
use bundlerun::names;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;

use crate::admission::PodPolicy;
use crate::common::{Space, eventually, together};

/// What an operator that did not know of the run's end would have made.
#[tokio::test]
async fn a_pod_of_another_attempt_is_ended_and_released() {
    let space = Space::new().await;
    let ended = space.run("over", json!({"command": "true"})).await;
    let image = ended.image.unwrap().requested.unwrap();
    let run = space.runs().get("over").await.unwrap();
    let stray = json!({
        "metadata": {
            "name": "over-2", "finalizers": [names::POD_FINALIZER],
            "labels": {names::RUN_LABEL: "over", names::RUN_UID_LABEL: run.uid(), names::ATTEMPT_LABEL: "2"},
            "ownerReferences": [{"apiVersion": format!("{}/{}", names::GROUP, names::VERSION), "kind": names::KIND,
                "name": "over", "uid": run.uid(), "controller": true}]},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [
            {"name": "run", "image": image, "command": ["sleep", "3600"]}]}});
    space.pods().create(&PostParams::default(), &serde_json::from_value(stray).unwrap()).await.unwrap();
    space.gone::<Pod>("over-2").await;
    let now = space.runs().get("over").await.unwrap().status.unwrap();
    assert_eq!((now.phase, now.attempt), (Some(Phase::Succeeded), Some(1)));
    space.end().await;
}

#[tokio::test]
async fn pods_that_cannot_be_released_hold_up_no_others() {
    let stuck = Space::new().await;
    let free = stuck.beside().await;
    let names: Vec<_> = (0..17).map(|i| format!("r{i}")).collect();
    // Never scheduled: what is about them is the finalizer alone.
    let waits = json!({"command": "true", "resources": {"gpus": 99}});
    together(names.iter().map(|name| stuck.start(name, waits.clone()))).await;
    together(names.iter().map(|name| stuck.waits_at(name, "Scheduling"))).await;
    let kept = format!("has(object.metadata.finalizers) && '{}' in object.metadata.finalizers", names::POD_FINALIZER);
    let denial = PodPolicy::denying(&stuck, "UPDATE", &kept, "no finalizer may go").await;
    together(names.iter().map(async |name| {
        stuck.runs().delete(name, &DeleteParams::default()).await.unwrap();
        stuck.gone::<bundlerun::api::BundleRun>(name).await;
    }))
    .await;

    free.start("r", waits).await;
    free.waits_at("r", "Scheduling").await;
    free.runs().delete("r", &DeleteParams::default()).await.unwrap();
    free.gone::<Pod>("r-1").await;
    let held = stuck.pods().list(&ListParams::default()).await.unwrap().items.len();
    assert!(held > 0, "the policy holds none: the test shows nothing");
    println!("{held} of 17 pods are held by the policy");

    denial.end(&stuck).await;
    eventually("all to be released", async || {
        let left = stuck.pods().list(&ListParams::default()).await.unwrap().items.len();
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await;
    stuck.end().await;
    free.end().await;
}
