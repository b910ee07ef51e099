//! Which entry goes into which layer, and under which name.
//!
//! A layer's entries share the first bits of the sha256 of their paths: the groups are the leaves of a binary trie, in
//! which a group that is too large is split by the next bit. So the layout depends on nothing but paths and sizes, and
//! a file that changes, and grows, touches the group it is in and at most makes two of it. A file of more than a quarter
//! of a group is a layer of its own: so growth never splits a group twice, unless the hashes fall together very badly.
//! Names of one file (hard links) are one unit, under the first of them.
//!
//! No blob is larger than the store takes ([`MAX_BLOB`] unless the tree says otherwise): a file that is becomes parts, each
//! a layer with one entry, so that every layer is an archive for every tool (see [`super::large`]).
//!
//! The size of a group does not depend on the size of the tree, so that a tree that grows keeps its layers. There is one
//! exception: a manifest has a largest size. Trees of more than [`MOST_LAYERS`] layers (1.3 to 2.6 TB of files below
//! 64 MiB, or 10,000 larger files) have groups that are sixteen times as large, and so all other layers than before. Where
//! that is not enough, blobs are as much larger than the limit: it may be that the store takes them.

use super::entries::{Entries, Entry, Index, What};
use super::outside::{self, Outside};
use crate::bundle::Error;
use crate::bundle::digest::Digest;
use crate::bundle::format::tar_header::{self, Type};
use crate::bundle::untrusted::open_beneath;
use crate::names::bundle::{CONTENTS, ESCAPED, PARTS};
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use rustix::io::Errno;

/// Groups may be as large. The leaves of a trie are mostly between a half of it and all of it.
const LAYER_BYTES: u64 = 256 << 20;
/// A file of more bytes, with its header, is a layer of its own; as is one of more bytes without.
pub(in crate::bundle) const LARGE: u64 = LAYER_BYTES / 4;
/// What every registry takes, and what object stores copy in one go.
pub(in crate::bundle) const MAX_BLOB: u64 = 5 << 30;
/// Of the blob of a part: its header, its padding and the end of the archive; and what is left of the next larger blocks.
const PART_ROOM: u64 = 4096;
/// Registries accept manifests of up to 4 MiB; a layer takes about 170 bytes there, and 75 in the configuration.
const MOST_LAYERS: usize = 10_000;
/// By how much groups are larger in a tree that would have more layers: 4 GiB, so that
/// 20 TB are within the limit. Trees beyond that take the step again, rather than not to be saved.
const STEP: u64 = 16;
/// Layers of an image, the list of entries among them, that nodes mount. An image volume of 300 was tried; overlayfs
/// itself stops at 500. Docker stops at 127, but does not mount bundles.
const MOST_MOUNTABLE: usize = 400;

/// The number of a layer of content: there are at most [`MOST_LAYERS`].
type LayerNumber = u16;

/// A tree to be packed.
pub(in crate::bundle) struct Plan {
    pub(in crate::bundle) root: OwnedFd,
    pub(in crate::bundle) entries: Entries,
    /// The entries of the layers, one layer after the other, and in each in the order of their paths; every entry that is
    /// not skipped is in one layer.
    members: Vec<Index>,
    /// Where each layer ends there.
    ends: Vec<usize>,
    /// In which layer each entry is.
    layer_of: Vec<LayerNumber>,
    /// Entries that cannot have their own name, sorted.
    escaped: Vec<Index>,
    outside: Outside,
    /// Bytes.
    max_blob: u64,
}

impl Plan {
    /// `entries` are sorted. No blob has more bytes than `max_blob`; none: than [`MAX_BLOB`].
    pub(in crate::bundle) fn new(root: OwnedFd, entries: Entries, max_blob: Option<u64>) -> Result<Self, Error> {
        Self::with_layers_of(root, entries, LAYER_BYTES, max_blob.unwrap_or(MAX_BLOB))
    }

