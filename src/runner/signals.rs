//! The signals the runner lives by.

use super::sys::{self, Sender};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, getpid};
use std::io;
use std::time::Duration;

/// What a signal to the runner asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caught {
    /// A child may have ended.
    Child,
    /// The platform wants the run to end; the command gets this signal.
    Stop(Signal),
    /// Only passed on.
    Forward(Signal),
}

/// The kubelet stops a container with the STOPSIGNAL of its image: not TERM in many images (nginx has QUIT, Apache
/// WINCH, systemd's RTMIN+3). Those last two end no ordinary program, so the command gets TERM for them.
const CAUGHT: [(i32, Caught); 9] = [
    (libc::SIGCHLD, Caught::Child),
    (libc::SIGTERM, Caught::Stop(Signal::TERM)),
    (libc::SIGINT, Caught::Stop(Signal::INT)),
    (libc::SIGQUIT, Caught::Stop(Signal::QUIT)),
    (libc::SIGWINCH, Caught::Stop(Signal::TERM)),
    (37, Caught::Stop(Signal::TERM)), // SIGRTMIN+3
    (libc::SIGHUP, Caught::Forward(Signal::HUP)),
    (libc::SIGUSR1, Caught::Forward(Signal::USR1)),
    (libc::SIGUSR2, Caught::Forward(Signal::USR2)),
];

/// Caught signals; one per process.
#[derive(Debug)]
pub(crate) struct Signals {
    wake: OwnedFd,
}

impl Signals {
    /// Catches all signals of the runner from here on.
    pub(crate) fn catch() -> io::Result<Self> {
        Self::catch_only(&CAUGHT.map(|(number, _)| number))
    }

    /// Catches just the order to end, for the helper.
    #[cfg(feature = "operator")]
    pub(crate) fn catch_stop() -> io::Result<Self> {
        Self::catch_only(&[libc::SIGTERM, libc::SIGINT])
    }

    fn catch_only(numbers: &[i32]) -> io::Result<Self> {
        let (wake, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        sys::catch_signals(numbers, write)?;
        Ok(Self { wake })
    }

    /// What came since the last call.
    pub(crate) fn take(&self) -> Vec<Caught> {
        let mut buffer = [0; 64];
        // The pipe is emptied before the notes are read: a signal in between wakes us again.
        while rustix::io::read(&self.wake, &mut buffer).is_ok_and(|n| n == buffer.len()) {}
        // As PID 1 of a container we have the platform outside of our PID namespace: who asks from inside is the
        // command itself (`kill 1`, `pkill bundle-runner`), and what it does to itself is no order of the platform's.
        let alone = getpid() == Pid::INIT;
        let taken = |number, caught| {
            let from_inside = sys::take_signal(number, Sender::Inside).then_some(match caught {
                Caught::Stop(signal) if alone => Caught::Forward(signal),
                other => other,
            });
            [sys::take_signal(number, Sender::Outside).then_some(caught), from_inside]
        };
        CAUGHT.into_iter().flat_map(|(number, caught)| taken(number, caught)).flatten().collect()
    }
}

impl AsFd for Signals {
    /// Readable when a signal came.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// Waits until one of these can be done (or never will: an end or an error counts), or the time is over.
pub(crate) fn wait_ready<const N: usize>(
    fds: [(BorrowedFd<'_>, PollFlags); N],
    timeout: Option<Duration>,
) -> [bool; N] {
    let mut fds = fds.map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags));
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) => fds.map(|fd| !fd.revents().is_empty()),
        Err(Errno::INTR) => [false; N],
        // The command took our right to ask (`prlimit --nofile=0`): whoever asks in a loop must not spin.
        Err(_) => {
            std::thread::sleep(Duration::from_millis(10));
            [false; N]
        }
    }
}

/// Waits until one of `fds` can be read or has ended, or the time is over.
pub(crate) fn wait_readable<const N: usize>(fds: [BorrowedFd<'_>; N], timeout: Option<Duration>) -> [bool; N] {
    wait_ready(fds.map(|fd| (fd, PollFlags::IN)), timeout)
}
