//! Who we are to a registry, for what, and for how long.

use crate::common::*;
use crate::proxy::{Seen, forward};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bundlerun::bundle::{Access, Error, ErrorKind, check_store};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// `user:secret`, by bcrypt.
pub(crate) const HTPASSWD: &str = "user:$2b$05$SuOooNoX3DiO0WkvVkjjY.4kKzm0f2aG3GFXq9j2nDSkxAy4qKkkC\n";
/// The same in base64.
const BASIC: &str = "Basic dXNlcjpzZWNyZXQ=";

fn some_tree(dir: &Path) {
    script("sh", dir, "mkdir d; echo file >d/file; head -c 200000 /dev/urandom >large");
}

fn login(host: &str, password: &str) -> String {
    json!({"auths": {host: {"username": "user", "password": password}}}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_login_for_all_namespaces_reads_only_outputs_of_the_own() {
    let (registry, _passwords) = Registry::start_with_passwords("127.0.0.1", HTPASSWD);
    let dir = tempfile::tempdir().unwrap();
    some_tree(dir.path());
    let of_namespace = |name: &str| {
        let mut access = registry.access();
        access.store.repositories = vec![registry.repository(&format!("bundles/{name}"))];
        access.store.docker_configs = vec![login(&registry.host, "secret")];
        access
    };
    for name in ["one", "two"] {
        save(&tree(dir.path()), &registry.repository(&format!("bundles/{name}")), "t", &of_namespace(name)).await;
    }
    let fetched = async |access: &Access, name: &str| {
        let place = Place::new();
        fetch(&registry.repository(&format!("bundles/{name}:t")), None, &place.dir, access).await.map(|()| place)
    };
    let mut access = of_namespace("one");
    let place = fetched(&access, "one").await.unwrap();
    assert_eq!(describe("tree", &place.dir), describe("tree", dir.path()));
    let error = fetched(&access, "two").await.err().unwrap();
    assert!(error.kind == ErrorKind::Denied && error.message.contains("without a login"), "{error}");
    // Whoever has a login of their own can use it.
    access.docker_configs = vec![login(&registry.host, "secret")];
    fetched(&access, "two").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn all_matching_logins_are_tried() {
    let (registry, _passwords) = Registry::start_with_passwords("127.0.0.1", HTPASSWD);
    let dir = tempfile::tempdir().unwrap();
    some_tree(dir.path());
    let mut access = registry.access();
    access.docker_configs = vec![login(&registry.host, "secret")];
    save(&tree(dir.path()), &registry.repository("a"), "t", &access).await;
    for (passwords, lets_in) in [(["wrong", "secret"], true), (["wrong", "bad"], false)] {
        access.docker_configs = passwords.map(|password| login(&registry.host, password)).to_vec();
        let is_right = |result: Result<(), Error>| match result {
            Ok(()) => assert!(lets_in),
            Err(error) => assert!(!lets_in && error.kind == ErrorKind::Denied, "{error}"),
        };
        let place = Place::new();
        is_right(fetch(&registry.repository("a:t"), None, &place.dir, &access).await);
        is_right(check_store(&registry.repository("b"), &access).await);
        is_right(try_save(&tree(dir.path()), &registry.repository("b"), "t", &access).await.map(drop));
    }
}

/// A registry that lets `reader` read only, and `writer` not know what is not there; its tokens name who has them.
fn with_a_reader(registry: &Registry) -> Proxy {
    let guard = move |State(seen): State<Arc<Seen>>, mut request: Request| async move {
        let bearer = |user: &str| format!("Bearer {user}");
        if request.uri().path() == "/token" {
            let basic = header(&request, "authorization").trim_start_matches("Basic ").to_owned();
            let decoded = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, basic).unwrap();
            let user = String::from_utf8(decoded).unwrap().split(':').next().unwrap().to_owned();
            return json!({"token": user, "expires_in": 300}).to_string().into_response();
        }
        let given = header(&request, "authorization").to_owned();
        let writes = ![Method::GET, Method::HEAD].contains(request.method());
        if writes {
            seen.log.lock().unwrap().push(format!("{} as {given:?}", request.method()));
        }
        if given == bearer("writer") || (given == bearer("reader") && !writes) {
            request.headers_mut().remove("authorization");
            let answer = forward(State(seen), request).await;
            // As GHCR has it.
            let is_hidden = given == bearer("writer") && answer.status() == StatusCode::NOT_FOUND;
            return if is_hidden { StatusCode::FORBIDDEN.into_response() } else { answer };
        }
        let challenge = "Bearer realm=\"/token\",service=\"test\",error=\"insufficient_scope\"";
        (StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)]).into_response()
    };
    let seen = Seen::of(&registry.host, |_, _, _| Fault::None);
    Proxy::start("127.0.0.1", seen, |router| router.fallback(guard))
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_write_pushes_whatever_comes_before_it() {
    for users in [["reader", "writer"], ["writer", "reader"]] {
        pushed_by_the_writer(users).await;
    }
}

async fn pushed_by_the_writer(users: [&str; 2]) {
    let registry = Registry::start();
    let proxy = with_a_reader(&registry);
    let dir = tempfile::tempdir().unwrap();
    some_tree(dir.path());
    let mut access = access(&proxy.host);
    let login = |user: &str| json!({"auths": {&proxy.host: {"username": user, "password": "p"}}}).to_string();
    access.docker_configs = users.map(login).to_vec();
    save(&tree(dir.path()), &proxy.reference("a"), "t", &access).await;
    let log = proxy.seen.log.lock().unwrap();
    let (written, refused): (Vec<_>, Vec<_>) =
        log.iter().filter(|line| line.contains(" as ")).partition(|line| line.ends_with("\"Bearer writer\""));
    assert!(written.iter().any(|line| line.starts_with("PATCH ")), "{log:?}");
    assert!(refused.iter().all(|line| line.starts_with("POST ")), "nothing is sent by who may not write: {refused:?}");
}

fn header<'a>(request: &'a Request, name: &str) -> &'a str {
    request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// A registry that takes tokens only; `endpoint` gives them. The start of an upload is answered after `slow`.
