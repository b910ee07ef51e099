//! What may change once a run exists.

use serde_json::{Value, json};

use super::{Case, changed, everything_spec};

pub(super) fn changes() -> Vec<Case> {
    let mut cases = vec![
        changed("the same again", everything_spec(), everything_spec(), &[]),
        changed("suspend and stop may be added", json!({}), json!({"suspend": true, "stop": false}), &[]),
        changed("suspend may be taken back", json!({"suspend": true}), json!({}), &[]),
        changed("stop during a run", json!({}), json!({"stop": true}), &[]),
        changed("podRetention added", json!({}), json!({"podRetention": "0s"}), &[]),
        changed("podRetention changed", json!({"podRetention": "1h"}), json!({"podRetention": "1d"}), &[]),
        changed("podRetention removed", json!({"podRetention": "1h"}), json!({}), &[]),
        changed("a time to live added", json!({}), json!({"ttlSecondsAfterFinished": 0}), &[]),
        changed(
            "a time to live changed",
            json!({"ttlSecondsAfterFinished": 60}),
            json!({"ttlSecondsAfterFinished": 61}),
            &[],
        ),
        changed("a time to live removed", json!({"ttlSecondsAfterFinished": 60}), json!({}), &[]),
        changed(
            "command to argv",
            json!({"command": "a"}),
            json!({"argv": ["a"]}),
            &[("spec.command", "spec.command cannot change"), ("spec.argv", "spec.argv cannot change")],
        ),
        changed(
            "quantities that mean the same",
            json!({"resources": {"cpus": 1, "memory": "2Gi", "disk": "1Gi", "sharedMemory": "1Gi"}}),
            json!({"resources": {"cpus": "1000m", "memory": 2_147_483_648_i64, "disk": "1024Mi", "sharedMemory": "1024Mi"}}),
            &[],
        ),
        Case {
            only_server: true,
            ..changed(
                "the order of variables",
                json!({"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}),
                json!({"env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]}),
                &[],
            )
        },
        changed(
            "one variable",
            json!({"env": [{"name": "A", "value": "1"}]}),
            json!({"env": [{"name": "A", "value": "2"}]}),
            &[("spec.env", "spec.env cannot change")],
        ),
        changed("inputs added", json!({}), json!({"inputs": []}), &[("spec.inputs", "spec.inputs cannot change")]),
    ];
    let claim = |name: &str| json!([{"path": "a", "claim": {"name": name}}]);
    let fields: [(&str, &'static str, Value, Value); 20] = [
        ("image", "spec.image", json!("a"), json!("b")),
        ("command", "spec.command", json!("a"), json!("b")),
        ("volumes", "spec.volumes", claim("a"), claim("b")),
        ("timeLimit", "spec.timeLimit", json!("1h"), json!("2h")),
        ("stopGrace", "spec.stopGrace", json!("1m"), json!("60s")),
        ("nodeSelector", "spec.nodeSelector", json!({"a": "b"}), json!({"a": "c"})),
        ("tolerations", "spec.tolerations", json!([{"key": "a"}]), json!([{"key": "b"}])),
        ("priorityClassName", "spec.priorityClassName", json!("a"), json!("b")),
        ("schedulerName", "spec.schedulerName", json!("a"), json!("b")),
        ("imagePullSecrets", "spec.imagePullSecrets", json!([{"name": "a"}]), json!([{"name": "b"}])),
        ("serviceAccountName", "spec.serviceAccountName", json!("a"), json!("b")),
        ("runAsUser", "spec.runAsUser", json!(1), json!(2)),
        ("fsGroup", "spec.fsGroup", json!(1), json!(2)),
        ("podLabels", "spec.podLabels", json!({"a": "b"}), json!({"a": "c"})),
        ("podAnnotations", "spec.podAnnotations", json!({"a": "b"}), json!({"c": "b"})),
        ("gpuProfile", "spec.gpuProfile", json!("default"), Value::Null),
        ("outputs", "spec.outputs", json!({}), Value::Null),
        ("retry", "spec.retry", json!({"limit": 0}), json!({"interruptions": 3})),
        ("allowFailedInputs", "spec.allowFailedInputs", json!(false), Value::Null),
        ("onInputFailure", "spec.onInputFailure", json!("Fail"), json!("Wait")),
    ];
    for (field, at, one, other) in fields {
        let errors = [(at, "cannot change once the run exists")];
        let spec = |value: &Value| {
            if value.is_null() { json!({}) } else { json!({field: value}) }
        };
        if !other.is_null() {
            cases.push(changed(&format!("{field} changed"), spec(&one), spec(&other), &errors));
        }
        if field != "command" {
            cases.push(changed(&format!("{field} added"), json!({}), spec(&one), &errors));
            cases.push(changed(&format!("{field} removed"), spec(&one), json!({}), &errors));
        }
    }
    let group = |group: Value| json!({"runAsUser": 1, "runAsGroup": group});
    let of_group = [("spec.runAsGroup", "cannot change once the run exists")];
    cases.push(changed("runAsGroup changed", group(json!(1)), group(json!(2)), &of_group));
    cases.push(changed("runAsGroup added", json!({"runAsUser": 1}), group(json!(1)), &of_group));
    cases.push(changed("runAsGroup removed", group(json!(1)), json!({"runAsUser": 1}), &of_group));
    let quantities: [(&str, &'static str, Value, Value); 6] = [
        ("gpus", "spec.resources.gpus", json!(1), json!(2)),
        ("cpus", "spec.resources.cpus", json!(1), json!("1001m")),
        ("memory", "spec.resources.memory", json!("2Gi"), json!("2G")),
        ("disk", "spec.resources.disk", json!("2Gi"), json!("3Gi")),
        ("sharedMemory", "spec.resources.sharedMemory", json!("1Gi"), json!("2Mi")),
        ("extended", "spec.resources.extended", json!({"rdma/hca": 1}), json!({"rdma/hca": 2})),
    ];
    for (field, at, one, other) in quantities {
        let errors = [(at, "cannot change once the run exists")];
        let spec = |value: &Value| json!({"resources": {field: value}});
        cases.push(changed(&format!("{field} changed"), spec(&one), spec(&other), &errors));
        cases.push(changed(&format!("{field} added"), json!({"resources": {}}), spec(&one), &errors));
        cases.push(changed(&format!("{field} removed"), spec(&one), json!({"resources": {}}), &errors));
    }
    cases.push(changed(
        "resources added",
        json!({}),
        json!({"resources": {"gpus": 1}}),
        &[("spec.resources", "spec.resources cannot change")],
    ));
    cases.push(changed(
        "resources removed",
        json!({"resources": {"gpus": 1}}),
        json!({}),
        &[("spec.resources", "spec.resources cannot change")],
    ));
    cases
}
