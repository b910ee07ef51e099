//! Caches -> what a plan is made from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client, ResourceExt};
use kube_runtime::events::{Recorder, Reporter};
use kube_runtime::reflector::{ObjectRef, Store};
use tokio::sync::watch;

use crate::api::{BundleRun, Phase, Skew};
use crate::cluster::helper_progress::Helpers;
use crate::cluster::pull_secrets::PullSecrets;
use crate::cluster::{Error, GuardedRun, Nodes, bounded, failed};
use crate::names;
use crate::plan::{
    self, Capacity, NodeSeen, Observed, Parent, Parents, PodEvent, PodFacts, PodKept, PodSeen, ProgressSeen, Refusal,
    parents,
};

/// The cluster, as the operator sees it.
pub struct Cluster {
    pub(in crate::cluster) client: Client,
    pub(in crate::cluster) helpers: Helpers,
    pub(in crate::cluster) runs: Store<GuardedRun>,
    pub(in crate::cluster) pods: Store<PodFacts>,
    nodes: Nodes,
    /// None: the installed definition was not read yet.
    skew: watch::Sender<Option<Arc<Skew>>>,
    pub(in crate::cluster) recorder: Recorder,
    pub(in crate::cluster) pull_secrets: PullSecrets,
    /// Runs as we wrote them last, by uid, until the cache has caught up: a plan must see what the last one wrote.
    pub(in crate::cluster) written: Mutex<HashMap<String, Written>>,
    /// Who does not lead looks at nothing.
    first_look: OnceLock<Timestamp>,
}

pub(in crate::cluster) struct Written {
    /// None once the cache has it, too.
    run: Option<Arc<BundleRun>>,
    at: Timestamp,
}

/// What was seen of one run.
pub struct Snapshot {
    /// The newest version known.
    pub run: Arc<BundleRun>,
    skew: Arc<Skew>,
    pod: Option<Arc<PodFacts>>,
    earlier: Vec<(u32, Arc<PodFacts>)>,
    node: NodeSeen,
    capacity: Option<Arc<Capacity>>,
    parents: Parents,
    written_at: Option<Timestamp>,
    acting_since: Timestamp,
}

/// What the steps of one reconcile have found out, for its next plan.
#[derive(Debug, Default)]
pub struct Answers {
    /// To a try to create the pod.
    pub refusal: Option<Refusal>,
    /// To a try to change or delete the pod.
    pub pod_kept: Option<PodKept>,
    /// Of the pod's helper.
    pub progress: ProgressSeen,
    /// Of the run's service account.
    pub pull_secrets: Option<Vec<String>>,
    /// About the pod.
    pub pod_events: Option<Vec<PodEvent>>,
}

impl Snapshot {
    /// Since when this process acts.
    #[must_use]
    pub fn acting_since(&self) -> Timestamp {
        self.acting_since
    }

    /// The facts for a plan, with the answers to earlier steps of the same reconcile.
    #[must_use]
    pub fn observed<'a>(&'a self, answers: &'a Answers) -> Observed<'a> {
        let uid = self.run.metadata.uid.as_deref();
        let pod = match &self.pod {
            None => PodSeen::Absent,
            Some(pod) if pod.owner().map(|(_, owner)| owner) == uid || bug!("uids are ignored") => PodSeen::Ours(pod),
            Some(pod) => PodSeen::Foreign(pod),
        };
        Observed {
            run: &self.run,
            skew: &self.skew,
            pod,
            earlier: &self.earlier,
            node: self.node,
            capacity: self.capacity.as_deref(),
            parents: &self.parents,
            refusal: answers.refusal.as_ref(),
            pod_kept: answers.pod_kept.as_ref(),
            progress: answers.progress.clone(),
            pull_secrets: answers.pull_secrets.as_deref(),
            pod_events: answers.pod_events.as_deref(),
            written_at: self.written_at,
            acting_since: self.acting_since,
        }
    }
}

