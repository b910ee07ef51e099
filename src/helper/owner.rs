//! The working directory belongs to the user who runs the command: git and others refuse one that is somebody else's.
//!
//! With `runAsUser` it does from the start, because that user made it. Else the image says who it is, and the helper learns
//! that from the file that the runner makes first. A runner that is not the owner waits for the mark.

use crate::contract::{InputSource, Request, RequestedInput, log_line};
use crate::helper::error::log_failure;
use crate::helper::markers::{is_marked, mark};
use crate::helper::mount_points;
use crate::names::files;
use crate::runner::Paths;
use rustix::fs::{Gid, Uid, fchown, lstat};
use rustix::process::geteuid;
use std::os::unix::fs::lchown;
use std::path::PathBuf;

/// Gives the working directory, and what was made in it on the way to mounts, to the owner of the runner's first file. The
/// command has not begun. Where that cannot be done, as under a policy that takes capabilities away, the directory stays
/// open to all users, as it is.
pub(super) fn give(paths: &Paths, request: Option<&Request>) {
    let Ok(started) = lstat(paths.record.join(files::STARTED)) else { return };
    let (user, group) = (Uid::from_raw(started.st_uid), Gid::from_raw(started.st_gid));
    if user == geteuid() {
        return;
    }
    for dir in mount_points::ours(paths, request) {
        if let Err(error) = fchown(&dir, Some(user), Some(group)) {
            log_line!("bundle-operator helper: cannot give the working directory to user {user}: {error}");
            break;
        }
    }
    for (index, input) in request.iter().flat_map(|request| &request.inputs).enumerate() {
        give_input(paths, index, input);
    }
    if let Some(request) = request.filter(|request| !request.resume_from.is_empty()) {
        give_all(paths, request);
    }
    log_failure(mark(&paths.bin, files::OWNED, b""));
}

/// Gives all that was put back into the working directory to the owner of the runner's first file, if that is there. Whoever
/// does it first, here or in [`give`], it is done before the command begins: nobody writes there yet.
pub(super) fn give_all(paths: &Paths, request: &Request) {
    let Ok(started) = lstat(paths.record.join(files::STARTED)) else { return };
    let (user, group) = (started.st_uid, started.st_gid);
    if user == geteuid().as_raw() {
        return;
    }
    let mounted: Vec<PathBuf> = mount_points::mounted(request).map(|path| paths.bundle.join(path)).collect();
    let mut waiting = vec![paths.bundle.clone()];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if mounted.contains(&path) {
                continue;
            }
            if let Err(error) = lchown(&path, Some(user), Some(group)) {
                log_line!("bundle-operator helper: cannot give what was put back to user {user}: {error}");
                return;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push(path);
            }
        }
    }
}

/// Gives an input that is in place to the owner of the runner's first file, if that is there, and if its files have a mode
/// that was asked for: it may let nobody else read them. Whoever does it first, here or in [`give`], it is done.
pub(super) fn give_input(paths: &Paths, index: usize, input: &RequestedInput) {
    let Ok(started) = lstat(paths.record.join(files::STARTED)) else { return };
    let (user, group) = (started.st_uid, started.st_gid);
    let is_in_place = || match input.source {
        InputSource::Text(_) => true,
        _ => is_marked(&paths.bin, &format!("{}{index}", files::STAGED_INPUT)),
    };
    if input.mode.is_none() || !input.source.is_staged() || user == geteuid().as_raw() || !is_in_place() {
        return;
    }
    let place = paths.place(index, &input.source);
    let below = std::fs::read_dir(&place).into_iter().flatten().flatten().map(|entry| entry.path());
    for file in below.chain([place.clone()]) {
        if let Err(error) = lchown(&file, Some(user), Some(group)) {
            log_line!("bundle-operator helper: cannot give input {} to user {user}: {error}", input.path);
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Command, InputSource, RequestedInput};
    use crate::helper::markers::is_marked;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, chown, symlink};

    #[test]
    fn what_we_made_is_the_users_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        for dir in [&paths.bundle, &paths.record, &paths.bin] {
            fs::create_dir_all(dir).unwrap();
        }
        let inputs = ["a/b/claim", "/data/x", "."].map(|path| RequestedInput::new(path, InputSource::Mounted));
        let request = Request { inputs: inputs.to_vec(), ..Request::new(Command::Shell(String::new()), 30) };
        mount_points::make(&paths, &request, |_| false).unwrap();
        let outside = root.path().join("outside");
        fs::create_dir(&outside).unwrap();
        symlink(&outside, paths.bundle.join("link")).unwrap();
        let started = paths.record.join(files::STARTED);
        fs::write(&started, "").unwrap();
        let owner =
            |path: &str| fs::symlink_metadata(paths.bundle.join(path)).map(|there| (there.uid(), there.gid())).unwrap();
        let own = owner("");

        give(&paths, Some(&request));
        assert!(!is_marked(&paths.bin, files::OWNED) && owner("") == own, "it is the same user");
        chown(&started, Some(4321), Some(54)).unwrap(); // needs root
        give(&paths, Some(&request));
        assert!(is_marked(&paths.bin, files::OWNED));
        assert_eq!(["", "a", "a/b"].map(owner), [(4321, 54); 3]);
        // What is mounted over is an input, not a place of the command's.
        assert_eq!([owner("a/b/claim"), owner("link")], [own; 2]);
        assert_eq!(fs::metadata(&outside).unwrap().uid(), own.0);
    }

    /// 0600 lets nobody else read it.
    #[test]
    fn a_file_with_a_mode_of_its_own_is_the_users_once_it_is_in_place() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        for dir in [&paths.bundle, &paths.record, &paths.bin, &paths.secrets.join("1"), &paths.inputs] {
            fs::create_dir_all(dir).unwrap();
        }
        let closed = |source| RequestedInput { mode: Some(0o600), ..RequestedInput::new("x", source) };
        let inputs = vec![
            closed(InputSource::Text(String::new())),
            closed(InputSource::secret("s", None)),
            RequestedInput::new("y", InputSource::Text(String::new())),
        ];
        let files = [paths.inputs.join("0"), paths.secrets.join("1/key"), paths.inputs.join("2")];
        for file in &files {
            fs::write(file, "").unwrap();
        }
        let owners = || files.each_ref().map(|file| fs::metadata(file).unwrap().uid());
        let ours = owners()[0];
        fs::write(paths.record.join(files::STARTED), "").unwrap();
        chown(paths.record.join(files::STARTED), Some(4321), Some(54)).unwrap(); // needs root
        let request = Request { inputs, ..Request::new(Command::Shell(String::new()), 30) };
        give(&paths, Some(&request));
        assert_eq!(owners(), [4321, ours, ours], "who copies the Secret may not be done");
        mark(&paths.bin, &format!("{}1", files::STAGED_INPUT), b"").unwrap();
        give_input(&paths, 1, &request.inputs[1]);
        assert_eq!(owners(), [4321, 4321, ours]);
    }
}
