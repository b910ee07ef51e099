//! What a run adds to its pod: groups, labels, annotations, other resources.

use serde_json::{Map, Value, json};

use super::{Case, accepted, refused};

pub(super) fn cases() -> Vec<Case> {
    groups().into_iter().chain(metadata()).chain(extended()).collect()
}

fn groups() -> Vec<Case> {
    let (least, most) = (json!(0), json!(2_147_483_647));
    let user = |group: &Value| json!({"runAsUser": 1, "runAsGroup": group});
    let volumes = |group: &Value| json!({"fsGroup": group});
    let (greater, less) = ("should be greater", "should be less");
    vec![
        accepted("the group of root", user(&least)),
        accepted("the largest group", user(&most)),
        refused("a negative group", user(&json!(-1)), &[("spec.runAsGroup", greater)]),
        refused("a group that is too large", user(&json!(2_147_483_648_i64)), &[("spec.runAsGroup", less)]),
        refused("a group without a user", json!({"runAsGroup": 1}), &[("spec.runAsGroup", "needs runAsUser")]),
        accepted("volumes of root's group", volumes(&least)),
        accepted("volumes of the largest group", volumes(&most)),
        refused("volumes of a negative group", volumes(&json!(-1)), &[("spec.fsGroup", greater)]),
        refused("volumes of a group that is too large", volumes(&json!(2_147_483_648_i64)), &[("spec.fsGroup", less)]),
    ]
}

fn metadata() -> Vec<Case> {
    let mut cases = Vec::new();
    let many = |count: usize| (0..count).map(|n| (format!("a{n}"), json!(""))).collect::<Map<_, _>>();
    let fields = [
        ("podLabels", "spec.podLabels", "spec.podLabels.a", 63),
        ("podAnnotations", "spec.podAnnotations", "spec.podAnnotations.a", 8000),
    ];
    for (field, at, value_at, longest) in fields {
        let one = |key: &str, value: &str| json!({field: {key: value}});
        for key in ["team", "example.com/team", "cluster-autoscaler.kubernetes.io/safe-to-evict", "notbundlerun.dev/a"]
            .map(str::to_owned)
            .into_iter()
            .chain(longest_keys())
        {
            cases.push(accepted(&format!("{field} {key}"), one(&key, "a")));
        }
        for key in ["", "a/b/c", "-a", "a b", "/a", "a/", "a..b/c", "a.-b/c"]
            .map(str::to_owned)
            .into_iter()
            .chain(too_long_keys())
        {
            cases.push(refused(&format!("{field} {key:?}"), one(&key, "a"), &[(at, "keys must be names")]));
        }
        for key in ["bundlerun.dev/run", "app.kubernetes.io/name", "kueue.x-k8s.io/queue-name", "a.kueue.x-k8s.io/b"] {
            cases.push(refused(&format!("{field} {key}"), one(key, "a"), &[(at, "are the platform's")]));
        }
        cases.push(accepted(&format!("{field}: 32"), json!({field: many(32)})));
        cases.push(refused(&format!("{field}: 33"), json!({field: many(33)}), &[(at, "Too many")]));
        cases.push(refused(
            &format!("a long one of {field}"),
            one("a", &"b".repeat(longest + 1)),
            &[(value_at, "Too long")],
        ));
    }
    for key in [
        "container.apparmor.security.beta.kubernetes.io/run",
        "container.seccomp.security.alpha.kubernetes.io/run",
        "seccomp.security.alpha.kubernetes.io/pod",
    ] {
        let one = json!({"podAnnotations": {key: "unconfined"}});
        cases.push(refused(key, one, &[("spec.podAnnotations", "AppArmor and seccomp profiles are the platform's")]));
        // They mean nothing as labels.
        cases.push(accepted(&format!("the label {key}"), json!({"podLabels": {key: "unconfined"}})));
    }
    let annotation = |length: usize| json!({"podAnnotations": {"a": "b".repeat(length)}});
    let too_much = [("spec.podAnnotations", "at most 8000 bytes")];
    cases.extend([
        accepted("a label of 63 characters", json!({"podLabels": {"a": "b".repeat(63)}})),
        refused("a label of two words", json!({"podLabels": {"a": "b c"}}), &[("spec.podLabels.a", "should match")]),
        accepted("an annotation of any text", json!({"podAnnotations": {"a": "{\"b\": [1]}\n"}})),
        accepted("annotations of 8000 bytes", annotation(7999)),
        refused("annotations of 8001 bytes", annotation(8000), &too_much),
        refused(
            "annotations of few characters and many bytes",
            json!({"podAnnotations": {"a": "é".repeat(4000)}}),
            &too_much,
        ),
    ]);
    cases
}

