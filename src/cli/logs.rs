//! `logs`: what a command printed, from its pod while that is there, else from the saved output, else the end of it that
//! is on the run.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use futures::AsyncReadExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;

use crate::api::status::Attempt;
use crate::api::{BundleRun, Phase};
use crate::bundle::{self, ErrorKind};
use crate::names;

use super::failure::{Asked, Failure, Kind};
use super::runs::{self, Look};
use super::session::{Connection, Out, Session};
use super::sink::{Sink, Stream};
use super::stamps::Stamps;
use super::store::{self, StoreOptions};
use super::wait::Told;

#[derive(Debug, Args)]
pub(super) struct Logs {
    /// Name of the run
    name: String,
    /// Go on until the run has ended; wait for one that has not started
    #[arg(short, long)]
    follow: bool,
    /// Only so many of the last lines
    #[arg(long, value_name = "LINES", conflicts_with = "follow")]
    tail: Option<u32>,
    /// Of this attempt. Default: the last
    #[arg(long, value_name = "NUMBER", conflicts_with = "follow")]
    attempt: Option<u32>,
    #[command(flatten)]
    store: StoreOptions,
}

pub(super) async fn logs(session: &Session, args: &Logs) -> Result<(), Failure> {
    let connection = session.connect().await?;
    if args.follow {
        return follow(session, &connection, &args.name, &args.store).await.map(drop);
    }
    let run = runs::get(&connection, &args.name).await?;
    let attempt = attempt_of(&run, args.attempt)?;
    let params = LogParams {
        container: Some(names::RUN_CONTAINER.to_owned()),
        tail_lines: args.tail.map(i64::from),
        timestamps: true,
        ..LogParams::default()
    };
    let pod = PodOf::new(&connection, &run, &attempt);
    if pod.get().await.map_err(|error| pod.failed(&error))?.is_some() {
        let mut sink = Sink::new(session.out, Stream::Out);
        let (mut stamps, mut new) = (Stamps::default(), Vec::new());
        let got = read(&connection, &pod.name, &params, |bytes| {
            new.clear();
            stamps.feed(bytes, &mut new);
            sink.write_all(&new)
        });
        match got.await? {
            // Of a run that has ended the kubelet may have no log any more, and the store has.
            Got::All if stamps.since().is_none() && run.is_over() => {}
            Got::All => return Ok(sink.finish()?),
            Got::None(failure) if !run.is_over() => {
                return Err(failure.hint(format!("it is {}; -f waits for it", runs::state(&run))));
            }
            Got::None(_) => {}
        }
    }
    saved(session, &run, &attempt, &args.store, args.tail).await
}

/// The attempt of this number, or the last.
fn attempt_of(run: &BundleRun, number: Option<u32>) -> Result<Attempt, Failure> {
    let status = run.status.clone().unwrap_or_default();
    let last = status.attempt.unwrap_or_default();
    let number = number.unwrap_or(last);
    if number == 0 {
        return Err(not_started(run));
    }
    let recorded = status.attempts.into_iter().find(|attempt| attempt.attempt == number);
    match recorded {
        Some(attempt) => Ok(attempt),
        None if number == last => Ok(Attempt { attempt: number, ..Attempt::default() }),
        None => Err(Failure::new(format!("{} has no record of an attempt {number}", runs::name(run)))),
    }
}

fn not_started(run: &BundleRun) -> Failure {
    let name = runs::name(run);
    let failure = Failure::new(format!("{name} has printed nothing: it is {}", runs::state(run)));
    if run.is_over() {
        return failure.hint(format!("kubectl bundle why {name}"));
    }
    failure.hint(format!("-f waits for it; `kubectl bundle why {name}` says what it waits for"))
}

/// The pod of an attempt, and how it is asked for.
struct PodOf<'a> {
    connection: &'a Connection,
    run: &'a BundleRun,
    name: String,
}

impl<'a> PodOf<'a> {
    fn new(connection: &'a Connection, run: &'a BundleRun, attempt: &Attempt) -> Self {
        let name = attempt.pod.clone().unwrap_or_else(|| format!("{}-{}", runs::name(run), attempt.attempt));
        Self { connection, run, name }
    }

    /// If it is there and is of this very run.
    async fn get(&self) -> Result<Option<Pod>, kube::Error> {
        let pod = self.connection.api::<Pod>().get_opt(&self.name).await?;
        let is_of_run = |pod: &Pod| {
            let uid = pod.metadata.labels.as_ref().and_then(|labels| labels.get(names::RUN_UID_LABEL));
            uid.is_some() && uid == self.run.metadata.uid.as_ref()
        };
        Ok(pod.filter(is_of_run))
    }

