//! `files.json`: every entry of a bundle in one line of JSON, sorted by path, and the last layer, which holds it.
//!
//! The layer is a tar file with that one file, compressed as gzip members of some lines each: every tool reads it as one
//! compressed tar file. An index behind them ([`super::list_index`]) says of each member where it is, what its sha256 is
//! and at which path it begins. So one entry of many is found by two small requests, and everything that is read depends
//! by digests on the image's manifest.
//!
//! A file that is hardly anything but holes has `sparse`, with bytes and digest of what is in the layer, in the place of
//! its `sha256` (see [`super::sparse`]); bundles of layout v2 from before 2026-11-26 have none. A file that is larger than
//! a blob may be has `parts` in the place of `layer` and `offset`; those from before 2026-11-27 have none.
//!
//! Layout v1, which is only read, had zstd frames in the place of gzip members, and named the file `manifest.json`.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use super::list_index::{self, IndexPlace, ListMember};
use super::path_text::{read_bytes, write_bytes};
use super::tar_header::{self, Type};
use crate::bundle::Error;
use crate::bundle::digest::{Digest, Digester};
use crate::names::bundle::FILES;

/// Bytes of lines in a member: what is read for one entry, at most.
const MEMBER_BYTES: usize = 128 << 10;
/// Digests hardly compress: a higher level costs much time and saves little.
const LEVEL: u32 = 3;
const START: &str = "{\"entries\":[\n";
const END: &str = "]}\n";
/// No member of ours is larger, unpacked: one line is at most a path and a link, in base 64.
const LARGEST_MEMBER: usize = 4 << 20;
/// How a zstd frame begins.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// An entry of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::bundle) struct Listed {
    pub(in crate::bundle) path: Vec<u8>,
    pub(in crate::bundle) what: ListedAs,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::bundle) enum ListedAs {
    Directory { mode: u32 },
    File(ListedFile),
    Link { target: Vec<u8> },
    Skipped { reason: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::bundle) struct ListedFile {
    pub(in crate::bundle) mode: u32,
    pub(in crate::bundle) size: u64,
    pub(in crate::bundle) digest: Digest,
    /// Number of the layer, from 0; where the file is in parts, that of the first.
    pub(in crate::bundle) layer: usize,
    /// Of the content in the layer.
    pub(in crate::bundle) offset: u64,
    /// Where it is, one part after the other, if it is in parts. They are in different layers, in the order of these.
    pub(in crate::bundle) parts: Vec<ListedPart>,
    /// The first name of the same file.
    pub(in crate::bundle) same_as: Option<Vec<u8>>,
    /// For a file of the format that [`super::sparse`] describes: how many bytes it has in the layer, whose digest
    /// `digest` is. None: its content is there as it is.
    pub(in crate::bundle) stored: Option<u64>,
    /// When its content was written, in seconds and nanoseconds. In snapshots alone.
    pub(in crate::bundle) modified: Option<(i64, u64)>,
    /// What the command said, which is no file of the working directory. In snapshots alone.
    pub(in crate::bundle) ours: bool,
}

/// A part of a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::bundle) struct ListedPart {
    /// Number of the layer, from 0.
    pub(in crate::bundle) layer: usize,
    /// In the layer.
    pub(in crate::bundle) offset: u64,
    pub(in crate::bundle) bytes: u64,
}

impl ListedFile {
    /// What it has in the image.
    pub(in crate::bundle) fn bytes(&self) -> u64 {
        self.stored.unwrap_or(self.size)
    }
}

/// Where all of `bytes` are, if these are parts of one file.
fn first_of(parts: &[ListedPart], bytes: u64) -> Option<(usize, u64)> {
    let sum = parts.iter().try_fold(0, |sum: u64, part| sum.checked_add(part.bytes))?;
    let are_in_order = parts.is_sorted_by(|a, b| a.layer < b.layer);
    let first = parts.first()?;
    (sum == bytes && are_in_order && parts.iter().all(|part| part.bytes > 0)).then_some((first.layer, first.offset))
}

