//! `tree`: what a run was made from, and what was made from it.

use std::fmt::Write as _;

use clap::Args;
use serde_json::json;

use super::clean;
use super::failure::Failure;
use super::lineage::{self, Child, Here, MadeFrom, Node, Search};
use super::paint::{Paint, colour};
use super::runs;
use super::session::{Answer, Format, Session, qualified_name};
use super::store::{self, StoreOptions, Target};

/// Of a digest, for people.
const DIGITS: usize = "sha256:".len() + 12;

#[derive(Debug, Args)]
pub(super) struct Tree {
    /// A run, or a bundle as REPOSITORY@sha256:...
    target: String,
    /// Also the runs of the namespace that were made from it
    #[arg(long)]
    children: bool,
    #[command(flatten)]
    answer: Answer,
    #[command(flatten)]
    store: StoreOptions,
}

pub(super) async fn tree(session: &Session, args: &Tree) -> Result<(), Failure> {
    let Found { node, children } = find(session, &args.target, &args.store, args.children).await?;
    match args.answer.output {
        format @ (Format::Table | Format::Wide) => {
            session.out.print(&text(&node, &children, args.children, format, session.out.paint))
        }
        Format::Name => {
            let runs = lineage::nodes(&node).into_iter().filter(|node| node.phase.is_some());
            let names: String = runs.filter_map(|node| node.name.as_deref()).map(qualified_name).collect();
            session.out.print(&names)
        }
        format => {
            let mut document = json!(node);
            if let Some(fields) = document.as_object_mut().filter(|_| args.children) {
                fields.insert("children".to_owned(), json!(children));
            }
            session.out.document(format, &document)
        }
    }
}

/// What was asked for, with what it was made from.
pub(super) struct Found {
    pub(super) node: Node,
    children: Vec<Child>,
}

/// Looks it up; the cluster need not be there for a bundle that is named itself.
pub(super) async fn find(
    session: &Session,
    text: &str,
    options: &StoreOptions,
    with_children: bool,
) -> Result<Found, Failure> {
    let target = store::target(text)?;
    let connection = match (session.connect().await, &target) {
        (Ok(connection), _) => Some(connection),
        (Err(failure), Target::Bundle(_)) => {
            session.out.note(&format!("the store alone is asked: {}", failure.message));
            None
        }
        (Err(failure), _) => return Err(failure),
    };
    let mut here = Here::new(session, connection.clone(), options);
    let all = if with_children { here.all().await? } else { Vec::new() };
    let mut search = Search::new(here);
    let node = match (&target, &connection) {
        (Target::Run(name) | Target::Attempt(name, _), Some(connection)) => {
            let run = runs::get(connection, name).await?;
            let node = search.of_run(&run).await?;
            match &target {
                Target::Attempt(_, number) => Node { bundle: Some(store::reference(&run, Some(*number))?), ..node },
                _ => node,
            }
        }
        (Target::Run(reference) | Target::Attempt(reference, _) | Target::Bundle(reference), _) => {
            search.of_bundle(reference).await?
        }
    };
    let children = lineage::children(&all, &node);
    Ok(Found { node, children })
}

fn text(node: &Node, children: &[Child], with_children: bool, format: Format, paint: Paint) -> String {
    let mut lines = Lines { text: String::new(), is_wide: format == Format::Wide, paint };
    lines.root(node);
    if with_children {
        lines.text.push_str(if children.is_empty() { "nothing was made from it\n" } else { "made from it:\n" });
        lines.children(children, 1);
    }
    lines.text
}

struct Lines {
    text: String,
    is_wide: bool,
    paint: Paint,
}

impl Lines {
    fn root(&mut self, node: &Node) {
        let name = node.name.clone().or_else(|| node.bundle.clone()).unwrap_or_default();
        let bundle = node.bundle.as_deref().filter(|_| node.name.is_some());
        let parts = [self.state(node), self.digest(bundle), notes(node)];
        self.line(0, &name, &parts);
        self.inputs(&node.inputs, 1);
    }

    fn inputs(&mut self, inputs: &[MadeFrom], depth: usize) {
        for input in inputs {
            let mut what = format!("{} = {}", input.path, input.source);
            let from = input.from.as_deref();
            // The source of an image does not say which run has made it.
            if let Some(name) = from.and_then(|node| node.name.as_deref())
                && input.source.split(['/', ' ']).next() != Some(name)
            {
                let _ = write!(what, ", made by {name}");
            }
            let state = from.map(|node| self.state(node)).unwrap_or_default();
            let digest = self.digest(input.reference.as_deref().or(input.digest.as_deref()));
            self.line(depth, &what, &[state, digest, from.map(notes).unwrap_or_default()]);
            if let Some(node) = from {
                self.inputs(&node.inputs, depth + 1);
            }
        }
    }

