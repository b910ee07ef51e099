//! The content of one file: what its file system says of it, where its holes are, its bytes.

use super::buffer::{Buffer, READ};
use super::cancel::Cancelled;
use super::hang::ask;
use super::skip::Skip;
use crate::bundle::format::sparse::{self, SparseMap};
use crate::bundle::{Error, FileId};
use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{FileType, SeekFrom, Stat};
use rustix::io::Errno;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::{Deref, Range};

/// A file that has more holes than that, and more than data, is saved as a sparse one. The holes of others are zeros in
/// the archive: all programs read those, and nodes can mount them.
const MANY_HOLES: u64 = 1 << 30;
/// Where a file system does not say where holes are, so many may be read as zeros.
const MOST_HOLES_READ: u64 = 64 << 30;

/// The same content, as far as the file system can tell: a hash of what it says of times and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp(u64);

/// Why a file was not copied to its end.
pub(super) enum CopyEnd {
    Changed,
    Failed(Errno),
    Sink(Error),
}

/// Bytes of a file as they were read: whoever keeps them takes the buffer with them instead of a copy.
pub(super) enum Part<'a> {
    Read(&'a mut Buffer),
    Made(&'a [u8]),
}

impl Deref for Part<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Read(bytes) => bytes,
            Self::Made(bytes) => bytes,
        }
    }
}

impl Part<'_> {
    pub(super) fn into_bytes(self) -> Bytes {
        match self {
            Self::Read(buffer) => buffer.take(),
            Self::Made(bytes) => Bytes::copy_from_slice(bytes),
        }
    }
}

/// What a file system says of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) size: u64,
    /// Bytes that seem to take no space.
    holes: u64,
    pub(super) stamp: Stamp,
}

