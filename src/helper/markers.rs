//! The helper's marks: small files in the bin directory by which it goes on after a crash, and which the runner reads.

use crate::bundle::is_full;
use crate::contract::{Cause, EndOrder, one_line};
use crate::helper::error::{Error, log_failure};
use crate::names::files;
use rustix::fs::{CWD, FallocateFlags, RenameFlags, fallocate, renameat_with};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// No mark is larger; a request, the largest thing that they follow from, is not either.
const MARK_MAX_BYTES: u64 = 1024 * 1024;

/// Directory of files that have space on the disk and nothing in them, for marks that are written when it is full.
const RESERVED: &str = "reserved";
/// How many marks there is space for. After the command has started, few are written: what will go wrong, the order to
/// end, until when the output may be saved, what came of it, the ending.
const RESERVED_MARKS: u32 = 10;
/// So many of them are for the last words alone: marks that come again and again, such as why the last try to save failed,
/// leave those to what would be lost without them.
const RESERVED_FOR_THE_END: u32 = 3;
/// Space of each: what a termination message takes, the largest of those marks.
const RESERVED_BYTES: u64 = 8 * 1024;

/// Sets space aside, before the command can fill the disk. Where the file system cannot, marks have to do without.
pub(super) fn reserve(bin: &Path) -> Result<(), Error> {
    let dir = bin.join(RESERVED);
    let reserved = fs::create_dir_all(&dir).and_then(|()| {
        (0..RESERVED_MARKS).try_for_each(|number| reserve_file(&dir.join(number.to_string()), RESERVED_BYTES))
    });
    let reserved = reserved.and_then(|()| {
        let order = bin.join(files::END_TO_BE);
        reserve_file(&order, RESERVED_BYTES)?;
        // The runner may have any user.
        fs::set_permissions(order, Permissions::from_mode(0o644))
    });
    reserved.map_err(|error| Error::new(format!("cannot set space aside in {}", dir.display()), error))
}

