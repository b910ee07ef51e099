//! What a bundle lacks, and whether it can be one all the same.

use super::list::Packed;
use super::skip::{Because, Skip};
use crate::bundle::digest::Digest;
use crate::bundle::error::{MOST_DAMAGED, shown};
use crate::bundle::{Error, ErrorKind, GivenUp};
use std::time::SystemTime;

/// What a bundle lacks.
#[derive(Default)]
pub(super) struct Skipped {
    pub(super) all: u64,
    pub(super) withheld: u64,
    pub(super) damaged: u64,
    /// Of the first ones, what is worst first.
    pub(super) names: Vec<String>,
    /// Those of the damaged that another try may find better.
    may_come_back: u64,
    /// Digests of the paths of these, of the first of them.
    damaged_paths: Vec<String>,
}

impl Skipped {
    /// As many are named.
    const NAMES: usize = 3;

    pub(super) fn of(packed: &Packed) -> Self {
        let mut skipped = Self::default();
        let mut names: [Vec<String>; 3] = Default::default();
        let entries = &packed.plan.entries;
        for index in entries.indices() {
            let Some(Skip { why, because }) = packed.skip(index) else { continue };
            let [damaged, withheld, others] = &mut names;
            skipped.all += 1;
            let names = match because {
                Because::Hung => {
                    skipped.damaged += 1;
                    damaged
                }
                Because::OfTheMachine => {
                    skipped.damaged += 1;
                    skipped.may_come_back += 1;
                    if skipped.damaged_paths.len() < MOST_DAMAGED {
                        skipped.damaged_paths.push(Digest::of(&entries.path(index)).to_string());
                    }
                    damaged
                }
                Because::OfTheRun => {
                    skipped.withheld += 1;
                    withheld
                }
                Because::NoOutput | Because::Gone => others,
            };
            if names.len() < Self::NAMES {
                names.push(format!("{} ({why})", shown(&entries.path(index))));
            }
        }
        skipped.names = names.into_iter().flatten().take(Self::NAMES).collect();
        skipped
    }

    /// An error if anything is missing that the machine failed to read and nobody has given up.
    pub(super) fn check(&self, given_up: &GivenUp) -> Result<(), Error> {
        let is_over = given_up.all_after.is_some_and(|after| SystemTime::now() >= after);
        let are_given_up = self.may_come_back <= MOST_DAMAGED as u64
            && self.damaged_paths.iter().all(|path| given_up.entries.contains(path));
        if is_over || are_given_up {
            return Ok(());
        }
        let first = self.names.first().map(String::as_str).unwrap_or_default();
        let more = match self.damaged {
            0 | 1 => String::new(),
            2 => " and 1 more".to_owned(),
            n => format!(" and {} more", n - 1),
        };
        let error = Error::new(ErrorKind::Local, format!("the output is not whole: {first}{more}"));
        Err(Error { damaged: self.damaged_paths.clone(), ..error })
    }
}
