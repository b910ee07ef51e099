//! How an attempt ends, by what is known of its pod.

use super::*;
use crate::api::status::Blame::{self, Platform, Policy, Quota, User};
use crate::api::status::Waiting;
use crate::contract::{NotSaved, SaveFailure, Saved};
use crate::plan::facts::wish::Wish;
use crate::plan::outcome::{Ending, Outcome, decide, gave_up};
use crate::plan::words::cause::Verdict::{self, Failed, Interrupted, Succeeded};

fn outcome(pod: &PodCase) -> Outcome {
    outcome_of(pod, false)
}

fn outcome_of(pod: &PodCase, is_stopped: bool) -> Outcome {
    let wish = is_stopped.then_some(Wish::Stop);
    let pod = pod.facts();
    let shared_memory_bytes = Some(64 << 20);
    let hangs = pod.is_hung();
    let message = pod.message();
    decide(&Ending { pod: &pod, message: message.as_ref(), waiting: None, shared_memory_bytes, hangs, wish })
}

/// Name, pod, and what comes of it: verdict, cause, and whose matter it is.
type Case = (&'static str, PodCase, Verdict, &'static str, Option<Blame>);

fn check(cases: Vec<Case>) {
    for (name, pod, verdict, cause, blame) in cases {
        let got = outcome(&pod);
        assert_eq!((got.verdict(), got.cause(), got.blame()), (verdict, cause, blame), "{name}: {got:#?}");
        assert!(!got.cause().is_empty(), "{name}");
        assert!(blame != Some(User) || got.hint().is_some(), "{name}: the user is not told what to do");
    }
}

fn ended(exit_code: i32, reason: &str) -> PodCase {
    pod().run_ended(exit_code, reason)
}

fn asked(exit_code: i32) -> Record {
    Record { asked_to_stop: true, ..record(exit_code) }
}

fn oom(exit_code: i32) -> Record {
    let mut record = record(exit_code);
    record.usage.oom_kills = 1;
    record
}

fn cause(cause: Cause) -> Record {
    Record { cause: Some(cause), ..record(0) }
}

/// The container runtime could not start the entry.
fn start_error(message: &str) -> PodCase {
    let state = json!({"terminated": {"exitCode": 128, "reason": "StartError", "message": message,
        "startedAt": "1970-01-01T00:00:00Z"}});
    pod().bound().run(&state).without_record(MissingRecord::NeverStarted)
}

const EMPTY_DIR: &str = "Usage of EmptyDir volume \"bundle\" exceeds the limit \"21Gi\". ";
const LIMIT: &str = "Container run exceeded its local ephemeral storage limit \"1Gi\". ";
const HOOK: &str = "OCI runtime create failed: nvidia-container-cli: initialization error: driver not loaded";
const CUDA: &str = "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.9";

#[test]
fn a_command_that_ends_by_itself_ends_as_it_says() {
    check(vec![
        ("exit 0", pod().reported(&record(0)), Succeeded, "Completed", None),
        ("exit 3", pod().reported(&record(3)), Failed, "CommandFailed", Some(User)),
        ("exit 137 is not an OOM", pod().reported(&record(137)), Failed, "CommandFailed", Some(User)),
        ("exit 143 is not a deletion", pod().reported(&record(143)), Failed, "CommandFailed", Some(User)),
        ("signal 9 is not an OOM", pod().reported(&killed(9)), Failed, "CommandKilled", Some(User)),
        ("segfault", pod().reported(&killed(11)), Failed, "CommandKilled", Some(User)),
    ]);
}

