//! A tree becomes a bundle in a registry.
//!
//! | file | subject |
//! |---|---|
//! | `walk` | what is in the tree |
//! | `entries` | the entries of a tree in little memory |
//! | `outside` | files that are elsewhere |
//! | `layout` | which entry goes into which layer |
//! | `exclude` | what is left out because the run says so |
//! | `content` | the bytes of one file |
//! | `kept` | digests that were found out before |
//! | `early`, `pace` | large files that are pushed while the command runs |
//! | `lacking` | what a bundle lacks |
//! | `cancel` | the end of a save that nobody waits for |
//! | `skip` | what is left out, and what that means |
//! | `hang` | disks that give no answer |
//! | `layer` | what is known of a layer |
//! | `pack` | its bytes, read from the tree |
//! | `snapshot` | the tree while it is written |
//! | `list` | what became of each entry, and the layer that lists them |
//! | `provenance` | how a bundle was made |
//! | `check` | whether the store would accept one |

mod cancel;
pub(super) mod check;
mod content;
pub(super) mod early;
mod entries;
mod exclude;
mod hang;
mod kept;
mod lacking;
mod layer;
mod layout;
mod list;
mod outside;
mod pace;
mod pack;
mod provenance;
mod skip;
pub(super) mod snapshot;
mod walk;

use crate::bundle::blocking::blocking;
use crate::bundle::digest::Digest;
use crate::bundle::error::shown;
use crate::bundle::format::image::{self, Descriptor, MANIFEST_TYPE};
use crate::bundle::format::listing::ListLayer;
use crate::bundle::registry::{Purpose, Repository};
use crate::bundle::retry::Tries;
use crate::bundle::{Access, Error, ErrorKind, GivenUp, Progress, SavedBundle, Tree};
use crate::oci::Reference;
use bytes::Bytes;
use cancel::Cancel;
pub(crate) use entries::memory_of;
use entries::{Index, ROOT};
use futures::stream::{self, StreamExt, TryStreamExt};
use hang::{About, Asked, Hung, unless_hung};
use kept::Kept;
use lacking::Skipped;
use layer::Layer;
use layout::Plan;
use list::{Lists, Packed};
use pace::Pace;
use pack::{Reading, Unread};
use serde_json::Value;
use skip::Skip;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use walk::HungBefore;

