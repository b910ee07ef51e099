//! What can go wrong between the operator and the API server, made to happen: for tests alone. With it a test numbers the
//! requests of an operator and chooses one to go wrong: the process dies, the answer is lost, a watch falls silent.
//!
//! Release builds refuse the feature that this file hangs on.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, pending};
use http::{Method, Request, Response};
use http_body::{Body as HttpBody, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use kube::client::Body;
use serde_json::json;
use tokio::sync::watch;
use tower::{BoxError, Layer, Service};

#[cfg(not(debug_assertions))]
compile_error!("the feature `faults` is for tests: a release build must not have it");

/// A request, before it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What is asked: `create pods`, `patch bundleruns/status`, `watch nodes`.
    pub kind: String,
    /// It is the first of its kind, the second and so on: requests of several kinds come in any order.
    pub nth: usize,
    /// Of the API server.
    pub path: String,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process dies; the API server hears nothing.
    CutBefore,
    /// The process dies; the API server has done what was asked.
    CutAfter,
    /// The API server has done what was asked, and the connection breaks before the answer.
    Lost,
    /// The API server answers with this code and does nothing.
    Refused(u16),
    /// The API server has done what was asked, and answers with this code.
    DoneAndRefused(u16),
    /// It is sent after this.
    Delayed(Duration),
    /// It is never answered, and never arrives.
    BlackHole,
    /// The list is the first one that was answered to such a question, however old that is.
    StaleList,
    /// Something becomes of the answer to a watch.
    Watch(WatchFault),
}

/// What becomes of a watch. Numbers are those of its events, from 1; 0 is its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchFault {
    /// The connection ends after so many events.
    Ends(usize),
    /// Nothing comes any more after so many events, and the connection stays.
    Stalls(usize),
    /// After so many events the API server says that the version is too old.
    Expires(usize),
    /// This event comes twice.
    Twice(usize),
    /// This event comes after the next one.
    Late(usize),
}

/// Decides what becomes of a request.
type Chosen = dyn Fn(&Asked) -> Option<Fault> + Send + Sync;

/// A layer of a client that lets chosen requests go wrong. All that has been cloned from one counts together.
#[derive(Clone)]
pub struct Faults(Arc<State>);

struct State {
    chosen: Box<Chosen>,
    asked: Mutex<Vec<Asked>>,
    lists: Mutex<HashMap<String, Bytes>>,
    is_cut: watch::Sender<bool>,
}

impl Default for Faults {
    /// Nothing goes wrong.
    fn default() -> Self {
        Self::new(|_| None)
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Faults").field(&*self.is_cut()).finish()
    }
}

impl Faults {
    /// The requests for which `chosen` has a fault go wrong.
    pub fn new(chosen: impl Fn(&Asked) -> Option<Fault> + Send + Sync + 'static) -> Self {
        let (asked, lists, is_cut) = Default::default();
        Self(Arc::new(State { chosen: Box::new(chosen), asked, lists, is_cut }))
    }

