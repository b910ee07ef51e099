//! Which run events are worth a plan: a new spec, a deletion, and for those that wait for its output, the end of a run.
//! Our own status writes are not worth one of the same run.

use std::collections::{HashMap, HashSet};

use kube::{Resource, ResourceExt};
use kube_runtime::reflector::ObjectRef;
use kube_runtime::watcher;

use crate::api::BundleRun;
use crate::cluster::GuardedRun;
use crate::plan::{Parent, current_pod, parents};

/// Remembers of every run what it looked like when others were last triggered by it, and who waits for whom.
#[derive(Default)]
pub struct RunTriggers {
    seen: HashMap<String, Seen>,
    /// Runs that have not ended, by the namespace and name of each of their inputs.
    children: HashMap<(String, String), HashSet<ObjectRef<GuardedRun>>>,
    /// The list that is coming in, while one is.
    listing: Option<Listing>,
}

/// The cache has what is listed only when the list is complete: what it triggers waits for that.
#[derive(Default)]
struct Listing {
    uids: HashSet<String>,
    triggered: Triggered,
}

/// What follows from an event.
#[derive(Debug, Default, PartialEq)]
pub struct Triggered {
    /// The runs to reconcile.
    pub runs: Vec<ObjectRef<GuardedRun>>,
    /// Uids of runs that have been deleted.
    pub gone: Vec<String>,
    /// Uids of runs whose pods of earlier attempts have no business any more.
    pub next_attempt: Vec<String>,
}

impl Triggered {
    fn add(&mut self, other: Self) {
        self.runs.extend(other.runs);
        self.gone.extend(other.gone);
        self.next_attempt.extend(other.next_attempt);
    }
}

struct Seen {
    run: ObjectRef<GuardedRun>,
    generation: i64,
    attempt: u32,
    /// As a run that others wait for.
    parent: Parent,
    /// The runs it waits for.
    waits_for: Vec<String>,
}

impl RunTriggers {
    /// What follows from this event, which the cache has taken before.
    pub fn on(&mut self, event: &watcher::Event<GuardedRun>) -> Triggered {
        let triggered = match event {
            watcher::Event::Apply(run) | watcher::Event::InitApply(run) => self.changed(run),
            watcher::Event::Delete(run) => run.uid().map(|uid| self.gone(&uid)).unwrap_or_default(),
            watcher::Event::Init => {
                // A list that broke off has triggered what is still to be done.
                let triggered = self.listing.take().map(|listing| listing.triggered).unwrap_or_default();
                self.listing = Some(Listing { triggered, ..Listing::default() });
                Triggered::default()
            }
            watcher::Event::InitDone => {
                let Listing { uids, mut triggered } = self.listing.take().unwrap_or_default();
                let gone: Vec<_> = self.seen.keys().filter(|uid| !uids.contains(*uid)).cloned().collect();
                for uid in gone {
                    triggered.add(self.gone(&uid));
                }
                return triggered;
            }
        };
        match &mut self.listing {
            Some(listing) if !bug!("a list triggers before it is complete") => {
                listing.triggered.add(triggered);
                Triggered::default()
            }
            _ => triggered,
        }
    }

    fn changed(&mut self, guarded: &GuardedRun) -> Triggered {
        let Some(uid) = guarded.uid() else { return Triggered::default() };
        if let Some(listing) = &mut self.listing {
            listing.uids.insert(uid.clone());
        }
        let run = ObjectRef::from_obj(guarded);
        let attempt = guarded.0.as_ref().map_or(0, |run| current_pod(run).0);
        let generation = guarded.meta().generation.unwrap_or_default();
        let parent = guarded.0.as_ref().map(as_parent).unwrap_or_default();
        let waits_for = guarded.0.as_ref().map(waits_for).unwrap_or_default();
        let before = self.seen.remove(&uid);
        let mut triggered = Triggered::default();
        if before.as_ref().is_none_or(|before| before.generation != generation) {
            triggered.runs.push(run.clone());
        }
        if before.as_ref().is_none_or(|before| before.parent != parent) {
            triggered.runs.extend(self.children_of(&run));
        }
        if before.as_ref().is_some_and(|before| before.attempt != attempt) {
            triggered.next_attempt.push(uid.clone());
        }
        self.forget(&run, before.map(|before| before.waits_for).unwrap_or_default());
        let namespace = run.namespace.clone().unwrap_or_default();
        for name in &waits_for {
            self.children.entry((namespace.clone(), name.clone())).or_default().insert(run.clone());
        }
        self.seen.insert(uid, Seen { run, generation, attempt, parent, waits_for });
        triggered
    }

