//! Archives that attack who unpacks them, as layers of images.

use bundlerun::bundle::ErrorKind;
use std::io::Write;

/// A header of a tar file, sound but for what it says.
fn entry(name: &str, flag: u8, link: &str, content: &[u8]) -> Vec<u8> {
    entry_of(name, flag, link, content, content.len() as u64)
}

fn entry_of(name: &str, flag: u8, link: &str, content: &[u8], size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    let bytes = header.as_mut_bytes();
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    bytes[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(tar::EntryType::new(flag));
    header.set_size(size);
    header.set_mode(0o6755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    let mut out = header.as_bytes().to_vec();
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut text = String::new();
    for (key, value) in records {
        let length = key.len() + value.len() + 3;
        let digits = (length + 1).to_string().len();
        let digits = (length + digits).to_string().len();
        text.extend([&*(length + digits).to_string(), " ", key, "=", value, "\n"]);
    }
    entry("pax", b'x', "", text.as_bytes())
}

/// An entry of a sparse file with so many more blocks for its map; with none, the header announces one.
fn sparse_map(entry: &[u8], blocks: usize) -> Vec<u8> {
    let (header, content) = entry.split_at(512);
    let mut header = tar::Header::from_byte_slice(header).clone();
    header.as_mut_bytes()[482] = 1;
    header.set_cksum();
    let mut out = header.as_bytes().to_vec();
    for number in 1..=blocks {
        let mut block = [b'0'; 512];
        block[504] = u8::from(number < blocks);
        out.extend(block);
    }
    out.extend(content);
    out
}

fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut out = entries.concat();
    out.extend([0; 1024]);
    out
}

fn file(name: &str) -> Vec<u8> {
    entry(name, b'0', "", b"hostile")
}

pub(crate) fn gzip(content: &mut dyn FnMut(&mut dyn Write)) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    content(&mut encoder);
    encoder.finish().unwrap()
}

/// A file of so many MiB of zeros.
pub(crate) fn zeros(out: &mut dyn Write, mebibytes: u64) {
    out.write_all(&entry_of("zeros", b'0', "", &[], mebibytes << 20)).unwrap();
    let mebibyte = vec![0; 1 << 20];
    for _ in 0..mebibytes {
        out.write_all(&mebibyte).unwrap();
    }
    out.write_all(&[0; 1024]).unwrap();
}

/// What becomes of an archive.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Then {
    Refused(ErrorKind),
    /// Unpacked, with these names.
    Holds(&'static [&'static str]),
}

