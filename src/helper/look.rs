//! What `kubectl bundle` asks in this container about a run whose command runs. The user has the right to run programs here.

use crate::bundle::untrusted::open_mount;
use crate::bundle::{Error, Part, Tree, list_present, open_present, part_of_file};
use crate::contract::{Request, log_line};
use crate::helper::child;
use crate::helper::task::save;
use crate::runner::{Paths, request};
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::io::{BufWriter, Write, stdout};
use std::process::ExitCode;

/// It stands beside the main process and its children, which shall not be short of memory for it: bytes of all of it, and of
/// the entries of the tree.
const MOST_MEMORY: u64 = 32 << 20;
const MOST_FOR_ENTRIES: u64 = 16 << 20;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// What is in the working directory: a JSON [`ListEntry`](crate::bundle::ListEntry) a line.
    List,
    /// The bytes of a file, or a part of them.
    Read {
        /// From the working directory.
        path: String,
        /// None: all of it.
        part: Option<Part>,
    },
}

/// Answers on the standard output; what went wrong is said on standard error, in one line.
#[must_use]
pub fn look(paths: &Paths, wanted: &Look) -> ExitCode {
    child::limit_memory_to(Some(MOST_MEMORY.min(child::memory_of_a_child(&paths.cgroup).unwrap_or(MOST_MEMORY))));
    // One at a time, whoever else asks. It falls free when this process ends.
    let _turn = take_turn(paths);
    let mut out = BufWriter::new(stdout().lock());
    let done = answer(paths, wanted, &mut out).and_then(|()| out.flush().map_err(|error| error.to_string()));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            log_line!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn answer(paths: &Paths, wanted: &Look, out: &mut impl Write) -> Result<(), String> {
    let request = request::read(&paths.request).map_err(|never_ran| never_ran.detail)?;
    let tree = tree(paths, &request);
    match wanted {
        Look::List => {
            let write = |entry| {
                let line = serde_json::to_string(&entry).map_err(|error| Error::local("write", error))?;
                writeln!(out, "{line}").map_err(|error| Error::local("write", error))
            };
            list_present(&tree, write).map_err(|error| error.to_string())
        }
        Look::Read { path, part } => {
            let file = open_present(&tree, path).map_err(|error| error.to_string())?;
            let runtime = child::runtime().map_err(|error| error.to_string())?;
            runtime.block_on(part_of_file(&file, *part, out)).map_err(|error| error.to_string())
        }
    }
}

fn take_turn(paths: &Paths) -> Option<OwnedFd> {
    let turn = open_mount(&paths.bin).ok()?;
    while flock(&turn, FlockOperation::LockExclusive) == Err(Errno::INTR) {}
    Some(turn)
}

/// With what is excluded from the output: it is there.
fn tree(paths: &Paths, request: &Request) -> Tree {
    Tree { exclude: vec![], most_memory: Some(MOST_FOR_ENTRIES), ..save::working_directory(paths, request) }
}
