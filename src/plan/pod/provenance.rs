//! What the operator tells of how an output is made, for the artifact beside it: enough to run it again from the
//! registry alone. The helper adds the command, the contents of small inputs, digests and the record.

use k8s_openapi::api::core::v1::EnvVar;

use serde_json::{Map, Value, json};

use super::Attempt;
use super::valid_run::ValidRun;
use crate::oci::digest_of;

/// What always fits: who it is, the image, the resources.
pub(in crate::plan) fn identity(request: &ValidRun, attempt: &Attempt) -> Map<String, Value> {
    let quantity = |bytes: u64| Value::from(bytes.to_string());
    let mut resources = json!({
        "cpus": format!("{}m", request.cpu_millis),
        "memory": quantity(request.memory_bytes),
        "disk": quantity(request.disk_bytes),
        "sharedMemory": quantity(request.shared_memory_bytes),
        "gpus": request.gpus.count,
    });
    if let Some(resources) = resources.as_object_mut().filter(|_| !request.extended.is_empty()) {
        resources.insert("extended".to_owned(), json!(request.extended));
    }
    let known = [
        ("namespace", request.namespace.clone().into()),
        ("name", request.name.clone().into()),
        ("uid", request.uid.clone().into()),
        ("attempt", attempt.number.into()),
        ("image", attempt.requested.into()),
        ("resources", resources),
    ];
    let some = [
        ("imageDigest", digest_of(attempt.image).map(|digest| digest.to_string().into())),
        ("gpuProfile", request.gpu_profile.clone().map(Value::from)),
        ("runAsUser", request.run_as_user.map(Value::from)),
        ("runAsGroup", request.run_as_group.map(Value::from)),
        ("fsGroup", super::fs_group(request).map(Value::from)),
        ("timeLimitSeconds", request.request.time_limit_seconds.map(Value::from)),
        ("stopGraceSeconds", Some(request.request.stop_grace_seconds.into())),
    ];
    let some = some.into_iter().filter_map(|(name, value)| Some((name, value?)));
    known.into_iter().chain(some).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What can be large: the environment, where inputs come from, volumes.
pub(in crate::plan) fn details(request: &ValidRun, attempt: &Attempt) -> Map<String, Value> {
    let inputs: Vec<Value> = (0..request.inputs.len()).map(|index| source(request, attempt, index)).collect();
    let volumes = request.volumes.iter().map(|volume| {
        let path = volume.sub_path.as_ref().map(|path| ("claimPath".to_owned(), json!(path)));
        let known = [("path", json!(volume.mount_path)), ("claim", json!(volume.claim))];
        Value::Object(known.map(|(name, value)| (name.to_owned(), value)).into_iter().chain(path).collect())
    });
    let lists = [
        ("env", env(request)),
        ("inputs", inputs),
        ("volumes", volumes.collect()),
        ("exclude", request.exclude.iter().map(|glob| json!(glob)).collect()),
    ];
    let filled = lists.into_iter().filter(|(_, list)| !list.is_empty());
    filled.map(|(name, list)| (name.to_owned(), Value::Array(list))).collect()
}

/// The variables of the spec: those from Secrets and `ConfigMaps` by the names of these. The helper adds the values of
/// [`told_variables`].
fn env(request: &ValidRun) -> Vec<Value> {
    let told = request.env.iter().map(|var| match (&var.value, &var.value_from) {
        // In the pod every $ is there twice.
        (Some(value), _) => json!({"name": var.name, "value": value.replace("$$", "$")}),
        (None, Some(from)) => json!({"name": var.name, "valueFrom": from}),
        (None, None) => json!({"name": var.name}),
    });
    told.collect()
}

/// Variables from `ConfigMaps`, which change from one attempt to the next.
pub(in crate::plan) fn told_variables(request: &ValidRun) -> Vec<String> {
    let is_told = |var: &&EnvVar| var.value_from.as_ref().is_some_and(|from| from.config_map_key_ref.is_some());
    request.env.iter().filter(is_told).map(|var| var.name.clone()).collect()
}

/// An input as in the spec, and by digest where that is known. The helper has texts and addresses: addresses can hold
/// passwords and signatures.
fn source(request: &ValidRun, attempt: &Attempt, index: usize) -> Value {
    let mut told = json!(request.inputs.get(index));
    let Some(known) = told.as_object_mut() else { return told };
    known.remove("text");
    known.remove("url");
    if let Some(pin) = attempt.pins.get(&index) {
        known.insert("reference".to_owned(), json!(pin.reference));
        known.extend(pin.run_uid.as_ref().map(|uid| ("runUid".to_owned(), json!(uid))));
        known.extend(digest_of(&pin.reference).map(|digest| ("digest".to_owned(), json!(digest))));
    }
    told
}
