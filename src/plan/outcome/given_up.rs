//! Waits that were given up: the cause is the table's, unless the message knows better.

use super::Outcome;
use crate::api::status::Waiting;
use crate::plan::words::cause::Cause;
use crate::plan::words::wait_reason::{WaitStage, given_up_as};

/// The ending of a run whose wait passed its deadline.
pub(in crate::plan) fn gave_up(waiting: &Waiting) -> Outcome {
    let message = waiting.message.clone().unwrap_or_default();
    let reason = waiting.reason.as_deref().unwrap_or(Cause::DeadlineExceeded.name());
    let stage = WaitStage::ALL.into_iter().find(|stage| Some(stage.name()) == waiting.stage.as_deref());
    match given_up_as(stage, reason) {
        Cause::ImagePullFailed => image_pull_failed(message),
        Cause::ContainerNotCreated => container_not_created(reason, message),
        Cause::ForbiddenByPolicy => forbidden(message),
        Cause::DeadlineExceeded => Outcome::told_by_kubernetes(Cause::DeadlineExceeded, reason, message),
        cause => Outcome::new(cause, message),
    }
}

fn image_pull_failed(message: String) -> Outcome {
    // containerd's text for an image index that lacks the node's architecture.
    let other_platform = message.contains("no match for platform");
    let cause = if other_platform { Cause::ImageForOtherPlatform } else { Cause::ImagePullFailed };
    Outcome::new(cause, message)
}

fn container_not_created(reason: &str, message: String) -> Outcome {
    // containerd's texts for a USER that is a name: no such entry, and no passwd file to look it up in.
    let unknown_user = ["no users found", "etc/passwd: no such file", "statat etc: no such file"];
    if unknown_user.iter().any(|words| message.contains(words)) {
        let message = format!("{} ({message})", Cause::UserUnknown.words());
        return Outcome::told_by_kubernetes(Cause::UserUnknown, reason, message);
    }
    Outcome::told_by_kubernetes(Cause::ContainerNotCreated, reason, message)
}

/// The texts are those of the API server's admission plugins.
fn forbidden(message: String) -> Outcome {
    let says = |words: &str| message.contains(words);
    let cause = if says("error looking up service account") || says("no PriorityClass with name") {
        Cause::ForbiddenName
    } else if says("cannot create resource") {
        Cause::ForbiddenToOperator
    } else if says("RuntimeClass") {
        Cause::ForbiddenRuntimeClass
    } else {
        Cause::ForbiddenByPolicy
    };
    Outcome::new(cause, message)
}
