//! The release loop: takes our finalizer off pods whose run is gone.
//!
//! kube-runtime never reconciles a deleted object, so nobody else would: not when the operator was down at the deletion,
//! not in a namespace that is going away.

use std::future::Future;
use std::sync::Arc;

use futures::StreamExt;
use futures::channel::mpsc;
use kube_runtime::reflector::{ObjectRef, Store};
use tracing::{info, warn};

use crate::cluster::{Cluster, Error, GuardedRun, StepResult};
use crate::names;
use crate::operator::backoff::Backoff;
use crate::plan::{PodFacts, PodRef};

/// How many pods are looked at side by side.
const CONCURRENCY: usize = 16;

/// Where the watches put what the loop shall look at.
#[derive(Clone)]
pub(in crate::operator) struct Queue(mpsc::UnboundedSender<Item>);

enum Item {
    Pod(Held),
    RunGone(String),
    All,
}

/// A pod we hold, and the run it was made for.
struct Held {
    pod: PodRef,
    run: String,
    run_uid: String,
}

impl Queue {
    /// A pod was seen.
    pub(in crate::operator) fn pod_changed(&self, pod: &PodFacts) {
        if let Some(held) = held(pod) {
            let _ = self.0.unbounded_send(Item::Pod(held)); // fails only when the operator is stopping
        }
    }

    /// A run was deleted.
    pub(in crate::operator) fn run_is_gone(&self, uid: String) {
        let _ = self.0.unbounded_send(Item::RunGone(uid)); // fails only when the operator is stopping
    }

    /// Runs may have gone without an event that we saw: all were listed anew, or somebody else led until now.
    pub(in crate::operator) fn look_at_all(&self) {
        let _ = self.0.unbounded_send(Item::All); // fails only when the operator is stopping
    }
}

/// The queue and the loop that works it off.
pub(in crate::operator) fn queue(
    cluster: Arc<Cluster>,
    runs: Store<GuardedRun>,
    pods: Store<PodFacts>,
) -> (Queue, impl Future<Output = ()>) {
    let (sender, receiver) = mpsc::unbounded();
    let releases = async move {
        // Every pod would look like an orphan before all runs are known.
        if runs.wait_until_ready().await.is_err() || pods.wait_until_ready().await.is_err() {
            return;
        }
        let all_held = |item| match item {
            Item::Pod(held) => vec![held],
            Item::RunGone(uid) => {
                pods.state().iter().filter_map(|p| held(p)).filter(|held| held.run_uid == uid).collect()
            }
            Item::All => pods.state().iter().filter_map(|p| held(p)).collect(),
        };
        receiver
            .flat_map(|item| futures::stream::iter(all_held(item)))
            .for_each_concurrent(CONCURRENCY, |held| release_if_orphaned(&cluster, &runs, held))
            .await;
    };
    (Queue(sender), releases)
}

/// The owner reference tells the run; after `--cascade=orphan` only our labels do.
fn held(pod: &PodFacts) -> Option<Held> {
    if !pod.is_held() {
        return None;
    }
    let label = |name: &str| pod.metadata.labels.as_ref()?.get(name).cloned();
    let (run, run_uid) = match pod.owner() {
        Some((name, uid)) => (name.to_owned(), uid.to_owned()),
        None => (label(names::RUN_LABEL)?, label(names::RUN_UID_LABEL)?),
    };
    Some(Held { pod: PodRef::of(pod), run, run_uid })
}

/// The cache answers for runs that exist; only the API server can say that one is gone. Tried until it answers.
async fn release_if_orphaned(cluster: &Cluster, runs: &Store<GuardedRun>, held: Held) {
    let backoff = Backoff::default();
    loop {
        let cached = runs.get(&ObjectRef::new(&held.run).within(&held.pod.namespace));
        if cached.is_some_and(|run| kube::ResourceExt::uid(run.as_ref()).as_ref() == Some(&held.run_uid)) {
            return;
        }
        match try_release(cluster, &held).await {
            Ok(released) => {
                if released {
                    info!(namespace = held.pod.namespace, pod = held.pod.name, "released the pod: its run is gone");
                }
                return;
            }
            Err(error) => {
                warn!(namespace = held.pod.namespace, pod = held.pod.name, %error, "will be tried again");
                tokio::time::sleep(backoff.next("")).await;
            }
        }
    }
}

async fn try_release(cluster: &Cluster, held: &Held) -> Result<bool, Error> {
    if cluster.run_exists(&held.pod.namespace, &held.run, &held.run_uid).await? {
        return Ok(false);
    }
    match cluster.release(&held.pod).await? {
        StepResult::Done => Ok(true),
        // It changed between the look and the patch.
        _ => Err(Error::Changed { action: format!("release pod {}/{}", held.pod.namespace, held.pod.name) }),
    }
}
