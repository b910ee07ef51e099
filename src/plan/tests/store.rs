//! A store that does not accept outputs, before the command and while it runs.

use super::*;
use crate::contract::{
    InputPatience, InputProblem, InputTrouble, NotSaved, Progress, ProgressStage, Resumed, SaveFailure, StoreTrouble,
    Warning, WarningKind,
};
use crate::plan::Cause;
use crate::plan::words::wait_reason::Reason;

/// The helper's readiness probe fails.
fn with_news(pod: &PodCase) -> PodFacts {
    let mut facts = pod.facts();
    facts.status.pod_ip = Some("10.0.0.7".to_owned());
    for helper in &mut facts.status.init_container_statuses {
        helper.ready = Some(false);
    }
    facts
}

fn look(run: &BundleRun, pod: &PodFacts, progress: ProgressSeen, second: i64) -> Plan {
    plan(&Observed { progress, ..nothing_but(run, PodSeen::Ours(pod)) }, &settings(), at(second))
}

fn says(failure: SaveFailure, holds: bool, detail: &str) -> ProgressSeen {
    let not_saved = NotSaved { failure, detail: detail.to_owned() };
    let stage = if holds { ProgressStage::Staging } else { ProgressStage::Running };
    ProgressSeen::Answered(Some(Progress { store: Some(StoreTrouble { not_saved, holds }), ..Progress::of(stage) }))
}

fn output_saved(run: &BundleRun) -> Option<(String, String, String)> {
    let conditions = &run.status.as_ref()?.conditions;
    let condition = conditions.iter().find(|condition| condition.type_ == "OutputSaved")?;
    Some((condition.status.clone(), condition.reason.clone(), condition.message.clone()))
}

#[test]
fn a_helper_without_news_is_never_asked() {
    let mut ready = with_news(&pod().running(5));
    ready.status.init_container_statuses[0].ready = Some(true);
    let unknown = pod().running(5).facts();
    for facts in [ready, unknown] {
        assert_eq!(words(&look(&run(), &facts, ProgressSeen::NotAsked, 7)), ["Write Running"]);
        assert_eq!(look(&in_phase(Phase::Running), &facts, ProgressSeen::NotAsked, 60), Plan::default());
    }
}

#[test]
fn a_probe_that_has_not_succeeded_yet_changes_nothing() {
    let early = with_news(&pod().running(5));
    assert_eq!(look(&run(), &early, ProgressSeen::NotAsked, 5).next, seconds(2), "it may end before");
    assert_eq!(words(&look(&run(), &early, ProgressSeen::NotAsked, 7)), ["Ask 10.0.0.7"]);
    assert_eq!(words(&look(&run(), &early, ProgressSeen::Answered(None), 7)), ["Write Running"]);
}

#[test]
fn a_store_that_does_not_answer_is_a_condition_while_the_command_runs() {
    let pod_ = with_news(&pod().running(5));
    let plan = look(&run(), &pod_, says(SaveFailure::StoreUnreachable, false, "503 (request 1)"), 7);
    assert_eq!(words(&plan), ["Write Running", "Tell StoreUnreachable"]);
    assert_eq!(plan.next, seconds(60), "there may be more by then");
    let told = with_status(&run(), &written(&plan));
    assert!(told.status.as_ref().unwrap().message.as_ref().unwrap().ends_with("503 (request 1)"));
    let words_ = "the store did not accept an upload; the output is saved when it does: 503 (request 1)";
    assert_eq!(output_saved(&told), Some(("Unknown".to_owned(), "StoreUnreachable".to_owned(), words_.to_owned())));
    let again = look(&told, &pod_, says(SaveFailure::StoreUnreachable, false, "503 (request 2)"), 60);
    assert_eq!(words(&again), [""; 0], "told once");
    let silent = look(&told, &pod_, ProgressSeen::Answered(None), 90);
    assert_eq!((words(&silent), silent.next), (vec![], seconds(10)), "silence takes nothing back");

    // The store is back.
    let mut ready = pod_.clone();
    ready.status.init_container_statuses[0].ready = Some(true);
    let plan = look(&told, &ready, ProgressSeen::NotAsked, 90);
    assert_eq!(words(&plan), ["Write Running"]);
    let well = with_status(&told, &written(&plan));
    assert_eq!(output_saved(&well), None);
    assert_eq!(look(&well, &ready, ProgressSeen::NotAsked, 100), Plan::default());
}

