//! The operator with other settings than those of the tests: for tests that run alone.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::common::{Operators, Space, operators};

/// Gives the operator the settings of the tests with a change, under a name of their own, which makes operators of their
/// own.
pub async fn changed(space: &Space, name: &'static str, change: impl FnOnce(&mut Value)) {
    let maps: Api<ConfigMap> = Api::namespaced(space.client.clone(), "bundlerun");
    let usual = maps.get("bundle-operator").await.unwrap().data.unwrap();
    let mut settings: Value = serde_saphyr::from_str(&usual["settings.yaml"]).unwrap();
    change(&mut settings);
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
        "data": {"settings.yaml": settings.to_string()}});
    maps.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(map)).await.unwrap();
    operators(&space.client, &Operators { settings: name, ..Operators::default() }).await;
}

/// Gives the operator the settings of the tests again, and takes those of these names away.
pub async fn usual(space: &Space, names: &[&str]) {
    operators(&space.client, &Operators::default()).await;
    let maps: Api<ConfigMap> = Api::namespaced(space.client.clone(), "bundlerun");
    for name in names {
        let _ = maps.delete(name, &DeleteParams::default()).await;
    }
}
