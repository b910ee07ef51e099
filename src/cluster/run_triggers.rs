//! Which run events are worth a plan: a new spec or a deletion. Our own status writes are not.

use std::collections::HashMap;

use kube::{Resource, ResourceExt};
use kube_runtime::reflector::ObjectRef;
use kube_runtime::watcher;

use super::GuardedRun;

/// Remembers the generation every run was last triggered with.
#[derive(Default)]
pub struct RunTriggers {
    seen: HashMap<String, i64>,
}

impl RunTriggers {
    /// The run to look at because of this event.
    pub fn on(&mut self, event: &watcher::Event<GuardedRun>) -> Option<ObjectRef<GuardedRun>> {
        match event {
            watcher::Event::Apply(run) | watcher::Event::InitApply(run) => {
                let generation = run.meta().generation.unwrap_or_default();
                let before = self.seen.insert(run.uid()?, generation);
                (before != Some(generation)).then(|| ObjectRef::from_obj(run))
            }
            watcher::Event::Delete(run) => {
                self.seen.remove(&run.uid()?);
                None
            }
            // Deleted runs that gave no event stay: a few bytes each, and only after a lost watch.
            watcher::Event::Init | watcher::Event::InitDone => None,
        }
    }
}
