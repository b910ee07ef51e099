//! `exec`, `cp`, `snapshot`, and what `files` and `cat` show while a command runs: programs in the containers of its pod.
//! `kubectl` starts them: it has the terminal, the transfer and every kind of login.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal as _, Write};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use clap::Args;
use serde_json::json;

use crate::api::{BundleRun, Phase};
use crate::bundle::{ListEntry, Part};
use crate::names;
use crate::plan::pod_name;

use super::clean;
use super::failure::{Asked, Failure};
use super::runs;
use super::session::{Answer, Connection, Session};
use super::store::Named;

/// The exit code of the program in the container when there is no store.
const NO_STORE: i32 = 3;

#[derive(Debug, Args)]
pub(super) struct Exec {
    /// Name of a run whose command runs
    run: String,
    /// Pass on the standard input. On a terminal it always is
    #[arg(short = 'i', long)]
    stdin: bool,
    /// What to run, in the working directory of the run's command
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(super) struct Cp {
    /// RUN:PATH, or a path of this machine
    from: String,
    /// A path of this machine, or RUN:PATH. PATH is below the working directory of the run's command, or absolute
    to: String,
}

#[derive(Debug, Args)]
pub(super) struct Snapshot {
    /// Name of a run whose command runs
    run: String,
    /// Wait no longer than this for it, as 30s, 10m or 2h
    #[arg(long, value_name = "TIME", default_value = "10m")]
    timeout: String,
    #[command(flatten)]
    answer: Answer,
}

pub(super) async fn exec(session: &Session, args: &Exec) -> Result<(), Failure> {
    let connection = session.connect().await?;
    let run = running(&connection, &args.run).await?;
    let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    Err(replaced_by(kubectl(session, &connection, args.words(&run, is_terminal))))
}

impl Exec {
    /// By the runner: in the working directory of the run's command, with its environment and its GPU driver.
    fn words(&self, run: &BundleRun, is_terminal: bool) -> Vec<OsString> {
        let flags = if is_terminal { Some("-it") } else { self.stdin.then_some("-i") };
        let runner = [names::paths::RUNNER, "exec", "--"].map(OsString::from);
        exec_words(run, names::RUN_CONTAINER, flags, runner.into_iter().chain(self.command.iter().cloned()))
    }
}

/// For `kubectl`: a program in a container of the run's pod.
fn exec_words(
    run: &BundleRun,
    container: &str,
    flags: Option<&str>,
    program: impl IntoIterator<Item = OsString>,
) -> Vec<OsString> {
    let pod = pod(run);
    let before = ["exec", &pod, "-c", container].into_iter().chain(flags).chain(["--"]).map(OsString::from);
    before.chain(program).collect()
}

pub(super) async fn cp(session: &Session, args: &Cp) -> Result<(), Failure> {
    let (from, to) = (Place::read(&args.from), Place::read(&args.to));
    let name = match (&from, &to) {
        (Place::Run { name, .. }, Place::Here(_)) | (Place::Here(_), Place::Run { name, .. }) => *name,
        _ => return Err(Failure::usage("one of the two is RUN:PATH, and the other a path of this machine")),
    };
    if let Some(odd) = [&from, &to].into_iter().find_map(Place::odd) {
        let why = format!("kubectl would take {odd} for a path in a pod: give it a name without a colon");
        return Err(Failure::usage(why));
    }
    let connection = session.connect().await?;
    let run = running(&connection, name).await?;
    let words = ["cp", "-c", names::RUN_CONTAINER, "--"].map(OsString::from).into_iter();
    let words = words.chain([&from, &to].map(|place| place.for_kubectl(&pod(&run)).into()));
    Err(replaced_by(kubectl(session, &connection, words)))
}

/// Where something is copied from or to.
enum Place<'a> {
    Run { name: &'a str, path: &'a str },
    Here(&'a str),
}

impl<'a> Place<'a> {
    fn read(text: &'a str) -> Self {
        match text.split_once(':') {
            // As scp has it: a colon after a slash is one of a file's name.
            Some((name, path)) if !name.is_empty() && !name.contains('/') => Self::Run { name, path },
            _ => Self::Here(text),
        }
    }

    fn for_kubectl(&self, pod: &str) -> String {
        match self {
            Self::Run { path, .. } => format!("{pod}:{}", Path::new(names::paths::BUNDLE).join(path).display()),
            Self::Here(path) => (*path).to_owned(),
        }
    }

