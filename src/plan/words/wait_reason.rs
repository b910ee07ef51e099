//! Every reason that a run can wait for: what is awaited, until when, and what to do. Waits are told by this table, and
//! `docs/endings.md` is generated from it.
//!
//! Texts are Markdown, without a capital at the begin and a full stop at the end.

use super::cause::{Cause, Verdict};
use super::message::{Meaning, Source, meaning};
use super::table::{plain, table};
use crate::contract::{InputPatience, InputProblem};

/// The setting that says when a wait is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Deadline {
    /// It may take as long as it takes.
    None,
    /// Waiting is pointless.
    AtOnce,
    ImagePull,
    /// The registry was clear about it: it has time to say so twice.
    ImageRefused,
    /// There is no registry of that name, unless a name service is wrong about it for a while.
    ImageHost,
    Configuration,
    Starting,
    /// Only where the administrator has set one.
    NodeLost,
    /// The kubelet has time to say that a container has ended.
    Hung,
    /// Kept by the helper in the pod, which ends the attempt: not a deadline of the operator's.
    Staging,
    /// The same, of what is refused: no setting.
    Refused,
    /// The same, of a `ConfigMap` or a Secret that does not exist.
    Absent,
    /// The same, of who gives no answer: no setting.
    NoAnswer,
}

impl Deadline {
    /// Its name in the settings file.
    pub(crate) fn setting(self) -> Option<&'static str> {
        match self {
            Self::None
            | Self::AtOnce
            | Self::ImageRefused
            | Self::ImageHost
            | Self::Hung
            | Self::Refused
            | Self::NoAnswer => None,
            Self::ImagePull => Some("deadlines.imagePull"),
            Self::Configuration | Self::Absent => Some("deadlines.configuration"),
            Self::Starting => Some("deadlines.starting"),
            Self::NodeLost => Some("nodeLost.giveUpAfter"),
            Self::Staging => Some("deadlines.staging"),
        }
    }

    /// What the helper keeps to where there is no setting, in words.
    pub(crate) fn fixed(self) -> Option<String> {
        let InputPatience { refused_seconds, silent_seconds, .. } = InputPatience::USUAL;
        match self {
            Self::Refused => Some(format!("{} minutes", refused_seconds / 60)),
            Self::NoAnswer => Some(format!("{} minutes without an answer", silent_seconds / 60)),
            _ => None,
        }
    }
}

#[derive(Clone, Copy)]
struct Row {
    stage: WaitStage,
    /// Only where the stage's is not right.
    deadline: Option<Deadline>,
    /// The cause when it is given up; only where the stage's is not right.
    ends_as: Option<Cause>,
    /// Reasons of Kubernetes; empty: it is ours, and the variant's name.
    names: &'static [&'static str],
    /// Of several with one name, the one whose message means this; empty: the one for all other messages.
    when: &'static [Meaning],
    awaited: &'static str,
    /// One sentence. Is on the object.
    to_do: &'static str,
}

impl Row {
    fn goes_by(&self, reason: Reason, name: &str) -> bool {
        if self.names.is_empty() { reason.variant() == name } else { self.names.contains(&name) }
    }

    const fn new(stage: WaitStage, awaited: &'static str) -> Self {
        Self { stage, deadline: None, names: &[], when: &[], ends_as: None, awaited, to_do: "" }
    }

    const fn to_do(self, to_do: &'static str) -> Self {
        Self { to_do, ..self }
    }

    const fn of_kubernetes(self, names: &'static [&'static str]) -> Self {
        Self { names, ..self }
    }

    const fn when(self, when: &'static [Meaning]) -> Self {
        Self { when, ..self }
    }

    const fn until(self, deadline: Deadline) -> Self {
        Self { deadline: Some(deadline), ..self }
    }

    const fn ends_as(self, cause: Cause) -> Self {
        Self { ends_as: Some(cause), ..self }
    }

    const fn without_deadline(self) -> Self {
        self.until(Deadline::None)
    }
}

const IMAGE_PULL: &[&str] = &[
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
];
const CONFIG: &[&str] = &["CreateContainerConfigError"];
const CONTAINER: &[&str] = &["CreateContainerError", "RunContainerError", "CrashLoopBackOff"];

