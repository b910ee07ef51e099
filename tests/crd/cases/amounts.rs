//! Resources and durations.

use serde_json::{Value, json};

use super::{Case, accepted, refused};

pub(super) fn resources() -> Vec<Case> {
    let one = |field: &str, value: Value| json!({"resources": {field: value}});
    let mut cases = vec![accepted("no resources", json!({"resources": {}}))];
    for (field, value) in [
        ("gpus", json!(0)),
        ("gpus", json!(1024)),
        ("cpus", json!(1)),
        ("cpus", json!("1m")),
        ("cpus", json!("0.5")),
        ("cpus", json!(".5")),
        ("cpus", json!("1024")),
        ("memory", json!(16_777_216)),
        ("memory", json!("16Mi")),
        ("memory", json!("1.5Gi")),
        ("memory", json!("1e9")),
        ("memory", json!("64Ti")),
        ("disk", json!("1Mi")),
        ("disk", json!("1Pi")),
        ("sharedMemory", json!("1Mi")),
        ("sharedMemory", json!("2Gi")),
    ] {
        cases.push(accepted(&format!("{field} {value}"), one(field, value)));
    }
    for (field, value, at, message) in [
        ("cpus", json!("0"), "spec.resources.cpus", "from 1m to 1024"),
        ("cpus", json!(0), "spec.resources.cpus", "from 1m to 1024"),
        ("cpus", json!(-1), "spec.resources.cpus", "from 1m to 1024"),
        ("cpus", json!("999u"), "spec.resources.cpus", "from 1m to 1024"),
        ("cpus", json!("1024001m"), "spec.resources.cpus", "from 1m to 1024"),
        ("memory", json!("512m"), "spec.resources.memory", "from 16Mi to 64Ti"),
        ("memory", json!(16_777_215), "spec.resources.memory", "from 16Mi to 64Ti"),
        ("memory", json!("65Ti"), "spec.resources.memory", "from 16Mi to 64Ti"),
        ("disk", json!("1023Ki"), "spec.resources.disk", "from 1Mi to 1Pi"),
        ("disk", json!("1025Ti"), "spec.resources.disk", "from 1Mi to 1Pi"),
        ("sharedMemory", json!("1k"), "spec.resources.sharedMemory", "from 1Mi to 64Ti"),
        ("gpus", json!(-1), "spec.resources.gpus", "should be greater than or equal to"),
        ("gpus", json!(1025), "spec.resources.gpus", "should be less than or equal to"),
        ("gpus", json!(0.5), "spec.resources.gpus", "must be of type"),
        ("gpus", json!("1"), "spec.resources.gpus", "must be of type"),
        ("cpus", json!(0.5), "spec.resources.cpus", "must be of type"),
        ("memory", json!("1".repeat(33)), "spec.resources.memory", "Too long"),
        ("sharedMemory", json!("2049Mi"), "spec.resources.sharedMemory", "must not be more than resources.memory"),
    ] {
        cases.push(refused(&format!("{field} {value}"), one(field, value), &[(at, message)]));
    }
    for value in ["", "1 Gi", "1gb", "1K", "-1", "+1", ".", "1.2.3", "NaN"] {
        let errors = [("spec.resources.memory", "should match"), ("spec.resources.memory", "from 16Mi to 64Ti")];
        cases.push(refused(&format!("memory {value:?}"), one("memory", json!(value)), &errors));
    }
    // As docs/reference.md quotes it.
    let words = ("spec.resources.cpus", r#"spec.resources.cpus in body must be of type integer,string: "number""#);
    cases.push(Case { only_server: true, ..refused("cpus 0.5, in words", one("cpus", json!(0.5)), &[words]) });
    let out_of_bounds = ("spec.resources.memory", "from 16Mi to 64Ti");
    let malformed = ("spec.resources.memory", "should match");
    cases.extend([
        Case { only_server: true, ..refused("memory 1e99", one("memory", json!("1e99")), &[out_of_bounds]) },
        Case {
            only_server: true,
            ..refused("memory with an end of line", one("memory", json!("1Gi\n")), &[malformed, out_of_bounds])
        },
        Case {
            only_server: true,
            ..refused("memory 1e1000", one("memory", json!("1e1000")), &[malformed, out_of_bounds])
        },
        accepted(
            "shared memory as large as memory",
            json!({"resources": {"memory": "4Gi", "sharedMemory": 4_294_967_296_i64}}),
        ),
        refused(
            "shared memory larger than memory",
            json!({"resources": {"memory": "1Gi", "sharedMemory": "1025Mi"}}),
            &[("spec.resources.sharedMemory", "must not be more than resources.memory")],
        ),
    ]);
    cases
}

/// A spec with this time in a field.
type Spec = fn(&str) -> Value;

pub(super) fn durations() -> Vec<Case> {
    let mut cases = vec![];
    let fields: [(&str, &str, &str, Spec); 5] = [
        ("timeLimit", "spec.timeLimit", "1s", |time| json!({"timeLimit": time})),
        ("stopGrace", "spec.stopGrace", "1s", |time| json!({"stopGrace": time})),
        ("every", "spec.outputs.snapshots.every", "10s", |time| json!({"outputs": {"snapshots": {"every": time}}})),
        ("backoff", "spec.retry.backoff", "0s", |time| json!({"retry": {"backoff": time}})),
        ("podRetention", "spec.podRetention", "0s", |time| json!({"podRetention": time})),
    ];
    for (field, at, least, spec) in fields {
        let time_is = |time: &str| (format!("{field} {time:?}"), spec(time));
        let rule = (at, "must be days, hours, minutes and seconds");
        for time in [least, "365d", "8760h", "90m", "1d12h", "1h1h", "0d10s", "364d23h59m60s"] {
            let (name, spec) = time_is(time);
            cases.push(accepted(&name, spec));
        }
        let too_little = ["0s", "0d0h"].into_iter().filter(|_| least != "0s");
        for time in too_little.chain(["365d1s", "366d", "8761h", "999999999d"]) {
            let (name, spec) = time_is(time);
            cases.push(refused(&name, spec, &[rule]));
        }
        for time in ["", "5", "5 min", "1.5h", "-1s", "1w", "1H", "1h ", "h", "1000000000s"] {
            let (name, spec) = time_is(time);
            cases.push(refused(&name, spec, &[(at, "should match"), rule]));
        }
        let (name, spec) = time_is(&"1s".repeat(33));
        cases.push(refused(&name, spec, &[(at, "Too long")]));
    }
    cases
}
