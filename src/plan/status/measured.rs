//! What was measured of an attempt: times, use, output.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::api::BundleRun;
use crate::api::status::{Gpu, Output, Timeline, Usage};
use crate::contract::{Message, Record};
use crate::plan::facts::pod::PodFacts;

pub(in crate::plan) fn timeline(
    run: &BundleRun,
    attempt: u32,
    pod: Option<&PodFacts>,
    record: Option<&Record>,
    queued: Option<u64>,
) -> Timeline {
    let created = run.metadata.creation_timestamp.as_ref().map(|t| t.0);
    // Of the last attempt: it began to wait when the one before it ended.
    let attempts = run.status.iter().flat_map(|s| s.attempts.iter()).filter(|a| a.attempt < attempt);
    let since = attempts.filter_map(|a| a.finish_time.as_ref()).map(|t| t.0).max().or(created);
    let pod_created = pod.and_then(PodFacts::created_at);
    let scheduled = pod
        .and_then(|p| p.condition("PodScheduled"))
        .filter(|c| c.status == "True")
        .and_then(|c| c.last_transition_time.as_ref())
        .map(|t| t.0);
    let container_started = pod.and_then(PodFacts::run_started_at).map(|t| t.0);
    let command_ended = record.and_then(finished_at);
    let reported = pod
        .and_then(PodFacts::helper)
        .and_then(|c| c.state.terminated.as_ref())
        .and_then(|t| t.finished_at.as_ref())
        .map(|t| t.0);
    Timeline {
        waiting_milliseconds: between(since, pod_created),
        queued_milliseconds: queued,
        scheduling_milliseconds: between(pod_created, scheduled)
            .map(|all| all.saturating_sub(queued.unwrap_or_default())),
        pulling_milliseconds: between(scheduled, container_started),
        staging_milliseconds: record.filter(|r| r.staging_ms > 0).map(|r| integer(r.staging_ms)),
        running_milliseconds: record.filter(|r| r.started_at_ms.is_some()).map(|r| integer(r.usage.wall_ms)),
        saving_milliseconds: between(command_ended, reported),
    }
}

/// Whole seconds: Kubernetes' times have no more. Two clocks may disagree by one, which is no negative time.
pub(super) fn between(from: Option<Timestamp>, to: Option<Timestamp>) -> Option<u64> {
    let whole = (to?.as_second() - from?.as_second()).max(0);
    u64::try_from(whole).ok().map(|seconds| seconds * 1000)
}

pub(in crate::plan) fn usage(record: &Record) -> Usage {
    Usage {
        wall_milliseconds: Some(integer(record.usage.wall_ms)),
        cpu_user_milliseconds: Some(integer(record.usage.cpu_user_ms)),
        cpu_system_milliseconds: Some(integer(record.usage.cpu_system_ms)),
        memory_peak_bytes: Some(integer(record.usage.memory_peak_bytes)),
    }
}

/// The devices of a record.
pub(in crate::plan) fn gpus(record: &Record) -> Vec<Gpu> {
    let Some(facts) = &record.gpus else { return Vec::new() };
    let device = |name: &Option<String>, uuid: &String| Gpu {
        uuid: Some(uuid.clone()),
        model: name.clone(),
        driver_version: facts.driver.clone(),
    };
    facts.models.iter().flat_map(|model| model.uuids.iter().map(|uuid| device(&model.name, uuid))).collect()
}

pub(in crate::plan) fn output(message: &Message, bundle: Option<String>) -> Output {
    let tail = |text: &String| (!text.is_empty()).then(|| text.clone());
    Output {
        mountable: bundle.as_ref().and(message.report.saved.as_ref()).map(|saved| saved.mountable),
        bundle,
        files: Some(integer(message.report.files)),
        bytes: Some(integer(message.report.bytes)),
        stdout_tail: tail(&message.stdout_tail),
        stderr_tail: tail(&message.stderr_tail),
    }
}

/// The kubelet has whole seconds, and takes the time of a start when the runtime has answered: later than the runner.
const SLACK_MS: i64 = 5_000;

/// A record with no times beyond those of the container: it is the user's to write, and accounts are made of it.
pub(in crate::plan) fn within_its_container(record: &Record, pod: Option<&PodFacts>, now: Timestamp) -> Record {
    let of = |time: Option<&Time>| time.map(|time| time.0.as_millisecond());
    let ended = pod.and_then(PodFacts::run).and_then(|run| run.state.terminated.as_ref());
    let to = of(ended.and_then(|ended| ended.finished_at.as_ref())).unwrap_or(now.as_millisecond()) + SLACK_MS;
    // The kubelet does not say when a container began that it has lost: not before its pod was made.
    let began = of(pod.and_then(PodFacts::run_started_at));
    let began = began.or_else(|| pod.and_then(PodFacts::created_at).map(Timestamp::as_millisecond));
    let Some(from) = began.map(|ms| (ms - SLACK_MS).min(to)) else { return record.clone() };
    let longest = u64::try_from(to - from).unwrap_or(0);
    let mut within = record.clone();
    within.started_at_ms = record.started_at_ms.map(|ms| ms.clamp(from, to));
    within.finished_at_ms = record.finished_at_ms.clamp(from, to);
    within.staging_ms = record.staging_ms.min(longest);
    within.usage.wall_ms = record.usage.wall_ms.min(longest);
    within
}

/// When the command began, by its record.
pub(in crate::plan) fn started_at(record: &Record) -> Option<Timestamp> {
    time(record.started_at_ms?)
}

/// When the command ended, by its record.
pub(in crate::plan) fn finished_at(record: &Record) -> Option<Timestamp> {
    time(record.finished_at_ms)
}

/// The record is the user's to write: a time that the API server cannot read would make the whole status unwritable.
fn time(ms: i64) -> Option<Timestamp> {
    Timestamp::from_millisecond(ms).ok().filter(|t| t.as_second() > 0)
}

/// Kubernetes' integers end here; a file of holes and a forged record do not.
fn integer(n: u64) -> u64 {
    n.min(i64::MAX.unsigned_abs())
}
