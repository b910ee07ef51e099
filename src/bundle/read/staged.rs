//! What is to be made of a bundle in a place, in little memory, and the making of its files.

use super::budget::{Budget, Held};
use super::destination::{Maker, Piece, checked};
use super::feed::Feed;
use super::path_log::PathLog;
use crate::bundle::blocking::beside;
use crate::bundle::digest::{Digest, Digester};
use crate::bundle::error::shown;
use crate::bundle::format::listing::{Listed, ListedAs, ListedFile};
use crate::bundle::format::sparse;
use crate::bundle::{Error, ErrorKind};
use bytes::Bytes;
use std::collections::HashMap;

/// Less than it between two wanted files is read and thrown away: a request costs more.
const GAP: u64 = 256 << 10;
/// A file of so many bytes is hashed by another thread while it is written.
const WORTH_A_THREAD: u64 = 8 << 20;
/// Pieces that wait to be hashed.
const PIECES: usize = 4;
/// What a segment takes beside its files.
const SEGMENT_BYTES: u64 = 256;

/// What is to be made in a place; paths from there.
pub(super) struct Tree {
    /// With their modes, parents before their children.
    pub(super) directories: PathLog<1>,
    pub(super) segments: Vec<Segment>,
    /// Files with their modes and times.
    pub(super) empty: PathLog<3>,
    /// With their targets.
    pub(super) links: PathLog<0>,
    /// With the path of another name of the same file.
    pub(super) hard_links: PathLog<0>,
    /// The memory that it takes.
    pub(super) held: Held,
}

