//! The one lease that replicas of the operator hold in turn: reads and writes, no decision.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::ObjectMeta;
use kube::{Api, Client};

use crate::cluster::{Error, bounded, failed, post};

/// A lease by its name.
pub struct Leases {
    api: Api<Lease>,
    namespace: String,
    name: String,
}

impl Leases {
    /// The lease `name` in `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), namespace: namespace.into(), name: name.into() }
    }

    /// The lease as it is now, if there is one.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn look(&self) -> Result<Option<Lease>, Error> {
        let action = self.action("read");
        bounded(&action, self.api.get_opt(&self.name)).await?.map_err(|e| failed(&action, e))
    }

    /// Writes `identity` into exactly the lease that was seen, or makes it when none was: the lease as written, or none
    /// when somebody else was faster.
    ///
    /// # Errors
    /// When there is no answer: then it may have been written, or be written yet.
    pub async fn hold(&self, seen: Option<&Lease>, identity: &str, duration: Duration) -> Result<Option<Lease>, Error> {
        let now = MicroTime(Timestamp::now());
        let mut lease = seen.cloned().unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            ..Lease::default()
        });
        let before = lease.spec.take().unwrap_or_default();
        let ours = before.holder_identity.as_deref() == Some(identity);
        let transitions = before.lease_transitions.unwrap_or_default();
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(identity.to_owned()),
            lease_duration_seconds: i32::try_from(duration.as_secs()).ok(),
            lease_transitions: Some(if ours || seen.is_none() { transitions } else { transitions.saturating_add(1) }),
            acquire_time: if ours { before.acquire_time } else { Some(now.clone()) },
            renew_time: Some(now),
            ..before
        });
        self.write(lease).await
    }

    /// Takes the holder out of the lease, so that the next one need not wait for its end; false: it is not as it was.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn let_go(&self, held: &Lease) -> Result<bool, Error> {
        let mut lease = held.clone();
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        self.write(lease).await.map(|written| written.is_some())
    }

    /// `replace` and not `patch`: with the version that was seen, only one of several can be the next to write.
    async fn write(&self, lease: Lease) -> Result<Option<Lease>, Error> {
        let action = self.action("write");
        let answer = if lease.metadata.resource_version.is_some() {
            bounded(&action, self.api.replace(&self.name, &post(), &lease)).await?
        } else {
            bounded(&action, self.api.create(&post(), &lease)).await?
        };
        match answer {
            Ok(written) => Ok(Some(written)),
            Err(kube::Error::Api(status))
                if status.is_conflict() || status.is_already_exists() || status.is_not_found() =>
            {
                Ok(None)
            }
            Err(error) => Err(failed(&action, error)),
        }
    }

    fn action(&self, verb: &str) -> String {
        format!("{verb} lease {}/{}", self.namespace, self.name)
    }
}
