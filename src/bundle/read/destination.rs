//! Where an input goes: a directory or a file of ours, filled with what a stranger's archive says.
//!
//! Whatever the archive says, nothing outside of the place is written, read or made visible: every name is resolved
//! below the place by the kernel, links in it are never followed, and only directories, files and links are made.

use super::budget::Budget;
use crate::bundle::error::shown;
use crate::bundle::format::listing::ListedFile;
use crate::bundle::format::tar_header::MTIME;
use crate::bundle::untrusted::open_beneath;
use crate::bundle::{Error, ErrorKind};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

/// The size in which files are made of holes.
const BLOCK: usize = 4096;
static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// A place, opened.
#[derive(Clone)]
pub(in crate::bundle) enum Place {
    Directory(Arc<OwnedFd>),
    File(Arc<File>),
}

impl Place {
    /// Opens what is there.
    pub(in crate::bundle) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |error: Errno| Error::local(format!("open {}", path.display()), error);
        let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        match rustix::fs::open(path, flags | OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()) {
            Ok(dir) => return Ok(Self::Directory(Arc::new(dir))),
            Err(Errno::NOTDIR) => {}
            Err(error) => return Err(failed(error)),
        }
        let file: File = rustix::fs::open(path, flags | OFlags::WRONLY, Mode::empty()).map_err(failed)?.into();
        let regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
        if regular { Ok(Self::File(Arc::new(file))) } else { Err(failed(Errno::INVAL)) }
    }
}

/// A path as archives may have it: components that are names. Others are refused.
pub(in crate::bundle) fn checked(path: &[u8]) -> Result<&[u8], Error> {
    let name =
        |part: &[u8]| !part.is_empty() && part.len() <= 255 && part != b"." && part != b".." && !part.contains(&0);
    if path.split(|byte| *byte == b'/').all(name) {
        return Ok(path);
    }
    Err(Error::invalid(format!("{:?} is no name of a file in an archive", shown(path))))
}

/// What becomes of modes and times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bundle) enum Made {
    /// Readable for everybody, and of one time.
    AsInput,
    /// As they were when the snapshot was taken.
    AsItWas,
    /// As they were recorded, less what the umask of the user who gets them takes away.
    ForUser {
        /// Of that user.
        umask: u32,
    },
}

impl Made {
    fn file_mode(self, mode: u32) -> u32 {
        match self {
            Self::AsInput => mode & 0o777 | 0o444,
            Self::AsItWas => mode & 0o7777,
            Self::ForUser { umask } => mode & 0o777 & !umask,
        }
    }

    fn directory_mode(self, mode: u32) -> u32 {
        match self {
            Self::AsInput => mode & 0o777 | 0o555,
            Self::AsItWas | Self::ForUser { .. } => self.file_mode(mode),
        }
    }
}

/// Makes things in a directory. Each thread has its own; they may share the directory.
pub(in crate::bundle) struct Maker {
    root: Arc<OwnedFd>,
    made: Made,
    /// See [`Maker::counting`].
    budget: Option<Budget>,
    /// The directory that was used last.
    parent: Option<(Vec<u8>, OwnedFd)>,
}

impl Maker {
    pub(in crate::bundle) fn new(root: Arc<OwnedFd>) -> Self {
        Self { root, made: Made::AsInput, budget: None, parent: None }
    }

    /// The same with other modes and times.
    pub(in crate::bundle) fn made(self, made: Made) -> Self {
        Self { made, ..self }
    }

    /// The same where what files take on the disk is counted as it is written: holes count for nothing, as in the working
    /// directory that they are from.
    pub(in crate::bundle) fn counting(self, budget: &Budget) -> Self {
        Self { budget: Some(budget.clone()), ..self }
    }

    /// Another one, for another thread.
    pub(in crate::bundle) fn another(&self) -> Self {
        Self { root: self.root.clone(), made: self.made, budget: self.budget.clone(), parent: None }
    }

    /// Removes all that is in the place: what an earlier try left.
    pub(in crate::bundle) fn clear(&mut self) -> Result<(), Error> {
        self.clear_but(&[])
    }

