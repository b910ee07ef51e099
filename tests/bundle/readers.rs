//! Bundles read by programs that are not ours, and those that earlier versions of ours wrote.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use serde_json::json;

use crate::common::*;
use crate::push::{push_manifest, put_blob};

/// What other programs can make files of: no names that mean deletions, no paths beyond the kernel's limit.
const TREE: &str = r#"
import os
def put(name, content=b"x", mode=0o644):
    with open(name, "wb") as f: f.write(content)
    os.chmod(name, mode)
put("plain", b"hello\n"); put("empty", b""); put("run", mode=0o755); put("setuid", mode=0o4755)
put("unicode-\u00fc-\u65e5\u672c".encode()); put(b"n" * 255); put(b" space "); put(b"many\n1", os.urandom(3 << 20))
os.makedirs("a/b"); put("a/b/c"); os.mkdir("sticky"); os.chmod("sticky", 0o1777); os.mkdir("closed", 0o500)
os.symlink("plain", "link"); os.symlink("/etc/passwd", "absolute")
os.mkdir("z"); put("z/first", b"linked" * 1000)
for name in ("a/second", "third", "z/fourth"): os.link("z/first", name)
for i in range(300): put(f"a/b/{i}")
"#;

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap_or_else(|error| panic!("no `{program}`: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_copies_a_bundle_and_umoci_unpacks_it() {
    let registry = Registry::start();
    let (dir, out, access) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), registry.access());
    script("python3", dir.path(), TREE);
    let saved = save(&tree(dir.path()), &registry.repository("a"), "t", &access).await;
    let from = format!("docker://{}@{}", registry.repository("a"), saved.digest);
    let image = format!("{}:t", out.path().join("oci").display());
    let bundle = out.path().join("unpacked");
    run("skopeo", &["copy", "--insecure-policy", "--src-tls-verify=false", &from, &format!("oci:{image}")]);
    let rootless: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["--rootless"] };
    let unpack = ["unpack", "--image", &image, bundle.to_str().unwrap()];
    run("umoci", &[&unpack[..1], rootless, &unpack[1..]].concat());
    assert_eq!(describe("tree", &bundle.join("rootfs/contents")), describe("tree", dir.path()));

    let files = fs::read(bundle.join("rootfs/files.json")).unwrap();
    let files: serde_json::Value = serde_json::from_slice(&files).unwrap();
    assert!(files["entries"].as_array().unwrap().iter().any(|entry| entry["path"] == "a/b/299"), "{files}");
}

/// It pulls only layers that have the name of a file; what is copied is all of a bundle, with how it was made.
#[tokio::test(flavor = "multi_thread")]
async fn oras_copies_a_bundle_with_how_it_was_made() {
    let registry = Registry::start();
    let (dir, out, access) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), registry.access());
    script("python3", dir.path(), TREE);
    let saved = save(&tree(dir.path()), &registry.repository("a"), "t", &access).await;
    let reference = format!("{}@{}", registry.repository("a"), saved.digest);
    let manifest = oras(out.path(), &["manifest", "fetch", "--plain-http", &reference]);
    assert_eq!(sha256(manifest.as_bytes()), saved.digest);

    oras(out.path(), &["copy", "--recursive", "--from-plain-http", &reference, "--to-oci-layout", "copy:t"]);
    let rootless: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["--rootless"] };
    let (image, bundle) = (format!("{}:t", out.path().join("copy").display()), out.path().join("unpacked"));
    run("umoci", &[&["unpack", "--image", &image][..], rootless, &[bundle.to_str().unwrap()]].concat());
    assert_eq!(describe("tree", &bundle.join("rootfs/contents")), describe("tree", dir.path()));

    // In the copy as in the registry.
    for place in [&["--plain-http", &*reference][..], &["--oci-layout", &format!("copy@{}", saved.digest)]] {
        let found = oras(out.path(), &[&["discover", "--format", "json"], place].concat());
        let found: serde_json::Value = serde_json::from_str(&found).unwrap();
        let made_by = found["referrers"].as_array().unwrap();
        assert_eq!(made_by.len(), 1, "{found}");
        assert_eq!(made_by[0]["artifactType"], "application/vnd.bundlerun.provenance.v1+json");
    }

    // It is a file, for others and as an input.
    let found = oras(out.path(), &["discover", "--format", "json", "--plain-http", &reference]);
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    let artifact = found["referrers"][0]["reference"].as_str().unwrap();
    oras(out.path(), &["pull", "--plain-http", artifact]);
    let made_by = fs::read(out.path().join("provenance.json")).unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&made_by).unwrap()["run"], "t");
    let place = Place::new();
    fetch(artifact, None, &place.dir, &access).await.unwrap();
    assert_eq!(fs::read(place.dir.join("provenance.json")).unwrap(), made_by);
}

