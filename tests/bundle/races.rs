//! Trees that change while they are saved.

use crate::common::*;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Swaps files, links, FIFOs and directories as fast as it can.
const SWAPS: &str = include_str!("swaps.py");

#[tokio::test(flavor = "multi_thread")]
async fn who_swaps_what_is_saved_gains_nothing_and_stops_nothing() {
    let registry = Registry::start();
    let (dir, outside, access) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), registry.access());
    fs::write(outside.path().join("secret"), "SECRET").unwrap();
    fs::write(dir.path().join("quiet"), "stays").unwrap();
    let mut swaps = Command::new("python3")
        .args(["-c", SWAPS])
        .arg(outside.path().join("secret"))
        .current_dir(dir.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(8);
    let mut saves = 0;
    // A busy machine gets through few in that time.
    while saves < 2 || Instant::now() < until {
        let tag = format!("t{saves}");
        let (tree, repository) = (tree(dir.path()), registry.repository("a"));
        let saving = try_save(&tree, &repository, &tag, &access);
        let done = ends("a save", saving).await.unwrap();
        let reference = format!("{}@{}", registry.repository("a"), done.digest);
        let place = Place::new();
        fetch(&reference, None, &place.dir, &access).await.unwrap();
        place.assert_nothing_outside();
        assert_eq!(fs::read_to_string(place.dir.join("quiet")).unwrap(), "stays");
        let grep = Command::new("grep").args(["-rlaE", "SECRET|PATH="]).arg(&place.dir).output().unwrap();
        assert!(grep.stdout.is_empty(), "{}", String::from_utf8_lossy(&grep.stdout));
        saves += 1;
    }
    assert!(swaps.try_wait().unwrap().is_none(), "the swaps ended too early");
    let _ = swaps.kill();
    let _ = swaps.wait();
}
