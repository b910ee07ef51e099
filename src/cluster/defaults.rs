//! What runs get that say nothing, where their users can read it.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use crate::cluster::{Error, bounded, failed};
use crate::names;

/// Writes the `ConfigMap` of this text. False: that is not allowed.
///
/// # Errors
/// When there is no answer.
pub async fn tell_defaults(client: &Client, namespace: &str, text: &str) -> Result<bool, Error> {
    let name = names::DEFAULTS;
    let action = format!("write ConfigMap {namespace}/{name}");
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"defaults.yaml": text}});
    let params = PatchParams::apply(names::OPERATOR).force();
    match bounded(&action, api.patch(name, &params, &Patch::Apply(map))).await? {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(false),
        Err(error) => Err(failed(&action, error)),
    }
}