    fn failed(&self, error: &kube::Error) -> Failure {
        let namespace = Some(&*self.connection.namespace);
        Asked { verb: "get", resource: "pods", name: Some(&self.name), namespace }.failed(error)
    }
}

/// What came of reading a log.
enum Got {
    All,
    /// There is none, or it broke off.
    None(Failure),
}

async fn read(
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

/// Shows what a run prints until it has ended, whatever becomes of its pods and the connection.
pub(super) async fn follow(
    session: &Session,
    connection: &Connection,
    name: &str,
    store: &StoreOptions,
) -> Result<BundleRun, Failure> {
    let hint = || format!("come back with `kubectl bundle logs -f {name}`, end it with `kubectl bundle stop {name}`");
    runs::unless_interrupted(Box::pin(attempts(session, connection, name, store)), hint).await
}

async fn attempts(
    session: &Session,
    connection: &Connection,
    name: &str,
    store: &StoreOptions,
) -> Result<BundleRun, Failure> {
    let mut told = Told::default();
    // Those before the one that there is now are not asked for.
    let mut first = None;
    let mut done = 0;
    // What no pod has shown as a whole, and the store may have.
    let mut missed: Vec<Missed> = Vec::new();
    let mut sink = Sink::new(session.out, Stream::Out);
    loop {
        let names = [name.to_owned()];
        let look = |found: &BTreeMap<String, BundleRun>| {
            told.tell(session, found);
            match found.get(name) {
                Some(run) => {
                    first.get_or_insert(attempt_number(run));
                    if run.is_over() || has_begun(run, done) { Look::Done(run.clone()) } else { Look::GoOn }
                }
                None => Look::GoOn,
            }
        };
        let run = runs::follow(connection, &names, look).await?;
        let number = attempt_number(&run);
        done = done.max(first.unwrap_or_default().saturating_sub(1));
        // One that was over before its start was told is in the store, too.
        missed.extend((done + 1..number).map(|attempt| Missed { attempt, was_begun: false }));
        for missed in missed.drain(..) {
            show_missed(session, &run, &missed, store).await?;
        }
        if number <= done {
            return Ok(run);
        }
        if number > 1 {
            session.out.note(&format!("{name}: attempt {number}"));
        }
        let attempt = attempt_of(&run, Some(number))?;
        let pod = PodOf::new(connection, &run, &attempt);
        let mut is_within_line = false;
        let take = |bytes: &[u8]| {
            is_within_line = bytes.last().map_or(is_within_line, |byte| *byte != b'\n');
            sink.write_all(bytes)
        };
        let shown = one_attempt(session.out, &pod, number, take, &Pace::default()).await?;
        if shown == Shown::Part && is_within_line {
            sink.write_all(b"\n")?;
        }
        sink.finish()?;
        match shown {
            Shown::All => {}
            Shown::Part => missed.push(Missed { attempt: number, was_begun: true }),
            Shown::Nothing => missed.push(Missed { attempt: number, was_begun: false }),
        }
        done = number;
    }
}

fn attempt_number(run: &BundleRun) -> u32 {
    run.status.as_ref().and_then(|status| status.attempt).unwrap_or_default()
}

/// A later attempt than that, and its command.
fn has_begun(run: &BundleRun, done: u32) -> bool {
    attempt_number(run) > done && matches!(runs::phase(run), Phase::Running | Phase::Finalizing)
}

/// An attempt whose pod did not show all that it printed.
#[derive(Debug, PartialEq, Eq)]
struct Missed {
    attempt: u32,
    /// A part of it was shown.
    was_begun: bool,
}

/// From the store. That an attempt is not there is no reason not to show the others.
async fn show_missed(session: &Session, run: &BundleRun, missed: &Missed, store: &StoreOptions) -> Result<(), Failure> {
    let (name, number) = (runs::name(run), missed.attempt);
    session.out.note(&if missed.was_begun {
        format!("{name}: the log of attempt {number} broke off; from its begin, as it was saved:")
    } else {
        format!("{name}: attempt {number}, as it was saved")
    });
    let shown = match attempt_of(run, Some(number)) {
        Ok(attempt) => saved(session, run, &attempt, store, None).await,
        Err(failure) => Err(failure),
    };
    match shown {
        Err(failure) if failure.kind != Kind::NotRead => {
            session.out.note(&failure.message);
            Ok(())
        }
        shown => shown,
    }
}

/// How long something is waited for.
#[derive(Clone, Copy, Debug)]
struct Pace {
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

/// How much of an attempt its pod has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    All,
    Part,
    Nothing,
}

/// Shows the log of an attempt until it ends, the pod is gone, or the run goes on without it.
async fn one_attempt(
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
        Some(run) if run.is_over() || attempt_number(run) > number => Look::Done(()),
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
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(pace.again_at_most);
                continue;
            }
        };
        // What has ended when it is asked for is whole when it was read.
        let is_last = has_ended(&pod);
        let params = LogParams {
            container: Some(names::RUN_CONTAINER.to_owned()),
            follow: !is_last,
            timestamps: true,
            since_time: stamps.since(),
            ..LogParams::default()
        };
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
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(pace.again_at_most);
    }
}

