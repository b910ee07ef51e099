//! The helper together with the real runner, in directories of their own: what the kubelet gets to read.

#![allow(clippy::unwrap_used)] // in functions that tests share

#[path = "faulty_disk/mod.rs"]
mod faulty_disk;
#[path = "sandbox/helper.rs"]
mod helping;
#[path = "sandbox/mod.rs"]
mod sandbox;

use bundlerun::contract::{Cause, InputSource, MissingRecord, RequestedInput};
use bundlerun::helper;
use faulty_disk::{Fault, FaultyDisk};
use helping::{Helper, Process, fresh, start, told};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use sandbox::{Sandbox, await_that, sh};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::process::ExitCode;
use std::thread;

#[test]
fn the_kubelet_is_told_how_the_command_ended_and_what_it_left() {
    let sandbox = fresh();
    let (helper, runner) =
        start(&sandbox, &sh("echo out; echo err >&2; mkdir d; printf 12345 > d/f; ln d/f g; exit 3"));
    let run = runner.finish();
    helper.finish();
    let message = told(&sandbox);
    assert_eq!(message.report.record, Some(run.record));
    assert_eq!((message.stdout_tail.as_str(), message.stderr_tail.as_str()), ("out\n", "err\n"));
    assert_eq!((message.report.files, message.report.bytes, message.report.missing), (3, 13, None));
}

#[test]
fn the_prepared_runner_is_the_runner() {
    let sandbox = fresh();
    let helper = Helper::start(&sandbox);
    let _ = helper::wait_prepared(&sandbox.paths);
    let same =
        fs::read(sandbox.paths.bin.join("bundle-runner")).unwrap() == fs::read(&sandbox.paths.runner_in_image).unwrap();
    assert!(same);
    await_that("the staged mark", || sandbox.paths.bin.join("staged").exists());
    helper.stop();
}

#[test]
fn a_runner_that_dies_is_noticed_at_once() {
    let sandbox = fresh();
    let (helper, runner) = start(&sandbox, &sh("echo begun; touch ready; sleep 1000"));
    sandbox.await_file("ready");
    await_that("its output", || fs::metadata(sandbox.paths.output.join("stdout")).unwrap().len() > 0);
    runner.signal(Signal::KILL);
    helper.finish();
    let message = told(&sandbox);
    assert_eq!((message.report.record, message.report.missing), (None, Some(MissingRecord::RunnerDied)));
    assert_eq!(message.stdout_tail, "begun\n");
}

/// A file system under the working directory; gone with the value.
struct Mounted<'a>(&'a std::path::Path);

