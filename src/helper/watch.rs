//! From the start of the runner to its death.

use crate::contract::{MissingRecord, Request};
use crate::helper::disk::DiskWatch;
use crate::helper::owner;
use crate::names::files;
use crate::runner::Paths;
use crate::runner::signals::wait_readable;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FlockOperation, flock, inotify};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::path::Path;
use std::thread;
use std::time::Duration;

/// How the watch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The runner is gone.
    RunnerGone {
        /// The order to stop came while the runner was still at work.
        interrupted: bool,
    },
    /// There never was one, and there will be none.
    NeverStarted,
}

impl End {
    /// Why there is no record, if there is none.
    pub(super) fn without_record(self) -> MissingRecord {
        match self {
            End::RunnerGone { .. } => MissingRecord::RunnerDied,
            End::NeverStarted => MissingRecord::NeverStarted,
        }
    }
}

/// Between two looks for the runner's start; pulling the image takes longer than that.
const LOOK: Duration = Duration::from_millis(200);

/// Waits for the runner's start, then for the kernel to drop its lock. An order to stop says that there will be no
/// start any more; a runner that lives is waited for all the same, because its record is the point of it all.
pub(super) fn watch(paths: &Paths, request: Option<&Request>, lock: &OwnedFd, stop: BorrowedFd<'_>) -> End {
    let started = paths.record.join(files::STARTED);
    // Before the command can begin: one that removes `started` at once has no other disk than the rest, and once its
    // processes have used up the pod's, there is no thread to be had.
    let _disk = DiskWatch::start(paths, request);
    let news = news_of(&paths.record);
    // The lock file's name can be the user's; `started` without our lock being held is what counts.
    while rustix::fs::lstat(&started).is_err() {
        let [stopped, _] = wait_readable([stop, news.as_ref().map_or(stop, OwnedFd::as_fd)], Some(LOOK));
        if stopped && rustix::fs::lstat(&started).is_err() {
            return End::NeverStarted;
        }
        if let Some(news) = &news {
            take(news);
        }
    }
    owner::give(paths, request);
    // Once it has left a record the runner has ended: the kubelet ends us for that.
    let at_work = || rustix::fs::lstat(paths.record.join(files::RECORD)).is_err();
    let mut interrupted = false;
    match when_free(lock) {
        Ok(free) => loop {
            let [gone, stopped] = if interrupted {
                [wait_readable([free.as_fd()], None) == [true], false]
            } else {
                wait_readable([free.as_fd(), stop], None)
            };
            if gone {
                break;
            }
            interrupted |= stopped && at_work();
            if stopped && !interrupted {
                // Its last moments.
                thread::sleep(Duration::from_millis(10));
            }
        },
        Err(error) => {
            eprintln!("bundle-operator helper: looking for the end of the runner instead of waiting for it: {error}");
            while flock(lock, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
                interrupted |= wait_readable([stop], Some(Duration::ZERO)) == [true] && at_work();
                thread::sleep(LOOK);
            }
        }
    }
    End::RunnerGone { interrupted }
}

/// Can be read when something is made in the directory: the runner waits for us when it has started.
fn news_of(dir: &Path) -> Option<OwnedFd> {
    let news = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok()?;
    inotify::add_watch(&news, dir, inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO).ok()?;
    Some(news)
}

/// Reads all news there are.
fn take(news: &OwnedFd) {
    let mut buffer = [0; 4096];
    while rustix::io::read(news, &mut buffer).is_ok_and(|read| read > 0) {}
}

/// A pipe that ends when nobody else holds the lock.
fn when_free(lock: &OwnedFd) -> std::io::Result<OwnedFd> {
    let (ends, holds) = pipe_with(PipeFlags::CLOEXEC)?;
    let lock = lock.try_clone()?;
    thread::Builder::new().name("lock".to_owned()).spawn(move || {
        while flock(&lock, FlockOperation::LockExclusive) == Err(Errno::INTR) {}
        drop(holds);
    })?;
    Ok(ends)
}
