//! How far staging or saving has come: written by the child that does it, served by the main process.

use crate::bundle;
use crate::contract::{NotSaved, Progress, ProgressStage, Resumed, StoreTrouble, log_line, one_line};
use crate::helper::awaited;
use crate::helper::given_up::{self, Awaited};
use crate::helper::markers::{self, is_marked, mark_json, read_json};
use crate::helper::store_answer::Answer;
use crate::helper::until_dropped::{Over, UntilDropped};
use crate::helper::warnings;
use crate::names::files;
use crate::runner::Paths;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Between two marks.
const PAUSE: Duration = Duration::from_secs(1);

/// Leaves the mark about once a second, until dropped; what is done sooner leaves none.
#[derive(Debug)]
pub(super) struct Telling {
    bin: PathBuf,
    thread: Option<UntilDropped>,
}

impl Telling {
    /// Starts telling the sums of all these transfers.
    pub(super) fn start(bin: &Path, stage: ProgressStage, transfers: Vec<Arc<bundle::Progress>>) -> Self {
        let to = bin.to_owned();
        let tell = move |over: &Over| {
            let mut rate = Rate::default();
            loop {
                thread::park_timeout(PAUSE);
                if over.is_over() {
                    return;
                }
                let sum = |bytes: fn(&bundle::Progress) -> u64| {
                    transfers.iter().fold(0, |sum: u64, transfer| sum.saturating_add(bytes(transfer)))
                };
                let done_bytes = sum(|transfer| transfer.done_bytes.load(Ordering::Relaxed));
                let total_bytes = sum(|transfer| transfer.total_bytes.load(Ordering::Relaxed));
                let stored_bytes = sum(|transfer| transfer.stored_bytes.load(Ordering::Relaxed));
                let bytes_per_second = rate.of(done_bytes, Instant::now());
                let hangs = transfers.iter().map(|transfer| transfer.hangs.lock());
                let hangs = hangs.map(|hangs| hangs.unwrap_or_else(PoisonError::into_inner).clone());
                let hangs = hangs.filter(|hangs| !hangs.is_empty()).collect::<Vec<_>>().join("; ");
                let hangs = one_line(&hangs);
                let told =
                    Progress { done_bytes, total_bytes, stored_bytes, bytes_per_second, hangs, ..Progress::of(stage) };
                let _ = mark_json(&to, files::PROGRESS, &told);
            }
        };
        Self { bin: bin.to_owned(), thread: UntilDropped::start("progress", tell).ok() }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        drop(self.thread.take());
        markers::unmark(&self.bin, files::PROGRESS);
    }
}

/// How fast something grows.
#[derive(Debug, Default)]
struct Rate(VecDeque<(Instant, u64)>);

impl Rate {
    /// Over this time: what is read in one go, or found to be there already, is no rate.
    const SPAN: Duration = Duration::from_secs(30);

    /// In bytes a second, when it is this much now; 0: not known yet.
    fn of(&mut self, bytes: u64, now: Instant) -> u64 {
        while self.0.len() > 1 && self.0.front().is_some_and(|(at, _)| now.duration_since(*at) > Self::SPAN) {
            self.0.pop_front();
        }
        self.0.push_back((now, bytes));
        let Some((since, before)) = self.0.front() else { return 0 };
        let milliseconds = now.duration_since(*since).as_millis().max(1);
        u64::try_from(u128::from(bytes.saturating_sub(*before)) * 1000 / milliseconds).unwrap_or(u64::MAX)
    }
}

/// Takes the port and serves the mark at `/progress`, for the rest of the process, from a thread of its own; `/ready`
/// fails while there is something that the operator should ask for while the command runs. Called before the command can
/// take the port. The run does not depend on it.
pub(super) fn serve(paths: &Paths) {
    let bin = paths.bin.clone();
    // Of both families, where there are both.
    let port = paths.progress_port;
    let listener =
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)));
    let serving = listener.and_then(|listener| {
        thread::Builder::new().name("progress".to_owned()).spawn(move || answer_all(&listener, &bin)).map(drop)
    });
    if let Err(error) = serving {
        log_line!("bundle-operator helper: progress is not served at port {port}: {error}");
    }
}

