//! Conditions: which there are in a phase, and when their transition times move.

use std::collections::BTreeMap;

use super::*;

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
    let succeeded = [("Complete", "True"), ("OutputSaved", "False"), ("Ready", "True"), ("Scheduled", "True")];
    let failed =
        [("Failed", "True"), ("OutputSaved", "False"), ("Ready", "False"), ("Scheduled", "True"), ("Stalled", "True")];
    let never_scheduled = [("Failed", "True"), ("Ready", "False"), ("Stalled", "True")];
    let cases: [(&str, Plan, Conditions); 7] = [
        ("waiting for a node", look_at(&run(), &pod().unschedulable("0/3"), 2), &unscheduled),
        ("waiting for an image", look_at(&run(), &pod().run_waits("ErrImagePull"), 2), &active),
        ("running", look_at(&run(), &pod().running(5), 60), &scheduled),
        ("finalizing", look_at(&run(), &pod().run_ended(0, "Completed"), 60), &scheduled),
        ("interrupted", look_at(&run(), &pod().reported(&asked).deleted(7), 60), &active),
        ("succeeded", look_at(&run(), &pod().reported(&record(0)), 60), &succeeded),
        ("failed", look_at(&run(), &pod().reported(&record(1)), 60), &failed),
    ];
    for (name, plan, expected) in cases {
        let status = written(&plan);
        assert_eq!(conditions(&status), expected.iter().copied().collect(), "{name}");
        assert!(status.conditions.iter().all(|c| !c.reason.is_empty()), "{name}");
    }
    let refused = written(&refused(&run(), &Refusal::Invalid("words".into()), 2));
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
        (at(2), at(2)),
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
