//! A blob on its way into the registry: begun, sent, taken up where it was cut off, and ended with its digest, which need
//! not be known before.
//!
//! It is sent as Docker sends it, by one PATCH, so that every registry takes it; what is sent after a cut says where it
//! belongs (OCI distribution specification, "Pushing a blob in chunks").

use super::answer::{no_answer, refusal};
use super::auth::AHEAD_OF_A_BODY;
use super::meaning::Step;
use super::{ANSWER, CONFIRM, Repository, location};
use crate::bundle::Error;
use crate::bundle::digest::Digest;
use crate::bundle::retry::{Failure, Tries};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, RANGE};
use reqwest::{Response, StatusCode, Url};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a registry needs a second for when it moves a blob to its place.
const CONFIRMED_PER_SECOND: u64 = 50 << 20;

/// An upload that was begun.
pub(in crate::bundle) struct Upload<'a> {
    repository: &'a Repository,
    what: String,
    size: u64,
    /// Where the next request goes.
    target: Url,
    /// Bytes that the registry has.
    received: u64,
    /// The next bytes are not the first ones that are sent.
    is_taken_up: bool,
    /// It says how much it has.
    can_tell: bool,
    /// It was said once in vain that this is all.
    was_ended: bool,
}

impl Repository {
    /// Begins to push a blob of so many bytes.
    pub(in crate::bundle) async fn begin_upload(&self, size: u64) -> Result<Upload<'_>, Error> {
        let what = format!("push a blob of {size} bytes to {}", self.name);
        let target = self.upload_place(&what).await?;
        Ok(Upload {
            repository: self,
            what,
            size,
            target,
            received: 0,
            is_taken_up: false,
            can_tell: true,
            was_ended: false,
        })
    }

    async fn upload_place(&self, what: &str) -> Result<Url, Error> {
        let url = self.url("blobs/uploads/")?;
        let begin = async || self.send(what, |http| http.post(url.clone()).header(CONTENT_LENGTH, 0)).await;
        let started = self.as_who_may_write(begin).await?;
        location::target(started.url(), location::of(&started)).map_err(|failure| failure.of(what, &self.host).error)
    }
}

