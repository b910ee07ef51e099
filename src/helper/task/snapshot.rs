//! The child that takes a snapshot of the working directory while it is written.

use crate::bundle::{self, GivenUp, Progress, SnapshotWanted, Tree};
use crate::contract::{Request, SnapshotAnswer, log_line, one_line};
use crate::helper::child::runtime;
use crate::helper::markers::mark_json;
use crate::helper::task::login::access;
use crate::helper::task::save;
use crate::names::files;
use crate::runner::Paths;
use std::time::Duration;

/// For how long a tree that keeps changing is looked at again: whoever asked waits for the answer.
const PATIENCE: Duration = Duration::from_mins(1);

/// Takes one and leaves what came of it. `is_requested`: the command waits for it, and all of it shall be of one moment.
pub(in crate::helper) fn snapshot(paths: &Paths, request: &Request, is_requested: bool) -> Result<(), String> {
    let save = request.save.as_ref().ok_or("there is no store")?;
    let snapshots = save.snapshots.as_ref().ok_or("no snapshots are taken")?;
    let tree = Tree {
        exclude: snapshots.exclude.as_ref().unwrap_or(&save.exclude).clone(),
        given_up: GivenUp::default(),
        ..save::tree(paths, request, save)
    };
    let background = save.background.as_ref().filter(|_| !is_requested);
    let wanted = SnapshotWanted {
        repository: save.repository.clone(),
        tag: snapshots.tag.clone(),
        known: paths.bin.join(files::SNAPSHOT_KNOWN),
        is_consistent: is_requested,
        patience: PATIENCE,
        bytes_per_second: background.and_then(|background| background.bytes_per_second),
        connections: background.map(|background| background.connections),
    };
    let runtime = runtime()?;
    let taken = runtime.block_on(bundle::snapshot(&tree, &wanted, &access(paths, request), &Progress::default()));
    runtime.shutdown_background();
    let answer = match taken {
        Ok(snapshot) => SnapshotAnswer::Taken(format!("{}@{}", save.repository, snapshot.digest)),
        Err(error) => {
            log_line!("bundle-operator helper snapshot: {error}");
            SnapshotAnswer::Failed(one_line(&error.message))
        }
    };
    Ok(mark_json(&paths.bin, files::SNAPSHOT, &answer)?)
}
