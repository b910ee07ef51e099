//! Children that no KILL reaches, because they wait in the kernel for a disk that gives no answer. While one of them is
//! there, this container cannot end: the kernel keeps its main process until all others are gone.

use std::fs;
use std::process::Child;
use std::sync::{Mutex, PoisonError};

/// Children belong to the process.
static LEFT: Mutex<Vec<Child>> = Mutex::new(vec![]);

/// A child that was killed and did not end.
pub(super) fn leave(child: Child) {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner).push(child);
}

/// How many of them are still there.
pub(in crate::helper) fn count() -> usize {
    let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
    left.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    left.len()
}

/// Its main thread is over, and others are not: it will do nothing more.
pub(super) fn has_ended_but_for_its_threads(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('Z'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_child_counts_until_it_has_ended() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        assert!(!has_ended_but_for_its_threads(child.id()));
        let _ = child.kill();
        while !has_ended_but_for_its_threads(child.id()) {
            std::thread::yield_now();
        }
        leave(child);
        assert_eq!(count(), 0);
    }
}
