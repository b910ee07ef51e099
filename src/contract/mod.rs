//! The contracts between the processes of a run: operator -> runner ([`Request`]) and runner -> helper -> operator
//! ([`Record`], [`Report`]). Only data, its size limits and its encoding; no I/O. One document a file.
//!
//! An operator must read what an older one's pods leave behind: fields are only ever added, with a default.

pub mod duration;
mod gpu;
mod message;
#[cfg(feature = "operator")]
mod order;
mod pins;
mod progress;
mod record;
mod report;
mod request;
mod snapshot;
mod text;

pub use gpu::{DeviceCount, GpuFacts, GpuModel, GpuRequest, HostDriver, Preflight};
pub use message::{FIRST_LINE_MAX_BYTES, INPUTS_MAX_BYTES, MESSAGE_MAX_BYTES, Message};
#[cfg(feature = "operator")]
pub use order::PodOrder;
pub use pins::{Pin, Pins, SnapshotPin};
pub use progress::{InputProblem, InputTrouble, Progress, ProgressStage, StoreTrouble, Warning, WarningKind};
pub use record::{Cause, RECORD_MAX_BYTES, Record, Usage};
pub use report::{MissingRecord, NotSaved, Report, SKIPPED_NAME_MAX_BYTES, SaveFailure, Saved, SavedSoFar};
pub use request::{
    Background, Command, EndOrder, GIVE_UP_SECONDS, InputPatience, InputSource, Registries, Request, RequestedInput,
    SaveRequest, SnapshotInput, SnapshotRequest, VARIABLES_MAX_BYTES,
};
pub use snapshot::{Resumed, SnapshotAnswer};
#[cfg(feature = "operator")]
pub(crate) use text::log_line;
pub use text::{
    DETAIL_MAX_BYTES, beginning, both_ends, first_of, one_line, printable, reorders_or_hides, size_for_people,
    time_for_people,
};
