//! The command's processes, all of them: looking at them, signalling and reaping.

use super::ending::{End, Id, Process};
use super::signals::{Signals, wait_readable};
use super::sys;
use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two rounds of a signal to all: something may have been forked while the last one went round.
const AGAIN: Duration = Duration::from_millis(50);
/// Enough of a command line to tell it from another one.
const COMMAND_LINE_MAX_BYTES: u64 = 4096;

/// Makes orphans ours, as they are PID 1's anyway.
pub(crate) fn adopt_orphans() {
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

/// Signals the command's process group.
pub(crate) fn signal_group(group: Pid, signal: Signal) {
    let _ = rustix::process::kill_process_group(group, signal);
}

/// Signals these processes, in this order.
pub(crate) fn send(signals: &[(i32, Signal)]) {
    for (pid, signal) in signals {
        if let Some(pid) = Pid::from_raw(*pid) {
            let _ = rustix::process::kill_process(pid, *signal);
        }
    }
}

/// Signals all that the command has started, also what has left its process group.
pub(crate) fn signal_everything(signal: Signal) {
    if rustix::process::getpid() == Pid::INIT {
        sys::signal_all_others(signal);
        return;
    }
    let signals: Vec<_> = descendants().iter().map(|stat| (stat.pid, signal)).collect();
    send(&signals);
}

/// Reaps whatever has ended, and tells of each. False: nobody is left, ended or not.
pub(crate) fn reap(mut ended: impl FnMut(Pid, WaitStatus)) -> bool {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => ended(pid, status),
            Err(Errno::INTR) => {}
            Err(Errno::CHILD) => return false,
            Ok(None) | Err(_) => return true,
        }
    }
}

/// Reaps until nobody is left; false: somebody is, after this time. Kills again and again if asked to.
pub(crate) fn await_end(signals: &Signals, time: Duration, kill: bool) -> bool {
    let until = Instant::now() + time;
    while reap(|_, _| {}) {
        let now = Instant::now();
        if now >= until {
            return false;
        }
        if kill {
            signal_everything(Signal::KILL);
        }
        wait_readable([signals.as_fd()], Some(AGAIN.min(until.saturating_duration_since(now))));
        signals.take();
    }
    true
}

/// What is still there, for people: the first few of what has not ended.
pub(crate) fn survivors() -> Option<String> {
    let left: Vec<Stat> = descendants().into_iter().filter(|stat| !stat.is_zombie()).collect();
    describe(&left)
}

fn describe(left: &[Stat]) -> Option<String> {
    let first = left.first()?;
    let others = match left.len() - 1 {
        0 => String::new(),
        1 => " and 1 other".to_owned(),
        many => format!(" and {many} others"),
    };
    Some(format!("process {} ({}, state {}){others} could not be killed", first.pid, first.name, first.state))
}

/// Every process below this one.
pub(crate) fn look() -> Vec<Process> {
    descendants().into_iter().map(process).collect()
}

fn process(stat: Stat) -> Process {
    let dir = Path::new("/proc").join(stat.pid.to_string());
    let is_zombie = stat.is_zombie();
    let status = read_text(&dir.join("status"));
    let set = |name: &str| signal_set(&status, name);
    let (caught, ignored) = (set("SigCgt:"), set("SigIgn:"));
    let mut blocked = set("SigBlk:");
    // Seldom: the main thread blocks what is caught, and another thread may be there to handle it.
    if caught & blocked != 0 {
        for task in std::fs::read_dir(dir.join("task")).into_iter().flatten().flatten() {
            let status = read_text(&task.path().join("status"));
            if !status.is_empty() {
                blocked &= signal_set(&status, "SigBlk:");
            }
        }
    }
    // Another user's program cannot be read; nor its files.
    let program = std::fs::read_link(dir.join("exe")).ok();
    let program = program.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let reads_pipe = std::fs::read_link(dir.join("fd/0")).is_ok_and(|file| file.to_string_lossy().starts_with("pipe:"));
    Process {
        id: Id { pid: stat.pid, started: stat.started },
        parent: stat.parent,
        is_zombie,
        end: stat.end.filter(|_| is_zombie),
        program: program.unwrap_or(stat.name),
        command_line: read(&dir.join("cmdline"), COMMAND_LINE_MAX_BYTES),
        caught,
        ignored,
        blocked,
        reads_pipe,
    }
}

/// A set of signals in `/proc/<pid>/status`.
fn signal_set(status: &str, name: &str) -> u64 {
    let set = status.lines().find_map(|line| line.strip_prefix(name));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
}

