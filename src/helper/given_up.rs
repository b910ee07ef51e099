//! When what the command waits for is given up: noted by whoever keeps the time, for those who ask how far it is.

use crate::helper::error::log_failure;
use crate::helper::markers::{mark_json, read_json};
use crate::names::files;
use crate::runner::since_epoch_ms;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// What holds a command up before it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    /// All inputs, however far they are.
    Staging,
    /// Inputs that cannot be had now.
    Inputs,
    /// The store, which refuses the output.
    Store,
}

impl Awaited {
    fn mark(self) -> String {
        let what = match self {
            Self::Staging => "staging",
            Self::Inputs => "inputs",
            Self::Store => "store",
        };
        format!("{}{what}", files::GIVEN_UP_AT)
    }
}

/// It is given up when this time has passed.
pub(super) fn note(bin: &Path, awaited: Awaited, left: Duration) {
    if let Some(at) = SystemTime::now().checked_add(left).map(since_epoch_ms) {
        log_failure(mark_json(bin, &awaited.mark(), &at));
    }
}

/// When it is given up, in milliseconds since 1970; none: nobody waits for it.
pub(super) fn noted(bin: &Path, awaited: Awaited) -> Option<i64> {
    read_json(bin, &awaited.mark())
}
