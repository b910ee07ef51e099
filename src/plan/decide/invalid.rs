//! Fields of a pod that the API server finds wrong: caused by the run, or by others, of which its user knows nothing. The
//! pod that the operator sent is compared with what the API server names: the field and, where it says it, the value.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Deserializer, Value};

use crate::api::{BundleRun, Quantity};
use crate::contract::first_of;
use crate::plan::pod::mounts::{in_container, unexpanded};
use crate::plan::steps::InvalidField;

/// Where a wrong field comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// Of the run's spec.
    Run,
    /// Of the operator or its settings.
    Operator,
    /// The pod had no such field, or another value there, when it was sent: something has changed it since.
    Others,
}

/// Whose the fields are, in words; none: none are named, or the run caused one of them.
pub(super) fn not_of_the_run(fields: &[InvalidField], pod: &Pod, run: &BundleRun) -> Option<String> {
    let (pod, run) = (serde_json::to_value(pod).ok()?, serde_json::to_value(run).ok()?);
    let origins: Vec<_> = fields.iter().map(|field| (origin(field, &pod, &run), &field.path)).collect();
    if origins.is_empty() || origins.iter().any(|(origin, _)| *origin == Origin::Run) {
        return None;
    }
    let paths =
        |of: Origin| origins.iter().filter(|(origin, _)| *origin == of).map(|(_, path)| path).collect::<Vec<_>>();
    let said = |of: Origin, words: &str| {
        let paths = paths(of);
        (!paths.is_empty()).then(|| format!("{words}: {}", first_of(&paths)))
    };
    let words = [
        said(Origin::Others, "changed after the operator made it"),
        said(Origin::Operator, "the operator or its settings made it so"),
    ];
    Some(words.into_iter().flatten().collect::<Vec<_>>().join("; "))
}

fn origin(field: &InvalidField, pod: &Value, run: &Value) -> Origin {
    let path = parts(&field.path);
    let named = named(&field.words);
    // Of two that are the same the last one is named: whether that is ours, its place tells. Else others may have put
    // theirs before ours.
    let is_of_two = field.words.starts_with("Duplicate value") || field.words.contains("must be unique");
    let there = values(pod, &path, named.is_some() && !is_of_two);
    // What is wrong with `limits[a/b]` may be `a/b`.
    let key = field.path.strip_suffix(']').and_then(|path| path.rsplit_once('[')).map(|(_, key)| key.to_owned());
    let key = key.filter(|_| !there.is_empty());
    let sent: Vec<_> = there.into_iter().flat_map(texts).chain(key).collect();
    let is_sent = named.as_ref().map_or(!sent.is_empty(), |named| sent.iter().any(|sent| is_same(sent, named)));
    if !is_sent {
        return Origin::Others;
    }

    let wished: Vec<_> =
        fields_of_the_run(&path).iter().filter_map(|field| run.pointer(field)).flat_map(texts).collect();
    let is_of_the_run = |text: &String| wished.iter().any(|wished| is_made_of(text, wished));
    let is_caused = named.as_ref().map_or_else(|| sent.iter().any(is_of_the_run), is_of_the_run);
    if is_caused { Origin::Run } else { Origin::Operator }
}

/// A step of `spec.containers[0].resources.limits[nvidia.com/gpu]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part<'a> {
    Name(&'a str),
    Index(usize),
}

fn parts(path: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        let (name, after) = match rest.strip_prefix('[') {
            Some(key) => key.split_once(']').unwrap_or((key, "")),
            None => rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len())),
        };
        let index = rest.starts_with('[').then(|| name.parse().ok()).flatten();
        parts.push(index.map_or(Part::Name(name), Part::Index));
        rest = after.strip_prefix('.').unwrap_or(after);
    }
    parts
}

/// What is there. `anywhere`: in each entry of a list, whichever is named.
fn values<'a>(object: &'a Value, path: &[Part], anywhere: bool) -> Vec<&'a Value> {
    path.iter().fold(vec![object], |values, part| {
        let below = |value: &'a Value| match (part, value) {
            (Part::Index(_), Value::Array(all)) if anywhere => all.iter().collect(),
            (Part::Index(index), value) => value.get(index).into_iter().collect(),
            (Part::Name(name), value) => value.get(name).into_iter().collect::<Vec<_>>(),
        };
        values.into_iter().flat_map(below).collect()
    })
}

