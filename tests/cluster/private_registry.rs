//! Images in a registry that asks for a password: to run in, and as inputs.

use std::path::Path;

use bundlerun::api::BundleRunStatus;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::common::{Space, cause, output, stdout};
use crate::node;
use crate::registry::Registry;
use crate::settings;

/// `me` with the password `secret`, as `htpasswd -B` writes it.
pub const PASSWORDS: &str = "me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// A registry on this machine that the nodes reach; gone with the value.
struct PrivateRegistry {
    host: String,
    _registry: (Registry, tempfile::NamedTempFile),
}

impl PrivateRegistry {
    fn start() -> Self {
        let registry = Registry::start_with_passwords(&node::link_address(), PASSWORDS);
        let host = registry.0.host.clone();
        // What an administrator does for a registry without TLS.
        let state = std::env::var("KUBECONFIG").unwrap();
        let hosts = Path::new(&state).parent().unwrap().join("config/certs.d").join(&host);
        std::fs::create_dir_all(&hosts).unwrap();
        std::fs::write(hosts.join("hosts.toml"), format!("server = \"http://{host}\"\n")).unwrap();
        Self { host, _registry: registry }
    }

    /// Puts an image there and returns its reference.
    fn push(&self, image: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), self.login("secret").to_string()).unwrap();
        let (from, to) =
            (format!("{}/{image}", std::env::var("REGISTRY_HOST").unwrap()), format!("{}/{image}", self.host));
        let config = format!("DOCKER_CONFIG={}", dir.path().display());
        output("env", &[&config, "crane", "copy", "--insecure", &from, &to]);
        to
    }

    fn login(&self, password: &str) -> Value {
        json!({"auths": {&self.host: {"username": "me", "password": password}}})
    }

    async fn secret(&self, space: &Space, name: &str, password: &str) {
        let secret = json!({
            "metadata": {"name": name}, "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": self.login(password).to_string()},
        });
        let secrets: Api<Secret> = space.api();
        secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn a_private_image_needs_a_pull_secret_of_the_run_or_of_the_service_account() {
    let space = Space::new().await;
    let registry = PrivateRegistry::start();
    let image = registry.push("busybox:local");
    registry.secret(&space, "right", "secret").await;
    registry.secret(&space, "wrong", "guess").await;
    let spec = |secrets: Value| json!({"image": image, "command": "echo pulled", "imagePullSecrets": secrets});
    let (with, without, wrong, missing): (BundleRunStatus, _, _, _) = tokio::join!(
        space.run("with", spec(json!([{"name": "right"}]))),
        space.run("without", spec(json!([]))),
        space.run("wrong", spec(json!([{"name": "wrong"}]))),
        space.run("missing", spec(json!([{"name": "missing"}]))),
    );
    assert_eq!((cause(&with), stdout(&with)), ("Completed", "pulled\n"), "{with:#?}");
    for refused in [&without, &wrong, &missing] {
        assert_eq!(cause(refused), "ImagePullFailed", "{refused:#?}");
        let message = refused.message.as_deref().unwrap();
        assert!(message.contains("401") || message.contains("authorization failed"), "{message}");
        assert!(refused.result.as_ref().unwrap().hint.as_deref().unwrap().contains("imagePullSecrets"));
    }
    let accounts: Api<ServiceAccount> = space.api();
    let secrets = json!({"imagePullSecrets": [{"name": "right"}]});
    accounts.patch("default", &PatchParams::default(), &Patch::Merge(secrets)).await.unwrap();
    let by_account = space.run("by-account", json!({"image": image, "command": "echo pulled"})).await;
    assert_eq!(stdout(&by_account), "pulled\n", "{by_account:#?}");
    space.end().await;
}

/// The kubelet gives the pod of an account that account's logins, and those are for the kubelet alone: the operator reads
/// which they are, for what the helper reads.
#[tokio::test]
async fn a_private_input_needs_a_pull_secret_of_the_run_or_of_the_service_account() {
    let space = Space::with_own_operators().await;
    let registry = PrivateRegistry::start();
    settings::changed(&space, |settings| settings["registries"] = json!({"insecure": [registry.host]})).await;
    let image = registry.push("busybox:local");
    registry.secret(&space, "right", "secret").await;
    registry.secret(&space, "wrong", "guess").await;
    let accounts: Api<ServiceAccount> = space.api();
    for (name, secret) in [("reader", "right"), ("guesser", "wrong"), ("late", "missing")] {
        let account = json!({"metadata": {"name": name}, "imagePullSecrets": [{"name": secret}]});
        accounts.create(&PostParams::default(), &serde_json::from_value(account).unwrap()).await.unwrap();
    }
    let spec = |account: Value, secrets: Value| {
        let input = json!({"path": "tools", "image": {"reference": image}});
        json!({"command": "tools/bin/busybox echo read", "inputs": [input], "serviceAccountName": account,
            "imagePullSecrets": secrets})
    };
    let told_as_denied = async {
        let is_told = |s: &BundleRunStatus| {
            s.waiting.as_ref().is_some_and(|waiting| waiting.reason.as_deref() == Some("InputDenied"))
        };
        let waiting = space.until("wrong", "to wait for its input", is_told).await.waiting.unwrap();
        assert_eq!(waiting.until.as_deref(), Some("2 minutes, then the run ends: InputDenied"));
    };
    let (by_account, by_run, by_both, without, wrong, missing, ()): (BundleRunStatus, _, _, _, _, _, _) = tokio::join!(
        space.run("by-account", spec(json!("reader"), json!([]))),
        space.run("by-run", spec(json!(null), json!([{"name": "right"}]))),
        space.run("by-both", spec(json!("reader"), json!([{"name": "wrong"}]))),
        space.run("without", spec(json!(null), json!([]))),
        space.run("wrong", spec(json!("guesser"), json!([]))),
        space.run("missing", spec(json!("late"), json!([]))),
        told_as_denied,
    );
    for read in [&by_account, &by_run, &by_both] {
        assert_eq!((cause(read), stdout(read)), ("Completed", "read\n"), "{read:#?}");
    }
    for denied in [&without, &wrong, &missing] {
        assert_eq!(cause(denied), "InputDenied", "{denied:#?}");
        let message = denied.message.as_deref().unwrap();
        assert!(message.contains("input tools: ") && message.contains(&registry.host), "{message}");
        assert!(denied.result.as_ref().unwrap().hint.as_deref().unwrap().contains("imagePullSecrets"), "{denied:#?}");
        println!("{message}");
    }
    space.end().await;
}