table! {
    /// Why a run waits: `status.waiting.reason`.
    enum Reason: Row {
        Suspended: Row::new(WaitStage::Suspended, "`suspend` is set")
            .to_do("set `suspend` to `false`, and the run goes on; set `stop`, and it ends"),
        InputMissing: Row::new(WaitStage::Inputs, "runs that are inputs do not exist")
            .to_do("create them, in any order; the message names them"),
        InputNotFinished: Row::new(WaitStage::Inputs, "runs that are inputs have not ended")
            .to_do("nothing: the run goes on when they have"),
        InputNotStarted: Row::new(WaitStage::Inputs, "runs whose snapshots are inputs have not started")
            .to_do("nothing: the run goes on when they have"),
        InputUnreadable: Row::new(WaitStage::Inputs, "runs that are inputs were stored under another definition of \
            BundleRun, and this version of the operator cannot read them")
            .to_do("make the runs that the message names anew under their names (`kubectl replace --force`), or tell the \
                administrator: another version of the operator may read them"),
        InputFailed: Row::new(WaitStage::Inputs, "runs that are inputs failed, were stopped, or left no saved output, and \
            `onInputFailure` is `Wait`")
            .to_do("mend the runs that the message names and make them anew under their names \
                (`kubectl replace --force`): the run goes on when they have succeeded"),
        RetryBackOff: Row::new(WaitStage::Retry, "an attempt failed, and the time of `retry.backoff` has not passed; `deadline` \
            says when it has")
            .to_do("nothing: the next attempt begins then; `status.attempts` says how the last one failed"),
        QuotaExceeded: Row::new(WaitStage::Admission, "the namespace's quota is used up")
            .to_do("nothing: the run goes on when others end; or ask for less in a new run")
            .without_deadline(),
        AdmissionUnavailable: Row::new(WaitStage::Admission, "the API server cannot decide: a webhook does not answer")
            .to_do("nothing: the API server is asked again; tell the administrator if it stays")
            .without_deadline(),
        Forbidden: Row::new(WaitStage::Admission, "the API server refuses the pod")
            .to_do("change what the message names, or ask the administrator, before the deadline: then the run goes on")
            .ends_as(Cause::ForbiddenByPolicy),
        PodInvalid: Row::new(WaitStage::Admission, "the API server does not take the pod, for a field that the run does not \
            set")
            .to_do("tell the administrator: a mutating webhook or policy, or the operator's settings, put an \
                invalid field into the pod; if that is mended before the deadline, the run goes on")
            .ends_as(Cause::PodMadeInvalid),
        NamespaceTerminating: Row::new(WaitStage::Admission, "the namespace is being deleted, and takes no pods")
            .to_do("nothing: the run is deleted with its namespace")
            .without_deadline(),
        SettingsChanged: Row::new(WaitStage::Admission, "a setting was changed since the run was first looked at, and does \
            not allow what the run asks for: the message says what")
            .to_do("tell the administrator, or make the run anew without it: if the setting is as it was before the \
                deadline, the run goes on")
            .ends_as(Cause::SettingsChanged),
        PodNameTaken: Row::new(WaitStage::Admission, "a pod of the run's name exists and is not the run's")
            .to_do("delete that pod, and the run goes on; or use another name")
            .ends_as(Cause::PodNameTaken),
        PreviousPod: Row::new(WaitStage::Admission, "the pod of an earlier run of this name has not ended: it may still be \
            saving its output")
            .to_do("nothing: the run starts when that pod is gone; `deadline` says how long it may take, once it is deleted and its \
                node answers")
            .without_deadline(),
        Queued: Row::new(WaitStage::Queue, "a scheduling gate holds the pod back, as Kueue's does until the queue has quota \
            for it")
            .to_do("nothing: the run goes on when its queue admits it; with Kueue, `kubectl get workloads` shows where it \
                stands")
            .of_kubernetes(&["SchedulingGated"]),
        Unschedulable: Row::new(WaitStage::Scheduling, "no node has room, or none fits. What else the scheduler says is \
            passed on, too")
            .to_do("nothing: the run goes on when a node that fits has room")
            .of_kubernetes(&["Unschedulable"]),
        NoNodeIsLargeEnough: Row::new(WaitStage::Scheduling, "the same, and no node is as large as the run; the message has \
            the numbers")
            .to_do("ask for less in a new run, or tell the administrator: no node that is there is large enough, even when \
                it is empty")
            .of_kubernetes(&["Unschedulable"]),
        NoNodeFits: Row::new(WaitStage::Scheduling, "the same, and labels or taints keep the run off every node")
            .to_do("correct `nodeSelector` or `tolerations` in a new run, or tell the administrator: no node that is there \
                takes the run, even when it is empty")
            .of_kubernetes(&["Unschedulable"]),
        NotSeenByScheduler: Row::new(WaitStage::Scheduling, "no scheduler has looked at the pod")
            .to_do("see that a scheduler of the name in `schedulerName` runs, or leave that field out in a new run"),
        InvalidImageName: Row::new(WaitStage::ImageName, "the container runtime does not take the image's name")
            .to_do("correct `image` in a new run")
            .of_kubernetes(&["InvalidImageName"]),
        ImageRefused: Row::new(WaitStage::Image, "the registry says that the image does not exist, that it may not be \
            pulled, or that it is not for this node's platform; or the node does not take it as it is")
            .to_do("correct `image` or `imagePullSecrets` in a new run; an image that can be pulled before the \
                deadline lets the run go on")
            .of_kubernetes(IMAGE_PULL)
            .when(&[
                Meaning::ImageIsMissing,
                Meaning::ImageIsDenied,
                Meaning::ImageIsForOtherPlatform,
                Meaning::ImageIsTooOld,
                Meaning::ImageIsNotSigned,
            ])
            .until(Deadline::ImageRefused),
        RegistryUnavailable: Row::new(WaitStage::Image, "the registry fails or does not answer")
            .to_do("nothing: the node asks again and again; tell the administrator if it stays")
            .of_kubernetes(IMAGE_PULL)
            .when(&[Meaning::RegistryIsUnavailable])
            .without_deadline(),
        RegistryUnknown: Row::new(WaitStage::Image, "there is no host of the registry's name (*no such host*)")
            .to_do("correct the name of the registry in a new run: it may be misspelt; if it is right, tell the \
                administrator that the nodes' name service does not know it")
            .of_kubernetes(IMAGE_PULL)
            .when(&[Meaning::HostIsUnknown])
            .until(Deadline::ImageHost)
            .ends_as(Cause::RegistryUnknown),
        RegistryNotResolved: Row::new(WaitStage::Image, "the node's name service does not answer when it is asked for \
            the registry, or does not know one that exists")
            .to_do("check the name of the registry, which may be misspelt, and correct it in a new run; if it is right, \
                tell the administrator that the node's name service does not answer: the node asks again and again")
            .of_kubernetes(IMAGE_PULL)
            .when(&[Meaning::NameServiceFails])
            .without_deadline(),
        ImageNotPulled: Row::new(WaitStage::Image, "the image cannot be pulled for another reason")
            .to_do("check the image's name, or tell the administrator: the message is the node's and the registry's; an image \
                that can be pulled before the deadline lets the run go on")
            .of_kubernetes(IMAGE_PULL)
            .ends_as(Cause::ImageNotPulled),
        InputNotMounted: Row::new(WaitStage::Image, "the node cannot mount the output of a run that is an input")
            .to_do("nothing: another attempt follows, which copies it; with the setting `imageVolumes: never` none is \
                mounted")
            .until(Deadline::ImageRefused)
            .ends_as(Cause::InputNotMounted),
        ConfigurationMissing: Row::new(WaitStage::Config, "a Secret, ConfigMap or key of `env` does not exist")
            .to_do("create it before the deadline, and the run goes on")
            .of_kubernetes(CONFIG)
            .when(&[Meaning::ConfigIsMissing])
            .ends_as(Cause::CreateContainerConfigError),
        RootForbidden: Row::new(WaitStage::Config, "the pod must not run as root, and the image does, or may")
            .to_do("set `runAsUser` to another user than 0, such as 1000, in a new run")
            .of_kubernetes(CONFIG)
            .when(&[Meaning::RootIsForbidden])
            .until(Deadline::AtOnce)
            .ends_as(Cause::RootForbidden),
        ConfigurationNotRead: Row::new(WaitStage::Config, "the node cannot read what the container needs")
            .to_do("nothing: another attempt follows at the deadline; tell the administrator if it stays")
            .of_kubernetes(CONFIG)
            .ends_as(Cause::NeverStarted),
        ClaimMissing: Row::new(WaitStage::Config, "a claim of `volumes` or `inputs` does not exist")
            .to_do("create it before the deadline, and the run goes on")
            .ends_as(Cause::CreateContainerConfigError),
        GpuNotGiven: Row::new(WaitStage::Config, "the node cannot give the container its GPUs")
            .to_do("nothing: another attempt follows")
            .of_kubernetes(CONTAINER)
            .when(&[Meaning::GpuIsUnavailable])
            .until(Deadline::AtOnce)
            .ends_as(Cause::GpuUnavailable),
        ContainerRefused: Row::new(WaitStage::Config, "the container runtime refuses to make the container of this \
            image")
            .to_do("correct what the message names, in the image or in a new run")
            .of_kubernetes(CONTAINER)
            .when(&[
                Meaning::UserIsUnknown,
                Meaning::ImageDoesNotFit,
                Meaning::CudaIsTooNew,
                Meaning::MemoryIsTooSmall,
            ]),
        ContainerNotCreated: Row::new(WaitStage::Config, "the node cannot make the container")
            .to_do("nothing: another attempt follows at the deadline; tell the administrator if it stays")
            .of_kubernetes(CONTAINER)
            .ends_as(Cause::NeverStarted),
        VolumeNotMounted: Row::new(WaitStage::Starting, "the node cannot attach or mount a volume of the pod")
            .to_do("check the claim and its volume, or tell the administrator of the storage: the run goes on when the \
                volume can be mounted before the deadline")
            .of_kubernetes(&["FailedMount", "FailedAttachVolume", "FailedMapVolume"])
            .until(Deadline::Starting)
            .ends_as(Cause::VolumeNotMounted),
        NetworkNotSetUp: Row::new(WaitStage::Starting, "the node cannot set up the pod's network or its sandbox")
            .to_do("tell the administrator: the run goes on when the node can before the deadline")
            .of_kubernetes(&["FailedCreatePodSandBox", "NetworkNotReady"])
            .until(Deadline::Starting)
            .ends_as(Cause::StartDeadlineExceeded),
        ContainerCreating: Row::new(WaitStage::Starting, "a large image is being pulled, or a volume is slow to mount")
            .to_do("nothing; `kubectl describe pod` shows what the node is at")
            .until(Deadline::Starting)
            .ends_as(Cause::StartDeadlineExceeded),
        DefinitionOutdated: Row::new(WaitStage::Version, "the installed definition of BundleRun is older than the operator: \
            what it would record of a new attempt would be lost")
            .to_do("tell the administrator: the definition has to be upgraded too; the run starts when it is"),
        OperatorOutdated: Row::new(WaitStage::Version, "the run says something that the operator does not know, because the \
            installed definition of BundleRun is newer")
            .to_do("tell the administrator: the operator has to be upgraded too; the run starts when it is"),
        StagingInputs: Row::new(WaitStage::Staging, "inputs are being put in place; the message says how far")
            .to_do("nothing: the command starts when they are there"),
        InputNotFound: Row::new(WaitStage::Staging, "the server or the registry of an input says that it is not there")
            .to_do("put it there before the deadline, and the run goes on; or correct the input's source in a new run")
            .until(Deadline::Refused)
            .ends_as(Cause::InputNotFound),
        InputDenied: Row::new(WaitStage::Staging, "the server or the registry of an input does not let it be read")
            .to_do("correct the Secret that `imagePullSecrets` names before the deadline, or the input's source in a new \
                run; a `url` is read without any login but what is in it")
            .until(Deadline::Refused)
            .ends_as(Cause::InputDenied),
        InputUnreachable: Row::new(WaitStage::Staging, "there is no host of the name that an input's address has, or its \
            certificate is not trusted")
            .to_do("correct the address in a new run if it is misspelt; an authority that the cluster trusts is the \
                administrator's to add")
            .until(Deadline::Refused)
            .ends_as(Cause::InputUnreachable),
        InputNotCreated: Row::new(WaitStage::Staging, "a ConfigMap or a Secret that is an input, or a key of it, does not \
            exist")
            .to_do("create it before the deadline, and the run goes on: the node looks about once a minute")
            .until(Deadline::Absent)
            .ends_as(Cause::InputNotFound),
        InputNoAnswer: Row::new(WaitStage::Staging, "the server or the registry of an input cannot be reached, or fails, or \
            the node cannot write what comes")
            .to_do("see that what the message names is spelt right, runs, and that pods can reach it: it is tried again and \
                again, and the run goes on when the input is there")
            .until(Deadline::NoAnswer)
            .ends_as(Cause::StagingFailed),
        InputHasNoSnapshot: Row::new(WaitStage::Staging, "a run whose snapshot is an input has none yet")
            .to_do("nothing, if the command of that run asks for one by `$BUNDLE_SNAPSHOT` or it has \
                `outputs.snapshots.every`: the command starts when the first is in the store; else stop this run")
            .ends_as(Cause::InputNotFound),
        StoreRefused: Row::new(WaitStage::Staging, "the store refuses the output, or an input that is in it; the command has \
            not started")
            .to_do("tell the administrator: the store's login in this namespace, its repository or its certificate is \
                not in order; the command starts when the store accepts")
            .until(Deadline::Refused)
            .ends_as(Cause::StoreRefused),
        NodeNotResponding: Row::new(WaitStage::Node, "the node's kubelet is silent, or does not confirm that a pod that \
            was deleted has ended: the command may still run there")
            .to_do("tell the administrator: the run goes on when the node is back, when it is declared out of service \
                (taint `node.kubernetes.io/out-of-service`), or when its Node object is deleted")
            .until(Deadline::NodeLost)
            .ends_as(Cause::NodeLost),
        ContainerNotEnding: Row::new(WaitStage::Node, "the helper has reported, and the node does not say that the command's \
            container has ended: something of it may hang there")
            .to_do("nothing: at the deadline the attempt ends, as `NodeHung` unless the command had ended by itself")
            .until(Deadline::Hung)
            .ends_as(Cause::NodeHung),
        PodNotEnding: Row::new(WaitStage::Node, "the pod was deleted, and its node, which answers, does not confirm that it \
            has ended: something of it may hang there")
            .to_do("tell the administrator: the run goes on when the pod has ended; a node with a process that cannot be \
                killed has to be rebooted"),
    }
}

