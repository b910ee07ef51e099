//! Copies what the kubelet has mounted for the helper: a `ConfigMap`, which would otherwise change under the command.

use crate::contract::Cause;
use crate::helper::task::failure::Failure;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Copies the one `file` of the mount, or all files, into `place`. Returns how many bytes.
pub(in crate::helper) fn copy(mount: &Path, file: Option<&str>, place: &Path) -> Result<u64, Failure> {
    let from = current(mount);
    let Some(file) = file else { return copy_all(&from, place) };
    match File::open(from.join(file)) {
        Ok(source) => copy_file(source, place),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Failure::Final(Cause::InputNotFound, format!("the ConfigMap, or its key {file}, does not exist")))
        }
        Err(error) => Err(reading(&error)),
    }
}

/// The kubelet puts all files of a new version into a directory of its own and turns the link `..data` to it: what is
/// read from behind the link is all of one version.
fn current(mount: &Path) -> PathBuf {
    mount.join("..data").canonicalize().unwrap_or_else(|_| mount.to_owned())
}

fn copy_all(from: &Path, place: &Path) -> Result<u64, Failure> {
    let (mut bytes, mut files) = (0, 0);
    for entry in fs::read_dir(from).map_err(|error| reading(&error))? {
        let entry = entry.map_err(|error| reading(&error))?;
        let name = entry.file_name();
        let is_file = fs::metadata(entry.path()).is_ok_and(|there| there.is_file());
        if is_file && !name.as_encoded_bytes().starts_with(b"..") {
            let source = File::open(entry.path()).map_err(|error| reading(&error))?;
            bytes += copy_file(source, &place.join(name))?;
            files += 1;
        }
    }
    if files == 0 {
        return Err(Failure::Final(Cause::InputNotFound, "the ConfigMap does not exist, or is empty".to_owned()));
    }
    Ok(bytes)
}

fn copy_file(mut source: File, place: &Path) -> Result<u64, Failure> {
    let copied = OpenOptions::new().write(true).create(true).truncate(true).open(place).and_then(|mut file| {
        file.set_permissions(Permissions::from_mode(0o644))?;
        io::copy(&mut source, &mut file)
    });
    copied.map_err(|error| Failure::writing(&error))
}

fn reading(error: &io::Error) -> Failure {
    Failure::Passing(format!("cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

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

    #[test]
    fn all_files_are_copied_or_the_one() {
        let (mount, to) = (mount(), tempfile::tempdir().unwrap());
        assert_eq!(copy(mount.path(), None, to.path()), Ok(9));
        let mut names: Vec<_> = fs::read_dir(to.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["a", "b.txt"]);
        assert!(fs::symlink_metadata(to.path().join("a")).unwrap().is_file());
        assert_eq!(copy(mount.path(), None, to.path()), Ok(9), "again");
        let one = to.path().join("one");
        fs::write(&one, "what is there is longer").unwrap();
        assert_eq!(copy(mount.path(), Some("b.txt"), &one), Ok(4));
        assert_eq!(fs::read_to_string(&one).unwrap(), "beta");
    }

    #[test]
    fn a_key_that_is_missing_is_the_users_to_mend() {
        let (mount, to) = (mount(), tempfile::tempdir().unwrap());
        let missing = copy(mount.path(), Some("none"), &to.path().join("x"));
        assert_eq!(
            missing,
            Err(Failure::Final(Cause::InputNotFound, "the ConfigMap, or its key none, does not exist".to_owned()))
        );
    }
}
