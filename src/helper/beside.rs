//! Children that work beside the command, from its start to its end.
//!
//! Children do it: a disk that gives no answer would keep a thread of ours, and with it this process, for ever. They are
//! started when the runner is there: nobody writes before, and while a pod starts its node has other things to do.

use crate::contract::log_line;
use crate::helper::child::Task;
use crate::helper::supervise::retry_until;
use crate::helper::until_dropped::UntilDropped;
use crate::runner::Paths;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// A task that is kept at until dropped, which ends the child: a walk through millions of files must not hold up the
/// ending.
#[derive(Debug)]
pub(super) struct Beside {
    begun: Arc<AtomicBool>,
    thread: Option<UntilDropped>,
}

impl Beside {
    /// Gets ready for a task. Called before the runner can be there: once the processes of a command have used up the
    /// pod's there is no thread to be had. `is_done` ends it early.
    pub(super) fn get_ready(paths: &Paths, task: Task, is_done: impl Fn(&Paths) -> bool + Send + 'static) -> Self {
        let begun = Arc::<AtomicBool>::default();
        let (paths, is_begun) = (paths.clone(), Arc::clone(&begun));
        let started = UntilDropped::start(task.word(), move |over| {
            while !is_begun.load(Ordering::Relaxed) {
                if over.is_over() {
                    return;
                }
                thread::park();
            }
            let mut pause = |time| {
                thread::park_timeout(time);
                over.is_over()
            };
            retry_until(&paths, task, None, &mut pause, &|| is_done(&paths));
        });
        let thread = started
            .inspect_err(|error| log_line!("bundle-operator helper {}: cannot start a thread: {error}", task.word()))
            .ok();
        Self { begun, thread }
    }

    /// Begins: the runner is there.
    pub(super) fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
        if let Some(thread) = &self.thread {
            thread.wake();
        }
    }
}