impl Reason {
    /// What is on the object; where Kubernetes' own reason is, the first of those known.
    pub(crate) fn name(self) -> &'static str {
        self.row().names.first().copied().unwrap_or_else(|| self.variant())
    }

    /// All that can be on the object, as far as it is known.
    pub(crate) fn names(self) -> Vec<&'static str> {
        match self.row().names {
            [] => vec![self.variant()],
            names => names.to_vec(),
        }
    }

    /// What the helper says of an input.
    pub(in crate::plan) fn of_an_input(problem: InputProblem) -> Self {
        match problem {
            InputProblem::Store => Self::StoreRefused,
            InputProblem::NotFound => Self::InputNotFound,
            InputProblem::Denied => Self::InputDenied,
            InputProblem::NoServer => Self::InputUnreachable,
            InputProblem::Absent => Self::InputNotCreated,
            InputProblem::NoAnswer => Self::InputNoAnswer,
            InputProblem::NoSnapshot => Self::InputHasNoSnapshot,
        }
    }

    /// The reason of a container that waits.
    pub(in crate::plan) fn of_the_kubelet(reason: &str, message: &str) -> Option<Self> {
        let stages = [WaitStage::Image, WaitStage::ImageName, WaitStage::Config];
        stages.into_iter().find_map(|stage| Self::with_words(stage, reason, message))
    }

    /// The reason of an event about a pod that its node prepares.
    pub(in crate::plan) fn of_an_event(reason: &str) -> Option<Self> {
        Self::with_words(WaitStage::Starting, reason, "").filter(|known| !known.row().names.is_empty())
    }

    /// The reason at a stage that goes by this name, and fits the message.
    fn with_words(stage: WaitStage, reason: &str, message: &str) -> Option<Self> {
        let named = || Self::ALL.iter().filter(|known| known.stage() == stage && known.row().goes_by(**known, reason));
        // The table of messages is long, and most reasons stand alone.
        if named().any(|known| !known.row().when.is_empty())
            && let Some(means) = stage.source().and_then(|source| meaning(source, message))
            && let Some(fits) = named().find(|known| known.row().when.contains(&means))
        {
            return Some(*fits);
        }
        named().find(|known| known.row().when.is_empty()).copied()
    }

    pub(crate) fn stage(self) -> WaitStage {
        self.row().stage
    }

    pub(crate) fn deadline(self) -> Deadline {
        self.row().deadline.unwrap_or_else(|| self.stage().deadline())
    }

    /// In Markdown.
    pub(crate) fn awaited(self) -> &'static str {
        self.row().awaited
    }

    /// In Markdown.
    pub(crate) fn what_to_do(self) -> &'static str {
        self.row().to_do
    }

    /// The stages it can be told at: a container may be the helper's.
    pub(crate) fn stages(self) -> Vec<WaitStage> {
        let stage = self.stage();
        let is_of_both = |other: &WaitStage| {
            !self.row().names.is_empty() && [Deadline::None, other.deadline()].contains(&self.deadline())
        };
        let of_the_helper = stage.of_the_helper().filter(is_of_both);
        [stage].into_iter().chain(of_the_helper).collect()
    }

    /// The cause of the run's end at the deadline, or of the attempt's, for each of its stages; empty: there is no
    /// deadline.
    pub(crate) fn given_up_as(self) -> Vec<&'static str> {
        if self.deadline() == Deadline::None {
            return Vec::new();
        }
        let cause = |stage: WaitStage| match self.row().ends_as {
            Some(cause) if stage == self.stage() => cause,
            _ => stage.given_up_as(),
        };
        self.stages().into_iter().map(|stage| cause(stage).name()).collect()
    }

    /// The attempt or the run, at the deadline.
    pub(crate) fn what_ends(self) -> &'static str {
        what_ends(given_up_as(Some(self.stage()), self.name(), ""))
    }

    /// For one of ours.
    pub(in crate::plan) fn wait(self, message: &str) -> Wait<'_> {
        Wait { stage: self.stage(), deadline: self.deadline(), reason: self.name(), message, to_do: self.what_to_do() }
    }
}

