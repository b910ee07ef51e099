//! All that is between the claim and the record.

use super::ending::End;
use super::environment::{self, Environment, search_path};
use super::exec::{self, Ends, Launch};
use super::gpu::{self, Gpus};
use super::limits::{Limits, Reason};
use super::never_ran::NeverRan;
use super::paths::Paths;
use super::request::Orders;
use super::shell::{self, Bashrc, Progress};
use super::signals::Signals;
use super::supervise::{Ended, supervise};
use super::tee::{Stream, Tee, create_output};
use super::{processes, request, since_epoch_ms, usage};
use crate::contract::{Cause, Command, Record, Request};
use crate::names::files;
use rustix::fd::OwnedFd;
use rustix::fs::Access;
use rustix::io::Errno;
use rustix::process::{WaitStatus, getuid};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The variable with the snapshot that is in the working directory when the command begins.
const RESUMED_FROM: &str = "BUNDLE_RESUMED_FROM";

/// Waits for the inputs, runs the command and tells how it ended.
pub(crate) fn attempt(paths: &Paths, signals: io::Result<Signals>) -> Result<Record, NeverRan> {
    let signals = signals.map_err(|error| failed("catch signals", &error))?;
    processes::adopt_orphans();
    let request = request::read(&paths.request)?;
    let staging_ms = request::wait_until_ready(paths, &request, &signals)?;
    let outcome = run_requested(paths, signals, &request);
    match outcome {
        Ok(record) => Ok(Record { staging_ms, ..record }),
        Err(never_ran) => Err(NeverRan { staging_ms, ..never_ran }),
    }
}

fn run_requested(paths: &Paths, signals: Signals, request: &Request) -> Result<Record, NeverRan> {
    if let Some(save) = &request.save {
        environment::leave_values(&save.told_variables, &paths.record);
    }
    let gpus = gpu::ready(paths, request.gpus.as_ref())?;
    let output = |name| {
        let path = paths.output.join(name);
        create_output(&path).map_err(|error| failed(&format!("create {}", path.display()), &error))
    };
    let mut stage = Stage {
        paths,
        signals,
        limits: Limits::of(request),
        orders: Orders::of(paths),
        gpus,
        stdout: output(files::STDOUT)?,
        stderr: output(files::STDERR)?,
    };
    match &request.command {
        Command::Argv(argv) => stage.run_program(argv),
        Command::Shell(text) => stage.run_shell(text),
    }
}

fn failed(what: &str, error: &dyn std::fmt::Display) -> NeverRan {
    NeverRan::because(Cause::RunnerFailed, format!("cannot {what}: {error}"))
}

/// That of the command, but for what a GPU driver puts in front.
pub(crate) fn environment(paths: &Paths, directory: Option<&Path>) -> Environment {
    let user = environment::name_for(getuid().as_raw(), &paths.below_root("/etc/passwd"));
    let mut given: Environment = std::env::vars_os().collect();
    if let Some(from) = request::resumed(paths).from {
        given.insert(RESUMED_FROM.into(), from.into());
    }
    environment::complete(given, &paths.bundle, directory, user.as_deref())
}

