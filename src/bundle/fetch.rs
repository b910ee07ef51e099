//! What a reference means, and getting what is in it.

use super::contents::{Bundle, kind_of};
use super::feed::{Need, feed};
use super::image::{self, Manifest, Read};
use super::listing::ListedAs;
use super::look::{Seen, look};
use super::place::{Budget, NewFile, Place, checked, other_kind};
use super::reference::Reference;
use super::registry::{Download, Purpose, Repository};
use super::unpack::{Elsewhere, Unpacker};
use super::{Access, Error, ErrorKind, Kind, Limits, Progress, Resolved};
use futures::stream::{self, StreamExt, TryStreamExt};
use std::path::Path;
use std::sync::atomic::Ordering;
use tokio::sync::oneshot;

/// Layers of which something is loaded; they are unpacked one after the other.
const AT_ONCE: usize = 3;

/// An image that was looked up.
pub(super) struct Image {
    pub(super) repository: Repository,
    /// What the reference points to: an index, where there is one.
    pub(super) digest: String,
    pub(super) manifest: Box<Manifest>,
}

impl Image {
    pub(super) async fn open(reference: &str, access: &Access) -> Result<Self, Error> {
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
pub(super) fn wanted(path: Option<&str>) -> Result<Vec<u8>, Error> {
    let parts = path.unwrap_or_default().split('/').filter(|part| !part.is_empty() && *part != ".");
    let path = parts.collect::<Vec<_>>().join("/").into_bytes();
    if !path.is_empty() {
        checked(&path)?;
    }
    Ok(path)
}

/// See [`super::resolve`].
pub(super) async fn resolve(reference: &str, path: Option<&str>, access: &Access) -> Result<Resolved, Error> {
    let path = wanted(path)?;
    let image = Image::open(reference, access).await?;
    let kind = if path.is_empty() {
        Kind::Directory
    } else if let Some(bundle) = Bundle::open(&image.repository, &image.manifest).await? {
        let listed = bundle.lookup(&path).await?;
        kind_of(&listed).ok_or_else(|| not_there(reference, &path))?
    } else {
        kind_in_layers(&image, &path, reference).await?
    };
    Ok(Resolved { digest: image.digest, kind })
}

/// The last layer that has the path counts.
async fn kind_in_layers(image: &Image, path: &[u8], reference: &str) -> Result<Kind, Error> {
    for layer in image.manifest.layers.iter().rev() {
        let wanted = path.to_vec();
        let download = Download::new(&image.repository, layer.digest, 0, layer.size);
        match feed(download, Need::Some, None, move |feed| look(feed, &wanted)).await? {
            Seen::Here(kind) => return Ok(kind),
            Seen::Unusable(why) => return Err(Error::invalid(format!("{reference}: {why}"))),
            Seen::Gone => break,
            Seen::Nothing => {}
        }
    }
    Err(not_there(reference, path))
}

fn not_there(reference: &str, path: &[u8]) -> Error {
    Error::new(ErrorKind::NotFound, format!("{:?} is not in {reference}", super::error::shown(path)))
}

/// See [`super::fetch`].
pub(super) async fn fetch(
    reference: &str,
    path: Option<&str>,
    place: &Path,
    limits: Limits,
    access: &Access,
    progress: &Progress,
) -> Result<(), Error> {
    let path = wanted(path)?;
    let image = Image::open(reference, access).await?;
    let place = Place::open(place)?;
    let budget = Budget::new(limits);
    match Bundle::open(&image.repository, &image.manifest).await? {
        Some(bundle) => fetch_bundle(&bundle, &path, place, &budget, progress).await,
        None => unpack(&image, path, place, budget, progress).await,
    }
}

async fn fetch_bundle(
    bundle: &Bundle<'_>,
    path: &[u8],
    place: Place,
    budget: &Budget,
    progress: &Progress,
) -> Result<(), Error> {
    let found = bundle.lookup(path).await?;
    let name = format!("{:?} of the bundle", super::error::shown(path));
    match (found.what, place) {
        (ListedAs::File(file), Place::File(place)) => {
            budget.entry()?;
            budget.bytes(file.size)?;
            progress.total_bytes.store(file.size, Ordering::Relaxed);
            let mut new = Some(NewFile::over(&place, path)?);
            let write = move |bytes: &[u8]| new.as_mut().map_or(Ok(()), |new| new.write(bytes));
            bundle.read(&file, Some(progress), write).await?;
            NewFile::finish_over(&place, file.size, file.mode)
        }
        (ListedAs::Directory { .. }, Place::Directory(root)) => {
            let entries = bundle.entries(path).await?;
            bundle.fetch(path, entries, root, budget, progress).await
        }
        (ListedAs::File(_), Place::Directory(_)) => Err(other_kind(&name, "directory")),
        _ => Err(other_kind(&name, "file")),
    }
}

/// Loads layers side by side and unpacks them in their order.
async fn unpack(image: &Image, path: Vec<u8>, place: Place, budget: Budget, progress: &Progress) -> Result<(), Error> {
    let what = if path.is_empty() { "the image".to_owned() } else { format!("{:?}", super::error::shown(&path)) };
    let bytes = image.manifest.layers.iter().map(|layer| layer.size);
    progress.total_bytes.store(bytes.fold(0, u64::saturating_add), Ordering::Relaxed);
    let unpacker = super::save::blocking(move || Unpacker::new(place, path, budget)).await?;
    let (first, mut turn) = oneshot::channel();
    let _ = first.send(unpacker);
    let mut layers = vec![];
    for number in 0..image.manifest.layers.len() {
        let (after, next) = oneshot::channel();
        layers.push(layer(image, number, std::mem::replace(&mut turn, next), after, progress));
    }
    stream::iter(layers).buffered(AT_ONCE).try_collect::<()>().await?;
    let unpacker = turn.await.map_err(|_| out_of_turn())?;
    super::save::blocking(move || unpacker.finish(&what)).await
}

async fn layer(
    image: &Image,
    number: usize,
    turn: oneshot::Receiver<Unpacker>,
    after: oneshot::Sender<Unpacker>,
    progress: &Progress,
) -> Result<(), Error> {
    let layers = image.manifest.layers.get(..=number).unwrap_or_default();
    let Some(layer) = layers.last() else { return Ok(()) };
    let download = Download::new(&image.repository, layer.digest, 0, layer.size);
    let (mut unpacker, mut missing) = feed(download, Need::All(layer.digest), Some(progress), move |feed| {
        let mut unpacker = turn.blocking_recv().map_err(|_| out_of_turn())?;
        let missing = unpacker.layer(feed)?;
        Ok((unpacker, missing))
    })
    .await?;
    for lower in layers.iter().rev() {
        if missing.is_empty() {
            break;
        }
        let download = Download::new(&image.repository, lower.digest, 0, lower.size);
        (unpacker, missing) = feed(download, Need::All(lower.digest), None, move |feed| {
            let missing = unpacker.fill(feed, missing)?;
            Ok((unpacker, missing))
        })
        .await?;
    }
    if let Some(Elsewhere { source, .. }) = missing.first() {
        let source = super::error::shown(source);
        return Err(Error::invalid(format!(
            "a file of the image is another name of {source:?}, which is no file in it"
        )));
    }
    after.send(unpacker).map_err(|_| out_of_turn())
}

fn out_of_turn() -> Error {
    Error::new(ErrorKind::Local, "an earlier layer was not unpacked")
}