#[test]
fn the_kubelets_exit_code_overrules_the_record() {
    check(vec![
        (
            "forged exit 0",
            ended(7, "Error").helper_ended(0, &told(&record(0))),
            Failed,
            "RecordContradicted",
            Some(User),
        ),
        (
            "forged exit 1",
            ended(0, "Completed").helper_ended(0, &told(&record(1))),
            Failed,
            "RecordContradicted",
            Some(User),
        ),
        (
            "forged, also when asked to stop",
            ended(7, "Error").helper_ended(0, &told(&asked(0))).deleted(7),
            Failed,
            "RecordContradicted",
            Some(User),
        ),
        (
            "the kubelet's KILL came between the record and the exit",
            ended(137, "Error").helper_ended(0, &told(&asked(143))).deleted(7),
            Interrupted,
            "PodDeleted",
            Some(Platform),
        ),
        (
            "the same of an eviction that the kubelet forgot to mark",
            ended(137, "Error").helper_ended(0, &told(&asked(143))),
            Interrupted,
            "AskedToStop",
            Some(Platform),
        ),
        (
            "the same of an eviction that has no deletion",
            ended(137, "Error")
                .helper_ended(0, &told(&record(0)))
                .failed("Evicted", "The node had condition: [DiskPressure]. "),
            Succeeded,
            "Completed",
            None,
        ),
        (
            "a KILL that nobody ordered",
            ended(137, "Error").helper_ended(0, &told(&record(0))),
            Failed,
            "RecordContradicted",
            Some(User),
        ),
    ]);
}

#[test]
fn an_oom_of_a_child_is_told_although_the_command_exits_0() {
    check(vec![
        ("OOM of a child, exit 0", pod().reported(&oom(0)), Failed, "OutOfMemory", Some(User)),
        ("OOM of a child, exit 137", pod().reported(&oom(137)), Failed, "OutOfMemory", Some(User)),
        (
            "OOM, says the kubelet only",
            ended(0, "OOMKilled").helper_ended(0, &told(&record(0))),
            Failed,
            "OutOfMemory",
            Some(User),
        ),
        (
            "OOM of the whole container",
            ended(137, "OOMKilled").without_record(MissingRecord::RunnerDied),
            Failed,
            "OutOfMemory",
            Some(User),
        ),
    ]);
}

#[test]
fn an_oom_of_the_node_is_not_the_runs_own() {
    let mut record = record(0);
    record.usage.oom_kills_from_outside = 1;
    let killed = Record { exit_code: None, signal: Some(9), ..record.clone() };
    let mut both = record.clone();
    both.usage.oom_kills = 1;
    check(vec![
        ("a child, exit 0", pod().reported(&record), Interrupted, "NodeOutOfMemory", Some(Platform)),
        ("the command", pod().reported(&killed), Interrupted, "NodeOutOfMemory", Some(Platform)),
        (
            "the kubelet cannot tell the difference",
            ended(137, "OOMKilled").helper_ended(0, &told(&killed)),
            Interrupted,
            "NodeOutOfMemory",
            Some(Platform),
        ),
        ("its own too", pod().reported(&both), Failed, "OutOfMemory", Some(User)),
    ]);
}

#[test]
fn what_the_runner_found_is_the_cause() {
    check(vec![
        ("time limit", pod().reported(&cause(Cause::TimeLimitExceeded)), Failed, "TimeLimitExceeded", Some(User)),
        ("disk limit", pod().reported(&cause(Cause::DiskLimitExceeded)), Failed, "DiskLimitExceeded", Some(User)),
        (".bashrc", pod().reported(&never_ran(Cause::BashrcEndedShell)), Failed, "BashrcEndedShell", Some(User)),
        ("no shell", pod().reported(&never_ran(Cause::NoShell)), Failed, "NoShell", Some(User)),
        ("not found", pod().reported(&never_ran(Cause::CommandNotFound)), Failed, "CommandNotFound", Some(User)),
        (
            "not executable",
            pod().reported(&never_ran(Cause::CommandNotExecutable)),
            Failed,
            "CommandNotExecutable",
            Some(User),
        ),
        ("started twice", pod().reported(&never_ran(Cause::StartedTwice)), Interrupted, "StartedTwice", Some(Platform)),
        (
            "request",
            pod().reported(&never_ran(Cause::RequestUnreadable)),
            Interrupted,
            "RequestUnreadable",
            Some(Platform),
        ),
        ("runner", pod().reported(&never_ran(Cause::RunnerFailed)), Interrupted, "RunnerFailed", Some(Platform)),
        ("staging", pod().reported(&never_ran(Cause::StagingFailed)), Interrupted, "StagingFailed", Some(Platform)),
    ]);
}

