//! `diff`: two runs side by side, from what they asked for to what they left.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::BundleRun;
use crate::api::spec::BundleRunSpec;
use crate::bundle::{self, ListEntry, ListEntryKind};
use crate::contract::{both_ends, size_for_people};
use crate::oci::digest_of;

use super::clean;
use super::failure::Failure;
use super::files::{document, shown};
use super::paint::{Colour, Paint};
use super::runs;
use super::session::{Answer, Format, Session};
use super::store::{self, StoreOptions};
use super::table::{Cell, Table};

/// Of a value in the table; all of it is in the other formats.
const WIDEST: usize = 80;

#[derive(Debug, Args)]
pub(super) struct Diff {
    /// Name of a run
    a: String,
    /// Name of another
    b: String,
    /// At most so many files that differ are named; all are counted
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    files: usize,
    #[command(flatten)]
    answer: Answer,
    #[command(flatten)]
    store: StoreOptions,
}

pub(super) async fn diff(session: &Session, args: &Diff) -> Result<(), Failure> {
    let format = args.answer.output;
    if format == Format::Name {
        return Err(Failure::usage("a difference has no name: -o table, wide, json or yaml"));
    }
    let connection = session.connect().await?;
    let a = runs::get(&connection, &args.a).await?;
    let b = runs::get(&connection, &args.b).await?;
    let files = files(session, args, [&a, &b]).await?;
    let difference = Difference::new(&a, &b, files);
    if format.is_for_people() {
        session.out.print(&difference.text(format, session.out.paint))?;
    } else {
        session.out.document(format, &difference)?;
    }
    if difference.same { Ok(()) } else { Err(Failure::differs()) }
}

/// What two runs have in common is left out.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Difference {
    /// But for names, times and usage.
    same: bool,
    a: String,
    b: String,
    /// Spec, image, inputs and ending.
    fields: Vec<Row>,
    /// Does not count.
    usage: Vec<Row>,
    files: Files,
}

/// A field in which the two differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Row {
    field: String,
    a: Option<String>,
    b: Option<String>,
}

/// How the files of two bundles differ.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Files {
    same: bool,
    /// Why they were not compared one by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    added: usize,
    removed: usize,
    changed: usize,
    /// The first of them.
    entries: Vec<Value>,
    #[serde(skip)]
    lines: Vec<String>,
}

impl Difference {
    fn new(a: &BundleRun, b: &BundleRun, files: Files) -> Self {
        let fields = rows(&fields(a), &fields(b));
        let usage = rows(&usage(a), &usage(b));
        let [a, b] = [a, b].map(|run| runs::name(run).to_owned());
        Self { same: fields.is_empty() && files.same, a, b, fields, usage, files }
    }

    fn text(&self, format: Format, paint: Paint) -> String {
        let cell = |value: &Option<String>| {
            let value = value.as_deref().unwrap_or("-");
            Cell::from(if format == Format::Wide { value.to_owned() } else { both_ends(value, WIDEST) })
        };
        let row = |row: &Row| vec![Cell::from(row.field.as_str()), cell(&row.a), cell(&row.b)];
        let mut rows = vec![vec![Cell::from("name"), Cell::from(self.a.as_str()), Cell::from(self.b.as_str())]];
        rows.extend(self.fields.iter().chain(&self.usage).map(row));
        let mut text = Table::new(vec!["FIELD", "A", "B"], paint).rows(&rows);

        let Files { added, removed, changed, note, lines, .. } = &self.files;
        match note {
            Some(note) => _ = writeln!(text, "Files: {}", clean::line(note)),
            None if self.files.same => text.push_str("Files: the same\n"),
            None => _ = writeln!(text, "Files: {added} added, {removed} removed, {changed} changed"),
        }
        for line in lines {
            let colour = match line.as_bytes().first() {
                Some(b'+') => Some(Colour::Green),
                Some(b'-') => Some(Colour::Red),
                _ => None,
            };
            let _ = writeln!(text, "  {}", paint.text(line, colour));
        }
        let more = (added + removed + changed).saturating_sub(lines.len());
        if more > 0 {
            let _ = writeln!(text, "  ... and {more} more: --files {} names them", added + removed + changed);
        }
        if self.same {
            text.push_str("The two are the same.\n");
        }
        text
    }
}

