//! How much an input may be: entries, bytes, and memory for the lists of them.

use crate::bundle::{Error, Limits};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What may still be made; all clones share it.
#[derive(Clone, Debug)]
pub struct Budget {
    limits: Limits,
    /// Bytes of memory for what is still to be made; none: no limit.
    memory: Option<u64>,
    spent: Arc<Spent>,
}

#[derive(Debug, Default)]
struct Spent {
    entries: AtomicU64,
    bytes: AtomicU64,
    memory: AtomicU64,
}

/// Memory that is counted until this is dropped.
#[derive(Debug)]
pub(in crate::bundle) struct Held {
    spent: Arc<Spent>,
    bytes: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.spent.memory.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl From<Limits> for Budget {
    fn from(limits: Limits) -> Self {
        Self { limits, memory: None, spent: Arc::default() }
    }
}

impl Budget {
    /// The same with so much memory for the lists of what is still to be made.
    #[must_use]
    pub fn within_memory(self, bytes: Option<u64>) -> Self {
        Self { memory: bytes, ..self }
    }

    /// Counts memory, none at first: see [`Budget::hold`].
    pub(in crate::bundle) fn held(&self) -> Held {
        Held { spent: self.spent.clone(), bytes: 0 }
    }

    /// Counts more memory; an error if there is no more.
    pub(in crate::bundle) fn hold(&self, held: &mut Held, more: u64) -> Result<(), Error> {
        held.bytes += more;
        let all = self.spent.memory.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        match self.memory {
            Some(most) if all > most => {
                let (entries, most) = (self.spent.entries.load(Ordering::Relaxed), most >> 20);
                Err(Error::too_large(format!(
                    "more than {entries} files, directories and links: the helper's memory has {most} MiB for them"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Bytes that may be made in all.
    pub(crate) fn most_bytes(&self) -> u64 {
        self.limits.bytes
    }

    /// What was there before counts too.
    pub(crate) fn spend(&self, entries: u64, bytes: u64) {
        self.spent.entries.fetch_add(entries, Ordering::Relaxed);
        self.spent.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that were not made after all.
    pub(crate) fn give_back(&self, bytes: u64) {
        self.spent.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether so many bytes would fit now.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        let spent = self.spent.bytes.load(Ordering::Relaxed);
        spent.checked_add(bytes).is_some_and(|bytes| bytes <= self.limits.bytes)
    }

    pub(in crate::bundle) fn entry(&self) -> Result<(), Error> {
        let most = self.limits.entries;
        if self.spent.entries.fetch_add(1, Ordering::Relaxed) < most {
            return Ok(());
        }
        Err(Error::too_large(format!("more than {most} files, directories and links")))
    }

    /// Counts bytes before they are made.
    pub(crate) fn bytes(&self, more: u64) -> Result<(), Error> {
        let (most, before) = (self.limits.bytes, self.spent.bytes.fetch_add(more, Ordering::Relaxed));
        if before.checked_add(more).is_some_and(|bytes| bytes <= most) {
            return Ok(());
        }
        Err(Error::too_large(format!("files of more than {most} bytes")))
    }
}
