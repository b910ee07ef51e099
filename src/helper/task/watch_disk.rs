//! The child that ends a run whose working directory, or whose caches, grow over the limit, and that warns while the
//! command runs of more files than can be saved.

use crate::bundle::memory_of;
use crate::contract::{Cause, Request, one_line};
use crate::helper::error::Error;
use crate::helper::markers::{self, order_end};
use crate::helper::room;
use crate::helper::tree::{self, Names, Size};
use crate::names::files;
use crate::runner::Paths;
use std::thread;
use std::time::{Duration, Instant};

/// Shortest time between two walks.
const PAUSE: Duration = Duration::from_millis(500);
/// A walk is followed by a pause this many times as long: a tenth of the time, at most, goes into walking.
const PAUSE_PER_WALK: u32 = 9;
/// Ends when it has ended the run.
pub(in crate::helper) fn watch(paths: &Paths, request: &Request) -> Result<(), Error> {
    let room = request.save.as_ref().and_then(|_| room::for_entries(paths));
    let mut warned = false;
    loop {
        let begin = Instant::now();
        let Size { disk_bytes: output, names, .. } = tree::measure(&paths.bundle, &[], |_| true);
        warned = warn(paths, names, room, warned);
        if let Some(detail) = request.disk_bytes.and_then(|limit| over_limit(paths, output, limit)) {
            return order_end(&paths.bin, Cause::DiskLimitExceeded, &detail);
        }
        thread::sleep(PAUSE.max(begin.elapsed() * PAUSE_PER_WALK));
    }
}

/// What is over the limit, if anything is. `output`: bytes of the working directory.
fn over_limit(paths: &Paths, output: u64, limit: u64) -> Option<String> {
    let disk_bytes = |dir| tree::measure(dir, &[], |_| true).disk_bytes;
    if output.saturating_add(disk_bytes(&paths.output)) > limit {
        return Some(String::new());
    }
    let cache = disk_bytes(&paths.cache);
    (cache > limit).then(|| {
        let dir = paths.shown(&paths.cache);
        format!("the caches in {dir} have {cache} bytes, and as many as the working directory may have: {limit}")
    })
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
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
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