fn rows(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> Vec<Row> {
    let all: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let row = |field: &String| Row { field: field.clone(), a: a.get(field).cloned(), b: b.get(field).cloned() };
    all.into_iter().map(row).filter(|row| row.a != row.b).collect()
}

/// What makes two runs the same.
fn fields(run: &BundleRun) -> BTreeMap<String, String> {
    let status = run.status.clone().unwrap_or_default();
    let mut fields = BTreeMap::new();
    // But for what may change while a run lives: it is no part of what the run is.
    let spec = BundleRunSpec {
        suspend: false,
        stop: false,
        pod_retention: None,
        ttl_seconds_after_finished: None,
        ..run.spec.clone()
    };
    flatten("spec", &json!(spec), &mut fields);
    let inputs: BTreeMap<&str, &String> =
        status.inputs.iter().filter_map(|input| Some((input.path.as_str(), input.digest.as_ref()?))).collect();
    let recorded = json!({
        "image": status.image.and_then(|image| image.digest),
        "inputs": inputs,
        "phase": runs::phase(run),
        "cause": status.result.map(|result| result.cause),
        "exitCode": status.exit_code,
        "signal": status.signal,
    });
    flatten("status", &recorded, &mut fields);
    fields
}

fn usage(run: &BundleRun) -> BTreeMap<String, String> {
    let status = run.status.clone().unwrap_or_default();
    let gpus: Vec<_> = status.gpus.iter().map(|gpu| &gpu.model).collect();
    let mut fields = BTreeMap::new();
    flatten("usage", &json!(status.usage), &mut fields);
    let measured = json!({"attempt": status.attempt, "node": status.node, "duration": status.duration, "gpus": gpus});
    flatten("status", &measured, &mut fields);
    fields
}

/// Fields by their paths; items of lists by their names, if they have some.
fn flatten(path: &str, value: &Value, fields: &mut BTreeMap<String, String>) {
    match value {
        Value::Null => {}
        Value::Object(object) => {
            for (name, value) in object {
                flatten(&format!("{path}.{name}"), value, fields);
            }
        }
        Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                let name = ["path", "name", "key"].iter().find_map(|field| item.get(field)?.as_str());
                let name = name.map_or_else(|| number.to_string(), str::to_owned);
                flatten(&format!("{path}[{name}]"), item, fields);
            }
        }
        Value::String(text) => _ = fields.insert(path.to_owned(), text.clone()),
        other => _ = fields.insert(path.to_owned(), other.to_string()),
    }
}

/// The store is asked only for bundles that differ.
async fn files(session: &Session, args: &Diff, runs: [&BundleRun; 2]) -> Result<Files, Failure> {
    let [a, b] = runs.map(|run| store::reference(run, None));
    let (a, b) = match (a, b) {
        (Ok(a), Ok(b)) => (a, b),
        (Err(_), Err(_)) => {
            return Ok(Files {
                same: true,
                note: Some("none of the two has a saved output".into()),
                ..Files::default()
            });
        }
        (Err(failure), Ok(_)) | (Ok(_), Err(failure)) => {
            return Ok(Files { note: Some(failure.message), ..Files::default() });
        }
    };
    // A digest depends on nothing but the files.
    if digest_of(&a).is_some() && digest_of(&a) == digest_of(&b) {
        return Ok(Files { same: true, ..Files::default() });
    }
    let mut lists = Vec::new();
    for reference in [&a, &b] {
        let access = store::access(session, reference, &args.store)?;
        match bundle::list(reference, &access).await {
            Ok(list) => lists.push(list),
            Err(error) => {
                let note = format!("they differ, and how is not known: {error}");
                return Ok(Files { note: Some(note), ..Files::default() });
            }
        }
    }
    let [a, b] = &lists[..] else { return Ok(Files::default()) };
    Ok(compared(a, b, args.files))
}

fn compared(a: &[ListEntry], b: &[ListEntry], most: usize) -> Files {
    let mut by_path: BTreeMap<&[u8], [Option<&ListEntry>; 2]> = BTreeMap::new();
    for entry in a {
        by_path.entry(&entry.path).or_default()[0] = Some(entry);
    }
    for entry in b {
        by_path.entry(&entry.path).or_default()[1] = Some(entry);
    }
    // The working directory itself is no file in it.
    by_path.remove(&[][..]);

    let mut files = Files::default();
    for (path, [a, b]) in by_path {
        let (change, mark) = match (a, b) {
            (Some(a), Some(b)) if is_same(&a.what, &b.what) => continue,
            (Some(_), Some(_)) => {
                files.changed += 1;
                ("changed", '~')
            }
            (Some(_), None) => {
                files.removed += 1;
                ("removed", '-')
            }
            (None, _) => {
                files.added += 1;
                ("added", '+')
            }
        };
        if files.entries.len() < most {
            files.lines.push(format!("{mark} {}{}", shown(path), sizes(a, b)));
            let path = String::from_utf8_lossy(path);
            files.entries.push(json!({"change": change, "path": path, "a": a.map(document), "b": b.map(document)}));
        }
    }
    files.same = files.added + files.removed + files.changed == 0;
    files
}

/// Which of the names of a file is listed first does not matter.
fn is_same(a: &ListEntryKind, b: &ListEntryKind) -> bool {
    match (a, b) {
        (
            ListEntryKind::File { size, mode, content, .. },
            ListEntryKind::File { size: other, mode: other_mode, content: other_content, .. },
        ) => size == other && mode == other_mode && content == other_content,
        (a, b) => a == b,
    }
}

