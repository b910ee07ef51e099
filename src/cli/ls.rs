//! `ls`: the runs, each in a line.

use std::collections::{BTreeMap, BTreeSet};

use clap::{Args, ValueEnum};
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt as _};
use kube_runtime::watcher::Event;
use kube_runtime::{WatchStreamExt as _, watcher as watch};

use crate::api::{BundleRun, Phase};
use crate::cluster::GuardedRun;
use crate::names;

use super::failure::{Asked, Failure};
use super::paint::{Paint, colour};
use super::runs;
use super::session::{Answer, Connection, Format, Session};
use super::table::{Cell, Table};

/// Of the first answer, so that something is seen soon.
const FIRST_PAGE: u32 = 50;

#[derive(Debug, Args)]
pub(super) struct Ls {
    /// Only runs in these phases, as `running,pending`
    #[arg(long, value_delimiter = ',', value_parser = phase)]
    phase: Vec<Phase>,
    /// Only your own, where the cluster records who created a run
    #[arg(long)]
    mine: bool,
    /// Runs of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Runs with these labels, as `kubectl get` takes them
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// The newest, the longest and those with the most GPUs come first, names and words by their letters, phases as they
    /// follow each other. Default: by name
    #[arg(long, value_name = "FIELD", value_enum, conflicts_with = "watch")]
    sort: Option<Sort>,
    /// Go on, with a line each time that a run changes
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    answer: Answer,
}

/// What runs are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sort {
    Name,
    Age,
    Phase,
    Why,
    Gpus,
    Duration,
}

fn phase(word: &str) -> Result<Phase, String> {
    let all = Phase::ALL.map(|phase| format!("{phase:?}"));
    let found = Phase::ALL.into_iter().zip(&all).find(|(_, name)| name.eq_ignore_ascii_case(word));
    found.map(|(phase, _)| phase).ok_or_else(|| format!("the phases are {}", all.join(", ")))
}

pub(super) async fn ls(session: &Session, args: &Ls) -> Result<(), Failure> {
    let connection = session.connect().await?;
    let filter = Filter {
        phases: args.phase.clone(),
        creator: if args.mine { Some(who_am_i(&connection).await?) } else { None },
    };
    if args.watch {
        return follow(session, &connection, args, filter).await;
    }
    let (format, all_namespaces) = (args.answer.output, args.all_namespaces);
    let namespace = args.namespace(&connection);
    let api = args.api(&connection);
    let asked = Asked { verb: "list", resource: names::PLURAL, name: None, namespace };
    let mut params = ListParams { label_selector: args.selector.clone(), ..ListParams::default() };
    // The API server knows no `or` between fields.
    if let [phase] = args.phase[..] {
        params = params.fields(&format!("status.phase={phase:?}"));
    }

    let mut table = Table::new(headers(format, all_namespaces), session.out.paint);
    let (mut kept, mut shown, mut is_recorded) = (Vec::new(), 0_usize, false);
    loop {
        params.limit =
            Some(if params.continue_token.is_none() && args.sort.is_none() { FIRST_PAGE } else { runs::PAGE });
        let page = api.list(&params).await.map_err(|error| asked.failed(&error))?;
        is_recorded |= page.items.iter().any(|run| creator(run).is_some());
        let items = page.items.into_iter().filter(|run| filter.lets_through(run));
        if format.is_for_people() && args.sort.is_none() {
            let now = Timestamp::now();
            let rows: Vec<_> = items.map(|item| row(&item, format, all_namespaces, now)).collect();
            shown += rows.len();
            session.out.print(&table.rows(&rows))?;
        } else {
            kept.extend(items);
        }
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            break;
        }
    }

    if let Some(sort) = args.sort {
        sorted(&mut kept, sort, Timestamp::now());
    }
    if format.is_for_people() {
        let now = Timestamp::now();
        let rows: Vec<_> = kept.iter().map(|item| row(item, format, all_namespaces, now)).collect();
        shown += rows.len();
        session.out.print(&table.rows(&rows))?;
    } else {
        shown = kept.len();
        session.out.list(format, &runs::understood(session, kept))?;
    }
    if shown == 0 && args.mine && !is_recorded {
        session.out.note(NOT_RECORDED);
    } else if shown == 0 && format.is_for_people() {
        match namespace {
            Some(namespace) => session.out.note(&format!("no runs in namespace {namespace}; -A shows all namespaces")),
            None => session.out.note("no runs"),
        }
    }
    Ok(())
}

