//! Policies of a cluster: they put faults into pods on their way, or refuse what is done to pods. The pods are real, and
//! all else is as always.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use serde_json::{Value, json};

use crate::common::{Space, eventually, together};

/// A policy about the pods of one namespace, and its binding.
pub struct PodPolicy {
    objects: Vec<Api<DynamicObject>>,
    name: String,
    tried_by: Trial,
}

/// How it is found out whether a policy works.
enum Trial {
    /// A pod is given a label.
    Labelled,
    /// A pod is not created.
    NotCreated,
    /// A pod keeps its finalizers.
    NotReleased,
    /// A pod is not deleted.
    NotDeleted,
}

impl PodPolicy {
    /// A `MutatingAdmissionPolicy`. `expression`: CEL that makes a list of `JSONPatch`. Waits until it works.
    pub async fn mutating(space: &Space, expression: &str) -> Self {
        let marked = "[JSONPatch{op: 'add', path: '/metadata/labels', value: {'mutated': 'yes'}}]";
        let expression = format!("object.metadata.name == '{TRIAL}' ? {marked} : {expression}");
        let policy = json!({
            "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}]});
        Self::begin(space, "Mutating", "CREATE", policy, json!({}), Trial::Labelled).await
    }

    /// A `ValidatingAdmissionPolicy`. `allowed`: CEL over `object` that is true of what is not denied. Waits until it
    /// works.
    pub async fn denying(space: &Space, operation: &str, allowed: &str, message: &str) -> Self {
        let policy = json!({"validations": [{"expression": allowed, "message": message}]});
        let trial = match operation {
            "CREATE" => Trial::NotCreated,
            "UPDATE" => Trial::NotReleased,
            _ => Trial::NotDeleted,
        };
        Self::begin(space, "Validating", operation, policy, json!({"validationActions": ["Deny"]}), trial).await
    }

    async fn begin(
        space: &Space,
        what: &str,
        operation: &str,
        mut policy: Value,
        mut binding: Value,
        tried_by: Trial,
    ) -> Self {
        let name = format!("{}-{}-{}", what.to_lowercase(), operation.to_lowercase(), space.name);
        let pods = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": [operation], "resources": ["pods"]});
        policy["failurePolicy"] = json!("Fail");
        policy["matchConstraints"] = json!({
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": space.name}}, "resourceRules": [pods]});
        binding["policyName"] = json!(name);
        let kind = format!("{what}AdmissionPolicy");
        let plural = format!("{}admissionpolicies", what.to_lowercase());
        let kinds = [
            (kind.clone(), plural, policy),
            (format!("{kind}Binding"), format!("{}admissionpolicybindings", what.to_lowercase()), binding),
        ];
        let made = kinds.map(async |(kind, plural, spec)| {
            let group_version_kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", &kind);
            let resource = ApiResource::from_gvk_with_plural(&group_version_kind, &plural);
            let api: Api<DynamicObject> = Api::all_with(space.client.clone(), &resource);
            let object =
                json!({"apiVersion": resource.api_version, "kind": kind, "metadata": {"name": name}, "spec": spec});
            api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
            api
        });
        let begun = Self { objects: together(made).await, name: name.clone(), tried_by };
        begun.until(space, true).await;
        begun
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
            fn is_denied<T>(tried: Result<T, String>) -> bool {
                tried.is_err_and(|error| error.contains("denied"))
            }
            let seen = match self.tried_by {
                Trial::Labelled => try_to_create(space).await?.labels().contains_key("mutated"),
                Trial::NotCreated => is_denied(try_to_create(space).await),
                Trial::NotReleased => is_denied(try_to_release(space).await),
                Trial::NotDeleted => is_denied(try_to_delete(space).await),
            };
            if seen == works { Ok(()) } else { Err(format!("it works: {seen}")) }
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

/// Whether a pod of the namespace would be deleted.
async fn try_to_delete(space: &Space) -> Result<(), String> {
    let pods = space.pods().list(&ListParams::default()).await.unwrap();
    let name = pods.items.first().map(ResourceExt::name_any).unwrap_or_default();
    let dry = DeleteParams { dry_run: true, ..DeleteParams::default() };
    space.pods().delete(&name, &dry).await.map(drop).map_err(|error| error.to_string())
}

/// A pod as the API server would make it.
pub async fn try_to_create(space: &Space) -> Result<Pod, String> {
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
