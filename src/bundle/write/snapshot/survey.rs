//! A tree as its file system shows it at one moment.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, SystemTime};

use crate::bundle::error::shown;
use crate::bundle::write::cancel::Cancelled;
use crate::bundle::write::entries::{Index, What};
use crate::bundle::write::hang::ask;
use crate::bundle::write::kept::{State, clean, is_relied_on, state};
use crate::bundle::write::layout::Plan;
use crate::bundle::write::outside;
use crate::bundle::write::walk::HungBefore;
use crate::bundle::{Error, Tree};

/// What a file takes in memory here and in what is known of earlier snapshots.
const FILE_BYTES: u64 = 512;
/// Trees of more files are written to the disk as a whole rather than file by file.
const MOST_CLEANED: usize = 2_000;

pub(super) struct Survey {
    /// When it began.
    pub(super) at: SystemTime,
    /// With nothing in layers.
    pub(super) plan: Plan,
    /// Of each entry that is the first name of a file; none also for one that cannot be opened.
    pub(super) states: Vec<Option<State>>,
    pub(super) marks: Marks,
    /// States tell what was written.
    pub(super) is_relied_on: bool,
}

/// By entries: what tells one from what had its name before.
pub(super) struct Marks(Vec<u64>);

impl Survey {
    /// Looks at the tree. `cleans`: so that what is written from now on, through a mapping too, shows in the states.
    pub(super) fn of(tree: &Tree, cleans: bool) -> Result<Self, Error> {
        let at = SystemTime::now();
        let (root, entries, outside) = outside::walk_all(tree, &HungBefore::new(), &Cancelled::default())?;
        let is_relied_on = is_relied_on(&root);
        let many = entries.len() as usize;
        if tree.most_memory.is_some_and(|most| many as u64 * FILE_BYTES > most) {
            return Err(Error::too_large(format!(
                "{many} files, directories and links: no snapshot fits the helper's memory"
            )));
        }
        let plan = Plan::without_layers(root, entries, outside, tree.max_blob);
        let one_by_one = cleans && many <= MOST_CLEANED;
        if cleans && !one_by_one {
            ask(|| rustix::fs::syncfs(&plan.root))
                .map_err(|error| Error::local("write the working directory to its disk", error))?;
        }
        let (mut states, mut marks) = (Vec::with_capacity(many), Vec::with_capacity(many));
        for index in plan.entries.indices() {
            let seen = plan.has_content(index).then(|| see(&plan, index, one_by_one)).flatten();
            let path = plan.entries.path(index);
            let mut hasher = DefaultHasher::new();
            path.hash(&mut hasher);
            if let Some(entry) = plan.entries.get(index) {
                let target = if let What::Link { target } = entry.what { target } else { &[] };
                (entry.mode, std::mem::discriminant(&entry.what), target, plan.entries.first_name(index))
                    .hash(&mut hasher);
            }
            // What the command prints goes on, and nobody goes on from it.
            if !plan.is_outside(&path) {
                seen.hash(&mut hasher);
            }
            states.push(seen);
            marks.push(hasher.finish());
        }
        Ok(Self { at, plan, states, marks: Marks(marks), is_relied_on })
    }

    /// A file that was written a moment ago may be written again without a change of its state.
    pub(super) fn unsettled(&self, time: Duration) -> Option<String> {
        let is_new = |state: &Option<State>| state.is_some_and(|state| state.quiet_until(self.at) < time);
        let new = self.plan.entries.indices().zip(&self.states).filter(|(_, state)| is_new(state));
        let paths = new.map(|(index, _)| self.plan.entries.path(index));
        paths.into_iter().find(|path| !self.plan.is_outside(path)).map(|path| shown(&path))
    }
}

impl Marks {
    /// The path of an entry of `plan`, which these are of, that is another in `later`, for people; none: all is the same.
    pub(super) fn change(&self, plan: &Plan, later: &Survey) -> Option<String> {
        let same = self.0.iter().zip(&later.marks.0).take_while(|(before, after)| before == after).count();
        if same == self.0.len() && same == later.marks.0.len() {
            return None;
        }
        let of = if same < self.0.len() { plan } else { &later.plan };
        Some(shown(&of.entries.path(Index::try_from(same).unwrap_or_default())))
    }
}

/// What cannot be looked at here is read in vain later, and listed with the reason.
fn see(plan: &Plan, index: Index, cleans: bool) -> Option<State> {
    let file = File::from(ask(|| plan.open(index)).ok()?);
    if cleans { clean(&file) } else { state(&file) }.ok()
}