/// Answers one after another, each within a second, in a buffer of a fixed size: the command can reach this port, and
/// must not be able to make this process grow or to hold up anything but its own progress. That is why no HTTP library
/// is at work here.
fn answer_all(listener: &TcpListener, bin: &Path) {
    for stream in listener.incoming() {
        let answered = stream.and_then(|stream| answer(stream, bin));
        if let Err(error) = answered
            && matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
        {
            thread::sleep(PAUSE);
        }
    }
}

/// The longest request that is read.
const REQUEST_MAX_BYTES: usize = 4096;
/// The longest time for one.
const REQUEST: Duration = Duration::from_secs(1);

/// How far it is, which input is waited for, why the last try to save failed, if one did, what is wrong with the store,
/// and what the attempt goes on from; while the command runs, what will go wrong; or the report that the kubelet cannot
/// tell. None: there is nothing to tell.
fn document(bin: &Path) -> Option<String> {
    if is_marked(bin, files::CANNOT_END) {
        let report = markers::read(bin, files::REPORTED).unwrap_or_default();
        return serde_json::to_string(&Progress { report, ..Progress::of(ProgressStage::Saving) }).ok();
    }
    let mut progress: Option<Progress> = read_json(bin, files::PROGRESS);
    let input = awaited::worst(bin).filter(|_| !is_marked(bin, files::STAGED));
    if input.is_some() {
        progress.get_or_insert(Progress::of(ProgressStage::Staging)).input = input;
    }
    let failed: Option<NotSaved> = read_json(bin, files::NOT_SAVED);
    let warnings = warnings::said(bin);
    let resumed: Option<Resumed> = read_json(bin, files::RESUMED);
    let progress = match (progress, failed, store_trouble(bin)) {
        (None, None, None) if warnings.is_empty() && resumed.is_none() => return None,
        (Some(progress), None, store) => Progress { store, ..progress },
        (None, None, store) => {
            let holds = store.as_ref().is_some_and(|store| store.holds);
            let stage = if holds { ProgressStage::Staging } else { ProgressStage::Running };
            Progress { store, warnings, ..Progress::of(stage) }
        }
        (progress, Some(NotSaved { detail, .. }), _) => {
            let known = progress.unwrap_or_else(|| Progress::of(ProgressStage::Saving));
            Progress { stage: ProgressStage::Saving, trouble: one_line(&detail), ..known }
        }
    };
    let given_up_at_ms = given_up_at(bin, &progress);
    serde_json::to_string(&Progress { given_up_at_ms, resumed, ..progress }).ok()
}

/// When what the command waits for is given up, of what is told.
fn given_up_at(bin: &Path, progress: &Progress) -> Option<i64> {
    if progress.stage != ProgressStage::Staging {
        return None;
    }
    if progress.store.as_ref().is_some_and(|store| store.holds) {
        return given_up::noted(bin, Awaited::Store);
    }
    let of_inputs = progress.input.as_ref().and_then(|_| given_up::noted(bin, Awaited::Inputs));
    of_inputs.into_iter().chain(given_up::noted(bin, Awaited::Staging)).min()
}

/// There is something that the operator should ask for while the command runs.
fn has_news(bin: &Path) -> bool {
    is_marked(bin, files::CANNOT_END) || store_trouble(bin).is_some() || !warnings::said(bin).is_empty()
}

/// What the store answered when it was asked before the command, unless it accepts.
fn store_trouble(bin: &Path) -> Option<StoreTrouble> {
    let answer: Answer = read_json(bin, files::STORE)?;
    let not_saved = answer.trouble()?;
    Some(StoreTrouble { not_saved, holds: !is_marked(bin, files::STORE_CHECKED) })
}

