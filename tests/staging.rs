//! The helper puts inputs in place, with the real runner waiting for them and real children at work.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::string_slice)] // in functions that tests share

#[path = "sandbox/helper.rs"]
mod helping;
#[path = "sandbox/mod.rs"]
mod sandbox;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::IntoResponse;
use axum::routing::get;
use bundlerun::contract::{Cause, InputPatience, InputSource, Request, RequestedInput, SnapshotInput, SnapshotPin};
use bundlerun::helper;
use futures::{StreamExt, stream};
use helping::{Helper, Process, fresh, start, told};
use sandbox::{Sandbox, await_that, is_alive, sh};
use serde_json::json;
use sha2::Digest as _;
use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

fn input(path: &str, source: InputSource) -> RequestedInput {
    RequestedInput::new(path, source)
}

fn with_inputs(inputs: Vec<RequestedInput>) -> Sandbox {
    fresh().requesting(|request| {
        request.inputs = inputs;
        request.staging_seconds = Some(60);
    })
}

/// As the kubelet mounts a `ConfigMap`.
fn config_map(sandbox: &Sandbox, index: usize) {
    let dir = sandbox.paths.sources.join(index.to_string());
    fs::create_dir_all(dir.join("..2026")).unwrap();
    symlink("..2026", dir.join("..data")).unwrap();
    for (key, text) in [("a.txt", "alpha"), ("b.txt", "beta")] {
        fs::write(dir.join("..2026").join(key), text).unwrap();
        symlink(format!("..data/{key}"), dir.join(key)).unwrap();
    }
}

#[test]
fn texts_and_config_maps_are_there_when_the_command_begins() {
    let sandbox = with_inputs(vec![
        input("conf/text", InputSource::Text("hello $HOME\n".to_owned())),
        input("conf/map", InputSource::config_map("map", None)),
        input("/data/one", InputSource::config_map("map", Some("b.txt".to_owned()))),
        input(".", InputSource::Mounted),
    ]);
    config_map(&sandbox, 1);
    config_map(&sandbox, 2);
    fs::create_dir_all(sandbox.paths.sources.join("3/dataset")).unwrap();
    fs::write(sandbox.paths.sources.join("3/dataset/x"), "linked").unwrap();
    // There is nothing that mounts here: the command looks where the helper puts inputs.
    let command = sh("cd ../.bundlerun/inputs; cat 0 1/a.txt 1/b.txt 2; ls 1; cat ~/dataset/x");
    let (helper, runner) = start(&sandbox, &command);
    let run = runner.finish();
    assert_eq!(run.stdout(), "hello $HOME\nalphabetabetaa.txt\nb.txt\nlinked", "{run:?}");
    helper.finish();
    // stdout and stderr; not the stub of a file, nor what is linked.
    assert_eq!(told(&sandbox).report.files, 2);
    assert!(sandbox.paths.bundle.join("conf/text").is_file() && sandbox.paths.bundle.join("conf/map").is_dir());
    assert_eq!(fs::metadata(sandbox.paths.inputs.join("1/a.txt")).unwrap().mode() & 0o777, 0o644);
}

#[test]
fn scripts_can_be_executed_and_modes_are_as_asked_for() {
    let (_web, address) = serve();
    let asked = |mode, input: RequestedInput| RequestedInput { mode: Some(mode), ..input };
    let script = || InputSource::Text("#!/bin/sh\necho \"I am $0\"\n".to_owned());
    let sandbox = with_inputs(vec![
        input("run.sh", script()),
        input("data", InputSource::Text("echo no".to_owned())),
        asked(0o444, input("closed.sh", script())),
        input("map", InputSource::config_map("map", None)),
        asked(0o755, input("one", InputSource::config_map("map", Some("b.txt".to_owned())))),
        asked(0o555, download(address, "file", &sha256(BODY))),
        download(address, "file", &sha256(BODY)),
    ]);
    config_map(&sandbox, 3);
    config_map(&sandbox, 4);
    fs::write(sandbox.paths.sources.join("3/..2026/b.txt"), "#!/bin/sh\necho script of a map\n").unwrap();
    let (helper, runner) = start(&sandbox, &sh("cd ../.bundlerun/inputs; ./0; 3/b.txt"));
    let run = runner.finish();
    helper.finish();
    assert_eq!((run.code, run.stdout().as_str()), (0, "I am ./0\nscript of a map\n"), "{run:?}");
    let mode = |place: &str| fs::metadata(sandbox.paths.inputs.join(place)).unwrap().mode() & 0o7777;
    assert_eq!(["0", "1", "2"].map(mode), [0o755, 0o644, 0o444]);
    assert_eq!(["3/a.txt", "3/b.txt", "4", "5", "6"].map(mode), [0o644, 0o755, 0o755, 0o555, 0o644]);
}

