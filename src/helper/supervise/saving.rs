//! Sees to it that the output is saved, by children, until it is or until there is no more time for it.

use crate::contract::{NotSaved, Progress, SaveFailure, SaveRequest, SavedSoFar, one_line};
use crate::helper::child::Task;
use crate::helper::error::log_failure;
use crate::helper::markers::{self, is_marked, mark_json, read_json};
use crate::helper::saved::{FailedTry, SaveUntil, SavedOutput};
use crate::helper::supervise::{Outcome, Tries, retry_until};
use crate::names::files;
use crate::runner::Paths;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Between two looks at how far a child is.
const TELL: Duration = Duration::from_secs(1);

/// An output that is not saved, or not yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::helper) struct Unsaved {
    /// What stood in the way; none: nothing so far.
    pub(in crate::helper) not_saved: Option<NotSaved>,
    /// The furthest that a try came, if that is known.
    pub(in crate::helper) so_far: Option<SavedSoFar>,
}

/// Saves the output; `interrupted`: the platform asked for the end, and waits for us. Nothing that a store
/// answers is final: Secrets are renewed, quotas raised and repositories made while there is time. How it stands is
/// told again and again: who waits for us may wait for less long than it says.
///
/// `is_gone_on_with`: the next attempt goes on from what there is, so that a snapshot of it comes first.
pub(in crate::helper) fn save(
    paths: &Paths,
    request: &SaveRequest,
    interrupted: bool,
    is_gone_on_with: bool,
    tell: &mut dyn FnMut(&Unsaved),
) -> Result<SavedOutput, Unsaved> {
    let seconds = if interrupted { request.interrupted_seconds } else { request.deadline_seconds };
    let until = Instant::now() + time_left(paths, Duration::from_secs(seconds));
    let saved = || read_json::<SavedOutput>(&paths.bin, files::SAVED);
    let is_done = || is_marked(&paths.bin, files::SAVED);
    let (mut told, mut next) = (Unsaved::default(), Instant::now() + TELL);
    let mut pause = |time| {
        thread::sleep(time);
        if Instant::now() >= next {
            next = Instant::now() + TELL;
            let stands = how_it_stands(paths, told.so_far);
            if stands != told {
                tell(&stands);
                told = stands;
            }
        }
        false
    };
    // Of an earlier life, which may have known a registry that was down.
    markers::unmark(&paths.bin, files::NOT_SAVED);
    if is_gone_on_with {
        markers::unmark(&paths.bin, files::SNAPSHOT);
        // What it pushes the save need not push, but for small files.
        let half = Instant::now() + until.saturating_duration_since(Instant::now()) / 2;
        let is_taken = || is_marked(&paths.bin, files::SNAPSHOT);
        retry_until(paths, Task::Snapshot, Some(half), &mut pause, &is_taken);
    }
    let outcome = retry_until(paths, Task::Save, Some(until), &mut pause, &is_done);
    let result = match (saved(), outcome) {
        (Some(saved), _) => Ok(saved),
        (None, Outcome::TimeIsUp(tries)) => {
            Err(out_of_time(paths, seconds, &tries, read_json(&paths.bin, files::NOT_SAVED)))
        }
        (None, _) => Err(NotSaved {
            failure: SaveFailure::HelperFailed,
            detail: "what became of saving cannot be read".to_owned(),
        }),
    };
    let so_far = how_it_stands(paths, told.so_far).so_far;
    markers::unmark(&paths.bin, files::PROGRESS);
    result.map_err(|not_saved| {
        log_failure(mark_json(&paths.bin, files::NOT_SAVED, &not_saved));
        Unsaved { not_saved: Some(not_saved), so_far }
    })
}

/// By the marks of the children, and what is known of those before.
fn how_it_stands(paths: &Paths, known: Option<SavedSoFar>) -> Unsaved {
    let last: Option<FailedTry> = read_json(&paths.bin, files::NOT_SAVED);
    let progress: Option<Progress> = read_json(&paths.bin, files::PROGRESS);
    let now =
        progress.filter(|progress| progress.total_bytes > 0).map(|Progress { stored_bytes, total_bytes, .. }| {
            // A layer has more than the files in it.
            SavedSoFar { stored_bytes: stored_bytes.min(total_bytes), total_bytes }
        });
    // Another try first looks for what the one before has sent.
    let so_far = known.into_iter().chain(now).max_by_key(|so_far| so_far.stored_bytes);
    Unsaved { not_saved: last.map(|last| last.not_saved), so_far }
}

/// Of `most`, what an earlier life of the helper has left.
fn time_left(paths: &Paths, most: Duration) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if let Some(SaveUntil { ms, .. }) = read_json(&paths.bin, files::SAVE_UNTIL) {
        return Duration::from_millis(ms).saturating_sub(now).min(most);
    }
    let milliseconds = |time: Duration| u64::try_from(now.saturating_add(time).as_millis()).unwrap_or(u64::MAX);
    let until = SaveUntil { ms: milliseconds(most), give_up_ms: Some(milliseconds(most / 4 * 3)) };
    log_failure(mark_json(&paths.bin, files::SAVE_UNTIL, &until));
    most
}

