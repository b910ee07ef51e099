//! `kubectl bundle`, as a user types it.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

use crate::common::Space;

/// As small as the runs of other tests.
const SMALL: [&str; 4] = ["--cpus", "20m", "--memory", "128Mi"];

/// What the program printed, and its exit code.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {} {}", self.out, self.err))
    }

    fn succeeded(self) -> Self {
        assert_eq!(self.code, 0, "{} {}", self.out, self.err);
        self
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }
}

fn command(space: &Space, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-bundle"));
    command.args(["--namespace", &space.name]).args(words);
    command.env("BUNDLE_INSECURE_REGISTRY", std::env::var("REGISTRY_HOST").unwrap());
    command
}

/// Other tests go on meanwhile.
async fn ended(mut command: Command) -> Said {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap().into()
}

async fn bundle(space: &Space, words: &[&str]) -> Said {
    ended(command(space, words)).await
}

/// With `run`, a name and small resources.
async fn run(space: &Space, name: &str, options: &[&str], shell: &str) -> Said {
    let words = [&["run", "--name", name], &SMALL[..], options, &["--", shell]].concat();
    bundle(space, &words).await
}

#[tokio::test]
async fn a_run_is_made_followed_read_and_made_again() {
    let space = Space::new().await;
    let made =
        run(&space, "made", &["-f"], "echo one; echo two >&2; mkdir d; seq 3 >d/numbers; echo k >key; chmod 600 key")
            .await
            .succeeded();
    let mut lines: Vec<_> = made.out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["one", "two"], "{}", made.err);

    let list = bundle(&space, &["ls", "-o", "json"]).await.succeeded().json();
    assert_eq!((list["items"].as_array().unwrap().len(), &list["items"][0]["metadata"]["name"]), (1, &json!("made")));
    let sorted = bundle(&space, &["ls", "--sort", "duration", "-o", "name"]).await.succeeded().out;
    assert_eq!(sorted, "bundlerun.bundlerun.dev/made\n");
    let mine = bundle(&space, &["ls", "--mine"]).await.succeeded();
    assert!(
        mine.out.contains("made") || mine.err.contains("no run here says who created it"),
        "{} {}",
        mine.out,
        mine.err
    );
    let info = bundle(&space, &["info", "made"]).await.succeeded().out;
    assert!(info.contains("Phase:       Succeeded (Completed)"), "{info}");
    let why = bundle(&space, &["why", "made", "-o", "json"]).await.succeeded().json();
    assert_eq!((&why["result"]["cause"], &why["exitCode"]), (&json!("Completed"), &json!(0)));

    let files = bundle(&space, &["files", "made", "d", "-o", "name"]).await.succeeded().out;
    assert_eq!(files, "d\nd/numbers\n");
    assert_eq!(bundle(&space, &["cat", "made", "d/numbers"]).await.succeeded().out, "1\n2\n3\n");
    for (part, shown) in [("--head=2", "1\n2\n"), ("--tail=2", "2\n3\n"), ("--range=2-3", "2\n"), ("--range=-2", "3\n")]
    {
        assert_eq!(bundle(&space, &["cat", "made", "d/numbers", part]).await.succeeded().out, shown, "{part}");
    }
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("all");
    bundle(&space, &["download", "made", "--to", to.to_str().unwrap()]).await.succeeded();
    assert_eq!(std::fs::read_to_string(to.join("d/numbers")).unwrap(), "1\n2\n3\n");
    assert_eq!(to.join("key").metadata().unwrap().permissions().mode() & 0o7777, 0o600);

    // The log is that of the saved output, where the two are apart.
    space.pods().delete("made-1", &DeleteParams::default()).await.unwrap();
    space.gone::<Pod>("made-1").await;
    let logs = bundle(&space, &["logs", "made"]).await.succeeded();
    assert_eq!((&*logs.out, &*logs.err), ("one\n", "two\n"));

    // A file of the command that is named as ours is not taken for it.
    run(&space, "taken", &["--wait"], "echo mine >stdout; echo other >stderr.run; echo said").await.succeeded();
    space.pods().delete("taken-1", &DeleteParams::default()).await.unwrap();
    space.gone::<Pod>("taken-1").await;
    let logs = bundle(&space, &["logs", "taken"]).await.succeeded();
    assert_eq!((&*logs.out, &*logs.err), ("said\n", ""));

    let again = bundle(&space, &["rerun", "made", "--wait", "-o", "json"]).await.succeeded().json();
    let image = again["spec"]["image"].as_str().unwrap();
    assert!(image.contains("@sha256:"), "{image}");
    assert_eq!(again["status"]["phase"], "Succeeded");

    let name = again["metadata"]["name"].as_str().unwrap();
    let same = bundle(&space, &["diff", "made", "made"]).await.succeeded().out;
    assert!(same.ends_with("Files: the same\nThe two are the same.\n"), "{same}");
    let pinned = bundle(&space, &["diff", "made", name, "-o", "json"]).await;
    let fields = pinned.json()["fields"].clone();
    assert_eq!((pinned.code, &fields[0]["field"], fields.as_array().unwrap().len()), (1, &json!("spec.image"), 1));
    let other = bundle(&space, &["diff", "made", "taken", "-o", "json"]).await;
    assert_eq!((other.code, &other.json()["files"]["removed"]), (1, &json!(3)), "{}", other.out);

    // Of a run that is gone the bundle stays.
    let reference = why_bundle(&space, "made").await;
    bundle(&space, &["rm", "made"]).await.succeeded();
    space.gone::<bundlerun::api::BundleRun>("made").await;
    assert_eq!(bundle(&space, &["cat", &reference, "stdout"]).await.succeeded().out, "one\n");
    space.end().await;
}

