//! Finding a program and starting it.

use super::environment::Environment;
use super::never_ran::NeverRan;
use crate::report::Cause;
use rustix::fd::OwnedFd;
use rustix::fs::Access;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program about to start.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) program: &'a Path,
    /// First word is the name under which it is called.
    pub(crate) argv: Vec<&'a OsStr>,
    pub(crate) environment: &'a Environment,
    /// None: where the runner is, the image's WORKDIR.
    pub(crate) directory: Option<&'a Path>,
    /// Standard input is a pipe to us, instead of /dev/null.
    pub(crate) marks: bool,
}

/// A started program, and our ends of its pipes.
#[derive(Debug)]
pub(crate) struct Running {
    /// Also its process group.
    pub(crate) pid: Pid,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    pub(crate) marks: Option<OwnedFd>,
}

impl Launch<'_> {
    /// Starts it in a process group of its own, as the first to go when memory runs out.
    pub(crate) fn start(&self) -> io::Result<Running> {
        let mut command = Command::new(self.program);
        command.args(self.argv.iter().skip(1)).env_clear().envs(self.environment).process_group(0);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null());
        if let Some(name) = self.argv.first() {
            command.arg0(name);
        }
        if let Some(directory) = self.directory {
            command.current_dir(directory);
        }
        let mut marks = None;
        if self.marks {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            rustix::fs::fcntl_setfl(&read, rustix::fs::OFlags::NONBLOCK)?;
            command.stdin(write);
            marks = Some(read);
        }
        let mut child = with_higher_oom_score(|| command.spawn())?;
        let pipes = (child.stdout.take(), child.stderr.take(), Pid::from_raw(i32::try_from(child.id()).unwrap_or(0)));
        let (Some(stdout), Some(stderr), Some(pid)) = pipes else {
            return Err(io::Error::other("started without its pipes"));
        };
        Ok(Running { pid, stdout: stdout.into(), stderr: stderr.into(), marks })
    }
}

/// How much likelier than the runner the command is to be killed when memory runs out, in thousandths of the memory
/// that ran out. On a node that is full it must not make runs go before the pods of others. The kubelet gives a small
/// container up to 999 of 1000, and then a thousandth has to do: below some 100 MB the runner's own size of 1.5 MB can
/// make it the victim, and only the kubelet tells of the ending.
const SCORE_ABOVE_RUNNER: i32 = 50;

/// The OOM killer shall take the command and leave the runner, which tells of it. A child inherits the score of the
/// moment, and a process may lower its own again down to what the container runtime gave it: so no code of ours has to
/// run in the child.
fn with_higher_oom_score<T>(start: impl FnOnce() -> T) -> T {
    const SCORE: &str = "/proc/self/oom_score_adj";
    let own = std::fs::read_to_string(SCORE).ok().and_then(|text| text.trim().parse::<i32>().ok());
    let set = |score: i32| std::fs::write(SCORE, score.to_string());
    let raised = own.filter(|own| set((own + SCORE_ABOVE_RUNNER).min(1000)).is_ok());
    let started = start();
    if let Some(own) = raised {
        let _ = set(own);
    }
    started
}

/// Finds the program `name` means, as a shell would: in `search_path`, unless it has a slash; relative to `directory`.
pub(crate) fn find(name: &OsStr, search_path: &OsStr, directory: &Path) -> Result<PathBuf, NeverRan> {
    let candidates: Vec<PathBuf> = if name.as_bytes().contains(&b'/') {
        vec![directory.join(name)]
    } else if name.is_empty() {
        vec![]
    } else {
        search_path
            .as_bytes()
            .split(|b| *b == b':')
            .map(|dir| directory.join(OsStr::from_bytes(dir)).join(name))
            .collect()
    };
    let is_there = |path: &&PathBuf| path.exists();
    let is_program = |path: &&PathBuf| path.is_file() && rustix::fs::access(*path, Access::EXEC_OK).is_ok();
    if let Some(program) = candidates.iter().find(is_program) {
        return Ok(program.clone());
    }
    let shown = name.display();
    Err(if candidates.iter().any(|path| is_there(&path)) {
        NeverRan::because(Cause::CommandNotExecutable, format!("{shown}: no permission to execute it, or no file"))
    } else {
        NeverRan::because(Cause::CommandNotFound, format!("{shown}: not found in the image"))
    })
}

/// What an error of starting `name`, which was found, means.
pub(crate) fn start_failed(name: &OsStr, error: &io::Error) -> NeverRan {
    let (cause, why) = match Errno::from_io_error(error) {
        Some(Errno::NOENT) => (Cause::CommandNotExecutable, "the interpreter or loader it names is missing".to_owned()),
        Some(Errno::NOEXEC) => (
            Cause::CommandNotExecutable,
            "exec format error: no program for this machine, or a script without #!".to_owned(),
        ),
        Some(Errno::TOOBIG) => (Cause::CommandNotExecutable, "arguments and environment are too long".to_owned()),
        Some(Errno::ACCESS | Errno::PERM | Errno::NOTDIR | Errno::ISDIR | Errno::TXTBSY | Errno::LOOP) => {
            (Cause::CommandNotExecutable, error.to_string())
        }
        _ => (Cause::RunnerFailed, format!("cannot start: {error}")),
    };
    NeverRan::because(cause, format!("{}: {why}", name.display()))
}

/// Borrows words as arguments.
pub(crate) fn words<S: AsRef<OsStr>>(words: &[S]) -> Vec<&OsStr> {
    words.iter().map(AsRef::as_ref).collect()
}
