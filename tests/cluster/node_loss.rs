//! Nodes that fall silent: told in time, waited for, and given up only where somebody says so.

use std::path::Path;

use bundlerun::api::{BundleRunStatus, Phase};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use serde_json::{Value, json};

use crate::common::{Space, cause, left, output, starts, stdout, traced, watch_until};
use crate::node::{Cordoned, Dead, SecondNode};
use crate::settings;

/// From the kubelet's last sign to the word on the run are to be at most 75 seconds: the control plane takes 50 to 65 of
/// them, more under load.
const TOLD_WITHIN_SECONDS: i64 = 10;

/// A run that keeps something and waits for a file on its claim; later attempts say what they found, and succeed.
fn waits() -> Value {
    let mut spec = traced(
        r#"[ $BUNDLE_ATTEMPT = 1 ] || { cat kept; exit 0; }
        echo something >kept; "$BUNDLE_SNAPSHOT" >trace/kept
        echo here >trace/here; until [ -e trace/go ]; do sleep 0.2; done"#,
    );
    spec["retry"] = json!({"resume": true});
    spec
}

/// The second attempt went on from the snapshot that the first was told of.
fn assert_resumed(ended: &BundleRunStatus, trace: &Path) {
    let kept = std::fs::read_to_string(trace.join("kept")).unwrap();
    assert_eq!(ended.attempts[1].resumed_from.as_deref(), Some(kept.trim_end()), "{ended:#?}");
    assert_eq!(stdout(ended), "something\n", "{ended:#?}");
}

/// Starts such a run while the second node is the only one that is open; later attempts may be on either. Returns the
/// name of the first.
async fn begun_on_the_second(space: &Space, name: &str, trace: &Path) -> String {
    let first = Cordoned::first(space);
    space.start(name, waits()).await;
    space.pod_running(&format!("{name}-1")).await;
    drop(first);
    left(trace, "here").await;
    std::env::var("NODE_NAME").unwrap()
}

/// When the control plane found that the kubelet is silent.
async fn silent_since(space: &Space, node: &str) -> Timestamp {
    let nodes: Api<Node> = Api::all(space.client.clone());
    let conditions = nodes.get(node).await.unwrap().status.unwrap().conditions.unwrap();
    let ready = conditions.into_iter().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!(ready.status, "Unknown");
    ready.last_transition_time.unwrap().0
}

/// When the kubelet renewed its lease for the last time.
async fn last_sign(space: &Space, node: &str) -> Timestamp {
    let leases: Api<Lease> = Api::namespaced(space.client.clone(), "kube-node-lease");
    leases.get(node).await.unwrap().spec.unwrap().renew_time.unwrap().0
}

fn says_silent(status: &BundleRunStatus) -> bool {
    status.waiting.as_ref().is_some_and(|w| w.reason.as_deref() == Some("NodeNotResponding"))
}

async fn ready(space: &Space, node: &str) {
    let nodes: Api<Node> = Api::all(space.client.clone());
    watch_until(nodes, node, "to be ready", |node: Option<&Node>| {
        let conditions = node.and_then(|n| n.status.as_ref()?.conditions.as_ref());
        conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
    })
    .await;
}

