//! Layers of any image, put on top of each other in a place.

use super::artifact::Content;
use super::budget::Budget;
use super::destination::{Made, Maker, NewFile, Place, other_kind};
use super::layer_path::{Relation, Whiteout, path_of, relation, whiteout};
use super::zstd::{Decoder, WINDOWS};
use crate::bundle::error::shown;
use crate::bundle::format::tar_header;
use crate::bundle::format::tar_reader::{Kind as MemberKind, Member, TarReader, not_read};
use crate::bundle::{Error, ErrorKind, Kind};
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufReader, Read};

/// What is read of one layer, unpacked: more is no input but an attack, or none that a pod has room for.
const MOST_BYTES: u64 = 4 << 40;
/// Entries that are read of all layers, wanted or not.
const MOST_READ: u64 = 50_000_000;
const COPY: usize = 128 << 10;

/// A layer as a tar file.
pub(in crate::bundle) fn open(
    content: &Content,
    layer: impl Read + 'static,
) -> Result<TarReader<Box<dyn Read>>, Error> {
    match content {
        Content::Archive => open_archive(layer),
        Content::File { path, size } => {
            let before = tar_header::header(path, 0o644, tar_header::Type::File { size: *size });
            let after = tar_header::padding(*size) + tar_header::END.len() as u64;
            let layer = io::Cursor::new(before).chain(layer.take(*size)).chain(io::repeat(0).take(after));
            Ok(TarReader::new(Box::new(layer), MOST_BYTES))
        }
    }
}

/// The tar file in a layer, whatever compressed it.
fn open_archive(mut layer: impl Read + 'static) -> Result<TarReader<Box<dyn Read>>, Error> {
    let mut start = [0; 4];
    let mut filled = 0;
    while let Some(rest) = start.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match layer.read(rest).map_err(|error| not_read(error, "a layer cannot be read"))? {
            0 => break,
            got => filled += got,
        }
    }
    let all = io::Cursor::new(start).take(filled as u64).chain(layer);
    let reader: Box<dyn Read> = match start {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(COPY, all))),
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Box::new(Decoder::new(all, &WINDOWS)),
        _ => Box::new(BufReader::with_capacity(COPY, all)),
    };
    Ok(TarReader::new(reader, MOST_BYTES))
}

/// Counts an entry that was read, wanted or not.
pub(in crate::bundle) fn count_read(entries: &mut u64) -> Result<(), Error> {
    *entries += 1;
    if *entries > MOST_READ {
        Err(Error::too_large(format!("an image of more than {MOST_READ} entries")))
    } else {
        Ok(())
    }
}

/// A name whose content is at another path of the image, outside of what is wanted.
#[derive(Debug)]
pub(in crate::bundle) struct Elsewhere {
    /// In the image.
    pub(in crate::bundle) source: Vec<u8>,
    /// Below the wanted path; empty for that itself.
    pub(in crate::bundle) name: Vec<u8>,
    pub(in crate::bundle) mode: u32,
}

enum Unusable {
    Itself(String),
    /// What is at this path and should be a directory.
    Above(Vec<u8>, String),
}

/// Unpacks the layers of an image one after the other, the lowest first.
pub(in crate::bundle) struct Unpacker {
    place: Place,
    how: Made,
    /// Below it is what is wanted.
    wanted: Vec<u8>,
    budget: Budget,
    maker: Option<Maker>,
    /// Directories and their modes, which are set when all is in them.
    directories: Vec<(Vec<u8>, u32)>,
    found: Option<Kind>,
    /// Why what is wanted cannot be an input.
    unusable: Option<Unusable>,
    /// Of paths that this layer has made: its deletions are about those of lower layers. Hashes, because there can be
    /// millions; with a key of our own, so that nobody can make two the same.
    made: HashSet<u64>,
    /// Of paths below the wanted one at which something is left out. Whoever deletes their directory leaves them here.
    left_out: HashSet<u64>,
    hasher: RandomState,
    elsewhere: Vec<Elsewhere>,
    entries: u64,
    buffer: Vec<u8>,
}

