//! `download`: a saved output, or a part of it, as files on this machine.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use clap::Args;
use rustix::fs::Mode;

use crate::bundle::{self, Kind, Progress};

use super::failure::Failure;
use super::meter;
use super::runs;
use super::session::Session;
use super::store::{self, Saved, StoreOptions};

#[derive(Debug, Args)]
pub(super) struct Download {
    /// A run, RUN@ATTEMPT, or a bundle as REPOSITORY@sha256:...
    target: String,
    /// Directory or file in it. Default: all of it
    path: Option<String>,
    /// Where it is put: something that is not there yet, or an empty directory; a single file also goes into any directory
    /// that is there. Default: the last name of what is got
    #[arg(short, long, value_name = "PATH")]
    to: Option<PathBuf>,
    #[command(flatten)]
    store: StoreOptions,
}

pub(super) async fn download(session: &Session, args: &Download) -> Result<(), Failure> {
    let Saved { reference, name, access } = store::find(session, &args.target, &args.store).await?;
    let path = args.path.as_deref();
    let kind = bundle::resolve(&reference, path, &access).await?.kind;
    let place = place(args.to.as_deref(), &name, path, kind);
    let was_there = make(&place, kind)?;

    let progress = Progress::default();
    let started = Instant::now();
    let work = bundle::download(&reference, path, &place, umask(), &access, &progress);
    let work = Box::pin(async { meter::watched(work, &progress, started, "").await.map_err(Failure::from) });
    let got = runs::or_interrupted(work, || Failure::interrupted("interrupted: nothing was kept")).await;
    if let Err(failure) = got {
        return Err(undone(&place, kind, was_there, failure));
    }
    let bytes = progress.done_bytes.load(Ordering::Relaxed);
    session.out.note(&format!("{}: {}", place.display(), meter::summary(bytes, started.elapsed())));
    Ok(())
}

/// What this process takes from the modes of files.
fn umask() -> u32 {
    // It is read by setting it: between the two calls nothing may be made that is open to others.
    let umask = rustix::process::umask(Mode::RWXG | Mode::RWXO);
    rustix::process::umask(umask);
    umask.as_raw_mode()
}

/// Where it is put: where the user says, else beside the user under its own name.
fn place(to: Option<&Path>, name: &str, path: Option<&str>, kind: Kind) -> PathBuf {
    let last = path.unwrap_or_default().rsplit('/').find(|part| !part.is_empty() && *part != "." && *part != "..");
    let last = last.unwrap_or(name);
    match to {
        Some(dir) if kind == Kind::File && dir.is_dir() => dir.join(last),
        Some(to) => to.to_owned(),
        None => PathBuf::from(last),
    }
}

/// Nothing that is there is overwritten. Returns whether it was there.
fn make(place: &Path, kind: Kind) -> Result<bool, Failure> {
    let failed = |error: io::Error| Failure::new(format!("cannot make {}: {error}", place.display()));
    let taken = || {
        Failure::new(format!("{} is there already, and is not overwritten", place.display()))
            .hint("put it elsewhere with --to, or remove it")
    };
    let made = match kind {
        // Its last mode comes when all is in it.
        Kind::File => fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(place).map(drop),
        Kind::Directory => fs::create_dir(place),
    };
    match made {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let is_empty = kind == Kind::Directory && fs::read_dir(place).is_ok_and(|mut dir| dir.next().is_none());
            if is_empty { Ok(true) } else { Err(taken()) }
        }
        Err(error) => Err(failed(error)),
    }
}

/// After a download that failed: half of one would stand in the way of the next.
fn undone(place: &Path, kind: Kind, was_there: bool, failure: Failure) -> Failure {
    // A thread that has not noticed yet may still make something.
    let mut removed = Ok(());
    for _ in 0..3 {
        removed = remove(place, kind, was_there);
        if removed.is_ok() {
            break;
        }
    }
    match removed {
        Err(error) => {
            let rest = format!("remove {} before you try again: {error}", place.display());
            let hint = failure.hint.iter().cloned().chain([rest]).collect::<Vec<_>>().join("\n       ");
            failure.hint(hint)
        }
        Ok(()) => failure,
    }
}

fn remove(place: &Path, kind: Kind, was_there: bool) -> io::Result<()> {
    match kind {
        Kind::File => fs::remove_file(place),
        Kind::Directory if !was_there => fs::remove_dir_all(place),
        Kind::Directory => {
            for entry in fs::read_dir(place)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    fs::remove_dir_all(entry.path())?;
                } else {
                    fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_place_is_named_after_what_is_got() {
        for (path, expected) in
            [(None, "train"), (Some("a/b.txt"), "b.txt"), (Some("a/"), "a"), (Some("../.."), "train")]
        {
            assert_eq!(place(None, "train", path, Kind::File), PathBuf::from(expected), "{path:?}");
        }
    }

    #[test]
    fn a_file_goes_into_a_directory_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let to = |to: &Path, kind| place(Some(to), "train", Some("a/b.txt"), kind);
        assert_eq!(to(dir.path(), Kind::File), dir.path().join("b.txt"));
        assert_eq!(to(dir.path(), Kind::Directory), dir.path());
        assert_eq!(to(&dir.path().join("new"), Kind::File), dir.path().join("new"));
    }

    #[test]
    fn what_a_download_left_that_failed_does_not_stand_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        for (name, kind, was_there) in
            [("file", Kind::File, false), ("new", Kind::Directory, false), ("empty", Kind::Directory, true)]
        {
            let place = dir.path().join(name);
            if was_there {
                fs::create_dir(&place).unwrap();
            }
            assert_eq!(make(&place, kind), Ok(was_there));
            if kind == Kind::Directory {
                fs::create_dir(place.join("d")).unwrap();
                fs::write(place.join("d/half"), "half").unwrap();
                fs::write(place.join("half"), "half").unwrap();
            }
            assert_eq!(undone(&place, kind, was_there, Failure::new("why")), Failure::new("why"));
            assert_eq!(place.exists(), was_there, "{name}");
            assert_eq!(make(&place, kind), Ok(was_there), "{name}");
        }
    }

    #[test]
    fn nothing_that_is_there_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        assert_eq!(make(&file, Kind::File), Ok(false));
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "open to others while it is being got");
        assert!(make(&file, Kind::File).unwrap_err().message.ends_with("is not overwritten"));
        assert!(make(&file, Kind::Directory).is_err());
        let empty = dir.path().join("empty");
        assert_eq!(make(&empty, Kind::Directory), Ok(false));
        assert_eq!(make(&empty, Kind::Directory), Ok(true), "it is empty");
        assert!(make(dir.path(), Kind::Directory).is_err());
        assert!(make(&dir.path().join("no/such"), Kind::File).unwrap_err().message.starts_with("cannot make"));
    }
}
