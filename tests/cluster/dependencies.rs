//! Runs that use each other's outputs, in whatever order they come and go.

use std::time::Duration;

use bundlerun::api::status::Blame;
use bundlerun::api::{BundleRun, BundleRunStatus, Phase};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Unit;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};

use crate::common::{Space, cause, condition, stdout, together};

/// Prints what another run wrote into `value`.
fn child_of(parent: &str) -> Value {
    json!({"command": "cat data/value", "inputs": [{"path": "data", "run": {"name": parent}}]})
}

fn writes(value: &str) -> Value {
    json!({"command": format!("echo {value} >value")})
}

#[tokio::test]
async fn a_child_before_its_parent_waits_for_it_and_gets_its_output() {
    let space = Space::new().await;
    space.start("child", child_of("parent")).await;
    let waiting = space.waits_at("child", "Inputs").await;
    assert_eq!(waiting.phase, Some(Phase::Waiting));
    assert_eq!(waiting.reason.as_deref(), Some("InputMissing"));
    assert_eq!(condition(&waiting, "InputsReady"), Some("False"));
    assert!(waiting.message.as_deref().unwrap().contains("run parent does not exist"), "{waiting:#?}");
    let parent = space.run("parent", writes("seven")).await;
    let child = space.end_of("child").await;
    assert_eq!((cause(&child), stdout(&child)), ("Completed", "seven\n"), "{child:#?}");
    let bundle = parent.output.unwrap().bundle.unwrap();
    assert_eq!(child.inputs[0].reference.as_ref(), Some(&bundle));
    assert_eq!(child.inputs[0].digest.as_deref(), bundle.split_once('@').map(|(_, digest)| digest));
    assert_eq!(child.inputs[0].run_uid, space.runs().get("parent").await.unwrap().uid());
    assert_eq!(condition(&child, "InputsReady"), Some("True"));
    space.end().await;
}

#[tokio::test]
async fn what_becomes_of_a_parent_decides_about_its_child() {
    let space = Space::new().await;
    let mut lenient = child_of("fails");
    lenient["allowFailedInputs"] = json!(true);
    for (name, spec) in [
        ("strict", child_of("fails")),
        ("lenient", lenient),
        ("of-stopped", child_of("stopped")),
        ("fails", json!({"command": "echo half >value; exit 3"})),
        ("stopped", json!({"command": "echo some >value; sleep 1h"})),
    ] {
        space.start(name, spec).await;
    }
    let strict = space.end_of("strict").await;
    assert_eq!(cause(&strict), "InputFailed");
    assert!(strict.message.unwrap().contains("run fails failed (CommandFailed)"));
    let lenient = space.end_of("lenient").await;
    assert_eq!((cause(&lenient), stdout(&lenient)), ("Completed", "half\n"), "{lenient:#?}");

    space.until("stopped", "to run", |s| s.phase == Some(Phase::Running)).await;
    space.stop("stopped").await;
    let stopped = space.end_of("stopped").await;
    assert_eq!((stopped.phase, cause(&stopped)), (Some(Phase::Stopped), "Stopped"), "{stopped:#?}");
    assert_eq!(condition(&stopped, "OutputSaved"), Some("True"), "{stopped:#?}");
    let child = space.end_of("of-stopped").await;
    assert!(child.message.unwrap().contains("run stopped was stopped"));
    space.end().await;
}

