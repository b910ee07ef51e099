//! `cat`: one file of an output, live or saved, or a part of it.

use clap::Args;

use crate::bundle::{self, Part};

use super::failure::Failure;
use super::live;
use super::session::Session;
use super::sink::{Sink, Stream};
use super::store::{self, Saved, StoreOptions};

#[derive(Debug, Args)]
pub(super) struct Cat {
    /// A run, RUN@ATTEMPT, or a bundle as REPOSITORY@sha256:...
    target: String,
    /// File in it
    path: String,
    /// Only so many of the first lines
    #[arg(long, value_name = "LINES", conflicts_with_all = ["tail", "range"])]
    head: Option<u64>,
    /// Only so many of the last lines
    #[arg(long, value_name = "LINES", conflicts_with = "range")]
    tail: Option<u64>,
    /// Only these bytes, counted from 0: 0-99 are the first hundred, 100- the rest, -100 the last hundred
    #[arg(long, value_name = "FROM-TO", value_parser = range, allow_hyphen_values = true)]
    range: Option<Part>,
    #[command(flatten)]
    store: StoreOptions,
}

impl Cat {
    /// None: all of it.
    fn part(&self) -> Option<Part> {
        self.range.or(self.head.map(Part::FirstLines)).or(self.tail.map(Part::LastLines))
    }
}

/// As HTTP has it: both ends are in it.
fn range(text: &str) -> Result<Part, String> {
    let wrong = || "it is FROM-TO, FROM- or -COUNT, in bytes".to_owned();
    let (from, to) = text.split_once('-').ok_or_else(wrong)?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    match (from, to) {
        ("", count) => number(count).map(Part::LastBytes),
        (from, "") => Ok(Part::Bytes(number(from)?, None)),
        (from, to) => {
            let (from, to) = (number(from)?, number(to)?);
            if to < from {
                Err("it ends before it begins".to_owned())
            } else {
                Ok(Part::Bytes(from, to.checked_add(1)))
            }
        }
    }
}

pub(super) async fn cat(session: &Session, args: &Cat) -> Result<(), Failure> {
    let mut sink = Sink::new(session.out, Stream::Out);
    let named = store::named(session, &args.target).await?;
    if live::cat(session, &named, &args.path, args.part(), &mut sink)? {
        return Ok(sink.finish()?);
    }
    let Saved { reference, access, .. } = store::saved(session, &named, &args.store)?;
    match args.part() {
        None => sink = bundle::read_file(&reference, &args.path, &access, sink).await?,
        Some(part) => bundle::read_part(&reference, &args.path, part, &access, &mut sink).await?,
    }
    Ok(sink.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Verb};
    use clap::Parser as _;

    fn part(options: &[&str]) -> Option<Part> {
        let line = ["kubectl-bundle", "cat", "a", "b"].iter().chain(options);
        match Cli::try_parse_from(line).unwrap().verb {
            Verb::Cat(cat) => cat.part(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_part_is_lines_or_bytes() {
        for (options, expected) in [
            (&[][..], None),
            (&["--head", "3"], Some(Part::FirstLines(3))),
            (&["--tail", "3"], Some(Part::LastLines(3))),
            (&["--range", "0-99"], Some(Part::Bytes(0, Some(100)))),
            (&["--range", "100-"], Some(Part::Bytes(100, None))),
            (&["--range", "-100"], Some(Part::LastBytes(100))),
            (&["--range=-100"], Some(Part::LastBytes(100))),
        ] {
            assert_eq!(part(options), expected, "{options:?}");
        }
        for wrong in ["", "-", "7", "9-3", "a-b", "1-2-3", "-1-2"] {
            assert!(range(wrong).is_err(), "{wrong}");
        }
        for line in ["cat a b --head 1 --tail 1", "cat a b --head 1 --range 0-1", "cat a b --tail 1 --range 0-1"] {
            Cli::try_parse_from(["kubectl-bundle"].into_iter().chain(line.split(' '))).unwrap_err();
        }
    }
}
