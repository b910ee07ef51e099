//! How much there is in the working directory, found out by a child: a disk that gives no answer must not hold up the
//! ending.

use crate::helper::error::Error;
use crate::helper::markers::{is_marked, mark_json, read_json};
use crate::helper::mount_points;
use crate::helper::supervise::{Task, retry_until};
use crate::helper::tree::{self, Size};
use crate::names::files;
use crate::runner::Paths;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Counting ends here, with what was counted: the ending is more important.
const COUNT: Duration = Duration::from_mins(1);
/// It ends sooner when the disk says nothing about one entry for so long.
const ENTRY: Duration = Duration::from_secs(10);
/// The child may take as much longer before it is ended: a start on a busy node.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at how far the count is.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Measured {
    files: u64,
    bytes: u64,
}

/// Regular files in the working directory and their bytes, as far as they could be counted.
pub(in crate::helper) fn measure(paths: &Paths) -> Size {
    let mut pause = |time| {
        thread::sleep(time);
        false
    };
    let until = Instant::now() + COUNT + PATIENCE;
    retry_until(paths, Task::Measure, Some(until), &mut pause, &|| is_marked(&paths.bin, files::MEASURED));
    let Measured { files, bytes } = read_json(&paths.bin, files::MEASURED).unwrap_or_default();
    Size { files, bytes, ..Size::default() }
}

/// The child. A thread that hangs ends with it, or is left behind with it.
pub(in crate::helper) fn count(paths: &Paths) -> Result<(), Error> {
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
