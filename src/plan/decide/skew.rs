//! Definition and operator of different versions: no attempt is made by who may misread the run, or whose words would be
//! lost. What runs goes on, and its end is recorded.

use std::time::Duration;

use super::{Decision, release_last};
use crate::contract::first_of;
use crate::plan::steps::Plan;
use crate::plan::words::wait_reason::Reason;

/// What changes this triggers a look at all runs; this one costs nothing.
const LOOK_AGAIN: Duration = Duration::from_mins(5);
const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Decision<'_> {
    /// A wait, if the definition is older than this operator, or the run newer.
    pub(super) fn of_another_version(&self) -> Option<Plan> {
        if !self.skew.missing.is_empty() {
            let fields = first_of(&self.skew.missing);
            let message =
                format!("the installed definition of BundleRun is older than the operator ({VERSION}): no {fields}");
            return Some(self.hold(Reason::DefinitionOutdated, &message));
        }
        let unknown = &self.run.spec.unknown_fields;
        (!unknown.is_empty()).then(|| {
            let message =
                format!("the operator ({VERSION}) does not know all that the run says: {}", first_of(unknown));
            self.hold(Reason::OperatorOutdated, &message)
        })
    }

    /// A wait: by our rules the run is wrong, and by those of the installed definition it may not be.
    pub(super) fn not_valid_here(&self, problems: &[String]) -> Plan {
        let message = format!(
            "the spec is not valid for the operator ({VERSION}), and the installed definition of BundleRun is of another \
             version: {}",
            problems.join("; ")
        );
        self.hold(Reason::OperatorOutdated, &message)
    }

    /// The pod of the attempt before is let go nevertheless.
    fn hold(&self, reason: Reason, message: &str) -> Plan {
        self.not_admitted(reason, message, LOOK_AGAIN).then(release_last(self.run, self.attempt))
    }
}
