//! `info`: what a run is, what it ran on, and what it left.

use clap::Args;
use jiff::Timestamp;
use kube::ResourceExt as _;

use crate::api::spec::Input;
use crate::api::status::{BundleRunStatus, RecordedInput};
use crate::api::{BundleRun, BundleRunSpec};
use crate::contract::{size_for_people, time_for_people};

use super::failure::Failure;
use super::paint::Paint;
use super::record::Record;
use super::runs;
use super::session::{Answer, Session};
use super::table::{Cell, Table};

#[derive(Debug, Args)]
pub(super) struct Info {
    /// Name of the run
    name: String,
    #[command(flatten)]
    answer: Answer,
}

pub(super) async fn info(session: &Session, args: &Info) -> Result<(), Failure> {
    let connection = session.connect().await?;
    let run = runs::get(&connection, &args.name).await?;
    let format = args.answer.output;
    if !format.is_for_people() {
        return session.out.runs(format, &[run]);
    }
    session.out.print(&text(&run, Timestamp::now()))
}

fn text(run: &BundleRun, now: Timestamp) -> String {
    let status = run.status.clone().unwrap_or_default();
    let spec = &run.spec;
    let mut record = Record::default();
    record.line("Name", runs::name(run)).line("Namespace", run.namespace().unwrap_or_default());
    record.line("Phase", runs::state(run)).maybe("Message", status.message.as_ref());
    record
        .maybe("Created", run.creation_timestamp().map(|time| format!("{} ({} ago)", time.0, runs::ago(time.0, now))));
    record.maybe("Started", status.start_time.as_ref().map(|time| time.0.to_string()));
    record.maybe("Finished", status.finish_time.as_ref().map(|time| time.0.to_string()));
    record.maybe("Duration", status.duration.as_ref());
    record.maybe("Exit code", status.exit_code.map(|code| code.to_string()));
    record.maybe("Signal", status.signal.map(|signal| signal.to_string()));
    record.maybe("Attempt", status.attempt.map(|attempt| attempt.to_string())).maybe("Node", status.node.as_ref());

    let image = status.image.clone().unwrap_or_default();
    record.maybe("Image", image.requested.or_else(|| spec.image.clone()));
    record.maybe("Ran", image.reference);
    record.line("Asked for", resources(spec)).line("Used", usage(&status)).line("GPUs", gpus(&status));
    match (&spec.command, &spec.argv) {
        (Some(command), _) => record.block("Command", command),
        (None, argv) => record.line("Argv", argv.as_ref().map(|argv| format!("{argv:?}")).unwrap_or_default()),
    };
    record.below("Inputs", &inputs(&spec.inputs, &status.inputs));

    if let Some(output) = &status.output {
        record.maybe("Output", output.bundle.as_ref());
        let bytes = output.bytes.map(size_for_people);
        record.maybe("Files", output.files.zip(bytes).map(|(files, bytes)| format!("{files}, {bytes}")));
    }
    record.text()
}

