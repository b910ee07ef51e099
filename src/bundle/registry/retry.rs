//! Trying again what can pass by itself.

use crate::bundle::Error;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// One try that failed.
#[derive(Debug)]
pub(in crate::bundle) struct Failure {
    pub(in crate::bundle) error: Error,
    /// It can pass by itself.
    pub(super) passing: bool,
    /// The registry asked to wait as long.
    pub(super) after: Option<Duration>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, passing: false, after: None }
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
/// A registry that asks for more is not waited for: who calls us has a deadline.
const LONGEST_ASKED: Duration = Duration::from_mins(1);

impl Tries {
    /// Waits for the time of the next try. An error: it is no use, or there were enough.
    pub(in crate::bundle) async fn again(&mut self, failure: Failure) -> Result<(), Error> {
        self.failed += 1;
        if !failure.passing {
            return Err(failure.error);
        }
        if self.failed >= MOST || failure.after.is_some_and(|after| after > LONGEST_ASKED) {
            let tries = if self.failed == 1 { "once".to_owned() } else { format!("{} times", self.failed) };
            return Err(Error { message: format!("{} (tried {tries})", failure.error.message), ..failure.error });
        }
        tokio::time::sleep(failure.after.unwrap_or_default().max(self.wait())).await;
        Ok(())
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
            assert!(wait >= FIRST_WAIT / 2 && wait <= LONGEST_WAIT * 3 / 2, "{wait:?}");
        }
    }

    #[tokio::test]
    async fn what_cannot_pass_is_not_tried_again() {
        let error = || Error::new(ErrorKind::Denied, "no");
        assert_eq!(Tries::default().again(error().into()).await.unwrap_err().message, "no");
        let asked = Failure { error: error(), passing: true, after: Some(Duration::from_hours(1)) };
        assert_eq!(Tries::default().again(asked).await.unwrap_err().message, "no (tried once)");
    }
}
