//! The children of the helper's main process: what may crash, or take much memory, is theirs.

use crate::contract::log_line;
use crate::helper::error::Error;
use crate::helper::markers;
use crate::names::files;
use crate::runner::{Paths, sys};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, set_dumpable_behavior, set_parent_process_death_signal, setrlimit,
};
use std::fs;
use std::path::Path;

/// What a child does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Find out what inputs are, at registries.
    LookUp,
    /// Put inputs in place.
    Stage,
    /// Ask the store whether it would accept the output.
    CheckStore,
    /// Save the output.
    Save,
    /// Count what is in the working directory.
    Measure,
    /// End the run when it fills its disk.
    WatchDisk,
    /// Push large files while the command runs.
    PushEarly,
    /// Take the snapshot that the command waits for.
    Snapshot,
    /// Take one that nobody waits for.
    RegularSnapshot,
}

impl Task {
    /// Its word on the command line.
    pub(super) fn word(self) -> &'static str {
        match self {
            Task::LookUp => "look-up",
            Task::Stage => "stage",
            Task::CheckStore => "check-store",
            Task::Save => "save",
            Task::Measure => "measure",
            Task::WatchDisk => "watch-disk",
            Task::PushEarly => "push-early",
            Task::Snapshot => "snapshot",
            Task::RegularSnapshot => "regular-snapshot",
        }
    }
}

/// What every child does first: nobody traces it, it does not outlive the main process, and its memory is bounded.
pub(super) fn begin(paths: &Paths, task: Task) {
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    limit_memory(&paths.cgroup);
    if matches!(task, Task::PushEarly | Task::RegularSnapshot) {
        yield_to_the_command();
    }
    // Of a child before this one that crashed. Whoever asks the store does so beside one that stages.
    if matches!(task, Task::Stage | Task::Save) {
        markers::unmark(&paths.bin, files::PROGRESS);
    }
}

/// Takes of the processor and the disk what nobody else wants.
fn yield_to_the_command() {
    const LOWEST: i32 = 19;
    let _ = rustix::process::nice(LOWEST);
    sys::use_idle_disk();
}

/// Leaves a quarter of the container's memory to the kernel and to the main process. A child that needs more aborts
/// alone; were it the container that ran out of memory, the kernel would kill the main process with it (cgroup v2, as
/// the kubelet sets it up since Kubernetes 1.28), and nobody would be left to report the run.
fn limit_memory(cgroup: &Path) {
    limit_memory_to(memory_of_a_child(cgroup));
}

pub(super) fn limit_memory_to(most: Option<u64>) {
    if most.is_some()
        && let Err(error) = setrlimit(Resource::Data, Rlimit { current: most, maximum: most })
    {
        log_line!("bundle-operator helper: this process can use up the container's memory: {error}");
    }
}

/// How much a child may have, by the container's limit in a cgroup of version 2 or 1; none: there is no limit. Version
/// 1 then has a number beyond all memory, which limits nothing either.
pub(super) fn memory_of_a_child(cgroup: &Path) -> Option<u64> {
    let limit = |file| fs::read_to_string(cgroup.join(file)).ok()?.trim().parse::<u64>().ok();
    limit("memory.max").or_else(|| limit("memory/memory.limit_in_bytes")).map(|bytes| bytes / 4 * 3)
}

/// The runtime of a child.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    // Reqwest and the registry client take the process's provider. Somebody may have installed it before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Files are read, written and hashed by threads of their own, but for the layers of images, which are hashed as they
    // come: more threads for the connections only wait for each other.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::new("cannot start threads", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_leaves_memory_to_the_main_process() {
        for (file, text, want) in [
            ("memory.max", "536870912\n", Some(402_653_184)),
            ("memory.max", "max\n", None),
            ("memory/memory.limit_in_bytes", "536870912\n", Some(402_653_184)),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n", Some(6_917_529_027_641_078_784)),
            ("cpu.stat", "", None),
        ] {
            let cgroup = tempfile::tempdir().unwrap();
            fs::create_dir(cgroup.path().join("memory")).unwrap();
            fs::write(cgroup.path().join(file), text).unwrap();
            assert_eq!(memory_of_a_child(cgroup.path()), want, "{file}: {text}");
        }
    }
}