    /// The same but for these paths, what is below them, and the directories on the way to them.
    pub(in crate::bundle) fn clear_but(&mut self, stay: &[Vec<u8>]) -> Result<(), Error> {
        let is_below = |path: &[u8], dir: &[u8]| {
            path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        self.remove_in(&[], &|path| stay.iter().any(|stays| is_below(path, stays) || is_below(stays, path)))
    }

    /// A directory of this mode cannot be entered by its owner once it has it.
    pub(in crate::bundle) fn closes(&self, mode: u32) -> bool {
        self.made.directory_mode(mode) & 0o500 != 0o500
    }

    /// A directory, as it is until [`Maker::directory_mode`].
    pub(in crate::bundle) fn directory(&mut self, path: &[u8]) -> Result<(), Error> {
        let (parent, name) = self.parent_of(path)?;
        match rustix::fs::mkdirat(parent, &name, Mode::RWXU) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(failed("make the directory", path, error)),
        }
        if is_directory(parent, &name) {
            return Ok(());
        }
        rustix::fs::unlinkat(parent, &name, AtFlags::empty()).map_err(|error| failed("replace", path, error))?;
        rustix::fs::mkdirat(parent, &name, Mode::RWXU).map_err(|error| failed("make the directory", path, error))
    }

    /// The directory's mode and time once all is in it.
    pub(in crate::bundle) fn directory_mode(&mut self, path: &[u8], mode: u32) -> Result<(), Error> {
        let changed = match open_beneath(&self.root, path, OFlags::DIRECTORY) {
            Ok(dir) => {
                if self.made == Made::AsInput {
                    set_time(&dir, &TIMES);
                }
                rustix::fs::fchmod(&dir, Mode::from_raw_mode(self.made.directory_mode(mode)))
            }
            // A later layer has put something else there.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(error) => Err(error),
        };
        changed.map_err(|error| failed("set the mode of", path, error))
    }

    /// The mode of the place itself, where it is a directory within a bundle: a user's is closed to those to whom that was.
    pub(in crate::bundle) fn root_mode(&self, mode: u32) -> Result<(), Error> {
        let Made::ForUser { .. } = self.made else { return Ok(()) };
        let narrowed = rustix::fs::fstat(&self.root).and_then(|stat| {
            let mode = stat.st_mode & self.made.directory_mode(mode);
            rustix::fs::fchmod(&self.root, Mode::from_raw_mode(mode))
        });
        narrowed.map_err(|error| Error::local("set the mode of the directory", error))
    }

    /// The time of the place itself once all is in it.
    pub(in crate::bundle) fn finish(self) {
        if self.made == Made::AsInput {
            set_time(&self.root, &TIMES);
        }
    }

    /// A new file in the place of whatever is there.
    pub(in crate::bundle) fn file(&mut self, path: &[u8]) -> Result<NewFile, Error> {
        self.remove(path)?;
        let (parent, name) = self.parent_of(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, &name, flags, Mode::RUSR | Mode::WUSR);
        let file = file.map_err(|error| failed("make the file", path, error))?;
        let budget = self.budget.clone();
        Ok(NewFile { file: Arc::new(file.into()), position: 0, path: path.to_vec(), made: self.made, budget })
    }

    /// A symbolic link.
    pub(in crate::bundle) fn link(&mut self, path: &[u8], target: &[u8]) -> Result<(), Error> {
        self.remove(path)?;
        let made = self.made;
        let (parent, name) = self.parent_of(path)?;
        rustix::fs::symlinkat(OsStr::from_bytes(target), parent, &name)
            .map_err(|error| failed("make the link", path, error))?;
        if made == Made::AsInput {
            // As in `set_time`.
            let _ = rustix::fs::utimensat(parent, &name, &TIMES, AtFlags::SYMLINK_NOFOLLOW);
        }
        Ok(())
    }

    /// Another name of a file of the place.
    pub(in crate::bundle) fn hard_link(&mut self, path: &[u8], to: &[u8]) -> Result<(), Error> {
        if path == to {
            return Ok(());
        }
        self.remove(path)?;
        let source = self.parent_of(to).map(|(parent, name)| (parent.try_clone_to_owned(), name))?;
        let (source, source_name) = (source.0.map_err(|error| Error::local("open", error))?, source.1);
        let (parent, name) = self.parent_of(path)?;
        match rustix::fs::linkat(&source, &source_name, parent, &name, AtFlags::empty()) {
            Ok(()) => Ok(()),
            Err(Errno::NOENT | Errno::PERM | Errno::ISDIR) => {
                let (path, to) = (shown(path), shown(to));
                Err(Error::invalid(format!("{path:?} is another name of {to:?}, which is no file in the archive")))
            }
            Err(error) => Err(failed("link", path, error)),
        }
    }