/// What every program that is tried shares.
struct Stage<'a> {
    paths: &'a Paths,
    signals: Signals,
    limits: Limits,
    orders: Orders,
    gpus: Gpus,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Stage<'_> {
    fn run_program(&mut self, argv: &[String]) -> Result<Record, NeverRan> {
        let directory = &self.paths.bundle;
        let mut environment = environment(self.paths, Some(directory));
        self.gpus.front.put(&mut environment);
        let words = exec::words(argv);
        let name = words.first().copied().unwrap_or_default();
        let program = exec::find(name, search_path(&environment), directory)?;
        let launch =
            Launch { program: &program, argv: words.clone(), environment: &environment, directory: Some(directory) };
        match self.run(&launch, false)? {
            Ok(ended) => Ok(self.record(ended)),
            Err(error) => Err(exec::start_failed(name, &program, &error)),
        }
    }

    /// A shell that is there but broken (another machine's, without its loader or libraries) leaves it to the next.
    fn run_shell(&mut self, text: &str) -> Result<Record, NeverRan> {
        let cwd = std::env::current_dir().ok();
        let mut environment = environment(self.paths, cwd.as_deref());
        let front = self.gpus.front.clone();
        front.put(&mut environment);
        let mut tried = vec![];
        for shell in shell::candidates(&environment, &self.paths.shells) {
            match self.run(&shell.launch(text, &self.paths.bundle, &environment, &front), true)? {
                Ok(ended) if ended.progress == Progress::Silent && self.limits.reason().is_none() => {
                    tried.push(format!("{}: {}", shell.program().display(), status(&ended)));
                }
                Ok(mut ended) => {
                    ended.warnings.extend(workdir_is_closed());
                    ended.warnings.extend(passed_over(&tried, shell.name()));
                    return Ok(self.record(ended));
                }
                Err(error) if !exec::is_of_program(&error) => {
                    return Err(exec::start_failed(shell.name().as_ref(), shell.program(), &error));
                }
                Err(error) => {
                    tried.push(format!("{}: {}", shell.program().display(), exec::reason(shell.program(), &error)));
                }
            }
        }
        let found = if tried.is_empty() { "it has none".to_owned() } else { tried.join(", ") };
        let detail = format!("no shell of the image runs `command`; `argv` needs none ({found})");
        Err(NeverRan::because(Cause::NoShell, detail))
    }

    /// The inner error: the program did not start, and nothing of it has run. The outer one: nothing could be started.
    fn run(&mut self, launch: &Launch<'_>, marks: bool) -> Result<io::Result<Ended>, NeverRan> {
        let prepared = self.prepare(marks).map_err(|error| failed("start the command", &exec::words_of(&error)))?;
        let (tee, marks, ends) = prepared;
        Ok(launch
            .start(ends)
            .map(|pid| supervise(pid, marks, tee, &mut self.limits, &self.signals, (&self.orders, &self.paths.record))))
    }

    /// All that a program needs from us.
    fn prepare(&self, marks: bool) -> io::Result<(Tee, Option<OwnedFd>, Ends)> {
        let (own, ends) = exec::ends(marks)?;
        let (stdout, stderr) = (self.stdout.try_clone()?, self.stderr.try_clone()?);
        let tee = Tee::start([
            Stream { name: files::STDOUT, source: own.stdout, file: stdout, log: rustix::stdio::stdout() },
            Stream { name: files::STDERR, source: own.stderr, file: stderr, log: rustix::stdio::stderr() },
        ])?;
        Ok((tee, own.marks, ends))
    }

    /// What the image has below its own HOME, its `.bashrc` does not find below ours.
    fn hint_of_home(&self) -> String {
        let is_ours = std::env::var_os("HOME").is_none_or(|home| Path::new(&home) == self.paths.bundle);
        let mut bashrc = vec![];
        let read = File::open(".bashrc").and_then(|file| file.take(BASHRC_MAX_BYTES).read_to_end(&mut bashrc));
        if is_ours && read.is_ok() && uses_home(&bashrc) {
            format!(": it uses $HOME or ~, and HOME is {} here", self.paths.shown(&self.paths.bundle))
        } else {
            String::new()
        }
    }

    fn record(&self, ended: Ended) -> Record {
        let reason = self.limits.reason();
        let mut notes = vec![];
        let cause = match (reason, ended.began, ended.progress) {
            (Some(Reason::Cause(cause)), ..) => Some(cause),
            (Some(Reason::AskedToStop), ..) | (None, Some(_), _) => None,
            (None, None, Progress::Lost) => {
                notes.push(format!("cannot enter {}", self.paths.bundle.display()));
                Some(Cause::RunnerFailed)
            }
            (None, None, _) => {
                notes
                    .push(format!("the image's .bashrc ended the shell ({}) before the command began", status(&ended)));
                Some(Cause::BashrcEndedShell)
            }
        };
        if reason.is_some() && ended.began.is_none() {
            notes.push("the image's .bashrc had not ended, the command never began".to_owned());
        }
        match ended.progress {
            Progress::Ready(Bashrc::Returned(status @ 1..)) => {
                notes.push(format!(".bashrc returned status {status}{}", self.hint_of_home()));
            }
            Progress::Ready(Bashrc::Unreadable) => notes.push(".bashrc could not be read and was left out".to_owned()),
            _ => {}
        }
        notes.extend(ended.warnings);
        let wall = ended.began.map(|began| ended.at.monotonic.saturating_duration_since(began.monotonic));
        Record {
            cause,
            exit_code: ended.began.and(ended.status).and_then(WaitStatus::exit_status),
            signal: ended.status.and_then(WaitStatus::terminating_signal),
            asked_to_stop: reason == Some(Reason::AskedToStop),
            unkillable: ended.unkillable,
            started_at_ms: ended.began.map(|began| since_epoch_ms(began.wall)),
            gpus: self.gpus.facts.clone(),
            usage: usage::measure(&self.paths.cgroup, wall.unwrap_or_default()),
            detail: notes.join("; "),
            ..Record::default()
        }
    }
}

/// More of a `.bashrc` is not looked at.
const BASHRC_MAX_BYTES: u64 = 64 * 1024;

/// Whether a `.bashrc` looks for something below HOME.
fn uses_home(bashrc: &[u8]) -> bool {
    ["$HOME", "${HOME", "~/"].iter().any(|word| bashrc.windows(word.len()).any(|text| text == word.as_bytes()))
}

/// The container runtime enters the WORKDIR as root, so the runner can stand where its user can look for nothing.
fn workdir_is_closed() -> Option<String> {
    let closed = rustix::fs::access(".", Access::EXEC_OK) == Err(Errno::ACCESS);
    closed.then(|| "this user may not enter the image's WORKDIR: a .bashrc there was left out".to_owned())
}

/// The command may lack what the other shell would have understood.
fn passed_over(tried: &[String], used: &str) -> Option<String> {
    (!tried.is_empty())
        .then(|| format!("{used} ran the command, because another shell does not start ({})", tried.join(", ")))
}

fn status(ended: &Ended) -> String {
    ended.status.map_or_else(|| "no end".to_owned(), |status| End::of_wait_status(status.as_raw()).to_string())
}
