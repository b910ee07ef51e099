//! Snapshots of other runs as inputs.

use super::bundles::{OTHER, REPOSITORY, annotation, bundle, interrupted, look_with, parents, with_store};
use super::pods::check_pod;
use super::*;
use crate::contract::{InputSource, Pin, Pins, Request, SnapshotInput, SnapshotPin};

fn child() -> BundleRun {
    let source = json!({"name": "prepare", "path": "weights", "snapshot": "latest"});
    run_of(json!({"image": "i:1", "command": "true", "inputs": [{"path": "data", "run": source}]}))
}

/// The run whose snapshot is wanted.
fn parent(phase: Phase, has_begun: bool) -> Parents {
    parents(Parent { uid: "uid-of-prepare".into(), phase: Some(phase), has_begun, attempts: 4, ..Parent::default() })
}

fn source(plan: &Plan) -> InputSource {
    annotation::<Request>(plan, crate::names::REQUEST_ANNOTATION).inputs.remove(0).source
}

/// Of a run in its fourth attempt.
fn wanted(ended: bool) -> InputSource {
    wanted_of(4, ended)
}

/// The same of a run that is gone: nobody knows how many attempts it had.
fn wanted_of(attempts: u32, ended: bool) -> InputSource {
    InputSource::Snapshot(SnapshotInput {
        repository: REPOSITORY.into(),
        run: "prepare".into(),
        run_uid: "uid-of-prepare".into(),
        of: SnapshotPin { attempts, ended },
        tag: "r.u.0.i".into(),
        path: Some("weights".into()),
    })
}

#[test]
fn a_run_with_a_snapshot_as_its_input_has_this_pod() {
    check_pod("snapshot.yaml", &look_with(&child(), &parent(Phase::Running, true), 1));
}

#[test]
fn a_snapshot_is_looked_for_from_the_start_of_its_run_whatever_its_end() {
    assert_eq!(written(&look_with(&child(), &Parents::default(), 1)).reason.as_deref(), Some("InputMissing"));
    for phase in [Phase::Waiting, Phase::Pending] {
        let status = written(&look_with(&child(), &parent(phase, false), 1));
        assert_eq!(status.reason.as_deref(), Some("InputNotStarted"), "{phase:?}");
        assert_eq!(status.message.as_deref(), Some("run prepare has not started"));
    }
    // Pending: between two attempts. Succeeded: in less time than Running takes to be written.
    for (phase, has_begun, ended) in [
        (Phase::Pending, true, false),
        (Phase::Running, true, false),
        (Phase::Finalizing, true, false),
        (Phase::Succeeded, false, true),
        (Phase::Failed, true, true),
        (Phase::Stopped, true, true),
    ] {
        let plan = look_with(&child(), &parent(phase, has_begun), 1);
        assert_eq!(source(&plan), wanted(ended), "{phase:?}");
    }
    // The store was another one when the parent ran.
    let mut before = parent(Phase::Failed, true);
    before.runs.get_mut("prepare").unwrap().bundle = Some(format!("old:5000/bundles/n@{DIGEST}"));
    let request: Request = annotation(&look_with(&child(), &before, 1), crate::names::REQUEST_ANNOTATION);
    assert_eq!(request.own_repositories, ["old:5000/bundles/n"]);
    assert_eq!(request.inputs[0].source.in_a_registry(), Some(("old:5000/bundles/n", Some("weights"))));
}

#[test]
fn a_snapshot_is_never_mounted_by_the_node() {
    let settings = Settings { image_volumes: true, ..with_store() };
    let mut run = parent(Phase::Succeeded, true);
    run.runs.get_mut("prepare").unwrap().mountable = true;
    let mut child = child();
    child.spec.inputs[0].run.as_mut().unwrap().path = None;
    let observed = Observed { parents: &run, ..nothing_but(&child, PodSeen::Absent) };
    assert!(matches!(source(&plan(&observed, &settings, at(1))), InputSource::Snapshot(_)));
}

#[test]
fn without_a_store_it_is_said_that_there_are_no_snapshots() {
    let run = parent(Phase::Running, true);
    let child = child();
    let observed = Observed { parents: &run, ..nothing_but(&child, PodSeen::Absent) };
    let status = written(&plan(&observed, &settings(), at(1)));
    assert_eq!(status.reason.as_deref(), Some("InvalidSpec"));
    let message = status.message.unwrap();
    assert!(message.contains("spec.inputs[0].run.snapshot: ") && message.contains("no store"), "{message}");
}

