//! `logs`: what a command printed, from its pod while that is there, else from the saved output, else the end of it that
//! is on the run.

use std::collections::BTreeMap;
use std::io::Write as _;

use clap::Args;
use kube::api::LogParams;

use crate::api::status::Attempt;
use crate::api::{BundleRun, Phase};

use super::failure::{Failure, Kind};
use super::pod_log::{self, Got, Pace, PodOf, Shown, one_attempt, read};
use super::runs::{self, Look};
use super::saved_log::{not_started, saved};
use super::session::{Connection, Session};
use super::sink::{Sink, Stream};
use super::stamps::Stamps;
use super::store::StoreOptions;
use super::wait::Told;

#[derive(Debug, Args)]
pub(super) struct Logs {
    /// Name of the run
    name: String,
    /// Go on until the run has ended; wait for one that has not started
    #[arg(short, long)]
    follow: bool,
    /// Only so many of the last lines
    #[arg(long, value_name = "LINES", conflicts_with = "follow")]
    tail: Option<u32>,
    /// Of this attempt. Default: the last
    #[arg(long, value_name = "NUMBER", conflicts_with = "follow")]
    attempt: Option<u32>,
    #[command(flatten)]
    store: StoreOptions,
}

pub(super) async fn logs(session: &Session, args: &Logs) -> Result<(), Failure> {
    let connection = session.connect().await?;
    if args.follow {
        return follow(session, &connection, &args.name, &args.store).await.map(drop);
    }
    let run = runs::get(&connection, &args.name).await?;
    let attempt = attempt_of(&run, args.attempt)?;
    let params = LogParams { tail_lines: args.tail.map(i64::from), ..pod_log::params() };
    let pod = PodOf::new(&connection, &run, &attempt);
    if pod.get().await.map_err(|error| pod.failed(&error))?.is_some() {
        let mut sink = Sink::new(session.out, Stream::Out);
        let (mut stamps, mut new) = (Stamps::default(), Vec::new());
        let got = read(&connection, &pod.name, &params, |bytes| {
            new.clear();
            stamps.feed(bytes, &mut new);
            sink.write_all(&new)
        });
        match got.await? {
            // Of a run that has ended the kubelet may have no log any more, and the store has.
            Got::All if stamps.since().is_none() && run.is_over() => {}
            Got::All => return Ok(sink.finish()?),
            Got::None(failure) if !run.is_over() => {
                return Err(failure.hint(format!("it is {}; -f waits for it", runs::state(&run))));
            }
            Got::None(_) => {}
        }
    }
    saved(session, &run, &attempt, &args.store, args.tail).await
}

/// The attempt of this number, or the last.
fn attempt_of(run: &BundleRun, number: Option<u32>) -> Result<Attempt, Failure> {
    let last = runs::attempt_number(run);
    let number = number.unwrap_or(last);
    if number == 0 {
        return Err(not_started(run));
    }
    // One that has just begun is not on record yet.
    let unrecorded = || Attempt { attempt: number, ..Attempt::default() };
    runs::recorded(run, number).or_else(|failure| if number == last { Ok(unrecorded()) } else { Err(failure) })
}

/// Shows what a run prints until it has ended, whatever becomes of its pods and the connection.
pub(super) async fn follow(
    session: &Session,
    connection: &Connection,
    name: &str,
    store: &StoreOptions,
) -> Result<BundleRun, Failure> {
    let hint = || format!("come back with `kubectl bundle logs -f {name}`, end it with `kubectl bundle stop {name}`");
    runs::unless_interrupted(Box::pin(attempts(session, connection, name, store)), hint).await
}

