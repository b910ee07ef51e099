//! The operator: watches of runs, pods and nodes feed one queue; a reconcile is observe -> plan -> carry out; a second loop handles pods
//! that no plan looks at. Of several replicas the one that holds the lease does so; the others keep their caches current.

mod backoff;
mod commands;
mod leader;
mod observability;
mod orphans;
mod places;
mod queue;
mod reconcile;
mod settings;
mod take_over;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt, future, stream};
use kube::Client;
use kube_runtime::controller::{self, applier};
use kube_runtime::reflector::{self, ObjectRef, Store};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};
use tracing::{debug, error, info, warn};

use crate::cluster::{self, Cluster, GuardedRun, Leases, Nodes, WriteGuard};
use crate::names;
use backoff::Backoff;
use leader::Leadership;
use observability::http::Health;
use observability::metrics::Metrics;
use queue::Triggers;
use reconcile::Context;
use take_over::TakeOver;

pub use commands::{SmokeTest, Uninstall, check_settings, smoke_test, uninstall};
pub use observability::{Log, LogFormat, Metric, metrics, start_log};

/// How many runs are looked at side by side.
const CONCURRENCY: u16 = 32;
/// How long reconciles under way may take after we were asked to stop. Mostly they take milliseconds. A request that takes
/// longer, because a webhook is slow, must not keep the next leader waiting: whether it was carried out, that one finds out.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// How to run the operator.
#[derive(Clone, Debug)]
pub struct Options {
    /// The settings file.
    pub settings: PathBuf,
    /// Where `/healthz`, `/readyz` and `/metrics` are served.
    pub listen: SocketAddr,
    /// Our own image, for the helper container of every pod.
    pub helper_image: String,
    /// Name of this operator's pod, for events.
    pub instance: Option<String>,
    /// Namespace of this operator's pod, for the lease; none: the one of its service account.
    pub namespace: Option<String>,
    /// Act only while holding the lease: for several replicas.
    pub leader_election: bool,
    /// Look after the runs of these namespaces alone; none named: of all.
    pub namespaces: Vec<String>,
    /// What goes wrong between it and the API server, in tests.
    #[cfg(feature = "faults")]
    pub faults: cluster::Faults,
}

