//! What the snapshots before this one pushed: which file, as it was then, is where in which blob.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::bundle::FileId;
use crate::bundle::digest::Digest;
use crate::bundle::write::kept::{State, write_json};
use crate::bundle::write::layer::Blob;

/// A blob of which less is part of the tree is not relied on: what is left of it is pushed again.
const LEAST_USED_PERCENT: u64 = 25;

/// What is known, from one snapshot to the next.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Known {
    /// Where it was pushed to.
    pub(super) repository: String,
    /// Of the last snapshot's tag: see [`crate::bundle::moving_tag`].
    pub(super) number: u64,
    pub(super) blobs: Vec<KnownBlob>,
    pub(super) files: Vec<KnownFile>,
    #[serde(skip)]
    by_id: HashMap<FileId, usize>,
}

/// [`Known`] as it is written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stored<'a> {
    repository: &'a str,
    number: u64,
    blobs: &'a [KnownBlob],
    files: &'a [KnownFile],
}

/// A layer in the registry.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct KnownBlob {
    #[serde(flatten)]
    pub(super) blob: Blob,
    /// When the registry had it, in seconds since the epoch.
    pub(super) seen_at: u64,
}

/// A file and where it is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct KnownFile {
    pub(super) state: State,
    /// Of what is in the blob.
    pub(super) digest: Digest,
    pub(super) blob: usize,
    /// Those of its parts follow the first; one, if it is not in parts.
    pub(super) blobs: usize,
    pub(super) offset: u64,
    pub(super) size: u64,
    /// See [`crate::bundle::format::listing::ListedFile::stored`].
    pub(super) stored: Option<u64>,
    /// It had not been written for a while when it was read: see [`crate::bundle::write::kept::SETTLED`].
    pub(super) is_settled: bool,
}

impl KnownFile {
    /// Where its blobs are among all.
    pub(super) fn blobs(&self) -> Range<usize> {
        self.blob..self.blob.saturating_add(self.blobs)
    }

    fn stored_bytes(&self) -> u64 {
        self.stored.unwrap_or(self.size)
    }
}

impl Known {
    /// What an earlier process left. What was pushed elsewhere is of no use.
    pub(super) fn read(file: &Path, repository: &str) -> Self {
        let known: Option<Self> = fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let known = known.filter(|known| known.repository == repository).unwrap_or_default();
        let by_id = known.files.iter().enumerate().map(|(at, file)| (file.state.id(), at)).collect();
        Self { repository: repository.to_owned(), by_id, ..known }
    }

    /// For the next process; `number` is that of the tag by now.
    pub(super) fn write(&self, file: &Path, number: u64) -> io::Result<()> {
        let Self { repository, blobs, files, .. } = self;
        write_json(file, &Stored { repository, number, blobs, files })
    }

    /// The same with these files, of which each is in one of the blobs or in several. Blobs that no file is in are left out.
    pub(super) fn with(&self, blobs: &[KnownBlob], mut files: Vec<KnownFile>) -> Self {
        let mut places = vec![None; blobs.len()];
        let mut kept = vec![];
        for file in &mut files {
            let Some(place) = places.get_mut(file.blob) else { continue };
            file.blob = *place.get_or_insert_with(|| {
                let first = kept.len();
                kept.extend(blobs.get(file.blobs()).unwrap_or_default());
                first
            });
        }
        let by_id = files.iter().enumerate().map(|(at, file)| (file.state.id(), at)).collect();
        Self { repository: self.repository.clone(), number: self.number, blobs: kept, files, by_id }
    }

    pub(super) fn file(&self, id: FileId) -> Option<&KnownFile> {
        self.by_id.get(&id).and_then(|at| self.files.get(*at))
    }

    /// By blobs: whether enough of it is in `used`.
    pub(super) fn are_worth_it(&self, used: impl Iterator<Item = KnownFile>) -> Vec<bool> {
        let mut bytes = vec![0u64; self.blobs.len()];
        for file in used {
            for at in file.blobs() {
                let of_part = self.blobs.get(at).and_then(|known| known.blob.part).map(|part| part.bytes);
                if let Some(bytes) = bytes.get_mut(at) {
                    *bytes = bytes.saturating_add(of_part.unwrap_or(file.stored_bytes()));
                }
            }
        }
        let is_worth = |(known, used): (&KnownBlob, u64)| {
            u128::from(used) * 100 >= u128::from(known.blob.size) * u128::from(LEAST_USED_PERCENT)
        };
        self.blobs.iter().zip(bytes).map(is_worth).collect()
    }
}
