//! What must hold whatever goes wrong: I1 to I8 of docs/crash-sweep.md.

use std::collections::{BTreeMap, HashMap, HashSet};

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::kubelet;
use crate::world::{Seen, State, is_terminal};

/// What a case leaves, to be compared with what another leaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Runs and pods at the end, without times, uids and the name of the namespace.
    pub end: Value,
    /// How often a pod of each name was made, and how often it was deleted.
    pub pods: BTreeMap<String, (usize, usize)>,
    /// How often the command began.
    pub begun: usize,
}

impl Outcome {
    pub fn of(state: &State, namespace: &str) -> Self {
        let runs: BTreeMap<_, _> =
            state.runs.keys().map(|name| (name.clone(), plain(state.status(name), namespace))).collect();
        let pod = |pod: &Pod| {
            let is_held = pod.metadata.finalizers.iter().flatten().next().is_some();
            json!({"phase": kubelet::phase(pod), "held": is_held, "deleting": pod.metadata.deletion_timestamp.is_some()})
        };
        let pods: BTreeMap<_, _> = state.pods.iter().map(|(name, seen)| (name.clone(), pod(seen))).collect();
        let mut made: BTreeMap<String, (HashSet<&str>, HashSet<&str>)> = BTreeMap::new();
        let mut begun = 0;
        for seen in &state.history {
            match seen {
                Seen::Pod { name, uid, is_deleting, .. } => {
                    let (made, deleted) = made.entry(name.clone()).or_default();
                    made.insert(uid);
                    if *is_deleting {
                        deleted.insert(uid);
                    }
                }
                Seen::Began { .. } => begun += 1,
                _ => {}
            }
        }
        let made = made.into_iter().map(|(name, (made, deleted))| (name, (made.len(), deleted.len()))).collect();
        Self { end: json!({"runs": runs, "pods": pods}), pods: made, begun }
    }
}

/// Without what differs from one undisturbed run to the next.
fn plain(value: Value, namespace: &str) -> Value {
    match value {
        Value::Object(fields) => {
            let differs = |name: &str| {
                ["uid", "since", "deadline", "until", "duration", "timeline"].contains(&name)
                    || name.ends_with("Time")
                    || name.ends_with("Uid")
                    || name.ends_with("At")
            };
            fields
                .into_iter()
                .filter(|(name, _)| !differs(name))
                .map(|(name, value)| (name, plain(value, namespace)))
                .collect()
        }
        Value::Array(items) => {
            let mut items: Vec<_> = items.into_iter().map(|item| plain(item, namespace)).collect();
            // Conditions: their order says nothing.
            items.sort_by_key(|item| item["type"].as_str().map(str::to_owned));
            items.into()
        }
        Value::String(text) => Value::String(text.replace(namespace, "NAMESPACE")),
        other => other,
    }
}

/// What of I1 to I5 does not hold.
pub fn violations(state: &State) -> Vec<String> {
    let mut problems = vec![];
    let mut alive: HashMap<&str, HashSet<&str>> = HashMap::new();
    let mut begun: HashMap<&str, Vec<u32>> = HashMap::new();
    let mut over: HashMap<&str, Value> = HashMap::new();
    let mut reported: HashMap<(&str, u32), i32> = HashMap::new();
    for seen in &state.history {
        match seen {
            Seen::Pod { uid, run_uid, lives, name, .. } => {
                let alive = alive.entry(run_uid).or_default();
                if *lives {
                    alive.insert(uid);
                } else {
                    alive.remove(uid.as_str());
                }
                if alive.len() > 1 {
                    problems.push(format!("I1: {} pods of one run live when {name} is seen", alive.len()));
                }
            }
            Seen::PodGone { uid, run_uid } => drop(alive.entry(run_uid).or_default().remove(uid.as_str())),
            Seen::Began { run_uid, attempt } => {
                let begun = begun.entry(run_uid).or_default();
                if begun.contains(attempt) {
                    problems.push(format!("I2: the command of attempt {attempt} began twice"));
                }
                begun.push(*attempt);
                if over.contains_key(run_uid.as_str()) {
                    problems.push(format!("I2: the command of attempt {attempt} began after the end of the run"));
                }
            }
            Seen::Reported { run_uid, attempt, exit_code } => drop(reported.insert((run_uid, *attempt), *exit_code)),
            Seen::Run { name, uid, status } => {
                let mut record = status.clone();
                if let Some(fields) = record.as_object_mut() {
                    fields.remove("observedGeneration");
                    // Conditions have the generation, too.
                    for condition in fields.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
                        condition.as_object_mut().map(|condition| condition.remove("observedGeneration"));
                    }
                }
                match over.get(uid.as_str()) {
                    Some(before) if *before != record => {
                        problems.push(format!("I3: the end of {name} changed: {before} -> {record}"));
                    }
                    _ => {}
                }
                let phase = status["phase"].as_str().unwrap_or_default();
                if is_terminal(phase) {
                    over.insert(uid, record);
                    problems.extend(record_is_wrong(name, status, |attempt| {
                        reported.get(&(uid.as_str(), attempt)).copied()
                    }));
                } else if status["message"].as_str().unwrap_or_default().is_empty()
                    && status["waiting"].is_null()
                    && phase != "Running"
                {
                    // That it does not stay so the end of the case says.
                    problems.push(format!("I4: {name} does not say where it is: {status}"));
                }
            }
            Seen::RunGone => {}
        }
    }
    problems.dedup();
    problems
}

/// I5: exit code and digest are those that the runner and the store have.
fn record_is_wrong(name: &str, status: &Value, reported: impl Fn(u32) -> Option<i32>) -> Option<String> {
    let attempt = u32::try_from(status["attempt"].as_u64()?).ok()?;
    let code = reported(attempt);
    let bundle = status["output"]["bundle"].as_str();
    let is_right = match code {
        Some(code) => {
            status["exitCode"] == code && bundle.is_some_and(|bundle| bundle.ends_with(&kubelet::digest(attempt)))
        }
        None => status["exitCode"].is_null() && bundle.is_none() && status["phase"] != "Succeeded",
    };
    (!is_right).then(|| format!("I5: {name} has not what attempt {attempt} left ({code:?}): {status}"))
}
