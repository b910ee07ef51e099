//! Images that others made.

use crate::common::*;
use bundlerun::bundle::{ErrorKind, Kind, resolve};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A tar file made by GNU tar in a directory that a script fills.
fn layer(make: &str, flags: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    script("bash", dir.path(), make);
    let archive = tempfile::NamedTempFile::new().unwrap();
    let tar = format!("tar -c {flags} -f {} *", archive.path().display());
    script("bash", dir.path(), &format!("shopt -s dotglob nullglob; {tar}"));
    fs::read(archive.path()).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn read(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_of_any_format_lie_on_each_other() {
    let registry = Registry::start();
    let access = registry.access();
    let long = "l".repeat(120);
    let lowest = layer(
        &format!("mkdir -p etc usr/bin data/old; echo 1 >etc/a; echo 1 >etc/b; echo keep >data/keep; echo x >data/old/x
            echo tool >usr/bin/tool; ln usr/bin/tool usr/bin/other; mkdir -p {long}/{long}; echo long >{long}/{long}/{long}
            chmod 4755 usr/bin/tool; echo gone >etc/gone; mkdir dir2file; echo 1 >dir2file/x; echo 1 >file2dir"),
        "--format=pax",
    );
    let middle = layer(
        "mkdir etc data dir; echo 2 >etc/a; touch etc/.wh.gone data/.wh..wh..opq; echo new >data/new; ln -s a etc/link
         touch .wh.dir2file; mkdir file2dir; echo in >file2dir/in",
        "--format=gnu",
    );
    let top = layer("mkdir -p etc/x; echo 3 >etc/x/y; echo now >dir2file; touch .wh.nothing", "--format=ustar");
    let layers = [gzip(&lowest), zstd::encode_all(&*middle, 3).unwrap(), top];
    let reference = push_image(&registry.host, "image", &layers).await;
    let place = Place::new();
    for _ in 0..2 {
        fetch(&reference, None, &place.dir, &access).await.unwrap();
        assert_eq!(read(&place.dir, "etc/a"), "2\n");
        assert_eq!(read(&place.dir, "etc/b"), "1\n");
        assert_eq!(read(&place.dir, "etc/x/y"), "3\n");
        assert_eq!(read(&place.dir, &format!("{long}/{long}/{long}")), "long\n");
        assert_eq!(read(&place.dir, "dir2file"), "now\n");
        assert_eq!(read(&place.dir, "file2dir/in"), "in\n");
        assert_eq!(fs::read_link(place.dir.join("etc/link")).unwrap(), Path::new("a"));
        assert!(!place.dir.join("etc/gone").exists() && !place.dir.join("data/keep").exists());
        assert_eq!(names(&place.dir.join("data")), ["new"]);
        let tool = fs::metadata(place.dir.join("usr/bin/tool")).unwrap();
        assert_eq!((tool.nlink(), tool.mode() & 0o7777), (2, 0o755));
        assert!(!names(&place.dir).iter().any(|name| name.contains(".wh.")));
    }
    for (path, expected) in [
        ("etc", Ok(Kind::Directory)),
        ("/etc/a", Ok(Kind::File)),
        ("usr/bin/other", Ok(Kind::File)),
        ("data/new", Ok(Kind::File)),
        ("dir2file", Ok(Kind::File)),
        ("file2dir", Ok(Kind::Directory)),
        ("etc/gone", Err(ErrorKind::PathNotFound)),
        ("data/keep", Err(ErrorKind::PathNotFound)),
        ("data/old", Err(ErrorKind::PathNotFound)),
        ("dir2file/x", Err(ErrorKind::PathNotFound)),
        ("none", Err(ErrorKind::PathNotFound)),
        ("etc/link", Err(ErrorKind::Invalid)),
        ("etc/link/x", Err(ErrorKind::Invalid)),
    ] {
        let resolved = resolve(&reference, Some(path), &access).await;
        assert_eq!(resolved.map(|resolved| resolved.kind).map_err(|error| error.kind), expected, "{path}");
        let place = Place::new();
        let target = match expected {
            Ok(Kind::File) => {
                fs::write(place.dir.join("file"), "").unwrap();
                place.dir.join("file")
            }
            _ => place.dir.clone(),
        };
        let fetched = fetch(&reference, Some(path), &target, &access).await;
        assert_eq!(fetched.map_err(|error| error.kind), expected.map(|_| ()), "fetch {path}");
        match path {
            "/etc/a" => assert_eq!(read(&place.dir, "file"), "2\n"),
            "usr/bin/other" => assert_eq!(read(&place.dir, "file"), "tool\n"),
            "etc" => assert_eq!(names(&place.dir), ["a", "b", "link", "x", "x/y"]),
            "file2dir" => assert_eq!(names(&place.dir), ["in"]),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_has_the_content_of_links_that_lead_out_of_it() {
    let registry = Registry::start();
    let access = registry.access();
    let first = layer("mkdir a b; echo content >a/file; ln a/file b/one; ln a/file b/two", "");
    let second = layer("mkdir c; echo other >c/other", "");
    let reference = push_image(&registry.host, "image", &[first, second]).await;
    let place = Place::new();
    fetch(&reference, Some("b"), &place.dir, &access).await.unwrap();
    assert_eq!((read(&place.dir, "one"), read(&place.dir, "two")), ("content\n".into(), "content\n".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_means_the_image_for_this_machine() {
    let registry = Registry::start();
    let access = registry.access();
    let mut manifests = vec![];
    for (os, architecture) in [("windows", "amd64"), ("linux", "s390x"), ("linux", "amd64"), ("linux", "arm64")] {
        let image = layer(&format!("echo {os} {architecture} >which"), "");
        let reference = push_image(&registry.host, "image", &[image]).await;
        let digest = reference.split('@').nth(1).unwrap();
        let body = crane(&["manifest", "--insecure", &reference]);
        let platform = json!({"os": os, "architecture": architecture});
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        manifests.push(json!({"mediaType": media_type, "digest": digest, "size": body.len(), "platform": platform}));
    }
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index =
        |manifests: &[serde_json::Value]| json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests});
    let reference = push_manifest(&registry.host, "image", &index(&manifests), media_type).await;
    let place = Place::new();
    fetch(&reference, None, &place.dir, &access).await.unwrap();
    let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    assert_eq!(read(&place.dir, "which"), format!("linux {architecture}\n"));
    let resolved = resolve(&reference, None, &access).await.unwrap();
    assert!(reference.ends_with(&resolved.digest), "the digest is that of the index");
    let others = push_manifest(&registry.host, "image", &index(&manifests[..2]), media_type).await;
    let error = resolve(&others, None, &access).await.unwrap_err();
    assert!(error.kind == ErrorKind::Invalid && error.message.contains("platforms"), "{error}");
}

/// Pushes an artifact of one file.
async fn push_artifact(host: &str, name: &str, content: &[u8], annotations: &Value) -> String {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut layer = crate::push::put_blob(host, name, content).await;
    layer["mediaType"] = json!("text/plain");
    layer["annotations"] = annotations.clone();
    let mut config = crate::push::put_blob(host, name, b"{}").await;
    config["mediaType"] = json!("application/vnd.oci.empty.v1+json");
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type, "artifactType": "application/vnd.acme.model",
        "config": config, "layers": [layer],
    });
    push_manifest(host, name, &manifest, media_type).await
}

/// Its layers have the media types of archives unless it is told others.
#[tokio::test(flavor = "multi_thread")]
async fn what_oras_pushes_is_its_files_under_their_names() {
    let registry = Registry::start();
    let access = registry.access();
    let from = tempfile::tempdir().unwrap();
    let zeros = [&[0; 4096][..], b"weights"].concat();
    fs::write(from.path().join("model.bin"), &zeros).unwrap();
    let files =
        "mkdir -p docs set/below; echo text >'docs/read me'; : >empty; echo 1 >set/below/one; chmod 600 set/below/one";
    script("sh", from.path(), files);
    let reference = registry.repository("artifact:1");
    let push = ["push", "--plain-http", &reference, "model.bin", "docs/read me:text/plain", "empty", "set"];
    oras(from.path(), &push);
    let place = Place::new();
    fetch(&reference, None, &place.dir, &access).await.unwrap();
    let all = ["docs", "docs/read me", "empty", "model.bin", "set", "set/below", "set/below/one"];
    assert_eq!(names(&place.dir), all);
    assert_eq!(fs::read(place.dir.join("model.bin")).unwrap(), zeros);
    assert_eq!(fs::metadata(place.dir.join("model.bin")).unwrap().mode() & 0o777, 0o644);
    assert_eq!((read(&place.dir, "docs/read me"), read(&place.dir, "set/below/one")), ("text\n".into(), "1\n".into()));

    for (path, kind) in
        [("model.bin", Kind::File), ("docs", Kind::Directory), ("set/below", Kind::Directory), ("empty", Kind::File)]
    {
        assert_eq!(resolve(&reference, Some(path), &access).await.unwrap().kind, kind, "{path}");
    }
    let file = place.around.path().join("place/file");
    fs::write(&file, "").unwrap();
    fetch(&reference, Some("model.bin"), &file, &access).await.unwrap();
    assert_eq!(fs::read(&file).unwrap(), zeros);
    assert_eq!(resolve(&reference, Some("none"), &access).await.unwrap_err().kind, ErrorKind::PathNotFound);

    // One alone, as it is in containerd#11907.
    let alone = registry.repository("artifact:2");
    oras(from.path(), &["push", "--plain-http", &alone, "model.bin"]);
    let place = Place::new();
    fetch(&alone, None, &place.dir, &access).await.unwrap();
    assert_eq!(names(&place.dir), ["model.bin"]);
    assert_eq!(fs::read(place.dir.join("model.bin")).unwrap(), zeros);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_that_is_no_files_is_refused_with_its_type() {
    const TITLE: &str = "org.opencontainers.image.title";
    let registry = Registry::start();
    let access = registry.access();
    for annotations in [json!({}), json!({TITLE: "../victim"}), json!({TITLE: ".wh.x"})] {
        let reference = push_artifact(&registry.host, "artifact", b"x", &annotations).await;
        let error = resolve(&reference, None, &access).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid);
        let says = format!("{reference} is an artifact of type application/vnd.acme.model, not an image");
        assert!(error.message.starts_with(&says), "{error}");
        let place = Place::new();
        assert_eq!(fetch(&reference, None, &place.dir, &access).await.unwrap_err().message, error.message);
        place.assert_nothing_outside();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_input_can_be_is_left_out_of_an_image_and_told_where_it_is_wanted() {
    let registry = Registry::start();
    let access = registry.access();
    let sparse = "truncate -s 1M sparse; echo data >>sparse";
    for (format, what) in [("gnu", "a sparse file of the GNU format"), ("pax", "a sparse file of the PAX format")] {
        let first =
            layer(&format!("mkdir dev; mkfifo dev/fifo; echo x >file; {sparse}"), &format!("-S --format={format}"));
        let second = layer("mkdir dev; touch dev/.wh.fifo", "");
        for (layers, left_out) in [(vec![first.clone()], 2), (vec![first, second], 1)] {
            let reference = push_image(&registry.host, "image", &layers).await;
            let (place, progress) = (Place::new(), bundlerun::bundle::Progress::default());
            bundlerun::bundle::fetch(&reference, None, &place.dir, NO_LIMITS, &access, &progress).await.unwrap();
            assert_eq!(names(&place.dir), ["dev", "file"]);
            assert_eq!(progress.left_out.into_inner(), left_out);
            let mut wanted = vec![("sparse", what)];
            if left_out == 2 {
                wanted.push(("dev/fifo", "a FIFO"));
            }
            for (path, what) in wanted {
                let says = format!("\"{path}\" is {what}");
                let error = resolve(&reference, Some(path), &access).await.unwrap_err();
                assert!(error.kind == ErrorKind::Invalid && error.message.contains(&says), "{error}");
                let error = fetch(&reference, Some(path), &place.dir, &access).await.unwrap_err();
                assert!(error.kind == ErrorKind::Invalid && error.message.contains(&says), "{error}");
            }
        }
    }
}
