//! Snapshots of a tree that is being written.

use crate::common::{
    Fault, NO_LIMITS, Place, Proxy, Registry, access, describe, ends, let_go_one_by_one, names, save, script, tree,
};
use crate::early::on_disk;
use crate::mapped::Mapped;
use axum::http::Method;
use bundlerun::bundle::{
    Access, Error, ErrorKind, Kind, Progress, Snapshot, SnapshotWanted, Tree, fetch, find_snapshot, resolve, restore,
};
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// A working directory with a registry, and what one snapshot leaves for the next.
struct Run {
    registry: Registry,
    dir: TempDir,
    beside: TempDir,
}

impl Run {
    fn new() -> Self {
        Self { registry: Registry::start(), dir: on_disk(), beside: on_disk() }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, byte: u8, bytes: u64) {
        fs::write(self.path(name), vec![byte; usize::try_from(bytes).unwrap()]).unwrap();
    }

    fn tree(&self) -> Tree {
        Tree { kept: Some(self.beside.path().join("digests.json")), ..tree(self.dir.path()) }
    }

    fn wanted(&self) -> SnapshotWanted {
        SnapshotWanted {
            repository: self.registry.repository("a"),
            tag: "run.1.s".to_owned(),
            known: self.beside.path().join("known.json"),
            is_consistent: true,
            patience: Duration::from_mins(1),
            bytes_per_second: None,
            connections: None,
        }
    }

    async fn take(&self) -> Snapshot {
        take(&self.tree(), &self.wanted(), &self.registry.access()).await.unwrap()
    }

    /// What the last snapshot puts back, described.
    async fn restored(&self) -> (Place, Vec<String>) {
        let place = Place::new();
        let (repository, access) = (self.registry.repository("a"), self.registry.access());
        let digest = find_snapshot(&repository, "run.1.s", &access).await.unwrap().unwrap();
        let reference = format!("{repository}@{digest}");
        restore(&reference, &place.dir, vec![], NO_LIMITS, &access, &Progress::default()).await.unwrap();
        place.assert_nothing_outside();
        let described = describe("tree", &place.dir);
        (place, described)
    }

    async fn assert_restored(&self) {
        assert_eq!(self.restored().await.1, describe("tree", self.dir.path()));
    }
}

