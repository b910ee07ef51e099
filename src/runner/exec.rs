//! Finding a program and starting it.

use super::environment::Environment;
use super::never_ran::NeverRan;
use crate::contract::{Cause, printable};
use rustix::fd::OwnedFd;
use rustix::fs::Access;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{DumpableBehavior, Pid, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// The kernel looks no further for the name of an interpreter.
const FIRST_LINE_MAX_BYTES: u64 = 256;

/// A program about to start.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) program: &'a Path,
    /// First word is the name under which it is called.
    pub(crate) argv: Vec<&'a OsStr>,
    pub(crate) environment: &'a Environment,
    /// None: where the runner is, the image's WORKDIR.
    pub(crate) directory: Option<&'a Path>,
}

/// The program's ends of all that is between it and us. They are made, and copying has begun, before it starts: once
/// it runs, nothing of ours can fail any more, so no error can lead to a second start of the command.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// The runner's ends.
#[derive(Debug)]
pub(crate) struct OwnEnds {
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    /// Where a shell says how far it came.
    pub(crate) marks: Option<OwnedFd>,
}

/// Both ends of everything. With `marks` standard input is a pipe to us, else /dev/null.
pub(crate) fn ends(marks: bool) -> io::Result<(OwnEnds, Ends)> {
    let (own_stdout, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    let (own_stderr, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
    let (marks, stdin) = if marks {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::fs::fcntl_setfl(&read, rustix::fs::OFlags::NONBLOCK)?;
        (Some(read), write)
    } else {
        (None, File::open("/dev/null")?.into())
    };
    Ok((OwnEnds { stdout: own_stdout, stderr: own_stderr, marks }, Ends { stdin, stdout, stderr }))
}

impl Launch<'_> {
    /// Starts it in a process group of its own, which has its number, as the first to go when memory runs out.
    ///
    /// After an error nothing of the program has run.
    pub(crate) fn start(&self, ends: Ends) -> io::Result<Pid> {
        let mut command = Command::new(self.program);
        command.args(self.argv.iter().skip(1)).env_clear().envs(self.environment).process_group(0);
        command.stdin(ends.stdin).stdout(ends.stdout).stderr(ends.stderr);
        if let Some(name) = self.argv.first() {
            command.arg0(name);
        }
        if let Some(directory) = self.directory {
            command.current_dir(directory);
        }
        let child = with_higher_oom_score(|| command.spawn())?;
        // The standard library has waited for the `exec` and holds no pipe; the number of a process fits.
        Pid::from_raw(child.id().cast_signed()).ok_or_else(|| io::Error::other("it has no process number"))
    }
}

/// The runner's own, opened while that is allowed: the files below `/proc` of a process that is not dumpable are root's.
static OOM_SCORE: LazyLock<Option<File>> =
    LazyLock::new(|| File::options().read(true).write(true).open("/proc/self/oom_score_adj").ok());

/// Takes the runner out of the command's reach: although they have one user, the command cannot trace it, write to its
/// memory or use its open files, and so neither get rid of its limits nor speak for it. A program that is executed
/// becomes dumpable again.
pub(crate) fn hide_runner() {
    LazyLock::force(&OOM_SCORE);
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// A crash of the command would leave its memory in the working directory: gigabytes that hide its cause behind the disk
/// limit, or are saved as output. The command inherits this. The hard limit, too: a script that raises the soft one, as many
/// do, asks for a core where it is at home, and would have one in every output.
pub(crate) fn no_core_dumps() {
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

/// How much likelier than the runner the command is to be killed when memory runs out, in thousandths of the memory
/// that ran out. On a node that is full it must not make runs go before the pods of others. The kubelet gives a small
/// container up to 999 of 1000, and then a thousandth has to do, which is 64 KiB of 64 MiB: what protects the runner there
/// is that it is smaller than any shell, see [`super::sys::let_go_of_code`]. Where it becomes the victim nevertheless,
/// only the kubelet tells of the ending.
const SCORE_ABOVE_RUNNER: i32 = 50;

/// The OOM killer shall take the command and leave the runner, which tells of it. A child inherits the score of the
/// moment, and a process may lower its own again down to what the container runtime gave it: so no code of ours has to
/// run in the child.
fn with_higher_oom_score<T>(start: impl FnOnce() -> T) -> T {
    let mut text = [0; 8];
    let score = OOM_SCORE.as_ref().and_then(|file| {
        let length = file.read_at(&mut text, 0).ok()?;
        let own: i32 = std::str::from_utf8(text.get(..length)?).ok()?.trim().parse().ok()?;
        Some((file, own))
    });
    let set = |file: &File, score: i32| file.write_at(score.to_string().as_bytes(), 0);
    let raised = score.filter(|(file, own)| set(file, own.saturating_add(SCORE_ABOVE_RUNNER).min(1000)).is_ok());
    let started = start();
    if let Some((file, own)) = raised {
        let _ = set(file, own);
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
    let shown = shown(name);
    Err(if candidates.iter().any(|path| is_there(&path)) {
        NeverRan::because(Cause::CommandNotExecutable, format!("{shown}: no permission to execute it, or no file"))
    } else {
        let line_ends = if name.as_bytes().ends_with(b"\r") { ": its name ends with a carriage return" } else { "" };
        NeverRan::because(Cause::CommandNotFound, format!("{shown}: not found in the image{line_ends}"))
    })
}

/// A name for people: a carriage return or another control character is shown, because without it the name looks right.
fn shown(name: &OsStr) -> String {
    printable(&name.to_string_lossy())
}

/// Whether an error of starting a program is about the program. All others (no process, memory or descriptor to be had)
/// are the machine's: another program would fare no better, another attempt may.
pub(crate) fn is_of_program(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::NOENT
                | Errno::NOEXEC
                | Errno::ACCESS
                | Errno::PERM
                | Errno::NOTDIR
                | Errno::ISDIR
                | Errno::LOOP
                | Errno::NAMETOOLONG
                | Errno::TXTBSY
                | Errno::LIBBAD
                | Errno::INVAL
        )
    )
}

/// What an error of starting `name`, which was found at `program`, means.
pub(crate) fn start_failed(name: &OsStr, program: &Path, error: &io::Error) -> NeverRan {
    let (cause, why) = match Errno::from_io_error(error) {
        Some(Errno::NOEXEC) => (
            Cause::CommandNotExecutable,
            "exec format error: no program for this machine, or a script without #!".to_owned(),
        ),
        Some(Errno::TOOBIG) => (Cause::CommandNotExecutable, "arguments and environment are too long".to_owned()),
        _ if is_of_program(error) => (Cause::CommandNotExecutable, reason(program, error)),
        _ => (Cause::RunnerFailed, format!("cannot start: {}", words_of(error))),
    };
    NeverRan::because(cause, format!("{}: {why}", shown(name)))
}

/// Why `program`, which is there, did not start.
pub(crate) fn reason(program: &Path, error: &io::Error) -> String {
    if Errno::from_io_error(error) != Some(Errno::NOENT) {
        return words_of(error);
    }
    let mut begin = vec![];
    let _ = File::open(program).and_then(|file| file.take(FIRST_LINE_MAX_BYTES).read_to_end(&mut begin));
    match interpreter(&begin) {
        // Shown with its `\r`: without it the name looks right.
        Some(name) if name.ends_with(b"\r") => format!(
            "its first line names the interpreter {}: the file has Windows line ends (CRLF), save it with LF",
            name.escape_ascii()
        ),
        Some(name) => format!("the interpreter {} in its first line is not in the image", name.escape_ascii()),
        None => "the loader it names is missing: it may be made for another C library".to_owned(),
    }
}

/// The program that the first line of a script names. As the kernel reads it: up to a blank or the end of the line, and a
/// carriage return belongs to it.
fn interpreter(script: &[u8]) -> Option<&[u8]> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let line = script.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    line.split(is_blank).find(|word| !word.is_empty())
}

/// An error of the system without its number, which says nothing more.
pub(crate) fn words_of(error: &io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.as_str(), |(words, _)| words).to_owned()
}