/// A file that is hardly anything but holes is in GNU's sparse format, which these read: they write all of it.
#[tokio::test(flavor = "multi_thread")]
async fn other_programs_read_a_sparse_file() {
    let registry = Registry::start();
    let (dir, out, access) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), registry.access());
    let name = format!("{}/{}", "deep/".repeat(40), "m\u{fc}ller");
    let make = format!(
        "import os; name = {name:?}; os.makedirs(os.path.dirname(name))
with open(name, 'wb') as file:
    file.truncate(1200 << 20)
    for at in (100, 5 << 20, 600 << 20):
        file.seek(at); file.write(b'data' * 3000)
open('after', 'w').write('x')"
    );
    script("python3", dir.path(), &make);
    let saved = save(&tree(dir.path()), &registry.repository("a"), "t", &access).await;
    let reference = format!("{}@{}", registry.repository("a"), saved.digest);
    let expected = describe("tree", dir.path());
    let at = |name: &str| out.path().join(name);

    let crane = tool("CRANE_BIN", "crane");
    let export = format!("mkdir exported; '{}' export --insecure {reference} - | tar -C exported -x", crane.display());
    script("sh", out.path(), &export);
    assert_eq!(describe("tree", &at("exported/contents")), expected);

    let (image, unpacked) = (format!("{}:t", at("oci").display()), at("unpacked"));
    let from = format!("docker://{reference}");
    run("skopeo", &["copy", "--insecure-policy", "--src-tls-verify=false", &from, &format!("oci:{image}")]);
    let rootless: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["--rootless"] };
    let unpack = ["unpack", "--image", &image, unpacked.to_str().unwrap()];
    run("umoci", &[&unpack[..1], rootless, &unpack[1..]].concat());
    assert_eq!(describe("tree", &unpacked.join("rootfs/contents")), expected);

    // The layers themselves, of which each program makes holes.
    let tar = "mkdir gnu; for blob in oci/blobs/sha256/*; do tar -C gnu -xf $blob 2>/dev/null || :; done";
    script("sh", out.path(), tar);
    assert_eq!(describe("tree", &at("gnu/contents")), expected);
    let python = "
import glob, tarfile
for blob in glob.glob('oci/blobs/sha256/*'):
    try: archive = tarfile.open(blob)
    except tarfile.ReadError: continue
    archive.extractall('python')";
    script("python3", out.path(), python);
    assert_eq!(describe("tree", &at("python/contents")), expected);
    for program in ["gnu", "python"] {
        let blocks = fs::metadata(at(program).join("contents").join(&name)).unwrap().blocks();
        assert!(blocks * 512 < 1 << 20, "{program} made {blocks} blocks");
    }
}

/// ZIP files have no times before 1980, and Python refuses to make one of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_staged_bundle_can_be_zipped_and_shows_the_times_of_a_mounted_one() {
    let registry = Registry::start();
    let (dir, out, access) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), registry.access());
    script("python3", dir.path(), TREE);
    let saved = save(&tree(dir.path()), &registry.repository("a"), "t", &access).await;
    let reference = format!("{}@{}", registry.repository("a"), saved.digest);
    let (whole, part) = (Place::new(), Place::new());
    fetch(&reference, None, &whole.dir, &access).await.unwrap();
    fetch(&reference, Some("a"), &part.dir, &access).await.unwrap();
    let file = out.path().join("file");
    fs::write(&file, "").unwrap();
    fetch(&reference, Some("plain"), &file, &access).await.unwrap();
    let mounted = out.path().join("mounted");
    fs::create_dir(&mounted).unwrap();
    fs::write(out.path().join("exported.tar"), crane(&["export", "--insecure", &reference, "-"])).unwrap();
    script("sh", &mounted, "tar -xf ../exported.tar");

    for staged in [&whole.dir, &part.dir, &file, &mounted.join("contents")] {
        let zip = "import shutil, sys; shutil.make_archive('zipped', 'zip', sys.argv[1])";
        if staged.is_dir() {
            let mut python = Command::new("python3");
            let zipped =
                python.args(["-c", zip]).arg(staged).env("TZ", "Etc/GMT+12").current_dir(&out).output().unwrap();
            assert!(zipped.status.success(), "{staged:?}: {}", String::from_utf8_lossy(&zipped.stderr));
        }
        let times = Command::new("find").arg(staged).args(["-printf", "%T@ %p\n"]).output().unwrap();
        for line in String::from_utf8_lossy(&times.stdout).lines().filter(|line| line.contains('/')) {
            assert!(line.starts_with("315619200.0"), "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gunzip_and_tar_read_the_list_of_files() {
    let registry = Registry::start();
    let (dir, out, access) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), registry.access());
    script("python3", dir.path(), "for i in range(5000): open(str(i), 'w').write(str(i))");
    let saved = save(&tree(dir.path()), &registry.repository("a"), "t", &access).await;
    let reference = format!("{}@{}", registry.repository("a"), saved.digest);
    let manifest: serde_json::Value = serde_json::from_slice(&crane(&["manifest", "--insecure", &reference])).unwrap();
    let list = manifest["layers"].as_array().unwrap().last().unwrap()["digest"].as_str().unwrap();
    let blob = crane(&["blob", "--insecure", &registry.repository(&format!("a@{list}"))]);
    fs::write(out.path().join("list.tar.gz"), blob).unwrap();
    script("sh", out.path(), "gunzip -t list.tar.gz && gunzip <list.tar.gz | tar -xf - && tar -tzf list.tar.gz");
    let files = fs::read(out.path().join("files.json")).unwrap();
    let files: serde_json::Value = serde_json::from_slice(&files).unwrap();
    assert_eq!(files["entries"].as_array().unwrap().len(), 5001);
}

