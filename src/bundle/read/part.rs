//! A part of one file of a bundle: its first or last lines, or some of its bytes, by requests for little more than that.

use super::contents::Bundle;
use super::feed::{Need, feed};
use super::staged::{LayerRange, ranges_of};
use crate::bundle::Error;
use crate::bundle::digest::Digester;
use crate::bundle::format::listing::ListedFile;
use crate::bundle::format::sparse;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

/// Which part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// From this byte to before the other; none: to the end.
    Bytes(u64, Option<u64>),
    /// So many bytes at the end.
    LastBytes(u64),
    /// So many lines at the begin.
    FirstLines(u64),
    /// So many lines at the end.
    LastLines(u64),
}

/// As much is asked for at first, where it is not known where the lines are: a file that is no longer is read whole.
pub(super) const FIRST: u64 = 256 << 10;
/// As much at most.
const LARGEST: u64 = 16 << 20;
/// What comes next to what was not enough.
const GROWTH: u64 = 4;

/// What parts are read of.
pub(super) trait Source {
    fn size(&self) -> u64;

    /// As much is read at once at most.
    fn most(&self) -> u64 {
        LARGEST
    }

    /// The bytes from `start` to before `end`, all of them.
    async fn read(&self, start: u64, end: u64) -> Result<Vec<u8>, Error>;
}

/// Writes a part of a file.
pub(super) async fn write(source: &impl Source, part: Part, writer: &mut impl Write) -> Result<(), Error> {
    let size = source.size();
    match part {
        Part::Bytes(start, _) if start > size => Err(Error::invalid(format!("the file has only {size} bytes"))),
        Part::Bytes(start, end) => forward(source, start, end.unwrap_or(size).min(size), None, writer).await,
        Part::LastBytes(count) => forward(source, size.saturating_sub(count), size, None, writer).await,
        Part::FirstLines(lines) => forward(source, 0, size, Some(lines), writer).await,
        Part::LastLines(lines) => last_lines(source, lines, writer).await,
    }
}

/// Bytes from `start` to before `end`, or as many lines of them.
async fn forward(
    source: &impl Source,
    start: u64,
    end: u64,
    mut lines: Option<u64>,
    writer: &mut impl Write,
) -> Result<(), Error> {
    let (mut at, mut step) = (start, if lines.is_some() { FIRST } else { source.most() });
    while at < end && lines != Some(0) {
        let piece = source.read(at, end.min(at.saturating_add(step))).await?;
        let wanted = lines.as_mut().map_or(piece.len(), |left| end_of_lines(&piece, left));
        put(writer, piece.get(..wanted).unwrap_or_default())?;
        at += piece.len() as u64;
        step = (step * GROWTH).min(source.most());
    }
    Ok(())
}

/// Where as many lines end, and how many are left after that.
fn end_of_lines(piece: &[u8], left: &mut u64) -> usize {
    for (at, _) in piece.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        *left -= 1;
        if *left == 0 {
            return at + 1;
        }
    }
    piece.len()
}

/// Searches backwards where they begin.
async fn last_lines(source: &impl Source, mut lines: u64, writer: &mut impl Write) -> Result<(), Error> {
    let size = source.size();
    let (mut end, mut step) = (size, FIRST);
    while end > 0 && lines > 0 {
        let start = end.saturating_sub(step);
        let piece = source.read(start, end).await?;
        let is_last = end == size;
        let begin = begin_of_lines(&piece, is_last, &mut lines).or((start == 0).then_some(0));
        if let Some(begin) = begin {
            // Mostly they are in what was just read.
            if is_last {
                return put(writer, piece.get(begin..).unwrap_or_default());
            }
            return forward(source, start + begin as u64, size, None, writer).await;
        }
        end = start;
        step = (step * GROWTH).min(source.most());
    }
    Ok(())
}

/// Where the last lines of a piece begin, if there are as many; how many are left otherwise.
fn begin_of_lines(piece: &[u8], is_last: bool, left: &mut u64) -> Option<usize> {
    // The newline at the end of a file ends its last line.
    let searched = if is_last { piece.strip_suffix(b"\n").unwrap_or(piece) } else { piece };
    for (at, _) in searched.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
        *left -= 1;
        if *left == 0 {
            return Some(at + 1);
        }
    }
    None
}

fn put(writer: &mut impl Write, bytes: &[u8]) -> Result<(), Error> {
    writer.write_all(bytes).map_err(|error| Error::local("write", error))
}

/// Writes a part of a file of this machine, or all of it, as long as it is now.
///
/// # Errors
/// It cannot be read, or a range begins behind its end ([`ErrorKind::Invalid`](crate::bundle::ErrorKind::Invalid)).
pub async fn part_of_file(file: &File, part: Option<Part>, writer: &mut impl Write) -> Result<(), Error> {
    let size = file.metadata().map_err(|error| Error::local("look at the file", error))?.len();
    write(&Local { file, size }, part.unwrap_or(Part::Bytes(0, None)), writer).await
}