/// Borrows words as arguments.
pub(crate) fn words<S: AsRef<OsStr>>(words: &[S]) -> Vec<&OsStr> {
    words.iter().map(AsRef::as_ref).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_carriage_return_in_a_name_is_shown() {
        let missing = find("none\r".as_ref(), "/bin".as_ref(), Path::new("/")).unwrap_err();
        assert_eq!(missing.detail, "none\\r: not found in the image: its name ends with a carriage return");
        assert_eq!(shown("größe \u{1}".as_ref()), "größe \\u{1}");
    }

    #[test]
    fn the_interpreter_is_what_the_kernel_takes_for_it() {
        for (script, want) in [
            (&b"#!/bin/sh\necho"[..], Some(&b"/bin/sh"[..])),
            (b"#! /usr/bin/env python3\n", Some(b"/usr/bin/env")),
            (b"#!\t/bin/bash -e", Some(b"/bin/bash")),
            (b"#!/bin/bash\r\necho\r\n", Some(b"/bin/bash\r")),
            (b"#!/bin/bash -e\r\n", Some(b"/bin/bash")),
            (b"#!\n/bin/sh\n", None),
            (b"\x7fELF", None),
            (b"", None),
        ] {
            assert_eq!(interpreter(script), want, "{}", script.escape_ascii());
        }
    }
}