#[test]
fn an_entry_whose_name_is_taken_ends_the_run() {
    let sandbox = with_inputs(vec![input("data", InputSource::Text(String::new())), input(".", InputSource::Mounted)]);
    fs::create_dir_all(sandbox.paths.sources.join("1/data")).unwrap();
    let (helper, runner) = start(&sandbox, &sh("echo never"));
    let run = runner.finish();
    helper.finish();
    let record = told(&sandbox).report.record.unwrap();
    assert_eq!((record.cause, record.started_at_ms), (Some(Cause::InputInvalid), None));
    assert!(record.detail.starts_with("input .: its entry data "), "{}", record.detail);
    assert_eq!((run.code, run.stdout().as_str()), (125, ""));
}

#[test]
fn a_key_that_is_not_there_ends_the_run() {
    let source = InputSource::config_map("map", Some("c.txt".to_owned()));
    let sandbox = with_inputs(vec![input("x", source)]).requesting(impatient);
    config_map(&sandbox, 0);
    let (helper, runner) = start(&sandbox, &sh("echo never"));
    let run = runner.finish();
    helper.finish();
    assert_eq!(run.record.cause, Some(Cause::InputNotFound));
    assert_eq!(run.record.detail, "input x: ConfigMap map, or its key c.txt, does not exist, for 1 s");
}

/// They are created beside the run, in any order.
#[test]
fn config_maps_and_secrets_that_do_not_exist_yet_are_waited_for() {
    let sandbox = with_inputs(vec![
        input("map", InputSource::config_map("settings", None)),
        input("token", InputSource::secret("login", Some("b.txt".to_owned()))),
    ]);
    for index in ["0", "1"] {
        fs::create_dir_all(sandbox.paths.sources.join(index)).unwrap();
    }
    let (helper, runner) = start(&sandbox, &sh("cat ../.bundlerun/inputs/0/a.txt ../.bundlerun/secrets/1"));
    let told_of = |words: &str| {
        let said = fs::read_to_string(sandbox.paths.bin.join("awaited.json")).unwrap_or_default();
        said.contains(words) && said.contains("\"Absent\"")
    };
    await_that("words", || told_of("input map: ConfigMap settings does not exist, or is empty"));
    await_that("words", || told_of("input token: Secret login, or its key b.txt, does not exist"));
    config_map(&sandbox, 0);
    config_map(&sandbox, 1);
    let run = runner.finish();
    helper.finish();
    assert_eq!(run.stdout(), "alphabeta", "{run:?}");
    assert!(!sandbox.paths.inputs.join("1").exists(), "a Secret is in memory only");
    let digests = told(&sandbox).input_digests;
    assert_eq!(digests.into_keys().collect::<Vec<_>>(), [0], "nothing is told of a Secret");
}

#[test]
fn what_was_copied_is_told_by_its_digest_and_a_later_attempt_takes_nothing_else() {
    let key = sha256("beta");
    // printf alpha >a.txt; printf beta >b.txt; sha256sum * | sha256sum
    let all = sha256(format!("{}  a.txt\n{key}  b.txt\n", sha256("alpha")));
    let [key, all] = [key, all].map(|hex| format!("sha256:{hex}"));
    for (before, cause) in [(None, None), (Some(&key), None), (Some(&all), Some(Cause::InputChanged))] {
        let sandbox = with_inputs(vec![
            RequestedInput { digest: Some(all.clone()), ..input("map", InputSource::config_map("map", None)) },
            input("text", InputSource::Text(String::new())),
            RequestedInput {
                digest: before.cloned(),
                ..input("key", InputSource::config_map("map", Some("b.txt".to_owned())))
            },
        ]);
        config_map(&sandbox, 0);
        config_map(&sandbox, 2);
        let (helper, runner) = start(&sandbox, &sh("cat ../.bundlerun/inputs/2"));
        let run = runner.finish();
        helper.finish();
        let told = told(&sandbox);
        assert_eq!(run.record.cause, cause, "{run:?}");
        if cause.is_none() {
            assert_eq!(run.stdout(), "beta");
            assert_eq!(told.input_digests, [(0, all.clone()), (2, key.clone())].into());
        } else {
            assert_eq!((run.code, run.stdout().as_str()), (125, ""));
            let says = format!("input key: the ConfigMap has changed since the first attempt: {}", &all[..19]);
            assert!(run.record.detail.starts_with(&says), "{}", run.record.detail);
            assert!(run.record.detail.ends_with(&key[..19]), "{}", run.record.detail);
        }
    }
}