struct Local<'a> {
    file: &'a File,
    size: u64,
}

impl Source for Local<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn most(&self) -> u64 {
        FIRST
    }

    async fn read(&self, start: u64, end: u64) -> Result<Vec<u8>, Error> {
        let mut piece = vec![0; usize::try_from(end.saturating_sub(start)).unwrap_or(0)];
        let read = self.file.read_exact_at(&mut piece, start);
        read.map_err(|error| Error::local("read the file, which has become shorter", error))?;
        Ok(piece)
    }
}

/// A file that is in memory.
impl Source for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    async fn read(&self, start: u64, end: u64) -> Result<Vec<u8>, Error> {
        let [start, end] = [start, end].map(|at| usize::try_from(at).unwrap_or(usize::MAX));
        Ok(self.get(start..end).unwrap_or_default().to_vec())
    }
}

/// A file that is in layers. What is read of it is not compared with its digest, which is of all of it.
pub(super) struct Stored<'a> {
    bundle: &'a Bundle<'a>,
    size: u64,
    ranges: Vec<LayerRange>,
    data: Vec<Data>,
}

/// Bytes of a file that are no hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Data {
    /// In the file.
    start: u64,
    /// In what is stored of it.
    stored: u64,
    bytes: u64,
}

impl<'a> Stored<'a> {
    /// Of a sparse file its map is read.
    pub(super) async fn open(bundle: &'a Bundle<'a>, file: &ListedFile) -> Result<Self, Error> {
        let ranges = ranges_of(file);
        let size = file.size;
        let data = match file.stored {
            None => vec![Data { start: 0, stored: 0, bytes: size }],
            Some(stored) => {
                let map = move |mut bytes| sparse::read(&mut bytes, size, stored, &mut Digester::default());
                behind_map(stored, &feed(bundle.download(&ranges)?, Need::Some, None, map).await?)
            }
        };
        Ok(Self { bundle, size, ranges, data })
    }
}

/// The data of a sparse file are stored one after the other behind their map.
fn behind_map(stored: u64, map: &[(u64, u64)]) -> Vec<Data> {
    let all = map.iter().fold(0, |sum: u64, (_, bytes)| sum.saturating_add(*bytes));
    let mut at = stored.saturating_sub(all);
    let place = |(start, bytes): &(u64, u64)| {
        let data = Data { start: *start, stored: at, bytes: *bytes };
        at = at.saturating_add(*bytes);
        data
    };
    map.iter().map(place).collect()
}

/// The data from `start` to before `end`.
fn between(data: &[Data], start: u64, end: u64) -> Vec<Data> {
    let cut = |data: &Data| {
        let first = data.start.max(start);
        let last = data.start.saturating_add(data.bytes).min(end);
        (first < last).then(|| Data { start: first, stored: data.stored + (first - data.start), bytes: last - first })
    };
    data.iter().filter_map(cut).collect()
}

/// The bytes from `start` to before `end` of what is in these ranges, one after the other.
fn part_of(ranges: &[LayerRange], start: u64, end: u64) -> Vec<LayerRange> {
    let mut before = 0_u64;
    let cut = |range: &LayerRange| {
        let (begin, bytes) = (before, range.end - range.start);
        before = before.saturating_add(bytes);
        let (first, last) = (start.max(begin), end.min(before));
        (first < last).then(|| LayerRange {
            layer: range.layer,
            start: range.start + (first - begin),
            end: range.start + (last - begin),
        })
    };
    ranges.iter().filter_map(cut).collect()
}

impl Source for Stored<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read(&self, start: u64, end: u64) -> Result<Vec<u8>, Error> {
        let nowhere = || Error::invalid("the map of a sparse file in the bundle leads out of it");
        let index = |at: u64| usize::try_from(at).map_err(|_| nowhere());
        let mut bytes = vec![0; index(end.saturating_sub(start))?];
        let data = between(&self.data, start, end);
        let (Some(first), Some(last)) = (data.first(), data.last()) else { return Ok(bytes) };