#[test]
fn more_files_than_can_be_saved_are_told_while_the_command_runs() {
    let pod_ = with_news(&pod().running(5));
    let warned = |trouble: &str| {
        let running = Progress::of(ProgressStage::Running);
        ProgressSeen::Answered(Some(Progress { trouble: trouble.to_owned(), ..running }))
    };
    let plan = look(&in_phase(Phase::Running), &pod_, warned("900000 files"), 60);
    assert_eq!(words(&plan), ["Write Running", "Tell OutputTooLarge"]);
    let told = with_status(&run(), &written(&plan));
    let condition = ["Unknown", "OutputTooLarge", "900000 files"].map(str::to_owned);
    assert_eq!(output_saved(&told), Some(condition.into()));
    assert_eq!(words(&look(&told, &pod_, warned("900001 files"), 90)), [""; 0]);
}

#[test]
fn what_will_go_wrong_is_told_once_of_each_kind_while_the_command_runs() {
    use WarningKind::{DiskNearlyFull, OutputTooLarge, SaveDeadlineExceeded};
    let pod_ = with_news(&pod().running(5));
    let warned = |kinds: &[WarningKind]| {
        let warning = |kind: &WarningKind| Warning { kind: *kind, detail: format!("{kind:?} in words") };
        let warnings = kinds.iter().map(warning).collect();
        ProgressSeen::Answered(Some(Progress { warnings, ..Progress::of(ProgressStage::Running) }))
    };
    let conditions = |run: &BundleRun| -> Vec<String> {
        let conditions = run.status.as_ref().unwrap().conditions.iter();
        let ours = conditions.filter(|c| ["OutputSaved", "DiskNearlyFull"].contains(&c.type_.as_str()));
        ours.map(|c| format!("{}={}/{}: {}", c.type_, c.status, c.reason, c.message)).collect()
    };

    let plan = look(&in_phase(Phase::Running), &pod_, warned(&[DiskNearlyFull]), 60);
    assert_eq!(
        (words(&plan), plan.next),
        (["Write Running", "Tell DiskNearlyFull"].map(str::to_owned).into(), seconds(60))
    );
    let full = with_status(&run(), &written(&plan));
    assert_eq!(conditions(&full), ["DiskNearlyFull=True/DiskNearlyFull: DiskNearlyFull in words"]);
    let again = look(&full, &pod_, warned(&[DiskNearlyFull]), 120);
    assert_eq!((words(&again), again.next), (vec![], seconds(60)));

    let plan = look(&full, &pod_, warned(&[SaveDeadlineExceeded, DiskNearlyFull]), 180);
    assert_eq!(words(&plan), ["Write Running", "Tell SaveDeadlineExceeded"]);
    let both = with_status(&run(), &written(&plan));
    let late = "OutputSaved=Unknown/SaveDeadlineExceeded: SaveDeadlineExceeded in words";
    assert_eq!(conditions(&both), ["DiskNearlyFull=True/DiskNearlyFull: DiskNearlyFull in words", late]);
    let message = both.status.as_ref().unwrap().message.clone();
    assert_eq!(
        message.as_deref(),
        Some("DiskNearlyFull in words; SaveDeadlineExceeded in words"),
        "kubectl get -o wide"
    );

    // What is too large is not saved, however much time there is.
    let plan = look(&both, &pod_, warned(&[OutputTooLarge, SaveDeadlineExceeded]), 240);
    assert_eq!(words(&plan), ["Write Running", "Tell OutputTooLarge"]);
    let large = with_status(&run(), &written(&plan));
    assert_eq!(conditions(&large), ["OutputSaved=Unknown/OutputTooLarge: OutputTooLarge in words"]);

    let mut ready = pod_.clone();
    ready.status.init_container_statuses[0].ready = Some(true);
    let plan = look(&both, &ready, ProgressSeen::NotAsked, 300);
    assert_eq!(words(&plan), ["Write Running"]);
    let well = with_status(&run(), &written(&plan));
    assert_eq!((conditions(&well), well.status.unwrap().message), (vec![], None));
    let ended = with_status(&both, &written(&look_at(&both, &pod().reported(&record(0)), 20)));
    assert_eq!(conditions(&ended).len(), 1, "what became of the output: {:?}", conditions(&ended));
}