#[test]
fn what_the_user_asked_for_is_told_as_the_user_s() {
    let before = "ended because stop was set, before its command had started";
    let not_begun = Record { asked_to_stop: true, ..never_ran(Cause::RunnerFailed) };
    for (pod, said) in [
        (pod().reported(&asked(143)), "ended because stop was set: the command exited with 143"),
        (pod().reported(&asked(0)).deleted(7), "ended because stop was set: the command exited with 0"),
        (
            pod().reported(&Record { asked_to_stop: true, ..killed(9) }),
            "ended because stop was set: the command was ended by signal 9 (SIGKILL)",
        ),
        (pod().reported(&Record { cause: None, ..not_begun }), before),
        (pod().bound().deleted(7).failed("", ""), before),
        (
            pod().running(5).deleted(7).run_ended(137, "Error").helper_ended(1, ""),
            "ended because stop was set; how its command ended is not known",
        ),
    ] {
        let got = outcome_of(&pod, true);
        assert_eq!((got.message.as_str(), got.cause(), got.blame()), (said, "Stopped", None), "{got:#?}");
    }
    let lost = Report {
        record: Some(asked(143)),
        not_saved: Some(NotSaved { failure: SaveFailure::StoreDenied, detail: "401".into() }),
        ..Report::default()
    };
    let pod = pod().run_ended(143, "Error").helper_ended(0, &Message::encode(&lost, b"", b""));
    let said = "ended because stop was set: the command exited with 143; its output was not saved: StoreDenied: 401";
    assert_eq!(outcome_of(&pod, true).message, said);
    // What a node or a drain did is no wish of the user's, and a cause of the run's own stays one.
    assert_eq!(outcome_of(&ended(1, "Error").reported(&asked(1)).failed("Evicted", "low"), true).cause(), "Evicted");
    assert_eq!(outcome_of(&ended(1, "Error").reported(&record(1)), true).cause(), "CommandFailed");
}

#[test]
fn a_run_that_was_asked_to_stop_was_interrupted() {
    check(vec![
        ("deleted", pod().reported(&asked(143)).deleted(7), Interrupted, "PodDeleted", Some(Platform)),
        ("deleted, exits 0", pod().reported(&asked(0)).deleted(7), Interrupted, "PodDeleted", Some(Platform)),
        ("asked by nobody we know", pod().reported(&asked(0)), Interrupted, "AskedToStop", Some(Platform)),
        ("deleted after it had ended", pod().reported(&record(0)).deleted(8), Succeeded, "Completed", None),
        (
            "drained",
            pod().reported(&asked(143)).deleted(7).condition(
                "DisruptionTarget",
                "True",
                "EvictionByEvictionAPI",
                "bye",
                7,
            ),
            Interrupted,
            "EvictionByEvictionAPI",
            Some(Platform),
        ),
        (
            "a disruption that was called off",
            pod().reported(&asked(143)).deleted(7).condition(
                "DisruptionTarget",
                "False",
                "PreemptionByScheduler",
                "",
                7,
            ),
            Interrupted,
            "PodDeleted",
            Some(Platform),
        ),
        (
            "node shutdown",
            pod().reported(&asked(143)).failed("Terminated", "imminent node shutdown"),
            Interrupted,
            "Terminated",
            Some(Platform),
        ),
        (
            "evicted with a record",
            pod().reported(&asked(143)).failed("Evicted", "low on memory"),
            Interrupted,
            "Evicted",
            Some(Platform),
        ),
        (
            "volume overrun with a record",
            pod().reported(&asked(143)).failed("Evicted", EMPTY_DIR),
            Failed,
            "EmptyDirLimitExceeded",
            Some(User),
        ),
    ]);
}

