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
    /// Uids in the list that is coming in, while one is.
    listing: Option<HashSet<String>>,
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
                if let (Some(listing), Some(uid)) = (&mut self.listing, &pod.metadata.uid) {
                    listing.insert(uid.clone());
                }
                self.changed(pod).into_iter().collect()
            }
            watcher::Event::Delete(pod) => {
                let uid = pod.metadata.uid.as_deref().unwrap_or_default();
                self.seen.remove(uid).map(|seen| seen.owner).into_iter().collect()
            }
            watcher::Event::Init => {
                self.listing = Some(HashSet::new());
                Vec::new()
            }
            // A pod that went while the watch was down gives no event of its own.
            watcher::Event::InitDone => {
                let listed = self.listing.take().unwrap_or_default();
                let gone: Vec<_> = self.seen.keys().filter(|uid| !listed.contains(*uid)).cloned().collect();
                gone.iter().filter_map(|uid| self.seen.remove(uid)).map(|seen| seen.owner).collect()
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
