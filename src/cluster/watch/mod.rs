//! The watches everything is fed from: runs and the pods made for them, the nodes these are on,
//! and the definition of runs.

mod definition;
mod namespaces;
mod nodes;
mod pod_triggers;
mod run_triggers;

use std::fmt::Debug;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use kube_runtime::WatchStreamExt;
use kube_runtime::reflector::store::Writer;
use kube_runtime::watcher::{self, watcher};
use serde::de::DeserializeOwned;

use crate::cluster::GuardedRun;
use crate::names;
use crate::plan::PodFacts;
use namespaces::merged;

pub use definition::{definition, may_follow_definition};
pub use nodes::{Nodes, may_follow_nodes, nodes};
pub use pod_triggers::PodTriggers;
pub use run_triggers::{RunTriggers, Triggered};

/// The annotations of a pod that are looked at.
const LOOKED_AT: [&str; 3] = [names::PINS_ANNOTATION, names::STOP_ANNOTATION, names::AWAITED_RUNS_ANNOTATION];

/// What a watch yields.
pub type Event<K> = watcher::Result<watcher::Event<K>>;

/// All runs of these namespaces, or of all when none is named, kept in `store`.
pub fn runs(
    client: &Client,
    namespaces: &[String],
    store: Writer<GuardedRun>,
) -> impl Stream<Item = Event<GuardedRun>> + Send + 'static {
    let stream = watched(client, namespaces, &watcher::Config::default(), &store);
    stream.modify(|run: &mut GuardedRun| run.meta_mut().managed_fields = None).reflect(store)
}

/// All pods we made in these namespaces, or in all when none is named, kept in `store` without what we never look at.
pub fn pods(
    client: &Client,
    namespaces: &[String],
    store: Writer<PodFacts>,
) -> impl Stream<Item = Event<PodFacts>> + Send + 'static {
    let ours = watcher::Config::default().labels(names::RUN_UID_LABEL);
    watched(client, namespaces, &ours, &store)
        .modify(|pod: &mut PodFacts| {
            pod.metadata.managed_fields = None;
            if let Some(annotations) = &mut pod.metadata.annotations {
                annotations.retain(|name, _| LOOKED_AT.contains(&&**name));
            }
        })
        .reflect(store)
}

/// A namespace that fails is tried again later and later, and does not slow down the others.
fn watched<K>(
    client: &Client,
    namespaces: &[String],
    config: &watcher::Config,
    store: &Writer<K>,
) -> BoxStream<'static, Event<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
{
    let watch = |api| relisting(api, config.clone()).default_backoff().boxed();
    if namespaces.is_empty() {
        return watch(Api::all(client.clone()));
    }
    let watches = namespaces.iter().map(|name| (name.clone(), watch(Api::namespaced(client.clone(), name)))).collect();
    merged(watches, store.as_reader()).boxed()
}

/// Whether the operator may not list or watch.
#[must_use]
pub fn is_forbidden(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status)) => status.is_forbidden(),
        _ => false,
    }
}

/// A watcher that also starts over when a watch cannot be started because its version is too old (410): kube-runtime
/// relists on a 410 within a watch, but asks for ever from the same version when the start is refused.
fn relisting<K>(api: Api<K>, config: watcher::Config) -> impl Stream<Item = Event<K>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let start = move || watcher(api.clone(), config.clone()).boxed();
    stream::unfold((start(), start), |(mut events, start)| async move {
        let event = events.next().await?;
        if let Err(watcher::Error::WatchStartFailed(kube::Error::Api(status))) = &event
            && status.code == 410
        {
            events = start();
        }
        Some((event, (events, start)))
    })
}