/// None: it is no regular file.
pub(super) fn look(file: &File) -> Result<Option<Seen>, Errno> {
    let stat = rustix::fs::fstat(file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let mut hasher = DefaultHasher::new();
    FileId::from(&stat).hash(&mut hasher);
    (stat.st_size, stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec).hash(&mut hasher);
    Ok(Some(Seen { size: size(&stat), holes: holes(&stat), stamp: Stamp(hasher.finish()) }))
}

fn holes(stat: &Stat) -> u64 {
    let on_disk = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
    size(stat).saturating_sub(on_disk)
}

fn are_many(holes: u64, size: u64) -> bool {
    holes > MANY_HOLES && holes > size / 2
}

pub(super) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// How many bytes of a file go into a layer, as far as its entry tells.
pub(super) fn to_read(stat: &Stat) -> u64 {
    let (size, holes) = (size(stat), holes(stat));
    if are_many(holes, size) { size - holes } else { size }
}

/// Where the data of a file are, if it is to be saved as a sparse one; or why it cannot be saved.
pub(super) fn map_of(
    file: &File,
    seen: &Seen,
    cancelled: &Cancelled,
) -> Result<Result<Option<SparseMap>, Skip>, Error> {
    let Seen { size, holes, .. } = *seen;
    if !are_many(holes, size) {
        return Ok(Ok(None));
    }
    // A file system that compresses has less on the disk without holes, and one may not know where they are.
    let (mut found, mut at) = (0, 0);
    while at < size {
        let stretch = ask(|| stretch(file, at, size));
        found += stretch.data - at;
        at = stretch.end.max(stretch.data);
    }
    if !are_many(found, size) {
        let why = || {
            let gib = MOST_HOLES_READ >> 30;
            Skip::of_the_run(&format!("has more than {gib} GiB of holes, and its file system does not say where"))
        };
        return Ok(if holes > MOST_HOLES_READ && found == 0 { Err(why()) } else { Ok(None) });
    }
    let (mut map, mut at, mut buffer) = (SparseMap::new(size), 0, vec![0; READ]);
    while at < size {
        cancelled.check()?;
        let stretch = ask(|| stretch(file, at, size));
        // What is before the data in their first block is a hole, which reads as zeros.
        let mut from = (stretch.data / sparse::BLOCK * sparse::BLOCK).max(at);
        while from < stretch.end {
            let most = usize::try_from(stretch.end - from).unwrap_or(usize::MAX).min(buffer.len());
            let part = buffer.get_mut(..most).unwrap_or_default();
            let got = match ask(|| rustix::io::pread(file, part, from)) {
                // It has become shorter, which is seen when it is read for its digest.
                Ok(0) => break,
                Ok(got) => got,
                Err(Errno::INTR) => continue,
                Err(error) => return Ok(Err(Skip::unreadable(error))),
            };
            let mut rest = buffer.get(..got).unwrap_or_default();
            while !rest.is_empty() {
                let used = usize::try_from(from % sparse::BLOCK).unwrap_or(0);
                let in_block = usize::try_from(sparse::BLOCK).unwrap_or(usize::MAX) - used;
                let (block, after) = rest.split_at_checked(in_block).unwrap_or((rest, &[]));
                if HOLE.get(..block.len()) != Some(block) {
                    map.add(from);
                }
                from += block.len() as u64;
                rest = after;
            }
        }
        at = stretch.end.max(stretch.data);
    }
    Ok(Ok(Some(map)))
}

/// Reads as many bytes as it has, and makes sure that they are one version of the file. Holes are not read.
pub(super) fn copy(
    file: &File,
    seen: &Seen,
    map: Option<&SparseMap>,
    buffer: &mut Buffer,
    sink: impl FnMut(Part) -> Result<(), Error>,
) -> Result<(), CopyEnd> {
    copy_part(file, seen, map, 0..u64::MAX, buffer, sink)
}

/// The same for a part of what is kept of it: of a sparse file, of its map and the data behind it.
pub(super) fn copy_part(
    file: &File,
    seen: &Seen,
    map: Option<&SparseMap>,
    part: Range<u64>,
    buffer: &mut Buffer,
    mut sink: impl FnMut(Part) -> Result<(), Error>,
) -> Result<(), CopyEnd> {
    match map {
        None => copy_whole(file, part.start, seen.size.min(part.end), buffer, &mut sink)?,
        Some(map) => copy_sparse(file, map, &part, buffer, &mut sink)?,
    }
    match ask(|| look(file)) {
        Ok(Some(now)) if (now.size, now.stamp) == (seen.size, seen.stamp) => Ok(()),
        Ok(_) => Err(CopyEnd::Changed),
        Err(error) => Err(CopyEnd::Failed(error)),
    }
}

fn copy_sparse(
    file: &File,
    map: &SparseMap,
    part: &Range<u64>,
    buffer: &mut Buffer,
    sink: &mut impl FnMut(Part) -> Result<(), Error>,
) -> Result<(), CopyEnd> {
    let mut at = 0;
    let written = map.write(|text| {
        let begin = at;
        at += text.len() as u64;
        let (from, to) = (part.start.clamp(begin, at) - begin, part.end.clamp(begin, at) - begin);
        let of_text = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        sink(Part::Made(text.get(of_text(from)..of_text(to)).unwrap_or_default()))
    });
    written.map_err(CopyEnd::Sink)?;
    for (start, length) in map.pieces() {
        let (from, to) = (part.start.clamp(at, at + length) - at, part.end.clamp(at, at + length) - at);
        copy_data(file, start + from, start + to, buffer, sink)?;
        at += length;
    }
    Ok(())
}

fn copy_whole(
    file: &File,
    mut at: u64,
    size: u64,
    buffer: &mut Buffer,
    sink: &mut impl FnMut(Part) -> Result<(), Error>,
) -> Result<(), CopyEnd> {
    while at < size {
        let stretch = ask(|| stretch(file, at, size));
        while at < stretch.data {
            let most = (stretch.data - at).min(HOLE.len() as u64);
            sink(Part::Made(zeros(most))).map_err(CopyEnd::Sink)?;
            at += most;
        }
        copy_data(file, at, stretch.end, buffer, sink)?;
        at = at.max(stretch.end);
    }
    Ok(())
}

fn copy_data(
    file: &File,
    mut at: u64,
    end: u64,
    buffer: &mut Buffer,
    sink: &mut impl FnMut(Part) -> Result<(), Error>,
) -> Result<(), CopyEnd> {
    while at < end {
        let bytes = buffer.emptied();
        match ask(|| rustix::io::pread(file, spare_capacity(bytes), at)) {
            Ok(0) => return Err(CopyEnd::Changed),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(CopyEnd::Failed(error)),
        }
        bytes.truncate(usize::try_from(end - at).unwrap_or(usize::MAX));
        at += bytes.len() as u64;
        sink(Part::Read(buffer)).map_err(CopyEnd::Sink)?;
    }
    Ok(())
}

/// Of a file from some place on: a hole until `data`, then data until `end`. Either can be empty, not both.
struct Stretch {
    data: u64,
    end: u64,
}

fn stretch(file: &File, at: u64, size: u64) -> Stretch {
    let seek = |to| rustix::fs::seek(file, to);
    // Most files are small, and read sooner than asked about.
    if size <= HOLE.len() as u64 {
        return Stretch { data: at, end: size };
    }
    let data = match seek(SeekFrom::Data(at)) {
        Ok(data) => data.clamp(at, size),
        // There is none any more.
        Err(Errno::NXIO) => return Stretch { data: size, end: size },
        // This file system does not tell: all of it is read.
        Err(_) => return Stretch { data: at, end: size },
    };
    let end = seek(SeekFrom::Hole(data)).map_or(size, |hole| hole.clamp(data, size));
    // No end of it may stay where it was, whatever a file system says.
    if end > at { Stretch { data, end } } else { Stretch { data: at, end: size } }
}

static HOLE: [u8; 64 << 10] = [0; 64 << 10];

/// So many, at most as many as [`HOLE`] has.
pub(super) fn zeros(most: u64) -> &'static [u8] {
    usize::try_from(most).ok().and_then(|most| HOLE.get(..most)).unwrap_or_default()
}
