//! A store that fails, lies, or goes away: no false success, no hang beyond the deadline, and the cause is told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::Method;
use bundlerun::api::{BundleRunStatus, Phase};
use serde_json::{Value, json};

use crate::common::{Space, cause, condition, condition_of, seconds, stdout, together};
use crate::proxy::Fault;
use crate::store::{Store, writes};

/// Of the settings of this test.
const DEADLINE: Duration = Duration::from_secs(45);

fn downloads(method: &Method, path: &str) -> bool {
    *method == Method::GET && path.contains("/blobs/")
}

fn spec() -> Value {
    json!({"command": "echo kept >kept; head -c 5000000 /dev/urandom >large; sha256sum large"})
}

fn reads(parent: &str) -> Value {
    json!({"command": "sha256sum large", "inputs": [{"path": "large", "run": {"name": parent, "path": "large"}}]})
}

/// Where what went wrong does not pass.
fn reads_once(parent: &str) -> Value {
    let mut spec = reads(parent);
    spec["retry"] = json!({"interruptions": 0});
    spec
}

/// The command did well, its output is not safe, and the record says so.
fn assert_not_saved(status: &BundleRunStatus, reason: &str, words: &[&str]) {
    assert_eq!((status.phase, cause(status)), (Some(Phase::Failed), "OutputNotSaved"), "{status:#?}");
    let saved = condition_of(status, "OutputSaved").unwrap();
    assert_eq!((status.exit_code, &*saved.status, &*saved.reason), (Some(0), "False", reason), "{status:#?}");
    assert_eq!(status.output.as_ref().unwrap().bundle, None);
    let message = status.message.as_deref().unwrap();
    println!("{message}");
    assert!(words.iter().all(|word| message.contains(word)), "{words:?}: {message}");
    assert!(!message.contains("guess") && !message.contains("secret"), "{message}");
}

/// The command did not even start.
fn assert_not_staged(status: &BundleRunStatus, expected: &str) {
    println!("{}: {}", cause(status), status.message.as_deref().unwrap());
    assert_eq!((status.phase, cause(status), status.exit_code), (Some(Phase::Failed), expected, None), "{status:#?}");
}

/// The first request gets no use.
fn first_away() -> impl Fn(&Method, &str) -> Fault {
    let asked = AtomicBool::new(false);
    move |_, _| if asked.swap(true, Ordering::Relaxed) { Fault::None } else { Fault::Status(503) }
}

async fn answers(store: &Store) {
    let host = store.proxy.host.as_str();
    let status = |code: u16| move |m: &Method, _: &str| if writes(m) { Fault::Status(code) } else { Fault::None };
    let manifests =
        |m: &Method, path: &str| if !writes(m) && path.contains("/manifests/") { Fault::Altered } else { Fault::None };
    let full = store.namespace(status(507)).await;
    let large = store.namespace(status(413)).await;
    let altered = store.namespace(manifests).await;
    // A store that refuses before the command is another test's.
    let (wrong, missing) = (store.bare_namespace(), store.bare_namespace());
    store.login(&wrong, "guess").await;
    store.rule(&wrong, first_away());
    store.rule(&missing, first_away());
    let spaces = [&full, &large, &altered, &wrong, &missing];
    let ended = together(spaces.iter().map(|space| space.run("saves", spec()))).await;
    assert_not_saved(&ended[0], "StoreQuotaExceeded", &[host, "507"]);
    assert_not_saved(&ended[1], "OutputTooLarge", &[host, "413"]);
    assert_not_saved(&ended[2], "StoreCorrupt", &[host]);
    assert_not_saved(&ended[3], "StoreDenied", &[host, "as \"me\""]);
    assert_not_saved(&ended[4], "StoreDenied", &[host, "without a login"]);
    for denied in &ended[3..] {
        assert!(denied.result.as_ref().unwrap().hint.as_ref().unwrap().contains("credentials"), "{denied:#?}");
    }
    together([full, large, altered, wrong, missing].into_iter().map(Space::end)).await;
}

