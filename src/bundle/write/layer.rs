//! What is known of a layer.

use super::content::Stamp;
use super::entries::Index;
use super::skip::Skip;
use crate::bundle::digest::Digest;
use crate::bundle::format::sparse::SparseMap;
use std::sync::Arc;

/// A layer whose digest is known.
pub(in crate::bundle) struct Layer {
    pub(in crate::bundle) number: usize,
    pub(in crate::bundle) digest: Digest,
    pub(in crate::bundle) size: u64,
    /// Files with their content, in the order of the entries.
    pub(super) files: Vec<StoredFile>,
    /// Of these, in the same order. They are not needed any more when the layer is in the registry.
    pub(super) stamps: Vec<Stamp>,
    /// Those of the files that are sparse ones.
    pub(super) sparse: Vec<SparseFile>,
    /// Entries of the layer that are left out after all, in their order.
    pub(super) skipped: Vec<(Index, Skip)>,
}

/// Of a sparse file.
pub(super) struct SparseFile {
    pub(super) entry: Index,
    /// Bytes of its map and its data.
    pub(super) stored: u64,
    /// Not needed any more when the layer is in the registry.
    pub(super) map: Option<SparseMap>,
}

/// There may be a million of them.
#[derive(Clone, Debug)]
pub(in crate::bundle) struct StoredFile {
    pub(super) entry: Index,
    pub(in crate::bundle) digest: Digest,
    /// Of the content in the layer.
    pub(in crate::bundle) offset: u64,
    /// With its holes.
    pub(in crate::bundle) size: u64,
}

impl Layer {
    /// A layer of one file, which is no sparse one.
    pub(super) fn of_one(number: usize, digest: Digest, size: u64, file: StoredFile, stamp: Stamp) -> Self {
        Self { number, digest, size, files: vec![file], stamps: vec![stamp], sparse: vec![], skipped: vec![] }
    }

    /// It has all that the plan says.
    pub(super) fn is_whole(&self) -> bool {
        self.skipped.is_empty()
    }

    pub(in crate::bundle) fn files(&self) -> &[StoredFile] {
        &self.files
    }

    pub(in crate::bundle) fn stored(&self, entry: Index) -> Option<&StoredFile> {
        let found = self.files.binary_search_by_key(&entry, |file| file.entry);
        found.ok().and_then(|at| self.files.get(at))
    }

    pub(in crate::bundle) fn has_sparse_files(&self) -> bool {
        !self.sparse.is_empty()
    }

    pub(super) fn sparse(&self, entry: Index) -> Option<&SparseFile> {
        let found = self.sparse.binary_search_by_key(&entry, |file| file.entry);
        found.ok().and_then(|at| self.sparse.get(at))
    }

    /// How many bytes a sparse file has in the layer; none: it is no sparse file.
    pub(in crate::bundle) fn sparse_bytes(&self, entry: Index) -> Option<u64> {
        self.sparse(entry).map(|file| file.stored)
    }

    pub(in crate::bundle) fn skip(&self, entry: Index) -> Option<&Skip> {
        let found = self.skipped.binary_search_by_key(&entry, |(entry, _)| *entry);
        found.ok().and_then(|at| self.skipped.get(at)).map(|(_, skip)| skip)
    }

    /// What is left to know once it is in the registry.
    pub(in crate::bundle) fn pushed(mut self: Arc<Self>) -> Arc<Self> {
        if let Some(layer) = Arc::get_mut(&mut self) {
            layer.stamps = vec![];
            for file in &mut layer.sparse {
                file.map = None;
            }
        }
        self
    }
}
