//! Whatever is seen, a plan keeps its promises.

use std::sync::Mutex;

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;

use super::*;
use crate::contract::{
    GpuFacts, GpuModel, InputProblem, InputTrouble, NotSaved, Pin, Pins, Progress, ProgressStage, SaveFailure, Saved,
    StoreTrouble,
};
use crate::plan::facts::stage::Stage;
use crate::plan::words::wait_reason::{Deadline, Reason};

const REASONS: [&str; 15] = [
    "",
    "Completed",
    "Error",
    "OOMKilled",
    "StartError",
    "ContainerStatusUnknown",
    "Unknown",
    "ContainerCreating",
    "ErrImagePull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CrashLoopBackOff",
    "Evicted",
    "Unschedulable",
    "PreemptionByScheduler",
];
const CAUSES: [Cause; 7] = [
    Cause::TimeLimitExceeded,
    Cause::BashrcEndedShell,
    Cause::CommandNotFound,
    Cause::StartedTwice,
    Cause::RunnerFailed,
    Cause::StagingFailed,
    Cause::InputUnreachable,
];

fn reason() -> impl Strategy<Value = &'static str> {
    select(&REASONS[..])
}

/// Mostly near the run's life, now and then anywhere.
fn second() -> impl Strategy<Value = i64> {
    prop_oneof![9 => -20i64..400, 1 => -1_767_225_600i64..100_000_000_000]
}

fn state(message: impl Strategy<Value = String> + 'static) -> impl Strategy<Value = Value> {
    let code = prop_oneof![Just(0), Just(137), any::<u8>().prop_map(i32::from)];
    prop_oneof![
        Just(json!({})),
        (reason(), "\\PC{0,20}").prop_map(|(r, m)| json!({"waiting": {"reason": r, "message": m}})),
        of(second()).prop_map(|s| json!({"running": {"startedAt": s.map(time)}})),
        (code, reason(), message, of(second()), of(second())).prop_map(|(code, reason, message, from, to)| {
            json!({"terminated": {"exitCode": code, "reason": reason, "message": message,
                "startedAt": from.map(time), "finishedAt": to.map(time)}})
        }),
    ]
}

prop_compose! {
    fn any_record()(
        cause in of(select(&CAUSES[..])),
        exit_code in of(prop_oneof![Just(0), 0..256i32]),
        signal in of(1..65i32),
        (asked_to_stop, unkillable) in any::<(bool, bool)>(),
        started_at_ms in of(any::<i64>()),
        finished_at_ms in prop_oneof![any::<i64>(), Just(at(8).as_millisecond())],
        oom_kills in 0..2u64,
        oom_kills_from_outside in 0..2u64,
        numbers in any::<u64>(),
        gpus in of(("\\PC{0,20}", vec(vec("\\PC{0,40}", 0..4), 0..3))),
        detail in "\\PC{0,100}",
    ) -> Record {
        let usage = crate::contract::Usage {
            wall_ms: numbers, cpu_user_ms: numbers, cpu_system_ms: numbers, memory_peak_bytes: numbers, oom_kills,
            oom_kills_from_outside,
        };
        let gpus = gpus.map(|(driver, models)| GpuFacts {
            driver: Some(driver),
            models: models.into_iter().map(|uuids| GpuModel { name: None, uuids }).collect(),
        });
        let staging_ms = 0;
        Record {
            cause,
            exit_code,
            signal,
            asked_to_stop,
            unkillable,
            started_at_ms,
            staging_ms,
            finished_at_ms,
            usage,
            gpus,
            detail,
        }
    }
}

fn message() -> impl Strategy<Value = String> {
    let missing = select(vec![MissingRecord::NeverStarted, MissingRecord::RunnerDied, MissingRecord::Unreadable]);
    let tail = || proptest::collection::vec(any::<u8>(), 0..3000);
    prop_oneof![
        Just(String::new()),
        "\\PC{0,50}",
        (of(any_record()), of(missing), saved(), any::<u64>(), tail(), tail()).prop_map(
            |(record, missing, saved, n, out, err)| {
                let (saved, not_saved) = saved;
                let report = Report { record, missing, saved, not_saved, files: n, bytes: n, ..Report::default() };
                Message::encode(&report, &out, &err)
            }
        ),
    ]
}