#[tokio::test]
async fn a_child_that_is_to_wait_starts_when_its_failed_parent_was_made_anew_and_succeeded() {
    let space = Space::new().await;
    let mut patient = child_of("parent");
    patient["onInputFailure"] = json!("Wait");
    let mut grandchild = child_of("patient");
    grandchild["command"] = json!("cat data/stdout");
    space.start("patient", patient).await;
    space.start("grandchild", grandchild).await;
    space.start("hasty", child_of("parent")).await;
    space.run("parent", json!({"command": "exit 3"})).await;
    let hasty = space.end_of("hasty").await;
    let result = hasty.result.as_ref().unwrap();
    assert_eq!((cause(&hasty), result.blame), ("InputFailed", Some(Blame::User)), "{hasty:#?}");
    let reason = |reason: &'static str| move |s: &BundleRunStatus| s.reason.as_deref() == Some(reason);
    let waits = space.until("patient", "to wait for another parent", reason("InputFailed")).await;
    let waiting = waits.waiting.as_ref().unwrap();
    assert_eq!((waiting.stage.as_deref(), &waiting.deadline), (Some("Inputs"), &None), "{waits:#?}");
    assert!(waits.message.unwrap().contains("run parent failed (CommandFailed)"));

    // One that fails again changes nothing, and one that succeeds wakes it.
    for command in ["exit 4", "echo seven >value"] {
        space.runs().delete("parent", &DeleteParams::default()).await.unwrap();
        space.gone::<BundleRun>("parent").await;
        space.until("patient", "to miss its parent", reason("InputMissing")).await;
        space.run("parent", json!({"command": command})).await;
        if command == "exit 4" {
            space.until("patient", "to see that it failed, too", reason("InputFailed")).await;
        }
    }
    assert_eq!(stdout(&space.end_of("patient").await), "seven\n");
    assert_eq!(stdout(&space.end_of("grandchild").await), "seven\n");
    space.end().await;
}

#[tokio::test]
async fn runs_that_wait_for_each_other_are_told_at_once() {
    let space = Space::new().await;
    for (name, parent) in [("a", "b"), ("b", "c"), ("c", "a"), ("outside", "a")] {
        space.start(name, child_of(parent)).await;
    }
    for name in ["a", "b", "c"] {
        let ended = space.end_of(name).await;
        assert_eq!(cause(&ended), "InputCycle", "{name}: {ended:#?}");
        assert!(ended.message.unwrap().contains(" -> "));
    }
    assert_eq!(cause(&space.end_of("outside").await), "InputFailed");
    assert!(space.pods().list(&ListParams::default()).await.unwrap().items.is_empty());
    space.end().await;
}

#[tokio::test]
async fn a_parent_made_anew_is_another_and_what_was_pinned_stays() {
    let space = Space::new().await;
    space.start("child", child_of("parent")).await;
    space.start("parent", json!({"command": "sleep 1h"})).await;
    space.until("child", "to wait for the end", |s| s.reason.as_deref() == Some("InputNotFinished")).await;
    space.runs().delete("parent", &DeleteParams::default()).await.unwrap();
    space.gone::<BundleRun>("parent").await;
    space.until("child", "to wait for a run", |s| s.reason.as_deref() == Some("InputMissing")).await;
    space.run("parent", writes("second")).await;
    assert_eq!(stdout(&space.end_of("child").await), "second\n");

    // The first attempt is lost; its parent was made anew meanwhile.
    let mut patient = child_of("parent");
    patient["command"] = json!("cat data/value; [ $BUNDLE_ATTEMPT = 2 ] || sleep 1h");
    space.start("patient", patient).await;
    space.until("patient", "to run", |s| s.phase == Some(Phase::Running)).await;
    space.runs().delete("parent", &DeleteParams::default()).await.unwrap();
    space.gone::<BundleRun>("parent").await;
    space.run("parent", writes("third")).await;
    space.pods().delete("patient-1", &DeleteParams::default()).await.unwrap();
    let patient = space.end_of("patient").await;
    assert_eq!((patient.attempt, stdout(&patient)), (Some(2), "second\n"), "{patient:#?}");
    let (first, second) = (&patient.attempts[0], &patient.attempts[1]);
    assert!(first.bundle.is_some() && second.bundle.is_some(), "what the lost attempt had left was saved, too");
    space.end().await;
}