#[test]
fn as_many_config_maps_as_a_run_may_have_are_told_by_their_digests() {
    let inputs = (0..32).map(|n| input(&format!("map{n}"), InputSource::config_map("map", None))).collect();
    let sandbox = with_inputs(inputs);
    (0..32).for_each(|index| config_map(&sandbox, index));
    let (helper, runner) = start(&sandbox, &sh("printf '%05000d' 0; echo end >&2; exit 3"));
    assert_eq!(runner.finish().code, 3);
    helper.finish();
    let message = told(&sandbox);
    assert_eq!(message.input_digests.len(), 32, "{message:?}");
    assert!(message.stdout_tail.len() > 1500 && message.stderr_tail == "end\n", "{message:?}");
}

/// Files of a web server; what was asked for is counted.
#[derive(Clone, Default)]
struct Web {
    asked: Arc<AtomicU32>,
}

const BODY: &str = "contents of the file\n";

async fn answer(State(web): State<Web>, Path(file): Path<String>, headers: HeaderMap) -> axum::response::Response {
    let before = web.asked.fetch_add(1, Ordering::SeqCst);
    match file.as_str() {
        "flaky" if before == 0 => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        "slow" if before == 0 => {
            tokio::time::sleep(Duration::from_secs(1000)).await;
            BODY.into_response()
        }
        // Half of it, and then silence; the rest is for who has the half of this version.
        "halting" if before == 0 => {
            let half = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(&BODY.as_bytes()[..10]))]);
            let headers = [("etag", "\"1\"".to_owned()), ("content-length", BODY.len().to_string())];
            (headers, Body::from_stream(half.chain(stream::pending()))).into_response()
        }
        "halting" if headers["range"] == "bytes=10-" && headers["if-range"] == "\"1\"" => {
            let range = [("content-range", format!("bytes 10-{}/{}", BODY.len() - 1, BODY.len()))];
            (StatusCode::PARTIAL_CONTENT, range, &BODY[10..]).into_response()
        }
        "redeployed" if before == 0 => StatusCode::NOT_FOUND.into_response(),
        "redeployed" if before == 1 => StatusCode::FORBIDDEN.into_response(),
        "file" | "flaky" | "slow" | "redeployed" => BODY.into_response(),
        "denied" => StatusCode::FORBIDDEN.into_response(),
        "broken" => StatusCode::BAD_GATEWAY.into_response(),
        "large" => "x".repeat(100_000).into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

fn serve() -> (Web, SocketAddr) {
    let web = Web::default();
    let router = Router::new().route("/{file}", get(answer)).with_state(web.clone());
    (web, serve_all(router))
}

fn serve_all(router: Router) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async { axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await })
    });
    address
}

fn download(address: SocketAddr, file: &str, sha256: &str) -> RequestedInput {
    let href = format!("http://user:pass@{address}/{file}?signature=secret");
    input("file", InputSource::Url { href, sha256: sha256.to_owned() })
}

#[test]
fn a_download_is_there_when_the_command_begins_also_after_a_server_error() {
    for (file, asked) in [("file", 1), ("flaky", 2)] {
        let (web, address) = serve();
        let sandbox = with_inputs(vec![download(address, file, &sha256(BODY))]);
        let (helper, runner) = start(&sandbox, &sh("cat ../.bundlerun/inputs/0"));
        let run = runner.finish();
        helper.finish();
        assert_eq!((run.stdout().as_str(), run.code), (BODY, 0), "{run:?}");
        assert_eq!(web.asked.load(Ordering::SeqCst), asked);
    }
}

