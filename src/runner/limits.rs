//! When to end the command, and how hard. No clock in here: callers say what time it is.

use crate::contract::{Cause, Request};
use std::time::{Duration, Instant};

/// Why the runner ends the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The platform asked for it.
    AskedToStop,
    /// A limit was crossed.
    Cause(Cause),
}

/// What is to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    /// The time limit is over.
    TimeIsUp,
    /// The grace is over.
    Kill,
    /// It has been over for a moment.
    KillAgain,
    /// What is still there cannot be killed.
    GiveUp,
}

/// One look at the clock after another.
#[derive(Debug)]
pub(crate) struct Limits {
    time_limit: Option<Duration>,
    grace: Duration,
    time_up: Option<Instant>,
    kill_at: Option<Instant>,
    /// When the grace was over.
    killed_at: Option<Instant>,
    reason: Option<Reason>,
}

/// Grace after the disk limit: a command that does not end goes on filling the disk, at gigabytes a second if it can,
/// up to where the kubelet evicts the pod and the record is lost.
const DISK_GRACE: Duration = Duration::from_secs(2);
/// Something may have been forked while the last KILL went round.
const KILL_AGAIN: Duration = Duration::from_millis(200);
/// How long killed processes may take to go. A process that hangs in the kernel (a network file system, a GPU driver)
/// may take for ever, and so may one of another user; a run ends all the same.
pub(crate) const KILL_PATIENCE: Duration = Duration::from_secs(10);

impl Limits {
    pub(crate) fn of(request: &Request) -> Self {
        Self {
            time_limit: request.time_limit_seconds.map(Duration::from_secs),
            grace: Duration::from_secs(request.stop_grace_seconds),
            time_up: None,
            kill_at: None,
            killed_at: None,
            reason: None,
        }
    }

    /// The time limit counts from here. Called when the shell starts, so that a `.bashrc` cannot go on for ever, and
    /// again when the command begins.
    pub(crate) fn count_from(&mut self, now: Instant) {
        self.time_up = self.time_limit.and_then(|limit| now.checked_add(limit));
    }

    /// Begins the grace. False: it had begun before, and the first reason stays.
    pub(crate) fn end(&mut self, reason: Reason, now: Instant) -> bool {
        if self.reason.is_some() {
            return false;
        }
        self.reason = Some(reason);
        let grace = match reason {
            Reason::Cause(Cause::DiskLimitExceeded) => self.grace.min(DISK_GRACE),
            Reason::Cause(_) | Reason::AskedToStop => self.grace,
        };
        self.kill_at = now.checked_add(grace);
        true
    }

    /// What is to do; each thing is told once, killing again and again until it is given up.
    pub(crate) fn due(&mut self, now: Instant) -> Due {
        if self.reason.is_none() {
            return if self.time_up.is_some_and(|at| at <= now) { Due::TimeIsUp } else { Due::Nothing };
        }
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = now.checked_add(KILL_AGAIN);
            let Some(killed_at) = self.killed_at else {
                self.killed_at = Some(now);
                return Due::Kill;
            };
            return if now >= killed_at + KILL_PATIENCE { Due::GiveUp } else { Due::KillAgain };
        }
        Due::Nothing
    }

    /// When something will be due, if nothing else happens.
    pub(crate) fn next(&self) -> Option<Instant> {
        if self.reason.is_some() { self.kill_at } else { self.time_up }
    }

    /// Why the command was ended, if it was.
    pub(crate) fn reason(&self) -> Option<Reason> {
        self.reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Command;

    fn limits(time_limit_seconds: Option<u64>) -> Limits {
        let command = Command::Shell(String::new());
        Limits::of(&Request { time_limit_seconds, ..Request::new(command, 30) })
    }

    #[test]
    fn the_time_limit_is_followed_by_the_grace_and_then_killing() {
        let t0 = Instant::now();
        let at = |seconds| t0 + Duration::from_secs(seconds);
        let mut limits = limits(Some(10));
        assert_eq!(limits.due(at(100)), Due::Nothing, "nothing has started");
        limits.count_from(t0);
        limits.count_from(at(5));
        assert_eq!(limits.next(), Some(at(15)));
        assert_eq!(limits.due(at(14)), Due::Nothing);
        assert_eq!(limits.due(at(15)), Due::TimeIsUp);
        assert!(limits.end(Reason::Cause(Cause::TimeLimitExceeded), at(15)));
        assert_eq!(limits.due(at(44)), Due::Nothing);
        assert_eq!(limits.due(at(45)), Due::Kill);
        assert_eq!(limits.due(at(45)), Due::Nothing);
        assert_eq!(limits.due(at(46)), Due::KillAgain);
        assert_eq!(limits.due(at(54)), Due::KillAgain);
        assert_eq!(limits.due(at(55)), Due::GiveUp);
    }

    #[test]
    fn what_fills_the_disk_gets_no_long_grace() {
        let t0 = Instant::now();
        let mut limits = limits(None);
        assert!(limits.end(Reason::Cause(Cause::DiskLimitExceeded), t0));
        assert_eq!(limits.due(t0 + Duration::from_millis(1999)), Due::Nothing);
        assert_eq!(limits.due(t0 + DISK_GRACE), Due::Kill);
    }

    #[test]
    fn the_first_reason_stays() {
        let t0 = Instant::now();
        let mut limits = limits(Some(10));
        limits.count_from(t0);
        assert!(limits.end(Reason::AskedToStop, t0));
        assert!(!limits.end(Reason::Cause(Cause::DiskLimitExceeded), t0));
        assert_eq!(limits.due(t0 + Duration::from_secs(11)), Due::Nothing);
        assert_eq!(limits.reason(), Some(Reason::AskedToStop));
    }

    #[test]
    fn no_limit_and_an_endless_one_are_never_up() {
        for limit in [None, Some(u64::MAX)] {
            let mut limits = limits(limit);
            limits.count_from(Instant::now());
            assert_eq!(limits.next(), None);
        }
    }
}
