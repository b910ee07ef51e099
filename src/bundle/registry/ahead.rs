//! The rest of a long download by several connections, in order. Object stores behind registries bound what one
//! connection gets, and a large file comes from nowhere else.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::Repository;
use super::blob_stream::{BlobStream, Range};
use crate::bundle::Error;

/// What one request asks for, in bytes. So much of each is in memory.
const PART: u64 = 4 << 20;
/// Parts that are loaded at once.
const PARTS: usize = 4;
/// Less than this is left to one connection.
pub(super) const WORTH_IT: u64 = 64 << 20;

/// One in the process: others are loaded beside it, each by one connection.
static TURN: Semaphore = Semaphore::const_new(1);

pub(super) struct Ahead<'a> {
    repository: &'a Repository,
    rest: VecDeque<Range>,
    loading: FuturesOrdered<BoxFuture<'a, Result<Vec<Bytes>, Error>>>,
    ready: std::vec::IntoIter<Bytes>,
    _turn: SemaphorePermit<'static>,
}

impl<'a> Ahead<'a> {
    /// What a registry with ranges is asked for from now on; none: another download has the turn.
    pub(super) fn begin(repository: &'a Repository, rest: impl FnOnce() -> VecDeque<Range>) -> Option<Self> {
        let turn = TURN.try_acquire().ok()?;
        let (loading, ready) = (FuturesOrdered::new(), Vec::new().into_iter());

        Some(Self { repository, rest: rest(), loading, ready, _turn: turn })
    }

    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(chunk) = self.ready.next() {
                return Ok(Some(chunk));
            }
            while self.loading.len() < PARTS
                && let Some(part) = self.next_part()
            {
                self.loading.push_back(Box::pin(load(self.repository, part)));
            }
            match self.loading.next().await {
                Some(chunks) => self.ready = chunks?.into_iter(),
                None => return Ok(None),
            }
        }
    }

    fn next_part(&mut self) -> Option<Range> {
        let Range { digest, start, end } = self.rest.pop_front()?;
        let until = end.min(start.saturating_add(PART));
        if until < end {
            self.rest.push_front(Range { digest, start: until, end });
        }
        Some(Range { digest, start, end: until })
    }
}

async fn load(repository: &Repository, part: Range) -> Result<Vec<Bytes>, Error> {
    let mut stream = BlobStream::new(repository, part);
    let mut chunks = vec![];
    while let Some(chunk) = stream.chunk().await? {
        chunks.push(chunk);
    }
    Ok(chunks)
}
