//! What the user wants of a run that is not over.

use crate::api::BundleRun;
use crate::plan::words::cause::Cause;
use crate::plan::words::condition::{STOPPING, SUSPENDING};

/// The attempt shall end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// And the run with it.
    Stop,
    /// And another follows, later.
    Suspend,
}

impl Wish {
    /// Of a run, by its spec and by what was recorded of it: either may have been taken back since.
    #[must_use]
    pub fn of(run: &BundleRun) -> Option<Self> {
        let was_suspended = run.status.as_ref().is_some_and(|status| status.suspended_at.is_some());
        if run.is_being_stopped() {
            return Some(Self::Stop);
        }
        (run.spec.suspend || was_suspended).then_some(Self::Suspend)
    }

    /// The field that says so.
    pub(in crate::plan) fn field(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Suspend => "suspend",
        }
    }

    /// What the attempt ends as.
    pub(in crate::plan) fn cause(self) -> Cause {
        match self {
            Self::Stop => Cause::Stopped,
            Self::Suspend => Cause::Suspended,
        }
    }

    /// The reason of the phase meanwhile.
    pub(in crate::plan) fn reason(self) -> &'static str {
        match self {
            Self::Stop => STOPPING,
            Self::Suspend => SUSPENDING,
        }
    }
}