#[tokio::test]
async fn what_a_run_was_made_from_is_known_also_when_that_is_deleted() {
    let space = Space::new().await;
    run(&space, "raw", &["--wait"], "echo 1 >file").await.succeeded();
    run(&space, "middle", &["--wait", "-i", "raw=raw"], "cat raw/file raw/file >two").await.succeeded();
    run(&space, "last", &["--wait", "-i", "in=middle/two"], "wc -l in >count").await.succeeded();
    let children = bundle(&space, &["tree", "raw", "--children"]).await.succeeded().out;
    assert!(children.ends_with("made from it:\n  middle  Succeeded  raw\n    last  Succeeded  in\n"), "{children}");
    let before = bundle(&space, &["tree", "last", "-o", "json"]).await.succeeded().json();
    assert_eq!(before["inputs"][0]["from"]["phase"], "Succeeded", "{before}");

    let verified = bundle(&space, &["verify", "last", "--tree", "-o", "json"]).await.succeeded().json();
    let names: Vec<_> = verified["bundles"].as_array().unwrap().iter().map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["last", "middle", "raw"].map(Some), "{verified}");
    assert_eq!(verified["ok"], true, "{verified}");

    let reference = why_bundle(&space, "last").await;
    for name in ["middle", "raw"] {
        bundle(&space, &["rm", name]).await.succeeded();
        space.gone::<bundlerun::api::BundleRun>(name).await;
    }
    for target in ["last", &reference] {
        let tree = bundle(&space, &["tree", target, "-o", "json"]).await.succeeded().json();
        let middle = &tree["inputs"][0]["from"];
        assert_eq!(
            (&tree["name"], &middle["name"], &middle["phase"]),
            (&json!("last"), &json!("middle"), &Value::Null)
        );
        assert_eq!((&middle["inputs"][0]["source"], &middle["note"]), (&json!("raw"), &json!("not there any more")));
        let raw = &middle["inputs"][0]["from"];
        assert_eq!((&raw["name"], &raw["bundle"]), (&json!("raw"), &middle["inputs"][0]["reference"]), "{tree}");
    }
    space.end().await;
}

