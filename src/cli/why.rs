//! `why`: what a run waits for, or how it ended, with the evidence.

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt as _;
use kube::api::ListParams;
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::BundleRun;
use crate::api::status::{Attempt, Blame, BundleRunStatus};
use crate::names;

use super::failure::{Asked, Failure};
use super::paint::Paint;
use super::record::Record;
use super::runs;
use super::session::{Answer, Connection, Format, Session};
use super::table::{Cell, Table};

/// Of the end of an output, and of events.
const LINES: usize = 10;

#[derive(Debug, Args)]
pub(super) struct Why {
    /// Name of the run
    name: String,
    #[command(flatten)]
    answer: Answer,
}

pub(super) async fn why(session: &Session, args: &Why) -> Result<(), Failure> {
    let connection = session.connect().await?;
    let run = runs::get(&connection, &args.name).await?;
    let format = args.answer.output;
    if format == Format::Name {
        return session.out.runs(format, &[run]);
    }
    let events = match events(&connection, &run).await {
        Ok(events) => events,
        // Not everybody may see them, and the rest is worth telling.
        Err(failure) => {
            session.out.note(&failure.shown());
            Vec::new()
        }
    };
    if format.is_for_people() {
        return session.out.print(&text(&run, &events, Timestamp::now()));
    }
    session.out.document(format, &document(&run, &events))
}

async fn events(connection: &Connection, run: &BundleRun) -> Result<Vec<Seen>, Failure> {
    let fields = format!("regarding.kind={},regarding.name={}", names::KIND, runs::name(run));
    let asked = Asked { verb: "list", resource: "events", name: None, namespace: Some(&connection.namespace) };
    let found = connection.api::<Event>().list(&ListParams::default().fields(&fields)).await;
    let found = found.map_err(|error| asked.failed(&error))?;
    // An earlier run of this name has other events.
    let is_of_run = |event: &Event| event.regarding.as_ref().is_some_and(|of| of.uid == run.uid());
    let mut seen: Vec<Seen> = found.into_iter().filter(is_of_run).map(Seen::from).collect();
    seen.sort_by_key(|event| event.time);
    Ok(seen)
}

/// An event.
#[derive(Clone, Debug, Serialize)]
struct Seen {
    /// The last time.
    time: Option<Timestamp>,
    #[serde(rename = "type")]
    kind: String,
    reason: String,
    message: String,
    count: i32,
}

impl From<Event> for Seen {
    fn from(event: Event) -> Self {
        let series = event.series;
        let last = series.as_ref().map(|series| series.last_observed_time.0);
        Self {
            time: last.or_else(|| Some(event.event_time?.0)).or_else(|| Some(event.metadata.creation_timestamp?.0)),
            kind: event.type_.unwrap_or_default(),
            reason: event.reason.unwrap_or_default(),
            message: event.note.unwrap_or_default(),
            count: series.map_or(1, |series| series.count),
        }
    }
}

fn document(run: &BundleRun, events: &[Seen]) -> Value {
    let status = run.status.clone().unwrap_or_default();
    let output = status.output.unwrap_or_default();
    json!({
        "namespace": run.namespace(), "name": run.name_any(), "phase": runs::phase(run),
        "reason": runs::reason(run), "message": status.message, "waiting": status.waiting, "result": status.result,
        "exitCode": status.exit_code, "signal": status.signal, "attempts": status.attempts,
        "stdoutTail": output.stdout_tail, "stderrTail": output.stderr_tail, "events": events,
    })
}

fn text(run: &BundleRun, events: &[Seen], now: Timestamp) -> String {
    let status = run.status.clone().unwrap_or_default();
    let mut record = Record::default();
    record.line("Run", runs::name(run)).line("Phase", runs::state(run));
    if runs::is_seen(run) {
        record.maybe("Message", status.message.as_ref());
        waits(&mut record, &status, now);
        ended(&mut record, run, &status, now);
    } else {
        record.line("Message", format!("no {} has looked at it yet", names::OPERATOR));
        record.line(
            "Hint",
            format!("is it there? kubectl get deployments -A -l app.kubernetes.io/name={}", names::OPERATOR),
        );
    }

    record.below("Attempts", &attempts(&status.attempts));
    let output = status.output.unwrap_or_default();
    record.block("Last lines of stdout", &last_lines(&output.stdout_tail.unwrap_or_default()));
    record.block("Last lines of stderr", &last_lines(&output.stderr_tail.unwrap_or_default()));
    record.below("Events", &happened(events, now));
    record.text()
}

fn waits(record: &mut Record, status: &BundleRunStatus, now: Timestamp) {
    let Some(waiting) = &status.waiting else { return };
    record.maybe("Waits for", waiting.message.as_ref()).maybe("Stage", waiting.stage.as_ref());
    record.maybe("Since", waiting.since.as_ref().map(|since| format!("{} ({})", since.0, runs::ago(since.0, now))));
    record.maybe("Deadline", waiting.deadline.as_ref().map(|deadline| deadline.0.to_string()));
    record.maybe("Until", waiting.until.as_ref()).maybe("Hint", waiting.hint.as_ref());
}

