//! Command, image and environment.

use serde_json::{Value, json};

use super::{Case, accepted, case, refused};

pub(super) fn commands() -> Vec<Case> {
    let one_of = ("spec", "exactly one of command");
    vec![
        case("argv alone", json!({"argv": ["/bin/app", "", "$(A)"]}), &[]),
        case("neither command nor argv", json!({}), &[one_of]),
        case("both command and argv", json!({"command": "a", "argv": ["a"]}), &[one_of]),
        case("an empty command", json!({"command": ""}), &[("spec.command", "should be at least")]),
        case("an empty argv", json!({"argv": []}), &[("spec.argv", "should have at least")]),
        case("an empty program", json!({"argv": ["", "a"]}), &[("spec.argv", "the program to execute")]),
        case("NUL in command", json!({"command": "a\0b"}), &[("spec.command", "NUL")]),
        case("NUL in argv", json!({"argv": ["a", "b\0"]}), &[("spec.argv[1]", "NUL")]),
        case("control characters in command", json!({"command": "printf '\u{1b}[0m\t\r\n'"}), &[]),
        case("a command of 100000 bytes", json!({"command": "x".repeat(100_000)}), &[]),
        case("a command of 100001", json!({"command": "x".repeat(100_001)}), &[("spec.command", "Too long")]),
        case(
            "a command of too many bytes",
            json!({"command": "é".repeat(50_001)}),
            &[("spec.command", "100000 bytes")],
        ),
        // As docs/reference.md quotes it.
        Case {
            only_server: true,
            ..case(
                "a number in argv, in words",
                json!({"argv": ["train", "--lr", 0.1]}),
                &[("spec.argv[2]", r#"spec.argv[2] in body must be of type string: "number""#)],
            )
        },
        case("argv of 100000 bytes", json!({"argv": vec!["x".repeat(20_000); 5]}), &[]),
        case("argv of more", json!({"argv": vec!["é".repeat(10_001); 5]}), &[("spec.argv", "100000 bytes in all")]),
        case("a long argument", json!({"argv": ["x".repeat(20_001)]}), &[("spec.argv[0]", "Too long")]),
        case("argv of 1024 items", json!({"argv": vec!["x"; 1024]}), &[]),
        case("argv of 1025 items", json!({"argv": vec!["x"; 1025]}), &[("spec.argv", "Too many")]),
    ]
}

pub(super) fn images() -> Vec<Case> {
    let digest = format!("sha256:{}", "0a".repeat(32));
    let good = [
        "python".to_owned(),
        "python:3.13".to_owned(),
        "localhost:5000/debian:bookworm".to_owned(),
        "localhost/debian".to_owned(),
        "registry.example.com/a/b__c/d-e.f:V_1".to_owned(),
        "[2001:db8::1]:5000/debian".to_owned(),
        format!("python@{digest}"),
        format!("registry.example.com/python:3.13@{digest}"),
        format!("python@sha512:{}", "0a".repeat(64)),
        format!("a/{}", "b".repeat(510)),
    ];
    let bad = [
        "",
        "Python",
        "docker://python",
        "https://registry.example.com/python",
        "python:",
        "python:3 13",
        "python@",
        "python@sha256:123",
        "-a",
        "a//b",
        "a/",
        "/a",
        "a\n",
        "a:5000/b:c:d",
    ];
    let mut cases: Vec<Case> =
        good.iter().map(|image| accepted(&format!("image {image}"), json!({"image": image}))).collect();
    cases.extend(bad.iter().map(|image| {
        let errors = [("spec.image", "image must be a reference")];
        refused(&format!("image {image:?}"), json!({"image": image}), &errors)
    }));
    cases.push(refused("a long image", json!({"image": "a".repeat(513)}), &[("spec.image", "Too long")]));
    cases
}

pub(super) fn env() -> Vec<Case> {
    let one = |variable: Value| json!({"env": [variable]});
    let named = |name: &str| one(json!({"name": name, "value": "1"}));
    let mut cases: Vec<Case> =
        ["A", "_a", "a.b-c", ".x", "BUNDLE", "NVIDIA_DRIVER_CAPABILITIES", "PATH", "LD_LIBRARY_PATH"]
            .iter()
            .map(|name| accepted(&format!("variable {name}"), named(name)))
            .collect();
    for name in ["1A", "A=B", "A B", "A\n", "é"] {
        cases.push(refused(&format!("variable {name:?}"), named(name), &[("spec.env[0].name", "should match")]));
    }
    for (name, message) in [
        ("BUNDLE_NAME", "BUNDLE_ are set by the operator"),
        ("NVIDIA_VISIBLE_DEVICES", "ask for GPUs with resources.gpus"),
        ("NVIDIA_MIG_CONFIG_DEVICES", "ask for GPUs with resources.gpus"),
        ("NVIDIA_IMEX_CHANNELS", "ask for GPUs with resources.gpus"),
        ("LD_PRELOAD", "set it inside command"),
    ] {
        cases.push(refused(&format!("variable {name}"), named(name), &[("spec.env[0].name", message)]));
    }
    let many = |count: usize| json!({"env": (0..count).map(|n| json!({"name": format!("A{n}"), "value": ""})).collect::<Vec<_>>()});
    let key = json!({"name": "a", "key": "b"});
    let values_of = |bytes: usize| {
        let variables: Vec<_> = (0..8).map(|i| json!({"name": format!("A{i}"), "value": "x".repeat(bytes)})).collect();
        json!({"env": variables})
    };
    let value_or_from = ("spec.env[0]", "exactly one of value and valueFrom");
    let secret_or_config_map = ("spec.env[0].valueFrom", "exactly one of valueFrom.secretKeyRef");
    cases.extend([
        refused("an empty variable name", named(""), &[("spec.env[0].name", "should be at least")]),
        refused("a variable without name", one(json!({"value": "1"})), &[("spec.env[0].name", "Required")]),
        refused("a long variable name", named(&"A".repeat(257)), &[("spec.env[0].name", "Too long")]),
        refused(
            "a variable twice",
            json!({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}),
            &[("spec.env[1]", "Duplicate value")],
        ),
        accepted("256 variables", many(256)),
        refused("257 variables", many(257), &[("spec.env", "Too many")]),
        refused("a variable without value", one(json!({"name": "A"})), &[value_or_from]),
        refused(
            "a variable with both values",
            one(json!({"name": "A", "value": "1", "valueFrom": {"secretKeyRef": key}})),
            &[value_or_from],
        ),
        refused("a value from nowhere", one(json!({"name": "A", "valueFrom": {}})), &[secret_or_config_map]),
        refused(
            "a value from two places",
            one(json!({"name": "A", "valueFrom": {"secretKeyRef": key, "configMapKeyRef": key}})),
            &[secret_or_config_map],
        ),
        refused(
            "a number as a value",
            one(json!({"name": "A", "value": 7})),
            &[("spec.env[0].value", "must be of type")],
        ),
        // As docs/reference.md quotes it.
        Case {
            only_server: true,
            ..refused(
                "a value 0.1, in words",
                one(json!({"name": "A", "value": 0.1})),
                &[("spec.env[0].value", r#"spec.env[0].value in body must be of type string: "number""#)],
            )
        },
        refused("NUL in a value", one(json!({"name": "A", "value": "\0"})), &[("spec.env[0].value", "NUL")]),
        accepted("a long value", one(json!({"name": "A", "value": "x".repeat(32_768)}))),
        refused(
            "a longer value",
            one(json!({"name": "A", "value": "x".repeat(32_769)})),
            &[("spec.env[0].value", "Too long")],
        ),
        accepted("a value of many bytes", one(json!({"name": "A", "value": "\u{1d4b3}".repeat(25_000)}))),
        refused(
            "a value of too many bytes",
            one(json!({"name": "A", "value": "\u{1d4b3}".repeat(25_001)})),
            &[("spec.env[0].value", "at most 100000 bytes")],
        ),
        accepted("values of many bytes", values_of(25_000)),
        refused("values of too many bytes", values_of(25_001), &[("spec.env", "at most 200000 bytes")]),
        refused(
            "a Secret that no Secret can be named",
            one(json!({"name": "A", "valueFrom": {"secretKeyRef": {"name": "A_b", "key": "a/b"}}})),
            &[
                ("spec.env[0].valueFrom.secretKeyRef.key", "should match"),
                ("spec.env[0].valueFrom.secretKeyRef.name", "should match"),
            ],
        ),
    ]);
    cases
}