#[test]
fn a_doubt_about_the_store_ends_with_the_attempt() {
    let pod_ = with_news(&pod().running(5));
    let plan = look(&run(), &pod_, says(SaveFailure::StoreUnreachable, false, "503"), 7);
    let told = with_status(&run(), &written(&plan));
    let ended = with_status(&told, &written(&look_at(&told, &pod().reported(&record(0)), 20)));
    assert_eq!(output_saved(&ended).unwrap().1, "NoStore", "what became of it counts");
    let never_ran = Record { cause: Some(crate::contract::Cause::InputNotFound), started_at_ms: None, ..record(0) };
    let ended = with_status(&told, &written(&look_at(&told, &pod().reported(&never_ran), 20)));
    assert_eq!(output_saved(&ended), None);
    let deleted = look_at(&told, &pod().failed("OutOfcpu", ""), 20);
    assert_eq!(words(&deleted), ["Write Pending", "Tell OutOfcpu"]);
    assert_eq!(output_saved(&with_status(&told, &written(&deleted))), None);
}

#[test]
fn a_store_that_refuses_is_what_the_run_waits_for() {
    let pod_ = with_news(&pod().running(5));
    let refused = |detail| says(SaveFailure::StoreDenied, true, detail);
    let plan = look(&run(), &pod_, refused("401"), 7);
    assert_eq!(words(&plan), ["Write Pending", "Tell StoreRefused"]);
    assert_eq!(plan.next, seconds(10), "nothing of the pod changes when the command starts");
    let told = with_status(&run(), &written(&plan));
    let waiting = told.status.as_ref().unwrap().waiting.clone().unwrap();
    assert_eq!((waiting.stage.as_deref(), waiting.reason.as_deref()), (Some("Staging"), Some("StoreRefused")));
    assert_eq!(waiting.message.unwrap(), "the store refuses the output, so the command does not start: 401");
    assert_eq!(words(&look(&told, &pod_, refused("401 again"), 20)), [""; 0]);
    let silent = look(&told, &pod_, ProgressSeen::Answered(None), 30);
    assert_eq!((words(&silent), silent.next), (vec![], seconds(10)), "silence takes nothing back");
    let nothing_more = ProgressSeen::Answered(Some(Progress::of(ProgressStage::Running)));
    let plan = look(&told, &pod_, nothing_more, 30);
    assert_eq!((words(&plan), written(&plan).waiting), (vec!["Write Running".to_owned()], None));
}

