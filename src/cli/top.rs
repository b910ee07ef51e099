//! `top`: the runs that have not ended, what they asked for, what they use, and how long they run.

use std::collections::BTreeMap;

use clap::Args;
use jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::api::{BundleRun, Phase, Quantity};
use crate::cluster::GuardedRun;
use crate::contract::size_for_people;
use crate::names;
use crate::plan::{DEFAULT_CPU_MILLIS, DEFAULT_MEMORY_BYTES, pod_name};

use super::failure::{Asked, Failure};
use super::paint::{Paint, colour};
use super::runs;
use super::session::{Answer, Connection, Format, Session, qualified_name};
use super::table::{Cell, Table};

/// The API of metrics servers.
const METRICS: &str = "metrics.k8s.io";

#[derive(Debug, Args)]
pub(super) struct Top {
    /// Runs of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Runs with these labels, as `kubectl get` takes them
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    #[command(flatten)]
    answer: Answer,
}

pub(super) async fn top(session: &Session, args: &Top) -> Result<(), Failure> {
    let connection = session.connect().await?;
    let namespace = (!args.all_namespaces).then_some(connection.namespace.as_str());
    let api: Api<GuardedRun> = match namespace {
        Some(_) => connection.api(),
        None => Api::all(connection.client.clone()),
    };
    let over = Phase::ALL.into_iter().filter(|phase| phase.is_terminal());
    let live = over.map(|phase| format!("status.phase!={phase:?}")).collect::<Vec<_>>().join(",");
    let params = ListParams { label_selector: args.selector.clone(), ..ListParams::default().fields(&live) };
    let asked = Asked { verb: "list", resource: names::PLURAL, name: None, namespace };
    let mut live = runs::understood(session, runs::pages(&api, params, asked).await?);
    live.sort_by_key(|run| (std::cmp::Reverse(runs::phase(run) as u8), run.namespace(), run.name_any()));

    let is_one_at_work = live.iter().any(|run| runs::phase(run) == Phase::Running);
    let used = if is_one_at_work { used(&connection, namespace).await } else { Ok(BTreeMap::new()) };
    let is_measured = used.is_ok();
    let used = used.unwrap_or_else(|why| {
        session.out.note(&format!("what they use is not known: {why}"));
        BTreeMap::new()
    });
    let now = Timestamp::now();
    let rows: Vec<Row> = live.iter().map(|run| Row::new(run, &used, now)).collect();
    match args.answer.output {
        format @ (Format::Table | Format::Wide) => {
            session.out.print(&text(&rows, args.all_namespaces, format, session.out.paint))?;
        }
        Format::Name => session.out.print(&rows.iter().map(|row| qualified_name(&row.name)).collect::<String>())?,
        format => session.out.document(format, &json!({"measured": is_measured, "runs": rows}))?,
    }
    if rows.is_empty() {
        session.out.note("no run is waiting or at work");
    }
    Ok(())
}

/// What a run has of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    namespace: String,
    name: String,
    phase: Phase,
    node: Option<String>,
    /// Since its command began.
    running_seconds: Option<u64>,
    asked: Resources,
    /// None: it is not known.
    used: Option<Used>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Resources {
    cpus: String,
    memory: String,
    gpus: u32,
    /// None: the administrator's default.
    disk: Option<String>,
}

/// By the container of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Used {
    cpu_millis: u64,
    memory_bytes: u64,
}

/// By namespace and name of the pod.
type Usages = BTreeMap<(String, String), Used>;

