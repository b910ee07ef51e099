//! Where the parts of `files.json` are: an index in the list's own blob, behind the list.
//!
//! It is JSON in the extra fields of gzip members without content (RFC 1952, 2.3.1.1), at most 64 KiB in each: tools
//! that decompress the layer pass over it, and it needs no blob of its own. An annotation of the layer says where it is.

use serde::{Deserialize, Serialize};

use super::path_text::{read_bytes, write_bytes};
use crate::bundle::Error;
use crate::bundle::digest::Digest;

/// gzip, deflate, with an extra field; no time; level and system unknown.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff];
/// An empty deflate block, the CRC of nothing and its length.
const NO_CONTENT: [u8; 10] = [3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// The name of our subfield.
const SUBFIELD: [u8; 2] = *b"BR";
/// An extra field has 16 bits for its length, and the subfield's name and length are in it.
const LARGEST_PIECE: usize = 0xffff - 4;

/// A gzip member of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::bundle) struct ListMember {
    /// The path of its first entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first: Option<String>,
    /// Where that is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_base64: Option<String>,
    /// In the layer's blob.
    pub(in crate::bundle) offset: u64,
    pub(in crate::bundle) size: u64,
    /// Hex.
    pub(in crate::bundle) sha256: String,
}

impl ListMember {
    pub(in crate::bundle) fn new(first: &[u8], offset: u64, bytes: &[u8]) -> Self {
        let (first, first_base64) = write_bytes(first);
        Self { first, first_base64, offset, size: bytes.len() as u64, sha256: Digest::of(bytes).hex() }
    }

    fn first(&self) -> Result<Vec<u8>, Error> {
        Ok(read_bytes(self.first.clone(), self.first_base64.as_ref())?.unwrap_or_default())
    }
}

#[derive(Serialize, Deserialize)]
struct Index {
    /// Layout v1 called them frames.
    #[serde(alias = "frames")]
    members: Vec<ListMember>,
}

/// Where the index is in its layer, as the layer's annotation says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bundle) struct IndexPlace {
    pub(in crate::bundle) offset: u64,
    pub(in crate::bundle) size: u64,
    pub(in crate::bundle) digest: Digest,
}

impl IndexPlace {
    pub(in crate::bundle) fn annotation(&self) -> String {
        format!("{} {} {}", self.offset, self.size, self.digest)
    }

    pub(in crate::bundle) fn read(annotation: &str) -> Result<Self, Error> {
        let wrong = || Error::invalid(format!("{annotation:?} names no place of an index"));
        let mut parts = annotation.split(' ');
        let mut number = || parts.next().and_then(|number| number.parse().ok()).ok_or_else(wrong);
        let (offset, size) = (number()?, number()?);
        Ok(Self { offset, size, digest: Digest::parse(parts.next().ok_or_else(wrong)?)? })
    }
}

/// The index as gzip members without content.
pub(super) fn write(members: Vec<ListMember>) -> Result<Vec<u8>, Error> {
    let failed = |error| Error::invalid(format!("cannot write the index: {error}"));
    let index = serde_json::to_vec(&Index { members }).map_err(failed)?;
    let mut bytes = Vec::new();
    for piece in index.chunks(LARGEST_PIECE) {
        // Both fit: see LARGEST_PIECE.
        let subfield = u16::try_from(piece.len()).unwrap_or(u16::MAX);
        bytes.extend(GZIP_HEADER);
        bytes.extend(subfield.saturating_add(4).to_le_bytes());
        bytes.extend(SUBFIELD);
        bytes.extend(subfield.to_le_bytes());
        bytes.extend_from_slice(piece);
        bytes.extend(NO_CONTENT);
    }
    Ok(bytes)
}

/// Reads an index; its digest is verified already.
pub(in crate::bundle) fn read(bytes: &[u8]) -> Result<Vec<ListMember>, Error> {
    let failed = |why: &str| Error::invalid(format!("the index of the bundle cannot be read: {why}"));
    // In layout v1 it was JSON as it is.
    let index = if bytes.starts_with(b"{") {
        bytes.to_vec()
    } else {
        extra_fields(bytes).ok_or_else(|| failed("it is not in extra fields of gzip members"))?
    };
    let index: Index = serde_json::from_slice(&index).map_err(|error| failed(&error.to_string()))?;
    Ok(index.members)
}

/// What members without content carry. `None` if the bytes are anything else.
fn extra_fields(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let rest = bytes.strip_prefix(&GZIP_HEADER)?;
        let ([_, _, name @ .., low, high], rest) = rest.split_first_chunk::<6>()?;
        if *name != SUBFIELD {
            return None;
        }
        let (piece, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([*low, *high])))?;
        all.extend_from_slice(piece);
        bytes = rest.strip_prefix(&NO_CONTENT)?;
    }
    Some(all)
}

/// The members that hold what is at a path or below it.
pub(in crate::bundle) fn members_for<'a>(members: &'a [ListMember], path: &[u8]) -> Result<&'a [ListMember], Error> {
    if path.is_empty() {
        return Ok(members);
    }
    let firsts = members.iter().map(ListMember::first).collect::<Result<Vec<_>, _>>()?;
    let after = [path, b"0"].concat(); // The byte behind the slash: nothing below the path is sorted behind it.
    let start = firsts.partition_point(|first| first.as_slice() <= path).saturating_sub(1);
    let end = firsts.partition_point(|first| *first < after);
    Ok(members.get(start..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn members(count: u64) -> Vec<ListMember> {
        (0..count).map(|n| ListMember::new(format!("dir/{n:06} \u{fc}").as_bytes(), n, b"x")).collect()
    }

    #[test]
    fn an_index_of_any_size_is_read_back_and_is_nothing_to_who_decompresses_it() {
        for count in [0, 1, 5000] {
            let bytes = write(members(count)).unwrap();
            assert_eq!(read(&bytes).unwrap(), members(count));
            let mut content = Vec::new();
            flate2::read::MultiGzDecoder::new(&*bytes).read_to_end(&mut content).unwrap();
            assert!(content.is_empty());
        }
        assert!(write(members(5000)).unwrap().len() > 5 * LARGEST_PIECE);
    }

    #[test]
    fn an_index_that_is_cut_or_altered_is_an_error() {
        let bytes = write(members(1000)).unwrap();
        for cut in [1, 9, 11, 15, 20, 70_000, bytes.len() - 1] {
            assert!(read(&bytes[..cut]).is_err(), "{cut}");
        }
        for at in [0, 3, 12, 14, bytes.len() - 1] {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            assert!(read(&bytes).is_err(), "{at}");
        }
    }
}