    /// A tree of which nothing is in a layer: see [`Plan::with_layers`]. `entries` are sorted.
    pub(in crate::bundle) fn without_layers(
        root: OwnedFd,
        entries: Entries,
        outside: Outside,
        max_blob: Option<u64>,
    ) -> Self {
        let escaped = entries.indices().filter(|index| is_taken_for_deletion(&entries.path(*index))).collect();
        let max_blob = max_blob.unwrap_or(MAX_BLOB).max(2 * PART_ROOM);
        Self { root, entries, members: vec![], ends: vec![], layer_of: vec![], escaped, outside, max_blob }
    }

    /// Has these entries in layers, each a list of entries in their order. All others are in none.
    pub(in crate::bundle) fn with_layers(mut self, layers: &[Vec<Index>]) -> Result<Self, Error> {
        self.members = Vec::with_capacity(layers.iter().map(Vec::len).sum());
        self.ends = vec![];
        self.layer_of = vec![0; self.entries.len() as usize];
        for (layer, number) in layers.iter().zip(0..) {
            self.add_layer(layer.iter().copied(), number)?;
        }
        Ok(self)
    }

    /// With another size of layers, for tests.
    fn with_layers_of(root: OwnedFd, entries: Entries, layer_bytes: u64, max_blob: u64) -> Result<Self, Error> {
        let mut plan = Self::without_layers(root, entries, Outside::default(), Some(max_blob));
        plan.cut(layer_bytes.min(plan.max_blob))?;
        Ok(plan)
    }

    /// The entries that are not below the root.
    pub(in crate::bundle) fn with_outside(self, outside: Outside) -> Self {
        Self { outside, ..self }
    }

    pub(in crate::bundle) fn layers(&self) -> usize {
        self.ends.len()
    }

    /// The entries of a layer, sorted.
    pub(in crate::bundle) fn layer(&self, number: usize) -> &[Index] {
        let start = number.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.ends.get(number).and_then(|end| self.members.get(start..*end)).unwrap_or_default()
    }

    /// In which layer an entry is; any, where it is in none.
    pub(in crate::bundle) fn layer_of(&self, index: Index) -> usize {
        self.layer_of.get(index as usize).copied().map_or(0, usize::from)
    }

    /// It is a file under its first name: of other names all is in the header.
    pub(in crate::bundle) fn has_content(&self, index: Index) -> bool {
        let is_file = self.entries.get(index).is_some_and(|entry| matches!(entry.what, What::File { .. }));
        is_file && self.entries.first_name(index) == index
    }

    /// It is not below the root.
    pub(in crate::bundle) fn is_outside(&self, path: &[u8]) -> bool {
        self.outside.contains_key(path)
    }

    /// The first name of the file that all of a layer is, if it is one.
    pub(in crate::bundle) fn one_file(&self, number: usize) -> Option<Index> {
        let names = self.layer(number);
        let first = *names.first()?;
        let is_file = matches!(self.entries.get(first)?.what, What::File { .. });
        (is_file && names.iter().all(|name| self.entries.first_name(*name) == first)).then_some(first)
    }

    /// A blob may have as many bytes.
    pub(in crate::bundle) fn max_blob(&self) -> u64 {
        self.max_blob
    }

    /// Each part of a file in parts has as many bytes of it, but for the last.
    pub(in crate::bundle) fn part_bytes(&self) -> u64 {
        part_bytes(self.max_blob)
    }

    /// What a part of a file is in its layer: the parts of one file sort as they are joined.
    pub(in crate::bundle) fn part_name(&self, index: Index, part: u64) -> Vec<u8> {
        let path = Digest::of(&self.entries.path(index)).hex();
        format!("{PARTS}/{path}/{part:05}").into_bytes()
    }

    /// Opens what an entry is, for reading.
    pub(in crate::bundle) fn open(&self, index: Index) -> Result<OwnedFd, Errno> {
        let path = self.entries.path(index);
        match self.outside.get(&*path) {
            Some(file) => outside::open(file),
            None => open_beneath(&self.root, &path, OFlags::empty()),
        }
    }

