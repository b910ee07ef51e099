//! What a reference means, and getting what is in it.
//!
//! | file | subject |
//! |---|---|
//! | `budget` | how much an input may be |
//! | `contents` | reading a bundle: by its list, and by ranges of its layers |
//! | `way` | symbolic links on the way to a path of a bundle |
//! | `staged`, `path_log` | what is to be made of a bundle, in little memory |
//! | `artifact` | what the layers of an image, or of an artifact, are |
//! | `unpack`, `stat`, `layer_path` | any image: its layers on top of each other, or one path in them |
//! | `zstd` | streams whose windows share one budget of memory |
//! | `destination` | where an input goes, and what can be made there |
//! | `feed` | a download that is read by a thread |
//! | `inspect` | list, read one file, download |
//! | `part` | a part of one file |
//! | `provenance` | how a bundle was made |
//! | `verify` | all of it, compared with its digests |

mod artifact;
mod budget;
mod contents;
mod destination;
mod feed;
pub(in crate::bundle) mod inspect;
mod layer_path;
pub(in crate::bundle) mod part;
mod path_log;
pub(in crate::bundle) mod provenance;
mod staged;
mod stat;
mod unpack;
pub(in crate::bundle) mod verify;
mod way;
mod zstd;

use crate::bundle::format::image::{self, Descriptor, Manifest, Read};
use crate::bundle::format::listing::{Listed, ListedAs};
use crate::bundle::moving_tag;
use crate::bundle::registry::{Download, Purpose, Repository};
use crate::bundle::{Access, Error, ErrorKind, Kind, Progress, Resolved};
use crate::oci::Reference;
use artifact::Content;
pub use budget::Budget;
use contents::{Bundle, kind_of};
use destination::Piece;
use destination::{Made, Maker, NewFile, Place, checked, other_kind};
use feed::{Need, feed};
use futures::stream::{self, StreamExt, TryStreamExt};
use stat::{Seen, look};
use std::path::Path;
use std::sync::atomic::Ordering;
use tokio::sync::oneshot;
use unpack::{Elsewhere, Unpacker};

/// Layers of which something is loaded; they are unpacked one after the other.
const AT_ONCE: usize = 3;

/// An image that was looked up.
pub(in crate::bundle) struct Image {
    pub(in crate::bundle) repository: Repository,
    /// What the reference points to: an index, where there is one.
    pub(in crate::bundle) digest: String,
    pub(in crate::bundle) manifest: Box<Manifest>,
}

impl Image {
    pub(in crate::bundle) async fn open(reference: &str, access: &Access) -> Result<Self, Error> {
        let reference = Reference::parse(reference)?;
        let repository = Repository::new(&reference, access, Purpose::Pull)?;
        let fetched = repository.manifest(&reference.manifest).await?;
        let digest = fetched.digest.to_string();
        let manifest = match image::read(&fetched.body)? {
            Read::Image(manifest) => manifest,
            Read::Index(image) => {
                let fetched = repository.manifest(&image.to_string()).await?;
                match image::read(&fetched.body)? {
                    Read::Image(manifest) => manifest,
                    Read::Index(_) => return Err(Error::invalid(format!("{digest} is an index of indices"))),
                }
            }
        };
        Ok(Self { repository, digest, manifest })
    }
}

/// A path in an image as users write it: absolute or not. All of the image is empty.
pub(in crate::bundle) fn wanted(path: Option<&str>) -> Result<Vec<u8>, Error> {
    let parts = path.unwrap_or_default().split('/').filter(|part| !part.is_empty() && *part != ".");
    let path = parts.collect::<Vec<_>>().join("/").into_bytes();
    if !path.is_empty() {
        checked(&path)?;
    }
    Ok(path)
}

/// Looks up a reference (`repository:tag` or `repository@digest`) and what is at `path` in it.
///
/// # Errors
/// See [`ErrorKind`].
pub async fn resolve(reference: &str, path: Option<&str>, access: &Access) -> Result<Resolved, Error> {
    resolve_telling(reference, path, access, &Progress::default()).await
}

