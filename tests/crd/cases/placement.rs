//! Where a pod runs, as whom, and with whose credentials.

use serde_json::{Value, json};

use super::pod::{longest_keys, too_long_keys};
use super::{Case, accepted, refused};

pub(super) fn cases() -> Vec<Case> {
    let selector = |key: &str, value: &str| json!({"nodeSelector": {key: value}});
    let toleration = |toleration: Value| json!({"tolerations": [toleration]});
    let exists = ("spec.tolerations[0]", "operator must be Exists");
    let mut cases = Vec::new();
    for key in longest_keys() {
        cases.push(accepted(&format!("node label {key}"), selector(&key, "a")));
    }
    for key in
        ["", "a/b/c", "-a", "A/b", "a b", "/a", "a/", "a..b/c"].map(str::to_owned).into_iter().chain(too_long_keys())
    {
        cases.push(refused(
            &format!("node label {key:?}"),
            selector(&key, "a"),
            &[("spec.nodeSelector", "label names")],
        ));
    }
    for key in ["a b".to_owned()].into_iter().chain(too_long_keys()) {
        let name = format!("a toleration of {key:?}");
        cases.push(refused(&name, toleration(json!({"key": key})), &[("spec.tolerations[0]", "key must be a name")]));
    }
    cases.extend([
        refused("a bad label value", selector("a", "b c"), &[("spec.nodeSelector.a", "should match")]),
        refused("a long label value", selector("a", &"b".repeat(64)), &[("spec.nodeSelector.a", "Too long")]),
        refused(
            "33 node labels",
            json!({"nodeSelector": (0..33).map(|n| (format!("a{n}"), json!(""))).collect::<serde_json::Map<_, _>>()}),
            &[("spec.nodeSelector", "Too many")],
        ),
        accepted("a GPU profile", json!({"gpuProfile": "mig-1g"})),
        refused("a bad name of a GPU profile", json!({"gpuProfile": "A"}), &[("spec.gpuProfile", "should match")]),
        accepted("a toleration by default operator", toleration(json!({"key": "a", "value": "b"}))),
        refused("a toleration of nothing", toleration(json!({})), &[exists]),
        refused(
            "a toleration without key",
            toleration(json!({"operator": "Equal", "key": "", "value": "a"})),
            &[exists],
        ),
        refused(
            "a toleration of any value with a value",
            toleration(json!({"operator": "Exists", "value": "a"})),
            &[("spec.tolerations[0]", "there can be no value")],
        ),
        refused(
            "a toleration for a time of what evicts nothing",
            toleration(json!({"key": "a", "effect": "NoSchedule", "tolerationSeconds": 1})),
            &[("spec.tolerations[0]", "needs effect NoExecute")],
        ),
        refused(
            "an unknown operator",
            toleration(json!({"key": "a", "operator": "Like"})),
            &[("spec.tolerations[0].operator", "Unsupported value")],
        ),
        refused(
            "33 tolerations",
            json!({"tolerations": vec![json!({"key": "a"}); 33]}),
            &[("spec.tolerations", "Too many")],
        ),
        accepted("root", json!({"runAsUser": 0})),
        accepted("the largest user id", json!({"runAsUser": 2_147_483_647})),
        refused("a negative user id", json!({"runAsUser": -1}), &[("spec.runAsUser", "should be greater than")]),
        refused(
            "a user id that is too large",
            json!({"runAsUser": 2_147_483_648_i64}),
            &[("spec.runAsUser", "should be less than")],
        ),
        refused(
            "17 pull secrets",
            json!({"imagePullSecrets": (0..17).map(|n| json!({"name": format!("s{n}")})).collect::<Vec<_>>()}),
            &[("spec.imagePullSecrets", "Too many")],
        ),
        refused(
            "a pull secret twice",
            json!({"imagePullSecrets": [{"name": "a"}, {"name": "a"}]}),
            &[("spec.imagePullSecrets[1]", "Duplicate value")],
        ),
    ]);
    for (field, at) in [
        ("priorityClassName", "spec.priorityClassName"),
        ("schedulerName", "spec.schedulerName"),
        ("serviceAccountName", "spec.serviceAccountName"),
    ] {
        cases.push(refused(&format!("{field} with a bad name"), json!({field: "A_b"}), &[(at, "should match")]));
        cases.push(refused(&format!("{field} too long"), json!({field: "a".repeat(254)}), &[(at, "Too long")]));
    }
    cases
}
