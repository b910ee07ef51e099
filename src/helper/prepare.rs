//! What the run container needs before it starts. Done again after a crash, it changes nothing that is in use.

use crate::names::{files, paths};
use crate::runner::Paths;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Puts the runner and the directories in place, then says so. Returns the file that the runner will lock.
pub(super) fn prepare(paths: &Paths) -> Result<OwnedFd, String> {
    open_to_all(&paths.bundle, 0o777)?;
    // Sticky: a user other than ours cannot replace what we made in it.
    open_to_all(&paths.record, 0o1777)?;
    let lock = make_lock(&paths.record.join(files::LOCK))?;
    if !paths.bin.join(files::PREPARED).exists() {
        copy_runner(paths)?;
        mark(&paths.bin, files::PREPARED, b"")?;
    }
    mark(&paths.bin, files::STAGED, b"")?;
    Ok(lock)
}

/// Writes a file of the bin directory so that nobody sees half of it.
pub(super) fn mark(bin: &Path, name: &str, text: &[u8]) -> Result<(), String> {
    place(bin, name, 0o644, |file| file.write_all(text))
}

fn copy_runner(paths_: &Paths) -> Result<(), String> {
    let name = Path::new(paths::RUNNER).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let from = &paths_.runner_in_image;
    let mut source = fs::File::open(from).map_err(|error| format!("cannot open {}: {error}", from.display()))?;
    place(&paths_.bin, name, 0o755, |file| io::copy(&mut source, file).map(drop))
}

fn place(dir: &Path, name: &str, mode: u32, write: impl FnOnce(&mut fs::File) -> io::Result<()>) -> Result<(), String> {
    let (draft, target) = (dir.join(format!(".{name}.tmp")), dir.join(name));
    let placed = fs::create_dir_all(dir)
        .and_then(|()| fs::File::create(&draft))
        .and_then(|mut file| write(&mut file).and_then(|()| file.set_permissions(Permissions::from_mode(mode))))
        .and_then(|()| fs::rename(&draft, &target));
    placed.map_err(|error| format!("cannot write {}: {error}", target.display()))
}

/// The run container may have any user. The kubelet makes volumes 0777 and root's: where we are not root there is
/// nothing to change and no right to.
fn open_to_all(dir: &Path, mode: u32) -> Result<(), String> {
    let failed = |error: io::Error| format!("cannot open {} to all users: {error}", dir.display());
    fs::create_dir_all(dir).map_err(failed)?;
    let is = fs::metadata(dir).map_err(failed)?.permissions().mode();
    if is & 0o7777 == mode {
        return Ok(());
    }
    match fs::set_permissions(dir, Permissions::from_mode(mode)) {
        Err(error) if is & 0o777 != 0o777 => Err(failed(error)),
        _ => Ok(()),
    }
}

fn make_lock(path: &Path) -> Result<OwnedFd, String> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o666);
    let lock =
        rustix::fs::open(path, flags, mode).map_err(|error| format!("cannot open {}: {error}", path.display()))?;
    // The umask took from the mode. Not ours any more after a restart as another user: then it has been done.
    let _ = rustix::fs::fchmod(&lock, mode);
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_prepare_leaves_the_runner_alone() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        fs::write(&paths.runner_in_image, "first").unwrap();
        prepare(&paths).unwrap();
        fs::write(&paths.runner_in_image, "second").unwrap();
        prepare(&paths).unwrap();
        let runner = paths.bin.join("bundle-runner");
        assert_eq!(fs::read_to_string(&runner).unwrap(), "first");
        assert_eq!(fs::metadata(&runner).unwrap().permissions().mode() & 0o7777, 0o755);
        assert_eq!(fs::metadata(&paths.bundle).unwrap().permissions().mode() & 0o7777, 0o777);
        assert_eq!(fs::metadata(&paths.record).unwrap().permissions().mode() & 0o7777, 0o1777);
        assert_eq!(fs::metadata(paths.record.join(files::LOCK)).unwrap().permissions().mode() & 0o777, 0o666);
        let mut names: Vec<_> = fs::read_dir(&paths.bin).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["bundle-runner", "prepared", "staged"]);
    }

    #[test]
    fn without_a_runner_nothing_is_prepared() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        assert!(prepare(&paths).unwrap_err().contains("bundle-runner"));
        assert!(!paths.bin.join(files::PREPARED).exists());
    }
}
