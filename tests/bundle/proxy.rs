//! A proxy before a registry, which makes the registry fail, lie, or go away.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

use crate::registry::free_port;

/// What a proxy does to an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    None,
    Status(u16),
    /// The connection ends in the middle of the body.
    Reset,
    /// The connection ends without an answer.
    Closed,
    /// One byte is another.
    Altered,
    /// It has one byte less, as is said of it where nobody asks for the content.
    #[allow(dead_code)] // not every test binary has a store that loses bytes
    Shorter,
    /// The whole body, though a part was asked for.
    NoRange,
    /// Nothing moves after the first piece of the request's body.
    HoldRequest,
    /// The registry has done it, but nobody hears of it.
    HoldAnswer,
    /// The answer is that of a slow store: it comes after 200 ms.
    #[allow(dead_code)] // not every test binary has a slow one
    Late,
    /// The request goes on when the test says so: [`Seen::let_one_go`].
    #[allow(dead_code)] // not every test binary holds one back
    HoldBack,
    /// The connection ends after so many bytes of the request's body, which the registry gets.
    #[allow(dead_code)] // not every test binary cuts
    CutRequest(u64),
}

type Rule = dyn Fn(&Method, &str, u64) -> Fault + Send + Sync;

/// A registry behind a proxy that follows a rule: of the method, the path, and the bytes of the body.
pub(crate) struct Proxy {
    pub(crate) host: String,
    pub(crate) seen: Arc<Seen>,
    app: Router,
    /// Its own, so that nothing of it goes on when it is stopped.
    runtime: Option<Runtime>,
}

/// What came by.
pub(crate) struct Seen {
    upstream: String,
    rule: Box<Rule>,
    pub(crate) bytes: AtomicU64,
    /// Of the bodies of requests.
    pub(crate) sent: AtomicU64,
    /// Paths of requests that were held.
    pub(crate) held: Mutex<Vec<String>>,
    let_go: Semaphore,
    pub(crate) log: Mutex<Vec<String>>,
}

impl Seen {
    pub(crate) fn of(upstream: &str, rule: impl Fn(&Method, &str, u64) -> Fault + Send + Sync + 'static) -> Arc<Self> {
        let (bytes, sent) = Default::default();
        Arc::new(Self {
            upstream: upstream.to_owned(),
            rule: Box::new(rule),
            bytes,
            sent,
            held: Mutex::default(),
            let_go: Semaphore::const_new(0),
            log: Mutex::default(),
        })
    }

    /// Lets one request go on that is held back.
    #[allow(dead_code)] // see `Fault::HoldBack`
    pub(crate) fn let_one_go(&self) {
        self.let_go.add_permits(1);
    }
}

impl Proxy {
    pub(crate) fn before(
        address: &str,
        upstream: &str,
        rule: impl Fn(&Method, &str, u64) -> Fault + Send + Sync + 'static,
    ) -> Self {
        Self::start(address, Seen::of(upstream, rule), |router| router.fallback(forward))
    }

