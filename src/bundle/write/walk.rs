//! What is in a working directory: its entries, sorted, with their types and sizes. Nothing is read yet.
//!
//! The tree was written by a stranger, who may still be writing it: it is only looked at through descriptors of its
//! directories, links are never followed, and other file systems are not entered.

use super::skip::Skip;
use crate::bundle::untrusted::{open_beneath, open_mount};
use crate::bundle::{Error, ErrorKind, FileId, Tree};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, OFlags, Stat};
use rustix::io::Errno;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Entries of one bundle; their list is held in memory.
const MOST_ENTRIES: usize = 10_000_000;
/// All paths of one bundle together, for the same reason.
const MOST_PATH_BYTES: usize = 1 << 30;
/// A path that is longer is skipped, with what is below it: the sum of all paths of a tree that is nothing but deep
/// grows with the square of its depth.
const LONGEST_PATH: usize = 16 << 10;
/// Holes of a sparse file are saved as the zeros that they read as. A file with more than this is left out.
pub(in crate::bundle) const MOST_HOLE_BYTES: u64 = 64 << 30;

/// One name in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::bundle) struct Entry {
    /// From the root; the root itself is empty.
    pub(in crate::bundle) path: Box<[u8]>,
    /// The permission bits with setuid, setgid and sticky.
    pub(in crate::bundle) mode: u32,
    pub(in crate::bundle) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::bundle) enum What {
    Directory,
    File {
        size: u64,
        /// Which file it is, if it has several names.
        shared: Option<FileId>,
    },
    Link {
        target: Box<[u8]>,
    },
    /// No part of the bundle, but listed in it.
    Skipped(Skip),
}

/// Whether a walk shall end early, because nobody waits for it any more.
#[derive(Debug, Default)]
pub(in crate::bundle) struct Cancelled(AtomicBool);

impl Cancelled {
    pub(in crate::bundle) fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(in crate::bundle) fn check(&self) -> Result<(), Error> {
        if self.0.load(Ordering::Relaxed) { Err(Error::new(ErrorKind::Local, "given up")) } else { Ok(()) }
    }
}

/// The entries of a tree, sorted by the bytes of their paths. The first is the root.
pub(in crate::bundle) fn walk(tree: &Tree, root: &OwnedFd, cancelled: &Cancelled) -> Result<Vec<Entry>, Error> {
    let stat = rustix::fs::fstat(root).map_err(|error| Error::local("look at the working directory", error))?;
    let mut walk = Walk {
        tree,
        root,
        device: stat.st_dev,
        exclude: exclude(&tree.exclude)?,
        // Its mode is that of the volume, which is not the run's.
        entries: vec![Entry { path: Box::default(), mode: 0o755, what: What::Directory }],
        if_filled: vec![],
        waiting: vec![Box::default()],
        path_bytes: 0,
    };
    while let Some(path) = walk.waiting.pop() {
        cancelled.check()?;
        walk.directory(&path)?;
    }
    let Walk { mut entries, if_filled, .. } = walk;
    entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    leave_out_empty(&mut entries, if_filled);
    Ok(entries)
}

/// Opens the root of a tree.
pub(in crate::bundle) fn open_root(tree: &Tree) -> Result<OwnedFd, Error> {
    open_mount(&tree.root).map_err(|error| Error::local(format!("open {}", tree.root.display()), error))
}

/// `*` and `?` match no slash, so `*.tmp` is about the top directory and `**/*.tmp` about all. A slash at the begin is
/// the working directory, as in gitignore; one at the end says nothing.
pub(super) fn exclude(globs: &[String]) -> Result<GlobSet, Error> {
    let wrong = |glob: &str, error: &globset::Error| Error::invalid(format!("{glob:?} is no glob: {}", error.kind()));
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        let plain = glob.strip_prefix("./").or_else(|| glob.strip_prefix('/')).unwrap_or(glob);
        let plain = plain.strip_suffix('/').unwrap_or(plain);
        set.add(GlobBuilder::new(plain).literal_separator(true).build().map_err(|error| wrong(glob, &error))?);
    }
    set.build().map_err(|error| wrong("exclude", &error))
}

struct Walk<'a> {
    tree: &'a Tree,
    root: &'a OwnedFd,
    device: u64,
    exclude: GlobSet,
    entries: Vec<Entry>,
    /// Directories that are left out when nothing is in them.
    if_filled: Vec<Box<[u8]>>,
    waiting: Vec<Box<[u8]>>,
    path_bytes: usize,
}

