//! The child that counts what is in the working directory.

use crate::helper::error::Error;
use crate::helper::markers::mark_json;
use crate::helper::measured::{COUNT, Measured};
use crate::helper::mount_points;
use crate::helper::tree::{self, Size};
use crate::names::files;
use crate::runner::Paths;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// It ends sooner when the disk says nothing about one entry for so long.
const ENTRY: Duration = Duration::from_secs(10);
/// Between two looks at how far the count is.
const LOOK: Duration = Duration::from_millis(50);

/// Leaves the count. A thread that hangs ends with this process, or is left behind with it.
pub(in crate::helper) fn measure(paths: &Paths) -> Result<(), Error> {
    let so_far = Arc::new(Mutex::new((Size::default(), Instant::now())));
    let begin = Instant::now();
    let walk = {
        let (left_out, root, so_far) = (mount_points::made(paths).mounted_over, paths.bundle.clone(), so_far.clone());
        let note = move |size| *so_far.lock().unwrap_or_else(PoisonError::into_inner) = (size, Instant::now());
        move || {
            let size = tree::measure(&root, &left_out, |size| {
                note(size());
                begin.elapsed() < COUNT
            });
            note(size);
        }
    };
    let thread = thread::Builder::new().spawn(walk).map_err(|error| Error::new("cannot start a thread", error))?;
    let size = loop {
        let is_over = thread.is_finished();
        let (size, since) = *so_far.lock().unwrap_or_else(PoisonError::into_inner);
        if is_over || since.elapsed() >= ENTRY {
            break size;
        }
        thread::sleep(LOOK.min(begin.elapsed()));
    };
    mark_json(&paths.bin, files::MEASURED, &Measured { files: size.files, bytes: size.bytes })
}
