//! `wait`: until runs have ended.

use std::collections::BTreeMap;
use std::process::exit;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use crate::api::{BundleRun, Phase};

use super::failure::Failure;
use super::ls;
use super::runs::{self, Look, Targets};
use super::session::{Answer, Connection, Session};

#[derive(Debug, Args)]
pub(super) struct Wait {
    #[command(flatten)]
    of: Targets,
    /// Until one of them has ended. Default: all of them
    #[arg(long)]
    any: bool,
    /// Longest wait, as 2h30m. Default: none
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
    /// Of one run: exit as its command did, where it ended with an exit code other than 0, also one that means something
    /// else here
    #[arg(long)]
    exit_code: bool,
    #[command(flatten)]
    answer: Answer,
}

/// As in a spec.
fn duration(text: &str) -> Result<Duration, String> {
    crate::api::duration::parse_seconds(text).map(Duration::from_secs).map_err(|error| error.to_string())
}

pub(super) async fn wait(session: &Session, args: &Wait) -> Result<(), Failure> {
    let connection = session.connect().await?;
    let names = match args.of.selector {
        // The watch says which of them are not there.
        None if !args.of.names.is_empty() => args.of.names.clone(),
        _ => {
            let targets = runs::targets(&connection, &args.of).await?;
            targets.iter().map(|run| runs::name(run).to_owned()).collect()
        }
    };
    if args.exit_code && names.len() != 1 {
        return Err(Failure::usage("--exit-code is for one run"));
    }
    let mut told = Told::default();
    let is_enough = |runs: &BTreeMap<String, BundleRun>| {
        told.tell(session, runs);
        let over = runs.values().filter(|run| run.is_over());
        if args.any { over.count() > 0 } else { over.count() == runs.len() }
    };
    let work = Box::pin(until(&connection, &names, is_enough));
    let hint = || format!("kubectl bundle wait {}", names.join(" "));
    let found = match args.timeout {
        None => runs::unless_interrupted(work, hint).await?,
        Some(limit) => {
            let late = |_| {
                let seconds = limit.as_secs();
                Err(Failure::timed_out(format!("not ended within {seconds}s"))
                    .hint("`kubectl bundle why` says what a run waits for"))
            };
            let work = async { tokio::time::timeout(limit, work).await.unwrap_or_else(late) };
            runs::unless_interrupted(work, hint).await?
        }
    };

    let ended: Vec<BundleRun> = found.into_iter().filter(BundleRun::is_over).collect();
    let format = args.answer.output;
    if format.is_for_people() {
        session.out.print(&ls::table(&ended, format, session.out.paint, Timestamp::now()))?;
    } else {
        session.out.runs(format, &ended)?;
    }
    if let ([run], true) = (&ended[..], args.exit_code) {
        return verdict(run, true);
    }
    all_succeeded(&ended)
}

fn all_succeeded(ended: &[BundleRun]) -> Result<(), Failure> {
    let others: Vec<_> = ended.iter().filter(|run| runs::phase(run) != Phase::Succeeded).map(runs::name).collect();
    match &others[..] {
        [] => Ok(()),
        [one] => Err(Failure::new(format!("{one} did not succeed")).hint(format!("kubectl bundle why {one}"))),
        [first, ..] => {
            let (count, all, names) = (others.len(), ended.len(), others.join(", "));
            Err(Failure::new(format!("{count} of {all} did not succeed: {names}"))
                .hint(format!("kubectl bundle why {first}")))
        }
    }
}

async fn until(
    connection: &Connection,
    names: &[String],
    mut is_enough: impl FnMut(&BTreeMap<String, BundleRun>) -> bool,
) -> Result<Vec<BundleRun>, Failure> {
    let look = |found: &BTreeMap<String, BundleRun>| {
        if is_enough(found) {
            // In the order in which they were named.
            Look::Done(names.iter().filter_map(|name| found.get(name).cloned()).collect())
        } else {
            Look::GoOn
        }
    };
    runs::follow(connection, names, look).await
}

/// Waits for the end of one run, and says meanwhile where it is.
pub(super) async fn end_of(session: &Session, connection: &Connection, name: &str) -> Result<BundleRun, Failure> {
    let mut told = Told::default();
    let names = [name.to_owned()];
    let look = |found: &BTreeMap<String, BundleRun>| {
        told.tell(session, found);
        match found.get(name) {
            Some(run) if run.is_over() => Look::Done(run.clone()),
            _ => Look::GoOn,
        }
    };
    let hint = || format!("kubectl bundle wait {name}, or kubectl bundle logs -f {name}");
    runs::unless_interrupted(Box::pin(runs::follow(connection, &names, look)), hint).await
}

/// What a person was told of runs that are waited for.
#[derive(Default)]
pub(super) struct Told(BTreeMap<String, String>);

impl Told {
    /// Says what is new.
    pub(super) fn tell(&mut self, session: &Session, runs: &BTreeMap<String, BundleRun>) {
        for line in self.news(runs) {
            session.out.note(&line);
        }
    }

    fn news(&mut self, runs: &BTreeMap<String, BundleRun>) -> Vec<String> {
        let mut news = Vec::new();
        for (name, run) in runs {
            let state = line(run);
            if self.0.get(name) != Some(&state) {
                news.push(format!("{name}: {state}"));
                self.0.insert(name.clone(), state);
            }
        }
        news
    }
}

/// Where it is, and what for.
fn line(run: &BundleRun) -> String {
    let state = runs::state(run);
    let status = run.status.as_ref();
    let waiting = status.and_then(|status| status.waiting.as_ref()?.message.as_deref());
    match waiting.or_else(|| status?.message.as_deref().filter(|_| run.is_over())) {
        Some(message) => format!("{state}: {message}"),
        None => state,
    }
}

/// Of a run that has ended.
pub(super) fn verdict(run: &BundleRun, exit_code: bool) -> Result<(), Failure> {
    let own = run.status.as_ref().and_then(|status| status.exit_code).and_then(|code| u8::try_from(code).ok());
    if exit_code && let Some(code) = own.filter(|code| *code != 0) {
        exit(code.into());
    }
    all_succeeded(std::slice::from_ref(run))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::examples;

    #[test]
    fn what_was_told_is_not_told_again() {
        let mut told = Told::default();
        let mut runs = BTreeMap::from([("big".to_owned(), examples::waiting())]);
        let waits = "big: Pending (Unschedulable): no node has 99 nvidia.com/gpu: the largest has 8";
        assert_eq!(told.news(&runs), [waits]);
        assert_eq!(told.news(&runs), [""; 0]);
        runs.insert("hello".to_owned(), examples::succeeded());
        assert_eq!(told.news(&runs), ["hello: Succeeded (Completed): the command exited with 0"]);
    }

    #[test]
    fn only_successes_are_a_success() {
        assert_eq!(all_succeeded(&[examples::succeeded()]), Ok(()));
        let one = all_succeeded(&[examples::succeeded(), examples::failed()]).unwrap_err();
        assert_eq!(one.message, "wrong did not succeed");
        let two = all_succeeded(&[examples::failed(), examples::succeeded(), examples::hostile()]).unwrap_err();
        assert_eq!(two.message, "2 of 3 did not succeed: wrong, hostile");
    }
}
