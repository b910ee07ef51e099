//! What Kubernetes said and the table of messages does not know: such messages are counted, so that the table grows.

use crate::api::status::{BundleRunStatus, Waiting};
use crate::plan::words::cause::Cause;
use crate::plan::words::message::{Source, meaning};
use crate::plan::words::wait_reason::{Reason, WaitStage};

/// Between the number of an attempt that is followed by another, and what ended it.
pub(super) const INTERRUPTED: &str = " was interrupted: ";

/// Who said it, if this status newly shows a wait or an ending for which the table has no word.
pub(crate) fn unknown_message(before: Option<&BundleRunStatus>, after: &BundleRunStatus) -> Option<Source> {
    let waiting = after.waiting.as_ref().filter(|waiting| !is_same(before.and_then(|s| s.waiting.as_ref()), waiting));
    waiting.and_then(unknown_wait).or_else(|| unknown_ending(before, after))
}

fn is_same(before: Option<&Waiting>, after: &Waiting) -> bool {
    before.is_some_and(|before| (&before.stage, &before.reason) == (&after.stage, &after.reason))
}

fn unknown_wait(waiting: &Waiting) -> Option<Source> {
    let stage = WaitStage::ALL.into_iter().find(|stage| Some(stage.name()) == waiting.stage.as_deref())?;
    let source = stage.source()?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    let ours = [Reason::PodNameTaken, Reason::PreviousPod, Reason::NotSeenByScheduler, Reason::ClaimMissing];
    let said = waiting.message.as_deref().unwrap_or_default();
    let says_nothing = said.is_empty() || said.starts_with("Back-off ") || said.starts_with("back-off ");
    let is_ours = says_nothing || ours.iter().any(|known| known.name() == reason);
    (!is_ours && meaning(source, said).is_none()).then_some(source)
}

fn unknown_ending(before: Option<&BundleRunStatus>, after: &BundleRunStatus) -> Option<Source> {
    let ended = after.attempts.last().filter(|last| last.finish_time.is_some());
    let had_ended = |uid: &Option<String>| {
        let same = before.iter().flat_map(|s| &s.attempts).find(|attempt| attempt.uid == *uid);
        same.is_some_and(|attempt| attempt.finish_time.is_some())
    };
    let cause = match &after.result {
        Some(_) if before.is_some_and(|s| s.result.is_some()) => return None,
        Some(result) => result.cause.as_str(),
        None => ended.filter(|last| !had_ended(&last.uid))?.cause.as_deref()?,
    };
    let said = after.message.as_deref().unwrap_or_default();
    let said = said.split_once(INTERRUPTED).filter(|_| after.result.is_none()).map_or(said, |(_, words)| words);
    let source = source_of(cause, said)?;
    // What was waited for was counted then.
    let waited = before.is_some_and(|s| s.waiting.is_some()) && source != Source::Eviction;
    (!waited).then_some(source)
}

/// Who told an ending of this cause, if the table knows nothing of what was said.
fn source_of(cause: &str, said: &str) -> Option<Source> {
    let unknown = |source| meaning(source, said).is_none().then_some(source);
    match Cause::named(cause) {
        Some((Cause::PodInvalid, _)) => unknown(Source::Admission),
        Some((Cause::NeverStarted, _)) if !said.starts_with(&Cause::NeverStarted.words()) => unknown(Source::Runtime),
        Some((Cause::Disrupted, "Evicted")) => unknown(Source::Eviction),
        Some(_) => None,
        // A resource of any name.
        None if cause.starts_with("OutOf") => None,
        None => Some(Source::Eviction),
    }
}
