//! Disks that fail: a file system of ours (FUSE) gives errors where the test wants them.

use crate::common::{Registry, save, tree, try_save};
use bundlerun::bundle::{ErrorKind, GivenUp, ListEntryKind, Tree};
use bundlerun::contract::{Command, Registries, Request};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEntry, Request as Asked,
};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `good`, `bad`, `dir/in/file`: the disk fails to give `bad` and what is in `dir`.
#[derive(Clone, Default)]
struct Disk(Arc<AtomicBool>);

impl Disk {
    fn mount(&self, at: &Path) -> BackgroundSession {
        let mut config = Config::default();
        config.n_threads = Some(2);
        fuser::spawn_mount(self.clone(), at, &config).expect("FUSE needs root and /dev/fuse")
    }

    fn set_failing(&self, fails: bool) {
        self.0.store(fails, Ordering::SeqCst);
    }

    fn fails(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Number, number of the parent, name, and the length of a file; none: a directory.
const NODES: [(u64, u64, &str, Option<u64>); 6] = [
    (1, 1, "", None),
    (2, 1, "good", Some(200_000)),
    (3, 1, "bad", Some(300_000)),
    (4, 1, "dir", None),
    (5, 4, "in", None),
    (6, 5, "file", Some(5)),
];

fn attributes(node: u64) -> Option<FileAttr> {
    let (.., length) = NODES.iter().find(|known| known.0 == node)?;
    Some(FileAttr {
        ino: INodeNo(node),
        size: length.unwrap_or(0),
        blocks: length.unwrap_or(0).div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if length.is_some() { FileType::RegularFile } else { FileType::Directory },
        perm: 0o755,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    })
}

impl Filesystem for Disk {
    fn lookup(&self, _: &Asked, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = NODES.iter().find(|node| node.0 != 1 && INodeNo(node.1) == parent && OsStr::new(node.2) == name);
        match found.and_then(|node| attributes(node.0)) {
            Some(attributes) => reply.entry(&Duration::ZERO, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Asked, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match attributes(u64::from(node)) {
            Some(attributes) => reply.attr(&Duration::ZERO, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn read(
        &self,
        _: &Asked,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let node = u64::from(node);
        if node == 3 && self.fails() {
            return reply.error(Errno::EIO);
        }
        let left = attributes(node).map_or(0, |attributes| attributes.size.saturating_sub(offset));
        reply.data(&vec![b'x'; usize::try_from(left.min(u64::from(size))).unwrap()]);
    }

    fn readdir(&self, _: &Asked, node: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let node = u64::from(node);
        if node == 4 && self.fails() {
            return reply.error(Errno::EIO);
        }
        let below = NODES.iter().filter(|known| known.0 != 1 && known.1 == node);
        for (known, number) in below.zip(1u64..).skip(usize::try_from(offset).unwrap()) {
            let kind = if known.3.is_some() { FileType::RegularFile } else { FileType::Directory };
            if reply.add(INodeNo(known.0), number, kind, known.2) {
                break;
            }
        }
        reply.ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_disk_fails_to_read_is_no_output_until_it_is_given_up() {
    let registry = Registry::start();
    let (dir, access, disk) = (tempfile::tempdir().unwrap(), registry.access(), Disk::default());
    let _mounted = disk.mount(dir.path());
    let repository = registry.repository("a");
    disk.set_failing(true);
    let error = try_save(&tree(dir.path()), &repository, "t", &access).await.unwrap_err();
    assert_eq!((error.kind, error.damaged.len()), (ErrorKind::Local, 2));
    assert!(error.message.contains("bad (cannot be read: Input/output error"), "{error}");
    assert!(error.message.ends_with("and 1 more"), "{error}");

    let some = error.damaged.iter().take(1).cloned().collect();
    let given_up = |entries, all_after| Tree { given_up: GivenUp { entries, all_after }, ..tree(dir.path()) };
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

    disk.set_failing(false);
    let whole = save(&tree(dir.path()), &repository, "w", &access).await;
    assert_eq!((whole.files, whole.skipped), (3, 0), "what can be read again is saved");
}

/// A child that saves what is on this disk.
struct Child {
    root: tempfile::TempDir,
    _mounted: BackgroundSession,
}

impl Child {
    fn of(disk: &Disk, registry: &Registry) -> Self {
        let root = tempfile::tempdir().unwrap();
        let (bundle, request) = (root.path().join("bundle"), root.path().join(".bundlerun/request"));
        for dir in [&bundle, &request, &root.path().join(".bundlerun/bin")] {
            fs::create_dir_all(dir).unwrap();
        }
        let mounted = disk.mount(&bundle);
        let registries = Registries { insecure: vec![registry.host.clone()], ca: None };
        let save = json!({
            "repository": registry.repository("a"), "tag": "t", "deadlineSeconds": 60, "interruptedSeconds": 60,
            "giveUpSeconds": 0,
        });
        let save = serde_json::from_value(save).unwrap();
        let asked = Request { save: Some(save), registries, ..Request::new(Command::Argv(vec!["true".to_owned()]), 1) };
        fs::write(request.join("request.json"), serde_json::to_vec(&asked).unwrap()).unwrap();
        Self { root, _mounted: mounted }
    }

    fn start(&self) -> std::process::Child {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bundle-operator"));
        command.args(["helper", "save", "--root"]).arg(self.root.path()).spawn().unwrap()
    }

    fn left(&self, mark: &str) -> Value {
        let text = fs::read(self.root.path().join(".bundlerun/bin").join(mark)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }
}

#[test]
fn the_rest_is_saved_after_three_tries() {
    let (registry, disk) = (Registry::start(), Disk::default());
    let child = Child::of(&disk, &registry);
    disk.set_failing(true);
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
fn a_disk_that_works_again_in_time_costs_nothing() {
    let (registry, disk) = (Registry::start(), Disk::default());
    let child = Child::of(&disk, &registry);
    disk.set_failing(true);
    assert!(!child.start().wait().unwrap().success());
    disk.set_failing(false);
    assert!(child.start().wait().unwrap().success());
    let saved = child.left("saved.json");
    assert_eq!((&saved["files"], &saved["damaged"], &saved["skipped"]), (&json!(3), &Value::Null, &Value::Null));
}