    /// All requests until now, in their order.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        locked(&self.0.asked).clone()
    }

    /// Resolves when the process is to die. Until it has, no request leaves it.
    pub async fn cut(&self) {
        let _ = self.0.is_cut.subscribe().wait_for(|cut| *cut).await; // fails only without a sender, and we have one
    }

    fn is_cut(&self) -> watch::Ref<'_, bool> {
        self.0.is_cut.borrow()
    }

    fn note(&self, method: &Method, uri: &http::Uri) -> Asked {
        let kind = kind(method, uri.path(), uri.query().unwrap_or_default());
        let mut asked = locked(&self.0.asked);
        let nth = asked.iter().filter(|before| before.kind == kind).count() + 1;
        let this = Asked { kind, nth, path: uri.path().to_owned() };
        asked.push(this.clone());
        this
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `create pods`, `patch bundleruns/status`, `watch nodes`.
fn kind(method: &Method, path: &str, query: &str) -> String {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    match parts.next() {
        Some("api") => drop(parts.next()),
        Some("apis") => drop(parts.nth(1)),
        _ => return format!("get {path}"),
    }
    let rest: Vec<_> = parts.collect();
    let rest = match rest.as_slice() {
        ["namespaces", _, rest @ ..] if !rest.is_empty() => rest,
        rest => rest,
    };
    let (resource, is_named, subresource) = match rest {
        [resource] => (*resource, false, None),
        [resource, _, subresource, ..] => (*resource, true, Some(*subresource)),
        [resource, ..] => (*resource, true, None),
        [] => ("", false, None),
    };
    let verb = match *method {
        Method::GET if query.contains("watch=") => "watch",
        Method::GET if is_named => "get",
        Method::GET => "list",
        Method::POST => "create",
        Method::PUT => "replace",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "ask for",
    };
    let slash = subresource.map(|subresource| format!("/{subresource}")).unwrap_or_default();
    format!("{verb} {resource}{slash}")
}

/// What the API server says, or a test in its place.
type Said = UnsyncBoxBody<Bytes, BoxError>;

fn said(bytes: impl Into<Bytes>) -> Said {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

impl<S> Layer<S> for Faults {
    type Service = Faulty<S>;

    fn layer(&self, inner: S) -> Faulty<S> {
        Faulty { inner, faults: self.clone() }
    }
}

/// A client's service behind [`Faults`].
pub struct Faulty<S> {
    inner: S,
    faults: Faults,
}

impl<S, B> Service<Request<Body>> for Faulty<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError> + 'static,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Said>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Said>, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if *self.faults.is_cut() {
            return pending().boxed();
        }
        let asked = self.faults.note(request.method(), request.uri());
        let fault = (self.faults.0.chosen)(&asked);
        let faults = self.faults.clone();
        match fault {
            Some(Fault::CutBefore) => {
                faults.0.is_cut.send_replace(true);
                return pending().boxed();
            }
            Some(Fault::BlackHole) => return pending().boxed(),
            Some(Fault::Refused(code)) => return async move { refusal(code) }.boxed(),
            _ => {}
        }
        let answer = self.inner.call(request);
        async move {
            if let Some(Fault::Delayed(delay)) = fault {
                tokio::time::sleep(delay).await;
            }
            let answer = answer.await.map_err(Into::into)?;
            match fault {
                Some(Fault::CutAfter) => {
                    faults.0.is_cut.send_replace(true);
                    pending().await
                }
                Some(Fault::Lost) => Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()),
                Some(Fault::DoneAndRefused(code)) => refusal(code),
                Some(Fault::Watch(fault)) => Ok(answer.map(|body| Watched::new(body, fault).boxed_unsync())),
                _ if asked.kind.starts_with("list ") => faults.list(&asked, answer, fault).await,
                _ => Ok(answer.map(|body| body.map_err(Into::into).boxed_unsync())),
            }
        }
        .boxed()
    }
}

impl Faults {
    /// The answer to a list, or that to the first one.
    async fn list<B>(
        &self,
        asked: &Asked,
        answer: Response<B>,
        fault: Option<Fault>,
    ) -> Result<Response<Said>, BoxError>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(Into::into)?.to_bytes();
        let first = locked(&self.0.lists).entry(asked.path.clone()).or_insert_with(|| body.clone()).clone();
        let body = if fault == Some(Fault::StaleList) { first } else { body };
        Ok(Response::from_parts(head, said(body)))
    }
}

/// What the API server says with a code.
fn refusal(code: u16) -> Result<Response<Said>, BoxError> {
    let reason = match code {
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    };
    let status = status(code, reason).to_string().into_bytes();
    Ok(Response::builder().status(code).header("content-type", "application/json").body(said(status))?)
}

fn status(code: u16, reason: &str) -> serde_json::Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
        "message": "made by a test"})
}

/// The answer to a watch, of which something becomes.
struct Watched<B> {
    inner: Pin<Box<B>>,
    fault: WatchFault,
    /// Of an event that has not come whole.
    partial: Vec<u8>,
    ready: VecDeque<Bytes>,
    /// It comes after the next one.
    late: Option<Bytes>,
    events: usize,
}

impl<B> Watched<B> {
    fn new(inner: B, fault: WatchFault) -> Self {
        Self { inner: Box::pin(inner), fault, partial: vec![], ready: VecDeque::new(), late: None, events: 0 }
    }

    fn take(&mut self, data: &[u8]) {
        self.partial.extend_from_slice(data);
        while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
            let event = Bytes::from(self.partial.drain(..=end).collect::<Vec<_>>());
            self.events += 1;
            let events = self.events;
            match self.fault {
                WatchFault::Ends(after) | WatchFault::Stalls(after) | WatchFault::Expires(after) if events > after => {}
                WatchFault::Twice(which) if which == events => self.ready.extend([event.clone(), event]),
                WatchFault::Late(which) if which == events => self.late = Some(event),
                _ => {
                    self.ready.push_back(event);
                    self.ready.extend(self.late.take());
                }
            }
        }
    }
}

