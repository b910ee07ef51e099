//! What the command says, byte for byte, to its file and to the container's log.

use super::signals::wait_ready;
use rustix::event::{EventfdFlags, PollFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Read at once; a pipe holds half of it.
const BUFFER_BYTES: usize = 128 * 1024;
/// A pipe that polls as writable takes this much without blocking (`PIPE_BUF`).
const LOG_CHUNK_BYTES: usize = 4096;

/// Makes the file of an output stream; whatever had its name gives way, and no symlink is followed.
///
/// The command can write to the file itself (`python3 train.py > stdout; echo done`) or empty it (`: > stdout`). Because
/// each of our writes goes to the end of the file, none lands on top of the command's text or behind a hole.
pub(crate) fn create_output(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::unlinkat(rustix::fs::CWD, path, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => rustix::fs::open(path, flags, Mode::from_raw_mode(0o644)),
        Err(error) => Err(error),
    }
}

/// One stream: where it comes from and where it goes.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) name: &'static str,
    pub(crate) source: OwnedFd,
    pub(crate) file: OwnedFd,
    pub(crate) log: BorrowedFd<'static>,
}

/// The threads that copy.
#[derive(Debug)]
pub(crate) struct Tee {
    /// Readable once the log may be given up.
    cut: Arc<OwnedFd>,
    finished: Receiver<Option<String>>,
    open: usize,
    warnings: Vec<String>,
}

impl Tee {
    /// Starts copying.
    pub(crate) fn start(streams: [Stream; 2]) -> Result<Self, std::io::Error> {
        let cut = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let (finish, finished) = channel();
        let open = streams.len();
        for stream in streams {
            let (cut, finish) = (Arc::clone(&cut), finish.clone());
            // Made here, where the C library takes untouched pages of the kernel for it; in a thread it writes zeros into
            // all of them, and a command that says nothing has a runner that is larger by as much.
            let mut buffer = vec![0; BUFFER_BYTES];
            thread::Builder::new().name(stream.name.to_owned()).spawn(move || {
                let _ = finish.send(copy(&stream, cut.as_fd(), &mut buffer));
            })?;
        }
        Ok(Self { cut, finished, open, warnings: vec![] })
    }

    /// Waits until every writer has closed its end and all is copied; false: not within this time.
    pub(crate) fn wait(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        while self.open > 0 {
            match self.finished.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(warning) => {
                    self.open -= 1;
                    self.warnings.extend(warning);
                }
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => return true,
            }
        }
        true
    }

    /// From here on only what is in the pipes already is copied, and a log that blocks is given up.
    pub(crate) fn cut(&self) {
        let _ = rustix::io::write(&*self.cut, &1u64.to_ne_bytes());
    }

    /// What did not go well.
    pub(crate) fn into_warnings(self) -> Vec<String> {
        self.warnings
    }
}

/// Copies until all writers have closed the pipe. The file comes first: it is the output that is kept.
fn copy(stream: &Stream, cut: BorrowedFd<'_>, buffer: &mut [u8]) -> Option<String> {
    let mut file = Some(stream.file.as_fd());
    let mut log = Some(stream.log);
    let mut warning = None;
    loop {
        let [readable, is_cut] = wait_ready([(stream.source.as_fd(), PollFlags::IN), (cut, PollFlags::IN)], None);
        if !readable {
            if is_cut {
                return warning;
            }
            continue;
        }
        let output = match rustix::io::read(&stream.source, &mut *buffer) {
            Ok(0) => return warning,
            Ok(n) => buffer.get(..n).unwrap_or_default(),
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Err(_) => return warning,
        };
        if let Some(Err(error)) = file.map(|file| write_all(file, output)) {
            // Not resumed when there is space again: a gap in the middle would go unnoticed.
            file = None;
            warning = Some(format!("{} in the bundle is incomplete: {error}", stream.name));
        }
        if log.is_some_and(|log| write_log(log, output, cut).is_none()) {
            log = None;
        }
    }
}

fn write_all(file: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(0) => return Err(Errno::NOSPC),
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// None: nobody reads the log any more, or not in time.
fn write_log(log: BorrowedFd<'_>, bytes: &[u8], cut: BorrowedFd<'_>) -> Option<()> {
    for mut chunk in bytes.chunks(LOG_CHUNK_BYTES) {
        while !chunk.is_empty() {
            let [writable, is_cut] = wait_ready([(log, PollFlags::OUT), (cut, PollFlags::IN)], None);
            if !writable && is_cut {
                return None;
            }
            if !writable {
                continue;
            }
            match rustix::io::write(log, chunk) {
                Ok(n) => chunk = chunk.get(n..).unwrap_or_default(),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(_) => return None,
            }
        }
    }
    Some(())
}
