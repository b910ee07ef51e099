//! `bundle-operator smoke-test`: one small run as a user would make it, from its creation to its record.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::api::spec::Resources;
use crate::api::{BundleRun, BundleRunSpec, BundleRunStatus, Phase};
use crate::cluster::{self, LOOK_AGAIN, WriteGuard};
use crate::names;
use crate::operator::Failure;

/// What to try.
#[derive(Clone, Debug)]
pub struct SmokeTest {
    /// Where.
    pub namespace: String,
    /// With which image; none: the default of the settings.
    pub image: Option<String>,
    /// As which user; none: the image's own, which namespaces at the Pod Security level restricted refuse.
    pub run_as_user: Option<i64>,
    /// Longest wait for its end.
    pub timeout: Duration,
}

const SAYS: &str = "a BundleRun ran here";

/// Makes the run, waits for its end, prints its record and deletes it.
///
/// # Errors
/// When it did not succeed in time.
pub async fn smoke_test(what: SmokeTest) -> Result<(), Failure> {
    let client = cluster::connect(&WriteGuard::default()).await?;
    let run = cluster::create_run(&client, &what.namespace, "smoke-test-", spec(what.image, what.run_as_user)?).await?;
    let name = run.metadata.name.unwrap_or_default();
    println!("created BundleRun {}/{name}", what.namespace);
    let result = follow(&client, &what.namespace, &name, what.timeout).await;
    cluster::delete_run(&client, &what.namespace, &name).await?;
    println!("deleted BundleRun {}/{name}", what.namespace);
    result
}

/// As small as a run can usefully be.
fn spec(image: Option<String>, run_as_user: Option<i64>) -> Result<BundleRunSpec, Failure> {
    let resources = Resources {
        cpus: Some(serde_json::from_value("50m".into())?),
        memory: Some(serde_json::from_value("64Mi".into())?),
        disk: Some(serde_json::from_value("32Mi".into())?),
        shared_memory: Some(serde_json::from_value("1Mi".into())?),
        ..Resources::default()
    };
    Ok(BundleRunSpec {
        image,
        command: Some(format!("echo {SAYS}")),
        resources,
        run_as_user,
        ..BundleRunSpec::default()
    })
}

async fn follow(client: &kube::Client, namespace: &str, name: &str, timeout: Duration) -> Result<(), Failure> {
    let until = Instant::now() + timeout;
    let mut told = String::new();
    loop {
        let status = match cluster::get_run(client, namespace, name).await {
            Ok(Some(BundleRun { status, .. })) => status.unwrap_or_default(),
            Ok(None) => return Err("somebody deleted it before it ended".into()),
            Err(error) => {
                println!("{error}; will be tried again");
                BundleRunStatus::default()
            }
        };
        let state = state(&status);
        if state != told {
            println!("{state}");
            told = state;
        }
        if status.phase.is_some_and(Phase::is_terminal) {
            println!("{}", serde_json::to_string_pretty(&status)?);
            return verdict(&status);
        }
        if Instant::now() >= until {
            return Err(format!("it has not ended within {}s: {told}", timeout.as_secs()).into());
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// What a person wants to know of it now.
fn state(status: &BundleRunStatus) -> String {
    if status.observed_generation.is_none_or(|generation| generation < 0) && status.phase != Some(Phase::Running) {
        return format!("no {} has looked at it yet", names::OPERATOR);
    }
    let phase = format!("{:?}", status.phase.unwrap_or_default());
    match &status.waiting {
        Some(waiting) => {
            let said = |text: &Option<String>| text.clone().unwrap_or_default();
            format!("{phase}: waits at {}: {}: {}", said(&waiting.stage), said(&waiting.reason), said(&waiting.message))
        }
        None => phase,
    }
}

fn verdict(status: &BundleRunStatus) -> Result<(), Failure> {
    let said = status.output.as_ref().and_then(|o| o.stdout_tail.as_deref()).unwrap_or_default();
    if status.phase != Some(Phase::Succeeded) {
        let message = status.message.clone().unwrap_or_default();
        return Err(format!("it ended as {:?}: {message}", status.phase.unwrap_or_default()).into());
    }
    if said.trim() != SAYS {
        return Err(format!("its record has another output than the command's: {said:?}").into());
    }
    println!("the run succeeded and its record has what its command said");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status(value: serde_json::Value) -> BundleRunStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_a_success_with_the_output_of_its_command_is_one() {
        let ended = |phase: &str, said: &str| status(json!({"phase": phase, "output": {"stdoutTail": said}}));
        assert!(verdict(&ended("Succeeded", "a BundleRun ran here\n")).is_ok());
        assert!(verdict(&ended("Succeeded", "")).is_err());
        assert!(verdict(&ended("Failed", "a BundleRun ran here\n")).is_err());
    }

    #[test]
    fn what_it_waits_for_is_said() {
        let untouched = status(json!({"phase": "Waiting", "observedGeneration": -1}));
        assert_eq!(state(&untouched), "no bundle-operator has looked at it yet");
        let waiting = json!({"stage": "Scheduling", "reason": "Unschedulable", "message": "no node"});
        let waits = status(json!({"phase": "Pending", "observedGeneration": 1, "waiting": waiting}));
        assert_eq!(state(&waits), "Pending: waits at Scheduling: Unschedulable: no node");
    }
}
