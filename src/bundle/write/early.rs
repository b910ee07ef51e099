//! Large files are pushed while the command runs, so that little is left to push when it ends: each is a layer of its own,
//! the same as in the bundle.
//!
//! A file is pushed once it was quiet for a while. Each time it changes after that, it has to be quiet for twice as long;
//! and what was pushed and is in no bundle any more is bounded.

use super::kept::{Kept, State, only_file, state};
use super::layer::Layer;
use super::layout::{self, Plan};
use super::pace::Pace;
use super::{Saving, walk};
use crate::bundle::blocking::blocking;
use crate::bundle::error::shown;
use crate::bundle::registry::{Purpose, Repository};
use crate::bundle::{Access, Error, ErrorKind, GivenUp, Progress, Tree};
use crate::contract::Background;
use crate::oci::Reference;
use futures::stream::{self, StreamExt};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

/// A file waits at most so many times as long as in the beginning.
const MOST_PATIENCE: u32 = 64;
/// Between two rounds.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// A round is followed by a pause this many times as long as its walk: a tenth of the time, at most, goes into walking.
const PAUSE_PER_WALK: u32 = 9;

/// What is known of the large files of a tree, from one round to the next.
#[derive(Debug, Default)]
pub struct EarlyPushes {
    files: BTreeMap<Vec<u8>, Sent>,
    /// What the registry takes for too large: as it was then, and its words. It is not pushed again as it is.
    refused: BTreeMap<Vec<u8>, (State, String)>,
    /// Bytes of blobs that were pushed and are of no file any more.
    wasted: u64,
    /// Bytes of all files at the last look.
    bytes: u64,
    /// In a second: the most of all rounds that pushed something. None: none has, or not as fast as it could.
    rate: Option<u64>,
}

/// What saving the tree would take, as things are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// Bytes that are not in the registry.
    pub left_bytes: u64,
    /// How fast bytes have come there.
    pub bytes_per_second: u64,
}

/// A file that was pushed at some time.
#[derive(Debug)]
struct Sent {
    /// What it was then; none: it has changed since.
    state: Option<State>,
    bytes: u64,
    changes: u32,
}

/// A file of a plan that has a layer of its own.
struct Large {
    layer: usize,
    path: Vec<u8>,
    state: State,
    bytes: u64,
}

impl EarlyPushes {
    /// Pushes what is quiet now to `repository`, and returns how long to wait before the next round.
    ///
    /// # Errors
    /// Those of the registry and of the tree's root. What was pushed before stays known.
    pub async fn round(
        &mut self,
        tree: &Tree,
        background: &Background,
        repository: &str,
        access: &Access,
    ) -> Result<Duration, Error> {
        let quiet = Duration::from_secs(background.quiet_seconds);
        let connections = usize::try_from(background.connections).unwrap_or(1).max(1);
        let begin = Instant::now();
        let of = tree.clone();
        let (plan, large) = blocking(move || find(&of)).await?;
        let walked = begin.elapsed();
        self.bytes = plan.entries.content_bytes();
        self.note_changes(&large);
        let total = large.iter().fold(0, |sum: u64, file| sum.saturating_add(file.bytes));
        let most_waste = u128::from(total) * u128::from(background.waste_percent) / 100;
        let now = SystemTime::now();
        let is_due = |file: &&Large| self.is_due(file, quiet, now);
        let due: Vec<&Large> = large.iter().filter(is_due).collect();
        if !due.is_empty() && u128::from(self.wasted) <= most_waste {
            let repository = Repository::new(&Reference::parse_repository(repository)?, access, Purpose::Push)?;
            let (given_up, progress) = (GivenUp::default(), Progress::default());
            let kept = Kept::read(tree.kept.clone(), true);
            let saving = Saving::new(repository, kept, Pace::of(background.bytes_per_second), &given_up, &progress);
            let work = due.into_iter().map(async |file| (file, push(&saving, &plan, file).await));
            let begin = Instant::now();
            let mut pushed = stream::iter(work).buffer_unordered(connections);
            while let Some((of, file)) = pushed.next().await {
                let file = match file {
                    Err(error) if error.kind == ErrorKind::TooLarge => {
                        self.refused.insert(of.path.clone(), (of.state, error.message));
                        None
                    }
                    other => other?,
                };
                if let Some(file) = file {
                    let changes = self.files.get(&file.path).map_or(0, |sent| sent.changes);
                    let sent = Sent { state: Some(file.state), bytes: file.bytes, changes };
                    self.files.insert(file.path.clone(), sent);
                }
            }
            let pushed = saving.pushed.load(Ordering::Relaxed);
            if pushed > 0 && background.bytes_per_second.is_none() {
                let rate = u128::from(pushed) * 1000 / begin.elapsed().as_millis().max(1);
                self.rate = self.rate.max(u64::try_from(rate).ok());
            }
        }
        let pause = (quiet / 4).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        Ok(pause.max(walked * PAUSE_PER_WALK))
    }

