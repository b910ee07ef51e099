//! From the watches to the two queues: runs to reconcile, and pods that no plan looks at.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::channel::mpsc;
use futures::{Stream, StreamExt};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube_runtime::reflector::{ObjectRef, Store};
use kube_runtime::watcher;
use tracing::{error, info, warn};

use crate::api::skew::skew;
use crate::cluster::{self, Cluster, GuardedRun, Nodes, PodTriggers, RunTriggers, Triggered};
use crate::operator::backoff::Backoff;
use crate::operator::observability::metrics::Metrics;
use crate::operator::orphans;
use crate::plan::{NodeObject, PodFacts};

/// The queue of runs to look at, and what comes out of it.
pub(in crate::operator) fn queue(metrics: Arc<Metrics>) -> (Triggers, mpsc::UnboundedReceiver<ObjectRef<GuardedRun>>) {
    let (queue, triggered) = mpsc::unbounded();
    (Triggers { queue, is_open: Arc::default(), metrics }, triggered)
}

/// Where the watches put the runs to look at.
#[derive(Clone)]
pub(in crate::operator) struct Triggers {
    queue: mpsc::UnboundedSender<ObjectRef<GuardedRun>>,
    is_open: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
}

impl Triggers {
    /// From now on something takes from the queues. Before, while the caches fill or another replica leads, they take
    /// nothing, so that they do not grow; nothing is lost, because all that the caches hold after this is looked at.
    pub(in crate::operator) fn open(&self) {
        self.is_open.store(true, Ordering::SeqCst);
    }

    fn is_open(&self) -> bool {
        self.is_open.load(Ordering::SeqCst)
    }

    fn send(&self, run: ObjectRef<GuardedRun>) {
        if self.is_open() {
            self.count(&run);
            let _ = self.queue.unbounded_send(run); // fails only when the operator is stopping
        }
    }

    /// A run goes into the queue.
    pub(in crate::operator) fn count(&self, run: &ObjectRef<GuardedRun>) {
        self.metrics.triggered(&run.name, run.namespace.as_deref());
    }
}

/// Run events: what is new is reconciled, what is gone lets its pods go.
pub(in crate::operator) async fn follow_runs(
    events: impl Stream<Item = cluster::Event<GuardedRun>>,
    triggers: Triggers,
    orphans: orphans::Queue,
    cluster: Arc<Cluster>,
    backoff: Arc<Backoff>,
) {
    let mut which = RunTriggers::default();
    let mut events = pin!(events);
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                warn!(%error, "the watch of BundleRuns failed; it starts again");
                continue;
            }
        };
        match &event {
            watcher::Event::Apply(run) => {
                if let Ok(run) = &run.0 {
                    cluster.is_cached(run);
                }
            }
            // What is listed is in the cache only now.
            watcher::Event::InitDone => cluster.is_listed(),
            _ => {}
        }
        let Triggered { runs, gone, next_attempt } = which.on(&event);
        for uid in &gone {
            cluster.forget(uid);
            backoff.reset(uid);
        }
        if triggers.is_open() {
            if matches!(event, watcher::Event::InitDone) {
                orphans.check_all();
            } else {
                gone.into_iter().chain(next_attempt).for_each(|uid| orphans.run_changed(uid));
            }
        }
        for run in runs {
            triggers.send(run);
        }
    }
}

/// Pod events: those that change what a plan depends on trigger their run.
pub(in crate::operator) async fn follow_pods(
    events: impl Stream<Item = cluster::Event<PodFacts>>,
    triggers: Triggers,
    orphans: orphans::Queue,
) {
    let mut which = PodTriggers::default();
    let mut events = pin!(events);
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                warn!(%error, "the watch of pods failed; it starts again");
                continue;
            }
        };
        if let watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) = &event
            && triggers.is_open()
        {
            orphans.pod_changed(pod);
        }
        for run in which.on(&event) {
            triggers.send(run);
        }
    }
}

