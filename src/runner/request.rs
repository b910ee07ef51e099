//! Reading the request, and the helper's marks that say when to begin and when to end.

use super::never_ran::NeverRan;
use super::paths::Paths;
use super::signals::{Caught, Signals, wait_readable};
use crate::names::files;
use crate::report::{Cause, Command, Request};
use rustix::fd::AsFd;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// Annotations of one object hold at most 256 KiB.
const REQUEST_MAX_BYTES: u64 = 1024 * 1024;
/// All inputs are small or already there in most runs: look often at first.
const LOOK_SOON: Duration = Duration::from_millis(20);
const LOOK_LATER: Duration = Duration::from_millis(250);

/// Reads and checks the request below `dir`.
pub(crate) fn read(dir: &Path) -> Result<Request, NeverRan> {
    let path = dir.join(files::REQUEST);
    let unreadable =
        |why: String| NeverRan::because(Cause::RequestUnreadable, format!("request {}: {why}", path.display()));
    let mut text = String::new();
    std::fs::File::open(&path)
        .and_then(|file| file.take(REQUEST_MAX_BYTES).read_to_string(&mut text))
        .map_err(|error| unreadable(error.to_string()))?;
    parse(&text).map_err(unreadable)
}

fn parse(text: &str) -> Result<Request, String> {
    let request: Request = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let words = match &request.command {
        Command::Shell(command) => std::slice::from_ref(command),
        Command::Argv(argv) => argv.as_slice(),
    };
    if words.is_empty() {
        return Err("argv is empty".to_owned());
    }
    if words.iter().any(|word| word.contains('\0')) {
        return Err("no command can contain a NUL byte".to_owned());
    }
    Ok(request)
}

/// Waits until the helper says that every input is in place, or that there is nothing to wait for.
pub(crate) fn wait_until_staged(paths: &Paths, signals: &Signals) -> Result<(), NeverRan> {
    let staged = paths.bin.join(files::STAGED);
    for looks in 0u32.. {
        if signals.take().into_iter().any(|caught| matches!(caught, Caught::Stop(_))) {
            return Err(NeverRan::asked_to_stop());
        }
        if let Some(cause) = ordered_end(paths) {
            return Err(NeverRan::because(cause, ""));
        }
        if staged.exists() {
            break;
        }
        wait_readable([signals.as_fd()], Some(if looks < 50 { LOOK_SOON } else { LOOK_LATER }));
    }
    Ok(())
}

/// The cause for which the helper orders the run to end, if it does.
pub(crate) fn ordered_end(paths: &Paths) -> Option<Cause> {
    let text = std::fs::read(paths.bin.join(files::END)).ok()?;
    // An order that this runner has no word for is still an order.
    Some(serde_json::from_slice(&text).unwrap_or(Cause::RunnerFailed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_command_that_can_be_executed_is_a_request() {
        assert!(parse(r#"{"command":{"shell":"a"},"stopGraceSeconds":30}"#).is_ok());
        assert!(parse(r#"{"command":{"shell":""},"stopGraceSeconds":30,"fromTheFuture":1}"#).is_ok());
        for bad in [
            "",
            "{}",
            r#"{"command":{"argv":[]},"stopGraceSeconds":30}"#,
            r#"{"command":{"argv":["a\u0000"]},"stopGraceSeconds":30}"#,
            r#"{"command":{"shell":"a\u0000"},"stopGraceSeconds":30}"#,
            r#"{"command":{"shell":"a"}}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
