//! What the cluster tests share: namespaces, runs, waiting for a condition with the last state in the failure.

use std::fmt::Debug;
use std::future::Future;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bundlerun::api::{BundleRun, BundleRunStatus, Phase};
use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::policy::v1::Eviction;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use kube_runtime::{WatchStreamExt, watcher};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::turns::Turn;

/// Long enough for a loaded machine; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_mins(10);

/// A namespace of one test.
pub struct Space {
    pub client: Client,
    pub name: String,
    _left: Left,
    turn: Option<Arc<Turn>>,
}

/// What a test that fails leaves goes, unless it is to be looked at: it would take the node's time from the others.
struct Left {
    namespace: String,
}

impl Drop for Left {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("KEEP").is_none() {
            let _ = Command::new("kubectl").args(["delete", "namespace", "--wait=false", &self.namespace]).status();
        }
    }
}

impl Space {
    /// For tests that leave the operator alone.
    pub async fn new() -> Self {
        Self::at(Turn::shared().await).await
    }

    /// For such that do little but wait for time to pass.
    pub async fn waiting() -> Self {
        Self::at(Turn::waiting().await).await
    }

    /// For such that need a node with little else on it.
    pub async fn quiet() -> Self {
        Self::at(Turn::quiet().await).await
    }

    /// For such that change the node's devices, open the second node, or need all GPUs.
    pub async fn with_devices() -> Self {
        Self::at(Turn::with_devices().await).await
    }

    /// For tests that start operators of their own (`settings.rs`): no other works in their namespaces.
    pub async fn with_own_operators() -> Self {
        let client = Client::try_default().await.unwrap();
        let turn = Turn::with_own_operators(&client).await;
        Self { turn: Some(Arc::new(turn)), ..Self::in_new_namespace(client).await }
    }

    /// For tests that stop or change what others use: no other runs meanwhile.
    pub async fn exclusive() -> Self {
        Self::at(Turn::alone().await).await
    }

    async fn at(turn: Turn) -> Self {
        let client = Client::try_default().await.unwrap();
        // A test that failed while it had stopped or changed the operator must not make the next ones fail.
        operators(&client, &Operators::default()).await;
        Self { turn: Some(Arc::new(turn)), ..Self::in_new_namespace(client).await }
    }

    /// Of what has to be put back before the turn ends.
    pub fn turn(&self) -> Option<Arc<Turn>> {
        self.turn.clone()
    }

    /// Another namespace for the same test.
    pub async fn beside(&self) -> Self {
        Self::in_new_namespace(self.client.clone()).await
    }

