//! A part of a file of a bundle.

use crate::common::*;
use bundlerun::bundle::{Access, Part, Tree, read_part};
use std::fs;
use std::sync::atomic::Ordering;

const MIB: u64 = 1 << 20;

/// A file of 10 MB as it is, the same with holes of as much between its lines, and a small one.
const FILES: &str = "
lines = b''.join(b'line %09d\\n' % number for number in range(700_000))
with open('plain', 'wb') as file: file.write(lines)
with open('sparse', 'wb') as file:
    for number in range(3):
        file.seek(number * (20 << 20) + 12345)
        file.write(lines[:1_500_000])
    file.truncate(64 << 20)
with open('small', 'wb') as file: file.write(lines[:1500])
";

async fn part(reference: &str, name: &str, part: Part, access: &Access) -> Vec<u8> {
    let mut read = vec![];
    read_part(reference, name, part, access, &mut read).await.unwrap();
    read
}

/// As programs make it of all of the file.
fn expected(all: &[u8], part: Part) -> &[u8] {
    let index = |at: u64| usize::try_from(at).unwrap().min(all.len());
    let lines = || all.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::len).collect::<Vec<_>>();
    let sum = |lengths: &[usize]| lengths.iter().sum::<usize>();
    match part {
        Part::Bytes(start, end) => &all[index(start)..end.map_or(all.len(), index)],
        Part::LastBytes(count) => &all[all.len() - index(count)..],
        Part::FirstLines(count) => {
            let lines = lines();
            &all[..sum(&lines[..lines.len().min(index(count))])]
        }
        Part::LastLines(count) => {
            let lines = lines();
            &all[all.len() - sum(&lines[lines.len().saturating_sub(index(count))..])..]
        }
    }
}

const PARTS: [Part; 8] = [
    Part::FirstLines(3),
    Part::LastLines(3),
    Part::FirstLines(60_000),
    Part::LastLines(60_000),
    Part::Bytes(1_000_000, Some(1_000_015)),
    Part::Bytes(0, Some(1 << 40)),
    Part::Bytes(9_000_000, None),
    Part::LastBytes(15),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_file_is_the_same_as_of_the_whole() {
    let registry = Registry::start();
    let (dir, access) = (tempfile::tempdir().unwrap(), registry.access());
    script("python3", dir.path(), FILES);
    for (tag, max_blob) in [("one", None), ("parts", Some(4 * MIB))] {
        let tree = Tree { max_blob, ..tree(dir.path()) };
        let saved = save(&tree, &registry.repository("a"), tag, &access).await;
        let reference = format!("{}@{}", registry.repository("a"), saved.digest);
        for name in ["plain", "sparse"] {
            let all = fs::read(dir.path().join(name)).unwrap();
            for wanted in PARTS {
                let read = part(&reference, name, wanted, &access).await;
                assert!(read == expected(&all, wanted), "{tag} {name} {wanted:?}: {} bytes", read.len());
            }
            let beyond = read_part(&reference, name, Part::Bytes(1 << 40, None), &access, &mut vec![]).await;
            assert!(beyond.unwrap_err().message.starts_with("the file has only"), "{tag} {name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_file_is_read_by_few_requests() {
    let registry = Registry::start();
    let dir = tempfile::tempdir().unwrap();
    script("python3", dir.path(), FILES);
    save(&tree(dir.path()), &registry.repository("a"), "t", &registry.access()).await;
    // Manifest, index, the entry in the list, and then the part.
    for (name, wanted, requests) in [
        ("small", Part::LastLines(2), 4),
        ("small", Part::Bytes(3, Some(9)), 4),
        ("plain", Part::FirstLines(10), 4),
        ("plain", Part::LastLines(10), 4),
        ("plain", Part::Bytes(8_000_000, Some(8_000_015)), 4),
        // And its map.
        ("sparse", Part::Bytes(40 << 20, Some((40 << 20) + 15)), 5),
    ] {
        let proxy = Proxy::before("127.0.0.1", &registry.host, |_, _, _| Fault::None);
        part(&proxy.reference("a:t"), name, wanted, &access(&proxy.host)).await;
        let log = proxy.seen.log.lock().unwrap();
        assert!(log.len() <= requests, "{name} {wanted:?}: {log:?}");
        if name != "sparse" {
            let bytes = proxy.seen.bytes.load(Ordering::Relaxed);
            assert!(bytes < MIB, "{name} {wanted:?}: {bytes} bytes were read");
        }
    }
}
