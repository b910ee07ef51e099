//! What a command printed, from its pod, whatever becomes of that and of the connection.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use futures::AsyncReadExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;

use crate::api::BundleRun;
use crate::api::status::Attempt;
use crate::names;
use crate::plan::pod_name;

use super::failure::{Asked, Failure};
use super::runs::{self, Look};
use super::session::{Connection, Out};
use super::stamps::Stamps;

/// The pod of an attempt, and how it is asked for.
pub(super) struct PodOf<'a> {
    connection: &'a Connection,
    run: &'a BundleRun,
    pub(super) name: String,
}

impl<'a> PodOf<'a> {
    pub(super) fn new(connection: &'a Connection, run: &'a BundleRun, attempt: &Attempt) -> Self {
        let name = attempt.pod.clone().unwrap_or_else(|| pod_name(runs::name(run), attempt.attempt));
        Self { connection, run, name }
    }

    /// If it is there and is of this very run.
    pub(super) async fn get(&self) -> Result<Option<Pod>, kube::Error> {
        let pod = self.connection.api::<Pod>().get_opt(&self.name).await?;
        let is_of_run = |pod: &Pod| {
            let uid = pod.metadata.labels.as_ref().and_then(|labels| labels.get(names::RUN_UID_LABEL));
            uid.is_some() && uid == self.run.metadata.uid.as_ref()
        };
        Ok(pod.filter(is_of_run))
    }

    pub(super) fn failed(&self, error: &kube::Error) -> Failure {
        let namespace = Some(&*self.connection.namespace);
        Asked { verb: "get", resource: "pods", name: Some(&self.name), namespace }.failed(error)
    }
}

/// What came of reading a log.
pub(super) enum Got {
    All,
    /// There is none, or it broke off.
    None(Failure),
}

/// Of the command's container. With the time of each line, by which a log goes on where it broke off.
pub(super) fn params() -> LogParams {
    LogParams { container: Some(names::RUN_CONTAINER.to_owned()), timestamps: true, ..LogParams::default() }
}

pub(super) async fn read(
    connection: &Connection,
    pod: &str,
    params: &LogParams,
    mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<Got, Failure> {
    let asked = Asked { verb: "get", resource: "pods/log", name: Some(pod), namespace: Some(&connection.namespace) };
    let pods = connection.api::<Pod>();
    let mut stream = match pods.log_stream(pod, params).await {
        Ok(stream) => Box::pin(stream),
        Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403) => {
            return Err(asked.failed(&kube::Error::Api(status)));
        }
        Err(error) => return Ok(Got::None(asked.failed(&error))),
    };
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => return Ok(Got::All),
            Ok(length) => take(buffer.get(..length).unwrap_or_default())?,
            Err(error) => return Ok(Got::None(Failure::new(format!("the log of {pod} broke off: {error}")))),
        }
    }
}

/// How long something is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Between two tries to read the log of a pod that gives none: at first, and at most.
    again: Duration,
    again_at_most: Duration,
    /// For more of the log of an attempt that has ended.
    rest: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let [again, again_at_most, rest] = [1, 5, 10].map(Duration::from_secs);
        Self { again, again_at_most, rest }
    }
}

impl Pace {
    /// The next pause is longer.
    async fn rest_before_again(&self, pause: &mut Duration) {
        tokio::time::sleep(*pause).await;
        *pause = (*pause * 2).min(self.again_at_most);
    }
}

/// How much of an attempt its pod has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    All,
    Part,
    Nothing,
}

/// Shows the log of an attempt until it ends, the pod is gone, or the run goes on without it.
pub(super) async fn one_attempt(
    out: Out,
    pod: &PodOf<'_>,
    number: u32,
    take: impl FnMut(&[u8]) -> io::Result<()>,
    pace: &Pace,
) -> Result<Shown, Failure> {
    let bytes = Cell::new(0_u64);
    let shown = || if bytes.get() > 0 { Shown::Part } else { Shown::Nothing };
    let mut reading = Box::pin(log_of(out, pod, take, &bytes, pace));
    tokio::select! {
        whole = &mut reading => return Ok(if whole? { Shown::All } else { shown() }),
        moved_on = moved_on(pod, number) => moved_on?,
    }
    // Its last lines may be under way. A node that is lost gives none, and does not say so.
    loop {
        let before = bytes.get();
        match tokio::time::timeout(pace.rest, &mut reading).await {
            Ok(whole) => return Ok(if whole? { Shown::All } else { shown() }),
            Err(_) if bytes.get() == before => return Ok(shown()),
            Err(_) => {}
        }
    }
}

/// Ends when the run has, or is at a later attempt.
async fn moved_on(pod: &PodOf<'_>, number: u32) -> Result<(), Failure> {
    let name = runs::name(pod.run);
    let look = |found: &BTreeMap<String, BundleRun>| match found.get(name) {
        Some(run) if run.is_over() || runs::attempt_number(run) > number => Look::Done(()),
        _ => Look::GoOn,
    };
    runs::follow(pod.connection, &[name.to_owned()], look).await
}

