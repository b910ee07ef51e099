//! How an attempt ended: an ordered list of small named checks over the facts; the first that speaks decides.
//!
//! Only the helper's report makes a success; the pod's phase never does (Kubernetes says Succeeded also when the
//! helper died and the output with it, or when the kernel killed a child of a command that exits 0).

mod given_up;
mod kubelet;

use k8s_openapi::jiff::SignedDuration;

use self::kubelet::{
    container_could_not_start, deleted, out_of_memory_says_the_kubelet, refused_or_evicted_by_the_kubelet, why_asked,
};
use crate::api::Quantity;
use crate::api::status::{Blame, Waiting};
use crate::contract::{self, Message, MissingRecord, Record, Report, SaveFailure, Saved, SavedSoFar, size_for_people};
use crate::plan::facts::pod::{PodFacts, TerminatedFacts};
use crate::plan::facts::wish::Wish;
use crate::plan::words::cause::{Cause, Subject, Verdict};
use crate::plan::words::wait_reason::WaitStage;

pub(in crate::plan) use self::given_up::gave_up;

/// How an attempt ended, and what the user is told of it.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::plan) struct Outcome {
    ended_as: Cause,
    /// Kubernetes' own word for it, which is passed on.
    reason: Option<String>,
    /// Whose matter it is, where that is another's than the cause's own.
    blame: Option<Blame>,
    /// It ended while the user had it suspended.
    is_suspended: bool,
    pub(in crate::plan) message: String,
}

/// An interruption of this cause counts for none that a run may have: the next attempt does without what failed, so there is
/// no second one of it.
pub(in crate::plan) fn costs_nothing(cause: &str) -> bool {
    cause == Cause::InputNotMounted.name()
}

/// The facts of an ended attempt.
pub(in crate::plan) struct Ending<'a> {
    pub(in crate::plan) pod: &'a PodFacts,
    pub(in crate::plan) message: Option<&'a Message>,
    /// What the object says the pod was waiting for.
    pub(in crate::plan) waiting: Option<&'a Waiting>,
    /// How large `/dev/shm` was, if that is known.
    pub(in crate::plan) shared_memory_bytes: Option<u64>,
    /// A container of the pod does not end, although the helper has said its last words or had its time for them.
    pub(in crate::plan) hangs: bool,
    /// What the user asked for, if that is why it was to end.
    pub(in crate::plan) wish: Option<Wish>,
}

impl Outcome {
    pub(in crate::plan) fn new(ended_as: Cause, message: impl Into<String>) -> Self {
        Self {
            ended_as,
            reason: None,
            blame: None,
            is_suspended: ended_as == Cause::Suspended,
            message: message.into(),
        }
    }

    /// What the table says of it is all there is to say.
    fn of(ended_as: Cause) -> Self {
        Self::new(ended_as, ended_as.words())
    }

