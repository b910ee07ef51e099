//! `verify`: saved outputs, compared with their digests.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use serde_json::json;

use crate::bundle::{self, Progress, Verified};
use crate::contract::size_for_people;

use super::clean;
use super::failure::Failure;
use super::lineage;
use super::meter;
use super::paint::{Colour, Paint};
use super::runs;
use super::session::{Answer, Format, Session};
use super::store::{self, Saved, StoreOptions};
use super::table::{Cell, Table};
use super::tree;

/// Of one bundle, for people.
const MOST_PROBLEMS: usize = 20;

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// A run, RUN@ATTEMPT, or a bundle as REPOSITORY@sha256:...
    target: String,
    /// Also all the bundles that it was made from
    #[arg(long)]
    tree: bool,
    #[command(flatten)]
    answer: Answer,
    #[command(flatten)]
    store: StoreOptions,
}

pub(super) async fn verify(session: &Session, args: &Verify) -> Result<(), Failure> {
    let wanted = wanted(session, args).await?;
    let started = Instant::now();
    let work = Box::pin(all(session, &wanted, &args.store));
    let read = runs::or_interrupted(work, || Failure::interrupted("interrupted: not all was read")).await?;
    let format = args.answer.output;
    match format {
        Format::Table | Format::Wide => session.out.print(&text(&read, session.out.paint))?,
        Format::Name => {
            session.out.print(&read.iter().map(|one| clean::line(&one.bundle) + "\n").collect::<Vec<_>>().concat())?;
        }
        format => session.out.document(format, &json!({"ok": read.iter().all(Read::is_ok), "bundles": read}))?,
    }
    session.out.note(&summary(&read, started.elapsed()));
    verdict(&read)
}

/// The bundles with the names of their runs.
async fn wanted(session: &Session, args: &Verify) -> Result<Vec<(String, String)>, Failure> {
    if args.tree {
        let node = tree::find(session, &args.target, &args.store, false).await?.node;
        if node.bundle.is_some() {
            let named =
                |(name, reference): (Option<&str>, &str)| (name.unwrap_or_default().to_owned(), reference.to_owned());
            return Ok(lineage::bundles(&node).into_iter().map(named).collect());
        }
    }
    // Or else it says why there is none.
    let Saved { reference, name, .. } = store::find(session, &args.target, &args.store).await?;
    Ok(vec![(name, reference)])
}

/// A bundle that was read, or could not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Read {
    name: String,
    bundle: String,
    ok: bool,
    files: u64,
    blobs: u64,
    bytes: u64,
    problems: Vec<String>,
}

impl Read {
    fn new(name: &str, bundle: &str, verified: Verified) -> Self {
        let Verified { blobs, files, bytes, problems } = verified;
        let (name, bundle) = (name.to_owned(), bundle.to_owned());
        Self { name, bundle, ok: problems.is_empty(), files, blobs, bytes, problems }
    }

    fn is_ok(&self) -> bool {
        self.ok
    }
}

async fn all(session: &Session, wanted: &[(String, String)], options: &StoreOptions) -> Result<Vec<Read>, Failure> {
    let mut read = Vec::new();
    for (number, (name, reference)) in wanted.iter().enumerate() {
        let access = store::access(session, reference, options)?;
        let progress = Progress::default();
        let what = if wanted.len() > 1 { format!("{} of {}: ", number + 1, wanted.len()) } else { String::new() };
        let work = bundle::verify(reference, &access, &progress);
        let verified = match meter::watched(work, &progress, Instant::now(), &what).await {
            Ok(verified) => verified,
            // The others are worth knowing.
            Err(error) if wanted.len() > 1 => Verified { problems: vec![error.message], ..Verified::default() },
            Err(error) => return Err(error.into()),
        };
        read.push(Read::new(name, reference, verified));
    }
    Ok(read)
}

fn text(read: &[Read], paint: Paint) -> String {
    let row = |one: &Read| {
        let (word, colour) = if one.ok { ("ok", Colour::Green) } else { ("wrong", Colour::Red) };
        let number = |number: u64| Cell::from(number.to_string());
        vec![
            Cell::coloured(word, Some(colour)),
            Cell::from(one.name.as_str()),
            number(one.files),
            number(one.blobs),
            Cell::from(size_for_people(one.bytes)),
            Cell::from(one.bundle.as_str()),
        ]
    };
    let rows: Vec<_> = read.iter().map(row).collect();
    let mut text = Table::new(vec!["RESULT", "NAME", "FILES", "BLOBS", "SIZE", "BUNDLE"], paint).rows(&rows);
    for one in read.iter().filter(|one| !one.ok) {
        let _ = writeln!(text, "{}:", clean::line(if one.name.is_empty() { &one.bundle } else { &one.name }));
        for problem in one.problems.iter().take(MOST_PROBLEMS) {
            let _ = writeln!(text, "  {}", clean::line(problem));
        }
        let more = one.problems.len().saturating_sub(MOST_PROBLEMS);
        if more > 0 {
            let _ = writeln!(text, "  ... and {more} more: -o json names them");
        }
    }
    text
}

fn summary(read: &[Read], took: Duration) -> String {
    let bytes = read.iter().map(|one| one.bytes).sum::<u64>();
    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = u64::try_from(u128::from(bytes) * 1000 / u128::from(ms)).unwrap_or(u64::MAX);
    format!("read {}, {}/s", meter::summary(bytes, took), size_for_people(rate))
}

fn verdict(read: &[Read]) -> Result<(), Failure> {
    let wrong = read.iter().filter(|one| !one.ok).count();
    match (wrong, read) {
        (0, _) => Ok(()),
        (_, [_]) => Err(Failure::new("the bundle is not what was saved").hint(KEEP)),
        (_, all) => {
            Err(Failure::new(format!("{wrong} of {} bundles are not what was saved, or cannot be read", all.len()))
                .hint(KEEP))
        }
    }
}

const KEEP: &str =
    "what is wrong was changed in the store: a run that is made again (`kubectl bundle rerun`) saves it anew";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, problems: &[&str]) -> Read {
        let problems = problems.iter().map(|problem| (*problem).to_owned()).collect();
        Read::new(name, "r.example/a@sha256:1", Verified { blobs: 3, files: 2, bytes: 2048, problems })
    }

    #[test]
    fn what_is_wrong_is_below_the_table() {
        let expected = "\
RESULT  NAME     FILES  BLOBS  SIZE     BUNDLE
ok      train    2      3      2.0 KiB  r.example/a@sha256:1
wrong   prepare  2      3      2.0 KiB  r.example/a@sha256:1
prepare:
  a is wrong
";
        let all = [read("train", &[]), read("prepare", &["a is\u{1b}[2J wrong"])];
        assert_eq!(text(&all, Paint::default()), expected);
        let many = vec!["x"; MOST_PROBLEMS + 2];
        assert!(text(&[read("a", &many)], Paint::default()).ends_with("  ... and 2 more: -o json names them\n"));
    }

    #[test]
    fn one_that_is_wrong_is_a_failure() {
        assert_eq!(verdict(&[read("a", &[])]), Ok(()));
        assert!(verdict(&[read("a", &["x"])]).unwrap_err().message.starts_with("the bundle is not"));
        let two = verdict(&[read("a", &[]), read("b", &["x"])]).unwrap_err();
        assert_eq!(two.message, "1 of 2 bundles are not what was saved, or cannot be read");
        assert_eq!(summary(&[read("a", &[])], Duration::from_secs(2)), "read 2.0 KiB in 2s, 1.0 KiB/s");
    }
}
