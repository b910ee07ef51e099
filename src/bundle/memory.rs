//! What there may be millions of is held in little memory.

/// Makes room for some more. Vectors that double have up to half of their memory to spare: large ones here have an eighth.
pub(super) fn make_room<T>(vector: &mut Vec<T>, more: usize) {
    let is_large = vector.len() > 4096;
    if is_large && vector.capacity() - vector.len() < more {
        vector.reserve_exact(more.max(vector.len() / 8));
    }
}
