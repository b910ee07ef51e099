//! A download that is read by a thread, as it comes.

use crate::bundle::blocking::blocking;
use crate::bundle::digest::{Digest, Digester};
use crate::bundle::registry::{Download, verified};
use crate::bundle::{Error, Progress};
use bytes::{Buf, Bytes};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::{Semaphore, mpsc};

/// Bytes that wait to be read: what comes must not wait for a disk, nor the disk for what comes.
const WAITING: usize = 1 << 20;

enum Piece {
    Bytes(Bytes),
    End,
}

/// What the thread reads. It ends only where the download has ended.
pub(in crate::bundle) struct Feed {
    receiver: mpsc::UnboundedReceiver<Piece>,
    /// Of [`WAITING`]: what may come.
    room: Arc<Semaphore>,
    current: Bytes,
    ended: bool,
}

impl Feed {
    /// What came, up to so many bytes of it; empty at the end.
    pub(in crate::bundle) fn take(&mut self, most: u64) -> io::Result<Bytes> {
        self.fill()?;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        Ok(self.current.split_to(self.current.len().min(most)))
    }

    fn fill(&mut self) -> io::Result<()> {
        while self.current.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Piece::Bytes(bytes)) => {
                    self.room.add_permits(permits(&bytes) as usize);
                    self.current = bytes;
                }
                Some(Piece::End) => self.ended = true,
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the download was cut off")),
            }
        }
        Ok(())
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.room.close();
    }
}

fn permits(bytes: &Bytes) -> u32 {
    u32::try_from(bytes.len().min(WAITING)).unwrap_or(u32::MAX)
}

impl Read for Feed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill()?;
        let length = self.current.len().min(buffer.len());
        if let Some(part) = buffer.get_mut(..length) {
            self.current.copy_to_slice(part);
        }
        Ok(length)
    }
}

/// How much of a download is needed.
#[derive(Clone, Copy)]
pub(in crate::bundle) enum Need {
    /// All, and it must have this digest.
    All(Digest),
    /// As much as the reader takes; it verifies by itself what it takes.
    Some,
}

/// Lets `work` read a download in a thread. An error of the download counts before one of the thread.
pub(in crate::bundle) async fn feed<T: Send + 'static>(
    mut download: Download<'_>,
    need: Need,
    progress: Option<&Progress>,
    work: impl FnOnce(Feed) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(WAITING));
    let feed = Feed { receiver, room: room.clone(), current: Bytes::new(), ended: false };
    let work = blocking(move || work(feed));
    let mut sender = Some(sender);
    let mut digester = Digester::default();
    let host = download.host().to_owned();
    let load = async {
        while let Some(bytes) = download.chunk().await? {
            if let Some(progress) = progress {
                progress.done_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            if let Need::All(_) = need {
                digester.update(&bytes);
            }
            let Some(open) = &sender else { continue };
            if let Ok(permit) = room.acquire_many(permits(&bytes)).await
                && open.send(Piece::Bytes(bytes)).is_ok()
            {
                permit.forget();
                continue;
            }
            // The reader has enough.
            sender = None;
            if let Need::Some = need {
                return Ok(());
            }
        }
        if let Need::All(expected) = need {
            verified(digester, &expected, &host)?;
        }
        if let Some(open) = &sender {
            let _ = open.send(Piece::End);
        }
        Ok(())
    };
    let mut load = Box::pin(load);
    let mut work = Box::pin(work);
    tokio::select! {
        biased;
        loaded = &mut load => {
            // With an error it drops the sender, and the thread ends.
            drop(load);
            match loaded {
                Ok(()) => work.await,
                Err(error) => Err(error),
            }
        }
        worked = &mut work => match (worked, need) {
            (Ok(result), Need::All(_)) => load.await.map(|()| result),
            (Ok(result), Need::Some) => Ok(result),
            (Err(error), _) => Err(error),
        },
    }
}
