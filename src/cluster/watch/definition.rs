//! The installed definition of `BundleRun`, and no other.

use futures::Stream;
use k8s_openapi::api::authorization::v1::ResourceAttributes;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client};
use kube_runtime::{WatchStreamExt, watcher};

use super::nodes::may_follow;
use super::{Event, relisting};
use crate::cluster::Error;
use crate::names;

/// The definition, and what becomes of it.
pub fn definition(client: &Client) -> impl Stream<Item = Event<CustomResourceDefinition>> + Send + 'static {
    let only_ours = watcher::Config::default().fields(&format!("metadata.name={}", names::DEFINITION));
    relisting(Api::all(client.clone()), only_ours).default_backoff()
}

/// Whether the operator may read it: one for some namespaces only has no right outside of them, unless somebody gave it.
///
/// # Errors
/// When there is no answer.
pub async fn may_follow_definition(client: &Client) -> Result<bool, Error> {
    let definition = ResourceAttributes {
        group: Some("apiextensions.k8s.io".into()),
        resource: Some("customresourcedefinitions".into()),
        name: Some(names::DEFINITION.into()),
        ..ResourceAttributes::default()
    };
    may_follow(client, &definition).await
}
