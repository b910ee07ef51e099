//! The entries of a tree, in little memory: there may be millions. An entry is a record of some bytes and its name; its
//! path is told from the directories that it is in.

use super::skip::Skip;
use crate::bundle::memory::make_room;
use crate::bundle::{Error, FileId};
use std::cmp::Ordering;
use std::collections::HashMap;

/// The number of an entry. Once they are sorted, it is its place among the paths.
pub(in crate::bundle) type Index = u32;

/// The working directory itself, which is always there.
pub(in crate::bundle) const ROOT: Index = 0;

/// What one entry takes at most while a tree is saved, beside its name: its record, its place in a layer, where its
/// content is there, and what vectors have to spare.
const ENTRY_BYTES: u64 = 128;

/// Bytes of memory that it takes to save so many entries with names of so many bytes together.
pub(crate) fn memory_of(entries: u64, name_bytes: u64) -> u64 {
    entries.saturating_mul(ENTRY_BYTES).saturating_add(name_bytes.saturating_add(name_bytes / 8))
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bundle) enum What<'a> {
    Directory,
    File {
        size: u64,
    },
    Link {
        target: &'a [u8],
    },
    /// No part of the bundle, but listed in it.
    Skipped(&'a Skip),
}

/// One name in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bundle) struct Entry<'a> {
    /// The permission bits with setuid, setgid and sticky.
    pub(in crate::bundle) mode: u32,
    pub(in crate::bundle) what: What<'a>,
}

/// An entry as it is kept.
#[derive(Clone, Copy)]
struct Record {
    parent: Index,
    /// Where its name begins among the names. The target of a link follows.
    name: u32,
    name_len: u16,
    /// Permission bits, and one of the kinds.
    mode_and_kind: u16,
    /// The size of a file, the length of a target, the number of a reason: in halves, so that nothing is lost between.
    number: [u32; 2],
}

const KIND: u16 = 0xf000;
const DIRECTORY: u16 = 0x1000;
const FILE: u16 = 0x2000;
const LINK: u16 = 0x3000;
const SKIPPED: u16 = 0x4000;
/// No entry any more.
const GONE: u16 = 0;

impl Record {
    fn number(self) -> u64 {
        let [high, low] = self.number.map(u64::from);
        high << 32 | low
    }

    fn kind(self) -> u16 {
        self.mode_and_kind & KIND
    }
}

fn halves(number: u64) -> [u32; 2] {
    [number >> 32, number & 0xffff_ffff].map(|half| u32::try_from(half).unwrap_or(u32::MAX))
}

/// All entries of a tree.
pub(in crate::bundle) struct Entries {
    records: Vec<Record>,
    names: Vec<u8>,
    /// Every reason once: there are few.
    reasons: Vec<Skip>,
    /// Which files they are names of, where those have several.
    shared: Vec<(FileId, Index)>,
    /// Of those, once sorted: a name and the first name of the same file, if that is another one.
    first: Vec<(Index, Index)>,
    /// Bytes that all of it may take.
    room: Option<u64>,
    /// What is to be read of all files.
    content_bytes: u64,
}

impl Entries {
    /// The root alone. Its mode is that of the volume, which is not the run's.
    pub(in crate::bundle) fn new(room: Option<u64>) -> Self {
        let top = Record { parent: ROOT, name: 0, name_len: 0, mode_and_kind: DIRECTORY | 0o755, number: [0; 2] };
        Self {
            records: vec![top],
            names: vec![],
            reasons: vec![],
            shared: vec![],
            first: vec![],
            room,
            content_bytes: 0,
        }
    }

    pub(in crate::bundle) fn len(&self) -> Index {
        // No more are taken than fit: see `add`.
        Index::try_from(self.records.len()).unwrap_or(Index::MAX)
    }

    pub(in crate::bundle) fn indices(&self) -> std::ops::Range<Index> {
        ROOT..self.len()
    }

