//! The file that a download goes to, written and hashed by a thread.

use super::version::Version;
use crate::bundle::{Digester, Error};
use crate::helper::error::log_failure;
use crate::helper::markers::{self, mark_json, read_json};
use crate::oci::Digest;
use bytes::Bytes;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// What is done with the file.
pub(super) enum Piece {
    /// It begins anew. With the version that comes next it can go on, also by another process.
    Anew(Option<Version>),
    /// The next bytes.
    Bytes(Bytes),
}

/// The mark that says of which version a file has the beginning.
#[derive(Clone, Debug)]
pub(in crate::helper) struct PartialMark {
    /// The bin directory.
    pub(in crate::helper) bin: PathBuf,
    pub(in crate::helper) name: String,
}

impl PartialMark {
    pub(super) fn version(&self) -> Option<Version> {
        read_json(&self.bin, &self.name)
    }

    pub(super) fn remove(&self) {
        markers::unmark(&self.bin, &self.name);
    }
}

/// A file, which the run container may have mounted already, so that it stays the same one.
pub(super) struct Writer {
    file: File,
    hash: Digester,
    /// Bytes that are in it.
    pub(super) length: u64,
    mark: PartialMark,
}

impl Writer {
    /// Opens the file and hashes what is in it; with no `mark` that is nothing.
    pub(super) fn open(place: &Path, mark: PartialMark) -> Result<Self, Error> {
        let file = OpenOptions::new().read(true).write(true).open(place);
        let file = file.map_err(|error| Error::local("open the file", error))?;
        let mut writer = Self { file, hash: Digester::default(), length: 0, mark };
        if writer.mark.version().is_none() || writer.read().is_err() {
            writer.begin(None)?;
        }
        Ok(writer)
    }

    fn read(&mut self) -> std::io::Result<()> {
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = self.file.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            self.hash.update(buffer.get(..read).unwrap_or_default());
            self.length += read as u64;
        }
    }

    /// At no time does the mark name a version that the file's content is not of.
    fn begin(&mut self, version: Option<Version>) -> Result<(), Error> {
        self.mark.remove();
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(|error| Error::local("empty the file", error))?;
        (self.hash, self.length) = (Digester::default(), 0);
        if let Some(version) = version {
            // A failure costs no more than that another process begins anew.
            log_failure(mark_json(&self.mark.bin, &self.mark.name, &version));
        }
        Ok(())
    }

    /// Until there are no more pieces: then the digest of all that is in the file.
    pub(super) fn write(mut self, mut pieces: mpsc::Receiver<Piece>) -> Result<Digest, Error> {
        while let Some(piece) = pieces.blocking_recv() {
            match piece {
                Piece::Anew(version) => self.begin(version)?,
                Piece::Bytes(bytes) => {
                    self.hash.update(&bytes);
                    self.file.write_all(&bytes).map_err(|error| Error::local("write the file", error))?;
                }
            }
        }
        Ok(self.hash.finish())
    }
}
