//! Downloads a file by its address, and believes only its checksum.

use crate::bundle::{Budget, Progress};
use crate::contract::Cause;
use crate::helper::task::failure::Failure;
use reqwest::{Certificate, Client, Response, StatusCode, Url};
use sha2::{Digest, Sha256};
use std::error::Error;
use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt;

const CONNECT: Duration = Duration::from_secs(10);
/// Without a byte for this long a server is taken for dead.
const SILENCE: Duration = Duration::from_mins(1);
/// Before each further try. When they are used up the helper begins anew, until the deadline of staging.
const BACK_OFF: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];

/// A client that trusts the usual authorities and `ca` (PEM).
pub(in crate::helper) fn client(ca: Option<&str>) -> Result<Client, String> {
    let unusable = |error: reqwest::Error| format!("cannot make HTTP requests: {}", chain(&error));
    let ca = match ca {
        Some(pem) => Certificate::from_pem_bundle(pem.as_bytes()).map_err(unusable)?,
        None => vec![],
    };
    let builder = || Client::builder().connect_timeout(CONNECT).read_timeout(SILENCE).user_agent("bundlerun");
    // An image without any authorities can still download by plain HTTP, and from who shows a certificate of `ca`.
    let client = builder().tls_certs_merge(ca.clone()).build();
    client.or_else(|_| builder().tls_certs_only(ca).build()).map_err(unusable)
}

/// Downloads into the file at `place`, which is there already, at most `limit` bytes. What is tried again is told as
/// `trouble`.
pub(in crate::helper) async fn download(
    client: &Client,
    href: &str,
    sha256: &str,
    place: &Path,
    budget: &Budget,
    progress: &Progress,
    trouble: impl Fn(Failure),
) -> Result<(), Failure> {
    let url = Url::parse(href)
        .map_err(|error| Failure::Permanent(Cause::InputInvalid, format!("the address cannot be used: {error}")))?;
    let shown = shown(&url);
    let mut waits = BACK_OFF.into_iter();
    loop {
        match attempt(client, &url, sha256, place, budget, progress).await {
            Err(Failure::Transient(why)) => match waits.next() {
                Some(wait) => {
                    trouble(Failure::Transient(format!("{why} ({shown})")));
                    tokio::time::sleep(wait).await;
                }
                None => return Err(Failure::Transient(format!("{why} ({shown})"))),
            },
            Err(Failure::Permanent(cause, why)) => return Err(Failure::Permanent(cause, format!("{why} ({shown})"))),
            Ok(()) => return Ok(()),
        }
    }
}

/// Bytes of a file that may yet come to nothing: they are given back.
struct Counted<'a>(u64, &'a Budget);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.1.give_back(self.0);
    }
}

async fn attempt(
    client: &Client,
    url: &Url,
    sha256: &str,
    place: &Path,
    budget: &Budget,
    progress: &Progress,
) -> Result<(), Failure> {
    progress.done_bytes.store(0, Ordering::Relaxed);
    let mut response = client.get(url.clone()).send().await.map_err(transfer)?;
    refused(&response)?;
    let too_large = || {
        Failure::Permanent(
            Cause::InputTooLarge,
            format!("larger than {} bytes, with the other inputs", budget.most_bytes()),
        )
    };
    let length = response.content_length().unwrap_or(0);
    if !budget.has_room(length) {
        return Err(too_large());
    }
    progress.total_bytes.store(length, Ordering::Relaxed);
    let mut file = open(place).await?;
    let mut counted = Counted(0, budget);
    let (mut bytes, mut hash) = (0, Sha256::new());
    while let Some(chunk) = response.chunk().await.map_err(transfer)? {
        let more = chunk.len() as u64;
        counted.0 += more;
        budget.bytes(more).map_err(|_| too_large())?;
        bytes += more;
        hash.update(&chunk);
        file.write_all(&chunk).await.map_err(|error| Failure::writing(&error))?;
        progress.done_bytes.store(bytes, Ordering::Relaxed);
    }
    // Tokio tells of a failed write with the next call.
    file.flush().await.map_err(|error| Failure::writing(&error))?;
    let found = hex(&hash.finalize());
    if found == sha256 {
        counted.0 = 0;
        Ok(())
    } else {
        Err(Failure::Permanent(Cause::InputInvalid, format!("its sha256 is {found}, not the one of the spec")))
    }
}

/// The same file, which the run container has mounted already, empty again.
async fn open(place: &Path) -> Result<File, Failure> {
    let file = OpenOptions::new().write(true).truncate(true).open(place).await;
    file.map_err(|error| Failure::writing(&error))
}

/// What the status says, other than that the file comes.
fn refused(response: &Response) -> Result<(), Failure> {
    let status = response.status();
    let answered = format!("the server answered {status}");
    match status {
        status if status.is_success() => Ok(()),
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(Failure::Permanent(Cause::InputNotFound, answered)),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Failure::Permanent(Cause::InputDenied, answered)),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Err(Failure::Transient(answered))
        }
        status if status.is_client_error() => Err(Failure::Permanent(Cause::InputInvalid, answered)),
        _ => Err(Failure::Transient(answered)),
    }
}

fn transfer(error: reqwest::Error) -> Failure {
    let why = chain(&error.without_url());
    Failure::Transient(why)
}

/// An address as it may be told: see [`shown`]. None: it is no address.
pub(in crate::helper) fn shown_href(href: &str) -> Option<String> {
    Url::parse(href).ok().as_ref().map(shown)
}

/// An address without what may be secret in it: user, password, and the signature of a presigned one.
fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

/// An error with all that caused it.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let _ = write!(text, ": {error}");
        next = error.source();
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_in_an_address_is_not_shown() {
        let url = Url::parse("https://user:pass@example.com:8443/a/b?X-Signature=secret#f").unwrap();
        assert_eq!(shown(&url), "https://example.com:8443/a/b");
    }
}