#[test]
fn a_helper_that_waits_for_a_snapshot_is_told_once_when_its_run_is_over() {
    let made = look_with(&child(), &parent(Phase::Running, true), 1);
    let annotations = created(&made).metadata.annotations.clone().unwrap();
    assert_eq!(annotations[crate::names::AWAITED_RUNS_ANNOTATION], "");
    let with = |pod: PodCase, told: Option<&str>| {
        let pins = &annotations[crate::names::PINS_ANNOTATION];
        let mut all = json!({crate::names::PINS_ANNOTATION: pins});
        if let Some(told) = told {
            all[crate::names::AWAITED_RUNS_ANNOTATION] = told.into();
        }
        let mut pod = pod;
        pod.0["metadata"]["annotations"] = all;
        pod.facts()
    };
    let tells = |pod: &PodFacts, parents: &Parents| {
        let child = child();
        let observed = Observed { parents, ..nothing_but(&child, PodSeen::Ours(pod)) };
        words(&plan(&observed, &with_store(), at(1))).into_iter().find(|word| word.starts_with("Tell r-1"))
    };
    let told = |runs: &str| Some(format!("Tell r-1 of {runs:?}"));
    let staging = || pod().running(5).staging();
    let mut anew = parent(Phase::Running, true);
    anew.runs.get_mut("prepare").unwrap().uid = "other".into();
    let over = parent(Phase::Stopped, true);
    let ended = r#"{"uid-of-prepare":{"attempts":4,"ended":true}}"#;
    for parents in [&over, &Parents::default(), &anew] {
        assert_eq!(tells(&with(staging(), Some("")), parents), told(ended));
        assert_eq!(tells(&with(pod(), Some("")), parents), told(ended));
    }
    let mut later = parent(Phase::Running, true);
    later.runs.get_mut("prepare").unwrap().attempts = 5;
    assert_eq!(tells(&with(staging(), Some("")), &later), told(r#"{"uid-of-prepare":{"attempts":5}}"#));
    assert_eq!(tells(&with(staging(), Some("")), &parent(Phase::Pending, true)), None, "between two attempts");
    assert_eq!(tells(&with(staging(), Some(ended)), &over), None, "it knows");
    assert_eq!(tells(&with(staging(), None), &over), None, "an operator made it that does not tell");
    assert_eq!(tells(&with(pod().running(5), Some("")), &over), None, "it has found one");
    let unreadable = Parents { unreadable: ["prepare".to_owned()].into(), ..Parents::default() };
    for known in ["", ended] {
        assert_eq!(tells(&with(staging(), Some(known)), &unreadable), None, "it may go on, and nothing is taken back");
    }

    let made = look_with(&child(), &over, 1);
    let annotations = created(&made).metadata.annotations.as_ref().unwrap();
    assert!(!annotations.contains_key(crate::names::AWAITED_RUNS_ANNOTATION), "its helper knows from the start");
}

#[test]
fn what_the_helper_found_is_what_later_attempts_get() {
    let first = look_with(&child(), &parent(Phase::Running, true), 1);
    let pins: Pins = annotation(&first, crate::names::PINS_ANNOTATION);
    let snapshot = Some(SnapshotPin { attempts: 4, ended: false });
    let run_uid = Some("uid-of-prepare".to_owned());
    let pin = Pin { reference: REPOSITORY.into(), run_uid: run_uid.clone(), snapshot, ..Pin::default() };
    assert_eq!(pins.inputs, BTreeMap::from([(0, pin)]));

    let report = Report { record: Some(Record { asked_to_stop: true, ..record(0) }), ..Report::default() };
    let mut pod = pod().running(5);
    let pins = serde_json::to_string(&pins).unwrap();
    pod.0["metadata"]["annotations"] = json!({crate::names::PINS_ANNOTATION: pins});
    let pod = pod.facts();
    let outcome = crate::plan::outcome::Outcome::new(crate::plan::Cause::PodDeleted, "");
    let gone = [parent(Phase::Running, true), parent(Phase::Succeeded, true), Parents::default()];
    // A helper that could say which one it was, and one that was lost with its node.
    for (found, source_later) in [(Some(OTHER), None), (None, Some([wanted(false), wanted(true), wanted_of(10, true)]))]
    {
        let mut message = Message { report: report.clone(), ..Message::default() };
        message.input_digests.extend(found.map(|digest| (0, digest.to_owned())));
        let run = child();
        let draft = status::Draft::of(&run, at(9)).followed(&interrupted(1, &pod, &message, &outcome), Duration::ZERO);
        let status = draft.changed().unwrap();
        let [input] = status.inputs.as_slice() else { panic!("{status:#?}") };
        assert_eq!((input.digest.as_deref(), &input.reference), (found, &found.map(bundle)));
        assert_eq!(input.run_uid, run_uid);
        let second = with_status(&run, &status);
        for (number, parents) in gone.iter().enumerate() {
            let expected = match &source_later {
                Some(wanted) => wanted[number].clone(),
                None => InputSource::Image { reference: bundle(OTHER), path: Some("weights".into()) },
            };
            assert_eq!(source(&look_with(&second, parents, 60)), expected);
        }
    }
    // Made anew under its name, it is another run.
    let mut anew = parent(Phase::Running, true);
    anew.runs.get_mut("prepare").unwrap().uid = "other".into();
    let run = child();
    let draft =
        status::Draft::of(&run, at(9)).followed(&interrupted(1, &pod, &Message::default(), &outcome), Duration::ZERO);
    let second = with_status(&run, &draft.changed().unwrap());
    assert_eq!(source(&look_with(&second, &anew, 60)), wanted_of(10, true));
}
