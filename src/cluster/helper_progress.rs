//! How far the helper of a pod is: it has no access to the API server, so it is asked.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::contract::{MESSAGE_MAX_BYTES, Progress};
use crate::names;

/// It is news, not state: who does not answer soon is asked another time.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The answer is one short line, and a termination message as JSON where that has no other way; what else may listen
/// there is not trusted.
const ANSWER_MAX_BYTES: usize = 1024 + 4 * MESSAGE_MAX_BYTES;

/// A client for helpers.
pub(in crate::cluster) fn client() -> reqwest::Result<reqwest::Client> {
    let builder = reqwest::Client::builder().timeout(TIMEOUT).no_proxy();
    builder.redirect(reqwest::redirect::Policy::none()).build()
}

/// The helper's answer; none: it gave none that can be used, or cannot be reached.
pub(in crate::cluster) async fn ask(client: &reqwest::Client, ip: &str) -> Option<Progress> {
    let address = SocketAddr::new(ip.parse::<IpAddr>().ok()?, names::PROGRESS_PORT);
    let mut answer = client.get(format!("http://{address}/progress")).send().await.ok()?.error_for_status().ok()?;
    let mut text = Vec::new();
    while let Some(chunk) = answer.chunk().await.ok()? {
        text.extend_from_slice(&chunk);
        if text.len() > ANSWER_MAX_BYTES {
            return None;
        }
    }
    serde_json::from_slice(&text).ok()
}
