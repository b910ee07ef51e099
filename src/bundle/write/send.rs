//! Layers on their way to the registry.

use super::entries::Index;
use super::hang::Asked;
use super::large::{Hashing, LargeFile};
use super::layer::{Blob, Layer};
use super::layout::Plan;
use super::list::{self, Lists};
use super::pack;
use super::reading::Unread;
use super::skip::Skip;
use super::{PIECES, Saving};
use crate::bundle::blocking::{beside, blocking};
use crate::bundle::digest::Digest;
use crate::bundle::format::listing::ListLayer;
use crate::bundle::registry::Upload;
use crate::bundle::retry::{Failure, Resumptions};
use crate::bundle::{Error, ErrorKind};
use bytes::Bytes;
use futures::stream;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Why a layer is not in the registry.
pub(super) enum NotPushed {
    /// This entry is not any more what it was.
    Changed(Index),
    /// This entry cannot be read any more.
    Failed(Index, Skip),
    /// The registry got something else than was hashed, and the file system did not tell.
    Refused(Error),
}

impl From<(Index, Skip)> for NotPushed {
    fn from((index, skip): (Index, Skip)) -> Self {
        Self::Failed(index, skip)
    }
}

/// Gives the bytes of a blob from some byte on to whoever takes them, and says whether there are more to be taken.
type Read = dyn Fn(u64, &mut dyn FnMut(Bytes) -> bool) -> Result<(), Unread> + Send + Sync;

/// A blob to be pushed.
struct Source {
    size: u64,
    read: Arc<Read>,
    /// Known when all was read.
    digest: Box<dyn Fn() -> Digest + Send + Sync>,
}