/// Time is up. What failed the last try is told, unless the present one got further.
fn out_of_time(paths: &Paths, seconds: u64, tries: &Tries, last: Option<FailedTry>) -> NotSaved {
    let progress: Option<Progress> = read_json(&paths.bin, files::PROGRESS);
    let known = last.as_ref().map_or(0, |last| last.done_bytes);
    let hangs = progress.as_ref().map(|progress| progress.hangs.clone()).filter(|hangs| !hangs.is_empty());
    let further = progress.filter(|progress| progress.done_bytes > known);
    let last = last.map(|last| last.not_saved);
    let (failure, detail) = match (further, last, &tries.last_end) {
        (Some(Progress { done_bytes, total_bytes, .. }), last, _) => {
            let last = last.map(|last| format!("; before that: {}", last.detail)).unwrap_or_default();
            let of = if total_bytes > 0 { format!(" of {total_bytes}") } else { String::new() };
            (SaveFailure::SaveDeadlineExceeded, format!("{done_bytes}{of} bytes in {seconds} s{last}"))
        }
        (None, Some(last), _) => (last.failure, format!("for {seconds} s: {}", last.detail)),
        (None, None, Some(end)) => {
            let failed = tries.failed;
            (SaveFailure::HelperFailed, format!("the helper's process ended {failed} times, last with {end}"))
        }
        (None, None, None) => (SaveFailure::SaveDeadlineExceeded, format!("nothing was saved in {seconds} s")),
    };
    let hangs = hangs.map(|hangs| format!("; the disk gives no answer: {hangs}")).unwrap_or_default();
    NotSaved { failure, detail: one_line(&(detail + &hangs)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::ProgressStage;
    use crate::helper::supervise::tests::with_program;

    #[test]
    fn what_stood_in_the_way_until_the_end_is_told() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        let unreachable = NotSaved { failure: SaveFailure::StoreUnreachable, detail: "refused".to_owned() };
        let crashed = Tries { last_end: Some("signal: 9 (SIGKILL)".to_owned()), failed: 3 };
        let told = |tries: &Tries, last: Option<&NotSaved>| {
            let last = last.map(|not_saved| FailedTry { not_saved: not_saved.clone(), done_bytes: 4 });
            let not_saved = out_of_time(&paths, 60, tries, last);
            (not_saved.failure, not_saved.detail)
        };
        let none = Tries::default();
        assert_eq!(told(&none, None), (SaveFailure::SaveDeadlineExceeded, "nothing was saved in 60 s".to_owned()));
        assert_eq!(told(&none, Some(&unreachable)), (SaveFailure::StoreUnreachable, "for 60 s: refused".to_owned()));
        assert_eq!(
            told(&crashed, None),
            (SaveFailure::HelperFailed, "the helper's process ended 3 times, last with signal: 9 (SIGKILL)".to_owned())
        );
        let progress = |done_bytes| {
            let progress = Progress { done_bytes, total_bytes: 9, ..Progress::of(ProgressStage::Saving) };
            mark_json(&paths.bin, files::PROGRESS, &progress).unwrap();
        };
        // What the store refuses, it refuses at the same place again.
        progress(4);
        assert_eq!(told(&none, Some(&unreachable)), (SaveFailure::StoreUnreachable, "for 60 s: refused".to_owned()));
        progress(5);
        assert_eq!(
            told(&crashed, Some(&unreachable)),
            (SaveFailure::SaveDeadlineExceeded, "5 of 9 bytes in 60 s; before that: refused".to_owned())
        );
    }

    #[test]
    fn how_far_a_save_is_is_told_while_it_lasts_by_the_furthest_try() {
        // The first try fails once it was heard of; the second has not come as far.
        let script = r#"#!/bin/sh
bin="$4/.bundlerun/bin"
stored=7
[ ! -e "$bin/heard" ] || stored=3
echo '{"stage":"Saving","doneBytes":9,"storedBytes":'$stored',"totalBytes":9}' >"$bin/progress.json"
until [ $stored = 7 ] && [ -e "$bin/heard" ]; do sleep 0.1; done
echo '{"failure":"StoreUnreachable","detail":"503"}' >"$bin/not-saved.json"
exit 1
"#;
        let (_root, paths) = with_program(script);
        std::fs::create_dir_all(&paths.bin).unwrap();
        let request = r#"{"repository": "r/a", "tag": "t", "deadlineSeconds": 600, "interruptedSeconds": 600}"#;
        let request: SaveRequest = serde_json::from_str(request).unwrap();
        let mut told = vec![];
        let saved = save(&paths, &request, false, false, &mut |stands| {
            told.push(stands.clone());
            match told.len() {
                1 => markers::mark(&paths.bin, "heard", b"").unwrap(),
                _ => mark_json(&paths.bin, files::SAVED, &SavedOutput::default()).unwrap(),
            }
        });
        assert_eq!(saved, Ok(SavedOutput::default()));
        let so_far = Some(SavedSoFar { stored_bytes: 7, total_bytes: 9 });
        let not_saved = Some(NotSaved { failure: SaveFailure::StoreUnreachable, detail: "503".to_owned() });
        assert_eq!(told, [Unsaved { not_saved: None, so_far }, Unsaved { not_saved, so_far }], "what is new, once");
    }

    #[test]
    fn a_restarted_helper_has_no_more_time() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        assert_eq!(time_left(&paths, Duration::from_secs(100)), Duration::from_secs(100));
        thread::sleep(Duration::from_millis(20));
        let left = time_left(&paths, Duration::from_secs(100));
        assert!(left < Duration::from_secs(100) && left > Duration::from_secs(90), "{left:?}");
        assert_eq!(time_left(&paths, Duration::from_secs(5)), Duration::from_secs(5));
    }
}
