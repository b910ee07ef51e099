//! Waits that were given up: the cause is the table's, unless the message knows better.

use super::Outcome;
use crate::api::status::Waiting;
use crate::plan::words::cause::Cause;
use crate::plan::words::message::{Meaning, meaning};
use crate::plan::words::wait_reason::{WaitStage, given_up_as};

/// The ending of a run whose wait passed its deadline.
pub(in crate::plan) fn gave_up(waiting: &Waiting) -> Outcome {
    let message = waiting.message.clone().unwrap_or_default();
    let reason = waiting.reason.as_deref().unwrap_or(Cause::DeadlineExceeded.name());
    let stage = WaitStage::ALL.into_iter().find(|stage| Some(stage.name()) == waiting.stage.as_deref());
    let cause = given_up_as(stage, reason, &message);
    let means = stage.and_then(WaitStage::source).and_then(|source| meaning(source, &message));
    match (cause, means) {
        (Cause::ImagePullFailed, Some(Meaning::ImageIsForOtherPlatform)) => {
            Outcome::new(Cause::ImageForOtherPlatform, message)
        }
        (Cause::ImagePullFailed, Some(Meaning::ImageIsTooOld)) => Outcome::new(Cause::ImageTooOld, message),
        (Cause::ImagePullFailed, Some(Meaning::ImageIsNotSigned)) => Outcome::new(Cause::ImageNotSigned, message),
        (Cause::ImageNotPulled, Some(Meaning::HostIsUnknown)) => Outcome::new(Cause::ImagePullFailed, message),
        (Cause::ContainerNotCreated, Some(Meaning::UserIsUnknown)) => {
            let message = format!("{} ({message})", Cause::UserUnknown.words());
            Outcome::told_by_kubernetes(Cause::UserUnknown, reason, message)
        }
        (Cause::ContainerNotCreated, Some(Meaning::CudaIsTooNew)) => Outcome::new(Cause::CudaTooNew, message),
        (Cause::ContainerNotCreated, Some(Meaning::MemoryIsTooSmall)) => Outcome::new(Cause::OutOfMemory, message),
        (Cause::ForbiddenByPolicy, means) => Outcome::new(forbidden(means), message),
        (Cause::ContainerNotCreated | Cause::DeadlineExceeded, _) => {
            Outcome::told_by_kubernetes(cause, reason, message)
        }
        _ => Outcome::new(cause, message),
    }
}

fn forbidden(means: Option<Meaning>) -> Cause {
    match means {
        Some(Meaning::NameIsMissing) => Cause::ForbiddenName,
        Some(Meaning::OperatorMayNot) => Cause::ForbiddenToOperator,
        Some(Meaning::RuntimeClassIsMissing) => Cause::ForbiddenRuntimeClass,
        Some(Meaning::LimitRange) => Cause::ForbiddenByLimitRange,
        Some(Meaning::QuotaNeedsLimits) => Cause::ForbiddenByQuota,
        _ => Cause::ForbiddenByPolicy,
    }
}
