//! Trying again what can pass by itself.

use crate::bundle::Error;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// One try that failed.
#[derive(Debug)]
pub(in crate::bundle) struct Failure {
    pub(in crate::bundle) error: Error,
    /// It can pass by itself.
    pub(super) transient: bool,
    /// The registry asked to wait as long.
    pub(super) after: Option<Duration>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, transient: false, after: None }
    }
}

/// The tries of one request: seven in about half a minute.
#[derive(Debug, Default)]
pub(in crate::bundle) struct Tries {
    failed: u32,
}

const MOST: u32 = 7;
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A registry that asks for more is asked again after this: who calls us has a deadline, and ends us at it.
const LONGEST_ASKED: Duration = Duration::from_mins(5);
/// Who waits for longer says so.
const WORTH_SAYING: Duration = Duration::from_mins(1);

impl Tries {
    /// Waits for the time of the next try. An error: it is no use, or there were enough.
    pub(in crate::bundle) async fn again(&mut self, failure: Failure) -> Result<(), Error> {
        self.failed += 1;
        if !failure.transient {
            return Err(failure.error);
        }
        if self.failed >= MOST {
            let message = format!("{} (tried {} times)", failure.error.message, self.failed);
            return Err(Error { message, ..failure.error });
        }
        let wait = self.wait_at_least(failure.after.unwrap_or_default());
        if wait > WORTH_SAYING {
            eprintln!("bundle-operator: {}; asked again in {} s", failure.error, wait.as_secs());
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// `asked` is what the registry wants, as far as that is not too long.
    fn wait_at_least(&self, asked: Duration) -> Duration {
        asked.min(LONGEST_ASKED).max(self.wait())
    }

    /// Twice the last one, give or take a half: clients that failed together shall not come back together.
    fn wait(&self) -> Duration {
        let wait = (FIRST_WAIT * 2u32.saturating_pow(self.failed.min(10) - 1)).min(LONGEST_WAIT);
        let random = u32::try_from(RandomState::new().build_hasher().finish() % 1000).unwrap_or(500);
        wait / 2 + wait * random / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::ErrorKind;

    #[test]
    fn waits_grow_and_end() {
        for failed in 1..40 {
            let wait = Tries { failed }.wait();
            let twice_the_last = (FIRST_WAIT * 2u32.saturating_pow(failed.min(10) - 1)).min(LONGEST_WAIT);
            assert!(wait >= twice_the_last / 2 && wait <= twice_the_last * 3 / 2, "{failed}: {wait:?}");
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
    fn a_registry_that_asks_for_time_gets_it_within_bounds() {
        let tries = Tries { failed: 1 };
        let wait = |seconds| tries.wait_at_least(Duration::from_secs(seconds));
        assert_eq!([90, 300, 86_400].map(wait), [90, 300, 300].map(Duration::from_secs));
        assert!(wait(0) >= FIRST_WAIT / 2);
    }
}