impl Cluster {
    /// A cluster seen through these caches.
    ///
    /// # Errors
    /// When this process cannot make connections.
    pub fn new(
        client: Client,
        runs: Store<GuardedRun>,
        pods: Store<PodFacts>,
        nodes: Nodes,
        instance: Option<String>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let reporter = Reporter { controller: names::OPERATOR.into(), instance };
        let recorder = Recorder::new(client.clone(), reporter);
        let helpers = Helpers::new()?;
        let (pull_secrets, written, first_look) = Default::default();
        let skew = watch::Sender::default();
        Ok(Self { client, helpers, runs, pods, nodes, skew, recorder, pull_secrets, written, first_look })
    }

    /// Takes in what is not this version's in the installed definition; returns whether that is news.
    pub fn set_skew(&self, skew: Skew) -> bool {
        self.skew.send_if_modified(|known| {
            let is_news = known.as_deref() != Some(&skew);
            *known = Some(Arc::new(skew));
            is_news
        })
    }

    /// Nobody will say what is installed: it is taken to be ours, unless it is known.
    pub fn assume_no_skew(&self) {
        self.skew.send_if_modified(|known| {
            let is_unknown = known.is_none();
            known.get_or_insert_default();
            is_unknown
        });
    }

    /// Resolves when it is known what definition is installed, or that it will not be.
    pub async fn skew_known(&self) {
        let _ = self.skew.subscribe().wait_for(Option::is_some).await; // fails only when the sender, ours, is gone
    }

    /// Gathers what is known of a run, the pod of its current attempt and those of the attempts before it. The caches
    /// answer; only a pod the run names and the cache lacks is looked for at the API server, before it is called lost, and
    /// so is the pod of a run that is to be stopped or suspended, before it is said that there is nothing to end.
    ///
    /// # Errors
    /// When that one look gets no answer.
    pub async fn observe(&self, cached: &BundleRun) -> Result<Snapshot, Error> {
        let (run, written_at) = self.newest_and_when(cached);
        let (attempt, pod_name) = plan::current_pod(&run);
        let namespace = run.namespace().unwrap_or_default();
        let mut pod = self.pods.get(&ObjectRef::new(&pod_name).within(&namespace));
        let recorded = run.status.iter().flat_map(|s| &s.attempts).any(|a| a.attempt == attempt && a.uid.is_some());
        let over = run.is_over();
        let is_to_end = run.is_being_stopped()
            || (run.spec.suspend && run.status.as_ref().is_none_or(|status| status.suspended_at.is_none()));
        if pod.is_none() && !over && (recorded || is_to_end) {
            pod = self.get_pod(&namespace, &pod_name).await?.map(Arc::new);
        }
        let earlier = self.earlier_pods(&run, attempt);
        let is_asked_for = pod.as_ref().is_none_or(|pod| pod.told_of_runs().is_some());
        let parents = if is_asked_for && !over { self.parents(&run) } else { Parents::default() };
        let node = pod.as_ref().and_then(|pod| pod.spec.node_name.as_deref());
        let seen = node.map_or(NodeSeen::Unknown, |node| self.nodes.seen(node));
        let capacity = if node.is_none() && !over { self.nodes.capacity() } else { None };
        let skew = self.skew.borrow().clone().unwrap_or_default();
        let acting_since = *self.first_look.get_or_init(Timestamp::now);
        Ok(Snapshot { run, skew, pod, earlier, node: seen, capacity, parents, written_at, acting_since })
    }

    /// The pods of the attempts before this one, from the cache.
    fn earlier_pods(&self, run: &BundleRun, attempt: u32) -> Vec<(u32, Arc<PodFacts>)> {
        let (name, namespace) = (run.name_any(), run.namespace().unwrap_or_default());
        let of_attempt = |attempt| {
            let pod = self.pods.get(&ObjectRef::new(&plan::pod_name(&name, attempt)).within(&namespace))?;
            let is_ours = pod.owner().map(|(_, uid)| uid) == run.metadata.uid.as_deref();
            is_ours.then_some((attempt, pod))
        };
        (1..attempt).filter_map(of_attempt).collect()
    }

