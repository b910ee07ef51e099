//! How an attempt ended: an ordered list of small named checks over the facts; the first that speaks decides.
//!
//! Only the helper's report makes a success; the pod's phase never does (Kubernetes says Succeeded also when the
//! helper died and the output with it, or when the kernel killed a child of a command that exits 0).

use k8s_openapi::jiff::SignedDuration;

use super::facts::{PodFacts, TerminatedFacts, WaitKind};
use crate::api::status::{Blame, Waiting};
use crate::report::{Cause, Message, MissingRecord, Record, SaveFailure};

/// How an attempt ended, and what the user is told of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outcome {
    pub(super) verdict: Verdict,
    /// CamelCase, becomes `status.reason` and `status.result.cause`.
    pub(super) cause: String,
    pub(super) blame: Option<Blame>,
    pub(super) message: String,
    pub(super) hint: Option<&'static str>,
}

/// What follows from an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The command ended by itself with exit code 0 and the helper reported.
    Succeeded,
    /// The run's own doing, or nothing that another attempt would mend.
    Failed,
    /// The platform's doing: another attempt is due if any is left.
    Interrupted,
    /// Ended because `stop` was set.
    Stopped,
}

/// The facts of an ended attempt.
pub(super) struct Ending<'a> {
    pub(super) pod: &'a PodFacts,
    pub(super) message: Option<&'a Message>,
    /// What the object says the pod was waiting for.
    pub(super) waiting: Option<&'a Waiting>,
}

impl Outcome {
    fn succeeded() -> Self {
        Self {
            verdict: Verdict::Succeeded,
            cause: "Completed".into(),
            blame: None,
            message: "the command exited with 0".into(),
            hint: None,
        }
    }

    pub(super) fn failed(cause: impl Into<String>, blame: Blame, message: impl Into<String>) -> Self {
        Self { verdict: Verdict::Failed, cause: cause.into(), blame: Some(blame), message: message.into(), hint: None }
    }

    pub(super) fn interrupted(cause: impl Into<String>, message: impl Into<String>) -> Self {
        Self { verdict: Verdict::Interrupted, ..Self::failed(cause, Blame::Platform, message) }
    }

    pub(super) fn hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }

    /// `stop` was set, and this is what became of the attempt; none: there was none.
    pub(super) fn stopped(interruption: Option<&Self>) -> Self {
        let message = match interruption {
            Some(outcome) => format!("ended because stop was set: {}", outcome.message),
            None => "ended because stop was set, before its command had started".into(),
        };
        Self { verdict: Verdict::Stopped, cause: "Stopped".into(), blame: None, message, hint: None }
    }

    /// The pod is gone although nobody released it: whatever it did, nobody saw it end.
    pub(super) fn pod_gone(pod: &str) -> Self {
        Self::interrupted("PodGone", format!("pod {pod} disappeared before its ending could be recorded"))
    }
}

type Check = fn(&Ending) -> Option<Outcome>;

/// The order matters: what the user's container can write never overrules what the kubelet saw; what is known of the
/// command comes before what is known of its pod.
const CHECKS: [Check; 13] = [
    waited_too_long,
    record_contradicts_kubelet,
    ended_for_a_cause,
    node_out_of_memory,
    out_of_memory,
    ended_when_asked_to,
    command_ended,
    refused_or_evicted_by_the_kubelet,
    container_could_not_start,
    out_of_memory_says_the_kubelet,
    deleted,
    runner_died,
    helper_died,
];

/// Decides; total, because the last resort is an interruption.
pub(super) fn decide(ending: &Ending) -> Outcome {
    let outcome = CHECKS
        .iter()
        .find_map(|check| check(ending))
        .unwrap_or_else(|| Outcome::interrupted("Unknown", "the pod ended without any report of the command"));
    // A command that succeeded is never started again: with its output lost, the run has failed.
    match outcome.verdict {
        Verdict::Succeeded => output_lost(ending).unwrap_or(outcome),
        _ => outcome,
    }
}

