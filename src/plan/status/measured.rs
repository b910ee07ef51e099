//! What was measured of an attempt: times, use, output.

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
        waiting: between(since, pod_created),
        scheduling: between(pod_created, scheduled),
        pulling: between(scheduled, container_started),
        staging: record.filter(|r| r.staging_ms > 0).map(|r| seconds(r.staging_ms)),
        running: record.filter(|r| r.started_at_ms.is_some()).map(|r| seconds(r.usage.wall_ms)),
        saving: between(command_ended, reported),
        ..Timeline::default()
    }
}

/// Whole seconds: Kubernetes' times have no more. Two clocks may disagree by one, which is no negative time.
fn between(from: Option<Timestamp>, to: Option<Timestamp>) -> Option<f64> {
    let whole = (to?.as_second() - from?.as_second()).max(0);
    u32::try_from(whole).ok().map(f64::from)
}

pub(in crate::plan) fn usage(record: &Record) -> Usage {
    Usage {
        wall_seconds: Some(seconds(record.usage.wall_ms)),
        cpu_user_seconds: Some(seconds(record.usage.cpu_user_ms)),
        cpu_system_seconds: Some(seconds(record.usage.cpu_system_ms)),
        memory_peak_bytes: Some(integer(record.usage.memory_peak_bytes)),
    }
}

#[allow(clippy::cast_precision_loss)] // exact below 2^53 ms, which is 285,000 years
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
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
