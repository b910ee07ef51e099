//! Definition and operator of different versions.

use super::*;
use crate::plan::words::wait_reason::NO_DEADLINE;

fn older() -> Skew {
    let missing = (1..=7).map(|n| format!("status.f{n}")).collect();
    Skew { missing, differs: true }
}

fn newer() -> Skew {
    Skew { missing: Vec::new(), differs: true }
}

fn look_under(run: &BundleRun, skew: &Skew, pod: PodSeen, second: i64) -> Plan {
    plan(&Observed { skew, ..nothing_but(run, pod) }, &settings(), at(second))
}

#[test]
fn under_an_older_definition_no_attempt_is_made_and_the_run_says_why() {
    let first = look_under(&run(), &older(), PodSeen::Absent, 1);
    assert_eq!(words(&first), ["Write Pending", "Tell DefinitionOutdated"]);
    let status = written(&first);
    let waiting = status.waiting.as_ref().unwrap();
    assert_eq!((waiting.stage.as_deref(), &waiting.deadline), (Some("Version"), &None));
    assert_eq!(waiting.until.as_deref(), Some(NO_DEADLINE));
    let message = waiting.message.as_deref().unwrap();
    assert!(message.ends_with("no status.f1, status.f2, status.f3, status.f4, status.f5 and 2 more"), "{message}");
    let told = with_status(&run(), &status);
    // Long before the next look at it.
    let again = plan(
        &Observed { skew: &older(), written_at: Some(at(1)), ..nothing_but(&told, PodSeen::Absent) },
        &settings(),
        at(9),
    );
    assert!(again.steps.is_empty() && again.next.is_some(), "{again:?}");
    assert_eq!(words(&look_under(&told, &NO_SKEW, PodSeen::Absent, 60)), ["Create r-1"]);
}

#[test]
fn under_an_older_definition_ends_releases_and_stop_go_on() {
    let ended = pod().reported(&record(0)).facts();
    let end = look_under(&run(), &older(), PodSeen::Ours(&ended), 60);
    assert_eq!(words(&end), ["Write Succeeded", "Release r-1", "Tell Completed"]);
    let mut stop = run();
    stop.spec.stop = true;
    assert_eq!(written(&look_under(&stop, &older(), PodSeen::Absent, 60)).phase, Some(Phase::Stopped));
    let running = pod().running(5).facts();
    assert_eq!(words(&look_under(&stop, &older(), PodSeen::Ours(&running), 60)), ["Write Waiting", "Delete r-1"]);
    // The attempt before has to be let go, although no other follows.
    let interrupted = with_status(&run(), &written(&look_at(&run(), &pod().failed("Evicted", ""), 12)));
    let held = look_under(&interrupted, &older(), PodSeen::Absent, 60);
    assert_eq!(words(&held), ["Write Pending", "Tell DefinitionOutdated", "Release r-1"]);
}

#[test]
fn a_run_that_says_more_than_this_version_knows_waits_and_does_not_end() {
    let mut run = run_of(json!({"image": "i:1", "command": "true", "desiredState": "Run"}));
    let first = look_under(&run, &newer(), PodSeen::Absent, 1);
    assert_eq!(words(&first), ["Write Pending", "Tell OperatorOutdated"]);
    let message = written(&first).message.unwrap();
    assert!(message.contains("spec.desiredState"), "{message}");
    // What it has a pod for was understood once.
    let ended = pod().reported(&record(0)).facts();
    assert_eq!(words(&look_under(&run, &newer(), PodSeen::Ours(&ended), 60))[0], "Write Succeeded");
    run.spec.stop = true;
    assert_eq!(written(&look_under(&run, &newer(), PodSeen::Absent, 60)).phase, Some(Phase::Stopped));
}

#[test]
fn a_spec_that_another_definition_lets_through_waits_for_who_knows_its_rules() {
    let invalid = run_of(json!({}));
    let held = written(&look_under(&invalid, &newer(), PodSeen::Absent, 1));
    assert_eq!((held.phase, held.reason.as_deref()), (Some(Phase::Pending), Some("OperatorOutdated")));
    let ended = written(&look_under(&with_status(&invalid, &held), &NO_SKEW, PodSeen::Absent, 60));
    assert_eq!(ended.reason.as_deref(), Some("InvalidSpec"), "by its own definition");
    assert_eq!(words(&look_under(&run(), &newer(), PodSeen::Absent, 1)), ["Create r-1"], "nothing of it is new");
}
