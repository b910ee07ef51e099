//! PID 1 of the run container: runs the user's command and writes down how it ended.

use std::process::ExitCode;

fn main() -> ExitCode {
    bundlerun::runner::main(std::env::args_os())
}
