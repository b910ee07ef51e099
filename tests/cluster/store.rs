//! A store that fails as a test wants, and the operator's settings for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::Method;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::common::{Space, eventually, together};
use crate::node;
use crate::private_registry::PASSWORDS;
use crate::proxy::{Fault, Proxy};
use crate::registry::Registry;
use crate::settings;

/// What happens to a request, by its method and path.
type Rule = Box<dyn Fn(&Method, &str) -> Fault + Send + Sync>;

/// The store of an operator of its own: a registry with a password, behind a proxy with a rule for each namespace.
pub struct Store {
    pub proxy: Proxy,
    rules: Arc<Mutex<BTreeMap<String, Rule>>>,
    /// Those that nobody has taken.
    namespaces: Mutex<Vec<Space>>,
    _registry: (Registry, tempfile::NamedTempFile),
}

impl Store {
    fn start() -> Self {
        let registry = Registry::start_with_passwords("127.0.0.1", PASSWORDS);
        let rules = Arc::new(Mutex::new(BTreeMap::<String, Rule>::new()));
        let of = rules.clone();
        let rule = move |method: &Method, path: &str, _: u64| {
            of.lock().unwrap().get(namespace_of(path)).map_or(Fault::None, |rule| rule(method, path))
        };
        let proxy = Proxy::before(&node::link_address(), &registry.0.host, rule);
        Self { proxy, rules, namespaces: Mutex::default(), _registry: registry }
    }

    /// From now on, in a namespace.
    pub fn rule(&self, space: &Space, rule: impl Fn(&Method, &str) -> Fault + Send + Sync + 'static) {
        self.rules.lock().unwrap().insert(space.name.clone(), Box::new(rule));
    }

    /// Starts an operator with it, whose other settings are those of the tests, for so many namespaces.
    pub async fn with_operator(space: &Space, namespaces: usize, deadline: Duration) -> Self {
        let store = Self::start();
        let url = format!("oci://{}", store.proxy.reference("bundles"));
        let all = together((0..namespaces).map(|_| space.beside())).await;
        let settings = json!({"url": url, "insecure": true, "secretName": "login"});
        operator_with(space, &all, settings, Value::Null, deadline).await;
        *store.namespaces.lock().unwrap() = all;
        store
    }

    /// Starts an operator for a namespace, with a registry with TLS as its store and the authority of its certificate.
    pub async fn with_tls(space: &Space, host: &str, ca: String, deadline: Duration) {
        let store = json!({"url": format!("oci://{host}/bundles"), "secretName": "login"});
        operator_with(space, &[], store, json!(ca), deadline).await;
    }

    pub async fn login(&self, space: &Space, password: &str) {
        let config = json!({"auths": {&self.proxy.host: {"username": "me", "password": password}}});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"},
            "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": config.to_string()}});
        let secrets: Api<Secret> = space.api();
        secrets.patch("login", &PatchParams::apply("test").force(), &Patch::Apply(secret)).await.unwrap();
    }

    /// One of its operator's namespaces, without a password.
    pub fn bare_namespace(&self) -> Space {
        self.namespaces.lock().unwrap().pop().expect("more namespaces than its operator has")
    }

    /// One with the right password, and a rule.
    pub async fn namespace(&self, rule: impl Fn(&Method, &str) -> Fault + Send + Sync + 'static) -> Space {
        let space = self.bare_namespace();
        self.login(&space, "secret").await;
        self.rule(&space, rule);
        space
    }

    /// Waits until each of these namespaces has a request that is held.
    pub async fn holds(&self, spaces: &[&Space]) {
        eventually("requests to be held", async || {
            let held = self.proxy.seen.held.lock().unwrap().clone();
            let waits = |space: &&Space| held.iter().any(|path| namespace_of(path) == space.name);
            if spaces.iter().all(waits) { Ok(()) } else { Err(held) }
        })
        .await;
    }

    /// Goes away once each of these namespaces has a request that is held.
    pub async fn goes_amid(&mut self, spaces: &[&Space]) {
        self.holds(spaces).await;
        self.proxy.seen.held.lock().unwrap().clear();
        self.proxy.stop();
    }

    /// Comes back, and does what it should.
    pub fn comes_back(&mut self) {
        self.rules.lock().unwrap().clear();
        self.proxy.go_on();
    }
}

/// An operator with the settings of the tests, but for the store and the authorities of registries.
async fn operator_with(space: &Space, others: &[Space], mut store: Value, ca: Value, deadline: Duration) {
    store["deadline"] = json!(format!("{}s", deadline.as_secs()));
    store["whenInterrupted"] = json!("20s");
    settings::changed_in(space, others, |settings| {
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