    fn told_by_kubernetes(ended_as: Cause, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..Self::new(ended_as, message) }
    }

    pub(in crate::plan) fn verdict(&self) -> Verdict {
        self.ended_as.verdict()
    }

    /// Nobody has to look into it: it succeeded, or the user ended it.
    pub(in crate::plan) fn is_as_wanted(&self) -> bool {
        self.ended_as.subject() == Subject::Wanted
    }

    /// CamelCase, becomes `status.reason` and `status.result.cause`.
    pub(in crate::plan) fn cause(&self) -> &str {
        self.reason.as_deref().unwrap_or_else(|| self.ended_as.name())
    }

    pub(in crate::plan) fn blame(&self) -> Option<Blame> {
        self.blame.or_else(|| self.ended_as.blame())
    }

    /// Of a run that ends because of another one: that one's end is why.
    pub(in crate::plan) fn inherit(self, blame: Option<Blame>) -> Self {
        Self { blame, ..self }
    }

    pub(in crate::plan) fn hint(&self) -> Option<String> {
        self.ended_as.hint()
    }

    /// `suspend` was set: it counts against nothing.
    pub(in crate::plan) fn is_suspension(&self) -> bool {
        self.is_suspended
    }

    /// See [`costs_nothing`].
    pub(in crate::plan) fn costs_nothing(&self) -> bool {
        costs_nothing(self.cause())
    }

    /// The user wished it to end, and the command had not started.
    fn ended_before_its_command(wish: Wish) -> Self {
        Self::new(wish.cause(), format!("ended because {} was set, before its command had started", wish.field()))
    }

    /// The same, of this attempt of a run that is stopped, which has no pod.
    pub(in crate::plan) fn stopped_without_pod(attempt: u32) -> Self {
        if attempt == 1 {
            return Self::ended_before_its_command(Wish::Stop);
        }
        let words = "what the attempts before it left is in status.attempts";
        let message = format!("ended because stop was set, before attempt {attempt} had started its command; {words}");
        Self::new(Cause::Stopped, message)
    }

    /// The user wished it to end, and the platform ended the attempt for a reason of its own.
    pub(in crate::plan) fn wished_and_interrupted(wish: Wish, interruption: &Self) -> Self {
        let cause = interruption.ended_as;
        if wish == Wish::Suspend && (cause == Cause::NodeLost || cause.is_of_the_node()) {
            // The next attempt must know which node that was.
            return Self { is_suspended: true, ..interruption.clone() };
        }
        Self::new(wish.cause(), format!("ended because {} was set: {}", wish.field(), interruption.message))
    }

    /// The user wished it to end, and that is why the pod was told to.
    fn wished(wish: Wish, ending: &Ending) -> Self {
        let began = |record: &&Record| record.started_at_ms.is_some();
        let field = wish.field();
        match ending.record().filter(began) {
            Some(record) => {
                let message = format!("ended because {field} was set: the command {}", ending_words(record));
                Self::new(wish.cause(), message)
            }
            None if ending.pod.run_started_at().is_some() && ending.record().is_none() => {
                let message = format!("ended because {field} was set; how its command ended is not known");
                Self::new(wish.cause(), message)
            }
            None => Self::ended_before_its_command(wish),
        }
    }

    /// What is known is in the record, if there is one.
    pub(in crate::plan) fn node_hung(record: Option<&Record>) -> Self {
        let words = Cause::NodeHung.words();
        let detail = record.map(|record| record.detail.as_str()).filter(|detail| !detail.is_empty());
        Self::new(Cause::NodeHung, detail.map_or_else(|| words.clone(), |detail| format!("{words}: {detail}")))
    }

    /// The pod is gone although nobody released it: whatever it did, nobody saw it end.
    pub(in crate::plan) fn pod_gone(pod: &str) -> Self {
        let cause = if bug!("a pod that is gone has succeeded") { Cause::Completed } else { Cause::PodGone };
        Self::new(cause, format!("pod {pod} disappeared before its ending could be recorded"))
    }
}

type Check = fn(&Ending) -> Option<Outcome>;

