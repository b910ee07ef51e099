//! The few system calls that have no safe wrapper.

#![allow(unsafe_code)]

use rustix::fd::{AsRawFd, OwnedFd};
use rustix::process::Signal;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

static PENDING: [AtomicBool; 65] = [const { AtomicBool::new(false) }; 65];
static FROM_INSIDE: [AtomicBool; 65] = [const { AtomicBool::new(false) }; 65];
static WAKE: AtomicI32 = AtomicI32::new(-1);

/// Notes the signal and wakes whoever polls the pipe. Handlers, not a blocked mask: exec resets them, so the command
/// starts with the dispositions and the mask that it would have without us.
///
/// A sender outside of our PID namespace (the container runtime) has no number in it: its `si_pid` is 0. What a process
/// can send with numbers of its own choice has a negative `si_code`.
extern "C" fn note(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel hands over a valid siginfo, which holds the sender's number for SI_USER.
    let from_inside = unsafe {
        info.as_ref()
            .is_some_and(|info| info.si_code < libc::SI_USER || (info.si_code == libc::SI_USER && info.si_pid() != 0))
    };
    let notes = if from_inside { &FROM_INSIDE } else { &PENDING };
    if let Some(noted) = usize::try_from(signal).ok().and_then(|signal| notes.get(signal)) {
        noted.store(true, Ordering::SeqCst);
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
            action.sa_sigaction = note as extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) as usize;
            action.sa_flags = libc::SA_RESTART | libc::SA_SIGINFO;
            libc::sigaction(*signal, &raw const action, std::ptr::null_mut()) != 0
        };
        if failed {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The disk serves this process, and the threads that it starts from now on, when it has nothing else to do. Not every
/// kernel can, and nothing depends on it.
#[cfg(feature = "operator")]
pub(crate) fn use_idle_disk() {
    const WHO_PROCESS: libc::c_int = 1;
    const CLASS_IDLE: libc::c_int = 3;
    const CLASS_SHIFT: libc::c_int = 13;
    // SAFETY: three numbers; 0 is the calling thread.
    unsafe {
        libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, CLASS_IDLE << CLASS_SHIFT);
    }
}

/// Who sent a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// The kernel, or a process that our PID namespace does not show.
    Outside,
    /// A process of our PID namespace.
    Inside,
}

/// Whether the signal came since the last look, from such a sender.
pub(crate) fn take_signal(signal: i32, from: Sender) -> bool {
    let notes = match from {
        Sender::Outside => &PENDING,
        Sender::Inside => &FROM_INSIDE,
    };
    usize::try_from(signal).ok().and_then(|signal| notes.get(signal)).is_some_and(|p| p.swap(false, Ordering::SeqCst))
}

/// Sends a signal to every process but this one, at once: nothing can fork its way out. Only for PID 1 of a container.
pub(crate) fn signal_all_others(signal: Signal) {
    // SAFETY: kill takes no pointers.
    unsafe {
        libc::kill(-1, signal.as_raw());
    }
}

/// Takes the pages of this program's code and constants out of this process, for a wait: the smaller it is, the less the
/// command must have for the kernel to kill that and not the runner when memory runs out. They stay in the page cache,
/// and come back, some 16 at a time, when they are needed again: a few hundredths of a millisecond for each wait.
pub(crate) fn let_go_of_code() {
    /// The first object is the program; what it has in pages that nobody writes to is as it is in its file.
    unsafe extern "C" fn of_program(
        info: *mut libc::dl_phdr_info,
        _: libc::size_t,
        _: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: the C library hands over a valid object with that many program headers, which describe what is mapped.
        // Pages of a segment that is not writable are never changed, so the file still has all of them: relocations that
        // are protected afterwards are in a writable segment.
        unsafe {
            let Some(info) = info.as_ref().filter(|info| !info.dlpi_phdr.is_null()) else { return 1 };
            let page = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).unwrap_or(4096);
            for segment in std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) {
                if segment.p_type == libc::PT_LOAD && segment.p_flags & libc::PF_W == 0 {
                    let [from, length] =
                        [info.dlpi_addr + segment.p_vaddr, segment.p_memsz].map(|n| usize::try_from(n).unwrap_or(0));
                    let inset = from % page;
                    let address = std::ptr::with_exposed_provenance_mut(from - inset);
                    libc::madvise(address, length + inset, libc::MADV_DONTNEED);
                }
            }
        }
        1
    }
    // SAFETY: the callback keeps no pointer and does not unwind.
    unsafe {
        libc::dl_iterate_phdr(Some(of_program), std::ptr::null_mut());
    }
}

/// What processes have used.
pub(crate) struct ProcessUsage {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    /// Of the largest process.
    pub(crate) memory_peak_bytes: u64,
}

/// The children that were waited for, and theirs.
pub(crate) fn children_usage() -> ProcessUsage {
    process_usage(libc::RUSAGE_CHILDREN)
}

/// This process.
pub(crate) fn own_usage() -> ProcessUsage {
    process_usage(libc::RUSAGE_SELF)
}

fn process_usage(who: libc::c_int) -> ProcessUsage {
    // SAFETY: rusage is plain data for which zeroes are valid, and getrusage only writes to it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(who, &raw mut usage);
        usage
    };
    let duration = |time: libc::timeval| {
        Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0))
            + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
    };
    ProcessUsage {
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
        memory_peak_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024),
    }
}
