//! Several watches as one: a store takes one list at a time, and takes what is not in it for gone.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use kube::{Resource, ResourceExt};
use kube_runtime::reflector::Store;
use kube_runtime::watcher;
use tracing::warn;

use crate::cluster::Event;

/// The watches of several namespaces as one stream for the writer of `store`, which must have taken each event before
/// it asks for the next one.
///
/// The first list is complete when every namespace has been listed, or could not be in [`TRIES`]: one that was deleted,
/// or whose Role was, must not keep the others from being served. When one is listed anew, the whole is: what the store
/// has of the others is repeated.
pub(in crate::cluster) fn merged<K, S>(
    watches: Vec<(String, S)>,
    store: Store<K>,
) -> impl Stream<Item = Event<K>> + Send
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
    S: Stream<Item = Event<K>> + Send + Unpin,
{
    let mut lists = Lists::new(watches.iter().map(|(namespace, _)| namespace.clone()));
    let numbered = watches.into_iter().enumerate().map(|(i, (_, watch))| watch.map(move |event| (i, event)));
    // The next event is asked for when the last of these was taken, so `store` is current when it is read.
    stream::select_all(numbered).flat_map(move |(from, event)| {
        let (error, events) = match event {
            Ok(event) => (None, lists.on(from, event, || store.state())),
            Err(error) => (Some(Err(error)), lists.failed(from)),
        };
        stream::iter(error.into_iter().chain(events.into_iter().map(Ok)))
    })
}

/// Tries to list a namespace for the first time before the others are served without it.
const TRIES: u32 = 3;

struct Lists<K> {
    of: Vec<List<K>>,
    /// Every namespace has been listed once, and the store has them all.
    complete: bool,
}

struct List<K> {
    namespace: String,
    /// What was listed so far, while a list is coming in.
    incoming: Option<HashMap<String, K>>,
    /// What it holds, until the first list of all is complete; none before its own first list.
    known: Option<HashMap<String, K>>,
    /// Tries that failed before its own first list.
    failures: u32,
}

impl<K> Lists<K>
where
    K: Resource<DynamicType = ()> + Clone,
    K::DynamicType: Eq + Hash,
{
    fn new(namespaces: impl Iterator<Item = String>) -> Self {
        let of = namespaces.map(|namespace| List { namespace, incoming: None, known: None, failures: 0 }).collect();
        Self { of, complete: false }
    }

    fn on(
        &mut self,
        from: usize,
        event: watcher::Event<K>,
        stored: impl FnOnce() -> Vec<Arc<K>>,
    ) -> Vec<watcher::Event<K>> {
        let complete = self.complete;
        let Some(list) = self.of.get_mut(from) else { return Vec::new() };
        match event {
            watcher::Event::Init => list.incoming = Some(HashMap::new()),
            watcher::Event::InitApply(object) => {
                list.incoming.get_or_insert_default().insert(object.name_any(), object);
            }
            watcher::Event::InitDone => {
                let listed = list.incoming.take().unwrap_or_default();
                if complete {
                    let of_others =
                        stored().into_iter().filter(|object| object.namespace().as_ref() != Some(&list.namespace));
                    return whole(listed.into_values().chain(of_others.map(|object| object.as_ref().clone())));
                }
                list.known = Some(listed);
                return self.first_list();
            }
            event if complete => return vec![event],
            // The store hears of it with the first list of all.
            watcher::Event::Apply(object) => {
                list.known.get_or_insert_default().insert(object.name_any(), object);
            }
            watcher::Event::Delete(object) => {
                list.known.get_or_insert_default().remove(&object.name_any());
            }
        }
        Vec::new()
    }
}

impl<K> Lists<K> {
    /// The watch of a namespace had an error.
    fn failed(&mut self, from: usize) -> Vec<watcher::Event<K>> {
        let Some(list) = self.of.get_mut(from).filter(|list| !self.complete && list.known.is_none()) else {
            return Vec::new();
        };
        list.failures += 1;
        if list.failures < TRIES {
            return Vec::new();
        }
        warn!(namespace = list.namespace, "cannot be listed: its runs are not served until it can");
        (list.incoming, list.known) = (None, Some(HashMap::new()));
        self.first_list()
    }

    /// All that is known, once something is known of every namespace.
    fn first_list(&mut self) -> Vec<watcher::Event<K>> {
        if !self.of.iter().all(|list| list.known.is_some()) {
            return Vec::new();
        }
        self.complete = true;
        whole(self.of.iter_mut().filter_map(|list| list.known.take()).flat_map(HashMap::into_values))
    }
}

