//! What a run waits for, in words and numbers that help.

use bundlerun::names::KUEUE_QUEUE_LABEL;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::admission::PodPolicy;
use crate::common::{Space, cause, left, run, starts, traced};

#[tokio::test]
async fn what_no_node_has_is_told_in_numbers() {
    let space = Space::new().await;
    let resources = |resources| json!({"command": "true", "resources": resources});
    space.start("gpus", resources(json!({"gpus": 99}))).await;
    space.start("cpus", resources(json!({"cpus": "1000"}))).await;
    space.start("memory", resources(json!({"memory": "60Ti"}))).await;
    space.start("disk", resources(json!({"disk": "90Ti"}))).await;
    for (name, begin) in [
        ("gpus", "no node has 99 nvidia.com/gpu: the largest of 2 nodes has "),
        (
            "cpus",
            "no node has 1000.01 CPUs (1000 CPUs of the run, 0.01 CPUs of the operator's helper): the largest of 2 nodes has ",
        ),
        (
            "memory",
            "no node has 60.0 TiB of memory (60.0 TiB of the run, 16.0 MiB of the operator's helper): the largest of 2 nodes has ",
        ),
        (
            "disk",
            "no node has 180.0 TiB of ephemeral-storage (resources.disk is 90.0 TiB: as much for the working directory, as much for caches): the largest of 2 nodes has ",
        ),
    ] {
        let waiting = space.waits_at(name, "Scheduling").await.waiting.unwrap();
        let message = waiting.message.as_deref().unwrap();
        assert!(message.starts_with(begin) && message.contains("; 0/2 nodes are available: "), "{waiting:#?}");
        assert_eq!((waiting.reason.as_deref(), waiting.until.as_deref()), (Some("Unschedulable"), Some("no deadline")));
        assert!(waiting.hint.unwrap().contains("ask for less"));
    }
    space.end().await;
}

#[tokio::test]
async fn a_pod_deleted_by_force_is_told_as_that_and_another_attempt_follows() {
    let space = Space::new().await;
    let trace = space.claim("trace").await;
    let command = "trap '' TERM; echo here >trace/here; [ $BUNDLE_ATTEMPT = 2 ] || while true; do sleep 1; done";
    space.start("forced", traced(command)).await;
    left(&trace, "here").await;
    space.pods().delete("forced-1", &DeleteParams::default().grace_period(0)).await.unwrap();
    let ended = space.end_of("forced").await;
    let causes: Vec<_> = ended.attempts.iter().map(|a| a.cause.as_deref().unwrap()).collect();
    assert_eq!((cause(&ended), causes), ("Completed", vec!["PodDeleted", "Completed"]), "{ended:#?}");
    assert_eq!(starts(&trace), ["forced 1", "forced 2"]);
    let events = space.events("forced").await;
    let told: Vec<_> = events.iter().map(|e| (e.reason.as_deref().unwrap(), e.note.as_deref().unwrap())).collect();
    let forced = told.iter().find(|(reason, note)| *reason == "PodDeleted" && note.contains("deleted by force"));
    let first = &ended.attempts[0];
    println!("the first attempt: {first:?}: {forced:?}");
    // It says of the output what became of it.
    let says = if first.bundle.is_some() { "is saved" } else { "could not be saved" };
    assert!(forced.is_some_and(|(_, note)| note.contains(says)), "{told:?}");
    assert!(!told.iter().any(|(reason, _)| ["NodeNotResponding", "PodNotEnding"].contains(reason)), "{told:?}");
    space.end().await;
}

/// Kueue's webhook puts its gate into pods with a queue; here a policy does.
#[tokio::test]
async fn a_gated_pod_is_in_a_queue_and_its_time_there_is_on_the_record() {
    let space = Space::new().await;
    let gate = "kueue.x-k8s.io/admission";
    let expression = format!("[JSONPatch{{op: 'add', path: '/spec/schedulingGates', value: [{{'name': '{gate}'}}]}}]");
    let kueue = PodPolicy::mutating(&space, &expression).await;
    let mut queued = run("queued", json!({"command": "true"}));
    queued.metadata.labels = Some([(KUEUE_QUEUE_LABEL.to_owned(), "team-a".to_owned())].into());
    space.runs().create(&PostParams::default(), &queued).await.unwrap();
    let waiting = space.waits_at("queued", "Queue").await.waiting.unwrap();
    assert_eq!((waiting.reason.as_deref(), waiting.until.as_deref()), (Some("SchedulingGated"), Some("no deadline")));
    let message = waiting.message.unwrap();
    assert!(message.contains(gate) && message.ends_with("in the queue team-a"), "{message}");
    tokio::time::sleep(std::time::Duration::from_secs(3)).await; // the span that is measured
    let admit =
        Patch::Json::<()>(serde_json::from_value(json!([{"op": "remove", "path": "/spec/schedulingGates"}])).unwrap());
    space.pods().patch("queued-1", &PatchParams::default(), &admit).await.unwrap();
    let ended = space.end_of("queued").await;
    let timeline = ended.timeline.unwrap();
    assert_eq!(cause(&ended), "Completed", "{ended:#?}");
    assert!(timeline.queued_milliseconds.unwrap() >= 3000, "{timeline:?}");
    kueue.end(&space).await;
    space.end().await;
}
