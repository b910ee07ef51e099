//! Inputs from other runs, saved outputs, and `stop`.

use super::*;
use crate::api::spec::OnInputFailure;
use crate::api::status::Blame;
use crate::contract;
use crate::contract::{InputSource, NotSaved, Pin, Pins, Request, SaveFailure, Saved, SavedSoFar};

pub(super) const OTHER: &str = "sha256:40a1746cbc95e1bd292d984adbb843da2a7dfdc7aaf00688c1678a54b36bcf6b";
pub(super) const REPOSITORY: &str = "store:5000/bundles/n";

pub(super) fn with_store() -> Settings {
    let store = Store {
        prefix: "store:5000/bundles".into(),
        secret_name: "bundle-store".into(),
        deadline: Duration::from_hours(1),
        when_interrupted: Duration::from_mins(2),
        max_blob_bytes: None,
        background: None,
    };
    Settings { store: Some(store), ..settings() }
}

fn child() -> BundleRun {
    run_of(json!({"image": "i:1", "command": "true", "inputs": [
        {"path": "data", "run": {"name": "prepare", "path": "train.csv"}},
        {"path": "/models", "image": {"reference": "registry:5000/models:v1"}}]}))
}

pub(super) fn bundle(digest: &str) -> String {
    format!("{REPOSITORY}@{digest}")
}

fn prepare(phase: Phase) -> Parent {
    let bundle = phase.is_terminal().then(|| bundle(DIGEST));
    Parent { uid: "up".into(), phase: Some(phase), bundle, ..Parent::default() }
}

pub(super) fn parents(parent: Parent) -> Parents {
    Parents { runs: BTreeMap::from([("prepare".to_owned(), parent)]), ..Parents::default() }
}

pub(super) fn look_with(run: &BundleRun, parents: &Parents, second: i64) -> Plan {
    let observed = Observed { parents, pull_secrets: Some(&[]), ..nothing_but(run, PodSeen::Absent) };
    plan(&observed, &with_store(), at(second))
}

pub(super) fn annotation<T: serde::de::DeserializeOwned>(plan: &Plan, name: &str) -> T {
    serde_json::from_str(&created(plan).metadata.annotations.as_ref().unwrap()[name]).unwrap()
}

/// A pod of a run with a store, as the cache has it.
pub(super) fn stored(pod: PodCase, inputs: &[(usize, &str)]) -> PodCase {
    let pin = |digest: &str| Pin { reference: bundle(digest), run_uid: Some("up".into()), ..Pin::default() };
    let pins = Pins {
        repository: Some(REPOSITORY.into()),
        default_image: None,
        inputs: inputs.iter().map(|(index, digest)| (*index, pin(digest))).collect(),
    };
    let mut pod = pod;
    pod.0["metadata"]["annotations"] = json!({crate::names::PINS_ANNOTATION: serde_json::to_string(&pins).unwrap()});
    pod
}

pub(super) fn interrupted<'a>(
    attempt: u32,
    pod: &'a PodFacts,
    message: &'a Message,
    outcome: &'a crate::plan::outcome::Outcome,
) -> status::AttemptEnd<'a> {
    status::AttemptEnd { requested: "i:1", attempt, pod: Some(pod), message: Some(message), outcome }
}

fn ended_with(record: &Record, saved: Option<Saved>, not_saved: Option<NotSaved>) -> PodCase {
    let report = Report { record: Some(record.clone()), saved, not_saved, ..Report::default() };
    let code = record.container_exit_code();
    stored(pod().run_ended(code, "x").helper_ended(0, &Message::encode(&report, b"", b"")), &[])
}

fn saved() -> Saved {
    Saved { digest: OTHER.into(), pushed_bytes: 7, ..Saved::default() }
}

#[test]
fn an_annotation_that_is_taken_from_a_pod_makes_no_false_success() {
    let lost = NotSaved { failure: SaveFailure::StoreDenied, detail: "401".into() };
    for (saved, lost, cause) in [(Some(saved()), None, "Completed"), (None, Some(lost), "OutputNotSaved")] {
        let mut ended = ended_with(&record(0), saved, lost);
        ended.0["metadata"]["annotations"] = json!({});
        let facts = ended.facts();
        let run = run();
        let observed = nothing_but(&run, PodSeen::Ours(&facts));
        let status = written(&plan(&observed, &with_store(), at(60)));
        assert_eq!(status.reason.as_deref(), Some(cause));
        let is_told = status.output.unwrap().bundle.is_some_and(|bundle| bundle.ends_with(OTHER));
        assert_eq!(is_told, cause == "Completed");
    }
}

#[test]
fn a_parent_that_cannot_be_read_is_told_as_that() {
    let unreadable = Parents { unreadable: ["prepare".to_owned()].into(), ..Parents::default() };
    let status = written(&look_with(&child(), &unreadable, 1));
    let waiting = status.waiting.unwrap();
    assert_eq!((waiting.reason.as_deref(), waiting.until.as_deref()), (Some("InputUnreadable"), Some("no deadline")));
    assert_eq!(waiting.message.as_deref(), Some("run prepare cannot be read by this version of the operator"));
}

#[test]
fn a_child_waits_for_what_is_missing_and_says_for_what() {
    let missing = look_with(&child(), &Parents::default(), 1);
    assert_eq!(words(&missing), ["Write Waiting"]);
    let status = written(&missing);
    let waiting = status.waiting.clone().unwrap();
    assert_eq!((waiting.stage.as_deref(), waiting.reason.as_deref()), (Some("Inputs"), Some("InputMissing")));
    assert_eq!(waiting.message.as_deref(), Some("run prepare does not exist"));
    let told = with_status(&child(), &status);
    assert_eq!(look_with(&told, &Parents::default(), 60), Plan::nothing(), "told once, and nothing to ask for");
    for phase in [Phase::Waiting, Phase::Pending, Phase::Running, Phase::Finalizing] {
        let status = written(&look_with(&told, &parents(prepare(phase)), 60));
        assert_eq!(status.reason.as_deref(), Some("InputNotFinished"), "{phase:?}");
        let ready = status.conditions.iter().find(|c| c.type_ == "InputsReady").unwrap();
        assert_eq!((ready.status.as_str(), ready.message.as_str()), ("False", "run prepare has not ended"));
    }
    let unseen = Parent { phase: None, ..prepare(Phase::Waiting) };
    assert_eq!(written(&look_with(&child(), &parents(unseen), 1)).reason.as_deref(), Some("InputNotFinished"));
}

