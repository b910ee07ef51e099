//! Every request of the operator is a place where it can die: for each, a run of the same scenario in which it does, on a real
//! API server with scripted pods. `tests/sweep/run` starts what it needs; docs/crash-sweep.md has the table that it prints.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs, unreachable_pub)]

mod cases;
mod invariants;
mod kubelet;
mod operator;
mod scenarios;
mod table;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bundlerun::cluster::{Asked, Fault, WatchFault};
use futures::{StreamExt, stream};
use tokio::sync::OnceCell;

use cases::{Case, Done, Wrong};
use scenarios::Scenario;
use table::Table;
use world::World;

/// So many cases run side by side.
const AT_ONCE: usize = 64;

const SETTINGS: &str = "images: {cpu: registry.example.com/cpu, gpu: registry.example.com/gpu}\n\
    store: {url: 'oci://store.example.com/bundles'}\n";

/// What becomes of each request, by column.
const EACH: [(&str, Fault); 4] = [
    ("killed before", Fault::CutBefore),
    ("killed after", Fault::CutAfter),
    ("done, answer 500", Fault::DoneAndRefused(500)),
    ("done, answer lost", Fault::Lost),
];
/// What becomes of a third of all.
const MANY: [(&str, Fault); 2] = [("a third 500", Fault::DoneAndRefused(500)), ("a third lost", Fault::Lost)];

/// What else an API server, or the way to it, can do.
const OTHERS: [(&str, Fault); 7] = [
    ("refused 409", Fault::Refused(409)),
    ("refused 429", Fault::Refused(429)),
    ("refused 500", Fault::Refused(500)),
    ("refused 503", Fault::Refused(503)),
    ("refused 504", Fault::Refused(504)),
    ("late by 3 s", Fault::Delayed(Duration::from_secs(3))),
    ("no answer", Fault::BlackHole),
];
const WATCHES: [(&str, Fault); 7] = [
    ("410 at start", Fault::Refused(410)),
    ("ends at once", Fault::Watch(WatchFault::Ends(0))),
    ("ends", Fault::Watch(WatchFault::Ends(1))),
    ("410 within", Fault::Watch(WatchFault::Expires(1))),
    ("event twice", Fault::Watch(WatchFault::Twice(2))),
    ("event late", Fault::Watch(WatchFault::Late(2))),
    ("silent", Fault::Watch(WatchFault::Stalls(1))),
];

/// Who sweeps: one after the other, each on all of the machine.
struct Sweep {
    world: Arc<World>,
    settings: tempfile::NamedTempFile,
}

impl Sweep {
    async fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        if std::env::var_os("RUST_LOG").is_some() {
            let filter = tracing_subscriber::EnvFilter::from_default_env();
            let _ = tracing_subscriber::fmt().with_env_filter(filter).try_init(); // another test may have
        }
        let settings = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(settings.path(), SETTINGS).unwrap();
        let world = World::new().await;
        kubelet::node(&world.client).await;
        Self { world, settings }
    }

    async fn run(&self, case: &Case, undisturbed: Option<&Done>) -> Result<Done, String> {
        let settings = self.settings.path().to_str().unwrap();
        case.run(&self.world, settings, undisturbed.map(|done| &done.outcome)).await
    }

    /// Each scenario undisturbed, then each with all that `of` makes of its requests. The table, and all that was wrong.
    async fn of(&self, scenarios: &[Scenario], of: impl Fn(Scenario, &[Asked]) -> Vec<Case>) -> (Table, Vec<String>) {
        let (begun, mut failed, mut cases, mut expected) = (Instant::now(), vec![], vec![], BTreeMap::new());
        let undisturbed = stream::iter(scenarios).map(async |scenario| {
            let case = Case { scenario: *scenario, wrong: Wrong::Nothing, column: "undisturbed".into() };
            let done = self.run(&case, None).await;
            (case, done)
        });
        let mut undisturbed = std::pin::pin!(undisturbed.buffer_unordered(AT_ONCE));
        while let Some((case, done)) = undisturbed.next().await {
            match done {
                Ok(done) => {
                    failed.extend(done.problems.iter().map(|problem| format!("{}: {problem}", case.words())));
                    cases.extend(of(case.scenario, &done.asked));
                    expected.insert(case.scenario, done);
                }
                Err(problem) => failed.push(format!("{}: {problem}", case.words())),
            }
        }
        if let Ok(meant) = std::env::var("CASE") {
            cases.retain(|case| case.words().contains(&meant));
        }

        let mut table = Table::default();
        for (scenario, done) in &expected {
            table.requests(*scenario, done.asked.len());
        }
        let done = stream::iter(&cases).map(async |case| (case, self.run(case, expected.get(&case.scenario)).await));
        let mut done = std::pin::pin!(done.buffer_unordered(AT_ONCE));
        while let Some((case, done)) = done.next().await {
            let problems = match &done {
                Ok(done) => done.problems.clone(),
                Err(problem) => vec![problem.clone()],
            };
            let is_met = done.as_ref().map_or(true, |done| done.met(&case.wrong));
            table.add(case, is_met, problems.is_empty());
            failed.extend(problems.iter().map(|problem| format!("{}: {problem}", case.words())));
        }
        println!("{} cases in {} s", cases.len(), begun.elapsed().as_secs());
        (table, failed)
    }
}

