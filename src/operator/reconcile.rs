//! One run: observe -> plan -> carry out.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube_runtime::controller::Action;
use tracing::{Instrument, info_span, warn};

use crate::api::{BundleRun, BundleRunStatus, Phase};
use crate::cluster::{self, Answers, Cluster, GuardedRun, Snapshot, StepResult};
use crate::operator::backoff::Backoff;
use crate::operator::observability::metrics::{Metrics, ReconcileResult};
use crate::operator::places::Places;
use crate::plan::{Event, EventType, Plan, ProgressSeen, Settings, Step, plan};

/// A run in an active phase is looked at this often even if nothing happens: costs no request, mends a missed event.
const RESYNC: Duration = Duration::from_mins(5);
/// New pods wait this long for a turn when many are being made.
const TURN: Duration = Duration::from_millis(200);
/// While a Deployment without a lease is rolled out, the operator before this one acts for at most so long.
const ROLLOUT: SignedDuration = SignedDuration::from_mins(2);
/// No attempt begins, ends and is recorded within this.
const JUST_MADE: SignedDuration = SignedDuration::from_secs(2);
/// When facts change while they are looked at, they are looked at again after this.
const CATCH_UP: Duration = Duration::from_millis(500);
/// That a run is running is written later while there is much to do, but not later than this after its command began.
const RUNNING_WRITE_LATEST: SignedDuration = SignedDuration::from_secs(10);
/// A plan is followed by at most this many others in one reconcile: refusals are new facts, but must come to an end.
const PLANS_MAX: u32 = 3;

/// What every reconcile uses.
pub(in crate::operator) struct Context {
    cluster: Arc<Cluster>,
    settings: Settings,
    metrics: Arc<Metrics>,
    /// New pods take at most half of all, so that a burst of them never delays a record.
    creating: Places,
    /// Above so many reconciles under way there is much to do.
    busy_above: u16,
    backoff: Arc<Backoff>,
    /// Only one acts at a time.
    has_lease: bool,
}

impl Context {
    pub(in crate::operator) fn new(
        cluster: Arc<Cluster>,
        settings: Settings,
        metrics: Arc<Metrics>,
        backoff: Arc<Backoff>,
        has_lease: bool,
        concurrency: u16,
    ) -> Self {
        let creating = Places::new(usize::from(concurrency / 2));
        Self { cluster, settings, metrics, creating, busy_above: concurrency / 4, backoff, has_lease }
    }

    /// For how long a status need not be written. In a burst of short runs most have ended by the time their turn comes: that
    /// they ran is then in the record, and the API server has one write less for each.
    fn can_wait(&self, before: Option<&BundleRunStatus>, status: &BundleRunStatus) -> Option<Duration> {
        let was_told = before.and_then(|status| status.phase) == Some(Phase::Running);
        let is_busy = self.metrics.reconciles_under_way() > self.busy_above.into();
        if status.phase != Some(Phase::Running) || was_told || !is_busy {
            return None;
        }
        // By the node's clock, which may be ahead.
        let age = Timestamp::now().duration_since(status.start_time.as_ref()?.0);
        let is_new = (SignedDuration::ZERO..RUNNING_WRITE_LATEST).contains(&age);
        is_new.then(|| (RUNNING_WRITE_LATEST - age).try_into().unwrap_or_default())
    }

    /// Another operator may have made and ended the attempt whose pod is to be made now: the watch of pods may be ahead of the
    /// watch of runs. Of a run that has just been made nobody else has.
    fn may_be_behind(&self, seen: &Snapshot) -> bool {
        let now = Timestamp::now();
        let age = seen.run.metadata.creation_timestamp.as_ref().map(|made| now.duration_since(made.0));
        let is_new = age.is_some_and(|age| (SignedDuration::ZERO..JUST_MADE).contains(&age));
        !bug!("the cache is believed")
            && !self.has_lease
            && !is_new
            && now.duration_since(seen.acting_since()) < ROLLOUT
    }
}

/// Why a reconcile did not get through.
#[derive(Debug, thiserror::Error)]
pub(in crate::operator) enum Error {
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// What is on the run says so, too, while it is not over.
    #[error("the API server does not let the pod be changed or deleted: {0}")]
    PodKept(String),
    /// A defect of ours; it stalls this run, not the others.
    #[error("a defect in the operator: {0}")]
    Panic(String),
}

