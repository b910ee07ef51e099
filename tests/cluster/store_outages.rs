//! A store that refuses, fails or is silent for a while, or for ever: before the command, and when the output is saved.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::http::Method;
use bundlerun::api::{BundleRunStatus, Phase};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::common::{Space, cause, condition, condition_of, eventually, is_long, left, together};
use crate::node;
use crate::proxy::Fault;
use crate::registry::{Registry, make_certificate};
use crate::store::{Store, writes};

const DEADLINE: Duration = Duration::from_mins(3);

/// How long a store is out of order.
fn outage() -> Duration {
    Duration::from_secs(if is_long() { 60 } else { 12 })
}

fn spec(command: &str) -> Value {
    json!({"command": command, "retry": {"interruptions": 0}})
}

/// Starts a run whose command ends when there is `end` in the directory that is returned.
async fn start_until_told(space: &Space, name: &str) -> PathBuf {
    let claim = space.claim("traces").await;
    let volumes = json!([{"path": "/traces", "claim": {"name": "traces"}}]);
    let command = "until [ -e /traces/end ]; do sleep 0.2; done";
    space.start(name, json!({"volumes": volumes, "command": command, "retry": {"interruptions": 0}})).await;
    claim
}

/// Until it is set, requests that write meet this fault; those of the check before the command do so with `at_once`.
pub fn until(recovered: &Arc<AtomicBool>, at_once: bool, fault: Fault) -> impl Fn(&Method, &str) -> Fault + use<> {
    let recovered = recovered.clone();
    let checked = AtomicBool::new(at_once);
    move |method, _| {
        if recovered.load(Ordering::Relaxed) || !writes(method) {
            return Fault::None;
        }
        // The check begins an upload and cancels it.
        if *method == Method::DELETE && !checked.swap(true, Ordering::Relaxed) {
            return Fault::None;
        }
        if checked.load(Ordering::Relaxed) { fault } else { Fault::None }
    }
}

fn message(status: &BundleRunStatus) -> &str {
    status.message.as_deref().unwrap_or_default()
}

fn assert_saved(status: &BundleRunStatus, what: &str) {
    assert_eq!((cause(status), condition(status, "OutputSaved")), ("Completed", Some("True")), "{what}: {status:#?}");
}

/// The output cannot be saved for a while.
async fn at_the_save(store: &Store, fault: Fault, says: &str) {
    let recovered = Arc::new(AtomicBool::new(false));
    let space = store.namespace(until(&recovered, false, fault)).await;
    space.start("saves", spec("echo kept >kept")).await;
    let status = space.until("saves", "to say what is wrong", |s| message(s).contains("the last try failed")).await;
    assert!(message(&status).contains(says) && status.phase == Some(Phase::Finalizing), "{status:#?}");
    println!("{fault:?} at the save: {}", message(&status));
    tokio::time::sleep(outage()).await;
    recovered.store(true, Ordering::Relaxed);
    assert_saved(&space.end_of("saves").await, says);
    space.end().await;
}

/// The command waits for a store that refuses, and starts when it accepts.
async fn before_the_command(store: &Store, fault: Fault, says: &str) {
    let recovered = Arc::new(AtomicBool::new(false));
    let space = store.namespace(until(&recovered, true, fault)).await;
    space.start("waits", spec("echo began")).await;
    let status = space.waits_at("waits", "Staging").await;
    let waiting = status.waiting.as_ref().unwrap();
    println!("{fault:?} before the command: {}", message(&status));
    assert_eq!((waiting.reason.as_deref(), status.phase), (Some("StoreRefused"), Some(Phase::Pending)), "{status:#?}");
    assert!(message(&status).contains(says), "{status:#?}");
    eventually("the event", async || {
        let events = space.events("waits").await;
        let is_told = events.iter().any(|event| event.reason.as_deref() == Some("StoreRefused"));
        if is_told { Ok(()) } else { Err(events) }
    })
    .await;
    tokio::time::sleep(outage()).await;
    assert_eq!(space.logs("waits-1").await, "", "the command has not begun");
    recovered.store(true, Ordering::Relaxed);
    assert_saved(&space.end_of("waits").await, says);
    space.end().await;
}