    async fn in_new_namespace(client: Client) -> Self {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace = serde_json::from_value(json!({"metadata": {"generateName": "test-"}})).unwrap();
        let name = namespaces.create(&PostParams::default(), &namespace).await.unwrap().name_any();
        // A pod cannot be made before its namespace has this.
        let space = Self { client, _left: Left { namespace: name.clone() }, name, turn: None };
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = space.api();
        eventually("the default service account", async || {
            accounts.get_opt("default").await.unwrap().ok_or("none yet")
        })
        .await;
        space
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    pub fn runs(&self) -> Api<BundleRun> {
        self.api()
    }

    pub fn pods(&self) -> Api<Pod> {
        self.api()
    }

    /// Creates a run; what it does not say about resources is small, so that many fit the node.
    pub async fn start(&self, name: &str, spec: Value) -> BundleRun {
        self.runs().create(&PostParams::default(), &run(name, spec)).await.unwrap()
    }

    /// Creates a run and waits for its end.
    pub async fn run(&self, name: &str, spec: Value) -> BundleRunStatus {
        self.start(name, spec).await;
        self.end_of(name).await
    }

    /// Asks a run to stop.
    pub async fn stop(&self, name: &str) {
        let stop = Patch::Merge(json!({"spec": {"stop": true}}));
        self.runs().patch(name, &PatchParams::default(), &stop).await.unwrap();
    }

    /// Waits for the end of a run.
    pub async fn end_of(&self, name: &str) -> BundleRunStatus {
        self.until(name, "to end", |s| matches!(s.phase, Some(Phase::Succeeded | Phase::Failed | Phase::Stopped))).await
    }

    /// Waits for a run's status to be as wished.
    pub async fn until(&self, name: &str, wish: &str, is: impl Fn(&BundleRunStatus) -> bool) -> BundleRunStatus {
        let run = watch_until(self.runs(), name, wish, |run: Option<&BundleRun>| {
            run.and_then(|r| r.status.as_ref()).is_some_and(&is)
        })
        .await;
        run.and_then(|r| r.status).unwrap()
    }

    /// Waits until a run tells that it is held up at a stage. A loaded node may tell a slow start before.
    pub async fn waits_at(&self, name: &str, stage: &str) -> BundleRunStatus {
        let wish = format!("to wait at {stage}");
        self.until(name, &wish, |s| s.waiting.as_ref().is_some_and(|w| w.stage.as_deref() == Some(stage))).await
    }

    /// Waits for a pod to be as wished.
    pub async fn pod_until(&self, name: &str, wish: &str, is: impl Fn(&Pod) -> bool) -> Pod {
        watch_until(self.pods(), name, wish, |pod: Option<&Pod>| pod.is_some_and(&is)).await.unwrap()
    }

    /// Waits until the run container runs.
    pub async fn pod_running(&self, name: &str) -> Pod {
        self.pod_until(name, "to run", |pod| {
            let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
            statuses.filter(|c| c.name == "run").any(|c| c.state.as_ref().is_some_and(|s| s.running.is_some()))
        })
        .await
    }

    /// Evicts a pod, as a drain does. `delete_options`: how, where the drain says it.
    pub async fn evict(&self, pod: &str, delete_options: Value) {
        let eviction = json!({"metadata": {"name": pod}, "deleteOptions": delete_options});
        let eviction: Eviction = serde_json::from_value(eviction).unwrap();
        let _: Value =
            self.pods().create_subresource("eviction", pod, &PostParams::default(), &eviction).await.unwrap();
    }

    /// Waits until something is gone.
    pub async fn gone<K>(&self, name: &str)
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        watch_until(self.api::<K>(), name, "to be gone", |object: Option<&K>| object.is_none()).await;
    }

    /// What the run container of a pod wrote.
    pub async fn logs(&self, pod: &str) -> String {
        let params = LogParams { container: Some("run".into()), ..LogParams::default() };
        self.pods().logs(pod, &params).await.unwrap()
    }

    /// Events about a run.
    pub async fn events(&self, run: &str) -> Vec<Event> {
        let events: Api<Event> = self.api();
        let all = events.list(&ListParams::default()).await.unwrap();
        all.into_iter()
            .filter(|e| {
                e.regarding
                    .as_ref()
                    .is_some_and(|r| r.kind.as_deref() == Some("BundleRun") && r.name.as_deref() == Some(run))
            })
            .collect()
    }

