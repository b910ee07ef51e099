//! Archives that attack who unpacks them.

use crate::archives::{
    self,
    Then::{Holds, Refused},
    gzip, zeros,
};
use crate::common::*;
use bundlerun::bundle::{ErrorKind, Limits, Progress};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

#[tokio::test(flavor = "multi_thread")]
async fn no_archive_reaches_out_of_its_place() {
    let registry = Registry::start();
    let access = registry.access();
    let limits = Limits { entries: 1000, bytes: 100 << 20 };
    for (name, layers, then) in archives::all() {
        let reference = push_image(&registry.host, "hostile", &layers).await;
        let place = Place::new();
        let progress = Progress::default();
        let fetched = bundlerun::bundle::fetch(&reference, None, &place.dir, limits, &access, &progress);
        let fetched = ends(name, fetched).await;
        place.assert_nothing_outside();
        assert_only_plain_things(&place.dir);
        match (then, fetched) {
            (Refused(kind), Err(error)) => assert_eq!(error.kind, kind, "{name}: {error}"),
            (Holds(names), Ok(())) => assert_eq!(crate::common::names(&place.dir), names, "{name}"),
            (Refused(_), Ok(())) => panic!("{name}: unpacked {:?}", names(&place.dir)),
            (Holds(_), Err(error)) => panic!("{name}: {error}"),
        }
    }
    assert!(!Path::new("/tmp/hostile-absolute").exists() && !Path::new("/tmp/hostile").exists());
}

fn assert_only_plain_things(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let metadata = fs::symlink_metadata(entry.path()).unwrap();
        let kind = metadata.file_type();
        assert!(kind.is_dir() || kind.is_file() || kind.is_symlink(), "{entry:?}");
        assert!(!kind.is_fifo() && (kind.is_symlink() || metadata.mode() & 0o6000 == 0), "{entry:?}");
        if kind.is_dir() {
            assert_only_plain_things(&entry.path());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_a_path_ends_in_bombs_too() {
    let registry = Registry::start();
    let bomb = gzip(&mut |out| zeros(out, 512));
    let reference = push_image(&registry.host, "hostile", &[bomb]).await;
    let resolved = bundlerun::bundle::resolve(&reference, Some("none"), &registry.access()).await;
    assert_eq!(resolved.unwrap_err().kind, ErrorKind::PathNotFound);
}