impl Upload<'_> {
    /// Bytes that the registry has: the next ones follow them.
    pub(in crate::bundle) fn received(&self) -> u64 {
        self.received
    }

    /// The registry has all of it.
    pub(in crate::bundle) fn is_sent(&self) -> bool {
        self.received == self.size
    }

    /// Sends the rest. `sent` counts the bytes that the body has given: when it stands still for too long, the try has
    /// failed.
    pub(in crate::bundle) async fn send(&mut self, body: reqwest::Body, sent: &AtomicU64) -> Result<(), Failure> {
        let (repository, left) = (self.repository, self.size.saturating_sub(self.received));
        // A registry that finds a token too old says so only when it has all of the body.
        repository.auth.renew(&repository.http, &repository.host, AHEAD_OF_A_BODY).await?;
        let request = repository.http.patch(self.target.clone()).header(CONTENT_TYPE, "application/octet-stream");
        let mut request = repository.authorized(&self.target, request).header(CONTENT_LENGTH, left).body(body);
        if self.is_taken_up {
            let range = format!("{}-{}", self.received, self.size.saturating_sub(1));
            request = request.header(CONTENT_RANGE, range);
        }
        let response = self.unless_stalled(request, sent, left).await?;
        match response.status() {
            status if status.is_success() => {}
            StatusCode::RANGE_NOT_SATISFIABLE => {
                self.can_tell = false;
                let error = format!("cannot {} at {}: it has another part of it", self.what, repository.host);
                return Err(Failure::transient(Error::unreachable(error)));
            }
            _ => return Err(self.refused(Step::Other, response).await),
        }
        self.go_to(&response);
        self.received = received(response.headers()).unwrap_or(self.size);
        if self.is_sent() {
            return Ok(());
        }
        let (host, has) = (&repository.host, self.received);
        let error = format!("cannot {} at {host}: it has only {has} of them", self.what);
        Err(Failure::transient(Error::unreachable(error)))
    }

    /// Finds out what the registry has after a try that failed. True: all of it, in its place. `digest` is asked for only when
    /// all was sent.
    pub(in crate::bundle) async fn look_again(&mut self, digest: impl FnOnce() -> Digest) -> Result<bool, Error> {
        if self.is_sent() {
            // The answer that it is there may have been lost.
            if self.repository.has_blob(&digest(), self.size).await? {
                return Ok(true);
            }
            if !std::mem::replace(&mut self.was_ended, true) {
                return Ok(false);
            }
        }
        self.take_up().await?;
        Ok(false)
    }

    /// Finds out how much the registry has. One that does not tell gets all of it anew, and so does one that says `0-0`:
    /// that is one byte or none, and a wrong guess is refused only when all of the body is there.
    async fn take_up(&mut self) -> Result<(), Error> {
        if let Some(received) = self.ask().await?.filter(|received| *received > 1) {
            (self.received, self.is_taken_up) = (received, true);
        } else {
            self.target = self.repository.upload_place(&self.what).await?;
            (self.received, self.is_taken_up) = (0, false);
        }
        Ok(())
    }

    /// None: the registry does not tell.
    async fn ask(&mut self) -> Result<Option<u64>, Error> {
        // Other hosts than the registry, to which it sends bodies, are object stores.
        if !self.can_tell || self.target.origin() != self.repository.origin.origin() {
            return Ok(None);
        }
        let mut tries = Tries::default();
        loop {
            match self.try_to_ask().await {
                Ok(received) => {
                    self.can_tell = received.is_some();
                    return Ok(received);
                }
                Err(failure) => tries.again(failure).await?,
            }
        }
    }

    async fn try_to_ask(&mut self) -> Result<Option<u64>, Failure> {
        let repository = self.repository;
        repository.auth.renew(&repository.http, &repository.host, Duration::ZERO).await?;
        let request = repository.authorized(&self.target, repository.http.get(self.target.clone()));
        let what = format!("ask how much there is of a blob that is pushed to {}", repository.name);
        let response = tokio::time::timeout(ANSWER, request.send()).await.map_err(|_| {
            let error = format!("cannot {what} at {}: no answer", repository.host);
            Failure::transient(Error::unreachable(error))
        })?;
        let response = response.map_err(|error| no_answer(&what, &repository.host, error))?;
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED || status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(self.refused(Step::Other, response).await);
        }
        let received = received(response.headers()).filter(|received| status.is_success() && *received <= self.size);
        if received.is_some() {
            self.go_to(&response);
        }
        Ok(received)
    }

    /// Says that it is all, and what it is.
    pub(in crate::bundle) async fn finish(&self, digest: &Digest) -> Result<(), Failure> {
        let repository = self.repository;
        let mut target = self.target.clone();
        target.query_pairs_mut().append_pair("digest", &digest.to_string());
        repository.auth.renew(&repository.http, &repository.host, Duration::ZERO).await?;
        let request = repository.authorized(&target, repository.http.put(target.clone())).header(CONTENT_LENGTH, 0);
        let response = self.unless_stalled(request, &AtomicU64::new(0), 0).await?;
        if response.status().is_success() { Ok(()) } else { Err(self.refused(Step::UploadEnd, response).await) }
    }

    async fn unless_stalled(
        &self,
        request: reqwest::RequestBuilder,
        sent: &AtomicU64,
        body: u64,
    ) -> Result<Response, Failure> {
        let host = &self.repository.host;
        tokio::select! {
            response = request.send() => response.map_err(|error| no_answer(&self.what, host, error)),
            () = stalled(sent, body, self.size) => {
                let error = format!("cannot {} at {host}: nothing moved for a while", self.what);
                Err(Failure::transient(Error::unreachable(error)))
            }
        }
    }

    async fn refused(&self, step: Step, response: Response) -> Failure {
        let is_token = response.status() == StatusCode::UNAUTHORIZED;
        let failure = refusal(step, &self.what, &self.repository.host, response).await;
        if !is_token {
            return failure;
        }
        // A token's life ended on the way.
        self.repository.auth.forget();
        Failure { transient: true, ..failure }
    }

    /// An answer may name another place for what follows.
    fn go_to(&mut self, response: &Response) {
        if let Some(location) = location::of(response)
            && let Ok(target) = location::target(response.url(), Some(location))
        {
            self.target = target;
        }
    }
}

