//! Files that are larger than a blob may be, and uploads that are cut off.

use crate::common::*;
use axum::http::Method;
use bundlerun::bundle::{ErrorKind, Part, Tree, read_file, read_part};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const MIB: u64 = 1 << 20;

fn in_parts(root: &Path) -> Tree {
    Tree { max_blob: Some(MIB), ..tree(root) }
}

/// Random bytes.
fn write_random(path: &Path, bytes: u64) {
    let mut random = fs::File::open("/dev/urandom").unwrap().take(bytes);
    std::io::copy(&mut random, &mut fs::File::create(path).unwrap()).unwrap();
}

fn manifest(reference: &str) -> Value {
    serde_json::from_slice(&crane(&["manifest", "--insecure", reference])).unwrap()
}

/// Unpacks an image as `crane export | tar -x` does.
fn export(reference: &str, into: &Path) {
    fs::create_dir(into).unwrap();
    fs::write(into.join("image.tar"), crane(&["export", "--insecure", reference, "-"])).unwrap();
    script("sh", into, "tar -xf image.tar && rm image.tar");
}

/// Files around the size from which on they are in parts: a part has 1 MiB less 4 KiB.
fn some_large_files(dir: &Path) {
    for (name, bytes) in [
        ("small", 100_000),
        ("fits", MIB - 2048),
        ("just-not", MIB - 1024),
        ("two-parts", 2 * (MIB - 4096)),
        ("one-byte-more", 2 * (MIB - 4096) + 1),
    ] {
        write_random(&dir.join(name), bytes);
    }
    fs::create_dir(dir.join("d")).unwrap();
    write_random(&dir.join("d/large"), 7 * MIB + 12_345);
    let make = "ln d/large other; ln d/large d/third; chmod 0755 d/large; ln -s d/large link";
    script("sh", dir, make);
}

/// Changes the parts of a file in a list.
type Alter = fn(&mut Vec<Value>);

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_parts_comes_back_whole_and_no_blob_is_larger() {
    let registry = Registry::start();
    let (dir, access, repository) = (tempfile::tempdir().unwrap(), registry.access(), registry.repository("a"));
    some_large_files(dir.path());
    let saved = save(&in_parts(dir.path()), &repository, "t", &access).await;
    assert_eq!((saved.files, saved.skipped, saved.mountable), (6, 0, false));
    let reference = format!("{repository}@{}", saved.digest);
    let sizes: Vec<u64> = manifest(&reference)["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| layer["size"].as_u64().unwrap())
        .collect();
    assert!(sizes.iter().all(|size| *size <= MIB), "{sizes:?}");

    let place = Place::new();
    fetch(&reference, None, &place.dir, &access).await.unwrap();
    assert_eq!(describe("tree", &place.dir), describe("tree", dir.path()));
    let inode = |name: &str| fs::metadata(place.dir.join(name)).unwrap().ino();
    assert!(inode("d/large") == inode("other") && inode("other") == inode("d/third"));

    // Parts of it: a directory, in which the first name of the file is and is not, and single files by any name.
    let part = Place::new();
    fetch(&reference, Some("d"), &part.dir, &access).await.unwrap();
    assert_eq!(fs::read(part.dir.join("third")).unwrap(), fs::read(dir.path().join("other")).unwrap());
    for name in ["d/large", "other", "link", "two-parts", "one-byte-more", "just-not", "fits"] {
        let content = fs::read(dir.path().join(name)).unwrap();
        let read = bundlerun::bundle::read_file(&reference, name, &access, vec![]).await.unwrap();
        assert!(read == content, "{name}");
        let file = part.around.path().join("file");
        fs::write(&file, "").unwrap();
        fetch(&reference, Some(name), &file, &access).await.unwrap();
        assert!(fs::read(&file).unwrap() == content, "{name}");
        fs::remove_file(file).unwrap();
    }
    place.assert_nothing_outside();
    part.assert_nothing_outside();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_digest_of_a_file_in_parts_depends_on_the_tree_and_the_bound_alone() {
    let registry = Registry::start();
    let (dir, copy, access) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), registry.access());
    some_large_files(dir.path());
    script("sh", copy.path(), &format!("cp -a {}/. .", dir.path().display()));
    let repository = registry.repository("a");
    let first = save(&in_parts(dir.path()), &repository, "a", &access).await;
    let second = save(&in_parts(copy.path()), &repository, "b", &access).await;
    // How it was made is another.
    assert!(first.digest == second.digest && second.pushed_bytes < 100, "{second:?}");
    let whole = save(&tree(dir.path()), &repository, "c", &access).await;
    assert!(whole.digest != first.digest && whole.mountable);
    // Another mode is in the list alone.
    script("sh", dir.path(), "chmod 0644 d/large");
    let third = save(&in_parts(dir.path()), &repository, "d", &access).await;
    assert!(third.digest != first.digest && third.pushed_bytes < 20_000, "{third:?}");
}

