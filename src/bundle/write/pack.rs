//! The bytes of a layer, read from the tree: once to learn its digest, and again, the same, for every try to push it.

use super::layout::Plan;
use super::skip::Skip;
use super::walk::{Cancelled, What};
use crate::bundle::digest::{Digest, Digester};
use crate::bundle::format::tar_header;
use crate::bundle::{Error, ErrorKind, FileId};
use rustix::fs::{FileType, SeekFrom};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::File;
use std::time::Duration;

const READ: usize = 256 << 10;
/// So often a file is read that changes meanwhile.
const MOST_READS: u32 = 4;
const BETWEEN_READS: Duration = Duration::from_millis(50);

/// A layer whose digest is known.
pub(in crate::bundle) struct Layer {
    /// Indices of entries and what became of them.
    pub(in crate::bundle) members: Vec<(usize, Fate)>,
    pub(in crate::bundle) digest: Digest,
    pub(in crate::bundle) size: u64,
}

#[derive(Clone, Debug)]
pub(in crate::bundle) enum Fate {
    /// Directories, links, and names of files that have an earlier one: all is in the header.
    Header,
    /// A file with its content.
    File(StoredFile),
    /// Left out after all.
    Skipped(Skip),
}

#[derive(Clone, Debug)]
pub(in crate::bundle) struct StoredFile {
    /// Of the content in the layer.
    pub(in crate::bundle) offset: u64,
    pub(in crate::bundle) size: u64,
    pub(in crate::bundle) digest: Digest,
    stamp: Stamp,
}

/// The same content, as far as the file system can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    file: FileId,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Why a layer was not read to its end.
#[derive(Debug)]
pub(in crate::bundle) enum Unread {
    /// This entry is not what it was when it was hashed.
    Changed(usize),
    /// This entry, which was read before, cannot be read any more.
    Failed(usize, Skip),
    /// Who takes the bytes takes no more.
    NotTaken,
}

enum CopyEnd {
    Changed,
    Failed(Errno),
    Sink(Error),
}

/// Reads a layer for its digest. `given_up` names entries that are left out, and why.
pub(in crate::bundle) fn hash(
    plan: &Plan,
    entries: &[usize],
    given_up: &BTreeMap<usize, Skip>,
    cancelled: &Cancelled,
) -> Result<Layer, Error> {
    let mut layer = Layer { members: Vec::with_capacity(entries.len()), digest: Digest::of(&[]), size: 0 };
    let mut digester = Digester::default();
    let mut buffer = vec![0; READ];
    let mut skipped: BTreeMap<usize, Skip> = given_up.clone();
    for &index in entries {
        cancelled.check()?;
        let first = plan.first_name(index);
        let fate = match skipped.get(&first) {
            Some(skip) => Fate::Skipped(skip.clone()),
            None if first == index && is_file(plan, index) => {
                hash_file(plan, index, &mut digester, &mut layer.size, &mut buffer, cancelled)?
            }
            None => {
                let header = plan.header(index, 0);
                digester.update(&header);
                layer.size += header.len() as u64;
                Fate::Header
            }
        };
        if let Fate::Skipped(skip) = &fate {
            skipped.insert(index, skip.clone());
        }
        layer.members.push((index, fate));
    }
    digester.update(&tar_header::END);
    layer.size += tar_header::END.len() as u64;
    layer.digest = digester.finish();
    Ok(layer)
}

fn hash_file(
    plan: &Plan,
    index: usize,
    digester: &mut Digester,
    position: &mut u64,
    buffer: &mut [u8],
    cancelled: &Cancelled,
) -> Result<Fate, Error> {
    let mut skip = Skip::of_the_run("kept changing while it was read");
    for read in 0..MOST_READS {
        if read > 0 {
            std::thread::sleep(BETWEEN_READS);
        }
        let (file, stamp) = match open(plan, index) {
            Ok(opened) => opened,
            // A disk that fails is not asked again at once: whoever saves tries it all again, later.
            Err(unread) if unread.is_of_the_machine() => return Ok(Fate::Skipped(unread)),
            Err(unread) => {
                skip = unread;
                continue;
            }
        };
        let header = plan.header(index, stamp.size);
        let (mut all, mut own) = (digester.clone(), Digester::default());
        all.update(&header);
        let copied = copy(&file, &stamp, buffer, |bytes| {
            all.update(bytes);
            own.update(bytes);
            cancelled.check()
        });
        match copied {
            Ok(()) => {}
            Err(CopyEnd::Changed) => {
                skip = Skip::of_the_run("kept changing while it was read");
                continue;
            }
            Err(CopyEnd::Failed(error)) => return Ok(Fate::Skipped(Skip::unreadable(error))),
            Err(CopyEnd::Sink(error)) => return Err(error),
        }
        let padding = tar_header::padding(stamp.size);
        all.update(zeros(padding));
        *digester = all;
        let offset = *position + header.len() as u64;
        *position = offset + stamp.size + padding;
        return Ok(Fate::File(StoredFile { offset, size: stamp.size, digest: own.finish(), stamp }));
    }
    Ok(Fate::Skipped(skip))
}

