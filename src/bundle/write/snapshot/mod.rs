//! A working directory while its command runs, as an artifact in the registry that is read through its list of files.
//!
//! Only what has changed since the last snapshot is pushed: large files as the layers that they will be in the bundle,
//! others of some size in a blob of their own, the rest together. What has another name, mode or owner costs no bytes: the
//! list says where the content of each path is. Layers that the list hardly refers to are left out of the next snapshot.
//!
//! | file | subject |
//! |---|---|
//! | `survey` | the tree at one moment |
//! | `known` | what earlier snapshots pushed |

mod known;
mod survey;

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::content::{copy, look};
use super::entries::{Index, What};
use super::hang::ask;
use super::kept::{Kept, SETTLED, State};
use super::layer::{Layer, StoredPart};
use super::layout::{LARGE, Plan};
use super::list::{self, Lists};
use super::pace::Pace;
use super::skip::Because;
use super::{AT_ONCE, LOOKS_AT_ONCE, Saving};
use crate::bundle::blocking::blocking;
use crate::bundle::digest::{Digest, Digester};
use crate::bundle::error::shown;
use crate::bundle::format::image::{self, EMPTY};
use crate::bundle::format::listing::{Listed, ListedAs, ListedFile, ListedPart};
use crate::bundle::moving_tag;
use crate::bundle::registry::{Purpose, Repository};
use crate::bundle::{Access, Error, ErrorKind, Progress, Tree};
use crate::oci::Reference;
use known::{Blob, Known, KnownFile};
use survey::{Marks, Survey, is_first_name};

/// A file of more bytes has a blob of its own, so that nothing else is pushed again when it changes.
const OWN_BLOB: u64 = 1 << 20;
/// Of files that are together in a blob.
const TOGETHER: u64 = LARGE;
/// Registries accept manifests of 4 MiB; a layer takes about 170 bytes there.
const MOST_BLOBS: usize = 9_000;
/// A blob that the registry had this long ago is asked for again.
const ASKED_AGAIN: u64 = 3600;
/// A tree that keeps changing is looked at again for so long, and at least some times.
const PATIENCE: Duration = Duration::from_mins(1);
const LEAST_LOOKS: u32 = 3;
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);
/// Two stores may have one time within a tick of the clock that file systems use: 10 ms at most.
const TICK: Duration = Duration::from_millis(20);
const READ: usize = 256 << 10;

/// Where a snapshot goes, and what it promises.
#[derive(Clone, Debug)]
pub struct SnapshotWanted {
    /// `host[:port]/repository`.
    pub repository: String,
    /// The tag, which moves from one snapshot to the next.
    pub tag: String,
    /// The file in which is kept what was pushed, for the next one.
    pub known: PathBuf,
    /// All files are of one moment; else each is of its own.
    pub is_consistent: bool,
    /// Bytes per second that are read to be pushed; none: no limit.
    pub bytes_per_second: Option<u64>,
}

/// A snapshot in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Of its manifest: `sha256:<hex>`.
    pub digest: String,
    /// Regular files; a file with several names counts once.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// Bytes that went to the registry.
    pub pushed_bytes: u64,
}

/// Takes a snapshot of a tree that is being written.
///
/// # Errors
/// See [`ErrorKind`]. [`ErrorKind::Local`] also if a tree that is wanted at one moment keeps changing.
pub async fn snapshot(
    tree: &Tree,
    wanted: &SnapshotWanted,
    access: &Access,
    progress: &Progress,
) -> Result<Snapshot, Error> {
    let tag = Reference::parse(&format!("{}:{}", wanted.repository, wanted.tag))?.manifest;
    let repository = Repository::new(&Reference::parse_repository(&wanted.repository)?, access, Purpose::Push)?;
    let kept = Kept::read(tree.kept.clone(), true);
    let saving = Saving::new(repository, kept, Pace::of(wanted.bytes_per_second), &tree.given_up, progress);
    let known = Arc::new(Known::read(&wanted.known, &wanted.repository));
    let mut taking = Taking { saving, tree, wanted, known };
    let begin = Instant::now();
    if wanted.is_consistent {
        // What was written up to now shows, if it is written again.
        tokio::time::sleep(TICK).await;
    }
    for looks in 1u32.. {
        let (now, changed) = match taking.look().await {
            // The registry got other bytes than were hashed: a file was written meanwhile.
            Err(error) if error.kind == ErrorKind::Invalid && begin.elapsed() < PATIENCE => {
                tokio::time::sleep(BETWEEN_LOOKS).await;
                continue;
            }
            looked => looked?,
        };
        match changed {
            None => {
                now.check_whole(wanted.is_consistent)?;
                return taking.publish(&now, &tag).await;
            }
            Some(path) if looks >= LEAST_LOOKS && begin.elapsed() >= PATIENCE => {
                let why = format!(
                    "{path} was written while the snapshot was taken, {looks} times: have nothing written meanwhile, or \
                     exclude it by outputs.snapshots.exclude"
                );
                return Err(Error::new(ErrorKind::Local, why));
            }
            Some(_) => tokio::time::sleep(BETWEEN_LOOKS).await,
        }
    }
    Err(Error::new(ErrorKind::Local, "no end of looks"))
}

