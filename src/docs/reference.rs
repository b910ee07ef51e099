//! Every field of the resource, from the definition that is installed.

use std::fmt::Write;

use serde_json::Value;

use super::{code_list, head, row};
use crate::api::crd::{CrdError, crd};
use crate::api::rules::{self, Rule};

const INTRODUCTION: &str = "\
# Reference: the fields of a BundleRun

What does each field mean, and what may it hold? `apiVersion: bundlerun.dev/v1alpha1`, `kind: BundleRun`; `kubectl explain bundlerun.spec` prints the same. Durations are days, hours, minutes and seconds (`1d12h`, `90s`), quantities those of Kubernetes (`500m`, `32Gi`). What a field may hold is checked by the API server, and its message names the field. The words in `status` are in [endings](endings.md).
";

/// What the API server says before any rule of ours is asked, and no definition can make it accept, or say it better (tried
/// on Kubernetes 1.36): a schema has one type, and `x-kubernetes-int-or-string` is those two whatever `type` stands beside
/// it; types in `anyOf` are refused as not structural; with a wrong type no rule is evaluated. A field without a type
/// needs `x-kubernetes-preserve-unknown-fields`, and then rules cannot see it (*unable to convert structural schema to CEL
/// declarations*, *undefined field*): no bounds, and nothing that keeps it as it was. `tests/crd/cases` holds the words
/// against a real one.
const TYPES: &str = "
The API server compares types first, in words of its own:

| it says | write |
| --- | --- |
| `spec.resources.cpus: Invalid value: \"number\": spec.resources.cpus in body must be of type integer,string: \"number\"`, of `cpus: 0.5` | `cpus: 500m`, or `cpus: \"0.5\"`: likewise for `memory`, `disk` and `sharedMemory` |
| `spec.env[0].value: Invalid value: \"number\": spec.env[0].value in body must be of type string: \"number\"`, of `value: 0.1`; `\"integer\"`, of `value: 7`; `\"boolean\"`, of `value: true` | `value: \"0.1\"`, `value: \"7\"`, `value: \"true\"` |
| `spec.argv[2] in body must be of type string: \"number\"`, of `argv: [train, --lr, 0.1]`; the same of `timeLimit: 90` and of labels such as `generation: 2` | `argv: [train, --lr, \"0.1\"]`, `timeLimit: 90s`, `generation: \"2\"` |
| `unknown field \"spec.nodeName\"` | this version has no field of that name: look for another spelling below, or see [API versions](api-versions.md) |
";

const SPEC: &str = "
## spec: what you ask for

A field can change after the run was created only where it says so.

";

const STATUS: &str = "
## status: what happened

Written by the operator alone. Once the phase is final, nothing but `observedGeneration` changes, its own and that of its conditions.

";

pub(super) fn page() -> Result<String, CrdError> {
    let definition = serde_json::to_value(crd()?).map_err(|error| CrdError::Encode(error.to_string()))?;
    let schema = definition.pointer("/spec/versions/0/schema/openAPIV3Schema/properties").unwrap_or(&Value::Null);
    let reference = Reference { rules: rules::all() };
    let mut page = INTRODUCTION.to_owned();
    page += &reference.rules_of("");
    page += TYPES;
    page += SPEC;
    reference.fields("spec", &schema["spec"], &mut page);
    page += STATUS;
    reference.fields("status", &schema["status"], &mut page);
    Ok(page)
}

struct Reference {
    rules: Vec<Rule>,
}

