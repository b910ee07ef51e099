//! The headers of our tar layers: the GNU format, in which names and sizes have no limits and bytes are bytes.
//!
//! Nothing in them depends on time, user or machine.

use crate::bundle::digest::Digest;

/// The time of every entry, in seconds: 1980-01-02 in UTC. ZIP files, and Python's wheels among them, have no times before
/// 1980 as the local clock has it.
pub(in crate::bundle) const MTIME: u32 = 315_619_200;

/// Everything in a tar file begins at a multiple of it.
pub(in crate::bundle) const BLOCK: u64 = 512;
/// Two blocks of zeros.
pub(in crate::bundle) const END: [u8; 1024] = [0; 1024];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bundle) enum Type<'a> {
    File {
        size: u64,
    },
    /// Of the format that [`super::sparse`] describes: bytes of the entry's content, and of the file with its holes.
    Sparse {
        stored: u64,
        size: u64,
    },
    Directory,
    Symlink(&'a [u8]),
    Hardlink(&'a [u8]),
}

/// What goes before the content of an entry.
pub(in crate::bundle) fn header(name: &[u8], mode: u32, kind: Type<'_>) -> Vec<u8> {
    if let Type::Sparse { stored, size } = kind {
        return sparse(name, mode, stored, size);
    }
    let mut out = vec![];
    let name = match kind {
        Type::Directory => [name, b"/"].concat(),
        _ => name.to_vec(),
    };
    let link: &[u8] = match kind {
        Type::Symlink(target) | Type::Hardlink(target) => target,
        _ => &[],
    };
    if link.len() > 100 {
        long(&mut out, b'K', link);
    }
    if name.len() > 100 {
        long(&mut out, b'L', &name);
    }
    let (flag, size) = match kind {
        Type::File { size } | Type::Sparse { stored: size, .. } => (b'0', size),
        Type::Hardlink(_) => (b'1', 0),
        Type::Symlink(_) => (b'2', 0),
        Type::Directory => (b'5', 0),
    };
    block(&mut out, &name, mode, size, flag, link);
    out
}

/// Bytes between the end of a content and the next header.
pub(in crate::bundle) fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK) - size
}

/// The size of an entry with its header, its content and its padding.
pub(in crate::bundle) fn cost(header_len: usize, size: u64) -> u64 {
    (header_len as u64).saturating_add(size).saturating_add(BLOCK)
}

/// The name of the header is for programs that do not know the format: what they make of it is not taken for the file.
fn sparse(name: &[u8], mode: u32, stored: u64, size: u64) -> Vec<u8> {
    let size = size.to_string();
    let records: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", name),
        ("GNU.sparse.realsize", size.as_bytes()),
    ];
    let text: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
    let digest = Digest::of(name).hex();
    let mut out = vec![];
    let name = format!("PaxHeaders/{digest}").into_bytes();
    write_block(&mut out, PAX, &Block { name: &name, mode: 0o644, size: text.len() as u64, flag: b'x', link: &[] });
    let padding = usize::try_from(padding(text.len() as u64)).unwrap_or(0);
    out.extend(text);
    out.resize(out.len() + padding, 0);
    let name = format!("GNUSparseFile.0/{digest}").into_bytes();
    write_block(&mut out, PAX, &Block { name: &name, mode, size: stored, flag: b'0', link: &[] });
    out
}

/// `<length> <key>=<value>\n`, its own length included.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let digits = |length: usize| length.to_string().len();
    let length = rest + digits(rest + digits(rest));
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

fn long(out: &mut Vec<u8>, flag: u8, text: &[u8]) {
    let size = text.len() as u64 + 1;
    block(out, b"././@LongLink", 0o644, size, flag, &[]);
    out.extend_from_slice(text);
    out.push(0);
    out.resize(out.len() + usize::try_from(padding(size)).unwrap_or(0), 0);
}

/// The magic of GNU's format, with its version.
const GNU: [u8; 8] = *b"ustar  \0";
/// That of PAX: GNU tar looks for sparse files of this format in no other.
const PAX: [u8; 8] = *b"ustar\x0000";

fn block(out: &mut Vec<u8>, name: &[u8], mode: u32, size: u64, flag: u8, link: &[u8]) {
    write_block(out, GNU, &Block { name, mode, size, flag, link });
}

struct Block<'a> {
    name: &'a [u8],
    mode: u32,
    size: u64,
    flag: u8,
    link: &'a [u8],
}

fn write_block(out: &mut Vec<u8>, magic: [u8; 8], &Block { name, mode, size, flag, link }: &Block<'_>) {
    let start = out.len();
    field(out, name, 100);
    octal(out, u64::from(mode), 8);
    octal(out, 0, 8);
    octal(out, 0, 8);
    octal(out, size, 12);
    octal(out, u64::from(MTIME), 12);
    let checksum_at = out.len();
    out.extend_from_slice(b"        ");
    out.push(flag);
    field(out, link, 100);
    out.extend_from_slice(&magic);
    out.resize(start + 512, 0);
    let sum: u64 = out.iter().skip(start).map(|byte| u64::from(*byte)).sum();
    let text = format!("{sum:06o}\0 ");
    for (place, byte) in out.iter_mut().skip(checksum_at).zip(text.bytes()) {
        *place = byte;
    }
}

fn field(out: &mut Vec<u8>, text: &[u8], width: usize) {
    let end = out.len() + width;
    out.extend(text.iter().take(width));
    out.resize(end, 0);
}

fn octal(out: &mut Vec<u8>, value: u64, width: usize) {
    let text = format!("{value:0digits$o}", digits = width - 1);
    if text.len() < width {
        out.extend_from_slice(text.as_bytes());
        out.push(0);
        return;
    }
    // Base 256, as GNU tar has it for sizes from 8 GiB.
    let bytes = value.to_be_bytes();
    out.push(0x80);
    out.resize(out.len() + width - 1 - bytes.len(), 0);
    out.extend_from_slice(&bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_reader_reads_the_headers() {
        let (long, longer) = ("d/".repeat(300), "x".repeat(5000));
        let mut archive = vec![];
        let names: [&[u8]; 4] = [b"a", b"not utf-8 \xff\xfe", long.trim_end_matches('/').as_bytes(), longer.as_bytes()];
        for name in names {
            archive.extend(header(name, 0o4755, Type::Symlink(longer.as_bytes())));
        }
        archive.extend(header(b"dir", 0o1777, Type::Directory));
        archive.extend(header(b"large", 0o644, Type::File { size: 9 << 30 }));
        let mut archive = tar::Archive::new(&*archive);
        let mut entries = archive.entries().unwrap();
        for name in names {
            let entry = entries.next().unwrap().unwrap();
            assert_eq!(&*entry.path_bytes(), name);
            assert_eq!(&*entry.link_name_bytes().unwrap(), longer.as_bytes());
            assert_eq!(entry.header().mode().unwrap(), 0o4755);
        }
        let dir = entries.next().unwrap().unwrap();
        assert!(dir.header().entry_type().is_dir());
        assert_eq!((dir.header().mtime().unwrap(), dir.header().uid().unwrap()), (u64::from(MTIME), 0));
        assert_eq!(entries.next().unwrap().unwrap().size(), 9 << 30);
    }
}
