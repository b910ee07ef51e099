//! Parts of blobs, or all of them, as one stream that goes on where it was cut off.

use super::answer::no_answer;
use super::{ANSWER, Repository, range_header};
use crate::bundle::digest::Digest;
use crate::bundle::retry::{Failure, Resumptions};
use crate::bundle::{Error, ErrorKind};
use bytes::{Buf, Bytes};
use reqwest::header::RANGE;
use reqwest::{Response, StatusCode};
use std::collections::VecDeque;

pub(in crate::bundle) struct Download<'a> {
    repository: &'a Repository,
    digest: Digest,
    next: u64,
    end: u64,
    /// What follows.
    then: VecDeque<(Digest, u64, u64)>,
    response: Option<Response>,
    /// A registry without ranges begins at the begin.
    to_skip: u64,
    resumptions: Resumptions,
}

impl<'a> Download<'a> {
    /// Bytes from `start` to before `end`.
    pub(in crate::bundle) fn new(repository: &'a Repository, digest: Digest, start: u64, end: u64) -> Self {
        let resumptions = Resumptions::default();
        Self { repository, digest, next: start, end, then: VecDeque::new(), response: None, to_skip: 0, resumptions }
    }

    /// Behind them those of another blob, from `start` to before `end`.
    pub(in crate::bundle) fn then(mut self, digest: Digest, start: u64, end: u64) -> Self {
        self.then.push_back((digest, start, end));
        self
    }

    pub(in crate::bundle) fn host(&self) -> &str {
        self.repository.host()
    }

    /// The next bytes; none when all were given.
    pub(in crate::bundle) async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            while self.next >= self.end {
                let Some((digest, start, end)) = self.then.pop_front() else { return Ok(None) };
                (self.digest, self.next, self.end, self.response) = (digest, start, end, None);
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
        let (what, host) = (format!("read {}", self.digest), self.repository.host());
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
        let mut chunk = chunk.ok_or_else(|| broken(&format!("it ended at byte {} of {}", self.next, self.end)))?;
        self.response = Some(response);
        let skip = chunk.len().min(usize::try_from(self.to_skip).unwrap_or(usize::MAX));
        chunk.advance(skip);
        self.to_skip -= skip as u64;
        chunk.truncate(usize::try_from(self.end - self.next).unwrap_or(usize::MAX));
        self.next += chunk.len() as u64;
        Ok(chunk)
    }

    async fn open(&mut self) -> Result<Response, Error> {
        let url = self.repository.url(&format!("blobs/{}", self.digest))?;
        let range = range_header(self.next, self.end)?;
        let what = format!("read {}", self.digest);
        // 416, the blob ends before, is an error that stays.
        let response = self.repository.send(&what, |http| http.get(url.clone()).header(RANGE, range.clone())).await?;
        self.to_skip = if response.status() == StatusCode::PARTIAL_CONTENT { 0 } else { self.next };
        Ok(response)
    }
}
