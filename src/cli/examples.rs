//! Runs for tests.

use std::convert::Infallible;

use clap::Parser as _;
use http::{Request, Response};
use jiff::Timestamp;
use kube::client::Body;
use serde_json::{Value, json};

use crate::api::BundleRun;

use super::Cli;
use super::session::{Connection, Out, Session};

pub(super) const DIGEST: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// When they are looked at.
pub(super) fn now() -> Timestamp {
    "2026-11-26T10:00:00Z".parse().unwrap()
}

fn run(name: &str, spec: &Value, status: &Value) -> BundleRun {
    let metadata = json!({"name": name, "namespace": "a", "uid": "u-1", "creationTimestamp": "2026-11-26T09:00:00Z"});
    let run = json!({
        "apiVersion": "bundlerun.dev/v1alpha1", "kind": "BundleRun", "metadata": metadata, "spec": spec,
        "status": status,
    });
    serde_json::from_value(run).unwrap()
}

pub(super) fn new() -> BundleRun {
    BundleRun { status: None, ..run("fresh", &json!({"command": "true"}), &json!({})) }
}

pub(super) fn succeeded() -> BundleRun {
    let spec = json!({
        "image": "python:3.13",
        "command": "python train.py",
        "resources": {"cpus": "2", "memory": "4Gi"},
        "inputs": [
            {"path": "data", "run": {"name": "prepare", "path": "train.csv"}},
            {"path": "scripts", "configMap": {"name": "scripts"}},
        ],
    });
    let inputs = json!([
        {"path": "data", "digest": DIGEST, "reference": format!("r.example/a@{DIGEST}"), "runUid": "u-0"},
        {"path": "scripts", "digest": DIGEST},
    ]);
    let status = json!({
        "phase": "Succeeded", "reason": "Completed", "message": "the command exited with 0", "observedGeneration": 1,
        "attempt": 1, "node": "n1", "startTime": "2026-11-26T09:01:00Z", "finishTime": "2026-11-26T09:02:05Z",
        "duration": "1m5s", "exitCode": 0, "result": {"cause": "Completed"},
        "image": {"requested": "python:3.13", "digest": DIGEST, "reference": format!("docker.io/library/python@{DIGEST}")},
        "inputs": inputs,
        "usage": {"wallMilliseconds": 65_000, "cpuUserMilliseconds": 60_000, "cpuSystemMilliseconds": 1_500,
            "memoryPeakBytes": 1_073_741_824},
        "output": {"bundle": format!("r.example/a@{DIGEST}"), "files": 3, "bytes": 2048,
            "stdoutTail": "epoch 1\nepoch 2\n", "stderrTail": ""},
    });
    run("hello", &spec, &status)
}

pub(super) fn waiting() -> BundleRun {
    let waiting = json!({
        "stage": "Scheduling", "reason": "Unschedulable", "message": "no node has 99 nvidia.com/gpu: the largest has 8",
        "hint": "ask for fewer GPUs", "since": "2026-11-26T09:30:00Z", "until": "no deadline",
    });
    let status = json!({
        "phase": "Pending", "reason": "Unschedulable", "message": "no node has 99 nvidia.com/gpu",
        "observedGeneration": 1, "attempt": 1, "waiting": waiting,
    });
    run("big", &json!({"image": "python:3.13", "command": "true", "resources": {"gpus": 99}}), &status)
}

/// After an attempt that the platform interrupted.
pub(super) fn failed() -> BundleRun {
    let attempts = json!([
        {"attempt": 1, "pod": "wrong-1", "node": "n1", "cause": "PodDeleted", "message": "somebody deleted the pod",
            "startTime": "2026-11-26T09:00:10Z", "finishTime": "2026-11-26T09:00:20Z"},
        {"attempt": 2, "pod": "wrong-2", "node": "n2", "startTime": "2026-11-26T09:01:00Z"},
    ]);
    let status = json!({
        "phase": "Failed", "reason": "TimeLimitExceeded", "message": "the command ran longer than timeLimit",
        "observedGeneration": 1, "attempt": 2, "node": "n2", "startTime": "2026-11-26T09:01:00Z",
        "finishTime": "2026-11-26T09:01:10Z", "duration": "10s", "signal": 15, "attempts": attempts,
        "result": {"cause": "TimeLimitExceeded", "blame": "User", "hint": "raise timeLimit in a new run"},
        "output": {"stdoutTail": "step 1\nstep 2\n", "stderrTail": "\u{1b}[31mslow\u{1b}[0m\n"},
    });
    run("wrong", &json!({"command": "sleep 60", "timeLimit": "10s"}), &status)
}

/// What it says would act on a terminal.
pub(super) fn hostile() -> BundleRun {
    let escape = "evil\u{1b}[2J\u{1b}]0;title\u{7}\r\n line";
    let status = json!({
        "phase": "Failed", "reason": "CommandFailed", "message": escape, "observedGeneration": 1, "attempt": 1,
        "duration": "0s", "exitCode": 3,
        "result": {"cause": "CommandFailed", "blame": "User", "hint": escape},
        "output": {"stdoutTail": escape, "stderrTail": escape},
    });
    run("hostile", &json!({"command": escape}), &status)
}

/// To an API server that answers so to a path and its query.
pub(super) fn connection(answer: impl Fn(&str, &str) -> (u16, Value) + Send + 'static) -> Connection {
    let server = tower::service_fn(move |request: Request<Body>| {
        let (code, body) = answer(request.uri().path(), request.uri().query().unwrap_or_default());
        let answer = Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).unwrap();
        async move { Ok::<_, Infallible>(answer) }
    });
    Connection { client: kube::Client::new(server, "a"), namespace: "a".to_owned() }
}

/// What an API server answers that has no such right for the user.
pub(super) fn forbidden(verb: &str, resource: &str) -> (u16, Value) {
    let message = format!("{resource} is forbidden: User \"u\" cannot {verb} resource \"{resource}\"");
    (
        403,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Forbidden",
        "code": 403, "message": message}),
    )
}

pub(super) fn session() -> Session {
    let cli = Cli::try_parse_from(["kubectl-bundle", "ls"]).unwrap();
    Session { global: cli.global, out: Out::new() }
}
