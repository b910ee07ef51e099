//! Links in the working directory to the entries of an input at `.`.

use crate::bundle::untrusted::open_mount;
use crate::contract::Cause;
use crate::helper::failure::Failure;
use crate::names::files;
use rustix::fd::OwnedFd;
use rustix::fs::{readlinkat, symlinkat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Links `<bundle>/<entry>` to `<target>/<entry>` for all entries of `listed`. A save knows them by that, and no list is kept
/// of them: a link that the command made just like that is no more of an output.
pub(in crate::helper) fn make(listed: &Path, target: &Path, bundle: &Path) -> Result<(), Failure> {
    let entries = match fs::read_dir(listed) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(Failure::Permanent(Cause::InputInvalid, "a file cannot be the working directory".to_owned()));
        }
        Err(error) => return Err(reading(&error)),
    };
    // The kubelet's own names in a Secret's mount; elsewhere such names are the user's.
    let of_the_kubelet = listed.join("..data").symlink_metadata().is_ok_and(|data| data.is_symlink());
    let dir = open_mount(bundle).map_err(|error| Failure::writing(&error.into()))?;
    for entry in entries {
        let name = entry.map_err(|error| reading(&error))?.file_name();
        // The output of another run has these; here they are this command's own.
        let of_the_command = name == files::STDOUT || name == files::STDERR;
        let left_out = of_the_command || (of_the_kubelet && name.as_bytes().starts_with(b".."));
        if !left_out {
            link(&dir, &name, &target.join(&name))?;
        }
    }
    Ok(())
}

fn link(dir: &OwnedFd, name: &OsStr, target: &Path) -> Result<(), Failure> {
    let taken = |what: &str| {
        let detail = format!("its entry {} {what}", Path::new(name).display());
        Err(Failure::Permanent(Cause::InputInvalid, detail))
    };
    match symlinkat(target, dir, name) {
        Ok(()) => Ok(()),
        // Of a try before this one.
        Err(Errno::EXIST) if points_to(dir, name, target) => Ok(()),
        Err(Errno::EXIST) => taken("has a name that another input or volume has in the working directory"),
        Err(error) => Err(Failure::writing(&error.into())),
    }
}

fn points_to(dir: &OwnedFd, name: &OsStr, target: &Path) -> bool {
    readlinkat(dir, name, vec![]).is_ok_and(|found| found.as_bytes() == target.as_os_str().as_bytes())
}

fn reading(error: &io::Error) -> Failure {
    Failure::Transient(format!("cannot be listed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    #[test]
    fn every_entry_is_linked_once() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for dir in ["listed/dir", "bundle"] {
            fs::create_dir_all(at(dir)).unwrap();
        }
        let odd = OsStr::from_bytes(b"\xff odd");
        fs::write(at("listed").join(odd), "").unwrap();
        fs::write(at("listed/..mine"), "").unwrap();
        let target = PathBuf::from("/.bundlerun/sources/3");
        for _ in 0..2 {
            assert_eq!(make(&at("listed"), &target, &at("bundle")), Ok(()));
        }
        for name in ["..mine".as_ref(), "dir".as_ref(), odd] {
            assert_eq!(fs::read_link(at("bundle").join(name)).unwrap(), target.join(name));
        }
        assert_eq!(fs::read_dir(at("bundle")).unwrap().count(), 3);
    }

    #[test]
    fn a_name_that_is_taken_is_told() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let (listed, bundle) = (at("listed"), at("bundle"));
        for dir in [&listed, &bundle, &bundle.join("data")] {
            fs::create_dir_all(dir).unwrap();
        }
        // As in the output of another run, and no trouble.
        for name in ["stdout", "stderr", "data"] {
            fs::write(listed.join(name), "").unwrap();
        }
        let Err(Failure::Permanent(Cause::InputInvalid, detail)) = make(&listed, Path::new("/s/0"), &bundle) else {
            panic!("it is taken");
        };
        assert!(detail.contains("entry data "), "{detail}");
        assert!(!bundle.join("stdout").is_symlink() && !bundle.join("stderr").is_symlink());
        fs::write(at("file"), "").unwrap();
        assert!(matches!(make(&at("file"), Path::new("/s/0"), &bundle), Err(Failure::Permanent(..))));
    }

    #[test]
    fn the_kubelets_own_names_are_left_out() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("listed/..2026")).unwrap();
        fs::create_dir(at("bundle")).unwrap();
        fs::write(at("listed/..2026/key"), "").unwrap();
        symlink("..2026", at("listed/..data")).unwrap();
        symlink("..data/key", at("listed/key")).unwrap();
        make(&at("listed"), Path::new("/s/0"), &at("bundle")).unwrap();
        assert_eq!(fs::read_link(at("bundle/key")).unwrap(), Path::new("/s/0/key"));
        assert_eq!(fs::read_dir(at("bundle")).unwrap().count(), 1);
    }
}
