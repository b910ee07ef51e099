//! The runner and the helper in control groups of version 2, each in a container's own. In user-mode Linux, see `run`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // in functions that tests share

mod cgroup;
#[path = "../sandbox/helper.rs"]
mod helping;
mod many;
#[allow(dead_code)] // passwords are of other tests
#[path = "../bundle/registry.rs"]
mod registry;
#[path = "../sandbox/mod.rs"]
mod sandbox;

use bundlerun::contract::{Message, MissingRecord, Registries, SaveRequest};
use cgroup::{Cgroup, MIB};
use helping::{Process, fresh, told};
use registry::Registry;
use rustix::fs::{FlockOperation, flock};
use sandbox::{Sandbox, Started, await_that, sh};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::PathBuf;

/// The runner in a container, with what is in the machine's usual places.
fn run_in<'a>(cgroup: &Cgroup, sandbox: &'a Sandbox, command: &str) -> Started<'a> {
    sandbox.write_request(&sh(command));
    let mut contained = cgroup.contain(&sandbox.command(), sandbox);
    sandbox.dress(&mut contained);
    sandbox.spawn(&mut contained)
}

/// The helper in a container, ready for the runner to start.
fn helper_in(cgroup: &Cgroup, sandbox: &Sandbox, command: &str) -> Process {
    // The runner it would prepare is a copy, which this file system keeps in the memory that it counts.
    fs::write(sandbox.paths.bin.join("prepared"), "").unwrap();
    sandbox.write_request(&sh(command));
    let mut contained = cgroup.contain(&Process::command(sandbox), sandbox);
    let helper = Process::spawn(contained.stderr(File::create(helper_log(sandbox)).unwrap()));
    await_that("the helper's preparations", || sandbox.paths.bin.join("staged").exists());
    helper
}

fn helper_log(sandbox: &Sandbox) -> PathBuf {
    sandbox.root().join("helper.log")
}

fn with_usual_path(sandbox: Sandbox) -> Sandbox {
    sandbox.env("PATH", "/usr/bin:/bin")
}

fn saving_to(host: &str) -> Sandbox {
    with_usual_path(fresh()).requesting(|request| {
        request.registries = Registries { insecure: vec![host.to_owned()], ca: None };
        request.save = Some(SaveRequest {
            repository: format!("{host}/bundles"),
            tag: "run.1.0".to_owned(),
            exclude: vec![],
            deadline_seconds: 600,
            interrupted_seconds: 600,
            follows_command: false,
            give_up_seconds: 300,
            made_by: serde_json::Map::new(),
            told_variables: vec![],
            max_blob_bytes: None,
            background: None,
            snapshots: None,
        });
    })
}

#[test]
fn usage_is_what_the_containers_cgroup_counted() {
    let pod = Cgroup::pod("usage");
    let container = pod.container("run").limit(512 * MIB).all_die_together();
    // The kernel adds nothing of a child to a parent that ignores its end: only the cgroup knows of it.
    let burn = r#"perl -e '$SIG{CHLD} = "IGNORE"; fork ? wait : do { 1 while (times)[0] < 0.5 }'"#;
    let remember = "head -c 100M /dev/zero | tail -c 100M | wc -c";
    let sandbox = with_usual_path(Sandbox::new());
    let run = run_in(&container, &sandbox, &format!("{burn}; {remember}")).finish();
    assert_eq!((run.stdout().as_str(), run.record.exit_code), ("104857600\n", Some(0)), "{run:?}");
    let usage = run.record.usage;
    let cpu_ms = usage.cpu_user_ms + usage.cpu_system_ms;
    assert!(usage.cpu_user_ms >= 450, "{usage:?}");
    assert!(cpu_ms <= container.number("cpu.stat", "usage_usec ") / 1000, "{usage:?}");
    let peak = container.number("memory.peak", "");
    assert!(usage.memory_peak_bytes >= 100 * MIB && usage.memory_peak_bytes <= peak, "{usage:?}, {peak} at the end");
    assert_eq!((usage.oom_kills, usage.oom_kills_from_outside), (0, 0));
}

#[test]
fn one_process_that_is_killed_for_memory_leaves_the_rest() {
    let pod = Cgroup::pod("alone");
    let container = pod.container("run").limit(64 * MIB);
    let sandbox = with_usual_path(Sandbox::new());
    let run = run_in(&container, &sandbox, "tail /dev/zero; echo $?; tail /dev/zero; exit 3").finish();
    assert_eq!((run.stdout().as_str(), run.record.exit_code), ("137\n", Some(3)), "{run:?}");
    let usage = run.record.usage;
    assert_eq!((usage.oom_kills, usage.oom_kills_from_outside), (2, 0));
    assert_eq!(usage.memory_peak_bytes / MIB, 64);
}

/// The pod's own limit stands for a node without memory.
#[test]
fn a_kill_for_want_of_memory_elsewhere_is_told_apart() {
    let pod = Cgroup::pod("outside").limit(64 * MIB);
    let container = pod.container("run").limit(512 * MIB);
    let sandbox = with_usual_path(Sandbox::new());
    let run = run_in(&container, &sandbox, "tail /dev/zero; exit 3").finish();
    assert_eq!(run.record.exit_code, Some(3), "{run:?}");
    assert_eq!((run.record.usage.oom_kills, run.record.usage.oom_kills_from_outside), (0, 1));
}

