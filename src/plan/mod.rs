//! PURE: what shall be done about one run, given what was observed, the settings and the time.
//!
//! [`plan`] is total and deterministic: the clock is a parameter, nothing is read or written, waiting is a value.
//! The object is the state: whatever a later plan needs is on the `BundleRun` or its pod, so a crash loses nothing.
//!
//! Each room uses only those above it; `tests/structure` sees to it.
//!
//! | room | subject |
//! |---|---|
//! | `words` | what may be said: tables of causes, reasons to wait and conditions |
//! | `facts` | what is seen: the pod and where it stands, nodes, runs that are inputs, settings |
//! | `outcome` | an attempt that ended -> its cause |
//! | `pod` | a valid run -> the pod of an attempt |
//! | `own_address` | addresses of the pod itself, where no input can come from |
//! | `validate` | a `BundleRun` -> a valid run, or all that is wrong with it |
//! | `status` | facts -> the status of the object |
//! | `steps` | what a plan is made of |
//! | `decide` | facts -> steps |

mod decide;
pub mod facts;
mod outcome;
mod own_address;
mod pod;
mod status;
mod steps;
mod validate;
mod words;

#[cfg(test)]
mod tests;

pub use decide::plan;
pub use facts::node::{Capacity, IMAGE_VOLUMES_SINCE, NodeFacts, NodeObject, NodeSeen};
pub use facts::parents::{self, Parent, Parents};
pub use facts::pod::{PodFacts, PodSeen};
pub use facts::pod_events::PodEvent;
pub use facts::settings::{Driver, GpuProfile, HelperResources, Qos, Settings, Store};
pub use pod::pod_name;
pub use status::current_pod;
pub(crate) use status::unknown_message;
pub use steps::{Event, EventType, InvalidField, Observed, Plan, PodKept, PodRef, ProgressSeen, Refusal, Step};
pub(crate) use validate::{DEFAULT_CPU_MILLIS, DEFAULT_MEMORY_BYTES};
pub(crate) use words::cause::{Cause, Subject};
pub(crate) use words::condition::{ConditionType, STOPPING, SUSPENDING};
pub(crate) use words::message::{Source, is_told_by_admission};
pub(crate) use words::wait_reason::{Deadline, Reason};
