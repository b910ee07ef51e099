//! Putting the last snapshot of an earlier attempt back, before the command starts.
//!
//! The newest earlier attempt that has a snapshot is the one to go on from. That snapshot is this attempt's first, before
//! anything of it is used: whoever comes later finds it at this attempt, and never looks further back. So it does not matter
//! what the node of an earlier attempt still pushes, which may be cut off and alive. Where there is none,
//! that is noted by a tag of this attempt's own, for the same reason.

use crate::bundle::{self, Budget, Error, ErrorKind, Progress, SnapshotWanted, Tree};
use crate::contract::{Request, Resumed, SaveRequest};
use crate::helper::markers::{is_marked, mark_json, read_json};
use crate::helper::mount_points;
use crate::helper::owner;
use crate::helper::task::login::access;
use crate::names::files;
use crate::runner::Paths;
use std::fs;
use std::time::Duration;

/// What this attempt goes on from; none: nothing, or it is not known yet.
pub(in crate::helper) fn resumed(paths: &Paths) -> Option<String> {
    read_json::<Resumed>(&paths.bin, files::RESUMED)?.from
}

/// Puts it back, if there is one. Can be done again over a first try that was cut off.
pub(super) async fn resume(
    paths: &Paths,
    request: &Request,
    budget: &Budget,
    progress: &Progress,
) -> Result<(), String> {
    let Some(save) = request.save.as_ref().filter(|_| !request.resume_from.is_empty()) else { return Ok(()) };
    if is_marked(&paths.bin, files::RESUMED) {
        return Ok(());
    }
    let access = access(paths, request);
    let cannot = |error: Error| format!("the last snapshot cannot be put back: {error}");
    let from = match find(request, save, &access).await.map_err(cannot)? {
        Found::Snapshot(digest) => {
            let reference = format!("{}@{digest}", save.repository);
            let stay = mount_points::mounted(request).map(|path| path.as_bytes().to_vec()).collect();
            let restored = bundle::restore(&reference, &paths.bundle, stay, budget.clone(), &access, progress).await;
            restored.map_err(cannot)?;
            owner::give_all(paths, request);
            Some(reference)
        }
        Found::Nothing => None,
        Found::NothingYet => {
            let cannot =
                |error| format!("that there is no snapshot to go on from cannot be noted in the store: {error}");
            note_none(paths, save, &access).await.map_err(cannot)?;
            None
        }
    };
    Ok(mark_json(&paths.bin, files::RESUMED, &Resumed { from })?)
}

enum Found {
    /// Its digest. It is this attempt's own by now.
    Snapshot(String),
    /// It was noted before that there is none.
    Nothing,
    NothingYet,
}

/// The name of a tag that an attempt has, and what it means.
type Kind = (fn(&str) -> String, fn(String) -> Found);

async fn find(request: &Request, save: &SaveRequest, access: &bundle::Access) -> Result<Found, Error> {
    let own = save.snapshots.as_ref().map(|snapshots| snapshots.tag.as_str()).into_iter();
    let kinds: [Kind; 2] = [(str::to_owned, Found::Snapshot), (tag_of_none, |_| Found::Nothing)];
    // Its own is there after a try that was cut off.
    for tag in own.clone().chain(request.resume_from.iter().map(String::as_str)) {
        for (named, found) in kinds {
            if let Some(digest) = bundle::find_snapshot(&save.repository, &named(tag), access).await? {
                for own in own.clone().filter(|own| *own != tag) {
                    bundle::add_tag(&save.repository, &digest, &named(own), access).await?;
                }
                return Ok(found(digest));
            }
        }
    }
    Ok(Found::NothingYet)
}

/// Notes in the store that an attempt begins with nothing: its tag for that is one of an empty directory.
async fn note_none(paths: &Paths, save: &SaveRequest, access: &bundle::Access) -> Result<(), Error> {
    let Some(snapshots) = &save.snapshots else { return Ok(()) };
    let root = paths.bin.join(files::NOTHING);
    fs::create_dir_all(&root).map_err(|error| Error::new(ErrorKind::Local, error.to_string()))?;
    let wanted = SnapshotWanted {
        repository: save.repository.clone(),
        tag: tag_of_none(&snapshots.tag),
        known: root.with_extension("json"),
        is_consistent: false,
        patience: Duration::ZERO,
        bytes_per_second: None,
        connections: None,
    };
    bundle::snapshot(&Tree { root, ..Tree::default() }, &wanted, access, &Progress::default()).await.map(drop)
}

/// No snapshot has it, also where the numbers of snapshots follow their tag.
fn tag_of_none(tag: &str) -> String {
    format!("{tag}.none")
}