    /// Nothing has another name than its own, every user may read all of it, with no more rights than a copy gives, and
    /// its layers are few enough. What is not mountable is copied where it is an input.
    pub(in crate::bundle) fn is_mountable(&self) -> bool {
        const SPECIAL: u32 = 0o6000;
        let is_open = |entry: Entry<'_>| match entry.what {
            What::Directory => entry.mode & 0o555 == 0o555,
            What::File { .. } => entry.mode & 0o444 == 0o444,
            What::Link { .. } | What::Skipped { .. } => true,
        };
        let is_plain = |entry: Entry<'_>| matches!(entry.what, What::Link { .. }) || entry.mode & SPECIAL == 0;
        let has_few_layers = self.layers() < MOST_MOUNTABLE;
        let mut entries = self.entries.iter();
        has_few_layers && self.escaped.is_empty() && entries.all(|(_, entry)| is_open(entry) && is_plain(entry))
    }

    /// What goes before the content of an entry in its layer. `file` is how the content of a file is kept there.
    pub(in crate::bundle) fn header(&self, index: Index, file: Type<'_>) -> Vec<u8> {
        let Some(entry) = self.entries.get(index) else { return vec![] };
        let name = self.name(index);
        let first = self.entries.first_name(index);
        match entry.what {
            What::Directory => tar_header::header(&name, entry.mode, Type::Directory),
            What::Link { target } => tar_header::header(&name, entry.mode, Type::Symlink(target)),
            What::File { .. } if first != index => {
                tar_header::header(&name, entry.mode, Type::Hardlink(&self.name(first)))
            }
            What::File { .. } => tar_header::header(&name, entry.mode, file),
            What::Skipped { .. } => vec![],
        }
    }

    fn name(&self, index: Index) -> Vec<u8> {
        if let Ok(number) = self.escaped.binary_search(&index) {
            return format!("{ESCAPED}/{number}").into_bytes();
        }
        let path = self.entries.path(index);
        let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
        [CONTENTS.as_bytes(), slash, &path].concat()
    }

    fn cut(&mut self, mut layer_bytes: u64) -> Result<(), Error> {
        let mut units: Vec<Unit> = Vec::with_capacity(self.entries.len() as usize);
        for (index, entry) in self.entries.iter() {
            let first = self.entries.first_name(index);
            let content = match entry.what {
                What::Skipped { .. } => continue,
                What::File { size } if first == index => size,
                _ => 0,
            };
            let key = Digest::of(&self.entries.path(first)).start();
            let bytes = tar_header::cost(self.header(index, Type::File { size: content }).len(), content);
            units.push(Unit { key, bytes, entry: index, is_large: false });
        }
        units.sort_unstable_by_key(|unit| (unit.key, unit.entry));
        loop {
            tell_large(&mut units, layer_bytes / 4);
            let mut groups = vec![];
            let large = units.chunk_by(|a, b| a.key == b.key).filter(|names| names.iter().any(|name| name.is_large));
            groups.extend(large.map(|names| Group { units: names, is_large: true }));
            leaves(&units, 0, layer_bytes, &mut groups);
            let blobs = groups.iter().fold(0, |sum: u64, group| sum.saturating_add(group.blobs(self.max_blob)));
            if blobs <= MOST_LAYERS as u64 {
                groups.sort_unstable_by_key(Group::key);
                return self.keep(&groups);
            }
            layer_bytes = layer_bytes.saturating_mul(STEP);
            if layer_bytes > self.max_blob {
                self.max_blob = self.max_blob.saturating_mul(STEP);
            }
        }
    }

    fn keep(&mut self, groups: &[Group<'_>]) -> Result<(), Error> {
        self.members = Vec::with_capacity(groups.iter().map(|group| group.members().count()).sum());
        self.layer_of = vec![0; self.entries.len() as usize];
        for (group, number) in groups.iter().zip(0..) {
            self.add_layer(group.members().map(|unit| unit.entry), number)?;
        }
        Ok(())
    }

    fn add_layer(&mut self, entries: impl Iterator<Item = Index>, number: usize) -> Result<(), Error> {
        let start = self.members.len();
        self.members.extend(entries);
        let members = self.members.get_mut(start..).unwrap_or_default();
        members.sort_unstable();
        let number = LayerNumber::try_from(number).map_err(|_| Error::too_large("too many layers"))?;
        for entry in members {
            if let Some(layer) = self.layer_of.get_mut(*entry as usize) {
                *layer = number;
            }
        }
        self.ends.push(self.members.len());
        Ok(())
    }
}