/// An entry as it is written.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// When it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    r#type: String,
    /// Octal.
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// Hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layer: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parts: Vec<ListedPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    same_as: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    same_as_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sparse: Option<SparseLine>,
    /// Seconds, a dot, nine digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    modified: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ours: bool,
}

/// What a sparse file has in the place of a `sha256`.
#[derive(Serialize, Deserialize)]
struct SparseLine {
    /// Of map and data, as they are in the layer.
    bytes: u64,
    /// Of these. Hex.
    sha256: String,
}

impl Listed {
    fn line(&self) -> Result<Vec<u8>, Error> {
        let (path, path_base64) = write_bytes(&self.path);
        let mut line = Line { path, path_base64, ..Line::default() };
        let octal = |mode: u32| Some(format!("{mode:04o}"));
        match &self.what {
            ListedAs::Directory { mode } => {
                line.r#type = "directory".into();
                line.mode = octal(*mode);
            }
            ListedAs::File(file) => {
                line.r#type = "file".into();
                line.mode = octal(file.mode);
                line.size = Some(file.size);
                let sha256 = file.digest.hex();
                match file.stored {
                    Some(bytes) => line.sparse = Some(SparseLine { bytes, sha256 }),
                    None => line.sha256 = Some(sha256),
                }
                if file.parts.is_empty() {
                    line.layer = Some(file.layer);
                    line.offset = Some(file.offset);
                } else {
                    line.parts.clone_from(&file.parts);
                }
                line.modified = file.modified.map(|(seconds, nanoseconds)| format!("{seconds}.{nanoseconds:09}"));
                line.ours = file.ours;
                if let Some(same_as) = &file.same_as {
                    (line.same_as, line.same_as_base64) = write_bytes(same_as);
                }
            }
            ListedAs::Link { target } => {
                line.r#type = "link".into();
                (line.target, line.target_base64) = write_bytes(target);
            }
            ListedAs::Skipped { reason } => {
                line.r#type = "skipped".into();
                line.reason = Some(reason.clone());
            }
        }
        serde_json::to_vec(&line).map_err(|error| Error::invalid(format!("cannot list an entry: {error}")))
    }

    fn read(line: &[u8]) -> Result<Self, Error> {
        let wrong = |why: &str| Error::invalid(format!("the bundle's list of entries has a wrong line: {why}"));
        let line: Line = serde_json::from_slice(line).map_err(|error| wrong(&error.to_string()))?;
        let path = read_bytes(line.path, line.path_base64.as_ref())?.ok_or_else(|| wrong("no path"))?;
        let mode = || {
            let mode = line.mode.as_deref().and_then(|mode| u32::from_str_radix(mode, 8).ok());
            mode.filter(|mode| *mode <= 0o7777).ok_or_else(|| wrong("no mode"))
        };
        let what = match line.r#type.as_str() {
            "directory" => ListedAs::Directory { mode: mode()? },
            "file" => {
                let (stored, sha256) = match line.sparse {
                    Some(SparseLine { bytes, sha256 }) => (Some(bytes), Some(sha256)),
                    None => (None, line.sha256),
                };
                let size = line.size.ok_or_else(|| wrong("no size"))?;
                let (layer, offset) = if line.parts.is_empty() {
                    let layer = line.layer.ok_or_else(|| wrong("no layer"))?;
                    (layer, line.offset.ok_or_else(|| wrong("no offset"))?)
                } else {
                    first_of(&line.parts, stored.unwrap_or(size)).ok_or_else(|| wrong("parts that are not the file"))?
                };
                ListedAs::File(ListedFile {
                    mode: mode()?,
                    size,
                    digest: sha256.as_deref().and_then(Digest::from_hex).ok_or_else(|| wrong("no sha256"))?,
                    layer,
                    offset,
                    parts: line.parts,
                    same_as: read_bytes(line.same_as, line.same_as_base64.as_ref())?,
                    stored,
                    modified: line.modified.as_deref().and_then(read_time),
                    ours: line.ours,
                })
            }
            "link" => {
                let target = read_bytes(line.target, line.target_base64.as_ref())?;
                ListedAs::Link { target: target.ok_or_else(|| wrong("no target"))? }
            }
            "skipped" => ListedAs::Skipped { reason: line.reason.unwrap_or_default() },
            other => return Err(wrong(&format!("type {other:?}"))),
        };
        Ok(Self { path, what })
    }
}