    /// Adds an entry of a directory.
    pub(in crate::bundle) fn add(
        &mut self,
        parent: Index,
        name: &[u8],
        mode: u32,
        what: What<'_>,
    ) -> Result<Index, Error> {
        let many = self.records.len();
        let too_many = || Error::too_large(format!("more than {many} files, directories and links"));
        let (kind, number, behind) = match what {
            What::Directory => (DIRECTORY, 0, &[][..]),
            What::File { size } => (FILE, size, &[][..]),
            What::Link { target } => (LINK, target.len() as u64, target),
            What::Skipped(skip) => (SKIPPED, self.reason(skip), &[][..]),
        };
        let name_bytes = (self.names.len() + name.len() + behind.len()) as u64;
        if let Some(room) = self.room
            && memory_of(many as u64 + 1, name_bytes) > room
        {
            let mebibytes = room >> 20;
            return Err(Error::too_large(format!(
                "more than {many} files, directories and links: the helper's memory has {mebibytes} MiB for them"
            )));
        }
        let index = Index::try_from(many).ok().filter(|index| *index < Index::MAX).ok_or_else(too_many)?;
        let start = u32::try_from(self.names.len()).map_err(|_| too_many())?;
        let name_len = u16::try_from(name.len()).map_err(|_| too_many())?;
        let mode = u16::try_from(mode & 0o7777).unwrap_or(0);
        make_room(&mut self.names, name.len() + behind.len());
        self.names.extend_from_slice(name);
        self.names.extend_from_slice(behind);
        make_room(&mut self.records, 1);
        let record = Record { parent, name: start, name_len, mode_and_kind: kind | mode, number: halves(number) };
        self.records.push(record);
        Ok(index)
    }

    /// Counts what is to be read of a file.
    pub(in crate::bundle) fn count_bytes(&mut self, bytes: u64) {
        self.content_bytes = self.content_bytes.saturating_add(bytes);
    }

    /// What is to be read of all files, as far as known.
    pub(in crate::bundle) fn content_bytes(&self) -> u64 {
        self.content_bytes
    }

    /// Says which file an entry is a name of, where that has several.
    pub(in crate::bundle) fn share(&mut self, index: Index, file: FileId) {
        make_room(&mut self.shared, 1);
        self.shared.push((file, index));
    }

    /// What was an entry is listed as one that is left out.
    pub(in crate::bundle) fn skip(&mut self, index: Index, skip: &Skip) {
        let number = halves(self.reason(skip));
        if let Some(record) = self.records.get_mut(index as usize) {
            *record = Record { mode_and_kind: SKIPPED, number, ..*record };
        }
    }

    fn reason(&mut self, skip: &Skip) -> u64 {
        let known = self.reasons.iter().position(|known| known == skip);
        known.unwrap_or_else(|| {
            self.reasons.push(skip.clone());
            self.reasons.len() - 1
        }) as u64
    }

    /// Forgets those that were added last, down to so many.
    pub(in crate::bundle) fn truncate(&mut self, len: Index) {
        self.records.truncate(len as usize);
        while self.shared.last().is_some_and(|(_, index)| *index >= len) {
            self.shared.pop();
        }
    }

    /// Takes directories out that have nothing in them but others of these.
    pub(in crate::bundle) fn take_out_empty(&mut self, mut directories: Vec<Index>) {
        let mut in_them: HashMap<Index, u32> = directories.iter().map(|directory| (*directory, 0)).collect();
        for record in self.records.iter().skip(1) {
            if let Some(count) = in_them.get_mut(&record.parent) {
                *count += 1;
            }
        }
        // What is in a directory is added behind it.
        directories.sort_unstable_by(|a, b| b.cmp(a));
        for directory in directories {
            if in_them.get(&directory) == Some(&0)
                && let Some(record) = self.records.get_mut(directory as usize)
            {
                record.mode_and_kind = GONE;
                if let Some(count) = in_them.get_mut(&record.parent) {
                    *count -= 1;
                }
            }
        }
    }

    /// Whether the root has an entry of this name.
    pub(in crate::bundle) fn has_at_root(&self, name: &[u8]) -> bool {
        let mut records = self.records.iter().skip(1);
        records.any(|record| record.parent == ROOT && record.kind() != GONE && self.name(*record) == name)
    }

    /// Sorts all by the bytes of their paths. Every index changes.
    pub(in crate::bundle) fn sort(&mut self) {
        let is_there = |index: &Index| self.record(*index).is_some_and(|record| record.kind() != GONE);
        let mut order: Vec<Index> = self.indices().filter(is_there).collect();
        order.sort_unstable_by(|a, b| self.compare(*a, *b));
        let mut places = vec![ROOT; self.records.len()];
        for (new, old) in (ROOT..).zip(&order) {
            if let Some(place) = places.get_mut(*old as usize) {
                *place = new;
            }
        }
        let place = |old: Index| places.get(old as usize).copied().unwrap_or(ROOT);
        let records = order.iter().filter_map(|old| self.record(*old));
        let records = records.map(|record| Record { parent: place(record.parent), ..record });
        let mut sorted = Vec::with_capacity(order.len());
        sorted.extend(records);
        self.records = sorted;
        for (_, index) in &mut self.shared {
            *index = place(*index);
        }
        self.shared.sort_unstable();
        for names in self.shared.chunk_by(|(a, _), (b, _)| a == b) {
            if let [(_, first), others @ ..] = names {
                self.first.extend(others.iter().map(|(_, other)| (*other, *first)));
            }
        }
        self.shared = vec![];
        self.first.sort_unstable();
    }

