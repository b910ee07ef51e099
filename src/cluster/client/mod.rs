//! The connection to the API server.

#[cfg(feature = "faults")]
mod faults;
mod write_guard;

use std::time::Duration;

use kube::client::ClientBuilder;
use kube::{Client, Config};

use crate::cluster::{Error, bounded, failed};
use crate::plan::IMAGE_VOLUMES_SINCE;

#[cfg(feature = "faults")]
pub use faults::{Asked, Fault, Faults, WatchFault};
pub use write_guard::WriteGuard;

/// A connection on which nothing came for so long is dead: a load balancer forgot it, or the API server is frozen. One that
/// lives has a bookmark on each watch every minute, and answers to all else sooner.
const SILENCE: Duration = Duration::from_secs(90);

/// Connects as the kubeconfig says, else as the pod's service account. Every request passes `requests`.
///
/// # Errors
/// When neither is there, or what is there cannot be used.
pub async fn connect(requests: &WriteGuard) -> Result<Client, Box<dyn std::error::Error + Send + Sync>> {
    let mut config = Config::infer().await?;
    config.connect_timeout = Some(Duration::from_secs(10));
    config.read_timeout = Some(SILENCE);
    // Our own back-off per run says what fails and lets others go on; the client's silent retries do neither.
    config.default_retry = false;
    let builder = ClientBuilder::try_from(config)?;
    #[cfg(feature = "faults")]
    let builder = builder.with_layer(&requests.faults);
    Ok(builder.with_layer(requests).build())
}

/// What the API server can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Image volumes, if the nodes can: see [`Capacity`](crate::plan::Capacity).
    pub image_volumes: bool,
    /// Resources of a whole pod: on by default since Kubernetes 1.34.
    pub pod_resources: bool,
}

/// By the version of the API server.
///
/// # Errors
/// When there is no answer.
pub async fn abilities(client: &Client) -> Result<Abilities, Error> {
    const ACTION: &str = "ask for the version of the API server";
    let version = bounded(ACTION, client.apiserver_version()).await?.map_err(|e| failed(ACTION, e))?;
    // Some providers write `36+`.
    let number = |text: &str| text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().unwrap_or(0);
    let version = (number(&version.major), number(&version.minor));
    Ok(Abilities { image_volumes: version >= IMAGE_VOLUMES_SINCE, pod_resources: version >= (1, 34) })
}
