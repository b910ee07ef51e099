//! From the start of a program to the end of all that it started.

use super::limits::{Due, Limits, Reason};
use super::paths::Paths;
use super::processes;
use super::request::ordered_end;
use super::shell::{Marks, Progress};
use super::signals::{Caught, Signals, wait_readable};
use super::sys;
use super::tee::Tee;
use crate::contract::Cause;
use crate::names::files;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, WaitStatus};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// How long background processes may go on writing after the command has ended.
const DRAIN: Duration = Duration::from_secs(2);
/// How long a log that takes nothing is waited for, once nobody writes any more.
const LOG: Duration = Duration::from_secs(1);
/// How long killed processes may take to go.
const REAP: Duration = Duration::from_secs(5);
/// Between two looks for the helper's order to end.
const LOOK: Duration = Duration::from_millis(500);

/// A moment, on the clock that measures and on the one that tells the time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) monotonic: Instant,
    pub(crate) wall: SystemTime,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: WaitStatus,
    /// When the command began; a shell may never come to that.
    pub(crate) began: Option<Moment>,
    /// When it ended; what it left behind was ended after that.
    pub(crate) at: Moment,
    /// How far the shell came; `Silent` without one.
    pub(crate) progress: Progress,
    pub(crate) warnings: Vec<String>,
}

/// Stays with the program (`marks`: a shell's) until it and all that it started are gone and its output is written.
pub(crate) fn supervise(
    command: Pid,
    marks: Option<OwnedFd>,
    mut tee: Tee,
    limits: &mut Limits,
    signals: &Signals,
    paths: &Paths,
) -> Ended {
    let mut began = marks.is_none().then(|| begin(&paths.record));
    let mut order = None;
    let mut marks = Marks::from(marks);
    let mut next_look = Instant::now();
    limits.count_from(Instant::now());

    let status = loop {
        let now = Instant::now();
        match limits.due(now) {
            Due::TimeIsUp => drop(end(limits, Cause::TimeLimitExceeded, now)),
            Due::Kill => processes::signal_everything(Signal::KILL),
            Due::Nothing => {}
        }
        if now >= next_look {
            next_look = now + LOOK;
            if let Some(ordered) = ordered_end(paths)
                && end(limits, ordered.cause, now)
            {
                order = Some(ordered.detail).filter(|detail| !detail.is_empty());
            }
        }

        let until = limits.next().map_or(next_look, |next| next.min(next_look));
        let marks_or_signals = marks.pipe().unwrap_or(signals.as_fd());
        sys::let_go_of_code();
        wait_readable([signals.as_fd(), marks_or_signals], Some(until.saturating_duration_since(now)));

        for caught in signals.take() {
            match caught {
                Caught::Stop(signal) => {
                    limits.end(Reason::AskedToStop, Instant::now());
                    processes::signal_group(command, signal);
                }
                Caught::Forward(signal) => processes::signal_group(command, signal),
                Caught::Child => {}
            }
        }
        // Reaped first, read after: the last mark was written before the end.
        let status = processes::reap(command);
        marks.read();
        if began.is_none() && matches!(marks.progress(), Progress::Ready(_)) {
            let now = begin(&paths.record);
            limits.count_from(now.monotonic);
            began = Some(now);
        }
        if let Some(status) = status {
            break status;
        }
    };

    let at = Moment::now();
    sys::let_go_of_code();
    let all_copied = tee.wait(DRAIN);
    processes::kill_leftovers(REAP);
    if !all_copied && !tee.wait(LOG) {
        tee.cut();
        tee.wait(LOG);
    }
    let warnings = order.into_iter().chain(tee.into_warnings()).collect();
    Ended { status, began, at, progress: marks.progress(), warnings }
}

/// The command begins: leaves the mark of it. The record tells it, too, when there is one: a mark that cannot be made
/// is no reason to end the command.
fn begin(record_dir: &Path) -> Moment {
    let began = Moment::now();
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
    let _ = rustix::fs::open(record_dir.join(files::BEGAN), flags, Mode::from_raw_mode(0o644));
    began
}

/// False: it was ending already.
fn end(limits: &mut Limits, cause: Cause, now: Instant) -> bool {
    let first = limits.end(Reason::Cause(cause), now);
    if first {
        processes::signal_everything(Signal::TERM);
    }
    first
}
