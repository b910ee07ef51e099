//! A tag that moves from one manifest to the next.
//!
//! A registry may refuse to write a tag twice. There it is followed by numbered ones, `TAG.1`, `TAG.2` and so on, without
//! gaps, and the last of them counts.

use bytes::Bytes;

use super::digest::Digest;
use super::format::image::MANIFEST_TYPE;
use super::registry::Repository;
use super::{Error, ErrorKind};

/// What it means now; none: there is no such tag.
pub(super) async fn read(repository: &Repository, tag: &str) -> Result<Option<Digest>, Error> {
    let Some(first) = digest(repository, tag).await? else { return Ok(None) };
    match last_number(repository, tag).await? {
        0 => Ok(Some(first)),
        number => digest(repository, &numbered(tag, number)).await,
    }
}

/// Has it mean this manifest. `number` is that of the last write, 0 before the first one; returns that of this one.
pub(super) async fn write(repository: &Repository, tag: &str, manifest: &Bytes, number: u64) -> Result<u64, Error> {
    let (number, wanted) = if number == 0 { (0, tag.to_owned()) } else { (number + 1, numbered(tag, number + 1)) };
    match repository.put_manifest(&wanted, MANIFEST_TYPE, manifest).await {
        Ok(_) => return Ok(number),
        Err(error) if !matches!(error.kind, ErrorKind::Denied | ErrorKind::Invalid) => return Err(error),
        // Refused for another reason, as long as there is no such tag. Whoever wrote it last may not have lived to say so.
        Err(error) => digest(repository, &wanted).await?.ok_or(error)?,
    };
    let number = last_number(repository, tag).await? + 1;
    repository.put_manifest(&numbered(tag, number), MANIFEST_TYPE, manifest).await?;
    Ok(number)
}

fn numbered(tag: &str, number: u64) -> String {
    format!("{tag}.{number}")
}

/// By doubling, then by halving. 0: there is none.
async fn last_number(repository: &Repository, tag: &str) -> Result<u64, Error> {
    let mut beyond = 1;
    while digest(repository, &numbered(tag, beyond)).await?.is_some() {
        beyond *= 2;
    }
    let mut last = beyond / 2;
    while beyond - last > 1 {
        let middle = last + (beyond - last) / 2;
        if digest(repository, &numbered(tag, middle)).await?.is_some() {
            last = middle;
        } else {
            beyond = middle;
        }
    }
    Ok(last)
}

async fn digest(repository: &Repository, tag: &str) -> Result<Option<Digest>, Error> {
    match repository.manifest(tag).await {
        Ok(fetched) => Ok(Some(fetched.digest)),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
