//! The two watches everything is fed from: runs and the pods made for them.

use std::fmt::Debug;

use futures::{Stream, StreamExt, stream};
use kube::{Api, Client, Resource};
use kube_runtime::watcher::{self, watcher};
use kube_runtime::{WatchStreamExt, reflector};
use serde::de::DeserializeOwned;

use super::GuardedRun;
use crate::names;
use crate::plan::PodFacts;

/// What a watch yields.
pub type Event<K> = watcher::Result<watcher::Event<K>>;

/// All runs, kept in `store`.
pub fn runs(
    client: &Client,
    store: reflector::store::Writer<GuardedRun>,
) -> impl Stream<Item = Event<GuardedRun>> + Send + 'static {
    let stream = relisting(Api::all(client.clone()), watcher::Config::default()).default_backoff();
    stream.modify(|run: &mut GuardedRun| run.meta_mut().managed_fields = None).reflect(store)
}

/// All pods we made, kept in `store` without what we never look at.
pub fn pods(
    client: &Client,
    store: reflector::store::Writer<PodFacts>,
) -> impl Stream<Item = Event<PodFacts>> + Send + 'static {
    let ours = watcher::Config::default().labels(names::RUN_UID_LABEL);
    let stream = relisting(Api::all(client.clone()), ours).default_backoff();
    stream
        .modify(|pod: &mut PodFacts| {
            pod.metadata.managed_fields = None;
            if let Some(annotations) = &mut pod.metadata.annotations {
                annotations.retain(|name, _| name == names::PINS_ANNOTATION);
            }
        })
        .reflect(store)
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
