//! Operator and definition of different versions: nobody misreads the other, and what runs goes on.

use bundlerun::api::crd::crd;
use bundlerun::api::{BundleRunStatus, Phase};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};

use crate::bad_input::{define, object, until_answer, untyped};
use crate::common::{Space, cause, left};

fn ours() -> Value {
    serde_json::to_value(crd().unwrap()).unwrap()
}

fn changed(change: impl FnOnce(&mut Value)) -> Value {
    let mut crd = ours();
    change(&mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]);
    crd
}

fn waits_for(reason: &'static str) -> impl Fn(&BundleRunStatus) -> bool {
    move |status| status.waiting.as_ref().is_some_and(|waiting| waiting.reason.as_deref() == Some(reason))
}

async fn pods(space: &Space) -> Vec<String> {
    space.pods().list(&ListParams::default()).await.unwrap().iter().map(ResourceExt::name_any).collect()
}

#[tokio::test]
async fn under_an_older_definition_no_attempt_begins_and_all_else_goes_on() {
    let space = Space::exclusive().await;
    let trace = space.claim("trace").await;
    let until_told = json!({"command": "echo 1 >trace/up-$BUNDLE_NAME-$BUNDLE_ATTEMPT; until [ -e trace/go ]; do sleep 0.1; done",
        "volumes": [{"path": "trace", "claim": {"name": "trace"}}]});
    for name in ["ends", "interrupted"] {
        space.start(name, until_told.clone()).await;
        left(&trace, &format!("up-{name}-1")).await;
    }
    space.start("child", json!({"command": "true", "inputs": [{"path": "p", "run": {"name": "parent"}}]})).await;
    space.until("child", "to wait for its parent", waits_for("InputMissing")).await;

    // Before version 0.1.0 there was no such field.
    define(&space, changed(|schema| drop(schema["status"]["properties"].as_object_mut().unwrap().remove("duration"))))
        .await;
    // From here on the operator knows of it.
    let held = space.until("child", "to be held", waits_for("DefinitionOutdated")).await;
    let waiting = held.waiting.unwrap();
    assert_eq!((waiting.stage.as_deref(), &waiting.deadline), (Some("Version"), &None), "{waiting:#?}");
    assert!(waiting.message.as_ref().unwrap().contains("no status.duration"), "{waiting:#?}");
    for name in ["new", "unwanted"] {
        space.start(name, json!({"command": "true"})).await;
        space.until(name, "to be held", waits_for("DefinitionOutdated")).await;
    }
    assert!(space.events("new").await.iter().any(|event| event.reason.as_deref() == Some("DefinitionOutdated")));

    // What was started ends and is let go, an attempt that is lost has no successor, and what is not wanted stops.
    space.pods().delete("interrupted-1", &DeleteParams::default()).await.unwrap();
    let interrupted = space.until("interrupted", "to be held", waits_for("DefinitionOutdated")).await;
    assert_eq!((interrupted.attempt, interrupted.attempts[0].cause.as_deref()), (Some(2), Some("PodDeleted")));
    space.gone::<Pod>("interrupted-1").await;
    space.stop("unwanted").await;
    assert_eq!(space.end_of("unwanted").await.phase, Some(Phase::Stopped));
    std::fs::write(trace.join("go"), "").unwrap();
    let ended = space.end_of("ends").await;
    assert_eq!((cause(&ended), &ended.duration), ("Completed", &None), "the API server drops what it does not know");
    assert!(ended.usage.is_some() && ended.output.is_some_and(|output| output.bundle.is_some()));
    space.pod_until("ends-1", "to be let go", |pod| pod.finalizers().is_empty()).await;
    assert_eq!(pods(&space).await, ["ends-1"]);

    define(&space, ours()).await;
    let new = space.end_of("new").await;
    assert_eq!((cause(&new), new.attempt), ("Completed", Some(1)), "{new:#?}");
    let interrupted = space.end_of("interrupted").await;
    assert_eq!((cause(&interrupted), interrupted.attempt), ("Completed", Some(2)), "{interrupted:#?}");
    space.until("child", "to wait for its parent again", waits_for("InputMissing")).await;
    space.end().await;
}

#[tokio::test]
async fn a_run_of_a_newer_definition_waits_for_an_operator_that_knows_it() {
    let space = Space::exclusive().await;
    let more = json!({"command": "true", "timeLimit": "2w"});
    define(
        &space,
        changed(|schema| {
            schema["spec"]["properties"]["lease"] = json!({"type": "string"});
            let weeks = schema["spec"]["properties"]["timeLimit"].as_object_mut().unwrap();
            weeks.retain(|key, _| key != "pattern" && key != "x-kubernetes-validations");
        }),
    )
    .await;
    until_answer(&space, &more, true).await;

    let runs = untyped(&space);
    let says_more = json!({"command": "true", "lease": "a"});
    // What an API server still serves by the older definition lacks the field: a moment later none does.
    let mut number = 0;
    loop {
        number += 1;
        let name = format!("probe-{number}");
        runs.create(&PostParams::default(), &object(&name, &says_more)).await.unwrap();
        let told = |s: &BundleRunStatus| waits_for("OperatorOutdated")(s) || s.phase == Some(Phase::Succeeded);
        if space.until(&name, "to be held or to end", told).await.waiting.is_some() {
            break;
        }
        space.runs().delete(&name, &DeleteParams::default()).await.unwrap();
        space.gone::<Pod>(&format!("{name}-1")).await;
    }
    for (name, spec) in [("says-more", says_more), ("may-more", more.clone())] {
        runs.create(&PostParams::default(), &object(name, &spec)).await.unwrap();
    }
    for (name, word) in [("says-more", "spec.lease"), ("may-more", "timeLimit")] {
        let held = space.until(name, "to be held", waits_for("OperatorOutdated")).await;
        let waiting = held.waiting.unwrap();
        assert_eq!((waiting.stage.as_deref(), &waiting.deadline), (Some("Version"), &None), "{waiting:#?}");
        assert!(waiting.message.as_ref().unwrap().contains(word), "{waiting:#?}");
    }
    let plain = space.run("plain", json!({"command": "true"})).await;
    assert_eq!(cause(&plain), "Completed", "nothing of it is new: {plain:#?}");
    assert_eq!(pods(&space).await, ["plain-1"]);
    space.stop("says-more").await;
    assert_eq!(space.end_of("says-more").await.phase, Some(Phase::Stopped));

    define(&space, ours()).await;
    until_answer(&space, &more, false).await;
    let ended = space.end_of("may-more").await;
    assert_eq!(cause(&ended), "InvalidSpec", "by the definition of this operator: {ended:#?}");
    space.end().await;
}
