//! Reading files that the user's code wrote or is writing.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Why a file was not read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotRead {
    /// There is nothing of that name.
    Missing,
    /// It is no regular file, too large, or cannot be read.
    Refused,
}

/// Opens a directory of the pod's own, by the path at which it is mounted.
pub(crate) fn open_mount(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens `name` in `dir` for reading. Links are refused, a FIFO does not block us, and nothing above or outside of
/// `dir` can be reached.
pub(crate) fn open_in<Fd: AsFd>(dir: Fd, name: &std::ffi::CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    match rustix::fs::openat2(&dir, name, flags, Mode::empty(), resolve) {
        // Kernels before 5.6 and some sandboxes have no openat2. A name without a slash needs no more than NOFOLLOW.
        Err(Errno::NOSYS | Errno::PERM) if !name.to_bytes().contains(&b'/') && name != c".." => {
            rustix::fs::openat(&dir, name, flags, Mode::empty())
        }
        other => other,
    }
}

/// The longest path that is given to the kernel at once; it takes 4096 bytes with the zero.
const LONGEST_PIECE: usize = 4000;

/// Opens what is at a path of any length below `root`, an empty one being `root` itself, by the rules of [`open_in`].
pub(crate) fn open_beneath<Fd: AsFd>(root: Fd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut current: Option<OwnedFd> = None;
    let mut rest = if path.is_empty() { b"." } else { path };
    loop {
        let (piece, after) = first_piece(rest);
        let flags = if after.is_empty() { flags } else { OFlags::DIRECTORY };
        let next = match &current {
            Some(dir) => open_piece(dir.as_fd(), piece, flags)?,
            None => open_piece(root.as_fd(), piece, flags)?,
        };
        if after.is_empty() {
            return Ok(next);
        }
        current = Some(next);
        rest = after;
    }
}

/// As many components as the kernel takes at once, and the others.
fn first_piece(path: &[u8]) -> (&[u8], &[u8]) {
    let end = match path.get(..LONGEST_PIECE) {
        None => return (path, &[]),
        Some(start) => start.iter().rposition(|byte| *byte == b'/'),
    };
    match end.and_then(|end| path.split_at_checked(end)) {
        Some((piece, after)) => (piece, after.get(1..).unwrap_or_default()),
        None => (path, &[]),
    }
}

fn open_piece(dir: BorrowedFd<'_>, piece: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let name = CString::new(piece).map_err(|_| Errno::INVAL)?;
    match open_in(dir, &name, flags) {
        // As in `open_in`: without openat2 every component is opened for itself.
        Err(Errno::NOSYS | Errno::PERM) if piece.contains(&b'/') => {
            let mut current: Option<OwnedFd> = None;
            let mut components = piece.split(|byte| *byte == b'/').peekable();
            while let Some(component) = components.next() {
                let name = CString::new(component).map_err(|_| Errno::INVAL)?;
                let flags = if components.peek().is_some() { OFlags::DIRECTORY } else { flags };
                current = Some(open_in(current.as_ref().map_or(dir, OwnedFd::as_fd), &name, flags)?);
            }
            current.ok_or(Errno::INVAL)
        }
        other => other,
    }
}

/// The whole of a regular file of at most `max` bytes.
pub(crate) fn read_whole(dir: &Path, name: &std::ffi::CStr, max: usize) -> Result<Vec<u8>, NotRead> {
    let (file, size) = open_regular(dir, name)?;
    if size > max as u64 {
        return Err(NotRead::Refused);
    }
    let mut bytes = vec![];
    file.take(max as u64 + 1).read_to_end(&mut bytes).map_err(|_| NotRead::Refused)?;
    if bytes.len() > max { Err(NotRead::Refused) } else { Ok(bytes) }
}

/// The last `most` bytes of a regular file; nothing, where there is none.
pub(crate) fn read_tail(dir: &Path, name: &std::ffi::CStr, most: usize) -> Vec<u8> {
    let mut bytes = vec![];
    let read = |bytes: &mut Vec<u8>| -> io::Result<usize> {
        let (mut file, size) = open_regular(dir, name).map_err(|_| io::Error::other("refused"))?;
        file.seek(SeekFrom::Start(size.saturating_sub(most as u64)))?;
        file.take(most as u64).read_to_end(bytes)
    };
    let _ = read(&mut bytes);
    bytes
}

fn open_regular(dir: &Path, name: &std::ffi::CStr) -> Result<(File, u64), NotRead> {
    let dir = open_mount(dir).map_err(|_| NotRead::Missing)?;
    let file = match open_in(&dir, name, OFlags::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Err(NotRead::Missing),
        Err(_) => return Err(NotRead::Refused),
    };
    let stat = rustix::fs::fstat(&file).map_err(|_| NotRead::Refused)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(NotRead::Refused);
    }
    Ok((file.into(), u64::try_from(stat.st_size).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_small_regular_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("ok"), "12345").unwrap();
        fs::write(at("large"), vec![0; 100]).unwrap();
        fs::create_dir(at("dir")).unwrap();
        std::os::unix::fs::symlink("ok", at("link")).unwrap();
        std::os::unix::fs::symlink("/proc/self/environ", at("environ")).unwrap();
        let mkfifo = std::process::Command::new("mkfifo").arg(at("fifo")).status().unwrap();
        assert!(mkfifo.success());
        assert_eq!(read_whole(dir.path(), c"ok", 5), Ok(b"12345".to_vec()));
        assert_eq!(read_tail(dir.path(), c"ok", 2), b"45");
        assert_eq!(read_whole(dir.path(), c"none", 5), Err(NotRead::Missing));
        for refused in [c"large", c"dir", c"link", c"environ", c"fifo", c"../ok"] {
            assert_eq!(read_whole(dir.path(), refused, 5), Err(NotRead::Refused), "{refused:?}");
        }
        assert_eq!(read_tail(dir.path(), c"fifo", 5), b"");
    }

    #[test]
    fn paths_of_any_length_are_opened_and_none_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let script = "n=$(printf 'd%.0s' $(seq 200)); i=0; while [ $i -lt 60 ]; do mkdir $n; cd -P $n; i=$((i+1)); done
            echo x > deep";
        assert!(std::process::Command::new("bash").args(["-c", script]).current_dir(&dir).status().unwrap().success());
        std::os::unix::fs::symlink("d".repeat(200), dir.path().join("link")).unwrap();
        let root = open_mount(dir.path()).unwrap();
        let deep = format!("{}deep", format!("{}/", "d".repeat(200)).repeat(60));
        assert!(deep.len() > 12_000);
        assert!(open_beneath(&root, deep.as_bytes(), OFlags::empty()).is_ok());
        assert!(open_beneath(&root, b"", OFlags::DIRECTORY).is_ok());
        for out in ["..", "../x", "/etc/passwd", "link", "link/x", &format!("{deep}/x"), "a\0b"] {
            assert!(open_beneath(&root, out.as_bytes(), OFlags::empty()).is_err(), "{out}");
        }
        let up = format!("{}../../../..", "./".repeat(4000));
        assert!(open_beneath(&root, up.as_bytes(), OFlags::empty()).is_err());
    }
}
