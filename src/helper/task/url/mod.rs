//! Downloads a file by its address, and believes only its checksum.
//!
//! A download that was cut off goes on where it was, if the server says which version of the file it has and gives ranges
//! of it: also in another process, which finds a mark beside the file. Whatever does not fit together begins anew.

mod version;
mod writer;

use crate::bundle::retry::{self, Resumptions};
use crate::bundle::transport::{asked_wait, reason};
use crate::bundle::{Budget, Error, ErrorKind, Progress, blocking};
use crate::contract::Cause;
use crate::helper;
use crate::helper::failure::Failure;
use crate::oci::Digest;
use reqwest::header::{ACCEPT_ENCODING, IF_RANGE, RANGE};
use reqwest::{Certificate, Client, RequestBuilder, Response, StatusCode, Url};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use version::Version;
pub(in crate::helper) use writer::PartialMark;
use writer::{Piece, Writer};

const CONNECT: Duration = Duration::from_secs(10);
/// Without a byte for this long a server is taken for dead.
const SILENCE: Duration = Duration::from_mins(1);
/// Pieces that wait to be written; a piece is what a socket gave at once.
const PIECES: usize = 16;

/// A client that trusts the usual authorities and `ca` (PEM).
pub(in crate::helper) fn client(ca: Option<&str>) -> Result<Client, helper::Error> {
    let unusable = |error: reqwest::Error| helper::Error::new("cannot make HTTP requests", error);
    let ca = match ca {
        Some(pem) => Certificate::from_pem_bundle(pem.as_bytes()).map_err(unusable)?,
        None => vec![],
    };
    let builder = || Client::builder().connect_timeout(CONNECT).read_timeout(SILENCE).user_agent("bundlerun");
    // An image without any authorities can still download by plain HTTP, and from who shows a certificate of `ca`.
    let client = builder().tls_certs_merge(ca.clone()).build();
    client.or_else(|_| builder().tls_certs_only(ca).build()).map_err(unusable)
}

/// A file that is wanted.
pub(in crate::helper) struct Wanted<'a> {
    pub(in crate::helper) href: &'a str,
    /// Hex digits.
    pub(in crate::helper) sha256: &'a str,
    /// The file that it goes to, which is there already.
    pub(in crate::helper) place: &'a Path,
    pub(in crate::helper) mark: PartialMark,
}

/// What a download tells while it lasts.
pub(in crate::helper) struct Tells<'a> {
    /// It is tried again after this.
    pub(in crate::helper) trouble: &'a dyn Fn(Failure),
    /// A piece of the file came.
    pub(in crate::helper) comes: &'a dyn Fn(),
}

/// Downloads a file within `budget`.
pub(in crate::helper) async fn download(
    client: &Client,
    wanted: &Wanted<'_>,
    budget: &Budget,
    progress: &Progress,
    tells: Tells<'_>,
) -> Result<(), Failure> {
    let url = Url::parse(wanted.href)
        .map_err(|error| Failure::Permanent(Cause::InputInvalid, format!("the address cannot be used: {error}")))?;
    let shown = shown(&url);
    let failure = |error: Error| Failure::from(Error { message: format!("{} ({shown})", error.message), ..error });
    let trouble = |error: &Error| (tells.trouble)(failure(error.clone()));
    let download = Download { client, url, wanted, budget, progress, trouble: &trouble, comes: tells.comes };
    download.file().await.map_err(failure)
}

struct Download<'a> {
    client: &'a Client,
    url: Url,
    wanted: &'a Wanted<'a>,
    budget: &'a Budget,
    progress: &'a Progress,
    trouble: &'a dyn Fn(&Error),
    comes: &'a dyn Fn(),
}