/// Name, layers from the lowest, and what becomes of them.
pub(crate) type Case = (&'static str, Vec<Vec<u8>>, Then);

/// All of them. No file is larger than 2 GiB.
#[allow(clippy::too_many_lines)] // A table.
pub(crate) fn all() -> Vec<Case> {
    use Then::{Holds, Refused};
    let invalid = || Refused(ErrorKind::Invalid);
    let mut many = vec![];
    for i in 0..1_000_000 {
        many.extend(entry(&format!("{i}"), b'0', "", b""));
    }
    let long_name = "n".repeat(300);
    let deep = vec!["d"; 400].join("/");
    let on_the_way: Vec<&str> = (1..=400).map(|level| &*vec!["d"; level].join("/").leak()).collect();
    let zstd_bomb = {
        let mut encoder = zstd::Encoder::new(vec![], 1).unwrap();
        zeros(&mut encoder, 2048);
        encoder.finish().unwrap()
    };
    vec![
        ("dot dot", vec![archive(&[file("../victim")])], invalid()),
        ("dot dot inside", vec![archive(&[file("a/../../victim")])], invalid()),
        ("dot dot directory", vec![archive(&[entry("..", b'5', "", b"")])], invalid()),
        ("absolute", vec![archive(&[file("/tmp/hostile-absolute")])], invalid()),
        ("two slashes", vec![archive(&[file("a//b")])], invalid()),
        ("file through a link", vec![archive(&[entry("l", b'2', "..", b""), file("l/victim")])], invalid()),
        (
            "file through an absolute link",
            vec![archive(&[entry("l", b'2', "/tmp", b""), file("l/hostile")])],
            invalid(),
        ),
        (
            "directory through a link",
            vec![archive(&[entry("l", b'2', "..", b""), entry("l/d", b'5', "", b"")])],
            invalid(),
        ),
        (
            "through a link of a lower layer",
            vec![archive(&[entry("l", b'2', "..", b"")]), archive(&[file("l/victim")])],
            invalid(),
        ),
        (
            "whiteout through a link",
            vec![archive(&[entry("l", b'2', "..", b"")]), archive(&[file("l/.wh.victim")])],
            invalid(),
        ),
        (
            "opaque link",
            vec![archive(&[entry("l", b'2', "..", b"")]), archive(&[file("l/.wh..wh..opq")])],
            Holds(&["l"]),
        ),
        ("whiteout of dot dot", vec![archive(&[file(".wh...")])], invalid()),
        ("whiteout of the place", vec![archive(&[file("a"), file(".wh..")])], invalid()),
        ("file over a link", vec![archive(&[entry("l", b'2', "../victim", b""), file("l")])], Holds(&["l"])),
        ("hard link out", vec![archive(&[entry("h", b'1', "../victim", b"")])], invalid()),
        ("absolute hard link", vec![archive(&[entry("h", b'1', "/etc/passwd", b"")])], invalid()),
        (
            "hard link through a link",
            vec![archive(&[entry("l", b'2', "..", b""), entry("h", b'1', "l/victim", b"")])],
            invalid(),
        ),
        (
            "hard link to a link, then written",
            vec![archive(&[entry("l", b'2', "../victim", b""), entry("h", b'1', "l", b""), file("h")])],
            Holds(&["h", "l"]),
        ),
        ("hard link to nothing", vec![archive(&[entry("h", b'1', "none", b"")])], invalid()),
        (
            "hard link to a directory",
            vec![archive(&[entry("d", b'5', "", b""), entry("h", b'1', "d", b"")])],
            invalid(),
        ),
        ("character device", vec![archive(&[entry("dev", b'3', "", b""), file("f")])], Holds(&["f"])),
        ("block device", vec![archive(&[entry_of("dev", b'4', "", b"", 4096), file("f")])], Holds(&["f"])),
        ("FIFO", vec![archive(&[entry("fifo", b'6', "", b""), file("f")])], Holds(&["f"])),
        ("unknown type", vec![archive(&[entry("what", b'V', "", b"")])], invalid()),
        ("GNU sparse", vec![archive(&[entry("sparse", b'S', "", b"data"), file("f")])], Holds(&["f"])),
        (
            "GNU sparse with a long map",
            vec![archive(&[sparse_map(&entry("sparse", b'S', "", b"data"), 2), file("f")])],
            Holds(&["f"]),
        ),
        (
            "GNU sparse with a map that does not end",
            vec![archive(&[sparse_map(&entry("sparse", b'S', "", b""), 0)])],
            invalid(),
        ),
        ("PAX sparse", vec![archive(&[pax(&[("GNU.sparse.major", "1")]), file("s"), file("f")])], Holds(&["f"])),
        (
            "device in the place of a file",
            vec![archive(&[file("a"), file("f")]), archive(&[entry("a", b'3', "", b"")])],
            Holds(&["f"]),
        ),
        (
            "device that a higher layer replaces or deletes",
            vec![
                archive(&[entry("dev/a", b'3', "", b""), entry("b", b'6', "", b"")]),
                archive(&[file(".wh.dev"), file("b")]),
            ],
            Holds(&["b"]),
        ),
        (
            "other names of what is left out",
            vec![
                archive(&[entry("dev", b'3', "", b""), entry("h", b'1', "dev", b""), entry("i", b'1', "h", b"")]),
                archive(&[entry("j", b'1', "dev", b""), file("f")]),
            ],
            Holds(&["f"]),
        ),
        (
            "duplicates",
            vec![archive(&[file("a"), file("a"), entry("a", b'5', "", b""), file("a/b")])],
            Holds(&["a", "a/b"]),
        ),
        ("case", vec![archive(&[file("a"), file("A")])], Holds(&["A", "a"])),
        ("PAX path", vec![archive(&[pax(&[("path", "../victim")]), file("good")])], invalid()),
        (
            "PAX link path",
            vec![archive(&[pax(&[("linkpath", "../victim")]), entry("h", b'1', "good", b"")])],
            invalid(),
        ),
        ("PAX zero byte", vec![archive(&[pax(&[("path", "a\0b")]), file("good")])], invalid()),
        ("PAX empty path", vec![archive(&[pax(&[("path", "")]), file("good")])], invalid()),
        ("PAX record without end", vec![archive(&[entry("pax", b'x', "", b"99 path=a"), file("good")])], invalid()),
        ("PAX size", vec![archive(&[pax(&[("size", "18446744073709551615")]), file("huge")])], invalid()),
        (
            "PAX large size",
            vec![archive(&[pax(&[("size", "9000000000")]), file("huge")])],
            Refused(ErrorKind::TooLarge),
        ),
        ("name longer than names are", vec![archive(&[pax(&[("path", &long_name)]), file("x")])], invalid()),
        ("deep", vec![archive(&[pax(&[("path", &deep)]), file("x")])], Holds(on_the_way.leak())),
        ("huge name", vec![entry_of("././@LongLink", b'L', "", &[], 1 << 40)], Refused(ErrorKind::TooLarge)),
        ("huge size", vec![archive(&[entry_of("huge", b'0', "", b"", 1 << 40)])], Refused(ErrorKind::TooLarge)),
        ("truncated", vec![archive(&[file("a"), entry("b", b'0', "", &[1; 4096])])[..3000].to_vec()], invalid()),
        ("truncated header", vec![file("a")[..100].to_vec()], invalid()),
        ("no archive", vec![b"this is no archive".repeat(100)], invalid()),
        ("no archive, and short", vec![b"text".to_vec()], invalid()),
        ("nothing", vec![vec![]], invalid()),
        ("nothing, compressed", vec![gzip(&mut |_| ())], invalid()),
        ("begins with zeros", vec![[&[0; 4096][..], b"content"].concat()], invalid()),
        (
            "begins with zeros, compressed",
            vec![gzip(&mut |out| out.write_all(&[&[0; 4096][..], b"x"].concat()).unwrap())],
            invalid(),
        ),
        ("zeros, but less than an archive has", vec![vec![0; 100]], invalid()),
        ("no end", vec![[file("a"), file("b")].concat()], invalid()),
        ("something after the end", vec![[&*archive(&[file("a")]), b"more"].concat()], invalid()),
        ("an archive after the end", vec![[archive(&[file("a")]), archive(&[file("b")])].concat()], invalid()),
        ("one block of zeros as the end", vec![[&*file("a"), &[0; 512]].concat()], Holds(&["a"])),
        ("a large block", vec![[&*file("a"), &[0; 20 * 512]].concat()], Holds(&["a"])),
        ("truncated gzip", vec![gzip(&mut |out| zeros(out, 1))[..500].to_vec()], invalid()),
        ("no zstd", vec![[&[0x28, 0xb5, 0x2f, 0xfd][..], &[0xff; 1000]].concat()], invalid()),
        ("gzip bomb", vec![gzip(&mut |out| zeros(out, 512))], Refused(ErrorKind::TooLarge)),
        ("zstd bomb", vec![zstd_bomb], Refused(ErrorKind::TooLarge)),
        ("a million entries", vec![archive(&[many])], Refused(ErrorKind::TooLarge)),
        ("root that is a link", vec![archive(&[entry(".", b'2', "/etc", b"")])], invalid()),
        ("setuid", vec![archive(&[file("suid")])], Holds(&["suid"])),
    ]
}
