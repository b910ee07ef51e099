//! `/healthz`: the process answers. `/readyz`: both caches are complete, so plans are made.

use std::future::Future;
use std::net::SocketAddr;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use futures::FutureExt;
use kube_runtime::reflector::Store;

use super::Failure;
use crate::cluster::GuardedRun;
use crate::plan::PodFacts;

/// Binds the port now, so that a taken one is told at the start, and serves until dropped.
pub(super) async fn serve(
    listen: SocketAddr,
    runs: Store<GuardedRun>,
    pods: Store<PodFacts>,
) -> Result<impl Future<Output = Result<(), Failure>>, Failure> {
    let listener =
        tokio::net::TcpListener::bind(listen).await.map_err(|e| format!("cannot listen on {listen}: {e}"))?;
    let ready = move || {
        let known = |ready: Option<bool>| ready == Some(true);
        let all = known(runs.wait_until_ready().now_or_never().map(|r| r.is_ok()))
            && known(pods.wait_until_ready().now_or_never().map(|r| r.is_ok()));
        async move { if all { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "caches are filling") } }
    };
    let app = Router::new().route("/healthz", get(|| async { "ok" })).route("/readyz", get(ready));
    Ok(async move { axum::serve(listener, app).await.map_err(Failure::from) })
}
