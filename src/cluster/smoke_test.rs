//! One small run from its creation to its record, for a test of an installation.

use kube::api::{DeleteParams, ObjectMeta, PropagationPolicy};
use kube::{Api, Client};

use crate::api::{BundleRun, BundleRunSpec};
use crate::cluster::{Error, bounded, failed, post};

/// Makes a run with a name of its own.
///
/// # Errors
/// When the API server does not take it, or gives no answer.
pub async fn create_run(
    client: &Client,
    namespace: &str,
    prefix: &str,
    spec: BundleRunSpec,
) -> Result<BundleRun, Error> {
    let action = format!("create a BundleRun in {namespace}");
    let metadata = ObjectMeta { generate_name: Some(prefix.into()), ..ObjectMeta::default() };
    let run = BundleRun { metadata, spec, status: None };
    let api: Api<BundleRun> = Api::namespaced(client.clone(), namespace);
    bounded(&action, api.create(&post(), &run)).await?.map_err(|e| failed(&action, e))
}

/// A run as it is now.
///
/// # Errors
/// When there is no answer.
pub async fn get_run(client: &Client, namespace: &str, name: &str) -> Result<Option<BundleRun>, Error> {
    let action = format!("get BundleRun {namespace}/{name}");
    let api: Api<BundleRun> = Api::namespaced(client.clone(), namespace);
    bounded(&action, api.get_opt(name)).await?.map_err(|e| failed(&action, e))
}

/// Deletes a run and, after it, its pod.
///
/// # Errors
/// When there is no answer.
pub async fn delete_run(client: &Client, namespace: &str, name: &str) -> Result<(), Error> {
    let action = format!("delete BundleRun {namespace}/{name}");
    let api: Api<BundleRun> = Api::namespaced(client.clone(), namespace);
    let params = DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
    match bounded(&action, api.delete(name, &params)).await? {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(failed(&action, error)),
    }
}
