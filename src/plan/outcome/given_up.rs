//! Waits that were given up: the cause is the table's.

use super::Outcome;
use crate::api::status::Waiting;
use crate::plan::words::cause::Cause;
use crate::plan::words::wait_reason::{WaitStage, given_up_as};

/// The ending of a run whose wait passed its deadline.
pub(in crate::plan) fn gave_up(waiting: &Waiting) -> Outcome {
    let message = waiting.message.clone().unwrap_or_default();
    let reason = waiting.reason.as_deref().unwrap_or(Cause::DeadlineExceeded.name());
    let stage = WaitStage::ALL.into_iter().find(|stage| Some(stage.name()) == waiting.stage.as_deref());
    match given_up_as(stage, reason, &message) {
        Cause::UserUnknown => {
            let message = format!("{} ({message})", Cause::UserUnknown.words());
            Outcome::told_by_kubernetes(Cause::UserUnknown, reason, message)
        }
        cause @ (Cause::ContainerNotCreated | Cause::DeadlineExceeded) => {
            Outcome::told_by_kubernetes(cause, reason, message)
        }
        cause => Outcome::new(cause, message),
    }
}