        let mut download = self.bundle.download(&part_of(&self.ranges, first.stored, last.stored + last.bytes))?;
        let mut stored = Vec::new();
        while let Some(chunk) = download.chunk().await? {
            stored.extend_from_slice(&chunk);
        }
        for Data { start: at, stored: from, bytes: length } in &data {
            let (to, from, length) = (index(at - start)?, index(from - first.stored)?, index(*length)?);
            let to = bytes.get_mut(to..to + length).ok_or_else(nowhere)?;
            to.copy_from_slice(stored.get(from..from + length).ok_or_else(nowhere)?);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Counts what is asked for.
    struct Counted {
        text: Vec<u8>,
        requests: Cell<u64>,
        bytes: Cell<u64>,
    }

    impl Counted {
        fn new(text: &[u8]) -> Self {
            Self { text: text.to_vec(), requests: Cell::default(), bytes: Cell::default() }
        }
    }

    impl Source for Counted {
        fn size(&self) -> u64 {
            self.text.size()
        }

        async fn read(&self, start: u64, end: u64) -> Result<Vec<u8>, Error> {
            self.requests.set(self.requests.get() + 1);
            self.bytes.set(self.bytes.get() + end - start);
            self.text.read(start, end).await
        }
    }

    async fn of(text: &str, part: Part) -> String {
        let mut written = vec![];
        write(&text.as_bytes().to_vec(), part, &mut written).await.unwrap();
        String::from_utf8(written).unwrap()
    }

    #[tokio::test]
    async fn lines_are_counted_from_both_ends() {
        for (text, lines, first, last) in [
            ("a\nb\nc\n", 2, "a\nb\n", "b\nc\n"),
            ("a\nb\nc", 1, "a\n", "c"),
            ("a\nb\nc", 2, "a\nb\n", "b\nc"),
            ("a\n\n\n", 2, "a\n\n", "\n\n"),
            ("a\nb\n", 9, "a\nb\n", "a\nb\n"),
            ("no newline", 1, "no newline", "no newline"),
            ("a\n", 0, "", ""),
            ("", 3, "", ""),
        ] {
            assert_eq!(of(text, Part::FirstLines(lines)).await, first, "{text:?} {lines}");
            assert_eq!(of(text, Part::LastLines(lines)).await, last, "{text:?} {lines}");
        }
    }

    #[tokio::test]
    async fn bytes_are_those_of_the_range() {
        for (part, expected) in [
            (Part::Bytes(0, Some(3)), "012"),
            (Part::Bytes(8, None), "89"),
            (Part::Bytes(8, Some(100)), "89"),
            (Part::Bytes(10, None), ""),
            (Part::LastBytes(2), "89"),
            (Part::LastBytes(100), "0123456789"),
        ] {
            assert_eq!(of("0123456789", part).await, expected, "{part:?}");
        }
        let beyond = write(&b"0123".to_vec(), Part::Bytes(5, None), &mut vec![]).await.unwrap_err();
        assert_eq!(beyond.message, "the file has only 4 bytes");
    }

    #[tokio::test]
    async fn no_more_is_read_than_about_the_part() {
        let line = b"0123456789\n";
        let counted = Counted::new(&line.repeat(5_000_000));
        let mut written = vec![];
        for part in [Part::FirstLines(10), Part::LastLines(10), Part::Bytes(1 << 20, Some((1 << 20) + 110))] {
            written.clear();
            write(&counted, part, &mut written).await.unwrap();
            assert_eq!(written.len(), 110, "{part:?}");
        }
        assert_eq!((counted.requests.get(), counted.bytes.get()), (3, 2 * FIRST + 110));

        // More lines than in what is read at first.
        for part in [Part::FirstLines(100_000), Part::LastLines(100_000)] {
            written.clear();
            write(&counted, part, &mut written).await.unwrap();
            assert_eq!(written, line.repeat(100_000), "{part:?}");
        }
        assert!(counted.bytes.get() < 8 << 20, "{} bytes", counted.bytes.get());
    }

    #[test]
    fn data_of_a_sparse_file_are_found_behind_its_map() {
        let data = behind_map(512 + 30, &[(100, 10), (1000, 20)]);
        assert_eq!(data, [Data { start: 100, stored: 512, bytes: 10 }, Data { start: 1000, stored: 522, bytes: 20 }]);
        assert_eq!(
            between(&data, 105, 1005),
            [Data { start: 105, stored: 517, bytes: 5 }, Data { start: 1000, stored: 522, bytes: 5 }]
        );
        assert_eq!(between(&data, 110, 1000), []);
    }

    #[test]
    fn a_part_of_ranges_is_in_the_layers_that_have_it() {
        let ranges = [LayerRange { layer: 1, start: 512, end: 522 }, LayerRange { layer: 3, start: 1024, end: 1034 }];
        let of = |start, end| {
            let ranges = part_of(&ranges, start, end);
            ranges.iter().map(|range| (range.layer, range.start, range.end)).collect::<Vec<_>>()
        };
        assert_eq!(of(0, 20), [(1, 512, 522), (3, 1024, 1034)]);
        assert_eq!(of(5, 12), [(1, 517, 522), (3, 1024, 1026)]);
        assert_eq!(of(10, 11), [(3, 1024, 1025)]);
    }
}
