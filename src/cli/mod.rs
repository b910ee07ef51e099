//! `kubectl bundle`: runs from a terminal, with the user's own kubeconfig and rights, and nothing else.
//!
//! | file | subject |
//! |---|---|
//! | `session` | options of every verb, the connection, the way to the terminal |
//! | `failure` | errors: what, why, and what to do |
//! | `clean`, `paint`, `table`, `record`, `sink`, `meter` | text and bytes for a terminal |
//! | `runs` | runs by name or label, and following them |
//! | `store` | saved outputs, read with the user's own logins |
//! | `lineage` | what runs were made from, and what was made from them |
//! | `ls`, `info`, `why`, `top`, `gpus`, `version` | seeing: one file a verb |
//! | `complete` | what a word may become, for `kubectl` |
//! | `run`, `wait`, `stop`, `suspend`, `rm`, `rerun`, `mimic` | acting |
//! | `live` | `exec`, `cp` and `snapshot`: in the container of a run whose command runs |
//! | `upload` (with `sources` and `git`) | what goes in |
//! | `logs` (with `pod_log`, `stamps` and `saved_log`), `files`, `cat`, `download` | what came out |
//! | `tree`, `diff`, `verify` | where it came from, what is different, whether it is as it was |
//!
//! What a verb shows is made by a function of the objects and the time, and tested without a cluster.

mod cat;
mod clean;
mod complete;
mod diff;
mod download;
#[cfg(test)]
mod examples;
mod failure;
mod files;
mod git;
mod gpus;
mod info;
mod lineage;
mod live;
mod logs;
mod ls;
mod meter;
mod mimic;
mod paint;
mod pod_log;
mod record;
mod rerun;
mod rm;
mod run;
mod runs;
mod saved_log;
mod session;
mod sink;
mod sources;
mod stamps;
mod stop;
mod store;
mod suspend;
mod table;
mod top;
mod tree;
mod upload;
mod verify;
mod version;
mod wait;
mod why;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use failure::{Failure, Kind};
use session::{Global, Out, Session};

/// For scripts: they do not change.
const EXIT_CODES: &str = "\
Exit codes:
  0  it was done
  1  it was not, and the error says why; of wait, and of run and rerun with --wait or --follow: a run did not succeed;
     of diff: the two differ
  2  the command line is not understood
  124  wait has come to its --timeout
  130  it was interrupted, as by Ctrl-C; runs go on
With --exit-code a command's own exit code comes before these, and may be one of them.

`kubectl bundle help agents` is for programs.";

const FOR_PROGRAMS: &str = include_str!("agents.md");

#[derive(Debug, Parser)]
#[command(name = "kubectl-bundle", bin_name = "kubectl bundle", version, after_help = EXIT_CODES)]
#[command(about = "Run commands on a GPU cluster, and get what came out", disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a command
    #[command(after_help = "Example: kubectl bundle run --gpus 1 --input data=prepare/train.csv -f -- python train.py")]
    Run(Box<run::Run>),
    /// Make a directory, or a file, of this machine a bundle that runs can have as an input
    #[command(after_help = "Example: kubectl bundle run -i data=image:$(kubectl bundle upload data) -- ls data")]
    Upload(upload::Upload),
    /// List runs: phase, why in one word, GPUs, age
    #[command(visible_alias = "list")]
    Ls(ls::Ls),
    /// Describe a run: what it asked for, what it ran on, what it left
    Info(info::Info),
    /// Say what a run waits for, or how it ended: cause, blame, hint, last lines, attempts, events
    Why(why::Why),
    /// Show runs that have not ended: what they asked for, what they use, how long they run
    Top(top::Top),
    /// Show the GPUs of the cluster: who holds them since when, and what is free
    Gpus(gpus::Gpus),
    /// Show what a run printed, live or saved
    Logs(logs::Logs),
    /// Wait until runs have ended; exit code 1 if one did not succeed
    Wait(wait::Wait),
    /// End runs and keep what is there
    Stop(stop::Stop),
    /// Hold runs: a command that runs is ended, what is there is saved, and nothing starts before resume
    Suspend(suspend::Suspend),
    /// Let suspended runs go on
    Resume(suspend::Suspend),
    /// Delete runs; their outputs stay in the store
    Rm(rm::Rm),
    /// Run the same again, with the image and inputs that were recorded
    Rerun(rerun::Rerun),
    /// Run all again that was made from a run, with another in its place
    #[command(after_help = "Example: kubectl bundle mimic prepare prepare-2 --dry-run")]
    Mimic(mimic::Mimic),
    /// Run a program in the container of a live run
    #[command(after_help = "Example: kubectl bundle exec train -- nvidia-smi")]
    Exec(live::Exec),
    /// Copy files between this machine and a live run; its image needs tar
    #[command(after_help = "Example: kubectl bundle cp train:logs/loss.csv .")]
    Cp(live::Cp),
    /// Have a live run take a snapshot of its working directory, and print where it is
    Snapshot(live::Snapshot),
    /// List the files of a live run, or of a saved output
    Files(files::Files),
    /// Print a file of a live run, or of a saved output
    Cat(cat::Cat),
    /// Get a saved output, or a part of it, as files
    Download(download::Download),
    /// Show what a run was made from, back to the first inputs; and what was made from it
    Tree(tree::Tree),
    /// Compare two runs: what they asked for, image, inputs, ending, files; exit code 1 if they differ
    Diff(diff::Diff),
    /// Read a saved output and compare every blob and file with its digest; --tree: with all that it was made from
    Verify(verify::Verify),
    /// Versions of this program, the cluster and its definition of runs
    Version(version::Version),
    /// Print a script that completes command lines, for a shell
    Completion {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Help of a verb; `help agents`: how programs use this one
    Help {
        /// A verb, or `agents`
        topic: Option<String>,
    },
}

