//! What a run costs beside a Job and a bare pod, on the control plane that `tests/bench/runs` starts.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bundlerun::names;
use clap::Parser;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind, Object};
use kube::{Client, ResourceExt};
use kube_runtime::{WatchStreamExt, watcher};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Notify;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// As many clients submit side by side.
const CLIENTS: usize = 3;
/// So long has nothing been asked by anybody, when all that belongs to a round is over.
const QUIET: Duration = Duration::from_secs(2);
/// What the steps of a run are allowed to be: its pod is made, its end is written, its pod is let go, its end is told.
const REQUESTS_MOST: usize = 4;
/// One more where the machine is so busy that a pod of a second takes more than two: it is written as running.
const REQUESTS_MOST_IN_A_BURST: usize = 5;
const IMAGE: &str = "registry.example.com/gpu@sha256:0000000000000000000000000000000000000000000000000000000000000001";

#[derive(Parser)]
struct Options {
    /// So many of each kind in each round.
    #[arg(long)]
    count: usize,
    #[arg(long)]
    rounds: usize,
    /// So many of each kind at one a second; a tenth of `count` and at most 60 when not given.
    #[arg(long)]
    steady: Option<usize>,
    /// Of these kinds alone.
    #[arg(long, value_delimiter = ',', default_values = ["pod", "job", "bundle-run"])]
    kinds: Vec<Kind>,
    /// The operator is watched for so many seconds with nothing to do.
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// Where the figures are written.
    #[arg(long)]
    json: PathBuf,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, PartialOrd, Ord, clap::ValueEnum)]
enum Kind {
    Pod,
    Job,
    BundleRun,
}

const KINDS: [Kind; 3] = [Kind::Pod, Kind::Job, Kind::BundleRun];

impl Kind {
    fn resource(self) -> ApiResource {
        let (group, version, kind) = match self {
            Kind::Pod => ("", "v1", "Pod"),
            Kind::Job => ("batch", "v1", "Job"),
            Kind::BundleRun => (names::GROUP, names::VERSION, names::KIND),
        };
        ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
    }

    /// One of it, which asks for a GPU and whose pod ends a second after it was started.
    fn object(self, name: &str) -> Value {
        let runs_for = json!({"bench.example.com/runs-for": "1s"});
        let resources = json!({"cpu": "1", "memory": "2Gi", "nvidia.com/gpu": "1"});
        let pod = json!({"restartPolicy": "Never", "automountServiceAccountToken": false,
            "containers": [{"name": "run", "image": IMAGE, "command": ["true"], "resources": {"limits": resources}}]});
        let metadata = json!({"name": name});
        match self {
            Kind::Pod => json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "annotations": runs_for}, "spec": pod}),
            Kind::Job => json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata,
                "spec": {"backoffLimit": 0, "template": {"metadata": {"annotations": runs_for}, "spec": pod}}}),
            Kind::BundleRun => {
                json!({"apiVersion": format!("{}/{}", names::GROUP, names::VERSION), "kind": names::KIND,
                "metadata": metadata, "spec": {"command": "true", "podAnnotations": runs_for,
                    "resources": {"gpus": 1, "cpus": "1", "memory": "2Gi"}}})
            }
        }
    }

    /// Who asks the API server for it, as its audit log names him.
    fn controller(self) -> Option<&'static str> {
        match self {
            Kind::Pod => None,
            Kind::Job => Some("system:serviceaccount:kube-system:job-controller"),
            Kind::BundleRun => Some("system:serviceaccount:bundlerun:bundle-operator"),
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Status {
    phase: Option<String>,
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
}

/// The spec is of no interest.
#[derive(Clone, Debug, Deserialize)]
struct Anything {}

type Seen = Object<Anything, Status>;

fn succeeded(seen: &Seen) -> bool {
    let Some(status) = &seen.status else { return false };
    let complete = |c: &Condition| c.type_ == "Complete" && c.status == "True";
    status.phase.as_deref() == Some("Succeeded") || status.conditions.iter().any(complete)
}

/// When what was seen first, by name.
#[derive(Clone, Default)]
struct Times(Arc<Mutex<HashMap<String, Instant>>>, Arc<Notify>);

impl Times {
    fn note(&self, name: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_insert_with(Instant::now);
        self.1.notify_waiters();
    }

    fn all(&self) -> HashMap<String, Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn until(&self, count: usize) {
        loop {
            let notified = self.1.notified();
            let mut notified = std::pin::pin!(notified);
            notified.as_mut().enable();
            if self.0.lock().unwrap_or_else(PoisonError::into_inner).len() >= count {
                return;
            }
            notified.await;
        }
    }
}

/// Notes when objects of a kind succeed, by their own name or that of their owner.
fn follow(client: &Client, namespace: &str, kind: Kind) -> (Times, tokio::task::JoinHandle<()>) {
    let resource = kind.resource();
    let api: Api<Seen> = Api::namespaced_with(client.clone(), namespace, &resource);
    let times = Times::default();
    let noted = times.clone();
    let task = tokio::spawn(async move {
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff().applied_objects());
        while let Some(event) = events.next().await {
            let Ok(seen) = event else { continue };
            if succeeded(&seen) {
                let owner = seen.metadata.owner_references.iter().flatten().next().map(|owner| owner.name.clone());
                noted.note(owner.unwrap_or_else(|| seen.name_any()));
            }
        }
    });
    (times, task)
}