    /// Deletes the namespace and proves that nothing of it stays.
    pub async fn end(self) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.delete(&self.name, &DeleteParams::default()).await.unwrap();
        watch_until(namespaces, &self.name, "to be gone", |n: Option<&Namespace>| n.is_none()).await;
    }

    /// A priority class above the others, which goes with the namespace.
    pub async fn priority_class(&self) -> String {
        let name = format!("first-{}", self.name);
        let metadata = json!({"name": name, "ownerReferences": self.as_owner().await});
        let classes: Api<PriorityClass> = Api::all(self.client.clone());
        let class = serde_json::from_value(json!({"metadata": metadata, "value": 1000})).unwrap();
        classes.create(&PostParams::default(), &class).await.unwrap();
        name
    }

    /// The owner references of what is to go with the namespace.
    pub async fn as_owner(&self) -> Value {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let uid = namespaces.get(&self.name).await.unwrap().uid();
        json!([{"apiVersion": "v1", "kind": "Namespace", "name": self.name, "uid": uid}])
    }

    /// A volume on the node and a claim bound to it, for commands that leave traces across attempts.
    /// The directory is the host's: what the command writes there can be read here.
    pub async fn claim(&self, name: &str) -> std::path::PathBuf {
        let directory = self.directory(name, 0o777);
        self.claim_of(name, json!({"hostPath": {"path": directory}})).await;
        directory
    }

    /// The same on a volume of a driver that gives it to the pod's group, as those of disks do: root's alone before.
    pub async fn claim_on_disk(&self, name: &str) -> std::path::PathBuf {
        let directory = self.directory(name, 0o755);
        self.claim_of_disk(name, &directory).await;
        directory
    }

    /// The same of a directory that is not there.
    pub async fn claim_of_nothing(&self, name: &str) -> std::path::PathBuf {
        let directory = std::env::temp_dir().join(format!("{}-{name}", self.name));
        self.claim_of_disk(name, &directory).await;
        directory
    }

    async fn claim_of_disk(&self, name: &str, directory: &Path) {
        let here =
            json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [std::env::var("NODE_NAME").unwrap()]});
        let affinity = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}});
        self.claim_of(name, json!({"local": {"path": directory}, "nodeAffinity": affinity})).await;
    }

    fn directory(&self, name: &str, mode: u32) -> std::path::PathBuf {
        let directory = std::env::temp_dir().join(format!("{}-{name}", self.name));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        directory
    }

    /// A volume of this source and a claim bound to it.
    pub async fn claim_of(&self, name: &str, source: Value) {
        use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
        let volume_name = format!("{}-{name}", self.name);
        let mut spec = json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"], "storageClassName": "",
            "claimRef": {"namespace": self.name, "name": name}});
        spec.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
        let volume = json!({"metadata": {"name": volume_name}, "spec": spec});
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        volumes.create(&PostParams::default(), &serde_json::from_value(volume).unwrap()).await.unwrap();
        let claim = json!({
            "metadata": {"name": name},
            "spec": {"accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": volume_name,
                "resources": {"requests": {"storage": "1Gi"}}}});
        let claims: Api<PersistentVolumeClaim> = self.api();
        claims.create(&PostParams::default(), &serde_json::from_value(claim).unwrap()).await.unwrap();
    }
}

/// A run; what its spec does not say about resources is small, so that many fit the node.
pub fn run(name: &str, mut spec: Value) -> BundleRun {
    let small = json!({"cpus": "20m", "memory": "128Mi"});
    let resources = spec.as_object_mut().unwrap().entry("resources").or_insert(json!({}));
    for (field, value) in small.as_object().unwrap() {
        resources.as_object_mut().unwrap().entry(field).or_insert(value.clone());
    }
    serde_json::from_value(json!({
        "apiVersion": "bundlerun.dev/v1alpha1", "kind": "BundleRun", "metadata": {"name": name}, "spec": spec,
    }))
    .unwrap()
}

/// Follows one object until it is as wished; the failure shows the last state seen.
pub async fn watch_until<K>(api: Api<K>, name: &str, wish: &str, is: impl Fn(Option<&K>) -> bool) -> Option<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut last = None;
    let found = tokio::time::timeout(PATIENCE, async {
        let states = watcher::watch_object(api, name).default_backoff();
        pin_mut!(states);
        while let Some(state) = states.next().await {
            if let Ok(state) = state {
                last = state;
                if is(last.as_ref()) {
                    return;
                }
            }
        }
    })
    .await;
    assert!(found.is_ok(), "waited for {name} {wish}; last seen: {last:#?}");
    last
}

/// Asks again until the answer is there: for conditions that no watch tells.
pub async fn eventually<T, E: Debug, F: Future<Output = Result<T, E>>>(what: &str, ask: impl FnMut() -> F) -> T {
    eventually_for(PATIENCE, what, ask).await
}