    /// Removes what is at the path, if there is something.
    pub(in crate::bundle) fn remove(&mut self, path: &[u8]) -> Result<(), Error> {
        self.remove_lower(path, &|_| false)
    }

    /// Removes what is at the path and below it, but for the paths that are to stay.
    pub(in crate::bundle) fn remove_lower(&mut self, path: &[u8], stays: &dyn Fn(&[u8]) -> bool) -> Result<(), Error> {
        let Some((parent, name)) = self.existing_parent_of(path)? else { return Ok(()) };
        if !is_directory(parent, &name) {
            if stays(path) {
                return Ok(());
            }
            return match rustix::fs::unlinkat(parent, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(error) => Err(failed("remove", path, error)),
            };
        }
        self.remove_in(path, stays)?;
        if stays(path) { Ok(()) } else { remove_empty(&self.root, path) }
    }

    /// Removes what is in a directory, but for the paths that are to stay.
    pub(in crate::bundle) fn remove_in(&mut self, dir: &[u8], stays: &dyn Fn(&[u8]) -> bool) -> Result<(), Error> {
        // It may be the removed one, or below it.
        self.parent = None;
        remove_below(&self.root, dir, stays)
    }

    fn existing_parent_of(&mut self, path: &[u8]) -> Result<Option<(BorrowedFd<'_>, CString)>, Error> {
        let (dir, name) = split(path)?;
        if self.parent.as_ref().is_none_or(|(known, _)| known != dir) {
            match open_beneath(&self.root, dir, OFlags::DIRECTORY) {
                Ok(fd) => self.parent = Some((dir.to_vec(), fd)),
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::LOOP | Errno::NOTDIR | Errno::XDEV) => return Err(through_link(path)),
                Err(error) => return Err(failed("open the directory of", path, error)),
            }
        }
        Ok(self.parent.as_ref().map(|(_, fd)| (fd.as_fd(), name)))
    }

    /// The directory that the path is in; made, where an archive has no entry for it.
    fn parent_of(&mut self, path: &[u8]) -> Result<(BorrowedFd<'_>, CString), Error> {
        let how = self.made;
        if self.existing_parent_of(path)?.is_none() {
            let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
            for end in ends.collect::<Vec<_>>() {
                let dir = path.get(..end).unwrap_or_default();
                if let Some((parent, name)) = self.existing_parent_of(dir)? {
                    let mode = Mode::from_raw_mode(how.directory_mode(0o755));
                    match rustix::fs::mkdirat(parent, &name, mode) {
                        // Whatever our umask is.
                        Ok(()) => rustix::fs::chmodat(parent, &name, mode, AtFlags::empty())
                            .map_err(|error| failed("set the mode of", dir, error))?,
                        Err(Errno::EXIST) => {}
                        Err(error) => return Err(failed("make the directory", dir, error)),
                    }
                }
            }
        }
        self.existing_parent_of(path)?.ok_or_else(|| failed("find the directory of", path, Errno::NOENT))
    }
}

fn split(path: &[u8]) -> Result<(&[u8], CString), Error> {
    let (dir, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
        None => (&[][..], path),
    };
    checked(name)?;
    let name = CString::new(name).map_err(|_| Error::invalid("a name with a zero byte"))?;
    Ok((dir, name))
}

fn through_link(path: &[u8]) -> Error {
    let path = shown(path);
    Error::invalid(format!("{path:?} goes through something that is no directory, such as a symbolic link"))
}

fn failed(what: &str, path: &[u8], error: Errno) -> Error {
    if error == Errno::NAMETOOLONG {
        return Error::invalid(format!("{:?} is too long for a name", shown(path)));
    }
    Error::local(format!("{what} {:?}", shown(path)), error)
}

/// Staged entries have the time that they have in an image that is mounted.
const TIMES: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    last_modification: Timespec { tv_sec: MTIME as i64, tv_nsec: 0 },
};

