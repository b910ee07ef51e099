//! Devices and the device plugin fail: waited for or tried again, and told truthfully.

use std::fs;
use std::path::PathBuf;

use bundlerun::api::Phase;
use k8s_openapi::api::core::v1::{Binding, Node, Pod};
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::json;

use crate::common::{Space, output, stdout, watch_until};
use crate::node::SecondNode;

/// The node's devices, put back as they were at the end.
struct Devices {
    control: PathBuf,
    original: String,
}

impl Devices {
    fn new() -> Self {
        let control = PathBuf::from(std::env::var("DEVICE_PLUGIN_CONTROL").unwrap());
        let original = fs::read_to_string(&control).unwrap();
        Self { control, original }
    }

    fn count(&self) -> usize {
        self.original.lines().count()
    }

    /// Turns the first ones unhealthy.
    fn break_first(&self, broken: usize) {
        let line = |(i, line): (usize, &str)| {
            let index = line.split_whitespace().next().unwrap();
            format!("{index} {}\n", if i < broken { "Unhealthy" } else { "Healthy" })
        };
        self.write(&self.original.lines().enumerate().map(line).collect::<String>());
    }

    fn write(&self, text: &str) {
        let draft = self.control.with_extension("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(draft, &self.control).unwrap();
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        self.write(&self.original);
    }
}

/// Waits until the node says that it has this many devices to give.
async fn until_allocatable(space: &Space, devices: usize) {
    let nodes: Api<Node> = Api::all(space.client.clone());
    let name = std::env::var("NODE_NAME").unwrap();
    let wish = format!("to have {devices} devices to give");
    watch_until(nodes, &name, &wish, |node: Option<&Node>| {
        let allocatable = node.and_then(|n| n.status.as_ref()?.allocatable.as_ref()?.get("nvidia.com/gpu"));
        allocatable.is_some_and(|quantity| quantity.0 == devices.to_string())
    })
    .await;
}

#[tokio::test]
async fn an_unhealthy_device_is_waited_for_and_disturbs_no_run_that_has_it() {
    let space = Space::with_devices().await;
    let devices = Devices::new();
    let all = devices.count();
    until_allocatable(&space, all).await;
    let traces = space.claim("traces").await;
    let volumes = json!([{"path": "/traces", "claim": {"name": "traces"}}]);
    let waits = "until [ -e /traces/go ]; do sleep 0.2; done; ls /dev/nvidia[0-9]* | wc -l";
    space.start("runs", json!({"command": waits, "resources": {"gpus": all}, "volumes": volumes})).await;
    space.until("runs", "to run", |s| s.phase == Some(Phase::Running)).await;

    devices.break_first(1);
    until_allocatable(&space, all - 1).await;
    space.start("waits", json!({"command": "true", "resources": {"gpus": all}})).await;
    fs::write(traces.join("go"), "").unwrap();
    let ended = space.end_of("runs").await;
    assert_eq!((ended.phase, ended.attempts.len()), (Some(Phase::Succeeded), 1), "{ended:#?}");
    assert_eq!(stdout(&ended).trim(), all.to_string());
    let waiting = space.until("waits", "to tell what it waits for", |s| s.waiting.is_some()).await;
    assert_eq!(waiting.reason.as_deref(), Some("Unschedulable"), "{waiting:#?}");
    assert!(waiting.message.unwrap().contains("Insufficient nvidia.com/gpu"));

    devices.break_first(0);
    let ended = space.end_of("waits").await;
    assert_eq!((ended.phase, ended.attempts.len()), (Some(Phase::Succeeded), 1), "{ended:#?}");
    space.end().await;
}

/// Binds a pod to the node as a scheduler would that does not know yet what has become of the devices.
async fn bind(space: &Space, pod: &str) {
    let node = std::env::var("NODE_NAME").unwrap();
    let binding: Binding =
        serde_json::from_value(json!({"metadata": {"name": pod}, "target": {"kind": "Node", "name": node}})).unwrap();
    let _: kube::core::Status =
        space.pods().create_subresource("binding", pod, &PostParams::default(), &binding).await.unwrap();
}

#[tokio::test]
async fn a_pod_the_kubelet_has_no_device_for_is_an_interruption_and_tried_again() {
    let space = Space::with_devices().await;
    let devices = Devices::new();
    devices.break_first(devices.count());
    until_allocatable(&space, 0).await;
    let spec = json!({"command": "ls /dev/nvidia[0-9]* | wc -l", "resources": {"gpus": 1}, "schedulerName": "by-hand"});
    space.start("refused", spec).await;
    space.pod_until("refused-1", "to be there", |_| true).await;
    bind(&space, "refused-1").await;
    let refused = space.until("refused", "to go on with attempt 2", |s| s.attempt == Some(2)).await;
    assert_eq!((refused.phase, refused.reason.as_deref()), (Some(Phase::Pending), Some("UnexpectedAdmissionError")));
    let message = refused.message.unwrap();
    assert!(message.starts_with("attempt 1 was interrupted: ") && message.contains("nvidia.com/gpu"), "{message}");

    devices.break_first(0);
    until_allocatable(&space, devices.count()).await;
    space.pod_until("refused-2", "to be there", |_| true).await;
    bind(&space, "refused-2").await;
    let ended = space.end_of("refused").await;
    let causes: Vec<_> = ended.attempts.iter().filter_map(|a| a.cause.as_deref()).collect();
    assert_eq!(causes, ["UnexpectedAdmissionError", "Completed"], "{ended:#?}");
    assert_eq!(stdout(&ended), "1\n");
    space.end().await;
}

#[tokio::test]
async fn a_plugin_that_goes_and_comes_back_costs_no_run() {
    let space = Space::with_devices().await;
    let all = Devices::new().count();
    until_allocatable(&space, all).await;
    space.start("runs", json!({"command": "sleep 8", "resources": {"gpus": 1}})).await;
    space.until("runs", "to run", |s| s.phase == Some(Phase::Running)).await;
    let cluster = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/local/cluster");
    output(cluster, &["restart", "fake-gpu", "--name", &std::env::var("CLUSTER_NAME").unwrap()]);
    let asks = json!({"command": "ls /dev/nvidia[0-9]* | wc -l", "resources": {"gpus": all}});
    let (runs, asks) = tokio::join!(space.end_of("runs"), space.run("asks", asks));
    assert_eq!((runs.phase, runs.attempts.len()), (Some(Phase::Succeeded), 1), "{runs:#?}");
    assert_eq!((asks.phase, stdout(&asks).trim()), (Some(Phase::Succeeded), all.to_string().as_str()), "{asks:#?}");
    let (_, before) = asks.attempts.split_last().unwrap();
    assert!(before.iter().all(|a| a.cause.as_deref() == Some("UnexpectedAdmissionError")), "{asks:#?}");
    space.end().await;
}

/// The first node is emptier and has the image: but for what is known of it, the scheduler takes it every time.
#[tokio::test]
async fn gpus_that_cannot_be_used_are_looked_for_on_another_node_and_where_there_is_none_on_the_same() {
    let space = Space::with_devices().await;
    let (first, second) = (std::env::var("NODE_NAME").unwrap(), SecondNode::open(&space));
    let filler: Pod = serde_json::from_value(json!({"metadata": {"name": "filler"}, "spec": {
        "nodeName": second.name, "terminationGracePeriodSeconds": 0, "containers": [{
            "name": "filler", "image": "localhost:5000/busybox:local", "command": ["sleep", "1h"],
            "resources": {"requests": {"cpu": "1500m", "memory": "4Gi"}}}]}}))
    .unwrap();
    space.pods().create(&PostParams::default(), &filler).await.unwrap();
    space.pod_until("filler", "to run", |pod| pod.status.as_ref().unwrap().phase.as_deref() == Some("Running")).await;
    let gpu = |command: &str, profile: &str| {
        json!({"command": command, "gpuProfile": profile, "image": "localhost:5000/gpu:local",
            "resources": {"gpus": 1}, "retry": {"interruptions": 2}})
    };

    let command = "[ $BUNDLE_ATTEMPT = 3 ] || sleep 1h";
    space.start("deleted", gpu(command, "default")).await;
    for pod in ["deleted-1", "deleted-2"] {
        space.pod_running(pod).await;
        space.pods().delete(pod, &DeleteParams::default()).await.unwrap();
    }
    let (deleted, unusable) = tokio::join!(space.end_of("deleted"), space.run("unusable", gpu("true", "incomplete")));
    for (ended, before, nodes) in [
        (&deleted, "PodDeleted", [&first, &first, &first]),
        (&unusable, "GpuUnavailable", [&first, &second.name, &first]),
    ] {
        assert!(ended.attempts.iter().take(2).all(|a| a.cause.as_deref() == Some(before)), "{ended:#?}");
        let on: Vec<_> = ended.attempts.iter().filter_map(|a| a.node.as_ref()).collect();
        assert_eq!(on, nodes, "{ended:#?}");
    }
    space.end().await;
}
