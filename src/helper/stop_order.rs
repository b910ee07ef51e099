//! The user's order to end: an annotation of the pod, which the kubelet shows as a file. A pod that is deleted instead is
//! the platform's to end, and has less time to save.

use crate::contract::{EndOrder, PodOrder, log_line};
use crate::helper::markers;
use crate::helper::until_dropped::UntilDropped;
use crate::names::files;
use crate::runner::Paths;
use std::thread;
use std::time::Duration;

/// Between two looks. The kubelet shows an annotation a moment after it was written.
const LOOK: Duration = Duration::from_millis(250);

/// Whether it was given.
pub(super) fn is_given(paths: &Paths) -> bool {
    markers::read(&paths.request, files::STOP).is_some_and(|text| !text.trim().is_empty())
}

/// Whether another attempt follows the end that was ordered.
pub(super) fn is_followed(paths: &Paths) -> bool {
    let order = markers::read(&paths.request, files::STOP).and_then(|text| text.trim().parse::<PodOrder>().ok());
    order.is_some_and(|order| order.is_followed)
}

/// Passes the order on to the runner, until dropped. Called before the runner can be there, as
/// [`super::beside::Beside::get_ready`] is. None: the pod was made without the file, and is deleted instead.
pub(super) fn await_it(paths: &Paths) -> Option<UntilDropped> {
    if !markers::is_marked(&paths.request, files::STOP) {
        return None;
    }
    let paths = paths.clone();
    let started = UntilDropped::start("stop", move |over| {
        while !over.is_over() {
            if is_given(&paths) {
                if let Err(error) = markers::order(&paths.bin, &EndOrder::stop()) {
                    log_line!("bundle-operator helper: {error}");
                } else {
                    return;
                }
            }
            thread::park_timeout(LOOK);
        }
    });
    started
        .inspect_err(|error| log_line!("bundle-operator helper: `stop` waits for the kubelet: no thread: {error}"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn an_annotation_that_is_written_becomes_an_order() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        fs::create_dir_all(&paths.bin).unwrap();
        fs::create_dir_all(&paths.request).unwrap();
        let file = paths.request.join(files::STOP);
        let ordered = || markers::read_json::<EndOrder>(&paths.bin, files::END);
        fs::write(&file, "").unwrap();
        let waiting = await_it(&paths);
        assert!(!is_given(&paths) && ordered().is_none());
        fs::write(&file, "2026-11-26T10:00:00Z").unwrap();
        while ordered().is_none() {
            thread::sleep(Duration::from_millis(10));
        }
        assert!(is_given(&paths) && !is_followed(&paths) && ordered() == Some(EndOrder::stop()));
        fs::write(&file, "2026-11-26T10:00:00Z suspend").unwrap();
        assert!(is_given(&paths) && is_followed(&paths));
        drop(waiting);
    }
}
