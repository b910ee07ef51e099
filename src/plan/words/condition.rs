//! The conditions that a run has, and their reasons where those are words of their own.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::table::table;

/// Of `InputsReady`.
pub(in crate::plan) const PINNED: &str = "Pinned";
/// Of `Scheduled`.
pub(in crate::plan) const SCHEDULED: &str = "Scheduled";
/// Of `OutputSaved`.
pub(in crate::plan) const SAVED: &str = "Saved";
/// Of `OutputSaved`.
pub(in crate::plan) const SAVED_IN_PART: &str = "SavedInPart";
/// Of `OutputSaved`.
pub(in crate::plan) const OUTPUT_DAMAGED: &str = "OutputDamaged";
/// Of `OutputSaved`.
pub(in crate::plan) const NO_STORE: &str = "NoStore";

/// Of `Ready` and `Reconciling`, while `suspend` holds a run without a pod.
const SUSPENDED: &str = "Suspended";
/// Of the condition of that name.
const DISK_NEARLY_FULL: &str = "DiskNearlyFull";

/// `True`, `False` or both, by what reason.
type Reasons = &'static [(&'static str, &'static str)];

#[derive(Clone, Copy)]
struct Row {
    means: &'static str,
    reasons: Reasons,
}

impl Row {
    const fn new(means: &'static str, reasons: Reasons) -> Self {
        Self { means, reasons }
    }
}

/// Where the reason is not one of a few words.
const THE_CAUSE: &str = "the cause";
const WHAT_IT_WAITS_FOR: &str = "what it waits for";
const THE_PHASE: &str = "the phase";
const OF_THE_STORE: &str = "the word in brackets at the cause `OutputNotSaved`";

table! {
    /// What `status.conditions` can have.
    enum ConditionType: Row {
        Finished: Row::new(
            "the run is over, however it ended: one `kubectl wait` for every end",
            &[("True", THE_CAUSE)],
        ),
        Complete: Row::new("the run succeeded", &[("True", THE_CAUSE)]),
        Failed: Row::new("the run failed", &[("True", THE_CAUSE)]),
        Stopped: Row::new("the run was stopped", &[("True", THE_CAUSE)]),
        InputsReady: Row::new(
            "the inputs of the run are pinned; not there without inputs",
            &[("True", PINNED), ("False", WHAT_IT_WAITS_FOR)],
        ),
        Scheduled: Row::new(
            "the pod of the attempt has a node",
            &[("True", SCHEDULED), ("False", WHAT_IT_WAITS_FOR)],
        ),
        OutputSaved: Row::new(
            "the output is in the store; the message counts and names what was left out. With `SavedInPart` and \
                `OutputDamaged` the rest is in the store. `Unknown`: the command runs, and as things are the output \
                would not be saved (`NoStore`: told where snapshots were asked for)",
            &[("True", SAVED), ("True", SAVED_IN_PART), ("False", OUTPUT_DAMAGED), ("False", NO_STORE), ("False", OF_THE_STORE), ("Unknown", OF_THE_STORE), ("Unknown", NO_STORE)],
        ),
        DiskNearlyFull: Row::new(
            "the command runs, and what it has written, or its caches, have grown to nine tenths of `resources.disk`; \
                over it the run is ended. Not there else",
            &[("True", DISK_NEARLY_FULL)],
        ),
        Ready: Row::new(
            "for kstatus (Flux): the run succeeded",
            &[("True", THE_CAUSE), ("False", THE_CAUSE), ("False", WHAT_IT_WAITS_FOR), ("False", THE_PHASE), ("Unknown", SUSPENDED)],
        ),
        Reconciling: Row::new(
            "for kstatus: the run is not over; removed at its end",
            &[("True", WHAT_IT_WAITS_FOR), ("True", THE_PHASE), ("False", SUSPENDED)],
        ),
        Stalled: Row::new("for kstatus: the run failed or was stopped", &[("True", THE_CAUSE)]),
    }
}

/// The reason of the phase while a run ends because `stop` was set.
pub(crate) const STOPPING: &str = "Stopping";
/// The same of an attempt, because `suspend` was set.
pub(crate) const SUSPENDING: &str = "Suspending";

/// One that is there only while the command runs: things are such that its output would not be saved, or that it is
/// ended.
pub(in crate::plan) fn is_warning(condition: &Condition) -> bool {
    let is = |type_: ConditionType| condition.type_ == type_.name();
    is(ConditionType::DiskNearlyFull) || (is(ConditionType::OutputSaved) && condition.status == "Unknown")
}

/// A reason as `metav1.Condition` takes it: `^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$`. Words of Kubernetes may have other
/// characters, as `OutOfnvidia.com/gpu` has; `status.reason` shows them as they are.
pub(in crate::plan) fn as_reason(word: &str) -> String {
    let may_stay = |c: char| c.is_ascii_alphanumeric() || "_,:".contains(c);
    let word: String = word.chars().map(|c| if may_stay(c) { c } else { '_' }).take(REASON_MAX).collect();
    let word = word.trim_start_matches(|c: char| !c.is_ascii_alphabetic());
    let word = word.trim_end_matches([',', ':']);
    if word.is_empty() { "Unknown".to_owned() } else { word.to_owned() }
}

/// Longest reason of a `metav1.Condition`, in characters.
const REASON_MAX: usize = 1024;

impl ConditionType {
    pub(crate) const fn name(self) -> &'static str {
        self.variant()
    }

    /// In Markdown.
    pub(crate) fn means(self) -> &'static str {
        self.row().means
    }

    /// Statuses, each with the word that is its reason, or what that word tells.
    pub(crate) fn reasons(self) -> Reasons {
        self.row().reasons
    }
}