impl Unpacker {
    pub(in crate::bundle) fn new(place: Place, how: Made, wanted: Vec<u8>, budget: Budget) -> Result<Self, Error> {
        let mut maker = match &place {
            Place::Directory(root) => Some(Maker::new(root.clone()).made(how)),
            Place::File(_) => None,
        };
        if let Some(maker) = &mut maker {
            maker.clear()?;
        }
        Ok(Self {
            // The root of an image is a directory, with or without an entry for it.
            found: wanted.is_empty().then_some(Kind::Directory),
            place,
            how,
            wanted,
            budget,
            maker,
            directories: vec![],
            unusable: None,
            made: HashSet::new(),
            left_out: HashSet::new(),
            hasher: RandomState::new(),
            elsewhere: vec![],
            entries: 0,
            buffer: vec![0; COPY],
        })
    }

    /// Unpacks one layer. Returns names whose content is at another path, in this layer or in lower ones.
    pub(in crate::bundle) fn layer(
        &mut self,
        content: &Content,
        layer: impl Read + 'static,
    ) -> Result<Vec<Elsewhere>, Error> {
        self.made.clear();
        let mut layer = open(content, layer)?;
        while let Some(member) = layer.next()? {
            count_read(&mut self.entries)?;
            let path = path_of(&member.name)?.to_vec();
            match whiteout(&path) {
                Some(whiteout) => self.delete(&whiteout)?,
                None => self.entry(&path, member, &mut layer)?,
            }
        }
        Ok(std::mem::take(&mut self.elsewhere))
    }

    /// Sets the modes of directories, and says what was found. Returns how many entries were left out.
    pub(in crate::bundle) fn finish(mut self, what: &str) -> Result<u64, Error> {
        if let Some(Unusable::Itself(unusable) | Unusable::Above(_, unusable)) = self.unusable {
            return Err(Error::invalid(format!("{what}: {unusable}")));
        }
        match (&self.found, &self.place) {
            (None, _) => return Err(Error::new(ErrorKind::PathNotFound, format!("{what} is not in the image"))),
            (Some(Kind::File), Place::Directory(_)) => return Err(other_kind(what, "directory")),
            (Some(Kind::Directory), Place::File(_)) => return Err(other_kind(what, "file")),
            _ => {}
        }
        if let Some(maker) = &mut self.maker {
            // The last mode of a directory counts, and the deepest is closed first.
            let mut set = HashSet::new();
            self.directories.reverse();
            self.directories.sort_by(|(a, _), (b, _)| b.cmp(a));
            for (path, mode) in &self.directories {
                if set.insert(path) {
                    maker.directory_mode(path, *mode)?;
                }
            }
        }
        Ok(self.left_out.len() as u64)
    }

    fn delete(&mut self, whiteout: &Whiteout<'_>) -> Result<(), Error> {
        let (path, below) = match whiteout {
            Whiteout::Path(path) => (path.as_slice(), false),
            Whiteout::Below(dir) => (*dir, true),
            Whiteout::Nothing => return Ok(()),
        };
        let relative = match (relation(path, &self.wanted), below) {
            (Relation::Wanted(relative), _) => relative,
            (Relation::Above, _) => &[],
            (Relation::Beside, _) => return Ok(()),
        };
        let of_wanted = relative.is_empty();
        let keeps_wanted = of_wanted && below && path == self.wanted;
        let (made, hasher) = (&self.made, &self.hasher);
        let stays = |path: &[u8]| made.contains(&hasher.hash_one(path));
        if !stays(relative) {
            self.left_out.remove(&self.hasher.hash_one(relative));
        }
        if let Some(maker) = &mut self.maker {
            if of_wanted || below {
                maker.remove_in(relative, &stays)?;
            } else {
                maker.remove_lower(relative, &stays)?;
            }
        }
        if of_wanted && !keeps_wanted && !stays(&[]) {
            self.forget();
        }
        Ok(())
    }