struct Unit {
    /// The first bits of the sha256 of the path; the same for all names of a file. Two files that share them, which takes
    /// billions of files or an evil mind, stay together.
    key: u64,
    bytes: u64,
    entry: Index,
    /// A layer of its own, with the other names.
    is_large: bool,
}

/// What a layer is made of: of the units those that are large, or those that are not.
struct Group<'a> {
    units: &'a [Unit],
    is_large: bool,
}

impl Group<'_> {
    fn members(&self) -> impl Iterator<Item = &Unit> {
        self.units.iter().filter(|unit| unit.is_large == self.is_large)
    }

    fn key(&self) -> Option<u64> {
        self.members().next().map(|unit| unit.key)
    }

    /// How many blobs it is, as far as the sizes tell: of a sparse file less is kept than its size.
    fn blobs(&self, max_blob: u64) -> u64 {
        let bytes = self.members().fold(0, |sum: u64, unit| sum.saturating_add(unit.bytes));
        if self.is_large && bytes > max_blob { bytes.div_ceil(part_bytes(max_blob)) } else { 1 }
    }
}

/// A multiple of what file systems have in a block.
fn part_bytes(max_blob: u64) -> u64 {
    max_blob.saturating_sub(PART_ROOM) / PART_ROOM * PART_ROOM
}

fn tell_large(units: &mut [Unit], most: u64) {
    for names in units.chunk_by_mut(|a, b| a.key == b.key) {
        let bytes = names.iter().fold(0, |sum: u64, unit| sum.saturating_add(unit.bytes));
        for name in names {
            name.is_large = bytes > most;
        }
    }
}

fn leaves<'a>(units: &'a [Unit], bit: u32, layer_bytes: u64, into: &mut Vec<Group<'a>>) {
    let group = Group { units, is_large: false };
    if group.key().is_none() {
        return;
    }
    let bytes = group.members().fold(0, |sum: u64, unit| sum.saturating_add(unit.bytes));
    if bytes <= layer_bytes || bit >= u64::BITS {
        into.push(group);
        return;
    }
    let is_one = |unit: &Unit| unit.key >> (u64::BITS - 1 - bit) & 1 == 1;
    let (zero, one) = units.split_at(units.partition_point(|unit| !is_one(unit)));
    leaves(zero, bit + 1, layer_bytes, into);
    leaves(one, bit + 1, layer_bytes, into);
}

/// Tools delete files for such names when they unpack an image.
fn is_taken_for_deletion(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|component| component.starts_with(b".wh."))
}

#[cfg(test)]
mod tests {
    use super::super::entries::ROOT;
    use super::*;
    use crate::bundle::format::image;
    use crate::bundle::format::listing::{self, Listed, ListedAs};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// A name at the root, and a size. That it has slashes makes no difference here.
    type File = (String, u64);

    fn file(path: &str, size: u64) -> File {
        (path.to_owned(), size)
    }

    fn plan(files: Vec<File>) -> Plan {
        plan_with_layers_of(LAYER_BYTES, files)
    }

    fn size(plan: &Plan, index: Index) -> u64 {
        match plan.entries.get(index).unwrap().what {
            What::File { size } => size,
            _ => 0,
        }
    }

