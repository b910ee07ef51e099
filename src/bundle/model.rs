//! What callers give and get.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rustix::fs::Stat;
use serde::{Deserialize, Serialize};

use crate::contract::Registries;

/// How registries are reached, and as whom.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Plain HTTP, and certificate authorities.
    pub registries: Registries,
    /// Texts of Docker configuration files (`.dockerconfigjson`): the user's own logins, tried in their order.
    pub docker_configs: Vec<String>,
    /// The store's logins, which are for outputs of the own namespace alone.
    pub store: StoreAccess,
}

/// The login of a store can be one for all namespaces: with it nothing is read on behalf of a user but what is theirs.
#[derive(Clone, Debug, Default)]
pub struct StoreAccess {
    /// `host[:port]/repository` of those with outputs of the own namespace; what is below them counts as well.
    pub repositories: Vec<String>,
    /// Texts of Docker configuration files; those of [`Access`] come after them.
    pub docker_configs: Vec<String>,
}

/// How far a transfer has come; read by others while it is under way.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes that are done with.
    pub done_bytes: AtomicU64,
    /// Bytes in all, as far as known.
    pub total_bytes: AtomicU64,
    /// Of a save: bytes that the registry has, in whole blobs.
    pub stored_bytes: AtomicU64,
    /// Entries of an image that no input can have and that were left out: devices, FIFOs, sparse files.
    pub left_out: AtomicU64,
    /// What the disk has given no answer about for a while, with the time, for people; empty: nothing.
    pub hangs: Mutex<String>,
}

/// The name that a file of [`Tree::outside`] gets: its own, with `.run` as often as it takes until none is taken.
pub fn free_name(name: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let mut name = name.to_owned();
    while is_taken(&name) {
        name.push_str(".run");
    }
    name
}

/// What a file or a directory is, whatever its names are, while it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "(u64, u64)", into = "(u64, u64)")]
pub struct FileId {
    /// The number of its file system.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
}

impl From<&Stat> for FileId {
    fn from(stat: &Stat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }
}

impl From<(u64, u64)> for FileId {
    fn from((device, inode): (u64, u64)) -> Self {
        Self { device, inode }
    }
}

impl From<FileId> for (u64, u64) {
    fn from(FileId { device, inode }: FileId) -> Self {
        (device, inode)
    }
}

/// A working directory to be saved.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Where it is.
    pub root: PathBuf,
    /// Where the command has it: links to what is below are saved as relative ones. Empty: at the root.
    pub seen_at: PathBuf,
    /// Globs relative to it: what they match is left out, a directory with all that is in it.
    pub exclude: Vec<String>,
    /// Paths from the root: nothing else is part of it, not even what is in a directory that is named. None: everything.
    pub only: Option<Arc<BTreeSet<Vec<u8>>>>,
    /// What is never part of it, such as mount points.
    pub left_out: Vec<FileId>,
    /// Directories that are part of it only if something is in them.
    pub left_out_if_empty: Vec<FileId>,
    /// Directories: a symbolic link at the root to what has its own name in one of them is no part of it.
    pub linked_to: Vec<PathBuf>,
    /// Files that are elsewhere and part of it all the same: name in the bundle, and where they are. Where the tree has an
    /// entry of that name, `.run` is added to it.
    pub outside: Vec<(String, PathBuf)>,
    /// What the machine cannot read, and the output may lack.
    pub given_up: GivenUp,
    /// The file with digests that were found out before; none: there are none.
    pub kept: Option<PathBuf>,
    /// Digests that are found out now are added to it: large files are written to the disk before they are read.
    pub keeps_more: bool,
    /// Someone may have sent the same before, of whom no digest is known: large files are read for theirs first, and sent
    /// only where the registry has them not.
    pub may_be_there: bool,
    /// No blob of it may have more bytes; none: 5 GiB. It is part of what the digest depends on.
    pub max_blob: Option<u64>,
    /// Bytes of memory that its entries may take; none: no limit. What does not fit is an error of the kind
    /// [`super::ErrorKind::TooLarge`].
    pub most_memory: Option<u64>,
}

impl Tree {
    /// Where the command has it.
    pub(in crate::bundle) fn seen_at(&self) -> &Path {
        if self.seen_at.as_os_str().is_empty() { &self.root } else { &self.seen_at }
    }
}

/// Entries that the output is saved without, if the machine fails to read them; any other that it fails to read fails the
/// save.
#[derive(Clone, Debug, Default)]
pub struct GivenUp {
    /// As they were named in [`super::Error::damaged`].
    pub entries: BTreeSet<String>,
    /// From this time on, all.
    pub all_after: Option<SystemTime>,
    /// What gives no answer for so long, or near the end of `all_after` for a few seconds; none: everything is waited for.
    pub hung_after: Option<Duration>,
}

/// A bundle in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedBundle {
    /// Of its manifest, read back from the registry: `sha256:<hex>`.
    pub digest: String,
    /// Regular files; a file with several names counts once.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// Bytes that went to the registry.
    pub pushed_bytes: u64,
    /// Entries that are not part of it, for whatever reason; the next two are among them.
    pub skipped: u64,
    /// Those that would be, had the run's processes let us read them.
    pub withheld: u64,
    /// Those that the machine failed to read.
    pub damaged: u64,
    /// The first of them, the worst reasons first, each with its reason: `a.sock (a socket)`.
    pub skipped_names: Vec<String>,
    /// Why the registry does not have how it was made; none: it has.
    pub provenance_failed: Option<String>,
    /// A container runtime that mounts the image's `contents` shows what [`fetch`](crate::bundle::fetch) would put in place.
    pub mountable: bool,
}

/// An entry of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListEntry {
    /// From the working directory of the run; empty for that itself. Bytes, as file names are.
    #[serde(with = "crate::bundle::format::path_text::one_text")]
    pub path: Vec<u8>,
    /// What it is.
    pub what: ListEntryKind,
}

/// What an entry of a bundle is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListEntryKind {
    /// A regular file.
    File {
        /// In bytes.
        size: u64,
        /// Permission bits.
        mode: u32,
        /// Hex. None: it is hardly anything but holes, and the list has a digest of the rest alone; or it is not saved yet.
        sha256: Option<String>,
        /// Hex. Of `sha256`, or of the rest: what differs in it differs in its content. Empty: it is not saved yet.
        content: String,
        /// The path under which the same file is listed first, if it has several.
        same_as: Option<Vec<u8>>,
    },
    /// A directory.
    Directory {
        /// Permission bits.
        mode: u32,
    },
    /// A symbolic link.
    Link {
        /// As it was written.
        target: Vec<u8>,
    },
    /// Not in the bundle.
    Skipped {
        /// Why not.
        reason: String,
    },
}

/// A file or a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
}

/// What a reference means now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Of the manifest: `sha256:<hex>`.
    pub digest: String,
    /// Of what is at the path.
    pub kind: Kind,
}

/// What an input may at most be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes of all files.
    pub bytes: u64,
}