/// A process of the cluster, or the operator.
fn pid_of(command: &str) -> Result<u32, Failure> {
    if command == "operator" {
        return Ok(std::env::var("OPERATOR_PID")?.parse()?);
    }
    let cgroup = format!("/{}/", std::env::var("CGROUP")?);
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let read = |file: &str| std::fs::read_to_string(path.join(file)).unwrap_or_default();
        // The kernel keeps fifteen bytes of a name.
        if command.starts_with(read("comm").trim_end()) && !read("comm").is_empty() && read("cgroup").contains(&cgroup)
        {
            return Ok(path.file_name().and_then(|name| name.to_str()).unwrap_or_default().parse()?);
        }
    }
    Err(format!("no process {command}").into())
}

const PROCESSES: [&str; 6] =
    ["kube-apiserver", "etcd", "kube-scheduler", "kube-controller-manager", "kwok", "operator"];

/// Milliseconds of CPU that a process has used.
fn cpu_ms(pid: u32) -> Result<f64, Failure> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').ok_or("no command in stat")?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field).ok_or("a short stat")?.parse::<f64>().map_err(Failure::from);
    // Linux counts in hundredths of a second wherever it is told to user space.
    Ok((ticks(11)? + ticks(12)?) * 10.0)
}

/// The most memory a process has had since it was last asked for, in bytes.
fn peak_bytes(pid: u32) -> Result<f64, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
    Ok(kib * 1024.0)
}

/// Counters of etcd: puts and bytes of its log.
async fn etcd() -> Result<(f64, f64), Failure> {
    let text = reqwest::get(std::env::var("ETCD_METRICS")?).await?.text().await?;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.ok_or_else(|| format!("no {name}"))?.parse::<f64>().map_err(Failure::from)
    };
    Ok((value("etcd_mvcc_put_total")?, value("etcd_disk_wal_write_bytes_total")?))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    stage: String,
    verb: String,
    user: User,
    #[serde(default)]
    object_ref: ObjectRef,
    #[serde(default)]
    response_status: Code,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ObjectRef {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Code {
    code: u16,
}

/// The audit log from where it was last read.
struct Audit {
    file: BufReader<File>,
}

impl Audit {
    fn from_now() -> Result<Self, Failure> {
        let mut file = File::open(std::env::var("AUDIT_LOG")?)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { file: BufReader::new(file) })
    }

    /// The requests of somebody that were answered since, watches apart.
    fn read(&mut self, who: &str) -> Result<Vec<Request>, Failure> {
        let (mut requests, mut line) = (vec![], String::new());
        loop {
            line.clear();
            let length = self.file.read_line(&mut line)?;
            if !line.ends_with('\n') {
                // Half a line: it is read again when it is whole.
                self.file.seek_relative(-i64::try_from(length)?)?;
                return Ok(requests);
            }
            if line.contains(who) {
                let request: Request = serde_json::from_str(&line)?;
                if request.user.username == who && request.stage == "ResponseComplete" && request.verb != "watch" {
                    requests.push(request);
                }
            }
        }
    }
}

