//! What of a tree is in the registry already, and what is to be pushed, in which blob.

use std::time::SystemTime;

use super::known::{Known, KnownFile};
use super::survey::{Marks, Survey};
use crate::bundle::Error;
use crate::bundle::digest::{Digest, Digester};
use crate::bundle::write::buffer::Buffer;
use crate::bundle::write::content::{Part, copy};
use crate::bundle::write::entries::{Index, What};
use crate::bundle::write::kept::{SETTLED, State};
use crate::bundle::write::layout::{LARGE, Plan};
use crate::bundle::write::reading::open;

/// A file of more bytes has a blob of its own, so that nothing else is pushed again when it changes.
const OWN_BLOB: u64 = 1 << 20;
/// Of files that are together in a blob.
const TOGETHER: u64 = LARGE;
/// Registries accept manifests of 4 MiB; a layer takes about 170 bytes there.
const MOST_BLOBS: usize = 9_000;

/// What is to be done with a tree.
pub(super) struct Sorted {
    /// When it was looked at.
    pub(super) at: SystemTime,
    pub(super) states: Vec<Option<State>>,
    pub(super) marks: Marks,
    /// By entries: what is in the registry.
    pub(super) reused: Vec<Option<KnownFile>>,
}

/// The plan has what is to be pushed in its layers.
pub(super) fn sort(survey: Survey, known: &Known) -> Result<(Plan, Sorted), Error> {
    let Survey { at, plan, states, marks, is_relied_on } = survey;
    let mut buffer = Buffer::default();
    let mut reused = Vec::with_capacity(states.len());
    for (index, state) in plan.entries.indices().zip(&states) {
        let same = state.and_then(|state| {
            let known = known.file(state.id())?;
            let is_settled = state.quiet_until(at) >= SETTLED;
            let is_same = is_same(&plan, index, &state, known, is_relied_on, &mut buffer);
            is_same.then_some(KnownFile { state, is_settled, ..*known })
        });
        reused.push(same);
    }
    let are_worth_it = known.are_worth_it(reused.iter().flatten().copied());
    let many = are_worth_it.iter().filter(|worth| **worth).count();
    for file in &mut reused {
        *file = file.filter(|file| many <= MOST_BLOBS / 2 && are_worth_it.get(file.blob) == Some(&true));
    }
    let layers = layers(&plan, &reused);
    Ok((plan.with_layers(&layers)?, Sorted { at, states, marks, reused }))
}

/// Whether an entry's content is what is known. Only where its state leaves that open it is read.
fn is_same(
    plan: &Plan,
    index: Index,
    state: &State,
    known: &KnownFile,
    is_relied_on: bool,
    buffer: &mut Buffer,
) -> bool {
    if is_relied_on && known.is_settled && *state == known.state {
        return true;
    }
    let may_be_same = !state.seems_written_since(&known.state) && known.stored.is_none();
    may_be_same && digest(plan, index, buffer) == Some(known.digest)
}

/// None: it cannot be read, or changes meanwhile.
fn digest(plan: &Plan, index: Index, buffer: &mut Buffer) -> Option<Digest> {
    let (file, seen) = open(plan, index).ok()?;
    let mut digester = Digester::default();
    let sink = |bytes: Part| {
        digester.update(&bytes);
        Ok(())
    };
    copy(&file, &seen, None, buffer, sink).ok()?;
    Some(digester.finish())
}

/// What is to be pushed, and what of it together.
fn layers(plan: &Plan, reused: &[Option<KnownFile>]) -> Vec<Vec<Index>> {
    let is_new = |index: &Index| plan.has_content(*index) && matches!(reused.get(*index as usize), Some(None));
    let size = |index: Index| match plan.entries.get(index).map(|entry| entry.what) {
        Some(What::File { size }) => size,
        _ => 0,
    };
    let new: Vec<(Index, u64)> = plan.entries.indices().filter(is_new).map(|index| (index, size(index))).collect();
    let mut own = OWN_BLOB;
    while new.iter().filter(|(_, size)| *size > own).count() > MOST_BLOBS / 2 {
        own *= 2;
    }
    let mut layers: Vec<Vec<Index>> = vec![];
    let (mut together, mut bytes) = (vec![], 0u64);
    for (index, size) in new {
        if size > own {
            layers.push(vec![index]);
            continue;
        }
        together.push(index);
        bytes = bytes.saturating_add(size);
        if bytes >= TOGETHER.max(own) {
            layers.push(std::mem::take(&mut together));
            bytes = 0;
        }
    }
    layers.extend((!together.is_empty()).then_some(together));
    layers
}