/// Waits until the command left something in a file on its claim.
pub async fn left(directory: &Path, file: &str) {
    let size = || std::fs::metadata(directory.join(file)).map_or(0, |metadata| metadata.len());
    eventually(file, async || if size() > 0 { Ok(()) } else { Err("nothing yet") }).await;
}

pub async fn eventually_for<T, E: Debug, F: Future<Output = Result<T, E>>>(
    patience: Duration,
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let start = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => assert!(start.elapsed() < patience, "waited for {what}; last answer: {error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Whether tests run in their long form (`LONG=1`); every pod costs the short one seconds.
pub fn is_long() -> bool {
    std::env::var_os("LONG").is_some()
}

/// The cells of a table of cases that are tried, see [`is_tried`].
pub fn tried<'a, R, C: Copy>(rows: &'a [R], columns: &'a [C], of: usize) -> impl Iterator<Item = (&'a R, C)> {
    rows.iter().enumerate().flat_map(move |(row, case)| {
        let cells = columns.iter().enumerate().filter(move |(column, _)| is_tried(row, *column, of));
        cells.map(move |(_, column)| (case, *column))
    })
}

/// Whether a cell of a table of cases is tried. The short form tries one in `of`, some of every row and every column.
pub fn is_tried(row: usize, column: usize, of: usize) -> bool {
    is_long() || (row + column).is_multiple_of(of)
}

/// Runs a program and returns what it printed.
pub fn output(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// What the registry says is the digest of an image.
pub fn registry_digest(image: &str) -> String {
    let registry = std::env::var("REGISTRY_HOST").unwrap();
    output("crane", &["digest", "--insecure", &format!("{registry}/{image}")])
}

/// The saved output of a run as an independent program reads it: a directory with its entries.
pub fn export(status: &BundleRunStatus) -> tempfile::TempDir {
    let bundle = status.output.as_ref().and_then(|o| o.bundle.as_deref()).unwrap_or_else(|| panic!("{status:#?}"));
    let dir = tempfile::tempdir().unwrap();
    let tar = dir.path().join("image.tar");
    output("crane", &["export", "--insecure", bundle, tar.to_str().unwrap()]);
    output("tar", &["--extract", "--file", tar.to_str().unwrap(), "--directory", dir.path().to_str().unwrap()]);
    std::fs::remove_file(tar).unwrap();
    dir
}

/// A file of the saved output of a run.
pub fn saved_file(status: &BundleRunStatus, path: &str) -> String {
    std::fs::read_to_string(export(status).path().join("contents").join(path)).unwrap()
}

/// The namespace of operators: of the one that is installed, and of those of tests.
pub fn operator_pods(client: &Client) -> Api<Pod> {
    Api::namespaced(client.clone(), "bundlerun")
}

/// The label of the pods of the installed operator.
const INSTALLED: &str = "app.kubernetes.io/name=bundle-operator";

/// Of the pods there, those of the installed operator.
pub async fn the_operators(client: &Client) -> Vec<Pod> {
    operator_pods(client).list(&ListParams::default().labels(INSTALLED)).await.unwrap().items
}

/// Waits until there is no pod with this label.
pub async fn operator_gone(client: &Client, label: &str) {
    let its = ListParams::default().labels(label);
    eventually("the operator to be gone", async || {
        let left = operator_pods(client).list(&its).await.unwrap().items.len();
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await;
}

/// Sets how many pods an operator's Deployment has.
pub async fn set_replicas(client: &Client, deployment: &str, replicas: i32) {
    use k8s_openapi::api::apps::v1::Deployment;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "bundlerun");
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    deployments.patch(deployment, &PatchParams::default(), &patch).await.unwrap();
}

/// Scales the operator and waits until it is so.
pub async fn scale_operator(client: &Client, replicas: i32) {
    set_replicas(client, "bundle-operator", replicas).await;
    if replicas == 0 {
        operator_gone(client, INSTALLED).await;
    } else {
        all_ready(client, 1).await;
    }
}

/// How the operator is installed.
pub struct Operators {
    pub replicas: i32,
    pub leader_election: bool,
    /// Its `NAMESPACES`.
    pub namespaces: String,
    pub account: &'static str,
    /// Failures of the liveness probe before its container is killed.
    pub probe_failures: i32,
}

impl Default for Operators {
    /// As `deploy/install` does.
    fn default() -> Self {
        Self {
            replicas: 1,
            leader_election: false,
            namespaces: String::new(),
            account: "bundle-operator",
            probe_failures: 3,
        }
    }
}

/// Installs the operator so and waits until it is; for tests that run alone, or to mend what they left.
pub async fn operators(client: &Client, how: &Operators) {
    use k8s_openapi::api::apps::v1::Deployment;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "bundlerun");
    let variable = |name: &str, value: &str| {
        if value.is_empty() { json!({"name": name, "$patch": "delete"}) } else { json!({"name": name, "value": value}) }
    };
    let container = json!({
        "name": "operator",
        "env": [
            {"name": "LEADER_ELECTION", "value": how.leader_election.to_string()},
            variable("NAMESPACES", &how.namespaces),
        ],
        "livenessProbe": {"failureThreshold": how.probe_failures},
    });
    let pod = json!({"serviceAccountName": how.account, "containers": [container]});
    let patch = Patch::Strategic(json!({"spec": {"replicas": how.replicas, "template": {"spec": pod}}}));
    deployments.patch("bundle-operator", &PatchParams::default(), &patch).await.unwrap();
    all_ready(client, how.replicas).await;
}

/// Waits until the operator's Deployment is complete.
async fn all_ready(client: &Client, replicas: i32) {
    use k8s_openapi::api::apps::v1::Deployment;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "bundlerun");
    watch_until(deployments, "bundle-operator", "to be ready", |d: Option<&Deployment>| {
        d.is_some_and(|d| {
            let status = d.status.clone().unwrap_or_default();
            status.observed_generation == d.metadata.generation
                && [status.ready_replicas, status.replicas, status.updated_replicas] == [Some(replicas); 3]
        })
    })
    .await;
    // One that is ending may still act, and none of a Deployment counts it.
    eventually("the operators of before to be gone", async || {
        let all = the_operators(client).await;
        let ending = all.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()).count();
        if ending == 0 { Ok(()) } else { Err(ending) }
    })
    .await;
}

