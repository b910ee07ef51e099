//! What is read of files. A buffer that was sent comes back and is filled again: each page of a new one is a fault, and for
//! a GiB there were up to 62,000.

use bytes::Bytes;
use std::mem;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a file that are read at once.
pub(super) const READ: usize = 256 << 10;

type Returned = Arc<Mutex<Vec<Vec<u8>>>>;

/// The bytes that were read last.
#[derive(Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    returned: Returned,
}

impl Buffer {
    /// Empties it; it has room for [`READ`] bytes then.
    pub(super) fn emptied(&mut self) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = lock(&self.returned).pop().unwrap_or_default();
        }
        self.bytes.clear();
        self.bytes.reserve_exact(READ);
        &mut self.bytes
    }

    /// Takes the bytes out, without a copy. Their memory comes back when nobody needs them any more.
    pub(super) fn take(&mut self) -> Bytes {
        Bytes::from_owner(Lent { bytes: mem::take(&mut self.bytes), returned: self.returned.clone() })
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

struct Lent {
    bytes: Vec<u8>,
    returned: Returned,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        lock(&self.returned).push(mem::take(&mut self.bytes));
    }
}

fn lock(returned: &Returned) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
    returned.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_nobody_needs_it_and_is_never_changed_before() {
        let mut buffer = Buffer::default();
        let mut places = vec![];
        let mut kept = vec![];
        for number in 0..6u8 {
            buffer.emptied().push(number);
            let bytes = buffer.take();
            places.push(bytes.as_ptr());
            // Of two that are needed at the same time, each has its own memory.
            kept.push(bytes);
            if kept.len() == 2 {
                assert_eq!(kept.iter().map(|bytes| bytes[0]).collect::<Vec<_>>(), [number - 1, number]);
                kept.clear();
            }
        }
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 2);
    }
}