fn with_tokens<F>(
    registry: &Registry,
    slow: Duration,
    endpoint: impl Fn(Request) -> F + Clone + Send + Sync + 'static,
) -> Proxy
where
    F: Future<Output = Response> + Send,
{
    let guard = move |State(seen): State<Arc<Seen>>, mut request: Request| {
        let endpoint = endpoint.clone();
        async move {
            if request.uri().path() == "/token" {
                return endpoint(request).await;
            }
            // The body comes by PATCH, and its end by PUT.
            let is_upload = [Method::PATCH, Method::PUT].contains(request.method())
                && request.uri().path().contains("/blobs/uploads/");
            if !header(&request, "authorization").starts_with("Bearer good") {
                if is_upload {
                    seen.log.lock().unwrap().push("an anonymous upload".to_owned());
                }
                // Relative, as some have it, and with a quote in it.
                let challenge = "Bearer realm=\"/token\",service=\"the \\\"test\\\"\"";
                return (StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)]).into_response();
            }
            let is_start = *request.method() == Method::POST;
            request.headers_mut().remove("authorization");
            let answer = forward(State(seen), request).await;
            if is_start {
                tokio::time::sleep(slow).await;
            }
            answer
        }
    };
    let seen = Seen::of(&registry.host, |_, _, _| Fault::None);
    Proxy::start("127.0.0.1", seen, |router| router.fallback(guard))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_runs_out_before_a_body_is_renewed_first() {
    let registry = Registry::start();
    let given = Arc::new(AtomicU64::new(0));
    let count = given.clone();
    // Longer than a token lives.
    let proxy = with_tokens(&registry, Duration::from_millis(1100), move |request| {
        let count = count.clone();
        async move {
            assert_eq!(header(&request, "authorization"), BASIC);
            assert!(request.uri().query().unwrap().contains("service=the+%22test%22"), "{}", request.uri());
            count.fetch_add(1, Ordering::Relaxed);
            json!({"token": "good", "expires_in": 1}).to_string().into_response()
        }
    });
    let dir = tempfile::tempdir().unwrap();
    some_tree(dir.path());
    let mut access = access(&proxy.host);
    access.docker_configs = vec![login(&proxy.host, "secret")];
    save(&tree(dir.path()), &proxy.reference("a"), "t", &access).await;
    let log = proxy.seen.log.lock().unwrap();
    assert!(!log.iter().any(|line| line == "an anonymous upload"), "{log:?}");
    assert!(given.load(Ordering::Relaxed) > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_token_gets_tokens() {
    for knows_oauth in [true, false] {
        let registry = Registry::start();
        let proxy = with_tokens(&registry, Duration::ZERO, move |request| async move {
            if *request.method() == Method::GET {
                // `00000000-0000-0000-0000-000000000000:refresh`.
                let basic = "Basic MDAwMDAwMDAtMDAwMC0wMDAwLTAwMDAtMDAwMDAwMDAwMDAwOnJlZnJlc2g=";
                assert!(!knows_oauth && header(&request, "authorization") == basic);
            } else if knows_oauth {
                let body = axum::body::to_bytes(request.into_body(), 10_000).await.unwrap();
                let body = String::from_utf8(body.to_vec()).unwrap();
                for part in ["grant_type=refresh_token", "refresh_token=refresh", "scope=repository%3Aa%3Apull"] {
                    assert!(body.contains(part), "{part}: {body}");
                }
            } else {
                return StatusCode::NOT_FOUND.into_response();
            }
            json!({"access_token": "good", "expires_in": 300}).to_string().into_response()
        });
        let dir = tempfile::tempdir().unwrap();
        script("sh", dir.path(), "echo file >file");
        let mut access = access(&proxy.host);
        access.docker_configs = vec![json!({"auths": {proxy.host.clone(): {"identitytoken": "refresh"}}}).to_string()];
        save(&tree(dir.path()), &proxy.reference("a"), "t", &access).await;
    }
}

/// A registry whose tag `t` can be written once, and whose first answer to that gets lost.
fn with_immutable_tags(registry: &Registry) -> Proxy {
    let puts = Arc::new(AtomicU64::new(0));
    let guard = move |State(seen): State<Arc<Seen>>, request: Request| {
        let puts = puts.clone();
        async move {
            if *request.method() != Method::PUT || !request.uri().path().ends_with("/manifests/t") {
                return forward(State(seen), request).await;
            }
            if puts.fetch_add(1, Ordering::Relaxed) == 0 {
                forward(State(seen), request).await;
                return StatusCode::BAD_GATEWAY.into_response();
            }
            let message = "Failed to process request due to 'a:t' configured as immutable.";
            let body = json!({"errors": [{"code": "PRECONDITION", "message": message}]}).to_string();
            (StatusCode::PRECONDITION_FAILED, body).into_response()
        }
    };
    let seen = Seen::of(&registry.host, |_, _, _| Fault::None);
    Proxy::start("127.0.0.1", seen, |router| router.fallback(guard))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_immutable_tag_that_is_ours_is_success_and_of_another_is_refused() {
    let registry = Registry::start();
    let proxy = with_immutable_tags(&registry);
    let dir = tempfile::tempdir().unwrap();
    some_tree(dir.path());
    save(&tree(dir.path()), &proxy.reference("a"), "t", &access(&proxy.host)).await;
    script("sh", dir.path(), "echo other >other");
    let error = try_save(&tree(dir.path()), &proxy.reference("a"), "t", &access(&proxy.host)).await.unwrap_err();
    assert!(error.kind == ErrorKind::Denied && error.message.contains("immutable"), "{error}");
}
