//! Copies what the kubelet has mounted for the helper: a `ConfigMap` or a Secret, which would otherwise change under the
//! command, and which need not exist when the container starts.

use crate::bundle::sha256;
use crate::contract::InputProblem;
use crate::helper::failure::Failure;
use crate::helper::mode;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The API server takes no `ConfigMap` and no Secret of more than 1 MiB.
const MAX_BYTES: u64 = 2 << 20;

/// What is copied.
pub(in crate::helper) struct Mount {
    pub(in crate::helper) at: PathBuf,
    /// Kind and name, for people.
    pub(in crate::helper) what: String,
    /// None: all files.
    pub(in crate::helper) key: Option<String>,
}

/// What was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::helper) struct Copied {
    pub(in crate::helper) bytes: u64,
    /// `sha256:<hex>`. Of one file, as `sha256sum` tells it; of all, as `sha256sum * | sha256sum` does where names are
    /// sorted by their bytes.
    pub(in crate::helper) digest: String,
}

/// Copies what a mount has into `place`, with the `mode` that was asked for.
pub(in crate::helper) fn copy(mount: &Mount, place: &Path, mode: Option<u32>) -> Result<Copied, Failure> {
    let Mount { at, what, key } = mount;
    let from = current(at);
    let Some(file) = key else { return copy_all(&from, what, place, mode) };
    match File::open(from.join(file)) {
        Ok(source) => {
            let content = copy_file(source, place, mode)?;
            Ok(Copied { bytes: content.len() as u64, digest: sha256(&content) })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Failure::Awaited(InputProblem::Absent, format!("{what}, or its key {file}, does not exist")))
        }
        Err(error) => Err(reading(&error)),
    }
}

/// What is in a place, if it is at most so many bytes: files by their names, with `file` for the one that is there.
pub(in crate::helper) fn contents(place: &Path, file: Option<&str>, most: u64) -> Option<BTreeMap<String, Vec<u8>>> {
    let mut left = most;
    let mut read = |path: &Path| {
        let mut content = vec![];
        File::open(path).ok()?.take(left + 1).read_to_end(&mut content).ok()?;
        left = left.checked_sub(content.len() as u64)?;
        Some(content)
    };
    if let Some(file) = file {
        return Some([(file.to_owned(), read(place)?)].into());
    }
    let entries = fs::read_dir(place).ok()?;
    entries
        .map(|entry| Some((entry.as_ref().ok()?.file_name().into_string().ok()?, read(&entry.ok()?.path())?)))
        .collect()
}

/// The kubelet puts all files of a new version into a directory of its own and turns the link `..data` to it: what is
/// read from behind the link is all of one version.
fn current(mount: &Path) -> PathBuf {
    mount.join("..data").canonicalize().unwrap_or_else(|_| mount.to_owned())
}

fn copy_all(from: &Path, what: &str, place: &Path, mode: Option<u32>) -> Result<Copied, Failure> {
    let (mut bytes, mut digests) = (0, BTreeMap::new());
    for entry in fs::read_dir(from).map_err(|error| reading(&error))? {
        let entry = entry.map_err(|error| reading(&error))?;
        let name = entry.file_name();
        let is_file = fs::metadata(entry.path()).is_ok_and(|there| there.is_file());
        if is_file && !name.as_bytes().starts_with(b"..") {
            let source = File::open(entry.path()).map_err(|error| reading(&error))?;
            let content = copy_file(source, &place.join(&name), mode)?;
            bytes += content.len() as u64;
            digests.insert(name, sha256(&content));
        }
    }
    if digests.is_empty() {
        return Err(Failure::Awaited(InputProblem::Absent, format!("{what} does not exist, or is empty")));
    }
    // Names are of letters, digits, `-`, `_` and `.`.
    let line = |(name, digest): (&std::ffi::OsString, &String)| {
        [digest.trim_start_matches("sha256:").as_bytes(), b"  ", name.as_bytes(), b"\n"].concat()
    };
    Ok(Copied { bytes, digest: sha256(&digests.iter().flat_map(line).collect::<Vec<u8>>()) })
}

