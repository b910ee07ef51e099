//! What will go wrong if the command goes on as it does: the children beside it leave a mark for each kind, which
//! [`super::progress`] serves until the command has ended.

use crate::contract::{Warning, WarningKind, log_line, one_line};
use crate::helper::child::Task;
use crate::helper::error::log_failure;
use crate::helper::markers;
use crate::names::files;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What was taken back is said again after this at the soonest: a working directory that fills and empties again and
/// again is no news each time.
const AGAIN: Duration = Duration::from_hours(1);

/// The children that warn. Each takes back only what it, or the child before it, has said.
const WARN: [Task; 2] = [Task::WatchDisk, Task::PushEarly];

/// One kind of warning by one child, said once.
#[derive(Debug)]
pub(super) struct Warner {
    bin: PathBuf,
    mark: String,
    /// When it may be said again.
    again: Option<Instant>,
}

impl Warner {
    /// What a child before this one has said is said.
    pub(super) fn of(bin: &Path, kind: WarningKind, task: Task) -> Self {
        Self { bin: bin.to_owned(), mark: mark(kind, task), again: None }
    }

    /// `danger`: there is one, with the figures. One that was said is taken back when it `is_over`, which is later than
    /// that there is none: what stands near its bound does not go to and fro.
    pub(super) fn see(&mut self, danger: Option<String>, is_over: bool) {
        let is_said = markers::is_marked(&self.bin, &self.mark);
        if is_said && is_over {
            markers::unmark(&self.bin, &self.mark);
            self.again = Some(Instant::now() + AGAIN);
        }
        let Some(detail) = danger.filter(|_| !is_said && self.again.is_none_or(|again| Instant::now() >= again)) else {
            return;
        };
        log_line!("bundle-operator helper: {detail}");
        log_failure(markers::mark(&self.bin, &self.mark, one_line(&detail).as_bytes()));
    }
}

fn mark(kind: WarningKind, task: Task) -> String {
    format!("{}{kind:?}.{}", files::WARNING, task.word())
}

/// What is said now: one of each kind.
pub(super) fn said(bin: &Path) -> Vec<Warning> {
    let words = |kind| WARN.into_iter().find_map(|task| markers::read(bin, &mark(kind, task)));
    let of = |kind| Some(Warning { kind, detail: one_line(&words(kind)?) });
    WarningKind::ALL.into_iter().filter_map(of).collect()
}

/// The command has ended.
pub(super) fn take_back(bin: &Path) {
    for kind in WarningKind::ALL {
        for task in WARN {
            markers::unmark(bin, &mark(kind, task));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_said_once_and_not_again_soon_after_it_was_taken_back() {
        let bin = tempfile::tempdir().unwrap();
        let (bin, kind) = (bin.path(), WarningKind::DiskNearlyFull);
        let said = |detail: &str| vec![Warning { kind, detail: detail.to_owned() }];
        let mut warner = Warner::of(bin, kind, Task::WatchDisk);
        warner.see(None, true);
        assert_eq!(super::said(bin), vec![]);
        warner.see(Some("91 of 100".to_owned()), false);
        warner.see(Some("92 of 100".to_owned()), false);
        assert_eq!(super::said(bin), said("91 of 100"), "once");
        warner.see(None, false);
        assert_eq!(super::said(bin), said("91 of 100"), "it is still near");
        // A child that was started again.
        Warner::of(bin, kind, Task::WatchDisk).see(Some("93 of 100".to_owned()), false);
        assert_eq!(super::said(bin), said("91 of 100"));
        warner.see(None, true);
        warner.see(Some("94 of 100".to_owned()), false);
        assert_eq!(super::said(bin), vec![]);
        warner.again = Some(Instant::now());
        warner.see(Some("95 of 100".to_owned()), false);
        assert_eq!(super::said(bin), said("95 of 100"));
        take_back(bin);
        assert_eq!(super::said(bin), vec![]);
    }

    #[test]
    fn a_child_takes_back_nothing_that_another_has_said() {
        let bin = tempfile::tempdir().unwrap();
        let (bin, kind) = (bin.path(), WarningKind::OutputTooLarge);
        let [mut names, mut sizes] = WARN.map(|task| Warner::of(bin, kind, task));
        let said = || super::said(bin).into_iter().map(|warning| warning.detail).collect::<Vec<_>>();
        sizes.see(Some("a file is too large".to_owned()), false);
        names.see(None, true);
        assert_eq!(said(), ["a file is too large"]);
        names.see(Some("too many files".to_owned()), false);
        assert_eq!(said(), ["too many files"], "one of a kind");
        names.see(None, true);
        assert_eq!(said(), ["a file is too large"]);
        sizes.see(None, true);
        assert_eq!(said(), [""; 0]);
    }
}
