//! Children of the helper's main process: what may crash, or take much memory, is theirs. The main process starts them
//! again.

pub(super) mod left_behind;
pub(super) mod measuring;
pub(super) mod saving;
pub(super) mod staging;
pub(super) mod store;

use crate::contract::log_line;
use crate::helper::child::Task;
use crate::runner::Paths;
use std::io;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at a child: short at first, because small things are done in no time.
const LOOK_SOON: Duration = Duration::from_millis(5);
const LOOK_LATER: Duration = Duration::from_millis(100);
const SOON: Duration = Duration::from_millis(500);

/// Before another child is started: 1, 2, 4, 8, 15, 15, ... seconds.
const BACK_OFF_MAX: Duration = Duration::from_secs(15);
/// Between the last tries to save: each may read all of the output. Between two questions to a store while the command
/// runs.
const BACK_OFF_MAX_OF_THE_STORE: Duration = Duration::from_secs(30);

/// However little time is left.
const BACK_OFF_MIN: Duration = Duration::from_secs(1);

/// A child that hangs in the kernel, on a disk that does not answer, cannot be killed: it is left behind after this. So is
/// one that has done its task, and whose threads cannot end.
const KILLED: Duration = Duration::from_secs(5);

/// How keeping at it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::helper) enum Outcome {
    /// What was to be reached is reached.
    Done,
    /// Time is up.
    TimeIsUp(Tries),
    /// Somebody else put an end to it.
    Cancelled,
}

/// The tries until time was up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::helper) struct Tries {
    /// How the last child ended that ended by itself, in words; none: no child did.
    pub(in crate::helper) last_end: Option<String>,
    /// How many ended without having reached anything.
    pub(in crate::helper) failed: u32,
}

/// Starts children for a task, one after another, until `is_done`, the time is up, or `pause` (which lets some time
/// pass) says that it is cancelled. No child is left but one that hangs in the kernel.
pub(in crate::helper) fn retry_until(
    paths: &Paths,
    task: Task,
    until: Option<Instant>,
    pause: &mut dyn FnMut(Duration) -> bool,
    is_done: &dyn Fn() -> bool,
) -> Outcome {
    let mut tries = Tries::default();
    while !is_done() {
        let end = match start(paths, task) {
            Ok(child) => match wait(child, task, until, pause, is_done) {
                Waited::Ended(_) if is_done() => return Outcome::Done,
                Waited::Ended(end) => end,
                Waited::TimeIsUp => return if is_done() { Outcome::Done } else { Outcome::TimeIsUp(tries) },
                Waited::Cancelled => return if is_done() { Outcome::Done } else { Outcome::Cancelled },
            },
            Err(error) => format!("cannot be started: {error}"),
        };
        log_line!("bundle-operator helper {}: {end}", task.word());
        let next = Instant::now()
            + back_off(task, tries.failed, until.map(|until| until.saturating_duration_since(Instant::now())));
        tries.failed += 1;
        tries.last_end = Some(end);
        while Instant::now() < next {
            if until.is_some_and(|until| Instant::now() >= until) {
                return Outcome::TimeIsUp(tries);
            }
            if pause(LOOK_LATER) {
                return Outcome::Cancelled;
            }
        }
    }
    Outcome::Done
}

/// Before the next try after so many that failed. Never more than half of the time that is `left`, so that there is one in
/// the last quarter, when what cannot be read is given up.
fn back_off(task: Task, failed: u32, left: Option<Duration>) -> Duration {
    let most = match task {
        Task::Save | Task::CheckStore => BACK_OFF_MAX_OF_THE_STORE,
        Task::LookUp
        | Task::Stage
        | Task::Measure
        | Task::WatchDisk
        | Task::PushEarly
        | Task::Snapshot
        | Task::RegularSnapshot => BACK_OFF_MAX,
    };
    let half = left.map_or(Duration::MAX, |left| left / 2).max(BACK_OFF_MIN);
    Duration::from_secs(1 << failed.min(5)).min(most).min(half)
}

fn start(paths: &Paths, task: Task) -> io::Result<Child> {
    let mut command = Command::new(&paths.operator_binary);
    command.args(["helper", task.word()]);
    if paths.root != Path::new("/") {
        command.arg("--root").arg(&paths.root);
    }
    // A panic for want of memory hangs where it prints a backtrace, which needs some.
    command.env("RUST_BACKTRACE", "0").stdin(Stdio::null()).spawn()
}

enum Waited {
    /// In words.
    Ended(String),
    TimeIsUp,
    Cancelled,
}