/// The order matters: what the user's container can write never overrules what the kubelet saw; what is known of the
/// command comes before what is known of its pod.
const CHECKS: [Check; 14] = [
    waited_too_long,
    node_hung,
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
pub(in crate::plan) fn decide(ending: &Ending) -> Outcome {
    if bug!("the phase of the pod is believed") && ending.pod.status.phase.as_deref() == Some("Succeeded") {
        return Outcome::of(Cause::Completed);
    }
    let outcome = CHECKS.iter().find_map(|check| check(ending)).unwrap_or_else(|| Outcome::of(Cause::Unknown));
    // A command that succeeded is never started again: with its output lost, the run has failed.
    match outcome.verdict() {
        Verdict::Succeeded => output_lost(ending).or_else(|| output_in_part(ending)).unwrap_or(outcome),
        Verdict::Interrupted | Verdict::Stopped => without_its_output(ending, outcome),
        Verdict::Failed => outcome,
    }
}

/// The next attempt says nothing of what this one has lost.
fn without_its_output(ending: &Ending, outcome: Outcome) -> Outcome {
    let Some((failure, words)) = ending.message.and_then(|message| unsaved(ending.pod, message)) else {
        return outcome;
    };
    let message = format!("{}; its output was not saved: {failure:?}: {words}", outcome.message);
    Outcome { message, ..outcome }
}

/// What stood in the way of an output that is not in the store, and how much of it is there; `None`: all is, there is no
/// store, or the command never began.
pub(in crate::plan) fn unsaved(pod: &PodFacts, message: &Message) -> Option<(SaveFailure, String)> {
    let report = &message.report;
    if report.saved.is_some() {
        return None;
    }
    let (failure, words) = if let Some(lost) = &report.not_saved {
        (lost.failure, lost.detail.clone())
    } else {
        report.record.as_ref().filter(|record| record.started_at_ms.is_some())?;
        pod.pins().repository?;
        (SaveFailure::HelperFailed, "the helper ended before the output was saved".to_owned())
    };
    Some((failure, words + &how_far(report)))
}

/// `; 1.2 GiB of 3.4 GiB are in the store, ...`; empty: it is not known.
fn how_far(report: &Report) -> String {
    let Some(SavedSoFar { stored_bytes, total_bytes }) = report.so_far else { return String::new() };
    let (stored, total) = (size_for_people(stored_bytes), size_for_people(total_bytes));
    format!("; {stored} of {total} are in the store: what is the same is not sent again")
}

/// The output was to be saved, and was not.
fn output_lost(ending: &Ending) -> Option<Outcome> {
    let report = &ending.message?.report;
    if report.saved.is_some() {
        return None;
    }
    let Some(lost) = &report.not_saved else {
        ending.pod.pins().repository?;
        let words = "the command exited with 0, and the helper ended before its output was saved";
        return Some(Outcome::new(Cause::HelperGone, format!("{words}{}", how_far(report))));
    };
    let cause = match lost.failure {
        SaveFailure::OutputTooLarge => Cause::OutputTooLarge,
        SaveFailure::StoreQuotaExceeded => Cause::StoreQuotaExceeded,
        SaveFailure::StoreDenied => Cause::StoreDenied,
        SaveFailure::SaveDeadlineExceeded => Cause::SaveDeadlineExceeded,
        SaveFailure::StoreNotFound
        | SaveFailure::StoreUnreachable
        | SaveFailure::StoreTls
        | SaveFailure::StoreCorrupt
        | SaveFailure::HelperFailed => Cause::StoreNotInOrder,
    };
    let (failure, words) = (lost.failure, format!("{}{}", lost.detail, how_far(report)));
    let message = format!("the command exited with 0, and its output could not be saved: {failure:?}: {words}");
    Some(Outcome::new(cause, message))
}

/// The output is there, and lacks what belongs to it.
fn output_in_part(ending: &Ending) -> Option<Outcome> {
    let saved = ending.message?.report.saved.as_ref()?;
    let cause = match saved {
        Saved { damaged: 1.., .. } => Cause::OutputDamaged,
        Saved { withheld: 1.., .. } => Cause::SavedInPart,
        Saved { .. } => return None,
    };
    let names = lacking(saved).map(|lacking| format!(": {lacking}")).unwrap_or_default();
    Some(Outcome::new(cause, cause.words() + &names))
}

/// `5 entries were not saved: a.sock (a socket), b (a FIFO), c (a device) and 2 more, which the bundle lists`; none: all
/// was saved.
pub(in crate::plan) fn lacking(saved: &Saved) -> Option<String> {
    let (count, names) = (saved.skipped, &saved.skipped_names);
    let were = if count == 1 { "1 entry was".to_owned() } else { format!("{count} entries were") };
    let more = count.saturating_sub(names.len() as u64);
    Some(match (count, names.len(), more) {
        (0, _, _) => return None,
        (_, 0, _) => format!("{were} not saved: the bundle lists what"),
        (_, _, 0) => format!("{were} not saved: {}", names.join(", ")),
        _ => format!("{were} not saved: {} and {more} more, which the bundle lists", names.join(", ")),
    })
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
        let is_seen = |t: &&TerminatedFacts| !UNSEEN.map(Some).contains(&t.reason.as_deref());
        self.pod.run()?.state.terminated.as_ref().filter(is_seen)
    }
}

/// What the kubelet says of a container that it has lost; and what containerd 2.x, with the exit code 255, of one that ended
/// while it was away itself.
const UNSEEN: [&str; 2] = ["ContainerStatusUnknown", "Unknown"];

/// The deadline is by our clock, the deletion by the API server's.
const CLOCKS_APART: SignedDuration = SignedDuration::from_secs(10);

/// We deleted the pod because its deadline had passed, and the command had not started meanwhile.
fn waited_too_long(ending: &Ending) -> Option<Outcome> {
    // Where there is a pod, neither its time nor its admission is waited for any more; where it has ended, its node is not.
    // What inputs and the store are waited for is the helper's to give up.
    let over = [WaitStage::Suspended, WaitStage::Retry, WaitStage::Admission, WaitStage::Node, WaitStage::Staging]
        .map(|stage| Some(stage.name()));
    let waiting = ending.waiting.filter(|w| !over.contains(&w.stage.as_deref()))?;
    let deadline = waiting.deadline.as_ref()?.0;
    let asked = ending.pod.delete_asked_at()?.checked_add(CLOCKS_APART).ok()?;
    let started = ending.pod.run_started_at().is_some() || ending.record().is_some_and(|r| r.started_at_ms.is_some());
    (asked >= deadline && !started).then(|| gave_up(waiting))
}

