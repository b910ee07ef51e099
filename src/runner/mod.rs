//! PID 1 of the run container: starts the command once, stays with it to its end, and writes the record.
//!
//! | file | subject |
//! |---|---|
//! | `paths` | where things are |
//! | `attempt` | all that is between the claim and the record |
//! | `claim` | the right to start, given once, and the lock whose end tells of our death |
//! | `request` | the request and the helper's marks |
//! | `gpu`, `glob` | what a run with GPUs needs before its command |
//! | `environment`, `exec`, `shell` | what is started and how |
//! | `supervise` | from a program's start to the end of all that it started |
//! | `limits` | when to end it and how hard (pure) |
//! | `ending` | who is told to end, and in which order (pure) |
//! | `signals`, `processes`, `tee` | signals in and out, looking at processes and reaping them, output |
//! | `usage`, `record`, `never_ran` | what is written down |
//! | `guest` | a program that a user starts beside the command |
//! | `snapshot` | the program by which a command asks for a snapshot |
//! | `sys` | the only unsafe code |
//!
//! Guarantees: nothing of ours is ever on the command's standard output, and on standard error only one line when the
//! command never ran; the record is there before the process ends, unless it is killed; the exit code is
//! [`Record::container_exit_code`].

mod attempt;
mod claim;
mod ending;
mod environment;
mod exec;
mod glob;
mod gpu;
mod guest;
mod limits;
mod never_ran;
mod paths;
mod processes;
mod record;
pub(crate) mod request;
mod shell;
pub(crate) mod signals;
pub(crate) mod snapshot;
mod supervise;
pub(crate) mod sys;
mod tee;
mod usage;

use crate::contract::{Cause, Record};
use crate::names::files;
use claim::{Claim, Refused};
use never_ran::NeverRan;
pub use paths::Paths;
use record::RecordFile;
use signals::Signals;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// `bundle-runner run|started [--root DIR]`, `bundle-runner exec [--root DIR] -- PROGRAM`; `DIR` holds the container's tree,
/// for tests.
///
/// `run` is the container's main process; `started` exits with 0 when the command has begun, else with 1: a probe; `exec` runs
/// a program as the command is run. Under the name of [`paths::SNAPSHOT`] it is another program, of the command's.
///
/// [`paths::SNAPSHOT`]: crate::names::paths::SNAPSHOT
pub fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let program = args.next().unwrap_or_default();
    if Path::new(&program).file_name() == Path::new(crate::names::paths::SNAPSHOT).file_name() {
        return snapshot::main(args);
    }
    let args: Vec<OsString> = args.collect();
    let (task, rest) = args.split_first().map_or((None, &[][..]), |(task, rest)| (task.to_str(), rest));
    let (paths, rest) = match rest {
        [option, root, rest @ ..] if option == "--root" => (Paths::below(Path::new(root)), rest),
        rest => (Paths::default(), rest),
    };
    match (task, rest) {
        (Some("run"), []) => ExitCode::from(u8::try_from(run(&paths)).unwrap_or(255)),
        (Some("started"), []) if has_begun(&paths.record) => ExitCode::SUCCESS,
        (Some("started"), []) => ExitCode::FAILURE,
        (Some("exec"), [dashes, guest @ ..]) if dashes == "--" => guest::start(&paths, guest),
        _ => {
            eprintln!("usage: bundle-runner run|started [--root DIR] | exec -- PROGRAM [ARGUMENT...]");
            ExitCode::from(125)
        }
    }
}

/// Whether the command has begun, by what the runner left in this directory.
pub(crate) fn has_begun(record_dir: &Path) -> bool {
    rustix::fs::lstat(record_dir.join(files::BEGAN)).is_ok()
}

/// Runs what is requested, writes the record and returns the exit code.
fn run(paths: &Paths) -> i32 {
    // First of all: the kernel drops signals that PID 1 has no handler for.
    let signals = Signals::catch();
    exec::hide_runner();
    exec::no_core_dumps();
    let claim = Claim::take(&paths.bin, &paths.record);
    let file = match &claim {
        Ok(_) => Some(RecordFile::reserve(&paths.record)),
        Err(_) => None,
    };
    let outcome = match &claim {
        Ok(_) => attempt::attempt(paths, signals),
        Err(Refused::StartedBefore) => Err(NeverRan::because(
            Cause::StartedTwice,
            "Kubernetes started the container again; the command was not run a second time",
        )),
        Err(Refused::Failed(what, error)) => {
            Err(NeverRan::because(Cause::RunnerFailed, format!("cannot {what}: {error}")))
        }
    };
    let record = outcome.unwrap_or_else(|never_ran| {
        let record = never_ran.into_record();
        eprintln!(
            "bundle-runner: {}",
            if record.detail.is_empty() { "the command was not run" } else { &record.detail }
        );
        record
    });
    let record = Record { finished_at_ms: since_epoch_ms(SystemTime::now()), ..record };
    let written = match file {
        Some(file) => file.write(&record),
        None => record::write_if_absent(&paths.record, &record),
    };
    if let Err(error) = written {
        eprintln!("bundle-runner: cannot write {}: {error}", paths.record.join(files::RECORD).display());
    }
    record.container_exit_code()
}

/// Of the node's clock.
pub(crate) fn since_epoch_ms(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(0)
}
