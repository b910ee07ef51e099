//! Reading tar files of any origin: plain, ustar, PAX and GNU, and nothing that is not sound.
//!
//! Our own, because what is read comes from strangers: names are bounded before they are held in memory, and sizes are
//! those of the PAX header where there is one.

use crate::bundle::Error;
use crate::bundle::error::shown;
use std::io::{self, Read};

const BLOCK: usize = 512;
/// Names, link targets and PAX records are read into memory.
const LONGEST_EXTENSION: u64 = 1 << 20;

/// An entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::bundle) struct Member {
    /// As it is written.
    pub(in crate::bundle) name: Vec<u8>,
    pub(in crate::bundle) kind: Kind,
    pub(in crate::bundle) mode: u32,
    /// Of the content that follows.
    pub(in crate::bundle) size: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::bundle) enum Kind {
    File,
    Directory,
    Symlink(Vec<u8>),
    Hardlink(Vec<u8>),
    /// What no input can have and images do have: devices, FIFOs, sparse files. What it is, for people.
    LeftOut(&'static str),
    /// What it is, for people.
    Other(&'static str),
}

/// What the headers before the one of an entry say of it.
#[derive(Default)]
struct Extension {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
    /// PAX has a made-up name where others look for one.
    sparse_name: Option<Vec<u8>>,
}

/// Gives the entries of an archive; between two, it reads as the content of the first.
pub(in crate::bundle) struct TarReader<R> {
    inner: R,
    /// Of the content, and of its padding.
    left: u64,
    padding: u64,
    /// Bytes that may still be read in all.
    budget: u64,
    /// Entries were read.
    begun: bool,
}

impl<R: Read> TarReader<R> {
    /// At most `budget` bytes are read, whatever they are.
    pub(in crate::bundle) fn new(inner: R, budget: u64) -> Self {
        Self { inner, left: 0, padding: 0, budget, begun: false }
    }

    /// The next entry. None is the end of a whole archive: its mark of the end is there, and after it nothing but zeros.
    /// So neither a file that begins with zeros is an empty archive, nor one that was cut off a smaller one.
    pub(in crate::bundle) fn next(&mut self) -> Result<Option<Member>, Error> {
        let mut extension = Extension::default();
        loop {
            self.skip_content()?;
            let Some(block) = self.block()? else {
                self.nothing_but_zeros()?;
                return Ok(None);
            };
            let header = Header(&block);
            header.check()?;
            self.begun = true;
            let size = header.number(124, 12)?;
            let kind = header.byte(156);
            match kind {
                b'L' | b'K' | b'x' | b'X' | b'g' => {
                    let text = self.text(size)?;
                    match kind {
                        b'L' => extension.name = Some(until_zero(&text)),
                        b'K' => extension.link = Some(until_zero(&text)),
                        // What holds for all entries has no paths that matter.
                        b'g' => {}
                        _ => extension.read_pax(&text)?,
                    }
                    continue;
                }
                _ => {}
            }
            return self.member(&header, kind, size, extension).map(Some);
        }
    }

    fn member(&mut self, header: &Header<'_>, flag: u8, size: u64, extension: Extension) -> Result<Member, Error> {
        let name = extension.sparse_name.or(extension.name);
        let mut name = name.unwrap_or_else(|| header.name());
        let link = extension.link.unwrap_or_else(|| until_zero(header.field(157, 100)));
        let size = extension.size.unwrap_or(size);
        let is_dir = name.ends_with(b"/");
        let kind = match flag {
            b'S' => Kind::LeftOut("a sparse file of the GNU format"),
            _ if extension.sparse => Kind::LeftOut("a sparse file of the PAX format"),
            // So the oldest archives have them.
            0 | b'0' if is_dir => Kind::Directory,
            0 | b'0' | b'7' => Kind::File,
            b'1' => Kind::Hardlink(link),
            b'2' => Kind::Symlink(link),
            b'3' | b'4' => Kind::LeftOut("a device"),
            b'5' => Kind::Directory,
            b'6' => Kind::LeftOut("a FIFO"),
            _ => Kind::Other("of unknown type"),
        };
        if flag == b'S' {
            self.skip_sparse_map(header)?;
        }
        // POSIX has these without content, whatever their size says.
        let empty =
            matches!(kind, Kind::Hardlink(_) | Kind::Symlink(_) | Kind::Directory) || matches!(flag, b'3'..=b'6');
        let size = if empty { 0 } else { size };
        while name.ends_with(b"/") && name.len() > 1 {
            name.pop();
        }
        self.left = size;
        self.padding = size.checked_next_multiple_of(BLOCK as u64).ok_or_else(|| wrong("a size out of range"))? - size;
        let mode = u32::try_from(header.number(100, 8)? & 0o7777).unwrap_or(0);
        Ok(Member { name, kind, mode, size })
    }

    fn text(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        if size > LONGEST_EXTENSION {
            return Err(Error::too_large(format!("an archive with a name of {size} bytes")));
        }
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        let mut text = vec![0; usize::try_from(size).unwrap_or(0)];
        let mut filled = 0;
        while let Some(rest) = text.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            filled += self.content(rest)?;
        }
        Ok(text)
    }

    /// Content of the entry; nothing, at its end.
    pub(in crate::bundle) fn content(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(part) = buffer.get_mut(..most).filter(|part| !part.is_empty()) else { return Ok(0) };
        let got = self.read(part)?;
        if got == 0 {
            return Err(wrong("it ends in the middle of a file"));
        }
        self.left -= got as u64;
        Ok(got)
    }

    fn skip_content(&mut self) -> Result<(), Error> {
        let mut scratch = [0; 16 << 10];
        self.left = self.left.checked_add(self.padding).ok_or_else(|| wrong("a size out of range"))?;
        self.padding = 0;
        while self.content(&mut scratch)? > 0 {}
        Ok(())
    }

    /// A header; none, at the mark of the end.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Error> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.read(rest)? {
                0 if filled == 0 && !self.begun => return Err(wrong("it is empty")),
                0 if filled == 0 => return Err(wrong("it ends without the mark of its end: part of it is missing")),
                0 => return Err(wrong("it ends in the middle of a header")),
                got => filled += got,
            }
        }
        Ok(Some(block).filter(|block| *block != [0; BLOCK]))
    }

    /// Reads what is after the mark of the end: programs fill up to their block size.
    fn nothing_but_zeros(&mut self) -> Result<(), Error> {
        let mut scratch = [0; 16 << 10];
        loop {
            let got = self.read(&mut scratch)?;
            if got == 0 {
                return Ok(());
            }
            if scratch.iter().take(got).any(|byte| *byte != 0) {
                return Err(wrong(if self.begun { "something follows its end" } else { "it begins with zeros" }));
            }
        }
    }

    /// The map of a sparse file of the GNU format goes on in blocks of its own where the header has no room for it.
    fn skip_sparse_map(&mut self, header: &Header<'_>) -> Result<(), Error> {
        let mut goes_on = header.byte(482) != 0;
        while goes_on {
            let block = self.block()?.ok_or_else(|| wrong("a map of a sparse file that is none"))?;
            goes_on = Header(&block).byte(504) != 0;
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        loop {
            match self.inner.read(buffer) {
                Ok(got) => {
                    let left = self.budget.checked_sub(got as u64);
                    self.budget =
                        left.ok_or_else(|| Error::too_large("an archive that unpacks to more than is read"))?;
                    return Ok(got);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(not_read(error, NOT_SOUND)),
            }
        }
    }
}

struct Header<'a>(&'a [u8; BLOCK]);

