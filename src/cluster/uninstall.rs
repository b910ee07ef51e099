//! For taking the operator away: its Deployment, and the pods that it still holds.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch};
use kube::core::Selector;
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::cluster::carry_out::{Patched, remove_finalizer};
use crate::cluster::{Error, bounded, failed, patch_params};
use crate::names;
use crate::plan::{PodFacts, PodRef};

/// Between two looks at what is left.
pub const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The pods that we hold in these namespaces, or in all when none is named.
///
/// # Errors
/// When there is no answer.
pub async fn held_pods(client: &Client, namespaces: &[String]) -> Result<Vec<PodFacts>, Error> {
    let mut apis: Vec<Api<PodFacts>> =
        namespaces.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect();
    if apis.is_empty() {
        apis.push(Api::all(client.clone()));
    }
    let mut held = Vec::new();
    for api in apis {
        let mut pages = ListParams::default().labels(names::RUN_UID_LABEL).limit(500);
        loop {
            let page = bounded("list pods", api.list(&pages)).await?.map_err(|e| failed("list pods", e))?;
            held.extend(page.items.into_iter().filter(PodFacts::is_held));
            match page.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) => pages = pages.continue_token(&next),
                None => break,
            }
        }
    }
    Ok(held)
}

/// Takes our finalizer off a pod; false: it has changed since it was listed.
///
/// # Errors
/// When there is no answer.
pub async fn let_go(client: &Client, pod: &PodFacts) -> Result<bool, Error> {
    let name = PodRef::of(pod);
    let action = format!("release pod {}/{}", name.namespace, name.name);
    match remove_finalizer(client, &action, &name, pod).await? {
        Patched::Done => Ok(true),
        Patched::IsAnother => Ok(false),
        Patched::Refused(what) => Err(Error::Unusable { action, what }),
    }
}

/// Scales a Deployment to nothing and says which pods are its own; none: there is no such Deployment.
///
/// # Errors
/// When there is no answer.
pub async fn scale_down(client: &Client, namespace: &str, name: &str) -> Result<Option<Selector>, Error> {
    let action = format!("scale deployment {namespace}/{name}");
    let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let Some(deployment) = bounded(&action, api.get_opt(name)).await?.map_err(|e| failed(&action, e))? else {
        return Ok(None);
    };
    let patch = Patch::Merge(json!({"spec": {"replicas": 0}}));
    bounded(&action, api.patch_scale(name, &patch_params(), &patch)).await?.map_err(|e| failed(&action, e))?;
    let selector = deployment.spec.unwrap_or_default().selector.try_into();
    selector.map(Some).map_err(|error| Error::Unusable { action, what: format!("its selector: {error}") })
}

/// Names of the pods of a selector that may still act, `but` one.
///
/// # Errors
/// When there is no answer.
pub async fn acting_pods(
    client: &Client,
    namespace: &str,
    selector: &Selector,
    but: Option<&str>,
) -> Result<Vec<String>, Error> {
    let action = format!("list pods of {namespace}");
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let listed = bounded(&action, api.list(&ListParams::default().labels_from(selector))).await?;
    let pods = listed.map_err(|e| failed(&action, e))?.items;
    let over = |pod: &Pod| {
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    };
    let acting = pods.iter().filter(|pod| !over(pod)).map(ResourceExt::name_any);
    Ok(acting.filter(|name| Some(name.as_str()) != but).collect())
}
