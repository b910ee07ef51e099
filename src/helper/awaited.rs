//! Inputs that cannot be had, and are waited for: noted by the children that try, for the main process, which serves it and
//! ends the attempt.

use crate::contract::{InputPatience, InputProblem, InputTrouble};
use crate::helper::error::log_failure;
use crate::helper::failure::Failure;
use crate::helper::given_up::{self, Awaited};
use crate::helper::markers::{self, mark_json, read_json};
use crate::names::files;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

type ByIndex = BTreeMap<usize, InputTrouble>;

/// The inputs that are waited for, by their index.
pub(super) fn awaited(bin: &Path) -> ByIndex {
    read_json(bin, files::AWAITED).unwrap_or_default()
}

/// What ends the run first, if it stays.
pub(super) fn worst(bin: &Path) -> Option<InputTrouble> {
    awaited(bin).into_values().min_by_key(|trouble| trouble.problem)
}

/// What a child knows of its inputs. It goes on with what the child before it has noted.
pub(super) struct Notes {
    bin: PathBuf,
    known: Mutex<ByIndex>,
}

impl Notes {
    pub(super) fn of(bin: &Path) -> Self {
        Self { bin: bin.to_owned(), known: Mutex::new(awaited(bin)) }
    }

    /// An input cannot be had now.
    pub(super) fn trouble(&self, index: usize, failure: &Failure) {
        markers::trouble(&self.bin, failure.why());
        let Some(trouble) = failure.awaited() else { return };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.insert(index, trouble.clone()).as_ref() != Some(&trouble) {
            self.write(&known);
        }
    }

    /// An input comes, or is in place.
    pub(super) fn comes(&self, index: usize) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.remove(&index).is_some() {
            self.write(&known);
        }
    }

    fn write(&self, known: &ByIndex) {
        log_failure(mark_json(&self.bin, files::AWAITED, known));
    }
}

/// Since when the command has waited for each input, whatever the words for it.
pub(super) struct Waits {
    patience: InputPatience,
    since: BTreeMap<(usize, Duration), Instant>,
    /// The same, as it was when it was noted how long is left.
    noted: BTreeMap<(usize, Duration), Instant>,
    looked: Option<Instant>,
}

/// Between two looks at the mark.
const LOOK: Duration = Duration::from_millis(500);

impl Waits {
    pub(super) fn new(patience: InputPatience) -> Self {
        Self { patience, since: BTreeMap::new(), noted: BTreeMap::new(), looked: None }
    }

    /// What was waited for in vain, with the words for it. `counts`: there is a command that waits.
    pub(super) fn in_vain(&mut self, bin: &Path, counts: bool) -> Option<(InputProblem, String)> {
        if !counts || self.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return None;
        }
        self.looked = Some(Instant::now());
        let patience = self.patience;
        let now = awaited(bin);
        let key = |(index, trouble): (&usize, &InputTrouble)| (*index, patience.with(trouble.problem));
        let keys: Vec<_> = now.iter().map(key).collect();
        self.since.retain(|key, _| keys.contains(key));
        for key in keys {
            self.since.entry(key).or_insert_with(Instant::now);
        }
        self.note(bin);
        now.iter().find_map(|(index, trouble)| {
            let (index, patience) = key((index, trouble));
            let waited = self.since.get(&(index, patience)).map(Instant::elapsed)?;
            (waited >= patience).then(|| (trouble.problem, format!("{}, for {} s", trouble.detail, patience.as_secs())))
        })
    }
}

impl Waits {
    /// When the first of them is given up.
    fn note(&mut self, bin: &Path) {
        if self.noted == self.since {
            return;
        }
        let left = self.since.iter().map(|((_, patience), since)| patience.saturating_sub(since.elapsed())).min();
        if let Some(left) = left {
            given_up::note(bin, Awaited::Inputs, left);
        }
        self.noted.clone_from(&self.since);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::since_epoch_ms;

    fn note(bin: &Path, index: usize, problem: InputProblem, why: &str) {
        Notes::of(bin).trouble(index, &Failure::Awaited(problem, why.to_owned()));
    }

    #[test]
    fn what_comes_is_not_waited_for_any_more() {
        let bin = tempfile::tempdir().unwrap();
        note(bin.path(), 1, InputProblem::NoAnswer, "503");
        note(bin.path(), 0, InputProblem::Denied, "401");
        assert_eq!(worst(bin.path()).unwrap().detail, "401");
        Notes::of(bin.path()).comes(0);
        assert_eq!(worst(bin.path()).unwrap().detail, "503");
        Notes::of(bin.path()).comes(1);
        assert_eq!(worst(bin.path()), None);
    }

    #[test]
    fn a_wait_ends_when_it_has_lasted_without_a_break() {
        let bin = tempfile::tempdir().unwrap();
        let look = |waits: &mut Waits, counts| {
            waits.looked = None;
            waits.in_vain(bin.path(), counts)
        };
        let none = InputPatience { refused_seconds: 0, silent_seconds: 3600, absent_seconds: 0 };
        let mut waits = Waits::new(none);
        assert_eq!(look(&mut waits, true), None);
        note(bin.path(), 3, InputProblem::NoAnswer, "503");
        assert_eq!(look(&mut waits, true), None, "it may pass");
        note(bin.path(), 3, InputProblem::NotFound, "404");
        assert_eq!(look(&mut waits, false), None, "nothing waits for it");
        assert_eq!(look(&mut waits, true), Some((InputProblem::NotFound, "404, for 0 s".to_owned())));

        // A server that comes back for a moment is another wait.
        let mut waits = Waits::new(InputPatience { refused_seconds: 3600, ..none });
        assert_eq!(look(&mut waits, true), None);
        let first = waits.since.clone();
        let before = given_up::noted(bin.path(), Awaited::Inputs);
        note(bin.path(), 3, InputProblem::Denied, "403");
        assert_eq!(look(&mut waits, true), None);
        assert_eq!(waits.since, first, "other words are no other wait");
        let noted = given_up::noted(bin.path(), Awaited::Inputs).unwrap();
        assert_eq!(Some(noted), before, "nor do they move its end");
        let left = noted - since_epoch_ms(std::time::SystemTime::now());
        assert!((1..=3_600_000).contains(&left), "{left}");
        Notes::of(bin.path()).comes(3);
        assert_eq!(look(&mut waits, true), None);
        assert!(waits.since.is_empty());
    }
}