fn sizes(a: Option<&ListEntry>, b: Option<&ListEntry>) -> String {
    let size = |entry: &ListEntry| match &entry.what {
        ListEntryKind::File { size, .. } => size_for_people(*size),
        ListEntryKind::Directory { mode } => format!("directory {mode:04o}"),
        ListEntryKind::Link { target } => format!("-> {}", shown(target)),
        ListEntryKind::Skipped { .. } => "not saved".to_owned(),
    };
    let mut sizes: Vec<_> = a.into_iter().chain(b).map(size).collect();
    if let (Some(ListEntryKind::File { mode, .. }), Some(ListEntryKind::File { mode: other, .. })) =
        (a.map(|entry| &entry.what), b.map(|entry| &entry.what))
        && mode != other
    {
        sizes.extend([mode, other].map(|mode| format!("{mode:04o}")));
    }
    format!(" ({})", sizes.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::examples;

    fn file(path: &str, content: &str, mode: u32) -> ListEntry {
        let size = content.len() as u64;
        let (sha256, content) = (Some(content.to_owned()), content.to_owned());
        let what = ListEntryKind::File { size, mode, sha256, content, same_as: None };
        ListEntry { path: path.as_bytes().to_vec(), what }
    }

    #[test]
    fn files_are_compared_by_content_mode_and_kind() {
        let directory = ListEntry { path: b"d".to_vec(), what: ListEntryKind::Directory { mode: 0o755 } };
        let root = |mode| ListEntry { path: Vec::new(), what: ListEntryKind::Directory { mode } };
        let link = ListEntry { path: b"d".to_vec(), what: ListEntryKind::Link { target: b"e".to_vec() } };
        let a = [
            root(0o700),
            directory,
            file("gone", "x", 0o644),
            file("same", "x", 0o644),
            file("x", "1", 0o644),
            file("y", "12", 0o644),
        ];
        let b = [
            root(0o755),
            link,
            file("new\u{1b}[2J", "123", 0o644),
            file("same", "x", 0o644),
            file("x", "1", 0o755),
            file("y", "1", 0o644),
        ];
        let files = compared(&a, &b, 100);
        assert_eq!((files.added, files.removed, files.changed, files.same), (1, 1, 3, false));
        let expected = [
            "~ d (directory 0755, -> e)",
            "- gone (1 B)",
            "+ new (3 B)",
            "~ x (1 B, 1 B, 0644, 0755)",
            "~ y (2 B, 1 B)",
        ];
        assert_eq!(files.lines, expected);
        assert_eq!((&files.entries[1]["change"], &files.entries[1]["a"]["size"]), (&json!("removed"), &json!(1)));
        let few = compared(&a, &b, 2);
        assert_eq!((few.entries.len(), few.lines.len(), few.changed), (2, 2, 3));
        assert!(compared(&a[1..], &a, 9).same);
    }

    #[test]
    fn two_runs_stand_side_by_side() {
        let a = examples::succeeded();
        let mut b = a.clone();
        b.metadata.name = Some("again".to_owned());
        b.spec.command = Some("python train.py --lr\u{1b}[2J 2".to_owned());
        b.spec.inputs.remove(1);
        let status = b.status.as_mut().unwrap();
        status.inputs.remove(1);
        status.duration = Some("1m7s".to_owned());
        let files =
            Files { added: 3, entries: vec![Value::Null], lines: vec!["+ new (3 B)".to_owned()], ..Files::default() };
        let text = Difference::new(&a, &b, files).text(Format::Table, Paint::default());
        let expected = format!(
            "\
FIELD                                 A                B
name                                  hello            again
spec.command                          python train.py  python train.py --lr 2
spec.inputs[scripts].configMap.name   scripts          -
spec.inputs[scripts].path             scripts          -
status.inputs.scripts                 {DIGEST}  -
status.duration                       1m5s             1m7s
Files: 3 added, 0 removed, 0 changed
  + new (3 B)
  ... and 2 more: --files 3 names them
",
            DIGEST = examples::DIGEST
        );
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&text), words(&expected), "{text}");
    }

    #[test]
    fn usage_and_names_make_no_difference() {
        let a = examples::succeeded();
        let mut b = a.clone();
        b.metadata.name = Some("again".to_owned());
        b.status.as_mut().unwrap().usage = None;
        let same = Difference::new(&a, &b, Files { same: true, ..Files::default() });
        assert!(same.same && same.fields.is_empty() && !same.usage.is_empty());
        assert!(same.text(Format::Table, Paint::default()).ends_with("Files: the same\nThe two are the same.\n"));
        b.spec.env.push(serde_json::from_value(json!({"name": "SEED", "value": "7"})).unwrap());
        let other = Difference::new(&a, &b, Files { same: true, ..Files::default() });
        let row = |field: &str, b: &str| Row { field: field.to_owned(), a: None, b: Some(b.to_owned()) };
        assert_eq!(other.fields, [row("spec.env[SEED].name", "SEED"), row("spec.env[SEED].value", "7")]);
        assert!(!other.same);
    }

    #[test]
    fn programs_get_whole_values() {
        let (a, mut b) = (examples::succeeded(), examples::succeeded());
        b.spec.command = Some("x".repeat(500));
        let difference = Difference::new(&a, &b, Files { same: true, ..Files::default() });
        assert_eq!(json!(difference)["fields"][0]["b"].as_str().unwrap().len(), 500);
        assert!(difference.text(Format::Table, Paint::default()).lines().all(|line| line.len() < 200));
        assert!(difference.text(Format::Wide, Paint::default()).contains(&"x".repeat(500)));
    }
}