/// Runs the program with these arguments, the first of which is its name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let asked = match read(arguments) {
        Ok(asked) => asked,
        Err(error) => {
            // Help is no error, and has another exit code.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(answer(asked)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure.kind, Kind::NotRead | Kind::Differs) {
                // It may be closed: the exit code says it all the same.
                let _ = io::stderr().write_all(failure.shown().as_bytes());
            }
            ExitCode::from(failure.kind.exit_code())
        }
    }
}

/// What a call of the program is for.
#[derive(Debug)]
enum Asked {
    /// What the last of these words may become, for a shell.
    Completion(Vec<String>),
    Verb(Box<Cli>),
}

fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Asked, clap::Error> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    match &arguments[..] {
        // Not by the parser: the words are of a line that is not whole yet, and some of them options.
        [_, verb, words @ ..] if verb == complete::VERB => {
            Ok(Asked::Completion(words.iter().map(|word| word.to_string_lossy().into_owned()).collect()))
        }
        _ => Ok(Asked::Verb(Box::new(Cli::try_parse_from(arguments)?))),
    }
}

async fn answer(asked: Asked) -> Result<(), Failure> {
    let out = Out::new();
    match asked {
        Asked::Completion(words) => out.print(&complete::complete(&words, &Cli::command()).await),
        Asked::Verb(cli) => dispatch(&Session { global: cli.global, out }, &cli.verb).await,
    }
}

async fn dispatch(session: &Session, verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Run(args) => Box::pin(run::run(session, args)).await,
        Verb::Upload(args) => upload::upload(session, args).await,
        Verb::Ls(args) => ls::ls(session, args).await,
        Verb::Info(args) => info::info(session, args).await,
        Verb::Why(args) => why::why(session, args).await,
        Verb::Top(args) => top::top(session, args).await,
        Verb::Gpus(args) => gpus::gpus(session, args).await,
        Verb::Logs(args) => logs::logs(session, args).await,
        Verb::Wait(args) => wait::wait(session, args).await,
        Verb::Stop(args) => stop::stop(session, args).await,
        Verb::Suspend(args) => suspend::suspend(session, args).await,
        Verb::Resume(args) => suspend::resume(session, args).await,
        Verb::Rm(args) => rm::rm(session, args).await,
        Verb::Rerun(args) => Box::pin(rerun::rerun(session, args)).await,
        Verb::Mimic(args) => Box::pin(mimic::mimic(session, args)).await,
        Verb::Exec(args) => live::exec(session, args).await,
        Verb::Cp(args) => live::cp(session, args).await,
        Verb::Snapshot(args) => live::snapshot(session, args).await,
        Verb::Files(args) => files::files(session, args).await,
        Verb::Cat(args) => cat::cat(session, args).await,
        Verb::Download(args) => download::download(session, args).await,
        Verb::Tree(args) => Box::pin(tree::tree(session, args)).await,
        Verb::Diff(args) => diff::diff(session, args).await,
        Verb::Verify(args) => Box::pin(verify::verify(session, args)).await,
        Verb::Version(args) => version::version(session, args).await,
        Verb::Completion { shell } => session.out.print(&completion(*shell)),
        Verb::Help { topic } => session.out.print(&help(topic.as_deref())?),
    }
}

