//! The connection to the API server.

use std::time::Duration;

use kube::{Client, Config};

/// Connects as the kubeconfig says, else as the pod's service account.
///
/// # Errors
/// When neither is there, or what is there cannot be used.
pub async fn connect() -> Result<Client, Box<dyn std::error::Error + Send + Sync>> {
    let mut config = Config::infer().await?;
    config.connect_timeout = Some(Duration::from_secs(10));
    // Our own back-off per run says what fails and lets others go on; the client's silent retries do neither.
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}
