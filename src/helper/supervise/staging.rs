//! Sees to it that inputs are staged, by children, while the user's image is pulled and the runner waits.

use crate::contract::{Cause, InputProblem, InputSource, InputTrouble, Request};
use crate::helper::awaited::{self, Waits};
use crate::helper::child::Task;
use crate::helper::error::{Error, log_failure};
use crate::helper::given_up::{self, Awaited};
use crate::helper::markers::{self, is_marked, order_end};
use crate::helper::supervise::{Outcome, Tries, retry_until};
use crate::helper::task::look_up::{self, LookedUp};
use crate::names::files;
use crate::runner::Paths;
use crate::runner::signals::wait_readable;
use rustix::fd::BorrowedFd;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Whether there is anything left to put in place once *prepare* is done. Text is written by *prepare*.
pub(in crate::helper) fn is_needed(request: &Request) -> bool {
    !request.resume_from.is_empty()
        || request.inputs.iter().any(|input| match input.source {
            InputSource::Text(_) | InputSource::Mounted => input.path == ".",
            InputSource::Image { .. }
            | InputSource::Snapshot(_)
            | InputSource::Url { .. }
            | InputSource::Copied { .. } => true,
        })
}

/// Stages all inputs, or orders the runner to end. Ends early when `stop` can be read or with `cancel`.
pub(in crate::helper) fn stage(paths: &Paths, request: &Request, stop: BorrowedFd<'_>, cancel: &AtomicBool) {
    let is_over = || is_marked(&paths.bin, files::END);
    let mut waits = Waits::new(request.patience);
    let mut pause = |time| {
        // The time counts from when there is a command that waits: while its image is pulled nothing is held up.
        let has_started = rustix::fs::lstat(paths.record.join(files::STARTED)).is_ok();
        if let Some((problem, why)) = waits.in_vain(&paths.bin, has_started) {
            log_failure(order_end(&paths.bin, problem.ends_as(), &why));
        }
        wait_readable([stop], Some(time)) == [true] || cancel.load(Ordering::Relaxed) || is_over()
    };
    let seconds = request.staging_seconds;
    let until = seconds.and_then(|seconds| (Instant::now() + Duration::from_secs(seconds)).checked_sub(spent(paths)));
    if let Some(until) = until {
        given_up::note(&paths.bin, Awaited::Staging, until.saturating_duration_since(Instant::now()));
    }
    let is_looked_up = || is_over() || is_marked(&paths.bin, files::LOOKED_UP);
    let mut outcome = Outcome::Done;
    if request.inputs.iter().any(look_up::is_needed) {
        outcome = retry_until(paths, Task::LookUp, until, &mut pause, &is_looked_up);
        log_failure(take_in(paths, request));
    }
    if outcome == Outcome::Done {
        let is_staged = || is_over() || is_marked(&paths.bin, files::STAGED);
        outcome = retry_until(paths, Task::Stage, until, &mut pause, &is_staged);
    }
    log_failure(match outcome {
        Outcome::Done => Ok(()),
        Outcome::TimeIsUp(tries) => {
            let seconds = seconds.unwrap_or_default();
            let refused = awaited::worst(&paths.bin).filter(|trouble| trouble.problem != InputProblem::NoAnswer);
            if let Some(InputTrouble { problem, detail }) = refused {
                order_end(&paths.bin, problem.ends_as(), &format!("{detail}, for {seconds} s"))
            } else {
                let why = why(paths, &tries);
                order_end(&paths.bin, Cause::StagingFailed, &format!("not in place after {seconds} s{why}"))
            }
        }
        // A runner that still waits, against all rules, shall not wait for ever.
        Outcome::Cancelled => order_end(&paths.bin, Cause::StagingFailed, "asked to stop"),
    });
    for mark in [files::PROGRESS, files::AWAITED] {
        markers::unmark(&paths.bin, mark);
    }
}

/// What was found out after the run container had started, or before: an input that is none, or one whose place was made
/// for a directory and is mounted by now.
fn take_in(paths: &Paths, request: &Request) -> Result<(), Error> {
    if let Some(LookedUp { order: Some(order), .. }) = markers::read_json(&paths.bin, files::LOOKED_UP) {
        return markers::order(&paths.bin, &order);
    }
    let Some(input) = late_files(paths).first().and_then(|index| request.inputs.get(*index)) else { return Ok(()) };
    let why = "it is a file, which was found out only after the container had started: another attempt would know it";
    order_end(&paths.bin, Cause::StagingFailed, &format!("input {}: {why}", input.path))
}

/// See [`Report::late_files`](crate::contract::Report).
pub(in crate::helper) fn late_files(paths: &Paths) -> BTreeSet<usize> {
    let LookedUp { files, .. } = markers::read_json(&paths.bin, files::LOOKED_UP).unwrap_or_default();
    files.into_iter().filter(|index| paths.inputs.join(index.to_string()).is_dir()).collect()
}

/// Since *prepare* was done, maybe in an earlier life.
fn spent(paths: &Paths) -> Duration {
    let since = std::fs::metadata(paths.bin.join(files::PREPARED)).and_then(|mark| mark.modified());
    since.ok().and_then(|since| since.elapsed().ok()).unwrap_or_default()
}

fn why(paths: &Paths, tries: &Tries) -> String {
    match (markers::read(&paths.bin, files::TROUBLE), &tries.last_end) {
        (Some(trouble), _) => format!(": {trouble}"),
        (None, Some(end)) => format!(": the helper's process ended {} times, last with {end}", tries.failed),
        (None, None) => String::new(),
    }
}
