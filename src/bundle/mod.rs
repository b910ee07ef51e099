//! A bundle as an OCI image: packing a working directory, pushing it, pulling it or a part of it, reading one file.
//!
//! | file | subject |
//! |---|---|
//! | `save` | a tree becomes a bundle: walk, plan, hash, push, read back |
//! | `walk` | what is in the tree |
//! | `layout` | which entry goes into which layer |
//! | `pack` | the bytes of a layer, read from the tree |
//! | `tarball` | headers of tar files |
//! | `listing` | `manifest.json`, the list of entries, and its index |
//! | `image` | manifests and configurations |
//! | `provenance` | how a bundle was made |
//! | `registry` | the registry's protocol, with retries |
//! | `fetch` | what a reference means, and getting what is in it |
//! | `contents` | reading a bundle: by its list, and by ranges of its layers |
//! | `unpack`, `look`, `tarread`, `layer_path` | any image: its layers on top of each other, or one path in them |
//! | `place` | where an input goes, and what can be made there |
//! | `feed` | a download that is read by a thread |
//! | `read` | list, read one file, download |
//! | `reference`, `credentials`, `digest` | names, logins, sha256 |
//! | `untrusted` | reading files that a stranger wrote |

mod contents;
mod credentials;
mod digest;
mod error;
mod feed;
mod fetch;
mod image;
mod layer_path;
mod layout;
mod listing;
mod look;
mod pack;
mod place;
mod provenance;
mod read;
mod reference;
mod registry;
mod save;
mod tarball;
mod tarread;
mod unpack;
pub(crate) mod untrusted;
mod walk;

pub use error::{Error, ErrorKind};
pub use read::{ListEntry, ListEntryKind};

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use crate::report::Registries;

/// How registries are reached, and as whom.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Plain HTTP, and certificate authorities.
    pub registries: Registries,
    /// Texts of Docker configuration files (`.dockerconfigjson`); the first with an entry for a registry counts.
    pub docker_configs: Vec<String>,
}

/// How far a transfer has come; read by others while it is under way.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes that are done with.
    pub done_bytes: AtomicU64,
    /// Bytes in all, as far as known.
    pub total_bytes: AtomicU64,
}

/// A working directory to be saved.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Where it is.
    pub root: PathBuf,
    /// Globs relative to it: what they match is left out, a directory with all that is in it.
    pub exclude: Vec<String>,
    /// Device and inode of what is never part of it, such as mount points.
    pub left_out: Vec<(u64, u64)>,
    /// Device and inode of directories that are part of it only if something is in them.
    pub left_out_if_empty: Vec<(u64, u64)>,
    /// Symbolic links that are no part of it: path from the root, and target.
    pub left_out_links: Vec<(PathBuf, PathBuf)>,
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
    /// Entries that could not be part of it.
    pub skipped: u64,
    /// A container runtime that mounts the image's `contents` shows what [`fetch`] would put in place.
    pub mountable: bool,
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

/// Saves a tree as a bundle under `repository:tag`, with `made_by` in an artifact that refers to it.
///
/// # Errors
/// See [`ErrorKind`]. What can pass by itself was tried again before.
pub async fn save(
    tree: &Tree,
    repository: &str,
    tag: &str,
    made_by: &serde_json::Value,
    access: &Access,
    progress: &Progress,
) -> Result<SavedBundle, Error> {
    save::save(tree, repository, tag, made_by, access, progress).await
}

/// Looks up a reference (`repository:tag` or `repository@digest`) and what is at `path` in it.
///
/// # Errors
/// See [`ErrorKind`].
pub async fn resolve(reference: &str, path: Option<&str>, access: &Access) -> Result<Resolved, Error> {
    fetch::resolve(reference, path, access).await
}

/// Puts what is at `path` of an image, by digest, into `place`: an empty file or directory that is there and keeps its
/// inode. Every blob is verified. Can be done again over a first try that was cut off.
///
/// # Errors
/// See [`ErrorKind`].
pub async fn fetch(
    reference: &str,
    path: Option<&str>,
    place: &Path,
    limits: Limits,
    access: &Access,
    progress: &Progress,
) -> Result<(), Error> {
    fetch::fetch(reference, path, place, limits, access, progress).await
}

/// Every entry of a bundle, sorted by the bytes of their paths.
///
/// # Errors
/// See [`ErrorKind`]; an image that is no bundle is [`ErrorKind::Invalid`].
pub async fn list(reference: &str, access: &Access) -> Result<Vec<ListEntry>, Error> {
    read::list(reference, access).await
}

/// Writes one file of a bundle, by a few small requests and the file's own bytes. What was written is known to be right
/// only when there is no error.
///
/// # Errors
/// See [`ErrorKind`]; an image that is no bundle, and a path that is no file, are [`ErrorKind::Invalid`].
pub async fn read_file<W: Write + Send + 'static>(
    reference: &str,
    path: &str,
    access: &Access,
    writer: W,
) -> Result<W, Error> {
    read::read_file(reference, path, access, writer).await
}

/// Puts all of a bundle, or of any image, into a directory, which must be there and is emptied.
///
/// # Errors
/// See [`ErrorKind`].
pub async fn download(reference: &str, dir: &Path, access: &Access, progress: &Progress) -> Result<(), Error> {
    read::download(reference, dir, access, progress).await
}
