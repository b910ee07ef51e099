//! Conditions: which there are in a phase, and when their transition times move.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::plan::Cause;
use crate::plan::words::condition::{ConditionType, as_reason};
use crate::plan::words::wait_reason::Reason;

type Conditions<'a> = &'a [(&'a str, &'a str)];

fn conditions(status: &BundleRunStatus) -> BTreeMap<&str, &str> {
    status.conditions.iter().map(|c| (c.type_.as_str(), c.status.as_str())).collect()
}

fn since(status: &BundleRunStatus, type_: &str) -> Timestamp {
    status.conditions.iter().find(|c| c.type_ == type_).unwrap().last_transition_time.0
}

#[test]
fn every_phase_has_its_conditions() {
    let asked = Record { asked_to_stop: true, ..record(143) };
    let active = [("Ready", "False"), ("Reconciling", "True")];
    let scheduled = [("Ready", "False"), ("Reconciling", "True"), ("Scheduled", "True")];
    let unscheduled = [("Ready", "False"), ("Reconciling", "True"), ("Scheduled", "False")];
    let succeeded = [
        ("Complete", "True"),
        ("Finished", "True"),
        ("OutputSaved", "False"),
        ("Ready", "True"),
        ("Scheduled", "True"),
    ];
    let failed = [
        ("Failed", "True"),
        ("Finished", "True"),
        ("OutputSaved", "False"),
        ("Ready", "False"),
        ("Scheduled", "True"),
        ("Stalled", "True"),
    ];
    let stopped = [("Finished", "True"), ("Ready", "False"), ("Stalled", "True"), ("Stopped", "True")];
    let never_scheduled = [("Failed", "True"), ("Finished", "True"), ("Ready", "False"), ("Stalled", "True")];
    let mut stop = run();
    stop.spec.stop = true;
    let cases: [(&str, Plan, Conditions); 8] = [
        ("waiting for a node", look_at(&run(), &pod().unschedulable("0/3"), 2), &unscheduled),
        ("waiting for an image", look_at(&run(), &pod().run_waits("ErrImagePull"), 2), &scheduled),
        ("running", look_at(&run(), &pod().running(5), 60), &scheduled),
        ("finalizing", look_at(&run(), &pod().run_ended(0, "Completed"), 60), &scheduled),
        ("interrupted", look_at(&run(), &pod().reported(&asked).deleted(7), 60), &active),
        ("succeeded", look_at(&run(), &pod().reported(&record(0)), 60), &succeeded),
        ("failed", look_at(&run(), &pod().reported(&record(1)), 60), &failed),
        ("stopped", look(&stop, PodSeen::Absent, 60), &stopped),
    ];
    for (name, plan, expected) in cases {
        let status = written(&plan);
        assert_eq!(conditions(&status), expected.iter().copied().collect(), "{name}");
        assert!(status.conditions.iter().all(|c| !c.reason.is_empty()), "{name}");
    }
    let refused = written(&refused(&run(), &Refusal::Invalid { message: "words".into(), fields: vec![] }, 2));
    assert_eq!(conditions(&refused), BTreeMap::from(never_scheduled));
}

#[test]
fn a_transition_time_moves_only_when_the_status_flips() {
    let waiting = written(&look_at(&run(), &pod().unschedulable("0/3"), 2));
    let running = written(&look_at(&with_status(&run(), &waiting), &pod().running(5), 60));
    let ended = written(&look_at(&with_status(&run(), &running), &pod().reported(&record(0)), 70));
    assert_eq!(since(&waiting, "Reconciling"), at(2));
    assert_eq!(since(&running, "Reconciling"), at(2), "still reconciling");
    assert_eq!(since(&running, "Ready"), at(2), "still not ready");
    assert_eq!(
        (since(&waiting, "Scheduled"), since(&running, "Scheduled")),
        (at(1), at(2)),
        "the scheduler's own time"
    );
    assert_eq!(since(&ended, "Ready"), at(70));
    assert_eq!(since(&ended, "Complete"), at(70));
}

#[test]
fn the_next_attempt_is_not_scheduled_because_the_last_one_was() {
    let running = with_status(&run(), &written(&look_at(&run(), &pod().running(5), 60)));
    let asked = Record { asked_to_stop: true, ..record(143) };
    let interrupted = written(&look_at(&running, &pod().reported(&asked).deleted(7), 70));
    assert!(!conditions(&interrupted).contains_key("Scheduled"));
}

#[test]
fn observed_generation_is_the_one_that_was_acted_on() {
    assert_eq!(written(&look_at(&run(), &pod().running(5), 60)).observed_generation, Some(1));
}