/// Why `--mine` finds nothing.
const NOT_RECORDED: &str =
    "no run here says who created it: an administrator turns that on by createdBy.enabled of the chart";

impl Ls {
    /// None: all.
    fn namespace<'a>(&self, connection: &'a Connection) -> Option<&'a str> {
        (!self.all_namespaces).then_some(connection.namespace.as_str())
    }

    fn api(&self, connection: &Connection) -> Api<GuardedRun> {
        if self.all_namespaces { Api::all(connection.client.clone()) } else { connection.api() }
    }
}

/// As whom the cluster knows the user.
async fn who_am_i(connection: &Connection) -> Result<String, Failure> {
    let asked = Asked { verb: "create", resource: "selfsubjectreviews", name: None, namespace: None };
    let api = Api::<SelfSubjectReview>::all(connection.client.clone());
    let answer = api.create(&PostParams::default(), &SelfSubjectReview::default()).await;
    let answer = answer.map_err(|error| asked.failed(&error))?;
    let name = answer.status.and_then(|status| status.user_info?.username);
    name.ok_or_else(|| Failure::new("the cluster does not say as whom it knows you"))
}

fn creator(run: &GuardedRun) -> Option<&String> {
    run.annotations().get(names::CREATED_BY_ANNOTATION)
}

/// Which runs are shown.
#[derive(Clone, Debug, Default)]
struct Filter {
    /// None: all.
    phases: Vec<Phase>,
    creator: Option<String>,
}

impl Filter {
    fn lets_through(&self, run: &GuardedRun) -> bool {
        let is_in_phase = run.0.as_ref().is_ok_and(|run| self.phases.contains(&runs::phase(run)));
        let is_of_creator = self.creator.is_none() || creator(run) == self.creator.as_ref();
        (self.phases.is_empty() || is_in_phase) && is_of_creator
    }
}

/// Those that are not understood are the last.
fn sorted(all: &mut [GuardedRun], sort: Sort, now: Timestamp) {
    all.sort_by_cached_key(|run| {
        let of = run.0.as_ref().ok();
        let number: i64 = match (sort, of) {
            (Sort::Age, _) => -run.creation_timestamp().map(|time| time.0.as_second()).unwrap_or_default(),
            (Sort::Phase, Some(run)) => i64::from(runs::phase(run) as u8),
            (Sort::Gpus, Some(run)) => -i64::from(run.spec.resources.gpus),
            (Sort::Duration, Some(run)) => -seconds(run, now),
            _ => 0,
        };
        let word = of.filter(|_| sort == Sort::Why).map(|run| runs::reason(run).to_owned()).unwrap_or_default();
        (of.is_none() && sort != Sort::Name && sort != Sort::Age, number, word, run.name_any(), run.namespace())
    });
}

/// How long its command ran, or runs.
fn seconds(run: &BundleRun, now: Timestamp) -> i64 {
    let status = run.status.as_ref();
    let at = |time: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| time.map(|time| time.0.as_second());
    let Some(started) = at(status.and_then(|status| status.start_time.as_ref())) else { return 0 };
    let finished = at(status.and_then(|status| status.finish_time.as_ref()));
    finished.unwrap_or_else(|| now.as_second()).saturating_sub(started)
}

