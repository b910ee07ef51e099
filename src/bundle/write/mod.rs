//! A tree becomes a bundle in a registry.
//!
//! | file | subject |
//! |---|---|
//! | `walk` | what is in the tree |
//! | `outside` | files that are elsewhere |
//! | `layout` | which entry goes into which layer |
//! | `skip` | what is left out, and what that means |
//! | `pack` | the bytes of a layer, read from the tree |
//! | `provenance` | how a bundle was made |
//! | `check` | whether the store would accept one |

pub(super) mod check;
mod layout;
mod outside;
mod pack;
mod provenance;
mod skip;
mod walk;

use crate::bundle::blocking::blocking;
use crate::bundle::digest::Digest;
use crate::bundle::error::{MOST_DAMAGED, shown};
use crate::bundle::format::image::{self, Descriptor, MANIFEST_TYPE};
use crate::bundle::format::listing::{self, Listed, ListedAs, ListedFile};
use crate::bundle::registry::{Purpose, Repository};
use crate::bundle::retry::Tries;
use crate::bundle::{Access, Error, ErrorKind, GivenUp, Progress, SavedBundle, Tree};
use crate::oci::Reference;
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use layout::Plan;
use pack::{Fate, Layer, StoredFile, Unread};
use serde_json::Value;
use skip::{Because, Skip};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc;
use walk::{Cancelled, What};

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
    let saving = Saving { repository, cancelled: Cancel::default(), pushed: AtomicU64::new(0), done: Arc::default() };
    let work = saving.run(tree.clone(), &reference.manifest, made_by, progress);
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

