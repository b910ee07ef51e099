//! Where inputs will be: their places in the volume of inputs, and in the working directory what they are mounted over.

use crate::bundle::untrusted::{open_beneath, open_in, open_mount};
use crate::bundle::{FileId, Kind};
use crate::contract::{InputSource, Request};
use crate::helper::error::Error;
use crate::helper::markers::{is_marked, mark_json, read_json};
use crate::helper::mode;
use crate::names::{files, paths};
use crate::runner::Paths;
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path};

/// What the helper made in the working directory, by device and inode: the command can rename what is not mounted over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct MountPoints {
    /// What something is mounted over: never output.
    pub(super) mounted_over: Vec<FileId>,
    /// Directories on the way to that: output only with something in them.
    pub(super) parents: Vec<FileId>,
}

/// The mount points of this run.
pub(super) fn made(paths: &Paths) -> MountPoints {
    read_json(&paths.bin, files::MOUNT_POINTS).unwrap_or_default()
}

/// Makes all places and mount points, with text inputs in place, and leaves their mark. Done again it changes nothing.
/// `is_file` tells what an input will be.
pub(super) fn make(paths: &Paths, request: &Request, is_file: impl Fn(usize) -> bool) -> Result<(), Error> {
    let mut points = MountPoints::default();
    for (index, input) in request.inputs.iter().enumerate() {
        let kind = if is_file(index) { Kind::File } else { Kind::Directory };
        // What is in place has its mode.
        if input.source.is_staged() && !is_marked(&paths.bin, &format!("{}{index}", files::STAGED_INPUT)) {
            let place = paths.place(index, &input.source);
            let text = if let InputSource::Text(text) = &input.source { Some(text.as_bytes()) } else { None };
            make_place(&place, kind).map_err(|error| Error::new(format!("cannot make {}", place.display()), error))?;
            if let Some(text) = text {
                let written = fs::write(&place, text).and_then(|()| mode::set(&place, input.mode, text));
                written.map_err(|error| Error::new(format!("cannot write {}", place.display()), error))?;
            }
        }
        if let Some(path) = in_bundle(&input.path) {
            make_mount_point(&paths.bundle, path, kind, &mut points)?;
        }
    }
    for path in &request.volumes {
        make_mount_point(&paths.bundle, path, Kind::Directory, &mut points)?;
    }
    mark_json(&paths.bin, files::MOUNT_POINTS, &points)
}

/// The working directory and the directories in it that were made on the way to mounts, opened.
pub(super) fn ours(paths: &Paths, request: Option<&Request>) -> Vec<OwnedFd> {
    let Ok(root) = open_mount(&paths.bundle) else { return vec![] };
    let parents: BTreeSet<&Path> = request
        .into_iter()
        .flat_map(mounted)
        .flat_map(|path| Path::new(path).ancestors().skip(1))
        .filter(|parent| !parent.as_os_str().is_empty())
        .collect();
    let open = |parent: &Path| open_beneath(&root, parent.as_os_str().as_bytes(), OFlags::DIRECTORY).ok();
    let mut dirs: Vec<OwnedFd> = parents.into_iter().filter_map(open).collect();
    dirs.push(root);
    dirs
}

/// Paths in the working directory that something is mounted over.
pub(super) fn mounted(request: &Request) -> impl Iterator<Item = &str> {
    let inputs = request.inputs.iter().filter_map(|input| in_bundle(&input.path));
    inputs.chain(request.volumes.iter().map(String::as_str))
}

/// The path of an input below the working directory, if that is where it is; none also for the directory itself.
fn in_bundle(path: &str) -> Option<&str> {
    let path = match path.strip_prefix('/') {
        Some(_) => path.strip_prefix(paths::BUNDLE)?.strip_prefix('/')?,
        None => path,
    };
    (path != ".").then_some(path)
}

