//! Reading the request, and the helper's marks that say when to begin and when to end.

use super::never_ran::NeverRan;
use super::paths::Paths;
use super::signals::{Caught, Signals, wait_readable};
use crate::contract::{Cause, Command, EndOrder, RECORD_MAX_BYTES, Request, Resumed};
use crate::names::files;
use rustix::fd::AsFd;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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
    File::open(&path)
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

/// Waits until the helper says that every input is in place, that the store was asked, and that the working directory is
/// ours; or that there is nothing to wait for. Returns for how many milliseconds.
pub(crate) fn wait_until_ready(paths: &Paths, request: &Request, signals: &Signals) -> Result<u64, NeverRan> {
    let begin = Instant::now();
    let waited = look_until_ready(paths, request, signals);
    let staging_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
    waited.map(|()| staging_ms).map_err(|never_ran| NeverRan { staging_ms, ..never_ran })
}

fn look_until_ready(paths: &Paths, request: &Request, signals: &Signals) -> Result<(), NeverRan> {
    let is_marked = |name| paths.bin.join(name).exists();
    let orders = Orders::of(paths);
    let is_store_checked = || request.save.is_none() || is_marked(files::STORE_CHECKED);
    for looks in 0u32.. {
        if signals.take().into_iter().any(|caught| matches!(caught, Caught::Stop(_))) {
            return Err(NeverRan::asked_to_stop());
        }
        if let Some(EndOrder { cause, detail }) = orders.end() {
            return Err(cause.map_or_else(NeverRan::asked_to_stop, |cause| NeverRan::because(cause, detail)));
        }
        if is_marked(files::STAGED) && is_store_checked() && is_owner(paths) {
            break;
        }
        wait_readable([signals.as_fd()], Some(if looks < 50 { LOOK_SOON } else { LOOK_LATER }));
    }
    Ok(())
}

/// The working directory is this user's, or the helper has done what it could about that.
fn is_owner(paths: &Paths) -> bool {
    let owner = rustix::fs::stat(&paths.bundle).map(|stat| stat.st_uid);
    owner.map_or(true, |owner| owner == rustix::process::geteuid().as_raw()) || paths.bin.join(files::OWNED).exists()
}

/// What the helper has put back into the working directory.
pub(crate) fn resumed(paths: &Paths) -> Resumed {
    let text = std::fs::read(paths.bin.join(files::RESUMED)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Where the helper's order to end is looked for.
#[derive(Debug)]
pub(crate) struct Orders {
    /// The helper has made it, empty, before us and writes into it. A command of our user can lower the number of files
    /// that we may open, and cannot close it.
    opened: Option<File>,
    path: PathBuf,
}

impl Orders {
    /// Called before the command can be there.
    pub(crate) fn of(paths: &Paths) -> Self {
        let opened = File::open(paths.bin.join(files::END_TO_BE)).ok();
        Self { opened, path: paths.bin.join(files::END) }
    }

    /// The order, if there is one.
    pub(crate) fn end(&self) -> Option<EndOrder> {
        // One that is half written cannot be read, and has no name yet.
        if let Some(order) = self.opened.as_ref().and_then(order_in) {
            return Some(order);
        }
        // It was there before us, or had to be written to another file.
        let file = match File::open(&self.path) {
            Ok(file) => Some(file),
            // Not by looking once more: it may come just now.
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(_) if rustix::fs::lstat(&self.path).is_err() => return None,
            Err(_) => None,
        };
        // An order that cannot be read, or that this runner has no word for, is still an order.
        let unknown = || EndOrder::new(Cause::RunnerFailed, "the helper's order to end cannot be read");
        let order = file.as_ref().or(self.opened.as_ref()).and_then(order_in);
        Some(order.unwrap_or_else(unknown))
    }
}

fn order_in(file: &File) -> Option<EndOrder> {
    let mut text = vec![0; RECORD_MAX_BYTES];
    let got = file.read_at(&mut text, 0).ok()?;
    serde_json::from_slice(text.get(..got)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_that_cannot_be_read_is_an_order() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        assert_eq!(Orders::of(&paths).end(), None);
        std::fs::create_dir_all(&paths.bin).unwrap();
        for (text, cause, detail) in [
            (r#"{"cause":"InputNotFound","detail":"no such tag"}"#, Cause::InputNotFound, "no such tag"),
            (r#"{"cause":"DiskLimitExceeded","new":1}"#, Cause::DiskLimitExceeded, ""),
            (r#"{"cause":"OfTheFuture"}"#, Cause::RunnerFailed, "the helper's order to end cannot be read"),
            ("", Cause::RunnerFailed, "the helper's order to end cannot be read"),
        ] {
            std::fs::write(paths.bin.join(files::END), text).unwrap();
            assert_eq!(Orders::of(&paths).end(), Some(EndOrder::new(cause, detail)), "{text}");
        }
        std::fs::write(paths.bin.join(files::END), "{}").unwrap();
        assert_eq!(Orders::of(&paths).end(), Some(EndOrder::stop()));
    }

    /// Looked for all the time while the helper writes it, with and without the file that was opened before.
    #[test]
    fn an_order_that_comes_while_it_is_looked_for_is_read_whole() {
        for round in 0..1000 {
            let root = tempfile::tempdir().unwrap();
            let paths = Paths::below(root.path());
            std::fs::create_dir_all(&paths.bin).unwrap();
            let [draft, end] = [files::END_TO_BE, files::END].map(|name| paths.bin.join(name));
            if round % 2 == 0 {
                std::fs::write(&draft, "").unwrap();
            }
            let orders = Orders::of(&paths);
            let helper = std::thread::spawn(move || {
                std::fs::write(&draft, r#"{"cause":"DiskLimitExceeded"}"#).unwrap();
                std::fs::rename(draft, end).unwrap();
            });
            let order = std::iter::repeat_with(|| orders.end()).flatten().next();
            assert_eq!(order, Some(EndOrder::new(Cause::DiskLimitExceeded, "")), "{round}");
            helper.join().unwrap();
        }
    }

    #[test]
    fn an_order_is_seen_in_the_file_that_was_opened_before() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        std::fs::create_dir_all(&paths.bin).unwrap();
        std::fs::write(paths.bin.join(files::END_TO_BE), "").unwrap();
        let orders = Orders::of(&paths);
        assert_eq!(orders.end(), None);
        std::fs::write(paths.bin.join(files::END_TO_BE), r#"{"cause":"DiskLimit"#).unwrap();
        assert_eq!(orders.end(), None, "it is being written");
        std::fs::write(paths.bin.join(files::END_TO_BE), r#"{"cause":"DiskLimitExceeded"}"#).unwrap();
        assert_eq!(orders.end(), Some(EndOrder::new(Cause::DiskLimitExceeded, "")));
    }

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