#[test]
fn an_input_that_cannot_be_had_is_what_the_run_waits_for() {
    let mut staging = pod().running(5).staging();
    staging.0["status"]["podIP"] = json!("10.0.0.7");
    let facts = staging.facts();
    let look = |run: &BundleRun, progress, written: Option<i64>, second| {
        let observed = Observed { progress, written_at: written.map(at), ..nothing_but(run, PodSeen::Ours(&facts)) };
        plan(&observed, &settings(), at(second))
    };
    let says = |problem, detail: &str| {
        let input = Some(InputTrouble { problem, detail: detail.to_owned() });
        let given_up_at_ms = Some(at(600).as_millisecond() + 345);
        ProgressSeen::Answered(Some(Progress { input, given_up_at_ms, ..Progress::of(ProgressStage::Staging) }))
    };
    assert_eq!(words(&look(&run(), ProgressSeen::NotAsked, None, 15)), ["Ask 10.0.0.7"]);
    let plan = look(&run(), says(InputProblem::NoAnswer, "input data: Connection refused (http://h/f)"), None, 15);
    assert_eq!(words(&plan), ["Write Pending", "Tell InputNoAnswer"]);
    let told = with_status(&run(), &written(&plan));
    let waiting = told.status.as_ref().unwrap().waiting.clone().unwrap();
    assert_eq!((waiting.stage.as_deref(), waiting.reason.as_deref()), (Some("Staging"), Some("InputNoAnswer")));
    let words_ = "the command does not start without input data: Connection refused (http://h/f)";
    assert_eq!(waiting.message.as_deref(), Some(words_));
    assert!(waiting.hint.unwrap().contains("pods can reach it"));
    assert_eq!(waiting.until.as_deref(), Some("10 minutes without an answer, then the attempt ends: StagingFailed"));
    assert_eq!(waiting.deadline, Some(Time(at(600))), "as the helper says");

    // However often it is asked, it is written when there is another reason.
    for (second, detail) in [(50, "503"), (90, "Connection refused"), (600, "reset")] {
        assert_eq!(words(&look(&told, says(InputProblem::NoAnswer, detail), Some(15), second)), [""; 0]);
    }
    let silent = look(&told, ProgressSeen::Answered(None), Some(15), 90);
    assert_eq!((words(&silent), silent.next), (vec![], seconds(30)), "silence takes nothing back");
    let plan = look(&told, says(InputProblem::NotFound, "input data: 404"), Some(15), 90);
    assert_eq!(words(&plan), ["Write Pending", "Tell InputNotFound"]);
    let comes = Progress { done_bytes: 1 << 20, ..Progress::of(ProgressStage::Staging) };
    let plan = look(&told, ProgressSeen::Answered(Some(comes)), Some(15), 120);
    assert_eq!(written(&plan).reason.as_deref(), Some("StagingInputs"));
    // Of a helper that says nothing of it: an hour after it began.
    assert_eq!(written(&plan).waiting.unwrap().deadline, Some(Time(at(3603))));
}

/// `status.waiting.until` says so in words.
#[test]
fn the_helper_waits_as_long_as_the_object_says() {
    let patience = InputPatience::default();
    assert_eq!((patience.refused_seconds, patience.silent_seconds), (120, 600));
    for problem in [
        InputProblem::Store,
        InputProblem::NotFound,
        InputProblem::Absent,
        InputProblem::NoAnswer,
        InputProblem::NoSnapshot,
    ] {
        let reason = Reason::of_an_input(problem);
        assert_eq!(reason.given_up_as(), [Cause::seen_in_the_pod(problem.ends_as()).name()], "{problem:?}");
    }
}

#[test]
fn an_attempt_whose_command_never_began_is_followed_by_a_wait() {
    for cause in ["StoreRefused", "StagingFailed", "GpuUnavailable"] {
        let mut run = in_attempt(2);
        let last = &mut run.status.as_mut().unwrap().attempts[0];
        (last.start_time, last.finish_time) = (Some(Time(at(5))), Some(Time(at(130))));
        last.cause = Some(cause.to_owned());
        assert_eq!(super::look(&run, PodSeen::Absent, 131).next, seconds(9), "{cause}");
        run.status.as_mut().unwrap().attempts[0].cause = Some("Disrupted".to_owned());
        assert_eq!(words(&super::look(&run, PodSeen::Absent, 131)), ["Release r-1", "Create r-2"], "the command ran");
    }
}

