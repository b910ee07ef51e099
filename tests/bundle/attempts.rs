//! Attempts of one run, each in a pod of its own: the real helper, its children and the real runner before a real registry.

use crate::blocks::blocks;
use crate::common::{Fault, NO_LIMITS, Place, Proxy, Registry, access, names};
use crate::helping::{Helper, Process, fresh, told};
use crate::sandbox::{Sandbox, await_that, sh};
use axum::http::Method;
use bundlerun::bundle::{Progress, fetch, find_snapshot};
use bundlerun::contract::{Command, Message};
use bundlerun::helper;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

const LARGE: u64 = 70_000_000;

/// An attempt of a run whose store is at `host`; `more` is added to what is asked of saving.
fn attempt(host: &str, number: u32, more: &Value) -> Sandbox {
    let tag = |number| format!("run.{number}.s");
    let mut save = json!({
        "repository": format!("{host}/a"), "tag": format!("run.{number}"), "deadlineSeconds": 600,
        "interruptedSeconds": 600, "followsCommand": number > 1, "snapshots": {"tag": tag(number)},
    });
    save.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let sandbox = fresh().requesting(|request| {
        request.registries.insecure = vec![host.to_owned()];
        request.save = Some(serde_json::from_value(save).unwrap());
        request.resume_from = (1..number).rev().map(tag).collect();
    });
    // As in a pod, where it needs not be told where it is.
    let root = sandbox.root().display().to_string();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_bundle-runner"), sandbox.root().join("snapshot")).unwrap();
    sandbox.tool("ask", format!("#!/bin/sh\nexec {root}/snapshot --root {root} \"$@\"\n").as_bytes(), 0o755);
    sandbox.env("BUNDLE_SNAPSHOT", &format!("{root}/usr/bin/ask"))
}

/// Runs an attempt to its end. Returns what the kubelet gets to read.
fn run(sandbox: &Sandbox, command: &Command) -> Message {
    let (helper, runner) = crate::helping::start(sandbox, command);
    runner.finish();
    helper.finish();
    told(sandbox)
}

fn sent(proxy: &Proxy) -> u64 {
    proxy.seen.sent.load(Ordering::Relaxed)
}

fn is_manifest(method: &Method, path: &str, tag: &str) -> bool {
    *method == Method::PUT && path.ends_with(&format!("/manifests/{tag}"))
}

/// The node ends all while the output is being saved. The next attempt goes on from what was kept, and what it leaves again is
/// in the store.
#[test]
fn what_was_sent_in_too_little_time_serves_the_next_attempt() {
    let registry = Registry::start();
    let holds =
        |method: &Method, path: &str, _| if is_manifest(method, path, "run.1") { Fault::HoldBack } else { Fault::None };
    let proxy = Proxy::before("127.0.0.1", &registry.host, holds);
    let command = sh(&format!(
        "cat step 2>/dev/null; echo 1 >step; \"$BUNDLE_SNAPSHOT\" || exit 5; echo 2 >step
         yes 0123456789 | head -c {LARGE} >large; [ -n \"$BUNDLE_RESUMED_FROM\" ] || {{ touch ready; sleep 1000; }}"
    ));
    let first = attempt(&proxy.host, 1, &json!({}));
    first.write_request(&command);
    let helper = Process::start(&first);
    let _ = helper::wait_prepared(&first.paths);
    let runner = first.start(&command);
    first.await_file("ready");
    runner.signal(Signal::TERM);
    let kept = runner.finish().stdout().trim().to_owned();
    // It is told while it lasts, for who is not let finish.
    let message = || Message::decode(&fs::read_to_string(&first.paths.termination_message).unwrap());
    let so_far = || message().and_then(|message| message.report.so_far).unwrap_or_default();
    await_that("how far it came", || so_far().stored_bytes >= LARGE);
    assert!(so_far().total_bytes >= LARGE);
    helper.kill();

    let before = sent(&proxy);
    let second = attempt(&proxy.host, 2, &json!({}));
    let message = run(&second, &command);
    assert_eq!(message.report.resumed_from.as_ref(), Some(&kept));
    assert!(message.stdout_tail.starts_with("1\n"), "as of the snapshot: {message:?}");
    let saved = message.report.saved.unwrap();
    let sent = sent(&proxy) - before;
    assert!(saved.pushed_bytes < 1_000_000 && sent < 1_000_000, "{sent} bytes were sent: {saved:?}");
}

/// Out of memory, say, when all but the manifest is sent.
#[test]
fn a_child_that_is_killed_while_it_saves_is_followed_by_one_that_sends_nothing_again() {
    let registry = Registry::start();
    let was_held = AtomicBool::new(false);
    let holds_first = move |method: &Method, path: &str, _| {
        let holds = is_manifest(method, path, "run.1") && !was_held.swap(true, Ordering::Relaxed);
        if holds { Fault::HoldBack } else { Fault::None }
    };
    let proxy = Proxy::before("127.0.0.1", &registry.host, holds_first);
    let sandbox = attempt(&proxy.host, 1, &json!({}));
    let command = sh(&format!("yes 0123456789 | head -c {LARGE} >large"));
    sandbox.write_request(&command);
    let helper = Process::start(&sandbox);
    let _ = helper::wait_prepared(&sandbox.paths);
    sandbox.start(&command).finish();
    await_that("the manifest", || !proxy.seen.held.lock().unwrap().is_empty());
    let child = helper.child("save").unwrap().parse().ok().and_then(Pid::from_raw).unwrap();
    kill_process(child, Signal::KILL).unwrap();
    assert!(helper.finish());
    let message = told(&sandbox);
    assert!(message.report.saved.is_some(), "{message:?}");
    let sent = sent(&proxy);
    assert!((LARGE..LARGE + 1_000_000).contains(&sent), "{sent} bytes were sent");
}

/// The names in the last snapshot of the first attempt.
fn kept(registry: &Registry) -> Vec<String> {
    let (repository, access, place) = (registry.repository("a"), access(&registry.host), Place::new());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let digest = find_snapshot(&repository, "run.1.s", &access).await.unwrap().unwrap();
        let reference = format!("{repository}@{digest}");
        fetch(&reference, None, &place.dir, NO_LIMITS, &access, &Progress::default()).await.unwrap();
    });
    names(&place.dir).into_iter().filter(|name| !["stdout", "stderr"].contains(&name.as_str())).collect()
}