#[test]
fn without_a_record_the_kubelet_is_asked() {
    check(vec![
        ("evicted", pod().running(5).failed("Evicted", "low on memory"), Interrupted, "Evicted", Some(Platform)),
        ("volume overrun", pod().running(5).failed("Evicted", EMPTY_DIR), Failed, "EmptyDirLimitExceeded", Some(User)),
        (
            "limit of a LimitRange",
            pod().running(5).failed("Evicted", LIMIT),
            Failed,
            "EphemeralStorageLimitExceeded",
            Some(User),
        ),
        (
            "no GPU left on the node",
            pod().failed("OutOfnvidia.com/gpu", ""),
            Interrupted,
            "OutOfnvidia.com/gpu",
            Some(Platform),
        ),
        (
            "device plugin",
            pod().failed("UnexpectedAdmissionError", ""),
            Interrupted,
            "UnexpectedAdmissionError",
            Some(Platform),
        ),
        ("cannot start", start_error("chdir to cwd: not a directory"), Failed, "ContainerCannotStart", Some(User)),
        ("nobody knows why", start_error("something new"), Interrupted, "NeverStarted", Some(Platform)),
        ("driver is broken", start_error(HOOK), Interrupted, "GpuUnavailable", Some(Platform)),
        ("driver is too old", start_error(CUDA), Failed, "ContainerCannotStart", Some(User)),
        ("deleted before it ran", pod().unschedulable("0/3").deleted(3), Interrupted, "PodDeleted", Some(Platform)),
        (
            "deleted, its containers unknown",
            pod().run_ended(137, "ContainerStatusUnknown").failed("", "").deleted(7),
            Interrupted,
            "PodDeleted",
            Some(Platform),
        ),
        (
            "runner died",
            ended(137, "Error").without_record(MissingRecord::RunnerDied),
            Interrupted,
            "RunnerDied",
            Some(Platform),
        ),
        (
            "damaged record",
            ended(0, "Completed").without_record(MissingRecord::Unreadable),
            Failed,
            "RecordUnreadable",
            Some(User),
        ),
        (
            "helper found no start",
            ended(125, "Error").without_record(MissingRecord::NeverStarted),
            Interrupted,
            "NeverStarted",
            Some(Platform),
        ),
        (
            "runner could not write",
            ended(125, "Error").without_record(MissingRecord::RunnerDied),
            Interrupted,
            "RunnerDied",
            Some(Platform),
        ),
        (
            "the command kept the runner from writing",
            ended(0, "Completed").without_record(MissingRecord::RunnerDied),
            Failed,
            "RecordMissing",
            Some(User),
        ),
        (
            "and removed all traces of the start",
            ended(1, "Error").without_record(MissingRecord::NeverStarted),
            Failed,
            "RecordMissing",
            Some(User),
        ),
        ("helper died", ended(0, "Completed").helper_ended(137, ""), Interrupted, "HelperDied", Some(Platform)),
        (
            "helper said nonsense",
            ended(0, "Completed").helper_ended(0, "nonsense"),
            Interrupted,
            "HelperDied",
            Some(Platform),
        ),
        ("Succeeded, says the pod's phase only", pod().bound().failed("", ""), Interrupted, "Unknown", Some(Platform)),
    ]);
}

#[test]
fn a_container_the_kubelet_lost_is_known_by_its_record() {
    check(vec![(
        "container unknown, record known",
        pod().run_ended(137, "ContainerStatusUnknown").helper_ended(0, &told(&record(0))),
        Succeeded,
        "Completed",
        None,
    )]);
}

/// As a pod was seen after containerd had been away: both containers have this state.
#[test]
fn a_container_that_ended_while_the_runtime_was_away_is_known_by_its_record() {
    let away = || pod().run_ended(255, "Unknown");
    check(vec![
        ("exit code 0", away().helper_ended(255, &told(&record(0))), Succeeded, "Completed", None),
        ("exit code 3", away().helper_ended(255, &told(&record(3))), Failed, "CommandFailed", Some(User)),
        ("no report", away().helper_ended(255, ""), Interrupted, "HelperDied", Some(Platform)),
        ("no record", away().without_record(MissingRecord::RunnerDied), Interrupted, "RunnerDied", Some(Platform)),
    ]);
}

#[test]
fn the_phase_of_a_pod_is_never_a_success() {
    for record in
        [None, Some(MissingRecord::RunnerDied), Some(MissingRecord::Unreadable), Some(MissingRecord::NeverStarted)]
    {
        let pod = pod().run_ended(0, "Completed");
        let pod = record.map_or_else(|| pod.clone().helper_ended(0, ""), |missing| pod.clone().without_record(missing));
        assert_eq!(pod.facts().status.phase.as_deref(), Some("Succeeded"));
        assert_ne!(outcome(&pod).verdict(), Succeeded, "{record:?}");
    }
}

