//! `bundle-operator uninstall`: removes our finalizer from all pods, for when no operator will be there to do it.

use std::fmt::Write;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::cluster::{self, LOOK_AGAIN, WriteGuard};
use crate::operator::Failure;

/// What to uninstall.
#[derive(Clone, Debug)]
pub struct Uninstall {
    /// The operator's Deployment and its namespace, to be scaled to nothing first: an operator would go on making pods.
    pub scale_down: Option<(String, String)>,
    /// In these namespaces; none named: in all.
    pub namespaces: Vec<String>,
    /// Name of the pod this runs in, which need not be waited for.
    pub own_pod: Option<String>,
    /// For all of it.
    pub timeout: Duration,
}

/// Stops the operator, then takes our finalizer off every pod, and prints what it does.
///
/// # Errors
/// When it was not done in time: what is left.
pub async fn uninstall(what: Uninstall) -> Result<(), Failure> {
    let until = Instant::now() + what.timeout;
    let client = cluster::connect(&WriteGuard::default()).await?;
    let mut trouble = None;
    let mut stopped = what.scale_down.is_none();
    loop {
        let round = async {
            if !stopped {
                stopped = operator_is_gone(&client, &what).await?;
            }
            if !stopped {
                return Ok(Some("the operator still runs".to_owned()));
            }
            let_go(&client, &what.namespaces).await
        };
        match timeout_at(until, round).await {
            Ok(Ok(None)) => {
                println!("no pod is held by this operator any more");
                return Ok(());
            }
            Ok(Ok(Some(left))) => trouble = Some(left),
            Ok(Err(error)) => {
                println!("{error}; will be tried again");
                trouble = Some(error.to_string());
            }
            Err(_) => {}
        }
        if Instant::now() + LOOK_AGAIN >= until {
            let left = trouble.unwrap_or_else(|| "the API server gave no answer".into());
            return Err(format!("not done within {}s: {left}", what.timeout.as_secs()).into());
        }
        sleep(LOOK_AGAIN).await;
    }
}

async fn operator_is_gone(client: &kube::Client, what: &Uninstall) -> Result<bool, cluster::Error> {
    let Some((namespace, name)) = &what.scale_down else { return Ok(true) };
    let Some(selector) = cluster::scale_down(client, namespace, name).await? else {
        println!("there is no deployment {namespace}/{name}");
        return Ok(true);
    };
    let pods = cluster::acting_pods(client, namespace, &selector, what.own_pod.as_deref()).await?;
    if pods.is_empty() {
        println!("deployment {namespace}/{name} is scaled down and its pods are gone");
    } else {
        println!("deployment {namespace}/{name} is scaled down; waiting for {}", pods.join(", "));
    }
    Ok(pods.is_empty())
}

/// None: no pod is left.
async fn let_go(client: &kube::Client, namespaces: &[String]) -> Result<Option<String>, cluster::Error> {
    let held = cluster::held_pods(client, namespaces).await?;
    let mut left = Vec::new();
    for pod in &held {
        let (namespace, name) =
            (pod.metadata.namespace.as_deref().unwrap_or_default(), pod.metadata.name.as_deref().unwrap_or_default());
        match cluster::let_go(client, pod).await {
            Ok(true) => println!("released pod {namespace}/{name}"),
            Ok(false) => left.push(format!("{namespace}/{name}: it has changed")),
            Err(error) => left.push(format!("{namespace}/{name}: {error}")),
        }
    }
    if left.is_empty() {
        return Ok(None);
    }
    let mut text = format!("{} pods are still held:", left.len());
    for line in left.iter().take(20) {
        let _ = write!(text, "\n  {line}"); // a String takes everything
    }
    Ok(Some(text))
}
