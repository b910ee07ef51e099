//! Children of the helper's main process: what may crash, or take much memory, is theirs. The main process starts them
//! again.

pub(super) mod left_behind;
pub(super) mod measuring;
pub(super) mod saving;
pub(super) mod staging;
pub(super) mod store;

use crate::helper::error::Error;
use crate::helper::markers;
use crate::names::files;
use crate::runner::Paths;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, set_dumpable_behavior, set_parent_process_death_signal, setrlimit,
};
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What a child does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Find out what inputs are, at registries.
    LookUp,
    /// Put inputs in place.
    Stage,
    /// Ask the store whether it would accept the output.
    CheckStore,
    /// Save the output.
    Save,
    /// Count what is in the working directory.
    Measure,
    /// End the run when it fills its disk.
    WatchDisk,
}

impl Task {
    /// Its word on the command line.
    fn word(self) -> &'static str {
        match self {
            Task::LookUp => "look-up",
            Task::Stage => "stage",
            Task::CheckStore => "check-store",
            Task::Save => "save",
            Task::Measure => "measure",
            Task::WatchDisk => "watch-disk",
        }
    }
}

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
        eprintln!("bundle-operator helper {}: {end}", task.word());
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
        Task::LookUp | Task::Stage | Task::Measure | Task::WatchDisk => BACK_OFF_MAX,
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

/// What every child does first: nobody traces it, it does not outlive the main process, and its memory is bounded.
pub(in crate::helper) fn begin(paths: &Paths, task: Task) {
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    limit_memory(&paths.cgroup);
    // Of a child before this one that crashed. Whoever asks the store does so beside one that stages.
    if matches!(task, Task::Stage | Task::Save) {
        markers::unmark(&paths.bin, files::PROGRESS);
    }
}

/// Leaves a quarter of the container's memory to the kernel and to the main process. A child that needs more aborts
/// alone; were it the container that ran out of memory, the kernel would kill the main process with it (cgroup v2, as
/// the kubelet sets it up since Kubernetes 1.28), and nobody would be left to report the run.
fn limit_memory(cgroup: &Path) {
    let most = memory_of_a_child(cgroup);
    if most.is_some()
        && let Err(error) = setrlimit(Resource::Data, Rlimit { current: most, maximum: most })
    {
        eprintln!("bundle-operator helper: this process can use up the container's memory: {error}");
    }
}

/// How much a child may have, by the container's limit in a cgroup of version 2 or 1; none: there is no limit. Version
/// 1 then has a number beyond all memory, which limits nothing either.
pub(in crate::helper) fn memory_of_a_child(cgroup: &Path) -> Option<u64> {
    let limit = |file| fs::read_to_string(cgroup.join(file)).ok()?.trim().parse::<u64>().ok();
    limit("memory.max").or_else(|| limit("memory/memory.limit_in_bytes")).map(|bytes| bytes / 4 * 3)
}

/// The runtime of a child.
pub(in crate::helper) fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    // Reqwest and the registry client take the process's provider. Somebody may have installed it before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .map_err(|error| Error::new("cannot start threads", error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

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
    fn a_child_leaves_memory_to_the_main_process() {
        for (file, text, want) in [
            ("memory.max", "536870912\n", Some(402_653_184)),
            ("memory.max", "max\n", None),
            ("memory/memory.limit_in_bytes", "536870912\n", Some(402_653_184)),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n", Some(6_917_529_027_641_078_784)),
            ("cpu.stat", "", None),
        ] {
            let cgroup = tempfile::tempdir().unwrap();
            fs::create_dir(cgroup.path().join("memory")).unwrap();
            fs::write(cgroup.path().join(file), text).unwrap();
            assert_eq!(memory_of_a_child(cgroup.path()), want, "{file}: {text}");
        }
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
