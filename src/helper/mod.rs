//! The native sidecar: prepares the pod's volumes, stages inputs, watches the run, saves its output, and tells its
//! ending to the kubelet.
//!
//! | file | subject |
//! |---|---|
//! | `prepare`, `mount_points` | what the run container needs before it starts |
//! | `owner` | the working directory is given to the command's user |
//! | `watch` | from the start of the runner to its death |
//! | `beside`, `until_dropped` | children that work beside the command, and threads that end with a value |
//! | `snapshots` | snapshots that the command asks for, and regular ones |
//! | `pressure` | whether others wait for the disk or for memory |
//! | `stop_order` | the user's order to end |
//! | `ending` | the record and the output become the termination message |
//! | `supervise` | keeping at it, by children, until inputs are in place, until the output is saved |
//! | `task` | what the children do, because it takes memory and may crash |
//! | `look` | what a user at a terminal asks about the working directory |
//! | `mode` | the permission bits of inputs that the helper writes |
//! | `room` | the memory that children have for the entries of trees |
//! | `child` | how a child begins, and what it may have |
//! | `markers`, `progress`, `saved`, `measured`, `store_answer` | what one process leaves for another |
//! | `warnings` | what will go wrong, said while the command runs |
//! | `record` | what the runner leaves |
//! | `failure`, `awaited`, `given_up` | why an input is not in place, and for how long it is waited for |
//! | `error` | what could not be done, and why |
//! | `tree` | walking through a tree that a stranger wrote |
//!
//! Trust: everything below the working directory and the record directory was written by the user's code, or is being
//! written by it now. Nothing of it is executed, and it is only ever opened relative to a directory that we hold open,
//! without following links. No process of the helper can be dumped or traced by others of its user.

mod awaited;
mod beside;
mod child;
mod ending;
mod error;
mod failure;
mod given_up;
mod look;
mod markers;
mod measured;
mod mode;
mod mount_points;
mod owner;
mod prepare;
mod pressure;
mod progress;
mod record;
mod room;
mod saved;
mod snapshots;
mod stop_order;
mod store_answer;
mod supervise;
mod task;
mod tree;
mod until_dropped;
mod warnings;
mod watch;

use crate::contract::{Cause, Request, log_line, one_line};
use crate::names::files;
use crate::runner::signals::Signals;
use crate::runner::{Paths, request};
pub use child::Task;
use error::{Error, log_failure};
pub use look::{Look, look};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use supervise::{left_behind, staging, store};
use task::{check_store, look_up, measure, push_early, save, snapshot, stage, watch_disk};
use watch::End;

/// How long the postStart hook waits: the kubelet sees no deletion of the pod while it runs.
const HOOK: Duration = Duration::from_secs(10);

/// The helper's whole life, as PID 1 of its container. Safe to run again after a crash.
///
/// SIGTERM means that the run container has ended or never will start: the helper then saves and reports at once.
/// Failure: it could not prepare or report; the kubelet starts it again.
#[must_use]
pub fn run(paths: &Paths) -> ExitCode {
    match Signals::catch_stop() {
        Ok(stop) => run_until(paths, stop.as_fd()),
        Err(error) => fail(&format!("cannot catch signals: {error}")),
    }
}