    fn gone(&mut self, uid: &str) -> Triggered {
        let gone = vec![uid.to_owned()];
        let Some(seen) = self.seen.remove(uid) else { return Triggered { gone, ..Triggered::default() } };
        self.forget(&seen.run, seen.waits_for);
        Triggered { runs: self.children_of(&seen.run), gone, ..Triggered::default() }
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

/// Its ways from phase to phase are nobody else's matter but that its command has begun, until its end.
fn as_parent(run: &BundleRun) -> Parent {
    let parent = Parent::of(run);
    Parent { phase: parent.phase.filter(|phase| phase.is_terminal()), ..parent }
}

fn waits_for(run: &BundleRun) -> Vec<String> {
    if run.is_over() {
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
    fn children_are_looked_at_when_their_parent_begins_ends_comes_or_goes_and_at_no_other_time() {
        let mut triggers = RunTriggers::default();
        let mut apply = |name: &str, inputs: Value, status: Value| {
            names(&triggers.on(&watcher::Event::Apply(run(name, inputs, status))).runs).join(" ")
        };
        let of_p = json!([{"path": "a", "run": {"name": "p"}}, {"path": "b", "run": {"name": "p"}}]);
        assert_eq!(apply("c1", of_p.clone(), json!({})), "c1");
        assert_eq!(apply("c2", of_p.clone(), json!({})), "c2");
        assert_eq!(apply("p", json!([]), json!({})), "c1 c2 p", "it is there now");
        assert_eq!(apply("p", json!([]), json!({"phase": "Pending"})), "");
        let attempt = json!([{"attempt": 1, "startTime": "2026-01-01T00:00:00Z"}]);
        assert_eq!(
            apply("p", json!([]), json!({"phase": "Running", "attempts": attempt})),
            "c1 c2",
            "it may have a snapshot"
        );
        assert_eq!(apply("p", json!([]), json!({"phase": "Finalizing", "attempts": attempt})), "");
        let over = json!({"phase": "Succeeded", "attempts": attempt, "output": {"bundle": "r@sha256:1"}});
        assert_eq!(apply("p", json!([]), over.clone()), "c1 c2");
        assert_eq!(apply("p", json!([]), over.clone()), "");
        assert_eq!(apply("c1", of_p.clone(), json!({"phase": "Failed"})), "", "it waits for nobody any more");
        let gone = triggers.on(&watcher::Event::Delete(run("p", json!([]), over)));
        assert_eq!((names(&gone.runs), gone.gone), (vec!["c2"], vec!["p".to_owned()]));
        triggers.on(&watcher::Event::Init);
        let mut gone = triggers.on(&watcher::Event::InitDone);
        gone.gone.sort_unstable();
        assert_eq!((names(&gone.runs), gone.gone), (vec![], ["c1", "c2"].map(str::to_owned).to_vec()));
        assert!(triggers.children.is_empty() && triggers.seen.is_empty());
    }

    #[test]
    fn what_a_list_triggers_waits_until_the_cache_has_all_of_it() {
        let mut triggers = RunTriggers::default();
        triggers.on(&watcher::Event::Init);
        let listed = |name| watcher::Event::InitApply(run(name, json!([]), json!({})));
        assert_eq!(triggers.on(&listed("a")), Triggered::default());
        // The list breaks off, and another one begins.
        assert_eq!(triggers.on(&watcher::Event::Init), Triggered::default());
        assert_eq!(triggers.on(&listed("a")), Triggered::default());
        assert_eq!(triggers.on(&listed("made meanwhile")), Triggered::default());
        let all = triggers.on(&watcher::Event::InitDone);
        assert_eq!((names(&all.runs), all.gone), (vec!["a", "made meanwhile"], vec![]));
    }

    #[test]
    fn another_attempt_is_told_once() {
        let mut triggers = RunTriggers::default();
        let mut next = |attempt: u32| {
            triggers.on(&watcher::Event::Apply(run("a", json!([]), json!({"attempt": attempt})))).next_attempt
        };
        assert_eq!(next(1), [""; 0]);
        assert_eq!(next(1), [""; 0]);
        assert_eq!(next(2), ["a"]);
        assert_eq!(next(2), [""; 0]);
    }
}
