//! Disks that fail, or give no answer.

use crate::common::{Proxy, Registry, save, tree, try_save};
use crate::faulty_disk::{Fault, FaultyDisk, Question};
use crate::proxy;
use axum::http::Method;
use bundlerun::bundle::{ErrorKind, GivenUp, ListEntryKind, Tree};
use bundlerun::contract::{Command, Registries, Request};
use rustix::io::Errno;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// `good`, `bad`, `dir/in/file`.
fn disk() -> FaultyDisk {
    let disk = FaultyDisk::mount();
    fs::write(disk.backing().join("good"), vec![b'x'; 200_000]).unwrap();
    fs::write(disk.backing().join("bad"), vec![b'x'; 300_000]).unwrap();
    fs::create_dir_all(disk.backing().join("dir/in")).unwrap();
    fs::write(disk.backing().join("dir/in/file"), "12345").unwrap();
    disk
}

/// It fails to give `bad` and what is in `dir`.
fn fail(disk: &FaultyDisk) {
    disk.set("bad", Fault::Fails);
    disk.set("dir", Fault::Fails);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_disk_fails_to_read_is_no_output_until_it_is_given_up() {
    let registry = Registry::start();
    let (access, disk) = (registry.access(), disk());
    let repository = registry.repository("a");
    fail(&disk);
    let error = try_save(&tree(disk.path()), &repository, "t", &access).await.unwrap_err();
    assert_eq!((error.kind, error.damaged.len()), (ErrorKind::Local, 2));
    assert!(error.message.contains("bad (cannot be read: Input/output error"), "{error}");
    assert!(error.message.ends_with("and 1 more"), "{error}");

    let some = error.damaged.iter().take(1).cloned().collect();
    let given_up =
        |entries, all_after| Tree { given_up: GivenUp { entries, all_after, hung_after: None }, ..tree(disk.path()) };
    assert!(try_save(&given_up(some, None), &repository, "u", &access).await.is_err(), "the other one may come back");
    let named = given_up(error.damaged.into_iter().collect(), None);
    for (number, tree) in [named, given_up([].into(), Some(SystemTime::now()))].iter().enumerate() {
        let saved = save(tree, &repository, &format!("v{number}"), &access).await;
        assert_eq!((saved.files, saved.skipped, saved.withheld, saved.damaged), (1, 2, 0, 2));
        assert!(saved.skipped_names.iter().any(|name| name.starts_with("dir (cannot be read")), "{saved:?}");
        let list = bundlerun::bundle::list(&format!("{repository}@{}", saved.digest), &access).await.unwrap();
        let skipped = list.iter().filter(|entry| matches!(entry.what, ListEntryKind::Skipped { .. }));
        assert_eq!(skipped.map(|entry| entry.path.as_slice()).collect::<Vec<_>>(), [&b"bad"[..], b"dir"]);
    }

    disk.mend();
    let whole = save(&tree(disk.path()), &repository, "w", &access).await;
    assert_eq!((whole.files, whole.skipped), (3, 0), "what can be read again is saved");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_even_be_opened_is_no_output_until_it_is_given_up() {
    let registry = Registry::start();
    let access = registry.access();
    let cases = [
        ("bad", Question::Stat, Errno::IO),
        ("bad", Question::Open, Errno::IO),
        ("bad", Question::Open, Errno::STALE),
        ("bad", Question::Open, Errno::MFILE),
        ("bad", Question::Open, Errno::NOMEM),
        ("link", Question::ReadLink, Errno::IO),
        ("link", Question::Stat, Errno::STALE),
    ];
    for (number, (what, question, errno)) in cases.into_iter().enumerate() {
        let (disk, repository) = (disk(), registry.repository(&format!("a{number}")));
        std::os::unix::fs::symlink("good", disk.backing().join("link")).unwrap();
        disk.set(what, Fault::Answers(question, errno.raw_os_error()));
        let case = format!("{what}, {question:?}: {errno}");
        let error = try_save(&tree(disk.path()), &repository, "t", &access).await.expect_err(&case);
        assert_eq!((error.kind, error.damaged.len()), (ErrorKind::Local, 1), "{case}: {error}");
        assert!(error.message.contains(&format!("{what} (cannot be read: ")), "{case}: {error}");

        let given_up = GivenUp { entries: error.damaged.into_iter().collect(), all_after: None, hung_after: None };
        let saved = save(&Tree { given_up, ..tree(disk.path()) }, &repository, "u", &access).await;
        assert_eq!((saved.skipped, saved.withheld, saved.damaged), (1, 0, 1), "{case}: {saved:?}");
        assert!(saved.skipped_names[0].starts_with(&format!("{what} (cannot be read")), "{case}: {saved:?}");

        disk.mend();
        let whole = save(&tree(disk.path()), &repository, "v", &access).await;
        assert_eq!((whole.files, whole.skipped), (saved.files + u64::from(what == "bad"), 0), "{case}");
    }
}

/// A child that saves what is on a disk.
struct Child {
    disk: Arc<FaultyDisk>,
    root: tempfile::TempDir,
}

impl Child {
    /// What gives no answer is given up after `give_up_seconds`.
    fn of(disk: Arc<FaultyDisk>, registry: &str, give_up_seconds: u64) -> Self {
        let root = tempfile::tempdir().unwrap();
        let (bundle, request) = (root.path().join("bundle"), root.path().join(".bundlerun/request"));
        for dir in [&bundle, &request, &root.path().join(".bundlerun/bin")] {
            fs::create_dir_all(dir).unwrap();
        }
        bind(&disk, &bundle);
        let registries = Registries { insecure: vec![registry.to_owned()], ca: None };
        let save = json!({
            "repository": format!("{registry}/a"), "tag": "t", "deadlineSeconds": 60, "interruptedSeconds": 60,
            "giveUpSeconds": give_up_seconds,
        });
        let save = serde_json::from_value(save).unwrap();
        let asked = Request { save: Some(save), registries, ..Request::new(Command::Argv(vec!["true".to_owned()]), 1) };
        fs::write(request.join("request.json"), serde_json::to_vec(&asked).unwrap()).unwrap();
        Self { disk, root }
    }

    fn start(&self) -> std::process::Child {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bundle-operator"));
        command.args(["helper", "save", "--root"]).arg(self.root.path()).spawn().unwrap()
    }

    fn left(&self, mark: &str) -> Value {
        let text = fs::read(self.root.path().join(".bundlerun/bin").join(mark)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Waits for a mark of it.
    fn leaves(&self, mark: &str) -> Value {
        let begin = Instant::now();
        loop {
            let left = self.left(mark);
            if left != Value::Null {
                return left;
            }
            assert!(begin.elapsed() < Duration::from_mins(2), "it leaves no {mark}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        for mount in ["bundle", OUTPUT] {
            let _ = std::process::Command::new("umount").arg("-ql").arg(self.root.path().join(mount)).status();
        }
    }
}

/// Where what the command says is.
const OUTPUT: &str = ".bundlerun/output";

/// The helper follows no link, and this is none.
fn bind(disk: &FaultyDisk, at: &Path) {
    let bound = std::process::Command::new("mount").arg("--bind").args([disk.path(), at]).status();
    assert!(bound.unwrap().success());
}

#[test]
fn the_rest_is_saved_after_three_tries() {
    let registry = Registry::start();
    let child = Child::of(Arc::new(disk()), &registry.host, 0);
    fail(&child.disk);
    for _ in 0..3 {
        assert!(!child.start().wait().unwrap().success());
        let not_saved = child.left("not-saved.json");
        assert_eq!(not_saved["failure"], "HelperFailed");
        assert!(not_saved["detail"].as_str().unwrap().contains("bad (cannot be read: Input/output error"));
        assert_eq!(child.left("saved.json"), Value::Null);
    }
    assert!(child.start().wait().unwrap().success());
    let saved = child.left("saved.json");
    assert_eq!((&saved["files"], &saved["damaged"]), (&json!(1), &json!(2)));
}

#[test]
fn the_error_names_the_file_although_it_cannot_be_counted() {
    let registry = Registry::start();
    let child = Child::of(Arc::new(disk()), &registry.host, 0);
    fail(&child.disk);
    // Nothing can take its place.
    fs::create_dir_all(child.root.path().join(".bundlerun/bin/damaged.json/in")).unwrap();
    assert!(!child.start().wait().unwrap().success());
    let detail = child.left("not-saved.json")["detail"].to_string();
    assert!(detail.contains("bad (cannot be read: Input/output error"), "{detail}");
}

#[test]
fn a_disk_that_works_again_in_time_costs_nothing() {
    let registry = Registry::start();
    let child = Child::of(Arc::new(disk()), &registry.host, 0);
    fail(&child.disk);
    assert!(!child.start().wait().unwrap().success());
    child.disk.mend();
    assert!(child.start().wait().unwrap().success());
    let saved = child.left("saved.json");
    assert_eq!((&saved["files"], &saved["damaged"], &saved["skipped"]), (&json!(3), &Value::Null, &Value::Null));
}

#[test]
fn what_gives_no_answer_holds_up_nothing_else_and_is_named() {
    let registry = Registry::start();
    for (hangs, names) in [
        (("bad", Fault::Hangs), "bad"),
        (("bad", Fault::HangsWhole), "bad"),
        (("dir", Fault::Hangs), "dir"),
        (("dir/in", Fault::HangsWhole), "dir/in"),
    ] {
        let child = Child::of(Arc::new(disk()), &registry.host, 1);
        child.disk.set(hangs.0, hangs.1);
        let mut process = child.start();
        let saved = child.leaves("saved.json");
        assert_eq!(
            (&saved["files"], &saved["damaged"], &saved["skipped"]),
            (&json!(2), &json!(1), &json!(1)),
            "{hangs:?}"
        );
        let name = saved["skippedNames"][0].as_str().unwrap();
        assert_eq!(name, format!("{names} (the disk gave no answer for 1 s)"));
        // It waits for the kernel, and the kernel for the disk.
        process.kill().unwrap();
        assert!(child.disk.held() > 0 && process.try_wait().unwrap().is_none(), "{hangs:?}: nothing hung");
        child.disk.mend();
        process.wait().unwrap();
    }
}

#[test]
fn what_the_command_said_may_give_no_answer_either() {
    let (registry, said) = (Registry::start(), FaultyDisk::mount());
    let child = Child::of(Arc::new(disk()), &registry.host, 1);
    fs::write(said.backing().join("stdout"), "hello").unwrap();
    let output = child.root.path().join(OUTPUT);
    fs::create_dir_all(&output).unwrap();
    bind(&said, &output);
    said.set("stdout", Fault::HangsWhole);
    let mut process = child.start();
    let saved = child.leaves("saved.json");
    assert_eq!((&saved["files"], &saved["damaged"]), (&json!(3), &json!(1)));
    assert_eq!(saved["skippedNames"], json!(["stdout (the disk gave no answer for 1 s)"]));
    said.mend();
    process.wait().unwrap();
}

#[test]
fn what_gives_no_answer_when_it_is_pushed_is_left_out_too() {
    let (registry, disk) = (Registry::start(), Arc::new(disk()));
    let of_the_rule = disk.clone();
    let proxy = Proxy::before("127.0.0.1", &registry.host, move |method, path, _| {
        // It is asked for once it has been read for its digest, and before it is read to be pushed.
        if *method == Method::HEAD && path.contains("/blobs/") {
            of_the_rule.set("bad", Fault::Hangs);
        }
        proxy::Fault::None
    });
    let child = Child::of(disk, &proxy.host, 1);
    let mut process = child.start();
    let saved = child.leaves("saved.json");
    assert_eq!((&saved["files"], &saved["damaged"]), (&json!(2), &json!(1)));
    assert_eq!(saved["skippedNames"], json!(["bad (the disk gave no answer for 1 s)"]));
    child.disk.mend();
    process.wait().unwrap();
}

#[test]
fn what_is_slow_is_waited_for_and_told() {
    let registry = Registry::start();
    let child = Child::of(Arc::new(disk()), &registry.host, 300);
    child.disk.set("bad", Fault::Hangs);
    let mut process = child.start();
    let told = loop {
        let progress = child.leaves("progress.json");
        if let Some(told) = progress["hangs"].as_str() {
            break told.to_owned();
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(told.starts_with("bad, for 1"), "{told}");
    // The answer is an error this time, and the file the next.
    child.disk.mend();
    assert!(!process.wait().unwrap().success());
    assert!(child.start().wait().unwrap().success());
    assert_eq!((&child.left("saved.json")["files"], &child.left("saved.json")["damaged"]), (&json!(3), &Value::Null));
}

#[test]
fn a_working_directory_that_gives_no_answer_at_all_is_no_output() {
    let registry = Registry::start();
    let child = Child::of(Arc::new(disk()), &registry.host, 1);
    child.disk.set("", Fault::Hangs);
    let mut process = child.start();
    let not_saved = child.leaves("not-saved.json");
    assert_eq!(not_saved["detail"], "the disk gave no answer for 1 s: the working directory itself");
    child.disk.mend();
    assert!(!process.wait().unwrap().success());
}