/// A store that goes on refusing costs the GPUs two minutes.
async fn for_ever(store: &Store) {
    let space = store.namespace(|m, _| if writes(m) { Fault::Status(403) } else { Fault::None }).await;
    space.start("refused", json!({"command": "true", "resources": {"gpus": 1}, "retry": {"interruptions": 0}})).await;
    let status = space.end_of("refused").await;
    println!("for ever: {}", message(&status));
    assert_eq!((status.phase, cause(&status)), (Some(Phase::Failed), "StoreRefused"), "{status:#?}");
    assert!(message(&status).contains("StoreDenied") && message(&status).contains("403"), "{status:#?}");
    assert_eq!((status.exit_code, condition(&status, "OutputSaved")), (None, None), "{status:#?}");
    // What a pod that has ended had, the scheduler gives to others.
    let has_ended = |pod: &Pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Failed");
    space.pod_until("refused-1", "to have ended", has_ended).await;
    space.end().await;
}

/// A store that fails or is silent is no reason to wait: the condition says it, and that it has passed.
async fn beside_the_command(store: &Store, fault: Fault) {
    let recovered = Arc::new(AtomicBool::new(false));
    let space = store.namespace(until(&recovered, true, fault)).await;
    let claim = start_until_told(&space, "runs").await;
    let in_doubt = |s: &BundleRunStatus| condition(s, "OutputSaved") == Some("Unknown");
    let status = space.until("runs", "to say that the store does not answer", in_doubt).await;
    let told = condition_of(&status, "OutputSaved").unwrap();
    println!("{fault:?} beside the command: {}", told.message);
    assert_eq!((status.phase, told.reason.as_str()), (Some(Phase::Running), "StoreUnreachable"), "{status:#?}");
    recovered.store(true, Ordering::Relaxed);
    space.until("runs", "to say no more of the store", |s| condition(s, "OutputSaved").is_none()).await;
    std::fs::write(claim.join("end"), "").unwrap();
    assert_saved(&space.end_of("runs").await, "at its end");
    space.end().await;
}

/// A registry with TLS, and the certificates that it can show.
struct TlsStore {
    registry: Registry,
    certificates: tempfile::TempDir,
}

impl TlsStore {
    fn start() -> Self {
        let certificates = tempfile::tempdir().unwrap();
        for who in ["right", "wrong"] {
            make_certificate(certificates.path(), who, &node::link_address());
        }
        Self::use_certificate(certificates.path(), "right");
        let at = |name: &str| certificates.path().join(name).display().to_string();
        let tls = format!("  tls: {{certificate: {}, key: {}}}\n", at("shown.pem"), at("shown.key"));
        Self { registry: Registry::start_at(&node::link_address(), &tls), certificates }
    }

    fn use_certificate(dir: &Path, which: &str) {
        for kind in ["pem", "key"] {
            std::fs::copy(dir.join(format!("{which}.{kind}")), dir.join(format!("shown.{kind}"))).unwrap();
        }
    }

    fn shows(&mut self, which: &str) {
        self.registry.stop();
        Self::use_certificate(self.certificates.path(), which);
        self.registry.go_on();
    }

    fn ca(&self) -> String {
        std::fs::read_to_string(self.certificates.path().join("right.ca")).unwrap()
    }
}

/// A run that is to save, and one that is to start, while the store shows a certificate of another authority.
struct WrongCertificate {
    store: TlsStore,
    space: Space,
    claim: PathBuf,
}

impl WrongCertificate {
    /// With the store's certificate, and then with the other.
    async fn start(space: &Space) -> Self {
        let mut store = TlsStore::start();
        let space = space.beside().await;
        Store::with_tls(&space, &store.registry.host, store.ca(), DEADLINE).await;
        let claim = start_until_told(&space, "saves").await;
        space.until("saves", "to run", |s| s.phase == Some(Phase::Running)).await;
        store.shows("wrong");
        space.start("waits", spec("true")).await;
        space.pod_running("waits-1").await;
        Self { store, space, claim }
    }