/// What one round of one kind has cost.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Figures {
    runs_per_minute: f64,
    /// Of the controller, by what was asked; refused ones apart.
    requests: BTreeMap<String, f64>,
    requests_per_run: f64,
    /// Of the run in the middle, when they are ordered by how many they have cost.
    requests_of_median_run: usize,
    conflicts_per_run: f64,
    puts_per_run: f64,
    wal_bytes_per_run: f64,
    cpu_ms_per_run: BTreeMap<&'static str, f64>,
    /// From the end of the pod to the success of its owner, as one watcher has seen both.
    recorded_p50_ms: f64,
    recorded_p99_ms: f64,
    /// From the answer to its creation to its success.
    whole_p50_ms: f64,
    controller_peak_bytes: f64,
}

fn quantile(sorted: &[f64], part: f64) -> f64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let at = ((sorted.len().saturating_sub(1)) as f64 * part).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// So many of a kind, in a namespace of their own: as fast as the clients can, or one each `every`.
#[allow(clippy::cast_precision_loss)]
async fn measure(
    client: &Client,
    kind: Kind,
    prefix: &str,
    count: usize,
    every: Option<Duration>,
) -> Result<Figures, Failure> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let object = serde_json::from_value(json!({"metadata": {"generateName": prefix}}))?;
    let namespace = &namespaces.create(&PostParams::default(), &object).await?.name_any();
    let (pods, watch_of_pods) = follow(client, namespace, Kind::Pod);
    let (owners, watch_of_owners) = if kind == Kind::Pod {
        (pods.clone(), None)
    } else {
        let (owners, watch) = follow(client, namespace, kind);
        (owners, Some(watch))
    };
    let controller = pid_of(of_controller(kind).unwrap_or("operator"))?;
    peak_bytes(controller)?;
    let processes: Vec<_> = PROCESSES.iter().map(|name| pid_of(name)).collect::<Result<_, _>>()?;
    let cpu = || processes.iter().map(|pid| cpu_ms(*pid)).collect::<Result<Vec<_>, _>>();
    let mut audit = Audit::from_now()?;
    let (before, cpu_before) = (etcd().await?, cpu()?);

    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind.resource());
    let begun = Instant::now();
    let submit = async |i: usize| {
        if let Some(every) = every {
            tokio::time::sleep_until((begun + every * u32::try_from(i)?).into()).await;
        }
        let name = format!("r{i:05}");
        let object: DynamicObject = serde_json::from_value(kind.object(&name))?;
        let asked = Instant::now();
        api.create(&PostParams::default(), &object).await?;
        Ok::<_, Failure>((name, asked))
    };
    let submit = &submit;
    let submitted: HashMap<String, Instant> =
        stream::iter((0..count).map(submit)).buffer_unordered(CLIENTS).try_collect().await?;
    owners.until(count).await;
    let ended = owners.all();
    let last = ended.values().max().ok_or("nothing ended")?;
    let seconds = last.duration_since(begun).as_secs_f64();

    let mut requests = vec![];
    if let Some(user) = kind.controller() {
        // The last of a run's requests come after its success.
        loop {
            tokio::time::sleep(QUIET).await;
            let more = audit.read(user)?;
            if more.is_empty() {
                break;
            }
            requests.extend(more);
        }
    }
    let (after, cpu_after) = (etcd().await?, cpu()?);
    watch_of_pods.abort();
    watch_of_owners.iter().for_each(tokio::task::JoinHandle::abort);

    let runs = count as f64;
    let what = |request: &Request| {
        let ObjectRef { resource, subresource, .. } = &request.object_ref;
        let slash = if subresource.is_empty() { "" } else { "/" };
        format!("{} {resource}{slash}{subresource}", request.verb)
    };
    let mut of_runs: BTreeMap<&str, usize> = BTreeMap::new();
    let mut by_what: BTreeMap<String, f64> = BTreeMap::new();
    for request in requests.iter().filter(|request| request.object_ref.namespace == *namespace) {
        *by_what.entry(what(request)).or_default() += 1.0 / runs;
        // Names of events and pods begin with that of what they are of.
        let name = request.object_ref.name.get(..6).unwrap_or_default();
        *of_runs.entry(name).or_default() += 1;
    }
    let per_run = by_what.values().fold(0.0, |sum, requests| sum + requests);
    let mut each: Vec<usize> = of_runs.values().copied().collect();
    each.sort_unstable();
    let conflicts = requests.iter().filter(|request| request.response_status.code == 409).count();
    let pod_ends = pods.all();
    let waited =
        |name: &String, end: &Instant| Some(end.saturating_duration_since(*pod_ends.get(name)?).as_secs_f64() * 1e3);
    let recorded = sorted(ended.iter().filter_map(|(name, end)| waited(name, end)).collect());
    let whole = |(name, end): (&String, &Instant)| Some(end.duration_since(*submitted.get(name)?).as_secs_f64() * 1e3);
    let whole = sorted(ended.iter().filter_map(whole).collect());
    let used = cpu_before.iter().zip(&cpu_after).map(|(before, after)| (after - before) / runs);
    Ok(Figures {
        runs_per_minute: runs / seconds * 60.0,
        requests: by_what,
        requests_per_run: per_run,
        requests_of_median_run: each.get(each.len() / 2).copied().unwrap_or_default(),
        conflicts_per_run: conflicts as f64 / runs,
        puts_per_run: (after.0 - before.0) / runs,
        wal_bytes_per_run: (after.1 - before.1) / runs,
        cpu_ms_per_run: PROCESSES.into_iter().zip(used).collect(),
        recorded_p50_ms: quantile(&recorded, 0.5),
        recorded_p99_ms: quantile(&recorded, 0.99),
        whole_p50_ms: quantile(&whole, 0.5),
        controller_peak_bytes: peak_bytes(controller)?,
    })
}

