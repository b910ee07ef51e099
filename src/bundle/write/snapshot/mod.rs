//! A working directory while its command runs, as an artifact in the registry that is read through its list of files.
//!
//! Only what has changed since the last snapshot is pushed: large files as the layers that they will be in the bundle,
//! others of some size in a blob of their own, the rest together. What has another name, mode or owner costs no bytes: the
//! list says where the content of each path is. Layers that the list hardly refers to are left out of the next snapshot.
//!
//! | file | subject |
//! |---|---|
//! | `survey` | the tree at one moment |
//! | `sort` | what is to be pushed of it |
//! | `pushed` | the tree in the registry, and its list |
//! | `known` | what earlier snapshots pushed |

mod known;
mod pushed;
mod sort;
mod survey;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::kept::Kept;
use super::layer::Layer;
use super::list;
use super::pace::Pace;
use super::{AT_ONCE, LOOKS_AT_ONCE, Saving};
use crate::bundle::blocking::blocking;
use crate::bundle::digest::Digest;
use crate::bundle::format::image::{self, EMPTY};
use crate::bundle::moving_tag;
use crate::bundle::registry::{Purpose, Repository};
use crate::bundle::{Access, Error, ErrorKind, Progress, Tree};
use crate::contract::log_line;
use crate::oci::Reference;
use known::{Known, KnownBlob, KnownFile};
use pushed::Pushed;
use sort::sort;
use survey::Survey;

/// A blob that the registry had this long ago is asked for again.
const ASKED_AGAIN: u64 = 3600;
/// A tree that keeps changing is looked at again some times at least, however long that takes.
const LEAST_LOOKS: u32 = 3;
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);
/// Two stores may have one time within a tick of the clock that file systems use: 10 ms at most.
const TICK: Duration = Duration::from_millis(20);

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
    /// For how long a tree of which all files are wanted of one moment is looked at again while it keeps changing.
    pub patience: Duration,
    /// Layers that are pushed at once; none: as many as when a bundle is saved.
    pub connections: Option<u32>,
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
    let mut looks = 0u32;
    loop {
        looks = looks.saturating_add(1);
        let (now, changed) = match taking.look().await {
            // The registry got other bytes than were hashed: a file was written meanwhile.
            Err(error) if error.kind == ErrorKind::Invalid && begin.elapsed() < wanted.patience => {
                tokio::time::sleep(BETWEEN_LOOKS).await;
                continue;
            }
            looked => looked?,
        };
        match changed {
            None => {
                if wanted.is_consistent {
                    now.check_whole()?;
                }
                return taking.publish(&now, &tag).await;
            }
            Some(path) if looks >= LEAST_LOOKS && begin.elapsed() >= wanted.patience => {
                let why = format!(
                    "{path} was written while the snapshot was taken, {looks} times: have nothing written meanwhile, or \
                     exclude it by outputs.snapshots.exclude"
                );
                return Err(Error::new(ErrorKind::Local, why));
            }
            Some(_) => tokio::time::sleep(BETWEEN_LOOKS).await,
        }
    }
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
        let at_once = self.wanted.connections.and_then(|connections| usize::try_from(connections).ok());
        let at_once = at_once.unwrap_or(AT_ONCE).max(1);
        let mut layers: Vec<Arc<Layer>> = layers.buffer_unordered(at_once).try_collect().await?;
        layers.sort_by_key(|layer| layer.number);
        let new = layers.iter().flat_map(|layer| &layer.blobs).map(|blob| (blob.digest, blob.size));
        let new: Vec<(Digest, u64)> = new.collect();
        self.saving.are_there(&new).await?;
        let keeps_last = !self.wanted.is_consistent;
        let pushed = Arc::new(Pushed::of(plan, &sorted, &layers, &self.known, keeps_last, now())?);
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
        let old = self.known.blobs.iter().enumerate().filter(|(_, known)| known.seen_at + ASKED_AGAIN < now);
        let repository = &self.saving.repository;
        let look = async |(at, KnownBlob { blob, .. }): (usize, &KnownBlob)| {
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
        let layers: Vec<(Digest, u64)> = known.blobs.iter().map(|known| (known.blob.digest, known.blob.size)).collect();
        let manifest = image::snapshot_manifest(&layers, &list)?;
        let number =
            moving_tag::write(&saving.repository, tag, &manifest, known.number).await.inspect_err(|error| {
                // Perhaps it lacks a blob that we rely on.
                if matches!(error.kind, ErrorKind::Invalid | ErrorKind::NotFound) {
                    let _ = fs::remove_file(&self.wanted.known);
                }
            })?;
        if let Err(error) = known.write(&self.wanted.known, number) {
            log_line!("bundle-operator helper: the next snapshot pushes all again: {error}");
        }
        let bytes = known.files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.size));
        let (digest, files) = (Digest::of(&manifest).to_string(), known.files.len() as u64);
        Ok(Snapshot { digest, files, bytes, pushed_bytes })
    }
}

/// In seconds since the epoch.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
