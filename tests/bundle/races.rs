//! Trees that change while they are saved.

use crate::common::*;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Swaps files, links, FIFOs and directories as fast as it can.
const SWAPS: &str = r#"
import os, sys, random
secret = sys.argv[1]
def put(name):
    with open(name, "wb") as f: f.write(b"own" * random.randrange(20000))
def clear(name):
    try: os.unlink(name)
    except IsADirectoryError:
        for below in os.listdir(name): os.unlink(f"{name}/{below}")
        os.rmdir(name)
    except FileNotFoundError: pass
def make(name):
    kind = random.randrange(6)
    if kind == 0: put(name)
    elif kind == 1: os.symlink(secret + "/secret", name)
    elif kind == 2: os.symlink(secret, name)
    elif kind == 3: os.mkfifo(name)
    elif kind == 4: os.mkdir(name); put(name + "/secret")
    else: os.symlink("/proc/self/environ", name)
while True:
    name = str(random.randrange(40))
    clear(name); make(name)
    try:
        with open("grows", "ab") as f: f.write(b"g" * 1000)
        if os.path.getsize("grows") > 1 << 20: os.truncate("grows", 0)
    except OSError: pass
"#;

#[tokio::test(flavor = "multi_thread")]
async fn who_swaps_what_is_saved_gains_nothing_and_stops_nothing() {
    let registry = Registry::start();
    let (dir, outside, access) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), registry.access());
    fs::write(outside.path().join("secret"), "SECRET").unwrap();
    fs::write(dir.path().join("quiet"), "stays").unwrap();
    let mut swaps = Command::new("python3")
        .args(["-c", SWAPS])
        .arg(outside.path())
        .current_dir(dir.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(8);
    let mut saves = 0;
    while Instant::now() < until {
        let tag = format!("t{saves}");
        let (tree, repository) = (tree(dir.path()), registry.repository("a"));
        let saving = try_save(&tree, &repository, &tag, &access);
        let done = tokio::time::timeout(Duration::from_mins(1), saving).await.expect("it hangs").unwrap();
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
    assert!(saves > 1);
}
