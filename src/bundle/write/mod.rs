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
//! | `reading` | files that others may replace meanwhile |
//! | `pack` | the bytes of a layer, read from the tree |
//! | `large` | the bytes of one that is a single file, which may be cut into parts |
//! | `send` | layers on their way to the registry |
//! | `snapshot` | the tree while it is written |
//! | `list` | what became of each entry, and the layer that lists them |
//! | `provenance` | how a bundle was made |
//! | `check` | whether the store would accept one |

mod buffer;
mod cancel;
pub(super) mod check;
mod content;
pub(super) mod early;
mod entries;
mod exclude;
mod hang;
mod kept;
mod lacking;
mod large;
mod layer;
mod layout;
mod list;
mod outside;
mod pace;
mod pack;
pub(super) mod present;
mod provenance;
mod reading;
mod send;
mod skip;
pub(super) mod snapshot;
mod walk;

use crate::bundle::blocking::blocking;
use crate::bundle::digest::Digest;
use crate::bundle::error::shown;
use crate::bundle::format::image::{self, Descriptor, MANIFEST_TYPE};
use crate::bundle::registry::{Purpose, Repository};
use crate::bundle::{Access, Error, ErrorKind, GivenUp, Progress, SavedBundle, Tree};
use crate::names::bundle::upload_tag;
use crate::oci::Reference;
use cancel::Cancel;
pub(crate) use entries::memory_of;
use entries::{Index, ROOT, What};
use futures::stream::{self, StreamExt, TryStreamExt};
use hang::{About, Asked, Hung, unless_hung};
use kept::Kept;
use lacking::Skipped;
use layer::Layer;
use layout::Plan;
use list::Packed;
use pace::Pace;
use reading::Reading;
use send::NotPushed;
use serde_json::Value;
use skip::Skip;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
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

