//! What is done with runs while requests of the operator go wrong.

use std::time::Duration;

use bundlerun::api::BundleRun;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::kubelet::SCRIPT;
use crate::world::{Space, State};

const IMAGE: &str = "registry.example.com/cpu@sha256:0000000000000000000000000000000000000000000000000000000000000001";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    Success,
    FailureAndRetry,
    InputOfARun,
    Stop,
    SuspendAndResume,
    Delete,
    InterruptionAndResume,
    NodeLoss,
    Retention,
}

impl Scenario {
    pub const ALL: [Self; 9] = [
        Self::Success,
        Self::FailureAndRetry,
        Self::InputOfARun,
        Self::Stop,
        Self::SuspendAndResume,
        Self::Delete,
        Self::InterruptionAndResume,
        Self::NodeLoss,
        Self::Retention,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::FailureAndRetry => "failure, retried",
            Self::InputOfARun => "input of another run",
            Self::Stop => "stop",
            Self::SuspendAndResume => "suspended, resumed",
            Self::Delete => "deleted",
            Self::InterruptionAndResume => "drained, resumed",
            Self::NodeLoss => "node lost",
            Self::Retention => "retention",
        }
    }

    /// The runs that are there when the operator starts: each with its script.
    pub fn runs(self) -> Vec<Value> {
        match self {
            Self::Success => vec![run("a", "runs:0", json!({}))],
            Self::FailureAndRetry => vec![run("a", "exits:3 runs:0", json!({"retry": {"limit": 1, "backoff": "1s"}}))],
            Self::InputOfARun => vec![run("b", "exits:0", json!({"inputs": [{"path": "in", "run": {"name": "a"}}]}))],
            Self::Stop | Self::Delete => vec![run("a", "waits", json!({}))],
            Self::SuspendAndResume => vec![run("a", "waits runs:0", json!({}))],
            Self::InterruptionAndResume => {
                let spec = json!({"retry": {"resume": true}, "outputs": {"snapshots": {"every": "10s"}},
                    "podAnnotations": {"sweep.example.com/resumes": "yes"}});
                vec![run("a", "drained runs:0", spec)]
            }
            Self::NodeLoss => vec![run("a", "lost runs:0", json!({}))],
            Self::Retention => vec![
                run("a", "exits:0", json!({"podRetention": "2s"})),
                run("b", "exits:0", json!({"ttlSecondsAfterFinished": 2})),
            ],
        }
    }

    /// What the user does, and until when it is waited: the end state.
    pub async fn play(self, space: &Space) -> Result<(), String> {
        let runs = |state: &State| state.phase("a") == "Running";
        match self {
            Self::InputOfARun => {
                let waits = |state: &State| state.status("b")["waiting"]["stage"] == "Inputs";
                space.until("b waits for its input", waits).await?;
                create(space, run("a", "runs:0", json!({}))).await?;
            }
            Self::Stop => {
                space.until("a runs", runs).await?;
                change(space, json!({"stop": true})).await?;
            }
            Self::SuspendAndResume => {
                space.until("a runs", runs).await?;
                change(space, json!({"suspend": true})).await?;
                let is_held = |state: &State| state.phase("a") == "Waiting" && state.are_pods_released();
                space.until("a is suspended", is_held).await?;
                change(space, json!({"suspend": false})).await?;
            }
            Self::Delete => {
                space.until("a runs", runs).await?;
                delete(space, "a").await?;
            }
            _ => {}
        }
        let what = format!("the end of {}", self.name());
        space.until(&what, |state| self.is_at_its_end(state)).await
    }

    fn is_at_its_end(self, state: &State) -> bool {
        let over = |runs: &[&str]| runs.iter().all(|run| state.is_over(run)) && state.are_pods_released();
        match self {
            Self::InputOfARun => over(&["a", "b"]),
            Self::Delete => state.runs.is_empty() && state.pods.is_empty(),
            Self::Retention => over(&["a"]) && !state.runs.contains_key("b") && state.pods.is_empty(),
            _ => over(&["a"]),
        }
    }
}

fn run(name: &str, script: &str, more: Value) -> Value {
    let mut spec = json!({"image": IMAGE, "command": "true", "schedulerName": "scripted",
        "podAnnotations": {SCRIPT: script}});
    merge(&mut spec, more);
    json!({"apiVersion": "bundlerun.dev/v1alpha1", "kind": "BundleRun", "metadata": {"name": name}, "spec": spec})
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (name, value) in more {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

/// A run that is looked at and written once, and for which nothing is made.
pub fn marker() -> Value {
    run(MARKER, "waits", json!({"suspend": true}))
}

pub const MARKER: &str = "marker";

/// What the test itself asks: again where the connection failed, as on a busy machine.
async fn done<T>(what: &str, ask: impl AsyncFn() -> kube::Result<T>) -> Result<(), String> {
    let mut tries = 0;
    loop {
        match ask().await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_already_exists() => return Ok(()),
            Err(error) if tries == 20 => return Err(format!("{what}: {error}")),
            Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
        }
        tries += 1;
    }
}

pub async fn create(space: &Space, run: Value) -> Result<(), String> {
    let run: BundleRun = serde_json::from_value(run).map_err(|e| e.to_string())?;
    let runs = space.runs();
    done("create a run", async || runs.create(&PostParams::default(), &run).await).await
}

async fn change(space: &Space, spec: Value) -> Result<(), String> {
    let (runs, patch) = (space.runs(), Patch::Merge(json!({"spec": spec})));
    done("change a", async || runs.patch("a", &PatchParams::default(), &patch).await).await
}

pub async fn delete(space: &Space, name: &str) -> Result<(), String> {
    let runs = space.runs();
    done("delete a run", async || runs.delete(name, &DeleteParams::background()).await).await
}
