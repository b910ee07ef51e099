//! The command's processes, all of them: signalling and reaping.

use super::sys;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use std::time::{Duration, Instant};

/// Makes orphans ours, as they are PID 1's anyway.
pub(crate) fn adopt_orphans() {
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

/// Signals the command's process group.
pub(crate) fn signal_group(group: Pid, signal: Signal) {
    let _ = rustix::process::kill_process_group(group, signal);
}

/// Signals all that the command has started, also what has left its process group.
pub(crate) fn signal_everything(signal: Signal) {
    if rustix::process::getpid() == Pid::INIT {
        sys::signal_all_others(signal);
        return;
    }
    for pid in descendants() {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Reaps whatever has ended; Some: the command was among it.
pub(crate) fn reap(command: Pid) -> Option<WaitStatus> {
    let mut ended = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == command {
            ended = Some(status);
        }
    }
    ended
}

/// Kills all that is left and reaps it. What hangs in the kernel for longer than `patience` is left to the kernel.
pub(crate) fn kill_leftovers(patience: Duration) {
    let until = Instant::now() + patience;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => continue,
            Ok(None) if Instant::now() < until => {}
            _ => return,
        }
        signal_everything(Signal::KILL);
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Every process below this one.
fn descendants() -> Vec<Pid> {
    let parents = parents();
    let mut found = vec![rustix::process::getpid()];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

/// Every process with its parent.
fn parents() -> Vec<(Pid, Pid)> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return vec![];
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
            let stat = std::fs::read(entry.path().join("stat")).ok()?;
            Some((pid, parent(&stat)?))
        })
        .collect()
}

/// The parent in a `/proc/<pid>/stat`: `pid (name) state parent ...`, and the name can contain anything.
fn parent(stat: &[u8]) -> Option<Pid> {
    let after_name = stat.rsplit(|byte| *byte == b')').next()?;
    let parent = std::str::from_utf8(after_name).ok()?.split_whitespace().nth(1)?;
    Pid::from_raw(parent.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_behind_any_name() {
        assert_eq!(parent(b"7 (a) b) (c) S 42 7 7 0 -1").map(Pid::as_raw_nonzero).map(i32::from), Some(42));
        assert_eq!(parent(b"1 (init) S 0 1 1"), None);
        assert_eq!(parent(b""), None);
    }
}
