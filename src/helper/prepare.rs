//! What the run container needs before it starts. Done again after a crash, it changes nothing that is in use.

use crate::contract::{InputSource, MESSAGE_MAX_BYTES, Request};
use crate::helper::child::Task;
use crate::helper::markers::{self, is_marked, mark, read_json};
use crate::helper::mount_points;
use crate::helper::supervise::retry_until;
use crate::helper::supervise::staging;
use crate::helper::task::look_up::{self, LookedUp};
use crate::names::{files, paths};
use crate::runner::Paths;
use crate::runner::signals::wait_readable;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long registries may take to say what inputs are, before the run container starts. The postStart hook, which began
/// when we did, waits a little longer. What is not known by then is taken for a directory, and looked up while the
/// command waits.
const LOOK_UP: Duration = Duration::from_secs(9);

/// Puts the runner, the directories and the places of inputs in place, then says so. Returns the file that the runner
/// will lock. Without a request that can be read there is nothing more to do: the runner will tell.
pub(super) fn prepare(paths: &Paths, request: Option<&Request>, stop: BorrowedFd<'_>) -> Result<OwnedFd, String> {
    let begin = Instant::now();
    let is_prepared = is_marked(&paths.bin, files::PREPARED);
    // After a crash, what the command made of its places must not stand between us and its output.
    if !is_prepared {
        // Sticky: a user other than ours cannot replace what we made in it.
        open_to_all(&paths.record, 0o1777)?;
        open_to_all(&paths.record.join(files::SNAPSHOTS), 0o1777)?;
    }
    let lock = make_lock(&paths.bin.join(files::LOCK))?;
    if !is_prepared {
        open_to_all(&paths.bundle, 0o777)?;
        copy_runner(paths)?;
        reserve_space(paths)?;
        if let Some(request) = request {
            prepare_inputs(paths, request, begin + LOOK_UP, stop)?;
        }
        mark(&paths.bin, files::PREPARED, b"")?;
    }
    if !request.is_some_and(staging::is_needed) && !is_marked(&paths.bin, files::STAGED) {
        mark(&paths.bin, files::STAGED, b"")?;
    }
    Ok(lock)
}

/// What tells the ending must not depend on the space that the command leaves.
fn reserve_space(paths: &Paths) -> Result<(), String> {
    markers::reserve(&paths.bin)?;
    markers::reserve_file(&paths.termination_message, MESSAGE_MAX_BYTES as u64)
        .map_err(|error| format!("cannot set space aside for {}: {error}", paths.termination_message.display()))
}

/// Where an input cannot be had there is a directory for it all the same: the run container has to start to tell.
fn prepare_inputs(paths: &Paths, request: &Request, until: Instant, stop: BorrowedFd<'_>) -> Result<(), String> {
    let looked_up = look_up(paths, request, until, stop);
    if let Some(order) = &looked_up.order {
        markers::order(&paths.bin, order)?;
    }
    let known = |index: &usize| request.inputs.get(*index).is_some_and(|input| input.is_file);
    let is_file = |index: usize| match request.inputs.get(index).map(|input| &input.source) {
        Some(InputSource::Text(_) | InputSource::Url { .. }) => true,
        Some(InputSource::Copied { file, .. }) => file.is_some(),
        Some(InputSource::Mounted) => false,
        Some(InputSource::Image { .. } | InputSource::Snapshot(_)) | None => {
            known(&index) || looked_up.files.contains(&index)
        }
    };
    Ok(mount_points::make(paths, request, is_file)?)
}

fn look_up(paths: &Paths, request: &Request, until: Instant, stop: BorrowedFd<'_>) -> LookedUp {
    if !request.inputs.iter().any(look_up::is_needed) {
        return LookedUp::default();
    }
    let mut pause = |time| wait_readable([stop], Some(time)) == [true];
    let is_done = || is_marked(&paths.bin, files::LOOKED_UP) || is_marked(&paths.bin, files::END);
    retry_until(paths, Task::LookUp, Some(until), &mut pause, &is_done);
    read_json(&paths.bin, files::LOOKED_UP).unwrap_or_default()
}

