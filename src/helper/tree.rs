//! Walking through a tree that the user's code wrote, or is writing, or that came from a registry.

use crate::bundle::FileId;
use crate::bundle::untrusted::{open_in, open_mount};
use crate::helper::failure::Failure;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::cell::RefCell;
use std::ffi::CStr;
use std::path::Path;

/// Descriptors and buffers held while descending: one for each level.
const MAX_DEPTH: usize = 256;
/// Directories below that level wait for their turn, as many as this; a tree that has more of them there is walked
/// through without them.
const MAX_WAITING: usize = 1024;

/// How much there is in a tree; a file with several names counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// Regular files.
    pub(super) files: u64,
    /// Their lengths.
    pub(super) bytes: u64,
    /// What they take on the disk: less than their length where they have holes.
    pub(super) disk_bytes: u64,
    /// Of all that is in the directories.
    pub(super) names: Names,
}

/// Names in directories, of whatever they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// How many.
    pub(super) count: u64,
    /// Their lengths together.
    pub(super) bytes: u64,
}

/// Sums in which each of `n` names of a file counts as an n-th of it: no list of known inodes is needed, which could
/// grow without bound. Fixed point, 32 bits behind it.
#[derive(Default)]
struct Sums {
    files: u128,
    bytes: u128,
    disk_bytes: u128,
}

impl Sums {
    fn add(&mut self, stat: &Stat) {
        let names = u128::from(stat.st_nlink).max(1);
        let length = u128::try_from(stat.st_size).unwrap_or(0);
        let blocks = u128::try_from(stat.st_blocks).unwrap_or(0) * 512;
        self.files += (1 << 32) / names;
        self.bytes += (length << 32) / names;
        // Some file systems (XFS) allocate ahead of a file that grows.
        self.disk_bytes += (blocks.min(length.next_multiple_of(4096)) << 32) / names;
    }

    fn size(&self, names: Names) -> Size {
        let round = |sum: u128| u64::try_from((sum + (1 << 31)) >> 32).unwrap_or(u64::MAX);
        Size { files: round(self.files), bytes: round(self.bytes), disk_bytes: round(self.disk_bytes), names }
    }
}

impl Names {
    fn add(&mut self, length: usize) {
        self.count += 1;
        self.bytes += length as u64;
    }
}

/// Measures the tree below `root`, as far as `go_on` lets it, without what is `left_out`. `go_on` can learn how much it
/// is so far.
pub(super) fn measure(root: &Path, left_out: &[FileId], mut go_on: impl FnMut(&dyn Fn() -> Size) -> bool) -> Size {
    let sums = RefCell::new(Sums::default());
    let so_far = || sums.borrow().size(Names::default());
    let is_output = |stat: &Stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && !left_out.contains(&FileId::from(stat))
    };
    let walked = walk(
        root,
        || go_on(&so_far),
        |_, _, stat| {
            if is_output(stat) {
                sums.borrow_mut().add(stat);
            }
            Ok(())
        },
    );
    walked.map_or_else(|()| Size::default(), |names| sums.borrow().size(names))
}

/// Measures the regular files of these names in `root`.
pub(super) fn measure_files(root: &Path, names: &[&str]) -> Size {
    let (mut sums, mut seen) = (Sums::default(), Names::default());
    for name in names {
        if let Ok(stat) = rustix::fs::lstat(root.join(name))
            && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        {
            sums.add(&stat);
            seen.add(name.len());
        }
    }
    sums.size(seen)
}

/// Lets all users read the tree below `root`, and enter what its owner may enter or execute.
pub(super) fn let_all_read(root: &Path) -> Result<(), Failure> {
    let failed = |error: Errno| Failure::writing(&error.into());
    let grant = |stat: &Stat| {
        let mode = Mode::from_raw_mode(stat.st_mode);
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let enter = if is_directory || mode.contains(Mode::XUSR) { 0o555 } else { 0o444 };
        let granted = mode | Mode::from_raw_mode(enter);
        (granted != mode).then_some(granted)
    };
    let stat = rustix::fs::stat(root).map_err(failed)?;
    if let Some(mode) = grant(&stat) {
        rustix::fs::chmod(root, mode).map_err(failed)?;
    }
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Ok(());
    }
    walk(
        root,
        || true,
        |dir, name, stat| match grant(stat) {
            Some(mode) => rustix::fs::chmodat(dir, name, mode, AtFlags::empty()).map_err(failed),
            None => Ok(()),
        },
    )
    .map(drop)
}

