//! The devices and libraries without which a GPU run would fail late, or quietly compute on the CPU.

use super::super::glob;
use super::super::never_ran::NeverRan;
use super::super::paths::Paths;
use super::driver::Names;
use super::unavailable;
use crate::contract::{DeviceCount, GpuRequest};
use rustix::fs::Access;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Where loaders look besides `LD_LIBRARY_PATH` and glibc's cache: glibc's and musl's own, and the NVIDIA runtime's.
const USUAL: [&str; 9] = [
    "/lib",
    "/usr/lib",
    "/lib64",
    "/usr/lib64",
    "/usr/local/lib",
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
];

/// Checks everything and tells all that is missing. `own_driver` is the directory of the linked driver, if there is
/// one, and which names are a driver's: an image's stale copy of those is no substitute.
pub(super) fn check(
    paths: &Paths,
    request: &GpuRequest,
    own_driver: Option<&(&Path, Names<'_>)>,
    library_path: &OsStr,
) -> Result<(), NeverRan> {
    let mut missing = devices(paths, request);
    let absent: Vec<_> = request
        .preflight
        .libraries
        .iter()
        .filter(|name| !has_library(paths, name, own_driver, library_path))
        .map(String::as_str)
        .collect();
    if !absent.is_empty() {
        missing.push(format!("no library {}", absent.join(", ")));
    }
    if missing.is_empty() { Ok(()) } else { Err(unavailable(missing.join("; "))) }
}

fn devices(paths: &Paths, request: &GpuRequest) -> Vec<String> {
    let patterns = &request.preflight.devices;
    let nodes: BTreeSet<PathBuf> =
        patterns.iter().flat_map(|pattern| glob::find(&paths.root, pattern)).filter(|path| is_device(path)).collect();
    let wanted = usize::try_from(request.count).unwrap_or(usize::MAX);
    let enough = match request.preflight.count {
        DeviceCount::Off => return vec![],
        DeviceCount::Exact => nodes.len() == wanted,
        DeviceCount::AtLeast => nodes.len() >= wanted,
    };
    if !enough {
        let found = nodes.len();
        return vec![format!("{found} of {wanted} devices {} are in the container", patterns.join(", "))];
    }
    // Not opened: the driver wakes a device then, and a broken one may never answer.
    let usable = |path: &&PathBuf| rustix::fs::access(*path, Access::READ_OK | Access::WRITE_OK).is_ok();
    let forbidden: Vec<_> = nodes.iter().filter(|path| !usable(path)).map(|path| paths.shown(path)).collect();
    if forbidden.is_empty() {
        return vec![];
    }
    let user = rustix::process::geteuid().as_raw();
    vec![format!("user {user} may not use {}", forbidden.join(", "))]
}

fn is_device(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|is| is.file_type().is_char_device())
}

fn has_library(paths: &Paths, name: &str, own_driver: Option<&(&Path, Names<'_>)>, library_path: &OsStr) -> bool {
    if let Some((directory, names)) = own_driver
        && names.include(OsStr::new(name))
    {
        return directory.join(name).is_file();
    }
    std::env::split_paths(library_path).any(|dir| dir.join(name).is_file())
        || USUAL.iter().any(|dir| paths.below_root(dir).join(name).is_file())
        || in_cache(paths, name)
}

/// glibc's cache holds the paths of all libraries as texts that end with NUL; its index is not needed to find one.
fn in_cache(paths: &Paths, name: &str) -> bool {
    let cache = fs::read(paths.below_root("/etc/ld.so.cache")).unwrap_or_default();
    cache
        .split(|byte| *byte == 0)
        .filter_map(|text| std::str::from_utf8(text).ok())
        .filter(|text| text.starts_with('/') && Path::new(text).file_name() == Some(OsStr::new(name)))
        .any(|path| paths.below_root(path).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Preflight;
    use std::os::unix::fs::symlink;

    struct Container(tempfile::TempDir);

    impl Container {
        fn with(files: &[&str]) -> Self {
            let root = tempfile::tempdir().unwrap();
            for file in files {
                let path = root.path().join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                // As good as a device node, and anyone may make it.
                if file.starts_with("dev/") { symlink("/dev/null", path) } else { fs::write(path, "") }.unwrap();
            }
            Self(root)
        }

        fn check(&self, count: u32, preflight: Preflight, library_path: &str) -> String {
            let request = GpuRequest { count, preflight, driver: None };
            let checked = check(&Paths::below(self.0.path()), &request, None, OsStr::new(library_path));
            checked.err().map(|never| never.detail).unwrap_or_default()
        }
    }

    fn devices(count: DeviceCount) -> Preflight {
        Preflight { devices: vec!["/dev/nvidia[0-9]*".to_owned()], count, libraries: vec![] }
    }

    fn libraries(names: &[&str]) -> Preflight {
        Preflight { libraries: names.iter().map(|name| (*name).to_owned()).collect(), ..Preflight::default() }
    }

    #[test]
    fn the_count_is_exact_at_least_or_off() {
        let container = Container::with(&["dev/nvidia0", "dev/nvidia1", "dev/nvidiactl", "dev/nvidia-uvm"]);
        for (count, wanted, fits) in [
            (DeviceCount::Exact, 1, false),
            (DeviceCount::Exact, 2, true),
            (DeviceCount::Exact, 3, false),
            (DeviceCount::AtLeast, 1, true),
            (DeviceCount::AtLeast, 2, true),
            (DeviceCount::AtLeast, 3, false),
            (DeviceCount::Off, 9, true),
        ] {
            let told = container.check(wanted, devices(count), "");
            assert_eq!(told.is_empty(), fits, "{count:?} {wanted}: {told}");
            assert!(fits || told == format!("2 of {wanted} devices /dev/nvidia[0-9]* are in the container"), "{told}");
        }
    }

    #[test]
    fn a_file_is_no_device() {
        let container = Container::with(&[]);
        fs::create_dir(container.0.path().join("dev")).unwrap();
        fs::write(container.0.path().join("dev/nvidia0"), "").unwrap();
        assert!(container.check(1, devices(DeviceCount::AtLeast), "").starts_with("0 of 1"));
    }

    #[test]
    fn libraries_are_found_where_a_loader_finds_them() {
        let container =
            Container::with(&["usr/lib64/libcuda.so.1", "opt/a/libmine.so", "opt/b/libcached.so", "opt/b/libnot.so"]);
        fs::create_dir(container.0.path().join("etc")).unwrap();
        let cache = b"glibc-ld.so.cache1.1\x00\x05libcached.so\0/opt/b/libcached.so\0/opt/b/libgone.so\0";
        fs::write(container.0.path().join("etc/ld.so.cache"), cache).unwrap();
        let path = container.0.path().join("opt/a");
        let check = |names: &[&str]| container.check(1, libraries(names), path.to_str().unwrap());
        assert_eq!(check(&["libcuda.so.1", "libmine.so", "libcached.so"]), "");
        assert_eq!(check(&["libnot.so", "libcuda.so.1", "libgone.so"]), "no library libnot.so, libgone.so");
    }

    #[test]
    fn the_images_driver_is_no_substitute_for_the_hosts() {
        let container = Container::with(&["usr/lib/libcuda.so.1", "usr/lib/libother.so"]);
        let request = GpuRequest { count: 1, preflight: libraries(&["libcuda.so.1", "libother.so"]), driver: None };
        let own = (container.0.path(), Names::of(&request));
        let checked = check(&Paths::below(container.0.path()), &request, Some(&own), OsStr::new(""));
        assert_eq!(checked.unwrap_err().detail, "no library libcuda.so.1");
    }
}
