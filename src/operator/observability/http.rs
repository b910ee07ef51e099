//! `/healthz`: the process answers. `/readyz`: both caches are complete, so plans are made, or would be by a replica that
//! leads. `/metrics`: what it does in numbers.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use futures::FutureExt;
use kube_runtime::reflector::Store;

use crate::cluster::GuardedRun;
use crate::operator::Failure;
use crate::operator::leader::Leadership;
use crate::operator::observability::metrics::{self, Metrics};
use crate::plan::PodFacts;

/// What is told of the operator.
#[derive(Clone)]
pub(in crate::operator) struct Health {
    pub(in crate::operator) runs: Store<GuardedRun>,
    pub(in crate::operator) pods: Store<PodFacts>,
    pub(in crate::operator) metrics: Arc<Metrics>,
    pub(in crate::operator) leadership: Leadership,
}

impl Health {
    /// Binds the port now, so that a taken one is told at the start, and serves until dropped.
    pub(in crate::operator) async fn serve(
        self,
        listen: SocketAddr,
    ) -> Result<impl Future<Output = Result<(), Failure>>, Failure> {
        let listener =
            tokio::net::TcpListener::bind(listen).await.map_err(|e| format!("cannot listen on {listen}: {e}"))?;
        let app = Router::new()
            .route("/healthz", get(|| async { "ok" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(exposition))
            .with_state(self);
        Ok(async move { axum::serve(listener, app).await.map_err(Failure::from) })
    }
}

async fn ready(State(health): State<Health>) -> (StatusCode, &'static str) {
    let known = |ready: Option<bool>| ready == Some(true);
    let all = known(health.runs.wait_until_ready().now_or_never().map(|r| r.is_ok()))
        && known(health.pods.wait_until_ready().now_or_never().map(|r| r.is_ok()));
    if all { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "caches are filling") }
}

async fn exposition(State(health): State<Health>) -> impl IntoResponse {
    let text = health.metrics.exposition(&health.runs, &health.leadership);
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text)
}
