//! How far something long has come, on the standard error of a terminal, with rate and time left.

use std::io::{self, IsTerminal as _, Write as _};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::bundle::Progress;
use crate::contract::{size_for_people, time_for_people};

/// Between two looks at how far it has come.
const LOOK: Duration = Duration::from_millis(250);

/// Shows on a terminal how far it has come, after `what`.
pub(super) async fn watched<T, E>(
    work: impl Future<Output = Result<T, E>>,
    progress: &Progress,
    started: Instant,
    what: &str,
) -> Result<T, E> {
    let mut work = pin!(work);
    let is_terminal = io::stderr().is_terminal();
    let mut was_shown = false;
    loop {
        if let Ok(end) = tokio::time::timeout(LOOK, &mut work).await {
            if was_shown {
                let _ = write!(io::stderr(), "\r\u{1b}[K");
            }
            return end;
        }
        if is_terminal {
            let done = progress.done_bytes.load(Ordering::Relaxed);
            let total = progress.total_bytes.load(Ordering::Relaxed);
            let _ = write!(io::stderr(), "\r{what}{}\u{1b}[K", line(done, total, started.elapsed()));
            was_shown = true;
        }
    }
}

/// So many bytes in this time.
pub(super) fn summary(bytes: u64, took: Duration) -> String {
    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    format!("{} in {}", size_for_people(bytes), time_for_people(ms))
}

fn line(done: u64, total: u64, elapsed: Duration) -> String {
    let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = u64::try_from(u128::from(done) * 1000 / u128::from(ms)).unwrap_or(u64::MAX);
    let mut line = size_for_people(done);
    if total > 0 {
        line = format!("{line} of {}, {} %", size_for_people(total), u128::from(done) * 100 / u128::from(total));
    }
    line = format!("{line}, {}/s", size_for_people(rate));
    match total.saturating_sub(done).checked_div(rate) {
        Some(left) if total > done => format!("{line}, {} left", time_for_people(left.max(1).saturating_mul(1000))),
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_has_rate_and_time_left() {
        assert_eq!(line(5 << 20, 20 << 20, Duration::from_secs(1)), "5.0 MiB of 20.0 MiB, 25 %, 5.0 MiB/s, 3s left");
        assert_eq!(line(0, 0, Duration::ZERO), "0 B, 0 B/s");
        assert_eq!(line(0, 10, Duration::from_secs(1)), "0 B of 10 B, 0 %, 0 B/s");
        assert_eq!(line(10, 10, Duration::from_secs(1)), "10 B of 10 B, 100 %, 10 B/s");
    }
}