#[test]
fn what_a_parent_became_decides() {
    let nothing = |phase| Parent { bundle: None, ..prepare(phase) };
    for (parent, allow, expected) in [
        (prepare(Phase::Succeeded), false, "Create r-1"),
        (prepare(Phase::Failed), true, "Create r-1"),
        (prepare(Phase::Stopped), true, "Create r-1"),
        (prepare(Phase::Failed), false, "InputFailed"),
        (prepare(Phase::Stopped), false, "InputFailed"),
        (nothing(Phase::Succeeded), false, "InputNotSaved"),
        (nothing(Phase::Failed), true, "InputNotSaved"),
    ] {
        let mut run = child();
        run.spec.allow_failed_inputs = allow;
        let plan = look_with(&run, &parents(parent.clone()), 1);
        let got = match plan.steps.first() {
            Some(Step::CreatePod(_)) => words(&plan)[0].clone(),
            _ => written(&plan).reason.unwrap(),
        };
        assert_eq!(got, expected, "{parent:?} {allow}");
    }
}

#[test]
fn the_end_of_a_parent_is_to_blame_for_the_end_of_its_child() {
    let nothing = |phase| Parent { bundle: None, ..prepare(phase) };
    for (parent, allow, cause, blame, words) in [
        (prepare(Phase::Failed), false, "QuotaExceeded", Blame::Quota, "run prepare failed (QuotaExceeded)"),
        (prepare(Phase::Failed), false, "NodeHung", Blame::Platform, "run prepare failed (NodeHung)"),
        (prepare(Phase::Failed), false, "CommandFailed", Blame::User, "run prepare failed (CommandFailed)"),
        (nothing(Phase::Failed), true, "NoShell", Blame::User, "run prepare has ended (NoShell), but"),
    ] {
        let mut run = child();
        run.spec.allow_failed_inputs = allow;
        let parent = Parent { cause: Some(cause.into()), blame: Some(blame), ..parent };
        let status = written(&look_with(&run, &parents(parent), 1));
        assert_eq!(status.result.unwrap().blame, Some(blame), "{cause}");
        assert!(status.message.unwrap().contains(words), "{cause}");
    }
    // Nobody is to blame for these, and the child has failed.
    for (parent, blame) in [(prepare(Phase::Stopped), Blame::User), (nothing(Phase::Succeeded), Blame::Platform)] {
        let status = written(&look_with(&child(), &parents(parent), 1));
        assert_eq!(status.result.unwrap().blame, Some(blame));
    }
}

#[test]
fn a_patient_child_waits_for_a_parent_made_anew() {
    let mut run = child();
    run.spec.on_input_failure = OnInputFailure::Wait;
    let nothing = |phase| Parent { bundle: None, ..prepare(phase) };
    for (parent, words) in [
        (prepare(Phase::Failed), "run prepare failed (OutOfMemory): "),
        (prepare(Phase::Stopped), "run prepare was stopped (OutOfMemory): "),
        (nothing(Phase::Succeeded), "run prepare has ended (OutOfMemory), but its output was not saved: "),
    ] {
        let parent = parents(Parent { cause: Some("OutOfMemory".into()), ..parent });
        let status = written(&look_with(&run, &parent, 1));
        let waiting = status.waiting.clone().unwrap();
        assert_eq!((status.phase, waiting.reason.as_deref()), (Some(Phase::Waiting), Some("InputFailed")));
        assert_eq!((waiting.stage.as_deref(), &waiting.deadline), (Some("Inputs"), &None));
        assert!(waiting.message.as_ref().unwrap().starts_with(words), "{waiting:?}");
        let told = with_status(&run, &status);
        assert_eq!(look_with(&told, &parent, 100_000), Plan::nothing(), "told once");
        // What becomes of the next one of that name.
        assert_eq!(written(&look_with(&told, &Parents::default(), 60)).reason.as_deref(), Some("InputMissing"));
        let anew = Parent { uid: "other".into(), ..prepare(Phase::Succeeded) };
        assert_eq!(words_of(&look_with(&told, &parents(anew), 60)), "Create r-1");
    }
    // Those that failed are to be seen to, whatever the others are at.
    run.spec.inputs[1] = serde_json::from_value(json!({"path": "b", "run": {"name": "later"}})).unwrap();
    let failed = Parent { cause: Some("OutOfMemory".into()), ..prepare(Phase::Failed) };
    let status = written(&look_with(&run, &parents(failed), 1));
    assert_eq!(status.reason.as_deref(), Some("InputFailed"));
    assert!(status.message.unwrap().ends_with("; run later does not exist"));
}

fn words_of(plan: &Plan) -> String {
    words(plan).first().cloned().unwrap_or_default()
}

#[test]
fn runs_that_wait_for_each_other_are_told_at_once() {
    let cycle = Some(["r", "prepare", "r"].map(str::to_owned).to_vec());
    let plan = look_with(&child(), &Parents { cycle, ..parents(prepare(Phase::Waiting)) }, 1);
    let status = written(&plan);
    assert_eq!((status.phase, status.reason.as_deref()), (Some(Phase::Failed), Some("InputCycle")));
    assert!(status.message.unwrap().contains("r -> prepare -> r"));
}