    /// At an address of this machine; `routes` are its answers.
    pub(crate) fn start(
        address: &str,
        seen: Arc<Seen>,
        routes: impl FnOnce(Router<Arc<Seen>>) -> Router<Arc<Seen>>,
    ) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let host = format!("{address}:{}", free_port(address));
        let app = routes(Router::new()).with_state(seen.clone());
        let mut proxy = Self { host, seen, app, runtime: None };
        proxy.go_on();
        proxy
    }

    /// Takes connections, again.
    pub(crate) fn go_on(&mut self) {
        let listener = std::net::TcpListener::bind(&self.host).unwrap();
        listener.set_nonblocking(true).unwrap();
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let app = self.app.clone();
        runtime.spawn(async move {
            axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), app).await.unwrap();
        });
        self.runtime = Some(runtime);
    }

    /// Ends all connections, and refuses more.
    pub(crate) fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    pub(crate) fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) async fn forward(State(seen): State<Arc<Seen>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let length = header("content-length").parse().unwrap_or_default();
    let fault = (seen.rule)(&parts.method, parts.uri.path(), length);
    let range = [header("range"), header("content-range")].concat();
    seen.log.lock().unwrap().push(format!("{} {} {range} {fault:?}", parts.method, parts.uri));
    if let Fault::Status(status) = fault {
        return (StatusCode::from_u16(status).unwrap(), [("retry-after", "0")], "fault").into_response();
    }
    if fault == Fault::Closed {
        // The one way to end a connection from within an answer to it; nothing is printed.
        std::panic::resume_unwind(Box::new("closed"));
    }
    if fault == Fault::HoldRequest {
        body.into_data_stream().next().await;
        return hold(&seen, parts.uri.path()).await;
    }
    if fault == Fault::HoldBack {
        seen.held.lock().unwrap().push(parts.uri.path().to_owned());
        seen.let_go.acquire().await.unwrap().forget();
    }
    let url = format!("http://{}{}", seen.upstream, parts.uri);
    let mut headers = parts.headers;
    if fault == Fault::NoRange {
        headers.remove("range");
    }
    let client = reqwest::Client::new();
    if let Fault::CutRequest(bytes) = fault {
        let cut = first_bytes(seen.clone(), body, bytes);
        let _ = client.request(parts.method, url).headers(headers).body(reqwest::Body::wrap_stream(cut)).send().await;
        std::panic::resume_unwind(Box::new("cut"));
    }
    // A body that breaks off ends here: the registry would wait for the rest of what its headers promise.
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    seen.sent.fetch_add(body.len() as u64, Ordering::Relaxed);
    let Ok(answer) = client.request(parts.method.clone(), url).headers(headers).body(body).send().await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        response = response.header(name, value);
    }
    if parts.method == Method::HEAD {
        let mut response = response.body(Body::empty()).unwrap();
        if let (Fault::Shorter, Some(length)) = (fault, response.headers_mut().get_mut("content-length")) {
            let bytes: u64 = length.to_str().unwrap().parse().unwrap();
            *length = (bytes - 1).into();
        }
        return response;
    }
    let mut bytes = answer.bytes().await.unwrap_or_default().to_vec();
    seen.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    let middle = bytes.len() / 2;
    match fault {
        Fault::Altered if !bytes.is_empty() => bytes[middle] ^= 1,
        Fault::HoldAnswer => return hold(&seen, parts.uri.path()).await,
        Fault::Late => tokio::time::sleep(Duration::from_millis(200)).await,
        Fault::Reset => {
            bytes.truncate(middle);
            let broken = futures::stream::iter([Ok(bytes), Err(std::io::Error::other("reset"))]);
            // So that the first half is not held back.
            let slow = broken.then(|piece| async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                piece
            });
            return response.body(Body::from_stream(slow)).unwrap();
        }
        _ => {}
    }
    response.body(Body::from(bytes)).unwrap()
}

/// The first bytes of a body, and then an error.
fn first_bytes(
    seen: Arc<Seen>,
    body: Body,
    bytes: u64,
) -> impl futures::Stream<Item = Result<axum::body::Bytes, std::io::Error>> + Send {
    let cut = (seen, body.into_data_stream(), bytes);
    futures::stream::unfold(cut, |(seen, mut body, left)| async move {
        let broken = || Err(std::io::Error::other("cut"));
        if left == 0 {
            // So that what was sent before is not held back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            return Some((broken(), (seen, body, left)));
        }
        let Some(Ok(mut piece)) = body.next().await else { return Some((broken(), (seen, body, 0))) };
        seen.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        let left = left - piece.len() as u64;
        Some((Ok(piece), (seen, body, left)))
    })
}

async fn hold(seen: &Seen, path: &str) -> Response {
    seen.held.lock().unwrap().push(path.to_owned());
    std::future::pending().await
}