fn ended(record: &mut Record, run: &BundleRun, status: &BundleRunStatus, now: Timestamp) {
    if let Some(result) = &status.result {
        record.line("Cause", &result.cause);
        record.maybe("Blame", result.blame.map(who));
        record.maybe("Hint", result.hint.as_ref());
    }
    record.maybe("Exit code", status.exit_code.map(|code| code.to_string()));
    record.maybe("Signal", status.signal.map(|signal| signal.to_string()));
    if run.is_over() {
        record.maybe("Ended", status.finish_time.as_ref().map(|at| format!("{} ({} ago)", at.0, runs::ago(at.0, now))));
        record.maybe("Ran for", status.duration.as_ref());
    }
    record.maybe("Node", status.node.as_ref());
}

/// Whose it is to do something about it.
fn who(blame: Blame) -> &'static str {
    match blame {
        Blame::User => "User: the run itself, that is its command, image or requests",
        Blame::Platform => "Platform: the cluster, that is its nodes, network, storage or drivers",
        Blame::Quota => "Quota: a quota that the administrator set",
        Blame::Policy => "Policy: an admission rule that the administrator set",
    }
}

/// When there was more than one, or the only one had trouble.
fn attempts(attempts: &[Attempt]) -> String {
    if attempts.iter().all(|attempt| attempt.message.is_none()) && attempts.len() < 2 {
        return String::new();
    }
    let rows: Vec<Vec<Cell>> = attempts
        .iter()
        .map(|attempt| {
            let text = |text: &Option<String>| Cell::from(text.as_deref().unwrap_or_default());
            let started = attempt.start_time.as_ref().map(|time| time.0.to_string()).unwrap_or_default();
            let number = attempt.attempt.to_string();
            vec![
                Cell::from(number),
                Cell::from(started),
                text(&attempt.node),
                text(&attempt.cause),
                text(&attempt.message),
            ]
        })
        .collect();
    Table::new(vec!["ATTEMPT", "STARTED", "NODE", "CAUSE", "MESSAGE"], Paint::default()).rows(&rows)
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join("\n")
}

fn happened(events: &[Seen], now: Timestamp) -> String {
    let last = events.get(events.len().saturating_sub(LINES)..).unwrap_or_default();
    let rows: Vec<Vec<Cell>> = last
        .iter()
        .map(|event| {
            let age = event.time.map(|time| runs::ago(time, now)).unwrap_or_default();
            let often = if event.count > 1 { format!(" (x{})", event.count) } else { String::new() };
            let message = format!("{}{often}", event.message);
            vec![Cell::from(age), Cell::from(&*event.kind), Cell::from(&*event.reason), Cell::from(message)]
        })
        .collect();
    Table::new(vec!["AGE", "TYPE", "REASON", "MESSAGE"], Paint::default()).rows(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::examples;

    fn event(seconds_ago: i64, message: &str, count: i32) -> Seen {
        let time = Timestamp::from_second(examples::now().as_second() - seconds_ago).ok();
        let [kind, reason] = ["Warning", "FailedScheduling"].map(str::to_owned);
        Seen { time, kind, reason, message: message.to_owned(), count }
    }

    #[test]
    fn a_run_that_waits_says_for_what_and_until_when() {
        let events = [event(90, "0/2 nodes are available", 4)];
        let expected = "\
Run:         big
Phase:       Pending (Unschedulable)
Message:     no node has 99 nvidia.com/gpu
Waits for:   no node has 99 nvidia.com/gpu: the largest has 8
Stage:       Scheduling
Since:       2026-11-26T09:30:00Z (30m0s)
Until:       no deadline
Hint:        ask for fewer GPUs
Events:
  AGE    TYPE     REASON            MESSAGE
  1m30s  Warning  FailedScheduling  0/2 nodes are available (x4)
";
        assert_eq!(text(&examples::waiting(), &events, examples::now()), expected);
    }

    #[test]
    fn a_run_that_ended_says_how_with_its_attempts_and_last_lines() {
        let expected = "\
Run:         wrong
Phase:       Failed (TimeLimitExceeded)
Message:     the command ran longer than timeLimit
Cause:       TimeLimitExceeded
Blame:       User: the run itself, that is its command, image or requests
Hint:        raise timeLimit in a new run
Signal:      15
Ended:       2026-11-26T09:01:10Z (58m50s ago)
Ran for:     10s
Node:        n2
Attempts:
  ATTEMPT  STARTED               NODE  CAUSE       MESSAGE
  1        2026-11-26T09:00:10Z  n1    PodDeleted  somebody deleted the pod
  2        2026-11-26T09:01:00Z  n2
Last lines of stdout:
  | step 1
  | step 2
Last lines of stderr:
  | slow
";
        assert_eq!(text(&examples::failed(), &[], examples::now()), expected);
    }

    #[test]
    fn an_operator_that_is_not_there_is_the_first_thing_to_look_for() {
        let expected = "\
Run:         fresh
Phase:       Waiting (NotSeen)
Message:     no bundle-operator has looked at it yet
Hint:        is it there? kubectl get deployments -A -l app.kubernetes.io/name=bundle-operator
";
        assert_eq!(text(&examples::new(), &[], examples::now()), expected);
    }

    #[test]
    fn no_text_of_a_run_or_event_acts_on_the_terminal() {
        let text = text(&examples::hostile(), &[event(1, "\u{1b}[2Jx", 1)], examples::now());
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    }

    #[test]
    fn the_end_of_a_long_output_is_shown() {
        let long = (0..30).map(|n| n.to_string()).collect::<Vec<_>>().join("\n");
        assert_eq!(last_lines(&long), "20\n21\n22\n23\n24\n25\n26\n27\n28\n29");
    }
}
