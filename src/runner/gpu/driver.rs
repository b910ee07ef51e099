//! The driver's own libraries out of a directory of the host's, in a directory of their own.
//!
//! The whole directory in front of `LD_LIBRARY_PATH` would also bring the host's glibc, which the image's programs
//! cannot load. Symlinks are enough, and the record's volume takes them whatever the image and its user may write.

use super::super::glob;
use super::super::never_ran::NeverRan;
use super::super::paths::Paths;
use super::unavailable;
use crate::contract::{Cause, GpuRequest, HostDriver};
use crate::names::files;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// What NVIDIA's driver installs. Not `libcuda*`: that would be the toolkit's `libcudart`, too, which is the image's.
/// <https://github.com/NVIDIA/nvidia-container-toolkit/blob/main/pkg/nvcdi/driver-nvml.go>
const KNOWN: [&str; 6] =
    ["libcuda.so*", "libcudadebugger.so*", "libnvidia*", "libnvcuvid.so*", "libnvoptix.so*", "lib*_nvidia.so*"];

/// The names of a driver's files.
#[derive(Debug)]
pub(super) struct Names<'a>(&'a [String]);

impl<'a> Names<'a> {
    pub(super) fn of(request: &'a GpuRequest) -> Self {
        Self(request.driver.as_ref().map(|driver| driver.library_files.as_slice()).unwrap_or_default())
    }

    pub(super) fn include(&self, name: &OsStr) -> bool {
        let mut patterns = KNOWN.into_iter().chain(self.0.iter().map(String::as_str));
        patterns.any(|pattern| glob::matches(pattern, name.as_bytes()))
    }
}

/// A driver in place.
#[derive(Debug)]
pub(super) struct Linked {
    pub(super) directory: PathBuf,
    /// By the name of its libcuda, such as `libcuda.so.570.86.15`.
    pub(super) version: Option<String>,
}

/// Where the links are.
pub(super) fn directory(paths: &Paths) -> PathBuf {
    paths.record.join(files::DRIVER)
}

/// Links the driver's libraries; of two directories with the same name the first has it.
pub(super) fn link(paths: &Paths, driver: &HostDriver) -> Result<Linked, NeverRan> {
    let directory = directory(paths);
    let failed = |error: io::Error| {
        NeverRan::because(Cause::RunnerFailed, format!("cannot link the driver in {}: {error}", directory.display()))
    };
    fs::create_dir(&directory).map_err(failed)?;
    let mount = fs::canonicalize(paths.below_root(&driver.mount_path)).unwrap_or_default();
    let sources: Vec<PathBuf> = driver.library_dirs.iter().map(|dir| paths.below_root(dir)).collect();
    let names = Names(&driver.library_files);
    let mut version = None;
    let mut linked = 0;
    for source in &sources {
        // A directory that is not there has no driver, which is told below.
        let Ok(entries) = fs::read_dir(source) else { continue };
        for name in entries.flatten().map(|entry| entry.file_name()).filter(|name| names.include(name)) {
            let Some(target) = library(&source.join(&name), &mount, &sources) else { continue };
            match symlink(&target, directory.join(&name)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other.map_err(failed)?,
            }
            linked += 1;
            version = version.or_else(|| version_of(&target));
        }
    }
    if linked == 0 {
        return Err(unavailable(format!(
            "the node's GPU driver has no library in {}: it is not installed there",
            driver.library_dirs.join(", ")
        )));
    }
    Ok(Linked { directory, version })
}

/// The file an entry stands for. A host's absolute link leads nowhere in the container, or to the image's own driver:
/// then the file of that name in one of the directories is meant.
fn library(entry: &Path, mount: &Path, sources: &[PathBuf]) -> Option<PathBuf> {
    let inside = |path: &Path| fs::canonicalize(path).ok().filter(|real| real.starts_with(mount) && real.is_file());
    inside(entry).or_else(|| {
        let target = fs::read_link(entry).ok()?;
        let name = target.file_name()?;
        sources.iter().find_map(|source| inside(&source.join(name)))
    })
}

