//! Parts of blobs, or all of them, in order: by one connection, or by several where there is much to come.

use super::Repository;
use super::ahead::{self, Ahead};
use super::blob_stream::{BlobStream, Range};
use crate::bundle::Error;
use crate::bundle::digest::Digest;
use bytes::Bytes;

pub(in crate::bundle) struct Download<'a> {
    repository: &'a Repository,
    begin: BlobStream<'a>,
    /// Loads the rest, once that is known to be long.
    ahead: Option<Ahead<'a>>,
}

impl<'a> Download<'a> {
    /// Bytes from `start` to before `end`.
    pub(in crate::bundle) fn new(repository: &'a Repository, digest: Digest, start: u64, end: u64) -> Self {
        let begin = BlobStream::new(repository, Range { digest, start, end });
        Self { repository, begin, ahead: None }
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
        if self.ahead.is_none() && self.begin.has_ranges() && self.begin.left() >= ahead::WORTH_IT {
            self.ahead = Ahead::begin(self.repository, || self.begin.take_rest());
        }
        match &mut self.ahead {
            Some(ahead) => ahead.chunk().await,
            None => self.begin.chunk().await,
        }
    }
}
