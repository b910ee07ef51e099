//! The child that pushes large files while the command runs, at the lowest priority: what fails here the save does again.

use crate::bundle::{EarlyPushes, Error, Outlook};
use crate::contract::{Background, Request, SaveRequest, WarningKind, log_line, size_for_people, time_for_people};
use crate::helper::child::{Task, runtime};
use crate::helper::pressure;
use crate::helper::task::login::access;
use crate::helper::task::save;
use crate::helper::warnings::Warner;
use crate::runner::Paths;
use std::thread;
use std::time::Duration;

/// After a round that failed, and while others wait for the disk.
const BACK_OFF: Duration = Duration::from_secs(30);

/// Goes on until it is killed.
pub(in crate::helper) fn push_early(paths: &Paths, request: &Request) -> Result<(), String> {
    let save = request.save.as_ref().ok_or("there is no store to push to")?;
    let background = save.background.as_ref().ok_or("nothing is to be pushed early")?;
    let (runtime, mut pushes, mut said) = (runtime()?, EarlyPushes::default(), String::new());
    let mut warner = Warner::of(&paths.bin, WarningKind::SaveDeadlineExceeded, Task::PushEarly);
    let mut too_large = Warner::of(&paths.bin, WarningKind::OutputTooLarge, Task::PushEarly);
    loop {
        if pressure::is_high(&paths.root) {
            thread::sleep(BACK_OFF);
            continue;
        }
        let pause = runtime.block_on(round(&mut pushes, background, paths, request, save));
        let refused =
            pushes.refused().map(|file| format!("the store takes a file of the output for too large: {file}"));
        let is_over = refused.is_none();
        too_large.see(refused, is_over);
        if let Some(outlook) = pushes.outlook() {
            warn(&mut warner, outlook, save.deadline_seconds);
        }
        thread::sleep(pause.unwrap_or_else(|error| {
            if said != error.message {
                log_line!("bundle-operator helper push-early: {error}");
                said = error.message;
            }
            BACK_OFF
        }));
    }
}

/// When saving what is left, at the rate that was seen, would not be done in time; over at half of it.
fn warn(warner: &mut Warner, outlook: Outlook, deadline_seconds: u64) {
    let Outlook { left_bytes, bytes_per_second } = outlook;
    let seconds = left_bytes / bytes_per_second.max(1);
    let danger = (seconds > deadline_seconds).then(|| {
        let [left, rate] = [left_bytes, bytes_per_second].map(size_for_people);
        let [needs, has] = [seconds, deadline_seconds].map(|seconds| time_for_people(seconds.saturating_mul(1000)));
        format!("{left} are not in the store yet, which would take {needs} at the {rate} a second seen so far: saving has {has}")
    });
    warner.see(danger, seconds < deadline_seconds / 2);
}

/// The logins are read again each time: Secrets are renewed.
async fn round(
    pushes: &mut EarlyPushes,
    background: &Background,
    paths: &Paths,
    request: &Request,
    save: &SaveRequest,
) -> Result<Duration, Error> {
    let (tree, access) = (save::tree(paths, request, save), access(paths, request));
    pushes.round(&tree, background, &save.repository, &access).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helper::warnings;

    #[test]
    fn a_deadline_that_will_not_hold_is_told_of() {
        let bin = tempfile::tempdir().unwrap();
        let mut warner = Warner::of(bin.path(), WarningKind::SaveDeadlineExceeded, Task::PushEarly);
        let mut warn = |left: u64| {
            warn(&mut warner, Outlook { left_bytes: left << 30, bytes_per_second: 50 << 20 }, 3600);
        };
        let said = || warnings::said(bin.path()).pop().map(|warning| warning.detail);
        warn(175);
        assert_eq!(said(), None);
        warn(200);
        let told = "200.0 GiB are not in the store yet, which would take 1h8m at the 50.0 MiB a second seen so far: \
            saving has 1h0m";
        assert_eq!(said().as_deref(), Some(told));
        warn(100);
        assert!(said().is_some(), "not to and fro");
        warn(80);
        assert_eq!(said(), None);
    }
}