impl Reference {
    /// A table of the fields of an object, and one for each object below it.
    fn fields(&self, path: &str, node: &Value, page: &mut String) {
        let required: Vec<_> = node["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let in_the_spec = path.starts_with("spec");
        let mut below = Vec::new();
        *page += &if in_the_spec {
            head(["field", "type", "limits", "meaning"])
        } else {
            head(["field", "type", "meaning"])
        };
        for (name, field) in node["properties"].as_object().into_iter().flatten() {
            let at = format!("{path}.{name}");
            let mut meaning = field["description"].as_str().unwrap_or_default().to_owned();
            if path == "spec" && !self.is_fixed(name) {
                meaning = format!("**Can change.** {meaning}");
            }
            let name = format!("`{name}`{}", if required.contains(&name.as_str()) { ", required" } else { "" });
            *page += &if in_the_spec {
                row([&name, &type_of(field), &limits(field), &meaning])
            } else {
                row([&name, &type_of(field), &meaning])
            };
            let items = field.get("items").unwrap_or(field);
            if items.get("properties").is_some() {
                below.push((if field.get("items").is_some() { format!("{at}[]") } else { at }, items));
            }
        }
        *page += &self.rules_of(path);
        for (at, node) in below {
            let _ = write!(page, "\n### {at}\n\n"); // a String takes everything
            self.fields(&at, node, page);
        }
    }

    /// A rule for updates keeps it as it was.
    fn is_fixed(&self, field: &str) -> bool {
        let fixes = |rule: &&Rule| {
            is_for_updates(rule) && rule.at == "spec" && rule.field.as_deref() == Some(&format!(".{field}"))
        };
        self.rules.iter().any(|rule| fixes(&rule))
    }

    /// What the API server says of an object that breaks a rule of this object or of one of its fields; that a field is
    /// fixed is said at the field.
    fn rules_of(&self, path: &str) -> String {
        let is_here = |at: &str| {
            let at = at.strip_suffix("[]").filter(|at| *at != path.trim_end_matches("[]")).unwrap_or(at);
            at == path || (!path.is_empty() && at.rsplit_once('.').is_some_and(|(parent, _)| parent == path))
        };
        let mut messages: Vec<&str> = Vec::new();
        for rule in self.rules.iter().filter(|rule| !is_for_updates(rule) && is_here(rule.at)) {
            if !messages.contains(&rule.message.as_str()) {
                messages.push(&rule.message);
            }
        }
        if messages.is_empty() {
            return String::new();
        }
        format!("\nRefused with these words:\n\n- {}\n", messages.join("\n- ").replace('<', "\\<"))
    }
}

fn is_for_updates(rule: &Rule) -> bool {
    rule.rule.contains("oldSelf")
}

fn type_of(field: &Value) -> String {
    if field["x-kubernetes-int-or-string"] == true {
        return "quantity".into();
    }
    match (field["type"].as_str().unwrap_or_default(), field.get("items"), field.get("additionalProperties")) {
        (_, Some(items), _) => format!("list of {}s", type_of(items)),
        (_, _, Some(values)) => format!("map of {}s", type_of(values)),
        _ if field["format"] == "date-time" => "time".into(),
        _ if field.get("enum").is_some() => {
            let words = field["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
            format!("one of {}", code_list(words))
        }
        (name, ..) => name.to_owned(),
    }
}

/// Bounds of a field and of its items; those of quantities are rules.
fn limits(field: &Value) -> String {
    if field["x-kubernetes-int-or-string"] == true {
        return String::new();
    }
    let mut limits = Vec::new();
    let bound =
        |node: &Value, key: &str, words: &str| node[key].as_f64().map(|bound| words.replace("{}", &bound.to_string()));
    for (of, node) in [("", field), ("each ", &field["items"]), ("each ", &field["additionalProperties"])] {
        let mut own = Vec::new();
        own.extend(bound(node, "minimum", "at least {}"));
        own.extend(bound(node, "maximum", "at most {}"));
        own.extend(bound(node, "minLength", "at least {} characters"));
        own.extend(bound(node, "maxLength", "at most {} characters"));
        own.extend(bound(node, "minItems", "at least {} items"));
        own.extend(bound(node, "maxItems", "at most {} items"));
        own.extend(bound(node, "maxProperties", "at most {} entries"));
        own.extend(node["pattern"].as_str().map(|pattern| format!("`{pattern}`")));
        own.extend(
            node.pointer("/x-kubernetes-list-map-keys/0")
                .and_then(Value::as_str)
                .map(|key| format!("one item for each `{key}`")),
        );
        if !own.is_empty() {
            limits.push(format!("{of}{}", own.join(", ")));
        }
    }
    limits.join("; ")
}