/// Whether it was shown to its end.
async fn log_of(
    out: Out,
    of: &PodOf<'_>,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
    bytes: &Cell<u64>,
    pace: &Pace,
) -> Result<bool, Failure> {
    let mut stamps = Stamps::default();
    let mut told = false;
    let mut tell = |failure: &Failure| {
        if !std::mem::replace(&mut told, true) {
            out.note(&format!("{}; will be tried again", failure.message));
        }
    };
    let mut pause = pace.again;
    // The server said that this is the end of what it has.
    let mut came_to_an_end = false;
    loop {
        let pod = match of.get().await {
            Ok(Some(pod)) => pod,
            Ok(None) => return Ok(came_to_an_end && bytes.get() > 0),
            Err(error) if runs::is_final(&error) => return Err(of.failed(&error)),
            Err(error) => {
                tell(&of.failed(&error));
                pace.rest_before_again(&mut pause).await;
                continue;
            }
        };
        // What has ended when it is asked for is whole when it was read.
        let is_last = has_ended(&pod);
        let params = LogParams { follow: !is_last, since_time: stamps.since(), ..params() };
        stamps.reconnected();
        let (before, mut new) = (bytes.get(), Vec::new());
        let got = read(of.connection, &of.name, &params, |given| {
            new.clear();
            stamps.feed(given, &mut new);
            bytes.set(bytes.get() + new.len() as u64);
            take(&new)
        });
        match got.await? {
            Got::All if is_last => return Ok(true),
            Got::All => came_to_an_end = true,
            Got::None(failure) => {
                came_to_an_end = false;
                tell(&failure);
                if is_last && stamps.since().is_none() {
                    return Ok(false);
                }
            }
        }
        if bytes.get() > before {
            pause = pace.again;
        }
        pace.rest_before_again(&mut pause).await;
    }
}