impl Walk<'_> {
    fn directory(&mut self, path: &[u8]) -> Result<(), Error> {
        let dir = match open_beneath(self.root, path, OFlags::DIRECTORY).and_then(Dir::new) {
            Ok(dir) => dir,
            Err(error) => return self.not_read(path, error),
        };
        let stat = match dir.stat() {
            Ok(stat) => stat,
            Err(error) => return self.not_read(path, error),
        };
        // Between the look at it and now, something of ours may have been moved to its place.
        if self.tree.left_out.contains(&FileId::from(&stat)) {
            return Ok(());
        }
        let mut dir = dir;
        while let Some(entry) = dir.read() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return self.not_read(path, error),
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let full = join(path, name.to_bytes());
            match dir.fd() {
                Ok(dir) => self.entry(dir, name, full)?,
                Err(error) => return self.not_read(path, error),
            }
        }
        Ok(())
    }

    fn entry(&mut self, dir: BorrowedFd<'_>, name: &CStr, path: Box<[u8]>) -> Result<(), Error> {
        if self.exclude.is_match(OsStr::from_bytes(&path)) {
            return Ok(());
        }
        let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return self.add(&path, 0, What::Skipped(Skip::unreadable(error))),
        };
        let id = FileId::from(&stat);
        if self.tree.left_out.contains(&id) {
            return Ok(());
        }
        if path.len() > LONGEST_PATH {
            let why = format!("its path is longer than {LONGEST_PATH} bytes");
            return self.add(&path, 0, What::Skipped(Skip::of_the_run(&why)));
        }
        let mode = stat.st_mode & 0o7777;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if stat.st_dev != self.device => self.skip(&path, "another file system"),
            FileType::Directory => {
                if self.tree.left_out_if_empty.contains(&id) {
                    self.if_filled.push(path.clone());
                }
                self.add(&path, mode, What::Directory)?;
                self.waiting.push(path);
                Ok(())
            }
            FileType::RegularFile => {
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                if let Some(skip) = too_sparse(&stat) {
                    return self.add(&path, 0, What::Skipped(skip));
                }
                self.add(&path, mode, What::File { size, shared: (stat.st_nlink > 1).then_some(id) })
            }
            FileType::Symlink => match rustix::fs::readlinkat(dir, name, vec![]) {
                Ok(target) if self.is_left_out_link(&path, target.to_bytes()) => Ok(()),
                Ok(target) => {
                    let target = relative_link(&path, target.to_bytes(), self.tree.seen_at());
                    self.add(&path, 0o777, What::Link { target: target.into() })
                }
                Err(Errno::NOENT | Errno::INVAL) => Ok(()),
                Err(error) => self.add(&path, 0, What::Skipped(Skip::unreadable(error))),
            },
            FileType::Fifo => self.skip(&path, "a FIFO"),
            FileType::Socket => self.skip(&path, "a socket"),
            FileType::CharacterDevice | FileType::BlockDevice => self.skip(&path, "a device"),
            FileType::Unknown => self.skip(&path, "of unknown type"),
        }
    }

    fn is_left_out_link(&self, path: &[u8], target: &[u8]) -> bool {
        let same = |(link, to): &(std::path::PathBuf, std::path::PathBuf)| {
            link.as_os_str().as_bytes() == path && to.as_os_str().as_bytes() == target
        };
        self.tree.left_out_links.iter().any(same)
    }

    fn skip(&mut self, path: &[u8], why: &str) -> Result<(), Error> {
        self.add(path, 0, What::Skipped(Skip::no_output(why)))
    }

    /// A directory that could not be read, or not to its end. It was added when its parent was read, and what was read
    /// of it is in the list; half of it is no output.
    fn not_read(&mut self, path: &[u8], error: Errno) -> Result<(), Error> {
        let below = |other: &[u8]| other.strip_prefix(path).is_some_and(|rest| rest.starts_with(b"/"));
        let vanished = matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP);
        if path.is_empty() {
            return Err(Error::local("read the working directory", error));
        }
        if vanished {
            return Ok(());
        }
        // What was added of it is at the end: one directory is read at a time.
        while self.entries.last().is_some_and(|entry| below(&entry.path)) {
            self.entries.pop();
        }
        while self.waiting.last().is_some_and(|waiting| below(waiting)) {
            self.waiting.pop();
        }
        self.if_filled.retain(|dir| !below(dir));
        if let Some(known) = self.entries.iter_mut().rev().find(|entry| *entry.path == *path) {
            known.what = What::Skipped(Skip::unreadable(error));
        }
        Ok(())
    }

    fn add(&mut self, path: &[u8], mode: u32, what: What) -> Result<(), Error> {
        let path: Box<[u8]> = path.get(..LONGEST_PATH).unwrap_or(path).into();
        self.path_bytes += path.len();
        if self.entries.len() >= MOST_ENTRIES {
            return Err(Error::too_large(format!("more than {MOST_ENTRIES} files, directories and links")));
        }
        if self.path_bytes > MOST_PATH_BYTES {
            return Err(Error::too_large("the paths of all files together are longer than 1 GiB"));
        }
        self.entries.push(Entry { path, mode, what });
        Ok(())
    }
}