fn has_ended(pod: &Pod) -> bool {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let mut run = statuses.filter(|container| container.name == names::RUN_CONTAINER);
    run.any(|container| container.state.as_ref().is_some_and(|state| state.terminated.is_some()))
}

/// From the store, else from the run itself.
async fn saved(
    session: &Session,
    run: &BundleRun,
    attempt: &Attempt,
    options: &StoreOptions,
    tail: Option<u32>,
) -> Result<(), Failure> {
    let status = run.status.clone().unwrap_or_default();
    let is_last = status.attempt == Some(attempt.attempt);
    let output = status.output.unwrap_or_default();
    let reference = attempt.bundle.clone().or(output.bundle.filter(|_| is_last));
    let said = attempt.message.iter().chain(status.message.iter().filter(|_| is_last)).map(String::as_str);
    let said = said.collect::<Vec<_>>().join("; ");
    // The end of it is on the run: no need to ask elsewhere.
    let mut why = "its output was not saved".to_owned();
    if let Some(reference) = &reference {
        let shown = Arc::new(AtomicU64::new(0));
        match from_store(session, reference, &said, options, tail, &shown).await {
            Ok(()) => return Ok(()),
            // The end of it after a part of it would be another text.
            Err(failure) if failure.kind == Kind::NotRead || shown.load(Ordering::Relaxed) > 0 => return Err(failure),
            Err(failure) => why = failure.message,
        }
    }
    if !is_last {
        return Err(Failure::new(format!("nothing is left of attempt {}: {why}", attempt.attempt)));
    }
    let (stdout, stderr) = (output.stdout_tail.unwrap_or_default(), output.stderr_tail.unwrap_or_default());
    if stdout.is_empty() && stderr.is_empty() && !run.is_over() {
        return Err(not_started(run));
    }
    session.out.note(&format!("only the end of it, as it is on the run: {why}"));
    for (end, stream) in [(stdout, Stream::Out), (stderr, Stream::Err)] {
        let mut text = Text::new(Sink::new(session.out, stream), tail);
        text.write_all(end.as_bytes())?;
        text.finish()?;
    }
    Ok(())
}