/// Makes a [`Tree`] of entries, one after the other in the order of their paths. A file takes about 45 bytes, and what
/// is new in its path.
pub(super) struct Planner<'a> {
    dir: &'a [u8],
    /// What the command said is left out.
    without_ours: bool,
    budget: &'a Budget,
    tree: Tree,
    /// For names of files whose first name is not in the directory: which of them came first.
    first_here: HashMap<Vec<u8>, Vec<u8>>,
    /// The last segment of each layer.
    last: HashMap<usize, usize>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(dir: &'a [u8], budget: &'a Budget) -> Self {
        let tree = Tree {
            directories: PathLog::default(),
            segments: vec![],
            empty: PathLog::default(),
            links: PathLog::default(),
            hard_links: PathLog::default(),
            held: budget.held(),
        };
        Self { dir, without_ours: false, budget, tree, first_here: HashMap::new(), last: HashMap::new() }
    }

    pub(super) fn budget(&self) -> &'a Budget {
        self.budget
    }

    pub(super) fn without_ours(self) -> Self {
        Self { without_ours: true, ..self }
    }

    /// From the directory; `None` for that itself and for what is elsewhere.
    fn path_here<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        if self.dir.is_empty() {
            return (!path.is_empty()).then_some(path);
        }
        path.strip_prefix(self.dir)?.strip_prefix(b"/")
    }

    pub(super) fn add(&mut self, entry: Listed) -> Result<(), Error> {
        let Some(path) = self.path_here(&entry.path) else { return Ok(()) };
        checked(path)?;
        self.budget.entry()?;
        match entry.what {
            ListedAs::Directory { mode } => self.log(|tree| &mut tree.directories, path, [mode.into()], &[]),
            ListedAs::Link { target } => self.log(|tree| &mut tree.links, path, [], &target),
            ListedAs::Skipped { .. } => Ok(()),
            ListedAs::File(ListedFile { ours: true, .. }) if self.without_ours => Ok(()),
            ListedAs::File(file) => self.file(path, file),
        }
    }

    fn log<const NUMBERS: usize>(
        &mut self,
        log: impl FnOnce(&mut Tree) -> &mut PathLog<NUMBERS>,
        path: &[u8],
        numbers: [u64; NUMBERS],
        text: &[u8],
    ) -> Result<(), Error> {
        let log = log(&mut self.tree);
        let before = log.size();
        log.push(path, numbers, text);
        let more = log.size() - before;
        self.budget.hold(&mut self.tree.held, more)
    }

    fn file(&mut self, path: &[u8], mut file: ListedFile) -> Result<(), Error> {
        if let Some(first) = file.same_as.take() {
            if let Some(here) = self.path_here(&first) {
                checked(here)?;
                return self.log(|tree| &mut tree.hard_links, path, [], here);
            }
            if let Some(here) = self.first_here.get(&first).cloned() {
                return self.log(|tree| &mut tree.hard_links, path, [], &here);
            }
            self.budget.hold(&mut self.tree.held, (first.len() + path.len() + 128) as u64)?;
            self.first_here.insert(first, path.to_vec());
        }
        let is_in_parts = !file.parts.is_empty();
        let ListedFile { mode, size, digest, offset, layer, stored, modified, .. } = file;
        let (seconds, nanoseconds) = modified.unwrap_or_default();
        let seconds = u64::try_from(seconds).unwrap_or_default();
        if size == 0 {
            return self.log(|tree| &mut tree.empty, path, [mode.into(), seconds, nanoseconds], &[]);
        }
        let segment = match self.last.get(&layer).copied() {
            Some(last) if !is_in_parts && self.goes_on(last, offset) => last,
            last => self.new_segment(layer, offset, last)?,
        };
        let Some(place) = self.tree.segments.get_mut(segment) else { return Ok(()) };
        let mut gap = 0;
        if is_in_parts {
            place.ranges = ranges_of(&file);
            self.last.remove(&layer);
            self.budget.hold(&mut self.tree.held, (place.ranges.len() * size_of::<LayerRange>()) as u64)?;
        } else if let [range] = &mut *place.ranges {
            gap = offset - range.end;
            let end = offset.checked_add(file.bytes());
            range.end = end.ok_or_else(|| Error::invalid("the bundle's list has a file without end"))?;
        }
        let files = &mut place.files;
        let before = files.size();
        // No sparse file has no map.
        let numbers = [gap, size, mode.into(), stored.unwrap_or(0), seconds, nanoseconds];
        files.push(path, numbers, digest.bytes());
        let more = files.size() - before;
        self.budget.hold(&mut self.tree.held, more)
    }

    /// Whether what is at `offset` follows on what a segment has of its layer.
    fn goes_on(&self, segment: usize, offset: u64) -> bool {
        let ranges = self.tree.segments.get(segment).map(|segment| &*segment.ranges);
        let Some([range]) = ranges else { return false };
        offset.checked_sub(range.end).is_some_and(|gap| gap <= GAP)
    }

    fn new_segment(&mut self, layer: usize, start: u64, last: Option<usize>) -> Result<usize, Error> {
        if let Some(last) = last.and_then(|last| self.tree.segments.get_mut(last)) {
            last.files.close();
        }
        self.budget.hold(&mut self.tree.held, SEGMENT_BYTES)?;
        let number = self.tree.segments.len();
        self.tree
            .segments
            .push(Segment { ranges: vec![LayerRange { layer, start, end: start }], files: PathLog::default() });
        self.last.insert(layer, number);
        Ok(number)
    }

    pub(super) fn finish(self) -> Tree {
        self.tree
    }
}

/// A time as it is in a [`PathLog`], in seconds and nanoseconds. None: there is none of its own.
pub(super) fn time_of([seconds, nanoseconds]: [u64; 2]) -> Option<(i64, u64)> {
    i64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(|seconds| (seconds, nanoseconds))
}

/// Of a layer: the bytes from `start` to before `end`.
#[derive(Clone, Copy, Debug)]
pub(super) struct LayerRange {
    pub(super) layer: usize,
    pub(super) start: u64,
    pub(super) end: u64,
}

/// Where the content of a file is.
pub(super) fn ranges_of(file: &ListedFile) -> Vec<LayerRange> {
    let range = |layer, start: u64, bytes| LayerRange { layer, start, end: start.saturating_add(bytes) };
    if file.parts.is_empty() {
        return vec![range(file.layer, file.offset, file.bytes())];
    }
    file.parts.iter().map(|part| range(part.layer, part.offset, part.bytes)).collect()
}

