//! Inputs that are outputs of other runs, or may change: what an attempt gets is fixed when its pod is made.

use std::collections::BTreeMap;

use crate::api::spec::{Input, OnInputFailure, RunSource};
use crate::api::status::RecordedInput;
use crate::api::{BundleRun, Phase};
use crate::contract::first_of;
use crate::contract::{Pin, Pins, SnapshotPin};
use crate::oci::without_tag_and_digest;
use crate::plan::facts::parents::{Parent, Parents};
use crate::plan::outcome::Outcome;
use crate::plan::words::cause::Cause;
use crate::plan::words::wait_reason::Reason;

/// Of a run that is gone nobody knows how many it had. An attempt that found a snapshot of it has left a tag; this is for
/// those that did not say whether they did.
const ATTEMPTS_OF_ONE_GONE: u32 = 10;

/// Why the inputs of a run cannot be pinned.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Unready {
    /// Not now: reason and message.
    Waits(Reason, String),
    /// Never.
    Ends(Outcome),
}

/// The pins of a run's inputs, by their index in the spec: what was pinned before stays, whatever became of the parents.
/// `store`: the repository of the namespace today.
pub(super) fn pin(run: &BundleRun, parents: &Parents, store: Option<&str>) -> Result<BTreeMap<usize, Pin>, Unready> {
    // How it came to the first attempt is not recorded: later ones fetch it, which works everywhere.
    let recorded = |input: &Input| {
        let entry = run.status.iter().flat_map(|s| &s.inputs).find(|entry| entry.path == input.path)?;
        let run_uid = entry.run_uid.clone();
        match &entry.reference {
            Some(reference) => {
                let RecordedInput { is_file, in_part, .. } = *entry;
                Some(Pin { reference: reference.clone(), run_uid, is_file, in_part, ..Pin::default() })
            }
            // The attempt before did not tell which one it had: its helper has left a tag.
            None => snapshot(&snapshot_of(input)?.name, run_uid?, parents, store),
        }
    };
    let mut pins = BTreeMap::new();
    // Told first: of a ring, whoever is looked at later would only see that the others have failed.
    let unpinned = |input: &Input| input.run.is_some() && recorded(input).is_none();
    if let Some(cycle) = parents.cycle.as_ref().filter(|_| run.spec.inputs.iter().any(unpinned)) {
        return Err(Unready::Ends(Outcome::new(
            Cause::InputCycle,
            format!("the runs wait for each other: {}", cycle.join(" -> ")),
        )));
    }
    let (mut failed, mut missing, mut unfinished) = (Vec::new(), Vec::new(), Vec::new());
    let (mut unreadable, mut unstarted) = (Vec::new(), Vec::new());
    let waits = run.spec.on_input_failure == OnInputFailure::Wait;
    for (index, input) in run.spec.inputs.iter().enumerate() {
        if let Some(pin) = recorded(input) {
            pins.insert(index, pin);
            continue;
        }
        let Some(name) = input.run.as_ref().map(|source| source.name.as_str()) else { continue };
        match parents.runs.get(name) {
            None if parents.unreadable.contains(name) => unreadable.push(name),
            None => missing.push(name),
            Some(parent) if snapshot_of(input).is_some() => match snapshot(name, parent.uid.clone(), parents, store) {
                Some(pin) if parent.has_begun || parent.is_over() => drop(pins.insert(index, pin)),
                _ => unstarted.push(name),
            },
            Some(parent) if !parent.is_over() => unfinished.push(name),
            Some(parent) => match take(name, parent, run.spec.allow_failed_inputs) {
                Ok(pin) => drop(pins.insert(index, pin)),
                Err(outcome) if waits => failed.push(outcome.message),
                Err(outcome) => return Err(Unready::Ends(outcome)),
            },
        }
    }
    // What has to be done for it comes first.
    let waits_for = [
        (Reason::InputFailed, failed.is_empty()),
        (Reason::InputUnreadable, unreadable.is_empty()),
        (Reason::InputMissing, missing.is_empty()),
        (Reason::InputNotFinished, unfinished.is_empty()),
        (Reason::InputNotStarted, unstarted.is_empty()),
    ];
    let Some((reason, _)) = waits_for.into_iter().find(|(_, none)| !none) else { return Ok(pins) };
    let mut words = Vec::new();
    words.extend(told_failed(failed));
    let by_us = "cannot be read by this version of the operator";
    words.extend(told(unreadable, by_us, by_us));
    words.extend(told(missing, "does not exist", "do not exist"));
    words.extend(told(unfinished, "has not ended", "have not ended"));
    words.extend(told(unstarted, "has not started", "have not started"));
    Err(Unready::Waits(reason, words.join("; ")))
}

