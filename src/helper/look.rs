//! What `kubectl bundle` asks in this container about a run whose command runs. The user has the right to run programs here.

use crate::bundle::{Part, Tree, list_present, open_present, part_of_file};
use crate::contract::Request;
use crate::helper::child;
use crate::helper::task::save;
use crate::runner::{Paths, request};
use std::io::{BufWriter, Write, stdout};
use std::process::ExitCode;

/// It stands beside the main process and its children, which shall not be short of memory for it.
const MOST_MEMORY: u64 = 16 << 20;

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
    child::limit_memory(&paths.cgroup);
    let mut out = BufWriter::new(stdout().lock());
    let done = answer(paths, wanted, &mut out).and_then(|()| out.flush().map_err(|error| error.to_string()));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{}", crate::contract::one_line(&why));
            ExitCode::FAILURE
        }
    }
}

fn answer(paths: &Paths, wanted: &Look, out: &mut impl Write) -> Result<(), String> {
    let request = request::read(&paths.request).map_err(|never_ran| never_ran.detail)?;
    let tree = tree(paths, &request);
    match wanted {
        Look::List => {
            for entry in list_present(&tree).map_err(|error| error.to_string())? {
                serde_json::to_writer(&mut *out, &entry).map_err(|error| error.to_string())?;
                out.write_all(b"\n").map_err(|error| error.to_string())?;
            }
            Ok(())
        }
        Look::Read { path, part } => {
            let file = open_present(&tree, path).map_err(|error| error.to_string())?;
            let runtime = child::runtime().map_err(|error| error.to_string())?;
            runtime.block_on(part_of_file(&file, *part, out)).map_err(|error| error.to_string())
        }
    }
}

/// With what is excluded from the output: it is there.
fn tree(paths: &Paths, request: &Request) -> Tree {
    Tree { exclude: vec![], most_memory: Some(MOST_MEMORY), ..save::working_directory(paths, request) }
}
