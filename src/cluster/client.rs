//! The connection to the API server.

use std::time::Duration;

use kube::client::ClientBuilder;
use kube::{Client, Config};

use super::Requests;

/// Connects as the kubeconfig says, else as the pod's service account. Every request passes `requests`.
///
/// # Errors
/// When neither is there, or what is there cannot be used.
pub async fn connect(requests: &Requests) -> Result<Client, Box<dyn std::error::Error + Send + Sync>> {
    let mut config = Config::infer().await?;
    config.connect_timeout = Some(Duration::from_secs(10));
    // Our own back-off per run says what fails and lets others go on; the client's silent retries do neither.
    config.default_retry = false;
    Ok(ClientBuilder::try_from(config)?.with_layer(requests).build())
}
