//! Which entry goes into which layer, and under which name.
//!
//! A layer's entries share the first bits of the sha256 of their paths: the groups are the leaves of a binary trie, in
//! which a group that is too large is split by the next bit. So the layout depends on nothing but paths and sizes, and
//! a file that changes, and grows, touches the group it is in and at most makes two of it. A file of more than a quarter
//! of a group is a layer of its own: so growth never splits a group twice, unless the hashes fall together very badly.
//! Names of one file (hard links) are one unit, under the first of them.
//!
//! The size of a group does not depend on the size of the tree, so that a tree that grows keeps its layers. There is one
//! exception: a manifest has a largest size. Trees of more than [`MOST_LAYERS`] layers (1.3 to 2.6 TB of files below
//! 64 MiB, or 10,000 larger files) have groups that are sixteen times as large, and so all other layers than before.

use super::outside::{self, Outside};
use super::walk::{Entry, What};
use crate::bundle::FileId;
use crate::bundle::digest::Digest;
use crate::bundle::format::tar_header::{self, Type};
use crate::bundle::untrusted::open_beneath;
use crate::names::bundle::{CONTENTS, ESCAPED};
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::collections::HashMap;

/// Groups may be as large. The leaves of a trie are mostly between a half of it and all of it.
const LAYER_BYTES: u64 = 256 << 20;
/// Registries accept manifests of up to 4 MiB; a layer takes about 170 bytes there, and 75 in the configuration.
const MOST_LAYERS: usize = 10_000;
/// By how much groups are larger in a tree that would have more layers: 4 GiB, so that
/// 20 TB are within the limit. Trees beyond that take the step again, rather than not to be saved.
const STEP: u64 = 16;
/// Layers of an image, the list of entries among them, that nodes mount. An image volume of 300 was tried; overlayfs
/// itself stops at 500. Docker stops at 127, but does not mount bundles.
const MOST_MOUNTABLE: usize = 400;

/// A tree to be packed.
pub(in crate::bundle) struct Plan {
    pub(in crate::bundle) root: OwnedFd,
    pub(in crate::bundle) entries: Vec<Entry>,
    /// Indices of entries, in the order of their paths; each entry that is not skipped is in one layer.
    pub(in crate::bundle) layers: Vec<Vec<usize>>,
    /// The first name of every file that has several.
    first: HashMap<FileId, usize>,
    /// Entries that cannot have their own name, sorted.
    escaped: Vec<usize>,
    outside: Outside,
}

impl Plan {
    pub(in crate::bundle) fn new(root: OwnedFd, entries: Vec<Entry>) -> Self {
        Self::with_layers_of(root, entries, LAYER_BYTES)
    }

    /// With another size of layers, for tests.
    pub(in crate::bundle) fn with_layers_of(root: OwnedFd, entries: Vec<Entry>, layer_bytes: u64) -> Self {
        let mut first = HashMap::new();
        let mut escaped = vec![];
        for (index, entry) in entries.iter().enumerate() {
            if let What::File { shared: Some(id), .. } = entry.what {
                first.entry(id).or_insert(index);
            }
            if is_taken_for_deletion(&entry.path) {
                escaped.push(index);
            }
        }
        let mut plan = Self { root, entries, layers: vec![], first, escaped, outside: Outside::default() };
        plan.layers = plan.cut(layer_bytes);
        plan
    }

    /// The entries that are not below the root.
    pub(in crate::bundle) fn with_outside(self, outside: Outside) -> Self {
        Self { outside, ..self }
    }

    /// Opens what an entry is, for reading.
    pub(in crate::bundle) fn open(&self, index: usize) -> Result<OwnedFd, Errno> {
        let path = self.entries.get(index).map_or(&[][..], |entry| &entry.path);
        match self.outside.get(path) {
            Some(file) => outside::open(file),
            None => open_beneath(&self.root, path, OFlags::empty()),
        }
    }

    /// Nothing has another name than its own, every user may read all of it, with no more rights than a copy gives, and
    /// its layers are few enough. What is not mountable is copied where it is an input.
    pub(in crate::bundle) fn is_mountable(&self) -> bool {
        const SPECIAL: u32 = 0o6000;
        let is_open = |entry: &Entry| match entry.what {
            What::Directory => entry.mode & 0o555 == 0o555,
            What::File { .. } => entry.mode & 0o444 == 0o444,
            What::Link { .. } | What::Skipped { .. } => true,
        };
        let is_plain = |entry: &Entry| matches!(entry.what, What::Link { .. }) || entry.mode & SPECIAL == 0;
        let has_few_layers = self.layers.len() < MOST_MOUNTABLE;
        has_few_layers && self.escaped.is_empty() && self.entries.iter().all(|entry| is_open(entry) && is_plain(entry))
    }

