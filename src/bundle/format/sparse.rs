//! Files that are hardly anything but holes, as GNU's sparse format 1.0 for PAX archives has them: the content of the
//! archive's entry is a map, which says where the data are, padded to a block, and then the data. GNU tar, Go's
//! archive/tar and Python's tarfile read it.
//!
//! The map depends on what the file reads as, and not on how a file system keeps it: data are the blocks that are not
//! all zeros. Such a file has no SHA-256 digest of its content in the list, which would take hours for holes of terabytes,
//! but one of the entry's content: map and data.

use super::tar_header::padding;
use crate::bundle::Error;
use crate::bundle::digest::Digester;
use std::fmt::Write;
use std::io::Read;

/// The blocks that are told apart, unless that gives too many pieces.
pub(in crate::bundle) const BLOCK: u64 = 4096;
/// Maps are held in memory. A file of more pieces is told apart in larger blocks.
const MOST_PIECES: usize = 1 << 19;
/// Maps of others are bounded likewise, and no number has more digits.
const MOST_READ: u64 = 1 << 20;
const MOST_DIGITS: usize = 20;
/// How much of a map is given at once.
const PART: usize = 64 << 10;

/// Where a file has data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::bundle) struct SparseMap {
    size: u64,
    /// Bytes, a power of two.
    block: u64,
    /// In such blocks: where each piece begins, and how many it has. They are sorted, and something is between them.
    pieces: Vec<[u32; 2]>,
}

impl SparseMap {
    /// Of a file in which no data are known yet.
    pub(in crate::bundle) fn new(size: u64) -> Self {
        let mut block = BLOCK;
        while size / block >= u64::from(u32::MAX) {
            block *= 2;
        }
        Self { size, block, pieces: vec![] }
    }

    /// Says that the [`BLOCK`] in which `at` is has data; they come in their order.
    pub(in crate::bundle) fn add(&mut self, at: u64) {
        let block = u32::try_from(at / self.block).unwrap_or(u32::MAX);
        match self.pieces.last_mut() {
            Some([start, count]) if start.saturating_add(*count) > block => {}
            Some([start, count]) if start.saturating_add(*count) == block => *count += 1,
            _ => self.pieces.push([block, 1]),
        }
        // The begin of a file has no more pieces than all of it: so what comes out does not depend on when this happens.
        while self.pieces.len() > MOST_PIECES {
            self.coarsen();
        }
    }

    fn coarsen(&mut self) {
        self.block *= 2;
        let mut coarse: Vec<[u32; 2]> = vec![];
        for [start, count] in &self.pieces {
            let (first, end) = (start / 2, start.saturating_add(*count).div_ceil(2));
            match coarse.last_mut() {
                Some([start, count]) if first <= start.saturating_add(*count) => *count = end - *start,
                _ => coarse.push([first, end - first]),
            }
        }
        self.pieces = coarse;
    }

    /// Where each piece begins and how long it is, in bytes.
    pub(in crate::bundle) fn pieces(&self) -> impl Iterator<Item = (u64, u64)> {
        self.pieces.iter().map(|[start, count]| {
            let start = u64::from(*start) * self.block;
            (start, (u64::from(*count) * self.block).min(self.size.saturating_sub(start)))
        })
    }

    /// Bytes of all pieces.
    fn data(&self) -> u64 {
        self.pieces().map(|(_, length)| length).sum()
    }

    /// Bytes of the entry's content.
    pub(in crate::bundle) fn stored(&self) -> u64 {
        let mut bytes = 0;
        let Ok(()) = self.write(|part| {
            bytes += part.len() as u64;
            Ok::<_, std::convert::Infallible>(())
        });
        bytes + self.data()
    }

    /// Gives the map as it is in the archive to `take`, part by part, with its padding.
    pub(in crate::bundle) fn write<E>(&self, mut take: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        // As GNU tar does it: the end of a file that ends in a hole is an empty piece.
        let ends = self.pieces().last().is_some_and(|(start, length)| start + length == self.size);
        let end = (!ends).then_some((self.size, 0));
        let mut text = format!("{}\n", self.pieces.len() + usize::from(end.is_some()));
        let mut all = 0;
        for (start, length) in self.pieces().chain(end) {
            let _ = writeln!(text, "{start}\n{length}");
            if text.len() >= PART {
                all += text.len() as u64;
                take(text.as_bytes())?;
                text.clear();
            }
        }
        all += text.len() as u64;
        text.extend((0..padding(all)).map(|_| '\0'));
        take(text.as_bytes())
    }
}