impl<'a> Header<'a> {
    fn field(&self, start: usize, length: usize) -> &'a [u8] {
        self.0.get(start..start + length).unwrap_or_default()
    }

    fn byte(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    fn check(&self) -> Result<(), Error> {
        let sum = |signed: bool| -> i64 {
            let bytes = self.0.iter().enumerate();
            bytes
                .map(|(at, byte)| match (at, signed) {
                    (148..156, _) => 32,
                    (_, true) => i64::from(byte.cast_signed()),
                    (_, false) => i64::from(*byte),
                })
                .sum()
        };
        let said = self.number(148, 8).ok().and_then(|said| i64::try_from(said).ok());
        // Some old programs summed signed bytes.
        if said == Some(sum(false)) || said == Some(sum(true)) {
            Ok(())
        } else {
            Err(wrong("a header has a wrong sum"))
        }
    }

    fn number(&self, start: usize, length: usize) -> Result<u64, Error> {
        let field = self.field(start, length);
        if field.first().is_some_and(|first| first & 0x80 != 0) {
            let mut value: u64 = 0;
            for (at, byte) in field.iter().enumerate() {
                let byte = if at == 0 { byte & 0x7f } else { *byte };
                value = value.checked_mul(256).ok_or_else(|| wrong("a number out of range"))? + u64::from(byte);
            }
            return Ok(value);
        }
        let text = String::from_utf8_lossy(field);
        let text = text.trim_matches([' ', '\0']);
        if text.is_empty() {
            return Ok(0);
        }
        u64::from_str_radix(text, 8).map_err(|_| wrong("a number that is none"))
    }

    fn name(&self) -> Vec<u8> {
        let name = until_zero(self.field(0, 100));
        let prefix = until_zero(self.field(345, 155));
        let has_prefix = self.field(257, 6) == b"ustar\0" && !prefix.is_empty();
        if has_prefix { [&*prefix, b"/", &*name].concat() } else { name }
    }
}