fn answer(mut stream: TcpStream, bin: &Path) -> io::Result<()> {
    let until = Instant::now() + REQUEST;
    let (mut buffer, mut length) = ([0; REQUEST_MAX_BYTES], 0);
    let is_whole = |read: &[u8]| read.windows(4).any(|end| end == b"\r\n\r\n");
    while !is_whole(buffer.get(..length).unwrap_or_default()) {
        let left = until.saturating_duration_since(Instant::now());
        let room = buffer.get_mut(length..).unwrap_or_default();
        if left.is_zero() || room.is_empty() {
            return Ok(());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(room)? {
            0 => return Ok(()),
            n => length += n,
        }
    }
    let asks_for = |path: &str| buffer.strip_prefix(b"GET ").is_some_and(|rest| rest.starts_with(path.as_bytes()));
    let (status, body) = if asks_for("/ready ") {
        (if has_news(bin) { "503 Service Unavailable" } else { "200 OK" }, String::new())
    } else if asks_for("/progress ")
        && let Some(progress) = document(bin)
    {
        ("200 OK", progress)
    } else {
        ("404 Not Found", String::new())
    };
    stream.set_write_timeout(Some(REQUEST))?;
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn server(bin: &Path) -> std::net::SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (address, bin) = (listener.local_addr().unwrap(), bin.to_owned());
        thread::spawn(move || answer_all(&listener, &bin));
        address
    }

    fn ask(address: std::net::SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn progress_is_served_while_there_is_any() {
        let bin = tempfile::tempdir().unwrap();
        let address = server(bin.path());
        let request = "GET /progress HTTP/1.1\r\nHost: pod\r\n\r\n";
        assert!(ask(address, request).starts_with("HTTP/1.1 404 "));
        let transfer = Arc::new(bundle::Progress::default());
        transfer.done_bytes.store(3, Ordering::Relaxed);
        transfer.total_bytes.store(10, Ordering::Relaxed);
        let telling = Telling::start(bin.path(), ProgressStage::Saving, vec![Arc::clone(&transfer), transfer]);
        while !bin.path().join("progress.json").exists() {
            thread::sleep(Duration::from_millis(10));
        }
        let answer = ask(address, request);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains(&format!("Content-Length: {}", body.len())));
        assert_eq!(body, r#"{"stage":"Saving","doneBytes":6,"totalBytes":20}"#);
        assert!(ask(address, "GET /other HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
        fs::write(bin.path().join("not-saved.json"), r#"{"failure":"StoreDenied","detail":"401"}"#).unwrap();
        let answer = ask(address, request);
        assert!(
            answer.ends_with(r#"{"stage":"Saving","doneBytes":6,"totalBytes":20,"trouble":"401"}"#),
            "what failed the last try is told with how far the present one is: {answer}"
        );
        fs::write(bin.path().join("cannot-end"), "").unwrap();
        fs::write(bin.path().join("reported"), "{\"files\":2}\nsaid").unwrap();
        assert!(ask(address, request).ends_with(r#""report":"{\"files\":2}\nsaid"}"#), "the kubelet cannot tell it");
        let ready = ask(address, "GET /ready HTTP/1.1\r\n\r\n");
        assert!(
            ready.starts_with("HTTP/1.1 503 "),
            "where the run container hangs, too, that is all that changes: {ready}"
        );
        fs::remove_file(bin.path().join("cannot-end")).unwrap();
        drop(telling);
        assert!(ask(address, request).ends_with(r#"{"stage":"Saving","doneBytes":0,"totalBytes":0,"trouble":"401"}"#));
        fs::remove_file(bin.path().join("not-saved.json")).unwrap();
        assert!(ask(address, "GET /ready HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 "));
        for (kind, text) in [("OutputTooLarge", "too many files"), ("DiskNearlyFull", "9 of 10")] {
            fs::write(bin.path().join(format!("warning.{kind}.watch-disk")), text).unwrap();
        }
        let warned = concat!(
            r#"{"stage":"Running","doneBytes":0,"totalBytes":0,"warnings":["#,
            r#"{"kind":"OutputTooLarge","detail":"too many files"},{"kind":"DiskNearlyFull","detail":"9 of 10"}]}"#
        );
        assert!(ask(address, request).ends_with(warned));
        assert!(ask(address, "GET /ready HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 503 "));
        warnings::take_back(bin.path());
        assert!(ask(address, request).starts_with("HTTP/1.1 404 "));
        fs::write(bin.path().join("resumed.json"), r#"{"from":"r/n@sha256:0"}"#).unwrap();
        let resumed = r#"{"stage":"Running","doneBytes":0,"totalBytes":0,"resumed":{"from":"r/n@sha256:0"}}"#;
        assert!(ask(address, request).ends_with(resumed));
        assert!(ask(address, "GET /ready HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 "), "that is no trouble");
    }

    #[test]
    fn what_moves_is_told_with_how_fast_it_does() {
        let (bin, transfer) = (tempfile::tempdir().unwrap(), Arc::<bundle::Progress>::default());
        transfer.total_bytes.store(1 << 40, Ordering::Relaxed);
        let _telling = Telling::start(bin.path(), ProgressStage::Staging, vec![Arc::clone(&transfer)]);
        let begin = Instant::now();
        let told = loop {
            assert!(begin.elapsed() < Duration::from_mins(5), "no rate is told");
            transfer.done_bytes.fetch_add(1000, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(10));
            let told: Option<Progress> = document(bin.path()).map(|told| serde_json::from_str(&told).unwrap());
            if let Some(told) = told.filter(|told| told.bytes_per_second > 0) {
                break told;
            }
        };
        let all = transfer.done_bytes.load(Ordering::Relaxed);
        assert!((1..=all).contains(&told.done_bytes) && told.total_bytes == 1 << 40, "{told:?}");
    }

    #[test]
    fn what_is_waited_for_has_its_end_with_it() {
        let bin = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(bin.path().join(name), text).unwrap();
        let end = || serde_json::from_str::<Progress>(&document(bin.path()).unwrap()).unwrap().given_up_at_ms;
        write("progress.json", r#"{"stage":"Staging","doneBytes":1}"#);
        assert_eq!(end(), None);
        write("given-up-at.staging", "5000");
        write("given-up-at.inputs", "3000");
        assert_eq!(end(), Some(5000), "the inputs come");
        write("awaited.json", r#"{"0":{"problem":"NotFound","detail":"404"}}"#);
        assert_eq!(end(), Some(3000));
        write("given-up-at.inputs", "7000");
        assert_eq!(end(), Some(5000), "nothing is waited for longer than that");
        write("store.json", r#"{"refuses":{"failure":"StoreDenied","detail":"401"}}"#);
        write("given-up-at.store", "4000");
        assert_eq!(end(), Some(4000));
        write("progress.json", r#"{"stage":"Saving","doneBytes":1}"#);
        assert_eq!(end(), None);
    }

    #[test]
    fn a_rate_is_that_of_the_last_half_minute() {
        let (mut rate, begin) = (Rate::default(), Instant::now());
        let rates: Vec<u64> = (0..120)
            // A gigabyte that is there already, ten bytes a second for a minute, nothing for another.
            .map(|second| rate.of(1_000_000_000 + 10 * second.min(60), begin + Duration::from_secs(second)))
            .collect();
        assert_eq!([rates[0], rates[1], rates[60], rates[75], rates[119]], [0, 10, 10, 5, 0]);
    }

    #[test]
    fn who_sends_nothing_or_too_much_holds_nobody_up_for_long() {
        let bin = tempfile::tempdir().unwrap();
        let address = server(bin.path());
        let _silent = TcpStream::connect(address).unwrap();
        let mut chatty = TcpStream::connect(address).unwrap();
        let _ = chatty.write_all("x".repeat(20_000).as_bytes());
        let begin = Instant::now();
        assert!(ask(address, "GET /progress HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
}