/// How far it has come.
struct Begun<'a> {
    /// None: it cannot go on when it is cut off.
    version: Option<Version>,
    /// Of the whole file, if it is known.
    length: Option<u64>,
    /// Bytes that came.
    next: u64,
    /// All came with one answer.
    is_in_one_piece: bool,
    /// The server's ranges are not to be used.
    without_ranges: bool,
    /// Bytes that may yet come to nothing: they are given back.
    counted: u64,
    budget: &'a Budget,
}

impl Begun<'_> {
    fn count(&mut self, more: u64) -> Result<(), Error> {
        self.counted += more;
        self.budget.bytes(more).map_err(|_| too_large(self.budget))
    }

    fn give_back(&mut self) {
        self.budget.give_back(std::mem::take(&mut self.counted));
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl Download<'_> {
    /// A wrong checksum is believed of a file that came in one piece and whose end was known, or twice.
    async fn file(&self) -> Result<(), Error> {
        let mut is_second = false;
        loop {
            let (found, mut begun) = self.whole().await?;
            self.wanted.mark.remove();
            if found.hex() == self.wanted.sha256 {
                begun.counted = 0;
                return Ok(());
            }
            let error =
                Error::new(ErrorKind::Invalid, format!("its sha256 is {}, not the one of the spec", found.hex()));
            if is_second || (begun.is_in_one_piece && begun.length.is_some()) {
                return Err(error);
            }
            (self.trouble)(&Error { kind: ErrorKind::Unreachable, ..error });
            is_second = true;
        }
    }

    /// All of the file, from where an earlier process left it.
    async fn whole(&self) -> Result<(Digest, Begun<'_>), Error> {
        let (place, mark) = (self.wanted.place.to_owned(), self.wanted.mark.clone());
        let writer = blocking(move || Writer::open(&place, mark)).await?;
        let version = if writer.length > 0 { self.wanted.mark.version() } else { None };
        let mut begun = Begun {
            length: version.as_ref().and_then(|version| version.length),
            version,
            next: writer.length,
            is_in_one_piece: false,
            without_ranges: false,
            counted: 0,
            budget: self.budget,
        };
        begun.count(writer.length)?;
        self.show(&begun);
        let (pieces, receiver) = mpsc::channel(PIECES);
        let writing = tokio::spawn(blocking(move || writer.write(receiver)));
        let loaded = self.load(&mut begun, &pieces).await;
        drop(pieces);
        let written = writing.await.unwrap_or_else(|error| Err(Error::new(ErrorKind::Local, error.to_string())));
        // A writer that failed takes no more pieces: its error is the reason.
        let digest = written?;
        loaded.map(|()| (digest, begun))
    }

    async fn load(&self, begun: &mut Begun<'_>, pieces: &mpsc::Sender<Piece>) -> Result<(), Error> {
        let mut resumptions = Resumptions::default();
        loop {
            match self.go_on(begun, pieces, &mut resumptions).await {
                Ok(()) => return Ok(()),
                Err(failure) => {
                    if failure.transient {
                        (self.trouble)(&failure.error);
                    }
                    resumptions.again(failure).await?;
                }
            }
        }
    }

    /// From where it was cut off to its end.
    async fn go_on(
        &self,
        begun: &mut Begun<'_>,
        pieces: &mpsc::Sender<Piece>,
        resumptions: &mut Resumptions,
    ) -> Result<(), retry::Failure> {
        if begun.length.is_some_and(|length| length <= begun.next) && begun.next > 0 {
            return Ok(());
        }
        let mut response = self.open(begun, pieces).await?;
        while let Some(chunk) = response.chunk().await.map_err(transfer)? {
            begun.count(chunk.len() as u64)?;
            begun.next += chunk.len() as u64;
            resumptions.came(chunk.len() as u64);
            (self.comes)();
            put(pieces, Piece::Bytes(chunk)).await?;
            self.show(begun);
        }
        match begun.length {
            Some(length) if begun.next < length => {
                let why = format!("it ended at byte {} of {length}", begun.next);
                Err(retry::Failure::transient(Error::new(ErrorKind::Unreachable, why)))
            }
            _ => Ok(()),
        }
    }

    /// An answer whose body is what comes next.
    async fn open(&self, begun: &mut Begun<'_>, pieces: &mpsc::Sender<Piece>) -> Result<Response, retry::Failure> {
        if let Some(version) = begun.version.clone().filter(|_| begun.next > 0) {
            let range = format!("bytes={}-", begun.next);
            let response =
                self.send(|request| request.header(RANGE, range).header(IF_RANGE, &version.validator)).await?;
            match response.status() {
                StatusCode::PARTIAL_CONTENT => {
                    if let Some(version) = version.goes_on(response.headers(), begun.next) {
                        begun.length = version.length;
                        begun.version = Some(version);
                        begun.is_in_one_piece = false;
                        return Ok(response);
                    }
                    begun.without_ranges = true;
                }
                StatusCode::RANGE_NOT_SATISFIABLE => {}
                _ => {
                    refused(&response)?;
                    return self.anew(begun, pieces, response).await;
                }
            }
        }
        let response = self.send(|request| request).await?;
        refused(&response)?;
        self.anew(begun, pieces, response).await
    }

    /// An answer that has all of the file.
    async fn anew(
        &self,
        begun: &mut Begun<'_>,
        pieces: &mpsc::Sender<Piece>,
        response: Response,
    ) -> Result<Response, retry::Failure> {
        begun.give_back();
        let length = response.content_length();
        if !self.budget.has_room(length.unwrap_or(0)) {
            return Err(too_large(self.budget).into());
        }
        let version = if begun.without_ranges { None } else { Version::of(response.headers(), length) };
        (begun.version, begun.length) = (version.clone(), length);
        (begun.next, begun.is_in_one_piece) = (0, true);
        put(pieces, Piece::Anew(version)).await?;
        self.show(begun);
        Ok(response)
    }

    async fn send(&self, ask: impl FnOnce(RequestBuilder) -> RequestBuilder) -> Result<Response, retry::Failure> {
        // A range of what was compressed for the way is none of the file.
        let request = self.client.get(self.url.clone()).header(ACCEPT_ENCODING, "identity");
        ask(request).send().await.map_err(transfer)
    }

    fn show(&self, begun: &Begun<'_>) {
        self.progress.done_bytes.store(begun.next, Ordering::Relaxed);
        self.progress.total_bytes.store(begun.length.unwrap_or(0), Ordering::Relaxed);
    }
}