/// Why the operator ended.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start (settings, API server, port), a watch ends for good, or the lease is lost.
pub async fn run(options: Options) -> Result<(), Failure> {
    let mut settings = settings::load(&options.settings, &options.helper_image)?;
    let metrics = Arc::new(Metrics::new());
    let leadership = if options.leader_election { Leadership::not_yet() } else { Leadership::always() };
    let client = cluster::connect(&write_guard(&options, &metrics, &leadership)).await?;
    let abilities = cluster::abilities(&client).await?;
    settings.image_volumes &= abilities.image_volumes;
    settings.pod_resources &= abilities.pod_resources;
    let (runs, runs_writer) = reflector::store();
    let (pods, pods_writer) = reflector::store();
    let nodes = Nodes::default();
    let instance = options.instance.clone();
    let cluster = Arc::new(Cluster::new(client.clone(), runs.clone(), pods.clone(), nodes.clone(), instance)?);

    let health = Health {
        runs: runs.clone(),
        pods: pods.clone(),
        metrics: Arc::clone(&metrics),
        leadership: leadership.clone(),
    };
    let health = health.serve(options.listen).await?;
    let (orphans, orphan_loop) = orphans::queue(Arc::clone(&cluster), runs.clone(), pods.clone());
    let backoff = Arc::new(Backoff::default());
    let (triggers, triggered) = queue::queue(Arc::clone(&metrics));
    // The watches run on their own: the caches stay current also while every reconcile is busy, or while we stand by.
    let run_watch = queue::follow_runs(
        cluster::runs(&client, &options.namespaces, runs_writer),
        triggers.clone(),
        orphans.clone(),
        Arc::clone(&cluster),
        Arc::clone(&backoff),
    );
    let pod_watch =
        queue::follow_pods(cluster::pods(&client, &options.namespaces, pods_writer), triggers.clone(), orphans.clone());
    // The questions are POSTs, and who does not lead yet asks them, too.
    let asks = match options.namespaces.as_slice() {
        [] => None,
        _ => Some(unguarded(&options, &metrics).await?),
    };
    let definition_watch =
        follow_definition(asks.clone(), client.clone(), runs.clone(), triggers.clone(), Arc::clone(&cluster));
    let node_watch = follow_nodes(asks, client.clone(), nodes.clone(), triggers.clone(), Arc::clone(&cluster));

    let told = tell_defaults(
        client.clone(),
        own_namespace(&options, &client),
        settings::for_users(&settings),
        leadership.clone(),
    );
    tokio::spawn(told);

    // Each is a task of its own, so that none waits for another's work: the lease is renewed while a list of very many runs is
    // read.
    let (work_is_done, work_done) = oneshot::channel();
    let mut lease = JoinSet::new();
    lease.spawn(stand(options.clone(), leadership.clone(), Arc::clone(&metrics), work_done));
    let mut loops = JoinSet::new();
    loops.spawn(health);
    loops.spawn(ends_never("the watch of BundleRuns", run_watch));
    loops.spawn(ends_never("the watch of pods", pod_watch));
    loops.spawn(ends_never("the watch of the definition", definition_watch));
    loops.spawn(ends_never("the watch of nodes", node_watch));
    loops.spawn(ends_never("the loop over pods without a plan", orphan_loop));

    let stop = stopped()?.shared();
    let take_over = TakeOver {
        cluster: Arc::clone(&cluster),
        runs: runs.clone(),
        pods,
        nodes,
        triggers: triggers.clone(),
        orphans,
    };
    let triggered = async {
        let all = take_over.all_runs(&leadership, &options.namespaces).await;
        stream::iter(all).inspect(move |run| triggers.count(run)).chain(triggered)
    };
    let counted = Arc::clone(&metrics);
    let reconciles = applier(
        |run, context| reconcile::reconcile(run, context).boxed(),
        reconcile::on_error,
        Arc::new(Context::new(cluster, settings, metrics, backoff, options.leader_election, CONCURRENCY)),
        runs,
        triggered.flatten_stream().map(Ok::<_, Infallible>).take_until(stop.clone()),
        controller::Config::default().concurrency(CONCURRENCY),
    )
    .for_each(|result| {
        note(result, &counted);
        future::ready(())
    });
    info!(version = env!("CARGO_PKG_VERSION"), namespaces = ?options.namespaces, "started");
    tokio::select! {
        () = reconciles => info!("stopped"),
        () = too_long(stop) => warn!("stopped with work under way"),
        ended = loops.join_next() => of_task(ended)?,
        ended = lease.join_next() => of_task(ended)?,
    }
    loops.shutdown().await;
    // Nothing of this process acts any more: the next one may.
    let _ = work_is_done.send(()); // fails only when the lease is not kept
    of_task(lease.join_next().await)
}

/// Logs how a reconcile ended.
fn note(
    result: Result<(ObjectRef<GuardedRun>, controller::Action), controller::Error<reconcile::Error, Infallible>>,
    metrics: &Metrics,
) {
    match result {
        Ok((run, _)) => debug!(%run, "reconciled"),
        Err(controller::Error::ObjectNotFound(run)) => {
            metrics.taken(&run.name, run.namespace.as_deref());
            debug!(%run, "is deleted");
        }
        Err(controller::Error::ReconcilerFailed(error, run)) => {
            warn!(%run, %error, "reconcile failed; it is retried");
        }
        Err(error) => error!(%error, "the queue failed"),
    }
}

/// A loop whose end is an error.
async fn ends_never(what: &'static str, work: impl Future<Output = ()>) -> Result<(), Failure> {
    work.await;
    Err(format!("{what} ended").into())
}

/// What a task ended with; none: it has ended before.
fn of_task(ended: Option<Result<Result<(), Failure>, JoinError>>) -> Result<(), Failure> {
    match ended {
        None => Ok(()),
        Some(Ok(result)) => result,
        Some(Err(error)) => Err(error.into()),
    }
}

/// Resolves when a cache has its first list. Of those who wait by kube-runtime's own means only the last is woken, and a probe
/// that just looks counts as one (kube-runtime 5, `DelayedInit`).
async fn filled<K>(cache: &Store<K>)
where
    K: kube::Resource + Clone + 'static,
    K::DynamicType: Eq + std::hash::Hash + Clone,
{
    const LOOK: Duration = Duration::from_millis(50);
    while cache.wait_until_ready().now_or_never().is_none() {
        tokio::time::sleep(LOOK).await;
    }
}

