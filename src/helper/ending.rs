//! The record and the output become the helper's last words.

use crate::bundle::untrusted::{NotRead, read_tail};
use crate::contract::{MESSAGE_MAX_BYTES, Message, MissingRecord, Record, Report, Request};
use crate::helper::error::log_failure;
use crate::helper::markers::mark;
use crate::helper::record::read_record;
use crate::helper::saved::SavedOutput;
use crate::helper::stop_order;
use crate::helper::supervise::measuring;
use crate::helper::supervise::saving::{self, Unsaved};
use crate::helper::supervise::staging;
use crate::helper::task::{resume, stage};
use crate::helper::tree::{self, Size};
use crate::helper::watch::End;
use crate::names::files;
use crate::runner::{self, Paths};
use std::ffi::CString;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// The message of an earlier life of this helper.
pub(super) fn earlier_report(paths: &Paths) -> Option<String> {
    std::fs::read_to_string(paths.bin.join(files::REPORTED)).ok()
}

/// Leaves the termination message. First without what takes its time, saving and counting: whoever kills us meanwhile
/// gets that one. Only children look into the working directory, whose disk may give no answer; what is read here is on
/// that of our own marks, without which there is nothing to be done.
pub(super) fn report(paths: &Paths, request: Option<&Request>, end: End) -> Result<(), String> {
    let record = read_record(&paths.record);
    let digests = stage::digests(paths, request.map_or(&[], |request| &request.inputs));
    let tail =
        |name| CString::new(name).map(|name| read_tail(&paths.output, &name, MESSAGE_MAX_BYTES)).unwrap_or_default();
    let (stdout, stderr) = (tail(files::STDOUT), tail(files::STDERR));
    let save = request.and_then(|request| request.save.as_ref()).filter(|_| has_begun(paths, record.as_ref().ok()));
    let (known, missing) = match &record {
        Ok(record) => (Some(record.clone()), None),
        Err(NotRead::Missing) => (None, Some(end.without_record())),
        Err(NotRead::Refused) => (None, Some(MissingRecord::Unreadable)),
    };
    let resumed_from = resume::resumed(paths);
    let late_files = staging::late_files(paths);
    let first = Report { record: known, missing, resumed_from, late_files, ..Report::default() };
    let message = |report: &Report| Message::encode_with_inputs(report, &digests, &stdout, &stderr);
    // A file that cannot be written is no reason to lose the output.
    log_failure(tell(paths, &message(&first)));

    // Also if we are killed before all is saved, as when a node is shut down: how far it came.
    let with = |Unsaved { not_saved, so_far }: &Unsaved| Report {
        not_saved: not_saved.clone(),
        so_far: *so_far,
        ..first.clone()
    };
    let mut tell_how_it_stands = |stands: &Unsaved| {
        log_failure(tell(paths, &message(&with(stands))));
    };
    let interrupted = is_interrupted(paths, end, record.as_ref().ok());
    let saved = save.map(|save| {
        let keeps_last = save.snapshots.as_ref().is_some_and(|snapshots| snapshots.at_end);
        let is_followed = interrupted || stop_order::is_followed(paths);
        let is_gone_on_with = is_followed && keeps_last && record.as_ref().is_ok_and(ended_in_order);
        saving::save(paths, save, interrupted, is_gone_on_with, &mut tell_how_it_stands)
    });
    let report = match saved {
        Some(Ok(SavedOutput { saved, files, bytes, note })) => {
            let record = first.record.as_ref().map(|record| with_note(record, &note));
            Report { record, saved: Some(saved), files, bytes, ..first }
        }
        Some(Err(unsaved)) => counted(paths, with(&unsaved)),
        None => counted(paths, first),
    };
    let message = message(&report);
    let told = tell(paths, &message);
    // Whoever is started again tells it again.
    mark(&paths.bin, files::REPORTED, message.as_bytes())?;
    told
}

/// The command heard of the end and came to its own: what it left is no half of something. In doubt, the last snapshot is
/// better.
fn ended_in_order(record: &Record) -> bool {
    /// By a signal, as a shell tells it of what it ran.
    const SIGNALLED: i32 = 128;
    record.asked_to_stop
        && record.cause.is_none()
        && record.exit_code.is_some_and(|code| code < SIGNALLED)
        && record.usage.oom_kills == 0
        && record.usage.oom_kills_from_outside == 0
        && !record.unkillable
}

fn with_note(record: &Record, note: &str) -> Record {
    let notes = [record.detail.as_str(), note];
    let notes: Vec<&str> = notes.into_iter().filter(|text| !text.is_empty()).collect();
    Record { detail: notes.join("; "), ..record.clone() }
}

/// What never began has left no output.
fn has_begun(paths: &Paths, record: Option<&Record>) -> bool {
    match record {
        Some(record) => record.started_at_ms.is_some(),
        None => runner::has_begun(&paths.record),
    }
}

/// The platform asked for the end. It asks the runner first and us after the runner's end, so that the record tells,
/// unless it was the user who asked.
fn is_interrupted(paths: &Paths, end: End, record: Option<&Record>) -> bool {
    let asked = record.is_some_and(|record| record.asked_to_stop) && !stop_order::is_given(paths);
    end == End::RunnerGone { interrupted: true } || asked
}

fn counted(paths: &Paths, report: Report) -> Report {
    let Size { files, bytes, .. } = measuring::measure(paths);
    let said = tree::measure_files(&paths.output, &[files::STDOUT, files::STDERR]);
    Report { files: files + said.files, bytes: bytes.saturating_add(said.bytes), ..report }
}

/// Writes the termination message in place: it is a bind mount, nothing can be renamed onto it. It is written over the
/// earlier one before that is cut to its length: on a full disk an earlier message stays as it is.
pub(super) fn tell(paths: &Paths, message: &str) -> Result<(), String> {
    let written = File::options().write(true).create(true).truncate(false).open(&paths.termination_message);
    let written = written.and_then(|file| {
        file.write_all_at(message.as_bytes(), 0)?;
        file.set_len(message.len() as u64)
    });
    written.map_err(|error| format!("cannot write {}: {error}", paths.termination_message.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helper::markers::reserve_file;
    use crate::helper::markers::tests::SmallDisk;
    use std::fs;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    #[test]
    fn on_a_full_disk_each_message_replaces_the_one_before() {
        let disk = SmallDisk::new(1 << 20);
        let termination_message = disk.0.path().join("message");
        let paths = Paths { termination_message, ..Paths::below(disk.0.path()) };
        reserve_file(&paths.termination_message, MESSAGE_MAX_BYTES as u64).unwrap();
        disk.fill();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            // Takes whatever is given up for a moment.
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    disk.fill();
                }
            });
            for number in 0..1000 {
                let message = "x".repeat(if number % 2 == 0 { MESSAGE_MAX_BYTES } else { 10 });
                let told = tell(&paths, &message);
                let there = fs::read_to_string(&paths.termination_message);
                if told.is_err() || there.as_ref().ok() != Some(&message) {
                    over.store(true, Ordering::Relaxed);
                    panic!("{number}: {told:?}, {there:?}");
                }
            }
            over.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_later_message_replaces_an_earlier_one_of_any_length() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        fs::create_dir_all(paths.termination_message.parent().unwrap()).unwrap();
        for message in ["a longer message", "short", "", "again"] {
            tell(&paths, message).unwrap();
            assert_eq!(fs::read_to_string(&paths.termination_message).unwrap(), message);
        }
    }
}
