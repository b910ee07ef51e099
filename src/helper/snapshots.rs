//! Snapshots of the working directory while the command runs: those that it asks for, and those of a schedule.
//!
//! A program of the command's asks by a file, and waits for a file of ours of the same name. All that ask before a snapshot
//! begins are answered by it; who asks later gets the next one.

use crate::bundle::untrusted::{open_in, open_mount};
use crate::contract::{SnapshotAnswer, SnapshotRequest, log_line};
use crate::helper::child::Task;
use crate::helper::error::{Error, log_failure};
use crate::helper::markers::{self, mark_json, read_json};
use crate::helper::pressure;
use crate::helper::supervise::{Outcome, retry_until};
use crate::helper::until_dropped::{Over, UntilDropped};
use crate::names::files;
use crate::runner::{self, Paths};
use rustix::fs::{AtFlags, OFlags};
use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks for requests.
const LOOK: Duration = Duration::from_millis(100);
/// Entries of the directory of requests that are looked at: whoever makes more has to wait.
const MOST_REQUESTS: usize = 256;
/// Who waits for an answer takes it away within moments. One that is there after this was killed.
const LONGEST_ANSWER: Duration = Duration::from_mins(10);
/// A child that hangs, on a disk that gives no answer, is given up after this.
const LONGEST: Duration = Duration::from_hours(1);

/// Answers requests and keeps the schedule, until dropped. Called before the runner can be there, as
/// [`super::beside::Beside::get_ready`] is.
pub(super) fn serve(paths: &Paths, request: &SnapshotRequest) -> Option<UntilDropped> {
    let (paths, every) = (paths.clone(), request.every_seconds.map(Duration::from_secs));
    let started = UntilDropped::start("snapshots", move |over| Server { paths: &paths, every, over }.run());
    started.inspect_err(|error| log_line!("bundle-operator helper: no snapshots are taken: no thread: {error}")).ok()
}

struct Server<'a> {
    paths: &'a Paths,
    every: Option<Duration>,
    over: &'a Over,
}

impl Server<'_> {
    fn run(&self) {
        let mut last: Option<Instant> = None;
        while !self.over.is_over() {
            if !runner::has_begun(&self.paths.record) {
                thread::park_timeout(LOOK);
                continue;
            }
            let since = *last.get_or_insert_with(Instant::now);
            let asking = self.asking();
            if asking.is_empty() {
                if self.is_due(since) {
                    self.take(Task::RegularSnapshot);
                    last = Some(Instant::now());
                } else {
                    thread::park_timeout(LOOK);
                }
                continue;
            }
            if let Some(answer) = self.take(Task::Snapshot) {
                for name in asking {
                    log_failure(self.answer(&name, &answer));
                }
                last = Some(Instant::now());
            }
        }
    }

    /// While others wait for the disk it waits, for as long again at most.
    fn is_due(&self, since: Instant) -> bool {
        let Some(every) = self.every else { return false };
        since.elapsed() >= every && (since.elapsed() >= every * 2 || !pressure::is_high(&self.paths.root))
    }

    /// None: it is over, or one that nobody waits for was in the way of one that somebody does.
    fn take(&self, task: Task) -> Option<SnapshotAnswer> {
        markers::unmark(&self.paths.bin, files::SNAPSHOT);
        let mut pause = |time| {
            thread::park_timeout(time);
            self.over.is_over() || (task == Task::RegularSnapshot && !self.asking().is_empty())
        };
        let answer = || read_json::<SnapshotAnswer>(&self.paths.bin, files::SNAPSHOT);
        let is_done = || answer().is_some();
        match retry_until(self.paths, task, Some(Instant::now() + LONGEST), &mut pause, &is_done) {
            Outcome::Cancelled => None,
            Outcome::Done | Outcome::TimeIsUp(_) => {
                let none = || SnapshotAnswer::Failed("it was not taken within an hour".to_owned());
                Some(answer().unwrap_or_else(none))
            }
        }
    }

    /// Names of requests without an answer. Then, too, requests and answers that nobody waits for any more are taken away.
    fn asking(&self) -> BTreeSet<String> {
        if names(&self.requests()).is_empty() {
            return BTreeSet::new();
        }
        for answer in names(&self.answers()) {
            let file = self.answers().join(&answer);
            if is_older(&file, LONGEST_ANSWER) {
                self.forget(&answer);
            }
            if fs::symlink_metadata(self.requests().join(&answer)).is_err() {
                let _ = fs::remove_file(file);
            }
        }
        let mut asking = names(&self.requests());
        asking.retain(|name| fs::symlink_metadata(self.answers().join(name)).is_err());
        asking
    }

    fn answer(&self, name: &str, answer: &SnapshotAnswer) -> Result<(), Error> {
        if runner::snapshot::is_unawaited(name) {
            self.forget(name);
            return Ok(());
        }
        mark_json(&self.answers(), name, answer)
    }

    /// Takes a request away. The directory is the command's as well, which may put another in its place.
    fn forget(&self, request: &str) {
        let Ok(name) = CString::new(request) else { return };
        let open = || open_in(open_mount(&self.paths.record)?, REQUESTS, OFlags::DIRECTORY);
        let _ = open().and_then(|dir| rustix::fs::unlinkat(dir, name, AtFlags::empty()));
    }

    fn requests(&self) -> PathBuf {
        self.paths.record.join(files::SNAPSHOTS)
    }

    fn answers(&self) -> PathBuf {
        self.paths.bin.join(files::SNAPSHOTS)
    }
}