    /// A path of this machine that `kubectl` takes for another.
    fn odd(&self) -> Option<&str> {
        match self {
            Self::Here(path) if path.contains(':') => Some(path),
            _ => None,
        }
    }
}

pub(super) async fn snapshot(session: &Session, args: &Snapshot) -> Result<(), Failure> {
    let connection = session.connect().await?;
    let run = running(&connection, &args.run).await?;
    let program = [names::paths::SNAPSHOT, "--timeout", &args.timeout].map(OsString::from);
    let output = output(kubectl(session, &connection, exec_words(&run, names::RUN_CONTAINER, None, program)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let failure = forbidden(&connection, &run, &said(&stderr));
        return Err(failure.unwrap_or_else(|| refused(&args.run, output.status.code(), &stderr)));
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    let snapshot = clean::line(printed.trim());
    let format = args.answer.output;
    if format.is_for_people() {
        return session.out.print(&format!("{snapshot}\n"));
    }
    session.out.document(format, &json!({"run": args.run, "snapshot": snapshot}))
}

/// What is in the working directory of a run whose command runs; none: it does not run, and its output may be saved.
pub(super) fn files(session: &Session, named: &Named<'_>) -> Result<Option<Vec<ListEntry>>, Failure> {
    let Some((connection, run)) = live(named) else { return Ok(None) };
    let words = in_helper(run, ["list".into()]);
    let output = output(kubectl(session, connection, words))?;
    if !output.status.success() {
        return Err(not_read(connection, run, &output.stderr));
    }
    let entries: Result<Vec<ListEntry>, _> = serde_json::Deserializer::from_slice(&output.stdout).into_iter().collect();
    let other = |_| Failure::new(OTHER_VERSION);
    entries.map(Some).map_err(other)
}

/// Writes a file of the working directory of a run whose command runs; false: it does not run, and its output may be saved.
pub(super) fn cat(
    session: &Session,
    named: &Named<'_>,
    path: &str,
    part: Option<Part>,
    sink: &mut impl Write,
) -> Result<bool, Failure> {
    let Some((connection, run)) = live(named) else { return Ok(false) };
    let words = in_helper(run, ["read".into()].into_iter().chain(part.into_iter().flat_map(part_words)));
    let mut kubectl = kubectl(session, connection, words.into_iter().chain(["--".into(), path.into()]));
    let piped = kubectl.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().map_err(|error| not_started(&error))?;
    if let Some(mut bytes) = child.stdout.take() {
        io::copy(&mut bytes, sink)?;
    }
    let output = child.wait_with_output().map_err(|error| not_started(&error))?;
    if output.status.success() {
        return Ok(true);
    }
    let failure = not_read(connection, run, &output.stderr);
    let hint =
        failure.hint.clone().unwrap_or_else(|| format!("what is there: kubectl bundle files {}", runs::name(run)));
    Err(failure.hint(hint))
}

/// As the helper takes it.
fn part_words(part: Part) -> Vec<OsString> {
    let words: Vec<String> = match part {
        Part::FirstLines(lines) => vec![format!("--head={lines}")],
        Part::LastLines(lines) => vec![format!("--tail={lines}")],
        Part::LastBytes(bytes) => vec![format!("--last={bytes}")],
        Part::Bytes(from, to) => {
            let to = to.map(|to| format!("--to={to}"));
            [format!("--from={from}")].into_iter().chain(to).collect()
        }
    };
    words.into_iter().map(OsString::from).collect()
}

/// A run that is named, and whose command runs. An attempt or a bundle is asked for in the store.
fn live<'a>(named: &'a Named<'_>) -> Option<(&'a Connection, &'a BundleRun)> {
    match named {
        Named::Run { run, connection, attempt: None } if runs::phase(run) == Phase::Running => Some((connection, run)),
        _ => None,
    }
}

/// The helper's container has no other program.
fn in_helper(run: &BundleRun, words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let helper = [names::paths::OPERATOR_BINARY, "helper"].map(OsString::from);
    exec_words(run, names::HELPER_CONTAINER, None, helper.into_iter().chain(words))
}

fn not_read(connection: &Connection, run: &BundleRun, stderr: &[u8]) -> Failure {
    let said = said(&String::from_utf8_lossy(stderr));
    if said.contains("unrecognized subcommand") {
        return Failure::new(OTHER_VERSION);
    }
    forbidden(connection, run, &said).unwrap_or_else(|| Failure::new(said))
}

const OTHER_VERSION: &str =
    "the helper of this run is of another version than this program, and does not know the question";

/// What the API server says of a missing right, as for requests of our own.
fn forbidden(connection: &Connection, run: &BundleRun, said: &str) -> Option<Failure> {
    let pod = pod(run);
    let (verb, resource) = ("create", "pods/exec");
    let asked = Asked { verb, resource, name: Some(&pod), namespace: Some(&connection.namespace) };
    said.contains(&format!("cannot {verb} resource \"{resource}\"")).then(|| asked.forbidden(said))
}

/// Without what `kubectl` adds to it.
fn said(stderr: &str) -> String {
    let of_kubectl =
        |line: &&str| line.starts_with("command terminated with exit code") || line.starts_with("Defaulted container");
    clean::line(&stderr.lines().filter(|line| !of_kubectl(line)).collect::<Vec<_>>().join(" "))
}

fn refused(run: &str, code: Option<i32>, stderr: &str) -> Failure {
    let said = said(stderr);
    let why = said.strip_prefix("snapshot: ").unwrap_or(&said);
    let failure = Failure::new(format!("no snapshot of {run} was taken: {why}"));
    if code == Some(NO_STORE) { failure } else { failure.hint(format!("kubectl bundle why {run}")) }
}

/// A run whose command runs; of others it says what can be done instead.
async fn running(connection: &Connection, name: &str) -> Result<BundleRun, Failure> {
    let run = runs::get(connection, name).await?;
    match runs::phase(&run) {
        Phase::Running => Ok(run),
        _ => Err(not_running(&run)),
    }
}

fn not_running(run: &BundleRun) -> Failure {
    let name = runs::name(run);
    let failure = Failure::new(format!("the command of {name} does not run: it is {}", runs::state(run)));
    if run.is_over() {
        failure.hint(format!("what it left: kubectl bundle files {name}, cat, download"))
    } else {
        failure.hint(format!("kubectl bundle why {name}"))
    }
}

fn pod(run: &BundleRun) -> String {
    pod_name(runs::name(run), runs::attempt_number(run))
}

/// With the cluster and the namespace of this call.
fn kubectl<W: AsRef<OsStr>>(session: &Session, connection: &Connection, words: impl IntoIterator<Item = W>) -> Command {
    let mut kubectl = Command::new("kubectl");
    kubectl.args(session.global.for_kubectl()).args(["-n", &connection.namespace]).args(words);
    kubectl
}

/// What it printed, asked nothing.
fn output(mut kubectl: Command) -> Result<Output, Failure> {
    kubectl.stdin(Stdio::null()).output().map_err(|error| not_started(&error))
}

/// From here on this process is `kubectl`, with its exit code; it returns only why it is not.
fn replaced_by(mut kubectl: Command) -> Failure {
    not_started(&kubectl.exec())
}

fn not_started(error: &io::Error) -> Failure {
    Failure::new(format!("kubectl cannot be started: {error}")).hint("it must be on the PATH: it does this work")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::examples;
    use crate::cli::{Cli, Verb};
    use clap::Parser as _;

    fn words(line: &str, is_terminal: bool) -> String {
        let line = ["kubectl-bundle"].into_iter().chain(line.split(' '));
        let Verb::Exec(args) = Cli::try_parse_from(line).unwrap().verb else { panic!("another verb") };
        let words = args.words(&examples::succeeded(), is_terminal);
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_command_is_run_in_the_container_of_the_command() {
        assert_eq!(
            words("exec train -- nvidia-smi -l", false),
            "exec hello-1 -c run -- /.bundlerun/bin/bundle-runner exec -- nvidia-smi -l"
        );
        assert_eq!(
            words("exec -i train -- tar x", false),
            "exec hello-1 -c run -i -- /.bundlerun/bin/bundle-runner exec -- tar x"
        );
        assert_eq!(
            words("exec train -- bash", true),
            "exec hello-1 -c run -it -- /.bundlerun/bin/bundle-runner exec -- bash"
        );
        for line in ["exec train", "exec train bash", "exec"] {
            let line = ["kubectl-bundle"].into_iter().chain(line.split(' '));
            assert_eq!(Cli::try_parse_from(line).unwrap_err().exit_code(), 2);
        }
    }

    #[test]
    fn the_helper_reads_what_is_in_the_working_directory() {
        let words = |part: Part| {
            let words = in_helper(&examples::succeeded(), ["read".into()].into_iter().chain(part_words(part)));
            words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
        };
        let before = "exec hello-1 -c bundle -- /bundle-operator helper read";
        for (part, expected) in [
            (Part::FirstLines(3), "--head=3"),
            (Part::LastLines(3), "--tail=3"),
            (Part::LastBytes(9), "--last=9"),
            (Part::Bytes(4, None), "--from=4"),
            (Part::Bytes(4, Some(8)), "--from=4 --to=8"),
        ] {
            assert_eq!(words(part), format!("{before} {expected}"));
        }
    }

    #[test]
    fn a_place_is_in_a_run_or_here() {
        for (text, expected) in [
            ("train:logs/a", "p:/bundle/logs/a"),
            ("train:/tmp/a", "p:/tmp/a"),
            ("train:", "p:/bundle/"),
            ("train:a:b", "p:/bundle/a:b"),
            ("a", "a"),
            ("/d/a", "/d/a"),
        ] {
            let place = Place::read(text);
            assert_eq!((&*place.for_kubectl("p"), place.odd()), (expected, None), "{text}");
        }
        for odd in ["./a:b", "/a:b", "d/a:b", ":a"] {
            assert_eq!(Place::read(odd).odd(), Some(odd));
        }
    }

    #[test]
    fn a_run_that_does_not_run_is_told_with_the_way_out() {
        let waits = not_running(&examples::waiting());
        assert!(waits.message.ends_with(&runs::state(&examples::waiting())), "{waits:?}");
        assert!(waits.hint.unwrap().contains("kubectl bundle why"));
        assert!(not_running(&examples::succeeded()).hint.unwrap().contains("download"));
    }

    #[test]
    fn what_the_program_in_the_container_said_is_what_is_told() {
        let stderr = "snapshot: a.bin was written while\ncommand terminated with exit code 1\n";
        assert_eq!(
            refused("train", Some(1), stderr).message,
            "no snapshot of train was taken: a.bin was written while"
        );
        assert_eq!(refused("train", Some(3), "snapshot: no store").hint, None);
    }
}
