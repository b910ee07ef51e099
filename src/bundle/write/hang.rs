//! A disk that gives no answer holds up the thread that asks it, and not the save: nothing ends such a thread, so it is
//! left behind, and what it asks about is given up.
//!
//! Threads tell what they ask through a value of their own, not through an argument: all between the start of a thread
//! and its calls of the kernel would have to pass it on.

use super::entries::Index;
use crate::bundle::{GivenUp, Progress};
use std::cell::RefCell;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Between two looks at what is asked.
const LOOK: Duration = Duration::from_millis(200);
/// What takes as long is told.
const TOLD_AFTER: Duration = Duration::from_secs(10);
/// What takes less is no hang, however little time there is for the save.
const LEAST: Duration = Duration::from_secs(5);

/// What a question to the disk is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::bundle) enum About {
    /// A path from the root of the tree, which is empty.
    Path(Vec<u8>),
    /// An entry of a plan.
    Entry(Index),
}

impl Default for About {
    fn default() -> Self {
        About::Path(vec![])
    }
}

/// What a thread asks of the disk.
#[derive(Debug, Default)]
pub(in crate::bundle) struct Asked(Mutex<(About, Option<Instant>)>);

thread_local! {
    static ASKED: RefCell<Option<Arc<Asked>>> = const { RefCell::new(None) };
}

impl Asked {
    fn lock(&self) -> MutexGuard<'_, (About, Option<Instant>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `work`, whose questions are told here, for a thread.
    pub(in crate::bundle) fn by<T>(self: Arc<Self>, work: impl FnOnce() -> T) -> impl FnOnce() -> T {
        move || {
            ASKED.set(Some(self));
            let done = work();
            ASKED.set(None);
            done
        }
    }

    /// For how long there is no answer.
    fn waits_for(&self) -> Option<(About, Duration)> {
        let (about, since) = &*self.lock();
        Some((about.clone(), since.as_ref()?.elapsed()))
    }
}

/// This thread's questions are about this path from now on.
pub(in crate::bundle) fn about_path(path: &[u8]) {
    ASKED.with_borrow(|asked| {
        let Some(asked) = asked else { return };
        match &mut asked.lock().0 {
            // Its buffer is used again and again.
            About::Path(known) => {
                known.clear();
                known.extend_from_slice(path);
            }
            other @ About::Entry(_) => *other = About::Path(path.to_vec()),
        }
    });
}

/// This thread's questions are about this entry from now on.
pub(in crate::bundle) fn about_entry(index: Index) {
    ASKED.with_borrow(|asked| {
        if let Some(asked) = asked {
            asked.lock().0 = About::Entry(index);
        }
    });
}

/// A question.
pub(in crate::bundle) fn ask<T>(question: impl FnOnce() -> T) -> T {
    let tell = |since: Option<Instant>| {
        ASKED.with_borrow(|asked| {
            if let Some(asked) = asked {
                asked.lock().1 = since;
            }
        });
    };
    tell(Some(Instant::now()));
    let answer = question();
    tell(None);
    answer
}

/// What the disk has given no answer about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::bundle) struct Hung {
    pub(in crate::bundle) about: About,
    pub(in crate::bundle) time: Duration,
}

impl GivenUp {
    fn is_hang(&self, time: Duration) -> bool {
        let is_late = || self.all_after.is_some_and(|after| SystemTime::now() >= after);
        self.hung_after.is_some_and(|after| time >= after || (time >= LEAST && is_late()))
    }
}

/// The result of `work`, of which a thread with these questions is part, or on what it hangs. What takes long is told by
/// `progress` meanwhile, under its name.
pub(in crate::bundle) async fn unless_hung<T>(
    work: impl Future<Output = T>,
    asked: &Asked,
    given_up: &GivenUp,
    progress: &Progress,
    name: impl Fn(&About) -> String,
) -> Result<T, Hung> {
    let mut told = Told { progress, tells: false };
    let look = async {
        loop {
            tokio::time::sleep(LOOK).await;
            let waits = asked.waits_for();
            let long = waits.as_ref().filter(|(_, time)| *time >= TOLD_AFTER);
            told.tell(long.map(|(about, time)| format!("{}, for {} s", name(about), time.as_secs())));
            if let Some((about, time)) = waits
                && given_up.is_hang(time)
            {
                return Hung { about, time };
            }
        }
    };
    tokio::select! {
        done = work => Ok(done),
        hung = look => Err(hung),
    }
}

/// Takes back what it has told.
struct Told<'a> {
    progress: &'a Progress,
    tells: bool,
}

impl Told<'_> {
    fn tell(&mut self, words: Option<String>) {
        if words.is_some() || self.tells {
            self.tells = words.is_some();
            *self.progress.hangs.lock().unwrap_or_else(PoisonError::into_inner) = words.unwrap_or_default();
        }
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.tell(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given_up(hung_after: Option<u64>, late: bool) -> GivenUp {
        let all_after = late.then(SystemTime::now);
        GivenUp { hung_after: hung_after.map(Duration::from_secs), all_after, ..GivenUp::default() }
    }

    #[test]
    fn a_hang_is_what_takes_long_and_near_the_deadline_what_takes_a_while() {
        let seconds = Duration::from_secs;
        assert!(!given_up(None, true).is_hang(seconds(1_000_000)), "nobody asked for it");
        assert!(!given_up(Some(300), false).is_hang(seconds(299)));
        assert!(given_up(Some(300), false).is_hang(seconds(300)));
        assert!(!given_up(Some(300), true).is_hang(seconds(4)));
        assert!(given_up(Some(300), true).is_hang(seconds(5)));
    }

    #[tokio::test]
    async fn only_a_question_without_an_answer_is_a_hang() {
        let (progress, at_once) = (Progress::default(), given_up(Some(0), false));
        let run = async |work: Box<dyn FnOnce() + Send>| {
            let asked = Arc::new(Asked::default());
            let thread = tokio::task::spawn_blocking(asked.clone().by(work));
            unless_hung(thread, &asked, &at_once, &progress, |_| String::new()).await.map(|done| done.unwrap())
        };
        let slow = Box::new(|| {
            ask(|| about_entry(1));
            std::thread::sleep(Duration::from_millis(600));
        });
        assert_eq!(run(slow).await, Ok(()), "it works, and asks nothing");
        let (answer, question) = std::sync::mpsc::channel::<()>();
        let hung = Box::new(move || {
            about_path(b"a");
            about_path(b"b");
            let _ = ask(|| question.recv());
        });
        assert_eq!(run(hung).await.unwrap_err().about, About::Path(b"b".to_vec()));
        drop(answer);
    }
}
