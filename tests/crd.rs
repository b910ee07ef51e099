//! The definition of `BundleRun`, without a cluster: the file is what the types say, and every rule does what it claims.
//! `tests/cluster/crd.rs` asks a real API server the same questions.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "crd/cases/mod.rs"]
mod cases;
#[path = "crd/check.rs"]
mod check;

use std::collections::{BTreeMap, BTreeSet};
use std::{env, fs, path::Path};

use bundlerun::api::crd::crd_yaml;
use bundlerun::api::{BundleRun, rules};
use cases::Case;
use check::{Checker, Failure};
use regex::Regex;
use serde_json::{Value, json};

#[test]
fn the_file_is_what_the_types_say() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds/bundlerun.yaml");
    let yaml = crd_yaml().unwrap();
    if env::var_os("UPDATE").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, &yaml).unwrap();
    }
    assert!(fs::read_to_string(&file).unwrap() == yaml, "run UPDATE=1 cargo test --test crd");
    assert!(yaml.len() < 200_000, "client-side apply keeps a copy in an annotation of at most 262144 bytes");
}

#[test]
fn every_case_ends_as_it_claims() {
    let checker = Checker::new();
    let mut wrong = Vec::new();
    for case in in_process() {
        let failures = check(&checker, &case);
        let errors: Vec<_> = failures.iter().map(|failure| (failure.field.clone(), failure.message.clone())).collect();
        if !case.agrees(&errors) {
            wrong.push(format!("{}:\n  expected {:?}\n  got {failures:#?}", case.name, case.errors));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_rule_refuses_something_where_it_stands() {
    let checker = Checker::new();
    let index = Regex::new(r"\[[0-9]+\]").unwrap();
    let refusing: BTreeSet<(String, String)> = in_process()
        .iter()
        .flat_map(|case| check(&checker, case))
        .filter_map(|failure| Some((index.replace_all(&failure.field, "[]").into_owned(), failure.rule?)))
        .collect();
    for rule in rules::all() {
        let field = format!("{}{}", rule.at, rule.field.unwrap_or_default()).trim_start_matches('.').to_owned();
        assert!(
            refusing.contains(&(field.clone(), rule.rule.clone())),
            "no case is refused for {field} by {}",
            rule.rule
        );
    }
}

#[test]
fn every_bound_is_tried_at_its_value_and_one_beyond() {
    let cases: Vec<Case> = cases::all().into_iter().filter(|case| case.old.is_none()).collect();
    let index = Regex::new(r"\[[0-9]+\]").unwrap();
    let mut missing = Vec::new();
    visit(&schema(), "", &mut |path, node| {
        let Some(below) = path.strip_prefix("spec.") else { return };
        for bound in ["maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minimum", "maximum"] {
            let Some(limit) = node[bound].as_f64() else { continue };
            let beyond = if bound.starts_with("max") { limit + 1.0 } else { limit - 1.0 };
            let blamed = |case: &Case| {
                case.errors.iter().any(|(field, said)| {
                    !said.contains("not yet") && index.replace_all(field, "[]") == path.replace("{}", ".a")
                })
            };
            let tried = |size: f64, refused: bool| {
                cases.iter().any(|case| {
                    blamed(case) == refused
                        && values(&case.spec, below).iter().any(|value| size_of(value) == Some(size))
                })
            };
            if !tried(limit, false) {
                missing.push(format!("{path}: {bound} {limit}"));
            }
            if !tried(beyond, true) {
                missing.push(format!("{path}: beyond {bound} {limit}"));
            }
        }
    });
    assert!(missing.is_empty(), "no case for\n{}", missing.join("\n"));
}

#[test]
fn every_field_is_refused_for_something_and_bad_input_is_plenty() {
    let top = |field: &str| field.split(['.', '[']).nth(1).unwrap_or("metadata.name").to_owned();
    let (mut refused, mut accepted) = (BTreeMap::<String, usize>::new(), 0);
    for case in cases::all() {
        accepted += usize::from(case.errors.is_empty());
        for field in case.errors.iter().map(|(field, _)| top(field)).collect::<BTreeSet<_>>() {
            *refused.entry(field).or_default() += 1;
        }
    }
    println!("{accepted} accepted; refused by field: {refused:#?}");
    for field in schema()["properties"]["spec"]["properties"].as_object().unwrap().keys() {
        assert!(refused.contains_key(field), "{field}");
    }
    assert!(refused.values().sum::<usize>() >= 60);
}

/// What an object has at a path of the schema, such as `env[].name`.
fn values<'a>(value: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut found = vec![value];
    for part in path.replace("[]", ".[]").replace("{}", ".{}").split('.').filter(|part| !part.is_empty()) {
        found = match part {
            "[]" => found.into_iter().filter_map(Value::as_array).flatten().collect(),
            "{}" => found.into_iter().filter_map(Value::as_object).flat_map(|fields| fields.values()).collect(),
            name => found.into_iter().filter_map(|value| value.get(name)).collect(),
        };
    }
    found
}

#[allow(clippy::cast_precision_loss)]
fn size_of(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => Some(text.chars().count() as f64),
        Value::Array(items) => Some(items.len() as f64),
        Value::Object(fields) => Some(fields.len() as f64),
        Value::Number(number) => number.as_f64(),
        Value::Null | Value::Bool(_) => None,
    }
}

#[test]
fn every_field_is_fixed_or_known_to_change() {
    let fixed: BTreeSet<String> = rules::all()
        .into_iter()
        .filter(|rule| rule.at == "spec" && rule.rule.contains("oldSelf"))
        .filter_map(|rule| Some(rule.field?.trim_start_matches('.').to_owned()))
        .collect();
    let fields: BTreeSet<String> =
        schema()["properties"]["spec"]["properties"].as_object().unwrap().keys().cloned().collect();
    let mutable: Vec<_> = fields.difference(&fixed).map(String::as_str).collect();
    assert_eq!(mutable, ["podRetention", "stop", "suspend", "ttlSecondsAfterFinished"]);
}

#[test]
fn what_the_schema_accepts_the_types_read() {
    for case in cases::all().into_iter().filter(|case| case.errors.is_empty()) {
        let object = check::without_nulls(&object(&case.object_name, &case.spec));
        let typed: Result<BundleRun, _> = serde_json::from_value(object);
        assert!(typed.is_ok(), "{}: {typed:?}", case.name);
    }
}

#[test]
fn a_spec_is_written_as_it_was_read() {
    let spec = json!({
        "argv": ["a"],
        "resources": {"gpus": 1, "cpus": 2, "memory": "1.50Gi"},
        "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}],
        "tolerations": [{"operator": "Exists"}],
    });
    let typed: BundleRun = serde_json::from_value(object("run", &spec)).unwrap();
    assert_eq!(serde_json::to_value(typed.spec).unwrap(), spec);
}

#[test]
fn nothing_but_the_status_has_a_default() {
    let mut defaults = Vec::new();
    visit(&schema(), "", &mut |path, node| {
        if node.get("default").is_some() {
            defaults.push(path.to_owned());
        }
    });
    assert_eq!(defaults, ["status"], "GitOps tools show other defaults as drift");
}

#[test]
fn every_field_is_documented_in_one_line_and_bounded() {
    visit(&schema(), "", &mut |path, node| {
        let of_items = path.ends_with("[]") || path.ends_with("{}");
        if !of_items && !["", "metadata", "apiVersion", "kind"].contains(&path) {
            let description = node["description"].as_str().unwrap_or_else(|| panic!("{path} has no description"));
            assert!(!description.contains('\n') && description.ends_with('.'), "{path}: {description}");
        }
        assert!(node.get("nullable").is_none(), "{path}");
        if path.starts_with("spec") {
            match node["type"].as_str() {
                Some("string") => assert!(node.get("maxLength").is_some() || node.get("enum").is_some(), "{path}"),
                Some("array") => assert!(node.get("maxItems").is_some(), "{path}"),
                _ => {}
            }
        }
    });
}

#[test]
fn there_are_no_floats() {
    visit(&schema(), "", &mut |path, node| {
        assert_ne!(node["type"], "number", "{path}: API conventions ask for integers with the unit in the name");
        if path.starts_with("status") && (path.ends_with("Seconds") || path.ends_with("Milliseconds")) {
            assert_eq!(node["type"], "integer", "{path}");
        }
    });
}

#[test]
fn every_rule_has_a_message_for_people() {
    for rule in rules::all() {
        assert!(rule.message.len() < 300 && !rule.message.contains('\n'), "{}", rule.message);
        assert!(!rule.rule.contains('\n'), "{}", rule.rule);
    }
}

fn object(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "bundlerun.dev/v1alpha1", "kind": "BundleRun", "metadata": {"name": name}, "spec": spec})
}

fn in_process() -> Vec<Case> {
    cases::all().into_iter().filter(|case| !case.only_server).collect()
}

fn check(checker: &Checker, case: &Case) -> Vec<Failure> {
    let old = case.old.as_ref().map(|old| object(&case.object_name, old));
    checker.check(&object(&case.object_name, &case.spec), old.as_ref())
}

fn schema() -> Value {
    let crd = bundlerun::api::crd::crd().unwrap();
    serde_json::to_value(crd.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap()).unwrap()
}

fn visit(node: &Value, path: &str, look: &mut impl FnMut(&str, &Value)) {
    look(path, node);
    for (name, property) in node["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        visit(property, &path, look);
    }
    if let Some(items) = node.get("items") {
        visit(items, &format!("{path}[]"), look);
    }
    if let Some(values) = node.get("additionalProperties") {
        visit(values, &format!("{path}{{}}"), look);
    }
}