fn wait(
    mut child: Child,
    task: Task,
    until: Option<Instant>,
    pause: &mut dyn FnMut(Duration) -> bool,
    is_done: &dyn Fn() -> bool,
) -> Waited {
    let begin = Instant::now();
    // One that watches is done in no time only when it crashes.
    let soon = if task == Task::WatchDisk { Duration::ZERO } else { SOON };
    // Since when it has nothing more to do.
    let mut over: Option<Instant> = None;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Waited::Ended(status.to_string()),
            Ok(None) => {}
            // Somebody else reaped it. What it reached is seen by its marks.
            Err(_) => return Waited::Ended(ExitStatus::default().to_string()),
        }
        if is_done() || left_behind::has_ended_but_for_its_threads(child.id()) {
            over.get_or_insert_with(Instant::now);
        }
        let waited = if over.is_some_and(|over| over.elapsed() >= KILLED) {
            Waited::Ended("cannot end: a thread of it hangs in the kernel".to_owned())
        } else if until.is_some_and(|until| Instant::now() >= until) {
            Waited::TimeIsUp
        } else if pause(if begin.elapsed() < soon { LOOK_SOON } else { LOOK_LATER }) {
            Waited::Cancelled
        } else {
            continue;
        };
        let _ = child.kill();
        let killed = Instant::now();
        while matches!(child.try_wait(), Ok(None)) {
            if killed.elapsed() >= KILLED {
                left_behind::leave(child);
                break;
            }
            thread::sleep(LOOK_SOON);
        }
        return waited;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::fs;

    pub(super) fn with_program(script: &str) -> (tempfile::TempDir, Paths) {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        // Written by another process: children that other tests fork just now would hold it open for writing.
        fs::write(root.path().join("script"), script).unwrap();
        let mut install = Command::new("install");
        install.args(["-m", "755"]).arg(root.path().join("script")).arg(&paths.operator_binary);
        assert!(install.status().unwrap().success());
        (root, paths)
    }

    fn sleep(time: Duration) -> bool {
        std::thread::sleep(time);
        false
    }

    #[test]
    fn a_child_that_fails_is_started_again() {
        let (root, paths) =
            with_program("#!/bin/sh\n[ -e \"$4/first\" ] && exec touch \"$4/done\"\ntouch \"$4/first\"\nexit 9\n");
        let done = || root.path().join("done").exists();
        assert_eq!(retry_until(&paths, Task::Stage, None, &mut sleep, &done), Outcome::Done);
    }

    #[test]
    fn time_is_up_for_a_child_that_hangs_and_for_one_that_fails() {
        let (root, paths) = with_program("#!/bin/sh\necho $$ >\"$4/pid\"\nexec sleep 100\n");
        let until = Instant::now() + Duration::from_secs(1);
        let outcome = retry_until(&paths, Task::Save, Some(until), &mut sleep, &|| false);
        assert_eq!(outcome, Outcome::TimeIsUp(Tries::default()));
        let pid = fs::read_to_string(root.path().join("pid")).unwrap();
        assert!(!Path::new("/proc").join(pid.trim()).exists(), "it is killed");

        let (_root, paths) = with_program("#!/bin/sh\nexit 9\n");
        let until = Instant::now() + Duration::from_millis(1500);
        let Outcome::TimeIsUp(tries) = retry_until(&paths, Task::Save, Some(until), &mut sleep, &|| false) else {
            panic!("time is up");
        };
        assert!((1..=2).contains(&tries.failed), "{tries:?}");
        assert_eq!(tries.last_end.as_deref(), Some("exit status: 9"));
    }

    #[test]
    fn whatever_the_deadline_there_is_a_try_in_its_last_quarter() {
        for deadline in [10, 20, 30, 40, 120, 3600].map(Duration::from_secs) {
            let (mut at, mut tries) = (Duration::ZERO, vec![]);
            while at < deadline {
                tries.push(at);
                at += back_off(Task::Save, u32::try_from(tries.len() - 1).unwrap(), Some(deadline.saturating_sub(at)));
            }
            let last_quarter = |at: &&Duration| **at >= deadline * 3 / 4 && **at <= deadline * 15 / 16;
            assert!(tries.iter().any(|at| last_quarter(&at)), "{deadline:?}: {tries:?}");
            assert!(tries.len() < 200, "{deadline:?}: {} tries", tries.len());
        }
        assert_eq!(back_off(Task::Stage, 2, None), Duration::from_secs(4));
    }

    #[test]
    fn cancelling_ends_the_child() {
        let (_root, paths) = with_program("#!/bin/sh\nexec sleep 100\n");
        let looks = Cell::new(0);
        let mut pause = |_| {
            looks.set(looks.get() + 1);
            looks.get() > 3
        };
        assert_eq!(retry_until(&paths, Task::Stage, None, &mut pause, &|| false), Outcome::Cancelled);
    }
}
