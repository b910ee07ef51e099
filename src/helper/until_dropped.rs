//! A thread that works until its value is dropped.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// Dropping it wakes the thread and waits for its end.
#[derive(Debug)]
pub(super) struct UntilDropped {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Tells the thread whether it is over. It parks between two looks.
#[derive(Clone, Debug, Default)]
pub(super) struct Over(Arc<AtomicBool>);

impl Over {
    pub(super) fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl UntilDropped {
    pub(super) fn start(name: &str, work: impl FnOnce(&Over) + Send + 'static) -> io::Result<Self> {
        let over = Arc::<AtomicBool>::default();
        let told = Over(Arc::clone(&over));
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || work(&told))?;
        Ok(Self { over, thread: Some(thread) })
    }

    /// Has it look.
    pub(super) fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for UntilDropped {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
