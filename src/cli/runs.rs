//! Runs of the cluster, by their names or labels, and what is said of those that are not there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::future::Future;

use clap::Args;
use futures::StreamExt as _;
use futures::stream::select_all;
use jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use kube_runtime::watcher::{self, Event};
use kube_runtime::{WatchStreamExt as _, watcher as watch};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api::status::Attempt;
use crate::api::{BundleRun, Phase};
use crate::cluster::GuardedRun;
use crate::contract::time_for_people;
use crate::names;

use super::failure::{Asked, Failure};
use super::session::{Connection, FIELD_MANAGER, Session};

/// At most so many names are proposed.
const NEAR: usize = 3;
/// Items of one answer.
pub(super) const PAGE: u32 = 500;

/// As many runs are watched each by itself, more of them with all that are there.
const FEW: usize = 8;

/// Which runs.
#[derive(Debug, Args)]
pub(super) struct Targets {
    /// Names of runs; or -l with labels
    pub(super) names: Vec<String>,
    /// All with these labels, as `kubectl get` takes them
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub(super) selector: Option<String>,
}

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
pub(super) async fn targets(connection: &Connection, targets: &Targets) -> Result<Vec<BundleRun>, Failure> {
    match (&targets.selector, &targets.names[..]) {
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
            let found = connection.api::<GuardedRun>().list(&ListParams::default().labels(selector)).await;
            let found = found.map_err(|error| asked(connection, "list", None).failed(&error))?;
            if found.items.is_empty() {
                return Err(Failure::new(format!(
                    "no run in namespace {} has the labels {selector}",
                    connection.namespace
                )));
            }
            // What becomes of one that is not understood would not be known.
            found.items.into_iter().map(readable).collect()
        }
    }
}

/// Those that have not ended; of the others it says how they have.
pub(super) fn live(session: &Session, targets: Vec<BundleRun>) -> Vec<BundleRun> {
    let (over, live): (Vec<_>, Vec<_>) = targets.into_iter().partition(BundleRun::is_over);
    for run in &over {
        session.out.note(&format!("{} has ended before: {}", name(run), state(run)));
    }
    live
}

/// Changes fields of a run's spec.
pub(super) async fn change(connection: &Connection, name: &str, spec: Value) -> Result<BundleRun, Failure> {
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let patched = connection.runs().patch(name, &params, &Patch::Merge(json!({"spec": spec}))).await;
    patched.map_err(|error| asked(connection, "patch", Some(name)).failed(&error))
}

/// All objects of a kind.
pub(super) async fn pages<K>(api: &Api<K>, mut params: ListParams, asked: Asked<'_>) -> Result<Vec<K>, Failure>
where
    K: Clone + Debug + DeserializeOwned,
{
    let mut all = Vec::new();
    params.limit = Some(PAGE);
    loop {
        let page = api.list(&params).await.map_err(|error| asked.failed(&error))?;
        all.extend(page.items);
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            return Ok(all);
        }
    }
}

/// Those that are understood, and why the others are not.
pub(super) fn split(runs: impl IntoIterator<Item = GuardedRun>) -> (Vec<BundleRun>, Vec<Failure>) {
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for run in runs {
        match readable(run) {
            Ok(run) => known.push(run),
            Err(failure) => unknown.push(failure),
        }
    }
    (known, unknown)
}

/// Those that are understood; the others are named for people.
pub(super) fn understood(session: &Session, runs: impl IntoIterator<Item = GuardedRun>) -> Vec<BundleRun> {
    let (known, unknown) = split(runs);
    for failure in unknown {
        session.out.note(&format!("left out: {}", failure.message));
    }
    known
}

