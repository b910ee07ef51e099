//! Phases, causes, waiting reasons and conditions, from the tables that the operator itself goes by.

use super::{code_list, head, row, sentence};
use crate::api::Phase;
use crate::api::spec::DEFAULT_INTERRUPTIONS;
use crate::plan::{Cause, ConditionType, Deadline, Reason, STOPPING, SUSPENDING, Subject};

const INTRODUCTION: &str = "\
# How runs end, and what they wait for

Why did a run end, what does it wait for, and what can you do about it? These are the words that `kubectl get bundlerun NAME -o yaml` shows in `status`. The guides to [images](images.md) and to [inputs and outputs](bundles.md) say more about theirs; [the reference](reference.md) has every field.

";

const CAUSES: &str = "
## Causes

A run that has ended has its cause in `status.result.cause` and in `status.reason` (the REASON column), whose matter it is in `status.result.blame`, and in `status.result.hint` what to do. `status.message` has the whole story. The label `cause` of the operator's metrics has the same words.

";

const WAITING: &str = "
## What a run waits for

A run that has not ended and does not run says in `status.waiting` for what it waits (`reason`, `message`), at which `stage`, since when, until when and what follows then (`deadline`, `until`: `no deadline` where there is none), and what to do (`hint`). The setting is the administrator's: [settings](../deploy/operator/settings.yaml).

";

const CONDITIONS: &str = "
## Conditions

For `kubectl wait --for=condition=...`, Argo CD and Flux. *The cause*, *the phase* and *what it waits for* are the words of the tables above.

";

pub(super) fn page() -> String {
    [
        INTRODUCTION.to_owned(),
        phases(),
        CAUSES.to_owned(),
        causes(),
        WAITING.to_owned(),
        reasons(),
        CONDITIONS.to_owned(),
        conditions(),
    ]
    .concat()
}

/// The docs of the variants, as their schema has them.
fn phases() -> String {
    let schema = schemars::schema_for!(Phase);
    let variants = schema.get("oneOf").and_then(|of| of.as_array()).into_iter().flatten();
    let text = |variant: &serde_json::Value, key: &str| variant[key].as_str().unwrap_or_default().replace('\n', " ");
    let rows = variants.map(|variant| row([&format!("`{}`", text(variant, "const")), &text(variant, "description")]));
    let of_finalizing = format!(
        "\nIn `Finalizing`, the reason `{STOPPING}` says that `stop` was set, `{SUSPENDING}` that `suspend` was, and `{}` that somebody else deleted the pod.\n",
        Cause::PodDeleted.name()
    );
    format!("## Phases\n\n{}{}{of_finalizing}", head(["phase", "the run"]), rows.collect::<String>())
}

fn causes() -> String {
    Cause::ALL.chunk_by(|a, b| a.subject() == b.subject()).map(of_one_subject).collect::<Vec<_>>().join("\n")
}

fn of_one_subject(causes: &[Cause]) -> String {
    let subject = causes.first().map(|cause| cause.subject());
    let title = subject.map_or("", Subject::title);
    let introduction = if subject == Some(Subject::Platform) { interruptions() } else { String::new() };
    let head = head(["cause", "blame", "what happened", "what to do"]);
    format!("### {title}\n\n{introduction}{head}{}", causes.iter().copied().map(cause).collect::<String>())
}

fn interruptions() -> String {
    format!(
        "What the platform does to an attempt is no failure of the run: another attempt is made, {DEFAULT_INTERRUPTIONS} \
         times unless `retry.interruptions` says otherwise. A failure of the command, or of saving, is followed by another attempt \
         where `retry.limit` and `retry.causes` say so. `status.attempts` has the cause of each; when no more are made, the \
         last one's is the run's.\n\n"
    )
}

fn cause(cause: Cause) -> String {
    let blame = cause.blame().map_or_else(String::new, |blame| format!("`{blame:?}`"));
    let to_do: Vec<_> = cause.what_to_do().iter().map(|text| sentence(text)).filter(|text| !text.is_empty()).collect();
    row([&code_list(cause.names()), &blame, &sentence(cause.means()), &to_do.join(" ")])
}

fn reasons() -> String {
    let rows = Reason::ALL.iter().map(|reason| {
        row([
            &code_list(reason.names()),
            &code_list(reason.stages().iter().map(|stage| stage.name())),
            &sentence(reason.awaited()),
            &until(*reason),
            &sentence(reason.what_to_do()),
        ])
    });
    head(["reason", "stage", "what is awaited", "until", "what to do"]) + &rows.collect::<String>()
}

fn until(reason: Reason) -> String {
    let causes = reason.given_up_as();
    if causes.is_empty() {
        return "no deadline".into();
    }
    let causes = code_list(causes);
    if let Some(fixed) = reason.deadline().fixed() {
        return format!("{fixed}, then the {} ends: {causes}", reason.what_ends());
    }
    match (reason.deadline(), reason.deadline().setting()) {
        (Deadline::Staging, Some(setting)) => format!("`{setting}`, then the {} ends: {causes}", reason.what_ends()),
        (Deadline::NodeLost, Some(setting)) => {
            format!("`{setting}`, which is `never` by default, then the attempt ends: {causes}")
        }
        (Deadline::ImageRefused, _) => {
            format!("40 seconds, or `deadlines.imagePull` if that is less, then the run ends: {causes}")
        }
        (Deadline::ImageHost, _) => {
            format!("2 minutes, or `deadlines.imagePull` if that is less, then the run ends: {causes}")
        }
        (Deadline::Hung, _) => format!("15 seconds, then the attempt ends: {causes}"),
        (_, Some(setting)) => format!("`{setting}`, then the run ends: {causes}"),
        (_, None) => format!("the run ends at once: {causes}"),
    }
}

fn conditions() -> String {
    let rows = ConditionType::ALL.iter().map(|condition| {
        let reasons: Vec<_> = condition.reasons().chunk_by(|a, b| a.0 == b.0).map(of_one_status).collect();
        row([&code_list([condition.name()]), &sentence(condition.means()), &reasons.join("; ")])
    });
    head(["type", "meaning", "status: reason"]) + &rows.collect::<String>()
}

fn of_one_status(reasons: &[(&str, &str)]) -> String {
    let status = reasons.first().map_or("", |(status, _)| status);
    let words: Vec<_> = reasons.iter().map(|(_, reason)| word(reason)).collect();
    format!("`{status}`: {}", words.join(", or "))
}

/// A word that is on the object, not one that describes it.
fn word(reason: &str) -> String {
    if reason.starts_with(char::is_uppercase) { format!("`{reason}`") } else { reason.to_owned() }
}