/// At the bounds of what is behind the slash and before it.
pub(super) fn longest_keys() -> [String; 2] {
    ["a".repeat(63), format!("{}/{}", "a".repeat(253), "b".repeat(63))]
}

/// Beyond one of them.
pub(super) fn too_long_keys() -> [String; 3] {
    ["a".repeat(64), format!("a/{}", "b".repeat(64)), format!("{}/b", "a".repeat(254))]
}

fn extended() -> Vec<Case> {
    let of = |name: &str, amount: Value| json!({"resources": {"extended": {name: amount}}});
    let at = "spec.resources.extended";
    let mut cases = Vec::new();
    for (name, amount) in [
        ("rdma/hca", json!(1)),
        ("example.com/fpga", json!("1")),
        ("example.com/fpga", json!("2k")),
        ("hugepages-2Mi", json!("512Mi")),
        ("hugepages-1Gi", json!(1_073_741_824)),
        ("hugepages-2Mi", json!("1Gi")),
    ] {
        cases.push(accepted(&format!("{name}: {amount}"), of(name, amount)));
    }
    let names = [
        "cpu",
        "memory",
        "nvidia",
        "hugepages-",
        "hugepages-2",
        "kubernetes.io/a",
        "a.kubernetes.io/b",
        "requests.a/b",
        "a b/c",
        "A/b",
    ]
    .map(str::to_owned)
    .into_iter()
    // Of quotas there is a name of it that begins with `requests.`.
    .chain([format!("a/{}", "b".repeat(64)), format!("{}/b", "a".repeat(245))]);
    for name in names {
        cases.push(refused(&format!("extended {name:?}"), of(&name, json!(1)), &[(at, "names are of extended")]));
    }
    cases.push(accepted(
        "the longest name of a resource",
        of(&format!("{}/{}", "a".repeat(244), "b".repeat(63)), json!(1)),
    ));
    for (name, amount) in
        [("hugepages-2Mi", json!("3Mi")), ("hugepages-1Gi", json!(1)), ("hugepages-2Mi", json!("0.5"))]
    {
        cases.push(refused(&format!("{name}: {amount}"), of(name, amount), &[(at, "in whole pages")]));
    }
    for amount in [json!(0), json!("500m"), json!("0.5"), json!(-1)] {
        cases.push(refused(
            &format!("half a device: {amount}"),
            of("a/b", amount),
            &[(at, "amounts are whole numbers")],
        ));
    }
    let many = |count: usize| {
        let all = (0..count).map(|n| (format!("a/a{n}"), json!(1))).collect::<Map<_, _>>();
        json!({"resources": {"extended": all}})
    };
    let amount_at = "spec.resources.extended.a/b";
    let digits = |length: usize| json!("0".repeat(length - 1) + "1");
    cases.extend([
        accepted("16 extended resources", many(16)),
        refused("17 extended resources", many(17), &[(at, "Too many")]),
        accepted("a long amount", of("a/b", digits(32))),
        refused("an amount that is too long", of("a", digits(33)), &[("spec.resources.extended.a", "Too long")]),
        refused(
            "an amount that is none",
            of("a/b", json!("one")),
            &[(amount_at, "should match"), (at, "amounts are whole numbers")],
        ),
    ]);
    cases
}