/// Makes a file, if there is none, with space for so many bytes, and leaves its length as it is.
pub(super) fn reserve_file(path: &Path, bytes: u64) -> io::Result<()> {
    let file = fs::File::options().write(true).create(true).truncate(false).open(path)?;
    match fallocate(&file, FallocateFlags::KEEP_SIZE, 0, bytes) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Writes a mark so that nobody sees half of it, also when the disk is full.
pub(super) fn mark(bin: &Path, name: &str, text: &[u8]) -> Result<(), Error> {
    let target = bin.join(name);
    let marked = text_draft(bin, name, text).and_then(|draft| fs::rename(draft, &target));
    marked.map_err(cannot_write(&target))
}

fn text_draft(bin: &Path, name: &str, text: &[u8]) -> io::Result<PathBuf> {
    match draft(bin, name, 0o644, |file| file.write_all(text)) {
        Err(error) if is_full(&error) => {
            let mut reserved = reserved_for(name).map(|number| bin.join(RESERVED).join(number.to_string()));
            reserved.find_map(|reserved| draft_of(&reserved, bin, name, text)).ok_or(error)
        }
        drafted => drafted,
    }
}

/// What of the reserve a mark may use.
fn reserved_for(name: &str) -> Range<u32> {
    match name {
        // It is but news, each second.
        files::PROGRESS => 0..0,
        files::SAVED | files::REPORTED | files::CANNOT_END => 0..RESERVED_MARKS,
        _ => RESERVED_FOR_THE_END..RESERVED_MARKS,
    }
}

/// A draft in a file that was set aside; none: it is not there any more, or not enough.
fn draft_of(reserved: &Path, bin: &Path, name: &str, text: &[u8]) -> Option<PathBuf> {
    if text.len() as u64 > RESERVED_BYTES {
        return None;
    }
    let draft = draft_path(bin, name);
    fs::rename(reserved, &draft).ok()?;
    let written = fs::File::options().write(true).open(&draft).and_then(|mut file| {
        file.write_all(text)?;
        file.set_permissions(Permissions::from_mode(0o644))
    });
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written.is_ok().then_some(draft)
}

/// Writes a mark as JSON.
pub(super) fn mark_json<T: Serialize>(bin: &Path, name: &str, value: &T) -> Result<(), Error> {
    let text = serde_json::to_vec(value).map_err(|error| Error::new(format!("cannot say {name} as JSON"), error))?;
    mark(bin, name, &text)
}

/// Whether a mark is there.
pub(super) fn is_marked(bin: &Path, name: &str) -> bool {
    bin.join(name).exists()
}

/// Takes a mark away.
pub(super) fn unmark(bin: &Path, name: &str) {
    let _ = fs::remove_file(bin.join(name));
}

/// The text of a mark.
pub(super) fn read(bin: &Path, name: &str) -> Option<String> {
    let mut text = String::new();
    fs::File::open(bin.join(name)).ok()?.take(MARK_MAX_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

/// What a mark of [`mark_json`] holds.
pub(super) fn read_json<T: DeserializeOwned>(bin: &Path, name: &str) -> Option<T> {
    serde_json::from_str(&read(bin, name)?).ok()
}

/// Notes what stands in the way so far, for whoever runs out of patience.
pub(super) fn trouble(bin: &Path, why: &str) {
    log_failure(mark(bin, files::TROUBLE, one_line(why).as_bytes()));
}

/// Orders the runner to end the command, or not to begin it.
pub(super) fn order_end(bin: &Path, cause: Cause, detail: &str) -> Result<(), Error> {
    order(bin, &EndOrder::new(cause, detail))
}

/// Passes an order on to the runner. The first stays.
pub(super) fn order(bin: &Path, order: &EndOrder) -> Result<(), Error> {
    let text = serde_json::to_vec(order).map_err(|error| Error::new("cannot say an order as JSON", error))?;
    let target = bin.join(files::END);
    let draft = match draft_of(&bin.join(files::END_TO_BE), bin, files::END, &text) {
        Some(draft) => Ok(draft),
        None => text_draft(bin, files::END, &text),
    };
    let ordered = draft.and_then(|draft| match renameat_with(CWD, &draft, CWD, &target, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => fs::remove_file(&draft),
        Err(_) => fs::rename(&draft, &target),
    });
    ordered.map_err(cannot_write(&target))
}

/// Makes a file of the bin directory with all that is in it at once.
pub(super) fn place(
    bin: &Path,
    name: &str,
    mode: u32,
    write: impl FnOnce(&mut fs::File) -> io::Result<()>,
) -> Result<(), Error> {
    let target = bin.join(name);
    let placed = draft(bin, name, mode, write).and_then(|draft| fs::rename(draft, &target));
    placed.map_err(cannot_write(&target))
}

fn cannot_write(target: &Path) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::new(format!("cannot write {}", target.display()), error)
}

/// A name of its own: the hook, children and threads may write the same mark.
fn draft_path(bin: &Path, name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    bin.join(format!(".{name}.{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
}

fn draft(
    bin: &Path,
    name: &str,
    mode: u32,
    write: impl FnOnce(&mut fs::File) -> io::Result<()>,
) -> io::Result<PathBuf> {
    let draft = draft_path(bin, name);
    fs::create_dir_all(bin)?;
    let written = fs::File::create(&draft)
        .and_then(|mut file| write(&mut file).and_then(|()| file.set_permissions(Permissions::from_mode(mode))));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written.map(|()| draft)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn the_first_order_to_end_stays() {
        let bin = tempfile::tempdir().unwrap();
        order_end(bin.path(), Cause::InputNotFound, "no\nsuch tag").unwrap();
        order_end(bin.path(), Cause::DiskLimitExceeded, "").unwrap();
        let order: EndOrder = read_json(bin.path(), files::END).unwrap();
        assert_eq!(order, EndOrder::new(Cause::InputNotFound, "no such tag"));
        assert_eq!(fs::read_dir(bin.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn the_order_is_in_the_file_that_was_there_before() {
        let bin = tempfile::tempdir().unwrap();
        reserve(bin.path()).unwrap();
        let opened = fs::File::open(bin.path().join(files::END_TO_BE)).unwrap();
        assert_eq!((opened.metadata().unwrap().len(), is_marked(bin.path(), files::END)), (0, false));
        for cause in [Cause::DiskLimitExceeded, Cause::RunnerFailed] {
            order_end(bin.path(), cause, "first").unwrap();
        }
        let order: EndOrder = serde_json::from_reader(opened).unwrap();
        assert_eq!(order, EndOrder::new(Cause::DiskLimitExceeded, "first"));
        assert_eq!(read_json(bin.path(), files::END), Some(order));
    }

    /// A file system in memory of so many bytes; needs root, as the tests of the cluster do.
    pub(in crate::helper) struct SmallDisk(pub(in crate::helper) tempfile::TempDir);

    impl SmallDisk {
        pub(in crate::helper) fn new(bytes: usize) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let size = format!("size={bytes}");
            let mut mount = std::process::Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path());
            assert!(mount.status().unwrap().success(), "a small disk needs root");
            Self(dir)
        }

        pub(in crate::helper) fn fill(&self) {
            let mut file = fs::File::options().append(true).create(true).open(self.0.path().join("fill")).unwrap();
            while file.write_all(&[1; 4096]).is_ok() {}
        }
    }

    impl Drop for SmallDisk {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
        }
    }

    #[test]
    fn what_is_news_leaves_the_reserve_to_what_would_be_lost() {
        let disk = SmallDisk::new(1 << 20);
        let bin = disk.0.path();
        reserve(bin).unwrap();
        disk.fill();
        for _ in 0..2 * RESERVED_MARKS {
            mark(bin, files::PROGRESS, b"{}").unwrap_err();
        }
        // Too long for any: none is used up for it.
        for _ in 0..2 * RESERVED_MARKS {
            mark(bin, files::DAMAGED, &vec![b'x'; 100_000]).unwrap_err();
        }
        assert_eq!(fs::read_dir(bin.join(RESERVED)).unwrap().count(), RESERVED_MARKS as usize);
        // Each of these takes one, until only those for the end are left.
        for number in 0..RESERVED_MARKS {
            let held = fs::File::open(bin.join(files::NOT_SAVED));
            let marked = mark(bin, files::NOT_SAVED, b"{}");
            assert_eq!(marked.is_ok(), number < RESERVED_MARKS - RESERVED_FOR_THE_END, "{number}");
            // The space of the one before goes to others.
            disk.fill();
            drop(held);
            disk.fill();
        }
        for last in [files::SAVED, files::REPORTED, files::CANNOT_END] {
            mark(bin, last, &[b'x'; 4096]).unwrap();
        }
    }

    #[test]
    fn marks_are_written_on_a_full_disk() {
        let disk = SmallDisk::new(1 << 20);
        let bin = disk.0.path();
        reserve(bin).unwrap();
        reserve(bin).unwrap();
        disk.fill();
        fs::write(bin.join("other"), "x").unwrap_err();
        let text = "x".repeat(4096);
        mark(bin, files::REPORTED, text.as_bytes()).unwrap();
        assert_eq!(read(bin, files::REPORTED), Some(text));
        order_end(bin, Cause::DiskLimitExceeded, "").unwrap();
        assert!(read_json::<EndOrder>(bin, files::END).is_some());
        // What was set aside is used up: an error, and what was there stays.
        let mut marks = (0..2 * RESERVED_MARKS).map(|number| mark(bin, &format!("mark.{number}"), b"x"));
        assert!(marks.any(|marked| marked.is_err()));
        assert_eq!(read(bin, files::REPORTED).map(|text| text.len()), Some(4096));
    }
}