/// [`run`] with another order to end than SIGTERM: `stop` can be read.
#[must_use]
pub fn run_until(paths: &Paths, stop: BorrowedFd<'_>) -> ExitCode {
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let outcome = match ending::earlier_report(paths) {
        Some(message) => ending::tell(paths, &message),
        None => live(paths, stop),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn live(paths: &Paths, stop: BorrowedFd<'_>) -> Result<(), String> {
    // What cannot be read the runner will tell; it reads the same.
    let request = request::read(&paths.request).ok();
    let request = request.as_ref();
    progress::serve(paths);
    // The kubelet keeps it, and the operator tells it, while the helper is started again and again.
    let said = |why: &String| drop(ending::tell(paths, &one_line(why)));
    let lock = prepare::prepare(paths, request, stop).inspect_err(said)?;
    let end = stage_and_watch(paths, request, &lock, stop);
    ending::report(paths, request, end)?;
    stay_while_this_container_cannot_end(paths);
    Ok(())
}

/// The kubelet would wait for the end of this container in vain: the operator is told here.
fn stay_while_this_container_cannot_end(paths: &Paths) {
    if left_behind::count() == 0 {
        return;
    }
    log_failure(markers::mark(&paths.bin, files::CANNOT_END, b""));
    while left_behind::count() > 0 {
        thread::sleep(Duration::from_secs(1));
    }
}

/// Stages inputs and asks the store while the run container starts and waits for both.
fn stage_and_watch(paths: &Paths, request: Option<&Request>, lock: &OwnedFd, stop: BorrowedFd<'_>) -> End {
    let over = &AtomicBool::new(false);
    thread::scope(|scope| {
        // Also if this thread panics: the scope waits for the others.
        let _ends_them = OnDrop(|| over.store(true, Ordering::Relaxed));
        if let Some(request) = request.filter(|request| staging::is_needed(request)) {
            let stage = move || staging::stage(paths, request, stop, over);
            if let Err(error) = thread::Builder::new().name("staging".to_owned()).spawn_scoped(scope, stage) {
                let told =
                    markers::order_end(&paths.bin, Cause::StagingFailed, &format!("cannot start a thread: {error}"));
                log_line!("bundle-operator helper: inputs are not staged: {error}; {told:?}");
            }
        }
        if request.is_some_and(|request| request.save.is_some()) {
            let check = move || store::check(paths, stop, over);
            if let Err(error) = thread::Builder::new().name("store".to_owned()).spawn_scoped(scope, check) {
                log_line!("bundle-operator helper: the store is not asked: cannot start a thread: {error}");
                store::allow(paths);
            }
        }
        watch::watch(paths, request, lock, stop)
    })
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// The postStart hook: waits until *prepare* is done, at most 10 s. It never fails: a run container that starts too
/// early waits for itself, and is told to end.
#[must_use]
pub fn wait_prepared(paths: &Paths) -> ExitCode {
    wait_prepared_for(paths, HOOK);
    ExitCode::SUCCESS
}

fn wait_prepared_for(paths: &Paths, most: Duration) {
    let until = Instant::now() + most;
    while !markers::is_marked(&paths.bin, files::PREPARED) {
        if Instant::now() >= until {
            let why =
                markers::read(&paths.bin, files::TROUBLE).unwrap_or_else(|| "the helper did not say why".to_owned());
            let detail = format!("not prepared within {} s: {why}", most.as_secs());
            log_failure(markers::order_end(&paths.bin, Cause::StagingFailed, &detail));
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// A child of the helper: does one thing and leaves its marks. Failure: it may pass by itself.
#[must_use]
pub fn run_task(paths: &Paths, task: Task) -> ExitCode {
    child::begin(paths, task);
    let request = || request::read(&paths.request).map_err(|never_ran| never_ran.detail);
    let done = match task {
        Task::LookUp => request().and_then(|request| look_up::look_up(paths, &request)),
        Task::Stage => request().and_then(|request| stage::stage(paths, &request)),
        Task::CheckStore => request().and_then(|request| check_store::check_store(paths, &request)),
        Task::Save => request().and_then(|request| save::save(paths, &request)),
        Task::Measure => measure::measure(paths).map_err(|error| error.to_string()),
        Task::PushEarly => request().and_then(|request| push_early::push_early(paths, &request)),
        Task::Snapshot => request().and_then(|request| snapshot::snapshot(paths, &request, true)),
        Task::RegularSnapshot => request().and_then(|request| snapshot::snapshot(paths, &request, false)),
        Task::WatchDisk => {
            request().and_then(|request| watch_disk::watch(paths, &request).map_err(|error| error.to_string()))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if matches!(task, Task::LookUp | Task::Stage) {
                markers::trouble(&paths.bin, &error);
            }
            fail(&error)
        }
    }
}

fn fail(why: &str) -> ExitCode {
    log_line!("bundle-operator helper: {why}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::EndOrder;

    #[test]
    fn a_hook_that_runs_out_of_patience_ends_the_run_with_what_is_known() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        markers::mark(&paths.bin, files::TROUBLE, b"no answer yet from registry.example.com").unwrap();
        wait_prepared_for(&paths, Duration::from_millis(50));
        let order: EndOrder = markers::read_json(&paths.bin, files::END).unwrap();
        assert_eq!(order.cause, Some(Cause::StagingFailed));
        assert_eq!(order.detail, "not prepared within 0 s: no answer yet from registry.example.com");
    }

    #[test]
    fn who_cannot_prepare_leaves_why_to_the_kubelet() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        for dir in [&*paths.bin, paths.termination_message.parent().unwrap()] {
            std::fs::create_dir_all(dir).unwrap();
        }
        let (stop, _keep) = rustix::pipe::pipe().unwrap();
        assert_eq!(run_until(&paths, stop.as_fd()), ExitCode::FAILURE);
        let said = std::fs::read_to_string(&paths.termination_message).unwrap();
        assert!(said.contains("runner") && said.contains("No such file"), "{said}");
    }

    #[test]
    fn a_hook_that_is_served_in_time_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        markers::mark(&paths.bin, files::PREPARED, b"").unwrap();
        wait_prepared_for(&paths, Duration::ZERO);
        assert!(!markers::is_marked(&paths.bin, files::END));
    }
}
