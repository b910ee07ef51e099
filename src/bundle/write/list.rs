//! What became of each entry, and the layer that lists them all.

use super::entries::{Entry, Index, What};
use super::layer::{Blob, Layer, StoredFile, StoredPart};
use super::layout::Plan;
use super::skip::Skip;
use crate::bundle::Error;
use crate::bundle::format::listing::{self, ListLayer, Listed, ListedAs, ListedFile, ListedPart};
use bytes::Bytes;
use std::sync::{Arc, LazyLock};

/// A list that is no larger is kept in memory for who pushes it: that of about 200,000 files. Others are written again.
const KEPT: usize = 16 << 20;

/// What a list is made of.
pub(super) trait Lists: Send + Sync + 'static {
    /// Sorted by their paths.
    fn indices(&self) -> std::ops::Range<Index>;

    /// None: it is in no list.
    fn listed(&self, index: Index) -> Option<Listed>;
}

/// A tree of which every layer was read.
pub(super) struct Packed {
    pub(super) plan: Arc<Plan>,
    pub(super) layers: Vec<Arc<Layer>>,
    /// Which blob of the bundle is the first of each layer.
    first_blobs: Vec<usize>,
}

static NOT_READ: LazyLock<Skip> = LazyLock::new(|| Skip::of_the_run("was not read"));

impl Packed {
    /// `layers` are in their order.
    pub(super) fn new(plan: Arc<Plan>, layers: Vec<Arc<Layer>>) -> Self {
        let first_blobs = layers.iter().scan(0, |next, layer| {
            let first = *next;
            *next += layer.blobs.len();
            Some(first)
        });
        Self { first_blobs: first_blobs.collect(), plan, layers }
    }

    /// All blobs, as they are layers of the image.
    pub(super) fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.layers.iter().flat_map(|layer| &layer.blobs)
    }

    fn layer_of(&self, index: Index) -> Option<(usize, &Layer)> {
        let number = self.plan.layer_of(index);
        Some((number, self.layers.get(number)?))
    }

    /// Where the content of a file is, under whichever of its names: in which layer, which blob that begins with.
    fn stored(&self, index: Index) -> Option<(&Layer, usize, &StoredFile)> {
        let first = self.plan.entries.first_name(index);
        let (number, layer) = self.layer_of(first)?;
        Some((layer, *self.first_blobs.get(number)?, layer.stored(first)?))
    }

    /// See [`Plan::is_mountable`]. Container runtimes write the holes of sparse files as zeros, and do not join parts.
    pub(super) fn is_mountable(&self) -> bool {
        let is_plain = |layer: &Arc<Layer>| !layer.has_sparse_files() && !layer.is_in_parts();
        self.plan.is_mountable() && self.layers.iter().all(is_plain)
    }

    /// Why an entry is left out; none: it is not.
    pub(super) fn skip(&self, index: Index) -> Option<&Skip> {
        let entry = self.plan.entries.get(index)?;
        if let What::Skipped(skip) = entry.what {
            return Some(skip);
        }
        let first = self.plan.entries.first_name(index);
        if let Some(skip) = self.layer_of(first).and_then(|(_, layer)| layer.skip(first)) {
            return Some(skip);
        }
        let is_missing = matches!(entry.what, What::File { .. }) && self.stored(index).is_none();
        is_missing.then_some(&NOT_READ)
    }
}

impl Lists for Packed {
    fn indices(&self) -> std::ops::Range<Index> {
        self.plan.entries.indices()
    }

    fn listed(&self, index: Index) -> Option<Listed> {
        let entries = &self.plan.entries;
        let entry = entries.get(index)?;
        let path = entries.path(index);
        if let Some(skip) = self.skip(index) {
            return Some(Listed { path, what: ListedAs::Skipped { reason: skip.why.to_string() } });
        }
        if let Some(what) = without_content(entry) {
            return Some(Listed { path, what });
        }
        let (layer, first_blob, StoredFile { offset, size, digest, .. }) = self.stored(index)?;
        let first = entries.first_name(index);
        let what = ListedAs::File(ListedFile {
            mode: entry.mode,
            size: *size,
            digest: *digest,
            layer: first_blob,
            offset: *offset,
            parts: parts(&layer.blobs, first_blob),
            same_as: (first != index).then(|| entries.path(first)),
            stored: layer.sparse_bytes(first),
            modified: None,
            ours: false,
        });
        Some(Listed { path, what })
    }
}

/// What is listed of an entry that has no content; none: it is a file.
pub(super) fn without_content(entry: Entry<'_>) -> Option<ListedAs> {
    Some(match entry.what {
        What::Directory => ListedAs::Directory { mode: entry.mode },
        What::Link { target } => ListedAs::Link { target: target.to_vec() },
        What::Skipped(skip) => ListedAs::Skipped { reason: skip.why.to_string() },
        What::File { .. } => return None,
    })
}

/// Where the parts of a file are that is in these blobs, of which the first has this number; none, if it is not in parts.
pub(super) fn parts<'a>(blobs: impl IntoIterator<Item = &'a Blob>, first: usize) -> Vec<ListedPart> {
    let part = |(blob, layer): (&Blob, usize)| {
        blob.part.map(|StoredPart { offset, bytes }| ListedPart { layer, offset, bytes })
    };
    blobs.into_iter().zip(first..).filter_map(part).collect()
}

/// Gives the blob of the layer that lists all entries to `take`.
pub(super) fn write(of: &impl Lists, take: &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<ListLayer, Error> {
    listing::write(|| of.indices().filter_map(|index| of.listed(index)), take)
}

/// Describes that blob, and has it too if it is small.
pub(super) fn first_write(of: &impl Lists) -> Result<(ListLayer, Option<Bytes>), Error> {
    let mut blob = Some(vec![]);
    let list = write(of, &mut |bytes| {
        if let Some(kept) = blob.as_mut().filter(|kept: &&mut Vec<u8>| kept.len() + bytes.len() <= KEPT) {
            kept.extend_from_slice(bytes);
        } else {
            blob = None;
        }
        Ok(())
    })?;
    Ok((list, blob.map(Bytes::from)))
}
