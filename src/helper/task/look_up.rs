//! What inputs from registries are: their digests, and whether there is a file or a directory at a path in them. Done
//! before the run container starts, because its mounts need a file or a directory; by a child.

use crate::bundle::retry::{Heard, listen};
use crate::bundle::{self, Access, Kind, Progress};
use crate::contract::{
    Cause, EndOrder, InputProblem, InputSource, Request, RequestedInput, SnapshotInput, SnapshotPin,
};
use crate::helper::awaited::{Notes, awaited};
use crate::helper::child::runtime;
use crate::helper::failure::Failure;
use crate::helper::markers::{self, mark_json, read_json};
use crate::helper::task::login::access;
use crate::names::bundle::snapshot_tag;
use crate::names::files;
use crate::runner::Paths;
use futures::StreamExt;
use futures::stream;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// How many registries' answers are awaited at once.
const AT_ONCE: usize = 16;
/// So many of the last attempts of another run are looked at for a snapshot.
const ATTEMPTS_LOOKED_AT: usize = 50;
/// What is known of a registry that has not answered after this is told.
const SILENCE: Duration = Duration::from_secs(5);

/// What was found out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::helper) struct LookedUp {
    /// Inputs that are files, by index; all others are directories.
    pub(in crate::helper) files: BTreeSet<usize>,
    /// The run cannot have one of its inputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::helper) order: Option<EndOrder>,
}

/// Digests by the index of the input.
pub(in crate::helper) type Pins = BTreeMap<usize, String>;

/// The digests that are known so far.
pub(in crate::helper) fn pins(paths: &Paths) -> Pins {
    read_json(&paths.bin, files::PINNED).unwrap_or_default()
}

/// Whether a registry has to be asked. A digest says all there is to know, unless there is a path in it of which nobody
/// knows whether it is a file.
pub(in crate::helper) fn is_needed(input: &RequestedInput) -> bool {
    let is_open = |path: Option<&str>| path.is_some() && !input.is_file;
    input.source.in_a_registry().is_some_and(|(reference, path)| is_open(path) || !reference.contains('@'))
}

/// `repository@digest`, whatever the reference had after its repository.
pub(in crate::helper) fn pinned(reference: &str, digest: &str) -> String {
    let reference = reference.split('@').next().unwrap_or_default();
    let repository = match reference.rsplit_once(':') {
        // A colon before a slash is a port's.
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => reference,
    };
    format!("{repository}@{digest}")
}

/// The registry of a reference, for people.
fn registry(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

/// The child: asks registries and leaves the marks. An error may pass by itself.
pub(in crate::helper) fn look_up(paths: &Paths, request: &Request) -> Result<(), String> {
    let runtime = runtime()?;
    let access = access(paths, request);
    let looked_up = match runtime.block_on(ask(paths, request, &access)) {
        Ok(files) => LookedUp { files, order: None },
        Err(Failure::Permanent(cause, detail)) => {
            LookedUp { files: BTreeSet::new(), order: Some(EndOrder::new(cause, &detail)) }
        }
        Err(Failure::Awaited(_, why) | Failure::Transient(why)) => return Err(why),
    };
    for mark in [files::TROUBLE, files::AWAITED] {
        markers::unmark(&paths.bin, mark);
    }
    Ok(mark_json(&paths.bin, files::LOOKED_UP, &looked_up)?)
}

/// An input whose registry has not said yet what it is.
struct Unanswered<'a> {
    input: &'a RequestedInput,
    registry: &'a str,
    heard: Heard,
    progress: Arc<Progress>,
    /// Bytes of its layers that had come at the last look.
    came: u64,
    /// That it does not come is told.
    is_told: bool,
}

enum Look {
    /// Its layers are being looked through, which may take long.
    Comes,
    /// To be told.
    Silent(Failure),
    Told,
}

impl<'a> Unanswered<'a> {
    fn new(input: &'a RequestedInput, reference: &'a str, is_told: bool) -> Self {
        let (heard, progress) = Default::default();
        Self { input, registry: registry(reference), heard, progress, came: 0, is_told }
    }

    /// What there is to say after some time without an answer.
    fn look(&mut self) -> Look {
        let came = self.progress.done_bytes.load(Ordering::Relaxed);
        if came > self.came {
            (self.came, self.is_told) = (came, false);
            // What was said before it came is no reason for a silence after it.
            *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = None;
            return Look::Comes;
        }
        if std::mem::replace(&mut self.is_told, true) {
            return Look::Told;
        }
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner).take();
        let silence = || Failure::Transient(format!("no answer yet from {}", self.registry));
        Look::Silent(heard.map_or_else(silence, Failure::from))
    }
}

