//! `stop`: ends runs and keeps what is there.

use clap::Args;
use serde_json::json;

use crate::api::BundleRun;

use super::failure::Failure;
use super::runs::{self, Targets};
use super::session::{Answer, Connection, Session};
use super::wait;

#[derive(Debug, Args)]
pub(super) struct Stop {
    #[command(flatten)]
    of: Targets,
    /// Wait until they have ended and what is there is saved
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    answer: Answer,
}

pub(super) async fn stop(session: &Session, args: &Stop) -> Result<(), Failure> {
    let connection = session.connect().await?;
    let targets = runs::targets(&connection, &args.of).await?;
    let mut stopped = Vec::new();
    for run in &runs::live(session, targets) {
        stopped.push(runs::change(&connection, runs::name(run), json!({"stop": true})).await?);
    }
    if args.wait {
        stopped = ends(session, &connection, &stopped).await?;
    }
    if !args.answer.output.is_for_people() {
        return session.out.runs(args.answer.output, &stopped);
    }
    let word = if args.wait { "stopped" } else { "stopping" };
    for run in &stopped {
        session.out.print(&format!("{word} {}\n", runs::name(run)))?;
    }
    Ok(())
}

async fn ends(session: &Session, connection: &Connection, runs: &[BundleRun]) -> Result<Vec<BundleRun>, Failure> {
    let mut ended = Vec::new();
    for run in runs {
        ended.push(wait::end_of(session, connection, runs::name(run)).await?);
    }
    Ok(ended)
}
