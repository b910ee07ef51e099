//! Large files that are pushed while they are written.

use crate::common::{Place, Registry, access, describe, fetch, save, tree};
use crate::mapped::Mapped;
use crate::proxy::{Fault, Proxy};
use axum::http::Method;
use bundlerun::bundle::{EarlyPushes, Outlook, Tree};
use bundlerun::contract::Background;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// A layer of its own.
const LARGE: usize = 65 << 20;

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
fn kept_tree(root: &Path, beside: &Path) -> Tree {
    Tree { kept: Some(beside.join("digests.json")), ..tree(root) }
}

/// How many digests are kept.
fn kept(beside: &Path) -> usize {
    let text = fs::read(beside.join("digests.json")).unwrap_or_else(|_| b"[]".to_vec());
    serde_json::from_slice::<Vec<serde_json::Value>>(&text).unwrap().len()
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
