//! Parts of blobs, or all of them, in order: by one connection, or by several where there is much to come and one is slow.

use super::Repository;
use super::ahead::{self, Ahead};
use super::blob_stream::{BlobStream, Range};
use crate::bundle::Error;
use crate::bundle::digest::Digest;
use bytes::Bytes;
use std::time::{Duration, Instant};

/// One connection shows with so many bytes what it gives.
const SAMPLE: u64 = 16 << 20;
/// Bytes a second with which one connection is enough: for many small requests a registry needs twice as much of a CPU.
const ENOUGH: u64 = 256 << 20;

pub(in crate::bundle) struct Download<'a> {
    repository: &'a Repository,
    begin: BlobStream<'a>,
    /// Of `begin`: bytes, and how long they were waited for.
    came: (u64, Duration),
    /// Loads the rest, once that is known to be long, and one connection to be slow.
    ahead: Option<Ahead<'a>>,
}

impl<'a> Download<'a> {
    /// Bytes from `start` to before `end`.
    pub(in crate::bundle) fn new(repository: &'a Repository, digest: Digest, start: u64, end: u64) -> Self {
        let begin = BlobStream::new(repository, Range { digest, start, end });
        Self { repository, begin, came: (0, Duration::ZERO), ahead: None }
    }

    /// Behind them those of another blob, from `start` to before `end`.
    pub(in crate::bundle) fn then(mut self, digest: Digest, start: u64, end: u64) -> Self {
        self.begin.then(Range { digest, start, end });
        self
    }

    pub(in crate::bundle) fn host(&self) -> &str {
        self.repository.host()
    }

    /// The next bytes; none when all were given.
    pub(in crate::bundle) async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        if self.ahead.is_none() && self.begin.has_ranges() && self.begin.left() >= ahead::WORTH_IT && is_slow(self.came)
        {
            self.ahead = Ahead::begin(self.repository, || self.begin.take_rest());
        }
        if let Some(ahead) = &mut self.ahead {
            return ahead.chunk().await;
        }
        let asked = Instant::now();
        let chunk = self.begin.chunk().await?;
        let (bytes, waited) = &mut self.came;
        *bytes += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        *waited += asked.elapsed();
        Ok(chunk)
    }
}

/// So many bytes came while they were waited for so long: what reads them may be slow itself.
fn is_slow((bytes, waited): (u64, Duration)) -> bool {
    let millis = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
    bytes >= SAMPLE && bytes.saturating_mul(1000) < ENOUGH.saturating_mul(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_slow_by_what_it_gave_while_it_was_waited_for() {
        let is_slow = |mib: u64, millis| is_slow((mib << 20, Duration::from_millis(millis)));
        assert!(is_slow(16, 64) && is_slow(1024, 5000));
        assert!(!is_slow(16, 60) && !is_slow(1024, 3000), "fast");
        assert!(!is_slow(15, 9000), "too little to tell");
    }
}
