//! Runs whose outputs another run wants: what is known of them, and whether they are there to be pinned.

use std::collections::BTreeMap;

use crate::api::spec::Input;
use crate::api::{BundleRun, Phase};
use crate::contract::Pin;
use crate::plan::outcome::Outcome;
use crate::plan::words::cause::Cause;
use crate::plan::words::wait_reason::Reason;

/// The runs that a run names as inputs, as the caches have them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parents {
    /// By name; a run that does not exist is not among them.
    pub runs: BTreeMap<String, Parent>,
    /// Names of runs that wait for each other in a ring, from this run back to it.
    pub cycle: Option<Vec<String>>,
}

/// What matters of a run to those that want its output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Parent {
    /// Uid: a run of the same name made later is another one.
    pub uid: String,
    /// None: no operator has seen it yet.
    pub phase: Option<Phase>,
    /// Its saved output, `repository@digest`.
    pub bundle: Option<String>,
    /// That can be mounted as it is.
    pub mountable: bool,
    /// Why it ended, in one word.
    pub cause: Option<String>,
}

impl Parent {
    /// The facts of a run.
    #[must_use]
    pub fn of(run: &BundleRun) -> Self {
        let status = run.status.as_ref();
        Self {
            uid: run.metadata.uid.clone().unwrap_or_default(),
            phase: status.and_then(|s| s.phase),
            bundle: status.and_then(|s| s.output.as_ref()?.bundle.clone()),
            mountable: status.and_then(|s| s.output.as_ref()?.mountable).unwrap_or_default(),
            cause: status.and_then(|s| Some(s.result.as_ref()?.cause.clone())),
        }
    }

    fn is_over(&self) -> bool {
        self.phase.is_some_and(Phase::is_terminal)
    }
}

/// Names of the runs whose outputs a run wants.
pub fn names(run: &BundleRun) -> impl Iterator<Item = &str> {
    run.spec.inputs.iter().filter_map(|input| Some(input.run.as_ref()?.name.as_str()))
}

/// Why the inputs of a run cannot be pinned.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::plan) enum Unready {
    /// Not now: reason and message.
    Waits(Reason, String),
    /// Never.
    Ends(Outcome),
}

/// The pins of a run's inputs, by their index in the spec: what was pinned before stays, whatever became of the parents.
pub(in crate::plan) fn pin(run: &BundleRun, parents: &Parents) -> Result<BTreeMap<usize, Pin>, Unready> {
    // How it came to the first attempt is not recorded: later ones fetch it, which works everywhere.
    let recorded = |input: &Input| {
        let entry = run.status.iter().flat_map(|s| &s.inputs).find(|entry| entry.path == input.path)?;
        Some(Pin { reference: entry.reference.clone()?, run_uid: entry.run_uid.clone(), mountable: false })
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
    let (mut missing, mut unfinished) = (Vec::new(), Vec::new());
    for (index, input) in run.spec.inputs.iter().enumerate() {
        if let Some(pin) = recorded(input) {
            pins.insert(index, pin);
            continue;
        }
        let Some(name) = input.run.as_ref().map(|source| source.name.as_str()) else { continue };
        match parents.runs.get(name) {
            None => missing.push(name),
            Some(parent) if !parent.is_over() => unfinished.push(name),
            Some(parent) => {
                pins.insert(index, take(name, parent, run.spec.allow_failed_inputs).map_err(Unready::Ends)?);
            }
        }
    }
    if missing.is_empty() && unfinished.is_empty() {
        return Ok(pins);
    }
    let mut words = Vec::new();
    words.extend(told(&missing, "does not exist", "do not exist"));
    words.extend(told(&unfinished, "has not ended", "have not ended"));
    let reason = if missing.is_empty() { Reason::InputNotFinished } else { Reason::InputMissing };
    Err(Unready::Waits(reason, words.join("; ")))
}

/// What the first attempt found in `ConfigMaps`, by the index of the input: later ones must find the same. All other
/// inputs are pinned by what they are asked for with.
pub(in crate::plan) fn digests(run: &BundleRun) -> BTreeMap<usize, String> {
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
        return Err(Outcome::new(Cause::InputFailed, format!("run {name} {how} ({ending})")));
    }
    match &parent.bundle {
        Some(bundle) => {
            Ok(Pin { reference: bundle.clone(), run_uid: Some(parent.uid.clone()), mountable: parent.mountable })
        }
        None => Err(Outcome::new(Cause::InputNotSaved, format!("run {name} has ended, but its output was not saved"))),
    }
}

/// `run a does not exist`, or the first names of many.
fn told(names: &[&str], one: &str, many: &str) -> Option<String> {
    const SHOWN: usize = 5;
    let mut names = names.to_vec();
    names.sort_unstable();
    names.dedup();
    match names.as_slice() {
        [] => None,
        [name] => Some(format!("run {name} {one}")),
        names if names.len() <= SHOWN => Some(format!("runs {} {many}", names.join(", "))),
        names => {
            let shown = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
            Some(format!("runs {shown} and {} more {many}", names.len() - SHOWN))
        }
    }
}
