//! A cache that stood by while another operator wrote, and whether it has all of that.

use std::collections::HashMap;
use std::time::Duration;

use kube::api::ListParams;
use kube::{Api, ResourceExt};
use kube_runtime::reflector::ObjectRef;
use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::api::BundleRun;
use crate::cluster::observe::version;
use crate::cluster::{Cluster, Error, GuardedRun, bounded, failed};

/// Runs in one answer of the API server.
const PAGE: u32 = 500;
/// Between two looks at the cache.
const LOOK: Duration = Duration::from_millis(50);
/// What the cache still lacks after this may have been deleted, and is asked for.
const ASK_AFTER: Duration = Duration::from_secs(5);

/// The version that a run has at the API server.
type Versions = HashMap<ObjectRef<GuardedRun>, u128>;

impl Cluster {
    /// Resolves when the cache of runs has what the API server has now, in these namespaces, or in all when none is named.
    /// Until then a plan could be made from a run as it was before the last leader's last write, and start its command
    /// a second time.
    ///
    /// # Errors
    /// When there is no answer. A namespace that is gone, or that the operator may not read, is left out.
    pub async fn caught_up(&self, namespaces: &[String]) -> Result<(), Error> {
        let mut lacking = Versions::new();
        if namespaces.is_empty() {
            self.versions(Api::all(self.client.clone()), &mut lacking).await?;
        }
        for namespace in namespaces {
            match self.versions(Api::namespaced(self.client.clone(), namespace), &mut lacking).await {
                Err(Error::Api { source, .. }) if matches!(&*source, kube::Error::Api(status) if status.is_forbidden() || status.is_not_found()) =>
                {
                    warn!(namespace, error = %source, "the namespace cannot be read");
                }
                read => read?,
            }
        }

        let mut asked = Instant::now();
        loop {
            lacking
                .retain(|run, at_least| self.runs.get(run).is_none_or(|cached| version(cached.as_ref()) < *at_least));
            if lacking.is_empty() {
                return Ok(());
            }
            if asked.elapsed() >= ASK_AFTER {
                self.forget_deleted(&mut lacking).await?;
                asked = Instant::now();
            }
            sleep(LOOK).await;
        }
    }

    async fn versions(&self, api: Api<BundleRun>, versions: &mut Versions) -> Result<(), Error> {
        const ACTION: &str = "list the versions of all runs";
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let list = bounded(ACTION, api.list_metadata(&page)).await?.map_err(|e| failed(ACTION, e))?;
            let listed = list.items.iter().map(|run| {
                let name = ObjectRef::new(&run.name_any()).within(&run.namespace().unwrap_or_default());
                (name, version(run))
            });
            versions.extend(listed);
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(()),
            }
        }
    }

    async fn forget_deleted(&self, lacking: &mut Versions) -> Result<(), Error> {
        for run in lacking.keys().cloned().collect::<Vec<_>>() {
            let action = format!("get run {run}");
            let api: Api<BundleRun> =
                Api::namespaced(self.client.clone(), run.namespace.as_deref().unwrap_or_default());
            if bounded(&action, api.get_metadata_opt(&run.name)).await?.map_err(|e| failed(&action, e))?.is_none() {
                lacking.remove(&run);
            }
        }
        Ok(())
    }
}
