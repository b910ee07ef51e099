//! Sees to it that inputs are staged, by children, while the user's image is pulled and the runner waits.

use crate::contract::{Cause, InputSource, Request};
use crate::helper::child::Task;
use crate::helper::markers::{self, is_marked, order_end};
use crate::helper::supervise::{Outcome, Tries, retry_until};
use crate::names::files;
use crate::runner::Paths;
use crate::runner::signals::wait_readable;
use rustix::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Whether there is anything left to stage once *prepare* is done. Text is written by *prepare*.
pub(in crate::helper) fn is_needed(request: &Request) -> bool {
    request.inputs.iter().any(|input| match input.source {
        InputSource::Text(_) | InputSource::Mounted { .. } => input.path == ".",
        InputSource::Image { .. } | InputSource::Url { .. } | InputSource::Copied { .. } => true,
    })
}

/// Stages all inputs, or orders the runner to end. Ends early when `stop` can be read or with `cancel`.
pub(in crate::helper) fn stage(paths: &Paths, request: &Request, stop: BorrowedFd<'_>, cancel: &AtomicBool) {
    let is_done = || is_marked(&paths.bin, files::STAGED) || is_marked(&paths.bin, files::END);
    let mut pause = |time| wait_readable([stop], Some(time)) == [true] || cancel.load(Ordering::Relaxed);
    let seconds = request.staging_seconds;
    let until = seconds.and_then(|seconds| (Instant::now() + Duration::from_secs(seconds)).checked_sub(spent(paths)));
    let order = match retry_until(paths, Task::Stage, until, &mut pause, &is_done) {
        Outcome::Done => Ok(()),
        Outcome::TimeIsUp(tries) => {
            let seconds = seconds.unwrap_or_default();
            let why = why(paths, &tries);
            order_end(&paths.bin, Cause::StagingFailed, &format!("not in place after {seconds} s{why}"))
        }
        // A runner that still waits, against all rules, shall not wait for ever.
        Outcome::Cancelled => order_end(&paths.bin, Cause::StagingFailed, "asked to stop"),
    };
    markers::unmark(&paths.bin, files::PROGRESS);
    if let Err(error) = order {
        eprintln!("bundle-operator helper: {error}");
    }
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
