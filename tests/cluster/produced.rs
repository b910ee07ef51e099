//! Endings and waits that a real cluster produces when it is led to it, and that no other test has: see
//! `docs/endings-tried.md`.

use std::net::TcpListener;

use bundlerun::api::Phase;
use bundlerun::api::status::{Blame, BundleRunStatus};
use k8s_openapi::api::core::v1::{ConfigMap, LimitRange, Pod};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::admission::PodPolicy;
use crate::common::{Space, cause, left, output, together};
use crate::node::{self, SecondNode, allocatable_gpus};
use crate::registry::{Registry, make_certificate};
use crate::settings;

fn blame(status: &BundleRunStatus) -> Option<Blame> {
    status.result.as_ref().and_then(|result| result.blame)
}

/// The only attempt, in words.
fn alone(mut spec: Value) -> Value {
    spec["retry"] = json!({"interruptions": 0});
    spec
}

/// Waits until a run tells that it waits for this reason, and returns the message and how long it may last.
async fn waits_for(space: &Space, name: &str, reason: &str) -> (String, String) {
    let is = |s: &BundleRunStatus| s.waiting.as_ref().is_some_and(|w| w.reason.as_deref() == Some(reason));
    let waiting = space.until(name, reason, is).await.waiting.unwrap();
    println!("{name}: {reason}: {}", waiting.message.as_deref().unwrap());
    assert!(waiting.hint.is_some_and(|hint| hint.len() > 10));
    (waiting.message.unwrap(), waiting.until.unwrap())
}

#[tokio::test]
async fn a_pod_of_the_runs_name_that_is_somebody_elses_ends_it_at_the_deadline() {
    let space = Space::new().await;
    let pause = json!({"metadata": {"name": "taken-1"}, "spec": {"schedulerName": "nobody",
        "containers": [{"name": "a", "image": "a"}]}});
    space.pods().create(&PostParams::default(), &serde_json::from_value(pause).unwrap()).await.unwrap();
    space.start("taken", json!({"command": "true"})).await;
    waits_for(&space, "taken", "PodNameTaken").await;
    let ended = space.end_of("taken").await;
    assert_eq!((cause(&ended), blame(&ended)), ("PodNameTaken", Some(Blame::Platform)), "{ended:#?}");
    space.end().await;
}

#[tokio::test]
async fn a_scheduler_that_does_not_run_is_named_and_a_pod_without_a_node_costs_no_attempt() {
    let space = Space::new().await;
    space.start("unseen", json!({"command": "true", "schedulerName": "nobody"})).await;
    let (message, until) = waits_for(&space, "unseen", "NotSeenByScheduler").await;
    assert!(message.contains("nobody") && until == "no deadline", "{message}: {until}");
    let first = space.pods().get("unseen-1").await.unwrap().metadata.uid;
    space.pods().delete("unseen-1", &DeleteParams::default()).await.unwrap();
    let again = |pod: &Pod| pod.metadata.uid != first;
    space.pod_until("unseen-1", "to be made again", again).await;
    waits_for(&space, "unseen", "NotSeenByScheduler").await;
    let status = space.runs().get("unseen").await.unwrap().status.unwrap();
    assert_eq!((status.attempt, status.attempts.len()), (Some(1), 1), "{status:#?}");
    space.stop("unseen").await;
    assert_eq!(cause(&space.end_of("unseen").await), "Stopped");
    space.end().await;
}

/// The kubelet looks at what the scheduler would have kept from it.
#[tokio::test]
async fn what_the_kubelet_does_not_take_is_told_in_its_word() {
    let space = Space::new().await;
    let node = std::env::var("NODE_NAME").unwrap();
    let expression = format!("[JSONPatch{{op: 'add', path: '/spec/nodeName', value: '{node}'}}]");
    let bound = PodPolicy::mutating(&space, &expression).await;
    let refused = [
        ("NodeAffinity", json!({"command": "true", "nodeSelector": {"zone": "none"}})),
        ("OutOfcpu", json!({"command": "true", "resources": {"cpus": "1000"}})),
        ("OutOfmemory", json!({"command": "true", "resources": {"memory": "60Ti"}})),
    ];
    together(refused.map(async |(reason, spec)| {
        let mut tries = 0;
        let ended = loop {
            tries += 1;
            let ended = space.run(&format!("{}-{tries}", reason.to_lowercase()), alone(spec.clone())).await;
            // The kubelet looks at the CPUs first, and other tests may have all of them just now.
            if cause(&ended) != "OutOfcpu" || reason == "OutOfcpu" || tries == 20 {
                break ended;
            }
        };
        println!("{reason}: {}", ended.message.as_deref().unwrap());
        assert_eq!((cause(&ended), blame(&ended)), (reason, Some(Blame::Platform)), "{ended:#?}");
        assert!(ended.result.unwrap().hint.is_some());
    }))
    .await;
    bound.end(&space).await;
    space.end().await;
}

