//! Ends a run whose working directory, or whose caches, grow over the limit: the kubelet would notice after half a
//! minute, evict the pod and lose the output.

use crate::contract::Cause;
use crate::helper::markers::order_end;
use crate::helper::tree;
use crate::runner::Paths;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Shortest time between two walks.
const PAUSE: Duration = Duration::from_millis(500);
/// A walk is followed by a pause this many times as long: a tenth of the time, at most, goes into walking.
const PAUSE_PER_WALK: u32 = 9;

/// Watches from its own thread until dropped: a walk through millions of files must not hold up the ending.
#[derive(Debug)]
pub(super) struct DiskWatch {
    over: Arc<AtomicBool>,
    thread: Option<Thread>,
}

impl Drop for DiskWatch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = &self.thread {
            thread.unpark();
        }
    }
}

impl DiskWatch {
    /// Starts watching, if there is a limit.
    pub(super) fn start(paths: &Paths, limit: Option<u64>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let thread = limit.and_then(|limit| {
            let (paths, is_over) = (paths.clone(), Arc::clone(&over));
            match thread::Builder::new().name("disk".to_owned()).spawn(move || watch(&paths, limit, &is_over)) {
                Ok(handle) => Some(handle.thread().clone()),
                Err(error) => {
                    eprintln!("bundle-operator helper: the disk limit is not watched: {error}");
                    None
                }
            }
        });
        Self { over, thread }
    }
}

fn watch(paths: &Paths, limit: u64, over: &AtomicBool) {
    let go_on = || !over.load(Ordering::Relaxed);
    while go_on() {
        let begin = Instant::now();
        let disk_bytes = |dir| tree::measure(dir, &[], go_on).disk_bytes;
        let output = disk_bytes(&paths.bundle).saturating_add(disk_bytes(&paths.output));
        let over_limit = if output > limit {
            Some(String::new())
        } else {
            let cache = disk_bytes(&paths.cache);
            (cache > limit).then(|| {
                let dir = paths.shown(&paths.cache);
                format!(
                    "the caches in {dir} have {cache} bytes, and as many as the working directory may have: {limit}"
                )
            })
        };
        if let Some(detail) = over_limit.filter(|_| go_on()) {
            match order_end(&paths.bin, Cause::DiskLimitExceeded, &detail) {
                Ok(()) => return,
                Err(error) => eprintln!("bundle-operator helper: {error}"),
            }
        }
        let next = Instant::now() + PAUSE.max(begin.elapsed() * PAUSE_PER_WALK);
        while go_on() && Instant::now() < next {
            thread::park_timeout(next.saturating_duration_since(Instant::now()));
        }
    }
}