    async fn end(mut self) {
        std::fs::write(self.claim.join("end"), "").unwrap();
        let tried = |s: &BundleRunStatus| message(s).contains("the last try failed");
        let saving = self.space.until("saves", "to say what is wrong", tried).await;
        let waiting = self.space.waits_at("waits", "Staging").await;
        for status in [&saving, &waiting] {
            println!("wrong certificate: {}", message(status));
            assert!(message(status).contains("certificate"), "{status:#?}");
        }
        assert_eq!(waiting.waiting.unwrap().reason.as_deref(), Some("StoreRefused"));
        tokio::time::sleep(outage()).await;
        self.store.shows("right");
        for name in ["saves", "waits"] {
            assert_saved(&self.space.end_of(name).await, name);
        }
        self.space.end().await;
    }
}

#[tokio::test]
async fn a_store_that_is_out_of_order_for_a_while_costs_time_and_no_output() {
    let space = Space::with_own_operators().await;
    let wrong_certificate = WrongCertificate::start(&space).await;
    let store = &Store::with_operator(&space, 13, DEADLINE).await;
    let faults = [401, 403, 404, 413, 500, 507].map(|code| (Fault::Status(code), code.to_string()));
    let saves = faults.iter().map(|(fault, says)| at_the_save(store, *fault, says));
    let starts = faults.iter().take(3).map(|(fault, says)| before_the_command(store, *fault, says));
    tokio::join!(
        wrong_certificate.end(),
        together(saves),
        at_the_save(store, Fault::Closed, "cannot"),
        together(starts),
        for_ever(store),
        beside_the_command(store, Fault::Status(500)),
        beside_the_command(store, Fault::HoldRequest),
    );
    space.end().await;
}

/// A drain with a grace that is shorter than the save: what has come so far is told, and is not sent again.
#[tokio::test]
async fn a_drain_that_leaves_too_little_time_is_told_with_how_far_the_save_came() {
    let first = Space::with_own_operators().await;
    let store = Store::with_operator(&first, 1, DEADLINE).await;
    let recovered = Arc::new(AtomicBool::new(false));
    let (holds, puts) = (recovered.clone(), AtomicU64::new(0));
    // The second blob and all that come after it do not arrive.
    let rule = move |method: &Method, _: &str| {
        let arrives =
            *method != Method::PUT || holds.load(Ordering::Relaxed) || puts.fetch_add(1, Ordering::Relaxed) < 1;
        if arrives { Fault::None } else { Fault::HoldRequest }
    };
    let space = store.namespace(rule).await;
    let claim = space.claim("traces").await;
    let writes = "for i in 1 2; do yes $i | head -c 70M >$i; done; echo >/traces/written$BUNDLE_ATTEMPT";
    let command =
        format!("{writes}; [ $BUNDLE_ATTEMPT = 2 ] || {{ trap 'exit 0' TERM; while :; do sleep 0.1; done; }}");
    space
        .start(
            "drained",
            json!({"volumes": [{"path": "/traces", "claim": {"name": "traces"}}], "command": command,
                "retry": {"interruptions": 1}, "resources": {"disk": "500Mi"}}),
        )
        .await;
    left(&claim, "written1").await;
    space.evict("drained-1", json!({"gracePeriodSeconds": 15})).await;
    left(&claim, "written2").await;
    recovered.store(true, Ordering::Relaxed);
    let ended = space.end_of("drained").await;
    assert_saved(&ended, "the second attempt");
    let said = ended.attempts[0].message.as_deref().unwrap_or_default();
    println!("less time than saving needs: {said}");
    assert!(said.contains("its output was not saved") && said.contains("MiB are in the store"), "{ended:#?}");
    space.end().await;
    first.end().await;
}
