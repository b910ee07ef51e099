//! The helper sees to it that the output is saved: the real runner, and children that a script plays.

#![allow(clippy::unwrap_used, clippy::panic)] // in functions that tests share

#[path = "sandbox/helper.rs"]
mod helping;
#[path = "sandbox/mod.rs"]
mod sandbox;

use bundlerun::contract::{
    Background, InputSource, Message, MissingRecord, NotSaved, Report, RequestedInput, SaveFailure, SaveRequest, Saved,
    SnapshotRequest,
};
use bundlerun::helper;
use helping::{Helper, Process, fresh, start, told};
use rustix::process::{Pid, Signal};
use sandbox::{Sandbox, await_that, is_alive, sh};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::thread;
use std::time::Duration;

/// With a store, and a child for saving that is this script: `$bin` has the marks, `$n` counts the tries.
fn saving_by(script: &str) -> Sandbox {
    let sandbox = fresh().requesting(|request| {
        request.save = Some(SaveRequest {
            repository: "registry.example.com/bundles".to_owned(),
            tag: "run.1.0".to_owned(),
            exclude: vec![],
            deadline_seconds: 60,
            interrupted_seconds: 60,
            follows_command: false,
            give_up_seconds: 300,
            made_by: serde_json::Map::new(),
            told_variables: vec![],
            max_blob_bytes: None,
            background: None,
            snapshots: None,
        });
    });
    let script = format!(
        "#!/bin/sh\nbin=$4/.bundlerun/bin\n{CHECKS}\n[ \"$1 $2\" = 'helper save' ] || exec {} \"$@\"\n\
         echo $$ >>\"$bin/tries\"\nn=$(grep -c . \"$bin/tries\")\n{script}\n",
        env!("CARGO_BIN_EXE_bundle-operator")
    );
    fs::write(sandbox.root().join("accepts"), r#""accepts""#).unwrap();
    fs::remove_file(&sandbox.paths.operator_binary).unwrap();
    // Written by another process: children that other tests fork just now would hold it open for writing.
    fs::write(sandbox.root().join("script"), script).unwrap();
    let mut install = std::process::Command::new("install");
    install.args(["-m", "755"]).arg(sandbox.root().join("script")).arg(&sandbox.paths.operator_binary);
    assert!(install.status().unwrap().success());
    sandbox
}

/// A store that says what is in `answer.1`, then `answer.2` and so on, when it is asked whether it would accept the
/// output; where there is none, that it does.
const CHECKS: &str = r#"if [ "$2" = check-store ]; then
    echo "$$" >>"$bin/questions"
    answer=$4/answer.$(grep -c . "$bin/questions")
    [ -e "$answer" ] || answer=$4/accepts
    cp "$answer" "$bin/.store" && mv "$bin/.store" "$bin/store.json"
    exec grep -q accepts "$answer"
fi"#;

fn deadlines(sandbox: Sandbox, deadline: u64, interrupted: u64) -> Sandbox {
    sandbox.requesting(|request| {
        let save = request.save.as_mut().unwrap();
        (save.deadline_seconds, save.interrupted_seconds) = (deadline, interrupted);
    })
}

const SAVES: &str = r#"echo '{"digest":"sha256:abc","pushedBytes":7,"skipped":1,"files":4,"bytes":99}' >"$bin/.draft"
mv "$bin/.draft" "$bin/saved.json""#;

fn saved() -> Saved {
    Saved { digest: "sha256:abc".to_owned(), pushed_bytes: 7, skipped: 1, ..Saved::default() }
}

fn tries(sandbox: &Sandbox) -> Vec<String> {
    let tries = fs::read_to_string(sandbox.paths.bin.join("tries")).unwrap_or_default();
    tries.lines().map(str::to_owned).collect()
}

#[test]
fn a_saved_output_is_told_with_its_size() {
    let sandbox = saving_by(SAVES);
    let (helper, runner) = start(&sandbox, &sh("echo out; exit 3"));
    runner.finish();
    helper.finish();
    let Message { report, stdout_tail, .. } = told(&sandbox);
    assert_eq!((report.saved, report.not_saved, report.files, report.bytes), (Some(saved()), None, 4, 99));
    assert_eq!((report.record.unwrap().exit_code, stdout_tail.as_str()), (Some(3), "out\n"));
}

#[test]
fn a_message_that_cannot_be_written_costs_no_output() {
    // What cannot be written can be written again once the output is saved.
    let sandbox = saving_by(&format!("rmdir \"$4/message\" || exit 9\n{SAVES}"));
    let message = sandbox.paths.termination_message.clone();
    let (helper, runner) = start(&sandbox, &sh("until [ -e go ]; do sleep 0.02; done"));
    fs::remove_file(&message).unwrap();
    fs::create_dir(sandbox.root().join("message")).unwrap();
    symlink(sandbox.root().join("message"), &message).unwrap();
    fs::write(sandbox.paths.bundle.join("go"), "").unwrap();
    runner.finish();
    helper.finish();
    assert_eq!(told(&sandbox).report.saved, Some(saved()));
}

#[test]
fn a_name_of_the_output_that_the_command_has_taken_is_told() {
    let sandbox = saving_by(
        r#"echo '{"digest":"sha256:abc","files":4,"bytes":99,"note":"ours is stdout.run"}' >"$bin/.draft"
mv "$bin/.draft" "$bin/saved.json""#,
    );
    let (helper, runner) = start(&sandbox, &sh("echo mine >stderr; mkdir stdout; echo ours; exit 3"));
    runner.finish();
    helper.finish();
    let Message { report, stdout_tail, .. } = told(&sandbox);
    assert_eq!(stdout_tail, "ours\n");
    let record = report.record.unwrap();
    assert_eq!(record.detail, "ours is stdout.run");
    assert_eq!(fs::read_to_string(sandbox.paths.bundle.join("stderr")).unwrap(), "mine\n");
}

#[test]
fn a_child_that_crashes_three_times_is_started_again() {
    let sandbox = saving_by(&format!("[ $n -gt 3 ] || exit 9\n{SAVES}"));
    let (helper, runner) = start(&sandbox, &sh("true"));
    runner.finish();
    helper.finish();
    assert_eq!(told(&sandbox).report.saved, Some(saved()));
    assert_eq!(tries(&sandbox).len(), 4);
}

/// A script of a child that the store refuses.
fn refused(failure: SaveFailure) -> String {
    format!(r#"{{ echo '{{"failure":"{failure:?}","detail":"as it says"}}' >"$bin/not-saved.json"; exit 1; }}"#)
}

const ANSWERS: [SaveFailure; 7] = [
    SaveFailure::StoreDenied,
    SaveFailure::StoreNotFound,
    SaveFailure::StoreQuotaExceeded,
    SaveFailure::StoreTls,
    SaveFailure::OutputTooLarge,
    SaveFailure::StoreUnreachable,
    SaveFailure::StoreCorrupt,
];

fn answers(sandbox: &Sandbox, answers: &[&str]) {
    for (number, answer) in answers.iter().enumerate() {
        fs::write(sandbox.root().join(format!("answer.{}", number + 1)), answer).unwrap();
    }
}

const REFUSES: &str = r#"{"refuses":{"failure":"StoreDenied","detail":"401"}}"#;
const FAILS: &str = r#"{"fails":{"failure":"StoreUnreachable","detail":"503"}}"#;

#[test]
fn a_command_waits_for_a_store_that_refuses_until_it_accepts() {
    let sandbox = saving_by(SAVES);
    answers(&sandbox, &[REFUSES, REFUSES]);
    let (helper, runner) = start(&sandbox, &sh("grep -c . ../.bundlerun/bin/questions"));
    let run = runner.finish();
    helper.finish();
    assert_eq!((run.code, run.stdout().as_str()), (0, "3\n"), "{run:?}");
    assert_eq!(told(&sandbox).report.saved, Some(saved()));
}

#[test]
fn a_command_does_not_wait_for_a_store_that_fails_or_does_not_answer() {
    let sandbox = saving_by(SAVES);
    answers(&sandbox, &[FAILS, REFUSES, FAILS]);
    let (helper, runner) =
        start(&sandbox, &sh("until [ $(grep -c . ../.bundlerun/bin/questions) = 3 ]; do sleep 0.1; done"));
    let run = runner.finish();
    helper.finish();
    assert_eq!((run.code, told(&sandbox).report.saved), (0, Some(saved())), "{run:?}");

    // A child that crashes, or hangs, gives no answer.
    let sandbox = saving_by(SAVES);
    answers(&sandbox, &["", "", "", "", "", "", ""]);
    let (helper, runner) = start(&sandbox, &sh("cat ../.bundlerun/bin/store.json"));
    let run = runner.finish();
    helper.finish();
    assert!(run.stdout().contains("StoreUnreachable"), "{run:?}");
}

#[test]
fn a_stop_ends_the_wait_for_a_store() {
    let sandbox = saving_by(SAVES);
    answers(&sandbox, &[REFUSES; 20]);
    let (helper, runner) = start(&sandbox, &sh("true"));
    await_that("the first answer", || sandbox.paths.bin.join("store.json").exists());
    await_that("the runner", || sandbox.paths.record.join("started").exists());
    runner.signal(Signal::TERM);
    let run = runner.finish();
    helper.stop();
    assert_eq!((run.record.asked_to_stop, run.record.started_at_ms), (true, None), "{run:?}");
}

#[test]
fn nothing_that_a_store_answers_is_final_before_the_deadline() {
    thread::scope(|scope| {
        for failure in ANSWERS {
            scope.spawn(move || {
                let sandbox = saving_by(&format!("[ $n -gt 2 ] || {}\n{SAVES}", refused(failure)));
                let (helper, runner) = start(&sandbox, &sh("true"));
                runner.finish();
                helper.finish();
                let report = told(&sandbox).report;
                assert_eq!((report.saved, report.not_saved), (Some(saved()), None), "{failure:?}");
                assert_eq!(tries(&sandbox).len(), 3, "{failure:?}");
            });
        }
    });
}

#[test]
fn at_the_deadline_the_last_answer_is_told() {
    thread::scope(|scope| {
        for failure in ANSWERS {
            scope.spawn(move || {
                let sandbox = deadlines(saving_by(&refused(failure)), 3, 60);
                let (helper, runner) = start(&sandbox, &sh("printf 12345 >f"));
                runner.finish();
                helper.finish();
                let Report { saved, not_saved, files, bytes, .. } = told(&sandbox).report;
                let want = NotSaved { failure, detail: "for 3 s: as it says".to_owned() };
                assert_eq!((saved, not_saved), (None, Some(want)));
                assert!(tries(&sandbox).len() > 1, "{failure:?}");
                assert_eq!((files, bytes), (3, 5), "what is there is counted all the same");
            });
        }
    });
}

#[test]
fn a_registry_that_comes_back_is_no_reason_to_lose_the_output() {
    let sandbox = saving_by(&format!(
        "[ $n -gt 1 ] || {{ echo '{{\"failure\":\"StoreUnreachable\",\"detail\":\"refused\"}}' >\"$bin/not-saved.json\"; exit 1; }}\n{SAVES}"
    ));
    let (helper, runner) = start(&sandbox, &sh("true"));
    runner.finish();
    helper.finish();
    let report = told(&sandbox).report;
    assert_eq!((report.saved, report.not_saved), (Some(saved()), None));
}

#[test]
fn the_deadline_ends_a_child_and_tells_how_far_it_got() {
    let sandbox = deadlines(
        saving_by(
            "echo '{\"stage\":\"Saving\",\"doneBytes\":12,\"totalBytes\":34}' >\"$bin/progress.json\"\nexec sleep 100",
        ),
        2,
        60,
    );
    let (helper, runner) = start(&sandbox, &sh("true"));
    runner.finish();
    helper.finish();
    let not_saved = told(&sandbox).report.not_saved.unwrap();
    assert_eq!(not_saved.failure, SaveFailure::SaveDeadlineExceeded);
    assert_eq!(not_saved.detail, "12 of 34 bytes in 2 s");
    assert!(!is_alive(&tries(&sandbox)[0]));
    assert!(!sandbox.paths.bin.join("progress.json").exists());
}

#[test]
fn a_run_that_was_asked_to_stop_has_the_shorter_deadline() {
    let sandbox = deadlines(saving_by("exec sleep 100"), 60, 1);
    let (helper, runner) = start(&sandbox, &sh("touch ready; sleep 1000"));
    sandbox.await_file("ready");
    runner.signal(Signal::TERM);
    assert!(runner.finish().record.asked_to_stop);
    helper.finish();
    let not_saved = told(&sandbox).report.not_saved.unwrap();
    assert_eq!(not_saved.detail, "nothing was saved in 1 s");
}

#[test]
fn a_run_that_its_user_stops_has_the_usual_deadline() {
    let sandbox = deadlines(saving_by(&format!("sleep 2\n{SAVES}")), 60, 0);
    let order = sandbox.paths.request.join("stop");
    fs::write(&order, "").unwrap();
    let (helper, runner) =
        start(&sandbox, &sh("trap 'echo saved >state; exit 3' TERM; touch ready; while :; do sleep 0.1; done"));
    sandbox.await_file("ready");
    fs::write(&order, "2026-11-26T10:00:00Z").unwrap();
    let record = runner.finish().record;
    assert!(record.asked_to_stop && record.exit_code == Some(3), "{record:?}");
    helper.finish();
    assert_eq!(told(&sandbox).report.saved, Some(saved()));
    assert_eq!(fs::read_to_string(sandbox.paths.bundle.join("state")).unwrap(), "saved\n");
}

#[test]
fn sigterm_after_the_end_does_not_shorten_saving() {
    let sandbox = deadlines(saving_by(&format!("sleep 2\n{SAVES}")), 60, 0);
    let (helper, runner) = start(&sandbox, &sh("true"));
    runner.finish();
    helper.stop();
    assert_eq!(told(&sandbox).report.saved, Some(saved()));
}

#[test]
fn sigterm_while_the_command_runs_does() {
    let sandbox = deadlines(saving_by("exec sleep 100"), 60, 1);
    let (helper, runner) = start(&sandbox, &sh("touch ready; sleep 1000"));
    sandbox.await_file("ready");
    let Helper { thread, stop } = helper;
    drop(stop);
    std::thread::sleep(Duration::from_millis(300));
    assert!(!thread.is_finished(), "a runner that lives is waited for");
    runner.signal(Signal::KILL);
    await_that("the end of the helper", || thread.is_finished());
    let report = told(&sandbox).report;
    assert_eq!(report.missing, Some(MissingRecord::RunnerDied));
    assert_eq!(report.not_saved.unwrap().detail, "nothing was saved in 1 s");
}

#[test]
fn the_output_of_a_runner_that_died_is_saved() {
    let sandbox = saving_by(SAVES);
    let (helper, runner) = start(&sandbox, &sh("touch ready; sleep 1000"));
    sandbox.await_file("ready");
    await_that("the mark", || sandbox.paths.record.join("began").exists());
    runner.signal(Signal::KILL);
    helper.finish();
    let report = told(&sandbox).report;
    assert_eq!((report.missing, report.saved), (Some(MissingRecord::RunnerDied), Some(saved())));
}

#[test]
fn what_never_began_has_no_output() {
    let sandbox = saving_by(SAVES);
    sandbox.bashrc("exit 0");
    let (helper, runner) = start(&sandbox, &sh("true"));
    runner.finish();
    helper.finish();
    let sandbox_without_start = saving_by(SAVES);
    sandbox_without_start.write_request(&sh("true"));
    let helper = Helper::start(&sandbox_without_start);
    let _ = helper::wait_prepared(&sandbox_without_start.paths);
    helper.stop();
    for sandbox in [sandbox, sandbox_without_start] {
        let report = told(&sandbox).report;
        assert_eq!((report.saved, report.not_saved, tries(&sandbox).len()), (None, None, 0));
    }
}

#[test]
fn a_helper_that_is_killed_while_it_saves_goes_on() {
    let sandbox = saving_by(&format!("[ $n -gt 1 ] || exec sleep 100\n{SAVES}"));
    sandbox.write_request(&sh("echo out"));
    let helper = Process::start(&sandbox);
    let _ = helper::wait_prepared(&sandbox.paths);
    sandbox.start(&sh("echo out")).finish();
    await_that("the first child", || tries(&sandbox).len() == 1);
    let first = Message::decode(&fs::read_to_string(&sandbox.paths.termination_message).unwrap()).unwrap();
    assert_eq!(first.report.record.unwrap().exit_code, Some(0), "told before anything is saved");
    helper.kill();
    // In a container the child would go with it; this one is no child of ours and never asked for that.
    let orphan = tries(&sandbox)[0].parse().ok().and_then(Pid::from_raw).unwrap();
    rustix::process::kill_process(orphan, Signal::KILL).unwrap();
    assert!(Process::start(&sandbox).finish());
    assert_eq!(told(&sandbox).report.saved, Some(saved()));
    assert_eq!(tries(&sandbox).len(), 2);

    // Once more: it repeats what it said.
    let said = fs::read_to_string(&sandbox.paths.termination_message).unwrap();
    fs::write(&sandbox.paths.termination_message, "").unwrap();
    assert!(Process::start(&sandbox).finish());
    assert_eq!(fs::read_to_string(&sandbox.paths.termination_message).unwrap(), said);
    assert_eq!(tries(&sandbox).len(), 2);
}

#[test]
fn the_digests_of_inputs_are_told() {
    let sandbox = saving_by(SAVES).requesting(|request| {
        let source = InputSource::Text("text".to_owned());
        request.inputs = vec![RequestedInput::new("t", source)];
    });
    let digest = format!("sha256:{}", "a".repeat(64));
    fs::write(sandbox.paths.bin.join("pinned.json"), format!(r#"{{"0":"{digest}"}}"#)).unwrap();
    let (helper, runner) = start(&sandbox, &sh("echo out"));
    runner.finish();
    helper.finish();
    let message = told(&sandbox);
    assert_eq!(message.input_digests.into_iter().collect::<Vec<_>>(), [(0, digest)]);
    assert_eq!((message.report.saved, message.stdout_tail.as_str()), (Some(saved()), "out\n"));
}

/// Kilobytes of resident memory that are the process's own.
fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn the_main_process_is_small() {
    let sandbox = saving_by("exec sleep 100");
    sandbox.write_request(&sh("true"));
    let helper = Process::start(&sandbox);
    let _ = helper::wait_prepared(&sandbox.paths);
    sandbox.start(&sh("true")).finish();
    await_that("the child", || tries(&sandbox).len() == 1);
    let kib = resident_kib(helper.id());
    let orphan = tries(&sandbox)[0].parse().ok().and_then(Pid::from_raw).unwrap();
    helper.kill();
    let _ = rustix::process::kill_process(orphan, Signal::KILL);
    assert!(kib < 4096, "{kib} KiB");
}

/// Niceness, and the class in which the disk serves it.
fn priority(pid: &str) -> (i32, String) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let nice = stat.rsplit(") ").next().and_then(|fields| fields.split(' ').nth(16)?.parse().ok());
    let told = std::process::Command::new("ionice").args(["-p", pid]).output().unwrap().stdout;
    let class = String::from_utf8(told).unwrap();
    (nice.unwrap_or_default(), class.trim().split(':').next().unwrap().to_owned())
}

/// A store that never answers, so that who speaks to it stays, and a run that it is the store of.
fn with_silent_store(change: impl FnOnce(&mut SaveRequest)) -> (TcpListener, Sandbox) {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = silent.local_addr().unwrap().to_string();
    let sandbox = saving_by(SAVES).requesting(|request| {
        request.registries.insecure = vec![host.clone()];
        let save = request.save.as_mut().unwrap();
        save.repository = format!("{host}/bundles");
        change(save);
    });
    (silent, sandbox)
}

/// Has a look at a helper while its command runs.
fn beside_a_command(sandbox: &Sandbox, look: impl FnOnce(&Process)) {
    let command = sh("touch ready; sleep 1000");
    sandbox.write_request(&command);
    let helper = Process::start(sandbox);
    let _ = helper::wait_prepared(&sandbox.paths);
    let _runner = sandbox.start(&command);
    sandbox.await_file("ready");
    look(&helper);
    helper.kill();
}

#[test]
fn what_nobody_waits_for_takes_only_what_nobody_else_wants() {
    let snapshots = |every_seconds| {
        Some(SnapshotRequest { tag: "run.1.s".to_owned(), exclude: None, every_seconds, at_end: false })
    };
    let (_silent, sandbox) = with_silent_store(|save| {
        save.background =
            Some(Background { quiet_seconds: 0, connections: 1, bytes_per_second: None, waste_percent: 0 });
        save.snapshots = snapshots(Some(1));
    });
    beside_a_command(&sandbox, |helper| {
        for task in ["push-early", "regular-snapshot"] {
            let lowest = (19, "idle".to_owned());
            await_that(task, || helper.child(task).is_some_and(|child| priority(&child) == lowest));
        }
    });

    // One that nobody waits for is in the way of none that the command waits for.
    let (_silent, sandbox) = with_silent_store(|save| save.snapshots = snapshots(Some(1)));
    beside_a_command(&sandbox, |helper| {
        await_that("regular-snapshot", || helper.child("regular-snapshot").is_some());
        fs::write(sandbox.paths.record.join("snapshots/0123456789abcdef"), "").unwrap();
        await_that("snapshot", || helper.child("snapshot").is_some());
    });

    // The command waits for this one.
    let (silent, sandbox) = with_silent_store(|save| save.snapshots = snapshots(None));
    beside_a_command(&sandbox, |helper| {
        fs::write(sandbox.paths.record.join("snapshots/0123456789abcdef"), "").unwrap();
        let _asks = silent.accept().unwrap();
        let usual = priority(&std::process::id().to_string());
        assert_eq!(priority(&helper.child("snapshot").unwrap()), usual);
    });
}
