//! The child that pushes large files while the command runs, at the lowest priority: what fails here the save does again.

use crate::bundle::EarlyPushes;
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
    let background = save.background.as_ref().ok_or("nothing is to be pushed early")?;
    let (runtime, mut pushes, mut said) = (runtime()?, EarlyPushes::default(), String::new());
    loop {
        let pause = runtime.block_on(round(&mut pushes, background, paths, request, save));
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
    background: &Background,
    paths: &Paths,
    request: &Request,
    save: &SaveRequest,
) -> Result<Duration, String> {
    let (tree, access) = (save::tree(paths, request, save), access(paths, request));
    pushes.round(&tree, background, &save.repository, &access).await.map_err(|error| error.message)
}
