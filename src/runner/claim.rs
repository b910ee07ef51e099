//! The right to start the command: given once.

use crate::names::files;
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use std::path::Path;

/// Held for as long as the runner lives.
///
/// The lock belongs to the open file description (flock), which nobody else has: the kernel drops it when the runner
/// dies, however it dies, and the helper that waits for it wakes up.
#[derive(Debug)]
pub(crate) struct Claim {
    _lock: OwnedFd,
}

/// Why there is no right to start.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Another runner had it: Kubernetes started the container again.
    StartedBefore,
    /// The directories of the helper's files and of the record cannot be used.
    Failed(&'static str, Errno),
}

impl Claim {
    /// Locks first, then marks the start: the helper takes a start without a lock for a dead runner.
    pub(crate) fn take(bin: &Path, record: &Path) -> Result<Self, Refused> {
        let safe = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let started = record.join(files::STARTED);
        let lock = open(bin.join(files::LOCK), safe | OFlags::RDONLY, Mode::empty())
            .map_err(|error| Refused::Failed("open the file to lock", error))?;
        if let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            // After an earlier runner's death the helper holds it.
            return Err(if rustix::fs::lstat(&started).is_ok() {
                Refused::StartedBefore
            } else {
                Refused::Failed("take the lock", error)
            });
        }
        match open(&started, safe | OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY, Mode::from_raw_mode(0o644)) {
            Ok(_) => Ok(Self { _lock: lock }),
            Err(Errno::EXIST) => Err(Refused::StartedBefore),
            Err(error) => Err(Refused::Failed("mark the start", error)),
        }
    }
}
