//! Pods that no plan looks at: those whose run is gone, and those of attempts that are over. Without their run nobody
//! else would remove our finalizer; without their attempt nobody else would end them.
//!
//! kube-runtime never reconciles a deleted object: not when the operator was down at the deletion, not in a namespace
//! that is going away. A pod of another attempt is made by an operator that did not know of the newer one.

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use futures::channel::mpsc;
use kube::ResourceExt;
use kube_runtime::reflector::{ObjectRef, Store};
use tracing::{info, warn};

use crate::cluster::{Cluster, Error, GuardedRun, StepResult};
use crate::names;
use crate::operator::backoff::Backoff;
use crate::operator::filled;
use crate::plan::facts::stage::Stage;
use crate::plan::{PodFacts, PodRef, current_pod};

/// How many pods are handled side by side.
const CONCURRENCY: usize = 16;

/// Where the watches put what the loop has to check.
#[derive(Clone)]
pub(in crate::operator) struct Queue(mpsc::UnboundedSender<Item>);

enum Item {
    Pod(Held),
    /// A pod that failed before.
    Again(PodRef),
    /// The pods of a run, by its uid.
    OfRun(String),
    All,
}

/// A pod with our finalizer, and the run it was made for.
struct Held {
    pod: PodRef,
    run: String,
    run_uid: String,
    /// By its label; `None`: it has none.
    attempt: Option<u32>,
    has_ended: bool,
    is_deleting: bool,
}

/// What is to be done about a pod.
#[derive(Debug, PartialEq)]
enum Todo {
    Nothing,
    /// It is of an attempt that is over.
    Delete,
    /// The same, and it has ended.
    RemoveFinalizer,
    /// As far as the cache knows, its run is gone.
    AskForRun,
}

impl Queue {
    /// A pod was seen.
    pub(in crate::operator) fn pod_changed(&self, pod: &PodFacts) {
        if let Some(held) = Held::from_pod(pod) {
            self.send(Item::Pod(held));
        }
    }

    /// A run was deleted, or has another attempt.
    pub(in crate::operator) fn run_changed(&self, uid: String) {
        self.send(Item::OfRun(uid));
    }

    /// Runs may have gone without an event that we saw: all were listed again, or somebody else led until now.
    pub(in crate::operator) fn check_all(&self) {
        self.send(Item::All);
    }

    fn send(&self, item: Item) {
        let _ = self.0.unbounded_send(item); // fails only when the operator is stopping
    }
}

impl Held {
    /// The owner reference names the run; after `--cascade=orphan` only our labels do. `None`: our finalizer is not on it.
    fn from_pod(pod: &PodFacts) -> Option<Self> {
        if !pod.is_held() {
            return None;
        }
        let label = |name: &str| pod.metadata.labels.as_ref()?.get(name).cloned();
        let (run, run_uid) = match pod.owner() {
            Some((name, uid)) => (name.to_owned(), uid.to_owned()),
            None => (label(names::RUN_LABEL)?, label(names::RUN_UID_LABEL)?),
        };
        Some(Self {
            pod: PodRef::of(pod),
            run,
            run_uid,
            attempt: label(names::ATTEMPT_LABEL).and_then(|attempt| attempt.parse().ok()),
            has_ended: pod.stage() == Stage::Ended,
            is_deleting: pod.is_deleting(),
        })
    }

    /// `current` is the attempt of its run, and whether the run is over; `None`: there is no such run.
    fn todo(&self, current: Option<(u32, bool)>) -> Todo {
        let Some((current, is_over)) = current else { return Todo::AskForRun };
        let Some(attempt) = self.attempt else { return Todo::Nothing };
        // A later one than the run's is of an operator that knows more than our cache, unless the run is over.
        let is_stray = attempt < current || (is_over && attempt != current);
        match (is_stray, self.has_ended) {
            (false, _) => Todo::Nothing,
            (true, false) if self.is_deleting => Todo::Nothing,
            (true, false) if bug!("strays live on") => Todo::Nothing,
            (true, false) => Todo::Delete,
            // The finalizer of the attempt before this one goes when the pod of this one is made.
            (true, true) if attempt + 1 == current && !is_over => Todo::Nothing,
            (true, true) => Todo::RemoveFinalizer,
        }
    }
}

/// The queue, and the loop that works it off.
pub(in crate::operator) fn queue(
    cluster: Arc<Cluster>,
    runs: Store<GuardedRun>,
    pods: Store<PodFacts>,
) -> (Queue, impl Future<Output = ()>) {
    let (sender, receiver) = mpsc::unbounded();
    let queue = Queue(sender);
    let work = Work { cluster, runs, queue: queue.clone(), backoff: Backoff::default(), waiting: Mutex::default() };
    let orphans = async move {
        // Every pod would look like an orphan before all runs are known.
        filled(&work.runs).await;
        filled(&pods).await;
        let all = |is_meant: &dyn Fn(&Held) -> bool| -> Vec<Held> {
            pods.state().iter().filter_map(|pod| Held::from_pod(pod)).filter(is_meant).collect()
        };
        let items = |item| match item {
            Item::Pod(held) => vec![held],
            Item::Again(pod) => {
                work.waiting().remove(&pod.uid);
                let cached = pods.get(&ObjectRef::new(&pod.name).within(&pod.namespace));
                let held = cached.and_then(|cached| Held::from_pod(&cached));
                held.filter(|held| held.pod == pod).into_iter().collect()
            }
            Item::OfRun(uid) => all(&|held| held.run_uid == uid),
            Item::All => all(&|_| true),
        };
        let held = receiver.flat_map(|item| futures::stream::iter(items(item)));
        held.for_each_concurrent(CONCURRENCY, |held| work.handle(held)).await;
    };
    (queue, orphans)
}