async fn ask(paths: &Paths, request: &Request, access: &Access) -> Result<BTreeSet<usize>, Failure> {
    let mut pins = pins(paths);
    let before = pins.clone();
    let asked: Vec<_> = request
        .inputs
        .iter()
        .enumerate()
        .filter(|(_, input)| is_needed(input))
        .filter_map(|(index, input)| {
            let (reference, path) = input.source.in_a_registry()?;
            Some((index, input, reference, path))
        })
        .collect();
    // What the child before this one has seen says more than silence.
    let seen = awaited(&paths.bin);
    let mut silent: BTreeMap<usize, Unanswered> = asked
        .iter()
        .map(|(index, input, reference, _)| (*index, Unanswered::new(input, reference, seen.contains_key(index))))
        .collect();
    let heard_of: BTreeMap<usize, _> =
        silent.iter().map(|(index, of)| (*index, (of.heard.clone(), of.progress.clone()))).collect();
    let told = told_of_runs(paths);
    let mut answers = stream::iter(asked.into_iter().map(|(index, input, reference, path)| {
        // What an earlier life of the helper has found a tag to be is what it stays for this run.
        let (heard, progress) = heard_of.get(&index).cloned().unwrap_or_default();
        let known = before.get(&index).cloned();
        let told = &told;
        let resolve = async move {
            let digest = match (&input.source, known) {
                (InputSource::Snapshot(wanted), None) => {
                    let of = told.get(&wanted.run_uid).copied().unwrap_or(wanted.of);
                    Some(find_snapshot(wanted, of, access).await?)
                }
                (_, known) => known,
            };
            let reference = digest.map_or(reference.to_owned(), |digest| pinned(reference, &digest));
            bundle::resolve_telling(&reference, path, access, &progress).await.map_err(Failure::from)
        };
        async move { (index, input, listen(heard, resolve).await) }
    }))
    .buffer_unordered(AT_ONCE);

    let (mut found, mut trouble) = (BTreeSet::new(), None);
    let notes = Notes::of(&paths.bin);
    loop {
        let Ok(answer) = tokio::time::timeout(SILENCE, answers.next()).await else {
            for (index, of) in &mut silent {
                match of.look() {
                    Look::Comes => notes.comes(*index),
                    Look::Silent(failure) => notes.trouble(*index, &failure.of_one(of.input, request)),
                    Look::Told => {}
                }
            }
            continue;
        };
        let Some((index, input, answer)) = answer else { break };
        silent.remove(&index);
        let answer = answer.map_err(|failure: Failure| failure.of_one(input, request));
        match &answer {
            Ok(_) => notes.comes(index),
            Err(failure) => notes.trouble(index, failure),
        }
        match answer {
            Ok(resolved) => {
                if resolved.kind == Kind::File {
                    found.insert(index);
                }
                pins.insert(index, resolved.digest);
                mark_json(&paths.bin, files::PINNED, &pins)?;
            }
            Err(last @ Failure::Permanent(..)) => return Err(last),
            Err(may_pass) => trouble = Some(may_pass),
        }
    }
    trouble.map_or(Ok(found), Err)
}

/// What became of the runs since the pod was made. Read before their snapshots are looked for: what is not there then, of one
/// that has ended, never will be.
fn told_of_runs(paths: &Paths) -> BTreeMap<String, SnapshotPin> {
    read_json(&paths.request, files::AWAITED_RUNS).unwrap_or_default()
}

/// The digest of a run's last snapshot. It gets a tag of its own: the next attempt finds that first, whatever became of
/// this one, and a registry that collects what has no tag keeps it while the run's own tag moves on.
async fn find_snapshot(wanted: &SnapshotInput, of: SnapshotPin, access: &Access) -> Result<String, Failure> {
    let SnapshotInput { repository, run, run_uid, tag: own, .. } = wanted;
    if let Some(digest) = bundle::find_snapshot(repository, own, access).await? {
        return Ok(digest);
    }
    // Of the newest attempt that has one: what a node that is cut off still pushes for an earlier one does not count.
    for attempt in (1..=of.attempts).rev().take(ATTEMPTS_LOOKED_AT) {
        let tag = snapshot_tag(run, run_uid, attempt);
        if let Some(digest) = bundle::find_snapshot(repository, &tag, access).await? {
            bundle::add_tag(repository, &digest, own, access).await?;
            return Ok(digest);
        }
    }
    Err(if of.ended {
        let why = format!("run {run} has ended and has no snapshot; without snapshot its output is the input");
        Failure::Permanent(Cause::InputNotFound, why)
    } else {
        Failure::Awaited(InputProblem::NoSnapshot, format!("run {run} has no snapshot yet"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_replaces_a_tag_and_no_port() {
        for (reference, want) in [
            ("host:5000/a/b:tag", "host:5000/a/b@sha256:0"),
            ("host:5000/a/b", "host:5000/a/b@sha256:0"),
            ("a@sha256:1", "a@sha256:0"),
            ("host/a:tag@sha256:1", "host/a@sha256:0"),
        ] {
            assert_eq!(pinned(reference, "sha256:0"), want);
        }
    }

    #[test]
    fn the_registry_is_named() {
        for (reference, want) in [
            ("python:3", "docker.io"),
            ("library/python:3", "docker.io"),
            ("localhost/a", "localhost"),
            ("host:5000/a", "host:5000"),
            ("ghcr.io/a/b@sha256:0", "ghcr.io"),
        ] {
            assert_eq!(registry(reference), want);
        }
    }

    #[test]
    fn only_what_is_not_known_is_asked_for() {
        let image = |reference: &str, path: Option<&str>, is_file| {
            let source = InputSource::Image { reference: reference.to_owned(), path: path.map(str::to_owned) };
            is_needed(&RequestedInput { is_file, ..RequestedInput::new("in", source) })
        };
        assert!(image("a:tag", None, false) && image("a@sha256:0", Some("f"), false) && image("a", None, false));
        assert!(!image("a@sha256:0", None, false) && !image("a@sha256:0", Some("f"), true));
        assert!(image("a:tag", Some("f"), true), "the tag may mean another image");
        assert!(!is_needed(&RequestedInput::new("in", InputSource::Text(String::new()))));
    }

    #[test]
    fn layers_that_are_looked_through_for_long_are_no_silence() {
        let input = RequestedInput::new("in", InputSource::Mounted);
        let mut of = Unanswered::new(&input, "host.io/a", true);
        assert!(matches!(of.look(), Look::Told), "what was said of it before is more");
        of.progress.done_bytes.store(1, Ordering::Relaxed);
        assert!(matches!(of.look(), Look::Comes));
        let silent =
            |look| matches!(look, Look::Silent(Failure::Transient(why)) if why == "no answer yet from host.io");
        assert!(silent(of.look()), "it came, and comes no more");
        assert!(matches!(of.look(), Look::Told));
    }
}