/// Where it is already, it stays what it is, because it may be mounted.
fn make_place(place: &Path, kind: Kind) -> io::Result<()> {
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    match (kind, fs::symlink_metadata(place)) {
        // Of an earlier life, which knew less: nobody sees it before *prepare* is done.
        (Kind::File, Ok(there)) if !there.is_file() => {
            return fs::remove_dir(place).and_then(|()| make_place(place, kind));
        }
        (Kind::Directory, Ok(there)) if !there.is_dir() => {
            return fs::remove_file(place).and_then(|()| make_place(place, kind));
        }
        (Kind::File, there) => {
            if there.is_err() {
                fs::File::create_new(place)?;
            }
            return mode::open_up(place);
        }
        (Kind::Directory, there) => {
            if there.is_err() {
                fs::create_dir(place)?;
            }
        }
    }
    fs::set_permissions(place, fs::Permissions::from_mode(0o755))
}

/// Makes what an input is mounted over, and the directories on the way there, which are open to all users.
fn make_mount_point(bundle: &Path, path: &str, kind: Kind, points: &mut MountPoints) -> Result<(), Error> {
    let failed = |error: Errno| Error::new(format!("cannot make {path} in {}", bundle.display()), error);
    let names = Path::new(path)
        .components()
        .filter(|component| *component != Component::CurDir)
        .map(|component| match component {
            Component::Normal(name) => CString::new(name.as_encoded_bytes()).map_err(|_| Errno::INVAL),
            _ => Err(Errno::INVAL),
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    let Some((last, parents)) = names.split_last() else { return Err(failed(Errno::INVAL)) };

    let mut dir = open_mount(bundle).map_err(failed)?;
    for name in parents {
        dir = match directory(&dir, name, Mode::from_raw_mode(0o777)) {
            Err(Errno::NAMETOOLONG) => return Ok(()),
            made => made.map_err(failed)?,
        };
        points.parents.push(identity(&dir).map_err(failed)?);
    }
    let place = match kind {
        Kind::Directory => directory(&dir, last, Mode::from_raw_mode(0o755)),
        Kind::File => file(&dir, last),
    };
    match place.and_then(|place| identity(&place)) {
        Ok(identity) => points.mounted_over.push(identity),
        // No file can have this name: the container runtime will say so of the mount.
        Err(Errno::NAMETOOLONG) => {}
        Err(error) => return Err(failed(error)),
    }
    Ok(())
}

fn directory(dir: &OwnedFd, name: &CString, mode: Mode) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdirat(dir, name, mode) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    let opened = open_in(dir, name, OFlags::DIRECTORY)?;
    // The umask took from the mode. Not ours after a restart as another user: then it has been done.
    let _ = rustix::fs::fchmod(&opened, mode);
    Ok(opened)
}

fn file(dir: &OwnedFd, name: &CString) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o644)) {
        Err(Errno::EXIST) => {
            let there = open_in(dir, name, OFlags::empty())?;
            let stat = rustix::fs::fstat(&there)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile { Ok(there) } else { Err(Errno::EXIST) }
        }
        other => other,
    }
}

