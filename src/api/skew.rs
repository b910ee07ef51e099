//! The definition that is installed beside that of this version: they are upgraded one after the other.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use super::crd::{CrdError, crd};
use crate::names;

/// In what the installed definition is not that of this version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skew {
    /// Fields of ours that it lacks, as `status.duration`, and words, as `status.phase: Lost`: the API server drops or
    /// refuses them. Not empty: it is older.
    pub missing: Vec<String>,
    /// It is another, if only in a rule. Descriptions do not count.
    pub differs: bool,
}

/// Compares the schemas themselves: a version beside them could be forgotten, or kept by a tool that changes the rest.
///
/// # Errors
/// See [`CrdError`].
pub fn skew(installed: &CustomResourceDefinition) -> Result<Skew, CrdError> {
    let (ours, theirs) = (schema_of(&crd()?)?, schema_of(installed)?);
    let missing = match theirs {
        Value::Null => vec![names::VERSION.to_owned()],
        _ => missing_fields(&ours, &theirs),
    };
    Ok(Skew { missing, differs: ours != theirs })
}

/// The schema of our version; null: it has none.
fn schema_of(definition: &CustomResourceDefinition) -> Result<Value, CrdError> {
    let version = definition.spec.versions.iter().find(|version| version.name == names::VERSION && version.served);
    let schema = version.and_then(|version| version.schema.as_ref()?.open_api_v3_schema.as_ref());
    let mut schema = serde_json::to_value(schema).map_err(|error| CrdError::Encode(error.to_string()))?;
    drop_descriptions(&mut schema);
    Ok(schema)
}

fn drop_descriptions(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.retain(|name, value| name != "description" || !value.is_string());
            fields.values_mut().for_each(drop_descriptions);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_descriptions),
        _ => {}
    }
}

/// Fields of `ours` that `theirs` has not, and words of its enums, as `status.phase: Lost`.
fn missing_fields(ours: &Value, theirs: &Value) -> Vec<String> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn changed(change: impl FnOnce(&mut Value)) -> Skew {
        let mut definition = serde_json::to_value(crd().unwrap()).unwrap();
        change(&mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]);
        skew(&serde_json::from_value(definition).unwrap()).unwrap()
    }

    #[test]
    fn our_own_definition_is_no_other() {
        assert_eq!(skew(&crd().unwrap()).unwrap(), Skew::default());
        let yaml = crate::api::crd::crd_yaml().unwrap();
        assert_eq!(skew(&serde_saphyr::from_str(&yaml).unwrap()).unwrap(), Skew::default(), "as it is installed");
        let other_words = changed(|schema| schema["properties"]["status"]["description"] = json!("words"));
        assert_eq!(other_words, Skew::default());
    }

    #[test]
    fn an_older_definition_lacks_fields_and_words() {
        let older = changed(|schema| {
            let status = &mut schema["properties"]["status"]["properties"];
            status.as_object_mut().unwrap().remove("duration");
            status["attempts"]["items"]["properties"].as_object_mut().unwrap().remove("bundle");
            status["phase"]["enum"].as_array_mut().unwrap().retain(|word| word != "Stopped");
            schema["properties"]["spec"]["properties"].as_object_mut().unwrap().remove("onInputFailure");
        });
        let expected = ["spec.onInputFailure", "status.attempts[].bundle", "status.duration", "status.phase: Stopped"];
        assert_eq!((older.missing, older.differs), (expected.map(str::to_owned).to_vec(), true));
        let mut none = crd().unwrap();
        none.spec.versions[0].name = "v1".into();
        assert_eq!(skew(&none).unwrap().missing, ["v1alpha1"]);
    }

    #[test]
    fn a_newer_definition_lacks_nothing() {
        let field = changed(|schema| schema["properties"]["spec"]["properties"]["lease"] = json!({"type": "string"}));
        let rule = changed(|schema| drop(schema.as_object_mut().unwrap().remove("x-kubernetes-validations")));
        let open = changed(|schema| {
            schema["properties"]["spec"] = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        });
        for newer in [field, rule, open] {
            assert_eq!(newer, Skew { missing: Vec::new(), differs: true });
        }
    }
}
