//! A working directory as it is now, while its command writes it, for people who look into it.

use super::cancel::Cancelled;
use super::entries::{Entry, What};
use super::outside;
use super::walk::{HungBefore, open_root};
use crate::bundle::error::shown;
use crate::bundle::untrusted::open_beneath;
use crate::bundle::{Error, ErrorKind, ListEntry, ListEntryKind, Tree};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, OFlags};
use rustix::io::Errno;
use std::fs::File;

/// Gives every entry of a tree to `take`, sorted by the bytes of their paths. No file is read.
///
/// # Errors
/// See [`ErrorKind`]; [`ErrorKind::TooLarge`]: they do not fit [`Tree::most_memory`]. What `take` fails with ends it.
pub fn list_present(tree: &Tree, mut take: impl FnMut(ListEntry) -> Result<(), Error>) -> Result<(), Error> {
    let (_, entries, _) = outside::walk_all(tree, &HungBefore::new(), &Cancelled::default())?;
    entries.iter().try_for_each(|(index, entry)| {
        let first = entries.first_name(index);
        let same_as = (first != index).then(|| entries.path(first));
        take(ListEntry { path: entries.path(index), what: kind(entry, same_as) })
    })
}

fn kind(entry: Entry<'_>, same_as: Option<Vec<u8>>) -> ListEntryKind {
    match entry.what {
        What::Directory => ListEntryKind::Directory { mode: entry.mode },
        What::Link { target } => ListEntryKind::Link { target: target.to_vec() },
        What::Skipped(skip) => ListEntryKind::Skipped { reason: skip.why.to_string() },
        What::File { size } => {
            ListEntryKind::File { size, mode: entry.mode, sha256: None, content: String::new(), same_as }
        }
    }
}

/// Opens a regular file of a tree. Links are not followed: a stranger wrote them.
///
/// # Errors
/// [`ErrorKind::PathNotFound`]: there is nothing; [`ErrorKind::Invalid`]: it is no regular file.
pub fn open_present(tree: &Tree, path: &str) -> Result<File, Error> {
    let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    let path = parts.collect::<Vec<_>>().join("/").into_bytes();
    let name = shown(&path);
    let failed = |error: Errno| match error {
        Errno::NOENT | Errno::NOTDIR | Errno::XDEV => {
            Error::new(ErrorKind::PathNotFound, format!("{name} is not in the working directory"))
        }
        Errno::LOOP => Error::invalid(format!("{name} is a link: name the file that it points to")),
        error => Error::local(format!("open {name}"), error),
    };
    let root = open_root(tree)?;
    // Whoever opens a FIFO lets its writer go on, and ends it by closing it again: only what is a file is opened.
    let file = match kind_of(&root, &path) {
        Ok(FileType::RegularFile) => open_beneath(&root, &path, OFlags::empty()),
        Ok(FileType::Directory) => return Err(Error::invalid(format!("{name} is a directory"))),
        Ok(FileType::Symlink) => Err(Errno::LOOP),
        Ok(_) => return Err(Error::invalid(format!("{name} is no regular file"))),
        // What the command said is elsewhere, under names that it has not taken.
        Err(Errno::NOENT) => {
            let said = tree.outside.iter().find(|(name, _)| name.as_bytes() == path);
            said.map_or(Err(Errno::NOENT), |(_, file)| outside::open(file))
        }
        Err(error) => Err(error),
    };
    file.map(File::from).map_err(failed)
}

/// What is at a path below a directory; the directory itself where it is empty.
fn kind_of(root: &OwnedFd, path: &[u8]) -> Result<FileType, Errno> {
    let (dir, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => path.split_at(at),
        None => (&[][..], path),
    };
    let dir = open_beneath(root, dir, OFlags::DIRECTORY)?;
    let name = name.strip_prefix(b"/").unwrap_or(name);
    let name = if name.is_empty() { b"." } else { name };
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Read;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    fn tree(root: &std::path::Path) -> Tree {
        let work = root.join("work");
        fs::create_dir_all(work.join("d")).unwrap();
        fs::write(work.join("d/a"), "one\ntwo\n").unwrap();
        fs::hard_link(work.join("d/a"), work.join("b")).unwrap();
        symlink("d/a", work.join("link")).unwrap();
        symlink("/etc", work.join("out")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, work.join("fifo"), FileType::Fifo, 0o644.into(), 0).unwrap();
        fs::create_dir(root.join("said")).unwrap();
        for name in ["stdout", "stderr"] {
            fs::write(root.join("said").join(name), name).unwrap();
        }
        fs::write(work.join("stderr"), "the command's").unwrap();
        fs::write(work.join(std::ffi::OsStr::from_bytes(b"z\xff")), "").unwrap();
        let outside = ["stdout", "stderr"].map(|name| (name.to_owned(), root.join("said").join(name)));
        Tree { root: work, outside: outside.to_vec(), ..Tree::default() }
    }

    #[test]
    fn what_is_there_is_listed_as_it_will_be_in_the_bundle() {
        let root = tempfile::tempdir().unwrap();
        let mut listed = vec![];
        list_present(&tree(root.path()), |entry| {
            listed.push(entry);
            Ok(())
        })
        .unwrap();
        let names: Vec<_> = listed.iter().map(|entry| String::from_utf8_lossy(&entry.path)).collect();
        assert_eq!(names, ["", "b", "d", "d/a", "fifo", "link", "out", "stderr", "stderr.run", "stdout", "z\u{fffd}"]);
        let ListEntryKind::File { size, same_as, .. } = &listed[3].what else { panic!("{:?}", listed[3]) };
        assert_eq!((*size, same_as.as_deref()), (8, Some(&b"b"[..])));
        let text = serde_json::to_string(&listed).unwrap();
        assert_eq!(serde_json::from_str::<Vec<ListEntry>>(&text).unwrap(), listed);
    }

    #[test]
    fn a_file_is_opened_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let tree = tree(root.path());
        let read = |path: &str| {
            let mut text = String::new();
            open_present(&tree, path).map(|mut file| file.read_to_string(&mut text)).map(|_| text)
        };
        assert_eq!(read("d/a").unwrap(), "one\ntwo\n");
        assert_eq!(read("./d//a").unwrap(), "one\ntwo\n");
        assert_eq!((&*read("stdout").unwrap(), &*read("stderr").unwrap()), ("stdout", "the command's"));
        for (path, kind, why) in [
            ("", ErrorKind::Invalid, "is a directory"),
            ("d", ErrorKind::Invalid, "d is a directory"),
            ("none", ErrorKind::PathNotFound, "none is not in the working directory"),
            ("d/a/x", ErrorKind::PathNotFound, "is not in"),
            ("link", ErrorKind::Invalid, "is a link"),
            ("fifo", ErrorKind::Invalid, "is no regular file"),
            ("out/passwd", ErrorKind::PathNotFound, "is not in"),
            ("../said/stdout", ErrorKind::PathNotFound, "is not in"),
        ] {
            let error = read(path).unwrap_err();
            assert!(error.kind == kind && error.message.contains(why), "{path}: {error:?}");
        }
    }
}
