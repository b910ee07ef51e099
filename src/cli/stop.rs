//! `stop`: ends runs and keeps what is there.

use clap::Args;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::api::BundleRun;

use super::failure::Failure;
use super::run::FIELD_MANAGER;
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
    let (over, live): (Vec<_>, Vec<_>) = targets.into_iter().partition(BundleRun::is_over);
    for run in &over {
        session.out.note(&format!("{} has ended before: {}", runs::name(run), runs::state(run)));
    }
    let mut stopped = Vec::new();
    for run in &live {
        let name = runs::name(run);
        let stop = Patch::Merge(json!({"spec": {"stop": true}}));
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patched = connection.runs().patch(name, &params, &stop).await;
        stopped.push(patched.map_err(|error| runs::asked(&connection, "patch", Some(name)).failed(&error))?);
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
