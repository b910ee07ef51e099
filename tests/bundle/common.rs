//! What the tests of bundles share.

use bundlerun::bundle::{Access, Limits, Progress, SavedBundle, Tree};
use bundlerun::contract::Registries;
use serde_json::json;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

pub(crate) use crate::proxy::{Fault, Proxy};
pub(crate) use crate::push::{TAR, push_image, push_manifest, sha256};
pub(crate) use crate::registry::{Registry, tool};

pub(crate) const NO_LIMITS: Limits = Limits { entries: 1_000_000, bytes: 1 << 40 };

impl Registry {
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// `more` is appended to its configuration.
    pub(crate) fn start_with(more: &str) -> Self {
        Self::start_at("127.0.0.1", more)
    }

    pub(crate) fn access(&self) -> Access {
        access(&self.host)
    }

    /// `host/<name>`.
    pub(crate) fn repository(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }
}

/// To a registry without TLS.
pub(crate) fn access(host: &str) -> Access {
    Access { registries: Registries { insecure: vec![host.to_owned()], ca: None }, ..Access::default() }
}

pub(crate) fn crane(args: &[&str]) -> Vec<u8> {
    let output = Command::new(tool("CRANE_BIN", "crane")).args(args).output();
    let output = output.expect("no `crane`: set CRANE_BIN, or PATH");
    assert!(output.status.success(), "crane {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// In a directory, with a registry without TLS. Returns what it prints.
pub(crate) fn oras(dir: &Path, args: &[&str]) -> String {
    let output = Command::new(tool("ORAS_BIN", "oras")).args(args).current_dir(dir).output();
    let output = output.expect("no `oras`: set ORAS_BIN, or PATH");
    assert!(output.status.success(), "oras {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What must come to an end: no machine is so busy that it takes as long.
pub(crate) async fn ends<T>(what: &str, work: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(Duration::from_mins(10), work).await;
    ended.unwrap_or_else(|_| panic!("{what}: it hangs"))
}

/// Lets the bodies of so many blobs go, which a proxy holds back, one by one: there are as many at once as there may be, and
/// never more. Whatever comes after them is not held up.
pub(crate) async fn let_go_one_by_one(proxy: &Proxy, blobs: usize, at_once: usize) {
    let begun = || proxy.seen.held.lock().unwrap().len();
    let is_end = |line: &&String| line.starts_with("PUT") && line.contains("/uploads/");
    let ended = || proxy.seen.log.lock().unwrap().iter().filter(is_end).count();
    for done in 0..blobs {
        while begun() - done < at_once.min(blobs - done) || ended() < done {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(begun() - done <= at_once, "{} at once", begun() - done);
        proxy.seen.let_one_go();
    }
    for _ in 0..100 {
        proxy.seen.let_one_go();
    }
}

/// A test that is ignored, to be run in a process of its own by [`passes`]: what it sets or shares is the process's.
pub(crate) fn alone(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored"]);
    command
}

pub(crate) fn passes(test: &mut Command) {
    let output = test.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// Lines of `describe.py`.
pub(crate) fn describe(what: &str, path: &Path) -> Vec<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bundle/describe.py");
    let output = Command::new("python3").arg(script).arg(what).arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Runs a script in a directory.
pub(crate) fn script(interpreter: &str, dir: &Path, text: &str) {
    let flag = if interpreter == "python3" { "-c" } else { "-ec" };
    let status = Command::new(interpreter).args([flag, text]).current_dir(dir).status().unwrap();
    assert!(status.success(), "{text}");
}

pub(crate) fn tree(root: &Path) -> Tree {
    Tree { root: root.to_owned(), ..Tree::default() }
}

pub(crate) async fn save(tree: &Tree, repository: &str, tag: &str, access: &Access) -> SavedBundle {
    try_save(tree, repository, tag, access).await.unwrap()
}

pub(crate) async fn try_save(
    tree: &Tree,
    repository: &str,
    tag: &str,
    access: &Access,
) -> Result<SavedBundle, bundlerun::bundle::Error> {
    let made_by = json!({"image": "busybox", "run": tag});
    bundlerun::bundle::save(tree, repository, Some(tag), &made_by, access, &Progress::default()).await
}

pub(crate) async fn fetch(
    reference: &str,
    path: Option<&str>,
    place: &Path,
    access: &Access,
) -> Result<(), bundlerun::bundle::Error> {
    bundlerun::bundle::fetch(reference, path, place, NO_LIMITS, access, &Progress::default()).await
}

/// A directory to fetch into, and one around it, in which nothing may appear.
pub(crate) struct Place {
    pub(crate) around: TempDir,
    pub(crate) dir: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        let around = tempfile::tempdir().unwrap();
        let dir = around.path().join("place");
        fs::create_dir(&dir).unwrap();
        fs::write(around.path().join("victim"), "untouched").unwrap();
        Self { around, dir }
    }

    pub(crate) fn assert_nothing_outside(&self) {
        let mut names: Vec<_> = fs::read_dir(&self.around)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["place", "victim"]);
        assert_eq!(fs::read_to_string(self.around.path().join("victim")).unwrap(), "untouched");
        assert!(fs::metadata(self.around.path().join("victim")).unwrap().permissions().mode() & 0o7000 == 0);
    }
}

use std::os::unix::fs::PermissionsExt;

/// The names in a directory, at any depth, sorted.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let output =
        Command::new("find").args([OsStr::new("."), "-mindepth".as_ref(), "1".as_ref()]).current_dir(dir).output();
    let mut names: Vec<_> = String::from_utf8_lossy(&output.unwrap().stdout)
        .lines()
        .map(|line| line.trim_start_matches("./").to_owned())
        .collect();
    names.sort();
    names
}