impl Extension {
    /// `<length> <key>=<value>\n`, again and again.
    fn read_pax(&mut self, mut text: &[u8]) -> Result<(), Error> {
        let bad = || wrong("a PAX record that is none");
        while !text.is_empty() {
            let space = text.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
            let length = text.get(..space).and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok());
            let length = length.filter(|length| *length > space + 1).ok_or_else(bad)?;
            let (record, rest) = text.split_at_checked(length).ok_or_else(bad)?;
            let record = record.get(space + 1..).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(bad)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
            let (key, value) = record.split_at_checked(equals).ok_or_else(bad)?;
            let value = value.get(1..).unwrap_or_default();
            match key {
                b"path" => self.name = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => {
                    let size = std::str::from_utf8(value).ok().and_then(|size| size.parse().ok());
                    self.size = Some(size.ok_or_else(bad)?);
                }
                b"GNU.sparse.name" => self.sparse_name = Some(value.to_vec()),
                key if key.starts_with(b"GNU.sparse.") => self.sparse = true,
                _ => {}
            }
            text = rest;
        }
        Ok(())
    }
}

fn until_zero(field: &[u8]) -> Vec<u8> {
    field.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

const NOT_SOUND: &str = "not a sound archive";

fn wrong(why: &str) -> Error {
    Error::invalid(format!("{NOT_SOUND}: {}", shown(why.as_bytes())))
}

/// What was being read gave this error: it is at fault, unless this machine had no memory for it.
pub(in crate::bundle) fn not_read(error: io::Error, at_fault: &str) -> Error {
    if error.kind() == io::ErrorKind::OutOfMemory {
        Error::local("unpack an archive", error)
    } else {
        Error::invalid(format!("{at_fault}: {}", shown(error.to_string().as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tar_header::{END, Type, header};
    use super::*;
    use crate::bundle::ErrorKind;

    fn read(archive: &[u8]) -> Result<Vec<String>, String> {
        let mut reader = TarReader::new(archive, 1 << 20);
        let mut names = vec![];
        while let Some(member) = reader.next().map_err(|error| error.message)? {
            names.push(String::from_utf8(member.name).unwrap());
        }
        Ok(names)
    }

    #[test]
    fn an_archive_is_not_at_fault_for_the_memory_of_this_machine() {
        struct Fails(io::ErrorKind);
        impl Read for Fails {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
        }
        for (kind, is) in [
            (io::ErrorKind::OutOfMemory, ErrorKind::Local),
            (io::ErrorKind::InvalidData, ErrorKind::Invalid),
            (io::ErrorKind::UnexpectedEof, ErrorKind::Invalid),
        ] {
            assert_eq!(TarReader::new(Fails(kind), 1 << 20).next().unwrap_err().kind, is, "{kind}");
        }
    }

    #[test]
    fn only_a_whole_archive_has_an_end() {
        let entry = header(b"a", 0o644, Type::Directory);
        let whole = [&*entry, &END].concat();
        assert_eq!(read(&whole), Ok(vec!["a".to_owned()]));
        assert_eq!(read(&END), Ok(vec![]), "an archive of nothing");
        let filled = [&*whole, &[0; 9000]].concat();
        assert_eq!(read(&filled), Ok(vec!["a".to_owned()]));
        for cut in 0..whole.len() - BLOCK {
            assert!(read(&whole[..cut]).is_err(), "cut off at byte {cut}");
        }
        for zeros in [1, 511, 512, 513, 1024, 4096] {
            let text = [&*vec![0; zeros], b"text"].concat();
            assert!(read(&text).is_err(), "a file that begins with {zeros} zeros");
            assert!(read(&[&*entry, &END, &text].concat()).is_err(), "{zeros} zeros and a text after the end");
        }
    }
}