#[tokio::test]
async fn a_node_whose_kubelet_is_dead_is_told_in_time_and_its_run_goes_on_when_it_is_back() {
    let space = Space::exclusive().await;
    let (node, trace) = (SecondNode::open(&space), space.claim("trace").await);
    let mut spec = waits();
    spec["nodeSelector"] = json!({"kubernetes.io/hostname": node.name});
    space.start("silent", spec).await;
    left(&trace, "here").await;
    space.until("silent", "to run", |s| s.phase == Some(Phase::Running)).await;
    let kubelet = Dead::kill("kubelet-2");
    let told = space.until("silent", "to tell that its node is silent", says_silent).await;
    let waiting = told.waiting.clone().unwrap();
    let told_at = waiting.since.unwrap().0.as_second();
    let after_sign = told_at - last_sign(&space, &node.name).await.as_second();
    let after = told_at - silent_since(&space, &node.name).await.as_second();
    println!(
        "told {after_sign} s after the kubelet's last sign, {after} s after the control plane knew: {}",
        waiting.message.as_deref().unwrap()
    );
    assert!(after <= TOLD_WITHIN_SECONDS, "{after} s: {told:#?}");
    assert_eq!((told.phase, waiting.stage.as_deref()), (Some(Phase::Running), Some("Node")), "{told:#?}");
    assert_eq!((waiting.deadline, waiting.until.as_deref()), (None, Some("no deadline")));
    assert!(waiting.hint.unwrap().contains("out of service"), "{told:#?}");
    assert!(waiting.message.unwrap().starts_with(&format!("node {} has not answered since ", node.name)), "{told:#?}");

    drop(kubelet);
    let back = space.until("silent", "to take it back", |s| s.waiting.is_none()).await;
    assert_eq!((back.phase, back.reason), (Some(Phase::Running), None));
    std::fs::write(trace.join("go"), "").unwrap();
    let ended = space.end_of("silent").await;
    assert_eq!((cause(&ended), ended.attempts.len()), ("Completed", 1), "{ended:#?}");
    assert_eq!(starts(&trace), ["silent 1"]);
    space.end().await;
}

#[tokio::test]
#[ignore = "takes minutes: make test-cluster-long"]
async fn a_silent_node_is_given_up_when_the_administrator_set_a_time_and_what_it_says_later_does_not_count() {
    let space = Space::exclusive().await;
    settings::changed_alone(&space, |settings| settings["nodeLost"] = json!({"giveUpAfter": "1m"})).await;
    let (node, trace) = (SecondNode::open(&space), space.claim("trace").await);
    let first = begun_on_the_second(&space, "lost", &trace).await;
    let kubelet = Dead::kill("kubelet-2");
    let told = space.until("lost", "to tell that its node is silent", says_silent).await;
    assert!(told.waiting.unwrap().deadline.is_some());
    let ended = space.end_of("lost").await;
    let attempts: Vec<_> =
        ended.attempts.iter().map(|a| (a.cause.as_deref().unwrap(), a.node.as_deref().unwrap())).collect();
    assert_eq!(attempts, [("NodeLost", node.name.as_str()), ("Completed", first.as_str())], "{ended:#?}");
    assert_eq!(ended.phase, Some(Phase::Succeeded));
    assert_eq!(starts(&trace), ["lost 1", "lost 2"]);
    assert_resumed(&ended, &trace);
    // The command of the first attempt is still alive. Its end is nobody's.
    std::fs::write(trace.join("go"), "").unwrap();
    drop(kubelet);
    space.gone::<k8s_openapi::api::core::v1::Pod>("lost-1").await;
    let later = space.runs().get("lost").await.unwrap().status.unwrap();
    assert_eq!(later, ended);
    space.end().await;
}

#[tokio::test]
#[ignore = "takes minutes: make test-cluster-long"]
async fn a_node_that_is_declared_out_of_service_frees_its_runs() {
    let space = Space::exclusive().await;
    let (node, trace) = (SecondNode::open(&space), space.claim("trace").await);
    let first = begun_on_the_second(&space, "off", &trace).await;
    output("deploy/local/cluster", &["node-off", "2"]);
    space.until("off", "to tell that its node is silent", says_silent).await;
    assert_eq!(starts(&trace), ["off 1"]);
    node.declare_out_of_service();
    let ended = space.end_of("off").await;
    let nodes_of: Vec<_> = ended.attempts.iter().map(|a| a.node.as_deref().unwrap()).collect();
    println!("the first attempt ended as {}", ended.attempts[0].cause.as_deref().unwrap());
    assert_eq!(
        (ended.phase, nodes_of),
        (Some(Phase::Succeeded), vec![node.name.as_str(), first.as_str()]),
        "{ended:#?}"
    );
    assert_eq!(starts(&trace), ["off 1", "off 2"]);
    assert_resumed(&ended, &trace);
    output("kubectl", &["taint", "nodes", &node.name, "node.kubernetes.io/out-of-service-"]);
    output("deploy/local/cluster", &["node-on", "2"]);
    ready(&space, &node.name).await;
    space.end().await;
}