    /// The first name of the file that the entry is a name of; another entry than itself means a hard link.
    pub(in crate::bundle) fn first_name(&self, index: usize) -> usize {
        match self.entries.get(index).map(|entry| &entry.what) {
            Some(What::File { shared: Some(id), .. }) => self.first.get(id).copied().unwrap_or(index),
            _ => index,
        }
    }

    /// What goes before the content of an entry in its layer.
    pub(in crate::bundle) fn header(&self, index: usize, size: u64) -> Vec<u8> {
        let Some(entry) = self.entries.get(index) else { return vec![] };
        let name = self.name(index, entry);
        let first = self.first_name(index);
        match (&entry.what, self.entries.get(first)) {
            (What::Directory, _) => tar_header::header(&name, entry.mode, Type::Directory),
            (What::Link { target }, _) => tar_header::header(&name, entry.mode, Type::Symlink(target)),
            (What::File { .. }, Some(to)) if first != index => {
                tar_header::header(&name, entry.mode, Type::Hardlink(&self.name(first, to)))
            }
            (What::File { .. }, _) => tar_header::header(&name, entry.mode, Type::File { size }),
            (What::Skipped { .. }, _) => vec![],
        }
    }

    fn name(&self, index: usize, entry: &Entry) -> Vec<u8> {
        match self.escaped.binary_search(&index) {
            Ok(number) => format!("{ESCAPED}/{number}").into_bytes(),
            Err(_) if entry.path.is_empty() => CONTENTS.as_bytes().to_vec(),
            Err(_) => [CONTENTS.as_bytes(), b"/", &entry.path].concat(),
        }
    }

    fn cut(&self, mut layer_bytes: u64) -> Vec<Vec<usize>> {
        let mut units: Vec<Unit> = vec![];
        for (entry, index) in self.entries.iter().zip(0..) {
            let first = self.first_name(index);
            let content = match entry.what {
                What::Skipped { .. } => continue,
                What::File { size, .. } if first == index => size,
                _ => 0,
            };
            let Some(key) = self.entries.get(first).map(|first| Digest::of(&first.path)) else { continue };
            units.push(Unit { key, bytes: tar_header::cost(self.header(index, content).len(), content), entry: index });
        }
        units.sort_unstable_by_key(|unit| (unit.key, unit.entry));
        loop {
            let mut groups = vec![];
            let (large, others): (Vec<Unit>, Vec<Unit>) = split_large(&units, layer_bytes / 4);
            groups.extend(large.chunk_by(|a, b| a.key == b.key));
            leaves(&others, 0, layer_bytes, &mut groups);
            if groups.len() <= MOST_LAYERS {
                groups.sort_unstable_by_key(|group| group.first().map(|unit| unit.key));
                return groups.into_iter().map(sorted_entries).collect();
            }
            layer_bytes = layer_bytes.saturating_mul(STEP);
        }
    }
}

#[derive(Clone, Copy)]
struct Unit {
    /// The same for all names of a file.
    key: Digest,
    bytes: u64,
    entry: usize,
}

fn split_large(units: &[Unit], most: u64) -> (Vec<Unit>, Vec<Unit>) {
    let (mut large, mut others) = (vec![], vec![]);
    for names in units.chunk_by(|a, b| a.key == b.key) {
        let part = if bytes_of(names) > most { &mut large } else { &mut others };
        part.extend_from_slice(names);
    }
    (large, others)
}

fn bytes_of(units: &[Unit]) -> u64 {
    units.iter().fold(0, |sum, unit| sum.saturating_add(unit.bytes))
}

fn leaves<'a>(units: &'a [Unit], bit: usize, layer_bytes: u64, into: &mut Vec<&'a [Unit]>) {
    if units.is_empty() {
        return;
    }
    if bytes_of(units) <= layer_bytes || bit >= 256 {
        into.push(units);
        return;
    }
    let (zero, one) = units.split_at(units.partition_point(|unit| !unit.key.bit(bit)));
    leaves(zero, bit + 1, layer_bytes, into);
    leaves(one, bit + 1, layer_bytes, into);
}

