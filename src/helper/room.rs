//! How much memory a child has for the entries of a tree.

use crate::helper::child::memory_of_a_child;
use crate::runner::Paths;

/// What a child needs whatever the tree is: its threads with their stacks, buffers, connections and the program's own.
const CHILD_BYTES: u64 = 32 << 20;

/// Bytes that entries may take; none: there is no limit.
pub(in crate::helper) fn for_entries(paths: &Paths) -> Option<u64> {
    memory_of_a_child(&paths.cgroup).map(|bytes| bytes.saturating_sub(CHILD_BYTES).max(bytes / 4))
}