/// The output was to be saved, and was not.
fn output_lost(ending: &Ending) -> Option<Outcome> {
    let report = &ending.message?.report;
    ending.pod.pins().repository.filter(|_| report.saved.is_none())?;
    let Some(lost) = &report.not_saved else {
        let message = "the command exited with 0, and the helper ended before its output was saved";
        return Some(
            Outcome::failed("OutputNotSaved", Blame::Platform, message).hint("run it again under another name"),
        );
    };
    let (blame, hint) = match lost.failure {
        SaveFailure::OutputTooLarge => {
            (Blame::User, "write less, or leave files out with outputs.exclude, in a new run")
        }
        SaveFailure::StoreQuotaExceeded => (Blame::Quota, "the registry's quota is used up: ask the administrator"),
        SaveFailure::StoreDenied => {
            (Blame::Platform, "the credentials of the store in this namespace are not valid: ask the administrator")
        }
        SaveFailure::SaveDeadlineExceeded => {
            (Blame::Platform, "saving took longer than the administrator allows: write less, or ask for more time")
        }
        SaveFailure::StoreNotFound
        | SaveFailure::StoreUnreachable
        | SaveFailure::StoreTls
        | SaveFailure::StoreCorrupt
        | SaveFailure::HelperFailed => {
            (Blame::Platform, "the store is not in order: tell the administrator, then run it again under another name")
        }
    };
    let message =
        format!("the command exited with 0, and its output could not be saved: {:?}: {}", lost.failure, lost.detail);
    Some(Outcome::failed("OutputNotSaved", blame, message).hint(hint))
}

impl Ending<'_> {
    fn record(&self) -> Option<&Record> {
        self.message?.report.record.as_ref()
    }

    fn missing(&self) -> Option<MissingRecord> {
        self.message?.report.missing
    }

    /// How the run container ended, if it ran at all and the kubelet saw its end.
    fn run_ended(&self) -> Option<&TerminatedFacts> {
        self.pod.run()?.state.terminated.as_ref().filter(|t| t.reason.as_deref() != Some("ContainerStatusUnknown"))
    }
}

/// The deadline is by our clock, the deletion by the API server's.
const CLOCKS_APART: SignedDuration = SignedDuration::from_secs(10);

/// We deleted the pod because its deadline had passed, and the command had not started meanwhile.
fn waited_too_long(ending: &Ending) -> Option<Outcome> {
    // Where there is a pod, its admission is not waited for any more.
    let waiting = ending.waiting.filter(|w| w.stage.as_deref() != Some(WaitKind::Admission.stage()))?;
    let deadline = waiting.deadline.as_ref()?.0;
    let asked = ending.pod.delete_asked_at()?.checked_add(CLOCKS_APART).ok()?;
    let started = ending.pod.run_started_at().is_some() || ending.record().is_some_and(|r| r.started_at_ms.is_some());
    (asked >= deadline && !started).then(|| gave_up(waiting))
}

/// The ending of a run whose wait passed its deadline.
pub(super) fn gave_up(waiting: &Waiting) -> Outcome {
    let cause = waiting.reason.clone().unwrap_or_else(|| "DeadlineExceeded".into());
    let message = waiting.message.clone().unwrap_or_default();
    let kind = WaitKind::ALL.into_iter().find(|k| Some(k.stage()) == waiting.stage.as_deref());
    match kind {
        Some(WaitKind::Image | WaitKind::ImageName) => image_pull_failed(message),
        Some(WaitKind::HelperImage) => Outcome::failed("HelperImagePullFailed", Blame::Platform, message)
            .hint("the operator's own image cannot be pulled on this node: tell the administrator"),
        Some(WaitKind::Helper) => Outcome::failed("HelperFailed", Blame::Platform, message)
            .hint("the operator's own container does not start on this node: tell the administrator"),
        Some(WaitKind::Config) if cause != "CreateContainerConfigError" => container_not_created(cause, message),
        Some(WaitKind::Config) => Outcome::failed(cause, Blame::User, message)
            .hint("create the Secret, ConfigMap or claim that is missing, or name another, in a new run"),
        Some(WaitKind::Admission) if cause == "Forbidden" => forbidden(cause, message),
        Some(
            WaitKind::Inputs
            | WaitKind::Staging
            | WaitKind::Scheduling
            | WaitKind::Starting
            | WaitKind::Node
            | WaitKind::Admission,
        )
        | None => Outcome::failed(cause, Blame::Platform, message),
    }
}