/// The cause of a wait that is given up, by what the object says of it.
pub(in crate::plan) fn given_up_as(stage: Option<WaitStage>, reason: &str, message: &str) -> Cause {
    let Some(stage) = stage else { return Cause::DeadlineExceeded };
    let usual = usual_end(stage, reason, message);
    told_by_the_message(stage, usual, message).unwrap_or(usual)
}

/// The cause by the row of the reason.
fn usual_end(stage: WaitStage, reason: &str, message: &str) -> Cause {
    let of_reason = Reason::with_words(stage, reason, message).and_then(|known| known.row().ends_as);
    of_reason.unwrap_or_else(|| stage.given_up_as())
}

/// Whose container the words of a `LimitRange` are about, which do not say it: added to them.
pub(in crate::plan) const ABOUT_THE_RUN: &str = "that is the run's own container (run)";
/// See [`ABOUT_THE_RUN`].
pub(in crate::plan) const ABOUT_THE_HELPER: &str = "that is the container of the operator's helper (bundle)";

/// The cause where the message says more than the reason, whose cause is `usual`; `None`: it does not.
fn told_by_the_message(stage: WaitStage, usual: Cause, message: &str) -> Option<Cause> {
    let means = stage.source().and_then(|source| meaning(source, message))?;
    Some(match (usual, means) {
        (Cause::ImagePullFailed, Meaning::ImageIsForOtherPlatform) => Cause::ImageForOtherPlatform,
        (Cause::ImagePullFailed, Meaning::ImageIsTooOld) => Cause::ImageTooOld,
        (Cause::ImagePullFailed, Meaning::ImageIsNotSigned) => Cause::ImageNotSigned,
        (Cause::ContainerNotCreated, Meaning::UserIsUnknown) => Cause::UserUnknown,
        (Cause::ContainerNotCreated, Meaning::CudaIsTooNew) => Cause::CudaTooNew,
        (Cause::ContainerNotCreated, Meaning::MemoryIsTooSmall) => Cause::OutOfMemory,
        (Cause::ForbiddenByPolicy, Meaning::PolicyDenies) => Cause::ForbiddenByPolicy,
        (Cause::ForbiddenByPolicy, Meaning::NameIsMissing) => Cause::ForbiddenName,
        (Cause::ForbiddenByPolicy, Meaning::OperatorMayNot) => Cause::ForbiddenToOperator,
        (Cause::ForbiddenByPolicy, Meaning::RuntimeClassIsMissing) => Cause::ForbiddenRuntimeClass,
        (Cause::ForbiddenByPolicy, Meaning::LimitRange) if message.ends_with(ABOUT_THE_RUN) => Cause::LimitRangeOfRun,
        (Cause::ForbiddenByPolicy, Meaning::LimitRange) if message.ends_with(ABOUT_THE_HELPER) => {
            Cause::LimitRangeOfHelper
        }
        (Cause::ForbiddenByPolicy, Meaning::LimitRange) => Cause::ForbiddenByLimitRange,
        (Cause::ForbiddenByPolicy, Meaning::QuotaNeedsLimits) => Cause::ForbiddenByQuota,
        (Cause::ForbiddenByPolicy, Meaning::QuotaIsMissing) => Cause::ForbiddenWithoutQuota,
        _ => return None,
    })
}