    /// The order of two paths: of the first names in which they differ, each with a slash if its path goes on.
    fn compare(&self, a: Index, b: Index) -> Ordering {
        let (mut x, mut y) = (a, b);
        if self.parent(a) != self.parent(b) {
            let (deep_a, deep_b) = (self.depth(a), self.depth(b));
            x = self.above(a, deep_a.saturating_sub(deep_b));
            y = self.above(b, deep_b.saturating_sub(deep_a));
            if x == y {
                return deep_a.cmp(&deep_b);
            }
            while self.parent(x) != self.parent(y) {
                (x, y) = (self.parent(x), self.parent(y));
            }
        }
        let end = |at: Index, whole: Index| if at == whole { &[][..] } else { b"/" };
        let (name_x, name_y) = (self.name_of(x), self.name_of(y));
        let both = name_x.len().min(name_y.len());
        let (start_x, rest_x) = name_x.split_at_checked(both).unwrap_or_default();
        let (start_y, rest_y) = name_y.split_at_checked(both).unwrap_or_default();
        let (rest_x, rest_y) = (rest_x.iter().chain(end(x, a)), rest_y.iter().chain(end(y, b)));
        start_x.cmp(start_y).then_with(|| rest_x.cmp(rest_y))
    }

    fn depth(&self, index: Index) -> u32 {
        let (mut at, mut depth) = (index, 0);
        while at != ROOT {
            at = self.parent(at);
            depth += 1;
        }
        depth
    }

    fn above(&self, index: Index, levels: u32) -> Index {
        (0..levels).fold(index, |at, _| self.parent(at))
    }

    fn record(&self, index: Index) -> Option<Record> {
        self.records.get(index as usize).copied()
    }

    /// Before and after sorting it has a smaller index than what is in it.
    fn parent(&self, index: Index) -> Index {
        self.record(index).map_or(ROOT, |record| record.parent)
    }

    fn name(&self, record: Record) -> &[u8] {
        let start = record.name as usize;
        self.names.get(start..start + usize::from(record.name_len)).unwrap_or_default()
    }

    fn name_of(&self, index: Index) -> &[u8] {
        self.record(index).map_or(&[], |record| self.name(record))
    }

