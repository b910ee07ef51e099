//! Sees to it that a command does not start whose output the store would refuse, and that it waits no longer than that
//! is worth: a refusal is waited out for two minutes, a store that does not answer is no reason to wait at all.

use crate::contract::{Cause, InputPatience};
use crate::helper::child::Task;
use crate::helper::error::log_failure;
use crate::helper::given_up::{self, Awaited};
use crate::helper::markers::{is_marked, mark, mark_json, order_end};
use crate::helper::store_answer::{Answer, answer};
use crate::helper::supervise::retry_until;
use crate::names::files;
use crate::runner::Paths;
use crate::runner::signals::wait_readable;
use rustix::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// For how long a command waits for its store.
#[derive(Clone, Copy)]
struct Patience {
    /// For its first answer.
    answer: Duration,
    /// For it to accept, when it refuses: then the run's GPUs are free.
    hold: Duration,
}

const PATIENCE: Patience =
    Patience { answer: Duration::from_secs(10), hold: Duration::from_secs(InputPatience::USUAL.refused_seconds) };

/// Asks the store until it accepts; meanwhile allows the command to start, or orders the runner to end. Ends early when
/// `stop` can be read or with `cancel`.
pub(in crate::helper) fn check(paths: &Paths, stop: BorrowedFd<'_>, cancel: &AtomicBool) {
    check_with(PATIENCE, paths, stop, cancel);
}

fn check_with(patience: Patience, paths: &Paths, stop: BorrowedFd<'_>, cancel: &AtomicBool) {
    let is_done = || answer(paths) == Some(Answer::Accepts) || is_marked(&paths.bin, files::END);
    let begin = Instant::now();
    let mut held_since = None;
    let mut pause = |time| {
        if wait_readable([stop], Some(time)) == [true] || cancel.load(Ordering::Relaxed) {
            return true;
        }
        if is_marked(&paths.bin, files::STORE_CHECKED) {
            return false;
        }
        match answer(paths) {
            // The time counts from when there is a command that waits: while its image is pulled it holds up nothing.
            Some(Answer::Refuses(why)) if rustix::fs::lstat(paths.record.join(files::STARTED)).is_ok() => {
                let since = held_since.get_or_insert_with(|| {
                    given_up::note(&paths.bin, Awaited::Store, patience.hold);
                    Instant::now()
                });
                if since.elapsed() >= patience.hold {
                    let detail = format!("{:?}: {}", why.failure, why.detail);
                    log_failure(order_end(&paths.bin, Cause::StoreRefused, &detail));
                    return true;
                }
            }
            Some(Answer::Fails(_)) => allow(paths),
            None if begin.elapsed() >= patience.answer => {
                log_failure(mark_json(&paths.bin, files::STORE, &Answer::silent()));
                allow(paths);
            }
            Some(Answer::Accepts | Answer::Refuses(_)) | None => {}
        }
        false
    };
    retry_until(paths, Task::CheckStore, None, &mut pause, &is_done);
    if answer(paths) == Some(Answer::Accepts) {
        allow(paths);
    }
}

/// The command may start.
pub(in crate::helper) fn allow(paths: &Paths) {
    log_failure(mark(&paths.bin, files::STORE_CHECKED, b""));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::EndOrder;
    use crate::helper::markers;
    use crate::helper::supervise::tests::with_program;
    use rustix::fd::AsFd;
    use std::fs;

    /// Checks with a child that leaves this answer, if there is one.
    fn checked(answer: Option<&str>, started: bool) -> (tempfile::TempDir, Paths) {
        let write = answer.map(|answer| format!("echo '{answer}' >\"$4/.bundlerun/bin/store.json\"\n"));
        let (root, paths) = with_program(&format!("#!/bin/sh\n{}exit 1\n", write.unwrap_or_default()));
        fs::create_dir_all(&paths.bin).unwrap();
        fs::create_dir_all(&paths.record).unwrap();
        if started {
            fs::write(paths.record.join(files::STARTED), "").unwrap();
        }
        let patience = Patience { answer: Duration::from_millis(1500), hold: Duration::from_millis(300) };
        let (stop, ends) = rustix::pipe::pipe().unwrap();
        std::thread::scope(|scope| {
            let check = scope.spawn(|| check_with(patience, &paths, stop.as_fd(), &AtomicBool::new(false)));
            let is_decided = || [files::STORE_CHECKED, files::END].iter().any(|mark| is_marked(&paths.bin, mark));
            let until = Instant::now() + Duration::from_secs(if answer.is_some() && !started { 2 } else { 60 });
            while !is_decided() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(10));
            }
            drop(ends);
            check.join().unwrap();
        });
        (root, paths)
    }

    const REFUSES: &str = r#"{"refuses":{"failure":"StoreTls","detail":"wrong certificate"}}"#;

    #[test]
    fn a_store_that_goes_on_refusing_ends_the_attempt() {
        let (_root, paths) = checked(Some(REFUSES), true);
        let order: EndOrder = markers::read_json(&paths.bin, files::END).unwrap();
        assert_eq!((order.cause, order.detail.as_str()), (Some(Cause::StoreRefused), "StoreTls: wrong certificate"));
        assert!(!is_marked(&paths.bin, files::STORE_CHECKED));
        assert!(given_up::noted(&paths.bin, Awaited::Store).is_some(), "who asks is told when it will be");
    }

    #[test]
    fn while_the_image_is_pulled_nothing_is_ended() {
        let (_root, paths) = checked(Some(REFUSES), false);
        assert!(!is_marked(&paths.bin, files::END) && !is_marked(&paths.bin, files::STORE_CHECKED));
    }

    #[test]
    fn a_store_that_does_not_answer_holds_nobody_up() {
        let (_root, paths) = checked(None, true);
        assert!(is_marked(&paths.bin, files::STORE_CHECKED) && !is_marked(&paths.bin, files::END));
        assert!(matches!(answer(&paths), Some(Answer::Fails(_))));
    }
}
