//! `kubectl bundle`: the command line of users.

use std::process::ExitCode;

fn main() -> ExitCode {
    bundlerun::cli::main(std::env::args_os())
}
