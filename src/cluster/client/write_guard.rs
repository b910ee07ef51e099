//! Every request to the API server passes here: it is counted, and no write leaves while this process may not write.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use tower::{BoxError, Layer, Service};

/// What the operator has to say to requests, and wants to hear of them.
#[derive(Clone)]
pub struct WriteGuard {
    /// Asked just before a write is sent. A process that was paused finds out here, whatever it was about to do.
    pub may_write: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Told the answer; none: there was none.
    pub answered: Arc<Answered>,
    /// What goes wrong between it and the API server, in tests.
    #[cfg(feature = "faults")]
    pub faults: super::Faults,
}

/// Takes the method of a request and the status of its answer.
type Answered = dyn Fn(&Method, Option<StatusCode>) + Send + Sync;

impl Default for WriteGuard {
    /// Everything may be sent, nothing is counted.
    fn default() -> Self {
        Self {
            may_write: Arc::new(|| true),
            answered: Arc::new(|_, _| ()),
            #[cfg(feature = "faults")]
            faults: super::Faults::default(),
        }
    }
}

/// A write was not sent.
#[derive(Debug, thiserror::Error)]
#[error("not sent: this operator does not hold the lease")]
struct MayNotWrite;

impl<S> Layer<S> for WriteGuard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner, requests: self.clone() }
    }
}

/// A client's service behind [`WriteGuard`].
pub struct Guarded<S> {
    inner: S,
    requests: WriteGuard,
}

impl<S, B> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError> + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<B>, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.method() != Method::GET && !(self.requests.may_write)() && !bug!("writes without the lease") {
            return async { Err(MayNotWrite.into()) }.boxed();
        }
        let mut asked =
            Asked { method: request.method().clone(), status: None, answered: Arc::clone(&self.requests.answered) };
        let answer = self.inner.call(request).map_err(Into::into);
        async move {
            let answer = answer.await?;
            asked.got(answer.status());
            Ok(answer)
        }
        .boxed()
    }
}

/// Tells how a request went when it is over, also when nobody waited for its answer any more.
struct Asked {
    method: Method,
    status: Option<StatusCode>,
    answered: Arc<Answered>,
}

impl Asked {
    fn got(&mut self, status: StatusCode) {
        self.status = Some(status);
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        (self.answered)(&self.method, self.status);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn no_write_is_sent_while_none_is_allowed_and_every_request_is_told() {
        let (allowed, told) = (Arc::new(AtomicBool::new(true)), Arc::new(Mutex::new(Vec::new())));
        let requests = WriteGuard {
            may_write: Arc::new({
                let allowed = Arc::clone(&allowed);
                move || allowed.load(Ordering::SeqCst)
            }),
            answered: Arc::new({
                let told = Arc::clone(&told);
                move |method, status| told.lock().unwrap().push(format!("{method} {:?}", status.map(|s| s.as_u16())))
            }),
            #[cfg(feature = "faults")]
            faults: super::super::Faults::default(),
        };
        let sent = Arc::new(Mutex::new(Vec::new()));
        let server = tower::service_fn({
            let sent = Arc::clone(&sent);
            move |request: Request<Body>| {
                let sent = Arc::clone(&sent);
                async move {
                    sent.lock().unwrap().push(request.method().clone());
                    if request.method() == Method::DELETE {
                        futures::future::pending::<()>().await;
                    }
                    Ok::<_, Infallible>(Response::builder().status(201).body(()).unwrap())
                }
            }
        });
        let mut service = requests.layer(server);
        let mut ask = |method: Method| service.call(Request::builder().method(method).body(Body::empty()).unwrap());
        assert!(ask(Method::POST).await.is_ok());
        allowed.store(false, Ordering::SeqCst);
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            assert!(ask(method).await.is_err());
        }
        assert!(ask(Method::GET).await.is_ok());
        allowed.store(true, Ordering::SeqCst);
        let unanswered = ask(Method::DELETE);
        assert!(unanswered.now_or_never().is_none(), "given up");
        assert_eq!(*sent.lock().unwrap(), [Method::POST, Method::GET, Method::DELETE]);
        assert_eq!(*told.lock().unwrap(), ["POST Some(201)", "GET Some(201)", "DELETE None"]);
    }
}