/// What cannot be had is waited for, but not for long.
fn impatient(request: &mut Request) {
    request.patience = InputPatience { refused_seconds: 1, silent_seconds: 1, absent_seconds: 1 };
}

#[test]
fn who_refuses_a_download_for_a_while_costs_time_and_no_attempt() {
    let (web, address) = serve();
    let sandbox = with_inputs(vec![download(address, "redeployed", &sha256(BODY))]);
    let (helper, runner) = start(&sandbox, &sh("cat ../.bundlerun/inputs/0"));
    await_that("words", || sandbox.paths.bin.join("awaited.json").exists());
    let run = runner.finish();
    helper.finish();
    assert_eq!((run.stdout().as_str(), run.code), (BODY, 0), "{run:?}");
    assert_eq!(web.asked.load(Ordering::SeqCst), 3);
    assert!(!sandbox.paths.bin.join("awaited.json").exists());
}

#[test]
fn a_download_that_cannot_be_had_has_its_cause() {
    for (file, sha256, cause, why) in [
        ("file", "0".repeat(64), Cause::InputInvalid, "its sha256 is "),
        ("none", sha256(BODY), Cause::InputNotFound, "the server answered 404 Not Found (http://127.0.0.1:"),
        ("denied", sha256(BODY), Cause::InputDenied, "the server answered 403 Forbidden"),
        ("broken", sha256(BODY), Cause::StagingFailed, "the server answered 502 Bad Gateway"),
        ("large", sha256(BODY), Cause::InputTooLarge, "larger than 50000 bytes"),
    ] {
        let (_web, address) = serve();
        let sandbox = with_inputs(vec![download(address, file, &sha256)]).disk(50_000).requesting(impatient);
        let (helper, runner) = start(&sandbox, &sh("echo never"));
        let run = runner.finish();
        helper.finish();
        let record = told(&sandbox).report.record.unwrap();
        assert_eq!((record.cause, run.code, run.stdout().as_str()), (Some(cause), 125, ""), "{record:?}");
        assert!(record.detail.contains(why), "{}", record.detail);
        assert!(!record.detail.contains("pass") && !record.detail.contains("secret"), "{}", record.detail);
    }
}

#[test]
fn staging_that_takes_too_long_ends_the_run_and_says_why() {
    let (_web, address) = serve();
    let sandbox = with_inputs(vec![download(address, "broken", &sha256(BODY))])
        .requesting(|request| request.staging_seconds = Some(3));
    let (helper, runner) = start(&sandbox, &sh("echo never"));
    let run = runner.finish();
    helper.finish();
    assert_eq!(run.record.cause, Some(Cause::StagingFailed));
    assert!(run.record.detail.starts_with("not in place after 3 s: "), "{}", run.record.detail);
    assert!(run.record.detail.contains("502 Bad Gateway"), "{}", run.record.detail);
}

#[test]
fn a_helper_that_is_killed_while_it_stages_goes_on() {
    let (web, address) = serve();
    let sandbox = with_inputs(vec![
        input("text", InputSource::Text("text".to_owned())),
        download(address, "slow", &sha256(BODY)),
        input("map", InputSource::config_map("map", None)),
    ]);
    config_map(&sandbox, 2);
    sandbox.write_request(&sh("cat ../.bundlerun/inputs/0 ../.bundlerun/inputs/1"));
    let helper = Process::start(&sandbox);
    let _ = helper::wait_prepared(&sandbox.paths);
    let runner = sandbox.start(&sh("cat ../.bundlerun/inputs/0 ../.bundlerun/inputs/1"));
    await_that("the download", || web.asked.load(Ordering::SeqCst) == 1);
    await_that("the copy", || sandbox.paths.bin.join("staged.2").exists());
    let inode = |index: &str| fs::metadata(sandbox.paths.inputs.join(index)).unwrap().ino();
    let before = ["0", "1", "2", "2/a.txt"].map(inode);
    let children = helper.children();
    assert_eq!(children.len(), 1, "the main process downloads nothing itself");
    helper.kill();
    await_that("the end of its child", || !is_alive(&children[0]));
    assert!(!sandbox.paths.bin.join("staged").exists());
    // What is mounted is not replaced, and what is in place is not copied again.
    fs::write(sandbox.paths.sources.join("2/..data/a.txt"), "changed meanwhile").unwrap();
    let helper = Process::start(&sandbox);
    let run = runner.finish();
    assert_eq!(run.stdout(), format!("text{BODY}"), "{run:?}");
    assert!(helper.finish());
    assert_eq!(["0", "1", "2", "2/a.txt"].map(inode), before);
    assert_eq!(fs::read_to_string(sandbox.paths.inputs.join("2/a.txt")).unwrap(), "alpha");
}