/// A command that ended by itself is not started again for what it left behind.
fn node_hung(ending: &Ending) -> Option<Outcome> {
    let nothing_said = ending.message.is_none();
    if !ending.hangs || (ending.run_ended().is_some() && !nothing_said) {
        return None;
    }
    let record = ending.record();
    let ordered = |record: &Record| record.cause.is_some() || record.asked_to_stop;
    record.is_none_or(|record| record.unkillable && ordered(record)).then(|| Outcome::node_hung(record))
}

/// The exit code of a container that was ended by KILL.
const KILLED: i32 = 128 + 9;

/// The run container can write the record; the exit code is the kubelet's own observation.
fn record_contradicts_kubelet(ending: &Ending) -> Option<Outcome> {
    let record = ending.record()?;
    let seen = ending.run_ended()?;
    // A KILL of the kubelet's may come between the record and the runner's exit.
    let pod = ending.pod;
    let is_evicted = pod.status.reason.is_some() || pod.disruption().is_some();
    let killed_late = seen.exit_code == KILLED && (record.asked_to_stop || pod.is_deleting() || is_evicted);
    (record.container_exit_code() != seen.exit_code && !killed_late).then(|| {
        let message = format!(
            "the record in the pod says the container ends with {}, the kubelet saw {}",
            record.container_exit_code(),
            seen.exit_code
        );
        Outcome::new(Cause::RecordContradicted, message)
    })
}

fn ended_for_a_cause(ending: &Ending) -> Option<Outcome> {
    let record = ending.record()?;
    let cause = Cause::seen_in_the_pod(record.cause?);
    let words = cause.words();
    let message = if record.detail.is_empty() { words } else { format!("{words}: {}", record.detail) };
    let is_saved = ending.message.is_some_and(|message| message.report.saved.is_some());
    let cause = if cause == Cause::TimeLimitExceeded && is_saved { Cause::TimeLimitExceededAndSaved } else { cause };
    Some(Outcome::new(cause, message))
}

/// The kubelet says `OOMKilled` here, too: it does not know whose memory was used up.
fn node_out_of_memory(ending: &Ending) -> Option<Outcome> {
    let record = ending.record()?;
    (record.usage.oom_kills == 0 && record.usage.oom_kills_from_outside > 0).then(|| {
        let end = ending_words(record);
        Outcome::new(
            Cause::NodeOutOfMemory,
            format!("the node ran out of memory and the kernel killed a process of the run, which had not used up resources.memory; the command {end}"),
        )
    })
}

/// Told as such also when the command went on and exited 0: what it left may lack what the killed process was doing.
fn out_of_memory(ending: &Ending) -> Option<Outcome> {
    let record = ending.record()?;
    let told_by_kubelet = ending.run_ended().is_some_and(|t| t.reason.as_deref() == Some("OOMKilled"));
    (record.usage.oom_kills > 0 || told_by_kubelet).then(|| {
        let message = format!("{}; the command {}", Cause::OutOfMemory.words(), ending_words(record));
        Outcome::new(Cause::OutOfMemory, message)
    })
}

fn ended_when_asked_to(ending: &Ending) -> Option<Outcome> {
    let record = ending.record()?;
    record.asked_to_stop.then(|| why_asked(ending))
}

fn command_ended(ending: &Ending) -> Option<Outcome> {
    let record = ending.record()?;
    let message = format!("the command {}", ending_words(record));
    match (record.exit_code, record.signal) {
        (Some(0), None) => Some(Outcome::new(Cause::Completed, message)),
        (Some(BUS_ERROR_OF_CHILD), None) => {
            let message = format!("{message}: signal 7 (SIGBUS) ended a program of it{}", shared_memory(ending));
            Some(Outcome::new(Cause::BusErrorOfChild, message))
        }
        (Some(_), None) if ending.message.is_some_and(|message| tells_of_shared_memory(&message.stderr_tail)) => {
            Some(Outcome::new(Cause::SharedMemoryFull, format!("{message}{}", shared_memory(ending))))
        }
        (Some(_), None) => {
            Some(Outcome::new(Cause::CommandFailed, format!("{message}{}", told_by_the_shell(record, ending))))
        }
        (_, Some(BUS_ERROR)) => Some(Outcome::new(Cause::BusError, format!("{message}{}", shared_memory(ending)))),
        (_, Some(_)) => Some(Outcome::new(Cause::CommandKilled, message)),
        (None, None) => None,
    }
}

