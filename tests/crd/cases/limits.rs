//! Every bound of the schema that the other tables do not reach: a value at the bound and one beyond it.

use serde_json::{Map, Value, json};

use super::{Case, accepted, refused};

/// `fields` with the value in them at its bound and one beyond.
fn bound(
    field: &'static str,
    message: &'static str,
    fields: impl Fn(Value) -> Value,
    [at, beyond]: [Value; 2],
) -> [Case; 2] {
    [
        accepted(&format!("{field} at its bound"), fields(at)),
        refused(&format!("{field} beyond its bound ({message})"), fields(beyond), &[(field, message)]),
    ]
}

fn text(length: usize) -> [Value; 2] {
    [json!("a".repeat(length)), json!("a".repeat(length + 1))]
}

fn list(length: usize, item: impl Fn(usize) -> Value) -> [Value; 2] {
    [(0..length).map(&item).collect(), (0..=length).map(&item).collect()]
}

const TOO_LONG: &str = "Too long";

pub(super) fn cases() -> Vec<Case> {
    let labels = |count: usize| (0..count).map(|n| (format!("a{n}"), json!(""))).collect::<Map<_, _>>();
    let toleration = |field: &'static str| move |value: Value| json!({"tolerations": [{"key": "a", "operator": "Equal", field: value}]});
    let longest_key = [63, 64].map(|length| json!(format!("{}/{}", "a".repeat(253), "b".repeat(length))));
    let mut cases = vec![
        bound("spec.nodeSelector", "Too many", |v| json!({"nodeSelector": v}), [json!(labels(32)), json!(labels(33))]),
        bound("spec.nodeSelector.a", TOO_LONG, |v| json!({"nodeSelector": {"a": v}}), text(63)),
        bound("spec.nodeSelector", "label names", |v| json!({"nodeSelector": {v.as_str().unwrap(): "a"}}), text(63)),
        bound("spec.tolerations", "Too many", |v| json!({"tolerations": v}), list(32, |_| json!({"key": "a"}))),
        bound("spec.tolerations[0].key", TOO_LONG, toleration("key"), longest_key),
        bound("spec.tolerations[0].value", TOO_LONG, toleration("value"), text(63)),
        bound(
            "spec.imagePullSecrets",
            "Too many",
            |v| json!({"imagePullSecrets": v}),
            list(16, |n| json!({"name": format!("s{n}")})),
        ),
        bound("spec.imagePullSecrets[0].name", TOO_LONG, |v| json!({"imagePullSecrets": [{"name": v}]}), text(253)),
        bound("spec.env[0].name", TOO_LONG, |v| json!({"env": [{"name": v, "value": ""}]}), text(256)),
        bound(
            "spec.env[0].value",
            "at most 100000 bytes",
            |v| json!({"env": [{"name": "A", "value": v}]}),
            [json!("🦀".repeat(25_000)), json!("🦀".repeat(25_000) + "a")],
        ),
        bound(
            "spec.env",
            "at most 200000 bytes",
            |v| {
                let eights = (0..7).map(|n| json!({"name": format!("A{n}"), "value": "x".repeat(25_000)}));
                json!({"env": eights.chain([json!({"name": "B", "value": v})]).collect::<Vec<_>>()})
            },
            [json!("x".repeat(25_000)), json!("x".repeat(25_001))],
        ),
        bound("spec.volumes[0].claim.name", TOO_LONG, |v| volume(&json!({"name": v})), text(253)),
        bound("spec.volumes[0].claim.path", TOO_LONG, |v| volume(&json!({"name": "a", "path": v})), text(512)),
        bound("spec.runAsUser", "should be greater", |v| json!({"runAsUser": v}), [json!(0), json!(-1)]),
        bound(
            "spec.timeLimit",
            TOO_LONG,
            |v| json!({"timeLimit": v}),
            [json!("1s".repeat(32)), json!("1s".repeat(31) + "10s")],
        ),
        bound(
            "spec.stopGrace",
            TOO_LONG,
            |v| json!({"stopGrace": v}),
            [json!("1s".repeat(32)), json!("1s".repeat(31) + "10s")],
        ),
    ];
    for (field, at) in [
        ("priorityClassName", "spec.priorityClassName"),
        ("schedulerName", "spec.schedulerName"),
        ("serviceAccountName", "spec.serviceAccountName"),
    ] {
        cases.push(bound(at, TOO_LONG, move |v| json!({field: v}), text(253)));
    }
    let from = |field: &'static str, part: &'static str| {
        move |value: Value| {
            let mut key = json!({"name": "a", "key": "b"});
            key[part] = value;
            json!({"env": [{"name": "A", "valueFrom": {field: key}}]})
        }
    };
    for (field, part, at) in [
        ("secretKeyRef", "name", "spec.env[0].valueFrom.secretKeyRef.name"),
        ("secretKeyRef", "key", "spec.env[0].valueFrom.secretKeyRef.key"),
        ("configMapKeyRef", "name", "spec.env[0].valueFrom.configMapKeyRef.name"),
        ("configMapKeyRef", "key", "spec.env[0].valueFrom.configMapKeyRef.key"),
    ] {
        cases.push(bound(at, TOO_LONG, from(field, part), text(253)));
    }
    cases.into_iter().flatten().chain(sizes()).chain(of_the_run()).chain(inputs()).collect()
}