#[test]
fn a_download_goes_on_where_the_helper_was_killed() {
    let (web, address) = serve();
    let sandbox = with_inputs(vec![download(address, "halting", &sha256(BODY))]);
    let command = sh("cat ../.bundlerun/inputs/0");
    sandbox.write_request(&command);
    let helper = Process::start(&sandbox);
    let _ = helper::wait_prepared(&sandbox.paths);
    let runner = sandbox.start(&command);
    await_that("half of it", || fs::metadata(sandbox.paths.inputs.join("0")).unwrap().len() == 10);
    let children = helper.children();
    helper.kill();
    await_that("the end of its child", || !is_alive(&children[0]));
    let helper = Process::start(&sandbox);
    assert_eq!(runner.finish().stdout(), BODY);
    assert!(helper.finish());
    assert_eq!(web.asked.load(Ordering::SeqCst), 2);
}

#[test]
fn sigterm_ends_staging() {
    let (web, address) = serve();
    let sandbox = with_inputs(vec![download(address, "slow", &sha256(BODY))]);
    sandbox.write_request(&sh("echo never"));
    let helper = Helper::start(&sandbox);
    await_that("the download", || web.asked.load(Ordering::SeqCst) == 1);
    helper.stop();
    assert!(!sandbox.paths.bin.join("staged").exists());
}

#[test]
fn a_registry_that_does_not_answer_is_waited_for_within_one_attempt_and_is_no_fault_of_the_run() {
    // A registry that takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let reference = format!("{}/a:1", silent.local_addr().unwrap());
    // What a child before this one has seen says more than silence.
    for (before, says) in [
        (None, format!("input data: no answer yet from {}", silent.local_addr().unwrap())),
        (Some("503"), "503".to_owned()),
    ] {
        let source = InputSource::Image { reference: reference.clone(), path: None };
        let sandbox = with_inputs(vec![input("data", source)]).requesting(impatient);
        if let Some(before) = before {
            let before = format!(r#"{{"0":{{"problem":"NoAnswer","detail":"{before}"}}}}"#);
            fs::write(sandbox.paths.bin.join("awaited.json"), before).unwrap();
        }
        let (helper, runner) = start(&sandbox, &sh("echo never"));
        assert!(sandbox.paths.bundle.join("data").is_dir(), "the run container can start");
        assert!(sandbox.paths.inputs.join("0").is_dir());
        assert!(!sandbox.paths.bin.join("end").exists(), "it is waited for");
        let run = runner.finish();
        helper.finish();
        assert_eq!((run.record.cause, run.code), (Some(Cause::StagingFailed), 125));
        assert_eq!(run.record.detail, format!("{says}, for 1 s"));
    }
}

/// What is said of it is what was heard, before all tries of a request are over.
#[test]
fn a_registry_that_refuses_connections_is_not_called_silent() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let source = InputSource::Image { reference: format!("{closed}/a:1"), path: None };
    let sandbox = with_inputs(vec![input("data", source)]).requesting(impatient);
    let (helper, runner) = start(&sandbox, &sh("echo never"));
    let run = runner.finish();
    helper.finish();
    assert_eq!(run.record.cause, Some(Cause::StagingFailed));
    assert!(run.record.detail.contains("Connection refused"), "{}", run.record.detail);
}

/// An image that has a file `f`: its layer and its manifest.
fn image(text: &str) -> (Vec<u8>, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("f"), text).unwrap();
    image_of(dir.path())
}

