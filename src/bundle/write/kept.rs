//! Digests of large files that were found out before: while the command ran, or by a try to save that failed.
//!
//! A digest is good for as long as the file is the same. What a file system says of times and size tells that, with one
//! exception: a program that writes through a mapping moves the times with its first store into a page that is clean, and
//! with no other until that page is written back. So a file is cleaned (`fdatasync`) before it is looked at and hashed,
//! and again before its digest is relied on. That holds for the file systems of [`KNOWN`]; of files elsewhere, on tmpfs
//! for one, nothing is kept.

use super::content::look;
use super::entries::{Index, What};
use super::hang::{about_entry, ask};
use super::layer::{Blob, Layer, StoredFile};
use super::layout::Plan;
use crate::bundle::FileId;
use crate::bundle::digest::Digest;
use crate::bundle::format::tar_header::Type;
use crate::contract::log_line;
use rustix::fd::AsFd;
use rustix::fs::{Stat, fdatasync, fstat, fstatfs};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// ext4, XFS and Btrfs: their `page_mkwrite` moves the times.
const KNOWN: [u32; 3] = [0xef53, 0x5846_5342, 0x9123_683e];
/// What changed more recently may change again within one tick of the clock that file systems use.
pub(super) const SETTLED: Duration = Duration::from_secs(1);

/// What a file system says of a clean file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct State {
    id: FileId,
    size: i64,
    /// Seconds and nanoseconds.
    mtime: (i64, u64),
    ctime: (i64, u64),
}

impl State {
    fn of(stat: &Stat) -> Self {
        Self {
            id: FileId::from(stat),
            size: stat.st_size,
            mtime: (stat.st_mtime, stat.st_mtime_nsec),
            ctime: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    pub(super) fn id(&self) -> FileId {
        self.id
    }

    /// Seconds and nanoseconds.
    pub(super) fn modified(&self) -> (i64, u64) {
        self.mtime
    }

    /// It may have another name, owner or mode, or other names. Its content is another, too, where a program has set the time
    /// back.
    pub(super) fn seems_written_since(&self, before: &Self) -> bool {
        (self.id, self.size, self.mtime) != (before.id, before.size, before.mtime)
    }

    /// For how long nothing has changed; zero: the clock says that it will change.
    pub(super) fn quiet_for(&self) -> Duration {
        self.quiet_until(SystemTime::now())
    }

    /// The same at another time.
    pub(super) fn quiet_until(&self, time: SystemTime) -> Duration {
        // Every change moves it, that of the other time too, which a program may have set to any.
        let (seconds, nanoseconds) = self.ctime;
        let changed = Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanoseconds).unwrap_or(0));
        time.duration_since(UNIX_EPOCH + changed).unwrap_or_default()
    }
}

/// A layer of one file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeptLayer {
    state: State,
    blobs: Vec<Blob>,
    /// Of the file, and where it begins in the first of them.
    content: Digest,
    offset: u64,
    /// It had not been written for a while when it was read: its state tells whether it was written since. Else all that is
    /// known is what the registry may have.
    #[serde(default)]
    is_settled: bool,
}

/// What is known, by its [`key`].
#[derive(Debug, Default)]
pub(in crate::bundle) struct Kept {
    /// Where it is kept between processes; none: nothing is kept.
    file: Option<PathBuf>,
    /// Digests that are found out now are kept too.
    adds: bool,
    layers: Mutex<BTreeMap<Digest, KeptLayer>>,
}

impl Kept {
    /// What an earlier process kept in `file`. `adds`: and what this one finds out, which costs that large files are
    /// written to the disk before they are read.
    pub(in crate::bundle) fn read(file: Option<PathBuf>, adds: bool) -> Self {
        let known = file.as_ref().and_then(|file| serde_json::from_slice(&fs::read(file).ok()?).ok());
        let layers: Vec<(Digest, KeptLayer)> = known.unwrap_or_default();
        Self { file, adds, layers: Mutex::new(layers.into_iter().collect()) }
    }

    fn layers(&self) -> MutexGuard<'_, BTreeMap<Digest, KeptLayer>> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Digests that are found out now are kept too.
    pub(in crate::bundle) fn adds(&self) -> bool {
        self.adds
    }

    /// There is a digest of what the layer was, if no more.
    pub(in crate::bundle) fn knew(&self, plan: &Plan, number: usize) -> bool {
        only_file(plan, number).is_some_and(|(index, size)| self.layers().contains_key(&key(plan, index, size)))
    }