/// A time that cannot be read is as good as none.
fn read_time(text: &str) -> Option<(i64, u64)> {
    let (seconds, nanoseconds) = text.split_once('.')?;
    Some((seconds.parse().ok()?, nanoseconds.parse().ok().filter(|nanoseconds| *nanoseconds < 1_000_000_000)?))
}

/// The last layer of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::bundle) struct ListLayer {
    /// Of the blob.
    pub(in crate::bundle) digest: Digest,
    pub(in crate::bundle) size: u64,
    /// Of the tar file, not compressed.
    pub(in crate::bundle) diff_id: Digest,
    pub(in crate::bundle) index: IndexPlace,
}

/// Writes the list to `take`, part by part. `entries` gives them sorted, twice the same.
pub(in crate::bundle) fn write<I: Iterator<Item = Listed>>(
    entries: impl Fn() -> I,
    take: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
) -> Result<ListLayer, Error> {
    let mut size = (START.len() + END.len()) as u64;
    for (number, entry) in entries().enumerate() {
        size += entry.line()?.len() as u64 + if number == 0 { 1 } else { 2 };
    }
    let mut layer = Writer {
        take,
        size: 0,
        digester: Digester::default(),
        content: Digester::default(),
        members: vec![],
        compressed: vec![],
    };
    layer.member(&tar_header::header(FILES.as_bytes(), 0o644, Type::File { size }), None)?;
    let mut text = START.as_bytes().to_vec();
    let mut first = None;
    let mut entries = entries().peekable();
    while let Some(entry) = entries.next() {
        first.get_or_insert_with(|| entry.path.clone());
        text.extend(entry.line()?);
        text.extend_from_slice(if entries.peek().is_some() { b",\n" } else { b"\n" });
        if text.len() >= MEMBER_BYTES {
            layer.member(&text, first.take())?;
            text.clear();
        }
    }
    text.extend_from_slice(END.as_bytes());
    text.resize(text.len() + usize::try_from(tar_header::padding(size)).unwrap_or(0), 0);
    text.extend_from_slice(&tar_header::END);
    layer.member(&text, first)?;
    layer.finish()
}

struct Writer<'a> {
    take: &'a mut dyn FnMut(&[u8]) -> Result<(), Error>,
    size: u64,
    /// Of what was given to `take`.
    digester: Digester,
    /// Of the tar file.
    content: Digester,
    members: Vec<ListMember>,
    compressed: Vec<u8>,
}

impl Writer<'_> {
    /// `first` is the path of the first entry, if there is one in it.
    fn member(&mut self, content: &[u8], first: Option<Vec<u8>>) -> Result<(), Error> {
        self.content.update(content);
        let mut compressed = std::mem::take(&mut self.compressed);
        compressed.clear();
        // A member has no name and no time: the same list gives the same bytes.
        let mut encoder = GzEncoder::new(&mut compressed, Compression::new(LEVEL));
        let written = encoder.write_all(content).and_then(|()| encoder.finish().map(|_| ()));
        written.map_err(|error| Error::local("compress", error))?;
        self.members.extend(first.map(|first| ListMember::new(&first, self.size, &compressed)));
        self.put(&compressed)?;
        self.compressed = compressed;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.digester.update(bytes);
        self.size += bytes.len() as u64;
        (self.take)(bytes)
    }

    fn finish(mut self) -> Result<ListLayer, Error> {
        let index = list_index::write(std::mem::take(&mut self.members))?;
        let place = IndexPlace { offset: self.size, size: index.len() as u64, digest: Digest::of(&index) };
        self.put(&index)?;
        let Self { size, digester, content, .. } = self;
        Ok(ListLayer { digest: digester.finish(), size, diff_id: content.finish(), index: place })
    }
}

