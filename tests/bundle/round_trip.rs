//! What is saved comes back, and others see the same.

use crate::common::*;
use bundlerun::bundle::{Budget, ErrorKind, Kind, Limits, ListEntryKind, Progress, Tree, download};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const ODDITIES: &str = r#"
import os, socket
def put(name, content=b"x", mode=0o644):
    with open(name, "wb") as f: f.write(content)
    os.chmod(name, mode)
put(b"plain", b"hello\n")
put(b"empty", b"")
put(b"not utf-8 \xff\xfe")
put(b"new\nline \t\x01 \"quoted\" \\ back")
put("unicode-\u00fc-\u65e5\u672c".encode())
put(b"-dash"); put(b" space "); put(b"a.txt"); put(b"n" * 255)
put(b"setuid", mode=0o4755); put(b"setgid", mode=0o2755); put(b"secret", mode=0o600); put(b"none", mode=0o000)
os.mkdir("a"); put(b"a/b"); put(b"a!b"); os.mkdir("a-b"); put(b"a-b/c")
os.mkdir("empty-dir"); os.mkdir("sticky"); os.chmod("sticky", 0o1777)
os.mkdir("closed"); put(b"closed/in"); os.chmod("closed", 0o500)
os.symlink("plain", "link"); os.symlink("/etc/passwd", "absolute"); os.symlink("nowhere", "dangling")
os.symlink("loop", "loop"); os.symlink(b"\xff" * 300, b"bytes-link"); os.symlink("a", "dir-link")
os.mkdir("z"); put(b"z/first", b"linked" * 1000)
for name in ("a/second", "third", "z/fourth"): os.link("z/first", name)
put(b"many\n1", os.urandom(3 * 1024 * 1024 + 17))
put(b"block", b"b" * 512); put(b"blocks", b"b" * 1024); put(b"zeros", bytes(1 << 20))
with open("sparse", "wb") as f:
    f.truncate(50 << 20); f.seek(20 << 20); f.write(b"middle"); 
for i in range(300): 
    os.makedirs(f"many/{i % 10}", exist_ok=True); put(f"many/{i % 10}/{i}".encode(), str(i).encode() * i)
"#;
const DEEP: &str = r#"
import os
fd = os.open(".", os.O_RDONLY)
for i in range(60):
    os.mkdir("d" * 200, dir_fd=fd); fd = os.open("d" * 200, os.O_RDONLY, dir_fd=fd)
with open(os.open("bottom", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=fd), "w") as f: f.write("deep")
"#;
const ESCAPED: &str = r#"
import os
os.makedirs(".wh.dir/sub")
open(".wh.dir/sub/file", "w").write("escaped")
open(".wh..wh..opq", "w").write("opaque")
open("ordinary", "w").write("o"); os.link("ordinary", ".wh.hard"); os.symlink("x", ".wh.link")
"#;

