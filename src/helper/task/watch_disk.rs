//! The child that ends a run whose working directory, or whose caches, grow over the limit, and that warns while the
//! command runs of more files than can be saved and of a disk that is nearly full.

use crate::bundle::memory_of;
use crate::contract::{Cause, Request, WarningKind, size_for_people};
use crate::helper::child::Task;
use crate::helper::error::Error;
use crate::helper::markers::order_end;
use crate::helper::room;
use crate::helper::tree::{self, Names, Size};
use crate::helper::warnings::Warner;
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
    let mut too_large = Warner::of(&paths.bin, WarningKind::OutputTooLarge, Task::WatchDisk);
    let mut nearly_full = Warner::of(&paths.bin, WarningKind::DiskNearlyFull, Task::WatchDisk);
    let disk_bytes = |dir| tree::measure(dir, &[], |_| true).disk_bytes;
    loop {
        let begin = Instant::now();
        let Size { disk_bytes: bundle, names, .. } = tree::measure(&paths.bundle, &[], |_| true);
        if let Some(room) = room {
            warn_of_names(&mut too_large, names, room);
        }
        if let Some(limit) = request.disk_bytes {
            let output = bundle.saturating_add(disk_bytes(&paths.output));
            if output > limit {
                return order_end(&paths.bin, Cause::DiskLimitExceeded, "");
            }
            let cache = disk_bytes(&paths.cache);
            let dir = paths.shown(&paths.cache);
            if cache > limit {
                let detail = format!(
                    "the caches in {dir} have {cache} bytes, and as many as the working directory may have: {limit}"
                );
                return order_end(&paths.bin, Cause::DiskLimitExceeded, &detail);
            }
            let output = (output, "the working directory, with what the command printed,");
            warn_of_the_disk(&mut nearly_full, output.max((cache, &format!("the caches in {dir}"))), limit);
        }
        thread::sleep(PAUSE.max(begin.elapsed() * PAUSE_PER_WALK));
    }
}

/// From nine tenths of the limit on; over when a quarter of it is free.
fn warn_of_the_disk(warner: &mut Warner, (used, what): (u64, &str), limit: u64) {
    let is_nearly_full = used >= limit - limit / 10;
    let danger = is_nearly_full.then(|| {
        let (used, limit) = (size_for_people(used), size_for_people(limit));
        format!("{what} has grown to {used} of {limit} (resources.disk): over that the run is ended")
    });
    warner.see(danger, used < limit - limit / 4);
}

/// When there are so many names that four fifths of the memory would be used to save them; over at three fifths.
fn warn_of_names(warner: &mut Warner, names: Names, room: u64) {
    warner.see(too_many(names, room), memory_of(names.count, names.bytes) < room / 5 * 3);
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
    use crate::helper::warnings;

    #[test]
    fn too_many_files_are_told_before_they_are_too_many() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        std::fs::create_dir_all(&paths.bin).unwrap();
        let names = |count| Names { count, bytes: 16 * count };
        let room = memory_of(1_000_000, 16_000_000);
        let mut warner = Warner::of(&paths.bin, WarningKind::OutputTooLarge, Task::WatchDisk);
        let mut warn = |count| warn_of_names(&mut warner, names(count), room);
        let said = || warnings::said(&paths.bin).pop().map(|warning| warning.detail);
        warn(790_000);
        assert_eq!(said(), None);
        warn(810_000);
        let first = said().unwrap();
        assert!(first.starts_with("the working directory has 810000 files"), "{first}");
        assert!(first.contains("about 1000000 of them can be saved in 139 MiB"), "{first}");
        warn(2_000_000);
        assert_eq!(said(), Some(first), "once");
        warn(1000);
        assert_eq!(said(), None);
    }

    #[test]
    fn a_disk_that_is_nearly_full_is_told_of() {
        let bin = tempfile::tempdir().unwrap();
        let mut warner = Warner::of(bin.path(), WarningKind::DiskNearlyFull, Task::WatchDisk);
        let mut warn = |used: u64| warn_of_the_disk(&mut warner, (used << 20, "the working directory"), 100 << 20);
        let said = || warnings::said(bin.path()).pop().map(|warning| warning.detail);
        warn(89);
        assert_eq!(said(), None);
        warn(90);
        let told =
            "the working directory has grown to 90.0 MiB of 100.0 MiB (resources.disk): over that the run is ended";
        assert_eq!(said().as_deref(), Some(told));
        warn(75);
        assert!(said().is_some(), "not to and fro");
        warn(74);
        assert_eq!(said(), None);
    }
}
