//! Parts of blobs, or all of them, by one connection, as one stream that goes on where it was cut off.

use super::answer::no_answer;
use super::{ANSWER, Repository, range_header};
use crate::bundle::digest::Digest;
use crate::bundle::retry::{Failure, Resumptions};
use crate::bundle::{Error, ErrorKind};
use bytes::{Buf, Bytes};
use reqwest::header::RANGE;
use reqwest::{Response, StatusCode};
use std::collections::VecDeque;

/// Bytes of a blob; `end` is not among them.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub(super) digest: Digest,
    pub(super) start: u64,
    pub(super) end: u64,
}

pub(super) struct BlobStream<'a> {
    repository: &'a Repository,
    /// What is still to come of the blob that is being read.
    now: Range,
    /// What follows.
    then: VecDeque<Range>,
    response: Option<Response>,
    /// The registry has given a part when it was asked for one.
    has_ranges: bool,
    /// A registry without ranges begins at the begin.
    to_skip: u64,
    resumptions: Resumptions,
}

impl<'a> BlobStream<'a> {
    pub(super) fn new(repository: &'a Repository, now: Range) -> Self {
        Self {
            repository,
            now,
            then: VecDeque::new(),
            response: None,
            has_ranges: false,
            to_skip: 0,
            resumptions: Resumptions::default(),
        }
    }

    /// This follows.
    pub(super) fn then(&mut self, range: Range) {
        self.then.push_back(range);
    }

    /// The registry gives parts where it is asked for them: there has been one.
    pub(super) fn has_ranges(&self) -> bool {
        self.has_ranges
    }

    /// How many bytes are still to come.
    pub(super) fn left(&self) -> u64 {
        let bytes = |range: &Range| range.end.saturating_sub(range.start);
        bytes(&self.now) + self.then.iter().map(bytes).sum::<u64>()
    }

    /// What is still to come, which this one will not give any more.
    pub(super) fn take_rest(&mut self) -> VecDeque<Range> {
        self.response = None;
        let rest = std::iter::once(self.now).chain(self.then.drain(..)).collect();
        self.now.start = self.now.end;
        rest
    }

    /// The next bytes; none when all were given.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            while self.now.start >= self.now.end {
                let Some(next) = self.then.pop_front() else { return Ok(None) };
                (self.now, self.response) = (next, None);
            }
            match self.try_chunk().await {
                Ok(chunk) if chunk.is_empty() => {}
                Ok(chunk) => {
                    self.resumptions.came(chunk.len() as u64);
                    return Ok(Some(chunk));
                }
                Err(failure) => {
                    self.response = None;
                    self.resumptions.again(failure).await?;
                }
            }
        }
    }

    async fn try_chunk(&mut self) -> Result<Bytes, Failure> {
        let (what, host) = (format!("read {}", self.now.digest), self.repository.host());
        let mut response = match self.response.take() {
            Some(response) => response,
            None => self.open().await?,
        };
        let broken = |why: &str| {
            Failure::transient(Error::new(ErrorKind::Unreachable, format!("cannot {what} at {host}: {why}")))
        };
        let chunk = tokio::time::timeout(ANSWER, response.chunk()).await;
        let chunk = chunk.map_err(|_| broken("nothing came for a while"))?;
        let chunk = chunk.map_err(|error| no_answer(&what, host, error))?;
        let mut chunk =
            chunk.ok_or_else(|| broken(&format!("it ended at byte {} of {}", self.now.start, self.now.end)))?;
        self.response = Some(response);
        let skip = chunk.len().min(usize::try_from(self.to_skip).unwrap_or(usize::MAX));
        chunk.advance(skip);
        self.to_skip -= skip as u64;
        chunk.truncate(usize::try_from(self.now.end - self.now.start).unwrap_or(usize::MAX));
        self.now.start += chunk.len() as u64;
        Ok(chunk)
    }

    async fn open(&mut self) -> Result<Response, Error> {
        let url = self.repository.url(&format!("blobs/{}", self.now.digest))?;
        let range = range_header(self.now.start, self.now.end)?;
        let what = format!("read {}", self.now.digest);
        // 416, the blob ends before, is an error that stays.
        let response = self.repository.send(&what, |http| http.get(url.clone()).header(RANGE, range.clone())).await?;
        self.has_ranges = response.status() == StatusCode::PARTIAL_CONTENT;
        self.to_skip = if self.has_ranges { 0 } else { self.now.start };
        Ok(response)
    }
}