/// One at a time.
static TURN: OnceCell<tokio::sync::Mutex<()>> = OnceCell::const_new();

async fn turn() -> tokio::sync::MutexGuard<'static, ()> {
    TURN.get_or_init(async || tokio::sync::Mutex::default()).await.lock().await
}

/// The scenarios that SWEEP names, or all.
fn scenarios() -> Vec<Scenario> {
    let named = std::env::var("SWEEP").unwrap_or_default();
    let is_meant =
        |scenario: &Scenario| named.is_empty() || named.split(',').any(|name| name == format!("{scenario:?}"));
    Scenario::ALL.into_iter().filter(is_meant).collect()
}

fn each(scenario: Scenario, asked: &[Asked], faults: &[(&str, Fault)]) -> Vec<Case> {
    let case = |asked: &Asked, (column, fault): &(&str, Fault)| Case {
        scenario,
        wrong: Wrong::One(asked.clone(), *fault),
        column: (*column).to_owned(),
    };
    asked.iter().flat_map(|asked| faults.iter().map(|fault| case(asked, fault)).collect::<Vec<_>>()).collect()
}

fn report((table, failed): (Table, Vec<String>)) {
    println!("{table}");
    assert!(failed.is_empty(), "{} were wrong:\n{}", failed.len(), failed.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_may_die_at_every_request_and_every_answer_may_be_lost() {
    let _turn = turn().await;
    let of = |scenario, asked: &[Asked]| {
        let many = MANY.map(|(column, fault)| Case { scenario, wrong: Wrong::Third(fault), column: column.into() });
        each(scenario, asked, &EACH).into_iter().chain(many).collect()
    };
    report(Sweep::new().await.of(&scenarios(), of).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_api_server_answers_and_whatever_becomes_of_a_watch() {
    let _turn = turn().await;
    let of = |scenario, asked: &[Asked]| {
        let watches: Vec<_> = asked.iter().filter(|asked| asked.kind.starts_with("watch ")).cloned().collect();
        let stale = ["bundleruns", "pods", "nodes"].map(|resource| Case {
            scenario,
            wrong: Wrong::StaleList(resource),
            column: "stale list".into(),
        });
        // What follows a cache that gets no answer waits for minutes: docs/crash-sweep.md says so.
        let is_noticed = |case: &Case| match &case.wrong {
            Wrong::One(asked, Fault::BlackHole) => !["list ", "watch "].iter().any(|verb| asked.kind.starts_with(verb)),
            Wrong::One(_, Fault::Watch(WatchFault::Stalls(_))) => false,
            _ => true,
        };
        each(scenario, asked, &OTHERS)
            .into_iter()
            .chain(each(scenario, &watches, &WATCHES))
            .chain(stale)
            .filter(is_noticed)
            .collect()
    };
    report(Sweep::new().await.of(&[Scenario::FailureAndRetry], of).await);
}
