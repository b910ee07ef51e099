//! Trying again what can pass by itself.

use crate::bundle::Error;
use crate::contract::log_line;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What a request is being tried again for, for who waits for it and must not call the other side silent.
pub(crate) type Heard = Arc<Mutex<Option<Error>>>;

tokio::task_local! {
    static HEARD: Heard;
}

/// Notes in `heard` why the requests of `work` are tried again.
pub(crate) fn listen<F: Future>(heard: Heard, work: F) -> impl Future<Output = F::Output> {
    HEARD.scope(heard, work)
}

/// One try that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// It can pass by itself.
    pub(crate) transient: bool,
    /// The server asked to wait as long.
    pub(crate) after: Option<Duration>,
}

impl Failure {
    /// It can pass by itself, in a time that nobody has named.
    pub(crate) fn transient(error: Error) -> Self {
        Self { error, transient: true, after: None }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, transient: false, after: None }
    }
}

/// The tries of one request: seven in about half a minute.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    failed: u32,
}

const MOST: u32 = 7;
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A server that asks for more is asked again after this: who calls us has a deadline, and ends us at it.
const LONGEST_ASKED: Duration = Duration::from_mins(5);
/// Who waits for longer says so.
const WORTH_SAYING: Duration = Duration::from_mins(1);

impl Tries {
    /// Waits for the time of the next try. An error: it is no use, or there were enough.
    pub(crate) async fn again(&mut self, failure: Failure) -> Result<(), Error> {
        self.failed += 1;
        if !failure.transient {
            return Err(failure.error);
        }
        if self.failed >= MOST {
            let message = format!("{} (tried {} times)", failure.error.message, self.failed);
            return Err(Error { message, ..failure.error });
        }
        // Nobody may be listening.
        let _ = HEARD.try_with(|heard| {
            *heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure.error.clone());
        });
        let wait = self.wait_at_least(failure.after.unwrap_or_default());
        if wait > WORTH_SAYING {
            log_line!("bundle-operator: {}; asked again in {} s", failure.error, wait.as_secs());
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// `asked` is what the server wants, as far as that is not too long.
    fn wait_at_least(&self, asked: Duration) -> Duration {
        asked.min(LONGEST_ASKED).max(self.wait())
    }

    /// Give or take a half: clients that failed together shall not come back together.
    fn wait(&self) -> Duration {
        let wait = self.mean_wait();
        let random = u32::try_from(RandomState::new().build_hasher().finish() % 1000).unwrap_or(500);
        wait / 2 + wait * random / 1000
    }

    /// Twice the last one.
    fn mean_wait(&self) -> Duration {
        (FIRST_WAIT * 2u32.saturating_pow(self.failed.clamp(1, 10) - 1)).min(LONGEST_WAIT)
    }
}

/// The tries of a transfer that goes on where it was cut off: of any length, as long as it comes forward.
#[derive(Debug, Default)]
pub(crate) struct Resumptions {
    /// Since anything came.
    tries: Tries,
    /// In a row, with less than [`FORWARD`] between them.
    resumed: u32,
    /// Bytes that came since the last.
    came: u64,
}

/// So many times in a row a transfer is taken up again that comes forward by less than [`FORWARD`] each time.
const MOST_RESUMED: u32 = 100;
/// Bytes after which a transfer has come forward.
const FORWARD: u64 = 1 << 20;

impl Resumptions {
    /// Bytes came, or went.
    pub(crate) fn came(&mut self, bytes: u64) {
        if bytes > 0 {
            self.tries = Tries::default();
        }
        self.came = self.came.saturating_add(bytes);
    }

    /// Waits for the time to take it up again. An error: it is no use, or there were enough.
    pub(crate) async fn again(&mut self, failure: Failure) -> Result<(), Error> {
        if self.is_stuck() {
            return Err(failure.error);
        }
        self.tries.again(failure).await
    }

    /// Counts one more.
    fn is_stuck(&mut self) -> bool {
        let came = std::mem::take(&mut self.came);
        self.resumed = if came < FORWARD { self.resumed + 1 } else { 1 };
        self.resumed > MOST_RESUMED
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::ErrorKind;
    use std::collections::BTreeSet;

    #[test]
    fn a_transfer_is_taken_up_again_as_often_as_it_comes_forward() {
        let resumed = |bytes: u64| {
            let mut resumptions = Resumptions::default();
            let taken_up = |_: &u32| {
                resumptions.came(bytes);
                !resumptions.is_stuck()
            };
            (0..1000).take_while(taken_up).count()
        };
        // 200 GB of a connection that drops every GB.
        assert_eq!(resumed(1_000_000_000), 1000);
        assert_eq!(resumed(1 << 20), 1000);
        assert_eq!(resumed((1 << 20) - 1), 100);
        assert_eq!(resumed(1), 100);
    }

    #[test]
    fn waits_double_up_to_a_bound_and_are_not_the_same_twice() {
        let mean = |failed| u64::try_from(Tries { failed }.mean_wait().as_millis()).unwrap();
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7, 40].map(mean), [250, 250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        for failed in 1..40 {
            let waits: BTreeSet<u64> =
                (0..100).map(|_| u64::try_from(Tries { failed }.wait().as_millis()).unwrap()).collect();
            let (first, last) = (waits.first().unwrap(), waits.last().unwrap());
            assert!(*first >= mean(failed) / 2 && *last <= mean(failed) * 3 / 2, "{failed}: {waits:?}");
            // A hundred draws of one in a thousand that are all in a third of the range are less likely than 3^-99.
            assert!(last - first > mean(failed) / 3, "{failed}: {waits:?}");
        }
    }

    #[tokio::test]
    async fn what_cannot_pass_is_not_tried_again() {
        let error = || Error::new(ErrorKind::Denied, "no");
        assert_eq!(Tries::default().again(error().into()).await.unwrap_err().message, "no");
        let mut tries = Tries { failed: MOST - 1 };
        let last = Failure { error: error(), transient: true, after: None };
        assert_eq!(tries.again(last).await.unwrap_err().message, "no (tried 7 times)");
    }

    #[test]
    fn a_server_that_asks_for_time_gets_it_within_bounds() {
        let tries = Tries { failed: 1 };
        let wait = |seconds| tries.wait_at_least(Duration::from_secs(seconds));
        assert_eq!([90, 300, 86_400].map(wait), [90, 300, 300].map(Duration::from_secs));
        assert!(wait(0) >= FIRST_WAIT / 2);
    }
}