#[test]
fn a_deleted_pod_is_never_success_unless_its_command_had_ended() {
    let record = Record { asked_to_stop: true, ..record(0) };
    assert_eq!(outcome(&pod().reported(&record).deleted(7)).verdict(), Interrupted);
    assert_eq!(outcome(&pod().run_ended(0, "Completed").helper_ended(0, "").deleted(7)).verdict(), Interrupted);
}

#[test]
fn a_bus_error_names_what_there_was_of_shared_memory_and_how_to_get_more() {
    for (record, cause, message) in [
        (killed(7), "CommandKilled", "the command was ended by signal 7 (SIGBUS)"),
        (record(135), "CommandFailed", "the command exited with 135: signal 7 (SIGBUS) ended a program of it"),
    ] {
        let got = outcome(&pod().reported(&record));
        assert_eq!((got.verdict(), got.cause(), got.blame()), (Failed, cause, Some(User)));
        assert_eq!(got.message, format!("{message}; /dev/shm had 64Mi (resources.sharedMemory)"));
        let hint = got.hint().unwrap();
        assert!(hint.contains("resources.sharedMemory") && !hint.contains('`'), "{hint}");
    }
    for other in [killed(11), record(139), record(134)] {
        let hint = outcome(&pod().reported(&other)).hint().unwrap();
        assert!(!hint.contains("sharedMemory"), "{hint}");
    }
}

#[test]
fn a_program_that_says_that_shared_memory_is_full_is_told_how_to_get_more() {
    let ended = |stderr: &str| {
        let report = Report { record: Some(record(1)), ..Report::default() };
        let pod = pod().run_ended(1, "Error").helper_ended(0, &Message::encode(&report, b"", stderr.as_bytes()));
        outcome(&pod)
    };
    for stderr in [
        "OSError: [Errno 28] No space left on device: '/dev/shm/pym-1-2'",
        "RuntimeError: unable to write to file </torch_12_345_0>: No space left on device (28)",
        "ERROR: Unexpected bus error encountered in worker. This might be caused by insufficient shared memory (shm).",
        "NCCL WARN Error while creating shared memory segment /dev/shm/nccl-a (size 9637888): No space left on device",
    ] {
        let got = ended(stderr);
        assert_eq!(
            (got.cause(), got.message.as_str()),
            ("CommandFailed", "the command exited with 1; /dev/shm had 64Mi (resources.sharedMemory)")
        );
        assert!(got.hint().unwrap().contains("resources.sharedMemory"), "{stderr}");
    }
    for stderr in ["No space left on device: '/tmp/a'", "cannot open /dev/shm/a", ""] {
        assert!(!ended(stderr).hint().unwrap().contains("sharedMemory"), "{stderr}");
    }
}

#[test]
fn a_pod_that_is_deleted_by_force_says_whether_its_output_is_saved() {
    let ended = |saved: Option<crate::contract::Saved>| {
        let report = Report { record: Some(asked(137)), saved, ..Report::default() };
        let mut pod = pod().run_ended(137, "Error").helper_ended(0, &Message::encode(&report, b"", b"")).deleted(7);
        pod.0["metadata"]["deletionGracePeriodSeconds"] = json!(0);
        outcome(&pod).message
    };
    let saved = crate::contract::Saved { digest: DIGEST.into(), ..Default::default() };
    assert!(ended(Some(saved)).ends_with("the command exited with 137, and what it left is saved"));
    assert!(ended(None).ends_with("what it left could not be saved"));
}

#[test]
fn the_message_names_the_signal_and_the_detail() {
    assert_eq!(outcome(&pod().reported(&killed(11))).message, "the command was ended by signal 11 (SIGSEGV)");
    let record = Record { detail: "exit status 1".into(), ..never_ran(Cause::NoShell) };
    assert!(outcome(&pod().reported(&record)).message.ends_with(": exit status 1"));
}

fn waiting(stage: &str, reason: &str, message: &str, deadline: i64) -> Waiting {
    let waiting =
        json!({"stage": stage, "reason": reason, "message": message, "since": time(2), "deadline": time(deadline)});
    serde_json::from_value(waiting).unwrap()
}

