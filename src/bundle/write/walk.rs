//! What is in a working directory: its entries, with their types and sizes. No file is read yet.
//!
//! The tree was written by a stranger, who may still be writing it: it is only looked at through descriptors of its
//! directories, links are never followed, and other file systems are not entered.

use super::cancel::Cancelled;
use super::content::{size, to_read};
use super::entries::{Entries, Index, ROOT, What};
use super::exclude::exclude;
use super::hang::{about_path, ask};
use super::skip::Skip;
use crate::bundle::untrusted::{open_beneath, open_mount};
use crate::bundle::{Error, FileId, Tree};
use globset::GlobSet;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, OFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A path that is longer is skipped, with what is below it: the sum of all paths of a tree that is nothing but deep
/// grows with the square of its depth.
const LONGEST_PATH: usize = 16 << 10;
/// What hung in walks before this one, and for how long, by its path.
pub(in crate::bundle) type HungBefore = BTreeMap<Vec<u8>, Duration>;

/// The entries of a tree. They are not sorted yet. What has hung is not looked at.
pub(in crate::bundle) fn walk(
    tree: &Tree,
    root: &OwnedFd,
    hung: &HungBefore,
    cancelled: &Cancelled,
) -> Result<Entries, Error> {
    walk_for(tree, root, hung, cancelled, None)
}

/// Directories, and files of more than so many bytes.
pub(in crate::bundle) fn walk_large(tree: &Tree, root: &OwnedFd, bytes: u64) -> Result<Entries, Error> {
    walk_for(tree, root, &HungBefore::new(), &Cancelled::default(), Some(bytes))
}

fn walk_for(
    tree: &Tree,
    root: &OwnedFd,
    hung: &HungBefore,
    cancelled: &Cancelled,
    larger_than: Option<u64>,
) -> Result<Entries, Error> {
    let stat = ask(|| rustix::fs::fstat(root));
    let stat = stat.map_err(|error| Error::local("look at the working directory", error))?;
    let mut walk = Walk {
        tree,
        root,
        hung,
        device: stat.st_dev,
        exclude: exclude(&tree.exclude)?,
        larger_than,
        entries: Entries::new(tree.most_memory),
        if_filled: vec![],
        waiting: vec![ROOT],
    };
    while let Some(directory) = walk.waiting.pop() {
        cancelled.check()?;
        walk.directory(directory)?;
    }
    let Walk { mut entries, if_filled, .. } = walk;
    entries.take_out_empty(if_filled);
    Ok(entries)
}

/// Opens the root of a tree.
pub(in crate::bundle) fn open_root(tree: &Tree) -> Result<OwnedFd, Error> {
    ask(|| open_mount(&tree.root)).map_err(|error| Error::local(format!("open {}", tree.root.display()), error))
}

struct Walk<'a> {
    tree: &'a Tree,
    root: &'a OwnedFd,
    hung: &'a HungBefore,
    device: u64,
    exclude: GlobSet,
    /// Only files of more bytes are entries, and directories.
    larger_than: Option<u64>,
    entries: Entries,
    /// Directories that are left out when nothing is in them.
    if_filled: Vec<Index>,
    waiting: Vec<Index>,
}

/// Where an entry is that is looked at.
struct Place<'a> {
    directory: Index,
    name: &'a CStr,
    /// From the root.
    path: &'a [u8],
}