struct Work {
    cluster: Arc<Cluster>,
    runs: Store<GuardedRun>,
    queue: Queue,
    /// By the uid of the pod.
    backoff: Backoff,
    /// Uids of pods that failed and are tried again later: until then, their events are worth nothing.
    waiting: Mutex<HashSet<String>>,
}

impl Work {
    fn waiting(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One try. A pod that fails waits outside of the loop, so that it holds up no other.
    async fn handle(&self, held: Held) {
        let pod = held.pod.clone();
        if self.waiting().contains(&pod.uid) {
            return;
        }
        let Err(error) = self.carry_out(&held).await else {
            self.backoff.reset(&pod.uid);
            return;
        };
        let wait = self.backoff.next(&pod.uid);
        warn!(namespace = pod.namespace, pod = pod.name, %error, retry_in = ?wait, "the pod could not be released");
        self.waiting().insert(pod.uid.clone());
        let queue = self.queue.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            queue.send(Item::Again(pod));
        });
    }

    async fn carry_out(&self, held: &Held) -> Result<(), Error> {
        let pod = &held.pod;
        match held.todo(self.current(held)) {
            Todo::Nothing => {}
            Todo::Delete => {
                done("delete", pod, self.cluster.delete_pod(pod, None).await?)?;
                info!(namespace = pod.namespace, pod = pod.name, "deleted the pod: it is of another attempt");
            }
            Todo::RemoveFinalizer => {
                self.remove_finalizer(pod).await?;
                info!(namespace = pod.namespace, pod = pod.name, "released the pod: it is of another attempt");
            }
            // The cache answers for runs that exist; only the API server can say that one is gone.
            Todo::AskForRun => {
                if !bug!("orphans are kept")
                    && !self.cluster.run_exists(&pod.namespace, &held.run, &held.run_uid).await?
                {
                    self.remove_finalizer(pod).await?;
                    info!(namespace = pod.namespace, pod = pod.name, "released the pod: its run is gone");
                }
            }
        }
        Ok(())
    }

    /// The attempt of its run as it was last seen or written, and whether the run is over.
    fn current(&self, held: &Held) -> Option<(u32, bool)> {
        let cached = self.runs.get(&ObjectRef::new(&held.run).within(&held.pod.namespace))?;
        if cached.uid().as_ref() != Some(&held.run_uid) {
            return None;
        }
        // Of one that cannot be decoded nothing is known: no pod of it is a stray.
        let Ok(run) = &cached.0 else { return Some((0, false)) };
        let run = self.cluster.newest(run);
        Some((current_pod(&run).0, run.is_over()))
    }

    async fn remove_finalizer(&self, pod: &PodRef) -> Result<(), Error> {
        done("release", pod, self.cluster.release(pod).await?)
    }
}

fn done(what: &str, pod: &PodRef, result: StepResult) -> Result<(), Error> {
    let action = format!("{what} pod {}/{}", pod.namespace, pod.name);
    match result {
        StepResult::Done => Ok(()),
        StepResult::Kept(kept) => Err(Error::Unusable { action, what: kept.words }),
        // It changed between the look and the patch.
        _ => Err(Error::Changed { action }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pods_of_attempts_that_are_over_are_strays() {
        let todo = |attempt: u32, has_ended: bool, current| {
            let pod = PodRef { namespace: "n".into(), name: "r-1".into(), uid: "p".into() };
            let (run, run_uid, attempt) = ("r".to_owned(), "u".to_owned(), Some(attempt));
            Held { pod, run, run_uid, attempt, has_ended, is_deleting: false }.todo(current)
        };
        for (attempt, has_ended, current, expected) in [
            (1, false, None, Todo::AskForRun),
            (1, false, Some((1, false)), Todo::Nothing),
            (1, true, Some((1, true)), Todo::Nothing),
            (2, false, Some((1, false)), Todo::Nothing),
            (2, false, Some((1, true)), Todo::Delete),
            (1, false, Some((2, false)), Todo::Delete),
            (1, true, Some((2, false)), Todo::Nothing),
            (1, true, Some((2, true)), Todo::RemoveFinalizer),
            (1, true, Some((3, false)), Todo::RemoveFinalizer),
            (1, false, Some((0, false)), Todo::Nothing),
        ] {
            assert_eq!(todo(attempt, has_ended, current), expected, "{attempt} {has_ended} {current:?}");
        }
    }
}