fn identity(fd: &OwnedFd) -> Result<FileId, Errno> {
    rustix::fs::fstat(fd).map(|stat| FileId::from(&stat))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Command, RequestedInput};
    use crate::helper::markers;
    use std::os::unix::fs::MetadataExt;

    fn input(path: &str, source: InputSource) -> RequestedInput {
        RequestedInput::new(path, source)
    }

    fn request(inputs: Vec<RequestedInput>) -> Request {
        let volumes = vec!["cache/deep".to_owned()];
        Request { inputs, volumes, ..Request::new(Command::Shell(String::new()), 30) }
    }

    fn sandbox() -> (tempfile::TempDir, Paths) {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        fs::create_dir_all(&paths.bundle).unwrap();
        (root, paths)
    }

    #[test]
    fn places_and_stubs_are_made_once() {
        let (_root, paths) = sandbox();
        let request = request(vec![
            input("a/b/text", InputSource::Text("hi".to_owned())),
            input("a/b/claim", InputSource::Mounted),
            input("/data/x", InputSource::Text("absolute".to_owned())),
            input(".", InputSource::Image { reference: "i".to_owned(), path: None }),
            input("secret", InputSource::secret("s", Some("k".to_owned()))),
            input("run.sh", InputSource::Text("#!/bin/sh\n".to_owned())),
            RequestedInput { mode: Some(0o440), ..input("group", InputSource::Text("#!".to_owned())) },
            RequestedInput {
                mode: Some(0o440),
                ..input("later", InputSource::config_map("map", Some("a".to_owned())))
            },
        ]);
        let is_file = |index| [0, 2, 4, 5, 6, 7].contains(&index);
        make(&paths, &request, is_file).unwrap();
        let before = made(&paths);
        make(&paths, &request, is_file).unwrap();
        assert_eq!(made(&paths), before);

        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(fs::read_to_string(paths.inputs.join("0")).unwrap(), "hi");
        assert_eq!(fs::read_to_string(paths.inputs.join("2")).unwrap(), "absolute");
        assert_eq!((mode(&paths.inputs.join("0")), mode(&paths.inputs.join("3"))), (0o644, 0o755));
        assert_eq!((mode(&paths.inputs.join("5")), mode(&paths.inputs.join("6"))), (0o755, 0o440));
        assert_eq!(mode(&paths.inputs.join("7")), 0o644, "a helper that is not root has yet to write it");
        assert!(!paths.inputs.join("1").exists() && paths.inputs.join("3").is_dir());
        assert_eq!((mode(&paths.bundle.join("a/b")), mode(&paths.bundle.join("cache"))), (0o777, 0o777));
        assert!(paths.bundle.join("a/b/text").is_file() && paths.bundle.join("a/b/claim").is_dir());
        assert!(paths.bundle.join("secret").is_file() && paths.bundle.join("cache/deep").is_dir());
        let identity = |path: &str| {
            let there = fs::metadata(paths.bundle.join(path)).unwrap();
            FileId { device: there.dev(), inode: there.ino() }
        };
        let at = ["a/b/text", "a/b/claim", "secret", "run.sh", "group", "later", "cache/deep"].map(identity);
        assert_eq!(before.mounted_over, at);
        assert!(before.parents.contains(&identity("a")) && before.parents.contains(&identity("cache")));
    }

    #[test]
    fn a_helper_that_starts_again_leaves_what_is_in_place_as_it_is() {
        let (_root, paths) = sandbox();
        let request = request(vec![input("a", InputSource::config_map("map", Some("a".to_owned())))]);
        make(&paths, &request, |_| true).unwrap();
        let place = paths.inputs.join("0");
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
        markers::mark(&paths.bin, &format!("{}0", files::STAGED_INPUT), b"").unwrap();
        make(&paths, &request, |_| true).unwrap();
        assert_eq!(fs::metadata(&place).unwrap().mode() & 0o7777, 0o755);
    }

    #[test]
    fn no_stub_is_made_through_a_link_or_outside() {
        let (root, paths) = sandbox();
        fs::create_dir(root.path().join("outside")).unwrap();
        std::os::unix::fs::symlink("../outside", paths.bundle.join("link")).unwrap();
        for path in ["link/x", "../x", "a/../../x", ""] {
            let mut points = MountPoints::default();
            assert!(make_mount_point(&paths.bundle, path, Kind::Directory, &mut points).is_err(), "{path}");
        }
        assert_eq!(fs::read_dir(root.path().join("outside")).unwrap().count(), 0);
        assert!(!root.path().join("x").exists());
    }

    #[test]
    fn a_place_of_the_wrong_kind_is_made_anew() {
        let (_root, paths) = sandbox();
        let place = paths.inputs.join("0");
        make_place(&place, Kind::Directory).unwrap();
        make_place(&place, Kind::File).unwrap();
        assert!(place.is_file());
        make_place(&place, Kind::Directory).unwrap();
        assert!(place.is_dir());
    }

    #[test]
    fn absolute_paths_below_the_working_directory_have_stubs_too() {
        assert_eq!(in_bundle("/bundle/a"), Some("a"));
        assert_eq!(in_bundle("/bundles/a"), None);
        assert_eq!(in_bundle("/data"), None);
        assert_eq!((in_bundle("."), in_bundle("a/b")), (None, Some("a/b")));
    }
}
