//! Files that are changed through a mapping: the file system does not tell.

use crate::common::{Fault, Place, Proxy, Registry, access, fetch, tree, try_save};
use crate::early::{LARGE, kept_as, kept_tree, on_disk};
use axum::http::Method;
use bundlerun::bundle::Tree;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

/// More than is read ahead of what the registry takes.
const BYTES: usize = 4_000_000;

/// A process that has a file mapped and stores into it.
pub(crate) struct Mapped {
    file: PathBuf,
    process: Child,
    orders: ChildStdin,
    done: BufReader<ChildStdout>,
}

impl Mapped {
    /// A file of so many letters `a`. The kernel notes the time of the first store into a page, and again once it has
    /// written it back to a disk; in memory it never does.
    pub(crate) fn in_dir(dir: &Path, bytes: usize) -> Self {
        let program = "import mmap, sys
file = open(sys.argv[1], 'r+b')
with mmap.mmap(file.fileno(), 0) as mapped:
    mapped[:] = mapped[:]
    print('mapped', flush=True)
    for order in sys.stdin:
        mapped[:] = order.strip().encode() * len(mapped)
        print('stored', flush=True)
";
        let file = dir.join("mapped");
        fs::write(&file, "a".repeat(bytes)).unwrap();
        let mut command = Command::new("python3");
        command.args(["-c", program]).arg(&file).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let (orders, done) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        let mut mapped = Self { file, process, orders, done };
        mapped.await_word("mapped\n");
        mapped
    }

    fn await_word(&mut self, word: &str) {
        let mut said = String::new();
        self.done.read_line(&mut said).unwrap();
        assert_eq!(said, word);
    }

    /// Fills the file with this letter; no stamp of it moves.
    fn store(&mut self, letter: &str) {
        let file = self.file.clone();
        let stamps = || {
            let metadata = fs::metadata(&file).unwrap();
            (metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec(), metadata.len())
        };
        let before = stamps();
        self.fill(letter);
        assert_eq!(stamps(), before, "the file system tells: nothing is tried here");
    }

    /// Fills the file with this letter.
    pub(crate) fn fill(&mut self, letter: &str) {
        writeln!(self.orders, "{letter}").unwrap();
        self.await_word("stored\n");
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether all of the file is this letter.
async fn is_saved_as(registry: &Registry, letter: &str) -> bool {
    let place = Place::new();
    fetch(&registry.repository("a:t"), None, &place.dir, &registry.access()).await.unwrap();
    fs::read_to_string(place.dir.join("mapped")).unwrap() == letter.repeat(BYTES)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_between_hashing_and_pushing_is_saved() {
    let (registry, dir) = (Registry::start(), tempfile::tempdir_in("/dev/shm").unwrap());
    let mapped = Mutex::new(Some(Mapped::in_dir(dir.path(), BYTES)));
    let proxy = Proxy::before("127.0.0.1", &registry.host, move |method, path, _| {
        // It has been hashed, and is about to be pushed.
        if *method == Method::POST
            && path.contains("/blobs/uploads")
            && let Some(mut mapped) = mapped.lock().unwrap().take()
        {
            mapped.store("b");
        }
        Fault::None
    });
    try_save(&tree(dir.path()), &proxy.reference("a"), "t", &access(&proxy.host)).await.unwrap();
    assert!(is_saved_as(&registry, "b").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_between_two_tries_is_saved() {
    let (registry, dir) = (Registry::start(), tempfile::tempdir_in("/dev/shm").unwrap());
    let mut mapped = Mapped::in_dir(dir.path(), BYTES);
    let refuses = Proxy::before("127.0.0.1", &registry.host, |method, path, _| {
        if *method == Method::PUT && path.contains("/manifests/") { Fault::Status(403) } else { Fault::None }
    });
    let tree = tree(dir.path());
    // All of it is in the registry by then.
    try_save(&tree, &refuses.reference("a"), "t", &access(&refuses.host)).await.unwrap_err();
    mapped.store("b");
    try_save(&tree, &registry.repository("a"), "t", &registry.access()).await.unwrap();
    assert!(is_saved_as(&registry, "b").await);
}

/// A try to save after one that failed keeps the digests of large files for the next: on a disk, in a file that outlives the
/// process.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_after_its_digest_was_kept_by_a_try_that_failed_is_saved() {
    let (registry, dir, beside) = (Registry::start(), on_disk(), on_disk());
    let refuses = Proxy::before("127.0.0.1", &registry.host, |method, path, _| {
        if *method == Method::PUT && path.contains("/manifests/") { Fault::Status(403) } else { Fault::None }
    });
    let tree = Tree { keeps_more: true, ..kept_tree(dir.path(), beside.path()) };
    let mut mapped = Mapped::in_dir(dir.path(), LARGE);
    // Its digest is good only if the file has been quiet for a while, so that the first store after that is the one to be
    // seen.
    while kept_as(beside.path(), true) == 0 {
        try_save(&tree, &refuses.reference("a"), "t", &access(&refuses.host)).await.unwrap_err();
    }
    mapped.fill("b");
    try_save(&tree, &registry.repository("a"), "t", &registry.access()).await.unwrap();
    let place = Place::new();
    fetch(&registry.repository("a:t"), None, &place.dir, &registry.access()).await.unwrap();
    assert_eq!(fs::read_to_string(place.dir.join("mapped")).unwrap(), "b".repeat(LARGE));
}