/// Reconciles one run, and measures it.
pub(in crate::operator) async fn reconcile(run: Arc<GuardedRun>, context: Arc<Context>) -> Result<Action, Error> {
    let span = info_span!("run", namespace = run.namespace(), name = run.name_any());
    context.metrics.taken(&run.name_any(), run.namespace().as_deref());
    context.metrics.reconcile_begun();
    let begun = Instant::now();
    let result = Box::pin(reconcile_guarded(&run, &context)).instrument(span).await;
    let how = match &result {
        Ok(action) if *action == Action::await_change() => ReconcileResult::Done,
        Ok(_) => ReconcileResult::Again,
        Err(_) => ReconcileResult::Failed,
    };
    context.metrics.reconciled(how, begun.elapsed());
    result
}

async fn reconcile_guarded(run: &GuardedRun, context: &Context) -> Result<Action, Error> {
    let run = match &run.0 {
        Ok(run) => run,
        Err(invalid) => {
            warn!(error = invalid.error, "this BundleRun cannot be decoded: it is left alone until it changes");
            let run = BundleRun { metadata: invalid.metadata.clone(), ..BundleRun::default() };
            context.cluster.carry_out(&run, Step::Event(undecodable(&invalid.error))).await?;
            return Ok(Action::await_change());
        }
    };
    let looked = contain_panic(reconcile_valid(run, context).boxed()).await?;
    Ok(next(looked, run.metadata.uid.as_deref().unwrap_or_default(), &context.backoff))
}

/// How a reconcile got through.
#[derive(Debug, PartialEq)]
enum Looked {
    /// All is done.
    Through(Action),
    /// Somebody else changed the run, and the cache has not taken it in.
    Stale,
}

/// A cache mostly catches up in a moment. One that is stuck must not make every run of it ask again and again, all of
/// them in vain.
fn next(looked: Looked, uid: &str, backoff: &Backoff) -> Action {
    match looked {
        Looked::Through(action) => {
            backoff.reset(uid);
            action
        }
        Looked::Stale => Action::requeue(backoff.next(uid) / 2),
    }
}

/// Its status is not touched: a newer version of the operator may understand it, and be at work on it.
fn undecodable(error: &str) -> Event {
    Event {
        type_: EventType::Warning,
        reason: "Undecodable".into(),
        note: format!(
            "this version of the operator cannot read the object and leaves it alone: {error}; it was stored under \
             another definition of BundleRun: apply it again under another name"
        ),
    }
}

/// Later and later, per run.
#[allow(clippy::needless_pass_by_value)] // the signature is the controller's
pub(in crate::operator) fn on_error(run: Arc<GuardedRun>, _: &Error, context: Arc<Context>) -> Action {
    Action::requeue(context.backoff.next(run.uid().as_deref().unwrap_or_default()))
}

async fn reconcile_valid(run: &BundleRun, context: &Context) -> Result<Looked, Error> {
    let mut answers = Answers::default();
    for _ in 0..PLANS_MAX {
        let seen = context.cluster.observe(run).await?;
        let plan = plan(&seen.observed(&answers), &context.settings, Timestamp::now());
        if let Some(looked) = carry_out(plan, &seen, context, &mut answers).await? {
            return Ok(looked);
        }
    }
    Ok(Looked::Through(Action::requeue(CATCH_UP)))
}