fn sorted_entries(units: &[Unit]) -> Vec<usize> {
    let mut entries: Vec<usize> = units.iter().map(|unit| unit.entry).collect();
    entries.sort_unstable();
    entries
}

/// Tools delete files for such names when they unpack an image.
fn is_taken_for_deletion(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|component| component.starts_with(b".wh."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::format::image;
    use crate::bundle::format::listing::{self, Listed, ListedAs};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn file(path: &str, size: u64) -> Entry {
        Entry { path: path.as_bytes().into(), mode: 0o644, what: What::File { size, shared: None } }
    }

    fn plan(entries: Vec<Entry>) -> Plan {
        plan_with_layers_of(LAYER_BYTES, entries)
    }

    /// Each layer as what it is made of.
    fn layers(plan: &Plan) -> BTreeSet<Vec<(Vec<u8>, u64)>> {
        let size = |index: usize| match plan.entries[index].what {
            What::File { size, .. } => size,
            _ => 0,
        };
        let content = |layer: &Vec<usize>| layer.iter().map(|&i| (plan.entries[i].path.to_vec(), size(i))).collect();
        plan.layers.iter().map(content).collect()
    }

    fn plan_with_layers_of(layer_bytes: u64, mut entries: Vec<Entry>) -> Plan {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let root = crate::bundle::untrusted::open_mount(std::path::Path::new("/")).unwrap();
        Plan::with_layers_of(root, entries, layer_bytes)
    }

    /// How many layers a tree has, and how many of them are new when one file grows.
    fn grow_one(layer_bytes: u64, sizes: &[u64], which: usize, growth: u64) -> (usize, usize) {
        let entries = |grown: bool| -> Vec<Entry> {
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
        // Each is a layer of its own.
        let large = |count: usize| plan((0..count).map(|n| file(&format!("{n}"), 100 << 20)).collect());
        let (few, many) = (large(399), large(401));
        assert_eq!((few.layers.len(), few.is_mountable()), (399, true));
        assert_eq!((many.layers.len(), many.is_mountable()), (401, false));
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
            let mut all: Vec<usize> = plan.layers.iter().flatten().copied().collect();
            all.sort_unstable();
            assert_eq!(all, (0..plan.entries.len()).collect::<Vec<_>>());
            assert!(plan.layers.len() <= most, "{count} of {size}: {}", plan.layers.len());
            assert!(plan.layers.iter().all(|layer| !layer.is_empty() && layer.is_sorted()));
        }
        let gib = plan((0..1000).map(|n| file(&format!("{n}"), 1 << 20)).collect());
        assert!((4..=9).contains(&gib.layers.len()), "{}", gib.layers.len());
    }

    #[test]
    fn the_largest_manifest_is_one_that_registries_accept() {
        const LARGEST: usize = 4 << 20;
        let root = Listed { path: vec![], what: ListedAs::Directory { mode: 0o755 } };
        let list = listing::write(|| std::iter::once(root.clone())).unwrap();
        let config = image::config(&vec![Digest::of(b"x"); MOST_LAYERS + 1]);
        let layers = vec![(Digest::of(b"x"), u64::MAX); MOST_LAYERS];
        let manifest = image::manifest(&config, &layers, &list).unwrap();
        assert!(config.len() < LARGEST && manifest.len() < LARGEST, "{} {}", config.len(), manifest.len());
    }

    #[test]
    fn names_of_one_file_are_in_one_layer_after_the_first() {
        let shared = |path: &str| Entry {
            path: path.as_bytes().into(),
            mode: 0o644,
            what: What::File { size: 200 << 20, shared: Some((1, 2).into()) },
        };
        let mut entries: Vec<Entry> = (0..500).map(|n| file(&format!("f{n}"), 2 << 20)).collect();
        entries.extend(["a", "m/n", "z"].map(shared));
        let plan = plan(entries);
        let layer = plan.layers.iter().find(|layer| layer.contains(&0)).unwrap();
        let names: Vec<usize> = layer.iter().copied().filter(|&index| plan.first_name(index) == 0).collect();
        assert_eq!(names.len(), 3);
        assert_eq!(names[0], 0);
    }
}