    fn children(&mut self, children: &[Child], depth: usize) {
        for child in children {
            let phase = self.paint.text(&format!("{:?}", child.phase), colour(child.phase));
            let paths = clean::line(&child.paths.join(", "));
            let digest = if self.is_wide { self.digest(child.bundle.as_deref()) } else { String::new() };
            let again = if child.again { "(see above)" } else { "" };
            self.line(depth, &child.name, &[format!("{phase}  {paths}"), digest, again.to_owned()]);
            self.children(&child.children, depth + 1);
        }
    }

    fn line(&mut self, depth: usize, what: &str, parts: &[String; 3]) {
        let _ = write!(self.text, "{}{}", "  ".repeat(depth), clean::line(what));
        for part in parts.iter().filter(|part| !part.is_empty()) {
            let _ = write!(self.text, "  {part}");
        }
        self.text.push('\n');
    }

    fn state(&self, node: &Node) -> String {
        node.phase.map(|phase| self.paint.text(&format!("{phase:?}"), colour(phase))).unwrap_or_default()
    }

    fn digest(&self, reference: Option<&str>) -> String {
        let reference = clean::line(reference.unwrap_or_default());
        if self.is_wide {
            return reference;
        }
        let digest = reference.rsplit_once('@').map_or(reference.as_str(), |(_, digest)| digest);
        digest.chars().take(DIGITS).collect()
    }
}

fn notes(node: &Node) -> String {
    let again = node.again.then_some("see above");
    let all: Vec<String> = again.into_iter().chain(node.note.as_deref()).map(clean::line).collect();
    if all.is_empty() { String::new() } else { format!("({})", all.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Phase;
    use crate::cli::examples::DIGEST;

    fn node(name: &str, phase: Option<Phase>) -> Node {
        Node {
            name: Some(name.to_owned()),
            uid: Some("u".to_owned()),
            phase,
            bundle: Some(format!("r.example/a@{DIGEST}")),
            ..Node::default()
        }
    }

    fn input(path: &str, source: &str, from: Option<Node>) -> MadeFrom {
        let reference = from.as_ref().and_then(|node| node.bundle.clone());
        MadeFrom { path: path.to_owned(), source: source.to_owned(), digest: None, reference, from: from.map(Box::new) }
    }

    fn example() -> Node {
        let note = Some("not there any more".to_owned());
        let gone = Node { inputs: vec![input("raw", "claim:raw", None)], note, ..node("prepare", None) };
        let lost = Node { note: Some("it is\u{1b}[2J not there".to_owned()), bundle: None, ..node("lost", None) };
        let again = Node { again: true, ..node("model", Some(Phase::Succeeded)) };
        Node {
            inputs: vec![
                input("data", "prepare/train.csv", Some(gone)),
                input("old", "lost", Some(Node { uid: None, ..lost })),
                input("m", "image:r.example/a:1", Some(again)),
            ],
            ..node("train", Some(Phase::Running))
        }
    }

    #[test]
    fn what_a_run_was_made_from_is_below_it() {
        let expected = "\
train  Running  sha256:9f86d081884c
  data = prepare/train.csv  sha256:9f86d081884c  (not there any more)
    raw = claim:raw
  old = lost  (it is not there)
  m = image:r.example/a:1, made by model  Succeeded  sha256:9f86d081884c  (see above)
nothing was made from it
";
        assert_eq!(text(&example(), &[], true, Format::Table, Paint::default()), expected);
        let wide = text(&example(), &[], false, Format::Wide, Paint::default());
        assert!(wide.starts_with(&format!("train  Running  r.example/a@{DIGEST}\n")), "{wide}");
        assert!(!wide.contains("made from it"), "{wide}");
    }

    #[test]
    fn what_was_made_from_a_run_is_named_with_the_paths_where_it_has_it() {
        let child = |name: &str, children| Child {
            name: name.to_owned(),
            phase: Phase::Waiting,
            paths: vec!["a".to_owned(), "b".to_owned()],
            children,
            ..Child::default()
        };
        let children = [child("one", vec![child("two", Vec::new())])];
        let node = Node { bundle: None, ..node("train", Some(Phase::Failed)) };
        let expected = "train  Failed\nmade from it:\n  one  Waiting  a, b\n    two  Waiting  a, b\n";
        assert_eq!(text(&node, &children, true, Format::Table, Paint::default()), expected);
    }

    #[test]
    fn programs_get_it_nested() {
        let document = json!(example());
        assert_eq!(document["inputs"][0]["from"]["inputs"][0]["source"], "claim:raw");
        assert_eq!(document["inputs"][2]["from"]["again"], true);
        assert_eq!((&document["phase"], document["again"].as_bool()), (&json!("Running"), None));
    }
}
