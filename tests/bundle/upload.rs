//! `kubectl bundle upload` and `run --code`, as a user types them.

use crate::common::*;
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// What is to be uploaded of [`working_tree`].
const FILES: [&str; 7] = [".gitignore", "lib", "lib/a.py", "numbers", "out", "out/kept", "train.py"];

/// The program, with nothing of this machine's user but the `PATH`.
fn bundle(home: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-bundle"));
    command.args(words).env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", home);
    command.output().unwrap()
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json_of(output: &Output) -> Value {
    serde_json::from_str(&succeeded(output)).unwrap()
}

/// A working tree with a commit, a change since then, and what is not to be uploaded.
fn working_tree() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let text = "git init -q -b main; mkdir lib; echo 'import lib.a' >train.py; echo 'x = 1' >lib/a.py; \
         printf '*.pyc\n/out/\n' >.gitignore; git add -A; \
         git -c user.name=a -c user.email=a@example.com -c commit.gpgsign=false commit -q -m first; \
         echo 'x = 2' >lib/a.py; echo token=1 >.env; mkdir out; echo big >out/model; \
         echo kept >out/kept; git add -f out/kept; echo c >lib/a.pyc; echo k >key.pem; \
         seq 100000 >numbers; chmod +x train.py";
    script("sh", dir.path(), text);
    dir
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_uploaded_once_without_what_git_ignores_and_without_secrets() {
    let registry = Registry::start();
    let proxy = Proxy::before("127.0.0.1", &registry.host, |_, _, _| Fault::None);
    let (dir, home) = (working_tree(), tempfile::tempdir().unwrap());
    let path = dir.path().to_str().unwrap();
    let repository = proxy.reference("bundles/a");
    let blobs = || {
        let log = proxy.seen.log.lock().unwrap();
        log.iter().filter(|line| line.starts_with("POST ") && line.contains("/blobs/uploads/")).count()
    };

    let first = bundle(home.path(), &["upload", path, "--to", &repository, "-o", "json"]);
    let said = String::from_utf8_lossy(&first.stderr).into_owned();
    let (first, pushed) = (json_of(&first), blobs());
    let digest = first["bundle"].as_str().unwrap().strip_prefix(&format!("{repository}@")).unwrap().to_owned();
    assert!(pushed > 0 && first["sentBytes"].as_u64().unwrap() > first["bytes"].as_u64().unwrap(), "{first}");
    assert_eq!(
        (&first["files"], &first["git"]["branch"], &first["git"]["isChanged"]),
        (&json!(5), &json!("main"), &json!(true))
    );
    let left_out = [".env (the name of a secret)", "key.pem (the name of a secret)"];
    assert_eq!(first["leftOut"], json!(left_out));
    assert!(said.contains(&format!("left out: {}", left_out.join(", "))) && said.contains("5 files, "), "{said}");

    // Of the same tree nothing is sent, and what has its digest has its tag.
    let second = bundle(home.path(), &["upload", path, "--to", &repository]);
    assert_eq!(succeeded(&second), format!("{repository}@{digest}\n"));
    assert!(String::from_utf8_lossy(&second.stderr).contains("the store has them all"));
    assert_eq!(blobs(), pushed, "{:?}", proxy.seen.log.lock());
    let tag = format!("upload.{}", digest.strip_prefix("sha256:").unwrap().get(..16).unwrap());
    assert_eq!(
        String::from_utf8(crane(&["digest", "--insecure", &format!("{repository}:{tag}")])).unwrap().trim(),
        digest
    );
    // A change sends its own, and a tag of the user's is one.
    fs::write(dir.path().join("train.py"), "import lib.a, sys\n").unwrap();
    let tagged = format!("{repository}:mine");
    let third = succeeded(&bundle(home.path(), &["upload", path, "--to", &tagged]));
    assert!(blobs() > pushed && !third.contains(&digest), "{third}");
    assert!(third.contains(String::from_utf8(crane(&["digest", "--insecure", &tagged])).unwrap().trim()));

    // One file is one in a bundle of its own.
    let file = dir.path().join("numbers");
    let file = succeeded(&bundle(home.path(), &["upload", file.to_str().unwrap(), "--to", &repository]));
    let place = Place::new();
    fetch(file.trim(), None, &place.dir, &access(&proxy.host)).await.unwrap();
    assert_eq!(names(&place.dir), ["numbers"]);

    let (place, reference) = (Place::new(), format!("{repository}@{digest}"));
    fetch(&reference, None, &place.dir, &access(&proxy.host)).await.unwrap();
    assert_eq!(names(&place.dir), FILES);
    assert_eq!(fs::read_to_string(place.dir.join("lib/a.py")).unwrap(), "x = 2\n");
    let made_by = bundlerun::bundle::provenance(&reference, &access(&proxy.host)).await.unwrap();
    let git = &made_by[0]["upload"]["git"];
    assert_eq!((made_by.len(), &git["commit"], &git["branch"]), (1, &first["git"]["commit"], &json!("main")));
    assert!(git["diff"].as_str().unwrap().contains("-x = 1\n+x = 2\n") && !made_by[0].to_string().contains("token"));
    let tree = succeeded(&bundle(home.path(), &["tree", &reference]));
    assert!(tree.contains("uploaded: commit ") && tree.contains(" on main, with changes"), "{tree}");
}

#[test]
fn large_files_are_refused_with_their_paths_before_anything_is_sent() {
    let registry = Registry::start();
    let proxy = Proxy::before("127.0.0.1", &registry.host, |_, _, _| Fault::None);
    let (dir, home) = (working_tree(), tempfile::tempdir().unwrap());
    script("sh", dir.path(), "truncate -s 200M one.pt lib/two.bin out/ignored");
    let refused = bundle(home.path(), &["upload", dir.path().to_str().unwrap(), "--to", &proxy.reference("a")]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1));
    let paths = "only if you say so:\n  lib/two.bin (200.0 MiB)\n  one.pt (200.0 MiB)\nhint:  ";
    assert!(said.contains(paths) && said.contains("--allow-large"), "{said}");
    assert!(proxy.seen.log.lock().unwrap().is_empty());
}