#[test]
fn pins_travel_with_the_pod_and_stay_whatever_becomes_of_the_parent() {
    let first = look_with(&child(), &parents(prepare(Phase::Succeeded)), 1);
    let pins: Pins = annotation(&first, crate::names::PINS_ANNOTATION);
    let pin = Pin { reference: bundle(DIGEST), run_uid: Some("up".into()), ..Pin::default() };
    assert_eq!((pins.repository.as_deref(), pins.inputs), (Some(REPOSITORY), BTreeMap::from([(0, pin)])));
    let request: Request = annotation(&first, crate::names::REQUEST_ANNOTATION);
    let source = |reference: &str, path: Option<&str>| InputSource::Image {
        reference: reference.into(),
        path: path.map(str::to_owned),
    };
    assert_eq!(request.inputs[0].source, source(&bundle(DIGEST), Some("train.csv")));
    assert_eq!(request.inputs[1].source, source("registry:5000/models:v1", None));
    let save = request.save.unwrap();
    assert_eq!((save.repository.as_str(), save.tag.as_str()), (REPOSITORY, "r.1.u"));

    // The helper found a digest under the tag; then the pod was lost, and the parent made anew.
    let report = Report { record: Some(Record { asked_to_stop: true, ..record(0) }), ..Report::default() };
    let mut message = Message { report, ..Message::default() };
    message.input_digests.insert(1, OTHER.into());
    let ended = stored(pod().running(5), &[(0, DIGEST)]).facts();
    let outcome = crate::plan::outcome::Outcome::new(crate::plan::Cause::PodDeleted, "");
    let first = child();
    let draft = status::Draft::of(&first, at(9)).followed(&interrupted(1, &ended, &message, &outcome), Duration::ZERO);
    let second = with_status(&child(), &draft.changed().unwrap());
    let later = Parent { uid: "new".into(), bundle: Some(bundle(OTHER)), ..prepare(Phase::Succeeded) };
    for parents in [parents(later), parents(prepare(Phase::Running)), Parents::default()] {
        let request: Request = annotation(&look_with(&second, &parents, 60), crate::names::REQUEST_ANNOTATION);
        assert_eq!(request.inputs[0].source, source(&bundle(DIGEST), Some("train.csv")));
        assert_eq!(request.inputs[1].source, source(&format!("registry:5000/models@{OTHER}"), None));
    }
}

#[test]
fn an_input_that_lacks_files_is_on_the_record_as_that() {
    let saved = Saved { withheld: 1, skipped_names: vec!["key (cannot be read)".into()], ..saved() };
    let run = with_status(&run(), &written(&look_at(&run(), &ended_with(&record(0), Some(saved), None), 12)));
    let parent = Parent { uid: "up".into(), bundle: Some(bundle(DIGEST)), ..Parent::of(&run) };
    assert_eq!((parent.phase, parent.cause.as_deref()), (Some(Phase::Succeeded), Some("SavedInPart")));
    let first = look_with(&child(), &parents(parent), 1);
    let pins: Pins = annotation(&first, crate::names::PINS_ANNOTATION);
    assert!(pins.inputs[&0].in_part);
    let mut pod = pod().running(5);
    pod.0["metadata"]["annotations"] = json!({crate::names::PINS_ANNOTATION: serde_json::to_string(&pins).unwrap()});
    let told = with_status(&child(), &written(&look_at(&child(), &pod, 9)));
    assert_eq!(told.status.as_ref().unwrap().inputs.iter().map(|i| i.in_part).collect::<Vec<_>>(), [true, false]);
    // The next attempt has the same, whatever became of the parent.
    let second = status::Draft::of(&told, at(9)).followed(
        &interrupted(
            1,
            &pod.facts(),
            &Message::default(),
            &crate::plan::outcome::Outcome::new(crate::plan::Cause::PodDeleted, ""),
        ),
        Duration::ZERO,
    );
    let second = with_status(&told, &second.changed().unwrap());
    let pins: Pins = annotation(&look_with(&second, &Parents::default(), 60), crate::names::PINS_ANNOTATION);
    assert!(pins.inputs[&0].in_part);
}

/// An image that takes long to look through is looked through once, and not by each attempt.
#[test]
fn a_later_attempt_is_told_which_inputs_an_earlier_one_found_to_be_files() {
    let inputs = json!([
        {"path": "weights", "image": {"reference": "r/models:1", "path": "w/weights"}},
        {"path": "docs", "image": {"reference": "r/models:1", "path": "docs"}},
    ]);
    let run = run_of(json!({"image": "i:1", "command": "true", "inputs": inputs}));
    let requested = |run: &BundleRun| {
        let plan = look_with(run, &Parents::default(), 60);
        annotation::<Request>(&plan, crate::names::REQUEST_ANNOTATION).inputs
    };
    assert!(requested(&run).iter().all(|input| !input.is_file));
    let report = Report {
        record: Some(Record { cause: Some(Cause::StagingFailed), ..record(125) }),
        late_files: [0].into(),
        ..Report::default()
    };
    let message = Message {
        report,
        input_digests: BTreeMap::from([(0, DIGEST.to_owned()), (1, DIGEST.to_owned())]),
        ..Message::default()
    };
    let ended = pod().running(5).facts();
    let outcome = crate::plan::outcome::Outcome::new(crate::plan::Cause::StagingFailed, "");
    let draft = status::Draft::of(&run, at(9)).followed(&interrupted(1, &ended, &message, &outcome), Duration::ZERO);
    let second = with_status(&run, &draft.changed().unwrap());
    let told = requested(&second);
    assert_eq!(told.iter().map(|input| input.is_file).collect::<Vec<_>>(), [true, false]);
    assert!(told.iter().all(|input| input.source.in_a_registry().unwrap().0.ends_with(DIGEST)));
}

#[test]
fn every_input_but_claims_and_secrets_has_a_digest_and_a_config_map_keeps_it() {
    let run = run_of(json!({"image": "i:1", "command": "true", "inputs": [
        {"path": "text", "text": "abc"},
        {"path": "url", "url": {"href": "https://h/f", "sha256": OTHER.trim_start_matches("sha256:")}},
        {"path": "image", "image": {"reference": format!("r/a@{DIGEST}")}},
        {"path": "map", "configMap": {"name": "m"}},
        {"path": "claim", "claim": {"name": "c"}},
        {"path": "secret", "secret": {"name": "s"}}]}));
    let requested = |run: &BundleRun| -> Vec<Option<String>> {
        let request: Request = annotation(&look_with(run, &Parents::default(), 60), crate::names::REQUEST_ANNOTATION);
        request.inputs.into_iter().map(|input| input.digest).collect()
    };
    assert_eq!(requested(&run), vec![None; 6], "nothing is known before the first attempt");
    // printf abc | sha256sum
    let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let digests = |status: &BundleRunStatus| status.inputs.iter().map(|i| i.digest.clone()).collect::<Vec<_>>();
    let running = written(&look_at(&run, &pod().running(5), 60));
    let known = [Some(text), Some(OTHER), Some(DIGEST), None, None, None];
    assert_eq!(digests(&running), known.map(|digest| digest.map(str::to_owned)));

    let outcome = crate::plan::outcome::Outcome::new(crate::plan::Cause::PodDeleted, "");
    let mut run = run;
    // Whatever a later one says: the first attempt's stays.
    for (attempt, found) in [(1, DIGEST), (2, OTHER)] {
        let report = Report { record: Some(Record { asked_to_stop: true, ..record(0) }), ..Report::default() };
        let mut message = Message { report, ..Message::default() };
        message.input_digests.extend([3, 4, 5].map(|index| (index, found.to_owned())));
        let ended = pod().running(5).facts();
        let draft =
            status::Draft::of(&run, at(9)).followed(&interrupted(attempt, &ended, &message, &outcome), Duration::ZERO);
        let status = draft.changed().unwrap();
        let known = [Some(text), Some(OTHER), Some(DIGEST), Some(DIGEST), None, None];
        assert_eq!(digests(&status), known.map(|digest| digest.map(str::to_owned)));
        assert!(status.inputs.iter().all(|input| input.reference.is_none()));
        run = with_status(&run, &status);
        let map = Some(DIGEST.to_owned());
        assert_eq!(requested(&run), [None, None, None, map, None, None]);
    }
}

