//! What Kubernetes, container runtimes, registries and drivers say: `messages.yaml` has messages as they were seen, and what
//! must become of a run that meets them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::*;
use crate::api::status::Blame;
use crate::plan::words::message::unmet;
use crate::plan::{Source, unknown_message};

/// What was seen, and what must follow from it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// An issue or a source.
    seen: String,
    at: At,
    /// HTTP status of a refusal.
    code: Option<u16>,
    /// Kubernetes' reason.
    reason: Option<String>,
    message: String,
    /// What a refusal says of fields of the pod, each by its path.
    #[serde(default)]
    fields: BTreeMap<String, String>,
    cause: String,
    blame: String,
    then: Then,
    /// How the hint begins that a wait has for it, where several rows of the table come to the same otherwise.
    hint: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum At {
    Admission,
    Scheduler,
    Image,
    Create,
    Start,
    Kubelet,
    Disruption,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Then {
    Fails,
    FailsAtDeadline,
    Interrupted,
    InterruptedAtDeadline,
    WaitsWithoutDeadline,
}

/// Cause (of a wait: its reason), blame, and what follows.
type Becomes = (String, String, Then);

fn entries() -> Vec<Entry> {
    serde_saphyr::from_str(include_str!("messages.yaml")).unwrap()
}

impl Entry {
    fn expected(&self) -> Becomes {
        (self.cause.clone(), self.blame.clone(), self.then)
    }

    fn pod(&self) -> PodCase {
        let reason = self.reason.as_deref().unwrap_or_default();
        match self.at {
            At::Admission => unreachable!("there is no pod"),
            At::Scheduler => pod().unschedulable(&self.message),
            At::Image | At::Create => pod().run_waits(reason).saying(&self.message),
            At::Start => {
                let ended = json!({"terminated": {"exitCode": 128, "reason": reason, "message": self.message,
                    "startedAt": "1970-01-01T00:00:00Z"}});
                pod().bound().run(&ended).without_record(MissingRecord::NeverStarted)
            }
            At::Kubelet => pod().bound().failed(reason, &self.message),
            At::Disruption => {
                let disrupted =
                    pod().running(5).condition("DisruptionTarget", "True", reason, &self.message, 6).deleted(6);
                let stopped = Record { asked_to_stop: true, ..killed(15) };
                disrupted.reported(&stopped)
            }
        }
    }

    fn refusal(&self) -> Refusal {
        let fields = self.fields.clone().into_iter().map(|(path, words)| InvalidField { path, words });
        Refusal::of(self.code.unwrap(), self.message.clone()).naming(fields.collect())
    }

    /// The plan for what the entry says, seen at this second.
    fn plan(&self, run: &BundleRun, second: i64) -> Plan {
        match self.at {
            At::Admission => refused(run, &self.refusal(), second),
            _ => look_at(run, &self.pod(), second),
        }
    }
}

#[test]
fn a_wait_has_the_hint_of_its_message() {
    let entries = entries();
    let mut hints = entries.iter().filter_map(|entry| Some((entry, entry.hint.as_deref()?))).peekable();
    assert!(hints.peek().is_some());
    for (entry, expected) in hints {
        let hint = written(&entry.plan(&run(), 4)).waiting.unwrap().hint.unwrap();
        assert!(hint.starts_with(expected), "{}: {hint}", entry.message);
    }
}

/// From the first look to the end, or to a wait that has none.
fn becomes(entry: &Entry) -> Becomes {
    let plan = entry.plan(&run(), 4);
    let told = with_status(&run(), &written(&plan));
    let Some(waiting) = told.status.as_ref().unwrap().waiting.clone() else {
        return ended(&written(&plan), true);
    };
    let Some(deadline) = waiting.deadline else {
        return (waiting.reason.unwrap(), "none".into(), Then::WaitsWithoutDeadline);
    };
    let second = deadline.0.duration_since(at(0)).as_secs();
    let plan = entry.plan(&told, second);
    let plan = if words(&plan) == ["Delete r-1"] {
        let gone = PodCase::deleted(entry.pod(), second).failed("", "");
        look_at(&told, &gone, second + 1)
    } else {
        plan
    };
    ended(&written(&plan), second == 4)
}

fn ended(status: &BundleRunStatus, at_once: bool) -> Becomes {
    if let Some(result) = &status.result {
        let blame = result.blame.map_or_else(|| "none".to_owned(), |blame| format!("{blame:?}"));
        return (result.cause.clone(), blame, if at_once { Then::Fails } else { Then::FailsAtDeadline });
    }
    assert_eq!(status.attempt, Some(2), "{status:#?}");
    let cause = status.attempts[0].cause.clone().unwrap();
    // See `who_is_to_blame_is_told_what_to_do`.
    let blame = format!("{:?}", Blame::Platform);
    (cause, blame, if at_once { Then::Interrupted } else { Then::InterruptedAtDeadline })
}

/// The entries for which this answers something else than what must follow.
fn wrong(entries: &[Entry], answer: impl Fn(usize, &Entry) -> Becomes) -> Vec<String> {
    let compare = |(i, entry): (usize, &Entry)| {
        let (expected, got) = (entry.expected(), answer(i, entry));
        (expected != got).then(|| {
            format!("{:?} {:?}\n  {}\n  {expected:?}\n  {got:?}", entry.at, entry.reason, entry.message.escape_debug())
        })
    };
    entries.iter().enumerate().filter_map(compare).collect()
}

#[test]
fn every_message_that_was_seen_ends_as_it_must() {
    let wrong = wrong(&entries(), |_, entry| becomes(entry));
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn there_are_enough_of_every_kind_and_each_was_seen_somewhere() {
    let mut count = BTreeMap::new();
    let mut messages = BTreeSet::new();
    for entry in entries() {
        *count.entry(entry.at).or_insert(0) += 1;
        assert!(entry.seen.starts_with("https://"), "{}", entry.seen);
        let told = (entry.at, entry.reason.clone(), entry.message.clone());
        assert!(messages.insert(told), "twice: {}", entry.message);
    }
    let least = [
        (At::Admission, 55),
        (At::Scheduler, 8),
        (At::Image, 80),
        (At::Create, 40),
        (At::Start, 15),
        (At::Kubelet, 15),
        (At::Disruption, 5),
    ];
    for (at, least) in least {
        assert!(count[&at] >= least, "{at:?}: {}", count[&at]);
    }
    assert!(messages.len() >= 270, "{}", messages.len());
}

/// A row that nobody was seen to say would only be in the way of the others.
#[test]
fn every_row_of_the_table_is_met_by_a_message_that_was_seen() {
    let source = |at| match at {
        At::Admission => Some(Source::Admission),
        At::Scheduler => Some(Source::Scheduler),
        At::Image => Some(Source::Image),
        At::Create | At::Start => Some(Source::Runtime),
        At::Kubelet => Some(Source::Eviction),
        At::Disruption => None,
    };
    let messages: Vec<_> = entries().into_iter().filter_map(|entry| Some((source(entry.at)?, entry.message))).collect();
    assert_eq!(unmet(&messages), Vec::<&[&str]>::new());
    assert!(!unmet(&messages[1..20]).is_empty());
}

/// The object keeps a part of it, by which the ending is told.
#[test]
fn a_long_message_means_what_stands_at_its_end() {
    let image = format!("registry:5000/{}:v1", "team/".repeat(50));
    for (why, cause) in [("no match for platform in manifest: not found", "ImagePullFailed"), ("", "ImageNotPulled")] {
        let message = format!(
            "rpc error: code = NotFound desc = failed to pull and unpack image \"{image}\": failed to resolve reference \
             \"{image}\": failed to do request: Head \"https://{image}\": trying the next host: {image}: {image}: {why}"
        );
        assert!(message.len() > 1024);
        let entry = Entry {
            seen: String::new(),
            at: At::Image,
            code: None,
            reason: Some("ErrImagePull".into()),
            message,
            fields: BTreeMap::new(),
            cause: String::new(),
            blame: String::new(),
            then: Then::Fails,
            hint: None,
        };
        assert_eq!(becomes(&entry).0, cause);
    }
}

/// A plan that is wrong about every tenth message, in a way that is right for another, is noticed.
#[test]
fn a_tenth_that_is_wrong_fails() {
    let entries = entries();
    let expected: Vec<Becomes> = entries.iter().map(Entry::expected).collect();
    let anothers = |own: &Becomes| expected.iter().find(|other| *other != own).unwrap().clone();
    for first in 0..10 {
        let mutant = |i: usize, entry: &Entry| {
            if i % 10 == first { anothers(&entry.expected()) } else { becomes(entry) }
        };
        let missed = (first..entries.len()).step_by(10).count();
        assert_eq!(wrong(&entries, mutant).len(), missed, "from {first}");
    }
}

/// What the table does not know is counted once, and is not the user's.
#[test]
fn what_is_new_counts_as_unknown_once() {
    let before = run().status;
    let new = "something new";
    for (pod, source) in [
        (pod().unschedulable(new), "scheduler"),
        (pod().run_waits("ErrImagePull").saying(new), "image"),
        (pod().run_waits("CreateContainerError").saying(new), "runtime"),
        (pod().bound().failed("Evicted", new), "eviction"),
        (pod().bound().failed("NewReason", ""), "eviction"),
    ] {
        let status = written(&look_at(&run(), &pod, 4));
        assert_eq!(unknown_message(before.as_ref(), &status).map(Source::name), Some(source));
        assert_eq!(unknown_message(Some(&status), &status), None);
    }
    let status = written(&refused(&run(), &Refusal::of(403, new.into()), 4));
    assert_eq!(unknown_message(before.as_ref(), &status), Some(Source::Admission));
    let status = written(&refused(&run(), &Refusal::of(422, new.into()), 4));
    assert_eq!(unknown_message(before.as_ref(), &status), Some(Source::Admission));
    for says_nothing in [pod().run_waits("ImagePullBackOff").saying("Back-off pulling image \"x\""), pod()] {
        let status = written(&look_at(&run(), &says_nothing, 20));
        assert_eq!(unknown_message(before.as_ref(), &status), None);
    }
    // Counted as a wait, not as its ending again.
    let fails = pod().run_waits("CreateContainerError").saying(new);
    let told = with_status(&run(), &written(&look_at(&run(), &fails, 4)));
    let ended = written(&look_at(&told, &PodCase::deleted(fails, 124).failed("", ""), 126));
    assert_eq!((ended.attempt, unknown_message(told.status.as_ref(), &ended)), (Some(2), None));
}

/// It knows all of these.
#[test]
fn no_message_that_was_seen_counts_as_unknown() {
    for entry in entries() {
        let plan = entry.plan(&run(), 4);
        if plan.steps.is_empty() {
            continue;
        }
        let unknown = unknown_message(run().status.as_ref(), &written(&plan));
        assert_eq!(unknown, None, "{:?} {:?} {}", entry.at, entry.reason, entry.message);
    }
}