#[tokio::test]
async fn an_input_that_is_not_there_is_told_with_its_name() {
    let space = Space::waiting().await;
    space.run("parent", writes("x")).await;
    let input = |source: Value| {
        let mut input = source;
        input["path"] = json!("data");
        json!({"command": "true", "inputs": [input]})
    };
    let registry = std::env::var("REGISTRY_HOST").unwrap();
    let runs = [
        ("no-path", input(json!({"run": {"name": "parent", "path": "no/such"}})), "InputNotFound", "no/such"),
        (
            "no-image",
            input(json!({"image": {"reference": format!("{registry}/no/such:1")}})),
            "InputNotFound",
            "no/such",
        ),
    ];
    space.run("large", json!({"command": "head -c 5M /dev/urandom >f"})).await;
    let mut small = input(json!({"run": {"name": "large", "path": "f"}}));
    small["resources"] = json!({"disk": "2Mi"});
    let runs = [
        runs,
        [
            ("too-large", small, "InputTooLarge", "data"),
            ("again-no-path", input(json!({"run": {"name": "parent", "path": "a"}})), "InputNotFound", "a"),
        ],
    ]
    .concat();
    // They may be created later; without a word in its status a pod would wait for these for ever.
    let absent = [
        ("no-map", json!({"configMap": {"name": "nothing"}})),
        ("no-map-for-a-key", json!({"configMap": {"name": "nothing", "key": "k"}})),
        ("no-key", json!({"configMap": {"name": "kube-root-ca.crt", "key": "k"}})),
        ("no-secret", json!({"secret": {"name": "nothing"}})),
        ("no-secret-key", json!({"secret": {"name": "nothing", "key": "k"}})),
    ];
    let absent = absent.map(|(name, source)| (name, input(source), "InputNotFound", ", for 20 s"));
    let is_waited_for = absent.clone().map(|(name, ..)| name);
    together(runs.into_iter().chain(absent).map(async |(name, spec, expected, word)| {
        space.start(name, spec).await;
        if is_waited_for.contains(&name) {
            let is_told = |s: &BundleRunStatus| {
                s.waiting.as_ref().is_some_and(|waiting| waiting.reason.as_deref() == Some("InputNotCreated"))
            };
            let waiting = space.until(name, "to wait for its input", is_told).await.waiting.unwrap();
            assert_eq!(waiting.until.as_deref(), Some("deadlines.configuration, then the run ends: InputNotFound"));
        }
        let ended = space.end_of(name).await;
        assert_eq!(cause(&ended), expected, "{name}: {ended:#?}");
        assert!(ended.message.as_deref().unwrap().contains(word), "{name}: {ended:#?}");
    }))
    .await;
    space.end().await;
}

const CHILDREN: usize = 200;

#[tokio::test]
async fn two_hundred_children_of_one_parent_are_looked_at_when_it_ends_and_not_before() {
    let space = Space::quiet().await;
    let name = |i: usize| format!("child-{i}");
    // No node has this label: their pods wait, which is all that is asked here.
    let mut spec = child_of("parent");
    spec["nodeSelector"] = json!({"no-node": "has-this"});
    space
        .start(
            "parent",
            json!({"command": "echo 1 >value; until [ -e trace/go ]; do sleep 0.1; done",
        "volumes": [{"path": "trace", "claim": {"name": "trace"}}]}),
        )
        .await;
    let trace = space.claim("trace").await;
    for i in 0..CHILDREN {
        space.start(&name(i), spec.clone()).await;
    }
    for i in 0..CHILDREN {
        space.until(&name(i), "to wait", |s| s.reason.as_deref() == Some("InputNotFinished")).await;
    }
    space.until("parent", "to run", |s| s.phase == Some(Phase::Running)).await;
    let version = async || space.runs().list(&ListParams::default()).await.unwrap().metadata.resource_version;
    let before = version().await;
    tokio::time::sleep(Duration::from_secs(10)).await; // the span in which nothing may be written
    let runs = space.runs().list(&ListParams::default()).await.unwrap();
    let children = runs.items.iter().filter(|run| run.name_any().starts_with("child"));
    let newest = children.filter_map(|run| run.resource_version()?.parse::<u64>().ok()).max();
    assert!(newest <= before.and_then(|v| v.parse().ok()), "children that wait cost nothing");
    std::fs::write(trace.join("go"), "").unwrap();
    let parent = space.end_of("parent").await;
    let pods = crate::common::eventually("all pods", async || {
        let pods = space.pods().list(&ListParams::default()).await.unwrap().items;
        if pods.len() > CHILDREN { Ok(pods) } else { Err(pods.len()) }
    })
    .await;
    let made = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().unwrap().0;
    let last = pods.iter().map(made).max().unwrap();
    let after = (last - parent.finish_time.unwrap().0).total(Unit::Second).unwrap();
    println!("the last of {CHILDREN} pods was made {after} s after the end of the parent");
    space.end().await;
}