async fn from_store(
    session: &Session,
    reference: &str,
    said: &str,
    options: &StoreOptions,
    tail: Option<u32>,
    shown: &Arc<AtomicU64>,
) -> Result<(), Failure> {
    let access = store::access(session, reference, options)?;
    for (name, stream) in [(names::files::STDOUT, Stream::Out), (names::files::STDERR, Stream::Err)] {
        let text = Text { shown: shown.clone(), ..Text::new(Sink::new(session.out, stream), tail) };
        match bundle::read_file(reference, ours(name, said), &access, text).await {
            Ok(mut text) => text.finish()?,
            // The command removed it, or it is excluded.
            Err(error) if error.kind == ErrorKind::PathNotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The file of a saved output that has what the command printed. Where the command has made one of the usual name the
/// message of the attempt says what ours is; a list of the files does not tell the two apart.
fn ours<'a>(name: &'a str, said: &'a str) -> &'a str {
    let mark = format!("a {name} of the command's own: ours is ");
    let Some((_, after)) = said.split_once(&mark) else { return name };
    let end = after.find(|c: char| !(c.is_ascii_lowercase() || c == '.')).unwrap_or(after.len());
    let other = after.get(..end).unwrap_or_default().trim_end_matches('.');
    let is_ours = other.strip_prefix(name).is_some_and(|more| more.replace(".run", "").is_empty());
    if is_ours { other } else { name }
}

/// A text on its way: all of it, or its last lines.
struct Text {
    sink: Sink,
    last: Option<LastLines>,
    /// Bytes that were passed on.
    shown: Arc<AtomicU64>,
}

impl Text {
    fn new(sink: Sink, tail: Option<u32>) -> Self {
        let last = tail.map(|tail| LastLines::new(usize::try_from(tail).unwrap_or(usize::MAX)));
        Self { sink, last, shown: Arc::default() }
    }

    fn pass(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.shown.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.sink.write_all(bytes)
    }

    fn finish(&mut self) -> io::Result<()> {
        for line in self.last.take().into_iter().flat_map(|last| last.lines) {
            self.pass(&line)?;
        }
        self.sink.finish()
    }
}

impl io::Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.last {
            Some(last) => last.feed(bytes),
            None => self.pass(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Memory for last lines: of what is more, the end.
const LARGEST_TAIL: usize = 64 << 20;

/// The last lines of a text of any size.
struct LastLines {
    most: usize,
    largest: usize,
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl LastLines {
    fn new(most: usize) -> Self {
        Self { most, largest: LARGEST_TAIL, lines: VecDeque::new(), bytes: 0 }
    }

    fn feed(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.bytes += piece.len();
            match self.lines.back_mut() {
                Some(line) if !line.ends_with(b"\n") => line.extend_from_slice(piece),
                _ => self.lines.push_back(piece.to_vec()),
            }
            while self.lines.len() > self.most || self.bytes > self.largest && self.lines.len() > 1 {
                self.bytes -= self.lines.pop_front().map_or(0, |line| line.len());
            }
        }
        // Half of it at once: to move the rest for each piece would take long.
        if self.bytes > self.largest
            && let Some(line) = self.lines.front_mut()
        {
            self.bytes -= line.drain(..line.len() - self.largest / 2).count();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, examples};
    use axum::body::{Body, Bytes};
    use clap::Parser as _;
    use futures::future::BoxFuture;
    use futures::{FutureExt as _, StreamExt as _, stream};
    use http::{Request, Response};
    use serde_json::{Value, json};
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

    #[tokio::test]
    async fn an_attempt_without_a_record_does_not_end_the_rest() {
        let cli = Cli::try_parse_from(["kubectl-bundle", "ls"]).unwrap();
        let session = Session { global: cli.global, out: Out::new() };
        let missed = Missed { attempt: 7, was_begun: false };
        let shown = show_missed(&session, &examples::failed(), &missed, &StoreOptions::default()).await;
        assert_eq!(shown, Ok(()));
    }

    fn last(largest: usize, tail: usize, pieces: &[&str]) -> String {
        let mut last = LastLines { largest, ..LastLines::new(tail) };
        for piece in pieces {
            last.feed(piece.as_bytes());
        }
        let kept = last.lines.into_iter().flatten().collect::<Vec<u8>>();
        assert_eq!(last.bytes, kept.len());
        String::from_utf8(kept).unwrap()
    }

    #[test]
    fn the_last_lines_are_counted_from_the_end() {
        for (tail, shown) in [(0, ""), (1, "c"), (2, "b\nc"), (9, "a\nb\nc")] {
            assert_eq!(last(LARGEST_TAIL, tail, &["a\nb\nc"]), shown, "{tail}");
            assert_eq!(last(LARGEST_TAIL, tail, &["a", "\n", "b\n", "c"]), shown, "{tail}");
        }
        assert_eq!(last(LARGEST_TAIL, 1, &["a\n", "b", "c\n"]), "bc\n");
    }

    #[test]
    fn last_lines_take_little_memory_whatever_they_are() {
        let line = "0123456789\n";
        assert_eq!(last(40, 1000, &[line; 100]), line.repeat(3));
        let endless = last(40, 1, &["0123456789"; 100]);
        assert!(endless.len() <= 40 && endless.ends_with("0123456789"), "{endless}");
    }

    #[test]
    fn the_file_of_what_was_printed_is_that_which_the_message_names() {
        let said = "the command exited with 0; the working directory has a stdout of the command's own: ours is \
                    stdout.run; the working directory has a stderr of the command's own: ours is stderr.run.run";
        assert_eq!((ours("stdout", said), ours("stderr", said)), ("stdout.run", "stderr.run.run"));
        // A file of the command that has such a name is no sign.
        assert_eq!(ours("stdout", "the command exited with 0"), "stdout");
        let fake = "a stdout of the command's own: ours is stdout.txt";
        assert_eq!(ours("stdout", fake), "stdout");
        assert_eq!(ours("stdout", "a stdout of the command's own: ours is stdout.run."), "stdout.run");
    }

    #[test]
    fn an_attempt_is_found_by_its_number() {
        let failed = examples::failed();
        assert_eq!(attempt_of(&failed, None).unwrap().pod.as_deref(), Some("wrong-2"));
        assert_eq!(attempt_of(&failed, Some(1)).unwrap().pod.as_deref(), Some("wrong-1"));
        assert!(attempt_of(&failed, Some(3)).unwrap_err().message.contains("no record of an attempt 3"));
        let fresh = attempt_of(&examples::new(), None).unwrap_err();
        assert_eq!(fresh.message, "fresh has printed nothing: it is Waiting (NotSeen)");
    }
}