/// A column of the tables.
struct Column {
    title: &'static str,
    decimals: usize,
    of: fn(&Figures, Kind) -> Option<f64>,
}

fn of_controller(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Pod => None,
        Kind::Job => Some("kube-controller-manager"),
        Kind::BundleRun => Some("operator"),
    }
}

const COLUMNS: [Column; 13] = [
    Column { title: "per minute", decimals: 0, of: |f, _| Some(f.runs_per_minute) },
    Column { title: "controller requests", decimals: 2, of: |f, _| Some(f.requests_per_run) },
    Column { title: "of the median", decimals: 0, of: |f, _| whole(f.requests_of_median_run) },
    Column { title: "conflicts", decimals: 2, of: |f, _| Some(f.conflicts_per_run) },
    Column { title: "etcd puts", decimals: 1, of: |f, _| Some(f.puts_per_run) },
    Column { title: "WAL KB", decimals: 1, of: |f, _| Some(f.wal_bytes_per_run / 1e3) },
    Column { title: "API server CPU ms", decimals: 1, of: |f, _| f.cpu_ms_per_run.get("kube-apiserver").copied() },
    Column { title: "all CPU ms", decimals: 1, of: |f, _| Some(f.cpu_ms_per_run.values().sum()) },
    Column { title: "submit to recorded p50 ms", decimals: 0, of: |f, _| Some(f.whole_p50_ms) },
    Column {
        title: "pod end to recorded p50 ms",
        decimals: 0,
        of: |f, kind| of_controller(kind).map(|_| f.recorded_p50_ms),
    },
    Column { title: "p99", decimals: 0, of: |f, kind| of_controller(kind).map(|_| f.recorded_p99_ms) },
    Column {
        title: "controller CPU ms",
        decimals: 1,
        of: |f, kind| f.cpu_ms_per_run.get(of_controller(kind)?).copied(),
    },
    Column {
        title: "controller peak MB",
        decimals: 0,
        of: |f, kind| of_controller(kind).map(|_| f.controller_peak_bytes / 1e6),
    },
];

#[allow(clippy::unnecessary_wraps, clippy::cast_precision_loss)] // as its column wants it
fn whole(count: usize) -> Option<f64> {
    Some(count as f64)
}