fn version_of(library: &Path) -> Option<String> {
    let version = library.file_name()?.to_str()?.strip_prefix("libcuda.so.")?;
    (version.contains('.') && version.bytes().all(|b| b.is_ascii_digit() || b == b'.')).then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(root: &Path, files: &[&str]) -> (Paths, HostDriver) {
        let paths = Paths::below(root);
        fs::create_dir_all(&paths.record).unwrap();
        for file in files {
            let path = root.join("usr/local/nvidia").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        let driver = HostDriver {
            mount_path: "/usr/local/nvidia".to_owned(),
            library_dirs: vec!["/usr/local/nvidia/lib64".to_owned(), "/usr/local/nvidia/more".to_owned()],
            ..HostDriver::default()
        };
        (paths, driver)
    }

    fn names(linked: &Linked) -> Vec<String> {
        let entries = fs::read_dir(&linked.directory).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn only_the_drivers_own_libraries_are_linked() {
        let root = tempfile::tempdir().unwrap();
        let libraries = ["libcuda.so.1", "libnvidia-ml.so.1", "libnvcuvid.so.1", "libGLX_nvidia.so.0"];
        let others = ["libc.so.6", "libcudart.so.12", "libstdc++.so.6", "ld-linux-x86-64.so.2", "libmine.so"];
        let files: Vec<_> = libraries.iter().chain(&others).map(|name| format!("lib64/{name}")).collect();
        let (paths, driver) = host(root.path(), &files.iter().map(String::as_str).collect::<Vec<_>>());
        let linked = link(&paths, &driver).unwrap();
        assert_eq!(names(&linked), ["libGLX_nvidia.so.0", "libcuda.so.1", "libnvcuvid.so.1", "libnvidia-ml.so.1"]);

        fs::remove_dir_all(&linked.directory).unwrap();
        let linked = link(&paths, &HostDriver { library_files: vec!["libmine.so*".to_owned()], ..driver }).unwrap();
        assert!(names(&linked).contains(&"libmine.so".to_owned()));
    }

    #[test]
    fn the_first_directory_wins_and_the_version_is_in_the_name() {
        let root = tempfile::tempdir().unwrap();
        let (paths, driver) = host(root.path(), &["lib64/libcuda.so.550.54.14", "more/libcuda.so.1"]);
        symlink("libcuda.so.550.54.14", root.path().join("usr/local/nvidia/lib64/libcuda.so.1")).unwrap();
        let linked = link(&paths, &driver).unwrap();
        assert_eq!(fs::read_to_string(linked.directory.join("libcuda.so.1")).unwrap(), "lib64/libcuda.so.550.54.14");
        assert_eq!(linked.version.as_deref(), Some("550.54.14"));
    }

    #[test]
    fn an_absolute_link_of_the_host_never_leads_to_the_images_driver() {
        let root = tempfile::tempdir().unwrap();
        let (paths, driver) = host(root.path(), &["more/libcuda.so.550.54.14"]);
        let image = root.path().join("opt");
        fs::create_dir_all(&image).unwrap();
        for name in ["libcuda.so.550.54.14", "libnvidia-ml.so.1"] {
            fs::write(image.join(name), "the image's").unwrap();
            let entry = root.path().join("usr/local/nvidia/lib64").join(name);
            fs::create_dir_all(entry.parent().unwrap()).unwrap();
            symlink(image.join(name), entry).unwrap();
        }
        let linked = link(&paths, &driver).unwrap();
        assert_eq!(names(&linked), ["libcuda.so.550.54.14"], "what is not there is not linked");
        let text = fs::read_to_string(linked.directory.join("libcuda.so.550.54.14")).unwrap();
        assert_eq!(text, "more/libcuda.so.550.54.14");
    }

    #[test]
    fn a_folder_without_a_driver_is_told() {
        let root = tempfile::tempdir().unwrap();
        let (paths, driver) = host(root.path(), &["lib64/libc.so.6"]);
        let never = link(&paths, &driver).unwrap_err();
        assert_eq!(never.cause, Some(Cause::GpuUnavailable));
        assert!(never.detail.contains("/usr/local/nvidia/lib64, /usr/local/nvidia/more"), "{}", never.detail);
    }
}
