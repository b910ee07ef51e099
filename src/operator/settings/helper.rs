//! What the helper container of every pod may use, and the pod's quality of service.

use super::fields::{Fields, Problems};
use crate::api::Quantity;
use crate::plan::{HelperResources, Qos};

/// With less it cannot stage and save.
const LEAST_MEMORY: u64 = 64 << 20;

pub(super) fn resources(mut helper: Fields<'_>, problems: &Problems) -> HelperResources {
    let mut resources = helper.section("resources");
    let mut requests = resources.section("requests");
    let mut limits = resources.section("limits");
    let cpu = |of: &mut Fields<'_>| {
        let quantity: Quantity = of.get("cpu")?;
        problems.check(&of.path("cpu"), quantity.millis())
    };
    let memory = |of: &mut Fields<'_>| {
        let quantity: Quantity = of.get("memory")?;
        problems.check(&of.path("memory"), quantity.bytes())
    };
    let read = HelperResources {
        cpu_request_millis: cpu(&mut requests),
        cpu_limit_millis: cpu(&mut limits),
        memory_request_bytes: memory(&mut requests),
        memory_limit_bytes: memory(&mut limits),
    };
    if read.memory_limit_bytes.is_some_and(|most| most < LEAST_MEMORY) {
        problems.note(&limits.path("memory"), "at least 64Mi; outputs of a million files need 256Mi");
    }
    let above = |request: Option<u64>, limit: Option<u64>| request.zip(limit).is_some_and(|(least, most)| least > most);
    if above(read.cpu_request_millis, read.cpu_limit_millis) {
        problems.note(&requests.path("cpu"), "is more than the limit");
    }
    if above(read.memory_request_bytes, read.memory_limit_bytes) {
        problems.note(&requests.path("memory"), "is more than the limit");
    }
    read
}

pub(super) fn qos(file: &mut Fields<'_>, problems: &Problems) -> Qos {
    match file.get::<String>("qos").as_deref() {
        None | Some("Burstable") => Qos::Burstable,
        Some("Guaranteed") => Qos::Guaranteed,
        Some(other) => {
            problems.note("qos", format_args!("{other:?} is none of Burstable, Guaranteed"));
            Qos::Burstable
        }
    }
}
