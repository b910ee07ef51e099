//! Files of a bundle that are not in its tree: what the command said. A stranger can have put anything in their place.

use super::skip::Skip;
use super::walk::{Entry, What, exclude, too_sparse};
use crate::bundle::untrusted::{open_in, open_mount};
use crate::bundle::{Error, RUN_SUFFIX, Tree};
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where they are, by their paths in the bundle.
pub(in crate::bundle) type Outside = BTreeMap<Box<[u8]>, PathBuf>;

/// Adds them to the entries of the tree, which are sorted and stay so. A name that is taken stays the tree's.
pub(super) fn add(tree: &Tree, entries: &mut Vec<Entry>) -> Result<Outside, Error> {
    let excluded = exclude(&tree.exclude)?;
    let mut outside = Outside::new();
    for (name, file) in &tree.outside {
        if excluded.is_match(name) {
            continue;
        }
        let (mode, what) = match rustix::fs::lstat(file) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                let what = match too_sparse(&stat) {
                    Some(skip) => What::Skipped(skip),
                    None => What::File { size, shared: None },
                };
                (stat.st_mode & 0o7777, what)
            }
            Ok(_) => (0, What::Skipped(Skip::no_output("is no file any more"))),
            Err(Errno::NOENT) => continue,
            Err(error) => (0, What::Skipped(Skip::unreadable(error))),
        };
        let (path, at) = free(entries, name);
        entries.insert(at, Entry { path: path.clone(), mode, what });
        outside.insert(path, file.clone());
    }
    Ok(outside)
}

/// A path that is free, and its place among the entries.
fn free(entries: &[Entry], name: &str) -> (Box<[u8]>, usize) {
    let mut path = name.to_owned();
    loop {
        match entries.binary_search_by(|entry| (*entry.path).cmp(path.as_bytes())) {
            Ok(_) => path.push_str(RUN_SUFFIX),
            Err(at) => return (path.into_bytes().into(), at),
        }
    }
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

    fn entry(path: &str) -> Entry {
        Entry { path: path.as_bytes().into(), mode: 0o755, what: What::Directory }
    }

    fn tree(outside: &Path, exclude: &[&str]) -> Tree {
        Tree {
            exclude: exclude.iter().map(|glob| (*glob).to_owned()).collect(),
            outside: ["stderr", "stdout"].map(|name| (name.to_owned(), outside.join(name))).to_vec(),
            ..Tree::default()
        }
    }

    fn added(tree: &Tree, paths: &[&str]) -> Vec<(String, What)> {
        let mut entries: Vec<Entry> = paths.iter().map(|path| entry(path)).collect();
        add(tree, &mut entries).unwrap();
        assert!(entries.is_sorted_by(|a, b| a.path < b.path));
        let told = entries.into_iter().filter(|entry| entry.what != What::Directory);
        told.map(|entry| (String::from_utf8_lossy(&entry.path).into_owned(), entry.what)).collect()
    }

    #[test]
    fn a_name_that_is_taken_stays_the_trees() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("stdout"), "said").unwrap();
        let file = || What::File { size: 4, shared: None };
        let tree = tree(dir.path(), &[]);
        assert_eq!(added(&tree, &["", "a", "z"]), [("stdout".to_owned(), file())]);
        assert_eq!(added(&tree, &["", "stdout", "z"]), [("stdout.run".to_owned(), file())]);
        assert_eq!(added(&tree, &["", "stdout", "stdout.run"]), [("stdout.run.run".to_owned(), file())]);
    }

    #[test]
    fn what_is_excluded_is_left_out_and_what_is_no_file_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("stdout"), "said").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("stderr")).unwrap();
        let tree = tree(dir.path(), &["*out"]);
        let skipped = What::Skipped(Skip::no_output("is no file any more"));
        assert_eq!(added(&tree, &[""]), [("stderr".to_owned(), skipped)]);
        assert!(open(&dir.path().join("stderr")).is_err());
    }
}
