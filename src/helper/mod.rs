//! The native sidecar: prepares the pod's volumes, watches the run, and tells its ending to the kubelet.
//!
//! | file | subject |
//! |---|---|
//! | `prepare` | what the run container needs before it starts |
//! | `watch` | from the start of the runner to its death |
//! | `disk` | ends a run that fills its working directory |
//! | `tree` | measuring a tree that a stranger wrote |
//! | `ending` | the record and the output become the termination message |
//!
//! Trust: everything below the working directory and the record directory was written by the user's code, or is being
//! written by it now. Nothing of it is executed, and it is only ever opened relative to a directory that we hold open,
//! without following links. The process cannot be dumped or traced by others of its user.

mod disk;
mod ending;
mod prepare;
mod tree;
mod watch;

use crate::names::files;
use crate::runner::Paths;
use crate::runner::signals::Signals;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long the postStart hook waits: the kubelet sees no deletion of the pod while it runs.
const HOOK: Duration = Duration::from_secs(10);

/// The helper's whole life, as PID 1 of its container: prepare, watch, report. Safe to run again after a crash.
///
/// SIGTERM means that the run container has ended or never will start: the helper then reports at once.
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
        None => prepare::prepare(paths).and_then(|lock| {
            let end = watch::watch(paths, &lock, stop);
            ending::report(paths, end)
        }),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// The postStart hook: waits until *prepare* is done, at most 10 s. It never fails: a run container that starts too
/// early waits for itself.
#[must_use]
pub fn wait_prepared(paths: &Paths) -> ExitCode {
    let prepared = paths.bin.join(files::PREPARED);
    let until = Instant::now() + HOOK;
    while !prepared.exists() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    ExitCode::SUCCESS
}

fn fail(why: &str) -> ExitCode {
    eprintln!("bundle-operator helper: {why}");
    ExitCode::FAILURE
}
