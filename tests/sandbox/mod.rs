//! A container's tree below a temporary directory, and the runner in it.

#![allow(dead_code)] // each test binary uses its part

use bundlerun::contract::{Command, GpuRequest, Record, Request};
use bundlerun::runner::Paths;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Shells an image may have.
pub(crate) const SHELLS: [&str; 3] = ["bash", "dash", "busybox"];

/// Programs the commands of the tests use; not every PATH has them, because then it would have a shell, too.
const TOOLS: [&str; 18] = [
    "cat", "echo", "env", "grep", "head", "ln", "ls", "mkdir", "mv", "printf", "pwd", "readlink", "rm", "setsid",
    "sleep", "touch", "true", "yes",
];

/// No test takes longer, or it hangs.
fn patience() -> Duration {
    let seconds = std::env::var("PATIENCE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(30))
}

const NOBODY: u32 = 65534;

const RUNNER: &str = env!("CARGO_BIN_EXE_bundle-runner");

pub(crate) struct Sandbox {
    dir: TempDir,
    pub(crate) paths: Paths,
    /// The image's WORKDIR.
    pub(crate) workdir: PathBuf,
    environment: Vec<(String, String)>,
    /// None: the user of the tests.
    user: Option<u32>,
    request: Request,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) record: Record,
    /// The container's log; the files of the output were compared with it.
    pub(crate) out: Vec<u8>,
    pub(crate) err: Vec<u8>,
}

impl Run {
    /// From the command's end until all that it left was over.
    pub(crate) fn aftermath(&self) -> Duration {
        let all = self.record.finished_at_ms - self.record.started_at_ms.unwrap();
        Duration::from_millis(u64::try_from(all).unwrap().saturating_sub(self.record.usage.wall_ms))
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.err).into_owned()
    }
}

/// A command for the shell.
pub(crate) fn sh(text: &str) -> Command {
    Command::Shell(text.to_owned())
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        Self::with_shell("bash")
    }

    /// With `bash`, `dash` (as sh), `busybox` (as sh), or `none`.
    pub(crate) fn with_shell(shell: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let mut paths = Paths::below(dir.path());
        // Any that is free.
        paths.progress_port = 0;
        let (workdir, tools) = (dir.path().join("workdir"), dir.path().join("usr/bin"));
        for path in
            [&paths.bundle, &paths.output, &paths.cache, &paths.bin, &paths.record, &paths.request, &workdir, &tools]
        {
            fs::create_dir_all(path).unwrap();
            fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
        }
        fs::write(paths.bin.join("staged"), "").unwrap();
        fs::write(paths.bin.join("lock"), "").unwrap();
        fs::create_dir_all(paths.termination_message.parent().unwrap()).unwrap();
        symlink(RUNNER, &paths.runner_in_image).unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:::\n").unwrap();
        for tool in TOOLS {
            symlink(Path::new("/usr/bin").join(tool), tools.join(tool)).unwrap();
        }
        match shell {
            "bash" => {
                symlink("/bin/bash", tools.join("bash")).unwrap();
                symlink("/bin/dash", tools.join("sh")).unwrap();
            }
            "dash" | "busybox" => symlink(Path::new("/usr/bin").join(shell), tools.join("sh")).unwrap(),
            _ => {}
        }
        let environment = vec![("PATH".to_owned(), tools.to_str().unwrap().to_owned())];
        let request = Request::new(sh(""), 30);
        Self { dir, paths, workdir, environment, user: None, request }
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self = self.without_env(name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without_env(mut self, name: &str) -> Self {
        self.environment.retain(|(other, _)| other != name);
        self
    }

    pub(crate) fn run_by_nobody(self) -> Self {
        self.run_by(NOBODY)
    }

    /// Where the tests may become another user.
    pub(crate) fn run_by(mut self, user: u32) -> Self {
        self.user = rustix::process::getuid().is_root().then_some(user);
        if let Some(user) = self.user {
            std::os::unix::fs::chown(&self.paths.bundle, Some(user), Some(user)).unwrap();
        }
        // That user may have no way to the build directory. Copied by another process: a file that this one has open for
        // writing, or a child that another test has just forked, cannot be executed.
        fs::remove_file(&self.paths.runner_in_image).unwrap();
        let copied = std::process::Command::new("cp").arg(RUNNER).arg(&self.paths.runner_in_image).status().unwrap();
        assert!(copied.success());
        self
    }

    /// With `python3`: the system's, which every user can execute, or else the one in PATH.
    pub(crate) fn python(self) -> Self {
        let mut program = "/usr/bin/python3".to_owned();
        if !Path::new(&program).exists() {
            let ask = ["-c", "import sys; print(sys.executable, end='')"];
            let told = std::process::Command::new("python3").args(ask).output().unwrap();
            program = String::from_utf8(told.stdout).unwrap();
        }
        symlink(program, self.root().join("usr/bin/python3")).unwrap();
        symlink("/usr/bin/tee", self.root().join("usr/bin/tee")).unwrap();
        self
    }

    pub(crate) fn time_limit(mut self, seconds: u64) -> Self {
        self.request.time_limit_seconds = Some(seconds);
        self
    }

    pub(crate) fn grace(mut self, seconds: u64) -> Self {
        self.request.stop_grace_seconds = seconds;
        self
    }

    pub(crate) fn disk(mut self, bytes: u64) -> Self {
        self.request.disk_bytes = Some(bytes);
        self
    }

    pub(crate) fn gpus(mut self, gpus: GpuRequest) -> Self {
        self.request.gpus = Some(gpus);
        self
    }

    pub(crate) fn requesting(mut self, change: impl FnOnce(&mut Request)) -> Self {
        change(&mut self.request);
        self
    }

    pub(crate) fn bashrc(&self, text: &str) {
        fs::write(self.workdir.join(".bashrc"), text).unwrap();
    }

    /// Nobody but root can read it.
    pub(crate) fn forbid(&self, file: &str) {
        fs::set_permissions(self.workdir.join(file), Permissions::from_mode(0o000)).unwrap();
    }

    /// A program in PATH.
    pub(crate) fn tool(&self, name: &str, content: &[u8], mode: u32) {
        program(&self.root().join("usr/bin").join(name), content, mode);
    }

    pub(crate) fn bundle_program(&self, name: &str, content: &[u8], mode: u32) {
        program(&self.paths.bundle.join(name), content, mode);
    }

    /// Runs to the end, and checks that the log has what the bundle has.
    pub(crate) fn run(&self, command: &Command) -> Run {
        let run = self.start(command).finish();
        self.compare(&run);
        run
    }

    /// Runs with this for a request.
    pub(crate) fn run_text(&self, request: Option<&str>) -> Run {
        if let Some(text) = request {
            fs::write(self.paths.request.join("request.json"), text).unwrap();
        }
        self.spawn(&mut self.command()).finish()
    }

    pub(crate) fn compare(&self, run: &Run) {
        if run.record.started_at_ms.is_some() {
            assert_eq!(
                fs::read(self.paths.output.join("stdout")).unwrap(),
                run.out,
                "log and bundle have the same stdout"
            );
            assert_eq!(
                fs::read(self.paths.output.join("stderr")).unwrap(),
                run.err,
                "log and bundle have the same stderr"
            );
        }
    }

    pub(crate) fn start(&self, command: &Command) -> Started<'_> {
        self.write_request(command);
        self.spawn(&mut self.command())
    }

    pub(crate) fn write_request(&self, command: &Command) {
        let request = Request { command: command.clone(), ..self.request.clone() };
        fs::write(self.paths.request.join("request.json"), serde_json::to_vec(&request).unwrap()).unwrap();
    }

    /// The runner, as the container runtime would start it.
    pub(crate) fn command(&self) -> std::process::Command {
        let mut command = std::process::Command::new(&self.paths.runner_in_image);
        command.args(["run", "--root"]).arg(self.root());
        self.dress(&mut command);
        command
    }

    /// Gives a command the container's directory, environment, user and log.
    pub(crate) fn dress(&self, command: &mut std::process::Command) {
        command.current_dir(&self.workdir).env_clear().envs(self.environment.iter().cloned());
        command.stdin(Stdio::null());
        command.stdout(File::create(self.root().join("log.out")).unwrap());
        command.stderr(File::create(self.root().join("log.err")).unwrap());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
    }

    /// Runs what leads to the runner, with the container's directory, environment, user and log.
    pub(crate) fn run_command(&self, command: &mut std::process::Command) -> Run {
        self.dress(command);
        self.spawn(command).finish()
    }

    pub(crate) fn spawn(&self, command: &mut std::process::Command) -> Started<'_> {
        Started { child: command.spawn().unwrap(), sandbox: self }
    }

    /// Waits until the bundle has this file.
    pub(crate) fn await_file(&self, name: &str) {
        let path = self.paths.bundle.join(name);
        await_that(&format!("{name} in the bundle"), || path.exists());
    }
}

