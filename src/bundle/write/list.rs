//! What became of each entry, and the layer that lists them all.

use super::entries::{Index, What};
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
        let what = match entry.what {
            What::Directory => ListedAs::Directory { mode: entry.mode },
            What::Link { target } => ListedAs::Link { target: target.to_vec() },
            What::File { .. } => {
                let (layer, first_blob, StoredFile { offset, size, digest, .. }) = self.stored(index)?;
                let first = entries.first_name(index);
                let parts = layer.blobs.iter().zip(first_blob..).filter_map(|(blob, layer)| {
                    blob.part.map(|StoredPart { offset, bytes }| ListedPart { layer, offset, bytes })
                });
                let same_as = (first != index).then(|| entries.path(first));
                ListedAs::File(ListedFile {
                    mode: entry.mode,
                    size: *size,
                    digest: *digest,
                    layer: first_blob,
                    offset: *offset,
                    parts: parts.collect(),
                    same_as,
                    stored: layer.sparse_bytes(first),
                    modified: None,
                    ours: false,
                })
            }
            What::Skipped(_) => return None,
        };
        Some(Listed { path, what })
    }
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