/// Reads a map: where each piece begins and how long it is. `stored` is what the entry's content has. All that is read is
/// hashed.
pub(in crate::bundle) fn read(
    from: &mut impl Read,
    size: u64,
    stored: u64,
    digester: &mut Digester,
) -> Result<Vec<(u64, u64)>, Error> {
    let wrong = || Error::invalid("the map of a sparse file in the bundle is none");
    let mut text = Text { from, digester, block: [0; 512], at: 512, read: 0 };
    let count = text.number()?;
    if count > MOST_READ {
        return Err(wrong());
    }
    let (mut pieces, mut end, mut data) = (vec![], 0, 0_u64);
    for _ in 0..count {
        let (start, length) = (text.number()?, text.number()?);
        if start < end {
            return Err(wrong());
        }
        end = start.checked_add(length).filter(|end| *end <= size).ok_or_else(wrong)?;
        data += length;
        if length > 0 {
            pieces.push((start, length));
        }
    }
    if text.read + data == stored { Ok(pieces) } else { Err(wrong()) }
}

struct Text<'a, R> {
    from: &'a mut R,
    digester: &'a mut Digester,
    block: [u8; 512],
    at: usize,
    read: u64,
}

impl<R: Read> Text<'_, R> {
    fn number(&mut self) -> Result<u64, Error> {
        let mut digits = String::new();
        loop {
            match self.byte()? {
                b'\n' => break,
                digit @ b'0'..=b'9' if digits.len() < MOST_DIGITS => digits.push(char::from(digit)),
                _ => {
                    return Err(Error::invalid(
                        "the map of a sparse file in the bundle has no number where one should be",
                    ));
                }
            }
        }
        digits.parse().map_err(|_| Error::invalid("the map of a sparse file in the bundle has a number out of range"))
    }

    fn byte(&mut self) -> Result<u8, Error> {
        if self.at == self.block.len() {
            self.from.read_exact(&mut self.block).map_err(|error| {
                Error::new(crate::bundle::ErrorKind::Unreachable, format!("the map of a sparse file: {error}"))
            })?;
            self.digester.update(&self.block);
            self.read += self.block.len() as u64;
            self.at = 0;
        }
        let byte = self.block.get(self.at).copied().unwrap_or_default();
        self.at += 1;
        Ok(byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(size: u64, blocks: &[u64]) -> SparseMap {
        let mut map = SparseMap::new(size);
        for block in blocks {
            map.add(block * BLOCK);
        }
        map
    }

    fn text(map: &SparseMap) -> Vec<u8> {
        let mut text = vec![];
        let _ = map.write(|part| {
            text.extend_from_slice(part);
            Ok::<_, ()>(())
        });
        text
    }

    #[test]
    fn a_map_is_read_as_it_was_written() {
        for (size, blocks, says) in [
            (0, &[][..], "1\n0\n0\n"),
            (1 << 40, &[], "1\n1099511627776\n0\n"),
            (20_000, &[0, 1, 4], "2\n0\n8192\n16384\n3616\n"),
            (20_480, &[3], "2\n12288\n4096\n20480\n0\n"),
        ] {
            let map = map(size, blocks);
            let text = text(&map);
            assert_eq!(text.len() % 512, 0);
            assert_eq!(String::from_utf8(text.clone()).unwrap().trim_end_matches('\0'), says);
            assert_eq!(map.stored(), text.len() as u64 + map.data());
            let read = |stored| read(&mut &*text, size, stored, &mut Digester::default());
            assert_eq!(read(map.stored()).unwrap(), map.pieces().collect::<Vec<_>>());
            assert!(read(map.stored() + 1).is_err());
        }
    }

    #[test]
    fn a_map_of_too_many_pieces_has_larger_blocks_whatever_comes_first() {
        let many = u64::try_from(MOST_PIECES).unwrap();
        let blocks: Vec<u64> = (0..many + 10).map(|n| n * 4).collect();
        let map = map(1 << 40, &blocks);
        assert_eq!(map.block, 4 * BLOCK, "blocks of two pages have as many pieces");
        assert_eq!(map.pieces.len(), 1);
        let mut fine = SparseMap::new(1 << 40);
        fine.pieces = blocks.iter().map(|block| [u32::try_from(*block).unwrap(), 1]).collect();
        fine.coarsen();
        fine.coarsen();
        assert_eq!(fine, map);
        assert_eq!(SparseMap::new(64 << 40).block, 8 * BLOCK);
    }

    #[test]
    fn what_is_no_map_is_refused() {
        for (text, stored) in [
            ("", 512),
            ("x\n", 512),
            ("-1\n", 512),
            ("99999999999\n", 512),
            ("1\n", 512),
            ("1\n0\n", 512),
            ("1\n0\n101\n", 613),
            ("2\n0\n10\n5\n10\n", 532),
            ("1\n18446744073709551615\n1\n", 513),
            ("000000000000000000001\n0\n1\n", 513),
        ] {
            let padded = format!("{text}{}", "\0".repeat(512 - text.len()));
            assert!(read(&mut padded.as_bytes(), 100, stored, &mut Digester::default()).is_err(), "{text:?}");
        }
        assert!(read(&mut &b"1\n0\n1"[..], 100, 513, &mut Digester::default()).is_err());
    }
}