#[test]
fn a_run_succeeds_only_when_its_output_is_safe() {
    let status = written(&look_at(&run(), &ended_with(&record(0), Some(saved()), None), 12));
    assert_eq!(status.phase, Some(Phase::Succeeded));
    assert_eq!(status.output.as_ref().unwrap().bundle, Some(bundle(OTHER)));
    assert_eq!(status.attempts[0].bundle, Some(bundle(OTHER)));
    let lost = |failure| NotSaved { failure, detail: "words".into() };
    for (not_saved, reason) in [
        (Some(lost(SaveFailure::StoreUnreachable)), "StoreUnreachable"),
        (Some(lost(SaveFailure::OutputTooLarge)), "OutputTooLarge"),
        (None, "HelperFailed"),
    ] {
        let status = written(&look_at(&run(), &ended_with(&record(0), None, not_saved), 12));
        assert_eq!((status.phase, status.reason.as_deref()), (Some(Phase::Failed), Some("OutputNotSaved")));
        assert_eq!(status.exit_code, Some(0), "what the command did is told all the same");
        let condition = status.conditions.iter().find(|c| c.type_ == "OutputSaved").unwrap();
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", reason));
    }
}

#[test]
fn how_far_a_save_came_that_had_too_little_time_is_told_of_the_attempt() {
    let so_far = Some(SavedSoFar { stored_bytes: 3 << 30, total_bytes: 10 << 30 });
    let there = "3.0 GiB of 10.0 GiB are in the store: what is the same is not sent again";
    let in_time = NotSaved { failure: SaveFailure::SaveDeadlineExceeded, detail: "5 of 9 bytes in 120 s".into() };
    for (not_saved, why) in [
        (None, "HelperFailed: the helper ended before the output was saved"),
        (Some(in_time), "SaveDeadlineExceeded: 5 of 9 bytes in 120 s"),
    ] {
        let ended = |record: &Record| {
            let report =
                Report { record: Some(record.clone()), so_far, not_saved: not_saved.clone(), ..Report::default() };
            let pod = pod().run_ended(record.container_exit_code(), "Error");
            stored(pod.helper_ended(137, &Message::encode(&report, b"", b"")), &[])
        };
        let asked = Record { asked_to_stop: true, ..record(143) };
        let status = written(&look_at(&run(), &ended(&asked).deleted(7), 60));
        let attempt = status.attempts[0].message.clone().unwrap();
        assert!(attempt.ends_with(&format!("; its output was not saved: {why}; {there}")), "{attempt}");
        assert!(status.message.unwrap().ends_with(&attempt), "until the next one runs");

        let mut last = run();
        last.spec.retry.interruptions = Some(0);
        let status = written(&look_at(&last, &ended(&asked).deleted(7), 60));
        assert!(status.message.unwrap().ends_with(there));
        let saved = status.conditions.iter().find(|condition| condition.type_ == "OutputSaved").unwrap();
        assert_eq!(format!("{}: {}", saved.reason, saved.message), format!("{why}; {there}"));

        // Nobody asked for the end of the command, but for that of the helper.
        let status = written(&look_at(&run(), &ended(&record(0)).deleted(9), 60));
        assert_eq!(status.reason.as_deref(), Some("OutputNotSaved"));
        assert!(status.message.unwrap().ends_with(there));
    }
}

#[test]
fn a_run_that_failed_keeps_its_own_cause_and_its_output() {
    let status = written(&look_at(&run(), &ended_with(&record(3), Some(saved()), None), 12));
    assert_eq!((status.phase, status.reason.as_deref()), (Some(Phase::Failed), Some("CommandFailed")));
    assert_eq!(status.output.unwrap().bundle, Some(bundle(OTHER)));
}

#[test]
fn the_secret_of_the_store_is_not_for_commands() {
    let run = run_of(json!({"command": "true",
        "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "bundle-store", "key": "k"}}}],
        "inputs": [{"path": "a", "secret": {"name": "bundle-store"}}]}));
    let message = written(&look_with(&run, &Parents::default(), 1)).message.unwrap();
    assert!(message.contains("spec.env[0]") && message.contains("spec.inputs[0].secret.name"), "{message}");
}

#[test]
fn outputs_of_other_namespaces_are_refused() {
    let of = |image: &str, input: &str| {
        let run = run_of(json!({"image": image, "command": "true",
            "inputs": [{"path": "a", "image": {"reference": input}}]}));
        let status = written(&look_with(&run, &Parents::default(), 1));
        (status.reason.unwrap_or_default(), status.message.unwrap_or_default())
    };
    let (reason, message) = of("store:5000/bundles/other:t", &format!("store:5000/bundles/o@{OTHER}"));
    assert_eq!(reason, "InvalidSpec");
    for word in ["spec.image: ", "spec.inputs[0].image.reference: ", "store:5000/bundles/n"] {
        assert!(message.contains(word), "{word}: {message}");
    }
    let run = run_of(json!({"image": bundle(DIGEST), "command": "true",
        "inputs": [{"path": "a", "image": {"reference": "store:5000/tools:t"}}]}));
    created(&look_with(&run, &Parents::default(), 1));
}