    /// A layer that needs not be read for its digest.
    pub(in crate::bundle) fn layer(&self, plan: &Plan, number: usize) -> Option<Layer> {
        let (index, size) = only_file(plan, number)?;
        let known = self.layers().get(&key(plan, index, size)).filter(|known| known.is_settled)?.clone();
        about_entry(index);
        let file = File::from(ask(|| plan.open(index)).ok()?);
        // Only what was not written since is clean: the look before saves writing the rest to the disk for nothing.
        let is_same = |state: Result<State, Errno>| state == Ok(known.state);
        if !is_same(state(&file)) || !is_same(clean(&file)) {
            return None;
        }
        let seen = ask(|| look(&file)).ok()??;
        let KeptLayer { blobs, content, offset, .. } = known;
        let stored = StoredFile { entry: index, digest: content, offset, size: seen.size };
        Some(Layer::of_one(number, blobs, stored, seen.stamp, None))
    }

    /// Begins to find out a digest: what the file is now, if its digest can be kept.
    pub(in crate::bundle) fn begin(&self, plan: &Plan, number: usize) -> Option<Keeping> {
        let (index, size) = only_file(plan, number).filter(|_| self.adds)?;
        about_entry(index);
        let file = File::from(ask(|| plan.open(index)).ok()?);
        let state = clean(&file).ok().filter(|_| is_relied_on(&file))?;
        Some(Keeping { key: key(plan, index, size), file, is_settled: state.quiet_for() >= SETTLED, state })
    }

    /// Keeps a digest, if the file is what it was.
    pub(in crate::bundle) fn end(&self, keeping: &Keeping, layer: &Layer) {
        let ([stored], false) = (layer.files(), layer.has_sparse_files()) else { return };
        if state(&keeping.file) != Ok(keeping.state) {
            return;
        }
        let (content, offset) = (stored.digest, stored.offset);
        let Keeping { state, is_settled, .. } = *keeping;
        let kept = KeptLayer { state, blobs: layer.blobs.clone(), content, offset, is_settled };
        let mut layers = self.layers();
        layers.insert(keeping.key, kept);
        if let Err(error) = self.write(&layers) {
            log_line!("bundle-operator helper: a digest is not kept: {error}");
        }
    }

    /// The registry got another content than this.
    pub(in crate::bundle) fn forget(&self, plan: &Plan, number: usize) {
        if let Some((index, size)) = only_file(plan, number) {
            self.layers().remove(&key(plan, index, size));
        }
    }

    fn write(&self, layers: &BTreeMap<Digest, KeptLayer>) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        write_json(file, &layers.iter().collect::<Vec<_>>())
    }
}

/// Writes what is known for the next process so that nobody sees half of it. More than one process may write.
pub(super) fn write_json(file: &Path, known: &impl Serialize) -> io::Result<()> {
    let draft = file.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&draft, serde_json::to_vec(known)?)?;
    fs::rename(draft, file)
}

/// A digest that is being found out.
#[derive(Debug)]
pub(in crate::bundle) struct Keeping {
    key: Digest,
    file: File,
    state: State,
    is_settled: bool,
}

/// The one entry of a layer and its size, if it is a file.
pub(super) fn only_file(plan: &Plan, number: usize) -> Option<(Index, u64)> {
    let [index] = *plan.layer(number) else { return None };
    let What::File { size } = plan.entries.get(index)?.what else { return None };
    Some((index, size))
}

/// What a layer is known by: the digest of the header in it, with the path, the mode and the size.
fn key(plan: &Plan, index: Index, size: u64) -> Digest {
    Digest::of(&plan.header(index, Type::File { size }))
}

/// Its file system moves the times of a file that is clean with the first store through a mapping.
pub(super) fn is_relied_on(file: impl AsFd) -> bool {
    ask(|| fstatfs(file)).is_ok_and(|stat| u32::try_from(stat.f_type).is_ok_and(|of| KNOWN.contains(&of)))
}

pub(super) fn state(file: impl AsFd) -> Result<State, Errno> {
    ask(|| fstat(file)).map(|stat| State::of(&stat))
}

/// Has what is not yet on the disk written to it.
pub(super) fn clean(file: &File) -> Result<State, Errno> {
    ask(|| fdatasync(file))?;
    state(file)
}
