//! Snapshots of the working directory while the command runs: those that it asks for, and those of a schedule.
//!
//! A program of the command's asks by a file, and waits for a file of ours of the same name. All that ask before a snapshot
//! begins are answered by it; who asks later gets the next one.

use crate::contract::{SnapshotAnswer, SnapshotRequest};
use crate::helper::child::Task;
use crate::helper::error::Error;
use crate::helper::markers::{self, mark_json, read_json};
use crate::helper::pressure;
use crate::helper::supervise::{Outcome, retry_until};
use crate::helper::until_dropped::{Over, UntilDropped};
use crate::names::files;
use crate::runner::{self, Paths};
use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks for requests.
const LOOK: Duration = Duration::from_millis(100);
/// Entries of the directory of requests that are looked at: whoever makes more has to wait.
const MOST_REQUESTS: usize = 256;
/// A child that hangs, on a disk that gives no answer, is given up after this.
const LONGEST: Duration = Duration::from_hours(1);

/// Answers requests and keeps the schedule, until dropped. Called before the runner can be there, as
/// [`super::beside::Beside::get_ready`] is.
pub(super) fn serve(paths: &Paths, request: &SnapshotRequest) -> Option<UntilDropped> {
    let (paths, every) = (paths.clone(), request.every_seconds.map(Duration::from_secs));
    let started = UntilDropped::start("snapshots", move |over| Server { paths: &paths, every, over }.run());
    started.inspect_err(|error| eprintln!("bundle-operator helper: no snapshots are taken: no thread: {error}")).ok()
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
                    report(self.answer(&name, &answer));
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

    /// None: it is over.
    fn take(&self, task: Task) -> Option<SnapshotAnswer> {
        markers::unmark(&self.paths.bin, files::SNAPSHOT);
        let mut pause = |time| {
            thread::park_timeout(time);
            self.over.is_over()
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

    /// Names of requests without an answer. Then, too, answers that nobody waits for any more are taken away.
    fn asking(&self) -> BTreeSet<String> {
        let requests = names(&self.paths.record.join(files::SNAPSHOTS));
        if requests.is_empty() {
            return requests;
        }
        let answers = names(&self.paths.bin.join(files::SNAPSHOTS));
        for answer in answers.difference(&requests) {
            let _ = fs::remove_file(self.paths.bin.join(files::SNAPSHOTS).join(answer));
        }
        requests.difference(&answers).cloned().collect()
    }

    fn answer(&self, name: &str, answer: &SnapshotAnswer) -> Result<(), Error> {
        mark_json(&self.paths.bin.join(files::SNAPSHOTS), name, answer)
    }
}

/// Of the files of a directory that have names as requests have them.
fn names(dir: &std::path::Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().take(MOST_REQUESTS).flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| runner::snapshot::is_name(name)).collect()
}

fn report(done: Result<(), Error>) {
    if let Err(error) = done {
        eprintln!("bundle-operator helper: {error}");
    }
}
