//! `ls`: the runs, each in a line.

use clap::Args;
use jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use crate::api::{BundleRun, Phase};
use crate::cluster::GuardedRun;
use crate::names;

use super::failure::{Asked, Failure};
use super::paint::{Paint, colour};
use super::runs;
use super::session::{Answer, Format, Session};
use super::table::{Cell, Table};

/// Of the first answer, so that something is seen soon.
const FIRST_PAGE: u32 = 50;

#[derive(Debug, Args)]
pub(super) struct Ls {
    /// Only runs in these phases, as `running,pending`
    #[arg(long, value_delimiter = ',', value_parser = phase)]
    phase: Vec<Phase>,
    /// Runs of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Runs with these labels, as `kubectl get` takes them
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    #[command(flatten)]
    answer: Answer,
}

fn phase(word: &str) -> Result<Phase, String> {
    let all = Phase::ALL.map(|phase| format!("{phase:?}"));
    let found = Phase::ALL.into_iter().zip(&all).find(|(_, name)| name.eq_ignore_ascii_case(word));
    found.map(|(phase, _)| phase).ok_or_else(|| format!("the phases are {}", all.join(", ")))
}

pub(super) async fn ls(session: &Session, args: &Ls) -> Result<(), Failure> {
    let (format, all_namespaces) = (args.answer.output, args.all_namespaces);
    let connection = session.connect().await?;
    let namespace = (!all_namespaces).then_some(connection.namespace.as_str());
    let api: Api<GuardedRun> = match namespace {
        Some(namespace) => Api::namespaced(connection.client.clone(), namespace),
        None => Api::all(connection.client.clone()),
    };
    let asked = Asked { verb: "list", resource: names::PLURAL, name: None, namespace };
    let mut params = ListParams { label_selector: args.selector.clone(), ..ListParams::default() };
    // The API server knows no `or` between fields.
    if let [phase] = args.phase[..] {
        params = params.fields(&format!("status.phase={phase:?}"));
    }

    let mut table = Table::new(headers(format, all_namespaces), session.out.paint);
    let (mut readable, mut shown) = (Vec::new(), 0_usize);
    loop {
        params.limit = Some(if params.continue_token.is_none() { FIRST_PAGE } else { runs::PAGE });
        let page = api.list(&params).await.map_err(|error| asked.failed(&error))?;
        let items = page.items.into_iter().filter(|item| is_wanted(item, &args.phase));
        if format.is_for_people() {
            let now = Timestamp::now();
            let rows: Vec<_> = items.map(|item| row(&item, format, all_namespaces, now)).collect();
            shown += rows.len();
            session.out.print(&table.rows(&rows))?;
        } else {
            readable.extend(runs::understood(session, items));
        }
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            break;
        }
    }

    if !format.is_for_people() {
        return session.out.list(format, &readable);
    }
    if shown == 0 {
        match namespace {
            Some(namespace) => session.out.note(&format!("no runs in namespace {namespace}; -A shows all namespaces")),
            None => session.out.note("no runs"),
        }
    }
    Ok(())
}

fn is_wanted(run: &GuardedRun, phases: &[Phase]) -> bool {
    phases.is_empty() || run.0.as_ref().is_ok_and(|run| phases.contains(&runs::phase(run)))
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

    #[test]
    fn phases_are_named_as_they_come() {
        assert_eq!(phase("running"), Ok(Phase::Running));
        assert!(phase("done").unwrap_err().contains("Succeeded"));
    }
}