    pub(in crate::bundle) fn get(&self, index: Index) -> Option<Entry<'_>> {
        let record = self.record(index)?;
        let number = usize::try_from(record.number()).unwrap_or(usize::MAX);
        let what = match record.kind() {
            DIRECTORY => What::Directory,
            FILE => What::File { size: record.number() },
            LINK => {
                let start = record.name as usize + usize::from(record.name_len);
                What::Link { target: self.names.get(start..)?.get(..number)? }
            }
            SKIPPED => What::Skipped(self.reasons.get(number)?),
            _ => return None,
        };
        Some(Entry { mode: u32::from(record.mode_and_kind & !KIND), what })
    }

    /// All of them, in the order in which they are.
    pub(in crate::bundle) fn iter(&self) -> impl Iterator<Item = (Index, Entry<'_>)> {
        self.indices().filter_map(|index| Some((index, self.get(index)?)))
    }

    /// From the root; the root itself is empty.
    pub(in crate::bundle) fn path(&self, index: Index) -> Vec<u8> {
        let (mut at, mut names) = (index, vec![]);
        while at != ROOT {
            names.push(self.name_of(at));
            at = self.parent(at);
        }
        names.reverse();
        names.join(&b'/')
    }

    /// The first name, once sorted, of the file that the entry is a name of: for most itself.
    pub(in crate::bundle) fn first_name(&self, index: Index) -> Index {
        let found = self.first.binary_search_by_key(&index, |(name, _)| *name);
        found.ok().and_then(|at| self.first.get(at)).map_or(index, |(_, first)| *first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(entries: &Entries) -> Vec<String> {
        entries.indices().map(|index| String::from_utf8(entries.path(index)).unwrap()).collect()
    }

    fn directory(entries: &mut Entries, parent: Index, name: &str) -> Index {
        entries.add(parent, name.as_bytes(), 0o755, What::Directory).unwrap()
    }

    #[test]
    fn entries_are_sorted_by_the_bytes_of_their_paths() {
        let mut entries = Entries::new(None);
        let mut expected = vec![String::new()];
        let mut add = |entries: &mut Entries, parent: (Index, &str), name: &str| {
            let path = if parent.1.is_empty() { name.to_owned() } else { format!("{}/{name}", parent.1) };
            expected.push(path.clone());
            (directory(entries, parent.0, name), path)
        };
        let root = (ROOT, "");
        for name in ["a.b", "b", "a", "a-b", "ab", "a!", "\u{fc}", "~"] {
            let (at, path) = add(&mut entries, root, name);
            for below in ["z", "a", "-", "0"] {
                let (at, path) = add(&mut entries, (at, &path), below);
                add(&mut entries, (at, &path), "x");
            }
        }
        entries.sort();
        expected.sort();
        assert_eq!(paths(&entries), expected);
        for (index, path) in expected.iter().enumerate() {
            let index = Index::try_from(index).unwrap();
            assert_eq!(
                entries.path(entries.parent(index)),
                path.rsplit_once('/').map_or("", |(dir, _)| dir).as_bytes()
            );
        }
    }

    #[test]
    fn what_was_added_is_told_again() {
        let mut entries = Entries::new(None);
        let (socket, gone) = (Skip::no_output("a socket"), Skip::of_the_run("gone"));
        let dir = directory(&mut entries, ROOT, "d");
        let all = [
            (0o4755, What::File { size: u64::MAX - 7 }),
            (0o777, What::Link { target: b"../\xff" }),
            (0o777, What::Link { target: b"" }),
            (0, What::Skipped(&socket)),
            (0, What::Skipped(&gone)),
            (0, What::Skipped(&socket)),
            (0o1777, What::Directory),
        ];
        for (number, (mode, what)) in all.iter().enumerate() {
            entries.add(dir, number.to_string().as_bytes(), *mode, *what).unwrap();
        }
        assert_eq!(entries.reasons.len(), 2);
        entries.sort();
        let told: Vec<Entry> = entries.iter().map(|(_, entry)| entry).skip(2).collect();
        assert_eq!(told, all.map(|(mode, what)| Entry { mode, what }));
        assert_eq!(size_of::<Record>(), 20);
    }

    #[test]
    fn names_of_one_file_have_the_first_of_them() {
        let mut entries = Entries::new(None);
        for (name, file) in [("z", 1), ("b", 2), ("m", 1), ("a", 1), ("c", 2), ("alone", 3)] {
            let index = entries.add(ROOT, name.as_bytes(), 0o644, What::File { size: 1 }).unwrap();
            entries.share(index, FileId { device: 7, inode: file });
        }
        entries.sort();
        let first = entries.indices().map(|index| (entries.path(index), entries.path(entries.first_name(index))));
        let expected = [("", ""), ("a", "a"), ("alone", "alone"), ("b", "b"), ("c", "b"), ("m", "a"), ("z", "a")];
        assert_eq!(first.collect::<Vec<_>>(), expected.map(|(name, first)| (name.into(), first.into())));
    }

    #[test]
    fn directories_with_nothing_but_such_in_them_are_taken_out() {
        let mut entries = Entries::new(None);
        let [empty, outer, filled] = ["empty", "outer", "filled"].map(|name| directory(&mut entries, ROOT, name));
        let inner = directory(&mut entries, outer, "inner");
        directory(&mut entries, filled, "x");
        directory(&mut entries, ROOT, "other");
        entries.take_out_empty(vec![empty, outer, inner, filled]);
        assert!(!entries.has_at_root(b"outer") && entries.has_at_root(b"filled"));
        entries.sort();
        assert_eq!(paths(&entries), ["", "filled", "filled/x", "other"]);
    }

    #[test]
    fn as_many_are_taken_as_the_memory_has_room_for() {
        let mut entries = Entries::new(Some(memory_of(100, 1000)));
        let error = loop {
            if let Err(error) = entries.add(ROOT, b"0123456789", 0o644, What::File { size: 0 }) {
                break error;
            }
        };
        assert_eq!(entries.len(), 100);
        assert_eq!(error.kind, crate::bundle::ErrorKind::TooLarge);
        assert!(error.message.starts_with("more than 100 files, directories and links: the helper's memory"));
    }
}
