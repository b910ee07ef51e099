//! Ends a run whose working directory, or whose caches, grow over the limit: the kubelet would notice after half a
//! minute, evict the pod and lose the output. And warns while the command runs of more files than can be saved.
//!
//! A child does it: a disk that gives no answer would keep a thread of ours, and with it this process, for ever. It is
//! started when the runner is there: nobody writes before, and while a pod starts its node has other things to do.

use crate::contract::Request;
use crate::helper::child::Task;
use crate::helper::markers::{self, is_marked};
use crate::helper::supervise::retry_until;
use crate::names::files;
use crate::runner::Paths;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// Watches until dropped, which ends the child: a walk through millions of files must not hold up the ending.
#[derive(Debug)]
pub(super) struct DiskWatch {
    begun: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for DiskWatch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl DiskWatch {
    /// Gets ready to watch, if there is a limit: of bytes on the disk, or of the memory in which the output is to be
    /// saved. Called before the runner can be there: once the processes of a command have used up the pod's there is
    /// no thread to be had.
    pub(super) fn get_ready(paths: &Paths, request: Option<&Request>) -> Self {
        let (begun, over) = <(Arc<AtomicBool>, Arc<AtomicBool>)>::default();
        if !request.is_some_and(|request| request.disk_bytes.is_some() || request.save.is_some()) {
            return Self { begun, over, thread: None };
        }
        let (paths, is_begun, is_over) = (paths.clone(), Arc::clone(&begun), Arc::clone(&over));
        let keep_watching = move || {
            while !is_begun.load(Ordering::Relaxed) {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                thread::park();
            }
            let mut pause = |time| {
                thread::park_timeout(time);
                is_over.load(Ordering::Relaxed)
            };
            retry_until(&paths, Task::WatchDisk, None, &mut pause, &|| is_marked(&paths.bin, files::END));
            markers::unmark(&paths.bin, files::WARNING);
        };
        let started = thread::Builder::new().name("disk".to_owned()).spawn(keep_watching);
        let thread = started
            .inspect_err(|error| eprintln!("bundle-operator helper: the disk limit is not watched: {error}"))
            .ok();
        Self { begun, over, thread }
    }

    /// Begins to watch: the runner is there.
    pub(super) fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}