fn image_of(dir: &std::path::Path) -> (Vec<u8>, Vec<u8>) {
    let tar = std::process::Command::new("tar").args(["-C", dir.to_str().unwrap(), "-c", "."]).output();
    let (layer, config) = (tar.unwrap().stdout, b"{}".to_vec());
    let descriptor = |blob: &[u8], kind: &str| {
        let digest = format!("sha256:{}", sha256(blob));
        json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": blob.len()})
    };
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor(&config, "config.v1+json"), "layers": [descriptor(&layer, "layer.v1.tar")]});
    (layer, manifest.to_string().into_bytes())
}

const MANIFEST: [(&str, &str); 1] = [("content-type", "application/vnd.oci.image.manifest.v1+json")];

/// A registry that is down until it is told to come back, with one image.
struct Registry {
    address: SocketAddr,
    is_up: Arc<AtomicBool>,
}

impl Registry {
    fn start() -> Self {
        Self::with(image(BODY))
    }

    fn with((layer, manifest): (Vec<u8>, Vec<u8>)) -> Self {
        let is_up = Arc::<AtomicBool>::default();
        let up = is_up.clone();
        let answer = move |uri: Uri| {
            let found = match uri.path() {
                _ if !up.load(Ordering::SeqCst) => Err(StatusCode::SERVICE_UNAVAILABLE),
                "/v2/" => Ok(vec![]),
                path if path.contains("/manifests/") => Ok(manifest.clone()),
                path if path.contains("/blobs/") => Ok(layer.clone()),
                _ => Err(StatusCode::NOT_FOUND),
            };
            async move { found.map_or_else(IntoResponse::into_response, |body| (MANIFEST, body).into_response()) }
        };
        Self { address: serve_all(Router::new().fallback(answer)), is_up }
    }

    fn with_input(&self, path: Option<&str>) -> Sandbox {
        let source = InputSource::Image { reference: format!("{}/a:1", self.address), path: path.map(str::to_owned) };
        let sandbox = with_inputs(vec![input("data", source)]);
        sandbox.requesting(|request| request.registries.insecure = vec![self.address.to_string()])
    }
}

#[test]
fn a_registry_that_comes_back_after_the_container_has_started_costs_no_attempt() {
    for (path, ends) in [(None, None), (Some("f"), Some(Cause::StagingFailed))] {
        let registry = Registry::start();
        let sandbox = registry.with_input(path);
        let (helper, runner) = start(&sandbox, &sh("cat ../.bundlerun/inputs/0/f"));
        await_that("words", || sandbox.paths.bin.join("awaited.json").exists());
        registry.is_up.store(true, Ordering::SeqCst);
        let run = runner.finish();
        helper.finish();
        assert_eq!(run.record.cause, ends, "{run:?}");
        if ends.is_none() {
            assert_eq!(run.stdout(), BODY, "{run:?}");
            let digests = told(&sandbox).input_digests;
            assert_eq!(digests.len(), 1, "what it was is on the record: {digests:?}");
        } else {
            // Its place is mounted as a directory.
            assert!(run.record.detail.starts_with("input data: it is a file"), "{}", run.record.detail);
        }
    }
}

/// An image may take longer to look through than the container's start can wait: an attempt that is told what the one before
/// has found out does not look.
#[test]
fn what_was_found_to_be_a_file_too_late_is_one_for_the_next_attempt() {
    let registry = Registry::start();
    let first = registry.with_input(Some("f"));
    let (helper, runner) = start(&first, &sh("echo never"));
    await_that("words", || first.paths.bin.join("awaited.json").exists());
    registry.is_up.store(true, Ordering::SeqCst);
    assert_eq!(runner.finish().record.cause, Some(Cause::StagingFailed));
    helper.finish();
    let found = told(&first);
    assert_eq!(found.report.late_files, [0].into());

    registry.is_up.store(false, Ordering::SeqCst);
    let second = registry.with_input(Some("f")).requesting(|request| {
        let reference = format!("{}/a@{}", registry.address, found.input_digests[&0]);
        request.inputs[0].source = InputSource::Image { reference, path: Some("f".to_owned()) };
        request.inputs[0].is_file = true;
    });
    let (helper, runner) = start(&second, &sh("cat ../.bundlerun/inputs/0"));
    assert!(second.paths.inputs.join("0").is_file(), "nobody was asked, and nobody answers");
    registry.is_up.store(true, Ordering::SeqCst);
    let run = runner.finish();
    helper.finish();
    assert_eq!((run.record.cause, run.stdout().as_str()), (None, BODY), "{run:?}");
    assert_eq!(told(&second).report.late_files, [].into());
}