fn program(path: &Path, content: &[u8], mode: u32) {
    let _ = fs::remove_file(path);
    fs::write(path, content).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

pub(crate) fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + patience();
    while !holds() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// For a test of something that this machine does not allow: fails, unless `BUNDLERUN_TESTS_MAY_SKIP` is set. A test that
/// is left out without a word looks like one that passed.
pub(crate) fn not_allowed_here(what: &str) {
    assert!(
        std::env::var_os("BUNDLERUN_TESTS_MAY_SKIP").is_some(),
        "this machine does not allow {what}: set BUNDLERUN_TESTS_MAY_SKIP=1 to leave such tests out"
    );
    eprintln!("left out: this machine does not allow {what}");
}

/// Whether a process is there and no zombie.
pub(crate) fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

/// A runner at work.
pub(crate) struct Started<'a> {
    pub(crate) child: Child,
    sandbox: &'a Sandbox,
}

impl Started<'_> {
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end and collects what it left.
    pub(crate) fn finish(mut self) -> Run {
        let mut status = None;
        await_that("the end of the runner", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let log = |name: &str| {
            let mut bytes = vec![];
            File::open(self.sandbox.root().join(name)).unwrap().read_to_end(&mut bytes).unwrap();
            bytes
        };
        let record = fs::read(self.sandbox.paths.record.join("record.json")).unwrap_or_default();
        Run {
            code: status.unwrap().code().unwrap_or(-1),
            record: serde_json::from_slice(&record).unwrap_or_default(),
            out: log("log.out"),
            err: log("log.err"),
        }
    }
}

impl Drop for Started<'_> {
    /// With all that it has started, as a container ends.
    fn drop(&mut self) {
        let below = if matches!(self.child.try_wait(), Ok(None)) { descendants(self.child.id()) } else { vec![] };
        let _ = self.child.kill();
        let _ = self.child.wait();
        for process in below.into_iter().filter_map(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?)) {
            let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
        }
    }
}

/// Processes below one, however deep.
fn descendants(of: u32) -> Vec<u32> {
    let ids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parent = |id: u32| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // Behind the name, which may have spaces and parentheses: the state, the parent.
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok()
    };
    let parents: Vec<(u32, u32)> = ids.filter_map(|id| Some((id, parent(id)?))).collect();
    let mut below = vec![of];
    let mut at = 0;
    while let Some(parent) = below.get(at).copied() {
        below.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(id, _)| *id));
        at += 1;
    }
    below.split_off(1)
}
