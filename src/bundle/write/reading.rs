//! Reading the files of a tree, which others may replace or remove meanwhile.

use super::cancel::Cancelled;
use super::content::{Seen, look};
use super::entries::Index;
use super::hang::{about_entry, ask};
use super::kept::Kept;
use super::layout::Plan;
use super::pace::Pace;
use super::skip::Skip;
use crate::bundle::format::tar_header::Type;
use rustix::io::Errno;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// So often a file is read that changes meanwhile.
pub(super) const MOST_READS: u32 = 4;
pub(super) const BETWEEN_READS: Duration = Duration::from_millis(50);

/// Why a layer was not read to its end.
#[derive(Debug)]
pub(in crate::bundle) enum Unread {
    /// This entry is not what it was when it was hashed.
    Changed(Index),
    /// This entry, which was read before, cannot be read any more.
    Failed(Index, Skip),
    /// Who takes the bytes takes no more.
    NotTaken,
}

/// What all who read a tree share.
#[derive(Debug)]
pub(in crate::bundle) struct Reading {
    pub(in crate::bundle) cancelled: Arc<Cancelled>,
    pub(in crate::bundle) kept: Kept,
    /// What is pushed is read no faster.
    pub(in crate::bundle) pace: Pace,
    /// How often one still waits for a file that cannot be opened. For all files together: whoever removes files, or lets
    /// nobody read them, may do it to very many.
    waits: AtomicU32,
}

impl Reading {
    pub(in crate::bundle) fn new(cancelled: Arc<Cancelled>, kept: Kept, pace: Pace) -> Self {
        Self { cancelled, kept, pace, waits: AtomicU32::new(MOST_READS) }
    }

    /// Waits for whoever replaces a file and has removed it first. `false`: it was waited enough.
    fn wait(&self) -> bool {
        let is_left = self.waits.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if is_left {
            std::thread::sleep(BETWEEN_READS);
        }
        is_left
    }
}

/// How a file is kept in a layer. `stored`: of a sparse one, the bytes of its map and its data.
pub(super) fn tar_type(size: u64, stored: Option<u64>) -> Type<'static> {
    stored.map_or(Type::File { size }, |stored| Type::Sparse { stored, size })
}

/// What it means that a file cannot be opened that was read before.
pub(super) fn unread(index: Index, skip: Skip) -> Unread {
    if skip.is_of_the_machine() { Unread::Failed(index, skip) } else { Unread::Changed(index) }
}

/// A regular file, or why there is none.
pub(super) fn open(plan: &Plan, index: Index) -> Result<(File, Seen), Skip> {
    about_entry(index);
    let file: File = ask(|| plan.open(index)).map_err(Skip::unreadable)?.into();
    let seen = ask(|| look(&file)).map_err(Skip::unreadable)?;
    Ok((file, seen.ok_or_else(|| Skip::unreadable(Errno::NXIO))?))
}

/// The same; waits for whoever replaces it and has removed it first.
pub(super) fn open_patiently(plan: &Plan, index: Index, reading: &Reading) -> Result<(File, Seen), Skip> {
    loop {
        match open(plan, index) {
            // A disk that fails is not asked again at once: whoever saves tries it all again, later.
            Err(unread) if unread.is_of_the_machine() || !reading.wait() => return Err(unread),
            Err(_) => {}
            Ok(opened) => return Ok(opened),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_files_that_are_gone_hold_a_save_up_no_longer_than_one() {
        let reading = Reading::new(Arc::default(), Kept::default(), Pace::default());
        let waits = (0..1000).filter(|_| reading.wait()).count();
        assert_eq!(waits, MOST_READS as usize);
    }
}
