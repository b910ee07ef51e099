//! A repository of a registry: manifests and blobs by the OCI distribution protocol, with patience and without waiting
//! for ever.
//!
//! It speaks HTTP by itself because what is needed of an answer is more than crates for the protocol hand out: how long
//! to wait (`Retry-After`), whether a referrer was understood (`OCI-Subject`), and why a token was refused.

mod ahead;
mod answer;
mod auth;
mod blob_stream;
mod download;
mod location;
mod login;
mod meaning;
mod said;
#[cfg(test)]
mod shapes;
mod upload;

pub(super) use download::Download;
pub(super) use upload::Upload;

use super::digest::{Digest, Digester};
use super::retry::{Failure, Tries};
use super::{Access, Error, ErrorKind};
use crate::oci::Reference;
use answer::{no_answer, refusal};
use bytes::Bytes;
use login::{logins_for, logins_to_write};
use meaning::Step;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

const CONNECT: Duration = Duration::from_secs(10);
/// Between two bytes of an answer, and until its first.
const ANSWER: Duration = Duration::from_mins(1);
/// A registry may move a blob of a GiB to its store before it confirms.
const CONFIRM: Duration = Duration::from_mins(5);
/// The specification has registries take 4 MiB.
const LARGEST_MANIFEST: usize = 4 << 20;

const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// What is done in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Pull,
    Push,
}

/// A repository, and how it is reached.
#[derive(Debug)]
pub(super) struct Repository {
    host: String,
    name: String,
    /// `scheme://host`.
    purpose: Purpose,
    origin: Url,
    http: reqwest::Client,
    auth: auth::Auth,
}

/// A manifest as it came.
pub(super) struct Fetched {
    pub(super) body: Bytes,
    pub(super) digest: Digest,
}

impl Repository {
    pub(super) fn new(reference: &Reference, access: &Access, purpose: Purpose) -> Result<Self, Error> {
        let host = match reference.host.as_str() {
            "docker.io" => "registry-1.docker.io",
            host => host,
        };
        let insecure = access.registries.insecure.contains(&reference.host);
        let origin = format!("{}://{host}", if insecure { "http" } else { "https" });
        let origin = Url::parse(&origin).map_err(|error| Error::invalid(format!("{host:?} is no host: {error}")))?;
        let (logins, actions) = match purpose {
            Purpose::Pull => (logins_for(access, reference)?, "pull"),
            Purpose::Push => (logins_to_write(access, reference)?, "pull,push"),
        };
        Ok(Self {
            host: reference.host.clone(),
            name: reference.repository.clone(),
            purpose,
            origin,
            http: http_client(access, insecure)?,
            auth: auth::Auth::new(logins, &reference.repository, actions),
        })
    }