#[test]
fn snapshots_that_have_no_place_to_go_are_told_once_while_the_command_runs() {
    let run = |retry: Value, outputs: Value| {
        run_of(json!({"image": "i:1", "command": "true", "retry": retry, "outputs": outputs}))
    };
    let pod_ = pod().running(5);
    for (run, fields) in [
        (run(json!({"resume": true}), json!({})), "retry.resume has"),
        (run(json!({}), json!({"snapshots": {"every": "1m"}})), "outputs.snapshots has"),
        (
            run(json!({"resume": true}), json!({"snapshots": {"every": "1m"}})),
            "retry.resume and outputs.snapshots have",
        ),
    ] {
        let plan = look_at(&run, &pod_, 7);
        assert_eq!(words(&plan), ["Write Running", "Tell NoStore"]);
        let told = with_status(&run, &written(&plan));
        let said = format!(
            "no store is configured: {fields} no effect, because there are no snapshots, and the output goes with the pod"
        );
        assert_eq!(told.status.as_ref().unwrap().message.as_ref(), Some(&said));
        assert_eq!(output_saved(&told), Some(("Unknown".to_owned(), "NoStore".to_owned(), said)));
        assert_eq!(words(&look_at(&told, &pod_, 60)), [""; 0]);
        let warned = with_news(&pod_);
        let full = Warning { kind: WarningKind::DiskNearlyFull, detail: "9 of 10".into() };
        let full = Progress { warnings: vec![full], ..Progress::of(ProgressStage::Running) };
        let plan = look(&told, &warned, ProgressSeen::Answered(Some(full)), 70);
        assert_eq!(words(&plan), ["Write Running", "Tell DiskNearlyFull"], "the other is told already");
    }
    // What only the command can ask for is nobody's to warn of.
    let excluded = run(json!({}), json!({"snapshots": {"exclude": ["x"]}}));
    assert_eq!(words(&look_at(&excluded, &pod_, 7)), ["Write Running"]);
    assert_eq!(words(&look_at(&super::run(), &pod_, 7)), ["Write Running"]);
    let mut stored = pod_.facts();
    let pins = json!({"repository": "r/n"}).to_string();
    stored.metadata.annotations = Some([(crate::names::PINS_ANNOTATION.to_owned(), pins)].into());
    let resumes = run(json!({"resume": true}), json!({}));
    assert_eq!(words(&look(&resumes, &stored, ProgressSeen::NotAsked, 7)), ["Write Running"]);
}

#[test]
fn what_an_attempt_goes_on_from_is_told_while_it_runs() {
    let mut run = in_attempt(2);
    run.spec.retry.resume = true;
    let mut facts = pod().of_attempt(2).running(5).facts();
    facts.status.pod_ip = Some("10.0.0.7".to_owned());
    let pins = json!({"repository": "r/n"}).to_string();
    facts.metadata.annotations = Some([(crate::names::PINS_ANNOTATION.to_owned(), pins)].into());
    assert_eq!(words(&look(&run, &facts, ProgressSeen::NotAsked, 7)), ["Ask 10.0.0.7"]);
    let says = |from: Option<&str>| {
        let resumed = Some(Resumed { from: from.map(str::to_owned) });
        ProgressSeen::Answered(Some(Progress { resumed, ..Progress::of(ProgressStage::Running) }))
    };
    let plan = look(&run, &facts, says(Some("r/n@sha256:0")), 7);
    assert_eq!(words(&plan), ["Write Running"]);
    let status = written(&plan);
    assert_eq!(status.message.as_deref(), Some("attempt 2 resumed from r/n@sha256:0"));
    assert_eq!(status.attempts[1].resumed_from.as_deref(), Some("r/n@sha256:0"));
    let told = with_status(&run, &status);
    assert_eq!(look(&told, &facts, ProgressSeen::NotAsked, 60), Plan::default(), "asked once");
    // Nor is it lost with what is told later.
    let later = look(&told, &with_news(&pod().of_attempt(2).running(5)), says_running("too many files"), 60);
    let message = written(&later).message.unwrap();
    assert!(message.starts_with("attempt 2 resumed from r/n@sha256:0; "), "{message}");
    assert_eq!(written(&later).attempts[1].resumed_from.as_deref(), Some("r/n@sha256:0"));

    let plan = look(&run, &facts, says(None), 7);
    assert_eq!(words(&plan), ["Write Running", "Tell NotResumed"]);
    let empty = "attempt 2 began with an empty working directory: the attempts before it left no snapshot";
    assert_eq!(written(&plan).message.as_deref(), Some(empty));
    // A helper that does not answer holds nothing up.
    assert_eq!(words(&look(&run, &facts, ProgressSeen::Answered(None), 7)), ["Write Running"]);
    run.spec.retry.resume = false;
    assert_eq!(words(&look(&run, &facts, ProgressSeen::NotAsked, 7)), ["Write Running"]);
}

fn says_running(trouble: &str) -> ProgressSeen {
    let running = Progress::of(ProgressStage::Running);
    ProgressSeen::Answered(Some(Progress { trouble: trouble.to_owned(), ..running }))
}
