//! From the start of the runner to its death.

use crate::contract::{MissingRecord, Request, log_line};
use crate::helper::beside::Beside;
use crate::helper::child::Task;
use crate::helper::markers::is_marked;
use crate::helper::owner;
use crate::helper::snapshots;
use crate::helper::stop_order;
use crate::helper::warnings;
use crate::names::files;
use crate::runner::Paths;
use crate::runner::signals::wait_readable;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FlockOperation, flock, inotify};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::mem::MaybeUninit;
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
    let beside = Companions::get_ready(paths, request);
    let _stop_order = stop_order::await_it(paths);
    let _snapshots = request.and_then(|request| snapshots::serve(paths, request.save.as_ref()?.snapshots.as_ref()?));
    let news = News::of(&paths.record);
    // A command that removes `started` at once has no other disk than the rest: who may not be told of the start, or
    // may have come too late for that, does not wait for it.
    if news.is_none() || may_begin(paths, request) {
        beside.begin();
    }
    let mut told = false;
    let is_there = || rustix::fs::lstat(paths.record.join(files::STARTED)).is_ok();
    while !told && !is_there() {
        let [stopped, _] = wait_readable([stop, news.as_ref().map_or(stop, News::as_fd)], Some(LOOK));
        told = news.as_ref().is_some_and(|news| news.tell_of(files::STARTED));
        if stopped && !told && !is_there() {
            return End::NeverStarted;
        }
    }
    // First of all: it should be at work before the command is.
    beside.begin();
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
            log_line!("bundle-operator helper: looking for the end of the runner instead of waiting for it: {error}");
            while flock(lock, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
                interrupted |= wait_readable([stop], Some(Duration::ZERO)) == [true] && at_work();
                thread::sleep(LOOK);
            }
        }
    }
    End::RunnerGone { interrupted }
}

/// What works beside the command.
struct Companions(Vec<Beside>, Paths);

impl Companions {
    fn get_ready(paths: &Paths, request: Option<&Request>) -> Self {
        let mut tasks = vec![];
        // A limit of bytes on the disk, or of the memory in which the output is to be saved: the kubelet would notice the
        // first after half a minute, evict the pod and lose the output.
        if request.is_some_and(|request| request.disk_bytes.is_some() || request.save.is_some()) {
            tasks.push(Beside::get_ready(paths, Task::WatchDisk, |paths| is_marked(&paths.bin, files::END)));
        }
        if request.and_then(|request| request.save.as_ref()?.background.as_ref()).is_some() {
            tasks.push(Beside::get_ready(paths, Task::PushEarly, |_| false));
        }
        Self(tasks, paths.clone())
    }

    fn begin(&self) {
        self.0.iter().for_each(Beside::begin);
    }
}

impl Drop for Companions {
    fn drop(&mut self) {
        self.0.clear();
        warnings::take_back(&self.1.bin);
    }
}

/// Nothing is left that holds the command up, but that there may be no runner yet.
fn may_begin(paths: &Paths, request: Option<&Request>) -> bool {
    let saves = request.is_some_and(|request| request.save.is_some());
    is_marked(&paths.bin, files::STAGED) && (!saves || is_marked(&paths.bin, files::STORE_CHECKED))
}

/// What is made in a directory: the runner waits for us when it has started, and its first file may be gone by the time
/// we look.
struct News(OwnedFd);

impl News {
    /// None: there is none to be had, because the node's number of them is used up.
    fn of(dir: &Path) -> Option<Self> {
        let news = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok()?;
        inotify::add_watch(&news, dir, inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO).ok()?;
        Some(Self(news))
    }

    /// Can be read when there is some.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Takes all there is; whether something of this name was made.
    fn tell_of(&self, name: &str) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.0, &mut buffer);
        let mut told = false;
        while let Ok(event) = events.next() {
            told |= event.file_name().is_some_and(|made| made.to_bytes() == name.as_bytes());
        }
        told
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_is_told_although_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let news = News::of(dir.path()).unwrap();
        assert!(!news.tell_of("started"));
        for name in ["other", "started", "more"] {
            std::fs::write(dir.path().join(name), "").unwrap();
            std::fs::remove_file(dir.path().join(name)).unwrap();
        }
        assert!(news.tell_of("started") && !news.tell_of("started"), "once");
    }
}