/// Asks the API server until it answers.
async fn answered<T, F>(what: &str, ask: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, cluster::Error>>,
{
    let backoff = Backoff::default();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => {
                let wait = backoff.next("");
                warn!(%error, retry_in = ?wait, "cannot {what}");
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// Follows the installed definition, if that is allowed. An operator of some namespaces asks first, as for nodes.
async fn follow_definition(
    asks: Option<Client>,
    client: Client,
    runs: Store<GuardedRun>,
    triggers: Triggers,
    cluster: Arc<Cluster>,
) {
    let what = "tell whether the definition of BundleRun may be read";
    if let Some(asks) = &asks
        && !answered(what, || cluster::may_follow_definition(asks)).await
    {
        info!("{}", queue::WITHOUT_DEFINITION);
        cluster.assume_no_skew();
        return future::pending().await;
    }
    queue::follow_definition(cluster::definition(&client), runs, triggers, cluster).await;
}

/// Follows the nodes, if that is allowed; nothing of it holds up a run. An operator of some namespaces asks first: it has no
/// right outside of them, unless somebody gave it.
async fn follow_nodes(asks: Option<Client>, client: Client, nodes: Nodes, triggers: Triggers, cluster: Arc<Cluster>) {
    if let Some(asks) = &asks
        && !answered("tell whether nodes may be read", || cluster::may_follow_nodes(asks)).await
    {
        info!("{}", queue::WITHOUT_NODES);
        nodes.give_up();
        return future::pending().await;
    }
    queue::follow_nodes(cluster::nodes(&client), nodes, triggers, cluster).await;
}

/// Tells users what runs get that say nothing: the settings are not theirs to read.
async fn tell_defaults(client: Client, namespace: String, text: String, leadership: Leadership) {
    leadership.begun().await;
    if !answered("tell the defaults of runs", || cluster::tell_defaults(&client, &namespace, &text)).await {
        info!("the defaults of runs may not be written to {namespace}/{}", names::DEFAULTS);
    }
}

/// Where the operator is.
fn own_namespace(options: &Options, client: &Client) -> String {
    options.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned())
}

/// Waits for as long as what is under way may take after we were asked to stop.
async fn too_long(stop: impl Future<Output = ()>) {
    stop.await;
    info!("asked to stop: finishing what is under way");
    tokio::time::sleep(SHUTDOWN_GRACE).await;
}

/// Keeps the lease, where there is one, until the work is done.
async fn stand(
    options: Options,
    leadership: Leadership,
    metrics: Arc<Metrics>,
    work_done: oneshot::Receiver<()>,
) -> Result<(), Failure> {
    let work_done = async {
        let _ = work_done.await; // it is done also when its sender is gone
    };
    if !options.leader_election {
        work_done.await;
        return Ok(());
    }
    // Who does not lead yet must be able to write this one object.
    let client = unguarded(&options, &metrics).await?;
    let namespace = own_namespace(&options, &client);
    let pod = options.instance.as_deref().unwrap_or(names::OPERATOR);
    leader::keep(Leases::new(client, &namespace, names::LEASE), leadership, pod, work_done).await
}

/// A client that writes whoever leads.
async fn unguarded(options: &Options, metrics: &Arc<Metrics>) -> Result<Client, Failure> {
    cluster::connect(&write_guard(options, metrics, &Leadership::always())).await
}

#[cfg_attr(not(feature = "faults"), allow(unused_variables))]
fn write_guard(options: &Options, metrics: &Arc<Metrics>, leadership: &Leadership) -> WriteGuard {
    let (metrics, leadership) = (Arc::clone(metrics), leadership.clone());
    WriteGuard {
        may_write: Arc::new(move || leadership.is_held()),
        answered: Arc::new(move |method, status| metrics.answered(method, status)),
        #[cfg(feature = "faults")]
        faults: options.faults.clone(),
    }
}

/// Resolves at SIGTERM or SIGINT.
fn stopped() -> Result<impl Future<Output = ()> + Send, Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
        }
    })
}

#[cfg(test)]
mod tests {
    use kube_runtime::watcher;

    use super::*;
    use crate::plan::PodFacts;

    #[tokio::test]
    async fn all_who_wait_for_a_cache_go_on_when_it_is_filled() {
        let (cache, mut writer) = reflector::store::<PodFacts>();
        let mut waiting = JoinSet::new();
        for _ in 0..3 {
            let cache = cache.clone();
            waiting.spawn(async move { filled(&cache).await });
        }
        tokio::task::yield_now().await;
        assert!(cache.wait_until_ready().now_or_never().is_none(), "a probe looks");
        for event in [watcher::Event::Init, watcher::Event::InitDone] {
            writer.apply_watcher_event(&event);
        }
        tokio::time::timeout(Duration::from_mins(1), waiting.join_all()).await.unwrap();
    }
}
