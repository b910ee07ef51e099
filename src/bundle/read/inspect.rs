//! For people at a terminal: looking into a bundle and taking things out of it, by the least that must be read.

use super::contents::Bundle;
use super::destination::{Made, Piece};
use super::part::{self, Part};
use super::{Image, wanted};
use crate::bundle::format::listing::{Listed, ListedAs, ListedFile};
use crate::bundle::{Access, Error, ErrorKind, Limits, ListEntry, ListEntryKind, Progress};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

impl From<Listed> for ListEntry {
    fn from(listed: Listed) -> Self {
        let what = match listed.what {
            ListedAs::Directory { mode } => ListEntryKind::Directory { mode },
            ListedAs::Link { target } => ListEntryKind::Link { target },
            ListedAs::Skipped { reason } => ListEntryKind::Skipped { reason },
            ListedAs::File(file) => ListEntryKind::File {
                size: file.size,
                mode: file.mode,
                sha256: file.stored.is_none().then(|| file.digest.hex()),
                content: file.digest.hex(),
                same_as: file.same_as,
            },
        };
        Self { path: listed.path, what }
    }
}

async fn bundle<'a>(image: &'a Image, reference: &str) -> Result<Bundle<'a>, Error> {
    let bundle = Bundle::open(&image.repository, &image.manifest).await?;
    bundle.ok_or_else(|| Error::invalid(format!("{reference} is an image, but no bundle")))
}

/// Every entry of a bundle, sorted by the bytes of their paths.
///
/// # Errors
/// See [`ErrorKind`]; an image that is no bundle is [`ErrorKind::Invalid`].
pub async fn list(reference: &str, access: &Access) -> Result<Vec<ListEntry>, Error> {
    let image = Image::open(reference, access).await?;
    let entries = bundle(&image, reference).await?.entries(&[]).await?;
    Ok(entries.into_iter().map(ListEntry::from).collect())
}

/// Writes one file of a bundle, by a few small requests and the file's own bytes. What was written is known to be right
/// only when there is no error.
///
/// # Errors
/// See [`ErrorKind`]; an image that is no bundle, and a path that is no file, are [`ErrorKind::Invalid`].
pub async fn read_file<W: Write + Send + 'static>(
    reference: &str,
    path: &str,
    access: &Access,
    writer: W,
) -> Result<W, Error> {
    let image = Image::open(reference, access).await?;
    let bundle = bundle(&image, reference).await?;
    let file = file(&bundle, path).await?;
    whole(&bundle, &file, writer).await
}

/// Writes a part of a file of a bundle, and reads little more than that. Of a file of some size it is not compared with the
/// file's digest, which is of all of it.
///
/// # Errors
/// As [`read_file`]; a range that begins behind the end is [`ErrorKind::Invalid`].
pub async fn read_part<W: Write>(
    reference: &str,
    path: &str,
    part: Part,
    access: &Access,
    writer: &mut W,
) -> Result<(), Error> {
    let image = Image::open(reference, access).await?;
    let bundle = bundle(&image, reference).await?;
    let file = file(&bundle, path).await?;
    if file.size <= part::FIRST {
        let all = whole(&bundle, &file, vec![]).await?;
        return part::write(&all, part, writer).await;
    }
    part::write(&part::Stored::open(&bundle, &file).await?, part, writer).await
}

async fn file(bundle: &Bundle<'_>, path: &str) -> Result<ListedFile, Error> {
    let path = wanted(Some(path))?;
    match bundle.lookup(&path).await?.what {
        ListedAs::File(file) => Ok(file),
        _ => Err(Error::invalid(format!("{:?} is a directory", crate::bundle::error::shown(&path)))),
    }
}

/// All of a file.
async fn whole<W: Write + Send + 'static>(bundle: &Bundle<'_>, file: &ListedFile, writer: W) -> Result<W, Error> {
    let shared = Arc::new(Mutex::new(writer));
    let into = shared.clone();
    let write = move |piece: Piece<'_>| {
        let mut writer = into.lock().unwrap_or_else(PoisonError::into_inner);
        let written = match piece {
            Piece::Bytes(bytes) => writer.write_all(bytes),
            Piece::Hole(bytes) => std::io::copy(&mut std::io::repeat(0).take(bytes), &mut *writer).map(drop),
        };
        written.map_err(|error| Error::local("write", error))
    };
    bundle.read(file, None, write).await?;
    let writer = Arc::into_inner(shared).ok_or_else(|| Error::new(ErrorKind::Local, "still being written"))?;
    Ok(writer.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Puts what is at `path` of a bundle, or of any image, into `place`, as [`fetch`](crate::bundle::fetch) does, for a user:
/// modes are those that were recorded, less what the user's `umask` takes away, and times are those that were, where they
/// were recorded.
///
/// # Errors
/// See [`ErrorKind`].
pub async fn download(
    reference: &str,
    path: Option<&str>,
    place: &Path,
    umask: u32,
    access: &Access,
    progress: &Progress,
) -> Result<(), Error> {
    let unlimited = Limits { entries: u64::MAX, bytes: u64::MAX };
    let made = Made::ForUser { umask };
    super::put(reference, path, (place, made), unlimited.into(), access, progress).await
}
