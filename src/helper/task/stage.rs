//! The child that puts inputs in place. Can be done again over a first try that was cut off: until all are in place,
//! nobody reads them.

use crate::bundle::{self, Access, Budget, Limits, Progress};
use crate::contract::{Cause, InputSource, ProgressStage, Request, RequestedInput, log_line, one_line};
use crate::helper::awaited::Notes;
use crate::helper::child::runtime;
use crate::helper::failure::Failure;
use crate::helper::markers::{self, is_marked, mark, order_end};
use crate::helper::mode;
use crate::helper::owner;
use crate::helper::progress::Telling;
use crate::helper::room;
use crate::helper::task::copy::{self, Mount};
use crate::helper::task::links;
use crate::helper::task::login::access;
use crate::helper::task::look_up;
use crate::helper::task::resume;
use crate::helper::task::url::{self, PartialMark, Tells, Wanted};
use crate::helper::tree;
use crate::names::files;
use crate::runner::Paths;
use futures::{StreamExt, stream};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How many inputs are fetched at once; each may have several transfers of its own.
const AT_ONCE: usize = 4;
/// Entries of one input: their inodes are the node's.
const MAX_ENTRIES: u64 = 2_000_000;
/// What an entry takes of a disk at least, however small: about an inode and its place in a directory.
const ENTRY_BYTES: u64 = 512;

/// Between two looks at whether an input comes.
const LOOK: Duration = Duration::from_secs(1);

/// What all inputs share.
struct Stage<'a> {
    paths: &'a Paths,
    access: Access,
    /// All inputs have one: what a run may put on a disk is known before it starts.
    budget: Budget,
    pins: look_up::Pins,
    http: reqwest::Client,
    notes: Notes,
}

/// Stages all inputs and leaves the mark of it, or the order to end. An error may pass by itself.
pub(in crate::helper) fn stage(paths: &Paths, request: &Request) -> Result<(), String> {
    let runtime = runtime()?;
    let stage = Stage {
        paths,
        access: access(paths, request),
        budget: budget(paths, request),
        pins: look_up::pins(paths),
        http: url::client(request.registries.ca.as_deref())?,
        notes: Notes::of(&paths.bin),
    };
    stage.count_staged(&request.inputs);
    let progress: Vec<Arc<Progress>> = request.inputs.iter().map(|_| Arc::default()).collect();
    let of_snapshot = Arc::<Progress>::default();
    let transfers = progress.iter().chain([&of_snapshot]).cloned().collect();
    let telling = Telling::start(&paths.bin, ProgressStage::Staging, transfers);
    let staged = runtime.block_on(async {
        let resumed = resume::resume(paths, request, &budget(paths, request), &of_snapshot).await;
        resumed.map_err(Failure::Transient)?;
        stage.all(request, &progress).await
    });
    drop(telling);
    match staged {
        Ok(()) => {
            for mark in [files::TROUBLE, files::AWAITED] {
                markers::unmark(&paths.bin, mark);
            }
            Ok(mark(&paths.bin, files::STAGED, b"")?)
        }
        Err(Failure::Permanent(cause, detail)) => Ok(order_end(&paths.bin, cause, &detail)?),
        Err(Failure::Awaited(_, why) | Failure::Transient(why)) => Err(why),
    }
}

/// How much of a disk may be filled.
fn budget(paths: &Paths, request: &Request) -> Budget {
    let bytes = request.disk_bytes.unwrap_or(u64::MAX);
    let limits = Limits { entries: MAX_ENTRIES.min(bytes / ENTRY_BYTES), bytes };
    Budget::from(limits).within_memory(room::for_entries(paths))
}