/// The value that the words name, as text; none: they name none. What is required was found empty.
fn named(words: &str) -> Option<String> {
    if words.starts_with("Required value") {
        return Some(String::new());
    }
    let (kind, rest) = words.split_once(": ")?;
    if !["Invalid value", "Unsupported value", "Duplicate value", "Not found"].contains(&kind) {
        return None;
    }
    let value = Deserializer::from_str(rest).into_iter::<Value>().next()?.ok()?;
    (!value.is_object() && !value.is_array()).then(|| text(&value))
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// All that is in it, and the names of its fields: labels are wrong by either.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(all) => all.iter().flat_map(texts).collect(),
        Value::Object(fields) => {
            fields.iter().flat_map(|(name, value)| [vec![name.clone()], texts(value)].concat()).collect()
        }
        value => vec![text(value)],
    }
}

fn is_same(a: &str, b: &str) -> bool {
    let amount = |text: &str| Quantity::from(text).millis().ok();
    a == b || amount(a).is_some_and(|a| Some(a) == amount(b))
}

/// What the run says becomes this in its pod.
fn is_made_of(text: &str, wished: &str) -> bool {
    is_same(text, wished) || text == in_container(wished) || text == unexpanded(wished)
}

/// The fields of the run that a field of its pod is made of.
fn fields_of_the_run(path: &[Part]) -> &'static [&'static str] {
    let names = path.iter().filter_map(|part| if let Part::Name(name) = part { Some(*name) } else { None });
    let names: Vec<&str> = names.collect();
    match names.as_slice() {
        ["metadata", "labels", ..] => &["/spec/podLabels"],
        ["metadata", "annotations", ..] => &["/spec/podAnnotations"],
        ["spec", "nodeSelector", ..] => &["/spec/nodeSelector"],
        ["spec", "tolerations", ..] => &["/spec/tolerations"],
        ["spec", "priorityClassName"] => &["/spec/priorityClassName"],
        ["spec", "schedulerName"] => &["/spec/schedulerName"],
        ["spec", "serviceAccountName"] => &["/spec/serviceAccountName"],
        ["spec", "imagePullSecrets", ..] => &["/spec/imagePullSecrets"],
        ["spec", "securityContext", ..] => &["/spec/runAsUser", "/spec/runAsGroup", "/spec/fsGroup"],
        ["spec", "containers", "image"] => &["/spec/image"],
        ["spec", "containers", "env", ..] => &["/spec/env"],
        ["spec", "containers", "resources", ..] | ["spec", "resources", ..] => &["/spec/resources"],
        ["spec", "volumes", ..] | ["spec", "containers" | "initContainers", "volumeMounts", ..] => {
            &["/spec/volumes", "/spec/inputs"]
        }
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_as_the_api_server_writes_it() {
        use Part::{Index, Name};
        for (path, expected) in [
            ("metadata.labels", vec![Name("metadata"), Name("labels")]),
            (
                "spec.containers[12].env[0].name",
                vec![Name("spec"), Name("containers"), Index(12), Name("env"), Index(0), Name("name")],
            ),
            ("spec.limits[nvidia.com/gpu]", vec![Name("spec"), Name("limits"), Name("nvidia.com/gpu")]),
            ("a[0", vec![Name("a"), Index(0)]),
            ("", vec![]),
        ] {
            assert_eq!(parts(path), expected, "{path}");
        }
    }

    #[test]
    fn the_value_is_read_as_the_api_server_writes_it() {
        for (words, expected) in [
            ("Required value", Some("")),
            ("Required value: must be set", Some("")),
            ("Invalid value: \"a \\\"b\": name part must consist of ...", Some("a \"b")),
            ("Invalid value: -1: must be between 0 and 4", Some("-1")),
            ("Duplicate value: \"run\"", Some("run")),
            ("Unsupported value: \"x\": supported values: \"a\", \"b\"", Some("x")),
            ("Not found: \"volume\"", Some("volume")),
            ("Invalid value: {\"a\":1}: no", None),
            ("Invalid value: core.Volume{Name:\"a\"}: no", None),
            ("Forbidden: may not be set", None),
            ("Too long: may not be more than 63 bytes", None),
            ("", None),
        ] {
            assert_eq!(named(words).as_deref(), expected, "{words}");
        }
    }
}