#[test]
fn the_output_of_a_container_that_was_killed_as_a_whole_is_saved() {
    let registry = Registry::start_at("127.0.0.1", "");
    let sandbox = saving_to(&registry.host);
    let pod = Cgroup::pod("whole");
    let sidecar = pod.container("bundle").limit(512 * MIB).all_die_together();
    let container = pod.container("run").limit(64 * MIB).all_die_together();
    let command = "echo begun; echo kept >kept; sleep 1000 & tail /dev/zero; echo never";
    let helper = helper_in(&sidecar, &sandbox, command);
    let run = run_in(&container, &sandbox, command).finish();
    assert_eq!((run.code, run.stdout().as_str()), (-1, "begun\n"), "the runner is killed, too");
    assert_eq!(container.number("memory.events", "oom_group_kill "), 1);
    // They are counted one after another.
    let killed = || container.number("memory.events", "oom_kill ");
    await_that("the kill of runner, shell, sleep and tail", || killed() >= 4);
    await_that("the end of them all", || container.number("cgroup.events", "populated ") == 0);
    assert!(helper.finish());
    let lock = File::open(sandbox.paths.bin.join("lock")).unwrap();
    assert_eq!(flock(&lock, FlockOperation::NonBlockingLockExclusive), Ok(()));
    let Message { report, stdout_tail, .. } = told(&sandbox);
    assert_eq!((report.record, report.missing), (None, Some(MissingRecord::RunnerDied)));
    assert_eq!((report.not_saved, report.files, report.bytes), (None, 3, 11), "kept, stdout and stderr");
    assert_eq!(stdout_tail, "begun\n");
    assert!(registry.has_blob(&report.saved.unwrap().digest));
    assert_eq!(sidecar.number("memory.events", "oom_kill "), 0);
}

#[test]
fn a_child_that_needs_too_much_memory_dies_alone() {
    let registry = Registry::start_at("127.0.0.1", "");
    // What a child makes of these patterns is alone more than it may have.
    let sandbox = saving_to(&registry.host).requesting(|request| {
        let save = request.save.as_mut().unwrap();
        save.exclude = (0..40_000).map(|n| format!("{n:016}")).collect();
    });
    let pod = Cgroup::pod("child");
    let sidecar = pod.container("bundle").limit(32 * MIB).all_die_together();
    let container = pod.container("run").limit(64 * MIB).all_die_together();
    let helper = helper_in(&sidecar, &sandbox, "exit 3");
    let run = run_in(&container, &sandbox, "exit 3").finish();
    assert_eq!(run.record.exit_code, Some(3), "{run:?}");

    let said = || fs::read_to_string(helper_log(&sandbox)).unwrap();
    await_that("the end of a child", || {
        assert_eq!(sidecar.number("memory.events", "oom_kill "), 0, "all of the helper died");
        said().contains("helper save: ")
    });
    assert!(said().contains("helper save: signal: 6 (SIGABRT)"), "{}", said());
    let first = Message::decode(&fs::read_to_string(&sandbox.paths.termination_message).unwrap()).unwrap();
    assert_eq!(first.report.record, Some(run.record), "told whatever comes");

    // Another is started: with more memory it saves everything.
    let sidecar = sidecar.limit(512 * MIB);
    assert!(helper.finish(), "{}", said());
    let report = told(&sandbox).report;
    assert_eq!((report.not_saved, report.files), (None, 2), "stdout and stderr");
    let saved = report.saved.unwrap();
    assert_eq!(saved.skipped, 0);
    assert!(registry.has_blob(&saved.digest));
    assert_eq!(sidecar.number("memory.events", "oom_kill "), 0);
}

#[test]
fn a_tree_that_the_memory_has_no_room_for_is_told_and_saved_with_more() {
    let registry = Registry::start_at("127.0.0.1", "");
    let sandbox = saving_to(&registry.host);
    let pod = Cgroup::pod("room");
    let sidecar = pod.container("bundle").limit(48 * MIB).all_die_together();
    let container = pod.container("run").limit(64 * MIB).all_die_together();
    // What these links say counts as names do, and is saved faster.
    let many = sandbox.paths.bundle.join("many");
    fs::create_dir(&many).unwrap();
    for n in 0..10_000 {
        symlink(format!("{n:04000}"), many.join(n.to_string())).unwrap();
    }
    let helper = helper_in(&sidecar, &sandbox, "exit 3");
    run_in(&container, &sandbox, "exit 3").finish();
    let said = || fs::read_to_string(helper_log(&sandbox)).unwrap();
    await_that("the end of a child", || said().contains("helper save: "));
    assert!(said().contains("files, directories and links: the helper's memory has"), "{}", said());
    let sidecar = sidecar.limit(512 * MIB);
    assert!(helper.finish(), "{}", said());
    let report = told(&sandbox).report;
    assert_eq!((report.not_saved, report.files, report.saved.map(|saved| saved.skipped)), (None, 2, Some(0)));
    assert_eq!(sidecar.number("memory.events", "oom_kill "), 0);
}