/// A tool that knows nothing of parts has them as files, under names that sort as they are joined.
#[tokio::test(flavor = "multi_thread")]
async fn other_programs_join_the_parts() {
    let registry = Registry::start();
    let (dir, out, access) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), registry.access());
    some_large_files(dir.path());
    let saved = save(&in_parts(dir.path()), &registry.repository("a"), "t", &access).await;
    let reference = format!("{}@{}", registry.repository("a"), saved.digest);
    let exported = out.path().join("exported");
    export(&reference, &exported);
    let join = format!(
        "for name in d/large just-not two-parts one-byte-more; do
            cat parts/$(printf %s $name | sha256sum | cut -d' ' -f1)/* | cmp - {}/$name
        done; cmp contents/fits {0}/fits; test ! -e contents/d/large; test ! -e contents/other",
        dir.path().display()
    );
    script("sh", &exported, &join);

    let image = format!("{}:t", out.path().join("oci").display());
    let from = format!("docker://{reference}");
    let (to, unpacked) = (format!("oci:{image}"), out.path().join("unpacked"));
    let copy = ["copy", "--insecure-policy", "--src-tls-verify=false", &from, &to].join(" ");
    let rootless = if rustix::process::geteuid().is_root() { "" } else { "--rootless" };
    // It compares every layer with its diff_id.
    let unpack = format!("skopeo {copy} && umoci unpack {rootless} --image {image} {}", unpacked.display());
    script("sh", out.path(), &unpack);
    assert_eq!(describe("tree", &unpacked.join("rootfs/parts")), describe("tree", &exported.join("parts")));
}

/// Data here and there, at the end too.
fn write_sparse(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    file.set_len(1500 << 20).unwrap();
    for (number, at) in [0, 5000, 700 << 20, (1500 << 20) - 2_000_000].into_iter().enumerate() {
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(&vec![u8::try_from(number + 1).unwrap(); 1_700_000]).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sparse_file_can_be_in_parts() {
    let registry = Registry::start();
    let (dir, access) = (tempfile::tempdir().unwrap(), registry.access());
    write_sparse(&dir.path().join("sparse"));
    let saved = save(&in_parts(dir.path()), &registry.repository("a"), "t", &access).await;
    assert!((4 * MIB..6 * MIB).contains(&saved.pushed_bytes), "{saved:?}");
    let reference = format!("{}@{}", registry.repository("a"), saved.digest);
    assert!(manifest(&reference)["layers"].as_array().unwrap().len() >= 7);
    let place = Place::new();
    fetch(&reference, None, &place.dir, &access).await.unwrap();
    assert_eq!(describe("tree", &place.dir), describe("tree", dir.path()));
    assert!(fs::metadata(place.dir.join("sparse")).unwrap().blocks() * 512 < 16 * MIB);
    let mut whole = vec![];
    fs::File::open(dir.path().join("sparse")).unwrap().read_to_end(&mut whole).unwrap();
    let read = bundlerun::bundle::read_file(&reference, "sparse", &access, vec![]).await.unwrap();
    assert!(read == whole);
}

/// A list of a bundle that was altered, in a bundle that has it.
async fn with_list(host: &str, reference: &str, alter: impl Fn(&mut Value)) -> String {
    let mut manifest = manifest(reference);
    let list = manifest["layers"].as_array().unwrap().last().unwrap()["digest"].as_str().unwrap().to_owned();
    let repository = reference.split('@').next().unwrap();
    let archive = crane(&["blob", "--insecure", &format!("{repository}@{list}")]);
    let mut text = vec![];
    flate2::read::MultiGzDecoder::new(&*archive).read_to_end(&mut text).unwrap();
    let mut archive = tar::Archive::new(&*text);
    let mut json = String::new();
    archive.entries().unwrap().next().unwrap().unwrap().read_to_string(&mut json).unwrap();
    let lines = json.lines().map(|line| {
        let comma = if line.ends_with(',') { "," } else { "" };
        let Ok(mut entry) = serde_json::from_str::<Value>(line.trim_end_matches(',')) else { return line.to_owned() };
        if entry["path"] != "large" {
            return line.to_owned();
        }
        alter(&mut entry);
        entry.as_object_mut().unwrap().remove("path");
        format!("{{\"path\":\"large\",{}{comma}", entry.to_string().strip_prefix('{').unwrap())
    });
    let text = lines.collect::<Vec<_>>().join("\n") + "\n";
    let mut member = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    member.write_all(text.as_bytes()).unwrap();
    let member = member.finish().unwrap();
    let hex = |bytes: &[u8]| sha256(bytes).strip_prefix("sha256:").unwrap().to_owned();
    let index = json!({"members": [{"first": "", "offset": 0, "size": member.len(), "sha256": hex(&member)}]});
    let index = gzip_index(index.to_string().as_bytes());
    let place = format!("{} {} {}", member.len(), index.len(), sha256(&index));
    let name = repository.split_once('/').unwrap().1;
    let blob = crate::push::put_blob(host, name, &[member, index].concat()).await;
    let layer = manifest["layers"].as_array_mut().unwrap().last_mut().unwrap();
    (layer["digest"], layer["size"]) = (blob["digest"].clone(), blob["size"].clone());
    layer["annotations"] = json!({"bundlerun.dev/index": place});
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    push_manifest(host, name, &manifest, media_type).await
}

/// As in `src/bundle/format/list_index.rs`: in the extra field of a gzip member without content.
fn gzip_index(json: &[u8]) -> Vec<u8> {
    let length = |more: usize| u16::try_from(json.len() + more).unwrap().to_le_bytes();
    let header = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff];
    let no_content = [3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    [&header[..], &length(4), b"BR", &length(0), json, &no_content].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_are_not_the_file_are_refused() {
    let registry = Registry::start();
    let (dir, access) = (tempfile::tempdir().unwrap(), registry.access());
    write_random(&dir.path().join("large"), 3 * MIB);
    fs::write(dir.path().join("small"), "small").unwrap();
    let saved = save(&in_parts(dir.path()), &registry.repository("a"), "t", &access).await;
    let reference = format!("{}@{}", registry.repository("a"), saved.digest);
    let get = async |reference: &str| {
        let (place, file) = (Place::new(), tempfile::NamedTempFile::new().unwrap());
        let whole = fetch(reference, None, &place.dir, &access).await;
        let single = fetch(reference, Some("large"), file.path(), &access).await;
        let read = bundlerun::bundle::read_file(reference, "large", &access, vec![]).await.map(drop);
        place.assert_nothing_outside();
        [whole, single, read]
    };
    let same = with_list(&registry.host, &reference, |_| {}).await;
    for got in get(&same).await {
        got.unwrap();
    }
    let cases: [(&str, Alter); 11] = [
        ("a part is missing", |parts| drop(parts.pop())),
        ("the first part is missing", |parts| drop(parts.remove(0))),
        ("a part is there twice", |parts| parts.insert(1, parts[0].clone())),
        ("a part is in the place of another", |parts| parts[1] = parts[0].clone()),
        ("two parts overlap", |parts| {
            parts[1] = parts[0].clone();
            parts[1]["offset"] = json!(1024);
        }),
        ("they are in another order", |parts| parts.swap(0, 1)),
        ("a part is larger than its layer", |parts| parts[0]["bytes"] = json!(2 * MIB)),
        ("a part begins elsewhere", |parts| parts[0]["offset"] = json!(0)),
        ("a part begins behind its layer", |parts| parts[0]["offset"] = json!(u64::MAX)),
        ("a layer is not there", |parts| parts.last_mut().unwrap()["layer"] = json!(1000)),
        ("of one part less, of another more", |parts| {
            parts[0]["bytes"] = json!(parts[0]["bytes"].as_u64().unwrap() - 512);
            parts[1]["bytes"] = json!(parts[1]["bytes"].as_u64().unwrap() + 512);
        }),
    ];
    for (what, alter) in cases {
        let altered =
            with_list(&registry.host, &reference, |entry| alter(entry["parts"].as_array_mut().unwrap())).await;
        for got in get(&altered).await {
            assert_eq!(got.unwrap_err().kind, ErrorKind::Invalid, "{what}");
        }
    }
}

/// What the command changes while its file is read is noticed, also when some parts are in the store.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_between_its_parts_is_never_half_of_two_versions() {
    let registry = Registry::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("large");
    // Above the size from which on a file is read once.
    write_random(&file, 66 * MIB);
    let changed = file.clone();
    let uploads = std::sync::atomic::AtomicU64::new(0);
    let rule = move |method: &Method, path: &str, _: u64| {
        // While the fifth part is on its way.
        if *method == Method::PATCH && path.contains("/uploads/") && uploads.fetch_add(1, Ordering::Relaxed) == 4 {
            let mut file = fs::OpenOptions::new().write(true).open(&changed).unwrap();
            file.seek(SeekFrom::Start(10)).unwrap();
            file.write_all(b"changed").unwrap();
        }
        Fault::None
    };
    let proxy = Proxy::before("127.0.0.1", &registry.host, rule);
    let access = access(&proxy.host);
    let saved = save(&in_parts(dir.path()), &proxy.reference("a"), "t", &access).await;
    assert_eq!(saved.skipped, 0);
    let place = Place::new();
    fetch(&format!("{}@{}", proxy.reference("a"), saved.digest), None, &place.dir, &access).await.unwrap();
    let content = fs::read(&file).unwrap();
    assert!(content[10..17] == *b"changed" && fs::read(place.dir.join("large")).unwrap() == content);
}

/// So that a connection that is lost costs what was on its way and no more.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_cut_three_times_goes_on_where_it_was() {
    // To begin anew after any of them costs the first at least; what sockets and programs hold of each is less.
    const CUTS: [u64; 3] = [30 * MIB, 1, 20 * MIB + 1];
    let registry = Registry::start();
    if !registry.takes_up_uploads() {
        return;
    }
    // Read once, and hashed before it is sent.
    for (name, size) in [("once", 90 * MIB), ("twice", 60 * MIB)] {
        let dir = tempfile::tempdir().unwrap();
        write_random(&dir.path().join("large"), size);
        let patches = std::sync::atomic::AtomicUsize::new(0);
        let rule = move |method: &Method, _: &str, bytes: u64| match method {
            // Not the small blobs, that are sent at the same time.
            &Method::PATCH if bytes > 20 * MIB => {
                let cut = CUTS.get(patches.fetch_add(1, Ordering::Relaxed));
                cut.map_or(Fault::None, |bytes| Fault::CutRequest(*bytes))
            }
            _ => Fault::None,
        };
        let proxy = Proxy::before("127.0.0.1", &registry.host, rule);
        let access = access(&proxy.host);
        let saved = save(&tree(dir.path()), &proxy.reference(name), "t", &access).await;
        let sent = proxy.seen.sent.load(Ordering::Relaxed);
        let log = proxy.seen.log.lock().unwrap().clone();
        assert!(log.iter().filter(|line| line.contains("CutRequest")).count() == 3, "{log:#?}");
        assert!((size..size + CUTS[0]).contains(&sent), "{name}: {sent} bytes: {log:#?}");
        let place = Place::new();
        fetch(&format!("{}@{}", proxy.reference(name), saved.digest), None, &place.dir, &access).await.unwrap();
        assert!(fs::read(place.dir.join("large")).unwrap() == fs::read(dir.path().join("large")).unwrap());
    }
}

/// A registry that does not say how much it has gets all of it anew, and so does one that has forgotten it.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_cannot_go_on_begins_anew() {
    let registry = Registry::start();
    // `0-0` says of one byte the same as of none: what is sent at a guess may be refused when all of it is there.
    let faults = [Fault::Status(404), Fault::Status(405), Fault::Closed].map(|fault| (20 * MIB, fault));
    for (cut, fault) in faults.into_iter().chain([(1, Fault::None)]) {
        let dir = tempfile::tempdir().unwrap();
        write_random(&dir.path().join("large"), 70 * MIB);
        let patches = std::sync::atomic::AtomicUsize::new(0);
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let rule = move |method: &Method, path: &str, bytes: u64| match *method {
            Method::PATCH if bytes > 20 * MIB && patches.fetch_add(1, Ordering::Relaxed) == 0 => Fault::CutRequest(cut),
            Method::GET if path.contains("/uploads/") && asked.fetch_add(1, Ordering::Relaxed) < 2 => fault,
            _ => Fault::None,
        };
        let proxy = Proxy::before("127.0.0.1", &registry.host, rule);
        let access = access(&proxy.host);
        let saved = save(&tree(dir.path()), &proxy.reference("a"), "t", &access).await;
        let (sent, log) = (proxy.seen.sent.load(Ordering::Relaxed), proxy.seen.log.lock().unwrap().clone());
        assert!(sent < 71 * MIB + cut, "{cut}, {fault:?}: {sent} bytes: {log:#?}");
        let place = Place::new();
        fetch(&format!("{}@{}", proxy.reference("a"), saved.digest), None, &place.dir, &access).await.unwrap();
        assert!(fs::read(place.dir.join("large")).unwrap() == fs::read(dir.path().join("large")).unwrap());
    }
}

/// It is asked for only when its digest is known, after the manifest; a smaller one before it is sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_is_not_read_for_its_digest_before_it_is_sent() {
    let registry = Registry::start();
    for (size, is_asked_for) in [(70 * MIB, false), (5 * MIB, true)] {
        let dir = tempfile::tempdir().unwrap();
        write_random(&dir.path().join("large"), size);
        let proxy = Proxy::before("127.0.0.1", &registry.host, |_, _, _| Fault::None);
        let saved = save(&tree(dir.path()), &proxy.reference("a"), "t", &access(&proxy.host)).await;
        assert!(saved.pushed_bytes >= size);
        let layers = manifest(&format!("{}@{}", registry.repository("a"), saved.digest))["layers"].clone();
        let large = layers.as_array().unwrap().iter().find(|layer| layer["size"].as_u64() > Some(MIB)).unwrap();
        let log = proxy.seen.log.lock().unwrap().clone();
        let manifest = log.iter().position(|line| line.starts_with("PUT") && line.contains("/manifests/")).unwrap();
        let asked = format!("HEAD /v2/a/blobs/{}", large["digest"].as_str().unwrap());
        let was_asked = log[..manifest].iter().any(|line| line.starts_with(&asked));
        assert_eq!(was_asked, is_asked_for, "{size}: {log:#?}");
    }
}

/// With `LARGE_FILE_GIB` (12 unless set) times three of free disk below `TMPDIR`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes, and 36 GiB of disk"]
async fn a_file_of_many_gibibytes_is_saved_staged_and_read() {
    let gib: u64 = std::env::var("LARGE_FILE_GIB").map_or(12, |gib| gib.parse().unwrap());
    let registry = Registry::start();
    let (dir, access) = (tempfile::tempdir().unwrap(), registry.access());
    write_random(&dir.path().join("large"), gib << 30);
    let tree = Tree { max_blob: Some(1 << 30), ..tree(dir.path()) };
    let saved = save(&tree, &registry.repository("a"), "t", &access).await;
    let reference = format!("{}@{}", registry.repository("a"), saved.digest);
    let layers = manifest(&reference)["layers"].as_array().unwrap().clone();
    assert!(layers.iter().all(|layer| layer["size"].as_u64().unwrap() <= 1 << 30));
    assert_eq!(layers.len() as u64, gib + 1 + 2, "the parts, the root, the list");

    // By range, on both sides of where each part ends: a layer has some more than its part.
    let file = fs::File::open(dir.path().join("large")).unwrap();
    for end in (1..=gib).map(|part| part * ((1 << 30) - 4096)) {
        let (start, end) = (end - 1000, end + 1000);
        let (mut read, mut expected) = (vec![], vec![0; 2000]);
        read_part(&reference, "large", Part::Bytes(start, Some(end)), &access, &mut read).await.unwrap();
        file.read_exact_at(&mut expected, start).unwrap();
        assert!(read == expected, "{start}");
    }

    let place = Place::new();
    fetch(&reference, None, &place.dir, &access).await.unwrap();
    let compare = format!("cmp large {}/large", place.dir.display());
    script("sh", dir.path(), &compare);
    // It verifies all of it.
    read_file(&reference, "large", &access, std::io::sink()).await.unwrap();
}

/// One download of a process has the connections: in this process another test may have them.
#[test]
fn a_long_download_is_made_by_several_connections_in_order() {
    passes(&mut alone("large::a_long_download"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "is a process of another test"]
async fn a_long_download() {
    const FILE: u64 = 88 * MIB;
    // One connection shows first that it is slow.
    const BY_PARTS: u64 = FILE - 24 * MIB;
    let registry = Registry::start();
    let dir = tempfile::tempdir().unwrap();
    write_random(&dir.path().join("file"), FILE);
    let repository = registry.repository("a");
    let saved = save(&tree(dir.path()), &repository, "t", &registry.access()).await;
    let layers = manifest(&format!("{repository}:t"))["layers"].clone();
    let largest = layers.as_array().unwrap().iter().max_by_key(|layer| layer["size"].as_u64()).unwrap();
    let path = format!("/blobs/{}", largest["digest"].as_str().unwrap());
    let through = |fault: Fault, at: u64| {
        let (path, asked) = (path.clone(), AtomicU64::new(0));
        Proxy::before("127.0.0.1", &registry.host, move |_, of, _| {
            if !of.ends_with(&path) {
                return Fault::None;
            }
            let number = asked.fetch_add(1, Ordering::SeqCst);
            match number {
                _ if [number, u64::MAX].contains(&at) => fault,
                // To one that is fast, one connection is enough.
                0 => Fault::Late,
                _ => Fault::None,
            }
        })
    };
    let parts = |proxy: &Proxy| {
        let log = proxy.seen.log.lock().unwrap();
        log.iter().filter(|line| line.contains(&path)).count() as u64
    };
    let place = Place::new();
    let fetch_by = async |proxy: &Proxy| {
        let reference = format!("{}@{}", proxy.reference("a"), saved.digest);
        fetch(&reference, None, &place.dir, &access(&proxy.host)).await
    };

    // One part does not come: others are asked for meanwhile.
    let proxy = through(Fault::HoldAnswer, 2);
    let beside = async {
        while proxy.seen.held.lock().unwrap().is_empty() || parts(&proxy) < 5 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    ends("parts beside one that does not come", async {
        tokio::select! { () = beside => {}, done = fetch_by(&proxy) => panic!("{done:?}") }
    })
    .await;

    // A registry that knows no parts is not asked for them again and again.
    for (fault, at, least, most) in [
        (Fault::Late, 0, BY_PARTS / (8 * MIB), FILE / MIB),
        (Fault::Reset, 5, BY_PARTS / (8 * MIB), FILE / MIB),
        (Fault::NoRange, u64::MAX, 1, 2),
    ] {
        let proxy = through(fault, at);
        fetch_by(&proxy).await.unwrap();
        assert!((least..=most).contains(&parts(&proxy)), "{fault:?}: {:#?}", proxy.seen.log.lock());
        script("sh", dir.path(), &format!("cmp file {0}/file; rm {0}/file", place.dir.display()));
    }
}
