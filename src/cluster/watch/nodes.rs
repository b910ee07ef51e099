//! Nodes: whether they answer, and how large they are. A few hundred bytes of each are kept, never a list of their pods.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use futures::Stream;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{Api, Client};
use kube_runtime::{WatchStreamExt, watcher};
use tokio::sync::Notify;

use super::{Event, relisting};
use crate::cluster::{Error, bounded, failed, post};
use crate::plan::{Capacity, NodeFacts, NodeObject, NodeSeen};

/// Nodes in one answer of the API server: one of them can be 50 kB with all its images.
const PAGE: u32 = 100;

/// All nodes, with what is kept of each.
#[derive(Clone, Default)]
pub struct Nodes(Arc<Inner>);

#[derive(Default)]
struct Inner {
    known: RwLock<Known>,
    settled: Notify,
}

#[derive(Default)]
struct Known {
    nodes: HashMap<String, NodeFacts>,
    /// All of them are in it.
    complete: bool,
    /// Nobody fills this.
    given_up: bool,
    /// Names in the list that is coming in, while one is.
    listing: Option<HashSet<String>>,
    /// Of `nodes`, when it was asked for since they changed.
    capacity: Option<Arc<Capacity>>,
}

impl Nodes {
    /// What is known of a node.
    #[must_use]
    pub fn seen(&self, name: &str) -> NodeSeen {
        let known = self.read();
        match known.nodes.get(name) {
            _ if !known.complete => NodeSeen::Unknown,
            None => NodeSeen::Gone,
            Some(NodeFacts { silent_since: Some(since), .. }) => NodeSeen::Silent(*since),
            Some(_) => NodeSeen::Answers,
        }
    }

    /// What the nodes have; none: it is not known.
    #[must_use]
    pub fn capacity(&self) -> Option<Arc<Capacity>> {
        if let Some(capacity) = self.read().capacity.clone() {
            return Some(capacity);
        }
        let mut known = self.write();
        if !known.complete {
            return None;
        }
        let capacity = Arc::new(Capacity::of(known.nodes.values()));
        known.capacity = Some(Arc::clone(&capacity));
        Some(capacity)
    }

    /// Takes an event; returns the names of the nodes that answer no more, or again, or have come or gone.
    #[must_use]
    pub fn on(&self, event: watcher::Event<NodeObject>) -> Vec<String> {
        let mut known = self.write();
        match event {
            watcher::Event::Apply(node) => known.changed(&node).into_iter().collect(),
            watcher::Event::InitApply(node) => {
                if let Some(name) = &node.metadata.name {
                    known.listing.get_or_insert_default().insert(name.clone());
                }
                known.changed(&node).into_iter().collect()
            }
            watcher::Event::Delete(node) => {
                known.capacity = None;
                node.metadata.name.filter(|name| known.nodes.remove(name).is_some()).into_iter().collect()
            }
            watcher::Event::Init => {
                known.listing = Some(HashSet::new());
                Vec::new()
            }
            watcher::Event::InitDone => {
                let listed = known.listing.take().unwrap_or_default();
                (known.capacity, known.complete) = (None, true);
                let gone: Vec<_> = known.nodes.keys().filter(|name| !listed.contains(*name)).cloned().collect();
                known.nodes.retain(|name, _| listed.contains(name));
                self.0.settled.notify_waiters();
                gone
            }
        }
    }

    /// Nobody will fill this: nothing is known of nodes, and nobody shall wait for it.
    pub fn give_up(&self) {
        self.write().given_up = true;
        self.0.settled.notify_waiters();
    }

    /// Resolves when the nodes were listed, or will not be.
    pub async fn settled(&self) {
        loop {
            let notified = self.0.settled.notified();
            tokio::pin!(notified);
            // From here on no notification is missed.
            notified.as_mut().enable();
            if self.is_settled() {
                return;
            }
            notified.await;
        }
    }

    fn is_settled(&self) -> bool {
        let known = self.read();
        known.given_up || known.complete
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.0.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.0.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// The node's name, if that is worth a look at its pods. Heartbeats are not, nor is a device more or less.
    fn changed(&mut self, node: &NodeObject) -> Option<String> {
        let name = node.metadata.name.clone()?;
        let facts = NodeFacts::of(node);
        let before = self.nodes.get(&name);
        if before == Some(&facts) {
            return None;
        }
        let was_silent = before.and_then(|before| before.silent_since);
        let (is_new, is_silent) = (before.is_none(), facts.silent_since);
        self.capacity = None;
        self.nodes.insert(name.clone(), facts);
        // A new node has no pods, unless it is one that was deleted and is there again.
        (was_silent != is_silent || (is_new && self.listing.is_none())).then_some(name)
    }
}

/// All nodes, without what we never look at.
pub fn nodes(client: &Client) -> impl Stream<Item = Event<NodeObject>> + Send + 'static {
    let config = watcher::Config::default().page_size(PAGE);
    relisting(Api::all(client.clone()), config).default_backoff()
}