/// Visits regular files and directories below `root`, as far as `go_on` lets it. What vanishes meanwhile is left out;
/// nothing is followed out of the tree, and memory does not grow with it. Returns all names that were seen.
fn walk<E>(
    root: &Path,
    mut go_on: impl FnMut() -> bool,
    mut visit: impl FnMut(BorrowedFd<'_>, &CStr, &Stat) -> Result<(), E>,
) -> Result<Names, E> {
    let mut seen = Names::default();
    let mut open: Vec<Dir> = open_mount(root).and_then(Dir::new).into_iter().collect();
    // A tree of any depth is walked to its end: who nests deep shall not write more than others.
    let mut waiting: Vec<OwnedFd> = vec![];
    loop {
        let Some(dir) = open.last_mut() else {
            let Some(next) = waiting.pop() else { break };
            open.extend(Dir::new(next));
            continue;
        };
        let Some(Ok(entry)) = dir.read() else {
            open.pop();
            continue;
        };
        if !go_on() {
            break;
        }
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        seen.add(name.count_bytes());
        let Ok(dir_fd) = dir.fd() else { continue };
        if matches!(entry.file_type(), FileType::RegularFile | FileType::Directory | FileType::Unknown) {
            let Ok(stat) = rustix::fs::statat(dir_fd, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => visit(dir_fd, name, &stat)?,
                FileType::Directory => {
                    visit(dir_fd, name, &stat)?;
                    match open_in(dir_fd, name, OFlags::DIRECTORY) {
                        Ok(below) if open.len() < MAX_DEPTH => open.extend(Dir::new(below)),
                        Ok(below) if waiting.len() < MAX_WAITING => waiting.push(below),
                        _ => {}
                    }
                }
                _ => {}
            }
        }
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn size(root: &Path) -> Size {
        measure(root, &[], |_| true)
    }

    #[test]
    fn a_file_with_three_names_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), vec![1; 10_000]).unwrap();
        fs::create_dir_all(dir.path().join("d/e")).unwrap();
        fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
        fs::hard_link(dir.path().join("a"), dir.path().join("d/e/c")).unwrap();
        fs::write(dir.path().join("d/x"), "12345").unwrap();
        let size = size(dir.path());
        assert_eq!((size.files, size.bytes), (2, 10_005));
        assert_eq!(size.names, Names { count: 6, bytes: 6 });
        assert!(size.disk_bytes >= 10_000 && size.disk_bytes <= 16_384, "{size:?}");
    }

    #[test]
    fn what_is_left_out_is_not_counted() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("stub"), "").unwrap();
        fs::write(dir.path().join("output"), "12").unwrap();
        let stub = rustix::fs::stat(dir.path().join("stub")).unwrap();
        let size = measure(dir.path(), &[FileId::from(&stub)], |_| true);
        assert_eq!((size.files, size.bytes), (1, 2));
    }

    #[test]
    fn all_users_can_read_what_was_staged() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        let at = |name: &str| dir.path().join("root").join(name);
        fs::create_dir_all(at("d/e")).unwrap();
        symlink(outside.path(), at("link")).unwrap();
        for (name, mode) in [("d/e/plain", 0o600), ("d/tool", 0o700), ("none", 0o000), ("set", 0o4750)] {
            fs::write(at(name), "").unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::set_permissions(at("d/e"), fs::Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(at(""), fs::Permissions::from_mode(0o700)).unwrap();
        let_all_read(&at("")).unwrap();
        let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(
            ["", "d/e", "d/e/plain", "d/tool", "none", "set"].map(mode),
            [0o755, 0o555, 0o644, 0o755, 0o444, 0o4755]
        );
        assert_eq!(outside.as_file().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_hole_takes_no_disk() {
        let dir = tempfile::tempdir().unwrap();
        fs::File::create(dir.path().join("sparse")).unwrap().set_len(1 << 40).unwrap();
        let size = size(dir.path());
        assert_eq!(size.bytes, 1 << 40);
        assert!(size.disk_bytes < 1 << 20);
    }

    #[test]
    fn no_link_leads_out_and_no_fifo_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("large"), vec![0; 5000]).unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("dir-link")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("large"), dir.path().join("file-link")).unwrap();
        std::os::unix::fs::symlink(".", dir.path().join("loop")).unwrap();
        std::process::Command::new("mkfifo").arg(dir.path().join("fifo")).status().unwrap();
        fs::write(dir.path().join("a"), "1").unwrap();
        assert_eq!(size(dir.path()).bytes, 1);
    }

    #[test]
    fn a_tree_of_any_depth_is_measured_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let script = "i=0; while [ $i -lt 1500 ]; do mkdir d e; cd d; i=$((i+1)); done; echo x > deep; cd /";
        std::process::Command::new("sh").args(["-c", script]).current_dir(dir.path()).status().unwrap();
        fs::write(dir.path().join("a"), "1").unwrap();
        assert_eq!(size(dir.path()).files, 2);
    }
}