fn completion(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "kubectl-bundle", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

fn help(topic: Option<&str>) -> Result<String, Failure> {
    let mut cli = Cli::command();
    cli.build();
    let Some(topic) = topic else { return Ok(cli.render_help().to_string()) };
    if topic == "agents" {
        return Ok(FOR_PROGRAMS.to_owned());
    }
    let verb = cli.find_subcommand_mut(topic);
    let verb = verb.ok_or_else(|| Failure::usage(format!("there is no verb {topic}")).hint("kubectl bundle help"))?;
    Ok(verb.render_long_help().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_every_verb_stand_before_or_after_it() {
        for line in ["kubectl-bundle -n a ls -o json", "kubectl-bundle ls -o json -n a"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.global.namespace.as_deref(), Some("a"));
        }
    }

    #[test]
    fn an_option_that_a_verb_has_no_use_for_is_refused() {
        for line in [
            "run -l sweep=a -- true",
            "run -A -- true",
            "rm -A -l x",
            "wait -A a",
            "info -l x a",
            "logs -o json a",
            "gpus -l x",
            "gpus a",
            "cat -o json a b",
            "download -o json a",
            "rerun -l x a",
            "upload -l x .",
        ] {
            let error = Cli::try_parse_from(["kubectl-bundle"].into_iter().chain(line.split(' '))).unwrap_err();
            assert_eq!((error.exit_code(), error.kind()), (2, clap::error::ErrorKind::UnknownArgument), "{line}");
        }
        for line in [
            "ls -A -l x -o wide",
            "top -A -l x -o json",
            "wait -l x -o name",
            "stop -l x -o json",
            "suspend -l x -o json",
            "rm -l x -o yaml",
            "version -o json",
            "upload -o json .",
        ] {
            Cli::try_parse_from(["kubectl-bundle"].into_iter().chain(line.split(' '))).unwrap();
        }
    }

    #[test]
    fn a_line_that_is_completed_is_not_read_as_one_of_ours() {
        for words in [&["-n", "a", "logs", ""][..], &["-h"], &["ls", "-o", ""], &["run", "--"], &["--version", ""]] {
            let line = ["kubectl-bundle", "__complete"].iter().chain(words).map(OsString::from);
            let asked = read(line).unwrap();
            assert!(matches!(&asked, Asked::Completion(given) if given == words), "{words:?}: {asked:?}");
        }
        assert!(read(["kubectl-bundle", "ls"].map(OsString::from)).is_ok_and(|asked| matches!(asked, Asked::Verb(_))));
    }

    #[test]
    fn exit_codes_are_those_that_are_documented() {
        for kind in [Kind::Failed, Kind::Usage, Kind::TimedOut, Kind::Interrupted] {
            let code = kind.exit_code();
            assert!(EXIT_CODES.contains(&format!("\n  {code}  ")), "{code}");
            for page in [FOR_PROGRAMS, include_str!("../../docs/cli.md")] {
                assert!(page.contains(&format!("\n| {code} | ")), "{code}");
            }
        }
    }

    #[test]
    fn every_verb_has_help_completion_and_a_word_for_programs() {
        let script = completion(Shell::Bash);
        for verb in Cli::command().get_subcommands().map(clap::Command::get_name) {
            assert!(help(Some(verb)).unwrap().contains("Usage: kubectl bundle"), "{verb}");
            assert!(script.contains(verb), "{verb}");
            let is_for_people = ["help", "completion", "version"].contains(&verb);
            assert!(is_for_people || FOR_PROGRAMS.contains(&format!("kubectl bundle {verb} ")), "{verb}");
        }
        assert_eq!(help(Some("agents")).unwrap(), FOR_PROGRAMS);
        assert_eq!(help(Some("nonsense")).unwrap_err().kind, Kind::Usage);
    }
}