/// [`files::SNAPSHOTS`], for the kernel.
const REQUESTS: &CStr = c"snapshots";

fn is_older(file: &Path, age: Duration) -> bool {
    let written = fs::symlink_metadata(file).and_then(|metadata| metadata.modified());
    written.is_ok_and(|written| written.elapsed().is_ok_and(|elapsed| elapsed > age))
}

/// Of the files of a directory that have names as requests have them. A directory of such a name could not be taken away.
fn names(dir: &Path) -> BTreeSet<String> {
    let is_real = fs::symlink_metadata(dir).is_ok_and(|metadata| metadata.is_dir());
    let entries = fs::read_dir(dir).into_iter().filter(|_| is_real).flatten().flatten();
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|of| of.is_file()));
    let names = files.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| runner::snapshot::is_name(name)).take(MOST_REQUESTS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::time::SystemTime;

    #[test]
    fn a_regular_snapshot_waits_for_a_busy_disk_and_not_for_ever() {
        let root = tempfile::tempdir().unwrap();
        let (paths, over, every) = (Paths::below(root.path()), Over::default(), Duration::from_hours(1));
        let server = Server { paths: &paths, every: Some(every), over: &over };
        let is_due_after = |time| server.is_due(Instant::now().checked_sub(time).unwrap());
        let io = paths.root.join("proc/pressure/io");
        fs::create_dir_all(io.parent().unwrap()).unwrap();
        for (busy, due) in [("0.00", [false, true, true]), ("90.00", [false, false, true])] {
            fs::write(&io, format!("some avg10={busy} avg60=0.00 avg300=0.00 total=1\n")).unwrap();
            assert_eq!([every / 2, every * 3 / 2, every * 2].map(is_due_after), due, "{busy}");
        }
        let none = Server { every: None, ..server };
        assert!(!none.is_due(Instant::now().checked_sub(every).unwrap()), "without a schedule");
    }

    #[test]
    fn requests_that_nobody_waits_for_any_more_are_in_nobodys_way() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        let over = Over::default();
        let server = Server { paths: &paths, every: None, over: &over };
        fs::create_dir_all(server.requests()).unwrap();
        fs::create_dir_all(server.answers()).unwrap();
        let taken = SnapshotAnswer::Taken("r@sha256:0".to_owned());
        let left = || names(&server.requests()).len();
        for number in 0..3 * MOST_REQUESTS {
            File::create(server.requests().join(format!("n-{number:016x}"))).unwrap();
        }
        // As many times as it takes, and no request is answered twice.
        let mut answered = 0;
        while let asking = server.asking()
            && !asking.is_empty()
        {
            answered += asking.len();
            for name in &asking {
                server.answer(name, &taken).unwrap();
            }
        }
        assert_eq!((answered, left(), names(&server.answers()).len()), (3 * MOST_REQUESTS, 0, 0));

        // Who waits takes its request away, and who was killed does not.
        let (waits, killed) = ("00000000000000aa", "00000000000000bb");
        for name in [waits, killed] {
            File::create(server.requests().join(name)).unwrap();
            server.answer(name, &taken).unwrap();
        }
        assert_eq!(server.asking().len(), 0);
        assert_eq!(left(), 2);
        fs::remove_file(server.requests().join(waits)).unwrap();
        let long_ago = SystemTime::now() - LONGEST_ANSWER * 2;
        File::options().append(true).open(server.answers().join(killed)).unwrap().set_modified(long_ago).unwrap();
        assert_eq!((server.asking().len(), left(), names(&server.answers()).len()), (0, 0, 0));
    }
}
