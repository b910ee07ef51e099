//! Running text in the image's shell, after the image's `.bashrc`.

use super::environment::{Environment, Front, search_path};
use super::exec::Launch;
use rustix::fd::{AsFd, OwnedFd};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// What the shell is told to do; for bash, dash and busybox alike. The command and the directory are parameters: no
/// text of the user's is part of it. All of it is one line, so that the line numbers in a shell's messages are those
/// of the command, and one group, so that it is parsed before `.bashrc` can define an alias.
///
/// Standard input is the pipe for marks. `alive` is said first: a shell that cannot even say that is broken, and
/// another one gets its chance. It ends there, so that no command runs in two shells.
///
/// - `command .`: in dash and busybox an error in `.bashrc` would otherwise end the shell, which in bash it does not.
/// - `6>&- 7>&- 8>&-`: shells keep what they put back later where no child has it. So a daemon that `.bashrc` starts
///   does not hold the output open, and `.bashrc` may use these numbers itself.
/// - `PS1`: the stock guard `[ -z "$PS1" ] && return` would leave the rest of `.bashrc` out.
/// - `.bashrc` may leave `set -eux`, redirected output and parameters behind; functions, variables and traps stay.
/// - The driver's directories are put in front once more: many a `.bashrc` sets `LD_LIBRARY_PATH` or `PATH` anew.
/// - `command cd`: many a `.bashrc` has a function of that name.
/// - The space before the command: bash's `eval` would take a command that begins with `-` for options.
const SCRIPT: &str = "{ \
    _bundlerun_command=$1 _bundlerun_directory=$2 _bundlerun_bashrc=0; \
    _bundlerun_libraries=$3 _bundlerun_programs=$4; shift 4; \
    exec 6>&0 7>&1 8>&2 </dev/null || exit 125; \
    echo alive >&6 || exit 125; \
    if [ -f ./.bashrc ]; then \
        if [ -r ./.bashrc ]; then \
            PS1='$ '; \
            { command . ./.bashrc; } 6>&- 7>&- 8>&-; \
            { _bundlerun_bashrc=$?; set +euxvf; } 2>/dev/null; \
            (set +o pipefail) 2>/dev/null && set +o pipefail; \
            unset PS1; \
            set --; \
        else \
            _bundlerun_bashrc=unreadable; \
        fi; \
    fi; \
    case $_bundlerun_libraries:$LD_LIBRARY_PATH: in \
        :* | \"$_bundlerun_libraries:$_bundlerun_libraries:\"*) ;; \
        *) command export LD_LIBRARY_PATH=\"$_bundlerun_libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}\" ;; \
    esac; \
    case $_bundlerun_programs:$PATH: in \
        :* | \"$_bundlerun_programs:$_bundlerun_programs:\"*) ;; \
        *) command export PATH=\"$_bundlerun_programs${PATH:+:$PATH}\" ;; \
    esac; \
    exec 0</dev/null 1>&7 2>&8 7>&- 8>&-; \
    command cd \"$_bundlerun_directory\" || { echo lost >&6; exit 125; }; \
    echo \"ready $_bundlerun_bashrc\" >&6; \
    exec 6>&-; \
    unset _bundlerun_bashrc _bundlerun_directory _bundlerun_libraries _bundlerun_programs; \
    eval \" $_bundlerun_command\"; \
}";

/// Shells in order of preference.
const NAMES: [&str; 2] = ["bash", "sh"];

/// A shell the image seems to have.
#[derive(Debug)]
pub(crate) struct Shell {
    name: &'static str,
    program: PathBuf,
}

/// The shells to try, each program once: in PATH, then in the `usual` directories.
pub(crate) fn candidates(environment: &Environment, usual: &[PathBuf]) -> Vec<Shell> {
    let path = search_path(environment).to_owned();
    let directories: Vec<PathBuf> = std::env::split_paths(&path).chain(usual.iter().cloned()).collect();
    let mut shells: Vec<Shell> = vec![];
    let mut seen = vec![];
    for name in NAMES {
        for directory in &directories {
            let program = directory.join(name);
            // /bin is /usr/bin in most images. The name counts, too: it tells a busybox what to be.
            let identity = (name, program.canonicalize().unwrap_or_else(|_| program.clone()));
            if program.is_file() && !seen.contains(&identity) {
                seen.push(identity);
                shells.push(Shell { name, program });
            }
        }
    }
    shells
}