fn copy_file(source: File, place: &Path, mode: Option<u32>) -> Result<Vec<u8>, Failure> {
    let mut content = vec![];
    source.take(MAX_BYTES).read_to_end(&mut content).map_err(|error| reading(&error))?;
    if place.exists() {
        mode::open_up(place).map_err(|error| Failure::writing(&error))?;
    }
    let copied = fs::write(place, &content).and_then(|()| mode::set(place, mode, &content));
    copied.map(|()| content).map_err(|error| Failure::writing(&error))
}

fn reading(error: &io::Error) -> Failure {
    Failure::Transient(format!("cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    /// As the kubelet does it.
    fn mount() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("..2026_01")).unwrap();
        fs::write(at("..2026_01/a"), "alpha").unwrap();
        fs::write(at("..2026_01/b.txt"), "beta").unwrap();
        symlink("..2026_01", at("..data")).unwrap();
        symlink("..data/a", at("a")).unwrap();
        symlink("..data/b.txt", at("b.txt")).unwrap();
        dir
    }

    fn of(mount: &tempfile::TempDir, key: Option<&str>) -> Mount {
        Mount { at: mount.path().to_owned(), what: "ConfigMap m".to_owned(), key: key.map(str::to_owned) }
    }

    #[test]
    fn all_files_are_copied_or_the_one() {
        let (mount, to) = (mount(), tempfile::tempdir().unwrap());
        // printf alpha >a; printf beta >b.txt; sha256sum a b.txt | sha256sum
        let digest = "sha256:a84ee2a9c1304fc61f5270c950bc5b8524cd4c638e2a64fa881a1f1676a75eb1".to_owned();
        let all = Ok(Copied { bytes: 9, digest });
        assert_eq!(copy(&of(&mount, None), to.path(), None), all);
        let mut names: Vec<_> = fs::read_dir(to.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["a", "b.txt"]);
        assert!(fs::symlink_metadata(to.path().join("a")).unwrap().is_file());
        assert_eq!(copy(&of(&mount, None), to.path(), None), all, "again");
        let one = to.path().join("one");
        fs::write(&one, "what is there is longer").unwrap();
        assert_eq!(copy(&of(&mount, Some("b.txt")), &one, None), Ok(Copied { bytes: 4, digest: sha256(b"beta") }));
        assert_eq!(fs::read_to_string(&one).unwrap(), "beta");
    }

    #[test]
    fn what_is_missing_is_waited_for() {
        let (mount, to) = (mount(), tempfile::tempdir().unwrap());
        let empty = tempfile::tempdir().unwrap();
        let absent = copy(&of(&empty, None), to.path(), None);
        let words = "ConfigMap m does not exist, or is empty".to_owned();
        assert_eq!(absent, Err(Failure::Awaited(InputProblem::Absent, words)));
        let missing = copy(&of(&mount, Some("none")), &to.path().join("x"), None);
        assert_eq!(
            missing,
            Err(Failure::Awaited(InputProblem::Absent, "ConfigMap m, or its key none, does not exist".to_owned()))
        );
    }

    #[test]
    fn scripts_can_be_executed_and_a_mode_is_for_all_files() {
        let (mount, to) = (mount(), tempfile::tempdir().unwrap());
        fs::write(mount.path().join("..2026_01/b.txt"), "#!/bin/sh\n").unwrap();
        let modes = || ["a", "b.txt"].map(|name| fs::metadata(to.path().join(name)).unwrap().mode() & 0o7777);
        copy(&of(&mount, None), to.path(), None).unwrap();
        assert_eq!(modes(), [0o644, 0o755]);
        copy(&of(&mount, None), to.path(), Some(0o750)).unwrap();
        assert_eq!(modes(), [0o750, 0o750]);
    }
}