/// Layers that are hashed or pushed at once.
const AT_ONCE: usize = 4;
/// Pieces of a layer that wait to be sent.
const PIECES: usize = 4;
/// So often a layer is hashed anew because it changed before it was pushed; then what changed is left out.
const MOST_CHANGES: u32 = 3;
/// Blobs that are asked for at once.
const LOOKS_AT_ONCE: usize = 8;
/// So long a blob that was pushed may be unknown: what answers may be a replica.
const REPLICAS: Duration = Duration::from_secs(30);
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// Saves a tree as a bundle under `repository:tag`, with `made_by` in an artifact that refers to it.
///
/// # Errors
/// See [`ErrorKind`]. What can pass by itself was tried again before.
pub async fn save(
    tree: &Tree,
    repository: &str,
    tag: &str,
    made_by: &Value,
    access: &Access,
    progress: &Progress,
) -> Result<SavedBundle, Error> {
    let reference = Reference::parse(&format!("{repository}:{tag}"))?;
    let repository = Repository::new(&Reference::parse_repository(repository)?, access, Purpose::Push)?;
    let kept = Kept::read(tree.kept.clone(), tree.keeps_more);
    let saving = Saving::new(repository, kept, Pace::default(), &tree.given_up, progress);
    let work = saving.run(tree, &reference.manifest, made_by);
    let show = async {
        loop {
            progress.done_bytes.store(saving.done.load(Ordering::Relaxed), Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let saved = tokio::select! {
        saved = work => saved?,
        () = show => return Err(Error::new(ErrorKind::Local, "progress has ended")),
    };
    progress.done_bytes.store(progress.total_bytes.load(Ordering::Relaxed), Ordering::Relaxed);
    Ok(saved)
}

struct Saving<'a> {
    repository: Repository,
    _cancelled: Cancel,
    reading: Arc<Reading>,
    given_up: &'a GivenUp,
    progress: &'a Progress,
    /// Bytes of layers that the registry had not.
    pushed: AtomicU64,
    /// Bytes that are in the registry, or on their way: less when a push has to be tried again.
    done: Arc<AtomicU64>,
}

impl<'a> Saving<'a> {
    fn new(repository: Repository, kept: Kept, pace: Pace, given_up: &'a GivenUp, progress: &'a Progress) -> Self {
        let cancelled = Cancel::default();
        let reading = Arc::new(Reading::new(cancelled.0.clone(), kept, pace));
        let (pushed, done) = (AtomicU64::new(0), Arc::default());
        Self { repository, _cancelled: cancelled, reading, given_up, progress, pushed, done }
    }

    async fn run(&self, tree: &Tree, tag: &str, made_by: &Value) -> Result<SavedBundle, Error> {
        let plan = self.plan(tree).await?;
        self.progress.total_bytes.store(plan.entries.content_bytes(), Ordering::Relaxed);
        let layers = stream::iter((0..plan.layers()).map(|number| self.layer(&plan, number)));
        // As they come: one large layer in front must not hold up those behind it.
        let mut layers: Vec<Arc<Layer>> = layers.buffer_unordered(AT_ONCE).try_collect().await?;
        layers.sort_by_key(|layer| layer.number);
        // All that can be read is in the store by now, so that another try is short.
        let packed = Arc::new(Packed { plan, layers });
        let skipped = Skipped::of(&packed);
        skipped.check(self.given_up)?;
        self.image(&packed, tag, made_by, skipped).await
    }

    /// Walks through the tree, and again without what hangs.
    async fn plan(&self, tree: &Tree) -> Result<Arc<Plan>, Error> {
        let mut hung_before = HungBefore::new();
        loop {
            let asked = Arc::new(Asked::default());
            let (tree, hung, reading) = (tree.clone(), hung_before.clone(), self.reading.clone());
            let walk = blocking(asked.clone().by(move || {
                let root = walk::open_root(&tree)?;
                let mut entries = walk::walk(&tree, &root, &hung, &reading.cancelled)?;
                let outside = outside::add(&tree, &mut entries)?;
                entries.sort();
                Ok(Arc::new(Plan::new(root, entries)?.with_outside(outside)))
            }));
            match unless_hung(walk, &asked, self.given_up, self.progress, |about| name(None, about)).await {
                Ok(plan) => return plan,
                Err(Hung { about: About::Path(path), time })
                    if !path.is_empty() && !hung_before.contains_key(&path) =>
                {
                    hung_before.insert(path, time);
                }
                Err(Hung { about, time }) => {
                    let (name, seconds) = (name(None, &about), time.as_secs());
                    let message = format!("the disk gave no answer for {seconds} s: {name}");
                    return Err(Error::new(ErrorKind::Local, message));
                }
            }
        }
    }

    /// Hashes a layer and pushes it, until both are of the same content.
    async fn layer(&self, plan: &Arc<Plan>, number: usize) -> Result<Arc<Layer>, Error> {
        let mut given_up = BTreeMap::new();
        let mut changes = 0;
        loop {
            let layer = match self.hash(plan, number, given_up.clone()).await {
                Ok(layer) => Arc::new(layer?),
                Err((index, skip)) => {
                    given_up.insert(index, skip);
                    continue;
                }
            };
            if self.repository.has_blob(&layer.digest, layer.size).await? {
                self.done.fetch_add(layer.size, Ordering::Relaxed);
                return Ok(self.stored(layer));
            }
            changes += 1;
            match self.push(plan, &layer).await? {
                Pushed::Done => return Ok(self.stored(layer)),
                Pushed::Refused(error) if changes >= MOST_CHANGES => return Err(error),
                Pushed::Refused(_) => self.reading.kept.forget(plan, number),
                Pushed::Changed(index) if changes >= MOST_CHANGES => {
                    given_up.insert(index, Skip::of_the_run("kept changing while it was saved"));
                }
                Pushed::Failed(index, skip) => {
                    given_up.insert(index, skip);
                }
                Pushed::Changed(_) => {}
            }
        }
    }

    fn stored(&self, layer: Arc<Layer>) -> Arc<Layer> {
        self.progress.stored_bytes.fetch_add(layer.size, Ordering::Relaxed);
        layer.pushed()
    }

    /// The outer error: this entry hangs.
    async fn hash(
        &self,
        plan: &Arc<Plan>,
        number: usize,
        given_up: BTreeMap<Index, Skip>,
    ) -> Result<Result<Layer, Error>, (Index, Skip)> {
        let asked = Arc::new(Asked::default());
        let (of, reading) = (plan.clone(), self.reading.clone());
        let hash = blocking(asked.clone().by(move || pack::hash(&of, number, &given_up, &reading)));
        self.unless_hung(hash, &asked, plan).await
    }

    /// The error: this entry hangs.
    async fn unless_hung<T>(
        &self,
        work: impl Future<Output = T>,
        asked: &Asked,
        plan: &Plan,
    ) -> Result<T, (Index, Skip)> {
        let done = unless_hung(work, asked, self.given_up, self.progress, |about| name(Some(plan), about)).await;
        done.map_err(|Hung { about, time }| match about {
            About::Entry(index) => (index, Skip::hung(time)),
            // The root: nothing else is asked about by its path once there is a plan.
            About::Path(_) => (ROOT, Skip::hung(time)),
        })
    }

    async fn push(&self, plan: &Arc<Plan>, layer: &Arc<Layer>) -> Result<Pushed, Error> {
        let mut tries = Tries::default();
        loop {
            let (sender, receiver) = mpsc::channel(PIECES);
            let asked = Arc::new(Asked::default());
            let reading = read_into(plan.clone(), layer.clone(), self.reading.clone(), asked.clone(), sender);
            let sent = Arc::new(AtomicU64::new(0));
            let body = body(receiver, [sent.clone(), self.done.clone()]);
            let push = async {
                let uploaded = self.repository.upload(&layer.digest, layer.size, body, &sent).await;
                (uploaded, reading.await)
            };
            let (uploaded, unread) = match self.unless_hung(push, &asked, plan).await {
                Ok(pushed) => pushed,
                Err((index, skip)) => {
                    self.done.fetch_sub(sent.load(Ordering::Relaxed), Ordering::Relaxed);
                    return Ok(Pushed::Failed(index, skip));
                }
            };
            let unread = unread.map_err(|error| Error::new(ErrorKind::Local, format!("no reader: {error}")))?;
            if uploaded.is_ok() && unread.is_none() {
                self.pushed.fetch_add(layer.size, Ordering::Relaxed);
                return Ok(Pushed::Done);
            }
            self.done.fetch_sub(sent.load(Ordering::Relaxed), Ordering::Relaxed);
            match (unread, uploaded) {
                (Some(unread), _) => return Ok(unread),
                (None, Err(failure)) if failure.error.kind == ErrorKind::Invalid => {
                    return Ok(Pushed::Refused(failure.error));
                }
                (None, Err(failure)) => tries.again(failure).await?,
                (None, Ok(())) => {}
            }
        }
    }

    async fn image(
        &self,
        packed: &Arc<Packed>,
        tag: &str,
        made_by: &Value,
        skipped: Skipped,
    ) -> Result<SavedBundle, Error> {
        let layers = &packed.layers;
        let (list, blob) = {
            let packed = packed.clone();
            blocking(move || list::first_write(&*packed)).await?
        };
        let mut diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.digest).collect();
        diff_ids.push(list.diff_id);
        let config = image::config(&diff_ids);
        let mut blobs: Vec<(Digest, u64)> = layers.iter().map(|layer| (layer.digest, layer.size)).collect();
        let manifest = image::manifest(&config, &blobs, &list)?;
        let repository = &self.repository;
        let mut pushed_bytes = self.pushed.load(Ordering::Relaxed);
        blobs.extend([(list.digest, list.size), (Digest::of(&config), config.len() as u64)]);
        pushed_bytes += match blob {
            Some(blob) => repository.push_small(&blob).await?,
            None => self.push_list(packed, &list).await?,
        };
        pushed_bytes += repository.push_small(&config).await?;
        repository.put_manifest(tag, MANIFEST_TYPE, &manifest).await?;
        let digest = Digest::of(&manifest);
        // A manifest that has another digest is refused.
        repository.manifest(&digest.to_string()).await?;
        self.are_there(&blobs).await?;
        let subject = Descriptor::new(MANIFEST_TYPE, digest, manifest.len() as u64);
        match provenance::push(repository, &subject, made_by).await {
            Ok(pushed) => pushed_bytes += pushed,
            // The output is safe, and that is what counts.
            Err(error) => eprintln!("bundle-operator: how {digest} was made is not in the registry: {error}"),
        }
        let files = layers.iter().flat_map(|layer| layer.files());
        let (files, bytes) = files.fold((0, 0), |(files, bytes), file| (files + 1, bytes + file.size));
        let mountable = packed.is_mountable();
        let Skipped { all, withheld, damaged, names, .. } = skipped;
        Ok(SavedBundle {
            digest: digest.to_string(),
            files,
            bytes,
            pushed_bytes,
            skipped: all,
            withheld,
            damaged,
            skipped_names: names,
            mountable,
        })
    }

    /// Pushes a list that is not held in memory: it is written anew for every try.
    async fn push_list(&self, of: &Arc<impl Lists>, list: &ListLayer) -> Result<u64, Error> {
        if self.repository.has_blob(&list.digest, list.size).await? {
            return Ok(0);
        }
        let mut tries = Tries::default();
        loop {
            let (sender, receiver) = mpsc::channel(PIECES);
            let of = of.clone();
            // It ends when nobody takes any more.
            let writing = tokio::task::spawn_blocking(move || {
                list::write(&*of, &mut |bytes| {
                    let sent = sender.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
                    sent.map_err(|_| Error::new(ErrorKind::Local, "not taken"))
                })
            });
            let sent = Arc::new(AtomicU64::new(0));
            let body = body(receiver, [sent.clone(), Arc::default()]);
            let uploaded = self.repository.upload(&list.digest, list.size, body, &sent).await;
            let _ = writing.await;
            match uploaded {
                Ok(()) => return Ok(list.size),
                Err(failure) => tries.again(failure).await?,
            }
        }
    }
}

impl Saving<'_> {
    /// Asks for every blob of the bundle: some registries take a manifest without looking, and what was there at the
    /// begin may have been collected as garbage since. A replica may be late, so that it is asked for a while.
    async fn are_there(&self, blobs: &[(Digest, u64)]) -> Result<(), Error> {
        let until = Instant::now() + REPLICAS;
        let is_there = async |(digest, size): (Digest, u64)| {
            while !self.repository.has_blob(&digest, size).await? {
                if Instant::now() >= until {
                    let host = self.repository.host();
                    return Err(Error::invalid(format!(
                        "{host} took the manifest, and has no blob {digest} of {size} bytes"
                    )));
                }
                tokio::time::sleep(BETWEEN_LOOKS).await;
            }
            Ok(())
        };
        stream::iter(blobs.iter().copied().map(is_there)).buffer_unordered(LOOKS_AT_ONCE).try_collect().await
    }
}

