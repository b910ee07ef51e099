//! The kubelet of the node `scripted`, and the controllers that delete pods: each attempt does what its script says.
//!
//! The script is an annotation of the pod with one word for each attempt, the last of which is that of all later ones:
//!
//! | word | the command |
//! |---|---|
//! | `exits:N` | ends at once with this exit code |
//! | `runs:N` | ends with it as soon as the object says that it runs |
//! | `waits` | ends when it is asked to: by the helper, or because the pod is deleted |
//! | `drained` | runs until the object says so; then its node is drained |
//! | `lost` | runs until the object says so; then its node is gone for good |

use std::sync::Arc;
use std::time::Duration;

use bundlerun::contract::{Message, Record, Report, Saved, Usage};
use bundlerun::names;
use futures::future::BoxFuture;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::world::{Seen, Space, State};

pub const NODE: &str = "scripted";
pub const SCRIPT: &str = "sweep.example.com/script";

/// A command that was asked to end, as a shell has it.
const ASKED_TO_STOP: i32 = 143;

/// What a kubelet, or a controller that ends pods, does once for a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Bind,
    Start,
    End(i32),
    Drain,
    /// What the garbage collector of pods does when a node is gone.
    Lose,
    Collect,
}

/// The node, and somebody who says that it lives.
pub async fn node(client: &Client) {
    let nodes: Api<Node> = Api::all(client.clone());
    let node = json!({"metadata": {"name": NODE}});
    match nodes.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        made => drop(made.unwrap()),
    }
    let now = Timestamp::now().to_string();
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Scripted", "message": "",
        "lastHeartbeatTime": now, "lastTransitionTime": now}],
        "nodeInfo": {"containerRuntimeVersion": "containerd://2.2.0", "kubeletVersion": "v1.36.0", "architecture": "amd64",
            "bootID": "", "kernelVersion": "", "kubeProxyVersion": "", "machineID": "", "operatingSystem": "linux",
            "osImage": "", "systemUUID": ""}}});
    nodes.patch_status(NODE, &PatchParams::default(), &Patch::Strategic(ready)).await.unwrap();
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    tokio::spawn(async move {
        loop {
            let spec = json!({"holderIdentity": NODE, "leaseDurationSeconds": 40,
                "renewTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()});
            let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NODE}, "spec": spec});
            let _ = leases.patch(NODE, &PatchParams::apply("sweep").force(), &Patch::Apply(lease)).await;
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    });
}

pub fn phase(pod: &Pod) -> String {
    pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default()
}

fn attempt(pod: &Pod) -> u32 {
    pod.labels().get(names::ATTEMPT_LABEL).and_then(|attempt| attempt.parse().ok()).unwrap_or_default()
}

fn run_uid(pod: &Pod) -> String {
    pod.labels().get(names::RUN_UID_LABEL).cloned().unwrap_or_default()
}

/// Of the bundle that an attempt leaves.
pub fn digest(attempt: u32) -> String {
    format!("sha256:{attempt:064x}")
}

/// Does what is due of all pods of a namespace.
pub fn look(space: &Arc<Space>) {
    let mut state = space.state();
    let due: Vec<_> = state.pods.values().filter_map(|pod| Some((pod.clone(), next(&state, pod)?))).collect();
    for (pod, action) in due {
        let done = state.done.entry(pod.uid().unwrap_or_default()).or_default();
        if done.contains(&action) {
            continue;
        }
        done.push(action);
        let (run_uid, attempt) = (run_uid(&pod), attempt(&pod));
        match action {
            Action::Start => state.history.push(Seen::Began { run_uid, attempt }),
            Action::End(exit_code) => state.history.push(Seen::Reported { run_uid, attempt, exit_code }),
            _ => {}
        }
        tokio::spawn(carry_out(Arc::clone(space), pod, action));
    }
}

fn next(state: &State, pod: &Pod) -> Option<Action> {
    let is_deleting = pod.metadata.deletion_timestamp.is_some();
    let is_held = pod.metadata.finalizers.iter().flatten().next().is_some();
    let is_bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    let phase = phase(pod);
    if ["Succeeded", "Failed"].contains(&phase.as_str()) {
        return (is_deleting && !is_held).then_some(Action::Collect);
    }
    if !is_bound {
        return (!is_deleting).then_some(Action::Bind);
    }
    if phase != "Running" {
        return Some(if is_deleting { Action::End(ASKED_TO_STOP) } else { Action::Start });
    }
    let is_told = pod.annotations().get(names::STOP_ANNOTATION).is_some_and(|order| !order.is_empty());
    if is_deleting || is_told {
        return Some(Action::End(ASKED_TO_STOP));
    }
    let script: Vec<_> = pod.annotations().get(SCRIPT)?.split(' ').collect();
    let word = script.get(usize::try_from(attempt(pod)).ok()?.checked_sub(1)?).or(script.last())?;
    let (word, code) = word.split_once(':').unwrap_or((word, "0"));
    let status = state.status(pod.labels().get(names::RUN_LABEL)?);
    let is_told = status["phase"] == "Running" && status["attempt"] == attempt(pod);
    match word {
        "exits" => Some(Action::End(code.parse().ok()?)),
        "runs" => is_told.then_some(Action::End(code.parse().ok()?)),
        "drained" => is_told.then_some(Action::Drain),
        "lost" => is_told.then_some(Action::Lose),
        _ => None,
    }
}