async fn put(pieces: &mpsc::Sender<Piece>, piece: Piece) -> Result<(), Error> {
    let put = pieces.send(piece).await;
    put.map_err(|_| Error::new(ErrorKind::Local, "the file is not written any more"))
}

fn too_large(budget: &Budget) -> Error {
    let most = budget.most_bytes();
    Error::new(ErrorKind::TooLarge, format!("larger than {most} bytes, with the other inputs"))
}

/// What the status says, other than that the file comes.
fn refused(response: &Response) -> Result<(), retry::Failure> {
    let status = response.status();
    let answered = |kind| Error::new(kind, format!("the server answered {status}"));
    let kind = match status {
        StatusCode::PARTIAL_CONTENT => ErrorKind::Invalid,
        status if status.is_success() => return Ok(()),
        StatusCode::NOT_FOUND | StatusCode::GONE => ErrorKind::NotFound,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Denied,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => ErrorKind::Unreachable,
        status if status.is_client_error() => ErrorKind::Invalid,
        _ => ErrorKind::Unreachable,
    };
    let (transient, after) = (kind == ErrorKind::Unreachable, asked_wait(response.headers()));
    Err(retry::Failure { error: answered(kind), transient, after })
}

fn transfer(error: reqwest::Error) -> retry::Failure {
    // Its address may have secrets in it.
    let error = error.without_url();
    let (kind, why) = reason(&error);
    retry::Failure::transient(Error::new(kind, why).caused_by(error))
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

#[cfg(test)]
mod tests;
