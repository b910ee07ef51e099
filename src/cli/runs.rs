//! Runs of the cluster, by their names or labels, and what is said of those that are not there.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::future::Future;

use futures::StreamExt as _;
use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::ListParams;
use kube_runtime::watcher::{self, Event};
use kube_runtime::{WatchStreamExt as _, watcher as watch};

use crate::api::{BundleRun, Phase};
use crate::contract::time_for_people;
use crate::names;

use super::failure::{Asked, Failure};
use super::session::{Connection, Session};

/// At most so many names are proposed.
const NEAR: usize = 3;
/// Items of one answer.
pub(super) const PAGE: u32 = 500;

/// A request about runs of the connection's namespace.
pub(super) fn asked<'a>(connection: &'a Connection, verb: &'a str, name: Option<&'a str>) -> Asked<'a> {
    Asked { verb, resource: names::PLURAL, name, namespace: Some(&connection.namespace) }
}

/// A run by its name.
pub(super) async fn get(connection: &Connection, name: &str) -> Result<BundleRun, Failure> {
    match connection.runs().get(name).await {
        Ok(run) => Ok(run),
        Err(kube::Error::Api(status)) if status.is_not_found() && status.details.is_some() => {
            Err(missing(connection, name).await)
        }
        Err(error) => Err(asked(connection, "get", Some(name)).failed(&error)),
    }
}

/// The names that were given, or all with the labels that were.
pub(super) async fn targets(
    session: &Session,
    connection: &Connection,
    names: &[String],
) -> Result<Vec<BundleRun>, Failure> {
    match (&session.global.selector, names) {
        (Some(_), [_, ..]) => Err(Failure::usage("either names of runs or -l, not both")),
        (None, []) => Err(Failure::usage("which run? Give its name, several names, or -l with labels")),
        (None, names) => {
            let mut runs = Vec::new();
            for name in names {
                runs.push(get(connection, name).await?);
            }
            Ok(runs)
        }
        (Some(selector), []) => {
            let found = connection.runs().list(&ListParams::default().labels(selector)).await;
            let found = found.map_err(|error| asked(connection, "list", None).failed(&error))?;
            if found.items.is_empty() {
                return Err(Failure::new(format!(
                    "no run in namespace {} has the labels {selector}",
                    connection.namespace
                )));
            }
            Ok(found.items)
        }
    }
}

/// With the names that are nearest to it.
pub(super) async fn missing(connection: &Connection, name: &str) -> Failure {
    let failure = Failure::new(format!("there is no run {name} in namespace {}", connection.namespace));
    let all = connection.runs().list_metadata(&ListParams::default().limit(PAGE)).await;
    let all: Vec<String> =
        all.map(|list| list.items.iter().map(kube::ResourceExt::name_any).collect()).unwrap_or_default();
    let near = near(name, &all);
    if near.is_empty() {
        return failure.hint("`kubectl bundle ls` lists them, with -A those of all namespaces");
    }
    failure.hint(format!("did you mean {}?", near.join(", ")))
}

/// Those that may be meant, the nearest first.
fn near<'a>(name: &str, all: &'a [String]) -> Vec<&'a str> {
    let most = (name.chars().count() / 3).max(1);
    let of = |other: &'a String| {
        let far = distance(name, other);
        let is_part = name.len().min(other.len()) >= 3 && (other.contains(name) || name.contains(other.as_str()));
        (far <= most || is_part).then_some((far, other.as_str()))
    };
    let mut found: Vec<_> = all.iter().filter_map(of).collect();
    found.sort_unstable();
    found.into_iter().take(NEAR).map(|(_, name)| name).collect()
}

/// Letters to be changed, put in, taken out, or swapped with the next.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last = None;
    for (i, letter) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for (j, other) in b.iter().enumerate() {
            let at = |row: &[usize], place: usize| row.get(place).copied().unwrap_or(usize::MAX / 2);
            let mut cost = (at(&row, j) + usize::from(letter != *other)).min(at(&row, j + 1) + 1).min(at(&next, j) + 1);
            let is_swapped = j > 0 && last == Some(*other) && b.get(j - 1) == Some(&letter);
            if is_swapped {
                cost = cost.min(at(&before, j - 1) + 1);
            }
            next.push(cost);
        }
        before = std::mem::replace(&mut row, next);
        last = Some(letter);
    }
    row.last().copied().unwrap_or_default()
}

/// Of a run that is there.
pub(super) fn name(run: &BundleRun) -> &str {
    run.metadata.name.as_deref().unwrap_or_default()
}

/// Where it is in its life.
pub(super) fn phase(run: &BundleRun) -> Phase {
    run.status.as_ref().and_then(|status| status.phase).unwrap_or_default()
}

/// Of a run that no operator has seen.
pub(super) const NOT_SEEN: &str = "NotSeen";