/// Tells the threads that read when nobody waits for them any more.
#[derive(Default)]
struct Cancel(Arc<Cancelled>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

struct Saving {
    repository: Repository,
    cancelled: Cancel,
    /// Bytes of layers that the registry had not.
    pushed: AtomicU64,
    /// Bytes that are in the registry, or on their way: less when a push has to be tried again.
    done: Arc<AtomicU64>,
}

impl Saving {
    async fn run(&self, tree: Tree, tag: &str, made_by: &Value, progress: &Progress) -> Result<SavedBundle, Error> {
        let cancelled = self.cancelled.0.clone();
        let given_up = tree.given_up.clone();
        let plan = blocking(move || {
            let root = walk::open_root(&tree)?;
            let mut entries = walk::walk(&tree, &root, &cancelled)?;
            let outside = outside::add(&tree, &mut entries)?;
            Ok(Arc::new(Plan::new(root, entries).with_outside(outside)))
        })
        .await?;
        progress.total_bytes.store(content_bytes(&plan), Ordering::Relaxed);
        let layer = async |number| Ok::<_, Error>((number, self.layer(&plan, number).await?));
        let layers = stream::iter((0..plan.layers.len()).map(layer));
        // As they come: one large layer in front must not hold up those behind it.
        let mut layers: Vec<(usize, Arc<Layer>)> = layers.buffer_unordered(AT_ONCE).try_collect().await?;
        layers.sort_by_key(|(number, _)| *number);
        let layers: Vec<Arc<Layer>> = layers.into_iter().map(|(_, layer)| layer).collect();
        // All that can be read is in the store by now, so that another try is short.
        let fates = fates(&plan, &layers);
        let skipped = Skipped::of(&plan, &fates);
        skipped.check(&given_up)?;
        self.image(&plan, &layers, &fates, tag, made_by, skipped).await
    }

    /// Hashes a layer and pushes it, until both are of the same content.
    async fn layer(&self, plan: &Arc<Plan>, number: usize) -> Result<Arc<Layer>, Error> {
        let mut given_up = BTreeMap::new();
        let mut changes = 0;
        loop {
            let layer = Arc::new(self.hash(plan, number, given_up.clone()).await?);
            if self.repository.has_blob(&layer.digest, layer.size).await? {
                self.done.fetch_add(layer.size, Ordering::Relaxed);
                return Ok(layer);
            }
            changes += 1;
            match self.push(plan, &layer).await? {
                Pushed::Done => return Ok(layer),
                Pushed::Refused(error) if changes >= MOST_CHANGES => return Err(error),
                Pushed::Changed(index) if changes >= MOST_CHANGES => {
                    given_up.insert(index, Skip::of_the_run("kept changing while it was saved"));
                }
                Pushed::Failed(index, skip) => {
                    given_up.insert(index, skip);
                }
                Pushed::Changed(_) | Pushed::Refused(_) => {}
            }
        }
    }

    async fn hash(&self, plan: &Arc<Plan>, number: usize, given_up: BTreeMap<usize, Skip>) -> Result<Layer, Error> {
        let (plan, cancelled) = (plan.clone(), self.cancelled.0.clone());
        blocking(move || {
            let entries = plan.layers.get(number).map(Vec::as_slice).unwrap_or_default();
            pack::hash(&plan, entries, &given_up, &cancelled)
        })
        .await
    }

    async fn push(&self, plan: &Arc<Plan>, layer: &Arc<Layer>) -> Result<Pushed, Error> {
        let mut tries = Tries::default();
        loop {
            let (sender, receiver) = mpsc::channel(PIECES);
            let reading = read_into(plan.clone(), layer.clone(), sender);
            let sent = Arc::new(AtomicU64::new(0));
            let body = body(receiver, [sent.clone(), self.done.clone()]);
            let uploaded = self.repository.upload(&layer.digest, layer.size, body, &sent).await;
            let unread = reading.await.map_err(|error| Error::new(ErrorKind::Local, format!("no reader: {error}")))?;
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
        plan: &Plan,
        layers: &[Arc<Layer>],
        fates: &[Option<(usize, &Fate)>],
        tag: &str,
        made_by: &Value,
        skipped: Skipped,
    ) -> Result<SavedBundle, Error> {
        let all = || (0..plan.entries.len()).filter_map(|index| listed(plan, fates, index));
        let list = listing::write(all)?;
        let mut diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.digest).collect();
        diff_ids.push(list.diff_id);
        let config = image::config(&diff_ids);
        let blobs: Vec<(Digest, u64)> = layers.iter().map(|layer| (layer.digest, layer.size)).collect();
        let manifest = image::manifest(&config, &blobs, &list)?;
        let repository = &self.repository;
        let mut pushed_bytes = self.pushed.load(Ordering::Relaxed);
        let list = Bytes::from(list.blob);
        let mut all_blobs = blobs;
        all_blobs.extend([&list, &config].map(|blob| (Digest::of(blob), blob.len() as u64)));
        pushed_bytes += repository.push_small(&list).await?;
        pushed_bytes += repository.push_small(&config).await?;
        repository.put_manifest(tag, MANIFEST_TYPE, &manifest).await?;
        let digest = Digest::of(&manifest);
        // A manifest that has another digest is refused.
        repository.manifest(&digest.to_string()).await?;
        self.are_there(&all_blobs).await?;
        let subject = Descriptor::new(MANIFEST_TYPE, digest, manifest.len() as u64);
        match provenance::push(repository, &subject, made_by).await {
            Ok(pushed) => pushed_bytes += pushed,
            // The output is safe, and that is what counts.
            Err(error) => eprintln!("bundle-operator: how {digest} was made is not in the registry: {error}"),
        }
        let (mut files, mut bytes) = (0, 0);
        for entry in all() {
            match entry.what {
                ListedAs::File(file) if file.same_as.is_none() => {
                    files += 1;
                    bytes += file.size;
                }
                _ => {}
            }
        }
        let mountable = plan.is_mountable();
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
}

impl Saving {
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
    Changed(usize),
    /// This entry cannot be read any more.
    Failed(usize, Skip),
    /// The registry got something else than was hashed, and the file system did not tell.
    Refused(Error),
}

/// What became of each entry and in which layer, by its index.
fn fates<'a>(plan: &Plan, layers: &'a [Arc<Layer>]) -> Vec<Option<(usize, &'a Fate)>> {
    let mut fates = vec![None; plan.entries.len()];
    for (number, layer) in layers.iter().enumerate() {
        for (index, fate) in &layer.members {
            if let Some(place) = fates.get_mut(*index) {
                *place = Some((number, fate));
            }
        }
    }
    fates
}

/// Why an entry is left out; none: it is not.
fn skip_of(plan: &Plan, fates: &[Option<(usize, &Fate)>], index: usize) -> Option<Skip> {
    match (&plan.entries.get(index)?.what, fates.get(plan.first_name(index)).copied().flatten()) {
        (What::Skipped(skip), _) | (_, Some((_, Fate::Skipped(skip)))) => Some(skip.clone()),
        (What::File { .. }, Some((_, Fate::File(_)))) | (What::Directory | What::Link { .. }, _) => None,
        (What::File { .. }, _) => Some(Skip::of_the_run("was not read")),
    }
}

/// What a bundle lacks.
#[derive(Default)]
struct Skipped {
    all: u64,
    withheld: u64,
    damaged: u64,
    /// Of the first ones, what is worst first.
    names: Vec<String>,
    /// Digests of the paths of those that are damaged, of the first of them.
    damaged_paths: Vec<String>,
}

impl Skipped {
    /// As many are named.
    const NAMES: usize = 3;

    fn of(plan: &Plan, fates: &[Option<(usize, &Fate)>]) -> Self {
        let mut skipped = Self::default();
        let mut names: [Vec<String>; 3] = Default::default();
        for (index, entry) in plan.entries.iter().enumerate() {
            let Some(Skip { why, because }) = skip_of(plan, fates, index) else { continue };
            let [damaged, withheld, others] = &mut names;
            skipped.all += 1;
            let names = match because {
                Because::OfTheMachine => {
                    skipped.damaged += 1;
                    if skipped.damaged_paths.len() < MOST_DAMAGED {
                        skipped.damaged_paths.push(Digest::of(&entry.path).to_string());
                    }
                    damaged
                }
                Because::OfTheRun => {
                    skipped.withheld += 1;
                    withheld
                }
                Because::NoOutput => others,
            };
            if names.len() < Self::NAMES {
                names.push(format!("{} ({why})", shown(&entry.path)));
            }
        }
        skipped.names = names.into_iter().flatten().take(Self::NAMES).collect();
        skipped
    }

    /// An error if anything is missing that the machine failed to read and nobody has given up.
    fn check(&self, given_up: &GivenUp) -> Result<(), Error> {
        let is_over = given_up.all_after.is_some_and(|after| SystemTime::now() >= after);
        let are_given_up = self.damaged <= MOST_DAMAGED as u64
            && self.damaged_paths.iter().all(|path| given_up.entries.contains(path));
        if is_over || are_given_up {
            return Ok(());
        }
        let first = self.names.first().map(String::as_str).unwrap_or_default();
        let more = match self.damaged {
            0 | 1 => String::new(),
            2 => " and 1 more".to_owned(),
            n => format!(" and {} more", n - 1),
        };
        let error = Error::new(ErrorKind::Local, format!("the output is not whole: {first}{more}"));
        Err(Error { damaged: self.damaged_paths.clone(), ..error })
    }
}

fn listed(plan: &Plan, fates: &[Option<(usize, &Fate)>], index: usize) -> Option<Listed> {
    let entry = plan.entries.get(index)?;
    let first = plan.first_name(index);
    if let Some(skip) = skip_of(plan, fates, index) {
        return Some(Listed { path: entry.path.to_vec(), what: ListedAs::Skipped { reason: skip.why.into() } });
    }
    let what = match (&entry.what, fates.get(first).copied().flatten()) {
        (What::Directory, _) => ListedAs::Directory { mode: entry.mode },
        (What::Link { target }, _) => ListedAs::Link { target: target.to_vec() },
        (What::File { .. }, Some((layer, Fate::File(stored)))) => {
            let same_as = plan.entries.get(first).filter(|_| first != index).map(|first| first.path.to_vec());
            let StoredFile { offset, size, digest, .. } = *stored;
            ListedAs::File(ListedFile { mode: entry.mode, size, digest, layer, offset, same_as })
        }
        (What::File { .. } | What::Skipped(_), _) => return None,
    };
    Some(Listed { path: entry.path.to_vec(), what })
}

/// Reads a layer in a thread of its own. The result is why that ended early, if it did.
fn read_into(
    plan: Arc<Plan>,
    layer: Arc<Layer>,
    sender: mpsc::Sender<io::Result<Bytes>>,
) -> tokio::task::JoinHandle<Option<Pushed>> {
    tokio::task::spawn_blocking(move || {
        let read = pack::read(&plan, &layer, |bytes| sender.blocking_send(Ok(Bytes::copy_from_slice(bytes))).is_ok());
        let unread = match read {
            Ok(()) | Err(Unread::NotTaken) => return None,
            Err(Unread::Changed(index)) => Pushed::Changed(index),
            Err(Unread::Failed(index, skip)) => Pushed::Failed(index, skip),
        };
        // Else the registry would wait for the rest.
        let _ = sender.blocking_send(Err(io::Error::other("a file has changed")));
        Some(unread)
    })
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

fn content_bytes(plan: &Plan) -> u64 {
    let sizes = plan.entries.iter().map(|entry| match entry.what {
        What::File { size, .. } => size,
        _ => 0,
    });
    sizes.fold(0, u64::saturating_add)
}