/// What an operator does not tell that may not read nodes.
pub(in crate::operator) const WITHOUT_NODES: &str = "nodes may not be read: that a node does not answer is told when a pod \
    that was deleted does not end, and how large the nodes are is not told";

/// What may not be read is tried again after this.
const FORBIDDEN_AGAIN: Duration = Duration::from_mins(1);

/// Tells once that something may not be read, and waits: the right may still come, as where the operator is just being
/// installed. The watcher's own back-off begins anew with each list that it begins.
async fn forbidden(error: &watcher::Error, told: &mut bool, what: &str) {
    if !std::mem::replace(told, true) {
        warn!(%error, "{what}");
    }
    tokio::time::sleep(FORBIDDEN_AGAIN).await;
}

/// Node events: a node that answers no more, or again, triggers the runs that have a pod on it.
pub(in crate::operator) async fn follow_nodes(
    events: impl Stream<Item = cluster::Event<NodeObject>>,
    nodes: Nodes,
    triggers: Triggers,
    cluster: Arc<Cluster>,
) {
    let mut events = pin!(events);
    let mut told = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                for node in nodes.on(event) {
                    cluster.runs_on(&node).into_iter().for_each(|run| triggers.send(run));
                }
            }
            Err(error) if cluster::is_forbidden(&error) => {
                nodes.give_up();
                forbidden(&error, &mut told, WITHOUT_NODES).await;
            }
            Err(error) => warn!(%error, "the watch of nodes failed; it starts again"),
        }
    }
}

/// What the log says of an operator that may not read the definition.
pub(in crate::operator) const WITHOUT_DEFINITION: &str =
    "the definition of BundleRun may not be read: it is taken to be that of this operator";

/// Events of the installed definition: with each that is another one, all runs are looked at.
pub(in crate::operator) async fn follow_definition(
    events: impl Stream<Item = cluster::Event<CustomResourceDefinition>>,
    runs: Store<GuardedRun>,
    triggers: Triggers,
    cluster: Arc<Cluster>,
) {
    let mut events = pin!(events);
    let mut told = false;
    while let Some(event) = events.next().await {
        let skew = match event {
            Ok(watcher::Event::Apply(definition) | watcher::Event::InitApply(definition)) => skew(&definition),
            // Without one there are no runs.
            Ok(watcher::Event::Init | watcher::Event::InitDone | watcher::Event::Delete(_)) => continue,
            Err(error) if cluster::is_forbidden(&error) => {
                cluster.assume_no_skew();
                forbidden(&error, &mut told, WITHOUT_DEFINITION).await;
                continue;
            }
            Err(error) => {
                warn!(%error, "the watch of the definition of BundleRun failed; it starts again");
                continue;
            }
        };
        match skew {
            Ok(skew) => {
                triggers.metrics.definition_lacks(skew.missing.len());
                let (missing, differs) = (skew.missing.clone(), skew.differs);
                if !cluster.set_skew(skew) {
                    continue;
                }
                if !missing.is_empty() {
                    warn!(
                        ?missing,
                        "the installed definition of BundleRun is older than this operator: it makes no new attempts"
                    );
                } else if differs {
                    warn!(
                        "the installed definition of BundleRun is newer than this operator: runs that use what is new wait"
                    );
                } else {
                    info!("the installed definition of BundleRun is this operator's");
                }
                runs.state().iter().for_each(|run| triggers.send(ObjectRef::from_obj(run.as_ref())));
            }
            Err(error) => error!(%error, "the definition of this operator cannot be made"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stands_by_gathers_nothing() {
        let (triggers, mut triggered) = queue(Arc::new(Metrics::new()));
        triggers.send(ObjectRef::new("before"));
        triggers.open();
        triggers.send(ObjectRef::new("after"));
        assert_eq!(triggered.try_recv().unwrap().name, "after");
        assert!(triggered.try_recv().is_err());
    }
}
