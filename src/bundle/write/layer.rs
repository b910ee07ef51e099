//! What is known of a layer.

use super::content::Stamp;
use super::entries::Index;
use super::skip::Skip;
use crate::bundle::digest::Digest;
use crate::bundle::format::sparse::SparseMap;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A layer whose digest is known. One of a file that is larger than a blob may be is several: a blob for each part.
pub(in crate::bundle) struct Layer {
    pub(in crate::bundle) number: usize,
    /// One, or those of the parts in their order.
    pub(in crate::bundle) blobs: Vec<Blob>,
    /// Files with their content, in the order of the entries.
    pub(super) files: Vec<StoredFile>,
    /// Of these, in the same order. They are not needed any more when the layer is in the registry.
    pub(super) stamps: Vec<Stamp>,
    /// Those of the files that are sparse ones.
    pub(super) sparse: Vec<SparseFile>,
    /// Entries of the layer that are left out after all, in their order.
    pub(super) skipped: Vec<(Index, Skip)>,
}

/// A blob, and what it has of a file in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::bundle) struct Blob {
    pub(in crate::bundle) digest: Digest,
    pub(in crate::bundle) size: u64,
    /// None: no part, but whole entries.
    pub(super) part: Option<StoredPart>,
}

/// A part of a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::bundle) struct StoredPart {
    /// In its blob.
    pub(super) offset: u64,
    pub(super) bytes: u64,
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
    /// Of the content in the layer; in the first blob, where it is in parts.
    pub(in crate::bundle) offset: u64,
    /// With its holes.
    pub(in crate::bundle) size: u64,
}

impl Layer {
    /// A layer of one file.
    pub(super) fn of_one(
        number: usize,
        blobs: Vec<Blob>,
        file: StoredFile,
        stamp: Stamp,
        sparse: Option<SparseFile>,
    ) -> Self {
        let sparse = sparse.into_iter().collect();
        Self { number, blobs, files: vec![file], stamps: vec![stamp], sparse, skipped: vec![] }
    }

    /// It has all that the plan says.
    pub(super) fn is_whole(&self) -> bool {
        self.skipped.is_empty()
    }

    /// It is a file in parts.
    pub(super) fn is_in_parts(&self) -> bool {
        self.blobs.iter().any(|blob| blob.part.is_some())
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