/// What to do when all is done; none: an answer calls for another plan.
async fn carry_out(
    plan: Plan,
    seen: &Snapshot,
    context: &Context,
    answers: &mut Answers,
) -> Result<Option<Looked>, Error> {
    let mut over = seen.run.is_over();
    let mut steps = plan.steps.into_iter();
    let mut is_on_the_object = false;
    let (mut kept, mut is_deleted) = (None, false);
    while let Some(step) = steps.next() {
        let deletes = matches!(step, Step::DeletePod { .. });
        let is_of_the_end = deletes || matches!(step, Step::OrderStop { .. });
        let written = match &step {
            Step::WriteStatus(status) => Some(status.clone()),
            _ => None,
        };
        let _place = match &step {
            Step::CreatePod(_) if context.may_be_behind(seen) && !context.cluster.is_current(&seen.run).await? => {
                return Ok(Some(Looked::Stale));
            }
            Step::CreatePod(pod) => {
                match context.creating.take(pod.metadata.namespace.as_deref().unwrap_or_default()) {
                    Some(place) => Some(place),
                    None => return Ok(Some(Looked::Through(Action::requeue(TURN)))),
                }
            }
            Step::WriteStatus(status) => {
                if let Some(wait) = context.can_wait(seen.run.status.as_ref(), status) {
                    return Ok(Some(Looked::Through(Action::requeue(wait))));
                }
                over = status.phase.is_some_and(Phase::is_terminal);
                None
            }
            _ => None,
        };
        let result = context.cluster.carry_out(&seen.run, step).await;
        if is_on_the_object && matches!(result, Err(_) | Ok(StepResult::Stale)) {
            // The next plan finds it on the object, and tells nobody of it.
            for event in steps.filter(|step| matches!(step, Step::Event(_))) {
                context.cluster.carry_out(&seen.run, event).await?;
            }
            return result.map(|_| Some(Looked::Stale)).map_err(Into::into);
        }
        match result? {
            StepResult::Done => {
                is_deleted |= deletes;
                if let Some(status) = written {
                    is_on_the_object = true;
                    let namespace = seen.run.metadata.namespace.as_deref().unwrap_or_default();
                    let gpus = seen.run.spec.resources.gpus;
                    context.metrics.status_written(namespace, gpus, seen.run.status.as_ref(), &status);
                }
            }
            StepResult::Refused(refusal) => {
                answers.refusal = Some(refusal);
                return Ok(None);
            }
            // The finalizer of an earlier attempt's pod, and what a helper is told, are in nobody's way.
            StepResult::Kept(pod) => {
                kept = kept.filter(|(_, is_of_the_end)| *is_of_the_end).or(Some((pod, is_of_the_end)));
            }
            StepResult::Progress(progress) => {
                answers.progress = ProgressSeen::Answered(progress.map(|progress| *progress));
                return Ok(None);
            }
            StepResult::Later(wait) => return Ok(Some(Looked::Through(Action::requeue(wait)))),
            StepResult::PullSecrets(names) => {
                answers.pull_secrets = Some(names);
                return Ok(None);
            }
            StepResult::Events(events) => {
                answers.pod_events = Some(events);
                return Ok(None);
            }
            StepResult::Stale => return Ok(Some(Looked::Stale)),
            StepResult::Gone => return Ok(Some(Looked::Through(Action::await_change()))),
        }
    }
    if let Some((kept, is_of_the_end)) = kept {
        let is_news = answers.pod_kept.as_ref().is_none_or(|known| kept.is_deletion && !known.is_deletion);
        if !(is_news && is_of_the_end && !over) {
            return Err(Error::PodKept(kept.words));
        }
        answers.pod_kept = Some(kept);
        return Ok(None);
    }
    if let Some(kept) = answers.pod_kept.as_ref().filter(|_| !is_deleted) {
        return Err(Error::PodKept(kept.words.clone()));
    }
    let resync = (!over).then_some(RESYNC);
    let next = plan.next.into_iter().chain(resync).min();
    Ok(Some(Looked::Through(next.map_or_else(Action::await_change, Action::requeue))))
}

