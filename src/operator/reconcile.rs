//! One run: observe -> plan -> carry out.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube_runtime::controller::Action;
use tracing::{Instrument, info_span, warn};

use crate::api::{BundleRun, Phase};
use crate::cluster::{self, Answers, Cluster, GuardedRun, Snapshot, StepResult};
use crate::operator::backoff::Backoff;
use crate::operator::observability::metrics::{Metrics, ReconcileResult};
use crate::operator::places::Places;
use crate::plan::{Event, EventType, Plan, ProgressSeen, Settings, Step, plan};

/// A run in an active phase is looked at this often even if nothing happens: costs no request, mends a missed event.
const RESYNC: Duration = Duration::from_mins(5);
/// New pods wait this long for a turn when many are being made.
const TURN: Duration = Duration::from_millis(200);
/// When facts change while they are looked at, they are looked at again after this.
const CATCH_UP: Duration = Duration::from_millis(500);
/// A plan is followed by at most this many others in one reconcile: refusals are new facts, but must come to an end.
const PLANS_MAX: u32 = 3;

/// What every reconcile uses.
pub(in crate::operator) struct Context {
    cluster: Arc<Cluster>,
    settings: Settings,
    metrics: Arc<Metrics>,
    /// New pods take at most half of all, so that a burst of them never delays a record.
    creating: Places,
    backoff: Arc<Backoff>,
}

impl Context {
    pub(in crate::operator) fn new(
        cluster: Arc<Cluster>,
        settings: Settings,
        metrics: Arc<Metrics>,
        backoff: Arc<Backoff>,
        concurrency: u16,
    ) -> Self {
        let creating = Places::new(usize::from(concurrency / 2));
        Self { cluster, settings, metrics, creating, backoff }
    }
}

/// Why a reconcile did not get through.
#[derive(Debug, thiserror::Error)]
pub(in crate::operator) enum Error {
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
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
    while let Some(step) = steps.next() {
        let written = match &step {
            Step::WriteStatus(status) => Some(status.clone()),
            _ => None,
        };
        let _place = match &step {
            Step::CreatePod(pod) => {
                match context.creating.take(pod.metadata.namespace.as_deref().unwrap_or_default()) {
                    Some(place) => Some(place),
                    None => return Ok(Some(Looked::Through(Action::requeue(TURN)))),
                }
            }
            Step::WriteStatus(status) => {
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
            StepResult::Progress(progress) => {
                answers.progress = ProgressSeen::Answered(progress.map(|progress| *progress));
                return Ok(None);
            }
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
    use super::*;

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
