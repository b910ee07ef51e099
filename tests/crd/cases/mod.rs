//! Objects and what the API server says of them. Used in process and against a real API server: both must agree.

#![allow(clippy::indexing_slicing, clippy::too_many_lines)] // tables of JSON values made here

mod amounts;
mod changes;
mod limits;
mod paths;
mod placement;
mod pod;
mod process;

use serde_json::{Value, json};

/// One object, or one change of an object.
pub(crate) struct Case {
    /// What it claims.
    pub(crate) name: String,
    /// `metadata.name` of the object.
    pub(crate) object_name: String,
    /// `spec` before the change; none: the object is created.
    pub(crate) old: Option<Value>,
    /// `spec`
    pub(crate) spec: Value,
    /// Not for kube's CEL, which panics on quantities over 38 digits, trims them, and does not know that the order of a
    /// list-map is free.
    #[allow(dead_code)] // read in process only
    pub(crate) only_server: bool,
    /// Every error, as (field, part of the message); none: accepted.
    pub(crate) errors: Vec<(&'static str, &'static str)>,
}

impl Case {
    /// Every expected error is among these (field, message), and no other.
    pub(crate) fn agrees(&self, errors: &[(String, String)]) -> bool {
        let same = |(field, message): &(String, String), (expected_field, part): &(&str, &str)| {
            field == expected_field && message.contains(part)
        };
        errors.iter().all(|error| self.errors.iter().any(|expected| same(error, expected)))
            && self.errors.iter().all(|expected| errors.iter().any(|error| same(error, expected)))
    }
}

fn case(name: &str, spec: Value, errors: &[(&'static str, &'static str)]) -> Case {
    Case {
        name: name.to_owned(),
        object_name: "run".to_owned(),
        old: None,
        spec,
        only_server: false,
        errors: errors.to_vec(),
    }
}

fn accepted(name: &str, fields: Value) -> Case {
    case(name, with_command(fields), &[])
}

fn refused(name: &str, fields: Value, errors: &[(&'static str, &'static str)]) -> Case {
    assert!(!errors.is_empty(), "{name}");
    case(name, with_command(fields), errors)
}

fn changed(name: &str, old: Value, new: Value, errors: &[(&'static str, &'static str)]) -> Case {
    Case { old: Some(with_command(old)), ..case(name, with_command(new), errors) }
}

/// `fields` and a command, unless they have their own.
fn with_command(fields: Value) -> Value {
    let mut spec = fields;
    if spec["command"].is_null() && spec["argv"].is_null() {
        spec["command"] = json!("true");
    }
    spec
}

/// All cases.
pub(crate) fn all() -> Vec<Case> {
    [
        vec![everything()],
        shape(),
        process::commands(),
        process::images(),
        process::env(),
        paths::volumes(),
        paths::inputs(),
        paths::exclude(),
        amounts::resources(),
        amounts::durations(),
        placement::cases(),
        limits::cases(),
        pod::cases(),
        changes::changes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Every field that works now, at once.
fn everything_spec() -> Value {
    json!({
        "image": "registry.example.com:5000/team/trainer:v1.2",
        "command": "python train.py\necho \"$$ $(NAME)\" # done",
        "env": [
            {"name": "SEED", "value": "7"},
            {"name": "EMPTY", "value": ""},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "wandb", "key": "token", "optional": true}}},
            {"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "mode.txt"}}},
        ],
        "inputs": [
            {"path": "train.csv", "run": {"name": "prepare", "path": "a/train.csv", "snapshot": "latest"}},
            {"path": "scripts", "configMap": {"name": "scripts"}},
        ],
        "volumes": [
            {"path": "checkpoints", "claim": {"name": "mine", "path": "a/b"}},
            {"path": "/data", "claim": {"name": "shared"}},
        ],
        "resources": {"gpus": 2, "cpus": "1500m", "memory": "8Gi", "disk": "20Gi", "sharedMemory": "1Gi",
            "extended": {"rdma/hca": 1}},
        "gpuProfile": "default",
        "timeLimit": "1d2h3m4s",
        "stopGrace": "1m30s",
        "outputs": {"exclude": ["*.tmp"], "snapshots": {"every": "10m", "exclude": ["logs"]}},
        "retry": {"limit": 2, "interruptions": 300, "backoff": "1m", "causes": ["CommandFailed", "OutOfMemory"], "resume": true},
        "allowFailedInputs": true,
        "onInputFailure": "Wait",
        "suspend": false,
        "stop": false,
        "podRetention": "10m",
        "ttlSecondsAfterFinished": 604_800,
        "nodeSelector": {"example.com/zone": "a", "empty": ""},
        "tolerations": [
            {"key": "dedicated", "operator": "Equal", "value": "ml", "effect": "NoSchedule"},
            {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60},
        ],
        "priorityClassName": "low",
        "schedulerName": "my.scheduler",
        "imagePullSecrets": [{"name": "login"}],
        "serviceAccountName": "research",
        "runAsUser": 1000,
        "runAsGroup": 1000,
        "fsGroup": 0,
        "podLabels": {"team": "ml", "example.com/a": ""},
        "podAnnotations": {"karpenter.sh/do-not-disrupt": "true", "cluster-autoscaler.kubernetes.io/safe-to-evict": "false"},
    })
}

fn everything() -> Case {
    case("every field that works now", everything_spec(), &[])
}

fn shape() -> Vec<Case> {
    let long_name = |length: usize| "n".repeat(length);
    vec![
        Case { object_name: long_name(52), ..accepted("a name of 52 characters", json!({})) },
        Case {
            object_name: long_name(53),
            ..refused("a name of 53 characters", json!({}), &[("", "metadata.name: at most 52 characters")])
        },
        accepted("null is no value", json!({"image": null, "argv": null, "env": null, "resources": {"cpus": null}})),
        refused("a text is no number", json!({"runAsUser": "1"}), &[("spec.runAsUser", "must be of type")]),
        refused("a text is no truth", json!({"stop": "yes"}), &[("spec.stop", "must be of type")]),
        refused("a number is no truth", json!({"suspend": 1}), &[("spec.suspend", "must be of type")]),
        refused(
            "a number is no truth",
            json!({"allowFailedInputs": 1}),
            &[("spec.allowFailedInputs", "must be of type")],
        ),
        refused(
            "a word that we do not have",
            json!({"onInputFailure": "Retry"}),
            &[("spec.onInputFailure", "Unsupported value")],
        ),
        refused(
            "an end that is not tried again",
            json!({"retry": {"causes": ["CommandFailed", "InputInvalid"]}}),
            &[("spec.retry.causes[1]", "Unsupported value")],
        ),
        accepted("a field we do not have is dropped", json!({"nodeName": "a"})),
    ]
}