/// SIGBUS. A store into a file of a full tmpfs ends with it: there is no other way to tell of it.
const BUS_ERROR: i32 = 7;
/// How a shell exits that did not find its last program.
const NOT_FOUND: i32 = 127;
/// How a shell exits whose last program was ended by SIGBUS.
const BUS_ERROR_OF_CHILD: i32 = 128 + BUS_ERROR;

/// As Python, `PyTorch` and NCCL say it.
fn tells_of_shared_memory(stderr: &str) -> bool {
    let stderr = stderr.to_lowercase();
    let is_there = |words: &str| stderr.contains(words);
    is_there("insufficient shared memory")
        || (is_there("no space left on device") && ["/dev/shm", "</torch_", "shared memory"].into_iter().any(is_there))
}

fn shared_memory(ending: &Ending) -> String {
    let size = |bytes| format!("; /dev/shm had {} (resources.sharedMemory)", Quantity::of_bytes(bytes));
    ending.shared_memory_bytes.map_or_else(String::new, size)
}

/// What shells say of a script whose lines end as on Windows, or may do so.
fn told_by_the_shell(record: &Record, ending: &Ending) -> &'static str {
    let said = ending.message.map(|message| message.stderr_tail.as_str()).unwrap_or_default();
    // As coreutils' env says it of `#!/usr/bin/env python3`, in the quotes of its locale.
    let no_file = ["\\r': No such file or directory", "\\r\u{2019}: No such file or directory"];
    let words = ["^M: bad interpreter", "\\r': command not found"].into_iter().chain(no_file);
    // In a tail a carriage return begins a line: what follows one of a script cannot be the begin of anything else. So say
    // it dash and busybox, and bash of the options of `set`.
    let behind_one = [": not found", ": invalid option", "': No such file or directory"];
    let is_behind_one =
        |line: &str| line.ends_with("llegal option -") || behind_one.iter().any(|words| line.starts_with(words));
    if words.into_iter().any(|words| said.contains(words)) || said.lines().any(is_behind_one) {
        return ": a script of it has Windows line ends (CRLF), save it with LF";
    }
    if record.exit_code != Some(NOT_FOUND) {
        return "";
    }
    // Of a script that is there and begins with `#!/bin/bash\r`, started by its path, shells say no more than this: bash
    // from 5.2 on, and dash and busybox as of a file that is not there.
    if said.lines().any(|line| line.ends_with(": cannot execute: required file not found")) {
        return ": a program of it names an interpreter or loader that is not in the image; so does a script with Windows \
                line ends (CRLF), save that with LF";
    }
    let is_of_a_path = |line: &str| {
        let name = line.strip_suffix(": not found").and_then(|line| line.rsplit(": ").next());
        name.is_some_and(|name| name.contains('/'))
    };
    if said.lines().any(is_of_a_path) {
        return ": if that program is there, it names an interpreter or loader that is not; so does a script with Windows \
                line ends (CRLF), save that with LF";
    }
    ""
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

/// A runner that is killed ends with a signal, and one that could do nothing with its own code: any other it has from a
/// command, and had then written its record, or tried.
fn ended_by_itself(ending: &Ending) -> bool {
    ending.run_ended().is_some_and(|t| {
        (0..=128).contains(&t.exit_code) && t.exit_code != contract::Cause::RunnerFailed.container_exit_code()
    })
}

fn runner_died(ending: &Ending) -> Option<Outcome> {
    let seen = ending.run_ended().map_or_else(String::new, |t| format!("; the kubelet saw exit code {}", t.exit_code));
    let cause = match ending.missing()? {
        MissingRecord::RunnerDied | MissingRecord::NeverStarted if ended_by_itself(ending) => Cause::RecordMissing,
        MissingRecord::RunnerDied => Cause::RunnerDied,
        MissingRecord::Unreadable => Cause::RecordUnreadable,
        MissingRecord::NeverStarted => Cause::NeverStarted,
    };
    Some(Outcome::new(cause, format!("{}{seen}", cause.words())))
}

fn helper_died(ending: &Ending) -> Option<Outcome> {
    let helper = ending.pod.helper()?.state.terminated.as_ref()?;
    let message = format!("the helper container ended with {} and left no report", helper.exit_code);
    Some(Outcome::new(Cause::HelperDied, message))
}
