//! A tree whose content is in the registry, and the list of it.

use std::sync::Arc;

use super::known::{Known, KnownBlob, KnownFile};
use super::sort::Sorted;
use crate::bundle::error::shown;
use crate::bundle::format::listing::{Listed, ListedAs, ListedFile};
use crate::bundle::write::entries::{Index, What};
use crate::bundle::write::kept::SETTLED;
use crate::bundle::write::layer::Layer;
use crate::bundle::write::layout::Plan;
use crate::bundle::write::list::{Lists, parts, without_content};
use crate::bundle::write::skip::Because;
use crate::bundle::{Error, ErrorKind};

/// A tree that is in the registry but for its list.
pub(super) struct Pushed {
    pub(super) plan: Arc<Plan>,
    pub(super) known: Arc<Known>,
    /// By entries: where a file is in `known`, if the entry is its first name.
    places: Vec<Option<usize>>,
    /// Why files are not there, by entries, sorted.
    skipped: Vec<(Index, Box<str>)>,
}

impl Pushed {
    /// What is known once all layers are pushed, which was at `now`, in seconds since the epoch. `keeps_last`: a file that
    /// keeps changing is what it was in the snapshot before.
    pub(super) fn of(
        plan: Arc<Plan>,
        sorted: &Sorted,
        layers: &[Arc<Layer>],
        known: &Known,
        keeps_last: bool,
        now: u64,
    ) -> Result<Self, Error> {
        let mut blobs = known.blobs.clone();
        let mut first_blobs = Vec::with_capacity(layers.len());
        for layer in layers {
            first_blobs.push(blobs.len());
            blobs.extend(layer.blobs.iter().map(|blob| KnownBlob { blob: *blob, seen_at: now }));
        }

        let (mut files, mut places, mut skipped) = (vec![], Vec::with_capacity(sorted.states.len()), vec![]);
        for ((index, state), reused) in plan.entries.indices().zip(&sorted.states).zip(&sorted.reused) {
            let mut file = *reused;
            if file.is_none() && plan.has_content(index) {
                let number = plan.layer_of(index);
                let layer = layers.get(number);
                let stored = layer.and_then(|layer| layer.stored(index));
                let is_ours = || plan.is_outside(&plan.entries.path(index));
                let before = state.filter(|_| keeps_last || is_ours()).and_then(|state| known.file(state.id()));
                if let (Some(state), Some(stored), Some(blob)) = (*state, stored, first_blobs.get(number)) {
                    file = Some(KnownFile {
                        state,
                        digest: stored.digest,
                        blob: *blob,
                        blobs: layer.map_or(1, |layer| layer.blobs.len()),
                        offset: stored.offset,
                        size: stored.size,
                        stored: layer.and_then(|layer| layer.sparse_bytes(index)),
                        is_settled: state.quiet_until(sorted.at) >= SETTLED,
                    });
                } else if before.is_some() {
                    file = before.copied();
                } else {
                    let skip = layer.and_then(|layer| layer.skip(index));
                    if let Some(skip) = skip.filter(|skip| skip.is_of_the_machine()) {
                        let path = shown(&plan.entries.path(index));
                        let why = format!("the snapshot is not whole: {path} ({})", skip.why);
                        return Err(Error::new(ErrorKind::Local, why));
                    }
                    skipped.push((index, skip.map_or("was replaced meanwhile".into(), |skip| skip.why.clone())));
                }
            }
            places.push(file.is_some().then_some(files.len()));
            files.extend(file);
        }
        let known = Arc::new(known.with(&blobs, files));
        Ok(Self { plan, known, places, skipped })
    }

    /// Who waits for a snapshot goes on from it as if it had all: an error, if it lacks what the command would not let us read.
    pub(super) fn check_whole(&self) -> Result<(), Error> {
        let entries = &self.plan.entries;
        let of_walk = entries.iter().find_map(|(index, entry)| match entry.what {
            What::Skipped(skip) if skip.because == Because::OfTheRun => Some((index, &*skip.why)),
            _ => None,
        });
        let is_ours = |index| self.plan.is_outside(&entries.path(index));
        let of_files = self.skipped.iter().map(|(index, why)| (*index, &**why)).find(|(index, _)| !is_ours(*index));
        let Some((index, why)) = of_walk.or(of_files) else { return Ok(()) };
        let path = shown(&entries.path(index));
        let why = format!("{path} ({why}): let it be read, or exclude it by outputs.snapshots.exclude");
        Err(Error::new(ErrorKind::Local, why))
    }

    /// Where the content of a file is, under whichever of its names; or why it is nowhere.
    fn listed_file(&self, index: Index, mode: u32, path: &[u8]) -> ListedAs {
        let first = self.plan.entries.first_name(index);
        let place = self.places.get(first as usize).copied().flatten();
        let Some(file) = place.and_then(|at| self.known.files.get(at)) else {
            let found = self.skipped.binary_search_by_key(&first, |(index, _)| *index);
            let why = found.ok().and_then(|at| self.skipped.get(at)).map(|(_, why)| why.to_string());
            return ListedAs::Skipped { reason: why.unwrap_or_default() };
        };
        let blobs = self.known.blobs.get(file.blobs()).unwrap_or_default();
        ListedAs::File(ListedFile {
            mode,
            size: file.size,
            digest: file.digest,
            layer: file.blob,
            offset: file.offset,
            parts: parts(blobs.iter().map(|known| &known.blob), file.blob),
            same_as: (first != index).then(|| self.plan.entries.path(first)),
            stored: file.stored,
            modified: Some(file.state.modified()),
            ours: self.plan.is_outside(path),
        })
    }
}

impl Lists for Pushed {
    fn indices(&self) -> std::ops::Range<Index> {
        self.plan.entries.indices()
    }

    fn listed(&self, index: Index) -> Option<Listed> {
        let entry = self.plan.entries.get(index)?;
        let path = self.plan.entries.path(index);
        let what = without_content(entry).unwrap_or_else(|| self.listed_file(index, entry.mode, &path));
        Some(Listed { path, what })
    }
}