/// With this cause.
fn what_ends(cause: Cause) -> &'static str {
    if cause.verdict() == Verdict::Interrupted { "attempt" } else { "run" }
}

/// What `status.waiting.until` says of a wait that may last for ever.
pub(crate) const NO_DEADLINE: &str = "no deadline";

/// What a pod waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wait<'a> {
    /// Decides blame and hint.
    pub stage: WaitStage,
    /// When it is given up.
    pub(crate) deadline: Deadline,
    /// Kubernetes' reason.
    pub reason: &'a str,
    /// Kubernetes' message.
    pub message: &'a str,
    /// In Markdown.
    pub(in crate::plan) to_do: &'static str,
}

impl Wait<'_> {
    /// What to do, for `status.waiting.hint`: what would be told at the end, where the message says more than the reason.
    pub(in crate::plan) fn hint(&self) -> String {
        let usual = usual_end(self.stage, self.reason, self.message);
        let known = told_by_the_message(self.stage, usual, self.message).and_then(Cause::hint);
        let in_time = |hint| format!("{hint}; if that changes before the deadline, the run goes on");
        known.map_or_else(|| plain(self.to_do), in_time)
    }

    /// How long it may last and what follows, for `status.waiting.until`. `is_bound`: it has a deadline that is known.
    pub(in crate::plan) fn until(&self, is_bound: bool) -> String {
        let fixed = self.deadline.fixed();
        let bound = match (self.deadline, &fixed) {
            (_, Some(fixed)) => fixed,
            (Deadline::Staging, _) => "deadlines.staging",
            (Deadline::Absent, _) => "deadlines.configuration",
            _ if is_bound => "the deadline",
            _ => return NO_DEADLINE.to_owned(),
        };
        let cause = given_up_as(Some(self.stage), self.reason, self.message);
        format!("{bound}, then the {} ends: {}", what_ends(cause), cause.name())
    }

    /// Its message says why; an image that is pulled again and again has none in between.
    pub(in crate::plan) fn says_why(&self) -> bool {
        self.stage.source().is_some_and(|source| meaning(source, self.message).is_some())
    }
}

