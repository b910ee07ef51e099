//! The guides in docs: their commands do what they show.
//!
//! A block ```` ```yaml NAME ```` is a file of that name. A block ```` ```console ```` is run: lines after `$ ` are
//! commands, those below what they print. `...` stands for any text; alone on a line, for any lines. Other blocks need a
//! registry of the reader's or Docker, and are not run.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::common::Space;

enum Block {
    File { name: String, text: String },
    Console(Vec<Exchange>),
}

struct Exchange {
    command: String,
    prints: String,
}

fn blocks(guide: &str) -> Vec<Block> {
    let mut blocks = vec![];
    let mut lines = guide.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let text: String = lines.by_ref().take_while(|line| *line != "```").flat_map(|line| [line, "\n"]).collect();
        match info.split_once(' ') {
            Some(("yaml", name)) => blocks.push(Block::File { name: name.to_owned(), text }),
            None if info == "console" => blocks.push(Block::Console(exchanges(&text))),
            _ => {}
        }
    }
    blocks
}

fn exchanges(text: &str) -> Vec<Exchange> {
    let mut exchanges: Vec<Exchange> = vec![];
    for line in text.lines() {
        match (line.strip_prefix("$ "), exchanges.last_mut()) {
            (Some(command), _) => exchanges.push(Exchange { command: command.to_owned(), prints: String::new() }),
            (None, Some(exchange)) => exchange.prints.extend([line, "\n"]),
            (None, None) => panic!("output without a command: {line}"),
        }
    }
    exchanges
}

/// Whether what was printed is what is shown; where the last newline is does not matter.
fn is_as_shown(shown: &str, printed: &str) -> bool {
    let pattern: Vec<_> = shown
        .trim_end()
        .split('\n')
        .map(|line| if line == "..." { "(?s:.*)".to_owned() } else { regex::escape(line).replace(r"\.\.\.", ".*") })
        .collect();
    regex::Regex::new(&format!("^{}$", pattern.join("\n"))).unwrap().is_match(printed.trim_end())
}

#[test]
fn what_is_shown_is_compared() {
    for (shown, printed, same) in [
        ("a\n", "a\n", true),
        ("a\n", "a", true),
        ("a\n", "b\n", false),
        ("a\n", "a\nb\n", false),
        ("", "", true),
        ("", "x", false),
        ("sha256:...\n", "sha256:12ab\n", true),
        ("sha256:...\n", "sha512:12ab\n", false),
        ("...\n", "any\nlines\n", true),
        ("a.c\n", "abc\n", false),
    ] {
        assert_eq!(is_as_shown(shown, printed), same, "{shown:?} {printed:?}");
    }
}

#[tokio::test]
async fn every_command_of_the_guide_to_images_prints_what_it_shows() {
    every_command_prints_what_is_shown("docs/images.md", 20).await;
}

#[tokio::test]
async fn every_command_of_the_guide_to_bundles_prints_what_it_shows() {
    every_command_prints_what_is_shown("docs/bundles.md", 10).await;
}

async fn every_command_prints_what_is_shown(page: &str, least: usize) {
    let space = Space::new().await;
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    in_namespace(&space.name, &kubeconfig);

    let mut ran = 0;
    for block in blocks(&std::fs::read_to_string(guide).unwrap()) {
        match block {
            Block::File { name, text } => std::fs::write(dir.path().join(name), text).unwrap(),
            Block::Console(exchanges) => {
                // One shell for a block: later commands use the variables of earlier ones.
                let mut earlier = String::new();
                for Exchange { command, prints } in exchanges {
                    let script = format!("exec 3>&1 >/dev/null 2>&1\n{earlier}exec 1>&3 2>&1\n{command}");
                    let mut shell = Command::new("bash");
                    shell.args(["-c", &script]).current_dir(dir.path()).env("KUBECONFIG", &kubeconfig);
                    let shell = move || shell.output().unwrap();
                    let out = tokio::task::spawn_blocking(shell).await.unwrap();
                    let printed = String::from_utf8(out.stdout).unwrap();
                    let status = if is_as_shown(&prints, &printed) { String::new() } else { statuses(&kubeconfig) };
                    assert!(
                        is_as_shown(&prints, &printed) && out.status.success(),
                        "$ {command}\nshown:\n{prints}\nprinted:\n{printed}\n{status}"
                    );
                    if is_assignment(&command) {
                        earlier.extend([&command, "\n"]);
                    }
                    ran += 1;
                }
            }
        }
    }
    println!("{ran} commands of {page} printed what it shows");
    assert!(ran > least, "only {ran} commands: are the blocks still marked?");
    space.end().await;
}

/// Only assignments are repeated for later commands of a block.
fn is_assignment(command: &str) -> bool {
    regex::Regex::new("^[a-z_]+=").unwrap().is_match(command)
}

/// The kubeconfig with another default namespace.
fn in_namespace(namespace: &str, to: &Path) {
    let text = std::fs::read_to_string(std::env::var("KUBECONFIG").unwrap()).unwrap();
    let mut config: Value = serde_saphyr::from_str(&text).unwrap();
    for context in config["contexts"].as_array_mut().unwrap() {
        context["context"]["namespace"] = namespace.into();
    }
    std::fs::write(to, config.to_string()).unwrap();
}

fn statuses(kubeconfig: &Path) -> String {
    let out = Command::new("kubectl").args(["get", "bundleruns", "-o", "yaml"]).env("KUBECONFIG", kubeconfig).output();
    String::from_utf8_lossy(&out.unwrap().stdout).into_owned()
}
