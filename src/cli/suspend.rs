//! `suspend` and `resume`: holds runs, and lets them go on.

use clap::Args;
use serde_json::json;

use crate::api::{BundleRun, Phase};

use super::failure::Failure;
use super::runs::{self, Targets};
use super::session::{Answer, Session};

#[derive(Debug, Args)]
pub(super) struct Suspend {
    #[command(flatten)]
    of: Targets,
    #[command(flatten)]
    answer: Answer,
}

pub(super) async fn suspend(session: &Session, args: &Suspend) -> Result<(), Failure> {
    set(session, args, true).await
}

pub(super) async fn resume(session: &Session, args: &Suspend) -> Result<(), Failure> {
    set(session, args, false).await
}

async fn set(session: &Session, args: &Suspend, suspend: bool) -> Result<(), Failure> {
    let connection = session.connect().await?;
    let targets = runs::targets(&connection, &args.of).await?;
    let format = args.answer.output;
    let mut changed = Vec::new();
    for run in runs::live(session, targets) {
        let is_so = run.spec.suspend == suspend;
        let run =
            if is_so { run } else { runs::change(&connection, runs::name(&run), json!({"suspend": suspend})).await? };
        if format.is_for_people() {
            let said = match (is_so, suspend) {
                (true, true) => format!("{} is suspended already", runs::name(&run)),
                (true, false) => format!("{} is not suspended: it is {}", runs::name(&run), runs::state(&run)),
                (false, true) => suspended(&run),
                (false, false) => resumed(&run),
            };
            session.out.print(&format!("{said}\n"))?;
        }
        changed.push(run);
    }
    if format.is_for_people() { Ok(()) } else { session.out.runs(format, &changed) }
}

/// What happens next to a run that was suspended.
fn suspended(run: &BundleRun) -> String {
    let name = runs::name(run);
    if run.is_being_stopped() {
        return format!("suspended {name}: it is being stopped, and ends all the same");
    }
    match runs::phase(run) {
        Phase::Running => {
            let next = if run.spec.retry.resume { "with its last snapshot" } else { "with an empty working directory" };
            format!(
                "suspending {name}: its command ends and what is there is saved; \
                 `kubectl bundle resume {name}` begins another attempt, {next}"
            )
        }
        Phase::Finalizing => format!(
            "suspended {name}: its command has ended or was told to; if another attempt would follow, it does not start \
             before `kubectl bundle resume {name}`"
        ),
        _ => format!("suspended {name}: it does not start before `kubectl bundle resume {name}`"),
    }
}

/// What happens next to a run that was resumed.
fn resumed(run: &BundleRun) -> String {
    let name = runs::name(run);
    let has_begun = run.status.as_ref().is_some_and(|status| !status.attempts.is_empty());
    match (runs::phase(run), has_begun) {
        (Phase::Running | Phase::Finalizing, _) => {
            format!("resumed {name}: an attempt that is being ended is followed by another")
        }
        (_, true) => format!("resumed {name}: its next attempt starts when a node has room for it"),
        (_, false) => format!("resumed {name}: it starts when its inputs are there and a node has room for it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::examples;

    fn running() -> BundleRun {
        let mut run = examples::failed();
        run.status.as_mut().unwrap().phase = Some(Phase::Running);
        run
    }

    #[test]
    fn what_happens_next_is_said_of_a_run_that_is_suspended() {
        assert_eq!(
            suspended(&examples::new()),
            "suspended fresh: it does not start before `kubectl bundle resume fresh`"
        );
        let mut run = running();
        let said = suspended(&run);
        assert!(said.starts_with("suspending wrong: its command ends and what is there is saved; "), "{said}");
        assert!(said.ends_with("begins another attempt, with an empty working directory"), "{said}");
        run.spec.retry.resume = true;
        assert!(suspended(&run).ends_with("begins another attempt, with its last snapshot"));
        run.spec.stop = true;
        assert_eq!(suspended(&run), "suspended wrong: it is being stopped, and ends all the same");
    }

    #[test]
    fn what_happens_next_is_said_of_a_run_that_is_resumed() {
        let of_inputs = "resumed fresh: it starts when its inputs are there and a node has room for it";
        assert_eq!(resumed(&examples::new()), of_inputs);
        let mut run = running();
        assert_eq!(resumed(&run), "resumed wrong: an attempt that is being ended is followed by another");
        run.status.as_mut().unwrap().phase = Some(Phase::Waiting);
        assert_eq!(resumed(&run), "resumed wrong: its next attempt starts when a node has room for it");
    }
}