/// Whether the operator may follow the nodes: one for some namespaces only has no right outside of them, unless somebody
/// gave it.
///
/// # Errors
/// When there is no answer.
pub async fn may_follow_nodes(client: &Client) -> Result<bool, Error> {
    let nodes = ResourceAttributes { resource: Some("nodes".into()), ..ResourceAttributes::default() };
    may_follow(client, &nodes).await
}

/// Whether this may be listed and watched.
pub(super) async fn may_follow(client: &Client, what: &ResourceAttributes) -> Result<bool, Error> {
    const ACTION: &str = "ask what may be read";
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    for verb in ["list", "watch"] {
        let attributes = ResourceAttributes { verb: Some(verb.into()), ..what.clone() };
        let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), non_resource_attributes: None };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        let answer = bounded(ACTION, api.create(&post(), &review)).await?.map_err(|e| failed(ACTION, e))?;
        if !answer.status.is_some_and(|status| status.allowed) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, ready: &str, gpus: u32, beat: u32) -> NodeObject {
        serde_json::from_value(json!({
            "metadata": {"name": name, "resourceVersion": beat.to_string()},
            "status": {"allocatable": {"nvidia.com/gpu": gpus.to_string()}, "conditions": [
                {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:02Z",
                    "lastHeartbeatTime": format!("2026-01-01T00:00:{beat:02}Z")}]},
        }))
        .unwrap()
    }

    fn listed(nodes: &Nodes, all: Vec<NodeObject>) -> Vec<String> {
        let mut changed = nodes.on(watcher::Event::Init);
        for node in all {
            changed.extend(nodes.on(watcher::Event::InitApply(node)));
        }
        changed.extend(nodes.on(watcher::Event::InitDone));
        changed
    }

    #[test]
    fn a_heartbeat_changes_nothing_and_a_node_that_falls_silent_or_answers_again_is_told() {
        let nodes = Nodes::default();
        assert_eq!(nodes.seen("a"), NodeSeen::Unknown);
        assert!(listed(&nodes, vec![node("a", "True", 8, 1)]).is_empty());
        assert_eq!((nodes.seen("a"), nodes.seen("b")), (NodeSeen::Answers, NodeSeen::Gone));
        let apply = |n: NodeObject| nodes.on(watcher::Event::Apply(n));
        assert!(apply(node("a", "True", 8, 2)).is_empty(), "a heartbeat");
        assert!(apply(node("a", "True", 7, 3)).is_empty(), "a device less");
        assert_eq!(apply(node("a", "Unknown", 7, 3)), ["a"]);
        assert!(matches!(nodes.seen("a"), NodeSeen::Silent(_)));
        assert!(apply(node("a", "Unknown", 7, 3)).is_empty());
        assert_eq!(apply(node("a", "True", 7, 4)), ["a"]);
        assert_eq!(nodes.on(watcher::Event::Delete(node("a", "True", 7, 5))), ["a"]);
        assert_eq!(nodes.seen("a"), NodeSeen::Gone);
    }

    #[test]
    fn a_list_tells_what_changed_since_the_last_one() {
        let nodes = Nodes::default();
        assert!(
            listed(&nodes, vec![node("a", "True", 8, 1), node("b", "True", 8, 1), node("c", "True", 8, 1)]).is_empty()
        );
        let changed = listed(&nodes, vec![node("a", "True", 8, 9), node("b", "Unknown", 8, 1)]);
        assert_eq!(changed, ["b", "c"]);
    }

    #[test]
    fn the_largest_node_is_known_as_nodes_come_and_go() {
        let nodes = Nodes::default();
        assert_eq!(nodes.capacity(), None);
        listed(&nodes, vec![node("a", "True", 8, 1), node("b", "True", 4, 1)]);
        let largest = || nodes.capacity().unwrap().largest["nvidia.com/gpu"];
        assert_eq!((largest(), nodes.capacity().unwrap().nodes), (8, 2));
        assert!(nodes.on(watcher::Event::Apply(node("b", "True", 16, 2))).is_empty());
        assert_eq!(largest(), 16);
        assert_eq!(nodes.on(watcher::Event::Delete(node("b", "True", 16, 3))), ["b"]);
        assert_eq!(largest(), 8);
    }

    #[tokio::test]
    async fn nobody_waits_for_nodes_that_may_not_be_read() {
        let nodes = Nodes::default();
        assert!(!nodes.is_settled());
        nodes.give_up();
        nodes.settled().await;
        assert_eq!((nodes.seen("a"), nodes.capacity()), (NodeSeen::Unknown, None));
    }
}
