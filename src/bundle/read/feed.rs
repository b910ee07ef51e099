//! A download that is read by a thread, as it comes.

use crate::bundle::blocking::blocking;
use crate::bundle::digest::{Digest, Digester};
use crate::bundle::registry::{Download, verified};
use crate::bundle::{Error, Progress};
use bytes::{Buf, Bytes};
use std::io::{self, Read};
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;

/// Pieces that wait to be read; a piece is what a socket gave at once.
const PIECES: usize = 16;

enum Piece {
    Bytes(Bytes),
    End,
}

/// What the thread reads. It ends only where the download has ended.
pub(in crate::bundle) struct Feed {
    receiver: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

impl Read for Feed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.current = bytes,
                Some(Piece::End) => self.ended = true,
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the download was cut off")),
            }
        }
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
    let (sender, receiver) = mpsc::channel(PIECES);
    let work = blocking(move || work(Feed { receiver, current: Bytes::new(), ended: false }));
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
            if let Some(open) = &sender
                && open.send(Piece::Bytes(bytes)).await.is_err()
            {
                // The reader has enough.
                sender = None;
                if let Need::Some = need {
                    return Ok(());
                }
            }
        }
        if let Need::All(expected) = need {
            verified(digester, &expected, &host)?;
        }
        if let Some(open) = &sender {
            let _ = open.send(Piece::End).await;
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
