//! The record and the output become the helper's last words.

use super::prepare::mark;
use super::tree::{self, Size};
use super::watch::End;
use crate::bundle::untrusted::{NotRead, read_tail, read_whole};
use crate::names::files;
use crate::report::{MESSAGE_MAX_BYTES, Message, MissingRecord, RECORD_MAX_BYTES, Record, Report};
use crate::runner::Paths;
use std::ffi::CString;
use std::path::Path;
use std::time::{Duration, Instant};

/// Counting the output ends here, with what was counted: the ending is more important.
const COUNT: Duration = Duration::from_mins(1);

/// The message of an earlier life of this helper.
pub(super) fn earlier_report(paths: &Paths) -> Option<String> {
    std::fs::read_to_string(paths.bin.join(files::REPORTED)).ok()
}

/// Leaves the termination message. First without counts, which may take their time: whoever kills us meanwhile gets
/// that one.
pub(super) fn report(paths: &Paths, end: End) -> Result<(), String> {
    let record = read_record(&paths.record);
    let tail =
        |name| CString::new(name).map(|name| read_tail(&paths.bundle, &name, MESSAGE_MAX_BYTES)).unwrap_or_default();
    let (stdout, stderr) = (tail(files::STDOUT), tail(files::STDERR));
    let message = |size: Size| {
        let (record, missing) = match &record {
            Ok(record) => (Some(record.clone()), None),
            Err(NotRead::Missing) => (None, Some(end.without_record())),
            Err(NotRead::Refused) => (None, Some(MissingRecord::Unreadable)),
        };
        let report = Report { record, missing, files: size.files, bytes: size.bytes, ..Report::default() };
        Message::encode(&report, &stdout, &stderr)
    };

    tell(paths, &message(Size::default()))?;
    let until = Instant::now() + COUNT;
    let message = message(tree::measure(&paths.bundle, || Instant::now() < until));
    tell(paths, &message)?;
    mark(&paths.bin, files::REPORTED, message.as_bytes())
}

/// Writes the termination message in place: it is a bind mount, nothing can be renamed onto it.
pub(super) fn tell(paths: &Paths, message: &str) -> Result<(), String> {
    std::fs::write(&paths.termination_message, message)
        .map_err(|error| format!("cannot write {}: {error}", paths.termination_message.display()))
}

fn read_record(dir: &Path) -> Result<Record, NotRead> {
    let name = CString::new(files::RECORD).map_err(|_| NotRead::Refused)?;
    let text = read_whole(dir, &name, RECORD_MAX_BYTES)?;
    let record: Record = serde_json::from_slice(&text).map_err(|_| NotRead::Refused)?;
    // Every record of the runner has an ending in it; JSON without one is somebody else's.
    let ended = record.cause.is_some() || record.exit_code.is_some() || record.signal.is_some() || record.asked_to_stop;
    let possible = record.exit_code.is_none_or(|code| (0..=255).contains(&code))
        && record.signal.is_none_or(|signal| (1..=64).contains(&signal));
    if ended && possible { Ok(record) } else { Err(NotRead::Refused) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_no_record_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(files::RECORD);
        assert_eq!(read_record(dir.path()), Err(NotRead::Missing));
        for text in
            ["", "[]", "{}", "nonsense", r#"{"exitCode":256}"#, r#"{"exitCode":-1}"#, r#"{"signal":0}"#, "\u{0}"]
        {
            fs::write(&path, text).unwrap();
            assert_eq!(read_record(dir.path()), Err(NotRead::Refused), "{text}");
        }
        fs::write(&path, format!(r#"{{"exitCode":0,"detail":"{}"}}"#, "x".repeat(RECORD_MAX_BYTES))).unwrap();
        assert_eq!(read_record(dir.path()), Err(NotRead::Refused));
        fs::write(&path, r#"{"exitCode":0}"#).unwrap();
        assert_eq!(read_record(dir.path()).unwrap().exit_code, Some(0));
    }
}