#[test]
fn the_stores_login_is_for_earlier_outputs_of_the_namespace_too() {
    let settings = with_store();
    let run = run_of(json!({"image": "i:1", "command": "true", "inputs": [
        {"path": "a", "run": {"name": "prepare", "path": "p"}}, {"path": "b", "image": {"reference": "other:5000/n:t"}}]}));
    let own = |bundle: String| {
        let parents = parents(Parent { bundle: Some(bundle), ..prepare(Phase::Succeeded) });
        let created = created(&look_with(&run, &parents, 1)).clone();
        let request = &created.metadata.annotations.as_ref().unwrap()[crate::names::REQUEST_ANNOTATION];
        serde_json::from_str::<Request>(request).unwrap().own_repositories
    };
    assert!(own(bundle(DIGEST)).is_empty(), "{settings:?}");
    assert_eq!(own(format!("old:5000/bundles/n@{DIGEST}")), ["old:5000/bundles/n"]);
    assert!(own(format!("old:5000/bundles/other@{DIGEST}")).is_empty());
}

#[test]
fn a_proxy_is_for_the_helper_alone() {
    let mut settings = settings();
    settings.proxy.https = Some("http://proxy:3128".into());
    settings.proxy.no = vec![".cluster.local".into(), "$(HOME)".into()];
    let plan = plan(&nothing_but(&run(), PodSeen::Absent), &settings, at(1));
    let spec = created(&plan).spec.clone().unwrap();
    let env = |container: &k8s_openapi::api::core::v1::Container| {
        let env = container.env.iter().flatten().filter(|var| var.name.ends_with("_PROXY"));
        env.map(|var| format!("{}={}", var.name, var.value.as_deref().unwrap())).collect::<Vec<_>>()
    };
    let helper = env(&spec.init_containers.unwrap()[0]);
    assert_eq!(helper, ["HTTPS_PROXY=http://proxy:3128", "NO_PROXY=.cluster.local,$$(HOME)"]);
    assert!(env(&spec.containers[0]).is_empty());
}

#[test]
fn stop_ends_a_run_at_every_stage() {
    let stopped = || {
        let mut run = run();
        run.spec.stop = true;
        run
    };
    let told = written(&look(&stopped(), PodSeen::Absent, 1));
    assert_eq!((told.phase, told.reason.as_deref()), (Some(Phase::Stopped), Some("Stopped")));
    for pod in [pod(), pod().unschedulable("full"), pod().run_waits("ErrImagePull"), pod().running(5)] {
        let plan = look_at(&stopped(), &pod, 8);
        assert_eq!(words(&plan), ["Write Waiting", "Delete r-1"]);
        let mut taken_back = with_status(&stopped(), &written(&plan));
        taken_back.spec.stop = false;
        let seen = look_at(&taken_back, &pod, 9);
        assert_eq!(words(&seen), ["Write Waiting", "Delete r-1"], "seen is seen");
        let message = "stop was set: the attempt is being ended, although it was taken back";
        assert_eq!(written(&seen).message.as_deref(), Some(message));
        let asked = Record { asked_to_stop: true, ..killed(15) };
        let ended = written(&look_at(&taken_back, &pod.clone().reported(&asked).deleted(9), 12));
        assert_eq!(ended.phase, Some(Phase::Stopped));
        assert!(!words(&look_at(&stopped(), &pod.deleted(8), 9)).contains(&"Delete r-1".to_owned()), "asked once");
    }
    let asked = Record { asked_to_stop: true, ..killed(15) };
    let status = written(&look_at(&stopped(), &ended_with(&asked, Some(saved()), None).deleted(6), 12));
    assert_eq!((status.phase, status.result.unwrap().blame), (Some(Phase::Stopped), None));
    assert_eq!(status.output.unwrap().bundle, Some(bundle(OTHER)), "what is there is kept");
    assert_eq!(status.signal, Some(15));
    let own = written(&look_at(&stopped(), &ended_with(&record(0), Some(saved()), None), 12));
    assert_eq!(own.phase, Some(Phase::Succeeded), "it was over before");
}

#[test]
fn a_command_that_waits_for_its_inputs_does_not_run_yet() {
    let staging = pod().running(5).staging();
    assert_eq!(look_at(&child(), &staging, 8).steps, []);
    let status = written(&look_at(&child(), &staging, 30));
    assert_eq!((status.phase, status.reason.as_deref()), (Some(Phase::Pending), Some("StagingInputs")));
}

#[test]
fn saving_that_lasts_is_told_twice_a_minute_with_how_far_it_is() {
    let mut pod = stored(pod().run_ended(0, "Completed"), &[]);
    pod.0["status"]["podIP"] = json!("10.0.0.7");
    let facts = pod.facts();
    let look = |run: &BundleRun, progress, written: Option<i64>, second| {
        let observed = Observed { progress, written_at: written.map(at), ..nothing_but(run, PodSeen::Ours(&facts)) };
        plan(&observed, &with_store(), at(second))
    };
    assert_eq!(look(&run(), ProgressSeen::NotAsked, None, 9), Plan::after(Duration::from_secs(9)), "it ended at 8");
    assert_eq!(words(&look(&run(), ProgressSeen::NotAsked, None, 18)), ["Ask 10.0.0.7"]);
    let progress = |done_bytes| {
        let saving = contract::Progress::of(contract::ProgressStage::Saving);
        ProgressSeen::Answered(Some(contract::Progress { done_bytes, total_bytes: 3 << 20, ..saving }))
    };
    let status = written(&look(&run(), progress(1 << 20), None, 18));
    assert_eq!(status.message.as_deref(), Some("the output is being saved: 1.0 MiB of 3.0 MiB"));
    let told = with_status(&run(), &status);
    assert_eq!(look(&told, ProgressSeen::NotAsked, Some(18), 30), Plan::after(Duration::from_secs(18)));
    assert_eq!(words(&look(&told, ProgressSeen::NotAsked, Some(18), 48)), ["Ask 10.0.0.7"]);
    assert_eq!(words(&look(&told, progress(2 << 20), Some(18), 48)), ["Write Finalizing"]);
    assert_eq!(words(&look(&told, progress(1 << 20), Some(18), 48)), [""; 0], "nothing new");
    assert_eq!(words(&look(&told, ProgressSeen::Answered(None), Some(18), 48)), [""; 0], "silence takes nothing back");
    let refused = |done_bytes, total_bytes| {
        let trouble = "401 Unauthorized".to_owned();
        let saving = contract::Progress::of(contract::ProgressStage::Saving);
        let progress = contract::Progress { done_bytes, total_bytes, trouble, ..saving };
        written(&look(&run(), ProgressSeen::Answered(Some(progress)), None, 18)).message.unwrap()
    };
    assert_eq!(refused(0, 0), "the output is being saved; the last try failed: 401 Unauthorized");
    assert_eq!(
        refused(1 << 20, 2 << 20),
        "the output is being saved: 1.0 MiB of 2.0 MiB; the last try failed: 401 Unauthorized"
    );
}