/// A line for each run, and another each time that something in it changes.
async fn follow(session: &Session, connection: &Connection, args: &Ls, filter: Filter) -> Result<(), Failure> {
    let asked = Asked { verb: "list", resource: names::PLURAL, name: None, namespace: args.namespace(connection) };
    let config =
        watch::Config { label_selector: args.selector.clone(), ..watch::Config::default().page_size(runs::PAGE) };
    let mut events = watch::watcher(args.api(connection), config).default_backoff().boxed();
    let mut changes = Changes::new(args, filter, session.out.paint);
    let (mut listed, mut was_answered) = (Vec::new(), false);
    while let Some(event) = events.next().await {
        let runs = match event {
            Ok(Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(Event::InitApply(run)) => {
                listed.push(run);
                continue;
            }
            Ok(Event::InitDone) => {
                was_answered = true;
                session.out.print(&changes.gone(&listed))?;
                std::mem::take(&mut listed)
            }
            Ok(Event::Apply(run)) => vec![run],
            Ok(Event::Delete(run)) => {
                session.out.print(&changes.deleted(&run))?;
                continue;
            }
            // What was understood once is asked for again until there is an answer: a laptop sleeps.
            Err(error) => match runs::permanent(asked, &error, was_answered) {
                Some(failure) => return Err(failure),
                None => continue,
            },
        };
        let runs: Vec<GuardedRun> = runs.into_iter().filter(|run| changes.is_shown(run)).collect();
        if args.answer.output.is_for_people() {
            session.out.print(&changes.lines(&runs, Timestamp::now()))?;
            continue;
        }
        for run in runs::understood(session, runs) {
            if args.answer.output == Format::Yaml {
                session.out.print("---\n")?;
            }
            session.out.runs(args.answer.output, &[run])?;
        }
    }
    Err(Failure::new("the cluster ended the watch"))
}

/// What is new in runs that are watched.
struct Changes {
    filter: Filter,
    format: Format,
    all_namespaces: bool,
    table: Table,
    /// The last line of each but for its age, by namespace and name.
    shown: BTreeMap<(String, String), Vec<Cell>>,
}

impl Changes {
    fn new(args: &Ls, filter: Filter, paint: Paint) -> Self {
        let (format, all_namespaces) = (args.answer.output, args.all_namespaces);
        let table = Table::new(headers(format, all_namespaces), paint);
        Self { filter, format, all_namespaces, table, shown: BTreeMap::new() }
    }

    /// One that the filter lets through no more is shown once more, as what it is now.
    fn is_shown(&mut self, run: &GuardedRun) -> bool {
        if self.filter.lets_through(run) {
            self.shown.entry(key(run)).or_default();
            return true;
        }
        self.shown.remove(&key(run)).is_some()
    }

    /// Of runs that are shown.
    fn lines(&mut self, runs: &[GuardedRun], now: Timestamp) -> String {
        let mut rows = Vec::new();
        for run in runs {
            // That a run grows older is nothing new.
            let same = row(run, self.format, self.all_namespaces, Timestamp::UNIX_EPOCH);
            match self.shown.get_mut(&key(run)) {
                Some(known) if *known == same => continue,
                Some(known) => *known = same,
                // It is shown for the last time.
                None => {}
            }
            rows.push(row(run, self.format, self.all_namespaces, now));
        }
        self.table.rows(&rows)
    }

    /// Those that are in the list no more: they were deleted while nothing was heard of the cluster.
    fn gone(&mut self, listed: &[GuardedRun]) -> String {
        let there: BTreeSet<_> = listed.iter().map(key).collect();
        let gone = self.shown.extract_if(.., |key, _| !there.contains(key));
        let rows: Vec<_> = gone.map(|(_, cells)| cells).collect();
        self.rows_of_deleted(rows)
    }

    fn deleted(&mut self, run: &GuardedRun) -> String {
        let was_shown = self.shown.remove(&key(run)).is_some();
        let cells = row(run, self.format, self.all_namespaces, Timestamp::now());
        self.rows_of_deleted(was_shown.then_some(cells).into_iter().collect())
    }

    fn rows_of_deleted(&mut self, mut rows: Vec<Vec<Cell>>) -> String {
        // Programs get objects, and see what was deleted by a watch of their own.
        if !self.format.is_for_people() {
            return String::new();
        }
        for cells in &mut rows {
            if let Some(phase) = cells.get_mut(if self.all_namespaces { 2 } else { 1 }) {
                *phase = Cell::from("Deleted");
            }
        }
        self.table.rows(&rows)
    }
}

fn key(run: &GuardedRun) -> (String, String) {
    (run.namespace().unwrap_or_default(), run.name_any())
}

fn headers(format: Format, all_namespaces: bool) -> Vec<&'static str> {
    let mut headers = if all_namespaces { vec!["NAMESPACE"] } else { Vec::new() };
    headers.extend(["NAME", "PHASE", "WHY", "GPUS", "AGE"]);
    if format == Format::Wide {
        headers.extend(["ATTEMPT", "NODE", "DURATION", "EXIT", "IMAGE", "MESSAGE"]);
    }
    headers
}

fn row(run: &GuardedRun, format: Format, all_namespaces: bool, now: Timestamp) -> Vec<Cell> {
    let mut cells = Vec::new();
    if all_namespaces {
        cells.push(Cell::from(run.namespace().unwrap_or_default()));
    }
    cells.push(Cell::from(run.name_any()));
    let age = run.creation_timestamp().map(|created| runs::ago(created.0, now)).unwrap_or_default();
    match &run.0 {
        Ok(run) => cells.extend(known(run, format, age)),
        // It is there all the same.
        Err(error) => {
            cells.extend(["", "Unreadable", ""].map(Cell::from));
            cells.push(Cell::from(age));
            if format == Format::Wide {
                cells.extend(["", "", "", "", ""].map(Cell::from));
                cells.push(Cell::from(error.error.as_str()));
            }
        }
    }
    cells
}