/// Gives the bytes of a hashed layer to `take`, which says whether it takes more.
pub(in crate::bundle) fn read(plan: &Plan, layer: &Layer, mut take: impl FnMut(&[u8]) -> bool) -> Result<(), Unread> {
    let mut buffer = vec![0; READ];
    // Small entries go out together.
    let mut pending: Vec<u8> = Vec::with_capacity(READ);
    let taken = |taken: bool| if taken { Ok(()) } else { Err(Unread::NotTaken) };
    for (index, fate) in &layer.members {
        match fate {
            Fate::Skipped(_) => {}
            Fate::Header => pending.extend(plan.header(*index, 0)),
            Fate::File(stored) => {
                pending.extend(plan.header(*index, stored.size));
                let (file, stamp) = open(plan, *index).map_err(|skip| {
                    if skip.is_of_the_machine() { Unread::Failed(*index, skip) } else { Unread::Changed(*index) }
                })?;
                if stamp != stored.stamp {
                    return Err(Unread::Changed(*index));
                }
                let copied = copy(&file, &stamp, &mut buffer, |bytes| {
                    pending.extend_from_slice(bytes);
                    let full = pending.len() >= READ;
                    let more = !full || take(&pending);
                    if full {
                        pending.clear();
                    }
                    if more { Ok(()) } else { Err(Error::new(ErrorKind::Local, "not taken")) }
                });
                copied.map_err(|end| match end {
                    CopyEnd::Changed => Unread::Changed(*index),
                    CopyEnd::Failed(error) => Unread::Failed(*index, Skip::unreadable(error)),
                    CopyEnd::Sink(_) => Unread::NotTaken,
                })?;
                pending.extend_from_slice(zeros(tar_header::padding(stored.size)));
            }
        }
        if pending.len() >= READ {
            taken(take(&pending))?;
            pending.clear();
        }
    }
    pending.extend_from_slice(&tar_header::END);
    taken(take(&pending))
}

fn is_file(plan: &Plan, index: usize) -> bool {
    plan.entries.get(index).is_some_and(|entry| matches!(entry.what, What::File { .. }))
}

/// A regular file, or why there is none.
fn open(plan: &Plan, index: usize) -> Result<(File, Stamp), Skip> {
    let file: File = plan.open(index).map_err(Skip::unreadable)?.into();
    let stamp = stamp(&file).map_err(Skip::unreadable)?.ok_or_else(|| Skip::unreadable(Errno::NXIO))?;
    Ok((file, stamp))
}

/// None: it is no regular file.
fn stamp(file: &File) -> Result<Option<Stamp>, Errno> {
    let stat = rustix::fs::fstat(file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    #[allow(clippy::unnecessary_cast, clippy::cast_possible_wrap, clippy::cast_lossless)] // Differ by architecture.
    Ok(Some(Stamp {
        file: FileId::from(&stat),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        modified: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
        changed: (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
    }))
}

/// Reads as many bytes as the stamp says, and makes sure that they are one version of the file. Holes are not read.
fn copy(
    file: &File,
    stamp: &Stamp,
    buffer: &mut [u8],
    mut sink: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), CopyEnd> {
    let mut at = 0;
    while at < stamp.size {
        let stretch = stretch(file, at, stamp);
        while at < stretch.data {
            let most = (stretch.data - at).min(HOLE.len() as u64);
            sink(zeros(most)).map_err(CopyEnd::Sink)?;
            at += most;
        }
        while at < stretch.end {
            let most = usize::try_from(stretch.end - at).unwrap_or(usize::MAX).min(buffer.len());
            let Some(part) = buffer.get_mut(..most) else { return Err(CopyEnd::Changed) };
            let got = match rustix::io::pread(file, &mut *part, at) {
                Ok(0) => return Err(CopyEnd::Changed),
                Ok(got) => got,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(CopyEnd::Failed(error)),
            };
            sink(part.get(..got).unwrap_or_default()).map_err(CopyEnd::Sink)?;
            at += got as u64;
        }
    }
    match self::stamp(file) {
        Ok(now) if now.as_ref() == Some(stamp) => Ok(()),
        Ok(_) => Err(CopyEnd::Changed),
        Err(error) => Err(CopyEnd::Failed(error)),
    }
}

/// Of a file from some place on: a hole until `data`, then data until `end`. Either can be empty, not both.
struct Stretch {
    data: u64,
    end: u64,
}

fn stretch(file: &File, at: u64, stamp: &Stamp) -> Stretch {
    let seek = |to| rustix::fs::seek(file, to);
    // Most files are small, and read sooner than asked about.
    if stamp.size <= HOLE.len() as u64 {
        return Stretch { data: at, end: stamp.size };
    }
    let data = match seek(SeekFrom::Data(at)) {
        Ok(data) => data.clamp(at, stamp.size),
        // There is none any more.
        Err(Errno::NXIO) => return Stretch { data: stamp.size, end: stamp.size },
        // This file system does not tell: all of it is read.
        Err(_) => return Stretch { data: at, end: stamp.size },
    };
    let end = seek(SeekFrom::Hole(data)).map_or(stamp.size, |hole| hole.clamp(data, stamp.size));
    // No end of it may stay where it was, whatever a file system says.
    if end > at { Stretch { data, end } } else { Stretch { data: at, end: stamp.size } }
}

static HOLE: [u8; 64 << 10] = [0; 64 << 10];

/// So many, at most as many as [`HOLE`] has.
fn zeros(most: u64) -> &'static [u8] {
    usize::try_from(most).ok().and_then(|most| HOLE.get(..most)).unwrap_or_default()
}