/// `kubectl wait` and kstatus take a condition of an earlier generation for none.
#[test]
fn every_condition_is_of_the_generation_that_was_acted_on() {
    let of = |status: &BundleRunStatus| -> Vec<_> {
        assert!(!status.conditions.is_empty());
        status.conditions.iter().map(|condition| condition.observed_generation).collect()
    };
    let generation = |mut run: BundleRun, generation| {
        run.metadata.generation = Some(generation);
        run
    };
    let waiting = with_status(&run(), &written(&look_at(&run(), &pod().unschedulable("0/3"), 2)));
    let running = with_status(&run(), &written(&look_at(&waiting, &pod().running(5), 60)));
    let ended = with_status(&run(), &written(&look_at(&running, &pod().reported(&record(0)), 70)));
    for run in [&waiting, &running, &ended] {
        assert!(of(run.status.as_ref().unwrap()).iter().all(|seen| *seen == Some(1)), "{run:#?}");
    }
    // Also those that this change does not touch: `Scheduled`, and all of a run that is over.
    let suspends = {
        let mut run = generation(running, 2);
        run.spec.suspend = true;
        run
    };
    let suspending = written(&look_at(&suspends, &pod().running(5), 65));
    assert!(of(&suspending).iter().all(|seen| *seen == Some(2)), "{suspending:#?}");
    let later = written(&look(&generation(ended.clone(), 3), PodSeen::Absent, 99));
    assert!(of(&later).iter().all(|seen| *seen == Some(3)), "{later:#?}");

    // An older version wrote conditions without: an upgrade is no reason to write to every run that is over.
    let mut old = ended;
    old.status.as_mut().unwrap().conditions.iter_mut().for_each(|condition| condition.observed_generation = None);
    assert_eq!(look(&old, PodSeen::Absent, 99), Plan::default());
}

/// What `metav1.Condition` takes; the definition has the same pattern.
fn is_a_reason(word: &str) -> bool {
    let pattern = regex::Regex::new(crate::api::CONDITION_REASON).unwrap();
    pattern.is_match(word) && word.len() <= 1024
}

#[test]
fn every_word_that_can_be_a_reason_is_one() {
    let causes = Cause::ALL.iter().flat_map(|cause| cause.names());
    let reasons = Reason::ALL.iter().flat_map(|reason| reason.names());
    let words = ConditionType::ALL.iter().flat_map(|type_| type_.reasons()).map(|(_, word)| *word);
    let words = words.filter(|word| word.starts_with(char::is_uppercase));
    let phases: Vec<String> = Phase::ALL.iter().map(|phase| format!("{phase:?}")).collect();
    for word in causes.chain(reasons).chain(words).chain(phases.iter().map(String::as_str)) {
        assert!(is_a_reason(word), "{word}");
        assert_eq!(as_reason(word), word);
    }
}

#[test]
fn a_word_of_kubernetes_that_is_no_reason_is_made_one() {
    for (word, reason) in [
        ("OutOfnvidia.com/gpu", "OutOfnvidia_com_gpu"),
        ("OutOfhugepages-2Mi", "OutOfhugepages_2Mi"),
        ("", "Unknown"),
        ("2 nodes", "nodes"),
        ("ends with:", "ends_with"),
        ("größer", "gr__er"),
    ] {
        assert_eq!(as_reason(word), reason);
    }
    let refused = written(&look_at(&in_attempt(4), &pod().of_attempt(4).failed("OutOfnvidia.com/gpu", "words"), 12));
    assert_eq!(refused.reason.as_deref(), Some("OutOfnvidia.com/gpu"));
    assert!(refused.conditions.iter().all(|condition| is_a_reason(&condition.reason)), "{refused:#?}");
}

/// The definition would refuse every status of such a run.
#[test]
fn a_reason_that_an_older_version_wrote_is_made_one_with_the_next_write() {
    let mut interrupted = written(&look_at(&run(), &pod().failed("OutOfcpu", "words"), 12));
    for condition in &mut interrupted.conditions {
        condition.reason = "OutOfnvidia.com/gpu".into();
    }
    let run = with_status(&run(), &interrupted);
    let next = written(&look_at(&run, &pod().of_attempt(2).unschedulable("0/3"), 60));
    assert!(next.conditions.iter().all(|condition| is_a_reason(&condition.reason)), "{next:#?}");
}

proptest! {
    #[test]
    fn whatever_is_said_becomes_a_reason(word in "\\PC{0,2000}") {
        prop_assert!(is_a_reason(&as_reason(&word)), "{word}");
    }
}