/// A panic becomes an error of this run: kube-runtime would end the whole controller.
async fn contain_panic<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| Err(Error::Panic(words(panic.as_ref()))))
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;

    use http::{Method, Request, Response};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use kube::Client;
    use kube::client::Body;
    use kube_runtime::{reflector, watcher};
    use serde_json::json;

    use super::*;
    use crate::cluster::Nodes;
    use crate::operator::settings;

    /// With empty caches.
    fn context(client: Client, has_lease: bool, concurrency: u16) -> Context {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (runs, _) = reflector::store();
        let (pods, mut pods_writer) = reflector::store();
        for event in [watcher::Event::Init, watcher::Event::InitDone] {
            pods_writer.apply_watcher_event(&event);
        }
        let cluster = Arc::new(Cluster::new(client, runs, pods, Nodes::default(), None).unwrap());
        cluster.assume_no_skew();
        let settings = settings::parse("images: {cpu: a, gpu: b}", "us").unwrap();
        Context::new(cluster, settings, Arc::new(Metrics::new()), Arc::default(), has_lease, concurrency)
    }

    #[tokio::test]
    async fn only_that_a_run_is_running_is_written_later_and_only_while_there_is_much_to_do() {
        let nobody = |_: Request<Body>| async { Err::<Response<Body>, _>(std::io::Error::other("nobody is there")) };
        let context = context(Client::new(tower::service_fn(nobody), "n"), true, 32);
        let status = |phase, began: i64| BundleRunStatus {
            phase: Some(phase),
            start_time: Some(Time(Timestamp::now() - SignedDuration::from_secs(began))),
            ..BundleRunStatus::default()
        };
        let (pending, running) = (BundleRunStatus::default(), status(Phase::Running, 3));
        assert_eq!(context.can_wait(Some(&pending), &running), None, "there is little to do");
        for _ in 0..9 {
            context.metrics.reconcile_begun();
        }
        for before in [Some(&pending), None] {
            let wait = context.can_wait(before, &running).unwrap();
            assert!(wait <= Duration::from_secs(7), "ten seconds from its begin: {wait:?}");
        }
        assert_eq!(
            context.can_wait(Some(&pending), &status(Phase::Running, 11)),
            None,
            "it has waited for long enough"
        );
        assert_eq!(context.can_wait(Some(&pending), &status(Phase::Running, -3600)), None, "the node's clock is ahead");
        assert_eq!(context.can_wait(Some(&running), &running), None, "it is news of a run that is known to be running");
        for phase in Phase::ALL.into_iter().filter(|phase| *phase != Phase::Running) {
            assert_eq!(context.can_wait(Some(&pending), &status(phase, 3)), None, "{phase:?}");
        }
        context.metrics.reconciled(ReconcileResult::Done, Duration::ZERO);
        assert_eq!(context.can_wait(Some(&pending), &running), None);
    }

    /// The cache has a run as it was before its attempt, whose pod is gone: the operator before this one has recorded its end,
    /// and the watch of runs is behind.
    #[tokio::test]
    async fn during_a_rollout_without_a_lease_no_attempt_begins_that_another_operator_has_ended() {
        for (has_lease, expected) in [(false, vec![Method::GET]), (true, vec![Method::POST])] {
            let asked = Arc::new(Mutex::new(vec![]));
            let answers = Arc::clone(&asked);
            let answer = move |request: Request<Body>| {
                answers.lock().unwrap().push(request.method().clone());
                let now = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                    "metadata": {"name": "r", "namespace": "n", "uid": "u", "resourceVersion": "9"}});
                async move { Ok::<_, Infallible>(Response::new(Body::from(now.to_string().into_bytes()))) }
            };
            let context = Arc::new(context(Client::new(tower::service_fn(answer), "n"), has_lease, 2));
            let cached = json!({"apiVersion": "bundlerun.dev/v1alpha1", "kind": "BundleRun",
                "metadata": {"name": "r", "namespace": "n", "uid": "u", "generation": 1, "resourceVersion": "5",
                    "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"command": "true"}});
            let cached: GuardedRun = serde_json::from_value(cached).unwrap();
            let _ = reconcile(Arc::new(cached), context).await;
            let asked = asked.lock().unwrap().clone();
            assert_eq!(asked, expected, "has_lease: {has_lease}");
        }
    }

    #[tokio::test]
    async fn a_panic_is_an_error_of_one_run() {
        let result = contain_panic::<()>(async { panic!("index out of range") }).await;
        assert_eq!(result.unwrap_err().to_string(), "a defect in the operator: index out of range");
    }

    /// A watch that hangs is noticed after five minutes at the latest, and until then a run whose object somebody else
    /// changed is refused every write.
    #[test]
    fn a_cache_that_is_stuck_makes_no_storm_of_conflicts() {
        let backoff = Backoff::default();
        let wait = |looked| {
            let action = next(looked, "u", &backoff);
            (0..10_000).map(|tenths| Duration::from_millis(tenths * 100)).find(|wait| action == Action::requeue(*wait))
        };
        assert_eq!(wait(Looked::Stale), Some(Duration::from_millis(500)), "mostly it catches up in a moment");
        let (mut waited, mut writes) = (Duration::from_millis(500), 1);
        while waited < Duration::from_hours(1) {
            waited += wait(Looked::Stale).unwrap();
            writes += 1;
        }
        assert!((60..=70).contains(&writes), "{writes} writes in an hour");
        assert_eq!(next(Looked::Through(Action::await_change()), "u", &backoff), Action::await_change());
        assert_eq!(wait(Looked::Stale), Some(Duration::from_millis(500)));
    }
}