/// The entries of a member.
pub(in crate::bundle) fn read_member(member: &ListMember, bytes: &[u8]) -> Result<Vec<Listed>, Error> {
    if Digest::of(bytes).hex() != member.sha256 {
        return Err(Error::invalid("the bundle's list of entries has another digest than its index says"));
    }
    let text = decompress(bytes)?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{\"path"));
    lines.map(|line| Listed::read(line.strip_suffix(b",").unwrap_or(line))).collect()
}

fn decompress(member: &[u8]) -> Result<Vec<u8>, Error> {
    let failed = |error| Error::invalid(format!("the bundle's list of entries cannot be read: {error}"));
    if member.starts_with(&ZSTD_MAGIC) {
        return zstd::bulk::decompress(member, LARGEST_MEMBER).map_err(failed);
    }
    let (mut text, most) = (Vec::new(), LARGEST_MEMBER as u64);
    GzDecoder::new(member).take(most + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() > LARGEST_MEMBER {
        return Err(Error::too_large(format!("a part of the bundle's list of entries has more than {most} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(count: usize) -> Vec<Listed> {
        let file = |n: usize| ListedFile {
            mode: 0o4755,
            size: n as u64,
            digest: Digest::of(&n.to_le_bytes()),
            layer: n % 7,
            offset: 512 * n as u64,
            parts: vec![],
            same_as: n.is_multiple_of(5).then(|| b"fir\xffst".to_vec()),
            stored: n.is_multiple_of(7).then_some(512),
            modified: n.is_multiple_of(3).then_some((1_700_000_000, n as u64)),
            ours: n.is_multiple_of(11),
        };
        let what = |n: usize| match n % 4 {
            0 => ListedAs::Directory { mode: 0o755 },
            1 => ListedAs::Link { target: b"../\xfe".to_vec() },
            2 => ListedAs::Skipped { reason: "a \"socket\"".into() },
            _ => ListedAs::File(file(n)),
        };
        let listed = |n: usize| Listed { path: format!("dir/{n:06}\n").into_bytes(), what: what(n) };
        let mut entries: Vec<Listed> = (0..count).map(listed).collect();
        entries.push(Listed { path: b"not utf-8 \xff".to_vec(), what: ListedAs::Directory { mode: 0o700 } });
        entries
    }

    fn written(entries: &[Listed]) -> (ListLayer, Vec<u8>) {
        let mut blob = vec![];
        let mut take = |bytes: &[u8]| {
            blob.extend_from_slice(bytes);
            Ok(())
        };
        let layer = write(|| entries.iter().cloned(), &mut take).unwrap();
        assert_eq!((layer.digest, layer.size), (Digest::of(&blob), blob.len() as u64));
        (layer, blob)
    }

    fn member<'a>(blob: &'a [u8], member: &ListMember) -> &'a [u8] {
        let start = usize::try_from(member.offset).unwrap();
        &blob[start..start + usize::try_from(member.size).unwrap()]
    }

    fn index(layer: &ListLayer, blob: &[u8]) -> Vec<ListMember> {
        let start = usize::try_from(layer.index.offset).unwrap();
        list_index::read(&blob[start..start + usize::try_from(layer.index.size).unwrap()]).unwrap()
    }

    #[test]
    fn the_list_is_json_in_a_tar_file_and_can_be_read_in_parts() {
        for count in [0, 1, 20_000] {
            let entries = entries(count);
            let (layer, blob) = written(&entries);
            let mut archive = Vec::new();
            flate2::read::MultiGzDecoder::new(&*blob).read_to_end(&mut archive).unwrap();
            assert_eq!(Digest::of(&archive), layer.diff_id);
            let mut archive = tar::Archive::new(&*archive);
            let mut file = archive.entries().unwrap().next().unwrap().unwrap();
            assert_eq!(&*file.path_bytes(), b"files.json");
            let mut text = String::new();
            std::io::Read::read_to_string(&mut file, &mut text).unwrap();
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(json["entries"].as_array().unwrap().len(), entries.len());

            let members = index(&layer, &blob);
            let all = members.iter().flat_map(|m| read_member(m, member(&blob, m)).unwrap());
            assert_eq!(all.collect::<Vec<_>>(), entries);
            for entry in entries.iter().step_by(997) {
                let found = list_index::members_for(&members, &entry.path).unwrap();
                assert!(found.len() <= 2, "{}", found.len());
                assert!(read_member(&found[0], member(&blob, &found[0])).unwrap().contains(entry));
            }
            assert_eq!(IndexPlace::read(&layer.index.annotation()).unwrap(), layer.index);
        }
    }

    #[test]
    fn parts_are_read_as_they_were_written_and_only_if_they_are_the_file() {
        let part = |layer, offset, bytes| ListedPart { layer, offset, bytes };
        let listed = |parts: &[ListedPart], stored: Option<u64>| Listed {
            path: b"large".to_vec(),
            what: ListedAs::File(ListedFile {
                mode: 0o644,
                size: 10,
                digest: Digest::of(b""),
                layer: 3,
                offset: 512,
                parts: parts.to_vec(),
                same_as: None,
                stored,
                modified: None,
                ours: false,
            }),
        };
        for (parts, stored) in [(&[part(3, 512, 6), part(4, 512, 4)][..], None), (&[part(3, 512, 700)], Some(700))] {
            let listed = listed(parts, stored);
            let line = listed.line().unwrap();
            assert_eq!(Listed::read(&line).unwrap(), listed);
            let text = String::from_utf8(line).unwrap();
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(json.get("layer").is_none() && json["parts"][0]["layer"] == 3, "{text}");
        }
        for (what, parts) in [
            ("one is missing", &[part(3, 512, 6)][..]),
            ("one is too small", &[part(3, 512, 6), part(4, 512, 3)]),
            ("one is too large", &[part(3, 512, 6), part(4, 512, 5)]),
            ("one is empty", &[part(3, 512, 6), part(4, 512, 4), part(5, 512, 0)]),
            ("one is there twice", &[part(3, 512, 5), part(3, 512, 5)]),
            ("two overlap", &[part(3, 512, 6), part(3, 514, 4)]),
            ("they are in no order", &[part(4, 512, 6), part(3, 512, 4)]),
            ("together they have no size", &[part(3, 512, u64::MAX), part(4, 512, 11)]),
        ] {
            let line = listed(parts, None).line().unwrap();
            assert!(Listed::read(&line).is_err(), "{what}");
        }
    }

    #[test]
    fn a_member_that_was_altered_is_refused() {
        let entries = entries(10);
        let (layer, blob) = written(&entries);
        let members = index(&layer, &blob);
        let mut bytes = member(&blob, &members[0]).to_vec();
        bytes[20] ^= 1;
        assert!(read_member(&members[0], &bytes).is_err());
    }

    #[test]
    fn a_member_that_unpacks_to_far_more_than_one_of_ours_is_refused() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&vec![0; LARGEST_MEMBER + 1]).unwrap();
        let bomb = encoder.finish().unwrap();
        let error = read_member(&ListMember::new(b"", 0, &bomb), &bomb).unwrap_err();
        assert_eq!(error.kind, crate::bundle::ErrorKind::TooLarge);
    }

    #[test]
    fn a_list_of_layout_v1_is_read() {
        let text: Vec<u8> =
            entries(10).iter().flat_map(|entry| [entry.line().unwrap(), b",\n".to_vec()].concat()).collect();
        let frame = zstd::bulk::compress(&text, 3).unwrap();
        let sha256 = Digest::of(&frame).hex();
        let index = serde_json::json!({"frames": [{"first": "", "offset": 7, "size": frame.len(), "sha256": sha256}]});
        let members = list_index::read(index.to_string().as_bytes()).unwrap();
        assert_eq!(members[0].offset, 7);
        assert_eq!(read_member(&members[0], &frame).unwrap(), entries(10));
    }
}
