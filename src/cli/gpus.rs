//! `gpus`: the GPUs of the cluster, who holds them since when, and what is free.

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as KubernetesQuantity;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde::Serialize;
use serde_json::json;

use crate::api::Quantity;
use crate::names;

use super::failure::{Asked, Failure};
use super::paint::{Colour, Paint};
use super::runs;
use super::session::{Answer, Connection, Format, Session};
use super::table::{Cell, Table};

/// Where vendors and clouds say what a node's GPUs are.
const MODELS: [&str; 6] = [
    "nvidia.com/gpu.product",
    "amd.com/gpu.product-name",
    "gpu.intel.com/product",
    "cloud.google.com/gke-accelerator",
    "k8s.amazonaws.com/accelerator",
    "accelerator",
];

#[derive(Debug, Args)]
pub(super) struct Gpus {
    /// Another resource that counts as one, as vendor.example/accelerator
    #[arg(long, value_name = "RESOURCE")]
    resource: Vec<String>,
    #[command(flatten)]
    answer: Answer,
}

pub(super) async fn gpus(session: &Session, args: &Gpus) -> Result<(), Failure> {
    let connection = session.connect().await?;
    let of_cluster = Asked { verb: "list", resource: "nodes", name: None, namespace: None };
    let nodes = Api::<Node>::all(connection.client.clone());
    let nodes = runs::pages(&nodes, ListParams::default(), of_cluster).await?;
    let is_wanted = |resource: &str| is_gpu(resource) || args.resource.iter().any(|wanted| wanted == resource);
    let mut all: Vec<Gpu> = nodes.iter().flat_map(|node| of_node(node, is_wanted)).collect();

    let (pods, is_complete) = if all.is_empty() { (Vec::new(), true) } else { pods(session, &connection).await? };
    for pod in &pods {
        take(pod, &mut all);
    }
    all.sort_by(|a, b| (&a.resource, &a.node).cmp(&(&b.resource, &b.node)));
    match args.answer.output {
        format @ (Format::Table | Format::Wide) => {
            let now = Timestamp::now();
            session.out.print(&text(&all, is_complete, format, session.out.paint, now))?;
        }
        Format::Name => {
            session.out.print(&all.iter().map(|gpu| format!("node/{}\n", gpu.node)).collect::<Vec<_>>().concat())?;
        }
        format => session.out.document(format, &json!({"complete": is_complete, "gpus": all}))?,
    }
    if all.is_empty() {
        session.out.note("no node offers a GPU: does its device plugin run? --resource names one of another kind");
    }
    Ok(())
}

/// The GPUs of one kind on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Gpu {
    node: String,
    model: Option<String>,
    resource: String,
    state: State,
    allocatable: u64,
    held: u64,
    /// For new pods: none on a node that takes none.
    free: u64,
    held_by: Vec<Holder>,
}

/// What a node is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum State {
    Ready,
    NotReady,
    Cordoned,
}

/// A pod, of a run or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Holder {
    namespace: String,
    run: Option<String>,
    pod: String,
    count: u64,
    since: Option<Timestamp>,
}

/// What device plugins call GPUs, and parts of them.
fn is_gpu(resource: &str) -> bool {
    let Some((_, name)) = resource.split_once('/') else { return false };
    // Of sharing plugins: parts of one.
    let is_a_part = ["gpumem", "gpucores"].iter().any(|part| name.starts_with(part));
    (resource.contains("gpu") && !is_a_part) || name.starts_with("mig-")
}

fn of_node(node: &Node, is_wanted: impl Fn(&str) -> bool) -> Vec<Gpu> {
    let status = node.status.clone().unwrap_or_default();
    let is_ready = status.conditions.iter().flatten().any(|is| is.type_ == "Ready" && is.status == "True");
    let is_cordoned = node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true));
    let state = match (is_ready, is_cordoned) {
        (false, _) => State::NotReady,
        (true, true) => State::Cordoned,
        (true, false) => State::Ready,
    };
    let model = MODELS.iter().find_map(|label| node.labels().get(*label)).cloned();
    let resources = status.allocatable.unwrap_or_default().into_iter();
    let resources = resources.filter(|(resource, _)| is_wanted(resource)).map(|(resource, count)| {
        let allocatable = number(&count);
        let free = if state == State::Ready { allocatable } else { 0 };
        let (node, model) = (node.name_any(), model.clone());
        Gpu { node, model, resource, state, allocatable, held: 0, free, held_by: Vec::new() }
    });
    // A plugin that is gone leaves a zero behind.
    resources.filter(|gpu| gpu.allocatable > 0).collect()
}