fn resources(spec: &BundleRunSpec) -> String {
    let asked = &spec.resources;
    let quantity = |name: &str, quantity: &Option<crate::api::Quantity>| {
        quantity.as_ref().map(|quantity| format!("{name} {quantity}"))
    };
    let gpus = (asked.gpus > 0).then(|| format!("gpus {}", asked.gpus));
    let profile = spec.gpu_profile.as_ref().map(|profile| format!("profile {profile}"));
    let time = spec.time_limit.as_ref().map(|time| format!("time {time}"));
    let all = [
        gpus,
        profile,
        quantity("cpus", &asked.cpus),
        quantity("memory", &asked.memory),
        quantity("disk", &asked.disk),
        time,
    ];
    all.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn usage(status: &BundleRunStatus) -> String {
    let usage = status.usage.unwrap_or_default();
    let cpu = usage.cpu_user_milliseconds.zip(usage.cpu_system_milliseconds);
    let all = [
        usage.wall_milliseconds.map(|ms| format!("time {}", time_for_people(ms))),
        cpu.map(|(user, system)| format!("cpu {}", time_for_people(user.saturating_add(system)))),
        usage.memory_peak_bytes.map(|bytes| format!("memory {} at most", size_for_people(bytes))),
    ];
    all.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn gpus(status: &BundleRunStatus) -> String {
    let models = status.gpus.iter().map(|gpu| {
        let parts = [&gpu.model, &gpu.uuid].map(|part| part.as_deref().unwrap_or("unknown"));
        parts.join(" ")
    });
    models.collect::<Vec<_>>().join(", ")
}

fn inputs(asked: &[Input], recorded: &[RecordedInput]) -> String {
    let rows: Vec<Vec<Cell>> = asked
        .iter()
        .map(|input| {
            let pinned = recorded.iter().find(|pinned| pinned.path == input.path);
            let pinned = pinned.and_then(|pinned| pinned.reference.clone().or_else(|| pinned.digest.clone()));
            vec![Cell::from(input.path.as_str()), Cell::from(source(input)), Cell::from(pinned.unwrap_or_default())]
        })
        .collect();
    Table::new(vec!["PATH", "FROM", "DIGEST"], Paint::default()).rows(&rows)
}

/// As `run --input` takes it.
pub(super) fn source(input: &Input) -> String {
    let with = |scheme: &str, name: &str, path: &Option<String>| match path {
        Some(path) => format!("{scheme}{name}/{path}"),
        None => format!("{scheme}{name}"),
    };
    let run = input.run.as_ref().map(|run| {
        let snapshot = if run.snapshot.is_some() { " (last snapshot)" } else { "" };
        format!("{}{snapshot}", with("", &run.name, &run.path))
    });
    run.or_else(|| input.image.as_ref().map(|image| with("image:", &image.reference, &image.path)))
        .or_else(|| input.claim.as_ref().map(|claim| with("claim:", &claim.name, &claim.path)))
        .or_else(|| input.config_map.as_ref().map(|map| with("configmap:", &map.name, &map.key)))
        .or_else(|| input.secret.as_ref().map(|secret| with("secret:", &secret.name, &secret.key)))
        .or_else(|| input.url.as_ref().map(|url| url.href.clone()))
        .unwrap_or_else(|| "a text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::examples::{self, DIGEST};

    #[test]
    fn a_run_is_described_from_what_it_asked_for_to_what_it_left() {
        let expected = format!(
            "\
Name:        hello
Namespace:   a
Phase:       Succeeded (Completed)
Message:     the command exited with 0
Created:     2026-11-26T09:00:00Z (1h0m ago)
Started:     2026-11-26T09:01:00Z
Finished:    2026-11-26T09:02:05Z
Duration:    1m5s
Exit code:   0
Attempt:     1
Node:        n1
Image:       python:3.13
Ran:         docker.io/library/python@{DIGEST}
Asked for:   cpus 2, memory 4Gi
Used:        time 1m5s, cpu 1m1s, memory 1.0 GiB at most
Command:
  | python train.py
Inputs:
  PATH     FROM               DIGEST
  data     prepare/train.csv  r.example/a@{DIGEST}
  scripts  configmap:scripts  {DIGEST}
Output:      r.example/a@{DIGEST}
Files:       3, 2.0 KiB
"
        );
        assert_eq!(text(&examples::succeeded(), examples::now()), expected);
    }

    #[test]
    fn a_run_that_no_operator_has_seen_is_described_all_the_same() {
        let expected = "\
Name:        fresh
Namespace:   a
Phase:       Waiting (NotSeen)
Created:     2026-11-26T09:00:00Z (1h0m ago)
Command:
  | true
";
        assert_eq!(text(&examples::new(), examples::now()), expected);
    }

    #[test]
    fn no_text_of_a_run_acts_on_the_terminal() {
        let text = text(&examples::hostile(), examples::now());
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    }
}
