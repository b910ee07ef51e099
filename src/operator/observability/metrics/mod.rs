//! Every metric, and the one place where a written status becomes numbers. No label names a run; every label has a
//! bounded number of values.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{Method, StatusCode};
use kube_runtime::reflector::Store;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::api::status::{Attempt, Timeline};
use crate::api::{BundleRunStatus, Phase};
use crate::cluster::GuardedRun;
use crate::names;
use crate::operator::leader::Leadership;
use crate::plan::{Cause, Source, unknown_message};

/// What a scraper is told the text is.
pub(in crate::operator) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The value of `controller` and `name`, as dashboards of controller-runtime know them.
const CONTROLLER: &str = "bundlerun";

/// The numbers of one operator.
pub(in crate::operator) struct Metrics {
    registry: Registry,
    reconciles: Family<Reconcile, Counter>,
    reconcile_errors: Family<Controller, Counter>,
    reconcile_seconds: Family<Controller, Histogram, fn() -> Histogram>,
    active_workers: Family<Controller, Gauge>,
    depth: Family<Queue, Gauge>,
    adds: Family<Queue, Counter>,
    requests: Family<Request, Counter>,
    leading: Family<Queue, Gauge>,
    runs: Family<InPhase, Gauge>,
    completions: Family<Completion, Counter>,
    waiting_seconds: Family<InStage, Histogram, fn() -> Histogram>,
    run_seconds: Histogram,
    retried: Family<ForCause, Counter>,
    gpu_seconds: Family<Spent, Counter<f64, AtomicU64>>,
    retried_seconds: Family<GoneOn, Counter<f64, AtomicU64>>,
    saved_bytes: Counter,
    invalid: Gauge,
    definition_missing: Gauge,
    unknown_messages: Family<ForSource, Counter>,
    /// Triggered and not looked at since.
    queued: Mutex<HashSet<(Option<String>, String)>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Controller {
    controller: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconcile {
    controller: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Queue {
    name: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    code: String,
    method: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InPhase {
    phase: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InStage {
    stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Spent {
    /// Not `namespace`: Prometheus gives that label to the namespace of the operator.
    run_namespace: String,
    /// Of the attempt.
    verdict: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GoneOn {
    /// `snapshot`, or `nothing`.
    from: &'static str,
}

const NOTHING: &str = "nothing";
const SNAPSHOT: &str = "snapshot";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ForCause {
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ForSource {
    source: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Completion {
    phase: String,
    cause: &'static str,
    blame: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

/// How a reconcile went.
#[derive(Clone, Copy)]
pub(in crate::operator) enum ReconcileResult {
    /// Nothing more to do until something changes.
    Done,
    /// It asked to be called again.
    Again,
    Failed,
}

const CONTROLLER_LABEL: Controller = Controller { controller: CONTROLLER };
const QUEUE: Queue = Queue { name: CONTROLLER };

/// From a millisecond to half a minute.
fn short() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

/// From a second to twelve days.
fn long() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 21))
}

impl Metrics {
    pub(in crate::operator) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            reconciles: Family::default(),
            reconcile_errors: Family::default(),
            reconcile_seconds: Family::new_with_constructor(short),
            active_workers: Family::default(),
            depth: Family::default(),
            adds: Family::default(),
            requests: Family::default(),
            leading: Family::default(),
            runs: Family::default(),
            completions: Family::default(),
            waiting_seconds: Family::new_with_constructor(long),
            run_seconds: long(),
            retried: Family::default(),
            gpu_seconds: Family::default(),
            retried_seconds: Family::default(),
            saved_bytes: Counter::default(),
            invalid: Gauge::default(),
            definition_missing: Gauge::default(),
            unknown_messages: Family::default(),
            queued: Mutex::default(),
        };
        metrics.register();
        metrics.exist_from_the_start();
        metrics
    }

    /// The library adds `_total` to the names of counters.
    fn register(&mut self) {
        let all = &mut self.registry;
        let build: Family<Build, Gauge> = Family::default();
        build.get_or_create(&Build { version: env!("CARGO_PKG_VERSION") }).set(1);
        all.register("bundlerun_build_info", "Always 1; the label has the version", build);
        all.register("controller_runtime_reconcile", "Reconciles by result", self.reconciles.clone());
        all.register("controller_runtime_reconcile_errors", "Reconciles that failed", self.reconcile_errors.clone());
        all.register(
            "controller_runtime_reconcile_time_seconds",
            "Seconds a reconcile took",
            self.reconcile_seconds.clone(),
        );
        all.register("controller_runtime_active_workers", "Reconciles under way", self.active_workers.clone());
        all.register("workqueue_depth", "Runs that wait to be looked at", self.depth.clone());
        all.register("workqueue_adds", "Times a run was put into the queue", self.adds.clone());
        all.register(
            "rest_client_requests",
            "Requests to the API server, by HTTP method and status code",
            self.requests.clone(),
        );
        all.register("leader_election_master_status", "1 while this replica leads", self.leading.clone());
        all.register("bundlerun_runs", "BundleRuns by phase", self.runs.clone());
        all.register("bundlerun_completions", "BundleRuns that ended", self.completions.clone());
        all.register(
            "bundlerun_waiting_seconds",
            "Seconds that the last attempts of ended BundleRuns spent before and after their command, by stage",
            self.waiting_seconds.clone(),
        );
        all.register(
            "bundlerun_run_duration_seconds",
            "Seconds that the commands of ended BundleRuns ran",
            self.run_seconds.clone(),
        );
        all.register("bundlerun_attempts_retried", "Attempts followed by another one, by cause", self.retried.clone());
        all.register(
            "bundlerun_gpu_seconds",
            "Seconds times GPUs of commands that ended, by the namespace of their run and how their attempt ended",
            self.gpu_seconds.clone(),
        );
        all.register(
            "bundlerun_attempts_retried_seconds",
            "Seconds that commands ran in attempts followed by another one, by what that one went on from: nothing, or a snapshot",
            self.retried_seconds.clone(),
        );
        all.register("bundlerun_saved_bytes", "Bytes of files in saved outputs", self.saved_bytes.clone());
        all.register(
            "bundlerun_definition_missing_fields",
            "Fields and words that the installed definition of BundleRun lacks: it is older than the operator, which then makes no new attempts",
            self.definition_missing.clone(),
        );
        all.register("bundlerun_invalid_objects", "BundleRuns that cannot be decoded", self.invalid.clone());
        all.register(
            "bundlerun_unknown_messages",
            "Waits and endings of BundleRuns whose message, of Kubernetes or a container runtime, the operator does not know",
            self.unknown_messages.clone(),
        );
    }

    /// A rate needs a zero to start from, and an alert a series.
    fn exist_from_the_start(&self) {
        for result in ["success", "requeue_after", "error"] {
            drop(self.reconciles.get_or_create(&Reconcile { controller: CONTROLLER, result }));
        }
        drop(self.reconcile_errors.get_or_create(&CONTROLLER_LABEL));
        drop(self.reconcile_seconds.get_or_create(&CONTROLLER_LABEL));
        drop(self.active_workers.get_or_create(&CONTROLLER_LABEL));
        drop(self.depth.get_or_create(&QUEUE));
        drop(self.adds.get_or_create(&QUEUE));
        for stage in STAGES {
            drop(self.waiting_seconds.get_or_create(&InStage { stage }));
        }
        drop(self.completions.get_or_create(&Completion {
            phase: format!("{:?}", Phase::Succeeded),
            cause: Cause::Completed.name(),
            blame: "None".into(),
        }));
        for cause in [Cause::PodDeleted.name(), Cause::GpuUnavailable.name(), OTHER] {
            drop(self.retried.get_or_create(&ForCause { cause }));
        }
        for from in [NOTHING, SNAPSHOT] {
            drop(self.retried_seconds.get_or_create(&GoneOn { from }));
        }
        for source in Source::ALL {
            drop(self.unknown_messages.get_or_create(&ForSource { source: source.name() }));
        }
    }

    /// A run was put into the queue.
    pub(in crate::operator) fn triggered(&self, name: &str, namespace: Option<&str>) {
        self.adds.get_or_create(&QUEUE).inc();
        let run = (namespace.map(str::to_owned), name.to_owned());
        self.queued.lock().unwrap_or_else(PoisonError::into_inner).insert(run);
    }

    /// A run left the queue: it is looked at now, or is gone.
    pub(in crate::operator) fn taken(&self, name: &str, namespace: Option<&str>) {
        let run = (namespace.map(str::to_owned), name.to_owned());
        self.queued.lock().unwrap_or_else(PoisonError::into_inner).remove(&run);
    }

    /// The installed definition lacks so many fields and words of ours.
    pub(in crate::operator) fn definition_lacks(&self, number: usize) {
        self.definition_missing.set(i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// How many reconciles have begun and not ended.
    pub(in crate::operator) fn reconciles_under_way(&self) -> i64 {
        self.active_workers.get_or_create(&CONTROLLER_LABEL).get()
    }

    /// A reconcile begins.
    pub(in crate::operator) fn reconcile_begun(&self) {
        self.active_workers.get_or_create(&CONTROLLER_LABEL).inc();
    }

    /// A reconcile is over.
    pub(in crate::operator) fn reconciled(&self, how: ReconcileResult, took: Duration) {
        self.active_workers.get_or_create(&CONTROLLER_LABEL).dec();
        self.reconcile_seconds.get_or_create(&CONTROLLER_LABEL).observe(took.as_secs_f64());
        let result = match how {
            ReconcileResult::Done => "success",
            ReconcileResult::Again => "requeue_after",
            ReconcileResult::Failed => "error",
        };
        self.reconciles.get_or_create(&Reconcile { controller: CONTROLLER, result }).inc();
        if let ReconcileResult::Failed = how {
            self.reconcile_errors.get_or_create(&CONTROLLER_LABEL).inc();
        }
    }

    /// A request to the API server got its answer, or none.
    pub(in crate::operator) fn answered(&self, method: &Method, status: Option<StatusCode>) {
        let code = status.map_or_else(|| "<error>".into(), |status| status.as_u16().to_string());
        self.requests.get_or_create(&Request { code, method: method.to_string() }).inc();
    }

    /// The status of a run with so many GPUs was written.
    pub(in crate::operator) fn status_written(
        &self,
        namespace: &str,
        gpus: u32,
        before: Option<&BundleRunStatus>,
        after: &BundleRunStatus,
    ) {
        if let Some(source) = unknown_message(before, after) {
            self.unknown_messages.get_or_create(&ForSource { source: source.name() }).inc();
        }
        let had_ended = |attempt: &Attempt| {
            let same = |a: &&Attempt| a.attempt == attempt.attempt && a.uid == attempt.uid;
            before.iter().flat_map(|s| &s.attempts).find(same).is_some_and(|a| a.finish_time.is_some())
        };
        for attempt in after.attempts.iter().filter(|a| a.finish_time.is_some() && !had_ended(a)) {
            if gpus > 0 {
                let spent = Spent { run_namespace: namespace.to_owned(), verdict: verdict(attempt) };
                self.gpu_seconds.get_or_create(&spent).inc_by(f64::from(gpus) * ran_for(attempt));
            }
            // What it went on from is known now at the latest.
            if let Some(last) = after.attempts.iter().find(|last| last.attempt + 1 == attempt.attempt) {
                let from = if attempt.resumed_from.is_some() { SNAPSHOT } else { NOTHING };
                self.retried_seconds.get_or_create(&GoneOn { from }).inc_by(ran_for(last));
            }
            if after.attempt.is_some_and(|current| current > attempt.attempt) {
                self.retried.get_or_create(&ForCause { cause: known(attempt.cause.as_deref()) }).inc();
            }
        }
        let Some(phase) = after.phase.filter(|phase| phase.is_terminal()) else { return };
        if before.and_then(|s| s.phase).is_some_and(Phase::is_terminal) {
            return;
        }
        let result = after.result.as_ref();
        let completion = Completion {
            phase: format!("{phase:?}"),
            cause: known(result.map(|r| r.cause.as_str())),
            blame: result.and_then(|r| r.blame).map_or_else(|| "None".into(), |blame| format!("{blame:?}")),
        };
        self.completions.get_or_create(&completion).inc();
        self.last_attempt_timed(after.timeline.as_ref());
        if let Some(bytes) = after.output.as_ref().filter(|o| o.bundle.is_some()).and_then(|o| o.bytes) {
            self.saved_bytes.inc_by(bytes);
        }
    }

    fn last_attempt_timed(&self, timeline: Option<&Timeline>) {
        let Some(t) = timeline else { return };
        let spent = [
            t.waiting_milliseconds,
            t.queued_milliseconds,
            t.scheduling_milliseconds,
            t.pulling_milliseconds,
            t.staging_milliseconds,
            t.saving_milliseconds,
        ];
        for (stage, ms) in STAGES.into_iter().zip(spent) {
            if let Some(ms) = ms {
                self.waiting_seconds.get_or_create(&InStage { stage }).observe(seconds(ms));
            }
        }
        if let Some(ms) = t.running_milliseconds {
            self.run_seconds.observe(seconds(ms));
        }
    }

    /// The exposition, with what the cache and the lease say now.
    pub(in crate::operator) fn exposition(&self, runs: &Store<GuardedRun>, leadership: &Leadership) -> String {
        let mut counts = Phase::ALL.map(|phase| (phase, 0));
        let mut invalid = 0;
        for run in runs.state() {
            let Ok(run) = &run.0 else {
                invalid += 1;
                continue;
            };
            let phase = run.status.as_ref().and_then(|s| s.phase).unwrap_or_default();
            if let Some((_, count)) = counts.iter_mut().find(|(p, _)| *p == phase) {
                *count += 1;
            }
        }
        for (phase, count) in counts {
            self.runs.get_or_create(&InPhase { phase: format!("{phase:?}") }).set(count);
        }
        self.invalid.set(invalid);
        let queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.depth.get_or_create(&QUEUE).set(i64::try_from(queued).unwrap_or(i64::MAX));
        self.leading.get_or_create(&Queue { name: names::LEASE }).set(leadership.is_held().into());
        let mut exposition = String::new();
        let _ = text::encode(&mut exposition, &self.registry); // a String takes everything
        exposition
    }
}

/// A metric, as it is exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Name of its samples; of a histogram without `_bucket` and the like.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// What it counts, and in which unit.
    pub help: String,
    /// Of its samples, but for `le`.
    pub labels: Vec<String>,
}

/// All metrics, by name.
#[must_use]
pub fn metrics() -> Vec<Metric> {
    let all = Metrics::new();
    // What has no sample is not exported.
    drop(all.gpu_seconds.get_or_create(&Spent { run_namespace: String::new(), verdict: OTHER }));
    drop(all.requests.get_or_create(&Request { code: String::new(), method: String::new() }));
    drop(all.runs.get_or_create(&InPhase { phase: String::new() }));
    drop(all.leading.get_or_create(&QUEUE));
    let mut text = String::new();
    let _ = text::encode(&mut text, &all.registry); // a String takes everything
    let described = |what: &str| -> BTreeMap<String, String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(what)?.split_once(' '));
        lines.map(|(name, words)| (name.to_owned(), words.trim_end_matches('.').to_owned())).collect()
    };
    let kinds = described("# TYPE ");
    let labels = |name: &str| -> Vec<String> {
        let sample = text.lines().find_map(|line| line.strip_prefix(name)?.split_once('{')?.1.split_once('}'));
        let pairs = sample.map_or("", |(labels, _)| labels).split(',');
        pairs.filter_map(|pair| Some(pair.split_once('=')?.0.to_owned())).filter(|label| label != "le").collect()
    };
    let metric = |(name, help): (String, String)| {
        let kind = kinds.get(&name).cloned().unwrap_or_default();
        let suffix = if kind == "counter" { "_total" } else { "" };
        Metric { labels: labels(&name), name: format!("{name}{suffix}"), kind, help }
    };
    described("# HELP ").into_iter().map(metric).collect()
}

/// Parts of [`Timeline`] that are not the command's own time.
const STAGES: [&str; 6] = ["waiting", "queued", "scheduling", "pulling", "staging", "saving"];

/// A reason of Kubernetes, or of somebody's controller, that became a cause.
const OTHER: &str = "other";

/// The cause as a label.
fn known(cause: Option<&str>) -> &'static str {
    cause.and_then(Cause::named).map_or(OTHER, |(_, name)| name)
}

/// How an attempt ended, as a label.
fn verdict(attempt: &Attempt) -> &'static str {
    let cause = attempt.cause.as_deref().and_then(Cause::named);
    cause.map_or(OTHER, |(cause, _)| cause.verdict().name())
}

fn seconds(ms: u64) -> f64 {
    Duration::from_millis(ms).as_secs_f64()
}

fn ran_for(attempt: &Attempt) -> f64 {
    let (Some(start), Some(end)) = (&attempt.start_time, &attempt.finish_time) else { return 0.0 };
    end.0.duration_since(start.0).as_secs_f64().max(0.0)
}

#[cfg(test)]
mod tests;
