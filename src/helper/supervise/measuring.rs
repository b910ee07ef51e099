//! How much there is in the working directory, found out by a child: a disk that gives no answer must not hold up the
//! ending.

use crate::helper::child::Task;
use crate::helper::markers::{is_marked, read_json};
use crate::helper::measured::{COUNT, Measured};
use crate::helper::supervise::retry_until;
use crate::helper::tree::Size;
use crate::names::files;
use crate::runner::Paths;
use std::thread;
use std::time::{Duration, Instant};

/// The child may take as much longer before it is ended: a start on a busy node.
const PATIENCE: Duration = Duration::from_secs(10);

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