fn holes(stat: &Stat) -> u64 {
    let on_disk = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
    u64::try_from(stat.st_size).unwrap_or(0).saturating_sub(on_disk)
}

/// A file that is hardly anything but holes is no output but a mistake.
pub(super) fn too_sparse(stat: &Stat) -> Option<Skip> {
    let why = || format!("has more than {} GiB of holes", MOST_HOLE_BYTES >> 30);
    (holes(stat) > MOST_HOLE_BYTES).then(|| Skip::of_the_run(&why()))
}

fn join(dir: &[u8], name: &[u8]) -> Box<[u8]> {
    if dir.is_empty() { name.into() } else { [dir, b"/", name].concat().into() }
}

/// Where the entries below a directory begin in the sorted list.
pub(in crate::bundle) fn below<'a>(entries: &'a [Entry], dir: &[u8]) -> impl Iterator<Item = &'a Entry> {
    let prefix = if dir.is_empty() { vec![] } else { [dir, b"/"].concat() };
    let start = entries.partition_point(|entry| *entry.path < *prefix);
    entries.iter().skip(start).take_while(move |entry| entry.path.starts_with(&prefix))
}

fn leave_out_empty(entries: &mut Vec<Entry>, mut if_filled: Vec<Box<[u8]>>) {
    // The deepest first: a directory that holds nothing but such directories is empty too.
    if_filled.sort_unstable_by(|a, b| b.cmp(a));
    for dir in if_filled {
        if below(entries, &dir).next().is_none()
            && let Ok(at) = entries.binary_search_by(|entry| entry.path.cmp(&dir))
        {
            entries.remove(at);
        }
    }
}

/// The target of a link, as it is saved: one into the tree itself, by its absolute path, would lead nowhere where the
/// bundle is an input. `path` is the link's, from the tree's root.
fn relative_link(path: &[u8], target: &[u8], root: &Path) -> Vec<u8> {
    let Some(inside @ ([] | [b'/', ..])) = target.strip_prefix(root.as_os_str().as_bytes()) else {
        return target.to_vec();
    };
    let names: Vec<_> = inside.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".").collect();
    // Where `..` leads after a name, which may be a link, nobody can tell by the text.
    if names.contains(&&b".."[..]) {
        return target.to_vec();
    }
    let up = path.iter().filter(|byte| **byte == b'/').map(|_| &b".."[..]);
    let relative = up.chain(names).collect::<Vec<_>>().join(&b'/');
    if relative.is_empty() { b".".to_vec() } else { relative }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_into_the_tree_is_saved_as_a_relative_one() {
        for (path, target, want) in [
            ("best", "/bundle/model", "model"),
            ("a/b/best", "/bundle/model/x", "../../model/x"),
            ("a/b/best", "/bundle//a/./b/", "../../a/b"),
            ("self", "/bundle", "."),
            ("a/self", "/bundle/", ".."),
            ("best", "model", "model"),
            ("best", "../x", "../x"),
            ("best", "/bundle/../etc", "/bundle/../etc"),
            ("best", "/bundle2/model", "/bundle2/model"),
            ("best", "/data", "/data"),
        ] {
            let relative = relative_link(path.as_bytes(), target.as_bytes(), Path::new("/bundle"));
            assert_eq!(String::from_utf8(relative).unwrap(), want, "{path} -> {target}");
        }
    }
}
