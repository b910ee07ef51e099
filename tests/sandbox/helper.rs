//! A helper in a sandbox, as a thread or as a process of its own.

#![allow(dead_code)] // each test binary uses its part

use super::sandbox::{Sandbox, Started, await_that};
use bundlerun::contract::{Command, MESSAGE_MAX_BYTES, Message};
use bundlerun::helper;
use rustix::fd::{AsFd, OwnedFd};
use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Child, ExitCode};
use std::thread::{self, JoinHandle};

/// A helper at work in a thread; dropping `stop` is its SIGTERM.
pub(crate) struct Helper {
    pub(crate) thread: JoinHandle<ExitCode>,
    pub(crate) stop: OwnedFd,
}

impl Helper {
    pub(crate) fn start(sandbox: &Sandbox) -> Self {
        let (read, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let paths = sandbox.paths.clone();
        Self { thread: thread::spawn(move || helper::run_until(&paths, read.as_fd())), stop }
    }

    /// Its own end, with success.
    pub(crate) fn finish(self) {
        await_that("the end of the helper", || self.thread.is_finished());
        assert_eq!(format!("{:?}", self.thread.join().unwrap()), format!("{:?}", ExitCode::SUCCESS));
    }

    pub(crate) fn stop(self) {
        let Self { thread, stop } = self;
        drop(stop);
        await_that("the end of the helper", || thread.is_finished());
        assert_eq!(format!("{:?}", thread.join().unwrap()), format!("{:?}", ExitCode::SUCCESS));
    }
}

/// A helper as the container runtime starts it.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    pub(crate) fn start(sandbox: &Sandbox) -> Self {
        Self::spawn(&mut Self::command(sandbox))
    }

    pub(crate) fn command(sandbox: &Sandbox) -> std::process::Command {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bundle-operator"));
        command.args(["helper", "run", "--root"]).arg(sandbox.root());
        command
    }

    pub(crate) fn spawn(command: &mut std::process::Command) -> Self {
        Self { child: command.spawn().unwrap() }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn children(&self) -> Vec<String> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        // A thread may end between the two looks.
        let children = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok());
        children.flat_map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    /// The child for a task, if it is there.
    pub(crate) fn child(&self, task: &str) -> Option<String> {
        let does = |child: &String| {
            let words = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            words.split(|byte| *byte == 0).any(|word| word == task.as_bytes())
        };
        self.children().into_iter().find(does)
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Its own end; whether with success.
    pub(crate) fn finish(mut self) -> bool {
        await_that("the end of the helper", || self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap().success()
    }
}

/// As the kubelet makes it: nothing prepared.
pub(crate) fn fresh() -> Sandbox {
    let sandbox = Sandbox::new();
    fs::remove_file(sandbox.paths.bin.join("staged")).unwrap();
    symlink(env!("CARGO_BIN_EXE_bundle-operator"), &sandbox.paths.operator_binary).unwrap();
    sandbox
}

pub(crate) fn start<'a>(sandbox: &'a Sandbox, command: &Command) -> (Helper, Started<'a>) {
    sandbox.write_request(command);
    let helper = Helper::start(sandbox);
    let _ = helper::wait_prepared(&sandbox.paths);
    // Not the copy that was prepared: children that other tests fork just now may hold it open for writing.
    (helper, sandbox.start(command))
}

pub(crate) fn told(sandbox: &Sandbox) -> Message {
    let text = fs::read_to_string(&sandbox.paths.termination_message).unwrap();
    assert!(text.len() <= MESSAGE_MAX_BYTES);
    assert_eq!(text, fs::read_to_string(sandbox.paths.bin.join("reported")).unwrap());
    Message::decode(&text).unwrap()
}
