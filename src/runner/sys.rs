//! The few system calls that have no safe wrapper.

#![allow(unsafe_code)]

use rustix::fd::{AsRawFd, OwnedFd};
use rustix::process::Signal;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

static PENDING: [AtomicBool; 65] = [const { AtomicBool::new(false) }; 65];
static WAKE: AtomicI32 = AtomicI32::new(-1);

/// Notes the signal and wakes whoever polls the pipe. Handlers, not a blocked mask: exec resets them, so the command
/// starts with the dispositions and the mask that it would have without us.
extern "C" fn note(signal: libc::c_int) {
    if let Some(pending) = usize::try_from(signal).ok().and_then(|signal| PENDING.get(signal)) {
        pending.store(true, Ordering::SeqCst);
    }
    // SAFETY: write and __errno_location are async-signal-safe; the buffer is one static byte; the descriptor is never
    // closed once it is in WAKE. errno is put back, because the interrupted code may be about to read it.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(WAKE.load(Ordering::SeqCst), b"!".as_ptr().cast(), 1);
        *libc::__errno_location() = errno;
    }
}

/// Notes these signals from now on and writes a byte to `wake` (non-blocking) for each, for the rest of the process.
pub(crate) fn catch_signals(signals: &[i32], wake: OwnedFd) -> io::Result<()> {
    WAKE.store(wake.as_raw_fd(), Ordering::SeqCst);
    std::mem::forget(wake);
    for signal in signals {
        // SAFETY: sigaction is plain data for which zeroes are valid; the handler only does what a handler may.
        let failed = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = note as extern "C" fn(libc::c_int) as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(*signal, &raw const action, std::ptr::null_mut()) != 0
        };
        if failed {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Whether the signal came since the last look.
pub(crate) fn take_signal(signal: i32) -> bool {
    usize::try_from(signal).ok().and_then(|signal| PENDING.get(signal)).is_some_and(|p| p.swap(false, Ordering::SeqCst))
}

/// Sends a signal to every process but this one, at once: nothing can fork its way out. Only for PID 1 of a container.
pub(crate) fn signal_all_others(signal: Signal) {
    // SAFETY: kill takes no pointers.
    unsafe {
        libc::kill(-1, signal.as_raw());
    }
}

/// What the children that were waited for, and theirs, have used.
pub(crate) struct ChildrenUsage {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    /// Of the largest process.
    pub(crate) memory_peak_bytes: u64,
}

pub(crate) fn children_usage() -> ChildrenUsage {
    // SAFETY: rusage is plain data for which zeroes are valid, and getrusage only writes to it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let duration = |time: libc::timeval| {
        Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0))
            + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
    };
    ChildrenUsage {
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
        memory_peak_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024),
    }
}