    /// Each layer as what it is made of.
    fn layers(plan: &Plan) -> BTreeSet<Vec<(Vec<u8>, u64)>> {
        let content = |layer: &[Index]| layer.iter().map(|&i| (plan.entries.path(i), size(plan, i))).collect();
        (0..plan.layers()).map(|number| content(plan.layer(number))).collect()
    }

    fn plan_with_layers_of(layer_bytes: u64, files: Vec<File>) -> Plan {
        let mut entries = Entries::new(None);
        for (path, size) in files {
            entries.add(ROOT, path.as_bytes(), 0o644, What::File { size }).unwrap();
        }
        plan_of(layer_bytes, MAX_BLOB, entries)
    }

    fn plan_of(layer_bytes: u64, max_blob: u64, mut entries: Entries) -> Plan {
        entries.sort();
        let root = crate::bundle::untrusted::open_mount(std::path::Path::new("/")).unwrap();
        Plan::with_layers_of(root, entries, layer_bytes, max_blob).unwrap()
    }

    /// How many layers a tree has, and how many of them are new when one file grows.
    fn grow_one(layer_bytes: u64, sizes: &[u64], which: usize, growth: u64) -> (usize, usize) {
        let entries = |grown: bool| -> Vec<File> {
            let size = |n: usize, size: u64| if grown && n == which { size + growth + 1 } else { size };
            sizes.iter().enumerate().map(|(n, old)| file(&format!("dir/{n}"), size(n, *old))).collect()
        };
        let (before, after) =
            (plan_with_layers_of(layer_bytes, entries(false)), plan_with_layers_of(layer_bytes, entries(true)));
        let (before, after) = (layers(&before), layers(&after));
        (before.len(), after.difference(&before).count())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]
        #[test]
        fn one_file_that_changes_and_grows_makes_two_new_layers_at_most(
            sizes in proptest::collection::vec(0u64..3 << 20, 1000),
            which in 0usize..1000,
            growth in 0u64..400 << 20,
        ) {
            let (_, new) = grow_one(LAYER_BYTES, &sizes, which, growth);
            prop_assert!(new <= 2, "{}", new);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5))]
        /// As above, with the groups of a tree of 100 GB: small files stand for it.
        #[test]
        fn in_a_tree_of_hundreds_of_layers_too(seed in 0u64..u64::MAX, which in 0usize..30_000, growth in 0u64..4000) {
            let size = |n: u64| seed.wrapping_add(n).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44;
            let sizes: Vec<u64> = (0..30_000).map(|n| size(n) % 3072).collect();
            let (all, new) = grow_one(256 << 10, &sizes, which, growth << 10);
            prop_assert!(all > 250, "{}", all);
            prop_assert!(new <= 2, "{} of {}", new, all);
        }
    }

    #[test]
    fn a_tree_that_grows_past_what_can_be_mounted_keeps_its_layers_and_says_so() {
        // Each is a layer of its own, and so is the root.
        let large = |count: usize| plan((1..count).map(|n| file(&format!("{n}"), 100 << 20)).collect());
        let (few, many) = (large(399), large(401));
        assert_eq!((few.layers(), few.is_mountable()), (399, true));
        assert_eq!((many.layers(), many.is_mountable()), (401, false));
        assert!(layers(&few).is_subset(&layers(&many)));
        assert!(!large(400).is_mountable(), "the list of entries is a layer too");
    }

    #[test]
    fn every_entry_is_in_one_layer_and_layers_have_bounds() {
        for (count, size, most) in [
            (0, 0, 1),
            (1, 1, 1),
            (1, 5 << 30, 2),
            (1000, 1 << 20, 9),
            (300, 2 << 30, 301),
            // 5 TB: more than 10,000 layers at first.
            (50_000, 100 << 20, 3000),
            (20_000, 5 << 30, 5000),
        ] {
            let plan = plan((0..count).map(|n| file(&format!("{n}"), size)).collect());
            let layers: Vec<&[Index]> = (0..plan.layers()).map(|number| plan.layer(number)).collect();
            let mut all: Vec<Index> = layers.concat();
            all.sort_unstable();
            assert_eq!(all, plan.entries.indices().collect::<Vec<_>>());
            assert!(layers.len() <= most, "{count} of {size}: {}", layers.len());
            assert!(layers.iter().all(|layer| !layer.is_empty() && layer.is_sorted()));
            let is_there = |index: &Index| plan.layer(plan.layer_of(*index)).contains(index);
            assert!(plan.entries.indices().step_by(97).all(|index| is_there(&index)));
        }
        let gib = plan((0..1000).map(|n| file(&format!("{n}"), 1 << 20)).collect());
        assert!((4..=9).contains(&gib.layers()), "{}", gib.layers());
    }

    #[test]
    fn blobs_have_a_bound_unless_a_manifest_could_not_name_them_all() {
        let plan = |max_blob: u64, sizes: &[u64]| {
            let mut entries = Entries::new(None);
            for (number, size) in sizes.iter().enumerate() {
                let what = What::File { size: *size };
                entries.add(ROOT, number.to_string().as_bytes(), 0o644, what).unwrap();
            }
            plan_of(LAYER_BYTES, max_blob, entries)
        };
        let mib = 1 << 20;
        let small = plan(mib, &[100_000; 1000]);
        for number in 0..small.layers() {
            let bytes: u64 = small.layer(number).iter().map(|index| size(&small, *index)).sum();
            assert!(bytes <= mib, "{bytes}");
        }
        assert_eq!(small.max_blob(), mib);
        assert_eq!(plan(mib, &[9000 * mib]).max_blob(), mib);
        assert_eq!(plan(mib, &[11_000 * mib]).max_blob(), 16 * mib);
        assert_eq!(plan(MAX_BLOB, &[40 << 40]).max_blob(), MAX_BLOB);
        assert_eq!(plan(MAX_BLOB, &[60 << 40]).max_blob(), 16 * MAX_BLOB);
        assert_eq!(part_bytes(MAX_BLOB), MAX_BLOB - PART_ROOM);
        assert_eq!(small.part_name(1, 7), format!("parts/{}/00007", Digest::of(b"0").hex()).into_bytes());
    }

    #[test]
    fn the_largest_manifest_is_one_that_registries_accept() {
        const LARGEST: usize = 4 << 20;
        let root = Listed { path: vec![], what: ListedAs::Directory { mode: 0o755 } };
        let list = listing::write(|| std::iter::once(root.clone()), &mut |_| Ok(())).unwrap();
        let config = image::config(&vec![Digest::of(b"x"); MOST_LAYERS + 1]);
        let layers = vec![(Digest::of(b"x"), u64::MAX); MOST_LAYERS];
        let manifest = image::manifest(&config, &layers, &list).unwrap();
        assert!(config.len() < LARGEST && manifest.len() < LARGEST, "{} {}", config.len(), manifest.len());
    }

    #[test]
    fn names_of_one_file_are_in_one_layer_after_the_first() {
        let mut entries = Entries::new(None);
        for n in 0..500 {
            entries.add(ROOT, format!("f{n}").as_bytes(), 0o644, What::File { size: 2 << 20 }).unwrap();
        }
        for name in ["z", "m/n", "a"] {
            let index = entries.add(ROOT, name.as_bytes(), 0o644, What::File { size: 200 << 20 }).unwrap();
            entries.share(index, (1, 2).into());
        }
        let plan = plan_of(LAYER_BYTES, MAX_BLOB, entries);
        let layer = (0..plan.layers()).map(|number| plan.layer(number)).find(|layer| layer.contains(&1)).unwrap();
        let names: Vec<Index> = layer.iter().copied().filter(|&index| plan.entries.first_name(index) == 1).collect();
        assert_eq!(names.len(), 3);
        assert_eq!(names[0], 1);
    }
}
