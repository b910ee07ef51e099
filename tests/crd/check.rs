//! The API server's verdict on an object, in process: the schema by the few keywords ours uses, the rules by kube's CEL.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::cast_precision_loss)]

use kube::core::cel::{CompiledSchema, Validator, compile_schema};
use regex::Regex;
use serde_json::{Map, Value};

/// One error as the API server reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// As in `kubectl`'s message: `spec.env[0].name`.
    pub(crate) field: String,
    /// What is said of it.
    pub(crate) message: String,
    /// The rule that refused it; none: the schema did.
    pub(crate) rule: Option<String>,
}

/// A definition to check objects against.
pub(crate) struct Checker {
    schema: Value,
    compiled: CompiledSchema,
    validator: Validator,
}

impl Checker {
    /// Of the definition as it is installed.
    pub(crate) fn new() -> Self {
        let crd = bundlerun::api::crd::crd().unwrap();
        let schema =
            crd.spec.versions[0].schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref()).unwrap();
        let schema = serde_json::to_value(schema).unwrap();
        let compiled = compile_schema(&schema);
        Checker { schema, compiled, validator: Validator::new() }
    }

    /// Errors of creating `object`, or of changing `old` into it.
    pub(crate) fn check(&self, object: &Value, old: Option<&Value>) -> Vec<Failure> {
        let object = &without_nulls(object);
        let old = old.map(without_nulls);
        let mut failures = Vec::new();
        let mut blocked = false;
        walk(&self.schema, object, "", &mut failures, &mut blocked);
        if blocked {
            return failures; // the API server does not evaluate rules on an object of the wrong shape
        }
        if let Err(errors) = self.validator.validate_compiled(&self.compiled, object, old.as_ref()) {
            failures.extend(errors.into_iter().map(|error| Failure {
                field: error.field_path.trim_start_matches('.').to_owned(),
                message: error.message,
                rule: Some(error.rule),
            }));
        }
        failures
    }
}

/// The API server drops nulls, because no field of ours is nullable.
pub(crate) fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), without_nulls(value)))
            .collect(),
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

/// `blocked` is set by the errors after which the API server evaluates no rules.
fn walk(schema: &Value, value: &Value, field: &str, failures: &mut Vec<Failure>, blocked: &mut bool) {
    let fail = |field: String, message: String, failures: &mut Vec<Failure>| {
        failures.push(Failure { field, message, rule: None });
    };
    let number = |keyword: &str| schema[keyword].as_f64();
    let int_or_string = schema["x-kubernetes-int-or-string"] == true;
    let right_type = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        _ if int_or_string => value.is_string() || value.is_i64(),
        other => panic!("{field}: no type: {other:?}"),
    };
    if !right_type {
        *blocked = true;
        return fail(field.to_owned(), "must be of type".to_owned(), failures);
    }
    if let Some(values) = schema["enum"].as_array()
        && !values.contains(value)
    {
        *blocked = true;
        fail(field.to_owned(), "Unsupported value".to_owned(), failures);
    }
    match value {
        Value::Number(value) => {
            let value = value.as_f64().unwrap();
            if number("minimum").is_some_and(|minimum| value < minimum) {
                fail(field.to_owned(), "should be greater than or equal to".to_owned(), failures);
            }
            if number("maximum").is_some_and(|maximum| value > maximum) {
                fail(field.to_owned(), "should be less than or equal to".to_owned(), failures);
            }
        }
        Value::String(value) => {
            let length = value.chars().count() as f64;
            if number("maxLength").is_some_and(|maximum| length > maximum) {
                *blocked = true;
                fail(field.to_owned(), "Too long".to_owned(), failures);
            } else if number("minLength").is_some_and(|minimum| length < minimum) {
                fail(field.to_owned(), "should be at least".to_owned(), failures);
            } else if let Some(pattern) = schema["pattern"].as_str()
                && !Regex::new(pattern).unwrap().is_match(value)
            {
                fail(field.to_owned(), "should match".to_owned(), failures);
            }
        }
        Value::Array(items) => {
            if number("minItems").is_some_and(|minimum| (items.len() as f64) < minimum) {
                fail(field.to_owned(), "should have at least".to_owned(), failures);
            }
            if number("maxItems").is_some_and(|maximum| items.len() as f64 > maximum) {
                *blocked = true;
                return fail(field.to_owned(), "Too many".to_owned(), failures);
            }
            for (index, item) in items.iter().enumerate() {
                let field = format!("{field}[{index}]");
                walk(&schema["items"], item, &field, failures, blocked);
                if let Some(keys) = schema["x-kubernetes-list-map-keys"].as_array() {
                    let key = |item: &Value| -> Vec<Value> {
                        keys.iter().map(|key| item[key.as_str().unwrap()].clone()).collect()
                    };
                    if items[..index].iter().any(|earlier| key(earlier) == key(item)) {
                        fail(field, "Duplicate value".to_owned(), failures);
                    }
                }
            }
        }
        Value::Object(fields) => object(schema, fields, field, failures, blocked),
        Value::Bool(_) | Value::Null => {}
    }
}

fn object(schema: &Value, fields: &Map<String, Value>, field: &str, failures: &mut Vec<Failure>, blocked: &mut bool) {
    if schema["maxProperties"].as_u64().is_some_and(|maximum| fields.len() as u64 > maximum) {
        *blocked = true;
        failures.push(Failure { field: field.to_owned(), message: "Too many".to_owned(), rule: None });
    }
    let child = |name: &str| {
        if field.is_empty() { name.to_owned() } else { format!("{field}.{name}") }
    };
    for required in schema["required"].as_array().into_iter().flatten() {
        let name = required.as_str().unwrap();
        if !fields.contains_key(name) {
            *blocked = true;
            failures.push(Failure { field: child(name), message: "Required value".to_owned(), rule: None });
        }
    }
    for (name, value) in fields {
        // A field the schema does not have is pruned, not refused.
        let schema = schema["properties"].get(name).or_else(|| schema.get("additionalProperties"));
        if let Some(schema) = schema {
            walk(schema, value, &child(name), failures, blocked);
        }
    }
}
