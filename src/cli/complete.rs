//! Completion for `kubectl bundle`, as `kubectl` asks its plugins for it: by `kubectl_complete-bundle`, which is
//! `exec kubectl bundle __complete "$@"`.

use clap::{Args, Command, Parser as _};
use kube::ResourceExt as _;
use kube::api::ListParams;

use super::clean;
use super::runs::PAGE;
use super::session::Session;
use super::{Cli, Out};

/// Says that there is nothing else, files for example.
const NOTHING_ELSE: &str = ":4\n";

#[derive(Debug, Args)]
pub(super) struct Complete {
    /// The words so far, the last of which is completed
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// What a word may become.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    OneOf(Vec<String>),
    /// Names of runs, of the cluster that these options name.
    Runs(Vec<String>),
}

/// The proposals, a line each. Where there is trouble there are none: nobody asked for an error.
pub(super) async fn complete(args: &Complete, command: &Command) -> String {
    let partial = args.words.last().map(String::as_str).unwrap_or_default();
    let proposals = match wanted(&args.words, command) {
        Wanted::OneOf(words) => words,
        Wanted::Runs(options) => names(options).await.unwrap_or_default(),
    };
    let lines: Vec<_> =
        proposals.iter().filter(|word| word.starts_with(partial)).map(|word| word.clone() + "\n").collect();
    lines.concat() + NOTHING_ELSE
}

fn wanted(words: &[String], command: &Command) -> Wanted {
    let Some((partial, before)) = words.split_last() else { return Wanted::OneOf(Vec::new()) };
    let (mut plain, mut options) = (Vec::new(), Vec::new());
    let mut before = before.iter();
    while let Some(word) = before.next() {
        let is_global = ["-n", "--namespace", "--context", "--kubeconfig"].contains(&word.as_str());
        if is_global {
            options.extend([Some(word), before.next()].into_iter().flatten().cloned());
        } else if ["--namespace=", "--context=", "--kubeconfig="].iter().any(|start| word.starts_with(start)) {
            options.push(word.clone());
        } else if ["-o", "--output", "-l", "--selector"].contains(&word.as_str()) {
            before.next();
        } else if !word.starts_with('-') {
            plain.push(word.as_str());
        }
    }
    let verb = plain.first().and_then(|verb| command.find_subcommand(verb));
    match (verb, &plain[..]) {
        (None, []) if !partial.starts_with('-') => {
            let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
            Wanted::OneOf(verbs.map(|verb| verb.get_name().to_owned()).collect())
        }
        (verb, _) if partial.starts_with('-') => {
            let of = verb.into_iter().chain([command]).flat_map(Command::get_arguments);
            Wanted::OneOf(of.filter_map(|arg| Some(format!("--{}", arg.get_long()?))).collect())
        }
        (Some(verb), [_])
            if ["info", "why", "logs", "rerun", "files", "cat", "download"].contains(&verb.get_name()) =>
        {
            Wanted::Runs(options)
        }
        (Some(verb), _) if ["wait", "stop", "rm"].contains(&verb.get_name()) => Wanted::Runs(options),
        _ => Wanted::OneOf(Vec::new()),
    }
}

async fn names(options: Vec<String>) -> Option<Vec<String>> {
    let line = ["kubectl-bundle".to_owned()].into_iter().chain(options).chain(["ls".to_owned()]);
    let session = Session { global: Cli::try_parse_from(line).ok()?.global, out: Out::new() };
    let connection = session.connect().await.ok()?;
    let runs = connection.runs().list_metadata(&ListParams::default().limit(PAGE)).await.ok()?;
    Some(runs.items.iter().map(|run| clean::line(&run.name_any())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn of(line: &str) -> Wanted {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        wanted(&words, &Cli::command())
    }

    #[test]
    fn a_word_becomes_what_may_stand_there() {
        let has = |line: &str, word: &str| match of(line) {
            Wanted::OneOf(words) => words.iter().any(|known| known == word),
            Wanted::Runs(_) => false,
        };
        assert!(has("", "logs") && has("-n a l", "ls") && !has("", "__complete"));
        assert!(has("run --", "--gpus") && has("run --", "--namespace") && has("--", "--context"));
        assert_eq!(of("logs "), Wanted::Runs(Vec::new()));
        assert_eq!(
            of("--context=c logs -n a -o json t"),
            Wanted::Runs(["--context=c", "-n", "a"].map(str::to_owned).into())
        );
        assert_eq!(of("rm a b "), Wanted::Runs(Vec::new()));
        assert_eq!(of("cat a "), Wanted::OneOf(Vec::new()), "files of the output are not known here");
    }
}
