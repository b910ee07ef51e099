//! The helper's marks: small files in the bin directory by which it goes on after a crash, and which the runner reads.

use crate::names::files;
use crate::report::{Cause, EndOrder, one_line};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// No mark is larger; a request, the largest thing that they follow from, is not either.
const MARK_MAX_BYTES: u64 = 1024 * 1024;

/// Writes a mark so that nobody sees half of it.
pub(super) fn mark(bin: &Path, name: &str, text: &[u8]) -> Result<(), String> {
    place(bin, name, 0o644, |file| file.write_all(text))
}

/// Writes a mark as JSON.
pub(super) fn mark_json<T: Serialize>(bin: &Path, name: &str, value: &T) -> Result<(), String> {
    let text = serde_json::to_vec(value).map_err(|error| format!("{name}: {error}"))?;
    mark(bin, name, &text)
}

/// Whether a mark is there.
pub(super) fn is_marked(bin: &Path, name: &str) -> bool {
    bin.join(name).exists()
}

/// Takes a mark away.
pub(super) fn unmark(bin: &Path, name: &str) {
    let _ = fs::remove_file(bin.join(name));
}

/// The text of a mark.
pub(super) fn read(bin: &Path, name: &str) -> Option<String> {
    let mut text = String::new();
    fs::File::open(bin.join(name)).ok()?.take(MARK_MAX_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

/// What a mark of [`mark_json`] holds.
pub(super) fn read_json<T: DeserializeOwned>(bin: &Path, name: &str) -> Option<T> {
    serde_json::from_str(&read(bin, name)?).ok()
}

/// Notes what stands in the way so far, for whoever runs out of patience.
pub(super) fn trouble(bin: &Path, why: &str) {
    if let Err(error) = mark(bin, files::TROUBLE, one_line(why).as_bytes()) {
        eprintln!("bundle-operator helper: {error}");
    }
}

/// Orders the runner to end the command, or not to begin it. The first order stays.
pub(super) fn order_end(bin: &Path, cause: Cause, detail: &str) -> Result<(), String> {
    let text = serde_json::to_vec(&EndOrder::new(cause, detail)).map_err(|error| error.to_string())?;
    let target = bin.join(files::END);
    let ordered = draft(bin, files::END, 0o644, |file| file.write_all(&text)).and_then(|draft| {
        match renameat_with(CWD, &draft, CWD, &target, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => fs::remove_file(&draft),
            Err(_) => fs::rename(&draft, &target),
        }
    });
    ordered.map_err(|error| format!("cannot write {}: {error}", target.display()))
}

/// Makes a file of the bin directory with all that is in it at once.
pub(super) fn place(
    bin: &Path,
    name: &str,
    mode: u32,
    write: impl FnOnce(&mut fs::File) -> io::Result<()>,
) -> Result<(), String> {
    let target = bin.join(name);
    let placed = draft(bin, name, mode, write).and_then(|draft| fs::rename(draft, &target));
    placed.map_err(|error| format!("cannot write {}: {error}", target.display()))
}

/// Under a name of its own: the hook, children and threads may write the same mark.
fn draft(
    bin: &Path,
    name: &str,
    mode: u32,
    write: impl FnOnce(&mut fs::File) -> io::Result<()>,
) -> io::Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let draft = bin.join(format!(".{name}.{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir_all(bin)?;
    let written = fs::File::create(&draft)
        .and_then(|mut file| write(&mut file).and_then(|()| file.set_permissions(Permissions::from_mode(mode))));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written.map(|()| draft)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_order_to_end_stays() {
        let bin = tempfile::tempdir().unwrap();
        order_end(bin.path(), Cause::InputNotFound, "no\nsuch tag").unwrap();
        order_end(bin.path(), Cause::DiskLimitExceeded, "").unwrap();
        let order: EndOrder = read_json(bin.path(), files::END).unwrap();
        assert_eq!(order, EndOrder { cause: Cause::InputNotFound, detail: "no such tag".to_owned() });
        assert_eq!(fs::read_dir(bin.path()).unwrap().count(), 1, "no draft is left");
    }
}