impl<B> HttpBody for Watched<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(event))));
            }
            match self.fault {
                WatchFault::Ends(after) if self.events >= after => return Poll::Ready(None),
                WatchFault::Stalls(after) if self.events >= after => return Poll::Pending,
                WatchFault::Expires(after) if self.events >= after => {
                    self.fault = WatchFault::Ends(0);
                    let event = json!({"type": "ERROR", "object": status(410, "Expired")});
                    self.ready.push_back(Bytes::from(format!("{event}\n")));
                    continue;
                }
                _ => {}
            }
            let frame = match self.inner.as_mut().poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            };
            if let Ok(data) = frame.into_data() {
                self.take(&data);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart_by_what_they_ask() {
        let runs = "/apis/bundlerun.dev/v1alpha1/namespaces/n/bundleruns";
        for (method, path, query, expected) in [
            (Method::GET, "/version", "", "get /version"),
            (Method::GET, "/api/v1/nodes", "", "list nodes"),
            (Method::GET, "/api/v1/nodes", "watch=true", "watch nodes"),
            (Method::GET, "/api/v1/namespaces/n/pods", "&watch=true", "watch pods"),
            (Method::GET, "/api/v1/namespaces/n/pods/p", "", "get pods"),
            (Method::POST, "/api/v1/namespaces/n/pods", "", "create pods"),
            (Method::PATCH, &format!("{runs}/r/status"), "", "patch bundleruns/status"),
            (Method::DELETE, &format!("{runs}/r"), "", "delete bundleruns"),
            (
                Method::POST,
                "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
                "",
                "create selfsubjectaccessreviews",
            ),
        ] {
            assert_eq!(kind(&method, path, query), expected);
        }
    }

    /// What comes of four events, in pieces as they come from a network.
    async fn events(fault: WatchFault) -> String {
        let mut watched = Watched::new(Body::empty(), fault);
        for piece in ["a\nb", "b\n", "c\nd\n"] {
            watched.take(piece.as_bytes());
        }
        if !matches!(fault, WatchFault::Stalls(_)) {
            let all = watched.collect().await.unwrap().to_bytes();
            return String::from_utf8(all.to_vec()).unwrap().replace('\n', " ");
        }
        watched.ready.iter().map(|event| String::from_utf8_lossy(event).replace('\n', " ")).collect()
    }

    #[tokio::test]
    async fn a_watch_goes_wrong_where_it_should() {
        assert_eq!(events(WatchFault::Ends(2)).await, "a bb ");
        assert_eq!(events(WatchFault::Stalls(1)).await, "a ");
        assert_eq!(events(WatchFault::Twice(2)).await, "a bb bb c d ");
        assert_eq!(events(WatchFault::Late(2)).await, "a c bb d ");
        let expired = events(WatchFault::Expires(1)).await;
        assert!(expired.starts_with("a {") && expired.contains("\"code\":410"), "{expired}");
    }

    fn service(faults: &Faults, code: u16) -> impl Service<Request<Body>, Response = Response<Said>, Error = BoxError> {
        faults.layer(tower::service_fn(move |_: Request<Body>| async move {
            Ok::<_, BoxError>(Response::builder().status(code).body(Body::from(b"{}".to_vec()))?)
        }))
    }

    fn request() -> Request<Body> {
        Request::post("/api/v1/namespaces/n/pods").body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn the_chosen_request_goes_wrong_and_no_other() {
        let second = |fault| Faults::new(move |asked| (asked.nth == 2).then_some(fault));
        for (fault, expected) in [
            (Fault::Refused(503), [Some(201), Some(503), Some(201)]),
            (Fault::DoneAndRefused(500), [Some(201), Some(500), Some(201)]),
            (Fault::Lost, [Some(201), None, Some(201)]),
        ] {
            let faults = second(fault);
            let mut service = service(&faults, 201);
            for expected in expected {
                let answer = service.call(request()).await.ok().map(|answer| answer.status().as_u16());
                assert_eq!(answer, expected, "{fault:?}");
            }
            assert_eq!(faults.asked().len(), 3);
        }
    }

    #[tokio::test]
    async fn nothing_leaves_a_process_that_is_cut() {
        for fault in [Fault::CutBefore, Fault::CutAfter] {
            let faults = Faults::new(move |asked| (asked.nth == 1).then_some(fault));
            let mut service = service(&faults, 201);
            assert!(service.call(request()).now_or_never().is_none());
            faults.cut().await;
            assert!(service.call(request()).now_or_never().is_none());
            assert_eq!(faults.asked().len(), 1, "{fault:?}");
        }
    }

    #[tokio::test]
    async fn a_stale_list_is_the_first_one() {
        let faults = Faults::new(|asked| (asked.nth == 2).then_some(Fault::StaleList));
        let mut number = 0;
        let mut service = faults.layer(tower::service_fn(move |_: Request<Body>| {
            number += 1;
            async move { Ok::<_, BoxError>(Response::new(Body::from(number.to_string().into_bytes()))) }
        }));
        for expected in ["1", "1", "3"] {
            let list = service.call(Request::get("/api/v1/pods").body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(list.into_body().collect().await.unwrap().to_bytes(), expected);
        }
    }
}