#[test]
fn how_fast_staging_and_saving_are_and_how_long_they_last_is_told() {
    let words = "1.0 GiB of 3.0 GiB, 20.0 MiB a second, 1m42s left";
    let told = |mut pod: PodCase, stage| {
        pod.0["status"]["podIP"] = json!("10.0.0.7");
        let (facts, run) = (stored(pod, &[]).facts(), run());
        let (done_bytes, total_bytes, bytes_per_second) = (1 << 30, 3 << 30, 20 << 20);
        let progress =
            contract::Progress { done_bytes, total_bytes, bytes_per_second, ..contract::Progress::of(stage) };
        let progress = ProgressSeen::Answered(Some(progress));
        let observed = Observed { progress, ..nothing_but(&run, PodSeen::Ours(&facts)) };
        written(&plan(&observed, &with_store(), at(30)))
    };
    let saving = told(pod().run_ended(0, "Completed"), contract::ProgressStage::Saving);
    assert_eq!(saving.phase, Some(Phase::Finalizing));
    assert_eq!(saving.message, Some(format!("the output is being saved: {words}")));
    let staging = told(pod().running(5).staging(), contract::ProgressStage::Staging);
    let wait = staging.waiting.unwrap();
    assert_eq!((staging.phase, wait.reason.as_deref()), (Some(Phase::Pending), Some("StagingInputs")));
    assert_eq!(wait.message, Some(format!("the inputs are being put in place: {words}")));
    assert_eq!(wait.message, staging.message);
}

#[test]
fn what_snapshots_leave_out_is_what_the_run_says_for_them() {
    for (outputs, expected) in [
        (json!({"exclude": ["*.tmp"]}), None),
        (json!({"exclude": ["*.tmp"], "snapshots": {"exclude": ["logs/**"]}}), Some(vec!["logs/**".to_owned()])),
        (json!({"exclude": ["*.tmp"], "snapshots": {"exclude": []}}), Some(vec![])),
    ] {
        let run = run_of(json!({"image": "i:1", "command": "true", "outputs": outputs}));
        let plan = plan(&nothing_but(&run, PodSeen::Absent), &with_store(), at(1));
        let save = annotation::<Request>(&plan, crate::names::REQUEST_ANNOTATION).save.unwrap();
        assert_eq!(save.exclude, ["*.tmp"]);
        assert_eq!(save.snapshots.unwrap().exclude, expected);
    }
}

#[test]
fn what_an_output_lacks_is_named_and_decides() {
    let lacks = |skipped, withheld, damaged, names: &[&str]| {
        let skipped_names = names.iter().map(|&name| name.to_owned()).collect();
        Saved { skipped, withheld, damaged, skipped_names, ..saved() }
    };
    let socket = "a.sock (a socket)";
    let secret = "secret (cannot be read: Permission denied)";
    let bad = "bad (cannot be read: Input/output error)";
    for (saved, phase, reason, condition, message) in [
        (lacks(0, 0, 0, &[]), Phase::Succeeded, "Completed", ("True", "Saved"), String::new()),
        (
            lacks(1, 0, 0, &[socket]),
            Phase::Succeeded,
            "Completed",
            ("True", "Saved"),
            format!("1 entry was not saved: {socket}"),
        ),
        (
            lacks(2, 1, 0, &[secret, socket]),
            Phase::Succeeded,
            "SavedInPart",
            ("True", "SavedInPart"),
            format!("2 entries were not saved: {secret}, {socket}"),
        ),
        (
            lacks(9, 1, 1, &[bad, secret]),
            Phase::Failed,
            "OutputDamaged",
            ("False", "OutputDamaged"),
            format!("9 entries were not saved: {bad}, {secret} and 7 more, which the bundle lists"),
        ),
        (
            lacks(9, 9, 0, &[]),
            Phase::Succeeded,
            "SavedInPart",
            ("True", "SavedInPart"),
            "9 entries were not saved: the bundle lists what".to_owned(),
        ),
    ] {
        let status = written(&look_at(&run(), &ended_with(&record(0), Some(saved.clone()), None), 12));
        assert_eq!((status.phase, status.reason.as_deref()), (Some(phase), Some(reason)), "{saved:?}");
        assert_eq!(status.output.as_ref().unwrap().bundle, Some(bundle(OTHER)), "what there is can be used");
        let told = status.conditions.iter().find(|c| c.type_ == "OutputSaved").unwrap();
        assert_eq!((told.status.as_str(), told.reason.as_str()), condition);
        assert_eq!(told.message, message);
        if reason != "Completed" {
            assert!(status.message.unwrap().ends_with(&message));
        }
        let failed = written(&look_at(&run(), &ended_with(&record(3), Some(saved), None), 12));
        assert_eq!(failed.reason.as_deref(), Some("CommandFailed"), "the command's own end comes first");
    }
}