fn volume(claim: &Value) -> Value {
    json!({"volumes": [{"path": "a", "claim": claim}]})
}

fn sizes() -> impl Iterator<Item = Case> {
    let quantity = |field: &'static str| move |value: Value| json!({"resources": {field: value}});
    let digits =
        |unit: &str| [json!("0".repeat(31 - unit.len()) + "1" + unit), json!("0".repeat(32 - unit.len()) + "1" + unit)];
    [
        bound("spec.resources.cpus", TOO_LONG, quantity("cpus"), digits("")),
        bound("spec.resources.memory", TOO_LONG, quantity("memory"), digits("Gi")),
        bound("spec.resources.disk", TOO_LONG, quantity("disk"), digits("Gi")),
        bound("spec.resources.sharedMemory", TOO_LONG, quantity("sharedMemory"), digits("Gi")),
    ]
    .into_iter()
    .flatten()
}

fn of_the_run() -> impl Iterator<Item = Case> {
    let exclude = |value: Value| json!({"outputs": {"exclude": value}});
    let one_exclude = |value: Value| json!({"outputs": {"exclude": [value]}});
    let ttl = |value: Value| json!({"ttlSecondsAfterFinished": value});
    let retry = |field: &'static str| move |value: Value| json!({"retry": {field: value}});
    let profile = |value: Value| json!({"gpuProfile": value});
    [
        bound("spec.gpuProfile", TOO_LONG, profile, text(63)),
        bound("spec.outputs.exclude", "Too many", exclude, list(64, |n| json!(format!("{n}")))),
        bound("spec.outputs.exclude[0]", TOO_LONG, one_exclude, text(512)),
        bound(
            "spec.outputs.snapshots.exclude",
            "Too many",
            |value| json!({"outputs": {"snapshots": {"exclude": value}}}),
            list(64, |n| json!(format!("{n}"))),
        ),
        bound(
            "spec.outputs.snapshots.exclude[0]",
            TOO_LONG,
            |value| json!({"outputs": {"snapshots": {"exclude": [value]}}}),
            text(512),
        ),
        bound(
            "spec.outputs.snapshots.every",
            TOO_LONG,
            |value| json!({"outputs": {"snapshots": {"every": value}}}),
            [json!("1s".repeat(32)), json!("1s".repeat(31) + "10s")],
        ),
        [
            accepted(
                "spec.outputs.snapshots.exclude[0] at its bound",
                json!({"outputs": {"snapshots": {"exclude": ["a"]}}}),
            ),
            refused(
                "spec.outputs.snapshots.exclude[0] beyond its bound",
                json!({"outputs": {"snapshots": {"exclude": [""]}}}),
                &[
                    ("spec.outputs.snapshots.exclude[0]", "should be at least"),
                    ("spec.outputs.snapshots.exclude[0]", "must be a path below"),
                ],
            ),
        ],
        [
            accepted("spec.outputs.exclude[0] at its bound", one_exclude(json!("a"))),
            refused(
                "spec.outputs.exclude[0] beyond its bound",
                one_exclude(json!("")),
                &[
                    ("spec.outputs.exclude[0]", "should be at least"),
                    ("spec.outputs.exclude[0]", "must be a path below"),
                ],
            ),
        ],
        bound("spec.retry.limit", "should be less", retry("limit"), [json!(100), json!(101)]),
        bound("spec.retry.limit", "should be greater", retry("limit"), [json!(0), json!(-1)]),
        bound("spec.retry.interruptions", "should be less", retry("interruptions"), [json!(1000), json!(1001)]),
        bound(
            "spec.retry.backoff",
            TOO_LONG,
            retry("backoff"),
            [json!("1s".repeat(32)), json!("1s".repeat(31) + "10s")],
        ),
        bound("spec.retry.causes", "Too many", retry("causes"), list(6, |_| json!("CommandFailed"))),
        bound("spec.retry.interruptions", "should be greater", retry("interruptions"), [json!(0), json!(-1)]),
        bound("spec.ttlSecondsAfterFinished", "should be less", ttl, [json!(2_147_483_647), json!(2_147_483_648_i64)]),
        bound("spec.ttlSecondsAfterFinished", "should be greater", ttl, [json!(0), json!(-1)]),
        bound(
            "spec.podRetention",
            TOO_LONG,
            |v| json!({"podRetention": v}),
            [json!("1s".repeat(32)), json!("1s".repeat(31) + "10s")],
        ),
    ]
    .into_iter()
    .flatten()
}

