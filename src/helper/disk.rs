//! Ends a run whose working directory, or whose caches, grow over the limit: the kubelet would notice after half a
//! minute, evict the pod and lose the output. And warns while the command runs of more files than can be saved.

use crate::bundle::memory_of;
use crate::contract::{Cause, Request, one_line};
use crate::helper::markers::{self, order_end};
use crate::helper::room;
use crate::helper::tree::{self, Names, Size};
use crate::names::files;
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
    /// Starts watching, if there is a limit: of bytes on the disk, or of the memory in which the output is to be saved.
    pub(super) fn start(paths: &Paths, request: Option<&Request>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let limit = request.and_then(|request| request.disk_bytes);
        let room = request.filter(|request| request.save.is_some()).and_then(|_| room::for_entries(paths));
        let thread = limit.or(room).and_then(|_| {
            let (paths, is_over) = (paths.clone(), Arc::clone(&over));
            match thread::Builder::new().name("disk".to_owned()).spawn(move || watch(&paths, limit, room, &is_over)) {
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

fn watch(paths: &Paths, limit: Option<u64>, room: Option<u64>, over: &AtomicBool) {
    let go_on = || !over.load(Ordering::Relaxed);
    let mut warned = false;
    while go_on() {
        let begin = Instant::now();
        let disk_bytes = |dir| tree::measure(dir, &[], go_on).disk_bytes;
        let Size { disk_bytes: output, names, .. } = tree::measure(&paths.bundle, &[], go_on);
        if go_on() {
            warned = warn(paths, names, room, warned);
        }
        let over_limit = limit.and_then(|limit| {
            if output.saturating_add(disk_bytes(&paths.output)) > limit {
                return Some(String::new());
            }
            let cache = disk_bytes(&paths.cache);
            (cache > limit).then(|| {
                let dir = paths.shown(&paths.cache);
                format!(
                    "the caches in {dir} have {cache} bytes, and as many as the working directory may have: {limit}"
                )
            })
        });
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
    markers::unmark(&paths.bin, files::WARNING);
}

/// Says it when there are so many names that four fifths of the memory would be used to save them, and takes it back when
/// there are fewer again. Returns whether it is said now.
fn warn(paths: &Paths, names: Names, room: Option<u64>, warned: bool) -> bool {
    let Some(why) = room.and_then(|room| too_many(names, room)) else {
        if warned {
            markers::unmark(&paths.bin, files::WARNING);
        }
        return false;
    };
    if !warned {
        eprintln!("bundle-operator helper: {why}");
        // It is read where the object's status comes from: see `progress`.
        if let Err(error) = markers::mark(&paths.bin, files::WARNING, one_line(&why).as_bytes()) {
            eprintln!("bundle-operator helper: {error}");
        }
    }
    true
}

fn too_many(Names { count, bytes }: Names, room: u64) -> Option<String> {
    let used = memory_of(count, bytes);
    (used > room / 5 * 4).then(|| {
        // Of the kind that is there.
        let most = u128::from(count) * u128::from(room) / u128::from(used.max(1));
        let mebibytes = room >> 20;
        format!(
            "the working directory has {count} files, directories and links, and about {most} of them can be saved in \
             {mebibytes} MiB of the helper's memory: with more there will be no output"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_files_are_told_before_they_are_too_many() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        std::fs::create_dir_all(&paths.bin).unwrap();
        let names = |count| Names { count, bytes: 16 * count };
        let room = Some(memory_of(1_000_000, 16_000_000));
        let said = || markers::read(&paths.bin, files::WARNING);
        assert!(!warn(&paths, names(790_000), room, false) && said().is_none());
        assert!(!warn(&paths, names(790_000), None, false) && said().is_none());
        assert!(warn(&paths, names(810_000), room, false));
        let first = said().unwrap();
        assert!(first.starts_with("the working directory has 810000 files"), "{first}");
        assert!(first.contains("about 1000000 of them can be saved in 139 MiB"), "{first}");
        assert!(warn(&paths, names(2_000_000), room, true));
        assert_eq!(said(), Some(first), "once");
        assert!(!warn(&paths, names(1000), room, true) && said().is_none());
    }
}