/// The same as [`resolve`], and tells of the layers that have to be looked through how much of them has come: they may be of
/// any size.
///
/// # Errors
/// See [`ErrorKind`].
pub async fn resolve_telling(
    reference: &str,
    path: Option<&str>,
    access: &Access,
    progress: &Progress,
) -> Result<Resolved, Error> {
    let path = wanted(path)?;
    let image = Image::open(reference, access).await?;
    let kind = if path.is_empty() {
        // What cannot be had shall be told before anything waits for it. What has a list is read through it, whatever its
        // layers are: those of a snapshot are no files with names.
        if image.manifest.bundle_index()?.is_none() {
            Content::of(&image.manifest, reference)?;
        }
        Kind::Directory
    } else if let Some(bundle) = Bundle::open(&image.repository, &image.manifest).await? {
        let listed = bundle.lookup(&path).await?;
        kind_of(&listed).ok_or_else(|| not_there(reference, &path))?
    } else {
        kind_in_layers(&image, &path, reference, progress).await?
    };
    Ok(Resolved { digest: image.digest, kind })
}

/// The last layer that has the path counts.
async fn kind_in_layers(image: &Image, path: &[u8], reference: &str, progress: &Progress) -> Result<Kind, Error> {
    let contents = Content::of(&image.manifest, reference)?;
    for (layer, content) in image.manifest.layers.iter().zip(contents).rev() {
        let wanted = path.to_vec();
        let download = Download::new(&image.repository, layer.digest, 0, layer.size);
        match feed(download, Need::Some, Some(progress), move |feed| look(&content, feed, &wanted)).await? {
            Seen::Here(kind) => return Ok(kind),
            Seen::Unusable(why) => return Err(Error::invalid(format!("{reference}: {why}"))),
            Seen::Gone => break,
            Seen::Nothing => {}
        }
    }
    Err(not_there(reference, path))
}

fn not_there(reference: &str, path: &[u8]) -> Error {
    Error::new(ErrorKind::PathNotFound, format!("{:?} is not in {reference}", crate::bundle::error::shown(path)))
}

/// Puts what is at `path` of an image, by digest, into `place`: an empty file or directory that is there and keeps its
/// inode. Every blob is verified. Can be done again over a first try that was cut off.
///
/// # Errors
/// See [`ErrorKind`].
pub async fn fetch(
    reference: &str,
    path: Option<&str>,
    place: &Path,
    budget: impl Into<Budget>,
    access: &Access,
    progress: &Progress,
) -> Result<(), Error> {
    put(reference, path, (place, Made::AsInput), budget.into(), access, progress).await
}

/// The same as [`fetch`], made as it says.
async fn put(
    reference: &str,
    path: Option<&str>,
    (place, made): (&Path, Made),
    budget: Budget,
    access: &Access,
    progress: &Progress,
) -> Result<(), Error> {
    let path = wanted(path)?;
    let image = Image::open(reference, access).await?;
    let place = Place::open(place)?;
    if let Some(bundle) = Bundle::open(&image.repository, &image.manifest).await? {
        return fetch_bundle(&bundle, &path, (place, made), &budget, progress).await;
    }
    let contents = Content::of(&image.manifest, reference)?;
    unpack(&image, &contents, path, (place, made), budget, progress).await
}

/// Puts a snapshot, by digest, back into the working directory `root`, with its modes and times and without what the command
/// said. `stay`: paths from there that are not touched, nor what is below them. Can be done again over a first try that was
/// cut off.
///
/// # Errors
/// See [`ErrorKind`].
pub async fn restore(
    reference: &str,
    root: &Path,
    stay: Vec<Vec<u8>>,
    budget: impl Into<Budget>,
    access: &Access,
    progress: &Progress,
) -> Result<(), Error> {
    let image = Image::open(reference, access).await?;
    let Some(bundle) = Bundle::open(&image.repository, &image.manifest).await? else {
        return Err(Error::invalid(format!("{reference} is no snapshot")));
    };
    let Place::Directory(root) = Place::open(root)? else {
        return Err(other_kind("the working directory", "directory"));
    };
    bundle.restore(root, stay, &budget.into(), progress).await
}

/// The snapshot that a tag of a repository means now, by digest; none: there is no such tag.
///
/// # Errors
/// See [`ErrorKind`].
pub async fn find_snapshot(repository: &str, tag: &str, access: &Access) -> Result<Option<String>, Error> {
    let repository = Repository::new(&Reference::parse_repository(repository)?, access, Purpose::Pull)?;
    Ok(moving_tag::read(&repository, tag).await?.map(|digest| digest.to_string()))
}

/// Gives a manifest of a repository, by digest, another tag.
///
/// # Errors
/// See [`ErrorKind`].
pub async fn add_tag(repository: &str, digest: &str, tag: &str, access: &Access) -> Result<(), Error> {
    let repository = Repository::new(&Reference::parse_repository(repository)?, access, Purpose::Push)?;
    let fetched = repository.manifest(digest).await?;
    repository.put_manifest(tag, image::MANIFEST_TYPE, &fetched.body).await.map(drop)
}

