//! How much there is in the working directory: counted by a child, left for the main process.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Counting ends here, with what was counted: the ending is more important.
pub(super) const COUNT: Duration = Duration::from_mins(1);

/// Regular files and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Measured {
    pub(super) files: u64,
    pub(super) bytes: u64,
}
