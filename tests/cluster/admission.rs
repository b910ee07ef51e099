//! Policies of a cluster: they put faults into pods on their way, or refuse what is done to pods. The pods are real, and
//! all else is as always.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use serde_json::json;

use crate::common::{Space, eventually, together};

/// A `MutatingAdmissionPolicy` and its binding, for the pods of one namespace.
pub struct PodMutation {
    objects: Vec<Api<DynamicObject>>,
    name: String,
}

impl PodMutation {
    /// `expression`: CEL that makes a list of `JSONPatch`. Waits until it works.
    pub async fn begin(space: &Space, expression: &str) -> Self {
        let name = format!("mutation-{}", space.name);
        let marked = "[JSONPatch{op: 'add', path: '/metadata/labels', value: {'mutated': 'yes'}}]";
        let expression = format!("object.metadata.name == '{TRIAL}' ? {marked} : {expression}");
        let pods = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]});
        let policy = json!({
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": space.name}}, "resourceRules": [pods]},
            "failurePolicy": "Fail", "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}]});
        let binding = json!({"policyName": name});
        let kinds = [
            ("MutatingAdmissionPolicy", "mutatingadmissionpolicies", policy),
            ("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", binding),
        ];
        let made = kinds.map(async |(kind, plural, spec)| {
            let group_version_kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
            make(space, &ApiResource::from_gvk_with_plural(&group_version_kind, plural), &name, spec).await
        });
        let mutation = Self { objects: together(made).await, name: name.clone() };
        mutation.until(space, true).await;
        mutation
    }

    /// Takes it away, and waits until it works no more.
    pub async fn end(self, space: &Space) {
        for api in &self.objects {
            api.delete(&self.name, &DeleteParams::default()).await.unwrap();
        }
        self.until(space, false).await;
    }

    async fn until(&self, space: &Space, works: bool) {
        eventually("the policy to work or to be gone", async || {
            let seen = try_to_create(space).await?;
            if seen.labels().contains_key("mutated") == works { Ok(()) } else { Err(format!("{:?}", seen.labels())) }
        })
        .await;
    }
}

/// A `ValidatingAdmissionPolicy` and its binding, for the pods of one namespace.
pub struct PodDenial {
    objects: Vec<Api<DynamicObject>>,
    name: String,
    operation: &'static str,
}

impl PodDenial {
    /// `allowed`: CEL over `object` that is true of what is not denied. Waits until it works.
    pub async fn begin(space: &Space, operation: &'static str, allowed: &str, message: &str) -> Self {
        let name = format!("denial-{}", space.name);
        let pods = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": [operation], "resources": ["pods"]});
        let policy = json!({
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": space.name}}, "resourceRules": [pods]},
            "failurePolicy": "Fail", "validations": [{"expression": allowed, "message": message}]});
        let binding = json!({"policyName": name, "validationActions": ["Deny"]});
        let kinds = [
            ("ValidatingAdmissionPolicy", "validatingadmissionpolicies", policy),
            ("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", binding),
        ];
        let made = kinds.map(async |(kind, plural, spec)| {
            let group_version_kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
            make(space, &ApiResource::from_gvk_with_plural(&group_version_kind, plural), &name, spec).await
        });
        let denial = Self { objects: together(made).await, name: name.clone(), operation };
        denial.until(space, true).await;
        denial
    }

    /// Takes it away, and waits until it works no more.
    pub async fn end(self, space: &Space) {
        for api in &self.objects {
            api.delete(&self.name, &DeleteParams::default()).await.unwrap();
        }
        self.until(space, false).await;
    }

    async fn until(&self, space: &Space, works: bool) {
        eventually("the policy to work or to be gone", async || {
            let tried =
                if self.operation == "CREATE" { try_to_create(space).await } else { try_to_release(space).await };
            let denied = tried.is_err_and(|error| error.contains("denied"));
            if denied == works { Ok(()) } else { Err(denied) }
        })
        .await;
    }
}

/// A pod of the namespace without its finalizers, as the API server would have it.
async fn try_to_release(space: &Space) -> Result<Pod, String> {
    let pods = space.pods().list(&ListParams::default()).await.unwrap();
    let name = pods.items.first().map(ResourceExt::name_any).unwrap_or_default();
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    space.pods().patch(&name, &dry, &patch).await.map_err(|error| error.to_string())
}

async fn make(space: &Space, resource: &ApiResource, name: &str, spec: serde_json::Value) -> Api<DynamicObject> {
    let api: Api<DynamicObject> = Api::all_with(space.client.clone(), resource);
    let object =
        json!({"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}, "spec": spec});
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    api
}

/// A pod as the API server would make it.
async fn try_to_create(space: &Space) -> Result<Pod, String> {
    let trial = json!({"metadata": {"name": TRIAL}, "spec": {"containers": [{"name": "a", "image": "a"}]}});
    let trial: Pod = serde_json::from_value(trial).unwrap();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    space.pods().create(&dry, &trial).await.map_err(|error| error.to_string())
}

/// CEL that makes a patch of a field of a pod's volume. `value`: as in `value: 'Memory'`; empty: none.
pub fn of_volume(volume: &str, op: &str, field: &str, value: &str) -> String {
    let comma = if value.is_empty() { "" } else { ", " };
    format!(
        "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9].filter(i, i < size(object.spec.volumes) && object.spec.volumes[i].name == '{volume}')\
         .map(i, JSONPatch{{op: '{op}', path: '/spec/volumes/' + string(i) + '/{field}'{comma}{value}}})"
    )
}

/// Name of a pod that is never made.
const TRIAL: &str = "trial";
