//! A file that has a layer to itself, or several.
//!
//! One that fits into a blob is an entry of its layer like any other. A larger one is cut: part n of the file at a path is
//! the one entry `parts/<sha256 of the path>/<n>` of a layer, so that every layer is an archive, and a tool that unpacks
//! the image has what `cat` joins. The list of entries says where the parts are, and has the mode and the other names of
//! the file, for which there are no entries. Of a sparse file the parts are those of its map and its data, one after the
//! other as they are in an archive.
//!
//! Where the cuts are depends on the size of what is kept of the file and on the largest blob alone. All parts are of one
//! version of the file, which stays open while they are read.

use super::buffer::Buffer;
use super::content::{CopyEnd, Part, Seen, copy_part, map_of, zeros};
use super::entries::Index;
use super::layer::{Blob, Layer, SparseFile, StoredFile, StoredPart};
use super::layout::Plan;
use super::reading::{BETWEEN_READS, MOST_READS, Reading, Unread, open, open_patiently, tar_type, unread};
use super::skip::Skip;
use crate::bundle::digest::{Digest, Digester};
use crate::bundle::format::sparse::SparseMap;
use crate::bundle::format::tar_header::{self, Type};
use crate::bundle::{Error, ErrorKind};
use std::fs::File;
use std::ops::Range;

/// A file that is open.
pub(in crate::bundle) struct LargeFile {
    number: usize,
    index: Index,
    file: File,
    seen: Seen,
    map: Option<SparseMap>,
    /// Bytes of each part but the last; none: it is not cut.
    part_bytes: Option<u64>,
}

/// What a blob is.
struct Frame {
    before: Vec<u8>,
    /// Of what is kept of the file.
    content: Range<u64>,
    after: Vec<u8>,
}

impl Frame {
    fn size(&self) -> u64 {
        (self.before.len() + self.after.len()) as u64 + (self.content.end - self.content.start)
    }
}

impl LargeFile {
    /// Opens the file that a layer is; the inner error: why it is left out.
    pub(in crate::bundle) fn open(
        plan: &Plan,
        number: usize,
        index: Index,
        reading: &Reading,
    ) -> Result<Result<Self, Skip>, Error> {
        let (file, seen) = match open_patiently(plan, index, reading) {
            Ok(opened) => opened,
            Err(skip) => return Ok(Err(skip)),
        };
        let map = match map_of(&file, &seen, &reading.cancelled)? {
            Ok(map) => map,
            Err(skip) => return Ok(Err(skip)),
        };
        let mut large = Self { number, index, file, seen, map, part_bytes: None };
        if large.frame(plan, 0).size() > plan.max_blob() {
            large.part_bytes = Some(plan.part_bytes());
        }
        Ok(Ok(large))
    }

    /// Opens the one file of a layer that was hashed, if it is one: it must be what it was then.
    pub(in crate::bundle) fn again(plan: &Plan, layer: &Layer) -> Option<Result<Self, Unread>> {
        let index = plan.one_file(layer.number).filter(|_| layer.is_whole())?;
        let ([known], [stamp]) = (&*layer.files, &*layer.stamps) else { return Some(Err(Unread::Changed(index))) };
        Some(open(plan, index).map_err(|skip| unread(index, skip)).and_then(|(file, seen)| {
            if (seen.size, seen.stamp) != (known.size, *stamp) {
                return Err(Unread::Changed(index));
            }
            let map = layer.sparse(index).map(|sparse| sparse.map.clone().ok_or(Unread::Changed(index))).transpose()?;
            let part_bytes = layer.is_in_parts().then(|| plan.part_bytes());
            Ok(Self { number: layer.number, index, file, seen, map, part_bytes })
        }))
    }

    pub(in crate::bundle) fn blobs(&self) -> u64 {
        self.part_bytes.map_or(1, |bytes| self.stored().div_ceil(bytes))
    }

    pub(in crate::bundle) fn is_in_parts(&self) -> bool {
        self.part_bytes.is_some()
    }

    pub(in crate::bundle) fn size(&self, plan: &Plan, blob: u64) -> u64 {
        self.frame(plan, blob).size()
    }

    /// Bytes that are kept of it.
    fn stored(&self) -> u64 {
        self.map.as_ref().map_or(self.seen.size, SparseMap::stored)
    }

    fn frame(&self, plan: &Plan, blob: u64) -> Frame {
        let stored = self.stored();
        let (before, content, mut after) = if let Some(bytes) = self.part_bytes {
            let start = bytes.saturating_mul(blob).min(stored);
            let end = start.saturating_add(bytes).min(stored);
            let name = plan.part_name(self.index, blob);
            (tar_header::header(&name, 0o644, Type::File { size: end - start }), start..end, vec![])
        } else {
            let kept = tar_type(self.seen.size, self.map.as_ref().map(|_| stored));
            let others = plan.layer(self.number).iter().filter(|name| **name != self.index);
            let others = others.flat_map(|name| plan.header(*name, Type::File { size: 0 }));
            (plan.header(self.index, kept), 0..stored, others.collect())
        };
        let padding = zeros(tar_header::padding(content.end - content.start));
        after.splice(0..0, padding.iter().copied());
        after.extend_from_slice(&tar_header::END);
        Frame { before, content, after }
    }