fn image_pull_failed(message: String) -> Outcome {
    // containerd's text for an image index that lacks the node's architecture.
    let hint = if message.contains("no match for platform") {
        "the image is not built for the node's architecture: build it for that, or choose a nodeSelector that fits it"
    } else {
        "check the image's name and tag, that the cluster can reach its registry, and imagePullSecrets"
    };
    Outcome::failed("ImagePullFailed", Blame::User, message).hint(hint)
}

fn container_not_created(cause: String, message: String) -> Outcome {
    // containerd's texts for a USER that is a name: no such entry, and no passwd file to look it up in.
    let unknown_user = ["no users found", "etc/passwd: no such file", "statat etc: no such file"];
    if unknown_user.iter().any(|words| message.contains(words)) {
        let message = format!("the image's USER is a name that its /etc/passwd does not have ({message})");
        return Outcome::failed(cause, Blame::User, message)
            .hint("set runAsUser in a new run, or give the image a USER by number");
    }
    Outcome::failed(cause, Blame::User, message)
        .hint("the message is the container runtime's: the image must allow the requested user and mounts")
}

/// The texts are those of the API server's admission plugins.
fn forbidden(cause: String, message: String) -> Outcome {
    let says = |words: &str| message.contains(words);
    if says("error looking up service account") || says("no PriorityClass with name") {
        return Outcome::failed(cause, Blame::User, message)
            .hint("create what the message names, or name another, in a new run");
    }
    if says("cannot create resource") {
        return Outcome::failed(cause, Blame::Platform, message)
            .hint("the operator may not create pods in this namespace: tell the administrator");
    }
    if says("RuntimeClass") {
        return Outcome::failed(cause, Blame::Platform, message)
            .hint("the GPU profile names a runtime class that the cluster does not have: tell the administrator");
    }
    Outcome::failed(cause, Blame::Quota, message)
        .hint("a policy of the cluster refuses the pod: the message says which; ask the administrator")
}

/// The run container can write the record; the exit code is the kubelet's own observation.
fn record_contradicts_kubelet(ending: &Ending) -> Option<Outcome> {
    let record = ending.record()?;
    let seen = ending.run_ended()?;
    (record.container_exit_code() != seen.exit_code).then(|| {
        Outcome::failed(
            "RecordContradicted",
            Blame::User,
            format!(
                "the record in the pod says the container ends with {}, the kubelet saw {}",
                record.container_exit_code(),
                seen.exit_code
            ),
        )
        .hint("the command must leave /.bundlerun alone")
    })
}

fn ended_for_a_cause(ending: &Ending) -> Option<Outcome> {
    let record = ending.record()?;
    let cause = record.cause?;
    let detail = |text: &str| {
        if record.detail.is_empty() { text.to_owned() } else { format!("{text}: {}", record.detail) }
    };
    let user = |text: &str| Outcome::failed(format!("{cause:?}"), Blame::User, detail(text));
    let platform = |text: &str| Outcome::interrupted(format!("{cause:?}"), detail(text));
    Some(match cause {
        Cause::TimeLimitExceeded => user("the command ran longer than timeLimit")
            .hint("raise timeLimit in a new run, or make the command save its progress on a claim"),
        Cause::DiskLimitExceeded => user("the working directory grew over resources.disk")
            .hint("raise resources.disk in a new run, or write less"),
        Cause::BashrcEndedShell => user("the image's .bashrc ended the shell before the command began")
            .hint("take exit, and what fails under set -e, out of the .bashrc in the image's WORKDIR"),
        Cause::NoShell => user("the image has no shell that starts").hint("use argv instead of command"),
        Cause::CommandNotFound => user("the program is not in the image").hint("check argv and the image's PATH"),
        Cause::CommandNotExecutable => user("the program cannot be executed")
            .hint("check its mode, its interpreter and that it is built for this machine"),
        Cause::StartedTwice => platform("Kubernetes started the container a second time"),
        Cause::RequestUnreadable => platform("the request did not reach the container"),
        Cause::RunnerFailed => platform("the runner could not do its work"),
        Cause::StagingFailed => platform("the inputs could not be put in place"),
        Cause::InputNotFound => user("an input does not exist").hint("check the input's source, in a new run"),
        Cause::InputDenied => user("an input may not be read")
            .hint("name a Secret with credentials for the registry in imagePullSecrets, in a new run"),
        Cause::InputInvalid => {
            user("an input is not what it should be").hint("check the input's source, and what wrote it")
        }
        Cause::InputTooLarge => user("an input is too large")
            .hint("raise resources.disk in a new run, or take a part of the input with path"),
        Cause::GpuUnavailable => platform("the GPUs are not usable in the container")
            .hint("the node's GPU driver or the GPU profile is not in order: tell the administrator"),
    })
}