struct Taking<'a> {
    saving: Saving<'a>,
    tree: &'a Tree,
    wanted: &'a SnapshotWanted,
    known: Arc<Known>,
}

impl Taking<'_> {
    /// Has all of the tree in the registry. The second value: what was written meanwhile, where that matters.
    async fn look(&mut self) -> Result<(Arc<Pushed>, Option<String>), Error> {
        self.ask_again().await?;
        let (tree, known) = (self.tree.clone(), self.known.clone());
        let survey = blocking(move || {
            let survey = Survey::of(&tree, true)?;
            let unsettled = survey.unsettled(TICK);
            let (plan, sorted) = sort(survey, &known)?;
            Ok((plan, sorted, unsettled))
        });
        let (plan, sorted, unsettled) = survey.await?;
        let plan = Arc::new(plan);
        let layers = stream::iter((0..plan.layers()).map(|number| self.saving.layer(&plan, number)));
        let mut layers: Vec<Arc<Layer>> = layers.buffer_unordered(AT_ONCE).try_collect().await?;
        layers.sort_by_key(|layer| layer.number);
        let new = layers.iter().flat_map(|layer| &layer.blobs).map(|blob| (blob.digest, blob.size));
        let new: Vec<(Digest, u64)> = new.collect();
        self.saving.are_there(&new).await?;
        let pushed = Arc::new(self.take_in(plan, &sorted, &layers)?);
        // Also of a look in vain: the next one need not push it again.
        self.known = pushed.known.clone();
        if !self.wanted.is_consistent {
            return Ok((pushed, None));
        }
        let tree = self.tree.clone();
        let later = blocking(move || Survey::of(&tree, false)).await?;
        let changed = sorted.marks.change(&pushed.plan, &later).or(unsettled);
        Ok((pushed, changed))
    }

    /// What the registry had a while ago may have been collected as garbage.
    async fn ask_again(&mut self) -> Result<(), Error> {
        let now = now();
        let old = self.known.blobs.iter().enumerate().filter(|(_, blob)| blob.seen_at + ASKED_AGAIN < now);
        let repository = &self.saving.repository;
        let look = async |(at, blob): (usize, &Blob)| {
            repository.has_blob(&blob.digest, blob.size).await.map(|is_there| (at, is_there))
        };
        let looks: Vec<_> = stream::iter(old.map(look)).buffer_unordered(LOOKS_AT_ONCE).try_collect().await?;
        if looks.is_empty() {
            return Ok(());
        }
        let mut blobs = self.known.blobs.clone();
        let mut is_gone = vec![false; blobs.len()];
        for (at, is_there) in looks {
            if let (Some(blob), Some(is_gone)) = (blobs.get_mut(at), is_gone.get_mut(at)) {
                blob.seen_at = now;
                *is_gone = !is_there;
            }
        }
        let is_there = |file: &&KnownFile| file.blobs().all(|blob| is_gone.get(blob) == Some(&false));
        let files = self.known.files.iter().filter(is_there).copied().collect();
        self.known = Arc::new(self.known.with(&blobs, files));
        Ok(())
    }

    /// What is known once all layers are pushed.
    fn take_in(&self, plan: Arc<Plan>, sorted: &Sorted, layers: &[Arc<Layer>]) -> Result<Pushed, Error> {
        let known = &self.known;
        let now = now();
        let mut blobs = known.blobs.clone();
        let mut first_blobs = Vec::with_capacity(layers.len());
        for layer in layers {
            first_blobs.push(blobs.len());
            let new = layer.blobs.iter();
            blobs.extend(new.map(|blob| Blob { digest: blob.digest, size: blob.size, seen_at: now, part: blob.part }));
        }
        let (mut files, mut places, mut skipped) = (vec![], Vec::with_capacity(sorted.states.len()), vec![]);
        for ((index, state), reused) in plan.entries.indices().zip(&sorted.states).zip(&sorted.reused) {
            let mut file = *reused;
            if file.is_none() && is_first_name(&plan, index) {
                let number = plan.layer_of(index);
                let layer = layers.get(number);
                let stored = layer.and_then(|layer| layer.stored(index));
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
                } else if let Some(before) =
                    state.and_then(|state| known.file(state.id())).filter(|_| !self.wanted.is_consistent)
                {
                    // It keeps changing: what it was in the snapshot before.
                    file = Some(*before);
                } else {
                    let skip = layer.and_then(|layer| layer.skip(index));
                    if let Some(skip) = skip.filter(|skip| skip.is_of_the_machine()) {
                        let path = shown(&plan.entries.path(index));
                        return Err(Error::new(
                            ErrorKind::Local,
                            format!("the snapshot is not whole: {path} ({})", skip.why),
                        ));
                    }
                    skipped.push((index, skip.map_or("was replaced meanwhile".into(), |skip| skip.why.clone())));
                }
            }
            places.push(file.is_some().then_some(files.len()));
            files.extend(file);
        }
        let known = Arc::new(known.with(&blobs, files));
        Ok(Pushed { plan, known, places, skipped })
    }

    async fn publish(&self, pushed: &Arc<Pushed>, tag: &str) -> Result<Snapshot, Error> {
        let (saving, known) = (&self.saving, &pushed.known);
        let (list, blob) = {
            let pushed = pushed.clone();
            blocking(move || list::first_write(&*pushed)).await?
        };
        let mut pushed_bytes = saving.pushed.load(Ordering::Relaxed);
        pushed_bytes += match blob {
            Some(blob) => saving.repository.push_small(&blob).await?,
            None => saving.push_list(&pushed.plan, pushed, &list).await?,
        };
        pushed_bytes += saving.repository.push_small(&Bytes::from_static(EMPTY)).await?;
        let layers: Vec<(Digest, u64)> = known.blobs.iter().map(|blob| (blob.digest, blob.size)).collect();
        let manifest = image::snapshot_manifest(&layers, &list)?;
        let number =
            moving_tag::write(&saving.repository, tag, &manifest, known.number).await.inspect_err(|error| {
                // Perhaps it lacks a blob that we rely on.
                if matches!(error.kind, ErrorKind::Invalid | ErrorKind::NotFound) {
                    let _ = fs::remove_file(&self.wanted.known);
                }
            })?;
        if let Err(error) = known.write(&self.wanted.known, number) {
            eprintln!("bundle-operator helper: the next snapshot pushes all again: {error}");
        }
        let bytes = known.files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.size));
        let (digest, files) = (Digest::of(&manifest).to_string(), known.files.len() as u64);
        Ok(Snapshot { digest, files, bytes, pushed_bytes })
    }
}

