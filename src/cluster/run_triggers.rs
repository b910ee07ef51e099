//! Which run events are worth a plan: a new spec or a deletion. Our own status writes are not.

use std::collections::{HashMap, HashSet};

use kube::{Resource, ResourceExt};
use kube_runtime::reflector::ObjectRef;
use kube_runtime::watcher;

use super::GuardedRun;

/// Remembers the generation every run was last triggered with.
#[derive(Default)]
pub struct RunTriggers {
    seen: HashMap<String, i64>,
    /// Uids in the list that is coming in, while one is.
    listing: Option<HashSet<String>>,
}

impl RunTriggers {
    /// The run to look at because of this event.
    pub fn on(&mut self, event: &watcher::Event<GuardedRun>) -> Option<ObjectRef<GuardedRun>> {
        match event {
            watcher::Event::Apply(run) | watcher::Event::InitApply(run) => {
                let generation = run.meta().generation.unwrap_or_default();
                let uid = run.uid()?;
                if let Some(listing) = &mut self.listing {
                    listing.insert(uid.clone());
                }
                let before = self.seen.insert(uid, generation);
                (before != Some(generation)).then(|| ObjectRef::from_obj(run))
            }
            watcher::Event::Delete(run) => {
                self.seen.remove(&run.uid()?);
                None
            }
            watcher::Event::Init => {
                self.listing = Some(HashSet::new());
                None
            }
            watcher::Event::InitDone => {
                if let Some(listed) = self.listing.take() {
                    self.seen.retain(|uid, _| listed.contains(uid));
                }
                None
            }
        }
    }
}
