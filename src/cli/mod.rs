//! `kubectl bundle`: runs from a terminal, with the user's own kubeconfig and rights, and nothing else.
//!
//! | file | subject |
//! |---|---|
//! | `session` | options of every verb, the connection, the way to the terminal |
//! | `failure` | errors: what, why, and what to do |
//! | `clean`, `paint`, `table`, `record`, `sink` | text and bytes for a terminal |
//! | `runs` | runs by name or label, and following them |
//! | `store` | saved outputs, read with the user's own logins |
//! | `ls`, `info`, `why`, `version` | seeing: one file a verb |
//! | `complete` | what a word may become, for `kubectl` |
//! | `run`, `wait`, `stop`, `rm`, `rerun` | acting |
//! | `logs` (with `stamps`), `files`, `cat`, `download` | what came out |
//!
//! What a verb shows is made by a function of the objects and the time, and tested without a cluster.

mod cat;
mod clean;
mod complete;
mod download;
#[cfg(test)]
mod examples;
mod failure;
mod files;
mod info;
mod logs;
mod ls;
mod paint;
mod record;
mod rerun;
mod rm;
mod run;
mod runs;
mod session;
mod sink;
mod stamps;
mod stop;
mod store;
mod table;
mod version;
mod wait;
mod why;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use failure::{Failure, Kind};
use session::{Global, Out, Session};

/// For scripts: they do not change.
const EXIT_CODES: &str = "\
Exit codes:
  0  it was done
  1  it was not, and the error says why; of wait, and of run with --wait or --follow: a run did not succeed
  2  the command line is not understood

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
    /// List runs: phase, why in one word, GPUs, age
    #[command(visible_alias = "list")]
    Ls(ls::Ls),
    /// Describe a run: what it asked for, what it ran on, what it left
    Info(info::Info),
    /// Say what a run waits for, or how it ended: cause, blame, hint, last lines, attempts, events
    Why(why::Why),
    /// Show what a run printed, live or saved
    Logs(logs::Logs),
    /// Wait until runs have ended; exit code 1 if one did not succeed
    Wait(wait::Wait),
    /// End runs and keep what is there
    Stop(stop::Stop),
    /// Delete runs; their outputs stay in the store
    Rm(rm::Rm),
    /// Run the same again, with the image and inputs that were recorded
    Rerun(rerun::Rerun),
    /// List the files of a saved output
    Files(files::Files),
    /// Print a file of a saved output
    Cat(cat::Cat),
    /// Get a saved output, or a part of it, as files
    Download(download::Download),
    /// Versions of this program, the cluster and its definition of runs
    Version,
    /// Print a script that completes command lines, for a shell
    Completion {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// What the last of these words may become
    #[command(name = "__complete", hide = true)]
    Complete(complete::Complete),
    /// Help of a verb; `help agents`: how programs use this one
    Help {
        /// A verb, or `agents`
        topic: Option<String>,
    },
}

/// Runs the program with these arguments, the first of which is its name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Cli { global, verb } = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help is no error, and has another exit code.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let session = Session { global, out: Out::new() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(dispatch(&session, &verb)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if failure.kind != Kind::NotRead {
                eprint!("{}", failure.shown());
            }
            match failure.kind {
                Kind::Failed => ExitCode::FAILURE,
                Kind::Usage => ExitCode::from(2),
                Kind::NotRead => ExitCode::SUCCESS,
            }
        }
    }
}

async fn dispatch(session: &Session, verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Run(args) => Box::pin(run::run(session, args)).await,
        Verb::Ls(args) => ls::ls(session, args).await,
        Verb::Info(args) => info::info(session, args).await,
        Verb::Why(args) => why::why(session, args).await,
        Verb::Logs(args) => logs::logs(session, args).await,
        Verb::Wait(args) => wait::wait(session, args).await,
        Verb::Stop(args) => stop::stop(session, args).await,
        Verb::Rm(args) => rm::rm(session, args).await,
        Verb::Rerun(args) => Box::pin(rerun::rerun(session, args)).await,
        Verb::Files(args) => files::files(session, args).await,
        Verb::Cat(args) => cat::cat(session, args).await,
        Verb::Download(args) => download::download(session, args).await,
        Verb::Version => version::version(session).await,
        Verb::Completion { shell } => session.out.print(&completion(*shell)),
        Verb::Complete(args) => session.out.print(&complete::complete(args, &Cli::command()).await),
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
            assert_eq!(cli.global.output, session::Format::Json);
        }
    }

    #[test]
    fn every_verb_has_help_completion_and_a_word_for_programs() {
        let script = completion(Shell::Bash);
        for verb in Cli::command().get_subcommands().map(clap::Command::get_name) {
            assert!(help(Some(verb)).unwrap().contains("Usage: kubectl bundle"), "{verb}");
            assert!(script.contains(verb), "{verb}");
            let is_for_people = ["help", "completion", "version", "__complete"].contains(&verb);
            assert!(is_for_people || FOR_PROGRAMS.contains(&format!("kubectl bundle {verb} ")), "{verb}");
        }
        assert_eq!(help(Some("agents")).unwrap(), FOR_PROGRAMS);
        assert_eq!(help(Some("nonsense")).unwrap_err().kind, Kind::Usage);
    }
}