fn number(quantity: &KubernetesQuantity) -> u64 {
    Quantity::from(quantity.0.as_str()).bytes().unwrap_or_default()
}

/// Those that hold something, of all namespaces, or else of this one; and whether they are all.
async fn pods(session: &Session, connection: &Connection) -> Result<(Vec<Pod>, bool), Failure> {
    let bound = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed";
    let params = ListParams::default().fields(bound);
    let asked = Asked { verb: "list", resource: "pods", name: None, namespace: None };
    let all = Api::<Pod>::all(connection.client.clone());
    let failure = match runs::pages(&all, params.clone(), asked).await {
        Ok(pods) => return Ok((pods, true)),
        Err(failure) => failure,
    };
    let asked = Asked { namespace: Some(&connection.namespace), ..asked };
    let Ok(pods) = runs::pages(&connection.api::<Pod>(), params, asked).await else { return Err(failure) };
    session.out.note(&format!("no more than these may be free: {}", failure.message));
    Ok((pods, false))
}

/// Takes what a pod holds.
fn take(pod: &Pod, all: &mut [Gpu]) {
    let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) else { return };
    for gpu in all.iter_mut().filter(|gpu| gpu.node == node) {
        let count = asked_for(pod, &gpu.resource);
        if count == 0 {
            continue;
        }
        gpu.held += count;
        gpu.free = gpu.free.saturating_sub(count);
        gpu.held_by.push(Holder {
            namespace: pod.namespace().unwrap_or_default(),
            run: pod.labels().get(names::RUN_LABEL).cloned(),
            pod: pod.name_any(),
            count,
            since: since(pod),
        });
    }
}

/// As the scheduler counts it: the containers together, or the largest of those that run before them.
fn asked_for(pod: &Pod, resource: &str) -> u64 {
    let of = |container: &Container| -> u64 {
        let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
        limits.and_then(|limits| limits.get(resource)).map(number).unwrap_or_default()
    };
    let Some(spec) = &pod.spec else { return 0 };
    let goes_on = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let before = spec.init_containers.iter().flatten();
    let together: u64 = spec.containers.iter().chain(before.clone().filter(goes_on)).map(of).sum();
    before.filter(|container| !goes_on(container)).map(of).max().unwrap_or_default().max(together)
}

/// When it got its node.
fn since(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let scheduled = status.conditions.iter().flatten().find(|is| is.type_ == "PodScheduled" && is.status == "True");
    let scheduled = scheduled.and_then(|is| is.last_transition_time.as_ref());
    scheduled.or(status.start_time.as_ref()).map(|time| time.0)
}