enum Pushed {
    Done,
    /// This entry is not any more what it was when it was hashed.
    Changed(Index),
    /// This entry cannot be read any more.
    Failed(Index, Skip),
    /// The registry got something else than was hashed, and the file system did not tell.
    Refused(Error),
}

/// What hangs, for people.
fn name(plan: Option<&Plan>, about: &About) -> String {
    let path = match about {
        About::Path(path) => path.clone(),
        About::Entry(index) => plan.map(|plan| plan.entries.path(*index)).unwrap_or_default(),
    };
    if path.is_empty() { "the working directory itself".to_owned() } else { shown(&path) }
}

/// Reads a layer in a thread of its own. The result is why that ended early, if it did.
fn read_into(
    plan: Arc<Plan>,
    layer: Arc<Layer>,
    reading: Arc<Reading>,
    asked: Arc<Asked>,
    sender: mpsc::Sender<io::Result<Bytes>>,
) -> tokio::task::JoinHandle<Option<Pushed>> {
    tokio::task::spawn_blocking(asked.by(move || {
        let read = pack::read(&plan, &layer, |bytes| {
            reading.pace.wait(bytes.len());
            sender.blocking_send(Ok(Bytes::copy_from_slice(bytes))).is_ok()
        });
        let unread = match read {
            Ok(()) | Err(Unread::NotTaken) => return None,
            Err(Unread::Changed(index)) => Pushed::Changed(index),
            Err(Unread::Failed(index, skip)) => Pushed::Failed(index, skip),
        };
        // Else the registry would wait for the rest.
        let _ = sender.blocking_send(Err(io::Error::other("a file has changed")));
        Some(unread)
    }))
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