/// `Range: 0-<last byte>`. None: it is not told.
fn received(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(RANGE)?.to_str().ok()?.trim();
    let last = range.strip_prefix("bytes=").unwrap_or(range).strip_prefix("0-")?;
    last.parse::<u64>().ok()?.checked_add(1)
}

/// Returns when `sent` has stood still for too long. A registry may take longer to answer when it has got everything: it
/// moves all of the blob, of which `body` are only the last bytes.
async fn stalled(sent: &AtomicU64, body: u64, size: u64) {
    let mut patience = Patience { body, size, last: 0, still: Duration::ZERO };
    loop {
        tokio::time::sleep(LOOK).await;
        if patience.ends(sent.load(Ordering::Relaxed)) {
            return;
        }
    }
}

/// Between two looks at what was sent.
const LOOK: Duration = Duration::from_secs(2);

/// For how long nothing may move of a body: the whole may take as long as it takes.
struct Patience {
    /// Bytes that are to be sent.
    body: u64,
    /// Of the blob.
    size: u64,
    /// What was sent by the last look.
    last: u64,
    /// Since when that is so.
    still: Duration,
}

impl Patience {
    /// Called every [`LOOK`] with what was sent by then.
    fn ends(&mut self, sent: u64) -> bool {
        self.still = if sent == self.last { self.still + LOOK } else { Duration::ZERO };
        self.last = sent;
        let confirm = CONFIRM + Duration::from_secs(self.size / CONFIRMED_PER_SECOND);
        self.still >= if sent >= self.body || sent == 0 { confirm } else { ANSWER }
    }
}

#[cfg(test)]
mod tests {
    use super::super::shapes;
    use super::*;
    use reqwest::header::HeaderValue;

    /// After how many seconds the patience with a body of a blob ends, within two days, of which so much is sent by a time.
    fn ends_after(body: u64, size: u64, sent: impl Fn(u64) -> u64) -> Option<u64> {
        let mut patience = Patience { body, size, last: 0, still: Duration::ZERO };
        (2..2 * 86_400).step_by(2).find(|seconds| patience.ends(sent(*seconds)))
    }

    #[test]
    fn an_upload_may_take_long_while_it_moves_and_not_when_it_stands_still() {
        const MIB: u64 = 1 << 20;
        let large = 100 << 30;
        assert_eq!(ends_after(large, large, |seconds| 1 + seconds / 50), None, "a byte every fifty seconds");
        let stands_at = |most: u64| move |seconds: u64| (seconds * MIB).min(most);
        assert_eq!(ends_after(large, large, stands_at(3600 * MIB)), Some(3660), "a minute after its last byte");
        // Whoever has all of it may need the longer to move it to its place the larger it is.
        for (size, patience) in [(2 * MIB, 300), (100 * MIB, 302), (5000 * MIB, 400)] {
            assert_eq!(ends_after(size, size, stands_at(size)), Some(size / MIB + patience), "{size}");
            assert_eq!(ends_after(1, size, |_| 1), Some(2 + patience), "{size}: the last byte alone was left to send");
            assert_eq!(ends_after(0, size, |_| 0), Some(patience), "{size}: it is only said that it is all");
        }
    }

    #[test]
    fn what_a_registry_has_is_read() {
        let of = |range: &'static str| received(&HeaderMap::from_iter([(RANGE, HeaderValue::from_static(range))]));
        assert_eq!(["0-0", "0-99", "bytes=0-99", " 0-9 "].map(of), [Some(1), Some(100), Some(100), Some(10)]);
        for range in ["", "0-", "1-9", "0-x", "0--1", "0-18446744073709551615"] {
            assert_eq!(of(range), None, "{range}");
        }
        assert_eq!(received(&HeaderMap::new()), None);
        // ECR answers a chunk with the code of an end.
        for exchange in shapes::of_step("upload-end").iter().filter(|exchange| exchange.expect["chunk"] == true) {
            let range = HeaderValue::from_str(exchange.header("Range").unwrap()).unwrap();
            assert_eq!(received(&HeaderMap::from_iter([(RANGE, range)])), Some(104_857_600), "{}", exchange.name());
        }
    }
}