/// Condition of a run.
pub fn condition_of<'a>(status: &'a BundleRunStatus, type_: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|c| c.type_ == type_)
}

/// Condition of a run, `True` or `False`.
pub fn condition<'a>(status: &'a BundleRunStatus, type_: &str) -> Option<&'a str> {
    condition_of(status, type_).map(|c| c.status.as_str())
}

/// Standard output of a run, as far as the record holds it.
pub fn stdout(status: &BundleRunStatus) -> &str {
    status.output.as_ref().and_then(|o| o.stdout_tail.as_deref()).unwrap_or_default()
}

/// A duration of a status that must be there.
pub fn seconds(milliseconds: Option<u64>) -> f64 {
    std::time::Duration::from_millis(milliseconds.unwrap()).as_secs_f64()
}

/// Cause of a run's end.
pub fn cause(status: &BundleRunStatus) -> &str {
    status.result.as_ref().map(|r| r.cause.as_str()).unwrap_or_default()
}

/// All at once.
pub async fn together<T>(work: impl IntoIterator<Item: Future<Output = T>>) -> Vec<T> {
    futures::future::join_all(work).await
}

/// Leaves a line on a claim each time a command starts, so that a second start cannot hide.
const TRACE: &str = "echo \"$BUNDLE_NAME $BUNDLE_ATTEMPT\" >>trace/starts";

/// A command that leaves [`TRACE`] on the claim `trace`.
pub fn traced(command: &str) -> Value {
    json!({"command": format!("{TRACE}; {command}"), "volumes": [{"path": "trace", "claim": {"name": "trace"}}]})
}

/// The lines of [`TRACE`], in order: `run attempt`.
pub fn starts(directory: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(directory.join("starts")).unwrap_or_default();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}
