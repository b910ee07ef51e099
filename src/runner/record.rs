//! Writing the record so that it cannot fail for want of space, and nobody ever reads half of it.

use crate::contract::{RECORD_MAX_BYTES, Record, one_line};
use crate::names::files;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags, RenameFlags, rename, renameat_with};
use rustix::io::Errno;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A file with the space of a record, made before the command can fill the disk.
#[derive(Debug)]
pub(crate) struct RecordFile {
    dir: PathBuf,
    reserved: Option<Draft>,
}

/// A record that is being written, under a name of its own.
#[derive(Debug)]
struct Draft {
    file: OwnedFd,
    path: PathBuf,
}

/// Name of the record while it is written.
const DRAFT: &str = "record.tmp";
/// How many names are tried. The command can take any of them, but not know those with the time in them.
const NAMES: u32 = 8;

impl RecordFile {
    /// Reserves the space. Where that fails the record is still written at the end, if it can be.
    pub(crate) fn reserve(dir: &Path) -> Self {
        let reserved = create_draft(dir).ok().filter(|draft| reserve_space(&draft.file).is_ok());
        Self { dir: dir.to_owned(), reserved }
    }

    /// Puts the record in place, whatever is there now.
    pub(crate) fn write(self, record: &Record) -> Result<(), Errno> {
        let text = encode(record);
        let written = self.reserved.filter(Draft::is_in_place).filter(|draft| fill(&draft.file, &text).is_ok());
        let draft = if let Some(draft) = written {
            draft
        } else {
            let draft = create_draft(&self.dir)?;
            fill(&draft.file, &text)?;
            draft
        };
        let place = self.dir.join(files::RECORD);
        if rename(&draft.path, &place).is_err() {
            // The command can have made a directory of that name.
            renameat_with(CWD, &draft.path, CWD, &place, RenameFlags::EXCHANGE)
                .or_else(|_| rename(&place, unused_name(&self.dir)).and_then(|()| rename(&draft.path, &place)))?;
        }
        if let Ok(dir) =
            rustix::fs::open(&self.dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        {
            let _ = rustix::fs::fsync(dir);
        }
        Ok(())
    }
}

impl Draft {
    /// Whether its path still names this file: the command may have put another in its place.
    fn is_in_place(&self) -> bool {
        let named = rustix::fs::statat(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW);
        matches!((rustix::fs::fstat(&self.file), named), (Ok(a), Ok(b)) if a.st_dev == b.st_dev && a.st_ino == b.st_ino)
    }
}

/// Writes a record only where there is none: what an earlier runner wrote stays.
pub(crate) fn write_if_absent(dir: &Path, record: &Record) -> Result<(), Errno> {
    let draft = create_draft(dir)?;
    fill(&draft.file, &encode(record))?;
    match renameat_with(CWD, &draft.path, CWD, dir.join(files::RECORD), RenameFlags::NOREPLACE) {
        Err(Errno::EXIST) => rustix::fs::unlink(&draft.path),
        other => other,
    }
}

fn encode(record: &Record) -> Vec<u8> {
    let record = Record { detail: one_line(&record.detail), ..record.clone() };
    serde_json::to_vec(&record).unwrap_or_default()
}

fn create_draft(dir: &Path) -> Result<Draft, Errno> {
    let mut path = dir.join(DRAFT);
    let mut outcome = Err(Errno::EXIST);
    for _ in 0..NAMES {
        // Left by a runner before us, or put there by the command.
        let _ = rustix::fs::unlink(&path);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
        outcome = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o644));
        if !matches!(outcome, Err(Errno::EXIST)) {
            break;
        }
        path = unused_name(dir);
    }
    outcome.map(|file| Draft { file, path })
}

fn unused_name(dir: &Path) -> PathBuf {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    dir.join(format!("{DRAFT}.{}", since.as_nanos()))
}

fn reserve_space(file: &OwnedFd) -> Result<(), Errno> {
    let size = RECORD_MAX_BYTES as u64;
    // Not every file system can allocate without writing.
    rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size).or_else(|_| {
        let zeros = [0; RECORD_MAX_BYTES];
        let written = rustix::io::pwrite(file, &zeros, 0)?;
        if written < zeros.len() { Err(Errno::NOSPC) } else { rustix::fs::fsync(file) }
    })
}

fn fill(file: &OwnedFd, text: &[u8]) -> Result<(), Errno> {
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pwrite(file, rest, at as u64) {
            Ok(0) => return Err(Errno::NOSPC),
            Ok(n) => at += n,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    rustix::fs::ftruncate(file, text.len() as u64)?;
    // The helper may have no more rights than the command, which can have changed the draft's mode.
    let _ = rustix::fs::fchmod(file, Mode::from_raw_mode(0o644));
    // A file system without fsync keeps the record all the same.
    match rustix::fs::fsync(file) {
        Err(Errno::INVAL | Errno::ROFS) | Ok(()) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn read(dir: &Path) -> Record {
        serde_json::from_slice(&fs::read(dir.join(files::RECORD)).unwrap()).unwrap()
    }

    #[test]
    fn the_record_lands_whatever_the_command_did_to_its_place() {
        type Mischief = fn(&Path);
        let mischiefs: [Mischief; 6] = [
            |_| {},
            |dir| fs::remove_file(dir.join(DRAFT)).unwrap(),
            |dir| {
                fs::remove_file(dir.join(DRAFT)).unwrap();
                fs::create_dir_all(dir.join(DRAFT).join("full")).unwrap();
            },
            |dir| {
                fs::remove_file(dir.join(DRAFT)).unwrap();
                fs::create_dir_all(dir.join(DRAFT).join("full")).unwrap();
                fs::create_dir_all(dir.join(files::RECORD).join("full")).unwrap();
                fs::create_dir_all(dir.join("record.moved").join("full")).unwrap();
            },
            |dir| fs::create_dir_all(dir.join(files::RECORD).join("full")).unwrap(),
            |dir| std::os::unix::fs::symlink("/dev/null", dir.join(files::RECORD)).unwrap(),
        ];
        for mischief in mischiefs {
            let dir = tempfile::tempdir().unwrap();
            let file = RecordFile::reserve(dir.path());
            mischief(dir.path());
            let record = Record { exit_code: Some(3), detail: "x\ny".repeat(500), ..Record::default() };
            file.write(&record).unwrap();
            let got = read(dir.path());
            assert_eq!(got.exit_code, Some(3));
            assert_eq!(got.detail, one_line(&record.detail));
            assert!(fs::symlink_metadata(dir.path().join(files::RECORD)).unwrap().is_file());
        }
    }

    #[test]
    fn an_earlier_record_stays() {
        let dir = tempfile::tempdir().unwrap();
        let first = Record { exit_code: Some(0), ..Record::default() };
        write_if_absent(dir.path(), &first).unwrap();
        write_if_absent(dir.path(), &Record { exit_code: Some(9), ..Record::default() }).unwrap();
        assert_eq!(read(dir.path()), first);
        assert!(!dir.path().join(DRAFT).exists());
    }
}
