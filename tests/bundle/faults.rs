//! Registries that fail, lie, or do not know us.

use crate::common::*;
use crate::faulty_disk::FaultyDisk;
use crate::logins::HTPASSWD;
use crate::proxy::{Seen, forward};
use crate::registry::{make_certificate, stored_in};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bundlerun::bundle::{Access, ErrorKind, Limits, Progress, Tree};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A registry behind a proxy that follows a rule.
fn before(registry: &Registry, rule: impl Fn(&Method, &str, u64) -> Fault + Send + Sync + 'static) -> Proxy {
    Proxy::before("127.0.0.1", &registry.host, rule)
}

fn some_tree(dir: &Path) {
    let make = "mkdir d; for i in $(seq 50); do head -c 20000 /dev/urandom >d/$i; done; echo file >file";
    script("bash", dir, make);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_that_pass_are_survived_in_both_directions() {
    let registry = Registry::start();
    let dir = tempfile::tempdir().unwrap();
    some_tree(dir.path());
    let every = |n: u64, fault: Fault| {
        let requests = AtomicU64::new(0);
        move |_: &Method, _: &str, _: u64| {
            if requests.fetch_add(1, Ordering::Relaxed).is_multiple_of(n) { fault } else { Fault::None }
        }
    };
    let faults =
        [Fault::Status(500), Fault::Status(503), Fault::Status(429), Fault::Reset, Fault::Closed, Fault::NoRange];
    for (number, fault) in faults.into_iter().enumerate() {
        // Not every third: a try of an upload has three, and would always fail at the same one.
        let proxy = before(&registry, every(4, fault));
        let repository = proxy.reference(&format!("r{number}"));
        let saved = try_save(&tree(dir.path()), &repository, "t", &access(&proxy.host)).await;
        let saved = saved.unwrap_or_else(|error| panic!("{fault:?}: {error}: {:?}", proxy.seen.log.lock()));
        let place = Place::new();
        let reference = format!("{repository}@{}", saved.digest);
        let fetched = fetch(&reference, None, &place.dir, &access(&proxy.host)).await;
        fetched.unwrap_or_else(|error| panic!("{fault:?}: {error}: {:?}", proxy.seen.log.lock()));
        assert_eq!(describe("tree", &place.dir), describe("tree", dir.path()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn altered_content_is_never_taken() {
    let registry = Registry::start();
    let dir = tempfile::tempdir().unwrap();
    some_tree(dir.path());
    let saved = save(&tree(dir.path()), &registry.repository("a"), "t", &registry.access()).await;
    let image = push_image(&registry.host, "a", &[b"not reached".to_vec()]).await;
    for what in ["/manifests/", "/blobs/"] {
        let rule = move |method: &Method, path: &str, _: u64| {
            if *method == Method::GET && path.contains(what) { Fault::Altered } else { Fault::None }
        };
        let proxy = before(&registry, rule);
        for digest in [&*saved.digest, image.split('@').nth(1).unwrap()] {
            let place = Place::new();
            let reference = format!("{}@{digest}", proxy.reference("a"));
            let error = fetch(&reference, None, &place.dir, &access(&proxy.host)).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Invalid, "{what}: {error}");
        }
        let fresh = proxy.reference("fresh");
        if what == "/manifests/" {
            let error = try_save(&tree(dir.path()), &fresh, "t", &access(&proxy.host)).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Invalid, "read back: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_says_before_the_command_what_it_would_say_to_an_upload() {
    let registry = Registry::start();
    let answer = Arc::new(AtomicU64::new(0));
    let status = answer.clone();
    let rule = move |method: &Method, _: &str, _: u64| match status.load(Ordering::Relaxed) {
        0 => Fault::None,
        _ if *method != Method::POST => Fault::None,
        status => Fault::Status(u16::try_from(status).unwrap()),
    };
    let proxy = before(&registry, rule);
    let (repository, access) = (proxy.reference("checked"), access(&proxy.host));
    bundlerun::bundle::check_store(&repository, &access).await.unwrap();
    let log = proxy.seen.log.lock().unwrap().clone();
    let methods: Vec<_> = log.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(methods, ["POST", "DELETE"], "{log:?}");
    for (status, kind) in [
        (401, ErrorKind::Denied),
        (403, ErrorKind::Denied),
        (404, ErrorKind::NotFound),
        (413, ErrorKind::TooLarge),
        (429, ErrorKind::Unreachable),
        (500, ErrorKind::Unreachable),
        (507, ErrorKind::Quota),
    ] {
        answer.store(status, Ordering::Relaxed);
        let before = proxy.seen.log.lock().unwrap().len();
        let error = bundlerun::bundle::check_store(&repository, &access).await.unwrap_err();
        assert_eq!(error.kind, kind, "{status}: {error}");
        assert_eq!(proxy.seen.log.lock().unwrap().len() - before, 1, "{status}: one try");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_comes_back_is_waited_for_and_one_that_does_not_is_named() {
    let mut registry = Registry::start();
    let dir = tempfile::tempdir().unwrap();
    some_tree(dir.path());
    registry.stop();
    let (tree, repository, access) = (tree(dir.path()), registry.repository("a"), registry.access());
    let saving = try_save(&tree, &repository, "t", &access);
    let back = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        registry.go_on();
    };
    let (saved, ()) = tokio::join!(saving, back);
    saved.unwrap();
    registry.stop();
    let error = ends("a save", try_save(&tree, &repository, "u", &access)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(error.message.contains(&registry.host) && error.message.contains("refused"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_may_go_at_any_moment_and_come_back() {
    let registry = Registry::start();
    let dir = tempfile::tempdir().unwrap();
    some_tree(dir.path());
    let upload: fn(&Method, &str) -> bool =
        |m, path| [Method::PATCH, Method::PUT].contains(m) && path.contains("/blobs/");
    let manifest: fn(&Method, &str) -> bool = |m, path| *m == Method::PUT && path.contains("/manifests/");
    let download: fn(&Method, &str) -> bool = |m, path| *m == Method::GET && path.contains("/blobs/");
    for (number, (when, fault)) in
        [(upload, Fault::HoldRequest), (manifest, Fault::HoldAnswer), (download, Fault::HoldAnswer)]
            .into_iter()
            .enumerate()
    {
        let gone = AtomicBool::new(false);
        let rule = move |method: &Method, path: &str, _: u64| {
            if when(method, path) && !gone.swap(true, Ordering::Relaxed) { fault } else { Fault::None }
        };
        let mut proxy = before(&registry, rule);
        let (seen, access, place) = (proxy.seen.clone(), access(&proxy.host), Place::new());
        let (tree, repository) = (tree(dir.path()), proxy.reference(&format!("gone{number}")));
        let both_ways = async {
            let saved = save(&tree, &repository, "t", &access).await;
            fetch(&format!("{repository}@{}", saved.digest), None, &place.dir, &access).await.unwrap();
        };
        let comes_back = async {
            while seen.held.lock().unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            proxy.stop();
            tokio::time::sleep(Duration::from_secs(1)).await; // how long it is away
            proxy.go_on();
        };
        tokio::join!(both_ways, comes_back);
        assert_eq!(describe("tree", &place.dir), describe("tree", dir.path()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_stay_are_told_by_kind() {
    let registry = Registry::start();
    let dir = tempfile::tempdir().unwrap();
    some_tree(dir.path());
    for (status, kind) in [
        (401, ErrorKind::Denied),
        (403, ErrorKind::Denied),
        (404, ErrorKind::NotFound),
        (413, ErrorKind::TooLarge),
        (507, ErrorKind::Quota),
        (400, ErrorKind::Invalid),
    ] {
        let rule = move |method: &Method, _: &str, _: u64| {
            if [Method::POST, Method::PUT, Method::PATCH].contains(method) {
                Fault::Status(status)
            } else {
                Fault::None
            }
        };
        let proxy = before(&registry, rule);
        let error = try_save(&tree(dir.path()), &proxy.reference("a"), "t", &access(&proxy.host)).await.unwrap_err();
        assert_eq!(error.kind, kind, "{status}: {error}");
        assert!(error.message.contains(&proxy.host) && !error.message.contains('\n'), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_not_listed_as_insecure_gets_no_plain_request() {
    let registry = Registry::start();
    let dir = tempfile::tempdir().unwrap();
    some_tree(dir.path());
    let error = try_save(&tree(dir.path()), &registry.repository("a"), "t", &Access::default()).await.unwrap_err();
    assert!(error.kind == ErrorKind::Tls && error.message.contains("no TLS"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_counts_only_with_its_authority() {
    let certificates = tempfile::tempdir().unwrap();
    make_certificate(certificates.path(), "registry", "127.0.0.1");
    let at = |name: &str| certificates.path().join(name).to_str().unwrap().to_owned();
    let tls = format!("  tls: {{certificate: {}, key: {}}}\n", at("registry.pem"), at("registry.key"));
    let registry = Registry::start_with(&tls);
    let dir = tempfile::tempdir().unwrap();
    some_tree(dir.path());
    let error = try_save(&tree(dir.path()), &registry.repository("a"), "t", &Access::default()).await.unwrap_err();
    assert!(error.kind == ErrorKind::Tls && error.message.contains("certificate"), "{error}");
    let mut access = Access::default();
    access.registries.ca = Some(fs::read_to_string(at("registry.ca")).unwrap());
    save(&tree(dir.path()), &registry.repository("a"), "t", &access).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_has_the_password_is_let_in() {
    let (registry, _passwords) = Registry::start_with_passwords("127.0.0.1", HTPASSWD);
    let dir = tempfile::tempdir().unwrap();
    some_tree(dir.path());
    let mut access = registry.access();
    for (login, lets_in) in [(None, false), (Some("wrong"), false), (Some("secret"), true)] {
        let config = login.map(|password| {
            json!({"auths": {registry.host.clone(): {"username": "user", "password": password}}}).to_string()
        });
        access.docker_configs = config.into_iter().collect();
        match try_save(&tree(dir.path()), &registry.repository("a"), "t", &access).await {
            Ok(_) => assert!(lets_in),
            Err(error) => {
                assert!(!lets_in && error.kind == ErrorKind::Denied, "{error}");
                assert!(!error.message.contains("secret") && error.message.contains(&registry.host), "{error}");
            }
        }
    }
    let place = Place::new();
    fetch(&registry.repository("a:t"), None, &place.dir, &access).await.unwrap();
    assert_eq!(describe("tree", &place.dir), describe("tree", dir.path()));
}

/// A registry that takes tokens only, and gives one to `user` with the password `secret` for what it asks for. It answers
/// as Docker Hub does, with the token under both of its names.
fn with_tokens(registry: &Registry) -> Proxy {
    async fn guard(State(seen): State<Arc<Seen>>, mut request: Request) -> Response {
        let header = |request: &Request, name: &str| {
            request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let (authorization, host) = (header(&request, "authorization"), header(&request, "host"));
        if request.uri().path() == "/token" {
            let asked = request.uri().query().unwrap_or_default().to_owned();
            seen.log.lock().unwrap().push(asked);
            // `user:secret` in base64.
            return if authorization == "Basic dXNlcjpzZWNyZXQ=" {
                json!({"token": "good", "access_token": "good", "expires_in": 300}).to_string().into_response()
            } else {
                (StatusCode::UNAUTHORIZED, "who are you?").into_response()
            };
        }
        if authorization != "Bearer good" {
            let challenge =
                format!("Bearer realm=\"http://{host}/token\",service=\"test\",scope=\"repository:a:pull,push\"");
            return (StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)], "a token, please").into_response();
        }
        request.headers_mut().remove("authorization");
        forward(State(seen), request).await
    }
    Proxy::start("127.0.0.1", Seen::of(&registry.host, |_, _, _| Fault::None), |router| router.fallback(guard))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_wants_a_token_gets_one() {
    let registry = Registry::start();
    let proxy = with_tokens(&registry);
    let dir = tempfile::tempdir().unwrap();
    some_tree(dir.path());
    let mut access = access(&proxy.host);
    for (password, lets_in) in [("wrong", false), ("secret", true)] {
        let login = json!({"auths": {proxy.host.clone(): {"username": "user", "password": password}}});
        access.docker_configs = vec![login.to_string()];
        match try_save(&tree(dir.path()), &proxy.reference("a"), "t", &access).await {
            Ok(_) => assert!(lets_in),
            Err(error) => assert!(!lets_in && error.kind == ErrorKind::Denied, "{error}"),
        }
    }
    let place = Place::new();
    fetch(&proxy.reference("a:t"), None, &place.dir, &access).await.unwrap();
    assert_eq!(describe("tree", &place.dir), describe("tree", dir.path()));
    let log = proxy.seen.log.lock().unwrap();
    assert!(log.iter().any(|asked| asked.contains("scope=repository") && asked.contains("service=test")), "{log:?}");
}

/// A file system of a few bytes; gone with the value.
struct Small(tempfile::TempDir);

impl Small {
    fn of(size: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mount = ["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", dir.path().to_str().unwrap()];
        assert!(std::process::Command::new("mount").args(mount).status().unwrap().success());
        Self(dir)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_as_such() {
    let registry = Registry::start();
    let dir = tempfile::tempdir().unwrap();
    script("sh", dir.path(), "head -c 3000000 /dev/urandom >large");
    save(&tree(dir.path()), &registry.repository("a"), "t", &registry.access()).await;
    let small = Small::of("1m");
    let error = fetch(&registry.repository("a:t"), None, small.0.path(), &registry.access()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::DiskFull, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_file_is_read_by_four_requests() {
    let registry = Registry::start();
    let dir = tempfile::tempdir().unwrap();
    let make = "import os\nfor i in range(5000): open(str(i), 'wb').write(os.urandom(2000))";
    script("python3", dir.path(), make);
    save(&tree(dir.path()), &registry.repository("a"), "t", &registry.access()).await;
    let proxy = before(&registry, |_, _, _| Fault::None);
    let reference = proxy.reference("a:t");
    let file = bundlerun::bundle::read_file(&reference, "4321", &access(&proxy.host), vec![]).await.unwrap();
    assert_eq!(file, fs::read(dir.path().join("4321")).unwrap());
    let log = proxy.seen.log.lock().unwrap();
    assert_eq!(log.len(), 4, "{log:?}");
    let bytes = proxy.seen.bytes.load(Ordering::Relaxed);
    assert!(bytes < 100_000, "of 10 MB, {bytes} bytes were read");
}

/// Each of these files takes a minute, because this file system does not say where their holes are; as many as there are
/// layers in work are read at once.
#[test]
fn who_gives_up_a_save_leaves_nobody_reading() {
    let (registry, disk) = (Registry::start(), FaultyDisk::mount());
    for name in ["a", "b", "c", "d"] {
        fs::File::create(disk.backing().join(name)).unwrap().set_len(60 << 30).unwrap();
    }
    let (tree, repository, access) = (tree(disk.path()), registry.repository("a"), registry.access());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let saving =
        async { tokio::time::timeout(Duration::from_secs(1), try_save(&tree, &repository, "t", &access)).await };
    assert!(runtime.block_on(saving).is_err(), "it ends by itself");
    let (ended, end) = std::sync::mpsc::channel();
    // A runtime waits for its threads.
    std::thread::spawn(move || {
        drop(runtime);
        let _ = ended.send(());
    });
    end.recv_timeout(Duration::from_secs(30)).expect("a thread reads on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_to_nothing_ends_a_fetch() {
    let registry = Registry::start();
    let (limits, place) = (Limits { entries: 1, bytes: 1 }, Place::new());
    let (missing, access, progress) = (registry.repository("a:none"), registry.access(), Progress::default());
    let fetched = bundlerun::bundle::fetch(&missing, None, &place.dir, limits, &access, &progress);
    let error = ends("a fetch", fetched).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
}

/// Saves to a registry that does not say what it has not, and that answers so wrongly, after the manifest, as many questions
/// for the blobs whose digests end so.
async fn save_with_late_blobs(
    questions: u64,
    wrongly: Fault,
    of: String,
) -> Result<bundlerun::bundle::SavedBundle, bundlerun::bundle::Error> {
    let registry = Registry::start();
    let (dir, written, late) = (tempfile::tempdir().unwrap(), AtomicBool::default(), AtomicU64::default());
    fs::write(dir.path().join("file"), "content").unwrap();
    let proxy = before(&registry, move |method, path, _| {
        if *method == Method::PUT && path.contains("/manifests/t") {
            written.store(true, Ordering::SeqCst);
        }
        match (*method == Method::HEAD && path.contains("/blobs/"), written.load(Ordering::SeqCst)) {
            (true, false) => Fault::Status(403),
            (true, true) if path.ends_with(&of) && late.fetch_add(1, Ordering::SeqCst) < questions => wrongly,
            _ => Fault::None,
        }
    });
    try_save(&tree(dir.path()), &format!("{}/a", proxy.host), "t", &access(&proxy.host)).await
}

/// Also a store that has lost the end of one blob has taken the manifest.
#[tokio::test(flavor = "multi_thread")]
async fn every_blob_is_asked_for_after_the_manifest_and_has_its_size() {
    let registry = Registry::start();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "content").unwrap();
    let saved = save(&tree(dir.path()), &registry.repository("a"), "t", &registry.access()).await;
    let blobs = blobs_of(&manifest(&format!("{}@{}", registry.repository("a"), saved.digest)));
    assert_eq!(blobs.len(), 3, "a layer, the list, the configuration: {blobs:?}");
    let tries = [Fault::Status(404), Fault::Shorter].into_iter().map(async |wrongly| {
        let late = save_with_late_blobs(4, wrongly, String::new()).await;
        assert!(late.is_ok(), "a replica may be late: {wrongly:?}: {late:?}");
        let all = blobs.iter().map(async |(digest, size)| {
            let error = save_with_late_blobs(u64::MAX, wrongly, digest.clone()).await.unwrap_err();
            let says = format!("took the manifest, and has no blob {digest} of {size} bytes");
            assert!(error.kind == ErrorKind::Invalid && error.message.contains(&says), "{wrongly:?}: {error}");
        });
        futures::future::join_all(all).await
    });
    futures::future::join_all(tries).await;
}

fn manifest(reference: &str) -> Value {
    serde_json::from_slice(&crane(&["manifest", "--insecure", reference])).unwrap()
}

/// Digests and sizes of what a manifest has.
fn blobs_of(manifest: &Value) -> Vec<(String, u64)> {
    let layers = manifest["layers"].as_array().into_iter().flatten();
    let all = layers.chain(manifest.get("config"));
    all.map(|blob| (blob["digest"].as_str().unwrap().to_owned(), blob["size"].as_u64().unwrap())).collect()
}

/// Layers are pushed side by side and come to an end in any order; some registries take a manifest without looking.
#[tokio::test(flavor = "multi_thread")]
async fn no_manifest_is_pushed_before_all_its_blobs_are_there() {
    const FILES: usize = 6;
    let registry = Registry::start();
    let dir = tempfile::tempdir().unwrap();
    for n in 0..FILES {
        script("sh", dir.path(), &format!("head -c 700000 /dev/urandom >{n}"));
    }
    // What the registry has when a manifest comes.
    let there = Arc::<Mutex<Vec<(String, BTreeSet<String>)>>>::default();
    let (seen, store, begun) = (there.clone(), registry.store(), AtomicBool::default());
    let proxy = before(&registry, move |method, path, _| {
        if *method == Method::PUT && path.contains("/manifests/") {
            seen.lock().unwrap().push((path.rsplit('/').next().unwrap().to_owned(), stored_in(&store)));
        }
        // The first layer to come is the last to be there.
        if *method == Method::POST && !begun.swap(true, Ordering::SeqCst) { Fault::HoldBack } else { Fault::None }
    });
    let tree = Tree { max_blob: Some(1 << 20), ..tree(dir.path()) };
    let others_are_pushed = async {
        let is_pushed = |line: &&String| line.starts_with("PUT ") && line.contains("/blobs/");
        while proxy.seen.log.lock().unwrap().iter().filter(is_pushed).count() < FILES - 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        proxy.seen.let_one_go();
    };
    let (repository, access) = (proxy.reference("a"), access(&proxy.host));
    let saving = async { tokio::join!(save(&tree, &repository, "t", &access), others_are_pushed) };
    let (saved, ()) = ends("a save", saving).await;
    assert_eq!(saved.skipped, 0);
    let there = there.lock().unwrap();
    let mut layers = 0;
    for (reference, there) in &*there {
        let at = if reference.contains(':') { "@" } else { ":" };
        let blobs = blobs_of(&manifest(&format!("{}{at}{reference}", registry.repository("a"))));
        layers = layers.max(blobs.len());
        let lacks: Vec<_> = blobs.iter().filter(|(digest, _)| !there.contains(digest)).collect();
        assert!(lacks.is_empty(), "{reference} came before {lacks:?}");
    }
    assert!(layers >= FILES + 2, "with the list and the configuration: {layers}");
}