impl Stage<'_> {
    /// One input that has no hope ends all; of the others each comes to its own end, which the next child need not
    /// repeat.
    async fn all(&self, request: &Request, progress: &[Arc<Progress>]) -> Result<(), Failure> {
        let mut ends = stream::iter(request.inputs.iter().zip(progress).enumerate())
            .map(|(index, (input, progress))| async move {
                let end = self.one(index, input, progress).await.map_err(|failure| failure.of_one(input, request));
                match &end {
                    Ok(()) => self.notes.comes(index),
                    Err(failure) => self.notes.trouble(index, failure),
                }
                end
            })
            .buffer_unordered(AT_ONCE);
        let mut trouble = None;
        while let Some(end) = ends.next().await {
            match end {
                Err(last @ Failure::Permanent(..)) => return Err(last),
                Err(may_pass) => trouble = Some(may_pass),
                Ok(()) => {}
            }
        }
        trouble.map_or(Ok(()), Err)
    }

    /// What a child before this one has put in place.
    fn count_staged(&self, inputs: &[RequestedInput]) {
        let is_staged = |index: &usize| is_marked(&self.paths.bin, &format!("{}{index}", files::STAGED_INPUT));
        let on_disk = inputs.iter().enumerate().filter(|(_, input)| !input.source.is_secret());
        for index in on_disk.map(|(index, _)| index).filter(is_staged) {
            let name = index.to_string();
            let file = tree::measure_files(&self.paths.inputs, &[&name]);
            let below = tree::measure(&self.paths.inputs.join(&name), &[], |_| true);
            self.budget.spend(file.files + below.files, file.bytes.saturating_add(below.bytes));
        }
    }

    async fn one(&self, index: usize, input: &RequestedInput, progress: &Arc<Progress>) -> Result<(), Failure> {
        let name = format!("{}{index}", files::STAGED_INPUT);
        if is_marked(&self.paths.bin, &name) {
            return Ok(());
        }
        let place = self.paths.place(index, &input.source);
        let mut digest = String::new();
        match &input.source {
            InputSource::Text(_) | InputSource::Mounted => {}
            InputSource::Image { .. } | InputSource::Snapshot(_) => {
                let (reference, path) = input.source.in_a_registry().unwrap_or_default();
                let pinned = |digest: &String| look_up::pinned(reference, digest);
                let reference = self.pins.get(&index).map_or(reference.to_owned(), pinned);
                let (access, budget) = (&self.access, self.budget.clone());
                let fetch = bundle::fetch(&reference, path, &place, budget, access, progress);
                self.noting(index, progress, fetch).await?;
                tell_of_left_out(input, progress);
                let place = place.clone();
                blocking(move || tree::let_all_read(&place)).await?;
            }
            InputSource::Url { href, sha256 } => {
                let tells = Tells {
                    trouble: &|failure| self.notes.trouble(index, &failure.of(input)),
                    comes: &|| self.notes.comes(index),
                };
                let mark =
                    PartialMark { bin: self.paths.bin.clone(), name: format!("{}{index}", files::PARTIAL_INPUT) };
                let wanted = Wanted { href, sha256, place: &place, mark };
                url::download(&self.http, &wanted, &self.budget, progress, tells).await?;
                mode::set(&place, input.mode, b"").map_err(|error| Failure::writing(&error))?;
            }
            InputSource::Copied { file, name, secret } => {
                let kind = if *secret { "Secret" } else { "ConfigMap" };
                let mount = Mount { at: self.source(index), what: format!("{kind} {name}"), key: file.clone() };
                let (place, mode) = (place.clone(), input.mode);
                let copied = blocking(move || copy::copy(&mount, &place, mode)).await?;
                progress.done_bytes.store(copied.bytes, Ordering::Relaxed);
                if !secret {
                    digest = copied.digest;
                    unchanged(input, &digest)?;
                }
            }
        }
        if input.path == "." {
            let listed = if input.source.is_staged() { place } else { self.source(index) };
            let (bundle, target) = (self.paths.bundle.clone(), self.source(index));
            blocking(move || links::make(&listed, &target, &bundle)).await?;
        }
        mark(&self.paths.bin, &name, digest.as_bytes())?;
        owner::give_input(self.paths, index, input);
        Ok(())
    }

    /// Notes that an input comes, as soon as bytes of it do.
    async fn noting<T>(&self, index: usize, progress: &Progress, fetch: impl Future<Output = T>) -> T {
        let mut fetch = pin!(fetch);
        let before = progress.done_bytes.load(Ordering::Relaxed);
        loop {
            if let Ok(end) = tokio::time::timeout(LOOK, &mut fetch).await {
                return end;
            }
            if progress.done_bytes.load(Ordering::Relaxed) > before {
                self.notes.comes(index);
            }
        }
    }

    fn source(&self, index: usize) -> PathBuf {
        self.paths.sources.join(index.to_string())
    }
}

/// Two attempts of one run have the same inputs.
fn unchanged(input: &RequestedInput, digest: &str) -> Result<(), Failure> {
    let Some(before) = input.digest.as_deref().filter(|before| *before != digest) else { return Ok(()) };
    // Whole digests would not leave room for the words.
    let short = |digest: &str| digest.chars().take("sha256:".len() + 12).collect::<String>();
    let detail =
        format!("the ConfigMap has changed since the first attempt: {}, then {}", short(before), short(digest));
    Err(Failure::Permanent(Cause::InputChanged, detail))
}

/// What inputs are, as far as it was looked up or staged so far, by their index.
pub(in crate::helper) fn digests(paths: &Paths, inputs: &[RequestedInput]) -> look_up::Pins {
    let mut digests = look_up::pins(paths);
    for (index, input) in inputs.iter().enumerate() {
        let copied = matches!(input.source, InputSource::Copied { .. });
        let digest = markers::read(&paths.bin, &format!("{}{index}", files::STAGED_INPUT)).filter(|_| copied);
        digests.extend(digest.filter(|digest| !digest.is_empty()).map(|digest| (index, digest)));
    }
    digests
}

/// In the log, because the input is what images of this kind are everywhere but for what only root can have.
fn tell_of_left_out(input: &RequestedInput, progress: &Progress) {
    let left_out = progress.left_out.load(Ordering::Relaxed);
    if left_out > 0 {
        let path = one_line(&input.path);
        log_line!(
            "bundle-operator helper: input {path}: left out {left_out} devices, FIFOs and sparse archive members"
        );
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Failure::Transient(error.to_string())))
}