    /// What was found in lower layers is not there any more.
    fn forget(&mut self) {
        self.found = self.wanted.is_empty().then_some(Kind::Directory);
        self.unusable = None;
        self.directories.clear();
        self.left_out.clear();
    }

    fn entry(&mut self, path: &[u8], member: Member, layer: &mut TarReader<Box<dyn Read>>) -> Result<(), Error> {
        let relative = match relation(path, &self.wanted) {
            Relation::Beside => return Ok(()),
            Relation::Above => {
                if member.kind != MemberKind::Directory {
                    self.clear_wanted()?;
                    if let MemberKind::Symlink(target) = &member.kind {
                        let (shown_path, target) = (shown(path), shown(target));
                        self.unusable = Some(Unusable::Above(
                            path.to_vec(),
                            format!("{shown_path:?} is a symbolic link to {target:?}: name the path without links"),
                        ));
                    }
                } else if matches!(&self.unusable, Some(Unusable::Above(at, _)) if at == path) {
                    self.unusable = None;
                }
                return Ok(());
            }
            Relation::Wanted(relative) => relative.to_vec(),
        };
        self.budget.entry()?;
        self.note_made(&relative);
        if relative.is_empty() {
            return self.wanted_itself(path, member, layer);
        }
        if self.found != Some(Kind::Directory) {
            self.found = Some(Kind::Directory);
            self.unusable = None;
        }
        let hash = self.hasher.hash_one(&relative);
        self.left_out.remove(&hash);
        let Some(maker) = &mut self.maker else { return Ok(()) };
        match member.kind {
            MemberKind::Directory => {
                maker.directory(&relative)?;
                self.directories.push((relative, member.mode));
            }
            MemberKind::File => {
                let file = maker.file(&relative)?;
                self.content(file, &member, layer)?;
            }
            MemberKind::Symlink(target) => maker.link(&relative, &target)?,
            MemberKind::Hardlink(target) => {
                let target = path_of(&target)?;
                match relation(target, &self.wanted) {
                    Relation::Wanted(to @ [_, ..]) if self.left_out.contains(&self.hasher.hash_one(to)) => {
                        // Something may have taken its place; if not, it is one more name of what is left out.
                        match maker.hard_link(&relative, to) {
                            Err(Error { kind: ErrorKind::Invalid, .. }) => _ = self.left_out.insert(hash),
                            linked => linked?,
                        }
                    }
                    Relation::Wanted(to @ [_, ..]) => maker.hard_link(&relative, to)?,
                    _ => self.elsewhere(target, relative, member.mode),
                }
            }
            MemberKind::LeftOut(_) => {
                // As it would, it replaces what lower layers have there.
                maker.remove(&relative)?;
                self.left_out.insert(hash);
            }
            MemberKind::Other(what) => return Err(Error::invalid(format!("{:?} in the image is {what}", shown(path)))),
        }
        Ok(())
    }

    /// The entry for the path that is wanted.
    fn wanted_itself(
        &mut self,
        path: &[u8],
        member: Member,
        layer: &mut TarReader<Box<dyn Read>>,
    ) -> Result<(), Error> {
        if member.kind == MemberKind::Directory {
            if self.found != Some(Kind::Directory) {
                self.clear_wanted()?;
            }
            self.found = Some(Kind::Directory);
            return Ok(());
        }
        if self.wanted.is_empty() {
            return Err(Error::invalid("an archive whose root is no directory"));
        }
        self.clear_wanted()?;
        match member.kind {
            MemberKind::File => {
                self.found = Some(Kind::File);
                if let Place::File(file) = &self.place {
                    let file = NewFile::over(file, path, self.how)?;
                    self.content(file, &member, layer)?;
                }
            }
            MemberKind::Hardlink(target) => {
                self.found = Some(Kind::File);
                if let Place::File(_) = self.place {
                    self.elsewhere(path_of(&target)?, vec![], member.mode);
                }
            }
            MemberKind::Symlink(target) => {
                let (path, target) = (shown(path), shown(&target));
                self.unusable =
                    Some(Unusable::Itself(format!("{path:?} is a symbolic link: name what it points to, {target:?}")));
            }
            MemberKind::LeftOut(what) | MemberKind::Other(what) => {
                self.unusable = Some(Unusable::Itself(format!("{:?} is {what}", shown(path))));
            }
            MemberKind::Directory => {}
        }
        Ok(())
    }