    /// The runs that have a pod on a node.
    #[must_use]
    pub fn runs_on(&self, node: &str) -> Vec<ObjectRef<GuardedRun>> {
        let run = |pod: &PodFacts| {
            let (name, _) = pod.owner()?;
            Some(ObjectRef::new(name).within(pod.metadata.namespace.as_deref()?))
        };
        let pods = self.pods.state();
        pods.iter().filter(|pod| pod.spec.node_name.as_deref() == Some(node)).filter_map(|pod| run(pod)).collect()
    }

    /// The runs that are inputs of `run`, from the cache.
    fn parents(&self, run: &BundleRun) -> Parents {
        let namespace = run.namespace().unwrap_or_default();
        let cached = |name: &str| self.runs.get(&ObjectRef::new(name).within(&namespace));
        let known = |name: &str| Some(self.newest(cached(name)?.0.as_ref().ok()?));
        let named = |name: &str| known(name).map(|run| (name.to_owned(), Parent::of(&run)));
        let runs = parents::names(run).filter_map(named).collect();
        let is_unreadable = |name: &&str| cached(name).is_some_and(|cached| cached.0.is_err());
        let unreadable = parents::names(run).filter(is_unreadable).map(str::to_owned).collect();
        Parents { runs, unreadable, cycle: cycle(run, known) }
    }

    /// A pod as the API server has it now.
    pub(in crate::cluster) async fn get_pod(&self, namespace: &str, name: &str) -> Result<Option<PodFacts>, Error> {
        let action = format!("get pod {namespace}/{name}");
        let api: Api<PodFacts> = Api::namespaced(self.client.clone(), namespace);
        bounded(&action, api.get_opt(name)).await?.map_err(|e| failed(&action, e))
    }

    pub(in crate::cluster) fn remember(&self, run: BundleRun) {
        let Some(uid) = run.metadata.uid.clone() else { return };
        let run = Arc::new(run);
        let written = Written { run: Some(Arc::clone(&run)), at: Timestamp::now() };
        self.written.lock().unwrap_or_else(PoisonError::into_inner).insert(uid, written);
        // The watch can be faster than the answer.
        self.look_up(&run);
    }

    /// The cache has all that a list had.
    pub fn is_listed(&self) {
        let written: Vec<_> = {
            let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            written.values().filter_map(|written| written.run.clone()).collect()
        };
        for run in &written {
            self.look_up(run);
        }
    }

    /// Sees whether the cache has what was written.
    fn look_up(&self, written: &BundleRun) {
        let name = ObjectRef::new(&written.name_any()).within(&written.namespace().unwrap_or_default());
        if let Some(cached) = self.runs.get(&name)
            && let Ok(cached) = &cached.0
            && cached.metadata.uid == written.metadata.uid
        {
            self.is_cached(cached);
        }
    }

    /// The cache has this version of a run: what we wrote up to it is kept only there. Of one that is over nothing is kept:
    /// it may never be looked at again.
    pub fn is_cached(&self, run: &BundleRun) {
        let Some(uid) = run.metadata.uid.as_deref() else { return };
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(ours) = written.get_mut(uid) else { return };
        if ours.run.as_ref().is_some_and(|ours| version(ours.as_ref()) > version(run)) {
            return;
        }
        if run.is_over() {
            written.remove(uid);
        } else {
            ours.run = None;
        }
    }

