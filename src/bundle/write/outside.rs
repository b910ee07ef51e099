//! Files of a bundle that are not in its tree: what the command said. A stranger can have put anything in their place.

use super::cancel::Cancelled;
use super::content::{size, to_read};
use super::entries::{Entries, ROOT, What};
use super::exclude::exclude;
use super::hang::{about_path, ask};
use super::skip::Skip;
use super::walk::{self, HungBefore};
use crate::bundle::untrusted::{open_in, open_mount};
use crate::bundle::{Error, Tree, free_name};
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where they are, by their paths in the bundle.
pub(in crate::bundle) type Outside = BTreeMap<Box<[u8]>, PathBuf>;

/// Opens a tree and finds all entries of its bundle, sorted, without what has hung.
pub(super) fn walk_all(
    tree: &Tree,
    hung: &HungBefore,
    cancelled: &Cancelled,
) -> Result<(OwnedFd, Entries, Outside), Error> {
    let root = walk::open_root(tree)?;
    let mut entries = walk::walk(tree, &root, hung, cancelled)?;
    let outside = add(tree, hung, &mut entries)?;
    entries.sort();
    Ok((root, entries, outside))
}

/// Adds them to the entries of the tree. A name that is taken stays the tree's.
fn add(tree: &Tree, hung: &HungBefore, entries: &mut Entries) -> Result<Outside, Error> {
    let excluded = exclude(&tree.exclude)?;
    let mut outside = Outside::new();
    for (name, file) in &tree.outside {
        if excluded.is_match(name) {
            continue;
        }
        about_path(name.as_bytes());
        let found = match hung.get(name.as_bytes()) {
            Some(time) => Err(Skip::hung(*time)),
            None => match ask(|| rustix::fs::lstat(file)) {
                Err(Errno::NOENT) => continue,
                found => found.map_err(Skip::unreadable),
            },
        };
        let (mode, what) = match found {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                entries.count_bytes(to_read(&stat));
                (stat.st_mode & 0o7777, Ok(size(&stat)))
            }
            Ok(_) => (0, Err(Skip::no_output("is no file any more"))),
            Err(skip) => (0, Err(skip)),
        };
        let name = free_name(name, |name| entries.has_at_root(name.as_bytes()));
        let what = match &what {
            Ok(size) => What::File { size: *size },
            Err(skip) => What::Skipped(skip),
        };
        entries.add(ROOT, name.as_bytes(), mode, what)?;
        outside.insert(name.into_bytes().into(), file.clone());
    }
    Ok(outside)
}

/// Opens one of them by the rules for what a stranger wrote.
pub(super) fn open(file: &Path) -> Result<OwnedFd, Errno> {
    let (Some(dir), Some(name)) = (file.parent(), file.file_name()) else { return Err(Errno::INVAL) };
    let name = CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?;
    open_in(open_mount(dir)?, &name, OFlags::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn tree(outside: &Path, exclude: &[&str]) -> Tree {
        Tree {
            exclude: exclude.iter().map(|glob| (*glob).to_owned()).collect(),
            outside: ["stderr", "stdout"].map(|name| (name.to_owned(), outside.join(name))).to_vec(),
            ..Tree::default()
        }
    }

    /// What is added to directories of these names: its name, and its size or why it is left out.
    fn added(tree: &Tree, names: &[&str]) -> Vec<(String, Result<u64, Skip>)> {
        let mut entries = Entries::new(None);
        for name in names {
            entries.add(ROOT, name.as_bytes(), 0o755, What::Directory).unwrap();
        }
        add(tree, &HungBefore::new(), &mut entries).unwrap();
        let told = entries.iter().filter_map(|(index, entry)| {
            let what = match entry.what {
                What::File { size } => Ok(size),
                What::Skipped(skip) => Err(skip.clone()),
                _ => return None,
            };
            Some((String::from_utf8_lossy(&entries.path(index)).into_owned(), what))
        });
        told.collect()
    }

    #[test]
    fn a_name_that_is_taken_stays_the_trees() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("stdout"), "said").unwrap();
        let tree = tree(dir.path(), &[]);
        assert_eq!(added(&tree, &["a", "z"]), [("stdout".to_owned(), Ok(4))]);
        assert_eq!(added(&tree, &["stdout", "z"]), [("stdout.run".to_owned(), Ok(4))]);
        assert_eq!(added(&tree, &["stdout", "stdout.run"]), [("stdout.run.run".to_owned(), Ok(4))]);
    }

    #[test]
    fn what_is_no_output_keeps_its_name_too() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("stderr"), "said").unwrap();
        let mut entries = Entries::new(None);
        let fifo = Skip::no_output("a FIFO");
        entries.add(ROOT, b"stderr", 0o644, What::Skipped(&fifo)).unwrap();
        add(&tree(dir.path(), &[]), &HungBefore::new(), &mut entries).unwrap();
        assert!(entries.has_at_root(b"stderr.run"), "two entries of one name could not be told apart");
    }

    #[test]
    fn what_is_excluded_is_left_out_and_what_is_no_file_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("stdout"), "said").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("stderr")).unwrap();
        let tree = tree(dir.path(), &["*out"]);
        let skipped = Skip::no_output("is no file any more");
        assert_eq!(added(&tree, &[]), [("stderr".to_owned(), Err(skipped))]);
        assert!(open(&dir.path().join("stderr")).is_err());
    }
}