/// Stages of waiting, by who can end them: `waiting.stage` of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WaitStage {
    /// `suspend` is set.
    Suspended,
    /// Runs whose outputs are inputs do not exist or have not ended.
    Inputs,
    /// The last attempt failed, and the next one is not due yet.
    Retry,
    /// The API server refuses the pod: a quota, a policy, a missing service account.
    Admission,
    /// The scheduler may not look at the pod yet.
    Queue,
    /// No node fits yet; may take as long as the queue is.
    Scheduling,
    /// The image cannot be pulled, or not yet.
    Image,
    /// The reference is no image reference: waiting is pointless.
    ImageName,
    /// The same for the helper's image, which is the platform's.
    HelperImage,
    /// The helper does not stay up.
    Helper,
    /// A Secret, `ConfigMap`, key or user that the container needs is missing.
    Config,
    /// The node does not confirm the end of a pod that was deleted.
    Node,
    /// Nothing is wrong, it just takes long: pulling a large image, mounting a slow volume.
    Starting,
    /// Nothing is wrong, the inputs just take long.
    Staging,
    /// Operator and definition are of different versions.
    Version,
}

impl WaitStage {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Suspended,
        Self::Retry,
        Self::Queue,
        Self::Inputs,
        Self::Staging,
        Self::Admission,
        Self::Scheduling,
        Self::Image,
        Self::ImageName,
        Self::HelperImage,
        Self::Helper,
        Self::Node,
        Self::Config,
        Self::Starting,
        Self::Version,
    ];

    /// What `status.waiting.stage` shows.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Suspended => "Suspended",
            Self::Inputs => "Inputs",
            Self::Retry => "Retry",
            Self::Staging => "Staging",
            Self::Admission => "Admission",
            Self::Queue => "Queue",
            Self::Scheduling => "Scheduling",
            Self::Image => "ImagePull",
            Self::ImageName => "ImageName",
            Self::HelperImage => "HelperImagePull",
            Self::Helper => "Helper",
            Self::Node => "Node",
            Self::Config => "Configuration",
            Self::Starting => "Starting",
            Self::Version => "Version",
        }
    }

    pub(in crate::plan) fn deadline(self) -> Deadline {
        match self {
            Self::Suspended
            | Self::Inputs
            | Self::Retry
            | Self::Queue
            | Self::Scheduling
            | Self::Starting
            | Self::Node
            | Self::Version => Deadline::None,
            Self::Staging => Deadline::Staging,
            Self::ImageName => Deadline::AtOnce,
            Self::Image | Self::HelperImage => Deadline::ImagePull,
            Self::Helper | Self::Config | Self::Admission => Deadline::Configuration,
        }
    }

    /// Who says what is in the message.
    pub(in crate::plan) fn source(self) -> Option<Source> {
        match self {
            Self::Admission => Some(Source::Admission),
            Self::Scheduling => Some(Source::Scheduler),
            Self::Image | Self::ImageName | Self::HelperImage => Some(Source::Image),
            Self::Config | Self::Helper => Some(Source::Runtime),
            Self::Suspended
            | Self::Inputs
            | Self::Retry
            | Self::Queue
            | Self::Node
            | Self::Starting
            | Self::Staging
            | Self::Version => None,
        }
    }

    /// The same, of the helper's container.
    pub(in crate::plan) fn of_the_helper(self) -> Option<Self> {
        match self {
            Self::Image | Self::ImageName => Some(Self::HelperImage),
            Self::Config => Some(Self::Helper),
            _ => None,
        }
    }

    /// The cause of a wait that is given up, where its reason has no other.
    pub(in crate::plan) fn given_up_as(self) -> Cause {
        match self {
            Self::Image | Self::ImageName => Cause::ImagePullFailed,
            Self::HelperImage => Cause::HelperImagePullFailed,
            Self::Helper => Cause::HelperFailed,
            Self::Config => Cause::ContainerNotCreated,
            Self::Staging => Cause::StagingFailed,
            Self::Starting => Cause::StartDeadlineExceeded,
            Self::Suspended
            | Self::Inputs
            | Self::Retry
            | Self::Queue
            | Self::Admission
            | Self::Scheduling
            | Self::Node
            | Self::Version => Cause::DeadlineExceeded,
        }
    }
}