fn text(all: &[Gpu], is_complete: bool, format: Format, paint: Paint, now: Timestamp) -> String {
    let is_wide = format == Format::Wide;
    let mut headers = vec!["NODE", "STATE", "MODEL", "RESOURCE", "ALLOCATABLE", "HELD", "FREE"];
    // One holder a line.
    headers.extend(["BY", "COUNT", "SINCE"]);
    if is_wide {
        headers.push("POD");
    }
    let mut rows = Vec::new();
    for gpu in all {
        let colour = if gpu.state == State::Ready { Colour::Green } else { Colour::Yellow };
        let free = if is_complete { gpu.free.to_string() } else { format!("<={}", gpu.free) };
        let begin = [
            Cell::from(gpu.node.as_str()),
            Cell::coloured(&format!("{:?}", gpu.state), Some(colour)),
            Cell::from(gpu.model.as_deref().unwrap_or_default()),
            Cell::from(gpu.resource.as_str()),
            Cell::from(gpu.allocatable.to_string()),
            Cell::from(gpu.held.to_string()),
            Cell::from(free),
        ];
        let mut row = begin.to_vec();
        for holder in &gpu.held_by {
            let kind = if holder.run.is_some() { "" } else { "pod " };
            let name = holder.run.as_ref().unwrap_or(&holder.pod);
            row.push(Cell::from(format!("{kind}{}/{name}", holder.namespace)));
            row.push(Cell::from(holder.count.to_string()));
            row.push(Cell::from(holder.since.map(|since| runs::ago(since, now)).unwrap_or_default()));
            if is_wide {
                row.push(Cell::from(holder.pod.as_str()));
            }
            rows.push(std::mem::replace(&mut row, vec![Cell::from(""); begin.len()]));
        }
        if gpu.held_by.is_empty() {
            rows.push(row);
        }
    }
    Table::new(headers, paint).rows(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::examples;
    use serde_json::Value;

    fn node(name: &str, ready: &str, cordoned: bool, resources: &Value) -> Node {
        let node = json!({
            "metadata": {"name": name, "labels": {"nvidia.com/gpu.product": "NVIDIA-H200\u{1b}[2J"}},
            "spec": {"unschedulable": cordoned},
            "status": {"allocatable": resources, "conditions": [{"type": "Ready", "status": ready}]},
        });
        serde_json::from_value(node).unwrap()
    }

    fn pod(name: &str, node: &str, count: u64, run: Option<&str>) -> Pod {
        let labels = run.map(|run| json!({"bundlerun.dev/run": run})).unwrap_or(json!({}));
        let limits = json!({"nvidia.com/gpu": count.to_string()});
        let scheduled = json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-11-26T09:00:00Z"});
        let pod = json!({
            "metadata": {"name": name, "namespace": "a", "labels": labels},
            "spec": {"nodeName": node, "containers": [{"name": "run", "resources": {"limits": limits}}],
                "initContainers": [{"name": "bundle", "restartPolicy": "Always"}]},
            "status": {"conditions": [scheduled]},
        });
        serde_json::from_value(pod).unwrap()
    }

    fn all() -> Vec<Gpu> {
        let nodes = [
            node("n1", "True", false, &json!({"nvidia.com/gpu": "8", "cpu": "64", "nvidia.com/mig-1g.10gb": "0"})),
            node("n2", "True", true, &json!({"nvidia.com/gpu": "4"})),
            node("n3", "Unknown", false, &json!({"nvidia.com/gpu": "4"})),
            node("n4", "True", false, &json!({"cpu": "64", "rdma/hca": "1"})),
        ];
        let mut all: Vec<_> = nodes.iter().flat_map(|node| of_node(node, is_gpu)).collect();
        for pod in [pod("train-1", "n1", 2, Some("train")), pod("other", "n1", 1, None), pod("x-1", "n2", 0, Some("x"))]
        {
            take(&pod, &mut all);
        }
        all
    }

    #[test]
    fn every_holder_has_a_line_and_what_is_free_is_for_new_runs() {
        let expected = "\
NODE  STATE     MODEL        RESOURCE        ALLOCATABLE  HELD  FREE  BY           COUNT  SINCE
n1    Ready     NVIDIA-H200  nvidia.com/gpu  8            3     5     a/train      2      1h0m
                                                                      pod a/other  1      1h0m
n2    Cordoned  NVIDIA-H200  nvidia.com/gpu  4            0     0
n3    NotReady  NVIDIA-H200  nvidia.com/gpu  4            0     0
";
        assert_eq!(text(&all(), true, Format::Table, Paint::default(), examples::now()), expected);
        assert!(text(&all(), false, Format::Wide, Paint::default(), examples::now()).contains("<=5"));
    }

    #[tokio::test]
    async fn who_may_not_list_all_pods_learns_what_those_of_the_namespace_hold() {
        let list =
            || json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [pod("train-1", "n1", 2, None)]});
        let of_namespace = move |path: &str, _: &str| match path {
            "/api/v1/namespaces/a/pods" => (200, list()),
            _ => examples::forbidden("list", "pods"),
        };
        let (found, is_complete) = pods(&examples::session(), &examples::connection(of_namespace)).await.unwrap();
        assert_eq!((found.len(), is_complete), (1, false));
        let none = examples::connection(|_, _| examples::forbidden("list", "pods"));
        let failure = pods(&examples::session(), &none).await.unwrap_err();
        assert!(failure.message.starts_with("you may not list pods in all namespaces: "), "{}", failure.message);
    }

    #[test]
    fn gpus_are_known_by_the_names_that_plugins_give_them() {
        for resource in
            ["nvidia.com/gpu", "amd.com/gpu", "nvidia.com/mig-1g.10gb", "gpu.intel.com/i915", "a.b/gpu.shared"]
        {
            assert!(is_gpu(resource), "{resource}");
        }
        for resource in ["cpu", "memory", "rdma/hca", "hugepages-2Mi", "gpu"] {
            assert!(!is_gpu(resource), "{resource}");
        }
    }

    #[test]
    fn a_pod_asks_for_what_its_containers_have_together_or_one_before_them() {
        let of = |containers: Value| {
            let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": containers})).unwrap();
            asked_for(&pod, "nvidia.com/gpu")
        };
        let with = |count: &str| json!({"name": "x", "resources": {"limits": {"nvidia.com/gpu": count}}});
        assert_eq!(of(json!({"containers": [with("1"), with("2")]})), 3);
        assert_eq!(of(json!({"containers": [with("1")], "initContainers": [with("4"), with("2")]})), 4);
        assert_eq!(of(json!({"containers": [{"name": "x"}]})), 0);
    }
}
