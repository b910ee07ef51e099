//! Completion for `kubectl bundle`, as `kubectl` asks its plugins for it: by `kubectl_complete-bundle`, which is
//! `exec kubectl bundle __complete "$@"`.

use clap::{Arg, Command, Parser as _, ValueHint};
use kube::ResourceExt as _;
use kube::api::ListParams;

use super::clean;
use super::runs::PAGE;
use super::session::Session;
use super::{Cli, Out};

/// What the words of a line come after. It is no verb of the parser's.
pub(super) const VERB: &str = "__complete";

/// Says that there is nothing else, files for example.
const NOTHING_ELSE: &str = ":4\n";
/// Says that the shell is to propose files and directories.
const PATHS: &str = ":0\n";

/// They say of which cluster and namespace runs are.
const PLACE: [&str; 3] = ["namespace", "context", "kubeconfig"];

/// What a word may become.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    OneOf(Vec<String>),
    /// Names of runs, of the cluster that these options name.
    Runs(Vec<String>),
    /// Of this machine.
    Path,
}

/// The proposals for the last word, a line each. Where there is trouble there are none: nobody asked for an error.
pub(super) async fn complete(words: &[String], command: &Command) -> String {
    let partial = words.last().map(String::as_str).unwrap_or_default();
    let proposals = match wanted(words, command) {
        Wanted::Path => return PATHS.to_owned(),
        Wanted::OneOf(words) => words,
        Wanted::Runs(options) => names(options).await.unwrap_or_default(),
    };
    let lines: Vec<_> =
        proposals.iter().filter(|word| word.starts_with(partial)).map(|word| word.clone() + "\n").collect();
    lines.concat() + NOTHING_ELSE
}

fn wanted(words: &[String], command: &Command) -> Wanted {
    let nothing = Wanted::OneOf(Vec::new());
    let Some((partial, before)) = words.split_last() else { return nothing };
    let mut verb: Option<&Command> = None;
    let (mut targets, mut place) = (0, Vec::new());
    let mut before = before.iter();
    while let Some(word) = before.next() {
        if word == "--" {
            // The command of a run.
            return nothing;
        }
        if !word.starts_with('-') {
            match verb {
                Some(_) => targets += 1,
                None => verb = command.find_subcommand(word),
            }
            if verb.is_none() {
                return nothing;
            }
            continue;
        }
        let Some((option, has_value)) = option(word, verb, command) else { continue };
        let mut given = vec![word.clone()];
        if !has_value {
            let Some(value) = before.next() else {
                if option.get_value_hint() == ValueHint::AnyPath {
                    return Wanted::Path;
                }
                let values = option.get_possible_values();
                return Wanted::OneOf(values.iter().map(|value| value.get_name().to_owned()).collect());
            };
            given.push(value.clone());
        }
        if PLACE.contains(&option.get_id().as_str()) {
            place.extend(given);
        }
    }
    if partial.starts_with('-') {
        let options = arguments(verb, command).filter_map(|arg| Some(format!("--{}", arg.get_long()?)));
        return Wanted::OneOf(options.collect());
    }
    match (verb.map(Command::get_name), targets) {
        (None, _) => {
            let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
            Wanted::OneOf(verbs.map(|verb| verb.get_name().to_owned()).collect())
        }
        (Some("upload"), 0) => Wanted::Path,
        (
            Some(
                "info" | "why" | "logs" | "rerun" | "files" | "cat" | "download" | "tree" | "verify" | "exec"
                | "snapshot",
            ),
            0,
        )
        | (Some("diff" | "mimic"), 0 | 1)
        | (Some("wait" | "stop" | "suspend" | "resume" | "rm"), _) => Wanted::Runs(place),
        _ => nothing,
    }
}

fn arguments<'a>(verb: Option<&'a Command>, command: &'a Command) -> impl Iterator<Item = &'a Arg> {
    verb.into_iter().chain([command]).flat_map(Command::get_arguments)
}

/// The option in a word that takes a value, and whether that is in the word too.
fn option<'a>(word: &str, verb: Option<&'a Command>, command: &'a Command) -> Option<(&'a Arg, bool)> {
    let takes_value = |arg: &&Arg| arg.get_action().takes_values();
    if let Some(long) = word.strip_prefix("--") {
        let (name, has_value) = long.split_once('=').map_or((long, false), |(name, _)| (name, true));
        let arg = arguments(verb, command).find(|arg| arg.get_long() == Some(name));
        return Some((arg.filter(takes_value)?, has_value));
    }
    let mut letters = word.get(1..)?.chars();
    while let Some(letter) = letters.next() {
        let arg = arguments(verb, command).find(|arg| arg.get_short() == Some(letter))?;
        if takes_value(&arg) {
            return Some((arg, !letters.as_str().is_empty()));
        }
    }
    None
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

    #[tokio::test]
    async fn options_are_proposed_and_not_obeyed() {
        let proposed = async |words: &[&str]| {
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            complete(&words, &Cli::command()).await
        };
        assert_eq!(proposed(&["-h"]).await, NOTHING_ELSE);
        assert_eq!(proposed(&["ls", "-o", "j"]).await, format!("json\n{NOTHING_ELSE}"));
        assert!(proposed(&["logs", "--"]).await.contains("--tail\n"));
        assert_eq!(proposed(&[]).await, NOTHING_ELSE);
        assert_eq!(proposed(&["upload", "d"]).await, PATHS);
    }

    #[test]
    fn a_word_becomes_what_may_stand_there() {
        let has = |line: &str, word: &str| match of(line) {
            Wanted::OneOf(words) => words.iter().any(|known| known == word),
            Wanted::Runs(_) | Wanted::Path => false,
        };
        assert!(has("", "logs") && has("-n a l", "ls") && !has("", "__complete"));
        assert!(has("run --", "--gpus") && has("run --", "--namespace") && has("--", "--context"));
        assert_eq!(of("logs "), Wanted::Runs(Vec::new()));
        assert_eq!(
            of("--context=c info -n a -o json t"),
            Wanted::Runs(["--context=c", "-n", "a"].map(str::to_owned).into())
        );
        assert_eq!(of("logs --tail 10 -f -na "), Wanted::Runs(["-na".to_owned()].into()), "a value is no name");
        assert!(has("ls -o ", "json") && has("wait a --output ", "name") && !has("ls -o ", "train"));
        assert!(has("-", "--context") && has("logs --", "--follow") && !has("run -- ", "ls"));
        for line in ["rm a b ", "suspend a ", "resume ", "diff a "] {
            assert_eq!(of(line), Wanted::Runs(Vec::new()), "{line}");
        }
        for line in ["upload ", "upload --allow-large d", "run --code ", "download a --to ", "--kubeconfig "] {
            assert_eq!(of(line), Wanted::Path, "{line}");
        }
        assert_eq!(of("upload d "), Wanted::OneOf(Vec::new()));
        assert_eq!(of("cat a "), Wanted::OneOf(Vec::new()), "files of the output are not known here");
    }
}