#[tokio::test]
async fn a_pod_that_is_taken_from_the_operator_is_told_as_gone() {
    let space = Space::new().await;
    space.start("gone", alone(json!({"command": "sleep 1h"}))).await;
    space.until("gone", "to run", |s| s.phase == Some(Phase::Running)).await;
    let pods = space.pods();
    let let_go = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    pods.delete("gone-1", &DeleteParams::default().grace_period(0)).await.unwrap();
    pods.patch("gone-1", &PatchParams::default(), &let_go).await.unwrap();
    let ended = space.end_of("gone").await;
    // Who looks in between sees what a forced deletion leaves.
    assert!(["PodGone", "PodDeleted"].contains(&cause(&ended)), "{ended:#?}");
    assert_eq!(blame(&ended), Some(Blame::Platform));
    space.end().await;
}

#[tokio::test]
async fn a_config_map_that_was_changed_between_attempts_ends_the_run() {
    let space = Space::new().await;
    let (maps, trace): (Api<ConfigMap>, _) = (space.api(), space.claim("trace").await);
    let map = |text: &str| json!({"metadata": {"name": "settings"}, "data": {"a": text}});
    maps.create(&PostParams::default(), &serde_json::from_value(map("1")).unwrap()).await.unwrap();
    let spec = json!({"command": "echo here >trace/here; sleep 1h",
        "inputs": [{"path": "settings", "configMap": {"name": "settings"}}],
        "volumes": [{"path": "trace", "claim": {"name": "trace"}}]});
    space.start("changed", spec).await;
    left(&trace, "here").await;
    maps.patch("settings", &PatchParams::default(), &Patch::Merge(map("2"))).await.unwrap();
    space.pods().delete("changed-1", &DeleteParams::default()).await.unwrap();
    let ended = space.end_of("changed").await;
    assert_eq!((cause(&ended), blame(&ended)), ("InputChanged", Some(Blame::User)), "{ended:#?}");
    space.end().await;
}

/// The limit is one of the namespace, and the kubelet looks every ten seconds.
#[tokio::test]
async fn a_limit_of_the_namespace_on_what_is_written_beside_the_working_directory_is_told() {
    let space = Space::new().await;
    let ranges: Api<LimitRange> = space.api();
    let limit = json!({"type": "Container", "default": {"ephemeral-storage": "50Mi"},
        "defaultRequest": {"ephemeral-storage": "1Mi"}});
    let range = json!({"metadata": {"name": "least"}, "spec": {"limits": [limit]}});
    ranges.create(&PostParams::default(), &serde_json::from_value(range).unwrap()).await.unwrap();
    let spec = json!({"command": "head -c 80000000 /dev/zero >/tmp/a; sleep 1h", "resources": {"disk": "10Mi"}});
    let ended = space.run("writes", alone(spec)).await;
    println!("{}: {}", cause(&ended), ended.message.as_deref().unwrap());
    assert_eq!((cause(&ended), blame(&ended)), ("EphemeralStorageLimitExceeded", Some(Blame::User)), "{ended:#?}");
    space.end().await;
}

#[tokio::test]
async fn a_node_that_cannot_pull_is_the_platforms_and_a_registry_that_is_silent_is_waited_for() {
    let space = Space::new().await;
    let (address, certificates) = (node::link_address(), tempfile::tempdir().unwrap());
    make_certificate(certificates.path(), "unknown", &address);
    let at = |kind: &str| certificates.path().join(format!("unknown.{kind}")).display().to_string();
    let tls = format!("  tls: {{certificate: {}, key: {}}}\n", at("pem"), at("key"));
    let registry = Registry::start_at(&address, &tls);
    let unknown = json!({"command": "true", "image": format!("{}/team/image:v1", registry.host)});
    let closed = json!({"command": "true", "image": format!("{address}:1/team/image:v1")});
    space.start("silent", closed).await;
    let ended = space.run("unknown", alone(unknown)).await;
    println!("{}", ended.message.as_deref().unwrap());
    assert_eq!((cause(&ended), blame(&ended)), ("ImageNotPulled", Some(Blame::Platform)), "{ended:#?}");
    let waiting = space.waits_at("silent", "ImagePull").await.waiting.unwrap();
    assert_eq!((waiting.deadline, waiting.until.as_deref()), (None, Some("no deadline")), "{:?}", waiting.message);
    assert!(["ErrImagePull", "ImagePullBackOff"].map(Some).contains(&waiting.reason.as_deref()));
    space.stop("silent").await;
    assert_eq!(cause(&space.end_of("silent").await), "Stopped");
    space.end().await;
}

