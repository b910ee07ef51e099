//! Which run events are worth a plan: a new spec, a deletion, and for those that wait for its output, the end of a run.
//! Our own status writes are not worth one of the same run.

use std::collections::{HashMap, HashSet};

use kube::{Resource, ResourceExt};
use kube_runtime::reflector::ObjectRef;
use kube_runtime::watcher;

use crate::api::{BundleRun, Phase};
use crate::cluster::GuardedRun;
use crate::plan::{Parent, parents};

/// Remembers of every run what it looked like when others were last triggered by it, and who waits for whom.
#[derive(Default)]
pub struct RunTriggers {
    seen: HashMap<String, Seen>,
    /// Runs that have not ended, by the namespace and name of each of their inputs.
    children: HashMap<(String, String), HashSet<ObjectRef<GuardedRun>>>,
    /// Uids in the list that is coming in, while one is.
    listing: Option<HashSet<String>>,
}

struct Seen {
    run: ObjectRef<GuardedRun>,
    generation: i64,
    /// As a run that others wait for.
    parent: Parent,
    /// The runs it waits for.
    waits_for: Vec<String>,
}

impl RunTriggers {
    /// The runs to look at because of this event.
    pub fn on(&mut self, event: &watcher::Event<GuardedRun>) -> Vec<ObjectRef<GuardedRun>> {
        match event {
            watcher::Event::Apply(run) | watcher::Event::InitApply(run) => self.changed(run),
            watcher::Event::Delete(run) => run.uid().map(|uid| self.gone(&uid)).unwrap_or_default(),
            watcher::Event::Init => {
                self.listing = Some(HashSet::new());
                Vec::new()
            }
            watcher::Event::InitDone => {
                let Some(listed) = self.listing.take() else { return Vec::new() };
                let gone: Vec<_> = self.seen.keys().filter(|uid| !listed.contains(*uid)).cloned().collect();
                gone.iter().flat_map(|uid| self.gone(uid)).collect()
            }
        }
    }

    fn changed(&mut self, guarded: &GuardedRun) -> Vec<ObjectRef<GuardedRun>> {
        let Some(uid) = guarded.uid() else { return Vec::new() };
        if let Some(listing) = &mut self.listing {
            listing.insert(uid.clone());
        }
        let run = ObjectRef::from_obj(guarded);
        let generation = guarded.meta().generation.unwrap_or_default();
        let parent = guarded.0.as_ref().map(as_parent).unwrap_or_default();
        let waits_for = guarded.0.as_ref().map(waits_for).unwrap_or_default();
        let before = self.seen.remove(&uid);
        let mut triggered = Vec::new();
        if before.as_ref().is_none_or(|before| before.generation != generation) {
            triggered.push(run.clone());
        }
        if before.as_ref().is_none_or(|before| before.parent != parent) {
            triggered.extend(self.children_of(&run));
        }
        self.forget(&run, before.map(|before| before.waits_for).unwrap_or_default());
        let namespace = run.namespace.clone().unwrap_or_default();
        for name in &waits_for {
            self.children.entry((namespace.clone(), name.clone())).or_default().insert(run.clone());
        }
        self.seen.insert(uid, Seen { run, generation, parent, waits_for });
        triggered
    }

    fn gone(&mut self, uid: &str) -> Vec<ObjectRef<GuardedRun>> {
        let Some(seen) = self.seen.remove(uid) else { return Vec::new() };
        self.forget(&seen.run, seen.waits_for);
        self.children_of(&seen.run)
    }

    fn children_of(&self, run: &ObjectRef<GuardedRun>) -> Vec<ObjectRef<GuardedRun>> {
        let key = (run.namespace.clone().unwrap_or_default(), run.name.clone());
        self.children.get(&key).into_iter().flatten().cloned().collect()
    }

    fn forget(&mut self, child: &ObjectRef<GuardedRun>, waited_for: Vec<String>) {
        for name in waited_for {
            let key = (child.namespace.clone().unwrap_or_default(), name);
            if let Some(children) = self.children.get_mut(&key) {
                children.remove(child);
                if children.is_empty() {
                    self.children.remove(&key);
                }
            }
        }
    }
}

/// Its ways from phase to phase are nobody else's matter until its end.
fn as_parent(run: &BundleRun) -> Parent {
    let parent = Parent::of(run);
    Parent { phase: parent.phase.filter(|phase| phase.is_terminal()), ..parent }
}

fn waits_for(run: &BundleRun) -> Vec<String> {
    if run.status.as_ref().and_then(|s| s.phase).is_some_and(Phase::is_terminal) {
        return Vec::new();
    }
    let mut names: Vec<_> = parents::names(run).map(str::to_owned).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[allow(clippy::needless_pass_by_value)] // reads better without a reference
    fn run(name: &str, inputs: Value, status: Value) -> GuardedRun {
        let metadata = json!({"name": name, "namespace": "n", "uid": name, "generation": 1});
        let spec = json!({"command": "true", "inputs": inputs});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap()
    }

    fn names(triggered: &[ObjectRef<GuardedRun>]) -> Vec<&str> {
        let mut names: Vec<_> = triggered.iter().map(|run| run.name.as_str()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn children_are_looked_at_when_their_parent_ends_comes_or_goes_and_at_no_other_time() {
        let mut triggers = RunTriggers::default();
        let mut apply = |name: &str, inputs: Value, status: Value| {
            names(&triggers.on(&watcher::Event::Apply(run(name, inputs, status)))).join(" ")
        };
        let of_p = json!([{"path": "a", "run": {"name": "p"}}, {"path": "b", "run": {"name": "p"}}]);
        assert_eq!(apply("c1", of_p.clone(), json!({})), "c1");
        assert_eq!(apply("c2", of_p.clone(), json!({})), "c2");
        assert_eq!(apply("p", json!([]), json!({})), "c1 c2 p", "it is there now");
        assert_eq!(apply("p", json!([]), json!({"phase": "Running"})), "");
        let over = json!({"phase": "Succeeded", "output": {"bundle": "r@sha256:1"}});
        assert_eq!(apply("p", json!([]), over.clone()), "c1 c2");
        assert_eq!(apply("p", json!([]), over.clone()), "");
        assert_eq!(apply("c1", of_p.clone(), json!({"phase": "Failed"})), "", "it waits for nobody any more");
        let gone = triggers.on(&watcher::Event::Delete(run("p", json!([]), over)));
        assert_eq!(names(&gone), ["c2"]);
        triggers.on(&watcher::Event::Init);
        assert!(triggers.on(&watcher::Event::InitDone).is_empty());
        assert!(triggers.children.is_empty() && triggers.seen.is_empty());
    }
}
