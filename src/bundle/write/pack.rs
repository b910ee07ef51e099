//! The bytes of a layer, read from the tree: once to learn its digest, and again, the same, for every try to push it.

use super::buffer::{Buffer, READ};
use super::content::{CopyEnd, Seen, Stamp, copy, map_of, zeros};
use super::entries::Index;
use super::large;
use super::layer::{Blob, Layer, SparseFile, StoredFile};
use super::layout::Plan;
use super::reading::{BETWEEN_READS, MOST_READS, Reading, Unread, open, open_patiently, tar_type, unread};
use super::skip::Skip;
use crate::bundle::digest::Digester;
use crate::bundle::format::sparse::SparseMap;
use crate::bundle::format::tar_header::{self, Type};
use crate::bundle::{Error, ErrorKind};
use std::collections::BTreeMap;

/// Reads a layer for its digest. `given_up` names entries that are left out, and why.
pub(in crate::bundle) fn hash(
    plan: &Plan,
    number: usize,
    given_up: &BTreeMap<Index, Skip>,
    reading: &Reading,
) -> Result<Layer, Error> {
    if given_up.is_empty()
        && let Some(index) = plan.one_file(number)
    {
        if let Some(layer) = reading.kept.layer(plan, number) {
            return Ok(layer);
        }
        let keeping = reading.kept.begin(plan, number);
        return match large::hash(plan, number, index, reading)? {
            Ok(layer) => {
                if let Some(keeping) = keeping {
                    reading.kept.end(&keeping, &layer);
                }
                Ok(layer)
            }
            Err(skip) => hash(plan, number, &BTreeMap::from([(index, skip)]), reading),
        };
    }
    let members = plan.layer(number);
    let many = members.iter().filter(|index| plan.has_content(**index)).count();
    let mut size = 0;
    let mut layer = Layer {
        number,
        blobs: vec![],
        files: Vec::with_capacity(many),
        stamps: Vec::with_capacity(many),
        sparse: vec![],
        skipped: vec![],
    };
    let mut digester = Digester::default();
    let mut buffer = Buffer::default();
    for &index in members {
        reading.cancelled.check()?;
        let first = plan.entries.first_name(index);
        if let Some(skip) = given_up.get(&first).or_else(|| layer.skip(first)) {
            let skip = skip.clone();
            layer.skipped.push((index, skip));
        } else if plan.has_content(index) {
            match hash_file(plan, index, &mut digester, &mut size, &mut buffer, reading)? {
                Ok(Hashed { file, stamp, sparse }) => {
                    layer.files.push(file);
                    layer.stamps.push(stamp);
                    layer.sparse.extend(sparse);
                }
                Err(skip) => layer.skipped.push((index, skip)),
            }
        } else {
            let header = plan.header(index, Type::File { size: 0 });
            digester.update(&header);
            size += header.len() as u64;
        }
    }
    digester.update(&tar_header::END);
    size += tar_header::END.len() as u64;
    layer.blobs = vec![Blob { digest: digester.finish(), size, part: None }];
    Ok(layer)
}

/// A file that was read.
struct Hashed {
    file: StoredFile,
    stamp: Stamp,
    sparse: Option<SparseFile>,
}

/// The inner result is where the file is in the layer, or why it is not.
fn hash_file(
    plan: &Plan,
    index: Index,
    digester: &mut Digester,
    position: &mut u64,
    buffer: &mut Buffer,
    reading: &Reading,
) -> Result<Result<Hashed, Skip>, Error> {
    for _ in 0..MOST_READS {
        let (file, seen) = match open_patiently(plan, index, reading) {
            Ok(opened) => opened,
            Err(skip) => return Ok(Err(skip)),
        };
        let map = match map_of(&file, &seen, &reading.cancelled)? {
            Ok(map) => map,
            Err(skip) => return Ok(Err(skip)),
        };
        let Seen { size, stamp, .. } = seen;
        let header = plan.header(index, tar_type(size, map.as_ref().map(SparseMap::stored)));
        let stored = map.as_ref().map_or(size, SparseMap::stored);
        let (mut all, mut own) = (digester.clone(), Digester::default());
        all.update(&header);
        let copied = copy(&file, &seen, map.as_ref(), buffer, |bytes| {
            all.update(&bytes);
            own.update(&bytes);
            reading.cancelled.check()
        });
        match copied {
            Ok(()) => {}
            Err(CopyEnd::Changed) => {
                std::thread::sleep(BETWEEN_READS);
                continue;
            }
            Err(CopyEnd::Failed(error)) => return Ok(Err(Skip::unreadable(error))),
            Err(CopyEnd::Sink(error)) => return Err(error),
        }
        let padding = tar_header::padding(stored);
        all.update(zeros(padding));
        *digester = all;
        let offset = *position + header.len() as u64;
        *position = offset + stored + padding;
        let file = StoredFile { entry: index, offset, size, digest: own.finish() };
        let sparse = map.map(|map| SparseFile { entry: index, stored, map: Some(map) });
        return Ok(Ok(Hashed { file, stamp, sparse }));
    }
    Ok(Err(Skip::of_the_run("kept changing while it was read")))
}

/// Gives the bytes of a hashed layer to `take`, which says whether it takes more.
pub(in crate::bundle) fn read(plan: &Plan, layer: &Layer, mut take: impl FnMut(&[u8]) -> bool) -> Result<(), Unread> {
    let mut buffer = Buffer::default();
    // Small entries go out together.
    let mut pending: Vec<u8> = Vec::with_capacity(READ);
    let taken = |taken: bool| if taken { Ok(()) } else { Err(Unread::NotTaken) };
    let mut files = layer.files.iter().zip(&layer.stamps).peekable();
    let mut skipped = layer.skipped.iter().map(|(index, _)| *index).peekable();
    for &index in plan.layer(layer.number) {
        if skipped.next_if_eq(&index).is_some() {
            continue;
        }
        if let Some((stored, known)) = files.next_if(|(stored, _)| stored.entry == index) {
            let sparse = layer.sparse(index);
            pending.extend(plan.header(index, tar_type(stored.size, sparse.map(|sparse| sparse.stored))));
            let (file, seen) = open(plan, index).map_err(|skip| unread(index, skip))?;
            if (seen.size, seen.stamp) != (stored.size, *known) {
                return Err(Unread::Changed(index));
            }
            // The map is forgotten only when the layer is not read any more.
            let map = sparse.map(|sparse| sparse.map.as_ref().ok_or(Unread::Changed(index))).transpose()?;
            let copied = copy(&file, &seen, map, &mut buffer, |bytes| {
                pending.extend_from_slice(&bytes);
                let full = pending.len() >= READ;
                let more = !full || take(&pending);
                if full {
                    pending.clear();
                }
                if more { Ok(()) } else { Err(Error::new(ErrorKind::Local, "not taken")) }
            });
            copied.map_err(|end| match end {
                CopyEnd::Changed => Unread::Changed(index),
                CopyEnd::Failed(error) => Unread::Failed(index, Skip::unreadable(error)),
                CopyEnd::Sink(_) => Unread::NotTaken,
            })?;
            pending.extend_from_slice(zeros(tar_header::padding(sparse.map_or(stored.size, |sparse| sparse.stored))));
        } else {
            pending.extend(plan.header(index, Type::File { size: 0 }));
        }
        if pending.len() >= READ {
            taken(take(&pending))?;
            pending.clear();
        }
    }
    pending.extend_from_slice(&tar_header::END);
    taken(take(&pending))
}
