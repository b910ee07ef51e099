//! Inputs that cannot be had: the object says so within a minute, and no GPU is held for hours.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use bundlerun::api::BundleRunStatus;
use bundlerun::api::status::Blame;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::audit::{self, text};
use crate::common::{Space, cause, stdout, together};
use crate::node;

const BODY: &str = "contents\n";
/// Of [`BODY`].
const SHA256: &str = "bfe5ed57e6e323555b379c660aa8d35b70c2f8f07cf03ad6747266495ac13be0";

fn with_input(source: Value) -> Value {
    let mut input = source;
    input["path"] = json!("data");
    json!({"command": "cat data", "inputs": [input]})
}

fn download(href: &str, sha256: &str) -> Value {
    with_input(json!({"url": {"href": href, "sha256": sha256}}))
}

/// An address of this machine where nobody listens now.
pub fn free_address() -> String {
    let listener = TcpListener::bind((node::link_address(), 0)).unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Answers every request with [`BODY`].
fn serve(address: &str) {
    let listener = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let _ = connection.read(&mut [0; 4096]);
            let answer =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{BODY}", BODY.len());
            let _ = connection.write_all(answer.as_bytes());
        }
    });
}

/// How often the operator has written a run's status since then. The log has a request after its watchers have it.
fn writes(space: &Space, run: &str, since: Timestamp) -> usize {
    let of_run = |event: &Value| {
        text(event, "/objectRef/namespace") == space.name
            && text(event, "/objectRef/name") == run
            && text(event, "/objectRef/subresource") == "status"
            && audit::received(event) > since
    };
    audit::of_operator(of_run).len()
}

async fn told(space: &Space, run: &str, reason: &str, words: &[&str]) -> BundleRunStatus {
    let is_told = |s: &BundleRunStatus| s.waiting.as_ref().is_some_and(|w| w.reason.as_deref() == Some(reason));
    let status = space.until(run, &format!("to wait as {reason}"), is_told).await;
    let waiting = status.waiting.as_ref().unwrap();
    let message = waiting.message.as_deref().unwrap();
    println!("{run}: {message}; until {}", waiting.until.as_deref().unwrap());
    assert!(words.iter().all(|word| message.contains(word)), "{words:?}: {status:#?}");
    assert!(!message.contains("secret"), "{message}");
    assert_eq!((waiting.stage.as_deref(), status.attempt), (Some("Staging"), Some(1)), "{status:#?}");
    assert!(waiting.hint.is_some() && waiting.since.is_some() && waiting.deadline.is_some(), "{status:#?}");
    status
}

#[tokio::test]
async fn who_refuses_an_input_for_two_minutes_ends_the_run_and_the_object_says_so_before() {
    let space = Space::waiting().await;
    let registry = std::env::var("REGISTRY_HOST").unwrap();
    let zeros = "0".repeat(64);
    let cases = [
        ("missing", download(&format!("http://u:secret@{registry}/none?secret"), &zeros), "InputNotFound", "404"),
        ("unknown", download("https://no-such-host.invalid/f", &zeros), "InputUnreachable", "there is no host"),
        ("no-tls", download(&format!("https://{registry}/f"), &zeros), "InputUnreachable", "it speaks no TLS"),
        (
            "no-image",
            with_input(json!({"image": {"reference": format!("{registry}/no/such:1")}})),
            "InputNotFound",
            "no/such",
        ),
    ];
    together(cases.into_iter().map(async |(name, spec, reason, word)| {
        space.start(name, spec).await;
        let status = told(&space, name, reason, &["input data: ", word]).await;
        let until = status.waiting.unwrap().until.unwrap();
        assert_eq!(until, format!("2 minutes, then the run ends: {reason}"));
        let ended = space.end_of(name).await;
        let result = ended.result.as_ref().unwrap();
        assert_eq!((cause(&ended), result.blame, ended.attempts.len()), (reason, Some(Blame::User), 1), "{ended:#?}");
        assert!(ended.message.as_deref().unwrap().contains(", for 120 s"), "{ended:#?}");
        assert!(result.hint.is_some());
        let writes = writes(&space, name, Timestamp::UNIX_EPOCH);
        println!("{name}: {writes} status writes");
        assert!(writes <= 5, "{writes}");
    }))
    .await;
    space.end().await;
}

#[tokio::test]
async fn a_server_that_comes_back_lets_the_same_attempt_go_on() {
    let space = Space::waiting().await;
    let (file, image) = (free_address(), free_address());
    space.start("file", download(&format!("http://u:secret@{file}/f?secret"), SHA256)).await;
    space.start("image", with_input(json!({"image": {"reference": format!("{image}/a:1")}}))).await;
    let address = format!("http://{file}/f");
    let refused =
        [("file", ["Connection refused", address.as_str()]), ("image", ["Connection refused", image.as_str()])];
    together(refused.into_iter().map(async |(name, words)| {
        let status = told(&space, name, "InputNoAnswer", &words).await;
        let until = status.waiting.unwrap().until.unwrap();
        assert_eq!(until, "10 minutes without an answer, then the attempt ends: StagingFailed");
    }))
    .await;
    let told = Timestamp::now();
    tokio::time::sleep(Duration::from_mins(1)).await; // the span in which nothing may be written
    for name in ["file", "image"] {
        let status = space.runs().get(name).await.unwrap().status.unwrap();
        assert_eq!((status.attempt, status.reason.as_deref()), (Some(1), Some("InputNoAnswer")), "{status:#?}");
        assert_eq!(writes(&space, name, told), 0, "{name}: what is told is told");
    }
    serve(&file);
    let ended = space.end_of("file").await;
    assert_eq!((cause(&ended), stdout(&ended), ended.attempts.len()), ("Completed", BODY, 1), "{ended:#?}");
    space.stop("image").await;
    let ended = space.end_of("image").await;
    assert_eq!((cause(&ended), ended.attempts.len()), ("Stopped", 1), "{ended:#?}");
    space.end().await;
}
