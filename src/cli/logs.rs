//! `logs`: what a command printed, from its pod while that is there, else from the saved output, else the end of it that
//! is on the run.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use clap::Args;
use futures::AsyncReadExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;

use crate::api::status::Attempt;
use crate::api::{BundleRun, Phase};
use crate::bundle::{self, ErrorKind};
use crate::names;

use super::failure::{Asked, Failure};
use super::runs::{self, Look};
use super::session::{Connection, Session};
use super::sink::{Sink, Stream};
use super::stamps::Stamps;
use super::store::{self, StoreOptions};
use super::wait::Told;

/// Between two tries to read the log of a pod that gives none.
const AGAIN: Duration = Duration::from_secs(1);

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
    if let Some(pod) = pod_of(&connection, &run, &attempt).await? {
        let pod = pod.metadata.name.unwrap_or_default();
        let mut sink = Sink::new(session.out, Stream::Out);
        let (mut stamps, mut new) = (Stamps::default(), Vec::new());
        let got = read(&connection, &pod, &params, |bytes| {
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

/// Of an attempt, if it is there and is of this very run.
async fn pod_of(connection: &Connection, run: &BundleRun, attempt: &Attempt) -> Result<Option<Pod>, Failure> {
    let name = attempt.pod.clone().unwrap_or_else(|| format!("{}-{}", runs::name(run), attempt.attempt));
    let asked = Asked { verb: "get", resource: "pods", name: Some(&name), namespace: Some(&connection.namespace) };
    let pod = connection.api::<Pod>().get_opt(&name).await.map_err(|error| asked.failed(&error))?;
    let is_of_run = |pod: &Pod| {
        let uid = pod.metadata.labels.as_ref().and_then(|labels| labels.get(names::RUN_UID_LABEL));
        uid.is_some() && uid == run.metadata.uid.as_ref()
    };
    Ok(pod.filter(is_of_run))
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
    let mut sink = Sink::new(session.out, Stream::Out);
    loop {
        let names = [name.to_owned()];
        let look = |found: &BTreeMap<String, BundleRun>| {
            told.tell(session, found);
            match found.get(name) {
                Some(run) => {
                    first.get_or_insert(run.status.as_ref().and_then(|status| status.attempt).unwrap_or_default());
                    if run.is_over() || has_begun(run, done) { Look::Done(run.clone()) } else { Look::GoOn }
                }
                None => Look::GoOn,
            }
        };
        let run = runs::follow(connection, &names, look).await?;
        let number = run.status.as_ref().and_then(|status| status.attempt).unwrap_or_default();
        if number <= done {
            return Ok(run);
        }
        done = done.max(first.unwrap_or_default().saturating_sub(1));
        // One that was over before its start was told is in the store.
        for missed in done + 1..number {
            session.out.note(&format!("{name}: attempt {missed}, as it was saved"));
            let attempt = attempt_of(&run, Some(missed))?;
            if let Err(failure) = saved(session, &run, &attempt, store, None).await {
                session.out.note(&failure.message);
            }
        }
        if number > 1 {
            session.out.note(&format!("{name}: attempt {number}"));
        }
        let attempt = attempt_of(&run, Some(number))?;
        let was_there = one_attempt(session, connection, &run, &attempt, &mut sink).await?;
        if !was_there {
            if run.is_over() {
                saved(session, &run, &attempt, store, None).await?;
            } else {
                session
                    .out
                    .note(&format!("the pod of attempt {number} is gone: what it printed is in its saved output"));
            }
        }
        done = number;
    }
}

/// A later attempt than that, and its command.
fn has_begun(run: &BundleRun, done: u32) -> bool {
    let attempt = run.status.as_ref().and_then(|status| status.attempt).unwrap_or_default();
    attempt > done && matches!(runs::phase(run), Phase::Running | Phase::Finalizing)
}

/// False: there is no pod.
async fn one_attempt(
    session: &Session,
    connection: &Connection,
    run: &BundleRun,
    attempt: &Attempt,
    sink: &mut Sink,
) -> Result<bool, Failure> {
    let mut stamps = Stamps::default();
    let mut was_there = false;
    let mut told = false;
    loop {
        let Some(pod) = pod_of(connection, run, attempt).await? else { return Ok(was_there) };
        was_there = true;
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
        let mut new = Vec::new();
        let pod = pod.metadata.name.unwrap_or_default();
        let got = read(connection, &pod, &params, |bytes| {
            new.clear();
            stamps.feed(bytes, &mut new);
            sink.write_all(&new)
        });
        match got.await? {
            Got::All if is_last => {
                sink.finish()?;
                return Ok(true);
            }
            Got::All => {}
            Got::None(failure) => {
                if !told {
                    session.out.note(&format!("{}; will be tried again", failure.message));
                    told = true;
                }
                if is_last && stamps.since().is_none() {
                    return Ok(false);
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
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
    // The end of it is on the run: no need to ask elsewhere.
    let mut why = "its output was not saved".to_owned();
    if let Some(reference) = &reference {
        match from_store(session, reference, options, tail).await {
            Ok(()) => return Ok(()),
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
    show(session, Stream::Out, stdout.as_bytes(), tail)?;
    show(session, Stream::Err, stderr.as_bytes(), tail)
}

async fn from_store(
    session: &Session,
    reference: &str,
    options: &StoreOptions,
    tail: Option<u32>,
) -> Result<(), Failure> {
    let access = store::access(session, reference, options)?;
    for (name, stream) in [(names::files::STDOUT, Stream::Out), (names::files::STDERR, Stream::Err)] {
        // A command that made a file of that name has ours beside it.
        for name in [format!("{name}.run"), name.to_owned()] {
            let read = match tail {
                None => bundle::read_file(reference, &name, &access, Sink::new(session.out, stream)).await.map(Some),
                Some(_) => match bundle::read_file(reference, &name, &access, Vec::new()).await {
                    Ok(bytes) => {
                        show(session, stream, &bytes, tail)?;
                        Ok(None)
                    }
                    Err(error) => Err(error),
                },
            };
            match read {
                Ok(sink) => {
                    if let Some(mut sink) = sink {
                        sink.finish()?;
                    }
                    break;
                }
                Err(error) if error.kind == ErrorKind::PathNotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

fn show(session: &Session, stream: Stream, bytes: &[u8], tail: Option<u32>) -> Result<(), Failure> {
    let mut sink = Sink::new(session.out, stream);
    sink.write_all(last_lines(bytes, tail))?;
    Ok(sink.finish()?)
}

fn last_lines(bytes: &[u8], tail: Option<u32>) -> &[u8] {
    let Some(tail) = tail.and_then(|tail| usize::try_from(tail).ok()) else { return bytes };
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let kept = lines.iter().rev().take(tail).map(|line| line.len()).sum::<usize>();
    bytes.get(bytes.len().saturating_sub(kept)..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::examples;

    #[test]
    fn the_last_lines_are_counted_from_the_end() {
        for (tail, shown) in [(None, "a\nb\nc"), (Some(0), ""), (Some(1), "c"), (Some(2), "b\nc"), (Some(9), "a\nb\nc")]
        {
            assert_eq!(last_lines(b"a\nb\nc", tail), shown.as_bytes(), "{tail:?}");
        }
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