fn has_ended(pod: &Pod) -> bool {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let mut run = statuses.filter(|container| container.name == names::RUN_CONTAINER);
    run.any(|container| container.state.as_ref().is_some_and(|state| state.terminated.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Phase;
    use crate::cli::examples;
    use axum::body::{Body, Bytes};
    use futures::future::BoxFuture;
    use futures::{FutureExt as _, StreamExt as _, stream};
    use http::{Request, Response};
    use serde_json::{Value, json};
    use std::io::Write as _;
    use std::sync::Arc;
    use tokio::sync::Notify;

    /// What an API server answers, or that the connection breaks.
    type Answer = BoxFuture<'static, io::Result<Response<Body>>>;

    fn broken() -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionReset, "broken")
    }

    fn answer(code: u16, body: impl Into<Body>) -> Answer {
        let answer = Response::builder().status(code).body(body.into()).unwrap();
        async { Ok(answer) }.boxed()
    }

    fn no_pod() -> Answer {
        let status = json!({"kind": "Status", "status": "Failure", "message": "no", "reason": "NotFound", "code": 404});
        answer(404, status.to_string())
    }

    /// Of the run [`examples::waiting`].
    fn pod(state: &Value) -> Answer {
        let container =
            json!({"name": "run", "image": "i", "imageID": "i", "ready": true, "restartCount": 0, "state": state});
        let labels = json!({names::RUN_UID_LABEL: "u-1"});
        let pod =
            json!({"metadata": {"name": "big-1", "labels": labels}, "status": {"containerStatuses": [container]}});
        answer(200, pod.to_string())
    }

    fn running() -> Answer {
        pod(&json!({"running": {}}))
    }

    fn ended() -> Answer {
        pod(&json!({"terminated": {"exitCode": 0}}))
    }

    /// A log in pieces.
    fn log(pieces: Vec<io::Result<&'static str>>) -> Answer {
        let pieces = pieces.into_iter().map(|piece| piece.map(|text| Bytes::from_static(text.as_bytes())));
        answer(200, Body::from_stream(stream::iter(pieces)))
    }

    /// The runs, and a watch without an event.
    fn runs_with(run: &BundleRun, query: &str) -> Answer {
        if query.contains("watch=true") {
            return answer(200, Body::from_stream(stream::pending::<io::Result<Bytes>>()));
        }
        let list = json!({"kind": "BundleRunList", "apiVersion": "bundlerun.dev/v1alpha1",
            "metadata": {"resourceVersion": "1"}, "items": [run]});
        answer(200, list.to_string())
    }

    /// Follows the first attempt with these answers to requests for the pod, for its log, and for runs. Returns what was
    /// shown of it, and how much that was.
    async fn followed(
        pods: Vec<Answer>,
        logs: Vec<Answer>,
        runs: impl FnMut(&str) -> Answer + Send + 'static,
    ) -> (Result<Shown, Failure>, String) {
        let [again, again_at_most] = [Duration::from_millis(1); 2];
        followed_at(Pace { again, again_at_most, ..Pace::default() }, pods, logs, runs).await
    }

    async fn followed_at(
        pace: Pace,
        pods: Vec<Answer>,
        logs: Vec<Answer>,
        mut runs: impl FnMut(&str) -> Answer + Send + 'static,
    ) -> (Result<Shown, Failure>, String) {
        let (mut pods, mut logs) = (pods.into_iter(), logs.into_iter());
        let server = tower::service_fn(move |request: Request<kube::client::Body>| {
            let query = request.uri().query().unwrap_or_default();
            match request.uri().path().rsplit('/').next() {
                Some("big-1") => pods.next().unwrap(),
                Some("log") => logs.next().unwrap(),
                Some(names::PLURAL) => runs(query),
                other => panic!("{other:?}"),
            }
        });
        let connection = Connection { client: kube::Client::new(server, "a"), namespace: "a".to_owned() };
        let run = examples::waiting();
        let attempt = Attempt { attempt: 1, ..Attempt::default() };
        let mut text = Vec::new();
        let take = |bytes: &[u8]| text.write_all(bytes);
        let shown = one_attempt(Out::new(), &PodOf::new(&connection, &run, &attempt), 1, take, &pace).await;
        (shown, String::from_utf8(text).unwrap())
    }

    fn goes_on(query: &str) -> Answer {
        runs_with(&examples::waiting(), query)
    }

    const FIRST: &str = "2026-11-26T09:00:01.7Z one\n2026-11-26T09:00:01.8Z tw";
    const ALL: &str = "2026-11-26T09:00:01.7Z one\n2026-11-26T09:00:01.8Z two\n2026-11-26T09:00:01.9Z three\n";

    #[tokio::test]
    async fn a_log_goes_on_where_it_broke_off_whatever_fails_meanwhile() {
        let pods = vec![
            async { Err(broken()) }.boxed(),
            running(),
            answer(503, "starting"),
            async { Err(broken()) }.boxed(),
            ended(),
        ];
        let logs = vec![log(vec![Ok(FIRST), Err(broken())]), log(vec![Ok(ALL)])];
        assert_eq!(followed(pods, logs, goes_on).await, (Ok(Shown::All), "one\ntwo\nthree\n".to_owned()));
    }

    #[tokio::test]
    async fn a_pod_that_goes_after_its_log_broke_off_has_shown_a_part() {
        let logs = vec![log(vec![Ok(FIRST), Err(broken())])];
        let (shown, text) = followed(vec![running(), no_pod()], logs, goes_on).await;
        assert_eq!((shown, &*text), (Ok(Shown::Part), "one\ntw"));
        assert_eq!(followed(vec![no_pod()], vec![], goes_on).await, (Ok(Shown::Nothing), String::new()));
    }

    #[tokio::test]
    async fn a_pod_that_goes_after_the_end_of_its_log_has_shown_all() {
        let shown = followed(vec![running(), no_pod()], vec![log(vec![Ok(ALL)])], goes_on).await;
        assert_eq!(shown, (Ok(Shown::All), "one\ntwo\nthree\n".to_owned()));
    }

    /// Its kubelet neither sends anything nor ends the connection.
    #[tokio::test]
    async fn a_lost_node_holds_up_nobody_once_the_run_goes_on_without_it() {
        let mut over = examples::waiting();
        over.status.as_mut().unwrap().phase = Some(Phase::Failed);
        let mut later = examples::waiting();
        later.status.as_mut().unwrap().attempt = Some(2);
        for run in [over, later] {
            let was_read = Arc::new(Notify::new());
            let tells = was_read.clone();
            let silence = stream::once(async move {
                tells.notify_one();
                futures::future::pending::<io::Result<Bytes>>().await
            });
            let body = stream::iter([Ok(Bytes::from_static(FIRST.as_bytes()))]).chain(silence);
            let runs = move |query: &str| {
                let (answer, was_read) = (runs_with(&run, query), was_read.clone());
                async move {
                    was_read.notified().await;
                    answer.await
                }
                .boxed()
            };
            let pace = Pace { rest: Duration::from_millis(1), ..Pace::default() };
            let (shown, text) =
                followed_at(pace, vec![running()], vec![answer(200, Body::from_stream(body))], runs).await;
            assert_eq!((shown, &*text), (Ok(Shown::Part), "one\ntw"));
        }
    }

    #[tokio::test]
    async fn a_right_that_was_taken_away_is_told_and_not_waited_for() {
        let refused =
            json!({"kind": "Status", "status": "Failure", "message": "no", "reason": "Forbidden", "code": 403});
        let (shown, _) = followed(vec![answer(403, refused.to_string())], vec![], goes_on).await;
        assert!(shown.unwrap_err().message.contains("pods"));
    }
}
