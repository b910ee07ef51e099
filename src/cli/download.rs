//! `download`: a saved output, or a part of it, as files on this machine.

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;

use crate::bundle::{self, Kind, Limits, Progress};
use crate::contract::{size_for_people, time_for_people};

use super::failure::Failure;
use super::session::Session;
use super::store::{self, Saved, StoreOptions};

/// Between two looks at how far it has come.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Debug, Args)]
pub(super) struct Download {
    /// A run, RUN@ATTEMPT, or a bundle as REPOSITORY@sha256:...
    target: String,
    /// Directory or file in it. Default: all of it
    path: Option<String>,
    /// Where it is put: something that is not there yet, or an empty directory. Default: the last name of what is got
    #[arg(short, long, value_name = "PATH")]
    to: Option<PathBuf>,
    #[command(flatten)]
    store: StoreOptions,
}

pub(super) async fn download(session: &Session, args: &Download) -> Result<(), Failure> {
    let Saved { reference, name } = store::find(session, &args.target).await?;
    let access = store::access(session, &reference, &args.store)?;
    let path = args.path.as_deref();
    let kind = bundle::resolve(&reference, path, &access).await?.kind;
    let place = args.to.clone().unwrap_or_else(|| place(&name, path));
    make(&place, kind)?;

    let unlimited = Limits { entries: u64::MAX, bytes: u64::MAX };
    let progress = Progress::default();
    let started = Instant::now();
    let fetched = watched(bundle::fetch(&reference, path, &place, unlimited, &access, &progress), &progress, started);
    fetched.await?;
    let bytes = progress.done_bytes.load(Ordering::Relaxed);
    let took = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    session.out.note(&format!("{}: {} in {}", place.display(), size_for_people(bytes), time_for_people(took)));
    Ok(())
}

/// Where it is put when nobody says where.
fn place(name: &str, path: Option<&str>) -> PathBuf {
    let last = path.unwrap_or_default().rsplit('/').find(|part| !part.is_empty() && *part != "." && *part != "..");
    PathBuf::from(last.unwrap_or(name))
}

/// Nothing that is there is overwritten.
fn make(place: &Path, kind: Kind) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(format!("cannot make {}: {error}", place.display()));
    let taken = || {
        Failure::new(format!("{} is there already, and is not overwritten", place.display()))
            .hint("put it elsewhere with --to, or remove it")
    };
    let made = match kind {
        Kind::File => fs::File::create_new(place).map(drop),
        Kind::Directory => fs::create_dir(place),
    };
    match made {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let is_empty = kind == Kind::Directory && fs::read_dir(place).is_ok_and(|mut dir| dir.next().is_none());
            if is_empty { Ok(()) } else { Err(taken()) }
        }
        Err(error) => Err(failed(error)),
    }
}

/// Shows on a terminal how far it has come.
async fn watched<T, E>(
    work: impl Future<Output = Result<T, E>>,
    progress: &Progress,
    started: Instant,
) -> Result<T, E> {
    let mut work = pin!(work);
    let is_terminal = io::stderr().is_terminal();
    let mut was_shown = false;
    loop {
        if let Ok(end) = tokio::time::timeout(LOOK, &mut work).await {
            if was_shown {
                let _ = write!(io::stderr(), "\r\u{1b}[K");
            }
            return end;
        }
        if is_terminal {
            let done = progress.done_bytes.load(Ordering::Relaxed);
            let total = progress.total_bytes.load(Ordering::Relaxed);
            let _ = write!(io::stderr(), "\r{}\u{1b}[K", line(done, total, started.elapsed()));
            was_shown = true;
        }
    }
}

fn line(done: u64, total: u64, elapsed: Duration) -> String {
    let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = u64::try_from(u128::from(done) * 1000 / u128::from(ms)).unwrap_or(u64::MAX);
    let mut line = size_for_people(done);
    if total > 0 {
        line = format!("{line} of {}, {} %", size_for_people(total), u128::from(done) * 100 / u128::from(total));
    }
    line = format!("{line}, {}/s", size_for_people(rate));
    match total.saturating_sub(done).checked_div(rate) {
        Some(left) if total > done => format!("{line}, {} left", time_for_people(left.max(1).saturating_mul(1000))),
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_named_after_what_is_got() {
        for (path, expected) in
            [(None, "train"), (Some("a/b.txt"), "b.txt"), (Some("a/"), "a"), (Some("../.."), "train")]
        {
            assert_eq!(place("train", path), PathBuf::from(expected), "{path:?}");
        }
    }

    #[test]
    fn nothing_that_is_there_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        assert_eq!(make(&file, Kind::File), Ok(()));
        assert!(make(&file, Kind::File).unwrap_err().message.ends_with("is not overwritten"));
        assert!(make(&file, Kind::Directory).is_err());
        let empty = dir.path().join("empty");
        assert_eq!(make(&empty, Kind::Directory), Ok(()));
        assert_eq!(make(&empty, Kind::Directory), Ok(()), "it is empty");
        assert!(make(dir.path(), Kind::Directory).is_err());
        assert!(make(&dir.path().join("no/such"), Kind::File).unwrap_err().message.starts_with("cannot make"));
    }

    #[test]
    fn progress_has_rate_and_time_left() {
        assert_eq!(line(5 << 20, 20 << 20, Duration::from_secs(1)), "5.0 MiB of 20.0 MiB, 25 %, 5.0 MiB/s, 3s left");
        assert_eq!(line(0, 0, Duration::ZERO), "0 B, 0 B/s");
        assert_eq!(line(0, 10, Duration::from_secs(1)), "0 B of 10 B, 0 %, 0 B/s");
        assert_eq!(line(10, 10, Duration::from_secs(1)), "10 B of 10 B, 100 %, 10 B/s");
    }
}
