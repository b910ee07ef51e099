//! How fast what is pushed may be read.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Shared by all that is pushed at once. The default sets no pace.
#[derive(Debug, Default)]
pub(in crate::bundle) struct Pace {
    bytes_per_second: Option<u64>,
    /// When the next bytes may go out.
    next: Mutex<Option<Instant>>,
}

impl Pace {
    pub(in crate::bundle) fn of(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second, next: Mutex::default() }
    }

    /// Waits until so many bytes may go out.
    pub(in crate::bundle) fn wait(&self, bytes: usize) {
        let Some(rate) = self.bytes_per_second else { return };
        let nanoseconds = bytes as u128 * 1_000_000_000 / u128::from(rate.max(1));
        let time = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let now = Instant::now();
        let begin = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = next.unwrap_or(now).max(now);
            *next = Some(begin + time);
            begin
        };
        std::thread::sleep(begin.saturating_duration_since(now));
    }
}
