//! Proxies on the way to registries, as the environment names them. The environment is a process's: what is tried runs in
//! another.

use crate::common::*;
use crate::proxy::{Seen, forward};
use crate::registry::make_certificate;
use axum::extract::{Request, State};
use bundlerun::bundle::Access;
use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What the other process is told: a repository, and the file with the authority of its registry.
const REPOSITORY: &str = "BUNDLE_TEST_REPOSITORY";
const AUTHORITY: &str = "BUNDLE_TEST_AUTHORITY";

/// Saves a tree and fetches it, for the tests below.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "is a process of other tests"]
async fn there_and_back() {
    let repository = env::var(REPOSITORY).unwrap();
    let host = repository.split('/').next().unwrap();
    let mut access = access(host);
    if let Some(authority) = env::var_os(AUTHORITY) {
        access = Access::default();
        access.registries.ca = Some(fs::read_to_string(authority).unwrap());
    }
    let (dir, place) = (tempfile::tempdir().unwrap(), Place::new());
    script("sh", dir.path(), "mkdir d; echo file >d/file");
    let saved = save(&tree(dir.path()), &repository, "t", &access).await;
    fetch(&format!("{repository}@{}", saved.digest), None, &place.dir, &access).await.unwrap();
    assert_eq!(describe("tree", &place.dir), describe("tree", dir.path()));
}

/// Runs [`there_and_back`] with this environment and no proxy beside those in it.
fn go(repository: &str, variables: &[(&str, &str)]) {
    let mut child = alone("egress::there_and_back");
    child.env(REPOSITORY, repository);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        child.env_remove(name).env_remove(name.to_lowercase());
    }
    passes(child.envs(variables.iter().copied()));
}

#[test]
fn without_tls_a_proxy_is_asked_for_whole_urls() {
    let registry = Registry::start();
    let guard = |State(seen): State<Arc<Seen>>, mut request: Request| async move {
        assert_eq!(request.uri().host(), Some("registry.invalid"), "a proxy is asked for whole URLs");
        *request.uri_mut() = request.uri().path_and_query().unwrap().as_str().parse().unwrap();
        forward(State(seen), request).await
    };
    let seen = Seen::of(&registry.host, |_, _, _| Fault::None);
    let proxy = Proxy::start("127.0.0.1", seen, |router| router.fallback(guard));
    let variables = [("HTTP_PROXY", &*format!("http://{}", proxy.host)), ("NO_PROXY", "other.invalid")];
    go("registry.invalid:5000/a", &variables);
    assert!(!proxy.seen.log.lock().unwrap().is_empty());
}

/// A proxy that connects who asks with one registry, whatever they ask for.
struct Tunnel {
    address: SocketAddr,
    /// What it was asked, with the headers.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Tunnel {
    fn start(registry: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, asked, registry) = (listener.local_addr().unwrap(), Arc::default(), registry.to_owned());
        let log: Arc<Mutex<Vec<String>>> = Arc::clone(&asked);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (log, registry) = (log.clone(), registry.clone());
                thread::spawn(move || connect(client?, &registry, &log));
            }
        });
        Self { address, asked }
    }
}

fn connect(mut client: TcpStream, registry: &str, log: &Mutex<Vec<String>>) -> io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.extend(byte);
    }
    log.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
    let mut registry = TcpStream::connect(registry)?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut from, mut to) = (client.try_clone()?, registry.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    io::copy(&mut registry, &mut client)?;
    client.shutdown(Shutdown::Write)
}

/// With TLS the proxy sees where the registry is, and nothing else; and who asks, if it wants to know.
#[test]
fn with_tls_a_proxy_is_asked_for_a_connection() {
    // An address of which nothing is reached but through the proxy.
    const ELSEWHERE: &str = "203.0.113.1";
    let certificates = tempfile::tempdir().unwrap();
    make_certificate(certificates.path(), "registry", ELSEWHERE);
    let at = |name: &str| certificates.path().join(name).to_str().unwrap().to_owned();
    let tls = format!("  tls: {{certificate: {}, key: {}}}\n", at("registry.pem"), at("registry.key"));
    let registry = Registry::start_with(&tls);
    let tunnel = Tunnel::start(&registry.host);
    let proxy = format!("http://user:secret@{}", tunnel.address);
    let host = format!("{ELSEWHERE}:5000");
    go(&format!("{host}/a"), &[("HTTPS_PROXY", &proxy), (AUTHORITY, &at("registry.ca"))]);
    let asked = tunnel.asked.lock().unwrap();
    assert!(!asked.is_empty());
    for head in &*asked {
        assert!(head.starts_with(&format!("CONNECT {host} HTTP/1.1\r\n")), "{head}");
        // `user:secret` in base64.
        assert!(head.to_lowercase().contains("proxy-authorization: basic dxnlcjpzzwnyzxq="), "{head}");
    }
}

#[test]
fn who_needs_no_proxy_is_spoken_to_without_one() {
    let registry = Registry::start();
    let tunnel = Tunnel::start(&registry.host);
    let proxy = format!("http://{}", tunnel.address);
    for without in ["127.0.0.1", "10.0.0.0/8, 127.0.0.0/8"] {
        let variables = [("HTTP_PROXY", &*proxy), ("HTTPS_PROXY", &*proxy), ("NO_PROXY", without)];
        go(&registry.repository("a"), &variables);
        assert!(tunnel.asked.lock().unwrap().is_empty(), "{without}: {:?}", tunnel.asked);
    }
}
