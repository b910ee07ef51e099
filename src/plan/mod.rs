//! PURE: what shall be done about one run, given what was observed, the settings and the time.
//!
//! [`plan`] is total and deterministic: the clock is a parameter, nothing is read or written, waiting is a value.
//! The object is the state: whatever a later plan needs is on the `BundleRun` or its pod, so a crash loses nothing.

mod causes;
mod conditions;
mod decision;
pub mod facts;
mod gpu;
mod hung;
mod image;
mod inputs;
mod measured;
mod nodes;
mod outcome;
pub mod parents;
mod pod;
mod progress;
mod provenance;
mod reasons;
mod request;
pub mod settings;
mod status;
mod steps;
mod table;
mod waits;

#[cfg(test)]
mod tests;

pub(crate) use causes::{Cause, Subject};
pub(crate) use conditions::ConditionType;
pub(crate) use decision::STOPPING;
pub use decision::plan;
pub use facts::{PodFacts, PodSeen};
pub use parents::{Parent, Parents};
pub(crate) use reasons::{Deadline, Reason};
pub use settings::{Driver, GpuProfile, Settings, Store};
pub use status::current_pod;
pub use steps::{Notice, Observed, Plan, PodRef, ProgressSeen, Refusal, Severity, Step};