impl Row {
    fn new(run: &BundleRun, used: &Usages, now: Timestamp) -> Self {
        let status = run.status.clone().unwrap_or_default();
        let phase = runs::phase(run);
        let is_at_work = matches!(phase, Phase::Running | Phase::Finalizing);
        let started = status.start_time.as_ref().filter(|_| is_at_work);
        let seconds = started.map(|started| now.as_second().saturating_sub(started.0.as_second()));
        let asked = &run.spec.resources;
        let namespace = run.namespace().unwrap_or_default();
        let pod = pod_name(runs::name(run), runs::attempt_number(run));
        Self {
            used: used.get(&(namespace.clone(), pod)).copied().filter(|_| is_at_work),
            namespace,
            name: run.name_any(),
            phase,
            node: status.node.filter(|_| phase != Phase::Waiting),
            running_seconds: seconds.and_then(|seconds| u64::try_from(seconds).ok()),
            asked: Resources {
                cpus: asked.cpus.as_ref().map_or_else(|| cores(DEFAULT_CPU_MILLIS), Quantity::to_string),
                memory: asked
                    .memory
                    .as_ref()
                    .map_or_else(|| Quantity::of_bytes(DEFAULT_MEMORY_BYTES).to_string(), Quantity::to_string),
                gpus: asked.gpus,
                disk: asked.disk.as_ref().map(Quantity::to_string),
            },
        }
    }
}

/// As a spec has them.
fn cores(millis: u64) -> String {
    if millis.is_multiple_of(1000) { (millis / 1000).to_string() } else { format!("{millis}m") }
}

/// What a metrics server says.
#[derive(Deserialize)]
struct Metrics {
    #[serde(default)]
    items: Vec<PodMetrics>,
}

#[derive(Deserialize)]
struct PodMetrics {
    metadata: kube::api::ObjectMeta,
    #[serde(default)]
    containers: Vec<ContainerMetrics>,
}

#[derive(Deserialize)]
struct ContainerMetrics {
    name: String,
    #[serde(default)]
    usage: BTreeMap<String, Quantity>,
}

/// Why not, where nobody knows.
async fn used(connection: &Connection, namespace: Option<&str>) -> Result<Usages, String> {
    let place = namespace.map(|namespace| format!("namespaces/{namespace}/")).unwrap_or_default();
    let query: String =
        url::form_urlencoded::Serializer::new(String::new()).append_pair("labelSelector", names::RUN_LABEL).finish();
    let request = http::Request::get(format!("/apis/{METRICS}/v1beta1/{place}pods?{query}")).body(Vec::new());
    let request = request.map_err(|error| error.to_string())?;
    match connection.client.request::<Metrics>(request).await {
        Ok(metrics) => Ok(usages(metrics)),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 503) => {
            Err(format!("the cluster has no metrics server that answers ({METRICS})"))
        }
        Err(error) => {
            let resource = &format!("pods.{METRICS}");
            Err(Asked { verb: "list", resource, name: None, namespace }.failed(&error).message)
        }
    }
}

fn usages(metrics: Metrics) -> Usages {
    let of = |pod: PodMetrics| {
        let container = pod.containers.into_iter().find(|container| container.name == names::RUN_CONTAINER)?;
        let cpu_millis = container.usage.get("cpu")?.millis().ok()?;
        let memory_bytes = container.usage.get("memory")?.bytes().ok()?;
        Some(((pod.metadata.namespace?, pod.metadata.name?), Used { cpu_millis, memory_bytes }))
    };
    metrics.items.into_iter().filter_map(of).collect()
}