impl<'a> Mounted<'a> {
    fn on(at: &'a std::path::Path, disk: &FaultyDisk) -> Self {
        let bind = std::process::Command::new("mount").arg("--bind").args([disk.path(), at]).status();
        assert!(bind.unwrap().success());
        Self(at)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_working_directory_that_gives_no_answer_keeps_no_ending_from_being_told() {
    let sandbox = fresh().requesting(|request| request.disk_bytes = Some(1 << 30));
    let disk = FaultyDisk::mount();
    fs::create_dir(disk.backing().join("dir")).unwrap();
    fs::write(disk.backing().join("a"), "12345").unwrap();
    let mounted = Mounted::on(&sandbox.paths.bundle, &disk);
    // From the start: the watch over the disk hangs in it, too.
    disk.set("dir", Fault::Hangs);
    let go = sandbox.root().join("go");
    let waits = format!("echo out; while [ ! -e {} ]; do sleep 0.02; done; exit 3", go.display());
    let (helper, runner) = start(&sandbox, &sh(&waits));
    await_that("the watch to hang", || disk.held() >= 1);
    fs::write(&go, "").unwrap();
    let run = runner.finish();
    let cannot_end = sandbox.paths.bin.join("cannot-end");
    await_that("the report, and that the helper cannot end", || cannot_end.exists());
    assert!(!helper.thread.is_finished() && disk.held() >= 2, "{} questions wait", disk.held());
    let message = told(&sandbox);
    assert_eq!((message.report.record, message.stdout_tail.as_str()), (Some(run.record), "out\n"));
    assert_eq!((message.report.files, message.report.bytes), (3, 9), "what could be counted");
    disk.mend();
    helper.finish();
    drop(mounted);
}

#[test]
fn a_run_that_never_starts_is_told_on_sigterm() {
    let sandbox = fresh();
    let helper = Helper::start(&sandbox);
    let _ = helper::wait_prepared(&sandbox.paths);
    helper.stop();
    assert_eq!(told(&sandbox).report.missing, Some(MissingRecord::NeverStarted));
}

#[test]
fn sigterm_does_not_hide_a_runner_that_is_still_at_work() {
    let sandbox = fresh();
    let (helper, runner) = start(&sandbox, &sh("touch ready; while [ ! -e go ]; do sleep 0.02; done; exit 4"));
    sandbox.await_file("ready");
    let Helper { thread, stop } = helper;
    drop(stop);
    fs::write(sandbox.paths.bundle.join("go"), "").unwrap();
    runner.finish();
    await_that("the end of the helper", || thread.is_finished());
    assert_eq!(told(&sandbox).report.record.unwrap().exit_code, Some(4));
}

#[test]
fn a_working_directory_over_its_limit_ends_the_run() {
    let sandbox = fresh().disk(1_000_000);
    let (helper, runner) = start(&sandbox, &sh("head -c 3000000 /dev/zero > big; sleep 1000"));
    let run = runner.finish();
    assert_eq!((run.code, run.record.cause), (125, Some(Cause::DiskLimitExceeded)));
    helper.finish();
    assert_eq!(told(&sandbox).report.record.unwrap().cause, Some(Cause::DiskLimitExceeded));
}

/// The child that watches the disk is wanted once the runner is there, and not a moment before: an image may be pulled
/// for a long time.
#[test]
fn the_disk_is_watched_from_the_runners_start() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let href = format!("http://{}/file", silent.local_addr().unwrap());
    let never_staged = RequestedInput::new("in", InputSource::Url { href, sha256: "0".repeat(64) });
    let sandbox = fresh().disk(1_000_000).requesting(|request| request.inputs = vec![never_staged]);
    sandbox.write_request(&sh(""));
    let helper = Process::start(&sandbox);
    let _ = helper::wait_prepared(&sandbox.paths);
    let is_watched = || helper.child("watch-disk").is_some();
    // About a second later.
    await_that("how far staging is", || sandbox.paths.bin.join("progress.json").exists());
    assert!(!is_watched());
    // A command that takes the trace of the start away, faster than the helper can look, is watched like any other.
    let lock = fs::File::open(sandbox.paths.bin.join("lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let started = sandbox.paths.record.join("started");
    kill_process(pid(&helper), Signal::STOP).unwrap();
    fs::write(&started, "").unwrap();
    fs::remove_file(&started).unwrap();
    kill_process(pid(&helper), Signal::CONT).unwrap();
    await_that("the watch", is_watched);
    drop(lock);
    assert!(helper.finish());
}

#[test]
fn a_helper_that_is_started_again_watches_the_disk_although_it_sees_no_runner() {
    let sandbox = fresh().disk(1_000_000);
    sandbox.write_request(&sh(""));
    fs::write(sandbox.paths.bin.join("prepared"), "").unwrap();
    let helper = Process::start(&sandbox);
    await_that("the watch", || helper.child("watch-disk").is_some());
    kill_process(pid(&helper), Signal::TERM).unwrap();
    assert!(helper.finish());
}

fn pid(helper: &Process) -> Pid {
    Pid::from_raw(i32::try_from(helper.id()).unwrap()).unwrap()
}

#[test]
fn what_the_command_says_counts_for_the_limit_of_its_disk() {
    let sandbox = fresh().disk(1_000_000);
    let (helper, runner) = start(&sandbox, &sh("head -c 600000 /dev/zero > big; head -c 600000 /dev/zero; sleep 1000"));
    let run = runner.finish();
    assert_eq!((run.code, run.record.cause), (125, Some(Cause::DiskLimitExceeded)));
    helper.finish();
}

#[test]
fn caches_have_a_limit_of_their_own() {
    let sandbox = fresh().disk(1_000_000);
    let cache = sandbox.paths.cache.display();
    // All together would be over the limit from the start.
    let command = format!(
        "head -c 600000 /dev/zero >kept; cd {cache}; head -c 600000 /dev/zero >fits; head -c 600000 /dev/zero >more; sleep 1000"
    );
    let (helper, runner) = start(&sandbox, &sh(&command));
    let run = runner.finish();
    assert_eq!((run.code, run.record.cause), (125, Some(Cause::DiskLimitExceeded)));
    assert!(run.record.detail.starts_with("the caches in /.bundlerun/cache have 12"), "{}", run.record.detail);
    helper.finish();
}

#[test]
fn the_working_directory_is_the_users_before_the_command_begins() {
    let sandbox = fresh().run_by_nobody();
    std::os::unix::fs::chown(&sandbox.paths.bundle, Some(0), Some(0)).unwrap();
    let (helper, runner) = start(&sandbox, &sh("[ -O . ] && mkdir d && echo mine"));
    let run = runner.finish();
    assert_eq!((run.stdout().as_str(), run.code), ("mine\n", 0), "{run:?}");
    println!("waited {} ms", run.record.staging_ms);
    helper.finish();
}

#[test]
fn a_restarted_helper_goes_on() {
    let sandbox = fresh();
    // The first dies between its marks; nobody tells the second of it.
    fs::write(sandbox.paths.bin.join("prepared"), "").unwrap();
    fs::write(sandbox.paths.bin.join("bundle-runner"), "in use").unwrap();
    // Of the command, which cannot keep the helper from its work by that.
    fs::write(sandbox.paths.record.join("snapshots"), "").unwrap();
    let (helper, runner) = start(&sandbox, &sh("echo hi"));
    runner.finish();
    helper.finish();
    assert_eq!(fs::read_to_string(sandbox.paths.bin.join("bundle-runner")).unwrap(), "in use");
    assert_eq!(told(&sandbox).report.record.unwrap().exit_code, Some(0));

    // The kubelet starts it again after it reported: the same words, though the record is gone.
    let before = fs::read_to_string(&sandbox.paths.termination_message).unwrap();
    fs::remove_file(sandbox.paths.record.join("record.json")).unwrap();
    fs::write(&sandbox.paths.termination_message, "").unwrap();
    Helper::start(&sandbox).finish();
    assert_eq!(fs::read_to_string(&sandbox.paths.termination_message).unwrap(), before);
}

#[test]
fn what_the_command_puts_in_our_way_is_never_followed() {
    type Trap = fn(&Sandbox);
    let traps: [(Trap, &str); 5] = [
        (
            |sandbox| {
                fs::write(sandbox.root().join("secret"), r#"{"exitCode":0,"detail":"secret"}"#).unwrap();
                symlink("../../secret", sandbox.paths.record.join("record.json")).unwrap();
            },
            "a link",
        ),
        (|sandbox| fs::write(sandbox.paths.record.join("record.json"), "x".repeat(100_000)).unwrap(), "too much"),
        (|sandbox| fs::write(sandbox.paths.record.join("record.json"), "{").unwrap(), "half of it"),
        (|sandbox| fs::create_dir(sandbox.paths.record.join("record.json")).unwrap(), "a directory"),
        (
            |sandbox| {
                let fifo = sandbox.paths.record.join("record.json");
                assert!(std::process::Command::new("mkfifo").arg(fifo).status().unwrap().success());
            },
            "a pipe",
        ),
    ];
    for (trap, what) in traps {
        let sandbox = fresh();
        fs::write(sandbox.root().join("secret-out"), "secret").unwrap();
        symlink("../secret-out", sandbox.paths.output.join("stdout")).unwrap();
        let fifo = sandbox.paths.output.join("stderr");
        assert!(std::process::Command::new("mkfifo").arg(fifo).status().unwrap().success());
        fs::write(sandbox.paths.record.join("started"), "").unwrap();
        trap(&sandbox);
        Helper::start(&sandbox).finish();
        let message = told(&sandbox);
        assert_eq!(message.report.missing, Some(MissingRecord::Unreadable), "{what}");
        assert_eq!((message.stdout_tail, message.stderr_tail), (String::new(), String::new()), "{what}");
    }
}

#[test]
fn the_hook_returns_when_it_is_prepared() {
    let sandbox = fresh();
    let paths = sandbox.paths.clone();
    let hook = thread::spawn(move || helper::wait_prepared(&paths));
    assert!(!hook.is_finished());
    fs::write(sandbox.paths.bin.join("prepared"), "").unwrap();
    await_that("the hook", || hook.is_finished());
    assert_eq!(format!("{:?}", hook.join().unwrap()), format!("{:?}", ExitCode::SUCCESS));
}

#[test]
fn without_a_runner_in_the_image_the_helper_fails() {
    let sandbox = fresh();
    fs::remove_file(&sandbox.paths.runner_in_image).unwrap();
    let helper = Helper::start(&sandbox);
    assert_ne!(format!("{:?}", helper.thread.join().unwrap()), format!("{:?}", ExitCode::SUCCESS));
}

/// Runs the helper in a process of its own, for `sigterm_ends_the_helper`.
#[test]
#[ignore = "is a process of another test"]
fn helper_process() {
    let root = std::env::var_os("HELPER_ROOT").unwrap();
    let _ = helper::run(&bundlerun::runner::Paths::below(root.as_ref()));
    let dumpable = rustix::process::dumpable_behavior().unwrap();
    assert_eq!(dumpable, rustix::process::DumpableBehavior::NotDumpable);
}

#[test]
fn sigterm_ends_the_helper() {
    let sandbox = fresh();
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "helper_process", "--ignored"]).env("HELPER_ROOT", sandbox.root());
    let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    let _ = helper::wait_prepared(&sandbox.paths);
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(told(&sandbox).report.missing, Some(MissingRecord::NeverStarted));
}