/// The kubelet says `OOMKilled` here, too: it does not know whose memory was used up.
fn node_out_of_memory(ending: &Ending) -> Option<Outcome> {
    let record = ending.record()?;
    (record.usage.oom_kills == 0 && record.usage.oom_kills_from_outside > 0).then(|| {
        let end = ending_words(record);
        Outcome::interrupted(
            "NodeOutOfMemory",
            format!("the node ran out of memory and the kernel killed a process of the run, which had not used up resources.memory; the command {end}"),
        )
    })
}

/// Told as such also when the command went on and exited 0: what it left may lack what the killed process was doing.
fn out_of_memory(ending: &Ending) -> Option<Outcome> {
    let record = ending.record()?;
    let told_by_kubelet = ending.run_ended().is_some_and(|t| t.reason.as_deref() == Some("OOMKilled"));
    (record.usage.oom_kills > 0 || told_by_kubelet).then(|| {
        let end = ending_words(record);
        oom(&format!("the kernel killed a process of the run because resources.memory was used up; the command {end}"))
    })
}

fn oom(message: &str) -> Outcome {
    Outcome::failed("OutOfMemory", Blame::User, message)
        .hint("raise resources.memory in a new run, or use less; files in /dev/shm count")
}

fn ended_when_asked_to(ending: &Ending) -> Option<Outcome> {
    let record = ending.record()?;
    record.asked_to_stop.then(|| why_asked(ending.pod))
}

fn command_ended(ending: &Ending) -> Option<Outcome> {
    let record = ending.record()?;
    let message = format!("the command {}", ending_words(record));
    match (record.exit_code, record.signal) {
        (Some(0), None) => Some(Outcome::succeeded()),
        (Some(_), None) => Some(
            Outcome::failed("CommandFailed", Blame::User, message)
                .hint("see status.output.stderrTail and kubectl logs"),
        ),
        (_, Some(_)) => Some(
            Outcome::failed("CommandKilled", Blame::User, message)
                .hint("a signal nobody in the platform sent: a crash of the program, or the command's own doing"),
        ),
        (None, None) => None,
    }
}

fn ending_words(record: &Record) -> String {
    match (record.exit_code, record.signal) {
        (_, Some(signal)) => format!("was ended by signal {signal}{}", signal_name(signal)),
        (Some(code), None) => format!("exited with {code}"),
        (None, None) => "left no exit code".into(),
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        3 => " (SIGQUIT)",
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        15 => " (SIGTERM)",
        24 => " (SIGXCPU)",
        25 => " (SIGXFSZ)",
        31 => " (SIGSYS)",
        _ => "",
    }
}

fn refused_or_evicted_by_the_kubelet(ending: &Ending) -> Option<Outcome> {
    told_by_the_kubelet(ending.pod)
}

/// `Evicted`, `UnexpectedAdmissionError`, `OutOfcpu`, `NodeAffinity`, `Terminated` (node shutdown), `Preempting`...:
/// the kubelet ended the pod or never took it.
fn told_by_the_kubelet(pod: &PodFacts) -> Option<Outcome> {
    let reason = pod.status.reason.as_deref().filter(|r| !r.is_empty())?;
    let message = pod.status.message.clone().unwrap_or_default();
    // The texts of the kubelet's eviction manager for limits; all other evictions are for the node's sake.
    let says = |words: &str| reason == "Evicted" && message.contains(words);
    if says("Usage of EmptyDir volume") {
        return Some(
            Outcome::failed("EmptyDirLimitExceeded", Blame::User, message)
                .hint("raise resources.disk (or sharedMemory) in a new run, or write less"),
        );
    }
    if says("exceeded its local ephemeral storage limit") || says("usage exceeds the total limit of containers") {
        return Some(Outcome::failed("EphemeralStorageLimitExceeded", Blame::User, message).hint(
            "a LimitRange of the namespace sets this limit: write less outside the working directory, such as to /tmp",
        ));
    }
    Some(Outcome::interrupted(reason, message))
}