/// As one whose process hangs.
#[tokio::test]
async fn a_registry_that_accepts_connections_and_never_answers_is_waited_for() {
    let space = Space::waiting().await;
    let listener = TcpListener::bind((node::link_address(), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    // Each is held until the test ends.
    std::thread::spawn(move || listener.incoming().collect::<Vec<_>>());
    space.start("silent", json!({"command": "true", "image": format!("{address}/team/image:v1")})).await;
    let told = space.waits_at("silent", "ImagePull").await;
    let waiting = told.waiting.clone().unwrap();
    let message = waiting.message.unwrap();
    println!("{message}");
    assert!(message.contains("timeout") && message.contains(&address.to_string()), "{message}");
    assert_eq!((waiting.deadline, waiting.until.as_deref()), (None, Some("no deadline")), "{message}");
    let hint = waiting.hint.unwrap();
    assert_eq!(hint, "nothing: the node asks again and again; tell the administrator if it stays");
    assert_eq!((told.phase, told.attempt, told.attempts.len()), (Some(Phase::Pending), Some(1), 0), "{told:#?}");
    space.stop("silent").await;
    assert_eq!(cause(&space.end_of("silent").await), "Stopped");
    space.end().await;
}

/// A runtime class whose handler no node has.
#[tokio::test]
async fn a_pod_that_the_node_cannot_set_up_is_told_why_and_given_up() {
    let space = Space::with_own_operators().await;
    let classes: Api<RuntimeClass> = Api::all(space.client.clone());
    let class = format!("nowhere-{}", space.name);
    let object = json!({"metadata": {"name": class}, "handler": "nowhere"});
    classes.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    // The kubelet may be slow to say why.
    settings::changed(&space, |settings| {
        settings["deadlines"]["starting"] = json!("75s");
        settings["gpuProfiles"]["nowhere"] = json!({"resourceName": "nvidia.com/gpu", "runtimeClassName": class});
    })
    .await;
    let spec = json!({"command": "true", "gpuProfile": "nowhere", "resources": {"gpus": 1}});
    space.start("nowhere", alone(spec)).await;
    let (_, until) = waits_for(&space, "nowhere", "FailedCreatePodSandBox").await;
    assert_eq!(until, "the deadline, then the attempt ends: StartDeadlineExceeded");
    let ended = space.end_of("nowhere").await;
    assert_eq!((cause(&ended), blame(&ended)), ("StartDeadlineExceeded", Some(Blame::Platform)), "{ended:#?}");
    classes.delete(&class, &DeleteParams::default()).await.unwrap();
    space.end().await;
}

#[tokio::test]
async fn a_preemption_and_a_taint_are_told_as_what_they_are() {
    let space = Space::with_devices().await;
    let class = space.priority_class().await;
    let node = SecondNode::open(&space);
    let gpus = allocatable_gpus(&node.name);
    let on_it = |command: &str| {
        json!({"command": command, "nodeSelector": {"kubernetes.io/hostname": node.name},
            "resources": {"gpus": gpus}})
    };
    space.start("preempted", alone(on_it("sleep 1h"))).await;
    space.pod_running("preempted-1").await;
    let mut first = on_it("sleep 1h");
    first["priorityClassName"] = json!(class);
    space.start("first", alone(first)).await;
    let ended = space.end_of("preempted").await;
    assert_eq!((cause(&ended), blame(&ended)), ("PreemptionByScheduler", Some(Blame::Platform)), "{ended:#?}");
    space.pod_running("first-1").await;
    output("kubectl", &["taint", "nodes", &node.name, "bundlerun.test/away=1:NoExecute"]);
    let ended = space.end_of("first").await;
    output("kubectl", &["taint", "nodes", &node.name, "bundlerun.test/away-"]);
    assert_eq!((cause(&ended), blame(&ended)), ("DeletionByTaintManager", Some(Blame::Platform)), "{ended:#?}");
    space.end().await;
}