/// A file system of a few bytes that others have filled; gone with the value.
struct Full<'a>(&'a std::path::Path);

impl<'a> Full<'a> {
    fn on(at: &'a std::path::Path) -> Self {
        fs::create_dir_all(at).unwrap();
        let mount = ["-t", "tmpfs", "-o", "size=64k", "tmpfs", at.to_str().unwrap()];
        assert!(std::process::Command::new("mount").args(mount).status().unwrap().success());
        let full = Self(at);
        let error = fs::write(at.join("of-others"), vec![0; 1 << 17]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        full
    }
}

impl Drop for Full<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0).status();
    }
}

/// What the run may put there is counted: it was not the run that filled it, and another node has room. Nobody waits for this
/// one.
#[test]
fn a_disk_that_others_have_filled_ends_the_attempt_at_once() {
    let registry = Registry::start();
    registry.is_up.store(true, Ordering::SeqCst);
    let (_web, address) = serve();
    let image = InputSource::Image { reference: format!("{}/a:1", registry.address), path: None };
    for input in [
        download(address, "file", &sha256(BODY)),
        input("data", image),
        input("map", InputSource::config_map("map", None)),
    ] {
        let path = input.path.clone();
        let sandbox = with_inputs(vec![input])
            .requesting(|request| request.registries.insecure = vec![registry.address.to_string()]);
        config_map(&sandbox, 0);
        let full = Full::on(&sandbox.paths.inputs);
        let (helper, runner) = start(&sandbox, &sh("echo never"));
        let run = runner.finish();
        helper.finish();
        drop(full);
        let record = told(&sandbox).report.record.unwrap();
        assert_eq!((record.cause, run.code), (Some(Cause::StagingFailed), 125), "{record:?}");
        assert!(record.detail.starts_with(&format!("input {path}: the disk of the node is full")), "{}", record.detail);
    }
}

/// Each takes something of a disk, however small it is.
#[test]
fn an_input_of_too_many_files_is_refused_with_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..200 {
        fs::write(dir.path().join(n.to_string()), "").unwrap();
    }
    for (disk, says) in [(100 * 512, Some("more than 100 files, directories and links")), (201 * 512, None)] {
        let registry = Registry::with(image_of(dir.path()));
        registry.is_up.store(true, Ordering::SeqCst);
        let sandbox = registry.with_input(None).disk(disk);
        let (helper, runner) = start(&sandbox, &sh("set -- ../.bundlerun/inputs/0/*; echo $#"));
        let run = runner.finish();
        helper.finish();
        match says {
            Some(says) => {
                assert_eq!(run.record.cause, Some(Cause::InputTooLarge), "{run:?}");
                assert_eq!(run.record.detail, format!("input data: {says}"));
            }
            None => assert_eq!(run.stdout(), "200\n", "{run:?}"),
        }
    }
}

/// A repository with what was tagged in it.
struct Tags {
    address: SocketAddr,
    /// Blobs and manifests, by their names.
    known: Arc<Mutex<HashMap<String, Vec<u8>>>>,
}

impl Tags {
    fn serve() -> Self {
        let known = Arc::<Mutex<HashMap<String, Vec<u8>>>>::default();
        let of = known.clone();
        let address = serve_all(Router::new().fallback(move |method: Method, uri: Uri, body: Bytes| {
            let name = uri.path().rsplit('/').next().unwrap_or_default().to_owned();
            let mut known = of.lock().unwrap();
            let answer = match (method, known.get(&name)) {
                (Method::PUT, _) => {
                    known.insert(name, body.to_vec());
                    StatusCode::CREATED.into_response()
                }
                (_, Some(found)) => (MANIFEST, found.clone()).into_response(),
                (_, None) => StatusCode::NOT_FOUND.into_response(),
            };
            async move { answer }
        }));
        Self { address, known }
    }