/// Why it is in that phase, in one word.
pub(super) fn reason(run: &BundleRun) -> &str {
    if !is_seen(run) {
        return NOT_SEEN;
    }
    run.status.as_ref().and_then(|status| status.reason.as_deref()).unwrap_or_default()
}

/// An operator has looked at it.
pub(super) fn is_seen(run: &BundleRun) -> bool {
    let status = run.status.as_ref();
    status.is_some_and(|s| s.observed_generation.is_some_and(|generation| generation >= 0) || s.reason.is_some())
}

/// `Failed (TimeLimitExceeded)`.
pub(super) fn state(run: &BundleRun) -> String {
    let (phase, reason) = (phase(run), reason(run));
    if reason.is_empty() { format!("{phase:?}") } else { format!("{phase:?} ({reason})") }
}

/// How long ago, for people.
pub(super) fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(then.as_second());
    time_for_people(u64::try_from(seconds).unwrap_or_default().max(1).saturating_mul(1000))
}

/// What one look at runs that are followed is for.
pub(super) enum Look<T> {
    Done(T),
    GoOn,
}

/// Follows the runs of these names until `look` has seen enough: it gets all that are there each time one changes. One of
/// them that is not there, or was deleted, is an error.
pub(super) async fn follow<T>(
    connection: &Connection,
    wanted: &[String],
    mut look: impl FnMut(&BTreeMap<String, BundleRun>) -> Look<T>,
) -> Result<T, Failure> {
    let only = match wanted {
        [name] => watch::Config::default().fields(&format!("metadata.name={name}")),
        _ => watch::Config::default(),
    };
    let events = watch::watcher(connection.runs(), only.page_size(PAGE)).default_backoff();
    let mut events = events.boxed();
    let mut runs = BTreeMap::new();
    let mut is_listed = false;
    let is_wanted = |run: &BundleRun| wanted.iter().any(|name| *name == run.name_any());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => runs.clear(),
            Ok(Event::InitApply(run)) => {
                if is_wanted(&run) {
                    runs.insert(run.name_any(), run);
                }
                continue;
            }
            Ok(Event::InitDone) => is_listed = true,
            Ok(Event::Apply(run)) if is_wanted(&run) => _ = runs.insert(run.name_any(), run),
            Ok(Event::Delete(run)) if is_wanted(&run) => {
                return Err(Failure::new(format!("the run {} was deleted: it was {}", run.name_any(), state(&run))));
            }
            Ok(Event::Apply(_) | Event::Delete(_)) => continue,
            Err(error) => {
                // What was understood once is asked for again until there is an answer: a laptop sleeps.
                if let Some(failure) = permanent(connection, &error, is_listed) {
                    return Err(failure);
                }
                continue;
            }
        }
        if !is_listed {
            continue;
        }
        if let Some(gone) = wanted.iter().find(|name| !runs.contains_key(*name)) {
            return Err(missing(connection, gone).await);
        }
        if let Look::Done(result) = look(&runs) {
            return Ok(result);
        }
    }
    Err(Failure::new("the cluster ended the watch"))
}

fn permanent(connection: &Connection, error: &watcher::Error, was_answered: bool) -> Option<Failure> {
    let (verb, error) = match error {
        watcher::Error::InitialListFailed(error) => ("list", error),
        watcher::Error::WatchStartFailed(error) => ("watch", error),
        _ => return None,
    };
    let is_final = match error {
        kube::Error::Api(status) => {
            matches!(status.code.cmp(&500), Ordering::Less) && !matches!(status.code, 410 | 429)
        }
        kube::Error::SerdeError(_) | kube::Error::Auth(_) => true,
        _ => !was_answered,
    };
    is_final.then(|| asked(connection, verb, None).failed(error))
}

/// Ends `work` at a Ctrl-C, which is no harm to any run.
pub(super) async fn unless_interrupted<T>(
    work: impl Future<Output = Result<T, Failure>>,
    hint: impl FnOnce() -> String,
) -> Result<T, Failure> {
    tokio::select! {
        result = work => result,
        _ = tokio::signal::ctrl_c() => Err(Failure::new("interrupted: the run goes on").hint(hint())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_may_be_meant_are_near() {
        let all = ["train", "train-2", "prepare", "evaluate", "a", "b"].map(str::to_owned);
        assert_eq!(near("trian", &all), ["train"]);
        assert_eq!(near("tran", &all), ["train"]);
        assert_eq!(near("train-1", &all), ["train-2", "train"]);
        assert_eq!(near("eval", &all), ["evaluate"]);
        assert_eq!(near("zzzzz", &all), [""; 0]);
    }

    #[test]
    fn distances_count_letters() {
        for (a, b, expected) in
            [("", "", 0), ("a", "", 1), ("abc", "abc", 0), ("abc", "acb", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn ages_are_at_least_a_second() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(ago(at(100), at(100)), "1s");
        assert_eq!(ago(at(200), at(100)), "1s", "of a clock that is behind");
        assert_eq!(ago(at(0), at(90)), "1m30s");
    }
}
