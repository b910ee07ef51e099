//! From standing by to acting: nothing is decided before the caches have what others wrote, who acted before.

use std::sync::Arc;
use std::time::Duration;

use kube_runtime::reflector::{ObjectRef, Store};
use tracing::warn;

use crate::cluster::{Cluster, GuardedRun, Nodes};
use crate::operator::leader::Leadership;
use crate::operator::queue::Triggers;
use crate::operator::{answered, filled, orphans};
use crate::plan::PodFacts;

/// How long the first plans wait for the list of nodes.
const NODES_PATIENCE: Duration = Duration::from_secs(20);

/// All that a new leader goes on from.
pub(in crate::operator) struct TakeOver {
    pub(in crate::operator) cluster: Arc<Cluster>,
    pub(in crate::operator) runs: Store<GuardedRun>,
    pub(in crate::operator) pods: Store<PodFacts>,
    pub(in crate::operator) nodes: Nodes,
    pub(in crate::operator) triggers: Triggers,
    pub(in crate::operator) orphans: orphans::Queue,
}

impl TakeOver {
    /// Resolves when this operator may act, with the runs to look at first: all. Others may have acted until now, also without
    /// a lease, while the Deployment is rolled out. `namespaces` as in [`super::Options`].
    pub(in crate::operator) async fn all_runs(
        &self,
        leadership: &Leadership,
        namespaces: &[String],
    ) -> Vec<ObjectRef<GuardedRun>> {
        self.caches_filled().await;
        leadership.begun().await;
        if !bug!("no barrier") {
            answered("tell whether the caches are current", || self.cluster.caught_up(namespaces)).await;
        }
        // What happened before was nobody's or the last leader's matter, and may have been left half done.
        self.triggers.open();
        let known = if bug!("only news is looked at") { Vec::new() } else { self.runs.state() };
        let all = known.iter().map(|run| ObjectRef::from_obj(run.as_ref())).collect();
        self.orphans.check_all();
        all
    }

    /// Waits until all is known that a plan needs.
    async fn caches_filled(&self) {
        // A pod not seen yet is not a pod that is gone: no plan before the cache is complete.
        // Nor is a run that others wait for.
        filled(&self.pods).await;
        filled(&self.runs).await;
        // Nor is a run understood before it is known what it can say.
        self.cluster.skew_known().await;
        // What is told of a wait would be told twice.
        if tokio::time::timeout(NODES_PATIENCE, self.nodes.settled()).await.is_err() {
            warn!("the nodes are not listed yet: runs go on without");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use k8s_openapi::jiff::Timestamp;
    use kube::Client;
    use kube::client::Body;
    use kube_runtime::reflector::store::Writer;
    use kube_runtime::{reflector, watcher};
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::Answers;
    use crate::operator::observability::metrics::Metrics;
    use crate::operator::{queue, settings};
    use crate::plan::{Step, plan};

    /// The run of the tests, in a version.
    fn run(version: &str, status: &Value) -> GuardedRun {
        serde_json::from_value(json!({"apiVersion": "bundlerun.dev/v1alpha1", "kind": "BundleRun",
            "metadata": {"name": "r", "namespace": "n", "uid": "u", "generation": 1, "resourceVersion": version},
            "spec": {"command": "true"}, "status": status}))
        .unwrap()
    }

    /// An API server at which the run has version 9.
    async fn answer(request: Request<Body>) -> Result<Response<Body>, Infallible> {
        assert_eq!(
            (request.method(), request.uri().path()),
            (&http::Method::GET, "/apis/bundlerun.dev/v1alpha1/bundleruns")
        );
        let list = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {},
            "items": [{"metadata": {"name": "r", "namespace": "n", "resourceVersion": "9"}}]});
        Ok(Response::new(Body::from(list.to_string().into_bytes())))
    }

    fn listed<K: kube::Resource<DynamicType = ()> + Clone + 'static>(writer: &mut Writer<K>, items: Vec<K>) {
        writer.apply_watcher_event(&watcher::Event::Init);
        for item in items {
            writer.apply_watcher_event(&watcher::Event::InitApply(item));
        }
        writer.apply_watcher_event(&watcher::Event::InitDone);
    }

    /// A leader that was paused: its cache has the run as it was before its attempt, which the last leader has recorded,
    /// and whose pod is gone.
    #[tokio::test]
    async fn who_comes_to_lead_begins_no_attempt_that_the_last_leader_has_ended() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (runs, mut runs_writer) = reflector::store();
        let (pods, mut pods_writer) = reflector::store();
        let nodes = Nodes::default();
        let client = Client::new(tower::service_fn(answer), "n");
        let cluster = Arc::new(Cluster::new(client, runs.clone(), pods.clone(), nodes.clone(), None).unwrap());
        listed(&mut runs_writer, vec![run("5", &json!({"phase": "Waiting", "observedGeneration": -1}))]);
        listed(&mut pods_writer, vec![]);
        for event in [watcher::Event::Init, watcher::Event::InitDone] {
            assert!(nodes.on(event).is_empty());
        }
        cluster.assume_no_skew();
        let settings = settings::parse("images: {cpu: a, gpu: b}", "us").unwrap();
        let creates = async |which: &ObjectRef<GuardedRun>| {
            let cached = runs.get(which).unwrap();
            let seen = cluster.observe(cached.0.as_ref().unwrap()).await.unwrap();
            let plan = plan(&seen.observed(&Answers::default()), &settings, Timestamp::now());
            plan.steps.iter().any(|step| matches!(step, Step::CreatePod(_)))
        };
        assert!(
            creates(&ObjectRef::new("r").within("n")).await,
            "from what the cache has the command would start again"
        );

        let (triggers, _) = queue::queue(Arc::new(Metrics::new()));
        let (orphans, _) = orphans::queue(Arc::clone(&cluster), runs.clone(), pods.clone());
        let (cluster, pods) = (Arc::clone(&cluster), pods.clone());
        let new = TakeOver { cluster, runs: runs.clone(), pods, nodes, triggers, orphans };
        let acts = async {
            let all = new.all_runs(&Leadership::always(), &[]).await;
            assert_eq!(all.len(), 1);
            creates(&all[0]).await
        };
        let catches_up = async {
            // However long the watch takes: who acts before it has acted on what was.
            tokio::time::sleep(Duration::from_millis(300)).await;
            let ended = json!({"phase": "Succeeded", "observedGeneration": 1, "attempt": 1});
            runs_writer.apply_watcher_event(&watcher::Event::Apply(run("9", &ended)));
        };
        let (starts_again, ()) = tokio::join!(acts, catches_up);
        assert!(!starts_again, "the command would have started a second time");
    }
}
