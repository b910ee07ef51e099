//! A program that a user starts beside the command, by `kubectl bundle exec`: with the command's working directory,
//! environment and GPU driver.

use super::attempt::environment;
use super::environment::search_path;
use super::paths::Paths;
use super::{exec, gpu, request};
use crate::contract::Cause;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Becomes that program; returns only where it cannot.
pub(crate) fn start(paths: &Paths, argv: &[OsString]) -> ExitCode {
    let failed = |code: i32, why: &str| {
        eprintln!("bundle-runner: {why}");
        ExitCode::from(u8::try_from(code).unwrap_or(125))
    };
    let directory = &paths.bundle;
    let mut environment = environment(paths, Some(directory));
    let request = request::read(&paths.request).ok();
    gpu::front(paths, request.and_then(|request| request.gpus).as_ref()).put(&mut environment);
    let Some((name, arguments)) = argv.split_first() else { return failed(125, "exec: no program is named") };
    match exec::find(name, search_path(&environment), directory) {
        Err(never_ran) => failed(never_ran.cause.map_or(125, Cause::container_exit_code), &never_ran.detail),
        Ok(program) => {
            let mut command = Command::new(&program);
            let error = command.arg0(name).args(arguments).env_clear().envs(environment).current_dir(directory).exec();
            failed(126, &format!("{}: {}", name.display(), exec::words_of(&error)))
        }
    }
}