#[test]
fn a_pod_mounts_every_kind_of_input() {
    let run = run_of(json!({"image": "i:1", "command": "true", "imagePullSecrets": [{"name": "login"}], "inputs": [
        {"path": "a/text", "text": "x"},
        {"path": "b", "configMap": {"name": "c", "key": "k"}},
        {"path": "/c", "secret": {"name": "s"}},
        {"path": "d", "claim": {"name": "p", "path": "sub"}},
        {"path": ".", "image": {"reference": "r:1"}}]}));
    let plan = look_with(&run, &Parents::default(), 1);
    let spec = created(&plan).spec.as_ref().unwrap();
    let mounts = |container: &k8s_openapi::api::core::v1::Container| -> Vec<String> {
        let mounts = container.volume_mounts.iter().flatten();
        let shown = mounts.map(|m| {
            let mode = if m.read_only == Some(true) { "ro" } else { "rw" };
            format!("{}:{}:{}:{mode}", m.name, m.sub_path.as_deref().unwrap_or_default(), m.mount_path)
        });
        shown.filter(|m| ["input", "secrets", "cred"].iter().any(|begin| m.starts_with(begin))).collect()
    };
    assert_eq!(
        mounts(&spec.containers[0]),
        [
            "inputs:0:/bundle/a/text:ro",
            "inputs:1:/bundle/b:ro",
            "secrets:2:/c:ro",
            "input-3:sub:/bundle/d:ro",
            "inputs:4:/.bundlerun/sources/4:ro"
        ]
    );
    assert_eq!(
        mounts(&spec.init_containers.as_ref().unwrap()[0]),
        [
            "inputs::/.bundlerun/inputs:rw",
            "secrets::/.bundlerun/secrets:rw",
            "input-1::/.bundlerun/sources/1:ro",
            "input-2::/.bundlerun/sources/2:ro",
            "credentials-0::/.bundlerun/credentials/0:ro",
            "credentials-1::/.bundlerun/credentials/1:ro"
        ]
    );
    let secrets = spec.volumes.iter().flatten().find(|volume| volume.name == "secrets").unwrap();
    assert_eq!(secrets.empty_dir.as_ref().unwrap().medium.as_deref(), Some("Memory"), "on no disk");
    assert!(spec.containers[0].startup_probe.is_some());
    assert_eq!(spec.termination_grace_period_seconds, Some(30 + 3600 + 30));
    let login = spec.volumes.iter().flatten().find(|volume| volume.name == "credentials-1").unwrap();
    let login = login.secret.as_ref().unwrap();
    let keys: Vec<_> = login.items.iter().flatten().map(|item| (&*item.key, &*item.path)).collect();
    let both = [".dockerconfigjson", ".dockercfg"].map(|key| (key, key));
    assert_eq!((login.optional, keys), (Some(true), both.to_vec()), "there is one of them, or none");
}

#[test]
fn a_whole_bundle_is_mounted_by_the_node_where_it_can() {
    let run = run_of(json!({"image": "i:1", "command": "true", "inputs": [
        {"path": "whole", "run": {"name": "prepare"}}, {"path": "part", "run": {"name": "prepare", "path": "a"}}]}));
    let mounted_with = |mountable, image_volumes, capacity: Option<&Capacity>| {
        let parents = parents(Parent { mountable, ..prepare(Phase::Succeeded) });
        let settings = Settings { image_volumes, ..with_store() };
        let nothing = nothing_but(&run, PodSeen::Absent);
        let observed = Observed { parents: &parents, pull_secrets: Some(&[]), capacity, ..nothing };
        let plan = plan(&observed, &settings, at(1));
        let spec = created(&plan).spec.clone().unwrap();
        let images: Vec<_> =
            spec.volumes.iter().flatten().filter_map(|v| v.image.as_ref()?.reference.clone()).collect();
        let mounts = spec.containers[0].volume_mounts.as_ref().unwrap();
        let whole = mounts.iter().find(|m| m.mount_path == "/bundle/whole").unwrap();
        let secrets = spec.image_pull_secrets.iter().flatten().map(|s| s.name.clone()).collect::<Vec<_>>();
        (images, format!("{} {}", whole.name, whole.sub_path.as_deref().unwrap()), secrets)
    };
    let by_node = (vec![bundle(DIGEST)], "input-0 contents".to_owned(), vec!["bundle-store".to_owned()]);
    let nodes = |lacks_image_volumes| Capacity { nodes: 2, lacks_image_volumes, ..Capacity::default() };
    let mounted = |mountable, image_volumes| mounted_with(mountable, image_volumes, Some(&nodes(false)));
    assert_eq!(mounted(true, true), by_node);
    let staged = (vec![], "inputs 0".to_owned(), vec![]);
    assert_eq!(mounted(false, true), staged);
    assert_eq!(mounted(true, false), staged);
    assert_eq!(mounted_with(true, true, Some(&nodes(true))), staged, "the pod may get to any node");
    assert_eq!(mounted_with(true, true, None), staged, "the nodes may not be read");
}

/// What is read of the run's service account, and the names of Secrets: for the node, and for the helper after the store's.
fn with_account(spec: Value, account: &[&str], image_volumes: bool) -> (Vec<String>, Vec<String>, Vec<String>) {
    let (run, parents) = (run_of(spec), parents(Parent { mountable: true, ..prepare(Phase::Succeeded) }));
    let settings = Settings { image_volumes, ..with_store() };
    let names: Vec<String> = account.iter().map(|name| (*name).to_owned()).collect();
    let nodes = Capacity { nodes: 2, ..Capacity::default() };
    let look = |pull_secrets| {
        let capacity = Some(&nodes);
        let observed = Observed { parents: &parents, pull_secrets, capacity, ..nothing_but(&run, PodSeen::Absent) };
        plan(&observed, &settings, at(1))
    };
    let asked: Vec<_> = words(&look(None)).into_iter().filter(|step| step.starts_with("Ask")).collect();
    let plan = look(if asked.is_empty() { None } else { Some(&names) });
    let spec = created(&plan).spec.as_ref().unwrap();
    let on_node = spec.image_pull_secrets.iter().flatten().map(|s| s.name.clone()).collect();
    let volumes = spec.volumes.iter().flatten().filter(|volume| volume.name.starts_with("credentials"));
    let of_helper = volumes.filter_map(|volume| volume.secret.as_ref()?.secret_name.clone()).skip(1).collect();
    (asked, on_node, of_helper)
}

