//! Large files that are pushed while they are written.

use crate::common::{Place, Registry, access, describe, ends, fetch, let_go_one_by_one, save, script, tree, try_save};
use crate::mapped::Mapped;
use crate::proxy::{Fault, Proxy};
use axum::http::Method;
use bundlerun::bundle::{EarlyPushes, Outlook, Tree};
use bundlerun::contract::Background;
use rustix::fd::OwnedFd;
use rustix::fs::inotify;
use serde_json::Value;
use std::fs;
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A layer of its own.
pub(crate) const LARGE: usize = 65 << 20;

fn background() -> Background {
    Background { quiet_seconds: 1, connections: 2, bytes_per_second: None, waste_percent: 100 }
}

/// A directory on a file system whose times are relied on.
pub(crate) fn on_disk() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let file_system = rustix::fs::statfs(dir.path()).unwrap().f_type;
    let is_known = [0xef53, 0x5846_5342, 0x9123_683e].contains(&file_system);
    assert!(is_known, "{} is not on ext4, XFS or Btrfs: set TMPDIR", dir.path().display());
    dir
}

/// The tree of a run, with digests kept beside it.
pub(crate) fn kept_tree(root: &Path, beside: &Path) -> Tree {
    Tree { kept: Some(beside.join("digests.json")), ..tree(root) }
}

/// What is kept: of each file its path and its layer.
fn all_kept(beside: &Path) -> Vec<(String, Value)> {
    let text = fs::read(beside.join("digests.json")).unwrap_or_else(|_| b"[]".to_vec());
    serde_json::from_slice(&text).unwrap()
}

/// The layers whose digests are kept.
fn kept_layers(beside: &Path) -> Vec<String> {
    all_kept(beside).iter().map(|(_, layer)| layer["blobs"][0]["digest"].as_str().unwrap().to_owned()).collect()
}

/// How many digests are kept.
fn kept(beside: &Path) -> usize {
    all_kept(beside).len()
}

/// How many are, of files that were quiet, or were not, when they were read.
pub(crate) fn kept_as(beside: &Path, quiet: bool) -> usize {
    all_kept(beside).iter().filter(|(_, layer)| layer["isSettled"] == quiet).count()
}