/// The medians of all rounds, and from where to where they go.
fn table(rounds: &BTreeMap<Kind, Vec<Figures>>) {
    let values = |kind: Kind, column: &Column| {
        let rounds = rounds.get(&kind).map(Vec::as_slice).unwrap_or_default();
        sorted(rounds.iter().filter_map(|figures| (column.of)(figures, kind)).collect())
    };
    println!("| | bare pod | Job | BundleRun | against a Job | against a bare pod |\n|---|---|---|---|---|---|");
    for column in &COLUMNS {
        let median = |kind| quantile(&values(kind, column), 0.5);
        let cell = |kind| {
            let values = values(kind, column);
            let (Some(least), Some(most)) = (values.first(), values.last()) else { return "-".to_owned() };
            let (d, median) = (column.decimals, median(kind));
            if values.len() == 1 { format!("{median:.d$}") } else { format!("{median:.d$} ({least:.d$}-{most:.d$})") }
        };
        let ratio = |other| {
            let ratio = median(Kind::BundleRun) / median(other);
            if ratio.is_finite() { format!("{ratio:.2}") } else { "-".to_owned() }
        };
        let cells = KINDS.map(cell).join(" | ");
        println!("| {} | {cells} | {} | {} |", column.title, ratio(Kind::Job), ratio(Kind::Pod));
    }
}

/// What the operator asks for while nothing happens, watches apart.
async fn idle(seconds: u64) -> Result<Vec<String>, Failure> {
    let mut audit = Audit::from_now()?;
    tokio::time::sleep(Duration::from_secs(seconds)).await; // the span that is measured
    let requests = audit.read(Kind::BundleRun.controller().unwrap_or_default())?;
    Ok(requests.iter().map(|request| format!("{} {}", request.verb, request.object_ref.resource)).collect())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let options = Options::parse();
    let client = Client::try_default().await?;
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::default_namespaced(client.clone());
    while accounts.get_opt("default").await?.is_none() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // A first few of each, so that nothing is the first of its kind.
    for kind in options.kinds.iter().copied() {
        measure(&client, kind, &format!("first-{}-", kind_name(kind)), 10, None).await?;
    }
    let mut burst: BTreeMap<Kind, Vec<Figures>> = BTreeMap::new();
    for round in 0..options.rounds {
        // None is always the first.
        for kind in options.kinds.iter().cycle().skip(round).take(options.kinds.len()).copied() {
            let figures = measure(&client, kind, &format!("burst-{}-", kind_name(kind)), options.count, None).await?;
            eprintln!("round {round}, {kind:?}: {figures:?}");
            burst.entry(kind).or_default().push(figures);
        }
    }
    let at_a_rate = options.steady.unwrap_or(options.count.div_ceil(10).min(60));
    let mut steady: BTreeMap<Kind, Vec<Figures>> = BTreeMap::new();
    for kind in options.kinds.iter().copied().filter(|_| at_a_rate > 0) {
        let every = Some(Duration::from_secs(1));
        let figures = measure(&client, kind, &format!("steady-{}-", kind_name(kind)), at_a_rate, every).await?;
        steady.insert(kind, vec![figures]);
    }
    let idle = idle(options.idle).await?;

    println!(
        "\n{} of each as fast as {CLIENTS} clients can, {} rounds: medians (least-most), per run\n",
        options.count, options.rounds
    );
    table(&burst);
    if at_a_rate > 0 {
        println!("\nOne a second, {at_a_rate} of each\n");
        table(&steady);
    }
    println!("\nRequests of the operator in {} idle seconds, watches apart: {}", options.idle, idle.len());
    let all = json!({"count": options.count, "rounds": options.rounds, "clients": CLIENTS, "burst": named(&burst)?,
        "oneASecond": {"count": at_a_rate, "kinds": named(&steady)?}, "idle": {"seconds": options.idle, "requests": idle}});
    std::fs::write(&options.json, serde_json::to_string_pretty(&all)?)?;
    println!("All figures: {}", options.json.display());

    let mut wrong = vec![];
    for (rounds, most) in [(&burst, REQUESTS_MOST_IN_A_BURST), (&steady, REQUESTS_MOST)] {
        for figures in rounds.get(&Kind::BundleRun).into_iter().flatten() {
            if figures.requests_of_median_run > most {
                wrong.push(format!("{} requests for a run, at most {most}", figures.requests_of_median_run));
            }
        }
    }
    if !idle.is_empty() {
        wrong.push(format!("requests with nothing to do: {idle:?}"));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ").into()) }
}

fn kind_name(kind: Kind) -> String {
    format!("{kind:?}").to_lowercase()
}

fn named(rounds: &BTreeMap<Kind, Vec<Figures>>) -> Result<Value, Failure> {
    let named: BTreeMap<String, &Vec<Figures>> = rounds.iter().map(|(kind, all)| (kind_name(*kind), all)).collect();
    Ok(serde_json::to_value(named)?)
}