impl Walk<'_> {
    fn directory(&mut self, index: Index) -> Result<(), Error> {
        let mut path = self.entries.path(index);
        let before =
            Before { entries: self.entries.len(), waiting: self.waiting.len(), if_filled: self.if_filled.len() };
        match self.read(index, &mut path)? {
            Ok(()) => Ok(()),
            Err(error) => self.not_read(index, &before, error),
        }
    }

    /// Reads a directory: the inner result is whether it could be read, to its end.
    fn read(&mut self, index: Index, path: &mut Vec<u8>) -> Result<Result<(), Errno>, Error> {
        about_path(path);
        let mut dir = match ask(|| open_beneath(self.root, path, OFlags::DIRECTORY)).and_then(Dir::new) {
            Ok(dir) => dir,
            Err(error) => return Ok(Err(error)),
        };
        // Between the look at it and now, something of ours may have been moved to its place.
        match ask(|| dir.stat()) {
            Ok(stat) if self.tree.left_out.contains(&FileId::from(&stat)) => return Ok(Ok(())),
            Ok(_) => {}
            Err(error) => return Ok(Err(error)),
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        let start = path.len();
        while let Some(entry) = ask(|| dir.read()) {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return Ok(Err(error)),
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            path.truncate(start);
            path.extend_from_slice(name.to_bytes());
            match dir.fd() {
                Ok(dir) => self.entry(dir, &Place { directory: index, name, path })?,
                Err(error) => return Ok(Err(error)),
            }
            path.truncate(start);
            about_path(path.strip_suffix(b"/").unwrap_or(path));
        }
        Ok(Ok(()))
    }

    fn entry(&mut self, dir: BorrowedFd<'_>, place: &Place<'_>) -> Result<(), Error> {
        if self.exclude.is_match(OsStr::from_bytes(place.path)) {
            return Ok(());
        }
        if self.tree.only.as_ref().is_some_and(|only| !only.contains(place.path)) {
            return Ok(());
        }
        if let Some(time) = self.hung.get(place.path) {
            return self.skip(place, &Skip::hung(*time));
        }
        about_path(place.path);
        let stat = match ask(|| rustix::fs::statat(dir, place.name, AtFlags::SYMLINK_NOFOLLOW)) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return self.skip(place, &Skip::unreadable(error)),
        };
        let id = FileId::from(&stat);
        if self.tree.left_out.contains(&id) {
            return Ok(());
        }
        if place.path.len() > LONGEST_PATH {
            let why = format!("its path is longer than {LONGEST_PATH} bytes");
            return self.skip(place, &Skip::of_the_run(&why));
        }
        let kind = FileType::from_raw_mode(stat.st_mode);
        let is_small = |than| kind != FileType::Directory && (kind != FileType::RegularFile || size(&stat) <= than);
        if self.larger_than.is_some_and(is_small) {
            if kind == FileType::RegularFile {
                // A part of it for each of its names: which of them are here is not known.
                let part = u128::from(to_read(&stat)) / u128::from(stat.st_nlink).max(1);
                self.entries.count_bytes(u64::try_from(part).unwrap_or(u64::MAX));
            }
            return Ok(());
        }
        let mode = stat.st_mode & 0o7777;
        let no_output = |why: &str| Skip::no_output(why);
        match kind {
            FileType::Directory if stat.st_dev != self.device => self.skip(place, &no_output("another file system")),
            FileType::Directory => {
                let index = self.add(place, mode, What::Directory)?;
                if self.tree.left_out_if_empty.contains(&id) {
                    self.if_filled.push(index);
                }
                self.waiting.push(index);
                Ok(())
            }
            FileType::RegularFile => {
                let index = self.add(place, mode, What::File { size: size(&stat) })?;
                self.entries.count_bytes(to_read(&stat));
                if stat.st_nlink > 1 {
                    self.entries.share(index, id);
                }
                Ok(())
            }
            FileType::Symlink => match ask(|| rustix::fs::readlinkat(dir, place.name, vec![])) {
                Ok(target) if self.is_left_out_link(place.path, target.to_bytes()) => Ok(()),
                Ok(target) => {
                    let is_directory = |path: &[u8]| open_beneath(self.root, path, OFlags::DIRECTORY).is_ok();
                    let target = relative_link(place.path, target.to_bytes(), self.tree.seen_at(), is_directory);
                    self.add(place, 0o777, What::Link { target: &target }).map(drop)
                }
                Err(Errno::NOENT | Errno::INVAL) => Ok(()),
                Err(error) => self.skip(place, &Skip::unreadable(error)),
            },
            FileType::Fifo => self.skip(place, &no_output("a FIFO")),
            FileType::Socket => self.skip(place, &no_output("a socket")),
            FileType::CharacterDevice | FileType::BlockDevice => self.skip(place, &no_output("a device")),
            FileType::Unknown => self.skip(place, &no_output("of unknown type")),
        }
    }

    /// By its words alone: no list is kept, which would be as long as the input is.
    fn is_left_out_link(&self, path: &[u8], target: &[u8]) -> bool {
        let leads_to = |directory: &PathBuf| {
            let below = target.strip_prefix(directory.as_os_str().as_bytes());
            below.and_then(|below| below.strip_prefix(b"/")) == Some(path)
        };
        !path.contains(&b'/') && self.tree.linked_to.iter().any(leads_to)
    }

    fn skip(&mut self, place: &Place<'_>, skip: &Skip) -> Result<(), Error> {
        self.add(place, 0, What::Skipped(skip)).map(drop)
    }

    fn add(&mut self, place: &Place<'_>, mode: u32, what: What<'_>) -> Result<Index, Error> {
        self.entries.add(place.directory, place.name.to_bytes(), mode, what)
    }

    /// A directory that could not be read, or not to its end. It was added when its parent was read, and what was read
    /// of it is in the list; half of it is no output.
    fn not_read(&mut self, index: Index, before: &Before, error: Errno) -> Result<(), Error> {
        if index == ROOT {
            return Err(Error::local("read the working directory", error));
        }
        let skip = Skip::unreadable(error);
        if skip.is_gone() {
            return Ok(());
        }
        // What was added of it is at the end: one directory is read at a time.
        self.entries.truncate(before.entries);
        self.waiting.truncate(before.waiting);
        self.if_filled.truncate(before.if_filled);
        self.entries.skip(index, &skip);
        Ok(())
    }
}