fn inputs() -> impl Iterator<Item = Case> {
    let at = |path: &str| json!({"inputs": [{"path": path, "text": ""}]});
    let source = |kind: &'static str, source: Value, part: &'static str| {
        move |value: Value| {
            let mut source = source.clone();
            source[part] = value;
            json!({"inputs": [{"path": "a", kind: source}]})
        }
    };
    let input = |part: &'static str| move |value: Value| json!({"inputs": [{"path": "a", part: value}]});
    let mode = |value: Value| json!({"inputs": [{"path": "a", "text": "", "mode": value}]});
    let name = json!({"name": "a"});
    let url = json!({"href": "http://a", "sha256": "0a".repeat(32)});
    let href = |length: usize| json!(format!("http://{}", "a".repeat(length - 7)));
    let digests = [json!("a".repeat(64)), json!("a".repeat(65))];
    let texts = |length: usize| text(length);
    let path = |value: Value| at(value.as_str().unwrap_or_default());
    let mut cases = vec![
        bound("spec.inputs[0].path", TOO_LONG, path, text(512)),
        bound("spec.inputs[0].text", TOO_LONG, input("text"), texts(60_000)),
        bound("spec.inputs[0].mode", "should be less", mode, [json!(511), json!(512)]),
        bound("spec.inputs[0].mode", "should be greater", mode, [json!(0), json!(-1)]),
        bound("spec.inputs[0].run.name", TOO_LONG, source("run", json!({}), "name"), text(52)),
        bound("spec.inputs[0].image.reference", TOO_LONG, source("image", json!({}), "reference"), text(512)),
        bound("spec.inputs[0].url.href", TOO_LONG, source("url", url.clone(), "href"), [href(2048), href(2049)]),
        bound("spec.inputs[0].url.sha256", TOO_LONG, source("url", url, "sha256"), digests),
        bound("spec.inputs[0].run.path", TOO_LONG, source("run", name.clone(), "path"), text(4096)),
        bound("spec.inputs[0].image.path", TOO_LONG, source("image", json!({"reference": "a"}), "path"), text(4096)),
        bound("spec.inputs[0].claim.path", TOO_LONG, source("claim", name.clone(), "path"), text(512)),
    ];
    for (kind, part, at) in [
        ("claim", "name", "spec.inputs[0].claim.name"),
        ("configMap", "name", "spec.inputs[0].configMap.name"),
        ("configMap", "key", "spec.inputs[0].configMap.key"),
        ("secret", "name", "spec.inputs[0].secret.name"),
        ("secret", "key", "spec.inputs[0].secret.key"),
    ] {
        cases.push(bound(at, TOO_LONG, source(kind, name.clone(), part), text(253)));
    }
    cases.into_iter().flatten()
}