fn set_time<Fd: AsFd>(fd: Fd, times: &Timestamps) {
    // A file system that keeps no times has no less of the input for it.
    let _ = rustix::fs::futimens(fd, times);
}

fn is_directory(parent: BorrowedFd<'_>, name: &CStr) -> bool {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Removes all in a directory, at any depth and with few descriptors.
fn remove_below(root: &OwnedFd, base: &[u8], stays: &dyn Fn(&[u8]) -> bool) -> Result<(), Error> {
    let mut stack = vec![(base.to_vec(), None)];
    while let Some((path, below)) = stack.last_mut() {
        let below = match below {
            Some(below) => below,
            None => below.insert(remove_files(root, path, path.as_slice() == base, stays)?),
        };
        if let Some(next) = below.pop() {
            stack.push((next, None));
        } else if let Some((path, _)) = stack.pop()
            && path != base
            && !stays(&path)
        {
            remove_empty(root, &path)?;
        }
    }
    Ok(())
}

/// Removes what is no directory. Returns the directories.
fn remove_files(
    root: &OwnedFd,
    path: &[u8],
    is_base: bool,
    stays: &dyn Fn(&[u8]) -> bool,
) -> Result<Vec<Vec<u8>>, Error> {
    let dir = match open_beneath(root, path, OFlags::DIRECTORY) {
        Ok(dir) => dir,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(vec![]),
        Err(error) => return Err(failed("open", path, error)),
    };
    if !is_base && !stays(path) {
        // An earlier try may have given it its last mode, without which we could not remove what is in it.
        let _ = rustix::fs::fchmod(&dir, Mode::RWXU);
    }
    let mut directories = vec![];
    for entry in Dir::read_from(&dir).map_err(|error| failed("read", path, error))? {
        let entry = entry.map_err(|error| failed("read", path, error))?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let full = if path.is_empty() { name.to_bytes().to_vec() } else { [path, b"/", name.to_bytes()].concat() };
        if is_directory(dir.as_fd(), name) {
            directories.push(full);
        } else if !stays(&full) {
            match rustix::fs::unlinkat(&dir, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(failed("remove", &full, error)),
            }
        }
    }
    Ok(directories)
}

fn remove_empty(root: &OwnedFd, path: &[u8]) -> Result<(), Error> {
    let (dir, name) = split(path)?;
    let parent = open_beneath(root, dir, OFlags::DIRECTORY).map_err(|error| failed("open", dir, error))?;
    match rustix::fs::unlinkat(&parent, &name, AtFlags::REMOVEDIR) {
        // Not empty: something in it stays.
        Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
        Err(error) => Err(failed("remove", path, error)),
    }
}

/// Of a file, from its begin to its end.
pub(super) enum Piece<'a> {
    Bytes(&'a [u8]),
    /// So many zeros.
    Hole(u64),
}

/// A file that is being written. Zeros become holes.
pub(in crate::bundle) struct NewFile {
    file: Arc<File>,
    position: u64,
    path: Vec<u8>,
    made: Made,
    /// What is written counts.
    budget: Option<Budget>,
}

impl NewFile {
    /// Over a file that is there and keeps its inode.
    pub(in crate::bundle) fn over(file: &Arc<File>, path: &[u8], made: Made) -> Result<Self, Error> {
        file.set_len(0).map_err(|error| Error::local("empty the file", error))?;
        Ok(Self { file: file.clone(), position: 0, path: path.to_vec(), made, budget: None })
    }

    /// See [`Maker::counting`].
    pub(in crate::bundle) fn counting(self, budget: &Budget) -> Self {
        Self { budget: Some(budget.clone()), ..self }
    }

    /// The next piece.
    pub(in crate::bundle) fn put(&mut self, piece: &Piece<'_>) -> Result<(), Error> {
        match piece {
            Piece::Bytes(bytes) => self.write(bytes),
            Piece::Hole(bytes) => {
                self.position = self.position.saturating_add(*bytes);
                Ok(())
            }
        }
    }

    pub(in crate::bundle) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let mut run: &[u8] = &[];
        let mut rest = bytes;
        // Runs of blocks that are not all zeros are written at once.
        while !rest.is_empty() {
            let used = usize::try_from((self.position + run.len() as u64) % BLOCK as u64).unwrap_or(0);
            let (block, after) = rest.split_at_checked(BLOCK - used).unwrap_or((rest, &[]));
            if ZEROS.get(..block.len()) == Some(block) {
                self.put_bytes(run)?;
                self.position += block.len() as u64;
                run = &[];
            } else {
                let start = bytes.len() - rest.len() - run.len();
                run = bytes.get(start..start + run.len() + block.len()).unwrap_or_default();
            }
            rest = after;
        }
        self.put_bytes(run)
    }

    fn put_bytes(&mut self, run: &[u8]) -> Result<(), Error> {
        if let Some(budget) = &self.budget {
            budget.bytes(run.len() as u64)?;
        }
        let written = self.file.write_all_at(run, self.position);
        written.map_err(|error| Error::local(format!("write {:?}", shown(&self.path)), error))?;
        self.position += run.len() as u64;
        Ok(())
    }

    /// The end of [`NewFile::over`] a file, by who has the file and not the writer.
    pub(in crate::bundle) fn finish_over(place: &Arc<File>, file: &ListedFile, made: Made) -> Result<(), Error> {
        let new = Self { file: place.clone(), position: file.size, path: vec![], made, budget: None };
        new.finish(file.mode, file.modified)
    }

    /// Its length, mode and time. What is made as it was may have a time of its own, in seconds and nanoseconds.
    pub(in crate::bundle) fn finish(self, mode: u32, modified: Option<(i64, u64)>) -> Result<(), Error> {
        let failed = |error| Error::local(format!("finish {:?}", shown(&self.path)), error);
        self.file.set_len(self.position).map_err(failed)?;
        match (self.made, modified) {
            (Made::AsInput, _) => set_time(&self.file, &TIMES),
            (_, Some((seconds, nanoseconds))) => {
                let tv_nsec = i64::try_from(nanoseconds).unwrap_or_default();
                let last_modification = Timespec { tv_sec: seconds, tv_nsec };
                set_time(&self.file, &Timestamps { last_modification, ..TIMES });
            }
            (_, None) => {}
        }
        let mode = self.made.file_mode(mode);
        self.file.set_permissions(std::fs::Permissions::from_mode(mode)).map_err(failed)
    }
}

