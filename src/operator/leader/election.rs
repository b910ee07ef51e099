//! Who leads: decided from what was seen of the lease and when, by the clock of this process alone. Clocks of two
//! machines are never compared: another's lease has run out when it was not seen to change for as long as it lasts.

use std::time::Duration;

/// A holder that does not renew for this long may be replaced.
pub(in crate::operator) const LEASE_DURATION: Duration = Duration::from_secs(15);
/// A holder that could not renew for this long stops by itself: some seconds before anybody may replace it.
pub(in crate::operator) const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks at the lease, or two renewals.
pub(in crate::operator) const RETRY: Duration = Duration::from_secs(2);

/// What matters of the lease as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::operator) struct Stored {
    /// None or empty: it was let go.
    pub(in crate::operator) holder: Option<String>,
    /// What its holder promised.
    pub(in crate::operator) duration: Option<Duration>,
    /// Another one with every write.
    pub(in crate::operator) version: String,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::operator) enum Next {
    /// Nothing for this long.
    Wait(Duration),
    /// Read the lease.
    Look,
    /// Write ourselves into the lease that was seen last.
    Hold,
    /// We led and may not any more.
    Lost,
}

/// A candidate's view. All times are of one clock that also goes on while the process or its machine sleeps.
#[derive(Debug)]
pub(in crate::operator) struct Election {
    identity: String,
    /// The lease as seen last, and since when it is so; none: it was never looked at, or there is none.
    seen: Option<(Stored, Duration)>,
    /// What was seen is from this round.
    fresh: bool,
    /// Until when we lead; none: we never did.
    held_until: Option<Duration>,
    lost: bool,
    next_at: Duration,
}

impl Election {
    /// A candidate that has seen nothing. No other may ever have the same identity.
    pub(in crate::operator) fn new(identity: String) -> Self {
        Self { identity, seen: None, fresh: false, held_until: None, lost: false, next_at: Duration::ZERO }
    }

    pub(in crate::operator) fn identity(&self) -> &str {
        &self.identity
    }

    /// Until when we lead.
    pub(in crate::operator) fn held_until(&self) -> Option<Duration> {
        self.held_until.filter(|_| !self.lost)
    }

    /// What to do now.
    pub(in crate::operator) fn next(&mut self, now: Duration) -> Next {
        if self.lost || self.held_until.is_some_and(|until| now >= until) {
            self.lost = true;
            return Next::Lost;
        }
        if now < self.next_at {
            let until = self.held_until.map_or(self.next_at, |until| until.min(self.next_at));
            return Next::Wait(until.saturating_sub(now));
        }
        if !self.fresh {
            return Next::Look;
        }
        if self.held_until.is_some() || self.is_free(now) {
            return Next::Hold;
        }
        self.try_again_later(now);
        Next::Wait(RETRY)
    }

    /// The answer to a look; `now` is when it came.
    pub(in crate::operator) fn saw(&mut self, lease: Option<Stored>, now: Duration) {
        let ours = lease.as_ref().is_some_and(|lease| lease.holder.as_deref() == Some(&self.identity));
        self.lost |= self.held_until.is_some() && !ours;
        self.seen = match (lease, self.seen.take()) {
            (Some(lease), Some((before, since))) if lease.version == before.version => Some((lease, since)),
            (lease, _) => lease.map(|lease| (lease, now)),
        };
        self.fresh = true;
    }

    /// Our write was taken. It counts from before it was sent: from then on others may have seen it.
    pub(in crate::operator) fn holds(&mut self, lease: Stored, asked_at: Duration) {
        self.seen = Some((lease, asked_at));
        self.fresh = true;
        self.held_until = Some(asked_at + RENEW_DEADLINE);
        self.next_at = asked_at + RETRY;
    }

    /// Somebody else wrote first, or there was no answer, so that nobody knows whether our write was taken.
    pub(in crate::operator) fn try_again_later(&mut self, now: Duration) {
        self.fresh = false;
        self.next_at = now + RETRY;
    }