#[test]
fn inputs_are_read_with_the_logins_of_the_service_account_too() {
    let many: Vec<String> = (0..20).map(|n| format!("s{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let image = json!([{"path": "data", "image": {"reference": "r:1"}}]);
    let run_part = json!([{"path": "data", "run": {"name": "prepare", "path": "a"}}]);
    let run_whole = json!([{"path": "data", "run": {"name": "prepare"}}]);
    let own = json!([{"name": "own"}]);
    for (inputs, named, account, image_volumes, asked, on_node, of_helper) in [
        (&image, json!([]), &["a", "b"][..], false, Some("Ask n/default"), &[][..], &["a", "b"][..]),
        (&image, own.clone(), &["a", "own"], false, Some("Ask n/default"), &["own"], &["own", "a"]),
        (&image, json!([]), &[], false, Some("Ask n/default"), &[], &[]),
        (&image, json!([]), &many, false, Some("Ask n/default"), &[], &many[..16]),
        // The store's login is enough: nothing is read.
        (&run_part, json!([]), &[], false, None, &[], &[]),
        (&run_part, own.clone(), &[], false, None, &["own"], &["own"]),
        (&json!([]), json!([]), &[], true, None, &[], &[]),
        // Were only the store's named, the API server would not add those of the account.
        (&run_whole, json!([]), &["a", "b"], true, Some("Ask n/default"), &["a", "b", "bundle-store"], &[]),
        (&run_whole, json!([]), &["bundle-store"], true, Some("Ask n/default"), &["bundle-store"], &[]),
        (&run_whole, own, &[], true, None, &["own", "bundle-store"], &[]),
    ] {
        let spec = json!({"image": "i:1", "command": "true", "inputs": inputs, "imagePullSecrets": named});
        let got = with_account(spec.clone(), account, image_volumes);
        let want = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(got, (asked.into_iter().map(str::to_owned).collect(), want(on_node), want(of_helper)), "{spec}");
    }
    let spec = json!({"image": "i:1", "command": "true", "inputs": image, "serviceAccountName": "research"});
    assert_eq!(with_account(spec, &[], false).0, ["Ask n/research"]);
}

#[test]
fn modes_of_files_reach_the_helper_which_can_read_all() {
    let run = run_of(json!({"image": "i:1", "command": "true", "inputs": [
        {"path": "run.sh", "text": "#!/bin/sh", "mode": 0o550},
        {"path": "text", "text": "x"},
        {"path": "map", "configMap": {"name": "m"}, "mode": 0o755},
        {"path": "key", "secret": {"name": "s"}, "mode": 0o440},
        {"path": "other", "secret": {"name": "t"}}]}));
    let plan = look_with(&run, &Parents::default(), 1);
    let request: Request = annotation(&plan, crate::names::REQUEST_ANNOTATION);
    let modes: Vec<_> = request.inputs.iter().map(|input| input.mode).collect();
    assert_eq!(modes, [Some(0o550), None, Some(0o755), Some(0o440), None]);
    let pod = created(&plan);
    let secrets: Vec<_> =
        pod.spec.as_ref().unwrap().volumes.iter().flatten().filter_map(|v| v.secret.as_ref()?.default_mode).collect();
    assert!(secrets.ends_with(&[0o444, 0o444]), "{secrets:?}");
    // The helper reads every key, whatever its mode is for the command.
    let maps: Vec<_> = pod
        .spec
        .as_ref()
        .unwrap()
        .volumes
        .iter()
        .flatten()
        .filter_map(|v| v.config_map.as_ref()?.default_mode)
        .collect();
    assert_eq!(maps, [0o444]);
}

#[test]
fn a_request_of_an_operator_that_knew_no_modes_is_read() {
    let old = r#"{"path":"a","source":{"text":"x"}}"#;
    let input: crate::contract::RequestedInput = serde_json::from_str(old).unwrap();
    assert_eq!(input, crate::contract::RequestedInput::new("a", InputSource::Text("x".to_owned())));
    assert_eq!(serde_json::to_string(&input).unwrap(), old);
}

#[test]
fn how_an_output_is_made_is_told_with_all_but_secrets() {
    let spec = |value: &str| {
        json!({"image": "i:1", "command": "true", "gpuProfile": "default", "runAsUser": 7, "timeLimit": "1m", "stopGrace": "2m",
            "resources": {"cpus": "500m", "memory": "1Gi"},
            "env": [{"name": "A", "value": value},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}],
            "runAsGroup": 8, "fsGroup": 9,
            "volumes": [{"path": "v", "claim": {"name": "c", "path": "p"}}],
            "outputs": {"exclude": ["*.tmp"]},
            "inputs": [{"path": "data", "run": {"name": "prepare"}}, {"path": "t", "text": "hello"},
                {"path": "u", "url": {"href": "https://u:pass@h/f", "sha256": OTHER.trim_start_matches("sha256:")}},
                {"path": "m", "configMap": {"name": "m", "key": "k"}}]})
    };
    let told = |run: &BundleRun| {
        let request: Request =
            annotation(&look_with(run, &parents(prepare(Phase::Succeeded)), 1), crate::names::REQUEST_ANNOTATION);
        Value::Object(request.save.unwrap().made_by)
    };
    let run = run_of(spec("$HOME $$x"));
    let settings = settings();
    let disk = settings.disk_bytes.to_string();
    let shared = settings.shared_memory_bytes.min(1 << 30).to_string();
    let want = json!({
        "namespace": "n", "name": "r", "uid": "u", "attempt": 1, "image": "i:1", "gpuProfile": "default",
        "runAsUser": 7, "runAsGroup": 8, "fsGroup": 9, "timeLimitSeconds": 60, "stopGraceSeconds": 120, "exclude": ["*.tmp"],
        "resources": {"cpus": "500m", "memory": (1u64 << 30).to_string(), "disk": disk, "sharedMemory": shared, "gpus": 0},
        "env": [{"name": "A", "value": "$HOME $$x"},
            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}],
        "volumes": [{"path": "/bundle/v", "claim": "c", "claimPath": "p"}],
        "inputs": [{"path": "data", "run": {"name": "prepare"}, "reference": bundle(DIGEST), "runUid": "up", "digest": DIGEST},
            {"path": "t"}, {"path": "u"}, {"path": "m", "configMap": {"name": "m", "key": "k"}}],
    });
    assert_eq!(told(&run), want);

    // An attempt after one that pulled the image knows its digest.
    let status: BundleRunStatus =
        serde_json::from_value(json!({"attempt": 2, "image": {"requested": "i:1", "digest": OTHER}})).unwrap();
    assert_eq!(told(&with_status(&run, &status))["imageDigest"], OTHER);

    // What no annotation has room for is named instead: the run is made all the same.
    let large = told(&run_of(spec(&"x".repeat(250_000))));
    assert_eq!(large["leftOut"], json!(["env", "exclude", "inputs", "volumes"]));
    assert_eq!((&large["resources"], &large["env"]), (&want["resources"], &Value::Null));
}