/// An input of another kind than was prepared for.
pub(in crate::bundle) fn other_kind(what: &str, wanted: &str) -> Error {
    Error::new(ErrorKind::Invalid, format!("{what} is no {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODIFIED: Option<(i64, u64)> = Some((1_700_000_000, 5));

    /// Modes of a private file, a program, and directories: one that an archive has, one that it has not, and the place.
    /// And the time of the file.
    fn made(made: Made) -> ([u32; 5], i64) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let Place::Directory(root) = Place::open(dir.path()).unwrap() else { panic!("a directory") };
        let mut maker = Maker::new(root).made(made);
        maker.directory(b"private").unwrap();
        maker.file(b"private/key").unwrap().finish(0o600, MODIFIED).unwrap();
        maker.file(b"untold/program").unwrap().finish(0o4775, None).unwrap();
        maker.directory_mode(b"private", 0o2770).unwrap();
        maker.root_mode(0o700).unwrap();
        maker.finish();
        let metadata = |path: &str| dir.path().join(path).metadata().unwrap();
        let modes = ["private/key", "untold/program", "private", "untold", ""];
        let time = std::os::unix::fs::MetadataExt::mtime(&metadata("private/key"));
        (modes.map(|path| metadata(path).permissions().mode() & 0o7777), time)
    }

    #[test]
    fn a_user_gets_what_was_private_as_private_and_no_more_than_the_umask_leaves() {
        assert_eq!(made(Made::ForUser { umask: 0o022 }), ([0o600, 0o755, 0o750, 0o755, 0o700], 1_700_000_000));
        assert_eq!(made(Made::ForUser { umask: 0o077 }), ([0o600, 0o700, 0o700, 0o700, 0o700], 1_700_000_000));
    }

    #[test]
    fn inputs_are_readable_for_all_and_what_is_put_back_is_as_it_was() {
        assert_eq!(made(Made::AsInput), ([0o644, 0o775, 0o775, 0o755, 0o755], i64::from(MTIME)));
        assert_eq!(made(Made::AsItWas), ([0o600, 0o4775, 0o2770, 0o755, 0o755], 1_700_000_000));
    }
}
