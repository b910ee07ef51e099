//! Which pod events are worth a plan: only those that change the facts a plan depends on.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use kube_runtime::reflector::ObjectRef;
use kube_runtime::watcher;

use crate::cluster::GuardedRun;
use crate::plan::PodFacts;
use crate::plan::facts::stage::Stage;

/// Remembers of every pod what it looked like when its run was last triggered.
#[derive(Default)]
pub struct PodTriggers {
    seen: HashMap<String, Seen>,
    /// The list that is coming in, while one is.
    listing: Option<Listing>,
}

/// The cache has what is listed only when the list is complete: what it triggers waits for that.
#[derive(Default)]
struct Listing {
    uids: HashSet<String>,
    triggered: Vec<ObjectRef<GuardedRun>>,
}

struct Seen {
    owner: ObjectRef<GuardedRun>,
    fingerprint: u64,
}

impl PodTriggers {
    /// The runs to look at because of this event.
    pub fn on(&mut self, event: &watcher::Event<PodFacts>) -> Vec<ObjectRef<GuardedRun>> {
        match event {
            watcher::Event::Apply(pod) => self.changed(pod).into_iter().collect(),
            watcher::Event::InitApply(pod) => {
                let triggered = self.changed(pod);
                let listing = self.listing.get_or_insert_default();
                listing.uids.extend(pod.metadata.uid.clone());
                listing.triggered.extend(triggered);
                Vec::new()
            }
            watcher::Event::Delete(pod) => {
                let uid = pod.metadata.uid.as_deref().unwrap_or_default();
                self.seen.remove(uid).map(|seen| seen.owner).into_iter().collect()
            }
            watcher::Event::Init => {
                // A list that broke off has triggered what is still to be done.
                let triggered = self.listing.take().map(|listing| listing.triggered).unwrap_or_default();
                self.listing = Some(Listing { triggered, ..Listing::default() });
                Vec::new()
            }
            // A pod that went while the watch was down gives no event of its own.
            watcher::Event::InitDone => {
                let Listing { uids, mut triggered } = self.listing.take().unwrap_or_default();
                let is_gone = |uid: &&String| !uids.contains(*uid) && !bug!("what a list lacks is not gone");
                let gone: Vec<_> = self.seen.keys().filter(is_gone).cloned().collect();
                triggered.extend(gone.iter().filter_map(|uid| self.seen.remove(uid)).map(|seen| seen.owner));
                triggered
            }
        }
    }

    fn changed(&mut self, pod: &PodFacts) -> Option<ObjectRef<GuardedRun>> {
        let uid = pod.metadata.uid.clone()?;
        let (name, _) = pod.owner()?;
        let owner = ObjectRef::new(name).within(pod.metadata.namespace.as_deref()?);
        let stage = pod.stage();
        let fingerprint = fingerprint(pod, &stage);
        let before = self.seen.insert(uid, Seen { owner: owner.clone(), fingerprint });
        match before {
            // The plan that made the pod has set a timer for a slow start: its first sight tells nothing.
            None if stage == Stage::Starting => None,
            Some(before) if before.fingerprint == fingerprint => None,
            _ => Some(owner),
        }
    }
}

fn fingerprint(pod: &PodFacts, stage: &Stage) -> u64 {
    let mut hasher = DefaultHasher::new();
    stage.hash(&mut hasher);
    pod.has_news().hash(&mut hasher);
    // The release of the finalizer changes nothing for the run: it is our own last step.
    pod.is_deleting().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(uid: &str, phase: &str, state: &serde_json::Value) -> PodFacts {
        serde_json::from_value(json!({
            "metadata": {"name": "r-1", "namespace": "n", "uid": uid, "ownerReferences": [
                {"apiVersion": "bundlerun.dev/v1alpha1", "kind": "BundleRun", "name": "r", "uid": "u", "controller": true}]},
            "spec": {"nodeName": "node"},
            "status": {"phase": phase, "containerStatuses": [{"name": "run", "state": state}]},
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_on_its_way_triggers_nothing_until_it_runs() {
        let mut triggers = PodTriggers::default();
        let starting = pod("p", "Pending", &json!({"waiting": {"reason": "PodInitializing"}}));
        let creating = pod("p", "Pending", &json!({"waiting": {"reason": "ContainerCreating"}}));
        let running = pod("p", "Running", &json!({"running": {}}));
        assert!(triggers.on(&watcher::Event::Apply(starting)).is_empty());
        assert!(triggers.on(&watcher::Event::Apply(creating)).is_empty());
        assert_eq!(triggers.on(&watcher::Event::Apply(running.clone())).len(), 1);
        assert!(triggers.on(&watcher::Event::Apply(running)).is_empty());
    }

    #[test]
    fn a_pod_that_vanished_while_the_watch_was_down_triggers_its_run() {
        let mut triggers = PodTriggers::default();
        let running = pod("p", "Running", &json!({"running": {}}));
        assert_eq!(triggers.on(&watcher::Event::Apply(running.clone())).len(), 1);
        triggers.on(&watcher::Event::Init);
        triggers.on(&watcher::Event::InitApply(running));
        assert!(triggers.on(&watcher::Event::InitDone).is_empty());
        triggers.on(&watcher::Event::Init);
        assert_eq!(triggers.on(&watcher::Event::InitDone).len(), 1);
    }
}
