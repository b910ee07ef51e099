//! From the start of a program to the end of all that it started.

use super::ending::{End, Ending};
use super::limits::{Due, KILL_PATIENCE, Limits, Reason};
use super::processes;
use super::request::Orders;
use super::shell::{Marks, Progress};
use super::signals::{Caught, Signals, wait_readable};
use super::sys;
use super::tee::Tee;
use crate::contract::Cause;
use crate::names::files;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, WaitStatus, getpid};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// How long background processes may go on writing after the command has ended by itself.
const DRAIN: Duration = Duration::from_secs(2);
/// How long what the command has left behind may take to end after TERM.
const LEFT_BEHIND: Duration = Duration::from_secs(2);
/// How long a log that takes nothing is waited for, once nobody writes any more.
const LOG: Duration = Duration::from_secs(1);
/// Between two looks for the helper's order to end.
const LOOK: Duration = Duration::from_millis(500);
/// Between two looks at the processes during an ordered end, unless a child has ended.
const WALK: Duration = Duration::from_millis(200);
/// However many children end.
const WALK_SOON: Duration = Duration::from_millis(10);

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
    /// None: it could not be killed.
    pub(crate) status: Option<WaitStatus>,
    /// When the command began; a shell may never come to that.
    pub(crate) began: Option<Moment>,
    /// When it ended; what it left behind was ended after that.
    pub(crate) at: Moment,
    /// How far the shell came; `Silent` without one.
    pub(crate) progress: Progress,
    /// Something of it could not be killed, and is still there.
    pub(crate) unkillable: bool,
    pub(crate) warnings: Vec<String>,
}

/// Stays with the program (`marks`: a shell's) until it and all that it started are gone and its output is written.
pub(crate) fn supervise(
    command: Pid,
    marks: Option<OwnedFd>,
    mut tee: Tee,
    limits: &mut Limits,
    signals: &Signals,
    (orders, record): (&Orders, &Path),
) -> Ended {
    let mut began = marks.is_none().then(|| begin(record));
    let mut order = None;
    let mut marks = Marks::from(marks);
    let mut next_look = Instant::now();
    let mut walks: Option<Walks> = None;
    let mut end: Option<(WaitStatus, Moment)> = None;
    limits.count_from(Instant::now());

    let all_gone = loop {
        let now = Instant::now();
        match limits.due(now) {
            Due::TimeIsUp => {
                if limits.end(Reason::Cause(Cause::TimeLimitExceeded), now) {
                    walks = Some(Walks::begin(Signal::TERM, now));
                }
            }
            Due::Kill => walks.iter_mut().for_each(Walks::last),
            Due::KillAgain => processes::signal_everything(Signal::KILL),
            Due::GiveUp => break false,
            Due::Nothing => {}
        }
        if now >= next_look {
            next_look = now + LOOK;
            if let Some(ordered) = orders.end()
                && limits.end(ordered.cause.map_or(Reason::AskedToStop, Reason::Cause), now)
            {
                order = Some(ordered.detail).filter(|detail| !detail.is_empty());
                walks = Some(Walks::begin(Signal::TERM, now));
            }
        }
        if let Some(walks) = &mut walks {
            walks.walk_if_due(now, command);
        }

        let until =
            [limits.next(), walks.as_ref().map(|walks| walks.next)].into_iter().flatten().fold(next_look, Instant::min);
        let marks_or_signals = marks.pipe().unwrap_or(signals.as_fd());
        sys::let_go_of_code();
        wait_readable([signals.as_fd(), marks_or_signals], Some(until.saturating_duration_since(now)));

        for caught in signals.take() {
            match caught {
                Caught::Stop(signal) => {
                    let now = Instant::now();
                    if limits.end(Reason::AskedToStop, now) {
                        walks = Some(Walks::begin(signal, now));
                    }
                }
                Caught::Forward(signal) => processes::signal_group(command, signal),
                Caught::Child => walks.iter_mut().for_each(Walks::soon),
            }
        }
        // Reaped first, read after: the last mark was written before the end.
        let are_left = processes::reap(|pid, status| {
            if pid == command {
                end = Some((status, Moment::now()));
            }
            if let Some(walks) = &mut walks {
                walks.ending.note_end(pid.as_raw_pid(), End::of_wait_status(status.as_raw()));
            }
        });
        marks.read();
        if began.is_none() && matches!(marks.progress(), Progress::Ready(_)) {
            let now = begin(record);
            limits.count_from(now.monotonic);
            began = Some(now);
        }
        if !are_left {
            break true;
        }
        // Ended by itself: what it left behind has no claim on the time of an ordered end.
        if end.is_some() && walks.is_none() {
            break end_leftovers(&mut tee, signals);
        }
    };

    sys::let_go_of_code();
    if !tee.wait(LOG) {
        tee.cut();
        tee.wait(LOG);
    }
    let survivors = if all_gone { None } else { processes::survivors() };
    let handlers = walks.and_then(|walks| walks.ending.handled_by_others(command.as_raw_pid()));
    let at = end.map_or_else(Moment::now, |(_, at)| at);
    let unkillable = survivors.is_some();
    let warnings = order.into_iter().chain(survivors).chain(handlers).chain(tee.into_warnings()).collect();
    Ended { status: end.map(|(status, _)| status), began, at, progress: marks.progress(), unkillable, warnings }
}

/// After a natural end: what still writes may do so for a while; then what is left is asked to end, and killed. False:
/// something is still there.
fn end_leftovers(tee: &mut Tee, signals: &Signals) -> bool {
    sys::let_go_of_code();
    tee.wait(DRAIN);
    if !processes::reap(|_, _| {}) {
        return true;
    }
    processes::signal_everything(Signal::TERM);
    processes::await_end(signals, LEFT_BEHIND, false) || processes::await_end(signals, KILL_PATIENCE, true)
}

/// The looks at all processes during an ordered end.
#[derive(Debug)]
struct Walks {
    ending: Ending,
    next: Instant,
    last: Option<Instant>,
}

impl Walks {
    fn begin(signal: Signal, now: Instant) -> Self {
        Self { ending: Ending::ordered(signal), next: now, last: None }
    }

    /// A child has ended.
    fn soon(&mut self) {
        self.next = self.last.map_or(self.next, |last| self.next.min(last + WALK_SOON));
    }

    fn walk_if_due(&mut self, now: Instant, command: Pid) {
        if now < self.next {
            return;
        }
        let seen = processes::look();
        if seen.is_empty() && self.last.is_none() {
            // No /proc to read: as good as can be.
            processes::signal_group(command, self.ending.signal());
        }
        processes::send(&self.ending.look(&seen, own_pid(), now));
        self.last = Some(now);
        self.next = now + WALK;
    }

    /// The grace is over.
    fn last(&mut self) {
        let seen = processes::look();
        processes::send(&self.ending.last_look(&seen, own_pid()));
        if seen.is_empty() {
            processes::signal_everything(Signal::KILL);
        }
        self.last = Some(Instant::now());
    }
}

fn own_pid() -> i32 {
    getpid().as_raw_pid()
}

/// The command begins: leaves the mark of it. The record tells it, too, when there is one: a mark that cannot be made
/// is no reason to end the command.
fn begin(record_dir: &Path) -> Moment {
    let began = Moment::now();
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
    let _ = rustix::fs::open(record_dir.join(files::BEGAN), flags, Mode::from_raw_mode(0o644));
    began
}
