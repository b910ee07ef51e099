//! Runs whose outputs another run wants: what is known of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::status::Blame;
use crate::api::{BundleRun, Phase};
use crate::plan::words::condition;

/// The runs that a run names as inputs, as the caches have them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parents {
    /// By name; a run that does not exist is not among them.
    pub runs: BTreeMap<String, Parent>,
    /// Names of runs that exist, and that this version cannot read.
    pub unreadable: BTreeSet<String>,
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
    /// Its command runs, or did: it may have a snapshot.
    pub has_begun: bool,
    /// As many attempts it has had, with the one that goes on.
    pub attempts: u32,
    /// Its saved output, `repository@digest`.
    pub bundle: Option<String>,
    /// That can be mounted as it is.
    pub mountable: bool,
    /// It lacks files that the command did not let be read.
    pub in_part: bool,
    /// Why it ended, in one word.
    pub cause: Option<String>,
    /// Whose matter its end is; none: it succeeded, or was stopped.
    pub blame: Option<Blame>,
}

impl Parent {
    /// The facts of a run.
    #[must_use]
    pub fn of(run: &BundleRun) -> Self {
        let status = run.status.as_ref();
        Self {
            uid: run.metadata.uid.clone().unwrap_or_default(),
            phase: status.and_then(|s| s.phase),
            has_begun: status.is_some_and(|s| s.attempts.iter().any(|attempt| attempt.start_time.is_some())),
            attempts: status.and_then(|s| s.attempt).unwrap_or(1),
            bundle: status.and_then(|s| s.output.as_ref()?.bundle.clone()),
            mountable: status.and_then(|s| s.output.as_ref()?.mountable).unwrap_or_default(),
            in_part: status.is_some_and(|s| s.conditions.iter().any(|known| known.reason == condition::SAVED_IN_PART)),
            cause: status.and_then(|s| Some(s.result.as_ref()?.cause.clone())),
            blame: status.and_then(|s| s.result.as_ref()?.blame),
        }
    }

    pub(in crate::plan) fn is_over(&self) -> bool {
        self.phase.is_some_and(Phase::is_terminal)
    }
}

/// Names of the runs whose outputs a run wants.
pub fn names(run: &BundleRun) -> impl Iterator<Item = &str> {
    run.spec.inputs.iter().filter_map(|input| Some(input.run.as_ref()?.name.as_str()))
}