async fn attempts(
    session: &Session,
    connection: &Connection,
    name: &str,
    store: &StoreOptions,
) -> Result<BundleRun, Failure> {
    let mut told = Told::default();
    // Those before the one that there is now are not asked for.
    let mut first = None;
    let mut done = 0;
    // What no pod has shown as a whole, and the store may have.
    let mut missed: Vec<Missed> = Vec::new();
    let mut sink = Sink::new(session.out, Stream::Out);
    loop {
        let names = [name.to_owned()];
        let look = |found: &BTreeMap<String, BundleRun>| {
            told.tell(session, found);
            match found.get(name) {
                Some(run) => {
                    first.get_or_insert(runs::attempt_number(run));
                    if run.is_over() || has_begun(run, done) { Look::Done(run.clone()) } else { Look::GoOn }
                }
                None => Look::GoOn,
            }
        };
        let run = runs::follow(connection, &names, look).await?;
        let number = runs::attempt_number(&run);
        done = done.max(first.unwrap_or_default().saturating_sub(1));
        // One that was over before its start was told is in the store, too.
        missed.extend((done + 1..number).map(|attempt| Missed { attempt, was_begun: false }));
        for missed in missed.drain(..) {
            show_missed(session, &run, &missed, store).await?;
        }
        if number <= done {
            return Ok(run);
        }
        if number > 1 {
            session.out.note(&format!("{name}: attempt {number}"));
        }
        let attempt = attempt_of(&run, Some(number))?;
        let pod = PodOf::new(connection, &run, &attempt);
        let mut is_within_line = false;
        let take = |bytes: &[u8]| {
            is_within_line = bytes.last().map_or(is_within_line, |byte| *byte != b'\n');
            sink.write_all(bytes)
        };
        let shown = one_attempt(session.out, &pod, number, take, &Pace::default()).await?;
        if shown == Shown::Part && is_within_line {
            sink.write_all(b"\n")?;
        }
        sink.finish()?;
        match shown {
            Shown::All => {}
            Shown::Part => missed.push(Missed { attempt: number, was_begun: true }),
            Shown::Nothing => missed.push(Missed { attempt: number, was_begun: false }),
        }
        done = number;
    }
}

/// A later attempt than that, and its command.
fn has_begun(run: &BundleRun, done: u32) -> bool {
    runs::attempt_number(run) > done && matches!(runs::phase(run), Phase::Running | Phase::Finalizing)
}

/// An attempt whose pod did not show all that it printed.
#[derive(Debug, PartialEq, Eq)]
struct Missed {
    attempt: u32,
    /// A part of it was shown.
    was_begun: bool,
}

/// From the store. That an attempt is not there is no reason not to show the others.
async fn show_missed(session: &Session, run: &BundleRun, missed: &Missed, store: &StoreOptions) -> Result<(), Failure> {
    let (name, number) = (runs::name(run), missed.attempt);
    session.out.note(&if missed.was_begun {
        format!("{name}: the log of attempt {number} broke off; from its begin, as it was saved:")
    } else {
        format!("{name}: attempt {number}, as it was saved")
    });
    let shown = match attempt_of(run, Some(number)) {
        Ok(attempt) => saved(session, run, &attempt, store, None).await,
        Err(failure) => Err(failure),
    };
    match shown {
        Err(failure) if failure.kind != Kind::NotRead => {
            session.out.note(&failure.message);
            Ok(())
        }
        shown => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::examples;

    #[tokio::test]
    async fn an_attempt_without_a_record_does_not_end_the_rest() {
        let session = examples::session();
        let missed = Missed { attempt: 7, was_begun: false };
        let shown = show_missed(&session, &examples::failed(), &missed, &StoreOptions::default()).await;
        assert_eq!(shown, Ok(()));
    }

    #[test]
    fn an_attempt_is_found_by_its_number() {
        let failed = examples::failed();
        assert_eq!(attempt_of(&failed, None).unwrap().pod.as_deref(), Some("wrong-2"));
        assert_eq!(attempt_of(&failed, Some(1)).unwrap().pod.as_deref(), Some("wrong-1"));
        assert!(attempt_of(&failed, Some(3)).unwrap_err().message.contains("no record of an attempt 3"));
        let fresh = attempt_of(&examples::new(), None).unwrap_err();
        assert_eq!(fresh.message, "fresh has printed nothing: it is Waiting (NotSeen)");
    }
}