/// In layout v1 the list was `manifest.json` in zstd frames, its index in a frame that decompressors skip.
#[tokio::test(flavor = "multi_thread")]
async fn bundles_of_layout_v1_are_read() {
    let registry = Registry::start();
    let access = registry.access();
    let mut content = tar::Builder::new(vec![]);
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o644);
    content.append_data(&mut header, "contents/file", &b"text"[..]).unwrap();
    let content = content.into_inner().unwrap();

    let sha256_hex = |bytes: &[u8]| sha256(bytes).strip_prefix("sha256:").unwrap().to_owned();
    let root = json!({"path": "", "type": "directory", "mode": "0755"});
    let file = json!({"path": "file", "type": "file", "mode": "0644", "size": 4, "sha256": sha256_hex(b"text"),
        "layer": 0, "offset": 512});
    // The order of a line's fields is part of the format.
    let line = |value: &serde_json::Value| {
        let path = json!({"path": value["path"]}).to_string();
        let mut rest = value.clone();
        rest.as_object_mut().unwrap().remove("path");
        format!("{},{}", path.strip_suffix('}').unwrap(), rest.to_string().strip_prefix('{').unwrap())
    };
    let text = format!("{{\"entries\":[\n{},\n{}\n]}}\n", line(&root), line(&file));
    let frame = zstd::encode_all(text.as_bytes(), 3).unwrap();
    let index = json!({"frames": [{"first": "", "offset": 0, "size": frame.len(), "sha256": sha256_hex(&frame)}]});
    let index = index.to_string().into_bytes();
    let skipped = [&0x184D_2A5B_u32.to_le_bytes()[..], &u32::try_from(index.len()).unwrap().to_le_bytes()].concat();
    let place = format!("{} {} {}", frame.len() + 8, index.len(), sha256(&index));
    let list = [frame, skipped, index].concat();

    let (host, name) = (&*registry.host, "a");
    let layer = |mut blob: serde_json::Value, media_type: &str, annotations: serde_json::Value| {
        blob["mediaType"] = json!(media_type);
        blob["annotations"] = annotations;
        blob
    };
    let content = layer(put_blob(host, name, &content).await, TAR, json!({}));
    let zstd_type = format!("{TAR}+zstd");
    let list = layer(put_blob(host, name, &list).await, &zstd_type, json!({"bundlerun.dev/index": place}));
    let config_type = "application/vnd.oci.image.config.v1+json";
    let config = layer(put_blob(host, name, b"{}").await, config_type, json!({}));
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = |version: &str| {
        json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [content, list],
            "annotations": {"bundlerun.dev/bundle": version}})
    };
    let reference = push_manifest(host, name, &manifest("v1"), media_type).await;
    assert_eq!(bundlerun::bundle::read_file(&reference, "file", &access, vec![]).await.unwrap(), b"text");
    let place = Place::new();
    fetch(&reference, None, &place.dir, &access).await.unwrap();
    assert_eq!(names(&place.dir), ["file"]);

    // What a later version may write is not taken for an image like others.
    let unknown = push_manifest(host, name, &manifest("v3"), media_type).await;
    let error = fetch(&unknown, None, &place.dir, &access).await.unwrap_err();
    assert!(error.message.contains("v3"), "{error}");
}