/// What is to be done with a tree.
struct Sorted {
    /// When it was looked at.
    at: SystemTime,
    states: Vec<Option<State>>,
    marks: Marks,
    /// By entries: what is in the registry.
    reused: Vec<Option<KnownFile>>,
}

/// The plan has what is to be pushed in its layers.
fn sort(survey: Survey, known: &Known) -> Result<(Plan, Sorted), Error> {
    let Survey { at, plan, states, marks, is_relied_on } = survey;
    let mut buffer = vec![0; READ];
    let mut reused = Vec::with_capacity(states.len());
    for (index, state) in plan.entries.indices().zip(&states) {
        let same = state.and_then(|state| {
            let known = known.file(state.id())?;
            let is_settled = state.quiet_until(at) >= SETTLED;
            let is_same = is_same(&plan, index, &state, known, is_relied_on, &mut buffer);
            is_same.then_some(KnownFile { state, is_settled, ..*known })
        });
        reused.push(same);
    }
    let are_worth_it = known.are_worth_it(reused.iter().flatten().copied());
    let many = are_worth_it.iter().filter(|worth| **worth).count();
    for file in &mut reused {
        *file = file.filter(|file| many <= MOST_BLOBS / 2 && are_worth_it.get(file.blob) == Some(&true));
    }
    let layers = layers(&plan, &reused);
    Ok((plan.with_layers(&layers)?, Sorted { at, states, marks, reused }))
}

/// Whether an entry's content is what is known. Only where its state leaves that open it is read.
fn is_same(plan: &Plan, index: Index, state: &State, known: &KnownFile, is_relied_on: bool, buffer: &mut [u8]) -> bool {
    if is_relied_on && known.is_settled && *state == known.state {
        return true;
    }
    let may_be_same = !state.seems_written_since(&known.state) && known.stored.is_none();
    may_be_same && digest(plan, index, buffer) == Some(known.digest)
}