/// What became of the output: saved whole or in part, not saved, or nothing is known.
fn saved() -> impl Strategy<Value = (Option<Saved>, Option<NotSaved>)> {
    let saved = |(skipped, withheld, damaged)| Saved {
        digest: DIGEST.to_owned(),
        skipped,
        withheld,
        damaged,
        ..Saved::default()
    };
    let not_saved = |detail| NotSaved { failure: SaveFailure::StoreDenied, detail };
    prop_oneof![
        Just((None, None)),
        (0..3u64, 0..2u64, 0..2u64).prop_map(move |counts| (Some(saved(counts)), None)),
        "\\PC{0,30}".prop_map(move |detail| (None, Some(not_saved(detail)))),
    ]
}

fn any_pins() -> impl Strategy<Value = Pins> {
    let pin = any::<bool>().prop_map(|mountable| {
        let (reference, run_uid) = (format!("store:5000/bundles/n@{DIGEST}"), Some("up".to_owned()));
        Pin { reference, run_uid, mountable, ..Pin::default() }
    });
    (of(Just("store:5000/bundles/n".to_owned())), of(Just("default:1".to_owned())), of(pin)).prop_map(
        |(repository, default_image, pin)| Pins {
            repository,
            default_image,
            inputs: pin.map(|pin| (0, pin)).into_iter().collect(),
        },
    )
}

pub(super) fn any_progress() -> impl Strategy<Value = ProgressSeen> {
    let stage = select(vec![ProgressStage::Staging, ProgressStage::Running, ProgressStage::Saving]);
    let trouble = (any::<bool>(), "\\PC{0,20}").prop_map(|(holds, detail)| StoreTrouble {
        not_saved: NotSaved { failure: SaveFailure::StoreUnreachable, detail },
        holds,
    });
    let problem = select(vec![
        InputProblem::Store,
        InputProblem::NotFound,
        InputProblem::Absent,
        InputProblem::NoAnswer,
        InputProblem::NoSnapshot,
    ]);
    let input = (problem, "\\PC{0,20}").prop_map(|(problem, detail)| InputTrouble { problem, detail });
    let known = (stage, any::<u64>(), of(trouble), of(input), "\\PC{0,20}", message()).prop_map(
        |(stage, bytes, store, input, trouble, report)| Progress {
            done_bytes: bytes,
            total_bytes: bytes,
            store,
            input,
            trouble,
            report,
            ..Progress::of(stage)
        },
    );
    prop_oneof![
        Just(ProgressSeen::NotAsked),
        Just(ProgressSeen::Answered(None)),
        known.prop_map(|progress| ProgressSeen::Answered(Some(progress))),
    ]
}

/// The run that is an input, as the caches have it.
fn any_parents() -> impl Strategy<Value = Parents> {
    let parent = (select(&Phase::ALL[..]), of(Just(format!("store:5000/bundles/n@{DIGEST}"))), any::<bool>());
    let parent = parent.prop_map(|(phase, bundle, mountable)| Parent {
        uid: "up".to_owned(),
        phase: Some(phase),
        bundle,
        mountable,
        in_part: false,
        has_begun: mountable,
        attempts: 4,
        cause: Some("Completed".to_owned()),
        blame: None,
    });
    of(parent).prop_map(|parent| Parents {
        runs: parent.map(|parent| ("p".to_owned(), parent)).into_iter().collect(),
        ..Parents::default()
    })
}