fn whole<K>(objects: impl Iterator<Item = K>) -> Vec<watcher::Event<K>> {
    let mut events = vec![watcher::Event::Init];
    events.extend(objects.map(watcher::Event::InitApply));
    events.push(watcher::Event::InitDone);
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::channel::mpsc;
    use futures::{FutureExt, pin_mut};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube_runtime::WatchStreamExt;
    use kube_runtime::reflector;
    use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};

    fn object(namespace: &str, name: &str) -> ConfigMap {
        serde_json::from_value(serde_json::json!({"metadata": {"name": name, "namespace": namespace}})).unwrap()
    }

    fn said(event: &Event<ConfigMap>) -> String {
        let of = |o: &ConfigMap| format!("{}/{}", o.namespace().unwrap(), o.name_any());
        match event {
            Ok(Init) => "init".into(),
            Ok(InitApply(o)) => format!("listed {}", of(o)),
            Ok(InitDone) => "done".into(),
            Ok(Apply(o)) => format!("applied {}", of(o)),
            Ok(Delete(o)) => format!("deleted {}", of(o)),
            Err(_) => "error".into(),
        }
    }

    /// An event of a namespace; what must come out, in any order within; what the store holds then.
    type Step<'a> = (&'a str, watcher::Event<ConfigMap>, &'a [&'a str], Option<&'a [&'a str]>);

    fn check(steps: Vec<Step>) {
        let (store, writer) = reflector::store();
        let (mut senders, mut watches) = (HashMap::new(), Vec::new());
        for namespace in ["a", "b"] {
            let (sender, receiver) = mpsc::unbounded();
            senders.insert(namespace, sender);
            watches.push((namespace.to_owned(), receiver));
        }
        let events = merged(watches, store.clone()).reflect(writer);
        pin_mut!(events);
        for (i, (namespace, event, expected, holds)) in steps.into_iter().enumerate() {
            senders[namespace].unbounded_send(Ok(event)).unwrap();
            let mut out = Vec::new();
            while let Some(Some(event)) = events.next().now_or_never() {
                out.push(said(&event));
            }
            let inner = out.len().saturating_sub(1);
            if inner > 1 {
                out[1..inner].sort();
            }
            assert_eq!(out, expected, "step {i}");
            let mut stored: Vec<_> =
                store.state().iter().map(|o| format!("{}/{}", o.namespace().unwrap(), o.name_any())).collect();
            stored.sort();
            let ready = store.wait_until_ready().now_or_never().is_some();
            assert_eq!(ready.then_some(stored), holds.map(|h| h.iter().map(|s| (*s).to_owned()).collect()), "step {i}");
        }
    }

    #[test]
    fn the_first_list_is_done_when_every_namespace_was_listed() {
        check(vec![
            ("a", Init, &[], None),
            ("a", InitApply(object("a", "1")), &[], None),
            ("b", Init, &[], None),
            ("a", InitDone, &[], None),
            ("a", Apply(object("a", "2")), &[], None),
            ("a", Delete(object("a", "1")), &[], None),
            ("b", InitApply(object("b", "1")), &[], None),
            ("b", InitDone, &["init", "listed a/2", "listed b/1", "done"], Some(&["a/2", "b/1"])),
            ("b", Apply(object("b", "2")), &["applied b/2"], Some(&["a/2", "b/1", "b/2"])),
            ("a", Delete(object("a", "2")), &["deleted a/2"], Some(&["b/1", "b/2"])),
        ]);
    }

    #[test]
    fn a_namespace_listed_anew_drops_what_went_in_it_and_nothing_of_the_others() {
        check(vec![
            ("a", Init, &[], None),
            ("a", InitApply(object("a", "stays")), &[], None),
            ("a", InitApply(object("a", "goes")), &[], None),
            ("a", InitDone, &[], None),
            ("b", Init, &[], None),
            ("b", InitDone, &["init", "listed a/goes", "listed a/stays", "done"], Some(&["a/goes", "a/stays"])),
            ("b", Apply(object("b", "1")), &["applied b/1"], Some(&["a/goes", "a/stays", "b/1"])),
            ("a", Init, &[], Some(&["a/goes", "a/stays", "b/1"])),
            ("a", InitApply(object("a", "stays")), &[], Some(&["a/goes", "a/stays", "b/1"])),
            // The other namespace goes on meanwhile.
            ("b", Apply(object("b", "2")), &["applied b/2"], Some(&["a/goes", "a/stays", "b/1", "b/2"])),
            (
                "a",
                InitDone,
                &["init", "listed a/stays", "listed b/1", "listed b/2", "done"],
                Some(&["a/stays", "b/1", "b/2"]),
            ),
        ]);
    }

    #[test]
    fn a_namespace_that_cannot_be_listed_does_not_hold_up_the_others_and_joins_later() {
        let mut lists = Lists::new(["a", "b"].map(str::to_owned).into_iter());
        let mut on = |from, event| lists.on(from, event, Vec::new);
        assert!(on(0, Init).is_empty());
        assert!(on(0, InitApply(object("a", "1"))).is_empty());
        assert!(on(0, InitDone).is_empty());
        assert!(lists.failed(1).is_empty() && lists.failed(1).is_empty());
        let first: Vec<_> = lists.failed(1).into_iter().map(|event| said(&Ok(event))).collect();
        assert_eq!(first, ["init", "listed a/1", "done"]);
        assert!(lists.failed(1).is_empty() && lists.failed(0).is_empty());
        let stored = || vec![Arc::new(object("a", "1"))];
        assert!(lists.on(1, Init, stored).is_empty());
        assert!(lists.on(1, InitApply(object("b", "1")), stored).is_empty());
        let later = lists.on(1, InitDone, stored).into_iter().map(|event| said(&Ok(event))).collect::<Vec<_>>();
        assert_eq!(later, ["init", "listed b/1", "listed a/1", "done"]);
    }

    #[test]
    fn a_first_list_that_breaks_off_starts_over() {
        check(vec![
            ("a", Init, &[], None),
            ("a", InitApply(object("a", "old")), &[], None),
            ("a", Init, &[], None),
            ("a", InitApply(object("a", "new")), &[], None),
            ("a", InitDone, &[], None),
            ("b", Init, &[], None),
            ("b", InitDone, &["init", "listed a/new", "done"], Some(&["a/new"])),
        ]);
    }
}
