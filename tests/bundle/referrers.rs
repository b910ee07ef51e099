//! How a bundle was made, where registries know no referrers: an index under a tag, which several runs may write.

use crate::common::*;
use crate::proxy::{Seen, forward};
use axum::extract::{Request, State};
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Barrier;

fn is_of_the_tag(request: &Request) -> bool {
    request.uri().path().contains("/manifests/sha256-")
}

/// A registry that knows no referrers, or does as if: its writers meet at the tag of their subject.
fn where_writers_meet(registry: &Registry) -> Proxy {
    let meeting = || Arc::new((AtomicU64::new(0), Barrier::new(2)));
    let (reads, writes) = (meeting(), meeting());
    let guard = move |State(seen): State<Arc<Seen>>, request: Request| {
        let meeting = match *request.method() {
            Method::GET => Some(reads.clone()),
            Method::PUT => Some(writes.clone()),
            _ => None,
        };
        async move {
            let meeting = meeting.filter(|_| is_of_the_tag(&request));
            let answer = without_subject(forward(State(seen), request).await);
            // Both have read before one writes, and both have written before one looks again.
            if let Some(meeting) = meeting
                && meeting.0.fetch_add(1, Ordering::Relaxed) < 2
            {
                meeting.1.wait().await;
            }
            answer
        }
    };
    let seen = Seen::of(&registry.host, |_, _, _| Fault::None);
    Proxy::start("127.0.0.1", seen, |router| router.fallback(guard))
}

fn without_subject(mut response: Response) -> Response {
    response.headers_mut().remove("oci-subject");
    response
}

async fn referrers(registry: &Registry, repository: &str, digest: &str) -> Vec<Value> {
    let tag = digest.replace(':', "-");
    let url = format!("http://{}/v2/{repository}/manifests/{tag}", registry.host);
    let accept = "application/vnd.oci.image.index.v1+json";
    let index = reqwest::Client::new().get(url).header("accept", accept).send().await.unwrap();
    let index: Value = serde_json::from_slice(&index.bytes().await.unwrap()).unwrap();
    index["manifests"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_made_the_same_bundle_are_all_among_its_referrers() {
    let registry = Registry::start();
    let proxy = where_writers_meet(&registry);
    let dir = tempfile::tempdir().unwrap();
    script("sh", dir.path(), "echo same >file");
    let (tree, repository, access) = (tree(dir.path()), proxy.reference("a"), access(&proxy.host));
    let (one, two) = tokio::join!(save(&tree, &repository, "one", &access), save(&tree, &repository, "two", &access));
    assert_eq!(one.digest, two.digest);
    let made_by = referrers(&registry, "a", &one.digest).await;
    assert_eq!(made_by.len(), 2, "{made_by:?}: {:?}", proxy.seen.log.lock());
    assert_ne!(made_by[0]["digest"], made_by[1]["digest"]);
    // And a third, later.
    save(&tree, &repository, "three", &access).await;
    assert_eq!(referrers(&registry, "a", &one.digest).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn how_a_bundle_was_made_is_read_back() {
    let registry = Registry::start();
    let dir = tempfile::tempdir().unwrap();
    script("sh", dir.path(), "echo same >file");
    let (tree, repository, access) = (tree(dir.path()), registry.repository("a"), registry.access());
    let saved = save(&tree, &repository, "one", &access).await;
    save(&tree, &repository, "two", &access).await;
    for reference in [format!("{repository}@{}", saved.digest), format!("{repository}:one")] {
        let told = bundlerun::bundle::provenance(&reference, &access).await.unwrap();
        let mut runs: Vec<_> = told.iter().map(|told| told["run"].as_str().unwrap()).collect();
        runs.sort_unstable();
        assert_eq!(runs, ["one", "two"], "{reference}");
    }

    // An image of others, and a registry that answers anything to what it does not know.
    let image = push_image(&registry.host, "b", &[vec![0; 1024]]).await;
    assert_eq!(bundlerun::bundle::provenance(&image, &access).await.unwrap(), Vec::<Value>::new());
    let guard = |State(seen): State<Arc<Seen>>, request: Request| async move {
        let is_asked = request.uri().path().contains("/referrers/");
        let answer = forward(State(seen), request).await;
        if is_asked { "<!doctype html><title>Sign in</title>".into_response() } else { answer }
    };
    let seen = Seen::of(&registry.host, |_, _, _| Fault::None);
    let proxy = Proxy::start("127.0.0.1", seen, |router| router.fallback(guard));
    let reference = format!("{}@{}", proxy.reference("a"), saved.digest);
    let told = bundlerun::bundle::provenance(&reference, &self::access(&proxy.host)).await.unwrap();
    assert_eq!(told.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_index_is_never_overwritten() {
    let registry = Registry::start();
    let guard = |State(seen): State<Arc<Seen>>, request: Request| async move {
        let is_asked = is_of_the_tag(&request) && *request.method() == Method::GET;
        let answer = without_subject(forward(State(seen), request).await);
        if is_asked { "<!doctype html><title>Sign in</title>".into_response() } else { answer }
    };
    let seen = Seen::of(&registry.host, |_, _, _| Fault::None);
    let proxy = Proxy::start("127.0.0.1", seen, |router| router.fallback(guard));
    let dir = tempfile::tempdir().unwrap();
    script("sh", dir.path(), "echo same >file");
    save(&tree(dir.path()), &proxy.reference("a"), "t", &access(&proxy.host)).await;
    let log = proxy.seen.log.lock().unwrap();
    let of_tag = |method: &str| log.iter().filter(|line| line.starts_with(method) && line.contains("/sha256-")).count();
    assert_eq!((of_tag("GET"), of_tag("PUT")), (1, 0), "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_is_believed_only_for_the_subject_that_was_sent() {
    let registry = Registry::start();
    let dir = tempfile::tempdir().unwrap();
    script("sh", dir.path(), "echo same >file");
    let digest = save(&tree(dir.path()), &registry.repository("known"), "t", &registry.access()).await.digest;
    for (name, subject, written) in [("right", digest.clone(), false), ("wrong", format!("sha256:{:064}", 0), true)] {
        let guard = move |State(seen): State<Arc<Seen>>, request: Request| {
            let subject = subject.clone();
            async move {
                let mut answer = without_subject(forward(State(seen), request).await);
                answer.headers_mut().insert("oci-subject", subject.parse().unwrap());
                answer
            }
        };
        let seen = Seen::of(&registry.host, |_, _, _| Fault::None);
        let proxy = Proxy::start("127.0.0.1", seen, |router| router.fallback(guard));
        save(&tree(dir.path()), &proxy.reference(name), "t", &access(&proxy.host)).await;
        let log = proxy.seen.log.lock().unwrap();
        let is_written = log.iter().any(|line| line.starts_with("PUT") && line.contains("/sha256-"));
        assert_eq!(is_written, written, "{name}: {log:?}");
    }
    let made_by = referrers(&registry, "wrong", &digest).await;
    assert_eq!(made_by[0]["artifactType"], json!("application/vnd.bundlerun.provenance.v1+json"));
}