    fn is_free(&self, now: Duration) -> bool {
        let Some((lease, since)) = &self.seen else { return true };
        let holder = lease.holder.as_deref().unwrap_or_default();
        // Ours, and we do not lead: a write of ours was taken whose answer was lost.
        holder.is_empty()
            || holder == self.identity
            || now.saturating_sub(*since) >= lease.duration.unwrap_or_default().max(LEASE_DURATION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Next::{Hold, Look, Lost, Wait};

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn stored(holder: &str, version: &str) -> Stored {
        Stored { holder: Some(holder.to_owned()), duration: Some(LEASE_DURATION), version: version.into() }
    }

    #[allow(clippy::unnecessary_wraps)] // what a look finds
    fn lease(holder: &str, version: &str) -> Option<Stored> {
        Some(stored(holder, version))
    }

    enum Event {
        Saw(Option<Stored>),
        /// Our write was taken, sent so many seconds before.
        Holds(&'static str, u64),
        Failed,
    }
    use Event::{Failed, Holds, Saw};

    /// At each second: what to do, and what then happened.
    fn check(story: Vec<(u64, Next, Option<Event>)>) -> Election {
        let mut election = Election::new("me".into());
        for (i, (at, expected, event)) in story.into_iter().enumerate() {
            assert_eq!(election.next(s(at)), expected, "step {i}, second {at}");
            match event {
                None => {}
                Some(Saw(found)) => election.saw(found, s(at)),
                Some(Holds(version, before)) => election.holds(stored("me", version), s(at - before)),
                Some(Failed) => election.try_again_later(s(at)),
            }
        }
        election
    }

    #[test]
    fn the_first_of_all_leads_at_once_and_renews_every_two_seconds() {
        let election = check(vec![
            (100, Look, Some(Saw(None))),
            (100, Hold, Some(Holds("1", 0))),
            (100, Wait(s(2)), None),
            (102, Hold, Some(Holds("2", 0))),
            (104, Hold, Some(Holds("3", 0))),
        ]);
        assert_eq!(election.held_until(), Some(s(114)));
    }

    #[test]
    fn a_lease_that_was_let_go_is_free_at_once() {
        check(vec![(100, Look, Some(Saw(lease("", "7")))), (100, Hold, None)]);
    }

    #[test]
    fn a_lease_of_another_runs_out_when_it_was_not_seen_to_change_for_as_long_as_it_lasts() {
        check(vec![
            (100, Look, Some(Saw(lease("other", "1")))),
            (100, Wait(s(2)), None),
            (102, Look, Some(Saw(lease("other", "2")))), // it lives
            (102, Wait(s(2)), None),
            (110, Look, Some(Saw(lease("other", "2")))),
            (110, Wait(s(2)), None),
            (116, Look, Some(Saw(lease("other", "2")))),
            (116, Wait(s(2)), None), // 14 s since it changed
            (118, Look, Some(Saw(lease("other", "2")))),
            (118, Hold, Some(Failed)), // somebody else was faster
            (118, Wait(s(2)), None),
            (120, Look, Some(Saw(lease("third", "3")))),
            (120, Wait(s(2)), None),
        ]);
    }

    #[test]
    fn a_holder_that_promised_more_gets_it() {
        let longer = lease("other", "1").map(|l| Stored { duration: Some(s(40)), ..l });
        check(vec![
            (100, Look, Some(Saw(longer.clone()))),
            (100, Wait(s(2)), None),
            (139, Look, Some(Saw(longer.clone()))),
            (139, Wait(s(2)), None),
            (141, Look, Some(Saw(longer))),
            (141, Hold, None),
        ]);
    }

    #[test]
    fn a_renewal_counts_from_before_it_was_sent() {
        check(vec![
            (100, Look, Some(Saw(None))),
            (100, Hold, Some(Holds("1", 0))),
            (102, Hold, Some(Holds("2", 0))),
            (107, Hold, Some(Holds("3", 3))), // sent at 104
            (113, Hold, Some(Failed)),
            (113, Wait(s(1)), None), // not beyond the deadline
            (114, Lost, None),
        ]);
    }

    #[test]
    fn a_leader_without_answers_stops_after_ten_seconds_and_stays_stopped() {
        let election = check(vec![
            (100, Look, Some(Saw(None))),
            (100, Hold, Some(Holds("1", 0))),
            (102, Hold, Some(Failed)),
            (104, Look, Some(Failed)),
            (106, Look, Some(Saw(lease("me", "1")))),
            (106, Hold, Some(Failed)),
            (110, Lost, None),
        ]);
        assert_eq!(election.held_until(), None);
    }

    #[test]
    fn a_leader_goes_on_when_the_api_server_answers_again_in_time() {
        check(vec![
            (100, Look, Some(Saw(None))),
            (100, Hold, Some(Holds("1", 0))),
            (102, Hold, Some(Failed)),
            (104, Look, Some(Saw(lease("me", "2")))), // it had been taken
            (104, Hold, Some(Holds("3", 0))),
            (113, Hold, None),
        ]);
    }

    #[test]
    fn a_leader_that_finds_another_in_the_lease_stops_at_once() {
        for found in [lease("other", "2"), lease("", "2"), None] {
            let election = check(vec![
                (100, Look, Some(Saw(None))),
                (100, Hold, Some(Holds("1", 0))),
                (102, Hold, Some(Failed)),
                (104, Look, Some(Saw(found))),
                (104, Lost, None),
            ]);
            assert_eq!(election.held_until(), None);
        }
    }

    #[test]
    fn a_leader_that_was_paused_has_lost_whatever_it_was_about_to_do() {
        for before in [None, Some(Failed), Some(Holds("2", 0))] {
            check(vec![
                (100, Look, Some(Saw(None))),
                (100, Hold, Some(Holds("1", 0))),
                (102, Hold, before),
                (162, Lost, None),
            ]);
        }
    }

    #[test]
    fn an_answer_that_comes_after_the_deadline_makes_no_leader() {
        check(vec![(100, Look, Some(Saw(None))), (111, Hold, Some(Holds("1", 11))), (111, Lost, None)]);
    }

    #[test]
    fn a_write_whose_answer_was_lost_is_taken_up() {
        check(vec![
            (100, Look, Some(Saw(None))),
            (100, Hold, Some(Failed)),
            (102, Look, Some(Saw(lease("me", "1")))),
            (102, Hold, Some(Holds("2", 0))),
            (103, Wait(s(1)), None),
        ]);
    }
}