#[test]
fn a_snapshot_leaves_out_what_it_shall_or_else_what_the_output_does() {
    let registry = Registry::start();
    let command = sh("mkdir -p logs; touch logs/a keep out.tmp; \"$BUNDLE_SNAPSHOT\" || exit 5");
    let snapshots = json!({"tag": "run.1.s", "exclude": ["logs/**"]});
    for (more, expected) in [
        (json!({"exclude": ["*.tmp"]}), ["keep", "logs", "logs/a"].as_slice()),
        (json!({"exclude": ["*.tmp"], "snapshots": snapshots}), &["keep", "logs", "out.tmp"]),
    ] {
        let message = run(&attempt(&registry.host, 1, &more), &command);
        assert_eq!(message.report.record.unwrap().exit_code, Some(0));
        assert_eq!(kept(&registry), expected);
    }
}

/// The one in bash of the guide: what `python3 prepare.py` makes is made once.
#[test]
fn the_shell_script_of_the_guide_prepares_once() {
    let guide = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/checkpoints.md")).unwrap();
    let script = blocks(&guide).into_iter().find(|block| block.language == "sh").unwrap().text;
    let registry = Registry::start();
    for number in [1, 2] {
        let sandbox = attempt(&registry.host, number, &json!({}));
        sandbox.tool("python3", b"#!/bin/sh\necho $1 is run in attempt $BUNDLE_ATTEMPT | tee -a prepared\n", 0o755);
        std::os::unix::fs::symlink("/usr/bin/tee", sandbox.root().join("usr/bin/tee")).unwrap();
        let sandbox = sandbox.env("BUNDLE_ATTEMPT", &number.to_string());
        let message = run(&sandbox, &sh(&script));
        let said = if number == 1 { "prepare.py is run in attempt 1\n" } else { "" };
        assert_eq!((message.stdout_tail.as_str(), message.stderr_tail.as_str()), (said, ""), "attempt {number}");
        let prepared = fs::read_to_string(sandbox.paths.bundle.join("prepared")).unwrap();
        assert_eq!(prepared, "prepare.py is run in attempt 1\n");
    }
    // Where nothing is kept it says so, and goes on.
    let sandbox = fresh().env("BUNDLE_SNAPSHOT", "/bin/false");
    sandbox.tool("python3", b"#!/bin/sh\n", 0o755);
    sandbox.write_request(&sh(&script));
    let helper = Helper::start(&sandbox);
    let _ = helper::wait_prepared(&sandbox.paths);
    let run = sandbox.start(&sh(&script)).finish();
    helper.finish();
    assert_eq!((run.code, run.stderr().as_str()), (0, "not kept: another attempt prepares again\n"));
}