    /// For messages.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    fn url(&self, rest: &str) -> Result<Url, Error> {
        let path = format!("/v2/{}/{rest}", self.name);
        self.origin.join(&path).map_err(|error| Error::invalid(format!("{path:?} is no path of a URL: {error}")))
    }

    /// A manifest or index by tag or digest. One that has another digest than was asked for is refused.
    pub(super) async fn manifest(&self, reference: &str) -> Result<Fetched, Error> {
        let what = format!("read the manifest {}:{reference}", self.name);
        let body = self.document(&what, self.url(&format!("manifests/{reference}"))?).await?;
        let digest = Digest::of(&body);
        if Digest::parse(reference).is_ok_and(|asked| asked != digest) {
            return Err(Error::invalid(format!("cannot {what} at {}: it gave {digest}", self.host)));
        }
        Ok(Fetched { body, digest })
    }

    /// The index of what refers to a manifest, of this type at least, where the registry has such a list.
    pub(super) async fn referrers(&self, subject: &Digest, artifact_type: &str) -> Result<Bytes, Error> {
        let mut url = self.url(&format!("referrers/{subject}"))?;
        url.query_pairs_mut().append_pair("artifactType", artifact_type);
        self.document(&format!("list what refers to {subject} in {}", self.name), url).await
    }

    /// A manifest or an index.
    async fn document(&self, what: &str, url: Url) -> Result<Bytes, Error> {
        let mut tries = Tries::default();
        loop {
            let request = |http: &reqwest::Client| http.get(url.clone()).header(ACCEPT, ACCEPTED);
            let response = self.send(what, request).await?;
            match answer::whole(response, LARGEST_MANIFEST, what, &self.host).await {
                Ok(body) => return Ok(body),
                Err(failure) => tries.again(failure).await?,
            }
        }
    }

    /// Returns the subject that the registry says it has understood, if it has. A tag that cannot be written twice and
    /// already is of this manifest is success: the answer to an earlier try may have been lost.
    pub(super) async fn put_manifest(
        &self,
        reference: &str,
        media_type: &str,
        body: &Bytes,
    ) -> Result<Option<String>, Error> {
        let what = format!("write the manifest {}:{reference}", self.name);
        let url = self.url(&format!("manifests/{reference}"))?;
        let request =
            |http: &reqwest::Client| http.put(url.clone()).header(CONTENT_TYPE, media_type).body(body.clone());
        let put = async || self.send_within(CONFIRM, &what, request).await;
        let error = match self.as_who_may_write(put).await {
            Ok(response) => {
                let subject = response.headers().get("oci-subject").and_then(|subject| subject.to_str().ok());
                return Ok(subject.map(str::to_owned));
            }
            Err(error) => error,
        };
        let can_be_there = matches!(
            error.kind,
            ErrorKind::Denied | ErrorKind::Invalid | ErrorKind::Unreachable | ErrorKind::UnknownHost
        );
        match if can_be_there { self.manifest(reference).await } else { return Err(error) } {
            Ok(there) if there.digest == Digest::of(body) => Ok(None),
            _ => Err(error),
        }
    }

    /// Whether the registry has a blob of this digest and size. One that does not let us ask says so of what it has not:
    /// the answer is no, and an attempt to push tells more.
    pub(super) async fn has_blob(&self, digest: &Digest, size: u64) -> Result<bool, Error> {
        let url = self.url(&format!("blobs/{digest}"))?;
        match self.send(&format!("look for a blob of {}", self.name), |http| http.head(url.clone())).await {
            Ok(answer) => {
                // Not the length of the answer's body, which a HEAD has none of.
                let length = answer.headers().get(CONTENT_LENGTH).and_then(|length| told_size(length.to_str().ok()?));
                Ok(length.is_none_or(|length| length == size))
            }
            Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Denied) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Pushes a blob that fits into memory, unless it is there. Returns how many bytes went out.
    pub(super) async fn push_small(&self, blob: &Bytes) -> Result<u64, Error> {
        let digest = Digest::of(blob);
        let size = blob.len() as u64;
        if self.has_blob(&digest, size).await? {
            return Ok(0);
        }
        let mut upload = self.begin_upload(size).await?;
        let mut tries = Tries::default();
        loop {
            let rest = blob.slice(usize::try_from(upload.received()).unwrap_or(blob.len()).min(blob.len())..);
            let sent = AtomicU64::new(rest.len() as u64);
            let pushed = async {
                if !upload.is_sent() {
                    upload.send(rest.into(), &sent).await?;
                }
                upload.finish(&digest).await
            };
            match pushed.await {
                Ok(()) => return Ok(size),
                Err(failure) => tries.again(failure).await?,
            }
            if upload.look_again(|| digest).await? {
                return Ok(size);
            }
        }
    }

    /// Begins an upload and cancels it, in one try.
    pub(super) async fn try_upload(&self) -> Result<(), Error> {
        let what = format!("start an upload to {}", self.name);
        let url = self.url("blobs/uploads/")?;
        let start = |http: &reqwest::Client| http.post(url.clone()).header(CONTENT_LENGTH, 0);
        let begin = async || self.send_once(ANSWER, &what, start).await.map_err(|failure| failure.error);
        let started = self.as_who_may_write(begin).await?;
        let target = location::target(started.url(), location::of(&started))
            .map_err(|failure| failure.of(&what, &self.host).error)?;
        // Not every registry can cancel one; they all forget those that nobody goes on with.
        let _ = tokio::time::timeout(CONNECT, self.authorized(&target, self.http.delete(target.clone())).send()).await;
        Ok(())
    }

    fn authorized(&self, target: &Url, request: RequestBuilder) -> RequestBuilder {
        // CVE-2020-15157: no credentials to hosts that a registry names.
        if target.origin() == self.origin.origin() { self.auth.apply(request) } else { request }
    }

    /// A part of a blob, small enough for memory. It must be all there.
    pub(super) async fn blob_part(&self, digest: &Digest, start: u64, length: u64) -> Result<Bytes, Error> {
        let mut download = Download::new(self, *digest, start, start.saturating_add(length));
        let mut part = vec![];
        while let Some(chunk) = download.chunk().await? {
            part.extend_from_slice(&chunk);
        }
        Ok(part.into())
    }

    /// Sends until there is an answer that is success, or an error that stays.
    async fn send(&self, what: &str, make: impl Fn(&reqwest::Client) -> RequestBuilder) -> Result<Response, Error> {
        self.send_within(ANSWER, what, make).await
    }

    async fn send_within(
        &self,
        limit: Duration,
        what: &str,
        make: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Response, Error> {
        let mut tries = Tries::default();
        loop {
            match self.send_once(limit, what, &make).await {
                Ok(response) => return Ok(response),
                Err(failure) => tries.again(failure).await?,
            }
        }
    }

    /// One try, as each login that there is.
    async fn send_once(
        &self,
        limit: Duration,
        what: &str,
        make: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Response, Failure> {
        loop {
            let login = self.auth.login_number();
            match self.send_as_one(limit, what, &make).await {
                Err(failure) if self.is_for_another(&failure) && self.auth.try_next(login) => {}
                answer => return answer,
            }
        }
    }

    /// Whoever may push need not be let look for a blob: only what a write is answered counts, see
    /// [`Self::as_who_may_write`].
    fn is_for_another(&self, failure: &Failure) -> bool {
        self.purpose == Purpose::Pull && failure.error.kind == ErrorKind::Denied
    }

    /// Tries to write as each login that there is, and goes on as the first that may.
    async fn as_who_may_write<T>(&self, write: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
        loop {
            let login = self.auth.login_number();
            match write().await {
                Err(error) if error.kind == ErrorKind::Denied && self.auth.try_next(login) => {}
                Ok(done) => {
                    self.auth.stay(login);
                    return Ok(done);
                }
                refused => return refused,
            }
        }
    }

    async fn send_as_one(
        &self,
        limit: Duration,
        what: &str,
        make: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Response, Failure> {
        let send = || async {
            let response = tokio::time::timeout(limit, self.auth.apply(make(&self.http)).send()).await;
            let late = || Error::new(ErrorKind::Unreachable, format!("cannot {what} at {}: no answer", self.host));
            response.map_err(|_| Failure::transient(late()))?.map_err(|error| no_answer(what, &self.host, error))
        };
        self.auth.renew(&self.http, &self.host, Duration::ZERO).await?;
        let mut response = send().await?;
        // A host that the registry redirects to is told no password, wherever it would like to have it.
        let is_the_registry = |response: &Response| response.url().origin() == self.origin.origin();
        if response.status() == StatusCode::UNAUTHORIZED && is_the_registry(&response) {
            let (asked_by, headers) = (response.url().clone(), response.headers().clone());
            let is_answered = self.auth.answer(&self.http, &self.host, &asked_by, &headers).await?;
            // It may be that only the token is not taken any more.
            let transient = !is_answered && self.auth.forget();
            if is_answered {
                response = send().await?;
            }
            if response.status() == StatusCode::UNAUTHORIZED {
                let said = refusal(Step::Other, what, &self.host, response).await;
                if said.error.kind != ErrorKind::Denied {
                    return Err(said);
                }
                let error = self.auth.denied(&self.host);
                let message = format!("{}: {}", error.message, said.error.message);
                return Err(Failure { error: Error { message, ..error }, transient, after: said.after });
            }
        }
        if response.status().is_success() {
            return Ok(response);
        }
        let failure = refusal(Step::Other, what, &self.host, response).await;
        if failure.error.kind == ErrorKind::Denied && failure.transient {
            self.auth.forget();
        }
        Err(failure)
    }
}

fn http_client(access: &Access, insecure: bool) -> Result<reqwest::Client, Error> {
    // An error means that somebody has installed it before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: reqwest::Error| Error::new(ErrorKind::Local, format!("cannot {what}: {error}")).caused_by(error)
    };
    let redirects = reqwest::redirect::Policy::custom(move |attempt| {
        if attempt.previous().len() > 10 {
            attempt.error("too many redirections")
        } else if !insecure && attempt.url().scheme() != "https" {
            attempt.error("a redirection to unencrypted HTTP")
        } else {
            attempt.follow()
        }
    });
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("bundlerun/", env!("CARGO_PKG_VERSION")))
        .redirect(redirects)
        .connect_timeout(CONNECT)
        .tcp_keepalive(Duration::from_secs(30))
        // Blobs compete for nothing on connections of their own, and registries differ less in HTTP/1.1.
        .http1_only();
    if let Some(pem) = &access.registries.ca {
        let roots = reqwest::Certificate::from_pem_bundle(pem.as_bytes());
        builder = builder.tls_certs_merge(roots.map_err(failed("read the certificate authorities of registries"))?);
    }
    builder.build().map_err(failed("set up HTTP"))
}

/// The size of a blob, by the length in the answer to a HEAD; none: it is not told. A proxy that compresses (that of Quay)
/// says 0 of all of them, and nothing that is asked for is empty.
fn told_size(length: &str) -> Option<u64> {
    length.parse().ok().filter(|length| *length > 0)
}

/// Blobs are hashed while they pass.
pub(super) fn verified(digester: Digester, expected: &Digest, host: &str) -> Result<(), Error> {
    let got = digester.finish();
    if got == *expected {
        return Ok(());
    }
    Err(Error::invalid(format!("{host} gave {got} instead of {expected}")))
}

/// A header's value for a range of bytes; `end` is not in it.
fn range_header(start: u64, end: u64) -> Result<HeaderValue, Error> {
    let range = format!("bytes={start}-{}", end.saturating_sub(1));
    HeaderValue::from_str(&range).map_err(|error| Error::invalid(format!("{range}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_blob_is_what_its_registry_tells() {
        for exchange in shapes::of_step("blob-head").iter().filter(|exchange| exchange.status == 200) {
            let told = exchange.header("Content-Length").and_then(told_size);
            assert_eq!(told, exchange.expect["size"].as_u64(), "{}", exchange.name());
        }
    }

    #[test]
    fn every_answer_of_a_real_registry_is_read_by_a_test() {
        let steps = ["challenge", "token", "upload-start", "upload-end", "blob-head", "manifest-put", "error"];
        assert_eq!(shapes::steps(), steps.map(str::to_owned).into());
        for step in ["upload-end", "manifest-put"] {
            for exchange in shapes::of_step(step) {
                let is_taken = reqwest::StatusCode::from_u16(exchange.status).unwrap().is_success();
                assert_eq!(Some(is_taken), exchange.expect["ok"].as_bool(), "{}", exchange.name());
                let understood = exchange.header("oci-subject").is_some();
                let expected = exchange.expect["subject"].as_bool();
                assert!(expected.is_none_or(|expected| expected == understood), "{}", exchange.name());
            }
        }
    }
}
