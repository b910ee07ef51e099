//! The only Kubernetes I/O: what is there ([`observe`](Cluster::observe)) and the effects ([`carry_out`](Cluster::carry_out)).
//!
//! Nothing is decided here. 404 and 409 are answers, not errors; every call has a timeout.

mod carry_out;
mod caught_up;
mod client;
mod defaults;
mod helper_progress;
mod lease;
mod observe;
mod pod_events;
mod pull_secrets;
mod smoke_test;
mod uninstall;
mod watch;

use std::future::Future;
use std::time::Duration;

pub use carry_out::StepResult;
pub use client::{Abilities, WriteGuard, abilities, connect};
#[cfg(feature = "faults")]
pub use client::{Asked, Fault, Faults, WatchFault};
pub use defaults::tell_defaults;
pub use lease::Leases;
pub use observe::{Answers, Cluster, Snapshot};
pub use smoke_test::{create_run, delete_run, get_run};
pub use uninstall::{LOOK_AGAIN, acting_pods, held_pods, let_go, scale_down};
pub use watch::{
    Event, Nodes, PodTriggers, RunTriggers, Triggered, definition, is_forbidden, may_follow_definition,
    may_follow_nodes, nodes, pods, runs,
};

use kube::api::{PatchParams, PostParams};

use crate::api::BundleRun;
use crate::names;

/// A run as it comes from the API server: one that cannot be decoded must not hold up the others.
pub type GuardedRun = kube::core::DeserializeGuard<BundleRun>;

/// Longest wait for one answer of the API server, which takes up to 34 s (`requestTimeoutUpperBound`): a webhook may have
/// thirty of them, and what became of it is in the answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(40);

/// A call that got no usable answer. Worth another try, with back-off.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server answered with an error, or could not be reached.
    #[error("{action}: {source}")]
    Api {
        /// What was tried, on what.
        action: String,
        /// The client's error.
        source: Box<kube::Error>,
    },
    /// The object is not as it was seen a moment ago, or the API server will not have it changed.
    #[error("{action}: it was changed by somebody else, or cannot be changed as it is")]
    Changed {
        /// What was tried, on what.
        action: String,
    },
    /// Something there cannot be used.
    #[error("{action}: {what}")]
    Unusable {
        /// What was tried, on what.
        action: String,
        /// What it is.
        what: String,
    },
    /// No answer came in time.
    #[error("{action}: no answer within {}s", CALL_TIMEOUT.as_secs())]
    Timeout {
        /// What was tried, on what.
        action: String,
    },
}

/// One call, bounded in time; the inner result is left to the caller, who knows which answers are no errors.
async fn bounded<T>(action: &str, call: impl Future<Output = T>) -> Result<T, Error> {
    tokio::time::timeout(CALL_TIMEOUT, call).await.map_err(|_| Error::Timeout { action: action.to_owned() })
}

fn post() -> PostParams {
    PostParams { field_manager: Some(names::OPERATOR.into()), ..PostParams::default() }
}

fn patch_params() -> PatchParams {
    PatchParams { field_manager: Some(names::OPERATOR.into()), ..PatchParams::default() }
}

fn failed(action: &str, error: kube::Error) -> Error {
    Error::Api { action: action.to_owned(), source: Box::new(error) }
}