/// The container runtime refused to start the entry: the image and the request do not fit together, or the node cannot
/// give the container its GPUs.
fn container_could_not_start(ending: &Ending) -> Option<Outcome> {
    let ended =
        ending.run_ended().filter(|t| matches!(t.reason.as_deref(), Some("StartError" | "ContainerCannotRun")))?;
    let message = ended.message.clone().unwrap_or_default();
    // The NVIDIA hook's and CDI's texts. A condition is one the image sets, such as cuda>=12.9.
    let gpu = ["nvidia-container", "CDI device"].iter().any(|words| message.contains(words));
    if gpu && !message.contains("unsatisfied condition") {
        return Some(Outcome::interrupted("GpuUnavailable", message));
    }
    Some(Outcome::failed("ContainerCannotStart", Blame::User, message).hint(if gpu {
        "the image needs a newer GPU driver than the node has: choose an image with an older CUDA"
    } else {
        "the message is the container runtime's: the image's WORKDIR and the places of mounts must be directories"
    }))
}

/// The whole container was killed, the runner with it.
fn out_of_memory_says_the_kubelet(ending: &Ending) -> Option<Outcome> {
    (ending.run_ended()?.reason.as_deref() == Some("OOMKilled"))
        .then(|| oom("the kernel killed the whole container because resources.memory was used up"))
}

fn deleted(ending: &Ending) -> Option<Outcome> {
    ending.pod.is_deleting().then(|| why_asked(ending.pod))
}

/// The kubelet's own evictions and shutdowns leave a reason; API evictions, preemptions and drains a condition; a plain
/// deletion neither.
fn why_asked(pod: &PodFacts) -> Outcome {
    if let Some(outcome) = told_by_the_kubelet(pod) {
        return outcome;
    }
    if let Some(disruption) = pod.condition("DisruptionTarget").filter(|c| c.status == "True") {
        return Outcome::interrupted(
            disruption.reason.as_deref().filter(|r| !r.is_empty()).unwrap_or("Disrupted"),
            disruption.message.clone().unwrap_or_default(),
        );
    }
    if pod.is_deleting() {
        return Outcome::interrupted("PodDeleted", "the pod was deleted while the run was not finished");
    }
    Outcome::interrupted("AskedToStop", "the node asked the pod to stop")
}

/// A runner that is killed ends with a signal, and one that could do nothing with its own code: any other it has from a
/// command, and had then written its record, or tried.
fn ended_by_itself(ending: &Ending) -> bool {
    ending
        .run_ended()
        .is_some_and(|t| (0..=128).contains(&t.exit_code) && t.exit_code != Cause::RunnerFailed.container_exit_code())
}

fn runner_died(ending: &Ending) -> Option<Outcome> {
    let seen = ending.run_ended().map_or_else(String::new, |t| format!("; the kubelet saw exit code {}", t.exit_code));
    match ending.missing()? {
        MissingRecord::RunnerDied | MissingRecord::NeverStarted if ended_by_itself(ending) => {
            Some(Outcome::failed("RecordMissing", Blame::User, format!("the runner's record is not there{seen}")).hint(
                "the command must leave /.bundlerun alone; if it does, the node's disk is at fault: run it again",
            ))
        }
        MissingRecord::RunnerDied => {
            Some(Outcome::interrupted("RunnerDied", format!("the run container was killed from outside{seen}")))
        }
        MissingRecord::Unreadable => Some(
            Outcome::failed("RecordUnreadable", Blame::User, format!("the record in the pod is damaged{seen}"))
                .hint("the command must leave /.bundlerun alone"),
        ),
        MissingRecord::NeverStarted => {
            Some(Outcome::interrupted("NeverStarted", format!("the run container ended before it began{seen}")))
        }
    }
}

fn helper_died(ending: &Ending) -> Option<Outcome> {
    let helper = ending.pod.helper()?.state.terminated.as_ref()?;
    Some(Outcome::interrupted(
        "HelperDied",
        format!("the helper container ended with {} and left no report", helper.exit_code),
    ))
}