/// What the first attempt found in `ConfigMaps`, by the index of the input: later ones must find the same. All other
/// inputs are pinned by what they are asked for with.
pub(super) fn digests(run: &BundleRun) -> BTreeMap<usize, String> {
    let recorded = |input: &Input| {
        let entry = run.status.iter().flat_map(|s| &s.inputs).find(|entry| entry.path == input.path)?;
        entry.digest.clone().filter(|_| input.config_map.is_some())
    };
    let inputs = run.spec.inputs.iter().enumerate();
    inputs.filter_map(|(index, input)| Some((index, recorded(input)?))).collect()
}

/// The pin of a parent that has ended.
fn take(name: &str, parent: &Parent, allow_failed: bool) -> Result<Pin, Outcome> {
    let ending = parent.cause.as_deref().unwrap_or("unknown");
    if parent.phase != Some(Phase::Succeeded) && !allow_failed {
        let how = if parent.phase == Some(Phase::Stopped) { "was stopped" } else { "failed" };
        let outcome = Outcome::new(Cause::InputFailed, format!("run {name} {how} ({ending})"));
        return Err(outcome.inherit(parent.blame));
    }
    let Some(bundle) = &parent.bundle else {
        let message = format!("run {name} has ended ({ending}), but its output was not saved");
        return Err(Outcome::new(Cause::InputNotSaved, message).inherit(parent.blame));
    };
    let (reference, run_uid) = (bundle.clone(), Some(parent.uid.clone()));
    let Parent { mountable, in_part, .. } = *parent;
    Ok(Pin { reference, run_uid, mountable, in_part, ..Pin::default() })
}

/// The run whose snapshot an input is.
fn snapshot_of(input: &Input) -> Option<&RunSource> {
    input.run.as_ref().filter(|run| run.snapshot.is_some())
}

/// The pin of a snapshot of the run with this uid, which may be gone by now; none: there is no store.
fn snapshot(name: &str, uid: String, parents: &Parents, store: Option<&str>) -> Option<Pin> {
    let parent = parents.runs.get(name).filter(|parent| parent.uid == uid);
    // Where its output is, its snapshots are: the store may have been another one then.
    let repository = parent.and_then(|parent| parent.bundle.as_deref()).map(without_tag_and_digest).or(store)?;
    let snapshot = Some(SnapshotPin {
        attempts: parent.map_or(ATTEMPTS_OF_ONE_GONE, |parent| parent.attempts),
        ended: parent.is_none_or(Parent::is_over),
    });
    Some(Pin { reference: repository.to_owned(), run_uid: Some(uid), snapshot, ..Pin::default() })
}

/// What became of the runs that went on when the pod was made, as in [`crate::names::AWAITED_RUNS_ANNOTATION`]; none: that
/// is not known of all of them.
pub(super) fn awaited_runs(pins: &Pins, parents: &Parents) -> Option<String> {
    if !parents.unreadable.is_empty() {
        return None;
    }
    let awaited = pins.inputs.values().filter(|pin| pin.awaits_its_run());
    let news = awaited.filter_map(|pin| {
        let (uid, then) = (pin.run_uid.as_deref()?, pin.snapshot?);
        let now = match parents.runs.values().find(|parent| parent.uid == uid) {
            Some(parent) => SnapshotPin { attempts: parent.attempts, ended: parent.is_over() },
            None => SnapshotPin { ended: true, ..then },
        };
        (now != then).then_some((uid, now))
    });
    let news: BTreeMap<&str, SnapshotPin> = news.collect();

    if news.is_empty() { Some(String::new()) } else { serde_json::to_string(&news).ok() }
}

/// What became of the first of many, and what ends the wait.
fn told_failed(mut failed: Vec<String>) -> Option<String> {
    failed.sort_unstable();
    failed.dedup();
    (!failed.is_empty()).then(|| {
        let words = first_of(&failed);
        format!("{words}: this run starts when one made anew under that name has succeeded (kubectl replace --force)")
    })
}

/// `run a does not exist`, or the first names of many.
fn told(mut names: Vec<&str>, one: &str, many: &str) -> Option<String> {
    names.sort_unstable();
    names.dedup();
    match names.as_slice() {
        [] => None,
        [name] => Some(format!("run {name} {one}")),
        names => Some(format!("runs {} {many}", first_of(names))),
    }
}
