//! What the runner leaves for the helper, which the command could have written.

use crate::bundle::untrusted::{NotRead, read_whole};
use crate::contract::{RECORD_MAX_BYTES, Record, VARIABLES_MAX_BYTES};
use crate::names::files;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::Path;

/// The runner's record, or what is in its place.
pub(super) fn read_record(dir: &Path) -> Result<Record, NotRead> {
    let record: Record = read(dir, files::RECORD, RECORD_MAX_BYTES)?;
    // Every record of the runner has an ending in it; JSON without one is somebody else's.
    let ended = record.cause.is_some() || record.exit_code.is_some() || record.signal.is_some() || record.asked_to_stop;
    let possible = record.exit_code.is_none_or(|code| (0..=255).contains(&code))
        && record.signal.is_none_or(|signal| (1..=64).contains(&signal));
    if ended && possible { Ok(record) } else { Err(NotRead::Refused) }
}

/// Values of variables as the run's container had them, by name.
pub(super) fn read_variables(dir: &Path) -> BTreeMap<String, String> {
    read(dir, files::VARIABLES, VARIABLES_MAX_BYTES).unwrap_or_default()
}

fn read<T: DeserializeOwned>(dir: &Path, name: &str, max_bytes: usize) -> Result<T, NotRead> {
    let name = CString::new(name).map_err(|_| NotRead::Refused)?;
    let text = read_whole(dir, &name, max_bytes)?;
    serde_json::from_slice(&text).map_err(|_| NotRead::Refused)
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
