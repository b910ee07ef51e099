//! Pods that no plan looks at: of other attempts, and of runs that are gone while a policy forbids every change.

use std::collections::BTreeSet;

use bundlerun::api::{BundleRun, Phase};
use bundlerun::names;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};

use crate::admission::PodPolicy;
use crate::audit::{self, text};
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

/// As many as are handled side by side.
#[tokio::test]
async fn sixteen_pods_that_cannot_be_released_hold_up_no_others() {
    let stuck = Space::new().await;
    let free = stuck.beside().await;
    let names: Vec<_> = (0..16).map(|i| format!("r{i}")).collect();
    // Never scheduled: what is about them is the finalizer alone.
    let waits = json!({"command": "true", "resources": {"gpus": 99}});
    let all: Vec<_> =
        [&stuck, &free].into_iter().flat_map(|space| names.iter().map(move |name| (space, name))).collect();
    together(all.iter().map(|(space, name)| space.start(name, waits.clone()))).await;
    together(all.iter().map(|(space, name)| space.waits_at(name, "Scheduling"))).await;
    let kept = format!("has(object.metadata.finalizers) && '{}' in object.metadata.finalizers", names::POD_FINALIZER);
    let denial = PodPolicy::denying(&stuck, "UPDATE", &kept, "no finalizer may go").await;
    let delete = async |space: &Space, name: &String| {
        space.runs().delete(name, &DeleteParams::default()).await.unwrap();
        space.gone::<BundleRun>(name).await;
    };
    together(names.iter().map(|name| delete(&stuck, name))).await;
    let asked = async || {
        let denied = |event: &Value| {
            text(event, "/objectRef/namespace") == stuck.name
                && event.pointer("/responseStatus/code").is_some_and(|code| code == 422)
        };
        let pods: BTreeSet<_> = audit::of_operator(denied).iter().map(|event| text(event, "/objectRef/name")).collect();
        if pods.len() == names.len() { Ok(()) } else { Err(pods) }
    };
    eventually("each to be denied", asked).await;

    together(names.iter().map(async |name| {
        delete(&free, name).await;
        free.gone::<Pod>(&format!("{name}-1")).await;
    }))
    .await;
    let held = stuck.pods().list(&ListParams::default()).await.unwrap().items.len();
    assert_eq!(held, names.len(), "the policy holds them all");

    denial.end(&stuck).await;
    eventually("all to be released", async || {
        let left = stuck.pods().list(&ListParams::default()).await.unwrap().items.len();
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await;
    stuck.end().await;
    free.end().await;
}
