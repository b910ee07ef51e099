//! `files`: what is in an output, live or saved.

use clap::Args;
use serde_json::{Value, json};

use crate::bundle::{self, ListEntry, ListEntryKind};

use super::clean;
use super::failure::Failure;
use super::live;
use super::session::{Answer, Format, Session};
use super::store::{self, Saved, StoreOptions};
use super::table::{Cell, Table};

#[derive(Debug, Args)]
pub(super) struct Files {
    /// A run, RUN@ATTEMPT, or a bundle as REPOSITORY@sha256:...
    target: String,
    /// Only this directory or file
    path: Option<String>,
    #[command(flatten)]
    answer: Answer,
    #[command(flatten)]
    store: StoreOptions,
}

pub(super) async fn files(session: &Session, args: &Files) -> Result<(), Failure> {
    let named = store::named(session, &args.target).await?;
    let (reference, all) = if let Some(all) = live::files(session, &named)? {
        (None, all)
    } else {
        let Saved { reference, access, .. } = store::saved(session, &named, &args.store)?;
        let all = bundle::list(&reference, &access).await?;
        (Some(reference), all)
    };
    let wanted = args.path.as_deref().unwrap_or_default().trim_start_matches("./").trim_matches('/');
    let entries: Vec<ListEntry> = all.into_iter().filter(|entry| is_below(&entry.path, wanted.as_bytes())).collect();
    if entries.is_empty() && !wanted.is_empty() {
        return Err(Failure::new(format!("{wanted} is not in the output"))
            .hint(format!("kubectl bundle files {}", args.target)));
    }
    match args.answer.output {
        Format::Table | Format::Wide => {
            let headers = if args.answer.output == Format::Wide {
                vec!["SIZE", "MODE", "SHA256", "PATH"]
            } else {
                vec!["SIZE", "PATH"]
            };
            let rows: Vec<Vec<Cell>> = entries.iter().map(|entry| row(entry, args.answer.output)).collect();
            session.out.print(&Table::new(headers, session.out.paint).rows(&rows))
        }
        Format::Name => session.out.bytes(&names(&entries, session.out.is_terminal)),
        format => {
            let files: Vec<Value> = entries.iter().map(document).collect();
            session.out.document(format, &json!({"bundle": reference, "files": files}))
        }
    }
}

fn is_below(path: &[u8], wanted: &[u8]) -> bool {
    // The working directory itself is no file in it.
    if path.is_empty() {
        return false;
    }
    let rest = path.strip_prefix(wanted);
    wanted.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// One a line; as they are, but for a terminal.
fn names(entries: &[ListEntry], is_terminal: bool) -> Vec<u8> {
    let name = |entry: &ListEntry| {
        let name = if is_terminal { shown(&entry.path).into_bytes() } else { entry.path.clone() };
        [&name[..], b"\n"].concat()
    };
    entries.iter().flat_map(name).collect()
}

pub(super) fn shown(path: &[u8]) -> String {
    clean::line(&String::from_utf8_lossy(path))
}

fn row(entry: &ListEntry, format: Format) -> Vec<Cell> {
    let path = shown(&entry.path);
    let octal = |mode: u32| format!("{mode:04o}");
    let (size, mode, sha256, path) = match &entry.what {
        ListEntryKind::Directory { mode } => (String::new(), octal(*mode), String::new(), format!("{path}/")),
        ListEntryKind::Link { target } => {
            (String::new(), String::new(), String::new(), format!("{path} -> {}", shown(target)))
        }
        ListEntryKind::Skipped { reason } => {
            (String::new(), String::new(), String::new(), format!("{path} (not saved: {reason})"))
        }
        ListEntryKind::File { size, mode, sha256, .. } => {
            (size.to_string(), octal(*mode), sha256.clone().unwrap_or_default(), path)
        }
    };
    let columns = if format == Format::Wide { vec![size, mode, sha256, path] } else { vec![size, path] };
    columns.into_iter().map(Cell::from).collect()
}

/// A name that is no text is one with replacements, and says so.
pub(super) fn document(entry: &ListEntry) -> Value {
    let path = String::from_utf8_lossy(&entry.path);
    let mut document = match &entry.what {
        ListEntryKind::Directory { mode } => json!({"path": path, "type": "directory", "mode": mode}),
        ListEntryKind::Link { target } => {
            json!({"path": path, "type": "link", "target": String::from_utf8_lossy(target)})
        }
        ListEntryKind::Skipped { reason } => json!({"path": path, "type": "skipped", "reason": reason}),
        ListEntryKind::File { size, mode, sha256, same_as, .. } => json!({
            "path": path, "type": "file", "size": size, "mode": mode, "sha256": sha256,
            "sameAs": same_as.as_ref().map(|path| String::from_utf8_lossy(path)),
        }),
    };
    if let (Err(_), Some(fields)) = (str::from_utf8(&entry.path), document.as_object_mut()) {
        fields.insert("pathIsNoText".to_owned(), true.into());
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::paint::Paint;

    fn entries() -> Vec<ListEntry> {
        let digest = || "ab".to_owned();
        let file =
            |size| ListEntryKind::File { size, mode: 0o644, sha256: Some(digest()), content: digest(), same_as: None };
        [
            ("logs", ListEntryKind::Directory { mode: 0o755 }),
            ("logs/a.txt", file(12)),
            ("logs/\u{1b}[2Jb\n.txt", file(3456)),
            ("latest", ListEntryKind::Link { target: b"logs/a.txt".to_vec() }),
            ("a.sock", ListEntryKind::Skipped { reason: "a socket".to_owned() }),
        ]
        .map(|(path, what)| ListEntry { path: path.as_bytes().to_vec(), what })
        .into()
    }

    #[test]
    fn every_entry_is_one_line_without_escapes() {
        let rows: Vec<_> = entries().iter().map(|entry| row(entry, Format::Table)).collect();
        let expected = "\
SIZE  PATH
      logs/
12    logs/a.txt
3456  logs/b .txt
      latest -> logs/a.txt
      a.sock (not saved: a socket)
";
        assert_eq!(Table::new(vec!["SIZE", "PATH"], Paint::default()).rows(&rows), expected);
    }

    #[test]
    fn programs_get_names_as_they_are() {
        let documents: Vec<_> = entries().iter().map(document).collect();
        assert_eq!(documents[2]["path"], "logs/\u{1b}[2Jb\n.txt");
        assert_eq!(documents[3], json!({"path": "latest", "type": "link", "target": "logs/a.txt"}));
        let odd = ListEntry { path: vec![b'a', 0xff], what: ListEntryKind::Directory { mode: 0o755 } };
        assert_eq!(document(&odd)["pathIsNoText"], true);
    }

    #[test]
    fn names_in_a_pipe_are_as_they_are() {
        let odd = |path: &[u8]| ListEntry { path: path.to_vec(), what: ListEntryKind::Directory { mode: 0o755 } };
        let entries = [odd(b"a\xff "), odd(b"b\x1b[2J")];
        assert_eq!(names(&entries, false), b"a\xff \nb\x1b[2J\n");
        assert_eq!(names(&entries, true), "a\u{fffd}\nb\n".as_bytes());
    }

    #[test]
    fn a_part_is_what_is_at_its_path_and_below() {
        for (path, wanted, expected) in [
            ("a", "", true),
            ("", "", false),
            ("a", "a", true),
            ("a/b", "a", true),
            ("ab", "a", false),
            ("a", "a/b", false),
        ] {
            assert_eq!(is_below(path.as_bytes(), wanted.as_bytes()), expected, "{path} {wanted}");
        }
    }
}
