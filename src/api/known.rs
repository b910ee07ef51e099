//! Which fields a schema knows: of an object, and of another schema.

use serde_json::Value;

/// Fields of an object that its schema has not, as paths such as `spec.inputs[].lease`, each once.
pub(super) fn unknown_fields(schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let mut unknown = Vec::new();
    find_unknown(schema, value, path, &mut unknown);
    unknown.sort_unstable();
    unknown.dedup();
    unknown
}

fn find_unknown(schema: &Value, value: &Value, path: &str, unknown: &mut Vec<String>) {
    let schema = without_null(schema);
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(of_all) = schema.get("additionalProperties") {
                    find_unknown(of_all, value, path, unknown);
                } else if let Some(field) = schema["properties"].get(name) {
                    find_unknown(field, value, &format!("{path}.{name}"), unknown);
                } else if schema.get("properties").is_some() {
                    unknown.push(format!("{path}.{name}"));
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                find_unknown(&schema["items"], item, &format!("{path}[]"), unknown);
            }
        }
        _ => {}
    }
}

/// What is optional is, to schemars, one of two.
fn without_null(schema: &Value) -> &Value {
    let has_more = |schema: &&Value| schema.get("properties").is_some() || schema.get("items").is_some();
    schema["anyOf"].as_array().into_iter().flatten().find(has_more).unwrap_or(schema)
}

/// Fields of `ours` that `theirs` has not, and words of its enums, as `status.phase: Lost`.
pub(super) fn missing_fields(ours: &Value, theirs: &Value) -> Vec<String> {
    let mut missing = Vec::new();
    find_missing(ours, theirs, "", &mut missing);
    missing
}

fn find_missing(ours: &Value, theirs: &Value, path: &str, missing: &mut Vec<String>) {
    if theirs["x-kubernetes-preserve-unknown-fields"] == true {
        return;
    }
    for (name, field) in ours["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match theirs["properties"].get(name) {
            Some(theirs) => find_missing(field, theirs, &path, missing),
            None => missing.push(path),
        }
    }
    for (key, path) in [("items", format!("{path}[]")), ("additionalProperties", path.to_owned())] {
        if let Some(of_all) = ours.get(key) {
            find_missing(of_all, &theirs[key], &path, missing);
        }
    }
    if let (Some(words), Some(theirs)) = (ours["enum"].as_array(), theirs["enum"].as_array()) {
        let lacking = words.iter().filter(|word| !theirs.contains(word)).filter_map(Value::as_str);
        missing.extend(lacking.map(|word| format!("{path}: {word}")));
    }
}