/// Again until it is done, or the pod is gone.
async fn carry_out(space: Arc<Space>, pod: Pod, action: Action) {
    for _ in 0..100 {
        match act(&space, &pod, action).await {
            Ok(()) => return,
            Err(kube::Error::Api(status)) if status.is_not_found() => return,
            Err(kube::Error::Api(status)) if status.is_conflict() && action == Action::Bind => return,
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

fn act<'a>(space: &'a Space, pod: &'a Pod, action: Action) -> BoxFuture<'a, kube::Result<()>> {
    let pods: Api<Pod> = Api::namespaced(space.client.clone(), &space.name);
    let name = pod.name_any();
    let say = {
        let pods = pods.clone();
        let name = name.clone();
        async move |status: Value| {
            pods.patch_status(&name, &PatchParams::default(), &Patch::Strategic(json!({"status": status})))
                .await
                .map(drop)
        }
    };
    Box::pin(async move {
        match action {
            Action::Bind => {
                let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
                    "target": {"apiVersion": "v1", "kind": "Node", "name": NODE}});
                pods.create_subresource::<Value, Value>("binding", &name, &PostParams::default(), &binding)
                    .await
                    .map(drop)
            }
            Action::Start => say(running()).await,
            Action::End(code) => say(ended(space, pod, code)).await,
            Action::Drain => pods.delete(&name, &DeleteParams::default()).await.map(drop),
            Action::Lose => {
                let now = Timestamp::now().to_string();
                say(json!({"phase": "Failed", "reason": "PodGC", "conditions": [{"type": "DisruptionTarget", "status": "True",
                    "reason": "DeletionByPodGC", "message": "PodGC: node no longer exists", "lastTransitionTime": now}]}))
                .await?;
                pods.delete(&name, &DeleteParams::default().grace_period(0)).await.map(drop)
            }
            Action::Collect => pods.delete(&name, &DeleteParams::default().grace_period(0)).await.map(drop),
        }
    })
}

fn container(name: &str, state: &Value, is_up: bool) -> Value {
    let digest = digest(0);
    json!([{"name": name, "image": "registry.example.com/cpu", "imageID": format!("registry.example.com/cpu@{digest}"),
        "ready": is_up, "started": is_up, "restartCount": 0, "state": state}])
}

fn running() -> Value {
    let now = Timestamp::now().to_string();
    let state = json!({"running": {"startedAt": now}});
    let is_true = |type_: &str| json!({"type": type_, "status": "True", "lastTransitionTime": now});
    json!({"phase": "Running", "startTime": now, "conditions": [is_true("PodReadyToStartContainers"), is_true("Ready")],
        "initContainerStatuses": container(names::HELPER_CONTAINER, &state, true),
        "containerStatuses": container(names::RUN_CONTAINER, &state, true)})
}

/// What runner, helper and kubelet leave of an attempt whose output was saved.
fn ended(space: &Space, pod: &Pod, code: i32) -> Value {
    let now = Timestamp::now();
    let since = pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map_or(now, |time| time.0);
    let attempt = attempt(pod);
    let before = format!("store.example.com/bundles/{}@{}", space.name, digest(attempt.saturating_sub(1)));
    let record = Record {
        exit_code: Some(code),
        asked_to_stop: code == ASKED_TO_STOP,
        started_at_ms: Some(since.as_millisecond()),
        finished_at_ms: now.as_millisecond(),
        usage: Usage {
            wall_ms: 1000,
            cpu_user_ms: 800,
            cpu_system_ms: 100,
            memory_peak_bytes: 100 << 20,
            ..Usage::default()
        },
        ..Record::default()
    };
    let report = Report {
        record: Some(record),
        files: 2,
        bytes: 12,
        resumed_from: (attempt > 1 && pod.annotations().contains_key("sweep.example.com/resumes")).then_some(before),
        saved: Some(Saved { digest: digest(attempt), pushed_bytes: 12, mountable: true, ..Saved::default() }),
        ..Report::default()
    };
    let message = Message::encode(&report, b"hello\n", b"");
    let state = |code: i32, message: Option<String>| {
        let reason = if code == 0 { "Completed" } else { "Error" };
        json!({"running": null, "terminated": {"exitCode": code, "reason": reason, "message": message,
            "startedAt": since.to_string(), "finishedAt": now.to_string()}})
    };
    json!({"phase": if code == 0 { "Succeeded" } else { "Failed" },
        "initContainerStatuses": container(names::HELPER_CONTAINER, &state(0, Some(message)), false),
        "containerStatuses": container(names::RUN_CONTAINER, &state(code, None), false)})
}