impl Saving<'_> {
    /// Pushes what the registry has not of a layer.
    pub(super) async fn push(&self, plan: &Arc<Plan>, layer: &Arc<Layer>) -> Result<Result<(), NotPushed>, Error> {
        let mut stored = Stored::of(self);
        for (blob, number) in layer.blobs.iter().zip(0..) {
            if self.repository.has_blob(&blob.digest, blob.size).await? {
                self.done.fetch_add(blob.size, Ordering::Relaxed);
            } else if let Err(not) = self.push_blob(plan, &known(plan, layer, *blob, number)).await? {
                return Ok(Err(not));
            }
            stored.add(blob.size);
        }
        stored.stay();
        Ok(Ok(()))
    }

    /// Pushes a large file that was not read for its digest: that is known when the registry has it. If it had it before,
    /// this was in vain; but a file is read once, and most that were not pushed early are new.
    pub(super) async fn push_unread(
        &self,
        plan: &Arc<Plan>,
        number: usize,
        index: Index,
    ) -> Result<Result<Arc<Layer>, NotPushed>, Error> {
        let asked = Arc::new(Asked::default());
        let (of, reading) = (plan.clone(), self.reading.clone());
        let open = blocking(asked.clone().by(move || LargeFile::open(&of, number, index, &reading)));
        let file = match self.unless_hung(open, &asked, plan).await {
            Ok(opened) => match opened? {
                Ok(file) => Arc::new(file),
                Err(skip) => return Ok(Err(NotPushed::Failed(index, skip))),
            },
            Err(hung) => return Ok(Err(hung.into())),
        };
        let hashing = Arc::new(Mutex::new(Hashing::default()));
        let mut stored = Stored::of(self);
        for blob in 0..file.blobs() {
            if let Err(not) = self.push_blob(plan, &unread(plan, &file, blob, &hashing)).await? {
                return Ok(Err(not));
            }
            stored.add(file.size(plan, blob));
            lock(&hashing).end_blob(file.is_in_parts());
        }
        stored.stay();
        let hashed = std::mem::take(&mut *lock(&hashing)).finish();
        Ok(Ok(Arc::new(file.layer(hashed))))
    }

    /// Pushes a list that is not held in memory: it is written anew for every try. Returns how many bytes went out.
    pub(super) async fn push_list(&self, plan: &Plan, of: &Arc<impl Lists>, list: &ListLayer) -> Result<u64, Error> {
        if self.repository.has_blob(&list.digest, list.size).await? {
            return Ok(0);
        }
        match self.push_blob(plan, &of_list(of, list)).await? {
            Ok(()) => Ok(list.size),
            Err(NotPushed::Refused(error)) => Err(error),
            Err(NotPushed::Changed(_) | NotPushed::Failed(..)) => Err(Error::new(ErrorKind::Local, "no list")),
        }
    }

    async fn push_blob(&self, plan: &Plan, source: &Source) -> Result<Result<(), NotPushed>, Error> {
        let mut upload = self.repository.begin_upload(source.size).await?;
        let mut resumptions = Resumptions::default();
        // What of it is in `done`.
        let mut shown = 0;
        loop {
            let failure = match self.send(plan, source, &mut upload, &mut shown).await {
                Ok(Ok(())) => {
                    self.pushed.fetch_add(source.size, Ordering::Relaxed);
                    return Ok(Ok(()));
                }
                Ok(Err(failure)) => failure,
                Err(not) => {
                    self.done.fetch_sub(shown, Ordering::Relaxed);
                    return Ok(Err(not));
                }
            };
            if failure.error.kind == ErrorKind::Invalid {
                self.done.fetch_sub(shown, Ordering::Relaxed);
                return Ok(Err(NotPushed::Refused(failure.error)));
            }
            resumptions.again(failure).await?;
            let before = upload.received();
            if upload.look_again(&source.digest).await? {
                return Ok(Ok(()));
            }
            resumptions.came(upload.received().saturating_sub(before));
            self.done.fetch_sub(shown, Ordering::Relaxed);
            shown = upload.received();
            self.done.fetch_add(shown, Ordering::Relaxed);
        }
    }

    /// Sends what the registry has not yet. The inner result is whether it has it now.
    async fn send(
        &self,
        plan: &Plan,
        source: &Source,
        upload: &mut Upload<'_>,
        shown: &mut u64,
    ) -> Result<Result<(), Failure>, NotPushed> {
        if !upload.is_sent() {
            let (sender, receiver) = mpsc::channel(PIECES);
            let asked = Arc::new(Asked::default());
            let reading = self.read_into(source, upload.received(), asked.clone(), sender);
            let sent = Arc::new(AtomicU64::new(0));
            let body = body(receiver, [sent.clone(), self.done.clone()]);
            let push = async {
                let uploaded = upload.send(body, &sent).await;
                (uploaded, reading.await)
            };
            let pushed = self.unless_hung(push, &asked, plan).await;
            *shown += sent.load(Ordering::Relaxed);
            let (uploaded, unread) = pushed?;
            match (unread, uploaded) {
                (Ok(Some(unread)), _) => return Err(unread),
                (Err(error), _) => {
                    return Ok(Err(Error::new(ErrorKind::Local, format!("no reader: {error}")).into()));
                }
                (Ok(None), Err(failure)) => return Ok(Err(failure)),
                (Ok(None), Ok(())) => {}
            }
        }
        Ok(upload.finish(&(source.digest)()).await)
    }

    /// Reads a blob in a thread of its own. The result is why that ended early, if it did.
    fn read_into(
        &self,
        source: &Source,
        from: u64,
        asked: Arc<Asked>,
        sender: mpsc::Sender<io::Result<Bytes>>,
    ) -> tokio::task::JoinHandle<Option<NotPushed>> {
        let (read, reading) = (source.read.clone(), self.reading.clone());
        tokio::task::spawn_blocking(asked.by(move || {
            let read = read(from, &mut |bytes| {
                reading.pace.wait(bytes.len());
                sender.blocking_send(Ok(bytes)).is_ok()
            });
            let unread = match read {
                Ok(()) | Err(Unread::NotTaken) => return None,
                Err(Unread::Changed(index)) => NotPushed::Changed(index),
                Err(Unread::Failed(index, skip)) => NotPushed::Failed(index, skip),
            };
            // Else the registry would wait for the rest.
            let _ = sender.blocking_send(Err(io::Error::other("a file has changed")));
            Some(unread)
        }))
    }
}

/// Counts blobs of a layer that are in the registry. Those of a file that has changed are of no use: they count only if
/// all of it stays.
struct Stored<'a> {
    saving: &'a Saving<'a>,
    bytes: u64,
}