#[test]
fn a_wait_that_is_given_up_blames_who_could_have_ended_it() {
    let cases = [
        ("ImagePull", "ErrImagePull", "r/x:1: not found", "ImagePullFailed", User),
        ("ImageName", "InvalidImageName", "", "ImagePullFailed", User),
        ("HelperImagePull", "ErrImagePull", "", "HelperImagePullFailed", Platform),
        ("Helper", "CrashLoopBackOff", "", "HelperFailed", Platform),
        ("Configuration", "CreateContainerConfigError", "secret \"x\" not found", "CreateContainerConfigError", User),
        ("Configuration", "CreateContainerError", "no users found", "CreateContainerError", User),
        ("Admission", "Forbidden", "admission webhook \"policy\" denied the request", "Forbidden", Policy),
        (
            "Admission",
            "Forbidden",
            "error looking up service account n/x: serviceaccount \"x\" not found",
            "Forbidden",
            User,
        ),
        ("Admission", "Forbidden", "no PriorityClass with name high was found", "Forbidden", User),
        ("Admission", "Forbidden", "pod rejected: RuntimeClass \"nvidia\" not found", "Forbidden", Platform),
        ("Admission", "Forbidden", "User \"operator\" cannot create resource \"pods\"", "Forbidden", Platform),
        ("Admission", "Forbidden", "minimum cpu usage per Container is 50m, but request is 10m", "Forbidden", Policy),
        ("Admission", "Forbidden", "failed quota: q: must specify limits.cpu for: bundle", "Forbidden", Quota),
        ("Admission", "PodNameTaken", "", "PodNameTaken", Platform),
        ("a stage of a later version", "New", "", "New", Platform),
    ];
    for (stage, reason, message, cause, blame) in cases {
        let got = gave_up(&waiting(stage, reason, message, 5));
        assert_eq!(
            (got.verdict(), got.cause(), got.blame()),
            (Failed, cause, Some(blame)),
            "{stage} {reason} {message}"
        );
        assert!(blame == Platform || got.hint().is_some(), "{stage} {reason}");
    }
    let without_a_reason = json!({"stage": "a stage of a later version", "deadline": time(5)});
    let got = gave_up(&serde_json::from_value(without_a_reason).unwrap());
    assert_eq!((got.cause(), got.blame()), ("DeadlineExceeded", Some(Platform)));
}

#[test]
fn what_nobody_understands_is_not_the_users() {
    for (stage, reason) in [
        ("ImagePull", "ErrImagePull"),
        ("Configuration", "CreateContainerError"),
        ("Configuration", "CreateContainerConfigError"),
    ] {
        let got = gave_up(&waiting(stage, reason, "something new", 5));
        assert_eq!((got.verdict(), got.blame()), (Interrupted, Some(Platform)), "{reason}");
    }
}

#[test]
fn the_hint_fits_what_the_container_runtime_says_of_the_image() {
    for (stage, reason, message, hint) in [
        ("ImagePull", "ErrImagePull", "x: not found", "name and tag"),
        ("ImagePull", "ErrImagePull", "no match for platform in manifest: not found", "architecture"),
        ("Configuration", "CreateContainerError", "mount callback failed: no users found", "runAsUser"),
        ("Configuration", "CreateContainerError", "openat etc/passwd: no such file or directory", "runAsUser"),
        ("Configuration", "CreateContainerError", "statat etc: no such file or directory", "runAsUser"),
        ("Configuration", "CreateContainerError", "not a directory", "mounts"),
    ] {
        let got = gave_up(&waiting(stage, reason, message, 5));
        assert!(got.hint().unwrap().contains(hint) && got.message.contains(message), "{message}: {got:?}");
    }
}

#[test]
fn a_pod_deleted_at_its_deadline_ends_as_what_it_waited_for() {
    let deadline = waiting("ImagePull", "ErrImagePull", "not found", 302);
    let cases = [
        (PodCase::deleted(pod().run_waits("ErrImagePull"), 302).failed("", ""), "ImagePullFailed"),
        // The API server's clock is behind ours.
        (pod().run_waits("ErrImagePull").deleted(297).failed("", ""), "ImagePullFailed"),
        (pod().run_waits("ErrImagePull").deleted(200).failed("", ""), "PodDeleted"),
        // It was pulled at the last moment, and ran.
        (pod().reported(&record(0)).deleted(302), "Completed"),
        (pod().run_ended(137, "Error").without_record(MissingRecord::RunnerDied).deleted(302), "PodDeleted"),
    ];
    for (pod, cause) in cases {
        let pod = pod.facts();
        let message = pod.message();
        let ending = Ending {
            pod: &pod,
            message: message.as_ref(),
            waiting: Some(&deadline),
            shared_memory_bytes: None,
            hangs: false,
            wish: None,
        };
        assert_eq!(decide(&ending).cause(), cause);
    }
}

