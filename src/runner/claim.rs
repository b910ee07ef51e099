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
    /// The record directory cannot be used.
    Failed(&'static str, Errno),
}

impl Claim {
    /// Locks first, then marks the start: the helper takes a start without a lock for a dead runner.
    pub(crate) fn take(record_dir: &Path) -> Result<Self, Refused> {
        let safe = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let started = record_dir.join(files::STARTED);
        let open_lock =
            |flags| open(record_dir.join(files::LOCK), safe | OFlags::RDWR | flags, Mode::from_raw_mode(0o666));
        // The helper's file: with O_CREAT, `fs.protected_regular` can refuse it to another user in a sticky directory.
        let lock = match open_lock(OFlags::empty()) {
            Err(Errno::NOENT) => open_lock(OFlags::CREATE),
            other => other,
        };
        let lock = lock.map_err(|error| Refused::Failed("open the lock", error))?;
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