/// As staged files are: readable, and without the rights of their owner.
fn staged(lines: Vec<String>) -> Vec<String> {
    let staged = |line: String| {
        let mut parts: Vec<&str> = line.split(' ').collect();
        let mode = u32::from_str_radix(parts[2], 8).unwrap() & 0o777;
        let mode = match parts[1] {
            "directory" => mode | 0o555,
            "file" => mode | 0o444,
            _ => mode,
        };
        let mode = format!("{mode:04o}");
        parts[2] = &mode;
        parts.join(" ")
    };
    lines.into_iter().map(staged).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_oddity_comes_back_the_same_and_crane_sees_it_too() {
    let registry = Registry::start();
    let (dir, access) = (tempfile::tempdir().unwrap(), registry.access());
    script("python3", dir.path(), ODDITIES);
    script("python3", dir.path(), DEEP);
    let expected = describe("tree", dir.path());
    assert!(expected.len() > 370, "{}", expected.len());

    let saved = save(&tree(dir.path()), &registry.repository("ns/odd"), "r.1.x", &access).await;
    assert_eq!(saved.skipped, 0);
    let regular: Vec<_> = expected.iter().filter(|line| line.contains(" file ")).collect();
    assert_eq!(saved.files, regular.len() as u64 - 3, "a file with four names counts once");

    let reference = format!("{}@{}", registry.repository("ns/odd"), saved.digest);
    let place = Place::new();
    let inode = fs::metadata(&place.dir).unwrap().ino();
    fetch(&reference, None, &place.dir, &access).await.unwrap();
    assert_eq!(describe("tree", &place.dir), staged(expected.clone()));
    assert_eq!(fs::metadata(&place.dir).unwrap().ino(), inode);
    let sparse = fs::metadata(place.dir.join("sparse")).unwrap();
    assert!(sparse.blocks() * 512 < 1 << 20, "a hole takes {} blocks", sparse.blocks());
    // Again, over what is there.
    fetch(&reference, None, &place.dir, &access).await.unwrap();
    assert_eq!(describe("tree", &place.dir), staged(expected.clone()));

    let exported = crane(&["export", "--insecure", &reference, "-"]);
    let archive = place.around.path().join("exported.tar");
    fs::write(&archive, exported).unwrap();
    assert_eq!(describe("tar", &archive), expected);
    assert_the_config_has_the_digests_of_the_layers(&reference);
}

/// containerd mounts no others.
fn assert_the_config_has_the_digests_of_the_layers(reference: &str) {
    let json = |bytes: Vec<u8>| serde_json::from_slice::<serde_json::Value>(&bytes).unwrap();
    let manifest = json(crane(&["manifest", "--insecure", reference]));
    let config = json(crane(&["config", "--insecure", reference]));
    let repository = reference.split('@').next().unwrap();
    let digests = manifest["layers"].as_array().unwrap().iter().map(|layer| {
        let blob = crane(&["blob", "--insecure", &format!("{repository}@{}", layer["digest"].as_str().unwrap())]);
        assert_eq!(layer["size"], blob.len());
        match layer["mediaType"].as_str().unwrap() {
            "application/vnd.oci.image.layer.v1.tar+gzip" => {
                let mut archive = vec![];
                flate2::read::MultiGzDecoder::new(&*blob).read_to_end(&mut archive).unwrap();
                sha256(&archive)
            }
            TAR => sha256(&blob),
            other => panic!("{other}"),
        }
    });
    assert_eq!(config["rootfs"]["diff_ids"], digests.collect::<serde_json::Value>());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_mean_deletions_to_others_come_back() {
    let registry = Registry::start();
    let (dir, access) = (tempfile::tempdir().unwrap(), registry.access());
    script("python3", dir.path(), ESCAPED);
    let saved = save(&tree(dir.path()), &registry.repository("ns"), "t", &access).await;
    let reference = format!("{}@{}", registry.repository("ns"), saved.digest);
    let place = Place::new();
    fetch(&reference, None, &place.dir, &access).await.unwrap();
    assert_eq!(describe("tree", &place.dir), staged(describe("tree", dir.path())));
    let names = String::from_utf8(
        std::process::Command::new("sh")
            .args(["-c", "tar -t"])
            .stdin(pipe(&crane(&["export", "--insecure", &reference, "-"])))
            .output()
            .unwrap()
            .stdout,
    )
    .unwrap();
    assert!(names.contains("escaped/0") && names.contains("contents/ordinary") && !names.contains(".wh."), "{names}");
}

fn pipe(bytes: &[u8]) -> fs::File {
    use std::io::{Seek, Write};
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn the_digest_depends_on_the_tree_alone() {
    let registry = Registry::start();
    let (one, two, access) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), registry.access());
    script("python3", one.path(), ODDITIES);
    let copy = format!("cp -a {}/. . && find . -exec touch -h -d 2001-01-01 {{}} +", one.path().display());
    script("sh", two.path(), &copy);
    if rustix::process::geteuid().is_root() {
        // Changing the owner takes setuid away.
        script("sh", two.path(), "chown -hR 1234:5678 . && chmod 4755 setuid && chmod 2755 setgid");
    }
    script("sh", two.path(), "chmod 700 .");
    let first = save(&tree(one.path()), &registry.repository("a"), "one", &access).await;
    let again = save(&tree(two.path()), &registry.repository("a"), "two", &access).await;
    assert_eq!(first.digest, again.digest);
    assert!(again.pushed_bytes < 1000, "only how it was made is new: {} bytes", again.pushed_bytes);
    fs::write(two.path().join("plain"), "other").unwrap();
    assert_ne!(save(&tree(two.path()), &registry.repository("a"), "three", &access).await.digest, first.digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_and_twenty_thousand_files_are_bundles() {
    let registry = Registry::start();
    let (dir, access) = (tempfile::tempdir().unwrap(), registry.access());
    let empty = save(&tree(dir.path()), &registry.repository("a"), "empty", &access).await;
    assert_eq!((empty.files, empty.bytes, empty.skipped), (0, 0, 0));
    let place = Place::new();
    let reference = |digest: &str| format!("{}@{digest}", registry.repository("a"));
    fetch(&reference(&empty.digest), None, &place.dir, &access).await.unwrap();
    assert!(names(&place.dir).is_empty());
    assert_the_config_has_the_digests_of_the_layers(&reference(&empty.digest));

    let many = "import os\nfor i in range(20):\n os.mkdir(str(i))\n for j in range(1000): open(f'{i}/{j}', 'w').write(f'{i} {j}')";
    script("python3", dir.path(), many);
    let saved = save(&tree(dir.path()), &registry.repository("a"), "many", &access).await;
    assert_eq!(saved.files, 20_000);
    let one = bundlerun::bundle::read_file(&reference(&saved.digest), "17/123", &access, vec![]).await.unwrap();
    assert_eq!(one, b"17 123");
    fetch(&reference(&saved.digest), None, &place.dir, &access).await.unwrap();
    assert_eq!(describe("tree", &place.dir), describe("tree", dir.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_excluded_or_ours_is_left_out() {
    let registry = Registry::start();
    let (dir, access) = (tempfile::tempdir().unwrap(), registry.access());
    let make =
        "touch keep a.tmp .hidden; mkdir -p sub/deep cache/x ours stub/inner filled; touch sub/b.tmp sub/deep/c.tmp
        touch sub/d.log cache/x/y ours/file filled/file; ln -s /inputs/1/in in; ln -s /inputs/3/in mine
        ln -s /inputs/2/in also; ln -s /inputs/1/sub2 sub2; ln -s /inputs/1/x/y y; ln -s /inputs/1/in sub/in";
    script("sh", dir.path(), make);
    let inode = |name: &str| fs::metadata(dir.path().join(name)).map(|m| (m.dev(), m.ino()).into()).unwrap();
    let mut tree = tree(dir.path());
    tree.exclude = ["*.tmp", "**/*.log", "cache/", "./.hidden"].map(str::to_owned).into();
    tree.left_out = vec![inode("ours")];
    tree.left_out_if_empty = vec![inode("stub"), inode("stub/inner"), inode("filled")];
    tree.linked_to = vec!["/inputs/1".into(), "/inputs/2".into()];
    let saved = save(&tree, &registry.repository("a"), "t", &access).await;
    let reference = format!("{}@{}", registry.repository("a"), saved.digest);
    let listed = bundlerun::bundle::list(&reference, &access).await.unwrap();
    let paths: Vec<_> = listed.iter().map(|entry| String::from_utf8(entry.path.clone()).unwrap()).collect();
    assert_eq!(
        paths,
        [
            "",
            "also",
            "filled",
            "filled/file",
            "keep",
            "mine",
            "sub",
            "sub/b.tmp",
            "sub/deep",
            "sub/deep/c.tmp",
            "sub/in",
            "y"
        ]
    );
    tree.exclude = vec!["**/*.tmp".into(), "sub/**".into()];
    assert!(try_save(&tree, &registry.repository("a"), "u", &access).await.is_ok());
    tree.exclude = vec!["[".into()];
    assert_eq!(try_save(&tree, &registry.repository("a"), "v", &access).await.unwrap_err().kind, ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slash_before_or_behind_a_pattern_is_the_working_directory() {
    let registry = Registry::start();
    let (dir, access) = (tempfile::tempdir().unwrap(), registry.access());
    script("sh", dir.path(), "mkdir -p cache a/cache; touch cache/x a/cache/y t.tmp a/u.tmp");
    let everything = ["", "a", "a/cache", "a/cache/y", "a/u.tmp", "cache", "cache/x", "t.tmp"];
    for (pattern, left_out) in [
        ("cache", &["cache", "cache/x"][..]),
        ("/cache", &["cache", "cache/x"]),
        ("./cache", &["cache", "cache/x"]),
        ("cache/", &["cache", "cache/x"]),
        ("/cache/", &["cache", "cache/x"]),
        ("/cache/**", &["cache/x"]),
        ("/a/cache/", &["a/cache", "a/cache/y"]),
        ("**/cache", &["a/cache", "a/cache/y", "cache", "cache/x"]),
        ("/**/cache/", &["a/cache", "a/cache/y", "cache", "cache/x"]),
        ("*.tmp", &["t.tmp"]),
        ("/*.tmp", &["t.tmp"]),
        ("**/*.tmp", &["a/u.tmp", "t.tmp"]),
        ("/a/*.tmp", &["a/u.tmp"]),
    ] {
        let tree = bundlerun::bundle::Tree { exclude: vec![pattern.to_owned()], ..tree(dir.path()) };
        let saved = save(&tree, &registry.repository("a"), "t", &access).await;
        let reference = format!("{}@{}", registry.repository("a"), saved.digest);
        let listed = bundlerun::bundle::list(&reference, &access).await.unwrap();
        let paths: Vec<_> = listed.iter().map(|entry| String::from_utf8(entry.path.clone()).unwrap()).collect();
        let expected: Vec<_> = everything.iter().filter(|path| !left_out.contains(path)).copied().collect();
        assert_eq!(paths, expected, "{pattern}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_saved_is_listed_with_the_reason() {
    let registry = Registry::start();
    let (dir, access) = (tempfile::tempdir().unwrap(), registry.access());
    script(
        "python3",
        dir.path(),
        "import os, socket\nos.mkfifo('fifo')\nsocket.socket(socket.AF_UNIX).bind('socket')\nopen('file', 'w')",
    );
    let saved = save(&tree(dir.path()), &registry.repository("a"), "t", &access).await;
    assert_eq!((saved.files, saved.skipped, saved.withheld, saved.damaged), (1, 2, 0, 0));
    assert_eq!(saved.skipped_names, ["fifo (a FIFO)", "socket (a socket)"]);
    let reference = format!("{}@{}", registry.repository("a"), saved.digest);
    let skipped: BTreeMap<_, _> = bundlerun::bundle::list(&reference, &access)
        .await
        .unwrap()
        .into_iter()
        .filter_map(|entry| match entry.what {
            ListEntryKind::Skipped { reason } => Some((String::from_utf8(entry.path).unwrap(), reason)),
            _ => None,
        })
        .collect();
    assert_eq!(skipped, [("fifo", "a FIFO"), ("socket", "a socket")].map(|(a, b)| (a.into(), b.into())).into());
    let place = Place::new();
    fetch(&reference, None, &place.dir, &access).await.unwrap();
    assert_eq!(names(&place.dir), ["file"]);
    let error = bundlerun::bundle::resolve(&reference, Some("fifo"), &access).await.unwrap_err();
    assert!(error.kind == ErrorKind::PathNotFound && error.message.contains("a FIFO"), "{error}");
}

/// `sparse(name, size, where it has data...)`.
const SPARSE: &str = "
def sparse(name, size, *data):
    with open(name, 'wb') as file:
        file.truncate(size)
        for at in data:
            file.seek(at)
            file.write(b'x' * 5000)
";

#[tokio::test(flavor = "multi_thread")]
async fn holes_are_saved_as_zeros_and_come_back_as_holes() {
    let registry = Registry::start();
    let (dir, access) = (tempfile::tempdir().unwrap(), registry.access());
    let holes = "
sparse('begin', 3 << 20, 0)
sparse('middle', 3 << 20, 100_001, 1 << 20)
sparse('end', 3 << 20, (3 << 20) - 5000)
sparse('nothing', 3 << 20)
open('file', 'w').write('x')";
    script("python3", dir.path(), &format!("{SPARSE}{holes}"));
    let saved = save(&tree(dir.path()), &registry.repository("a"), "t", &access).await;
    assert_eq!((saved.files, saved.skipped, saved.mountable), (5, 0, true));
    let place = Place::new();
    let reference = format!("{}@{}", registry.repository("a"), saved.digest);
    // What they take on the disk counts, as it does in the working directory.
    let limits = |bytes| Limits { entries: 100, bytes };
    let fetch = async |bytes| {
        bundlerun::bundle::fetch(&reference, None, &place.dir, limits(bytes), &access, &Progress::default()).await
    };
    fetch(100_000).await.unwrap();
    for file in ["begin", "middle", "end", "nothing", "file"] {
        assert!(fs::read(place.dir.join(file)).unwrap() == fs::read(dir.path().join(file)).unwrap(), "{file}");
        let blocks = fs::metadata(place.dir.join(file)).unwrap().blocks();
        assert!(blocks * 512 <= 20_000, "{file} takes {blocks} blocks");
    }
    assert_eq!(fetch(10_000).await.unwrap_err().kind, ErrorKind::TooLarge);
}

/// It would take hours to read the zeros.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_file_that_is_hardly_anything_but_holes_only_the_rest_is_read() {
    let registry = Registry::start();
    let (dir, access) = (tempfile::tempdir().unwrap(), registry.access());
    let memmap = "
import os
T = 1 << 40
sparse('memmap', T, 7, 100 << 30, (100 << 30) + 8192, T - 5000)
sparse('nothing', T)
os.link('memmap', 'other name')
open('file', 'w').write('x')";
    script("python3", dir.path(), &format!("{SPARSE}{memmap}"));
    let tree = tree(dir.path());
    let saved = save(&tree, &registry.repository("a"), "t", &access).await;
    assert_eq!((saved.files, saved.skipped, saved.bytes), (3, 0, (2 << 40) + 1));
    assert!(saved.pushed_bytes < 1 << 20, "{}", saved.pushed_bytes);
    assert!(!saved.mountable, "the node would write a terabyte of zeros");
    let reference = format!("{}@{}", registry.repository("a"), saved.digest);

    let (place, small) = (Place::new(), Limits { entries: 100, bytes: 1 << 20 });
    bundlerun::bundle::fetch(&reference, None, &place.dir, small, &access, &Progress::default()).await.unwrap();
    let same = |file: &Path| {
        let read = |path: &Path, at: u64| {
            let mut part = vec![0; 20_000];
            let got = std::os::unix::fs::FileExt::read_at(&fs::File::open(path).unwrap(), &mut part, at).unwrap();
            part.truncate(got);
            part
        };
        let memmap = dir.path().join("memmap");
        assert_eq!(fs::metadata(file).unwrap().len(), 1 << 40);
        for at in [0, 5000, (100 << 30) - 5000, 1 << 39, (1 << 40) - 20_000] {
            assert!(read(file, at) == read(&memmap, at), "{} at {at}", file.display());
        }
        assert!(fs::metadata(file).unwrap().blocks() * 512 < 100_000);
    };
    same(&place.dir.join("memmap"));
    assert_eq!(fs::metadata(place.dir.join("nothing")).unwrap().len(), 1 << 40);
    let inode = |name: &str| fs::metadata(place.dir.join(name)).unwrap().ino();
    assert_eq!(inode("memmap"), inode("other name"));
    // What was staged is the same tree.
    let again = save(&crate::common::tree(&place.dir), &registry.repository("a"), "again", &access).await;
    assert_eq!(again.digest, saved.digest);

    let file = place.around.path().join("victim");
    fetch(&reference, Some("other name"), &file, &access).await.unwrap();
    same(&file);
    let listed = bundlerun::bundle::list(&reference, &access).await.unwrap();
    let digests: Vec<bool> = listed
        .iter()
        .filter_map(|entry| match &entry.what {
            ListEntryKind::File { sha256, .. } => Some(sha256.is_some()),
            _ => None,
        })
        .collect();
    assert_eq!(digests, [true, false, false, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sparse_file_is_saved_as_what_it_reads_as_and_read_as_it_was() {
    let registry = Registry::start();
    let (dir, access) = (tempfile::tempdir().unwrap(), registry.access());
    // Zeros on the disk are no data, and a hole in the midst of a block is none.
    let make = "
sparse('model', 1500 << 20, 4096, 700 << 20)
with open('model', 'r+b') as file:
    file.seek(100 << 20); file.write(bytes(1 << 20))";
    script("python3", dir.path(), &format!("{SPARSE}{make}"));
    let digest = async |tag| save(&tree(dir.path()), &registry.repository("a"), tag, &access).await.digest;
    let saved = digest("t").await;
    script("python3", dir.path(), &format!("{SPARSE}sparse('model', 1500 << 20, 4096, 700 << 20)"));
    assert_eq!(digest("u").await, saved);
    let reference = format!("{}@{saved}", registry.repository("a"));
    let read = bundlerun::bundle::read_file(&reference, "model", &access, Summing::default()).await.unwrap();
    assert_eq!((read.bytes, read.x), (1500 << 20, 10_000));
}

/// Counts what is written to it.
#[derive(Default)]
struct Summing {
    bytes: u64,
    x: usize,
}

impl std::io::Write for Summing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes += bytes.len() as u64;
        if bytes.first() != Some(&0) || bytes.last() != Some(&0) {
            self.x += bytes.iter().map(|byte| usize::from(*byte == b'x')).sum::<usize>();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_bundle_is_fetched_as_what_it_is() {
    let registry = Registry::start();
    let (dir, access) = (tempfile::tempdir().unwrap(), registry.access());
    let make = "mkdir -p d/e other; echo one >d/e/one; echo two >d/two; echo x >d.x; echo y >d-y; echo no >other/no
        chmod 4711 d/two; ln -s e d/link; ln -s d outer; ln other/no d/hard; ln other/no d/e/hard2
        ln -s d/e/one to-file; ln -s outer/link/../two far; ln -s ../d/e/one other/one; ln -s $PWD/d other/best; ln -s /bundle/d abs
        ln -s /bundle self; ln -s loop loop; ln -s ring-b ring-a; ln -s ring-a ring-b; ln -s none dangling
        ln -s /data/set absolute; ln -s /bundle2/d sibling; ln -s ../../etc/passwd up; ln -s d/../.. up2; ln -s fifo to-fifo
        ln -s abs/e/one/ slash; mkfifo fifo; n=0; ln -s d c0; while [ $n -lt 45 ]; do ln -s c$n c$((n+1)); n=$((n+1)); done";
    script("sh", dir.path(), make);
    let saved = save(&tree(dir.path()), &registry.repository("a"), "t", &access).await;
    let reference = format!("{}@{}", registry.repository("a"), saved.digest);
    let resolve = |path: &'static str| bundlerun::bundle::resolve(&reference, Some(path), &access);
    let by_tag = bundlerun::bundle::resolve(&registry.repository("a:t"), None, &access).await.unwrap();
    assert_eq!((by_tag.digest, by_tag.kind), (saved.digest.clone(), Kind::Directory));
    assert_eq!(resolve("/d/").await.unwrap().kind, Kind::Directory);
    assert_eq!(resolve("d/e/one").await.unwrap().kind, Kind::File);
    for (path, kind, says) in [
        ("nothing", ErrorKind::PathNotFound, "not in the bundle"),
        ("d/e/one/more", ErrorKind::PathNotFound, "not in the bundle"),
        ("outer/none", ErrorKind::PathNotFound, "not in the bundle: \"outer\" is a symbolic link to \"d\""),
        ("to-file/more", ErrorKind::PathNotFound, "not in the bundle"),
        ("dangling", ErrorKind::PathNotFound, "\"dangling\" is a symbolic link to \"none\""),
        ("to-fifo", ErrorKind::PathNotFound, "\"fifo\" was not saved: a FIFO"),
        ("loop", ErrorKind::Invalid, "more than 40 symbolic links"),
        ("ring-a/x", ErrorKind::Invalid, "more than 40 symbolic links"),
        ("c45/two", ErrorKind::Invalid, "more than 40 symbolic links"),
        ("absolute/x", ErrorKind::Invalid, "leads out of the bundle: \"absolute\" is a symbolic link to \"/data/set\""),
        ("sibling", ErrorKind::Invalid, "leads out of the bundle"),
        ("up", ErrorKind::Invalid, "leads out of the bundle"),
        ("up2", ErrorKind::Invalid, "leads out of the bundle"),
        ("d/../d", ErrorKind::Invalid, "no name"),
    ] {
        let error = resolve(path).await.unwrap_err();
        assert!(error.kind == kind && error.message.contains(says), "{path}: {error}");
    }

    for (path, kind) in [
        ("outer", Kind::Directory),
        ("outer/two", Kind::File),
        ("outer/link/one", Kind::File),
        ("to-file", Kind::File),
        ("far", Kind::File),
        ("abs/e", Kind::Directory),
        ("self/self/abs/link", Kind::Directory),
        ("self", Kind::Directory),
        ("slash", Kind::File),
        ("other/best/two", Kind::File),
        ("c39/two", Kind::File),
    ] {
        let resolved = resolve(path).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(resolved.kind, kind, "{path}");
    }
    // What is linked to comes, not the link.
    let place = Place::new();
    fetch(&reference, Some("self/outer/link"), &place.dir, &access).await.unwrap();
    assert_eq!(names(&place.dir), ["hard2", "one"]);
    fetch(&reference, Some("other"), &place.dir, &access).await.unwrap();
    assert_eq!(fs::read_link(place.dir.join("best")).unwrap(), Path::new("../d"), "as the command made it: absolute");
    for (path, text) in [("to-file", "one\n"), ("far", "two\n"), ("other/one", "one\n")] {
        let file = place.around.path().join("place/linked");
        fs::write(&file, "").unwrap();
        fetch(&reference, Some(path), &file, &access).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(fs::read_to_string(&file).unwrap(), text, "{path}");
    }

    let place = Place::new();
    fetch(&reference, Some("d"), &place.dir, &access).await.unwrap();
    assert_eq!(names(&place.dir), ["e", "e/hard2", "e/one", "hard", "link", "two"]);
    assert_eq!(describe("tree", &place.dir), {
        fs::remove_file(dir.path().join("other/no")).unwrap();
        staged(describe("tree", &dir.path().join("d")))
    });
    let file: PathBuf = place.around.path().join("place/two");
    fs::write(&file, "an earlier, longer try").unwrap();
    let inode = fs::metadata(&file).unwrap().ino();
    fetch(&reference, Some("d/two"), &file, &access).await.unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "two\n");
    let metadata = fs::metadata(&file).unwrap();
    assert_eq!((metadata.ino(), metadata.mode() & 0o7777), (inode, 0o755));
    assert_eq!(fetch(&reference, Some("d"), &file, &access).await.unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(fetch(&reference, Some("d/two"), &place.dir, &access).await.unwrap_err().kind, ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_elsewhere_are_part_of_it() {
    let registry = Registry::start();
    let (dir, elsewhere, access) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), registry.access());
    script("sh", dir.path(), "echo mine >stdout; echo a >a; echo z >z");
    script("sh", elsewhere.path(), "echo said >stdout; echo why >stderr");
    let outside = ["stdout", "stderr"].map(|name| (name.to_owned(), elsewhere.path().join(name))).to_vec();
    let saved = save(&Tree { outside, ..tree(dir.path()) }, &registry.repository("a"), "t", &access).await;
    assert_eq!((saved.files, saved.bytes, saved.skipped), (5, 18, 0));
    let place = Place::new();
    let reference = format!("{}@{}", registry.repository("a"), saved.digest);
    fetch(&reference, None, &place.dir, &access).await.unwrap();
    assert_eq!(names(&place.dir), ["a", "stderr", "stdout", "stdout.run", "z"]);
    let text = |name: &str| fs::read_to_string(place.dir.join(name)).unwrap();
    assert_eq!(["stdout", "stdout.run", "stderr"].map(text), ["mine\n", "said\n", "why\n"]);

    // It is the same bundle as that of a tree that has them.
    let same = tempfile::tempdir().unwrap();
    script("sh", same.path(), "echo mine >stdout; echo a >a; echo z >z; echo said >stdout.run; echo why >stderr");
    let same = save(&tree(same.path()), &registry.repository("a"), "t2", &access).await;
    assert_eq!(same.digest, saved.digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_gets_files_with_the_modes_that_they_had() {
    let registry = Registry::start();
    let (dir, access, progress) = (tempfile::tempdir().unwrap(), registry.access(), Progress::default());
    script("sh", dir.path(), "mkdir -m 700 private; echo key >private/key; chmod 600 private/key; touch open empty");
    script("sh", dir.path(), "chmod 666 open; chmod 640 empty");
    let saved = save(&tree(dir.path()), &registry.repository("a"), "t", &access).await;
    let reference = format!("{}@{}", registry.repository("a"), saved.digest);
    let mode = |path: PathBuf| fs::metadata(path).unwrap().mode() & 0o7777;

    let all = Place::new();
    download(&reference, None, &all.dir, 0o022, &access, &progress).await.unwrap();
    let modes = ["private", "private/key", "open", "empty"].map(|path| mode(all.dir.join(path)));
    assert_eq!(modes, [0o700, 0o600, 0o644, 0o640]);
    let part = Place::new();
    download(&reference, Some("private"), &part.dir, 0o022, &access, &progress).await.unwrap();
    assert_eq!([mode(part.dir.clone()), mode(part.dir.join("key"))], [0o700, 0o600]);
    let file = part.around.path().join("file");
    fs::write(&file, "").unwrap();
    download(&reference, Some("open"), &file, 0o077, &access, &progress).await.unwrap();
    assert_eq!(mode(file), 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_end_a_fetch_before_it_fills_the_disk() {
    let registry = Registry::start();
    let (dir, access) = (tempfile::tempdir().unwrap(), registry.access());
    script("sh", dir.path(), "for i in 1 2 3 4 5; do echo 123456789 >$i; done");
    let saved = save(&tree(dir.path()), &registry.repository("a"), "t", &access).await;
    let reference = format!("{}@{}", registry.repository("a"), saved.digest);
    let place = Place::new();
    for (entries, bytes, fits) in [(5, 50, true), (4, 50, false), (5, 49, false)] {
        let limits = Limits { entries, bytes };
        let progress = Progress::default();
        let fetched = bundlerun::bundle::fetch(&reference, None, &place.dir, limits, &access, &progress);
        match fetched.await {
            Ok(()) => assert!(fits, "{limits:?}"),
            Err(error) => assert!(!fits && error.kind == ErrorKind::TooLarge, "{limits:?}: {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn how_it_was_made_refers_to_it() {
    let registry = Registry::start();
    let (dir, access) = (tempfile::tempdir().unwrap(), registry.access());
    fs::write(dir.path().join("file"), "x").unwrap();
    let saved = save(&tree(dir.path()), &registry.repository("a"), "run.1.abc", &access).await;
    // This registry knows no subjects: the tag of the specification leads there.
    let tag = saved.digest.replace(':', "-");
    let index = crane(&["manifest", "--insecure", &registry.repository(&format!("a:{tag}"))]);
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(index["manifests"][0]["artifactType"], "application/vnd.bundlerun.provenance.v1+json");
    let artifact = index["manifests"][0]["digest"].as_str().unwrap();
    let artifact = crane(&["manifest", "--insecure", &registry.repository(&format!("a@{artifact}"))]);
    let artifact: serde_json::Value = serde_json::from_slice(&artifact).unwrap();
    assert_eq!(artifact["subject"]["digest"], *saved.digest);
    let content = artifact["layers"][0]["digest"].as_str().unwrap();
    let content = crane(&["blob", "--insecure", &registry.repository(&format!("a@{content}"))]);
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&content).unwrap()["run"], "run.1.abc");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_saved_can_be_named() {
    let registry = Registry::start();
    let (dir, access) = (tempfile::tempdir().unwrap(), registry.access());
    let names =
        ["2026-11-26T09:00:00.csv", ":", "line\nbreak", "\u{1}\u{7f}\u{85}", " ", "...", "a\\b", "$(X)", "é\u{1F980}"];
    for name in names {
        for path in [name.to_owned(), format!("dir{name}/{name}")] {
            let file = dir.path().join(&path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, &path).unwrap();
        }
    }
    save(&tree(dir.path()), &registry.repository("a"), "t", &access).await;
    let reference = registry.repository("a:t");
    for name in names {
        for path in [name.to_owned(), format!("dir{name}/{name}")] {
            let around = tempfile::tempdir().unwrap();
            let place = around.path().join("file");
            fs::write(&place, "").unwrap();
            fetch(&reference, Some(&path), &place, &access).await.unwrap();
            assert_eq!(fs::read_to_string(&place).unwrap(), path);
        }
        let place = Place::new();
        fetch(&reference, Some(&format!("dir{name}")), &place.dir, &access).await.unwrap();
        assert_eq!(fs::read_to_string(place.dir.join(name)).unwrap(), format!("dir{name}/{name}"));
    }
}

/// As many as the memory of who stages them has room for are known only when their list is read.
#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_of_more_entries_than_memory_has_room_for_is_refused_with_the_limit() {
    let registry = Registry::start();
    let (dir, access) = (tempfile::tempdir().unwrap(), registry.access());
    // What links say takes room as names do.
    for n in 0..3000 {
        std::os::unix::fs::symlink(format!("{n:01000}"), dir.path().join(n.to_string())).unwrap();
    }
    save(&tree(dir.path()), &registry.repository("a"), "t", &access).await;
    let reference = registry.repository("a:t");
    let fetch = async |memory: u64, place: &Path| {
        let budget = Budget::from(NO_LIMITS).within_memory(Some(memory));
        bundlerun::bundle::fetch(&reference, None, place, budget, &access, &Progress::default()).await
    };
    let place = Place::new();
    let error = fetch(1 << 20, &place.dir).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::TooLarge, "{error}");
    let says = error.message.strip_prefix("more than ").unwrap();
    let (entries, says) = says.split_once(' ').unwrap();
    assert_eq!(says, "files, directories and links: the helper's memory has 1 MiB for them");
    assert!((1000..1100).contains(&entries.parse::<u64>().unwrap()), "{entries}");
    assert!(names(&place.dir).is_empty(), "nothing is made of what will not be whole");
    fetch(4 << 20, &place.dir).await.unwrap();
    assert_eq!(names(&place.dir).len(), 3000);
}