async fn take(tree: &Tree, wanted: &SnapshotWanted, access: &Access) -> Result<Snapshot, Error> {
    bundlerun::bundle::snapshot(tree, wanted, access, &Progress::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_puts_all_back_as_it_was_and_the_next_one_pushes_what_has_changed() {
    let run = Run::new();
    fs::create_dir_all(run.path("d/closed")).unwrap();
    for n in 0..20 {
        run.write(&format!("d/part-{n}"), n, 2 * MIB);
        run.write(&format!("d/small-{n}"), n, 1000);
    }
    run.write("large", 7, 65 * MIB);
    run.write("empty", 0, 0);
    fs::write(run.path("d/closed/secret"), "s").unwrap();
    fs::hard_link(run.path("d/part-1"), run.path("again")).unwrap();
    symlink("d/part-1", run.path("link")).unwrap();
    fs::set_permissions(run.path("d/closed/secret"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(run.path("d/closed"), fs::Permissions::from_mode(0o700)).unwrap();
    let long_ago = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 7);
    fs::File::options().write(true).open(run.path("d/part-2")).unwrap().set_modified(long_ago).unwrap();
    let first = run.take().await;
    assert_eq!(first.files, 43);
    assert!((105 * MIB..107 * MIB).contains(&first.pushed_bytes), "{first:?}");
    run.assert_restored().await;
    let (place, _) = run.restored().await;
    let stat = |dir: &Path, name: &str| fs::metadata(dir.join(name)).unwrap();
    for name in ["d/part-2", "d/small-3", "empty"] {
        let (then, now) = (stat(run.dir.path(), name), stat(&place.dir, name));
        assert_eq!((then.mtime(), then.mtime_nsec()), (now.mtime(), now.mtime_nsec()), "{name}");
    }

    // Nothing, and what costs no bytes.
    let again = run.take().await;
    assert!(again.pushed_bytes < MIB / 4, "{again:?}");
    fs::rename(run.path("large"), run.path("d/renamed")).unwrap();
    fs::rename(run.path("d/part-3"), run.path("part-3")).unwrap();
    fs::set_permissions(run.path("d/part-4"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::hard_link(run.path("d/part-5"), run.path("five")).unwrap();
    fs::remove_file(run.path("link")).unwrap();
    let moved = run.take().await;
    assert!(moved.pushed_bytes < MIB / 4, "{moved:?}");
    run.assert_restored().await;

    // What has changed, and nothing else: rotated, as checkpoints are, and written over.
    fs::rename(run.path("d/part-6"), run.path("d/part-6.old")).unwrap();
    run.write("d/part-6", 100, 2 * MIB);
    run.write("d/small-6", 100, 1000);
    let changed = run.take().await;
    assert!((2 * MIB..3 * MIB).contains(&changed.pushed_bytes), "{changed:?}");
    run.assert_restored().await;

    // The save has the large file in the store already, where it has the name that it had then.
    fs::rename(run.path("d/renamed"), run.path("large")).unwrap();
    let saved = save(&run.tree(), &run.registry.repository("a"), "t", &run.registry.access()).await;
    assert!(saved.pushed_bytes < 50 * MIB, "{saved:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_an_input_as_any_bundle_is() {
    let run = Run::new();
    fs::create_dir(run.path("d")).unwrap();
    fs::write(run.path("d/step"), "3").unwrap();
    run.take().await;
    let (repository, access) = (run.registry.repository("a"), run.registry.access());
    let digest = find_snapshot(&repository, "run.1.s", &access).await.unwrap().unwrap();
    let reference = format!("{repository}@{digest}");
    for (path, kind) in [(None, Kind::Directory), (Some("d"), Kind::Directory), (Some("d/step"), Kind::File)] {
        assert_eq!(resolve(&reference, path, &access).await.unwrap().kind, kind, "{path:?}");
    }
    let place = Place::new();
    fetch(&reference, None, &place.dir, NO_LIMITS, &access, &Progress::default()).await.unwrap();
    place.assert_nothing_outside();
    assert_eq!(fs::read_to_string(place.dir.join("d/step")).unwrap(), "3");
}

/// One file of forty is another at each snapshot: written over, replaced by a new one, or kept under another name beside it,
/// as programs keep the checkpoint before the last.
#[tokio::test(flavor = "multi_thread")]
async fn little_more_is_pushed_than_has_changed() {
    let run = Run::new();
    for n in 0..40 {
        run.write(&format!("part-{n}"), n, 2 * MIB);
    }
    for n in 0..100 {
        run.write(&format!("small-{n}"), n, 4000);
    }
    run.take().await;
    let (mut pushed, mut changed) = (0, 0);
    for step in 0..60u8 {
        let (part, content) = (format!("part-{}", step % 40), step + 100);
        match step % 3 {
            0 => run.write(&part, content, 2 * MIB),
            1 => {
                run.write("part.new", content, 2 * MIB);
                fs::rename(run.path("part.new"), run.path(&part)).unwrap();
            }
            _ => {
                fs::rename(run.path(&part), run.path("part.before")).unwrap();
                run.write(&part, content, 2 * MIB);
            }
        }
        run.write(&format!("small-{step}"), content, 4000);
        pushed += run.take().await.pushed_bytes;
        changed += 2 * MIB + 4000;
    }
    run.assert_restored().await;
    println!("{pushed} bytes pushed for {changed} that had changed: {} in a thousand", pushed * 1000 / changed);
    assert!(pushed <= changed + changed / 10, "{pushed} of {changed}");
}

/// As archives leave them, and clocks that differ.
#[tokio::test(flavor = "multi_thread")]
async fn a_time_in_the_future_holds_nothing_up() {
    let run = Run::new();
    run.write("model", 1, MIB);
    let file = fs::File::options().write(true).open(run.path("model")).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_hours(1)).unwrap();
    run.take().await;
    run.assert_restored().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_through_a_mapping_is_in_the_next_snapshot() {
    let run = Run::new();
    let mut mapped = Mapped::in_dir(run.dir.path(), 4_000_000);
    for letter in ["b", "c", "d"] {
        run.take().await;
        mapped.fill(letter);
        run.take().await;
        run.assert_restored().await;
    }
}

/// Two files that a program writes one after the other, all the time, as new ones or through mappings: each snapshot has both
/// of one step, or there is none.
#[tokio::test(flavor = "multi_thread")]
async fn no_snapshot_mixes_two_steps() {
    let renames = "import itertools, os, time
for step in itertools.count():
    for name in ['a', 'b']:
        with open(name + '.tmp', 'wb') as file:
            file.write(str(step).encode().rjust(3 << 20))
        os.rename(name + '.tmp', name)
    time.sleep(1.5)
";
    let maps = "import itertools, mmap, os, time
maps = []
for name in ['a', 'b']:
    with open(name + '.tmp', 'w+b') as file:
        file.write(b'0'.rjust(3 << 20))
        file.flush()
        maps.append(mmap.mmap(file.fileno(), 0))
    os.rename(name + '.tmp', name)
for step in itertools.count():
    for mapped in maps:
        mapped[:] = str(step).encode().rjust(3 << 20)
    time.sleep(1.5)
";
    tokio::join!(mixes_no_two_steps(renames), mixes_no_two_steps(maps));
}

async fn mixes_no_two_steps(program: &str) {
    let run = Run::new();
    let mut writer = Command::new("python3").args(["-c", program]).current_dir(run.dir.path()).spawn().unwrap();
    while !run.path("b").exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (mut taken, mut last) = (0, 0);
    for _ in 0..8 {
        match take(&run.tree(), &run.wanted(), &run.registry.access()).await {
            Ok(_) => taken += 1,
            Err(error) => assert!(error.message.contains("was written while the snapshot was taken"), "{error}"),
        }
        let (place, _) = run.restored().await;
        let step = |name: &str| fs::read_to_string(place.dir.join(name)).unwrap().trim().parse::<u64>().unwrap();
        // It is between `a` and `b` for some milliseconds, in which a snapshot that is not of one moment could be taken.
        let (a, b) = (step("a"), step("b"));
        assert!(a == b || a == b + 1, "{a} {b}");
        last = a;
    }
    writer.kill().unwrap();
    writer.wait().unwrap();
    assert!(taken > 0 && last > 0, "{taken} snapshots, the last of step {last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_written_all_the_time_is_named_unless_it_is_excluded() {
    let run = Run::new();
    run.write("model", 1, MIB);
    let program = "while :; do echo line >> log; done";
    let mut writer = Command::new("sh").args(["-c", program]).current_dir(run.dir.path()).spawn().unwrap();
    let excluding = Tree { exclude: vec!["log".to_owned()], ..run.tree() };
    take(&excluding, &run.wanted(), &run.registry.access()).await.unwrap();
    assert_eq!(names(&run.restored().await.0.dir), ["model"]);
    // Each file by itself: what keeps changing is left out.
    let each = SnapshotWanted { is_consistent: false, ..run.wanted() };
    take(&run.tree(), &each, &run.registry.access()).await.unwrap();
    assert!(names(&run.restored().await.0.dir).contains(&"model".to_owned()));
    // On a busy machine it may write nothing during a look.
    let impatient = SnapshotWanted { patience: Duration::ZERO, ..run.wanted() };
    let refused = loop {
        if let Err(error) = take(&run.tree(), &impatient, &run.registry.access()).await {
            break error;
        }
    };
    writer.kill().unwrap();
    assert_eq!(refused.kind, ErrorKind::Local);
    assert!(refused.message.starts_with("log was written while the snapshot was taken, 3 times"), "{refused}");
    writer.wait().unwrap();
}

/// Who waits for it would go on as if all were there.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_saved_fails_a_snapshot_that_is_wanted_whole() {
    let run = Run::new();
    run.write("model", 1, MIB);
    // The files of root cannot be closed to it: what has too long a path is left out likewise.
    let program = "import os
for _ in range(70):
    os.mkdir('d' * 250)
    os.chdir('d' * 250)
";
    script("python3", run.dir.path(), program);
    let refused = take(&run.tree(), &run.wanted(), &run.registry.access()).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Local);
    let [begin, end] =
        ["dddd", "(its path is longer than 16384 bytes): let it be read, or exclude it by outputs.snapshots.exclude"];
    assert!(refused.message.starts_with(begin) && refused.message.ends_with(end), "{refused}");
    let each = SnapshotWanted { is_consistent: false, ..run.wanted() };
    take(&run.tree(), &each, &run.registry.access()).await.unwrap();
    let excluding = Tree { exclude: vec!["d*".to_owned()], ..run.tree() };
    take(&excluding, &run.wanted(), &run.registry.access()).await.unwrap();
}

/// It is not put back, and another process may print all the time.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_printed_while_a_snapshot_is_taken_is_in_nobodys_way() {
    let run = Run::new();
    run.write("model", 1, MIB);
    let stdout = run.beside.path().join("stdout");
    let program = "while :; do echo line >> stdout; done";
    let mut writer = Command::new("sh").args(["-c", program]).current_dir(run.beside.path()).spawn().unwrap();
    while !stdout.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let tree = Tree { outside: vec![("stdout".to_owned(), stdout)], ..run.tree() };
    take(&tree, &run.wanted(), &run.registry.access()).await.unwrap();
    writer.kill().unwrap();
    writer.wait().unwrap();
    assert_eq!(names(&run.restored().await.0.dir), ["model"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_is_told_and_the_snapshot_before_stays() {
    let run = Run::new();
    run.write("a", 1, MIB);
    run.take().await;
    run.write("a", 2, MIB);
    let is_manifest = |method: &Method, path: &str, _| {
        if method == Method::PUT && path.contains("/manifests/") { Fault::Status(403) } else { Fault::None }
    };
    let proxy = Proxy::before("127.0.0.1", &run.registry.host, is_manifest);
    let wanted = SnapshotWanted { repository: format!("{}/a", proxy.host), ..run.wanted() };
    let error = take(&run.tree(), &wanted, &access(&proxy.host)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied, "{error}");
    let (place, _) = run.restored().await;
    assert_eq!(fs::read(place.dir.join("a")).unwrap()[0], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_mounted_stays_when_a_snapshot_is_put_back() {
    let run = Run::new();
    fs::create_dir(run.path("d")).unwrap();
    run.write("d/file", 1, 10);
    run.take().await;
    let place = Place::new();
    fs::create_dir_all(place.dir.join("d/mounted")).unwrap();
    fs::write(place.dir.join("d/mounted/input"), "input").unwrap();
    fs::write(place.dir.join("left-by-a-try"), "").unwrap();
    let (repository, access) = (run.registry.repository("a"), run.registry.access());
    let reference = format!("{repository}:run.1.s");
    let stay = vec![b"d/mounted".to_vec()];
    restore(&reference, &place.dir, stay, NO_LIMITS, &access, &Progress::default()).await.unwrap();
    assert_eq!(names(&place.dir), ["d", "d/file", "d/mounted", "d/mounted/input"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_of_a_snapshot_can_be_in_parts() {
    let run = Run::new();
    let tree = Tree { max_blob: Some(MIB), ..run.tree() };
    let take = async || take(&tree, &run.wanted(), &run.registry.access()).await.unwrap();
    run.write("large", 1, 5 * MIB / 2);
    run.write("other", 2, 3 * MIB);
    run.write("small", 3, 1000);
    take().await;
    run.assert_restored().await;
    fs::rename(run.path("large"), run.path("renamed")).unwrap();
    run.write("other", 4, 3 * MIB);
    let second = take().await;
    // Equal parts of one file differ in their names.
    assert!((3 * MIB..7 * MIB / 2).contains(&second.pushed_bytes), "{second:?}");
    run.assert_restored().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_tag_is_written_twice_the_last_of_numbered_ones_counts() {
    let run = Run::new();
    let written = Mutex::new(HashSet::new());
    // A tag that was written once is refused.
    let proxy = Proxy::before("127.0.0.1", &run.registry.host, move |method, path, _| {
        let is_tag = path.contains("/manifests/run.1.s");
        let is_second = *method == Method::PUT && is_tag && !written.lock().unwrap().insert(path.to_owned());
        if is_second { Fault::Status(403) } else { Fault::None }
    });
    let access = access(&proxy.host);
    let wanted = SnapshotWanted { repository: format!("{}/a", proxy.host), ..run.wanted() };
    let known = run.beside.path().join("known.json");
    let mut before = Vec::new();
    for step in 0..8 {
        run.write("a", step, 2 * MIB);
        match step {
            4 => before = fs::read(&known).unwrap(),
            5 => fs::remove_file(&known).unwrap(),
            // Whoever took those after it was killed before it could note so.
            6 => fs::write(&known, &before).unwrap(),
            _ => {}
        }
        let taken = take(&run.tree(), &wanted, &access).await.unwrap();
        let found = find_snapshot(&wanted.repository, "run.1.s", &access).await.unwrap();
        assert_eq!(found, Some(taken.digest), "step {step}");
    }
    assert_eq!(find_snapshot(&wanted.repository, "run.2.s", &access).await.unwrap(), None);
}

/// Two stores may have one time: what is found in a file that was written a moment ago is not relied on, however long the
/// push takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_just_written_is_read_again() {
    let run = Run::new();
    let slow = SnapshotWanted { is_consistent: false, bytes_per_second: Some(MIB), ..run.wanted() };
    for (wait, is_settled) in [(Duration::ZERO, false), (Duration::from_secs(2), true)] {
        run.write("file", 1, 3 * MIB);
        tokio::time::sleep(wait).await;
        take(&run.tree(), &slow, &run.registry.access()).await.unwrap();
        let known = fs::read(run.beside.path().join("known.json")).unwrap();
        let known: serde_json::Value = serde_json::from_slice(&known).unwrap();
        assert_eq!(known["files"][0]["isSettled"], is_settled, "{known}");
    }
}

/// With a schedule nobody waits: a file that keeps changing is what it was in the snapshot before.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_keeps_changing_keeps_its_last_version() {
    let run = Run::new();
    fs::write(run.path("log"), "first\n").unwrap();
    let each = SnapshotWanted { is_consistent: false, ..run.wanted() };
    take(&run.tree(), &each, &run.registry.access()).await.unwrap();
    let program = "import itertools
with open('log', 'r+b', buffering=0) as file:
    for n in itertools.count():
        file.seek(0)
        file.write(str(n).encode().rjust(1 << 22))
";
    let mut writer = Command::new("python3").args(["-c", program]).current_dir(run.dir.path()).spawn().unwrap();
    while fs::metadata(run.path("log")).unwrap().len() < 1 << 22 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    take(&run.tree(), &each, &run.registry.access()).await.unwrap();
    writer.kill().unwrap();
    writer.wait().unwrap();
    let (place, _) = run.restored().await;
    assert_eq!(fs::read_to_string(place.dir.join("log")).unwrap(), "first\n");
}

/// Of what it had more than an hour ago the store is asked, and it is pushed again. Where it says of a manifest that it lacks
/// something, the next snapshot pushes all.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_has_lost_is_pushed_again() {
    let run = Run::new();
    run.write("lost", 1, 3 * MIB);
    run.write("there", 2, 2 * MIB);
    run.take().await;
    let file = run.beside.path().join("known.json");
    let known = || serde_json::from_slice::<serde_json::Value>(&fs::read(&file).unwrap()).unwrap();
    let lose = || {
        let known = known();
        let is_it = |blob: &&serde_json::Value| blob["size"].as_u64().unwrap() > 3 * MIB;
        let blob = known["blobs"].as_array().unwrap().iter().find(is_it).unwrap();
        run.registry.lose_blob(blob["digest"].as_str().unwrap());
    };
    lose();
    let mut before = known();
    for blob in before["blobs"].as_array_mut().unwrap() {
        blob["seenAt"] = (blob["seenAt"].as_u64().unwrap() - 3601).into();
    }
    fs::write(&file, before.to_string()).unwrap();
    let again = run.take().await;
    assert!((3 * MIB..4 * MIB).contains(&again.pushed_bytes), "{again:?}");
    run.assert_restored().await;

    lose();
    run.write("new", 3, 10);
    take(&run.tree(), &run.wanted(), &run.registry.access()).await.unwrap_err();
    let again = run.take().await;
    assert!((3 * MIB..4 * MIB).contains(&again.pushed_bytes), "{again:?}");
    run.assert_restored().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_of_a_snapshot_is_pushed_at_once_than_there_are_connections() {
    for connections in [1, 3] {
        let run = Run::new();
        for n in 0..6 {
            run.write(&n.to_string(), n, 2 * MIB);
        }
        let holds = |method: &Method, _: &str, _| if method == Method::PATCH { Fault::HoldBack } else { Fault::None };
        let proxy = Proxy::before("127.0.0.1", &run.registry.host, holds);
        let wanted = SnapshotWanted {
            repository: proxy.reference("a"),
            is_consistent: false,
            connections: Some(connections.try_into().unwrap()),
            ..run.wanted()
        };
        let (tree, access) = (run.tree(), access(&proxy.host));
        let taken = Box::pin(async { take(&tree, &wanted, &access).await.unwrap() });
        ends("a snapshot", async { tokio::join!(taken, let_go_one_by_one(&proxy, 6, connections)) }).await;
        run.assert_restored().await;
    }
}
