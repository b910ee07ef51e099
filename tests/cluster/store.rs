//! A store that fails as a test wants, and the operator's settings for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::Method;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::common::{Space, eventually};
use crate::node;
use crate::private_registry::PASSWORDS;
use crate::proxy::{Fault, Proxy};
use crate::registry::Registry;
use crate::settings;

/// Names of settings: each makes operators of its own.
const SETTINGS: &str = "store-faults";
const TLS_SETTINGS: &str = "store-tls";

/// What happens to a request, by its method and path.
type Rule = Box<dyn Fn(&Method, &str) -> Fault + Send + Sync>;

/// The store of all runs: a registry with a password, behind a proxy with a rule for each namespace.
pub struct Store {
    pub proxy: Proxy,
    rules: Arc<Mutex<BTreeMap<String, Rule>>>,
    _registry: (Registry, tempfile::NamedTempFile),
}

impl Store {
    pub fn start() -> Self {
        let registry = Registry::start_with_passwords("127.0.0.1", PASSWORDS);
        let rules = Arc::new(Mutex::new(BTreeMap::<String, Rule>::new()));
        let of = rules.clone();
        let rule = move |method: &Method, path: &str, _: u64| {
            of.lock().unwrap().get(namespace_of(path)).map_or(Fault::None, |rule| rule(method, path))
        };
        let proxy = Proxy::before(&node::link_address(), &registry.0.host, rule);
        Self { proxy, rules, _registry: registry }
    }

    /// From now on, in a namespace.
    pub fn rule(&self, space: &Space, rule: impl Fn(&Method, &str) -> Fault + Send + Sync + 'static) {
        self.rules.lock().unwrap().insert(space.name.clone(), Box::new(rule));
    }

    /// Makes it the store of the operator, whose other settings are those of the tests.
    pub async fn of_the_operator(&self, space: &Space, deadline: Duration) {
        let url = format!("oci://{}", self.proxy.reference("bundles"));
        let store = json!({"url": url, "insecure": true, "secretName": "login"});
        set(space, SETTINGS, store, Value::Null, deadline).await;
    }

    /// Makes a registry with TLS the store of the operator, with the authority of its certificate.
    pub async fn with_tls(space: &Space, host: &str, ca: String, deadline: Duration) {
        let store = json!({"url": format!("oci://{host}/bundles"), "secretName": "login"});
        set(space, TLS_SETTINGS, store, json!(ca), deadline).await;
    }

    /// The operator has the tests' store again.
    pub async fn no_more(space: &Space) {
        settings::usual(space, &[SETTINGS, TLS_SETTINGS]).await;
    }

    pub async fn login(&self, space: &Space, password: &str) {
        let config = json!({"auths": {&self.proxy.host: {"username": "me", "password": password}}});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"},
            "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": config.to_string()}});
        let secrets: Api<Secret> = space.api();
        secrets.patch("login", &PatchParams::apply("test").force(), &Patch::Apply(secret)).await.unwrap();
    }

    /// A namespace with the right password, and a rule.
    pub async fn namespace(
        &self,
        space: &Space,
        rule: impl Fn(&Method, &str) -> Fault + Send + Sync + 'static,
    ) -> Space {
        let space = space.beside().await;
        self.login(&space, "secret").await;
        self.rule(&space, rule);
        space
    }

    /// Goes away once each of these namespaces has a request that is held.
    pub async fn goes_amid(&mut self, spaces: &[&Space]) {
        let held = &self.proxy.seen.held;
        eventually("requests to be held", async || {
            let held = held.lock().unwrap().clone();
            let waits = |space: &&Space| held.iter().any(|path| namespace_of(path) == space.name);
            if spaces.iter().all(waits) { Ok(()) } else { Err(held) }
        })
        .await;
        held.lock().unwrap().clear();
        self.proxy.stop();
    }

    /// Comes back, and does what it should.
    pub fn comes_back(&mut self) {
        self.rules.lock().unwrap().clear();
        self.proxy.go_on();
    }
}

/// The operator with the settings of the tests, but for the store and the authorities of registries.
async fn set(space: &Space, name: &'static str, mut store: Value, ca: Value, deadline: Duration) {
    store["deadline"] = json!(format!("{}s", deadline.as_secs()));
    store["whenInterrupted"] = json!("20s");
    settings::changed(space, name, |settings| {
        settings["store"] = store;
        settings["registries"] = json!({"ca": ca});
        settings["deadlines"]["staging"] = json!("45s");
        settings["imageVolumes"] = json!("never");
    })
    .await;
}

/// The store has a repository `bundles/<namespace>/...` for each run.
fn namespace_of(path: &str) -> &str {
    path.split('/').nth(3).unwrap_or_default()
}

/// A request that would change the store.
pub fn writes(method: &Method) -> bool {
    ![Method::GET, Method::HEAD].contains(method)
}