async fn why_bundle(space: &Space, name: &str) -> String {
    let run = bundle(space, &["info", name, "-o", "json"]).await.succeeded().json();
    run["status"]["output"]["bundle"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_log_that_is_followed_goes_on_with_the_next_attempt() {
    let space = Space::new().await;
    let script = "echo begin $BUNDLE_ATTEMPT; [ $BUNDLE_ATTEMPT = 2 ] || sleep 600; echo end";
    let words = [&["run", "--name", "again", "-f"], &SMALL[..], &["--", script]].concat();
    let mut child = command(&space, &words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    // What it has shown of the first attempt shall not come again.
    let (out, first) = tokio::task::spawn_blocking(move || {
        let mut first = String::new();
        out.read_line(&mut first).unwrap();
        (out, first)
    })
    .await
    .unwrap();
    assert_eq!(first, "begin 1\n");
    space.until("again", "to run", |status| status.phase == Some(bundlerun::api::Phase::Running)).await;
    space.pods().delete("again-1", &DeleteParams::default()).await.unwrap();
    let followed = tokio::task::spawn_blocking(move || {
        let rest = std::io::read_to_string(out).unwrap();
        let mut followed = Said::from(child.wait_with_output().unwrap());
        followed.out = rest;
        followed.succeeded()
    });
    let followed = followed.await.unwrap();
    assert_eq!(followed.out, "begin 2\nend\n", "{}", followed.err);
    assert!(followed.err.contains("again: attempt 2"), "{}", followed.err);
    space.end().await;
}

#[tokio::test]
async fn a_run_at_work_is_stopped_and_not_deleted_unasked() {
    let space = Space::new().await;
    run(&space, "long", &[], "echo kept >file; sleep 600").await.succeeded();
    run(&space, "short", &[], "exit 7").await.succeeded();
    let any = bundle(&space, &["wait", "--any", "long", "short", "-o", "name"]).await;
    assert_eq!((any.code, &*any.out), (1, "bundlerun.bundlerun.dev/short\n"), "{}", any.err);
    assert_eq!(bundle(&space, &["wait", "short", "--exit-code"]).await.code, 7);
    assert_eq!(bundle(&space, &["wait", "long", "--timeout", "1s"]).await.code, 124);

    space.until("long", "to run", |status| status.phase == Some(bundlerun::api::Phase::Running)).await;
    let refused = bundle(&space, &["rm", "long", "short"]).await;
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("kubectl bundle stop --wait long"), "{}", refused.err);
    bundle(&space, &["stop", "long", "--wait"]).await.succeeded();
    assert_eq!(bundle(&space, &["cat", "long", "file"]).await.succeeded().out, "kept\n");
    bundle(&space, &["rm", "long", "short"]).await.succeeded();
    space.end().await;
}

#[tokio::test]
async fn a_run_that_is_suspended_goes_on_when_it_is_resumed() {
    let space = Space::new().await;
    let script = "echo $BUNDLE_ATTEMPT >file; [ $BUNDLE_ATTEMPT = 2 ] || sleep 600";
    run(&space, "held", &[], script).await.succeeded();
    space.until("held", "to run", |status| status.phase == Some(bundlerun::api::Phase::Running)).await;
    let said = bundle(&space, &["suspend", "held"]).await.succeeded().out;
    assert!(said.starts_with("suspending held: its command ends and what is there is saved; "), "{said}");
    space.waits_at("held", "Suspended").await;
    assert_eq!(bundle(&space, &["cat", "held@1", "file"]).await.succeeded().out, "1\n");
    let again = bundle(&space, &["suspend", "held"]).await.succeeded().out;
    assert_eq!(again, "held is suspended already\n");

    let said = bundle(&space, &["resume", "held"]).await.succeeded().out;
    assert!(said.starts_with("resumed held: "), "{said}");
    bundle(&space, &["wait", "held"]).await.succeeded();
    assert_eq!(bundle(&space, &["cat", "held", "file"]).await.succeeded().out, "2\n");
    let over = bundle(&space, &["suspend", "held"]).await.succeeded();
    assert!(over.out.is_empty() && over.err.contains("held has ended before: Succeeded"), "{} {}", over.out, over.err);
    space.end().await;
}

#[tokio::test]
async fn what_cannot_be_done_says_what_to_do() {
    let space = Space::new().await;
    run(&space, "train", &["--dry-run"], "true").await.succeeded();
    run(&space, "train", &["--wait"], "true").await.succeeded();
    for (words, code, said) in [
        (&["info", "trian"][..], 1, "did you mean train?"),
        (&["cat", "train", "nothing"], 1, "kubectl bundle files"),
        (&["run", "--name", "Bad", "--", "true"], 1, "metadata.name"),
        (&["run", "--name", "train", "--", "true"], 1, "there is one of this name"),
        (&["wait"], 2, "which run?"),
        (&["frobnicate"], 2, "unrecognized subcommand"),
        (&["ls", "--context", "none"], 1, "--context"),
    ] {
        let failed = bundle(&space, words).await;
        assert_eq!(failed.code, code, "{words:?}: {}", failed.err);
        assert!(failed.err.contains(said), "{words:?}: {}", failed.err);
    }

    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    acting_as("viewer", &kubeconfig);
    let as_viewer = async |words: &[&str]| {
        let words = [&["--kubeconfig", kubeconfig.to_str().unwrap()], words].concat();
        bundle(&space, &words).await
    };
    let none = as_viewer(&["ls"]).await;
    assert_eq!(none.code, 1);
    assert!(none.err.contains("you may not list bundleruns") && none.err.contains("bundlerun-view"), "{}", none.err);

    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": {"name": "viewer"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "viewer"}],
    }))
    .unwrap();
    space.api::<RoleBinding>().create(&PostParams::default(), &binding).await.unwrap();
    // The API server learns of a binding a moment later.
    let list = async || {
        let list = as_viewer(&["ls", "-o", "name"]).await;
        if list.code == 0 { Ok(list) } else { Err(list.err) }
    };
    assert_eq!(crate::common::eventually("the right to list", list).await.out, "bundlerun.bundlerun.dev/train\n");
    for words in [&["why", "train"][..], &["logs", "train"]] {
        as_viewer(words).await.succeeded();
    }
    let create = as_viewer(&["run", "--", "true"]).await;
    assert_eq!(create.code, 1);
    assert!(create.err.contains("bundlerun-edit"), "{}", create.err);
    space.end().await;
}

/// The kubeconfig with another user, whom nobody has given a right.
fn acting_as(user: &str, to: &Path) {
    let text = std::fs::read_to_string(std::env::var("KUBECONFIG").unwrap()).unwrap();
    let mut config: Value = serde_saphyr::from_str(&text).unwrap();
    for entry in config["users"].as_array_mut().unwrap() {
        entry["user"]["as"] = user.into();
    }
    std::fs::write(to, config.to_string()).unwrap();
}