fn known(run: &BundleRun, format: Format, age: String) -> Vec<Cell> {
    let phase = runs::phase(run);
    let gpus = run.spec.resources.gpus;
    let gpus = if gpus == 0 { String::new() } else { gpus.to_string() };
    let mut cells = vec![
        Cell::coloured(&format!("{phase:?}"), colour(phase)),
        Cell::from(runs::reason(run)),
        Cell::from(gpus),
        Cell::from(age),
    ];
    if format == Format::Wide {
        let status = run.status.clone().unwrap_or_default();
        let number = |number: Option<i64>| number.map(|number| number.to_string()).unwrap_or_default();
        let image = status.image.and_then(|image| image.requested).or_else(|| run.spec.image.clone());
        cells.push(Cell::from(number(status.attempt.map(i64::from))));
        cells.push(Cell::from(status.node.unwrap_or_default()));
        cells.push(Cell::from(status.duration.unwrap_or_default()));
        cells.push(Cell::from(number(status.exit_code.map(i64::from))));
        cells.push(Cell::from(image.unwrap_or_default()));
        cells.push(Cell::from(status.message.unwrap_or_default()));
    }
    cells
}

/// A few runs in a table, for verbs that are about those.
pub(super) fn table(runs: &[BundleRun], format: Format, paint: Paint, now: Timestamp) -> String {
    let mut table = Table::new(headers(format, false), paint);
    let rows: Vec<_> =
        runs.iter().map(|run| row(&kube::core::DeserializeGuard(Ok(run.clone())), format, false, now)).collect();
    table.rows(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::examples;
    use serde_json::json;

    #[test]
    fn every_run_has_a_line_whatever_is_in_it() {
        let runs = [examples::succeeded(), examples::waiting(), examples::hostile(), examples::new()];
        let narrow = table(&runs, Format::Table, Paint::default(), examples::now());
        let expected = "\
NAME     PHASE      WHY            GPUS  AGE
hello    Succeeded  Completed            1h0m
big      Pending    Unschedulable  99    1h0m
hostile  Failed     CommandFailed        1h0m
fresh    Waiting    NotSeen              1h0m
";
        assert_eq!(narrow, expected);
        let wide = table(&runs[..3], Format::Wide, Paint::default(), examples::now());
        let expected = "\
NAME     PHASE      WHY            GPUS  AGE   ATTEMPT  NODE  DURATION  EXIT  IMAGE        MESSAGE
hello    Succeeded  Completed            1h0m  1        n1    1m5s      0     python:3.13  the command exited with 0
big      Pending    Unschedulable  99    1h0m  1                              python:3.13  no node has 99 nvidia.com/gpu
hostile  Failed     CommandFailed        1h0m  1              0s        3                  evil  line
";
        assert_eq!(wide, expected);
    }

    #[test]
    fn an_unreadable_run_is_in_the_list_and_says_why_when_asked() {
        let unreadable = serde_json::json!({
            "metadata": {"name": "odd", "creationTimestamp": "2026-11-26T09:00:00Z"}, "spec": {"command": 7},
        });
        let guarded: GuardedRun = serde_json::from_value(unreadable).unwrap();
        let programs = runs::split([guarded.clone()]);
        assert!(programs.0.is_empty() && programs.1[0].message.starts_with("the run odd is not understood: "));
        let mut table = Table::new(headers(Format::Wide, false), Paint::default());
        let text = table.rows(&[row(&guarded, Format::Wide, false, examples::now())]);
        assert!(text.contains("\nodd          Unreadable        1h0m  "), "{text}");
        assert!(text.contains("Invalid type integer"), "{text}");
    }

    fn guarded(runs: &[BundleRun]) -> Vec<GuardedRun> {
        runs.iter().map(|run| kube::core::DeserializeGuard(Ok(run.clone()))).collect()
    }

    #[test]
    fn runs_are_sorted_by_what_is_asked_for() {
        let mut newest = examples::new();
        newest.metadata.creation_timestamp = serde_json::from_value("2026-11-26T09:30:00Z".into()).unwrap();
        let all = [examples::succeeded(), examples::waiting(), examples::failed(), newest];
        let by = |sort| {
            let mut all = guarded(&all);
            sorted(&mut all, sort, examples::now());
            all.iter().map(kube::ResourceExt::name_any).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(by(Sort::Name), "big fresh hello wrong");
        assert_eq!(by(Sort::Age), "fresh big hello wrong");
        assert_eq!(by(Sort::Phase), "fresh big hello wrong");
        assert_eq!(by(Sort::Why), "hello fresh wrong big");
        assert_eq!(by(Sort::Gpus), "big fresh hello wrong");
        assert_eq!(by(Sort::Duration), "hello wrong big fresh");
    }

    #[test]
    fn my_runs_are_those_that_i_created() {
        let mut mine = examples::succeeded();
        mine.annotations_mut().insert(names::CREATED_BY_ANNOTATION.to_owned(), "ann".to_owned());
        let all = guarded(&[mine, examples::failed()]);
        let shown = |filter: Filter| {
            all.iter().filter(|run| filter.lets_through(run)).map(kube::ResourceExt::name_any).collect::<Vec<_>>()
        };
        let ann = Some("ann".to_owned());
        assert_eq!(shown(Filter { creator: ann.clone(), ..Filter::default() }), ["hello"]);
        assert_eq!(shown(Filter { creator: Some("bob".to_owned()), ..Filter::default() }), [""; 0]);
        assert_eq!(shown(Filter { phases: vec![Phase::Failed], creator: None }), ["wrong"]);
        assert_eq!(shown(Filter { phases: vec![Phase::Failed], creator: ann }), [""; 0]);
    }

    #[tokio::test]
    async fn the_cluster_says_as_whom_it_knows_the_user() {
        let known = examples::connection(|path, _| {
            assert_eq!(path, "/apis/authentication.k8s.io/v1/selfsubjectreviews");
            let status = json!({"userInfo": {"username": "ann", "groups": ["dev"]}});
            (201, json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1", "status": status}))
        });
        assert_eq!(who_am_i(&known).await.unwrap(), "ann");
    }

    #[test]
    fn a_run_that_is_watched_has_a_line_for_each_change() {
        let mut changes = watched(Filter::default());
        let first = news(&mut changes, &[examples::waiting(), examples::new()], examples::now());
        assert_eq!(first.lines().count(), 3);
        // It is older, and nothing else.
        let later = examples::now().checked_add(jiff::SignedDuration::from_hours(1)).unwrap();
        assert_eq!(news(&mut changes, &[examples::waiting()], later), "");
        let running = guarded(&[in_phase(Phase::Running)]);
        assert_eq!(
            news(&mut changes, &[in_phase(Phase::Running)], later),
            "big    Running  Unschedulable  99    2h0m\n"
        );
        let deleted = changes.deleted(&running[0]);
        assert!(deleted.starts_with("big    Deleted"), "{deleted}");
        assert_eq!(changes.deleted(&running[0]), "", "it was told");
        // Nothing was heard of the cluster when the other one was deleted.
        let gone = changes.gone(&running);
        assert!(gone.starts_with("fresh  Deleted") && gone.lines().count() == 1, "{gone}");
    }

    #[test]
    fn a_run_that_is_watched_for_its_phase_is_shown_once_more_when_it_leaves_it() {
        let mut changes = watched(Filter { phases: vec![Phase::Running], creator: None });
        let mut seen = |phase| {
            let lines = news(&mut changes, &[in_phase(phase)], examples::now());
            lines.lines().last()?.split_whitespace().nth(1).map(str::to_owned)
        };
        assert_eq!(seen(Phase::Pending), None);
        assert_eq!(seen(Phase::Running).as_deref(), Some("Running"));
        assert_eq!(seen(Phase::Finalizing).as_deref(), Some("Finalizing"));
        assert_eq!(seen(Phase::Succeeded), None);
        assert_eq!(seen(Phase::Running).as_deref(), Some("Running"));
    }

    fn watched(filter: Filter) -> Changes {
        let table = Table::new(headers(Format::Table, false), Paint::default());
        Changes { filter, format: Format::Table, all_namespaces: false, table, shown: BTreeMap::new() }
    }

    /// What is printed of an event.
    fn news(changes: &mut Changes, runs: &[BundleRun], now: Timestamp) -> String {
        let shown: Vec<_> = guarded(runs).into_iter().filter(|run| changes.is_shown(run)).collect();
        changes.lines(&shown, now)
    }

    fn in_phase(phase: Phase) -> BundleRun {
        let mut run = examples::waiting();
        run.status.as_mut().unwrap().phase = Some(phase);
        run
    }

    #[test]
    fn phases_are_named_as_they_come() {
        assert_eq!(phase("running"), Ok(Phase::Running));
        assert!(phase("done").unwrap_err().contains("Succeeded"));
    }
}