    /// Gives a blob from some byte on to `take`, which says whether it takes more; with whether it is of the file.
    pub(in crate::bundle) fn read(
        &self,
        plan: &Plan,
        blob: u64,
        from: u64,
        mut take: impl FnMut(Part, bool) -> bool,
    ) -> Result<(), Unread> {
        let mut taken = |bytes: Part, is_content| {
            if bytes.is_empty() || take(bytes, is_content) { Ok(()) } else { Err(Unread::NotTaken) }
        };
        let Frame { before, content, after } = self.frame(plan, blob);
        let rest = |of: &[u8], from: u64| {
            of.get(usize::try_from(from).unwrap_or(usize::MAX).min(of.len())..).unwrap_or_default().to_vec()
        };
        taken(Part::Made(&rest(&before, from)), false)?;
        let from = from.saturating_sub(before.len() as u64);
        let length = content.end - content.start;
        let part = content.start + from.min(length)..content.end;
        let mut buffer = Buffer::default();
        let copied = copy_part(&self.file, &self.seen, self.map.as_ref(), part, &mut buffer, |bytes| {
            taken(bytes, true).map_err(|_| Error::new(ErrorKind::Local, "not taken"))
        });
        copied.map_err(|end| match end {
            CopyEnd::Changed => Unread::Changed(self.index),
            CopyEnd::Failed(error) => Unread::Failed(self.index, Skip::unreadable(error)),
            CopyEnd::Sink(_) => Unread::NotTaken,
        })?;
        taken(Part::Made(&rest(&after, from.saturating_sub(length))), false)
    }

    /// What the layer is, of which all is known now.
    pub(in crate::bundle) fn layer(&self, hashed: Hashed) -> Layer {
        let Hashed { blobs, content, offset } = hashed;
        let file = StoredFile { entry: self.index, digest: content.finish(), offset, size: self.seen.size };
        let (entry, stored) = (self.index, self.stored());
        let sparse = self.map.clone().map(|map| SparseFile { entry, stored, map: Some(map) });
        Layer::of_one(self.number, blobs, file, self.seen.stamp, sparse)
    }
}

/// The blobs that were read, and the content that was in them.
#[derive(Default)]
pub(in crate::bundle) struct Hashed {
    blobs: Vec<Blob>,
    content: Digester,
    /// Of the content in the first blob.
    offset: u64,
}

/// Hashes a blob while it is read. What is read again counts once.
#[derive(Default)]
pub(in crate::bundle) struct Hashing {
    hashed: Hashed,
    blob: Digester,
    /// Bytes of it so far, and of these those that are the file's; where they begin.
    bytes: u64,
    content_bytes: u64,
    offset: u64,
}

impl Hashing {
    /// `position` is where `bytes` are in the blob.
    pub(in crate::bundle) fn add(&mut self, position: u64, bytes: &[u8], is_content: bool) {
        let known = usize::try_from(self.bytes.saturating_sub(position)).unwrap_or(usize::MAX);
        let Some(new @ [_, ..]) = bytes.get(known..) else { return };
        self.blob.update(new);
        if is_content {
            if self.content_bytes == 0 {
                self.offset = self.bytes;
            }
            self.hashed.content.update(new);
            self.content_bytes += new.len() as u64;
        }
        self.bytes += new.len() as u64;
    }

    /// The digest of a blob that was read to its end.
    pub(in crate::bundle) fn digest(&self) -> Digest {
        self.blob.clone().finish()
    }

    /// Goes on with the next blob.
    pub(in crate::bundle) fn end_blob(&mut self, is_part: bool) {
        let Self { bytes, content_bytes, offset, .. } = *self;
        let digest = std::mem::take(&mut self.blob).finish();
        let part = is_part.then_some(StoredPart { offset, bytes: content_bytes });
        if self.hashed.blobs.is_empty() {
            self.hashed.offset = offset;
        }
        self.hashed.blobs.push(Blob { digest, size: bytes, part });
        (self.bytes, self.content_bytes, self.offset) = (0, 0, 0);
    }

    pub(in crate::bundle) fn finish(self) -> Hashed {
        self.hashed
    }
}

/// Reads the file that a layer is for its digests; the inner error: why it is left out.
pub(in crate::bundle) fn hash(
    plan: &Plan,
    number: usize,
    index: Index,
    reading: &Reading,
) -> Result<Result<Layer, Skip>, Error> {
    for _ in 0..MOST_READS {
        let large = match LargeFile::open(plan, number, index, reading)? {
            Ok(large) => large,
            Err(skip) => return Ok(Err(skip)),
        };
        let mut hashing = Hashing::default();
        let read = (0..large.blobs()).try_for_each(|blob| {
            let mut position = 0;
            large.read(plan, blob, 0, |bytes, is_content| {
                hashing.add(position, &bytes, is_content);
                position += bytes.len() as u64;
                reading.cancelled.check().is_ok()
            })?;
            hashing.end_blob(large.is_in_parts());
            Ok(())
        });
        match read {
            Ok(()) => return Ok(Ok(large.layer(hashing.finish()))),
            Err(Unread::Changed(_)) => std::thread::sleep(BETWEEN_READS),
            Err(Unread::Failed(_, skip)) => return Ok(Err(skip)),
            Err(Unread::NotTaken) => reading.cancelled.check()?,
        }
    }
    Ok(Err(Skip::of_the_run("kept changing while it was read")))
}
