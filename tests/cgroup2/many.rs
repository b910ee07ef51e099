//! Very many files, saved and staged by a helper in little memory.

use crate::cgroup::{Cgroup, MIB};
use crate::helping::told;
use crate::registry::Registry;
use crate::sandbox::Sandbox;
use crate::{helper_in, helper_log, run_in, saving_to};
use bundlerun::contract::{InputSource, RequestedInput};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// As many as `MANY_FILES` says; a million are for `make test-million`.
fn many() -> u64 {
    std::env::var("MANY_FILES").map_or(25_000, |text| text.parse().unwrap())
}

/// 247 MiB for a million files.
fn limit(files: u64) -> u64 {
    64 * MIB + 192 * files
}

/// For the save: ten minutes, and five seconds more for each thousand files. A slow machine needs them.
fn save_seconds(files: u64) -> u64 {
    600 + files / 200
}

/// The guest's own, of which nobody takes anything away: it goes with the guest.
const DISK: &str = "/run/disk";

/// A directory of the disk, at a place in memory. Whoever takes the place away leaves what is on the disk: to remove a
/// million files takes long.
struct Bound<'a>(&'a Path);

fn bind<'a>(name: &str, at: &'a Path) -> Bound<'a> {
    let dir = Path::new(DISK).join(name);
    fs::create_dir_all(&dir).unwrap();
    fs::create_dir_all(at).unwrap();
    assert!(Command::new("/bin/mount").arg("--bind").arg(&dir).arg(at).status().unwrap().success());
    Bound(at)
}

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        let _ = Command::new("/bin/umount").arg("--lazy").arg(self.0).status();
    }
}

fn make_files(dir: &Path, files: u64) {
    for n in 0..files {
        let dir = dir.join(format!("samples-{:04}", n / 1000));
        if n % 1000 == 0 {
            fs::create_dir(&dir).unwrap();
        }
        fs::write(dir.join(format!("image-{n:07}.jpeg")), format!("{n:01024}")).unwrap();
    }
}

fn count_files(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| if entry.file_type().unwrap().is_dir() { count_files(&entry.path()) } else { 1 }).sum()
}

/// The most anonymous memory of a group while something is done, in bytes.
fn most_memory<T>(cgroup: &Cgroup, work: impl FnOnce() -> T) -> (T, u64) {
    const LOOK: Duration = Duration::from_millis(50);
    std::thread::scope(|scope| {
        // An assertion that fails drops it, too: otherwise the thread would hold up its message for ever.
        let (working, over) = mpsc::channel::<()>();
        let watching = scope.spawn(move || {
            let mut most = 0;
            while over.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                most = most.max(cgroup.number("memory.stat", "anon "));
            }
            most
        });
        let done = work();
        drop(working);
        (done, watching.join().unwrap())
    })
}

/// Says what a helper said if the test fails.
struct Says<'a>(&'a Sandbox);

impl Drop for Says<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the helper said: {}", fs::read_to_string(helper_log(self.0)).unwrap_or_default());
        }
    }
}

#[test]
fn many_files_are_saved_and_staged_in_little_memory() {
    let files = many();
    let registry = Registry::start_in(Path::new(DISK), "127.0.0.1", "");
    let pod = Cgroup::pod("many");
    let container = pod.container("run").limit(64 * MIB).all_die_together();
    let begin = Instant::now();
    let done = |what: &str, sidecar: &Cgroup, anon: u64| {
        let (peak, limit) = (sidecar.number("memory.peak", ""), limit(files) / MIB);
        let (peak, anon) = (peak / MIB, anon / MIB);
        let seconds = begin.elapsed().as_secs();
        println!("{files} files {what} after {seconds} s: {anon} MiB of {limit} MiB, {peak} MiB with caches");
        assert_eq!(sidecar.number("memory.events", "oom_kill "), 0);
    };
    let no_child_failed = |sandbox: &Sandbox| {
        let log = fs::read_to_string(helper_log(sandbox)).unwrap();
        assert!(!log.contains("helper save: ") && !log.contains("helper stage: "), "{log}");
    };

    let parent = saving_to(&registry.host).requesting(|request| {
        request.save.as_mut().unwrap().deadline_seconds = save_seconds(files);
    });
    let _says = Says(&parent);
    let _output = bind("output", &parent.paths.bundle);
    make_files(&parent.paths.bundle, files);
    println!("{files} files made after {} s", begin.elapsed().as_secs());
    let sidecar = pod.container("parent").limit(limit(files)).all_die_together();
    let (bundle, anon) = most_memory(&sidecar, || {
        let helper = helper_in(&sidecar, &parent, "exit 0");
        assert_eq!(run_in(&container, &parent, "exit 0").finish().record.exit_code, Some(0));
        assert!(helper.finish());
        let report = told(&parent).report;
        assert_eq!((report.not_saved, report.files), (None, files + 2), "and stdout and stderr");
        report.saved.unwrap().digest
    });
    no_child_failed(&parent);
    done("saved", &sidecar, anon);

    let reference = format!("{}/bundles@{bundle}", registry.host);
    let child = saving_to(&registry.host).requesting(|request| {
        request.save = None;
        request.inputs = vec![RequestedInput::new("data", InputSource::Image { reference, path: None })];
    });
    let _says = Says(&child);
    let place = child.paths.inputs.join("0");
    let _input = bind("input", &place);
    fs::remove_file(child.paths.bin.join("staged")).unwrap_or_default();
    let sidecar = pod.container("child").limit(limit(files)).all_die_together();
    let (helper, anon) = most_memory(&sidecar, || helper_in(&sidecar, &child, "exit 0"));
    assert!(!child.paths.bin.join("end").exists(), "{}", fs::read_to_string(child.paths.bin.join("end")).unwrap());
    done("staged", &sidecar, anon);
    no_child_failed(&child);
    assert_eq!(run_in(&container, &child, "exit 0").finish().record.exit_code, Some(0));
    assert!(helper.finish());
    assert_eq!(count_files(&place), files + 2);
}