/// A pod whose helper has reported: mostly of a command that did well, and in words that fit each other.
fn reported_pod() -> impl Strategy<Value = PodCase> {
    let record = prop_oneof![4 => Just(record(0)), 1 => (1..256i32).prop_map(record), 1 => any_record()];
    let order = of(prop_oneof![Just(String::new()), Just(at(7).to_string())]);
    let ended = of((second(), 0i64..600));
    (record, saved(), of(any_pins()), any::<bool>(), ended, order).prop_map(
        |(record, (saved, not_saved), pins, held, deleted, order)| {
            let report =
                Report { record: Some(record.clone()), saved, not_saved, files: 2, bytes: 7, ..Report::default() };
            let code = record.container_exit_code();
            let mut pod = pod()
                .run_ended(code, if code == 0 { "Completed" } else { "Error" })
                .helper_ended(0, &Message::encode(&report, b"out\n", b"err\n"));
            pod.0["metadata"]["annotations"] = json!({});
            pod.0["spec"]["terminationGracePeriodSeconds"] = json!(600);
            if let Some(pins) = pins {
                pod.0["metadata"]["annotations"][crate::names::PINS_ANNOTATION] =
                    json!(serde_json::to_string(&pins).unwrap());
            }
            if let Some(order) = order {
                pod.0["metadata"]["annotations"][crate::names::STOP_ANNOTATION] = json!(order);
            }
            if let Some((second, grace)) = deleted {
                pod.0["metadata"]["deletionTimestamp"] = json!(time(second));
                pod.0["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
            }
            if held { pod } else { pod.let_go() }
        },
    )
}

/// A pod as Kubernetes may show it.
pub(super) fn any_pod() -> BoxedStrategy<PodCase> {
    // Else the frames of all together are too much for the stack of a test.
    prop_oneof![2 => odd_pod().boxed(), 1 => reported_pod().boxed()].boxed()
}

prop_compose! {
    /// A pod of which no part has to fit another.
    fn odd_pod()(
        phase in select(vec!["Pending", "Running", "Succeeded", "Failed", "Unknown"]),
        why in of((reason(), "\\PC{0,40}")),
        node in of(Just("node-a")),
        gates in vec(Just("kueue.x-k8s.io/admission"), 0..3),
        scheduled in of((any::<bool>(), reason(), second())),
        disrupted in of(reason()),
        run in of(state("\\PC{0,20}".boxed())),
        helper in of(state(message().boxed())),
        helper_before in of(state(message().boxed())),
        (ip, ready, started, deleted) in (any::<bool>(), of(any::<bool>()), of(any::<bool>()), of((second(), 0i64..600))),
        pins in any_pins(),
        held in any::<bool>(),
    ) -> PodCase {
        let mut pod = pod();
        pod.0["metadata"]["annotations"] =
            json!({crate::names::PINS_ANNOTATION: serde_json::to_string(&pins).unwrap()});
        if let Some((ok, reason, second)) = scheduled {
            pod = pod.condition("PodScheduled", if ok { "True" } else { "False" }, reason, "words", second);
        }
        if let Some(reason) = disrupted {
            pod = pod.condition("DisruptionTarget", "True", reason, "words", 3);
        }
        if let Some(run) = run {
            pod = pod.run(&run);
        }
        if let Some(helper) = helper {
            pod = pod.helper(&helper);
            if let Some(before) = helper_before {
                pod.0["status"]["initContainerStatuses"][0]["lastState"] = before;
            }
        }
        for (containers, field, value) in [("initContainerStatuses", "ready", ready), ("containerStatuses", "started", started)] {
            if let Some(status) = pod.0["status"][containers].get_mut(0) {
                status[field] = json!(value);
            }
        }
        pod.0["spec"]["terminationGracePeriodSeconds"] = json!(600);
        pod.0["spec"]["schedulingGates"] = gates.iter().map(|name| json!({"name": name})).collect();
        pod.0["status"]["podIP"] = json!(ip.then_some("10.0.0.7"));
        pod.0["status"]["phase"] = json!(phase);
        pod.0["spec"]["nodeName"] = json!(node);
        if let Some((reason, message)) = why {
            pod.0["status"]["reason"] = json!(reason);
            pod.0["status"]["message"] = json!(message);
        }
        if let Some((second, grace)) = deleted {
            pod.0["metadata"]["deletionTimestamp"] = json!(time(second));
            pod.0["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        }
        if held { pod } else { pod.let_go() }
    }
}

prop_compose! {
    /// A run in any phase, in its first attempt or a later one, that was told to wait for something or not.
    pub(super) fn any_run()(
        phase in of(select(&Phase::ALL[..])),
        attempt in 1..6u32,
        recorded in any::<bool>(),
        waiting in of((select(&crate::plan::words::wait_reason::WaitStage::ALL[..]), reason(), of(second()), of(second()))),
        deleted in proptest::bool::weighted(0.1),
        valid in proptest::bool::weighted(0.9),
        (stop, stopped_at) in (proptest::bool::weighted(0.1), proptest::bool::weighted(0.1)),
        (inputs, limited, patient) in any::<(bool, bool, bool)>(),
        (retries, failures) in (of(0..4u32), 0..6u32),
        (suspend, suspended_at) in (proptest::bool::weighted(0.1), proptest::bool::weighted(0.1)),
        (pods_kept, kept) in (of(select(vec!["0s", "1m", "later"])), of(0..100u32)),
        (seen, generation) in (of(1..3i64), 1..3i64),
    ) -> BundleRun {
        let mut status = json!({"attempt": attempt, "phase": phase, "retriedFailures": failures.min(attempt - 1)});
        if stopped_at {
            status["stopRequestedAt"] = json!(time(5));
        }
        if suspended_at {
            status["suspendedAt"] = json!(time(5));
        }
        if recorded {
            status["attempts"] = json!([{"attempt": attempt, "pod": format!("r-{attempt}"), "uid": format!("p{attempt}")}]);
        }
        if let Some((kind, reason, since, deadline)) = waiting {
            status["waiting"] = json!({"stage": kind.name(), "reason": reason, "since": since.map(time), "deadline": deadline.map(time)});
        }
        if let Some(seen) = seen {
            status["observedGeneration"] = json!(seen);
            let type_ = if phase.is_some_and(Phase::is_terminal) { "Finished" } else { "Reconciling" };
            status["conditions"] = json!([{"type": type_, "status": "True", "reason": "Completed", "message": "words",
                "lastTransitionTime": time(1), "observedGeneration": seen}]);
        }
        if phase.is_some_and(Phase::is_terminal) {
            status["result"] = json!({"cause": "Completed"});
            status["output"] = json!({"bundle": format!("store:5000/bundles/n@{DIGEST}"), "files": 2, "stdoutTail": "out"});
            status["exitCode"] = json!(0);
        }
        let run = if valid { run() } else { run_of(json!({})) };
        let mut run = with_status(&run, &serde_json::from_value(status).unwrap());
        (run.spec.stop, run.spec.suspend) = (stop, suspend);
        if inputs && valid {
            run.spec.inputs = serde_json::from_value(json!([{"path": "p", "run": {"name": "p"}}])).unwrap();
        }
        if patient {
            run.spec.on_input_failure = crate::api::spec::OnInputFailure::Wait;
        }
        run.spec.retry.limit = retries;
        run.spec.pod_retention = pods_kept.map(str::to_owned);
        run.spec.ttl_seconds_after_finished = kept;
        if run.is_over() {
            run.status.as_mut().unwrap().finish_time = Some(Time(at(8)));
        }
        run.spec.time_limit = limited.then(|| "10s".to_owned());
        run.metadata.deletion_timestamp = deleted.then(|| Time(at(0)));
        run.metadata.generation = Some(generation);
        run
    }
}

pub(super) fn any_node() -> impl Strategy<Value = NodeSeen> {
    prop_oneof![
        Just(NodeSeen::Unknown),
        Just(NodeSeen::Gone),
        Just(NodeSeen::Answers),
        second().prop_map(|since| NodeSeen::Silent(at(since))),
    ]
}

pub(super) fn any_event() -> impl Strategy<Value = PodEvent> {
    let reasons = vec!["FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "Unhealthy"];
    (select(reasons), "\\PC{0,30}", of(second())).prop_map(|(reason, note, seen)| PodEvent {
        reason: reason.to_owned(),
        note,
        seen: seen.map(at),
    })
}

fn any_skew() -> impl Strategy<Value = Skew> {
    let missing = prop_oneof![4 => Just(Vec::new()), 1 => Just(vec!["status.duration".to_owned()])];
    (missing, any::<bool>()).prop_map(|(missing, differs)| Skew { missing, differs })
}

fn any_refusal() -> impl Strategy<Value = Refusal> {
    let words = || "\\PC{0,30}";
    prop_oneof![
        words().prop_map(Refusal::QuotaExceeded),
        words().prop_map(Refusal::Forbidden),
        words().prop_map(Refusal::Unavailable),
        words().prop_map(Refusal::PodSecurity),
        (words(), of(any_invalid_field()))
            .prop_map(|(message, field)| { Refusal::Invalid { message, fields: field.into_iter().collect() } }),
        of(any_pod()).prop_map(|pod| Refusal::NameTaken(pod.map(|pod| Box::new(pod.facts())))),
        words().prop_map(Refusal::NamespaceTerminating),
    ]
}

fn any_invalid_field() -> impl Strategy<Value = InvalidField> {
    let of_the_run = ["spec.containers[0].image", "metadata.labels", "spec.tolerations[3].key", "spec.securityContext"];
    let words = prop_oneof![Just("Required value".to_owned()), "Invalid value: \"\\PC{0,9}\": no", "\\PC{0,30}"];
    let path = prop_oneof![select(of_the_run.to_vec()).prop_map(str::to_owned), "[a-z.\\[\\]0-3]{0,20}"];
    (path, words).prop_map(|(path, words)| InvalidField { path, words })
}

/// The documented reasons without a deadline of the operator's; the scheduler may have words of its own.
fn may_last(waiting: &crate::api::status::Waiting) -> bool {
    let reason = waiting.reason.as_deref().unwrap_or_default();
    let lasts = |known: &&Reason| matches!(known.deadline(), Deadline::None | Deadline::NodeLost);
    let said = Reason::ALL.iter().filter(lasts).any(|known| known.names().contains(&reason));
    said || waiting.stage.as_deref() == Some("Scheduling")
}

/// What has ended is deleted only when its record is written and our finalizer is off.
fn nothing_is_lost(run: &BundleRun, pod: PodSeen, plan: &Plan) {
    let place = |wanted: &dyn Fn(&Step) -> bool| plan.steps.iter().position(wanted);
    let delete_run = place(&|step| *step == Step::DeleteRun);
    assert!(delete_run.is_none() || run.is_over(), "{plan:?}");
    let PodSeen::Ours(pod) = pod else { return };
    let deleted = place(&|step| *step == Step::delete(pod)).filter(|_| pod.stage() == Stage::Ended);
    let Some(gone) = deleted.or(delete_run) else { return };
    let released = place(&|step| *step == Step::RemoveFinalizer(PodRef::of(pod)));
    let written = place(&|step| matches!(step, Step::WriteStatus(_)));
    assert!(!pod.is_held() || released.is_some_and(|released| released < gone), "{plan:?}");
    assert!(run.is_over() || written.is_some_and(|written| written < gone), "{plan:?}");
}

/// How often a promise was put to the test: one whose premise is never met is kept by anything.
#[derive(Default)]
pub(super) struct Reached(Mutex<BTreeMap<&'static str, u32>>);

impl Reached {
    pub(super) fn note(&self, what: &'static str) {
        *self.0.lock().unwrap().entry(what).or_default() += 1;
    }

    /// Each so often at least.
    pub(super) fn at_least(&self, expected: &[(&str, u32)]) {
        let reached = self.0.lock().unwrap();
        for (what, least) in expected {
            let often = reached.get(what).copied().unwrap_or_default();
            assert!(often >= *least, "{what}: {often} times, not {least}: {reached:?}");
        }
    }
}

/// Many cases, of which the one that fails is made as small as it goes.
pub(super) fn for_all<S: Strategy>(cases: u32, strategy: &S, holds: impl Fn(S::Value)) {
    let config = ProptestConfig { source_file: Some(file!()), ..ProptestConfig::with_cases(cases) };
    let result = TestRunner::new(config).run(strategy, |value| {
        holds(value);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

/// Where the pod was made for a store, the output is there, as it is; where it was not, the record says so.
fn it_is_saved(pod: &PodFacts, status: &BundleRunStatus, reached: &Reached) {
    let report = pod.message().expect("succeeded without a report").report;
    let condition = status.conditions.iter().find(|c| c.type_ == "OutputSaved").map(|c| (&*c.status, &*c.reason));
    let bundle = status.output.as_ref().and_then(|output| output.bundle.as_deref());
    if let Some(repository) = pod.pins().repository {
        reached.note("succeeded with a store");
        let saved = report.saved.as_ref().expect("the helper saved nothing");
        assert!(report.not_saved.is_none() && saved.damaged == 0, "{report:?}");
        assert_eq!(bundle, Some(format!("{repository}@{}", saved.digest).as_str()));
        assert!(matches!(condition, Some(("True", "Saved" | "SavedInPart"))), "{condition:?}");
    } else if report.saved.is_some() || report.not_saved.is_some() {
        // Somebody took the annotation away, or changed it.
        reached.note("succeeded with a store that the pod does not name");
        assert!(report.not_saved.is_none(), "it is not saved");
    } else {
        reached.note("succeeded without a store");
        let began = report.record.is_some_and(|record| record.started_at_ms.is_some());
        assert_eq!((bundle, condition), (None, began.then_some(("False", "NoStore"))));
    }
}

/// What is not over goes on by itself, or the operator looks again, or the object says what it waits for. Only a command
/// without a limit runs for as long as it likes.
fn it_has_a_bound(run: &BundleRun, pod: PodSeen, plan: &Plan, status: &BundleRunStatus, reached: &Reached) {
    if status.waiting.is_some() {
        reached.note("waits");
        return;
    }
    if plan.next.is_some() {
        reached.note("is looked at again");
        return;
    }
    if plan.steps.iter().any(|step| matches!(step, Step::DeletePod { .. })) {
        // That the pod goes, or does not, is seen.
        reached.note("is ended");
        return;
    }
    reached.note("has no bound");
    assert_eq!(status.phase, Some(Phase::Running), "{plan:?}");
    assert!(run.spec.time_limit.is_none(), "{plan:?}");
    assert!(matches!(pod, PodSeen::Ours(pod) if pod.stage() == Stage::Running), "{plan:?}");
}

fn all_is_well(run: &BundleRun, pod: PodSeen, plan: &Plan, reached: &Reached) {
    nothing_is_lost(run, pod, plan);
    let steps = words(plan);
    let count = |word: &str| steps.iter().filter(|s| s.starts_with(word)).count();
    assert!(count("Write") <= 1 && count("Create") <= 1 && count("Tell") <= 1, "{steps:?}");
    assert!(count("Tell") == 0 || count("Write") == 1, "news without a write would be told again and again: {steps:?}");

    if run.is_over() || run.metadata.deletion_timestamp.is_some() {
        assert_eq!(count("Create") + count("Tell"), 0, "{steps:?}");
        let seen = run.status.as_ref().and_then(|status| status.observed_generation);
        let goes = run.metadata.deletion_timestamp.is_some() || count("Delete the run") == 1;
        let moved = !goes && seen != run.metadata.generation;
        assert_eq!(count("Write"), usize::from(moved), "{steps:?}");
        if moved {
            let mut known = run.status.clone().unwrap();
            known.observed_generation = run.metadata.generation;
            known.conditions.iter_mut().for_each(|known| known.observed_generation = run.metadata.generation);
            assert_eq!(written(plan), known, "nothing else changes");
        }
        reached.note(if moved { "over, and told of another generation" } else { "over or deleted, and not written" });
        return;
    }
    if count("Create") > 0 {
        assert_eq!(pod, PodSeen::Absent);
        assert_eq!(count("Write"), 0);
        assert!(!run.is_being_stopped() && !run.spec.suspend, "{steps:?}");
    }
    if matches!(pod, PodSeen::Absent | PodSeen::Foreign(_)) {
        assert_eq!(count("Delete"), 0, "{steps:?}");
    }
    if count("Write") == 0 {
        return;
    }
    let status = written(plan);
    assert!(serde_json::to_string(&status).unwrap().len() < 32 * 1024);
    assert!(status.observed_generation == run.metadata.generation);
    let result = with_status(run, &status);
    if status.phase == Some(Phase::Succeeded) {
        let PodSeen::Ours(pod) = pod else { panic!("succeeded without a pod") };
        let record = pod.message().and_then(|m| m.report.record).expect("succeeded without a record");
        assert_eq!((record.exit_code, record.asked_to_stop, record.cause), (Some(0), false, None));
        assert_eq!(record.usage.oom_kills, 0);
        it_is_saved(pod, &status, reached);
    }
    if result.is_over() {
        reached.note("ends");
        assert!(status.result.is_some() && status.finish_time.is_some() && status.waiting.is_none());
        let again = look(&result, pod, 1000);
        assert!(words(&again).iter().all(|s| s.starts_with("Release") || s.starts_with("Delete")), "{again:?}");
    } else {
        it_has_a_bound(run, pod, plan, &status, reached);
        // Whatever waits says for what.
        assert!(status.result.is_none() && status.finish_time.is_none());
        assert!(status.waiting.as_ref().is_none_or(|w| w.reason.is_some() && w.since.is_some()));
        assert!(!run.is_being_stopped() || status.attempt == run.status.as_ref().unwrap().attempt, "another attempt");
        if let Some(waiting) = &status.waiting {
            let until = waiting.until.as_deref().expect("until when it waits is not told");
            assert_eq!(until != "no deadline", waiting.deadline.is_some(), "{waiting:?}");
            assert!(waiting.hint.as_ref().is_some_and(|hint| hint.len() > 5 && !hint.contains('`')), "{waiting:?}");
        }
        if let Some(waiting) = status.waiting.filter(|waiting| waiting.deadline.is_none()) {
            let known = run.status.as_ref().and_then(|status| status.waiting.as_ref());
            assert!(may_last(&waiting) || known.is_some_and(|known| known.stage == waiting.stage), "{waiting:?}");
        }
    }
}

#[test]
fn a_plan_keeps_its_promises_whatever_the_pod_looks_like() {
    let reached = Reached::default();
    let seen = (any_run().boxed(), any_pod(), second(), of(second()), any_progress().boxed());
    let around = (any::<(bool, bool)>(), any_node(), of(vec(any_event(), 0..3)));
    for_all(4000, &(seen, around), |((run, pod, now, wrote, progress), ((store, gives_up), node, events))| {
        let facts = pod.facts();
        let seen = PodSeen::Ours(&facts);
        let capacity = Capacity { nodes: 2, largest: [("cpu".into(), 500)].into(), ..Capacity::default() };
        let capacity = Some(&capacity);
        let pod_events = events.as_deref();
        let observed =
            Observed { written_at: wrote.map(at), progress, node, capacity, pod_events, ..nothing_but(&run, seen) };
        let settings = if store { super::bundles::with_store() } else { settings() };
        let settings = Settings { node_lost_after: gives_up.then(|| Duration::from_mins(2)), ..settings };
        all_is_well(&run, seen, &plan(&observed, &settings, at(now)), &reached);
    });
    reached.at_least(&[
        ("succeeded with a store", 5),
        ("succeeded with a store that the pod does not name", 10),
        ("succeeded without a store", 10),
        ("over, and told of another generation", 50),
        ("over or deleted, and not written", 100),
        ("ends", 200),
        ("waits", 50),
        ("is looked at again", 100),
    ]);
}

#[test]
fn a_plan_keeps_its_promises_where_there_is_no_pod() {
    let reached = Reached::default();
    let seen = (any_run().boxed(), any::<bool>(), of(any_refusal().boxed()), second(), any_parents());
    let around = (any::<(bool, bool)>(), any_skew());
    for_all(4000, &(seen, around), |((run, foreign, refusal, now, parents), ((store, account), skew))| {
        let other = super::foreign("other").facts();
        let seen = if foreign { PodSeen::Foreign(&other) } else { PodSeen::Absent };
        let pull_secrets = account.then_some(&[][..]);
        let refusal = refusal.as_ref();
        let observed = Observed { skew: &skew, refusal, parents: &parents, pull_secrets, ..nothing_but(&run, seen) };
        let settings = if store { super::bundles::with_store() } else { settings() };
        all_is_well(&run, seen, &plan(&observed, &settings, at(now)), &reached);
    });
    reached.at_least(&[
        ("over, and told of another generation", 200),
        ("over or deleted, and not written", 200),
        ("ends", 200),
        ("waits", 100),
        ("is looked at again", 20),
    ]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The same facts a moment later ask for nothing new: nothing is written twice.
    #[test]
    fn a_status_is_not_written_again(
        run in any_run().boxed(), pod in any_pod(), events in of(vec(any_event(), 0..3)), now in 0i64..400,
    ) {
        let facts = pod.facts();
        let look_at = |run: &BundleRun, written_at: Option<Timestamp>| {
            let pod_events = events.as_deref();
            let observed = Observed { pod_events, written_at, ..nothing_but(run, PodSeen::Ours(&facts)) };
            plan(&observed, &settings(), at(now))
        };
        let first = look_at(&run, None);
        if words(&first).iter().any(|s| s.starts_with("Write")) {
            let next = with_status(&run, &written(&first));
            // A new attempt has another pod.
            if crate::plan::current_pod(&next) == crate::plan::current_pod(&run) {
                let second = look_at(&next, Some(at(now)));
                prop_assert!(words(&second).iter().all(|s| !s.starts_with("Write") && !s.starts_with("Tell")), "{second:?}");
            }
        }
    }
}