#[test]
fn a_wait_for_admission_is_over_where_there_is_a_pod() {
    let waiting = waiting("Admission", "Forbidden", "", 3);
    let pod = pod().bound().deleted(5).failed("", "").facts();
    let (message, shared_memory_bytes) = (None, None);
    let waiting = Some(&waiting);
    let ending = Ending { pod: &pod, message, waiting, shared_memory_bytes, hangs: false, wish: None };
    assert_eq!(decide(&ending).cause(), "PodDeleted");
}

#[test]
fn a_run_whose_time_was_over_is_told_what_it_can_go_on_from() {
    let hint = |saved: Option<Saved>| {
        let report = Report { record: Some(cause(Cause::TimeLimitExceeded)), saved, ..Report::default() };
        let told = Message::encode(&report, b"", b"");
        let result =
            written(&look_at(&run(), &pod().run_ended(124, "Error").helper_ended(0, &told), 20)).result.unwrap();
        assert_eq!(result.cause, "TimeLimitExceeded");
        result.hint.unwrap()
    };
    assert!(hint(None).ends_with("or make the command save its progress on a claim"));
    let saved = Saved { digest: format!("sha256:{}", "0".repeat(64)), ..Saved::default() };
    assert!(hint(Some(saved)).ends_with("it may have this run as an input, with allowFailedInputs"));
}

/// `sh -c ./run.sh` of such a script ends with 126 or 127, and the name that bash prints looks right.
#[test]
fn a_script_with_windows_line_ends_is_told_by_what_the_shell_says() {
    let message = |stderr: &str| {
        let report = Report { record: Some(record(127)), ..Report::default() };
        let told = Message::encode(&report, b"", stderr.as_bytes());
        written(&look_at(&run(), &pod().run_ended(127, "Error").helper_ended(0, &told), 20)).message.unwrap()
    };
    // bash prints it escaped, dash and busybox as it is.
    for said in [
        "./run.sh: /bin/bash^M: bad interpreter: No such file",
        "run.sh: line 2: $'\\r': command not found",
        "run.sh: line 3: $'foo\\r': command not found",
        "run.sh: line 1: set: -\r: invalid option\nset: usage: set [-abefhkmnptuvxBCEHPT] [-o option-name]",
        "run.sh: 2: \r: not found\nrun.sh: 3: foo\r: not found\n",
        "run.sh: line 3: foo\r: not found\n",
        "run.sh: 1: set: Illegal option -\r\n",
        "cat: can't open '/etc/hostname\r': No such file or directory\n",
        "/usr/bin/env: 'python3\\r': No such file or directory\n/usr/bin/env: use -[v]S to pass options in shebang lines\n",
        "/usr/bin/env: \u{2018}python3\\r\u{2019}: No such file or directory\n",
    ] {
        assert!(
            message(said).ends_with("exited with 127: a script of it has Windows line ends (CRLF), save it with LF")
        );
    }
    // bash from 5.2 on, dash, busybox: of a script that begins with `#!/bin/bash\r`, started by its path.
    let missing = "if that program is there, it names an interpreter or loader that is not;";
    for (said, told) in [
        (
            "bash: line 1: ./run.sh: cannot execute: required file not found\n",
            "a program of it names an interpreter or loader that is not in the image;",
        ),
        ("sh: 1: ./run.sh: not found\n", missing),
        ("sh: ./run.sh: not found\n", missing),
        ("sh: exec: line 0: /bundle/run.sh: not found\n", missing),
    ] {
        let end = "so does a script with Windows line ends (CRLF), save that with LF";
        assert_eq!(message(said), format!("the command exited with 127: {told} {end}"));
    }
    for other in ["sh: x: not found", " 50%\r100%\r\nsh: 1: x: not found\r\n", "set: Illegal option -x"] {
        assert_eq!(message(other), "the command exited with 127", "{other}");
    }
}
