//! The operator: two watches feed one queue; a reconcile is observe -> plan -> carry out; a second loop lets go of pods
//! whose run is gone.

mod backoff;
mod health;
mod reconcile;
mod release;
mod settings;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc;
use futures::{FutureExt, Stream, StreamExt, future};
use kube::ResourceExt;
use kube_runtime::controller::{self, applier};
use kube_runtime::reflector::{self, ObjectRef};
use kube_runtime::watcher;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{debug, error, info, warn};

use crate::cluster::{self, Cluster, GuardedRun, PodTriggers, RunTriggers};
use crate::plan::PodFacts;
use reconcile::Context;

/// How many runs are looked at side by side.
const CONCURRENCY: u16 = 32;
/// How long reconciles under way may take after we were asked to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(20);

/// How to run the operator.
#[derive(Clone, Debug)]
pub struct Options {
    /// The settings file.
    pub settings: PathBuf,
    /// Where `/healthz` and `/readyz` are served.
    pub listen: SocketAddr,
    /// Our own image, for the helper container of every pod.
    pub helper_image: String,
    /// Name of this operator's pod, for events.
    pub instance: Option<String>,
}

/// Why the operator ended.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start (settings, API server, port) or a watch ends for good.
pub async fn run(options: Options) -> Result<(), Failure> {
    let mut settings = settings::load(&options.settings, &options.helper_image)?;
    let client = cluster::connect().await?;
    settings.image_volumes &= cluster::has_image_volumes(&client).await?;
    let (runs, runs_writer) = reflector::store();
    let (pods, pods_writer) = reflector::store();
    let cluster = Arc::new(Cluster::new(client.clone(), runs.clone(), pods.clone(), options.instance)?);

    let health = health::serve(options.listen, runs.clone(), pods.clone()).await?;
    let (letting_go, releases) = release::queue(Arc::clone(&cluster), runs.clone(), pods.clone());
    let (triggers, triggered) = mpsc::unbounded();
    // The watches run on their own: the caches stay current also while every reconcile is busy.
    let run_watch =
        follow_runs(cluster::runs(&client, runs_writer), triggers.clone(), letting_go.clone(), Arc::clone(&cluster));
    let pod_watch = follow_pods(cluster::pods(&client, pods_writer), triggers, letting_go);

    let stop = stopped()?.shared();
    let all_runs = runs.clone();
    let triggered = async move {
        // A pod not seen yet is not a pod that is gone: no plan before the cache is complete.
        // Nor is a run that others wait for.
        let _ = (pods.wait_until_ready().await, all_runs.wait_until_ready().await); // fail only when we are stopping
        triggered
    };
    let reconciles = applier(
        |run, context| reconcile::reconcile(run, context).boxed(),
        reconcile::on_error,
        Arc::new(Context::new(cluster, settings, CONCURRENCY)),
        runs,
        triggered.flatten_stream().map(Ok::<_, Infallible>).take_until(stop.clone()),
        controller::Config::default().concurrency(CONCURRENCY),
    )
    .for_each(|result| {
        match result {
            Ok((run, _)) => debug!(%run, "looked at"),
            Err(controller::Error::ObjectNotFound(run)) => debug!(%run, "is gone"),
            Err(controller::Error::ReconcilerFailed(error, run)) => warn!(%run, %error, "will be tried again"),
            Err(error) => error!(%error, "the queue failed"),
        }
        future::ready(())
    });
    let too_long = async {
        stop.await;
        info!("asked to stop: finishing what is under way");
        tokio::time::sleep(SHUTDOWN_GRACE).await;
    };
    info!(version = env!("CARGO_PKG_VERSION"), "started");
    tokio::select! {
        () = reconciles => info!("stopped"),
        () = too_long => warn!("stopped with work under way"),
        () = run_watch => return Err("the watch of BundleRuns ended".into()),
        () = pod_watch => return Err("the watch of pods ended".into()),
        () = releases => return Err("the release loop ended".into()),
        result = health => result?,
    }
    Ok(())
}

type Triggers = mpsc::UnboundedSender<ObjectRef<GuardedRun>>;

/// Run events: what is new is reconciled, what is gone lets its pods go.
async fn follow_runs(
    events: impl Stream<Item = cluster::Event<GuardedRun>>,
    triggers: Triggers,
    letting_go: release::Queue,
    cluster: Arc<Cluster>,
) {
    let mut which = RunTriggers::default();
    let mut events = pin!(events);
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                warn!(%error, "the watch of BundleRuns failed; it starts again");
                continue;
            }
        };
        if let watcher::Event::Delete(run) = &event
            && let Some(uid) = run.uid()
        {
            cluster.forget(&uid);
            letting_go.run_is_gone(uid);
        }
        if matches!(event, watcher::Event::InitDone) {
            letting_go.runs_listed();
        }
        for run in which.on(&event) {
            let _ = triggers.unbounded_send(run); // fails only when the operator is stopping
        }
    }
}

/// Pod events: those that change what a plan depends on trigger their run.
async fn follow_pods(
    events: impl Stream<Item = cluster::Event<PodFacts>>,
    triggers: Triggers,
    letting_go: release::Queue,
) {
    let mut which = PodTriggers::default();
    let mut events = pin!(events);
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                warn!(%error, "the watch of pods failed; it starts again");
                continue;
            }
        };
        if let watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) = &event {
            letting_go.pod_changed(pod);
        }
        for run in which.on(&event) {
            let _ = triggers.unbounded_send(run); // fails only when the operator is stopping
        }
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