/// Saves a tree as a bundle under `repository:tag`, with `made_by` in an artifact that refers to it. Without a tag it has
/// that of its digest, see [`upload_tag`].
///
/// # Errors
/// See [`ErrorKind`]. What can pass by itself was tried again before.
pub async fn save(
    tree: &Tree,
    repository: &str,
    tag: Option<&str>,
    made_by: &Value,
    access: &Access,
    progress: &Progress,
) -> Result<SavedBundle, Error> {
    if let Some(tag) = tag {
        Reference::parse(&format!("{repository}:{tag}"))?;
    }
    let repository = Repository::new(&Reference::parse_repository(repository)?, access, Purpose::Push)?;
    let kept = Kept::read(tree.kept.clone(), tree.keeps_more);
    let saving = Saving::new(repository, kept, Pace::default(), &tree.given_up, progress);
    let saving = Saving { may_be_there: tree.may_be_there, ..saving };
    let work = saving.run(tree, tag, made_by);
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
    /// See [`Tree::may_be_there`].
    may_be_there: bool,
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
        Self { repository, _cancelled: cancelled, reading, given_up, progress, may_be_there: false, pushed, done }
    }

    async fn run(&self, tree: &Tree, tag: Option<&str>, made_by: &Value) -> Result<SavedBundle, Error> {
        let plan = self.plan(tree).await?;
        self.progress.total_bytes.store(plan.entries.content_bytes(), Ordering::Relaxed);
        let layers = stream::iter((0..plan.layers()).map(|number| self.layer(&plan, number)));
        // As they come: one large layer in front must not hold up those behind it.
        let mut layers: Vec<Arc<Layer>> = layers.buffer_unordered(AT_ONCE).try_collect().await?;
        layers.sort_by_key(|layer| layer.number);
        // All that can be read is in the store by now, so that another try is short.
        let packed = Arc::new(Packed::new(plan, layers));
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
                let (root, entries, outside) = outside::walk_all(&tree, &hung, &reading.cancelled)?;
                Ok(Arc::new(Plan::new(root, entries, tree.max_blob)?.with_outside(outside)))
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
            let pushed = match self.read_and_push(plan, number, &given_up).await {
                Ok(pushed) => pushed?,
                Err(hung) => Err(hung.into()),
            };
            changes += 1;
            match pushed {
                Ok(layer) => return Ok(layer.pushed()),
                Err(NotPushed::Refused(error)) if changes >= MOST_CHANGES => return Err(error),
                Err(NotPushed::Refused(_)) => self.reading.kept.forget(plan, number),
                Err(NotPushed::Changed(index)) if changes >= MOST_CHANGES => {
                    given_up.insert(index, Skip::of_the_run("kept changing while it was saved"));
                }
                Err(NotPushed::Failed(index, skip)) => {
                    given_up.insert(index, skip);
                }
                Err(NotPushed::Changed(_)) => {}
            }
        }
    }

    /// The outer error: this entry hangs.
    async fn read_and_push(
        &self,
        plan: &Arc<Plan>,
        number: usize,
        given_up: &BTreeMap<Index, Skip>,
    ) -> Result<Result<Result<Arc<Layer>, NotPushed>, Error>, (Index, Skip)> {
        if given_up.is_empty()
            && let Some(index) = self.read_once(plan, number)
        {
            return Ok(self.push_unread(plan, number, index).await);
        }
        let layer = match self.hash(plan, number, given_up.clone()).await? {
            Ok(layer) => Arc::new(layer),
            Err(error) => return Ok(Err(error)),
        };
        Ok(self.push(plan, &layer).await.map(|pushed| pushed.map(|()| layer)))
    }

    /// The file of a layer that is not to be read for its digest first. A small one is read from memory the second time;
    /// and one that was pushed before, by an earlier try too, may be in the registry.
    fn read_once(&self, plan: &Plan, number: usize) -> Option<Index> {
        let index = plan.one_file(number)?;
        let What::File { size } = plan.entries.get(index)?.what else { return None };
        let kept = &self.reading.kept;
        (size > layout::LARGE && !self.may_be_there && !kept.adds() && !kept.knew(plan, number)).then_some(index)
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

    async fn image(
        &self,
        packed: &Arc<Packed>,
        tag: Option<&str>,
        made_by: &Value,
        skipped: Skipped,
    ) -> Result<SavedBundle, Error> {
        let (list, blob) = {
            let packed = packed.clone();
            blocking(move || list::first_write(&*packed)).await?
        };
        let mut blobs: Vec<(Digest, u64)> = packed.blobs().map(|blob| (blob.digest, blob.size)).collect();
        let diff_ids: Vec<Digest> = blobs.iter().map(|(digest, _)| *digest).chain([list.diff_id]).collect();
        let config = image::config(&diff_ids);
        let manifest = image::manifest(&config, &blobs, &list)?;
        let repository = &self.repository;
        let mut pushed_bytes = self.pushed.load(Ordering::Relaxed);
        blobs.extend([(list.digest, list.size), (Digest::of(&config), config.len() as u64)]);
        pushed_bytes += match blob {
            Some(blob) => repository.push_small(&blob).await?,
            None => self.push_list(&packed.plan, packed, &list).await?,
        };
        pushed_bytes += repository.push_small(&config).await?;
        let digest = Digest::of(&manifest);
        let tag = tag.map_or_else(|| upload_tag(&digest.hex()), str::to_owned);
        repository.put_manifest(&tag, MANIFEST_TYPE, &manifest).await?;
        // A manifest that has another digest is refused.
        repository.manifest(&digest.to_string()).await?;
        self.are_there(&blobs).await?;
        let subject = Descriptor::new(MANIFEST_TYPE, digest, manifest.len() as u64);
        // The output is safe, and that is what counts.
        let provenance_failed = match provenance::push(repository, &subject, made_by).await {
            Ok(pushed) => {
                pushed_bytes += pushed;
                None
            }
            Err(error) => Some(error.message),
        };
        let files = packed.layers.iter().flat_map(|layer| layer.files());
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
            provenance_failed,
            mountable,
        })
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

/// What hangs, for people.
fn name(plan: Option<&Plan>, about: &About) -> String {
    let path = match about {
        About::Path(path) => path.clone(),
        About::Entry(index) => plan.map(|plan| plan.entries.path(*index)).unwrap_or_default(),
    };
    if path.is_empty() { "the working directory itself".to_owned() } else { shown(&path) }
}