async fn fetch_bundle(
    bundle: &Bundle<'_>,
    path: &[u8],
    (place, made): (Place, Made),
    budget: &Budget,
    progress: &Progress,
) -> Result<(), Error> {
    let name = format!("{:?} of the bundle", crate::bundle::error::shown(path));
    // Its own path: the wanted one may lead through links.
    let Listed { path, what } = bundle.lookup(path).await?;
    match (what, place) {
        (ListedAs::File(file), Place::File(place)) => {
            budget.entry()?;
            progress.total_bytes.store(file.bytes(), Ordering::Relaxed);
            let mut new = NewFile::over(&place, &path, made)?.counting(budget);
            let write = move |piece: Piece<'_>| new.put(&piece);
            bundle.read(&file, Some(progress), write).await?;
            NewFile::finish_over(&place, &file, made)
        }
        (ListedAs::Directory { mode }, Place::Directory(root)) => {
            let maker = Maker::new(root).made(made);
            bundle.fetch(&path, maker.another(), budget, progress).await?;
            // That of the working directory is no part of an output.
            if path.is_empty() { Ok(()) } else { maker.root_mode(mode) }
        }
        (ListedAs::File(_), Place::Directory(_)) => Err(other_kind(&name, "directory")),
        _ => Err(other_kind(&name, "file")),
    }
}

/// Loads layers side by side and unpacks them in their order.
async fn unpack(
    image: &Image,
    contents: &[Content],
    path: Vec<u8>,
    (place, made): (Place, Made),
    budget: Budget,
    progress: &Progress,
) -> Result<(), Error> {
    let what =
        if path.is_empty() { "the image".to_owned() } else { format!("{:?}", crate::bundle::error::shown(&path)) };
    let bytes = image.manifest.layers.iter().map(|layer| layer.size);
    progress.total_bytes.store(bytes.fold(0, u64::saturating_add), Ordering::Relaxed);
    let unpacker = crate::bundle::blocking::blocking(move || Unpacker::new(place, made, path, budget)).await?;
    let (first, mut turn) = oneshot::channel();
    let _ = first.send(unpacker);
    let all: Vec<_> = image.manifest.layers.iter().zip(contents).collect();
    let mut layers = vec![];
    for number in 0..all.len() {
        let (after, next) = oneshot::channel();
        let up_to = all.get(..=number).unwrap_or_default();
        layers.push(layer(image, up_to, std::mem::replace(&mut turn, next), after, progress));
    }
    stream::iter(layers).buffered(AT_ONCE).try_collect::<()>().await?;
    let unpacker = turn.await.map_err(|_| out_of_turn())?;
    let left_out = crate::bundle::blocking::blocking(move || unpacker.finish(&what)).await?;
    progress.left_out.store(left_out, Ordering::Relaxed);
    Ok(())
}

/// Unpacks the last of some layers.
async fn layer(
    image: &Image,
    layers: &[(&Descriptor, &Content)],
    turn: oneshot::Receiver<Unpacker>,
    after: oneshot::Sender<Unpacker>,
    progress: &Progress,
) -> Result<(), Error> {
    let Some((layer, content)) = layers.last() else { return Ok(()) };
    let content = (*content).clone();
    let download = Download::new(&image.repository, layer.digest, 0, layer.size);
    let (mut unpacker, mut missing) = feed(download, Need::All(layer.digest), Some(progress), move |feed| {
        let mut unpacker = turn.blocking_recv().map_err(|_| out_of_turn())?;
        let missing = unpacker.layer(&content, feed)?;
        Ok((unpacker, missing))
    })
    .await?;
    for (lower, content) in layers.iter().rev() {
        if missing.is_empty() {
            break;
        }
        let download = Download::new(&image.repository, lower.digest, 0, lower.size);
        let content = (*content).clone();
        (unpacker, missing) = feed(download, Need::All(lower.digest), None, move |feed| {
            let missing = unpacker.fill(&content, feed, missing)?;
            Ok((unpacker, missing))
        })
        .await?;
    }
    if let Some(Elsewhere { source, .. }) = missing.first() {
        let source = crate::bundle::error::shown(source);
        return Err(Error::invalid(format!(
            "a file of the image is another name of {source:?}, which is no file in it"
        )));
    }
    after.send(unpacker).map_err(|_| out_of_turn())
}

fn out_of_turn() -> Error {
    Error::new(ErrorKind::Local, "an earlier layer was not unpacked")
}
