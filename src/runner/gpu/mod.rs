//! What a run with GPUs needs before its command: the host's driver in front, a preflight, and what is known of the
//! devices.
//!
//! | file | subject |
//! |---|---|
//! | `driver` | the driver's own libraries of a host's directory, and only those |
//! | `preflight` | devices and libraries that must be there |
//! | `facts` | ids, model and driver version, read from files: the runner loads no library |

mod driver;
mod facts;
mod preflight;

use super::environment::Front;
use super::never_ran::NeverRan;
use super::paths::Paths;
use crate::contract::{Cause, GpuFacts, GpuRequest};
use std::env;

/// A container whose GPUs are ready.
#[derive(Debug, Default)]
pub(crate) struct Gpus {
    /// For the record.
    pub(crate) facts: Option<GpuFacts>,
    /// For the command.
    pub(crate) front: Front,
}

/// Puts the driver in place and checks that all is there. Nothing to do for a run without GPUs.
pub(crate) fn ready(paths: &Paths, request: Option<&GpuRequest>) -> Result<Gpus, NeverRan> {
    let Some(request) = request.filter(|request| request.count > 0) else { return Ok(Gpus::default()) };
    let linked = request.driver.as_ref().map(|host| driver::link(paths, host)).transpose()?;
    let front = front(paths, Some(request));
    let own_driver = linked.as_ref().map(|linked| (linked.directory.as_path(), driver::Names::of(request)));
    preflight::check(paths, request, own_driver.as_ref(), &env::var_os("LD_LIBRARY_PATH").unwrap_or_default())?;
    let visible = env::var("NVIDIA_VISIBLE_DEVICES").unwrap_or_default();
    let facts = facts::read(&paths.root, &visible, linked.and_then(|linked| linked.version));
    Ok(Gpus { facts, front })
}

/// Where the host's driver is that was put in place for this request.
pub(crate) fn front(paths: &Paths, request: Option<&GpuRequest>) -> Front {
    let host = request.filter(|request| request.count > 0).and_then(|request| request.driver.as_ref());
    host.map(|host| Front::of(&driver::directory(paths), &host.bin_dirs)).unwrap_or_default()
}

fn unavailable(why: impl Into<String>) -> NeverRan {
    NeverRan::because(Cause::GpuUnavailable, why)
}