async fn contents(store: &Store) {
    let inner = store.namespace(|_, _| Fault::None).await;
    let parent = inner.run("parent", spec()).await;
    assert_eq!(cause(&parent), "Completed", "{parent:#?}");
    store.rule(&inner, |m, path| if downloads(m, path) { Fault::Altered } else { Fault::None });
    assert_not_staged(&inner.run("altered", reads("parent")).await, "InputInvalid");
    store.rule(&inner, |m, path| if downloads(m, path) { Fault::Reset } else { Fault::None });
    let truncated = inner.run("truncated", reads_once("parent")).await;
    assert_not_staged(&truncated, "StagingFailed");
    store.rule(&inner, |_, _| Fault::None);
    store.login(&inner, "guess").await;
    // Whoever has made the store's login, the run's user has not.
    assert_not_staged(&inner.run("denied", reads_once("parent")).await, "StoreRefused");
    store.login(&inner, "secret").await;
    let well = inner.run("well", reads("parent")).await;
    assert_eq!((cause(&well), stdout(&well)), ("Completed", stdout(&parent)), "{well:#?}");
    inner.end().await;
}

#[tokio::test]
async fn a_store_that_fails_or_goes_away_never_makes_a_false_success() {
    let space = Space::with_own_operators().await;
    let mut store = Store::with_operator(&space, 10, DEADLINE).await;
    tokio::join!(answers(&store), contents(&store));

    let download = store.namespace(|_, _| Fault::None).await;
    let parent = download.run("parent", spec()).await;
    assert_eq!(cause(&parent), "Completed", "{parent:#?}");
    let hold_upload = |m: &Method, path: &str| {
        if writes(m) && path.contains("/blobs/uploads/") && *m != Method::POST {
            Fault::HoldRequest
        } else {
            Fault::None
        }
    };
    let hold_manifest = |m: &Method, path: &str| {
        if writes(m) && path.contains("/manifests/") { Fault::HoldAnswer } else { Fault::None }
    };
    let hold_download = |m: &Method, path: &str| if downloads(m, path) { Fault::HoldAnswer } else { Fault::None };
    let hold_all = |_: &Method, _: &str| Fault::HoldRequest;
    let before = store.namespace(hold_all).await;
    let during = store.namespace(hold_upload).await;
    let after = store.namespace(hold_manifest).await;
    let saving = [&before, &during, &after];
    let all = [&before, &during, &after, &download];

    // Away for a while.
    store.rule(&download, hold_download);
    before.start("back", spec()).await;
    during.start("back", spec()).await;
    after.start("back", spec()).await;
    download.start("back", reads("parent")).await;
    store.goes_amid(&all).await;
    tokio::time::sleep(Duration::from_secs(20)).await; // how long it is away
    for space in all {
        let status = space.runs().get("back").await.unwrap().status.unwrap();
        assert!(status.finish_time.is_none() && status.phase != Some(Phase::Succeeded), "{status:#?}");
    }
    store.comes_back();
    for space in saving {
        let saved = space.end_of("back").await;
        assert_eq!((cause(&saved), condition(&saved, "OutputSaved")), ("Completed", Some("True")), "{saved:#?}");
        let read = space.run("reads", reads("back")).await;
        assert_eq!((cause(&read), stdout(&read)), ("Completed", stdout(&saved)), "{read:#?}");
    }
    let read = download.end_of("back").await;
    assert_eq!((cause(&read), stdout(&read)), ("Completed", stdout(&parent)), "{read:#?}");

    // Away for ever.
    store.rule(&before, hold_all);
    store.rule(&during, hold_upload);
    store.rule(&after, hold_manifest);
    store.rule(&download, hold_download);
    before.start("lost", spec()).await;
    during.start("lost", spec()).await;
    after.start("lost", spec()).await;
    download.start("lost", reads_once("parent")).await;
    store.goes_amid(&all).await;
    let host = store.proxy.host.clone();
    for space in saving {
        let lost = space.end_of("lost").await;
        assert_not_saved(&lost, "StoreUnreachable", &[&host]);
        let tried = seconds(lost.timeline.unwrap().saving_milliseconds);
        println!("given up after {tried} s; the deadline is {} s", DEADLINE.as_secs());
        assert!((DEADLINE.as_secs_f64() - 1.0..DEADLINE.as_secs_f64() + 60.0).contains(&tried), "{tried}");
    }
    let lost = download.end_of("lost").await;
    assert_not_staged(&lost, "StagingFailed");
    assert!(lost.message.unwrap().contains(&host));
    // What was pushed whole but never read back is nobody's success, also now that the store is back.
    store.comes_back();
    let child =
        json!({"command": "true", "allowFailedInputs": true, "inputs": [{"path": "in", "run": {"name": "lost"}}]});
    assert_not_staged(&after.run("child", child).await, "InputNotSaved");
    together([before, during, after, download].into_iter().map(Space::end)).await;

    space.end().await;
}