/// Pushes until so many digests are kept.
async fn push_until(pushes: &mut EarlyPushes, tree: &Tree, beside: &Path, registry: &Registry, count: usize) {
    let repository = registry.repository("a");
    while kept(beside) < count {
        pushes.round(tree, &background(), &repository, &registry.access()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn write_large(dir: &Path, name: &str, byte: u8) {
    fs::write(dir.join(name), vec![byte; LARGE]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pushed_early_is_pushed_once_and_the_bundle_is_the_same() {
    let (registry, dir, beside) = (Registry::start(), on_disk(), on_disk());
    fs::create_dir(dir.path().join("d")).unwrap();
    write_large(dir.path(), "one", 1);
    write_large(dir.path(), "d/two", 2);
    fs::write(dir.path().join("small"), [0; 1000]).unwrap();
    fs::hard_link(dir.path().join("small"), dir.path().join("other")).unwrap();
    let tree = kept_tree(dir.path(), beside.path());
    let mut pushes = EarlyPushes::default();
    assert_eq!(pushes.outlook(), None, "nothing is known of the registry");
    push_until(&mut pushes, &tree, beside.path(), &registry, 2).await;
    let Outlook { left_bytes, bytes_per_second } = pushes.outlook().unwrap();
    assert!(left_bytes == 1000 && bytes_per_second > 0, "{left_bytes} {bytes_per_second}");

    // It changes, and the other does not.
    write_large(dir.path(), "one", 3);
    let saved = save(&tree, &registry.repository("a"), "t", &registry.access()).await;
    assert!((LARGE as u64..LARGE as u64 + (1 << 20)).contains(&saved.pushed_bytes), "{saved:?}");
    let whole = save(&Tree { kept: None, ..tree.clone() }, &registry.repository("b"), "t", &registry.access()).await;
    assert_eq!((saved.digest, saved.files, saved.bytes), (whole.digest, whole.files, whole.bytes));
    let place = Place::new();
    fetch(&registry.repository("a:t"), None, &place.dir, &registry.access()).await.unwrap();
    assert_eq!(describe("tree", &place.dir), describe("tree", dir.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_quiet_is_small_or_is_left_out_is_not_pushed() {
    let (registry, dir, beside) = (Registry::start(), on_disk(), on_disk());
    for name in ["quiet", "excluded", "linked"] {
        write_large(dir.path(), name, 1);
    }
    fs::hard_link(dir.path().join("linked"), dir.path().join("again")).unwrap();
    fs::write(dir.path().join("small"), vec![1; LARGE / 2]).unwrap();
    let tree = Tree { exclude: vec!["excluded".to_owned()], ..kept_tree(dir.path(), beside.path()) };
    let mut pushes = EarlyPushes::default();
    push_until(&mut pushes, &tree, beside.path(), &registry, 1).await;
    write_large(dir.path(), "busy", 1);
    let asleep = Background { quiet_seconds: 3600, ..background() };
    for background in [background(), asleep] {
        pushes.round(&tree, &background, &registry.repository("a"), &registry.access()).await.unwrap();
    }
    assert_eq!(kept(beside.path()), 1);
}

/// One of two files changes after it was pushed, and another one comes. Returns what is left for the save to push.
async fn left_to_push(waste_percent: u32) -> u64 {
    let (registry, dir, beside) = (Registry::start(), on_disk(), on_disk());
    let tree = kept_tree(dir.path(), beside.path());
    let mut pushes = EarlyPushes::default();
    write_large(dir.path(), "changes", 1);
    push_until(&mut pushes, &tree, beside.path(), &registry, 1).await;
    write_large(dir.path(), "changes", 2);
    write_large(dir.path(), "stays", 3);
    // Both are quiet then: the one that has changed has to be for twice as long.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let background = Background { waste_percent, ..background() };
    pushes.round(&tree, &background, &registry.repository("a"), &registry.access()).await.unwrap();
    save(&tree, &registry.repository("a"), "t", &registry.access()).await.pushed_bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_pushed_in_vain_than_there_may_be() {
    let large = LARGE as u64;
    assert!(left_to_push(0).await > 2 * large);
    assert!(left_to_push(100).await < large);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_through_a_mapping_after_an_early_push_is_saved() {
    let (registry, dir, beside) = (Registry::start(), on_disk(), on_disk());
    let mut mapped = Mapped::in_dir(dir.path(), LARGE);
    let tree = kept_tree(dir.path(), beside.path());
    push_until(&mut EarlyPushes::default(), &tree, beside.path(), &registry, 1).await;
    mapped.fill("b");
    save(&tree, &registry.repository("a"), "t", &registry.access()).await;
    let place = Place::new();
    fetch(&registry.repository("a:t"), None, &place.dir, &registry.access()).await.unwrap();
    let saved = fs::read(place.dir.join("mapped")).unwrap();
    assert!(saved.len() == LARGE && saved.iter().all(|byte| *byte == b'b'));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_refused_is_told_and_not_sent_again_as_it_is() {
    let (registry, dir, beside) = (Registry::start(), on_disk(), on_disk());
    let bodies = Arc::new(AtomicU64::new(0));
    let counted = bodies.clone();
    let refuses = move |method: &Method, _: &str, _| {
        if method != Method::PATCH {
            return Fault::None;
        }
        counted.fetch_add(1, Ordering::Relaxed);
        Fault::Status(413)
    };
    let proxy = Proxy::before("127.0.0.1", &registry.host, refuses);
    write_large(dir.path(), "huge", 1);
    let tree = kept_tree(dir.path(), beside.path());
    let mut pushes = EarlyPushes::default();
    let (repository, access) = (format!("{}/a", proxy.host), access(&proxy.host));
    while pushes.refused().is_none() {
        pushes.round(&tree, &background(), &repository, &access).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let told = pushes.refused().unwrap();
    assert!(told.starts_with("huge: ") && told.contains("413"), "{told}");
    let sent = bodies.load(Ordering::Relaxed);
    pushes.round(&tree, &background(), &repository, &access).await.unwrap();
    assert_eq!(bodies.load(Ordering::Relaxed), sent);
    fs::remove_file(dir.path().join("huge")).unwrap();
    pushes.round(&tree, &background(), &repository, &access).await.unwrap();
    assert_eq!(pushes.refused(), None);
}

/// What no manifest refers to may be collected.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_has_lost_since_an_early_push_is_sent_again() {
    let (registry, dir, beside) = (Registry::start(), on_disk(), on_disk());
    for (name, byte) in [("one", 1), ("two", 2), ("three", 3)] {
        write_large(dir.path(), name, byte);
    }
    let tree = kept_tree(dir.path(), beside.path());
    push_until(&mut EarlyPushes::default(), &tree, beside.path(), &registry, 3).await;
    let layers = kept_layers(beside.path());
    assert!(layers.iter().all(|layer| registry.has_blob(layer)));

    // Before a child that was started again looks, and before the save does.
    registry.lose_blob(&layers[0]);
    let (repository, access) = (registry.repository("a"), registry.access());
    EarlyPushes::default().round(&tree, &background(), &repository, &access).await.unwrap();
    assert!(registry.has_blob(&layers[0]));
    registry.lose_blob(&layers[1]);
    let saved = save(&tree, &repository, "t", &access).await;
    assert!((LARGE as u64..LARGE as u64 + (1 << 20)).contains(&saved.pushed_bytes), "{saved:?}");
    let place = Place::new();
    fetch(&registry.repository("a:t"), None, &place.dir, &access).await.unwrap();
    assert_eq!(describe("tree", &place.dir), describe("tree", dir.path()));
}

/// Tells whether files are read.
struct Reads(OwnedFd);

impl Reads {
    fn of(dir: &Path, names: &[&str]) -> Self {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let reads = inotify::init(flags).unwrap();
        for name in names {
            inotify::add_watch(&reads, dir.join(name), inotify::WatchFlags::ACCESS).unwrap();
        }
        Self(reads)
    }

    /// Since the last question.
    fn are_there(&self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reads = inotify::Reader::new(&self.0, &mut buffer);
        let mut are_there = false;
        while reads.next().is_ok() {
            are_there = true;
        }
        are_there
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pushed_is_neither_read_nor_sent_by_later_children_and_tries() {
    let (registry, dir, beside) = (Registry::start(), on_disk(), on_disk());
    write_large(dir.path(), "one", 1);
    write_large(dir.path(), "two", 2);
    let tree = kept_tree(dir.path(), beside.path());
    push_until(&mut EarlyPushes::default(), &tree, beside.path(), &registry, 2).await;

    // A child that is started again, a save that fails at its end, and another try.
    let refuses = |_: &Method, path: &str, _| {
        if path.ends_with("/manifests/refused") { Fault::Status(403) } else { Fault::None }
    };
    let proxy = Proxy::before("127.0.0.1", &registry.host, refuses);
    let (repository, access) = (proxy.reference("a"), access(&proxy.host));
    let reads = Reads::of(dir.path(), &["one", "two"]);
    EarlyPushes::default().round(&tree, &background(), &repository, &access).await.unwrap();
    try_save(&tree, &repository, "refused", &access).await.unwrap_err();
    save(&Tree { keeps_more: true, ..tree.clone() }, &repository, "t", &access).await;
    assert!(!reads.are_there());
    let sent = proxy.seen.sent.load(Ordering::Relaxed);
    assert!(sent < 100_000, "{sent} bytes were sent");
    let log = proxy.seen.log.lock().unwrap().clone();
    for layer in kept_layers(beside.path()) {
        let asked = log.iter().filter(|line| line.starts_with("HEAD") && line.contains(&layer)).count();
        // By the child, by each try, and by the last at its end.
        assert_eq!(asked, 4, "{layer}: {log:#?}");
    }

    save(&Tree { kept: None, ..tree }, &repository, "t", &access).await;
    assert!(reads.are_there(), "reads are seen");
}

/// An attempt had too little time for its save, and the next, on another node, leaves the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_attempt_has_sent_serves_the_next() {
    let registry = Registry::start();
    let refuses = |method: &Method, path: &str, _| {
        let is_manifest = *method == Method::PUT && path.contains("/manifests/");
        if is_manifest { Fault::Status(403) } else { Fault::None }
    };
    let proxy = Proxy::before("127.0.0.1", &registry.host, refuses);
    let (first, second) = (on_disk(), on_disk());
    write_large(first.path(), "same", 1);
    try_save(&tree(first.path()), &proxy.reference("a"), "one", &access(&proxy.host)).await.unwrap_err();

    script("sh", second.path(), &format!("cp {}/same .", first.path().display()));
    write_large(second.path(), "other", 2);
    let next = Tree { may_be_there: true, ..tree(second.path()) };
    let saved = save(&next, &registry.repository("a"), "two", &registry.access()).await;
    assert!((LARGE as u64..LARGE as u64 + (1 << 20)).contains(&saved.pushed_bytes), "{saved:?}");
    // Who is the first reads once, and sends all.
    let first = Tree { may_be_there: false, ..next };
    let saved = save(&first, &registry.repository("a"), "three", &registry.access()).await;
    assert!(saved.pushed_bytes > 2 * LARGE as u64, "{saved:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_files_are_pushed_at_once_than_there_are_connections() {
    const FILES: usize = 3;
    let registry = Registry::start();
    for connections in [1, 2] {
        let (dir, beside) = (on_disk(), on_disk());
        for byte in 0..3 {
            write_large(dir.path(), &byte.to_string(), byte + 10 * u8::try_from(connections).unwrap());
        }
        let holds = |method: &Method, _: &str, _| if method == Method::PATCH { Fault::HoldBack } else { Fault::None };
        let proxy = Proxy::before("127.0.0.1", &registry.host, holds);
        let (repository, access) = (proxy.reference("a"), access(&proxy.host));
        let background = Background { quiet_seconds: 0, connections: connections.try_into().unwrap(), ..background() };
        let (tree, mut pushes) = (kept_tree(dir.path(), beside.path()), EarlyPushes::default());
        let round = async { pushes.round(&tree, &background, &repository, &access).await.unwrap() };
        ends("a round", async { tokio::join!(round, let_go_one_by_one(&proxy, FILES, connections)) }).await;
        assert_eq!(kept(beside.path()), FILES);
    }
}

/// However many connections share it.
#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_pushed_in_a_second_than_the_bandwidth() {
    const RATE: u64 = 40 << 20;
    let (registry, dir, beside) = (Registry::start(), on_disk(), on_disk());
    write_large(dir.path(), "one", 1);
    write_large(dir.path(), "two", 2);
    let background = Background { quiet_seconds: 0, bytes_per_second: Some(RATE), ..background() };
    let (tree, begin) = (kept_tree(dir.path(), beside.path()), Instant::now());
    let mut pushes = EarlyPushes::default();
    pushes.round(&tree, &background, &registry.repository("a"), &registry.access()).await.unwrap();
    let took = begin.elapsed();
    assert_eq!(kept(beside.path()), 2);
    // All but the last pieces had to wait.
    assert!(took >= Duration::from_secs(2 * (LARGE as u64) / RATE), "{took:?}");
    assert_eq!(pushes.outlook(), None, "it tells nothing of how fast a save would be");
}