    /// What saving the tree would take, by the last round and the rates of all; `None`: no rate is known.
    #[must_use]
    pub fn outlook(&self) -> Option<Outlook> {
        let there = self.files.values().filter(|sent| sent.state.is_some());
        let there = there.fold(0, |sum: u64, sent| sum.saturating_add(sent.bytes));
        Some(Outlook { left_bytes: self.bytes.saturating_sub(there), bytes_per_second: self.rate? })
    }

    /// A file that the registry takes for too large, and why; `None`: there is none, as things are.
    #[must_use]
    pub fn refused(&self) -> Option<String> {
        let (path, (_, why)) = self.refused.first_key_value()?;
        Some(format!("{}: {why}", shown(path)))
    }

    fn note_changes(&mut self, large: &[Large]) {
        let now: BTreeMap<&[u8], State> = large.iter().map(|file| (&*file.path, file.state)).collect();
        self.refused.retain(|path, (state, _)| now.get(&**path) == Some(state));
        for (path, sent) in &mut self.files {
            if sent.state.is_some() && sent.state.as_ref() != now.get(&**path) {
                sent.state = None;
                sent.changes = sent.changes.saturating_add(1);
                self.wasted = self.wasted.saturating_add(sent.bytes);
            }
        }
    }

    fn is_due(&self, file: &Large, quiet: Duration, now: SystemTime) -> bool {
        let sent = self.files.get(&file.path);
        let patience = 1u32.checked_shl(sent.map_or(0, |sent| sent.changes)).unwrap_or(MOST_PATIENCE);
        sent.is_none_or(|sent| sent.state.is_none())
            && !self.refused.contains_key(&file.path)
            && file.state.quiet_until(now) >= quiet * patience.clamp(1, MOST_PATIENCE)
    }
}

/// The large files of a tree as they are now.
fn find(tree: &Tree) -> Result<(Arc<Plan>, Vec<Large>), Error> {
    let root = walk::open_root(tree)?;
    let mut entries = walk::walk_large(tree, &root, layout::LARGE)?;
    entries.sort();
    let plan = Plan::new(root, entries, tree.max_blob)?;
    let large = (0..plan.layers()).filter_map(|number| large(&plan, number)).collect();
    Ok((Arc::new(plan), large))
}

/// The file that is all of a layer. One of several names is left to the save: another of them may come or go.
fn large(plan: &Plan, number: usize) -> Option<Large> {
    let (index, bytes) = only_file(plan, number)?;
    let state = state(&plan.open(index).ok()?).ok()?;
    Some(Large { layer: number, path: plan.entries.path(index), state, bytes })
}

/// Returns the file if what it was is in the registry now.
async fn push<'a>(saving: &Saving<'_>, plan: &Arc<Plan>, file: &'a Large) -> Result<Option<&'a Large>, Error> {
    let hashed = saving.hash(plan, file.layer, BTreeMap::new()).await;
    let Ok(layer) = hashed.map(|layer| layer.map(Arc::new)) else { return Ok(None) };
    let layer: Arc<Layer> = layer?;
    if !layer.is_whole() {
        return Ok(None);
    }
    let pushed = saving.push(plan, &layer).await?;
    Ok(pushed.is_ok().then_some(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    #[test]
    fn each_change_after_a_push_doubles_how_long_a_file_has_to_be_quiet() {
        let quiet = Duration::from_mins(1);
        let mut file = tempfile::tempfile().unwrap();
        let large = |file: &File| Large { layer: 0, path: b"a".to_vec(), state: state(file).unwrap(), bytes: 10 };
        let mut pushes = EarlyPushes::default();
        for (changes, patience) in [1, 2, 4, 8, 16, 32, 64, 64, 64].into_iter().enumerate() {
            let now = large(&file);
            pushes.note_changes(std::slice::from_ref(&now));
            assert_eq!(pushes.wasted, 10 * changes as u64);
            // By a clock that shows so much more than now, of which a test may take any part.
            let is_due_after = |time| pushes.is_due(&now, quiet, SystemTime::now() + time);
            assert!(!is_due_after(quiet * patience / 2), "{changes} changes");
            assert!(is_due_after(quiet * patience), "{changes} changes");

            let sent = Sent { state: Some(now.state), bytes: 10, changes: u32::try_from(changes).unwrap() };
            pushes.files.insert(b"a".to_vec(), sent);
            assert!(!pushes.is_due(&now, quiet, SystemTime::now() + quiet * 1000), "it is there as it is");
            file.write_all(b"more").unwrap();
        }
    }
}
