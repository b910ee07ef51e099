//! Leading and standing by: keeps the lease, and says to everybody else whether we lead.

mod election;

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::cluster::Leases;
use crate::operator::Failure;
use crate::operator::leader::election::{Election, LEASE_DURATION, Next, Stored};

/// Two tries fit before the deadline of a renewal.
const CALL_TIMEOUT: Duration = Duration::from_secs(4);

/// Whether this process leads, for all who act.
#[derive(Clone)]
pub(in crate::operator) struct Leadership {
    /// By [`now`]; zero: it does not lead.
    until: Arc<watch::Sender<Duration>>,
}

impl Leadership {
    /// Without a lease: this operator is the only one.
    pub(in crate::operator) fn always() -> Self {
        Self { until: Arc::new(watch::Sender::new(Duration::MAX)) }
    }

    /// Nobody leads before the lease is held.
    pub(in crate::operator) fn not_yet() -> Self {
        Self { until: Arc::new(watch::Sender::new(Duration::ZERO)) }
    }

    /// Whether the lease is held now. It needs no other task to have run: a process that was paused knows by its clock.
    pub(in crate::operator) fn is_held(&self) -> bool {
        now() < *self.until.borrow()
    }

    /// Resolves when it is held for the first time.
    pub(in crate::operator) async fn begun(&self) {
        let mut until = self.until.subscribe();
        let _ = until.wait_for(|until| *until > Duration::ZERO).await; // fails only without a sender, and we have one
    }

    fn set(&self, until: Duration) {
        self.until.send_replace(until);
    }
}

/// Since the machine started. Unlike `Instant` it also counts while the machine is suspended.
fn now() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

/// The name of this process in the lease: a container that is started again has the same pod name.
fn identity(pod: &str) -> String {
    format!("{pod}_{:016x}", RandomState::new().hash_one(std::process::id()))
}

/// Keeps the lease until `work_done`, then lets it go.
///
/// # Errors
/// When it was held and is lost: whoever called must end then, without another write.
pub(in crate::operator) async fn keep(
    leases: Leases,
    leadership: Leadership,
    pod: &str,
    work_done: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let mut work_done = pin!(work_done);
    let mut election = Election::new(identity(pod));
    let mut stored: Option<Lease> = None;
    info!(identity = election.identity(), "standing by");
    loop {
        match election.next(now()) {
            Next::Wait(pause) => tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = &mut work_done => return let_go(&leases, &leadership, stored.as_ref()).await,
            },
            Next::Look => match timeout(longest_call(&election), leases.look()).await {
                Ok(Ok(lease)) => {
                    election.saw(lease.as_ref().map(matters), now());
                    stored = lease;
                }
                failed => no_answer(&mut election, failed.map(|r| r.map(|_| ()))),
            },
            Next::Hold => {
                let asked_at = now();
                let write = leases.hold(stored.as_ref(), election.identity(), LEASE_DURATION);
                match timeout(longest_call(&election), write).await {
                    Ok(Ok(Some(lease))) => {
                        if election.held_until().is_none() {
                            info!(identity = election.identity(), "leading");
                        }
                        election.holds(matters(&lease), asked_at);
                        stored = Some(lease);
                        leadership.set(election.held_until().unwrap_or_default());
                    }
                    Ok(Ok(None)) => election.try_again_later(now()),
                    failed => no_answer(&mut election, failed.map(|r| r.map(|_| ()))),
                }
            }
            Next::Lost => {
                leadership.set(Duration::ZERO);
                return Err("the lease is lost: another replica leads or will".into());
            }
        }
    }
}

/// Nobody waits for an answer that would come too late.
fn longest_call(election: &Election) -> Duration {
    election.held_until().map_or(CALL_TIMEOUT, |until| until.saturating_sub(now()).min(CALL_TIMEOUT))
}

fn no_answer(election: &mut Election, failed: Result<Result<(), crate::cluster::Error>, tokio::time::error::Elapsed>) {
    if let Ok(Err(error)) = failed {
        warn!(%error, "will be tried again");
    } else {
        warn!("the API server does not answer for the lease; will be tried again");
    }
    election.try_again_later(now());
}

async fn let_go(leases: &Leases, leadership: &Leadership, stored: Option<&Lease>) -> Result<(), Failure> {
    let held = leadership.is_held();
    leadership.set(Duration::ZERO);
    if let Some(lease) = stored.filter(|_| held) {
        if let Ok(Ok(true)) = timeout(CALL_TIMEOUT, leases.let_go(lease)).await {
            info!("the lease is let go");
        } else {
            warn!("the lease could not be let go: the next leader waits for its end");
        }
    }
    Ok(())
}

fn matters(lease: &Lease) -> Stored {
    let spec = lease.spec.clone().unwrap_or_default();
    Stored {
        holder: spec.holder_identity,
        duration: spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_processes_of_one_pod_have_two_identities() {
        assert_ne!(identity("pod"), identity("pod"));
    }

    #[test]
    fn who_stands_by_leads_when_the_lease_is_held_and_no_longer() {
        let leadership = Leadership::not_yet();
        assert!(!leadership.is_held());
        leadership.set(now() + Duration::from_secs(10));
        assert!(leadership.is_held());
        leadership.set(now());
        assert!(!leadership.is_held(), "nobody had to say so");
        assert!(Leadership::always().is_held());
    }
}