    fn tag(&self, tag: &str, text: &str) -> String {
        let (layer, manifest) = image(text);
        let digest = format!("sha256:{}", sha256(&manifest));
        let mut known = self.known.lock().unwrap();
        known.insert(format!("sha256:{}", sha256(&layer)), layer);
        known.insert(digest.clone(), manifest.clone());
        known.insert(tag.to_owned(), manifest);
        digest
    }

    /// An attempt of a run that has a snapshot of `train` as its input.
    fn attempt(&self, child: &str, ended: bool) -> Sandbox {
        let source = InputSource::Snapshot(SnapshotInput {
            repository: format!("{}/bundles/n", self.address),
            run: "train".to_owned(),
            run_uid: "12345678-9".to_owned(),
            of: SnapshotPin { attempts: 3, ended },
            tag: format!("{child}.87654321.0.i"),
            path: None,
        });
        let sandbox = with_inputs(vec![input("data", source)]);
        sandbox.requesting(|request| request.registries.insecure = vec![self.address.to_string()])
    }
}

#[test]
fn a_snapshot_is_waited_for_and_is_the_same_for_all_attempts() {
    let tags = Tags::serve();
    let command = sh("cat ../.bundlerun/inputs/0/f");
    let first = tags.attempt("child", false);
    let (helper, runner) = start(&first, &command);
    let mut words = String::new();
    await_that("words", || {
        words = fs::read_to_string(first.paths.bin.join("awaited.json")).unwrap_or_default();
        !words.is_empty()
    });
    assert!(words.contains("NoSnapshot") && words.contains("input data: run train has no snapshot yet"), "{words}");
    let digest = tags.tag("train.1.12345678.s", "first");
    let run = runner.finish();
    helper.finish();
    assert_eq!(run.stdout(), "first", "{run:?}");
    assert_eq!(told(&first).input_digests.get(&0), Some(&digest));

    // Nothing is known of the attempt before but its tag. Of attempts that have a snapshot, the newest counts.
    let newer = tags.tag("train.2.12345678.s", "second");
    for (child, text, digest) in [("child", "first", digest), ("other", "second", newer)] {
        let sandbox = tags.attempt(child, true);
        let (helper, runner) = start(&sandbox, &command);
        let run = runner.finish();
        helper.finish();
        assert_eq!(run.stdout(), text, "{run:?}");
        assert_eq!(told(&sandbox).input_digests.get(&0), Some(&digest));
    }
}

#[test]
fn a_run_that_has_ended_without_a_snapshot_is_not_waited_for() {
    let sandbox = Tags::serve().attempt("child", true);
    let (helper, runner) = start(&sandbox, &sh("echo never"));
    let run = runner.finish();
    helper.finish();
    assert_eq!(run.record.cause, Some(Cause::InputNotFound), "{run:?}");
    assert!(run.record.detail.starts_with("input data: run train has ended"), "{}", run.record.detail);
}

/// Its end is told to a helper that waits already. What was kept before the end is there, whoever hears of what first.
#[test]
fn who_waits_for_a_snapshot_hears_that_its_run_has_ended() {
    let tags = Tags::serve();
    for kept in [None, Some("last")] {
        let sandbox = tags.attempt(kept.unwrap_or("none"), false);
        let (helper, runner) = start(&sandbox, &sh("cat ../.bundlerun/inputs/0/f"));
        await_that("words", || fs::exists(sandbox.paths.bin.join("awaited.json")).unwrap());
        if let Some(text) = kept {
            // Of an attempt that began later than the pod was made.
            tags.tag("train.4.12345678.s", text);
        }
        let told = r#"{"another": {"attempts": 2}, "12345678-9": {"attempts": 4, "ended": true}}"#;
        fs::write(sandbox.paths.request.join("awaited-runs.json"), told).unwrap();
        let run = runner.finish();
        helper.finish();
        match kept {
            None => {
                assert_eq!(run.record.cause, Some(Cause::InputNotFound), "{run:?}");
                assert!(run.record.detail.contains("run train has ended and has no snapshot"), "{run:?}");
            }
            Some(text) => assert_eq!(run.stdout(), text, "{run:?}"),
        }
    }
}

/// As `sha256sum` tells it.
fn sha256(text: impl AsRef<[u8]>) -> String {
    let digest = sha2::Sha256::digest(text);
    digest.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