    /// Forgets what was written to a run that is gone.
    pub fn forget(&self, uid: &str) {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// A run as it was last seen or written, whichever is newer.
    #[must_use]
    pub fn newest(&self, cached: &BundleRun) -> Arc<BundleRun> {
        self.newest_and_when(cached).0
    }

    fn newest_and_when(&self, cached: &BundleRun) -> (Arc<BundleRun>, Option<Timestamp>) {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = cached.metadata.uid.as_deref().and_then(|uid| written.get(uid));
        let newer = ours.and_then(|ours| ours.run.as_ref()).filter(|run| version(run.as_ref()) > version(cached));
        (newer.map_or_else(|| Arc::new(cached.clone()), Arc::clone), ours.map(|ours| ours.at))
    }
}

/// A way from a run through inputs back to it. Every run is looked at once.
fn cycle(run: &BundleRun, known: impl Fn(&str) -> Option<Arc<BundleRun>>) -> Option<Vec<String>> {
    let start = run.name_any();
    let mut came_from: HashMap<String, String> = HashMap::new();
    let mut next: Vec<String> = parents::names(run).map(str::to_owned).collect();
    came_from.extend(next.iter().map(|name| (name.clone(), start.clone())));
    while let Some(name) = next.pop() {
        if name == start {
            let mut way = vec![start.clone()];
            let mut at = &start;
            while let Some(before) = came_from.get(at) {
                way.push(before.clone());
                at = before;
                if *at == start {
                    break;
                }
            }
            way.reverse();
            return Some(way);
        }
        let Some(parent) =
            known(&name).filter(|run| run.status.as_ref().and_then(|s| s.phase) != Some(Phase::Succeeded))
        else {
            continue;
        };
        for above in parents::names(&parent) {
            if !came_from.contains_key(above) {
                came_from.insert(above.to_owned(), name.clone());
                next.push(above.to_owned());
            }
        }
    }
    None
}

/// Resource versions of one resource are ordered integers (Kubernetes KEP-5504; true of every etcd-backed server before).
pub(in crate::cluster) fn version<K: ResourceExt>(run: &K) -> u128 {
    run.meta().resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use kube::client::Body;
    use kube_runtime::{reflector, watcher};
    use serde_json::json;

    use super::*;

    /// As after `kubectl replace --force`: the pod of the run before it may still save.
    #[tokio::test]
    async fn a_pod_of_another_run_of_the_name_is_foreign() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = tower::service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
        let (pods, mut writer) = reflector::store();
        let cluster =
            Cluster::new(Client::new(server, "n"), reflector::store().0, pods, Nodes::default(), None).unwrap();
        let run: BundleRun =
            serde_json::from_value(json!({"apiVersion": "bundlerun.dev/v1alpha1", "kind": "BundleRun",
            "metadata": {"name": "r", "namespace": "n", "uid": "u"}, "spec": {"command": "true"}}))
            .unwrap();
        for (uid, is_ours) in [("u", true), ("before", false)] {
            let owner = json!({"apiVersion": "bundlerun.dev/v1alpha1", "kind": "BundleRun", "name": "r", "uid": uid,
                "controller": true});
            let pod = json!({"metadata": {"name": "r-1", "namespace": "n", "uid": "p", "ownerReferences": [owner]}});
            writer.apply_watcher_event(&watcher::Event::Apply(serde_json::from_value(pod).unwrap()));
            let seen = cluster.observe(&run).await.unwrap();
            let answers = Answers::default();
            assert_eq!(matches!(seen.observed(&answers).pod, PodSeen::Ours(_)), is_ours, "{uid}");
        }
    }

    /// Whether its inputs can be mounted depends on it.
    #[tokio::test]
    async fn what_the_nodes_have_is_known_when_the_pod_is_made() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = tower::service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
        let nodes = Nodes::default();
        let (runs, pods) = (reflector::store().0, reflector::store().0);
        let cluster = Cluster::new(Client::new(server, "n"), runs, pods, nodes.clone(), None).unwrap();
        let run: BundleRun =
            serde_json::from_value(json!({"apiVersion": "bundlerun.dev/v1alpha1", "kind": "BundleRun",
            "metadata": {"name": "r", "namespace": "n", "uid": "u"}, "spec": {"command": "true"}}))
            .unwrap();
        let lacks = async || {
            let seen = cluster.observe(&run).await.unwrap();
            seen.observed(&Answers::default()).capacity.map(|nodes| nodes.lacks_image_volumes)
        };
        assert_eq!(lacks().await, None);
        for event in [watcher::Event::Init, watcher::Event::InitDone] {
            assert!(nodes.on(event).is_empty());
        }
        assert_eq!(lacks().await, Some(false));
        let old = json!({"metadata": {"name": "a"}, "status": {"nodeInfo": {
            "containerRuntimeVersion": "containerd://1.7.27", "kubeletVersion": "v1.36.0"}}});
        assert_eq!(nodes.on(watcher::Event::Apply(serde_json::from_value(old).unwrap())), ["a"]);
        assert_eq!(lacks().await, Some(true));
    }
}