/// An API server with one run, which says where the store is. It keeps what is created.
#[derive(Clone)]
struct Cluster {
    bundle: String,
    created: Arc<Mutex<Vec<Value>>>,
}

impl Cluster {
    /// Serves it, and writes a kubeconfig.
    async fn start(self, home: &Path) {
        let list = async |State(cluster): State<Self>| {
            let status = json!({"phase": "Succeeded", "output": {"bundle": cluster.bundle}});
            let run = json!({"apiVersion": "bundlerun.dev/v1alpha1", "kind": "BundleRun", "metadata": {"name": "before"},
                "spec": {"command": "true"}, "status": status});
            json!({"apiVersion": "bundlerun.dev/v1alpha1", "kind": "BundleRunList", "metadata": {}, "items": [run]})
                .to_string()
        };
        let create = async |State(cluster): State<Self>, run: String| {
            cluster.created.lock().unwrap().push(serde_json::from_str(&run).unwrap());
            run
        };
        let path = "/apis/bundlerun.dev/v1alpha1/namespaces/team/bundleruns";
        let app = Router::new().route(path, get(list).post(create)).with_state(self);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "a",
            "clusters": [{"name": "a", "cluster": {"server": format!("http://{}", listener.local_addr().unwrap())}}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a", "namespace": "team"}}],
            "users": [{"name": "a", "user": {}}],
        });
        fs::create_dir(home.join(".kube")).unwrap();
        fs::write(home.join(".kube/config"), config.to_string()).unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_has_a_directory_by_its_digest_where_runs_have_their_outputs() {
    let registry = Registry::start();
    let (dir, home) = (working_tree(), tempfile::tempdir().unwrap());
    let path = dir.path().to_str().unwrap();
    let bundle_of_run = format!("{}@sha256:{:064}", registry.repository("bundles/team"), 0);
    let cluster = Cluster { bundle: bundle_of_run, created: Arc::default() };
    let created = Arc::clone(&cluster.created);
    cluster.start(home.path()).await;

    let words = ["run", "--name", "train", "--code", path, "-i", "data=before", "--", "python3", "train.py"];
    let output = tokio::task::block_in_place(|| bundle(home.path(), &words));
    assert_eq!(succeeded(&output), "train\n");
    let created = created.lock().unwrap()[0].clone();
    let reference = created["spec"]["inputs"][1]["image"]["reference"].as_str().unwrap().to_owned();
    assert!(reference.starts_with(&format!("{}@sha256:", registry.repository("bundles/team"))), "{created}");
    let inputs = json!([{"path": "data", "run": {"name": "before"}}, {"path": ".", "image": {"reference": reference}}]);
    assert_eq!((&created["spec"]["inputs"], &created["spec"]["command"]), (&inputs, &json!("python3 train.py")));
    let place = Place::new();
    fetch(&reference, None, &place.dir, &registry.access()).await.unwrap();
    assert_eq!(names(&place.dir), FILES);
}