/// How much there was before a directory was read.
struct Before {
    entries: Index,
    waiting: usize,
    if_filled: usize,
}

/// The target of a link, as it is saved: one into the tree itself, by its absolute path, would lead nowhere where the
/// bundle is an input. `path` is the link's, from the tree's root. `is_directory` says it of a path from there, and that no
/// link leads to it: where `..` leads after a link, nobody can tell by the text, so that from there on it stays as it is.
fn relative_link(path: &[u8], target: &[u8], root: &Path, is_directory: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let kept = || target.to_vec();
    if !target.starts_with(b"/") {
        return kept();
    }
    let parts = |path: &'_ [u8]| -> Vec<Vec<u8>> {
        let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
        names.map(<[u8]>::to_vec).collect()
    };
    let root = parts(root.as_os_str().as_bytes());
    let mut names: Vec<Vec<u8>> = vec![];
    let mut is_behind_a_link = false;
    for name in parts(target) {
        if name != b".." || is_behind_a_link {
            names.push(name);
            continue;
        }
        match names.strip_prefix(root.as_slice()) {
            Some(inside) if inside.is_empty() || is_directory(&inside.join(&b'/')) => _ = names.pop(),
            Some(_) => {
                is_behind_a_link = true;
                names.push(name);
            }
            None if root.starts_with(&names) => _ = names.pop(),
            None => return kept(),
        }
    }
    let Some(inside) = names.strip_prefix(root.as_slice()) else { return kept() };
    // More steps up than down may lead out of the tree.
    let mut depth = 0_usize;
    for name in inside {
        let next = if name == b".." { depth.checked_sub(1) } else { depth.checked_add(1) };
        let Some(next) = next else { return kept() };
        depth = next;
    }
    let up = path.iter().filter(|byte| **byte == b'/').map(|_| b"..".to_vec());
    let relative = up.chain(inside.iter().cloned()).collect::<Vec<_>>().join(&b'/');
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
            ("best", "//bundle/m", "m"),
            ("best", "/./bundle/m", "m"),
            ("best", "/bundle/sub/../m", "m"),
            ("a/best", "/bundle/sub/./deep/../../m", "../m"),
            ("best", "/bundle/../bundle/m", "m"),
            ("best", "/../bundle/m", "m"),
            ("best", "/bundle/link/../m", "link/../m"),
            ("a/best", "/bundle/sub/../link/x/../../m/..", "../link/x/../../m/.."),
            ("best", "/bundle/link/../../m", "/bundle/link/../../m"),
            ("best", "/tmp/../bundle/m", "/tmp/../bundle/m"),
            ("best", "/bundle2/model", "/bundle2/model"),
            ("best", "/data", "/data"),
        ] {
            let relative = relative_link(path.as_bytes(), target.as_bytes(), Path::new("/bundle"), |path| {
                [&b"sub"[..], b"sub/deep"].contains(&path)
            });
            assert_eq!(String::from_utf8(relative).unwrap(), want, "{path} -> {target}");
        }
    }
}