/// A run, if this program understands it.
pub(super) fn readable(run: GuardedRun) -> Result<BundleRun, Failure> {
    run.0.map_err(|error| {
        let name = error.metadata.name.unwrap_or_default();
        Failure::new(format!("the run {name} is not understood: {}", error.error))
            .hint("the definition in the cluster may be of another version than this program: `kubectl bundle version`")
    })
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

/// That which it is at; 0: none.
pub(super) fn attempt_number(run: &BundleRun) -> u32 {
    run.status.as_ref().and_then(|status| status.attempt).unwrap_or_default()
}

/// What is on record of an attempt: of the last ones there is something.
pub(super) fn recorded(run: &BundleRun, number: u32) -> Result<Attempt, Failure> {
    let attempts = run.status.iter().flat_map(|status| &status.attempts);
    let found = attempts.into_iter().find(|attempt| attempt.attempt == number).cloned();
    found.ok_or_else(|| Failure::new(format!("{} has no record of an attempt {number}", name(run))))
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
    for_people(u64::try_from(seconds).unwrap_or_default())
}

/// A second at least.
pub(super) fn for_people(seconds: u64) -> String {
    time_for_people(seconds.max(1).saturating_mul(1000))
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
    let everything = watch::Config::default().page_size(PAGE);
    let only = |name: &String| everything.clone().fields(&format!("metadata.name={name}"));
    let watches = match wanted.len() {
        1..=FEW => wanted.iter().map(only).collect(),
        _ => vec![everything],
    };
    let count = watches.len();
    let events = watches.into_iter().enumerate().map(|(number, config)| {
        let events = watch::watcher(connection.api::<GuardedRun>(), config).default_backoff();
        events.map(move |event| (number, event)).boxed()
    });
    let mut events = select_all(events);
    let mut runs = BTreeMap::new();
    let (mut listed, mut answered) = (BTreeSet::new(), BTreeSet::new());
    // Others may be what they like.
    let is_wanted = |run: &GuardedRun| wanted.iter().any(|name| *name == run.name_any());
    while let Some((number, event)) = events.next().await {
        match event {
            Ok(Event::Init) => {
                listed.remove(&number);
                runs.retain(|name, _| count > 1 && wanted.get(number) != Some(name));
                continue;
            }
            Ok(Event::InitApply(run)) => {
                if is_wanted(&run) {
                    runs.insert(run.name_any(), readable(run)?);
                }
                continue;
            }
            Ok(Event::InitDone) => {
                listed.insert(number);
                answered.insert(number);
            }
            Ok(Event::Apply(run)) if is_wanted(&run) => _ = runs.insert(run.name_any(), readable(run)?),
            Ok(Event::Delete(run)) if is_wanted(&run) => {
                let was = run.0.as_ref().map(|run| format!(": it was {}", state(run))).unwrap_or_default();
                return Err(Failure::new(format!("the run {} was deleted{was}", run.name_any())));
            }
            Ok(Event::Apply(_) | Event::Delete(_)) => continue,
            Err(error) => {
                // What was understood once is asked for again until there is an answer: a laptop sleeps.
                if let Some(failure) = permanent(asked(connection, "list", None), &error, answered.contains(&number)) {
                    return Err(failure);
                }
                continue;
            }
        }
        if listed.len() < count {
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

/// Of a watch: what would come again.
pub(super) fn permanent(asked: Asked<'_>, error: &watcher::Error, was_answered: bool) -> Option<Failure> {
    let (verb, error) = match error {
        watcher::Error::InitialListFailed(error) => ("list", error),
        watcher::Error::WatchStartFailed(error) => ("watch", error),
        _ => return None,
    };
    let has_no_answer = !matches!(error, kube::Error::Api(_));
    (is_final(error) || has_no_answer && !was_answered).then(|| Asked { verb, ..asked }.failed(error))
}

/// The same request would fail again.
pub(super) fn is_final(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code < 500 && !matches!(status.code, 410 | 429),
        kube::Error::SerdeError(_) | kube::Error::Auth(_) => true,
        _ => false,
    }
}

/// Ends `work` at a Ctrl-C, which is no harm to any run.
pub(super) async fn unless_interrupted<T>(
    work: impl Future<Output = Result<T, Failure>>,
    hint: impl FnOnce() -> String,
) -> Result<T, Failure> {
    or_interrupted(work, || Failure::interrupted("interrupted: the run goes on").hint(hint())).await
}

/// Ends `work` at a Ctrl-C.
pub(super) async fn or_interrupted<T>(
    work: impl Future<Output = Result<T, Failure>>,
    failure: impl FnOnce() -> Failure,
) -> Result<T, Failure> {
    tokio::select! {
        result = work => result,
        _ = tokio::signal::ctrl_c() => Err(failure()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::examples;

    /// To an API server that lists these runs, by query.
    fn connection(runs: impl Fn(&str) -> Vec<Value> + Send + 'static) -> Connection {
        examples::connection(move |_, query| {
            let list = json!({"kind": "BundleRunList", "apiVersion": "bundlerun.dev/v1alpha1",
                "metadata": {"resourceVersion": "1"}, "items": runs(query)});
            (200, list)
        })
    }

    fn run_of(name: &str) -> Value {
        let mut run = examples::new();
        run.metadata.name = Some(name.to_owned());
        serde_json::to_value(run).unwrap()
    }

    fn unreadable() -> Value {
        json!({"metadata": {"name": "odd"}, "spec": {"command": 7}})
    }

    async fn followed(connection: &Connection, names: &[String]) -> Result<Vec<String>, Failure> {
        follow(connection, names, |found| Look::Done(found.keys().cloned().collect())).await
    }

    #[tokio::test]
    async fn a_few_runs_are_watched_each_by_itself() {
        let names = ["a", "b"].map(str::to_owned);
        let each = connection(|query| {
            let asked = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "fieldSelector");
            let (_, selector) = asked.unwrap();
            vec![run_of(selector.strip_prefix("metadata.name=").unwrap())]
        });
        assert_eq!(followed(&each, &names).await.unwrap(), names);
    }

    #[tokio::test]
    async fn a_run_that_is_not_understood_is_in_nobodys_way_but_of_those_who_ask_for_it() {
        let names: Vec<String> = (0..=FEW).map(|number| format!("r{number}")).collect();
        let there = names.clone();
        let all = connection(move |_| there.iter().map(|name| run_of(name)).chain([unreadable()]).collect());
        assert_eq!(followed(&all, &names).await.unwrap(), names);
        let odd = followed(&connection(|_| vec![unreadable()]), &["odd".to_owned()]).await.unwrap_err();
        assert!(odd.message.starts_with("the run odd is not understood: "), "{}", odd.message);
        let targets = Targets { names: Vec::new(), selector: Some("x".to_owned()) };
        let odd = super::targets(&connection(|_| vec![unreadable()]), &targets).await.unwrap_err();
        assert!(odd.message.starts_with("the run odd is not understood: "), "{}", odd.message);
    }

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