/// None: it cannot be read, or changes meanwhile.
fn digest(plan: &Plan, index: Index, buffer: &mut [u8]) -> Option<Digest> {
    let file = File::from(ask(|| plan.open(index)).ok()?);
    let seen = ask(|| look(&file)).ok()??;
    let mut digester = Digester::default();
    let sink = |bytes: &[u8]| {
        digester.update(bytes);
        Ok(())
    };
    copy(&file, &seen, None, buffer, sink).ok()?;
    Some(digester.finish())
}

/// What is to be pushed, and what of it together.
fn layers(plan: &Plan, reused: &[Option<KnownFile>]) -> Vec<Vec<Index>> {
    let is_new = |index: &Index| is_first_name(plan, *index) && matches!(reused.get(*index as usize), Some(None));
    let size = |index: Index| match plan.entries.get(index).map(|entry| entry.what) {
        Some(What::File { size }) => size,
        _ => 0,
    };
    let new: Vec<(Index, u64)> = plan.entries.indices().filter(is_new).map(|index| (index, size(index))).collect();
    let mut own = OWN_BLOB;
    while new.iter().filter(|(_, size)| *size > own).count() > MOST_BLOBS / 2 {
        own *= 2;
    }
    let mut layers: Vec<Vec<Index>> = vec![];
    let (mut together, mut bytes) = (vec![], 0u64);
    for (index, size) in new {
        if size > own {
            layers.push(vec![index]);
            continue;
        }
        together.push(index);
        bytes = bytes.saturating_add(size);
        if bytes >= TOGETHER.max(own) {
            layers.push(std::mem::take(&mut together));
            bytes = 0;
        }
    }
    layers.extend((!together.is_empty()).then_some(together));
    layers
}

/// A tree that is in the registry but for its list.
struct Pushed {
    plan: Arc<Plan>,
    known: Arc<Known>,
    /// By entries: where a file is in `known`, if the entry is its first name.
    places: Vec<Option<usize>>,
    /// Why files are not there, by entries, sorted.
    skipped: Vec<(Index, Box<str>)>,
}

impl Pushed {
    /// Who waits for a snapshot goes on from it as if it had all: an error, if it lacks what the command would not let us read.
    fn check_whole(&self, is_consistent: bool) -> Result<(), Error> {
        let entries = &self.plan.entries;
        let of_walk = entries.iter().find_map(|(index, entry)| match entry.what {
            What::Skipped(skip) if skip.because == Because::OfTheRun => Some((index, &*skip.why)),
            _ => None,
        });
        let of_files = self.skipped.first().map(|(index, why)| (*index, &**why));
        match of_walk.or(of_files).filter(|_| is_consistent) {
            None => Ok(()),
            Some((index, why)) => {
                let path = shown(&entries.path(index));
                let why = format!("{path} ({why}): let it be read, or exclude it by outputs.snapshots.exclude");
                Err(Error::new(ErrorKind::Local, why))
            }
        }
    }

    fn parts(&self, file: &KnownFile) -> Vec<ListedPart> {
        let blobs = self.known.blobs.iter().enumerate().skip(file.blob).take(file.blobs);
        let part = |(layer, blob): (usize, &Blob)| {
            blob.part.map(|StoredPart { offset, bytes }| ListedPart { layer, offset, bytes })
        };
        blobs.filter_map(part).collect()
    }
}

impl Lists for Pushed {
    fn indices(&self) -> std::ops::Range<Index> {
        self.plan.entries.indices()
    }

    fn listed(&self, index: Index) -> Option<Listed> {
        let entries = &self.plan.entries;
        let entry = entries.get(index)?;
        let path = entries.path(index);
        let what = match entry.what {
            What::Directory => ListedAs::Directory { mode: entry.mode },
            What::Link { target } => ListedAs::Link { target: target.to_vec() },
            What::Skipped(skip) => ListedAs::Skipped { reason: skip.why.to_string() },
            What::File { .. } => {
                let first = entries.first_name(index);
                let place = self.places.get(first as usize).copied().flatten();
                if let Some(file) = place.and_then(|at| self.known.files.get(at)) {
                    ListedAs::File(ListedFile {
                        mode: entry.mode,
                        size: file.size,
                        digest: file.digest,
                        layer: file.blob,
                        offset: file.offset,
                        parts: self.parts(file),
                        same_as: (first != index).then(|| entries.path(first)),
                        stored: file.stored,
                        modified: Some(file.state.modified()),
                        ours: self.plan.is_outside(&path),
                    })
                } else {
                    let found = self.skipped.binary_search_by_key(&first, |(index, _)| *index);
                    let why = found.ok().and_then(|at| self.skipped.get(at)).map(|(_, why)| why.to_string());
                    ListedAs::Skipped { reason: why.unwrap_or_default() }
                }
            }
        };
        Some(Listed { path, what })
    }
}

/// In seconds since the epoch.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