fn text(rows: &[Row], all_namespaces: bool, format: Format, paint: Paint) -> String {
    let is_wide = format == Format::Wide;
    let is_measured = rows.iter().any(|row| row.used.is_some());
    let mut headers = if all_namespaces { vec!["NAMESPACE"] } else { Vec::new() };
    headers.extend(["NAME", "PHASE", "RUNNING", "GPUS", "CPUS", "MEMORY", "DISK"]);
    if is_measured {
        headers.extend(["CPU USED", "MEMORY USED"]);
    }
    if is_wide {
        headers.push("NODE");
    }
    let cells = |row: &Row| {
        let mut cells = if all_namespaces { vec![Cell::from(row.namespace.as_str())] } else { Vec::new() };
        let running = row.running_seconds.map(runs::for_people).unwrap_or_default();
        let gpus = if row.asked.gpus == 0 { String::new() } else { row.asked.gpus.to_string() };
        cells.extend([
            Cell::from(row.name.as_str()),
            Cell::coloured(&format!("{:?}", row.phase), colour(row.phase)),
            Cell::from(running),
            Cell::from(gpus),
            Cell::from(row.asked.cpus.as_str()),
            Cell::from(row.asked.memory.as_str()),
            Cell::from(row.asked.disk.as_deref().unwrap_or_default()),
        ]);
        if is_measured {
            cells.push(Cell::from(row.used.map(|used| format!("{}m", used.cpu_millis)).unwrap_or_default()));
            cells.push(Cell::from(row.used.map(|used| size_for_people(used.memory_bytes)).unwrap_or_default()));
        }
        if is_wide {
            cells.push(Cell::from(row.node.as_deref().unwrap_or_default()));
        }
        cells
    };
    Table::new(headers, paint).rows(&rows.iter().map(cells).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::examples;

    fn rows(metrics: serde_json::Value) -> Vec<Row> {
        let mut running = examples::failed();
        running.status.as_mut().unwrap().phase = Some(Phase::Running);
        let used = usages(serde_json::from_value(metrics).unwrap());
        [running, examples::waiting(), examples::new()]
            .iter()
            .map(|run| Row::new(run, &used, examples::now()))
            .collect()
    }

    #[test]
    fn what_was_asked_for_is_shown_without_a_metrics_server() {
        let expected = "\
NAME   PHASE    RUNNING  GPUS  CPUS  MEMORY  DISK
wrong  Running  59m0s          1     2Gi
big    Pending           99    1     2Gi
fresh  Waiting                 1     2Gi
";
        assert_eq!(text(&rows(json!({})), false, Format::Table, Paint::default()), expected);
    }

    #[tokio::test]
    async fn a_metrics_server_is_asked_for_the_pods_of_runs_alone() {
        let pod = json!({"metadata": {"name": "x-1", "namespace": "a"},
            "containers": [{"name": "run", "usage": {"cpu": "1", "memory": "1Ki"}}]});
        let there = examples::connection(move |path, query| {
            assert_eq!(path, "/apis/metrics.k8s.io/v1beta1/namespaces/a/pods");
            assert_eq!(query, "labelSelector=bundlerun.dev%2Frun");
            (200, json!({"kind": "PodMetricsList", "metadata": {}, "items": [pod]}))
        });
        let found = used(&there, Some("a")).await.unwrap();
        assert_eq!(found[&("a".to_owned(), "x-1".to_owned())], Used { cpu_millis: 1000, memory_bytes: 1024 });

        let no_server = examples::connection(|_, _| (404, json!("404 page not found")));
        let why = used(&no_server, None).await.unwrap_err();
        assert_eq!(why, "the cluster has no metrics server that answers (metrics.k8s.io)");
        let no_right = examples::connection(|_, _| examples::forbidden("list", "pods"));
        let why = used(&no_right, Some("a")).await.unwrap_err();
        assert!(why.starts_with("you may not list pods.metrics.k8s.io in namespace a: "), "{why}");
    }

    #[test]
    fn what_the_container_of_the_command_uses_is_shown_where_it_is_known() {
        let container = |name: &str| json!({"name": name, "usage": {"cpu": "1234567890n", "memory": "2048Ki"}});
        let pod = |name: &str, containers: &[&str]| {
            let containers: Vec<_> = containers.iter().map(|name| container(name)).collect();
            json!({"metadata": {"name": name, "namespace": "a"}, "containers": containers})
        };
        let metrics = json!({"items": [pod("wrong-2", &["bundle", "run"]), pod("big-1", &["bundle"])]});
        let rows = rows(metrics);
        assert_eq!(rows[0].used, Some(Used { cpu_millis: 1235, memory_bytes: 2 << 20 }));
        assert_eq!((rows[1].used, rows[2].running_seconds), (None, None));
        let wide = text(&rows, true, Format::Wide, Paint::default());
        let begin = "NAMESPACE  NAME   PHASE    RUNNING  GPUS  CPUS  MEMORY  DISK  CPU USED  MEMORY USED  NODE\n\
                     a          wrong  Running  59m0s          1     2Gi           1235m     2.0 MiB      n2\n";
        assert!(wide.starts_with(begin), "{wide}");
        let document = json!(rows[0]);
        assert_eq!((&document["asked"]["memory"], &document["runningSeconds"]), (&json!("2Gi"), &json!(3540)));
    }
}
