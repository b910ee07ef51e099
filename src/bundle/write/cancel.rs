//! The end of a save that nobody waits for any more.

use crate::bundle::{Error, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether reading shall end early.
#[derive(Debug, Default)]
pub(in crate::bundle) struct Cancelled(AtomicBool);

impl Cancelled {
    pub(in crate::bundle) fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(in crate::bundle) fn check(&self) -> Result<(), Error> {
        if self.0.load(Ordering::Relaxed) { Err(Error::new(ErrorKind::Local, "given up")) } else { Ok(()) }
    }
}

/// Tells the threads that read when nobody waits for them any more.
#[derive(Default)]
pub(super) struct Cancel(pub(super) Arc<Cancelled>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