fn read(path: &Path, most: u64) -> Vec<u8> {
    let mut bytes = vec![];
    // What was read before an error is what there is.
    let _ = std::fs::File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes));
    bytes
}

fn read_text(path: &Path) -> String {
    String::from_utf8_lossy(&read(path, 64 * 1024)).into_owned()
}

/// Every process below this one, those further up first.
fn descendants() -> Vec<Stat> {
    let mut all = all();
    let mut parents = vec![i32::from(rustix::process::getpid().as_raw_nonzero())];
    let mut found = vec![];
    while !parents.is_empty() {
        let (below, rest): (Vec<Stat>, Vec<Stat>) = all.into_iter().partition(|stat| parents.contains(&stat.parent));
        parents = below.iter().map(|stat| stat.pid).collect();
        found.extend(below);
        all = rest;
    }
    found
}

fn all() -> Vec<Stat> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return vec![];
    };
    entries
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit))
        .filter_map(|entry| Stat::parse(&std::fs::read(entry.path().join("stat")).ok()?))
        .collect()
}

/// What `/proc/<pid>/stat` says: `pid (name) state parent ...`, and the name can contain anything.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stat {
    pid: i32,
    name: String,
    state: char,
    parent: i32,
    threads: u64,
    started: u64,
    /// Of a zombie, where we may see it.
    end: Option<End>,
}

impl Stat {
    fn parse(stat: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(stat);
        let (pid, rest) = text.split_once(" (")?;
        let (name, rest) = rest.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
        let state = fields.first()?.chars().next()?;
        Some(Self {
            pid: pid.trim().parse().ok()?,
            name: name.to_owned(),
            state,
            parent: fields.get(1)?.parse().ok()?,
            threads: number(17).unwrap_or(1),
            started: number(19).unwrap_or(0),
            end: number(49).and_then(|raw| i32::try_from(raw).ok()).map(End::of_wait_status),
        })
    }

    /// A process whose first thread has ended looks like one although others go on.
    fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x') && self.threads <= 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(pid: i32, name: &str, state: char) -> Stat {
        Stat { pid, name: name.to_owned(), state, parent: 1, threads: 1, started: 0, end: None }
    }

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let rest = "7 7 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 3 0 4711 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 1280";
        let got = Stat::parse(format!("7 (a) b) (c) S 42 {rest}").as_bytes()).unwrap();
        assert_eq!((got.pid, got.name.as_str(), got.state, got.parent), (7, "a) b) (c", 'S', 42));
        assert_eq!((got.threads, got.started, got.end), (3, 4711, Some(End::Exited(5))));
        assert_eq!(Stat::parse(b"1 (init) S 0 1 1").map(|stat| stat.parent), Some(0));
        assert_eq!(Stat::parse(b""), None);
    }

    #[test]
    fn a_process_is_there_while_one_of_its_threads_is() {
        assert!(stat(2, "a", 'Z').is_zombie());
        assert!(!Stat { threads: 2, ..stat(2, "a", 'Z') }.is_zombie());
        assert!(!stat(2, "a", 'D').is_zombie());
    }

    #[test]
    fn what_cannot_be_killed_is_named() {
        assert_eq!(describe(&[]), None);
        let one = describe(&[stat(7, "cat", 'D')]).unwrap();
        assert_eq!(one, "process 7 (cat, state D) could not be killed");
        let three = describe(&[stat(7, "cat", 'D'), stat(8, "a", 'D'), stat(9, "b", 'D')]).unwrap();
        assert_eq!(three, "process 7 (cat, state D) and 2 others could not be killed");
    }

    #[test]
    fn a_process_of_this_machine_is_seen_as_it_is() {
        let mut child = std::process::Command::new("/usr/bin/sleep");
        let mut child = child.arg("100").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let seen = look().into_iter().find(|process| process.id.pid == pid).unwrap();
        child.kill().unwrap();
        // Not waited for yet.
        let ended = loop {
            let seen = look().into_iter().find(|process| process.id.pid == pid).unwrap();
            if seen.is_zombie {
                break seen.end;
            }
        };
        child.wait().unwrap();
        assert_eq!((seen.program.as_str(), seen.command_line.as_slice()), ("sleep", &b"/usr/bin/sleep\x00100\x00"[..]));
        assert_eq!((seen.is_zombie, seen.reads_pipe, seen.caught), (false, true, 0));
        assert_eq!(ended, Some(End::Killed(9)));
    }
}