/// Files that are read from a layer in one go, or one that is in parts.
pub(super) struct Segment {
    /// One; or where the parts are.
    pub(super) ranges: Vec<LayerRange>,
    /// Each with what is between it and the one before, its size, its mode, what it has in the layer if it is a sparse one,
    /// or else 0, its time in seconds and nanoseconds, or else 0, and its digest.
    files: PathLog<6>,
}

impl Segment {
    pub(super) fn bytes(&self) -> u64 {
        self.ranges.iter().fold(0, |sum: u64, range| sum.saturating_add(range.end - range.start))
    }

    pub(super) fn write(self, mut feed: Feed, mut maker: Maker) -> Result<(), Error> {
        self.files.each(|path, [gap, size, mode, stored, seconds, nanoseconds], digest| {
            skip(&mut feed, gap)?;
            let mut new = maker.file(path)?;
            let digest = Digest::new(digest.try_into().unwrap_or_default());
            let content = Content { size, stored: (stored > 0).then_some(stored), digest };
            copy(&mut feed, &content, &shown(path), &mut |piece| new.put(&piece))?;
            new.finish(u32::try_from(mode).unwrap_or_default(), time_of([seconds, nanoseconds]))
        })
    }
}

fn skip(feed: &mut Feed, mut bytes: u64) -> Result<(), Error> {
    while bytes > 0 {
        bytes -= part(feed, bytes)?.len() as u64;
    }
    Ok(())
}

/// What a file is, by the list of its bundle.
#[derive(Clone, Copy)]
pub(super) struct Content {
    size: u64,
    /// Bytes in the layer, if it is a sparse file.
    stored: Option<u64>,
    /// Of what is in the layer.
    digest: Digest,
}

impl From<&ListedFile> for Content {
    fn from(&ListedFile { size, stored, digest, .. }: &ListedFile) -> Self {
        Self { size, stored, digest }
    }
}

/// Gives a file piece by piece to `take`; an error, if its bytes are not those that the list says.
pub(super) fn copy(
    feed: &mut Feed,
    content: &Content,
    name: &str,
    take: &mut impl FnMut(Piece<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut digester = Digester::default();
    let pieces = match content.stored {
        None => vec![(0, content.size)],
        Some(stored) => sparse::read(feed, content.size, stored, &mut digester)?,
    };
    let bytes: u64 = pieces.iter().map(|(_, length)| length).sum();

    if bytes < WORTH_A_THREAD {
        let hash = |bytes: Bytes| {
            digester.update(&bytes);
            true
        };
        copy_pieces(feed, &pieces, content.size, hash, take)?;
    } else {
        let hash = |bytes: Bytes| digester.update(&bytes);
        beside(PIECES, hash, |hash| copy_pieces(feed, &pieces, content.size, hash, take))?;
    }
    if digester.finish() == content.digest {
        return Ok(());
    }
    Err(Error::invalid(format!("{name:?} has another sha256 in its layer than in the bundle's list")))
}

/// The same with what hashes the bytes; it says whether it goes on.
fn copy_pieces(
    feed: &mut Feed,
    pieces: &[(u64, u64)],
    size: u64,
    mut hash: impl FnMut(Bytes) -> bool,
    take: &mut impl FnMut(Piece<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut at = 0;
    for (start, length) in pieces {
        if *start > at {
            take(Piece::Hole(start - at))?;
        }
        let mut left = *length;
        while left > 0 {
            let bytes = part(feed, left)?;
            left -= bytes.len() as u64;
            if !hash(bytes.clone()) {
                return Err(Error::new(ErrorKind::Local, "there is no thread to hash with"));
            }
            take(Piece::Bytes(&bytes))?;
        }
        at = start + length;
    }
    if size > at {
        take(Piece::Hole(size - at))?;
    }
    Ok(())
}

fn part(feed: &mut Feed, most: u64) -> Result<Bytes, Error> {
    match feed.take(most) {
        Ok(bytes) if bytes.is_empty() => Err(Error::invalid("a layer ends in the middle of a file")),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(Error::new(ErrorKind::Unreachable, error.to_string())),
    }
}