    fn clear_wanted(&mut self) -> Result<(), Error> {
        if let Some(maker) = &mut self.maker {
            maker.clear()?;
        }
        self.forget();
        Ok(())
    }

    /// A path, and the directories that it is in.
    fn note_made(&mut self, relative: &[u8]) {
        let mut path = relative;
        while self.made.insert(self.hasher.hash_one(path)) && !path.is_empty() {
            let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
            path = path.get(..end).unwrap_or_default();
        }
    }

    fn elsewhere(&mut self, source: &[u8], name: Vec<u8>, mode: u32) {
        self.elsewhere.push(Elsewhere { source: source.to_vec(), name, mode });
    }

    fn content(
        &mut self,
        mut file: NewFile,
        member: &Member,
        layer: &mut TarReader<Box<dyn Read>>,
    ) -> Result<(), Error> {
        // Before a byte of it is read: an archive may say any size.
        self.budget.bytes(member.size)?;
        loop {
            let got = layer.content(&mut self.buffer)?;
            if got == 0 {
                return file.finish(member.mode, None);
            }
            file.write(self.buffer.get(..got).unwrap_or_default())?;
        }
    }

    /// Looks in a layer for content that names of others need. Returns those that are still missing.
    pub(in crate::bundle) fn fill(
        &mut self,
        content: &Content,
        layer: impl Read + 'static,
        mut missing: Vec<Elsewhere>,
    ) -> Result<Vec<Elsewhere>, Error> {
        let mut layer = open(content, layer)?;
        while let Some(member) = layer.next()? {
            count_read(&mut self.entries)?;
            let path = path_of(&member.name)?.to_vec();
            let (found, rest): (Vec<_>, Vec<_>) = missing.into_iter().partition(|missing| missing.source == path);
            missing = rest;
            match &member.kind {
                MemberKind::File => self.fill_with(found, &member, &mut layer)?,
                MemberKind::Hardlink(target) => {
                    let target = path_of(target)?;
                    missing.extend(found.into_iter().map(|found| Elsewhere { source: target.to_vec(), ..found }));
                }
                _ if found.is_empty() => {}
                MemberKind::LeftOut(_) if found.iter().all(|found| !found.name.is_empty()) => {
                    for found in found {
                        self.left_out.insert(self.hasher.hash_one(&found.name));
                    }
                }
                _ => return Err(Error::invalid(format!("{:?} is linked to as a file and is none", shown(&path)))),
            }
        }
        Ok(missing)
    }

    fn fill_with(
        &mut self,
        names: Vec<Elsewhere>,
        member: &Member,
        layer: &mut TarReader<Box<dyn Read>>,
    ) -> Result<(), Error> {
        let mut first: Option<Vec<u8>> = None;
        for name in names {
            let file = match (&mut self.maker, &self.place) {
                (None, Place::File(file)) => NewFile::over(file, &name.source, self.how)?,
                (Some(maker), _) => {
                    if let Some(first) = &first {
                        maker.hard_link(&name.name, first)?;
                        continue;
                    }
                    first = Some(name.name.clone());
                    maker.file(&name.name)?
                }
                (None, Place::Directory(_)) => continue,
            };
            self.content(file, &Member { mode: name.mode, ..member.clone() }, layer)?;
        }
        Ok(())
    }
}
