//! The pages of the documentation that are followed: their commands do what they show. `tests/blocks/mod.rs` says how
//! they are marked.
//!
//! In what a command prints, `...` stands for any text; alone on a line, for any lines.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::blocks::{FOLLOWED, blocks};
use crate::common::Space;

struct Exchange {
    command: String,
    prints: String,
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

/// `kubectl` says on standard error that it watches again, when a busy API server has ended a watch.
fn without_logs(printed: &str) -> String {
    let is_log = regex::Regex::new(r"^[IWE]\d{4} \d\d:\d\d:\d\d\.\d+ ").unwrap();
    printed.split_inclusive('\n').filter(|line| !is_log.is_match(line)).collect()
}

#[test]
fn what_is_shown_is_compared() {
    let log = "I1127 05:21:14.620768   24745 reflector.go:664] \"Warning: watch ended with error\"\n";
    assert_eq!(without_logs(&format!("a\n{log}b")), "a\nb");
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
async fn every_command_of_the_first_run_prints_what_it_shows() {
    follow("docs/first-run.md", 15).await;
}

#[tokio::test]
async fn every_command_of_the_page_for_scripts_prints_what_it_shows() {
    follow("docs/your-script.md", 35).await;
}

#[tokio::test]
async fn every_command_of_the_page_for_users_of_codalab_prints_what_it_shows() {
    follow("docs/codalab.md", 5).await;
}

#[tokio::test]
async fn every_command_of_the_page_for_users_of_jobs_prints_what_it_shows() {
    let space = Space::new().await;
    let checkpoints = space.claim("checkpoints").await;
    follow_in(&space, "docs/jobs.md", 4).await;
    assert!(checkpoints.join("starts").exists(), "the volume was not used");
    space.end().await;
}

#[tokio::test]
async fn every_command_of_the_guide_to_images_prints_what_it_shows() {
    follow("docs/images.md", 20).await;
}

#[tokio::test]
async fn every_command_of_the_guide_to_bundles_prints_what_it_shows() {
    follow("docs/bundles.md", 10).await;
}

#[tokio::test]
async fn every_command_of_the_guide_to_checkpoints_prints_what_it_shows() {
    follow("docs/checkpoints.md", 5).await;
}

#[tokio::test]
async fn every_command_of_the_page_for_the_command_line_prints_what_it_shows() {
    follow("docs/cli.md", 20).await;
}

#[test]
fn every_page_that_is_said_to_be_followed_is() {
    let tests = include_str!("guide.rs");
    assert!(FOLLOWED.iter().all(|page| tests.contains(&format!("\"{page}\", "))));
}

async fn follow(page: &str, least: usize) {
    let space = Space::new().await;
    follow_in(&space, page, least).await;
    space.end().await;
}

async fn follow_in(space: &Space, page: &str, least: usize) {
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    in_namespace(&space.name, &kubeconfig);

    let mut ran = 0;
    let patience = regex::Regex::new(r"--timeout=\d+s").unwrap();
    for block in blocks(&std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap()) {
        if let Some(name) = &block.name {
            std::fs::write(dir.path().join(name), &block.text).unwrap();
        }
        if !block.is_followed() {
            continue;
        }
        // One shell for a block: later commands use the variables of earlier ones.
        let mut earlier = String::new();
        for Exchange { command, prints } in exchanges(&block.text) {
            // A user has a node for this; here other tests may have all of it for minutes.
            let patient = patience.replace_all(&command, "--timeout=600s");
            let script = format!("exec 3>&1 >/dev/null 2>&1\n{earlier}exec 1>&3 2>&1\n{patient}");
            let mut shell = Command::new("bash");
            shell.args(["-c", &script]).current_dir(dir.path()).env("KUBECONFIG", &kubeconfig);
            shell.env("PATH", with_plugin()).env("BUNDLE_INSECURE_REGISTRY", std::env::var("REGISTRY_HOST").unwrap());
            let shell = move || shell.output().unwrap();
            let out = tokio::task::spawn_blocking(shell).await.unwrap();
            let printed = without_logs(&String::from_utf8(out.stdout).unwrap());
            let status = if is_as_shown(&prints, &printed) { String::new() } else { statuses(&kubeconfig) };
            assert!(
                is_as_shown(&prints, &printed) && out.status.success(),
                "{page}:{}\n$ {command}\nshown:\n{prints}\nprinted:\n{printed}\n{status}",
                block.line
            );
            if is_assignment(&command) {
                earlier.extend([&command, "\n"]);
            }
            ran += 1;
        }
    }
    println!("{ran} commands of {page} printed what it shows");
    assert!(ran > least, "only {ran} commands: are the blocks still marked?");
}

/// The `PATH`, with `kubectl bundle`.
fn with_plugin() -> String {
    let plugin = Path::new(env!("CARGO_BIN_EXE_kubectl-bundle")).parent().unwrap();
    format!("{}:{}", plugin.display(), std::env::var("PATH").unwrap())
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