impl Shell {
    pub(crate) fn name(&self) -> &str {
        self.name
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// How to run `command` in `directory` with this shell.
    pub(crate) fn launch<'a>(
        &'a self,
        command: &'a str,
        directory: &'a Path,
        environment: &'a Environment,
        front: &'a Front,
    ) -> Launch<'a> {
        let words: [&OsStr; 8] = [
            self.name.as_ref(),
            "-c".as_ref(),
            SCRIPT.as_ref(),
            self.name.as_ref(),
            command.as_ref(),
            directory.as_os_str(),
            &front.libraries,
            &front.programs,
        ];
        Launch { program: &self.program, argv: words.to_vec(), environment, directory: None }
    }
}

/// What the script has said so far.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    text: Vec<u8>,
    pipe: Option<OwnedFd>,
}

/// How far the shell came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It did not run our script.
    Silent,
    /// It began with `.bashrc`, if there is one.
    Alive,
    /// It could not enter the working directory.
    Lost,
    /// It began with the command.
    Ready(Bashrc),
}

/// What became of `.bashrc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bashrc {
    /// Its exit status; 0 also when there is none.
    Returned(u8),
    /// It is there and cannot be read.
    Unreadable,
}

/// The script says less than this; a `.bashrc` may write to the pipe, too.
const MARKS_MAX_BYTES: usize = 4096;

impl Marks {
    /// Of a pipe that does not block.
    pub(crate) fn from(pipe: Option<OwnedFd>) -> Self {
        Self { text: vec![], pipe }
    }

    /// The pipe, while there is something to expect of it.
    pub(crate) fn pipe(&self) -> Option<rustix::fd::BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Takes what is there.
    pub(crate) fn read(&mut self) {
        let mut buffer = [0; 256];
        while let Some(pipe) = &self.pipe {
            match rustix::io::read(pipe, &mut buffer) {
                Ok(n) if n > 0 && self.text.len() < MARKS_MAX_BYTES => {
                    self.text.extend_from_slice(buffer.get(..n).unwrap_or_default());
                }
                Err(rustix::io::Errno::AGAIN) => return,
                Err(rustix::io::Errno::INTR) => {}
                _ => self.pipe = None,
            }
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        progress(&self.text)
    }
}

fn progress(text: &[u8]) -> Progress {
    let mut progress = Progress::Silent;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        progress = match (line, progress) {
            (b"alive\n", Progress::Silent) => Progress::Alive,
            (b"lost\n", Progress::Alive) => Progress::Lost,
            (b"ready unreadable\n", Progress::Alive) => Progress::Ready(Bashrc::Unreadable),
            (line, Progress::Alive) => match status(line) {
                Some(status) => Progress::Ready(Bashrc::Returned(status)),
                None => progress,
            },
            _ => progress,
        };
    }
    progress
}

fn status(line: &[u8]) -> Option<u8> {
    std::str::from_utf8(line).ok()?.strip_prefix("ready ")?.strip_suffix('\n')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_mark_is_no_mark() {
        for (text, want) in [
            ("", Progress::Silent),
            ("alive", Progress::Silent),
            ("alive\n", Progress::Alive),
            ("alive\nready 0", Progress::Alive),
            ("alive\nready 0\n", Progress::Ready(Bashrc::Returned(0))),
            ("alive\nnoise of .bashrc\nready 3\n", Progress::Ready(Bashrc::Returned(3))),
            ("alive\nready unreadable\n", Progress::Ready(Bashrc::Unreadable)),
            ("alive\nlost\n", Progress::Lost),
            ("ready 0\n", Progress::Silent),
        ] {
            assert_eq!(progress(text.as_bytes()), want, "{text:?}");
        }
    }

    #[test]
    fn the_script_is_one_line() {
        assert!(!SCRIPT.contains('\n'));
    }
}
