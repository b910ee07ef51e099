//! `rm`: deletes runs. Their outputs stay in the store.

use clap::Args;
use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Preconditions, PropagationPolicy};

use crate::api::{BundleRun, Phase};

use super::failure::Failure;
use super::runs::{self, Targets};
use super::session::{Answer, Session};

#[derive(Debug, Args)]
pub(super) struct Rm {
    #[command(flatten)]
    of: Targets,
    /// Also those that have not ended: their commands are killed, and what they did is lost
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    answer: Answer,
}

pub(super) async fn rm(session: &Session, args: &Rm) -> Result<(), Failure> {
    let connection = session.connect().await?;
    let targets = runs::targets(&connection, &args.of).await?;
    // All or none: half of it would have to be found out again.
    if let Some(refused) = lost(&targets, Timestamp::now()).filter(|_| !args.force) {
        return Err(refused);
    }
    let format = args.answer.output;
    for run in &targets {
        let name = runs::name(run);
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            // Not one that somebody made anew under this name.
            preconditions: run.uid().map(|uid| Preconditions { uid: Some(uid), resource_version: None }),
            ..DeleteParams::default()
        };
        let deleted = connection.runs().delete(name, &params).await;
        deleted.map_err(|error| runs::asked(&connection, "delete", Some(name)).failed(&error))?;
        if format.is_for_people() {
            session.out.print(&format!("deleted {name}\n"))?;
        }
    }
    if format.is_for_people() { Ok(()) } else { session.out.runs(format, &targets) }
}

/// What would be lost with runs that have not ended.
fn lost(targets: &[BundleRun], now: Timestamp) -> Option<Failure> {
    let live: Vec<&BundleRun> = targets.iter().filter(|run| has_something_to_lose(run)).collect();
    let [first, ..] = live[..] else { return None };
    let lines = live.iter().map(|run| would_lose(run, now)).collect::<Vec<_>>().join("\n  ");
    let names = live.iter().map(|run| runs::name(run)).collect::<Vec<_>>().join(" ");
    let what = if live.len() == 1 { runs::name(first).to_owned() } else { format!("{} runs", live.len()) };
    Some(
        Failure::new(format!("nothing was deleted, because {what} would lose what was not saved:\n  {lines}"))
            .hint(format!("`kubectl bundle stop --wait {names}` saves it first; --force deletes all the same")),
    )
}

/// What waits has nothing yet.
fn has_something_to_lose(run: &BundleRun) -> bool {
    let status = run.status.as_ref();
    let has_begun = status.is_some_and(|status| status.start_time.is_some());
    !run.is_over() && (has_begun || matches!(runs::phase(run), Phase::Running | Phase::Finalizing))
}

fn would_lose(run: &BundleRun, now: Timestamp) -> String {
    let (name, phase) = (runs::name(run), runs::phase(run));
    let started = run.status.as_ref().and_then(|status| status.start_time.as_ref());
    match (started, phase) {
        (Some(started), Phase::Finalizing) => {
            format!(
                "{name}: its command has ended after a start {} ago, and its output is being saved",
                runs::ago(started.0, now)
            )
        }
        (Some(started), _) => format!("{name}: {phase:?}, its command started {} ago", runs::ago(started.0, now)),
        (None, _) => format!("{name}: {phase:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::examples;

    #[test]
    fn a_run_that_is_at_work_is_not_deleted_unasked() {
        let mut at_work = examples::failed();
        at_work.status.as_mut().unwrap().phase = Some(Phase::Running);
        let refused = lost(&[examples::succeeded(), at_work], examples::now()).unwrap();
        let expected = "nothing was deleted, because wrong would lose what was not saved:\n  \
                        wrong: Running, its command started 59m0s ago";
        assert_eq!(refused.message, expected);
        assert!(refused.hint.unwrap().contains("kubectl bundle stop --wait wrong"));
    }

    #[test]
    fn what_has_ended_or_not_begun_has_nothing_to_lose() {
        assert_eq!(lost(&[examples::succeeded(), examples::waiting(), examples::new()], examples::now()), None);
    }
}