fn copy_runner(paths_: &Paths) -> Result<(), String> {
    let name_of = |program: &'static str| program.rsplit('/').next().unwrap_or_default();
    let (name, snapshot) = (name_of(paths::RUNNER), name_of(paths::SNAPSHOT));
    let from = &paths_.runner_in_image;
    let mut source = fs::File::open(from).map_err(|error| format!("cannot open {}: {error}", from.display()))?;
    markers::place(&paths_.bin, name, 0o755, |file| io::copy(&mut source, file).map(drop))?;
    // The same program under the name by which the command runs it.
    let linked = match fs::hard_link(paths_.bin.join(name), paths_.bin.join(snapshot)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => fs::create_dir_all(paths_.bin.join(files::SNAPSHOTS)),
    };
    linked.map_err(|error| format!("cannot make {snapshot} in {}: {error}", paths_.bin.display()))
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
    let mode = Mode::from_raw_mode(0o644);
    let lock =
        rustix::fs::open(path, flags, mode).map_err(|error| format!("cannot open {}: {error}", path.display()))?;
    // The umask took from the mode.
    rustix::fs::fchmod(&lock, mode).map_err(|error| format!("cannot open {} to all: {error}", path.display()))?;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Command, RequestedInput};
    use rustix::fd::AsFd;
    use rustix::pipe::pipe;

    fn below(root: &Path) -> Paths {
        let paths = Paths::below(root);
        fs::create_dir_all(&paths.bin).unwrap();
        fs::create_dir_all(paths.termination_message.parent().unwrap()).unwrap();
        paths
    }

    fn prepare_without_request(paths: &Paths) -> Result<OwnedFd, String> {
        let (stop, _keep) = pipe().unwrap();
        prepare(paths, None, stop.as_fd())
    }

    #[test]
    fn a_second_prepare_leaves_the_runner_alone() {
        let root = tempfile::tempdir().unwrap();
        let paths = below(root.path());
        fs::write(&paths.runner_in_image, "first").unwrap();
        prepare_without_request(&paths).unwrap();
        fs::write(&paths.runner_in_image, "second").unwrap();
        prepare_without_request(&paths).unwrap();
        let runner = paths.bin.join("bundle-runner");
        assert_eq!(fs::read_to_string(&runner).unwrap(), "first");
        assert_eq!(fs::metadata(&runner).unwrap().permissions().mode() & 0o7777, 0o755);
        assert_eq!(fs::metadata(&paths.bundle).unwrap().permissions().mode() & 0o7777, 0o777);
        assert_eq!(fs::metadata(&paths.record).unwrap().permissions().mode() & 0o7777, 0o1777);
        assert_eq!(fs::metadata(paths.bin.join(files::LOCK)).unwrap().permissions().mode() & 0o777, 0o644);
        let mut names: Vec<_> = fs::read_dir(&paths.bin).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(
            names,
            ["bundle-runner", "end-to-be", "lock", "prepared", "reserved", "snapshot", "snapshots", "staged"]
        );
    }

    /// With `fsGroup` the kubelet gives volumes to a group, with that bit for all that is made in them: the bundle would
    /// have other modes, and another digest.
    #[test]
    fn the_working_directory_hands_no_group_down() {
        let root = tempfile::tempdir().unwrap();
        let mut paths = below(root.path());
        paths.bundle = root.path().join("volume/work");
        fs::write(&paths.runner_in_image, "").unwrap();
        fs::create_dir(root.path().join("volume")).unwrap();
        fs::set_permissions(root.path().join("volume"), Permissions::from_mode(0o2777)).unwrap();
        prepare_without_request(&paths).unwrap();
        fs::create_dir(paths.bundle.join("dir")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7000;
        assert_eq!((mode(&paths.bundle), mode(&paths.bundle.join("dir"))), (0, 0));
    }

    #[test]
    fn what_the_command_made_of_the_working_directory_stays_so() {
        let root = tempfile::tempdir().unwrap();
        let paths = below(root.path());
        fs::write(&paths.runner_in_image, "").unwrap();
        prepare_without_request(&paths).unwrap();
        fs::set_permissions(&paths.bundle, Permissions::from_mode(0o700)).unwrap();
        prepare_without_request(&paths).unwrap();
        assert_eq!(fs::metadata(&paths.bundle).unwrap().permissions().mode() & 0o7777, 0o700);
    }

    #[test]
    fn a_second_prepare_leaves_inputs_alone() {
        let root = tempfile::tempdir().unwrap();
        let paths = below(root.path());
        fs::write(&paths.runner_in_image, "").unwrap();
        let inputs = vec![RequestedInput::new("t", InputSource::Text("text".to_owned()))];
        let request = Request { inputs, ..Request::new(Command::Shell(String::new()), 30) };
        let (stop, _keep) = pipe().unwrap();
        prepare(&paths, Some(&request), stop.as_fd()).unwrap();
        assert!(is_marked(&paths.bin, files::STAGED), "text needs no child");
        fs::write(paths.inputs.join("0"), "seen by the command").unwrap();
        prepare(&paths, Some(&request), stop.as_fd()).unwrap();
        assert_eq!(fs::read_to_string(paths.inputs.join("0")).unwrap(), "seen by the command");
    }

    #[test]
    fn what_the_command_makes_of_the_record_stops_no_second_prepare() {
        let root = tempfile::tempdir().unwrap();
        let paths = below(root.path());
        fs::write(&paths.runner_in_image, "").unwrap();
        prepare_without_request(&paths).unwrap();
        fs::remove_dir_all(paths.record.join(files::SNAPSHOTS)).unwrap();
        for name in [files::LOCK, files::STARTED, files::RECORD] {
            fs::create_dir(paths.record.join(name)).unwrap();
        }
        prepare_without_request(&paths).unwrap();
    }

    #[test]
    fn without_a_runner_nothing_is_prepared() {
        let root = tempfile::tempdir().unwrap();
        let paths = below(root.path());
        assert!(prepare_without_request(&paths).unwrap_err().contains("bundle-runner"));
        assert!(!paths.bin.join(files::PREPARED).exists());
    }
}
