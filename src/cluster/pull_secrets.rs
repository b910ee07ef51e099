//! Which pull secrets a service account names: with them its pods pull images, and the helper reads `image` inputs.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client};
use tracing::info;

use crate::cluster::{Error, bounded, failed};

/// So long an answer counts, so that many runs of one account cost one read.
const LIFE: Duration = Duration::from_mins(1);

type Account = (String, String);

/// What was read lately, by namespace and name of the account.
#[derive(Default)]
pub(in crate::cluster) struct PullSecrets(Mutex<HashMap<Account, (Instant, Vec<String>)>>);

impl PullSecrets {
    /// Names of Secrets in the account's namespace. None where the operator may not read accounts, or where there is no
    /// such account: the API server says so of the pod.
    ///
    /// # Errors
    /// When there is no answer, or one that says nothing about the account.
    pub(in crate::cluster) async fn of(
        &self,
        client: &Client,
        namespace: &str,
        name: &str,
    ) -> Result<Vec<String>, Error> {
        let account = (namespace.to_owned(), name.to_owned());
        if let Some(known) = self.known(&account) {
            return Ok(known);
        }
        let action = format!("get service account {namespace}/{name}");
        let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
        let secrets = match bounded(&action, api.get_opt(name)).await? {
            Ok(account) => account.and_then(|account| account.image_pull_secrets).unwrap_or_default(),
            Err(kube::Error::Api(status)) if status.code == 403 => {
                info!(
                    namespace,
                    account = name,
                    "pull secrets of service accounts are not used for inputs: no right to read them"
                );
                Vec::new()
            }
            Err(error) => return Err(failed(&action, error)),
        };
        let names: Vec<String> = secrets.into_iter().map(|secret| secret.name).collect();
        self.remember(account, names.clone());
        Ok(names)
    }

    fn known(&self, account: &Account) -> Option<Vec<String>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(account).filter(|(read, _)| read.elapsed() < LIFE).map(|(_, names)| names.clone())
    }

    fn remember(&self, account: Account, names: Vec<String>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (read, _)| read.elapsed() < LIFE);
        known.insert(account, (Instant::now(), names));
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// An API server with one answer, and the paths that it was asked for.
    fn server(status: u16, answer: &Value) -> (Client, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (log, text) = (Arc::clone(&asked), answer.to_string());
        let service = tower::service_fn(move |request: Request<Body>| {
            log.lock().unwrap().push(format!("{} {}", request.method(), request.uri().path()));
            let answer = Response::builder().status(status).body(Body::from(text.clone().into_bytes())).unwrap();
            async move { Ok::<_, Infallible>(answer) }
        });
        (Client::new(service, "default"), asked)
    }

    fn refused(code: u16) -> Value {
        let reason = if code == 404 { "NotFound" } else { "r" };
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": reason, "code": code})
    }

    #[tokio::test]
    async fn an_account_is_read_once_for_many_runs() {
        let account = json!({"metadata": {"name": "default"}, "imagePullSecrets": [{"name": "a"}, {"name": "b"}]});
        let (client, asked) = server(200, &account);
        let secrets = PullSecrets::default();
        for _ in 0..3 {
            assert_eq!(secrets.of(&client, "n", "default").await.unwrap(), ["a", "b"]);
        }
        assert_eq!(*asked.lock().unwrap(), ["GET /api/v1/namespaces/n/serviceaccounts/default"]);
        secrets.of(&client, "n", "other").await.unwrap();
        secrets.of(&client, "m", "default").await.unwrap();
        assert_eq!(asked.lock().unwrap().len(), 3);
    }

    #[tokio::test]
    async fn no_right_to_read_accounts_is_no_error() {
        for code in [403, 404] {
            let (client, asked) = server(code, &refused(code));
            let secrets = PullSecrets::default();
            for _ in 0..2 {
                assert!(secrets.of(&client, "n", "default").await.unwrap().is_empty());
            }
            assert_eq!(asked.lock().unwrap().len(), 1, "{code}");
        }
        let (client, asked) = server(500, &refused(500));
        let secrets = PullSecrets::default();
        for _ in 0..2 {
            secrets.of(&client, "n", "default").await.unwrap_err();
        }
        assert_eq!(asked.lock().unwrap().len(), 2, "what is no answer is not kept");
    }
}
