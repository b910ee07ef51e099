//! The child that pushes large files while the command runs, at the lowest priority: what fails here the save does again.

use crate::bundle::{Early, EarlyPushes};
use crate::contract::{Background, Request, SaveRequest};
use crate::helper::child::runtime;
use crate::helper::task::login::access;
use crate::helper::task::save;
use crate::runner::Paths;
use std::thread;
use std::time::Duration;

/// After a round that failed.
const BACK_OFF: Duration = Duration::from_secs(30);

/// Goes on until it is killed.
pub(in crate::helper) fn push_early(paths: &Paths, request: &Request) -> Result<(), String> {
    let save = request.save.as_ref().ok_or("there is no store to push to")?;
    let early = early(save.background.as_ref().ok_or("nothing is to be pushed early")?);
    let (runtime, mut pushes, mut said) = (runtime()?, EarlyPushes::default(), String::new());
    loop {
        let pause = runtime.block_on(round(&mut pushes, &early, paths, request, save));
        thread::sleep(pause.unwrap_or_else(|error| {
            if said != error {
                eprintln!("bundle-operator helper push-early: {error}");
                said = error;
            }
            BACK_OFF
        }));
    }
}

/// The logins are read again each time: Secrets are renewed.
async fn round(
    pushes: &mut EarlyPushes,
    early: &Early,
    paths: &Paths,
    request: &Request,
    save: &SaveRequest,
) -> Result<Duration, String> {
    let (tree, access) = (save::tree(paths, request, save), access(paths, request));
    pushes.round(&tree, early, &save.repository, &access).await.map_err(|error| error.message)
}

fn early(background: &Background) -> Early {
    Early {
        quiet: Duration::from_secs(background.quiet_seconds),
        connections: usize::try_from(background.connections).unwrap_or(1),
        bytes_per_second: background.bytes_per_second,
        waste_percent: background.waste_percent,
    }
}