impl<'a> Stored<'a> {
    fn of(saving: &'a Saving<'a>) -> Self {
        Self { saving, bytes: 0 }
    }

    fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.saving.progress.stored_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn stay(&mut self) {
        self.bytes = 0;
    }
}

impl Drop for Stored<'_> {
    fn drop(&mut self) {
        for counter in [&self.saving.progress.stored_bytes, &*self.saving.done] {
            counter.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

/// A blob of a layer that was hashed.
fn known(plan: &Arc<Plan>, layer: &Arc<Layer>, blob: Blob, number: u64) -> Source {
    let (plan, layer) = (plan.clone(), layer.clone());
    let read = move |from: u64, take: &mut dyn FnMut(Bytes) -> bool| match LargeFile::again(&plan, &layer) {
        Some(file) => file?.read(&plan, number, from, |part, _| take(part.into_bytes())),
        None => pack::read(&plan, &layer, skipping(from, take)),
    };
    Source { size: blob.size, read: Arc::new(read), digest: Box::new(move || blob.digest) }
}

fn of_list(of: &Arc<impl Lists>, list: &ListLayer) -> Source {
    let (of, digest) = (of.clone(), list.digest);
    let read = move |from: u64, take: &mut dyn FnMut(Bytes) -> bool| {
        let mut take = skipping(from, take);
        let mut taken = |bytes: &[u8]| {
            if take(bytes) { Ok(()) } else { Err(Error::new(ErrorKind::Local, "not taken")) }
        };
        list::write(&*of, &mut taken).map(drop).map_err(|_| Unread::NotTaken)
    };
    Source { size: list.size, read: Arc::new(read), digest: Box::new(move || digest) }
}

/// Gives what comes after so many bytes to `take`.
fn skipping(mut to_skip: u64, take: &mut dyn FnMut(Bytes) -> bool) -> impl FnMut(&[u8]) -> bool {
    move |bytes| {
        let skipped = usize::try_from(to_skip).unwrap_or(usize::MAX).min(bytes.len());
        to_skip -= skipped as u64;
        let rest = bytes.get(skipped..).unwrap_or_default();
        rest.is_empty() || take(Bytes::copy_from_slice(rest))
    }
}

/// A blob of a file that is hashed now. What is read again, because it has to be sent again, was hashed before.
fn unread(plan: &Arc<Plan>, file: &Arc<LargeFile>, blob: u64, hashing: &Arc<Mutex<Hashing>>) -> Source {
    let size = file.size(plan, blob);
    let (plan, file, hashed_by) = (plan.clone(), file.clone(), hashing.clone());
    let read = move |from: u64, take: &mut dyn FnMut(Bytes) -> bool| {
        // To hash it, once as a part of the blob and once as a part of the file, takes longer than to read it. Without a
        // thread nothing is sent, which is tried again.
        let mut hashing = lock(&hashed_by);
        let hashing = &mut *hashing;
        let hash = |Piece { position, bytes, is_content }: Piece| hashing.add(position, &bytes, is_content);
        beside(PIECES, hash, |hash| {
            let mut position = from;
            file.read(&plan, blob, from, |part, is_content| {
                let bytes = part.into_bytes();
                let is_hashed = hash(Piece { position, bytes: bytes.clone(), is_content });
                position += bytes.len() as u64;
                is_hashed && take(bytes)
            })
        })
    };
    let hashing = hashing.clone();
    Source { size, read: Arc::new(read), digest: Box::new(move || lock(&hashing).digest()) }
}

/// Of a blob that is read.
struct Piece {
    position: u64,
    bytes: Bytes,
    is_content: bool,
}

fn lock(hashing: &Mutex<Hashing>) -> std::sync::MutexGuard<'_, Hashing> {
    hashing.lock().unwrap_or_else(PoisonError::into_inner)
}

fn body(receiver: mpsc::Receiver<io::Result<Bytes>>, counters: [Arc<AtomicU64>; 2]) -> reqwest::Body {
    let pieces = stream::unfold((receiver, counters), |(mut receiver, counters)| async move {
        let piece = receiver.recv().await?;
        if let Ok(bytes) = &piece {
            for counter in &counters {
                counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
        }
        Some((piece, (receiver, counters)))
    });
    reqwest::Body::wrap_stream(pieces)
}
