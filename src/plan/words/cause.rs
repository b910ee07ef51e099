//! Every cause that a run can end with: what it means, whose matter it is, and what to do. Outcomes are made from this
//! table, the label of metrics has its names, and `docs/endings.md` is generated from it.
//!
//! Texts are Markdown, without a capital at the begin and a full stop at the end.

use super::table::{plain, table};
use crate::api::status::Blame;
use crate::contract;

/// What follows from an ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The command ended by itself with exit code 0 and the helper reported.
    Succeeded,
    /// The run's own doing, or nothing that another attempt would mend.
    Failed,
    /// The platform's doing: another attempt is due if any is left.
    Interrupted,
    /// Ended because `stop` was set.
    Stopped,
}

impl Verdict {
    /// As metrics have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Interrupted => "Interrupted",
            Self::Stopped => "Stopped",
        }
    }
}

/// What an ending is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Wanted,
    Image,
    Command,
    Request,
    Inputs,
    Output,
    Record,
    Operator,
    Platform,
}

impl Subject {
    /// For people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Wanted => "As wanted",
            Self::Image => "The image",
            Self::Command => "The command",
            Self::Request => "What was asked for",
            Self::Inputs => "Inputs",
            Self::Output => "The output",
            Self::Record => "The record",
            Self::Operator => "The operator",
            Self::Platform => "The platform: tried again",
        }
    }
}

#[derive(Clone, Copy)]
struct Row {
    subject: Subject,
    verdict: Verdict,
    blame: Option<Blame>,
    /// What is on the object; empty: the variant's name.
    names: &'static [&'static str],
    means: &'static str,
    /// Is on the object.
    hint: Option<&'static str>,
    /// What else there is to say of what to do; in the document only.
    more: &'static str,
    of_the_node: bool,
    before_the_command: bool,
}

impl Row {
    const fn new(subject: Subject, verdict: Verdict, blame: Option<Blame>, means: &'static str) -> Self {
        let (hint, more) = (None, "");
        Self { subject, verdict, blame, names: &[], means, hint, more, of_the_node: false, before_the_command: false }
    }

    const fn failed(subject: Subject, blame: Blame, means: &'static str) -> Self {
        Self::new(subject, Verdict::Failed, Some(blame), means)
    }

    const fn user(subject: Subject, means: &'static str) -> Self {
        Self::failed(subject, Blame::User, means)
    }

    const fn interrupted(means: &'static str) -> Self {
        Self::new(Subject::Platform, Verdict::Interrupted, Some(Blame::Platform), means)
    }

    const fn hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }

    const fn more(self, more: &'static str) -> Self {
        Self { more, ..self }
    }

    const fn told_as(self, names: &'static [&'static str]) -> Self {
        Self { names, ..self }
    }

    /// The next attempt would likely meet it again on the same node, while the scheduler knows nothing of it.
    const fn of_the_node(self) -> Self {
        Self { of_the_node: true, ..self }
    }

    /// The container ran, and the command did not.
    const fn before_the_command(self) -> Self {
        Self { before_the_command: true, ..self }
    }
}

use Subject::{Command, Image, Inputs, Operator, Output, Record, Request, Wanted};

const IMAGE_PULL_FAILED: &[&str] = &["ImagePullFailed"];
const CONTAINER_CANNOT_START: &[&str] = &["ContainerCannotStart"];
const CREATE_CONTAINER_ERROR: &[&str] = &["CreateContainerError", "RunContainerError", "CrashLoopBackOff"];
const CREATE_CONTAINER_CONFIG_ERROR: &[&str] = &["CreateContainerConfigError"];
const COMMAND_FAILED: &[&str] = &["CommandFailed"];
const COMMAND_KILLED: &[&str] = &["CommandKilled"];
/// `/dev/shm` counts as memory: one is no use without the other.
const MORE_SHARED_MEMORY: &str = "raise `resources.sharedMemory`, and `resources.memory` with it, in a new run: \
    `/dev/shm` was full, or a mapped file was cut";
const POD_INVALID: &[&str] = &["PodInvalid"];
const FORBIDDEN: &[&str] = &["Forbidden"];
const POD_SECURITY: &[&str] = &["PodSecurity"];
const OUTPUT_NOT_SAVED: &[&str] = &["OutputNotSaved"];

table! {
    /// Why a run, or one of its attempts, ended. Several may have one name on the object, where blame or hint differ.
    enum Cause: Row {
        Completed: Row::new(Wanted, Verdict::Succeeded, None, "the command exited with 0")
            .more("nothing. A warning about `.bashrc` may stand in the message"),
        SavedInPart: Row::new(Wanted, Verdict::Succeeded, None, "the command exited with 0, and its output lacks files \
            that could not be read, or kept changing")
            .hint("the condition `OutputSaved` names what is missing: make it readable, and end what writes to it, \
                before the command ends")
            .more("Runs that have this one as an input take what is there"),
        Stopped: Row::new(Wanted, Verdict::Stopped, None, "`stop` was set").more("nothing. What was there is saved"),
        Suspended: Row::new(Wanted, Verdict::Interrupted, None, "`suspend` was set")
            .more("nothing. What was there is saved; another attempt follows when `suspend` is taken back, and none of \
                `retry` is used up"),

        ImagePullFailed: Row::user(Image, "the registry refused the image, or has no such name, \
            until the deadline")
            .hint("check the image's name and tag, that the cluster can reach its registry, and `imagePullSecrets`")
            .more("The registry's answer is in the message. *not found*: name, tag, or no right to see it"),
        RegistryUnknown: Row::user(Image, "there is no host of the registry's name (*no such host*), until the deadline")
            .told_as(IMAGE_PULL_FAILED)
            .hint("correct the name of the registry, which may be misspelt, in a new run; if it is right, tell the \
                administrator that the nodes' name service does not know it")
            .more("A name service that does not answer is no such case: it is waited for, without a deadline"),
        ImageForOtherPlatform: Row::user(Image, "the registry has the image, but not for this node (*no match for \
            platform*)")
            .told_as(IMAGE_PULL_FAILED)
            .hint("the image is not built for the node's architecture: build it for that, or choose a `nodeSelector` \
                that fits it"),
        ImageTooOld: Row::user(Image, "the image has a format that container runtimes no longer take (Docker's *schema 1*)")
            .told_as(IMAGE_PULL_FAILED)
            .hint("build the image again, or copy it with a current tool, under another tag"),
        ImageNotSigned: Row::failed(Image, Blame::Policy, "the nodes take only images with a signature that they know")
            .told_as(IMAGE_PULL_FAILED)
            .hint("a policy of the nodes refuses the image: have it signed, or ask the administrator"),
        ContainerCannotStart: Row::user(Image, "the container runtime refused to start the container")
            .hint("the message is the container runtime's: the image's WORKDIR and the places of mounts must be \
                directories"),
        CudaTooNew: Row::user(Image, "the image wants a newer CUDA than the driver has (*unsatisfied \
            condition: cuda>=...*)")
            .told_as(CONTAINER_CANNOT_START)
            .hint("the image needs a newer GPU driver than the node has: choose an image with an older CUDA"),
        ContainerNotCreated: Row::user(Image, "the container runtime refused to make the container of this image, until the \
            deadline")
            .told_as(CREATE_CONTAINER_ERROR)
            .hint("the message is the container runtime's: the image must allow the requested user and mounts"),
        UserUnknown: Row::user(Image, "the image's USER is a name that its `/etc/passwd` does not have")
            .told_as(CREATE_CONTAINER_ERROR)
            .hint("set `runAsUser` in a new run, or give the image a USER by number"),
        RootForbidden: Row::user(Image, "the pod must not run as root, and the image's USER is root, or a name that may be")
            .told_as(CREATE_CONTAINER_CONFIG_ERROR)
            .hint("set `runAsUser` to another user than 0, such as 1000, in a new run"),
        NoShell: Row::user(Image, "the image has no shell that starts")
            .hint("use `argv` instead of `command`")
            .more("Or put a shell into the image that is built for the nodes' architecture and has its loader and \
                libraries"),
        BashrcEndedShell: Row::user(Image, "the image's `.bashrc` ended the shell before the command began")
            .hint("take `exit`, and what fails under `set -e`, out of the `.bashrc` in the image's WORKDIR")
            .more("`return` is fine"),
        CommandNotFound: Row::user(Image, "the program is not in the image")
            .hint("check `argv` and the image's `PATH`")
            .more("Or give the program's whole path"),
        CommandNotExecutable: Row::user(Image, "the program cannot be executed")
            .hint("check its mode, its interpreter and that it is built for this machine")
            .more("The interpreter is what `#!` names, or the loader of a binary"),

        CommandFailed: Row::user(Command, "the command exited with another code than 0")
            .hint("see `status.output.stderrTail` and `kubectl logs`")
            .more("The code is in `status.exitCode`. 127 from a shell: a program is not in the image; 126: it cannot \
                be executed"),
        CommandKilled: Row::user(Command, "a signal ended the command")
            .hint("a signal nobody in the platform sent: a crash of the program, or the command's own doing")
            .more("Its number is in `status.signal`. 11, 6 and 4 are crashes; 4: built for a newer CPU than the \
                node's"),
        BusError: Row::user(Command, "the same, by signal 7 (SIGBUS): memory that could not be had behind a file, \
            mostly one in a full `/dev/shm`")
            .told_as(COMMAND_KILLED)
            .hint(MORE_SHARED_MEMORY)
            .more("PyTorch's data loaders exchange their batches there. The other way to such an end: a mapped file \
                that was cut or whose disk failed"),
        BusErrorOfChild: Row::user(Command, "the command exited with 135, which is what a shell says of a program \
            that signal 7 (SIGBUS) ended")
            .told_as(COMMAND_FAILED)
            .hint(MORE_SHARED_MEMORY),
        SharedMemoryFull: Row::user(Command, "the command exited with another code than 0, and its \
            standard error says that `/dev/shm` is full")
            .told_as(COMMAND_FAILED)
            .hint(MORE_SHARED_MEMORY),
        OutOfMemory: Row::user(Command, "the kernel killed a process of the run because `resources.memory` was used up")
            .hint("raise `resources.memory` in a new run, or use less; files in `/dev/shm` count"),
        TimeLimitExceeded: Row::user(Command, "the command ran longer than `timeLimit`")
            .hint("raise `timeLimit` in a new run, or make the command save its progress on a claim"),
        TimeLimitExceededAndSaved: Row::user(Command, "the same, and the output is saved")
            .told_as(&["TimeLimitExceeded"])
            .hint("raise `timeLimit` in a new run, which can go on from what is saved: it may have this run as an input, with \
                `allowFailedInputs`"),
        DiskLimitExceeded: Row::user(Command, "the working directory, or the caches, grew over `resources.disk`")
            .hint("raise `resources.disk` in a new run, or write less"),
        EmptyDirLimitExceeded: Row::user(Command, "the working directory grew so fast that the kubelet ended the pod: \
            nothing is saved")
            .hint("raise `resources.disk` (or `sharedMemory`) in a new run, or write less"),
        EphemeralStorageLimitExceeded: Row::user(Command, "more was written outside the working directory than the \
            namespace allows")
            .hint("a LimitRange of the namespace sets this limit: write less outside the working directory, such as to \
                `/tmp`"),

        InvalidSpec: Row::user(Request, "the run asks for more than a setting allows (`maxStopGrace`), or for what the \
            settings do not have, or it was stored under other rules")
            .hint("apply the run again under another name, with these fields corrected")
            .more("The message names the fields"),
        SettingsChanged: Row::failed(Request, Blame::Platform, "a setting was changed while the run waited or between two of \
            its attempts, and does not allow what the run asks for")
            .hint("ask the administrator why the setting was changed, or make the run anew with what there is now"),
        PodInvalid: Row::user(Request, "the API server does not take the pod")
            .hint("correct the field the message names, in a new run"),
        PodMadeInvalid: Row::failed(Request, Blame::Platform, "the same, until the deadline, for a field that the run does \
            not set")
            .told_as(POD_INVALID)
            .hint("tell the administrator: a mutating webhook or policy, or the operator's settings, put an \
                invalid field into the pod")
            .more("The message names the field, and says where it was changed after the operator made it"),
        PodSecurity: Row::failed(Request, Blame::Policy, "the namespace's Pod Security level refuses the pod")
            .hint("set `runAsUser`, such as 1000, in a new run: the pod then fits the restricted Pod Security level"),
        PodSecurityOfRoot: Row::failed(Request, Blame::Policy, "the same, of a run with `runAsUser: 0`")
            .told_as(POD_SECURITY)
            .hint("set `runAsUser` to another user than 0, such as 1000, in a new run"),
        PodSecurityOfDriver: Row::failed(Request, Blame::Policy, "the same, of a GPU profile that mounts the driver from the host")
            .told_as(POD_SECURITY)
            .hint("the GPU profile mounts the host's driver: run in a namespace at the privileged Pod Security level, \
                or ask \
                the administrator for a profile with `driver: runtime`"),
        ForbiddenByPolicy: Row::failed(Request, Blame::Policy, "a policy of the cluster refused the pod, until the \
            deadline")
            .told_as(FORBIDDEN)
            .hint("a policy of the cluster refuses the pod: the message says which; ask the administrator"),
        ForbiddenByLimitRange: Row::failed(Request, Blame::Policy, "a LimitRange of the namespace refused the pod, until \
            the deadline; whose container it is about is not clear")
            .told_as(FORBIDDEN)
            .hint("if the message is about your run's container (`run`), change `resources` in a new run; if it is about the \
                helper's (`bundle`), tell the administrator: `helper.resources` of the operator's settings, or the \
                LimitRange, has to change"),
        LimitRangeOfRun: Row::failed(Request, Blame::Policy, "the same, about the run's container (`run`)")
            .told_as(FORBIDDEN)
            .hint("change `resources` in a new run, or ask the administrator of the LimitRange"),
        LimitRangeOfHelper: Row::failed(Request, Blame::Policy, "the same, about the helper's container (`bundle`)")
            .told_as(FORBIDDEN)
            .hint("tell the administrator: `helper.resources` of the operator's settings, or the LimitRange, has to change"),
        ForbiddenByQuota: Row::failed(Request, Blame::Quota, "a quota of the namespace counts limits that the pod does \
            not set")
            .told_as(FORBIDDEN)
            .hint("the helper container (`bundle`) has no CPU limit: tell the administrator, whose settings can give it one \
                (`helper.resources.limits.cpu`, or `qos: Guaranteed`); so can a LimitRange of the namespace with a default"),
        ForbiddenWithoutQuota: Row::failed(Request, Blame::Quota, "the cluster takes such a pod only where a quota of the \
            namespace is for it (*insufficient quota to match these scopes*)")
            .told_as(FORBIDDEN)
            .hint("the message says of which pods it is, mostly those of a priority class: name another \
                `priorityClassName` in a new run, or ask the administrator for a quota"),
        ForbiddenName: Row::user(Request, "the service account or the priority class does not exist")
            .told_as(FORBIDDEN)
            .hint("create what the message names, or name another, in a new run"),
        ForbiddenRuntimeClass: Row::failed(Request, Blame::Platform, "the runtime class does not exist")
            .told_as(FORBIDDEN)
            .hint("the GPU profile names a runtime class that the cluster does not have: tell the administrator"),
        ForbiddenToOperator: Row::failed(Request, Blame::Platform, "the operator lacks a right")
            .told_as(FORBIDDEN)
            .hint("the operator may not create pods in this namespace: tell the administrator"),
        CreateContainerConfigError: Row::user(Request, "something that the container needs does not exist")
            .hint("create the Secret, ConfigMap or claim that is missing, or name another, in a new run")
            .more("The message names it, or a key that it lacks"),
        PodNameTaken: Row::failed(Request, Blame::Platform, "a pod of the run's name exists and is not the run's")
            .hint("delete that pod, or use another name"),

        InputFailed: Row::user(Inputs, "a run that is an input failed or was stopped")
            .hint("mend that run and create both under new names, or set `allowFailedInputs` to take what it left")
            .more("The message names it and its cause, and the blame is that of its end. With `onInputFailure: Wait` a run \
                waits instead, for one made anew under that name"),
        InputNotSaved: Row::failed(Inputs, Blame::Platform, "a run that is an input has ended, but its output was not \
            saved")
            .hint("see the condition `OutputSaved` of that run; without a store no run can use another's output")
            .more("The blame is that of its end, if it did not succeed"),
        InputCycle: Row::user(Inputs, "runs wait for each other")
            .hint("take one of the inputs out of the ring, in a new run"),
        InputNotFound: Row::user(Inputs, "an input does not exist")
            .hint("check the input's source, in a new run")
            .more("The message names the input: its image, tag or address, a path in it, a Secret, a ConfigMap or a \
                key"),
        InputDenied: Row::user(Inputs, "an input may not be read")
            .hint("name a Secret with credentials for the registry in `imagePullSecrets`, in a new run")
            .more("Or correct what the Secret holds"),
        InputUnreachable: Row::user(Inputs, "there is no host of the name that an input's address has, or its certificate \
            is not trusted")
            .hint("check the address in the input's source; an authority that signed the certificate is the \
                administrator's to add")
            .more("The message says which. Of a `run` whose output is an input it is the platform's: `StoreRefused`"),
        InputInvalid: Row::user(Inputs, "an input is not what it should be")
            .hint("check the input's source, and what wrote it")
            .more("Another checksum, no image, a broken archive, or with path `.` an entry whose name is taken: the \
                message says which"),
        InputTooLarge: Row::user(Inputs, "an input is too large")
            .hint("raise `resources.disk` in a new run, or take a part of the input with `path`")
            .more("All inputs together may have as many bytes as `resources.disk`; it may also have too many files"),
        InputChanged: Row::user(Inputs, "an input is not what the first attempt had")
            .hint("a ConfigMap was changed while the run was not finished: start a new run for the new content")
            .more("An immutable ConfigMap cannot change"),

        OutputDamaged: Row::failed(Output, Blame::Platform, "the command exited with 0, and the node could not read a \
            part of its output, in several tries")
            .hint("the rest is saved, and the condition `OutputSaved` names what is missing: tell the administrator of \
                the node's disk, then run it again under another name")
            .more("`status.output.bundle` has the rest"),
        OutputTooLarge: Row::user(Output, "the command exited with 0, and its output is larger than the store takes \
            (`OutputTooLarge`)")
            .told_as(OUTPUT_NOT_SAVED)
            .hint("write less, or leave files out with `outputs.exclude`, in a new run"),
        StoreQuotaExceeded: Row::failed(Output, Blame::Quota, "the same, and the registry's quota is used up \
            (`StoreQuotaExceeded`)")
            .told_as(OUTPUT_NOT_SAVED)
            .hint("the registry's quota is used up: ask the administrator"),
        StoreDenied: Row::failed(Output, Blame::Platform, "the same, and the registry does not let us write \
            (`StoreDenied`)")
            .told_as(OUTPUT_NOT_SAVED)
            .hint("the credentials of the store in this namespace are not valid: ask the administrator"),
        SaveDeadlineExceeded: Row::failed(Output, Blame::Platform, "the same, and there was more to save than time for \
            it (`SaveDeadlineExceeded`)")
            .told_as(OUTPUT_NOT_SAVED)
            .hint("saving took longer than the administrator allows: write less, or ask for more time"),
        StoreNotInOrder: Row::failed(Output, Blame::Platform, "the same, and the registry is not there, does not \
            answer, or wrongly, or saving itself failed (`StoreNotFound`, `StoreUnreachable`, `StoreTls`, \
            `StoreCorrupt`, `HelperFailed`)")
            .told_as(OUTPUT_NOT_SAVED)
            .hint("the store is not in order: tell the administrator, then run it again under another name"),
        HelperGone: Row::failed(Output, Blame::Platform, "the same, and the helper ended before the output was saved \
            (`HelperFailed`)")
            .told_as(OUTPUT_NOT_SAVED)
            .hint("run it again under another name"),

        RecordContradicted: Row::user(Record, "the record in the pod says another exit code than the kubelet saw")
            .hint("the command must leave `/.bundlerun` alone"),
        RecordUnreadable: Row::user(Record, "the record in the pod is damaged")
            .hint("the command must leave `/.bundlerun` alone"),
        RecordMissing: Row::user(Record, "the runner's record is not there")
            .hint("the command must leave `/.bundlerun` alone; if it does, the node's disk is at fault: run it again"),

        HelperImagePullFailed: Row::failed(Operator, Blame::Platform, "the operator's own image could not be pulled \
            before the deadline")
            .hint("the operator's own image cannot be pulled on this node: tell the administrator"),
        HelperFailed: Row::failed(Operator, Blame::Platform, "the operator's own container did not start before the \
            deadline")
            .hint("the operator's own container does not start on this node: tell the administrator"),
        DeadlineExceeded: Row::failed(Operator, Blame::Platform, "another version of the operator gave the wait a \
            deadline")
            .hint("read the message, and tell the administrator if it stays"),

        InputNotMounted: Row::interrupted("the node could not mount the output of a run that is an input")
            .hint("the next attempt copies it; the administrator can set `imageVolumes: never`"),
        StartDeadlineExceeded: Row::interrupted("the node did not start the container before the deadline")
            .hint("`kubectl describe pod` showed why as long as the pod was there: a network that is not set up, or an \
                image that is too large for `deadlines.starting`")
            .of_the_node(),
        VolumeNotMounted: Row::interrupted("the node could not attach or mount a volume of the pod before the deadline")
            .hint("the message is that of the node or of the storage: check the claim and its volume, or tell the \
                administrator of the storage")
            .of_the_node(),
        ImageNotPulled: Row::interrupted("the image could not be pulled before the deadline, for a reason that need not \
            be the image's")
            .hint("the message is the node's and the registry's: tell the administrator")
            .of_the_node(),
        GpuUnavailable: Row::interrupted("the GPUs are not usable in the container")
            .hint("the node's GPU driver or the GPU profile is not in order: tell the administrator")
            .more("The next attempt prefers another node")
            .of_the_node()
            .before_the_command(),
        NodeOutOfMemory: Row::interrupted("the node, not the run, ran out of memory")
            .hint("tell the administrator if it stays"),
        PodDeleted: Row::interrupted("the pod was deleted while the run was not finished")
            .hint("to end a run and keep what is there, set `stop`; if nobody of yours deleted the pod, ask the administrator")
            .more("A pod that had no node yet is made again, and costs no attempt"),
        PodGone: Row::interrupted("the pod disappeared before its ending could be recorded")
            .hint("tell the administrator if it stays"),
        AskedToStop: Row::interrupted("the pod was told to stop, and Kubernetes does not say why")
            .hint("save progress on a claim if it happens often"),
        Disrupted: Row::interrupted("Kubernetes ended the pod or never ran it: a drain, a preemption, a node that is \
            lost, full or shut down. Any other reason that it gives is passed on, too")
            .told_as(&[
                "Disrupted", "Evicted", "EvictionByEvictionAPI", "PreemptionByScheduler", "Preempting",
                "DeletionByTaintManager", "DeletionByDeviceTaintManager", "DeletionByPodGC", "TerminationByKubelet",
                "Terminated", "NodeShutdown", "Shutdown", "NodeAffinity",
                "OutOfcpu", "OutOfmemory", "OutOfpods",
            ])
            .hint("save progress on a claim if it happens often"),
        NotAdmitted: Row::interrupted("the node's kubelet did not take the pod, as when its device plugin is down")
            .told_as(&[
                "UnexpectedAdmissionError", "TopologyAffinityError", "SMTAlignmentError", "InvalidNodeInfo", "AppArmor",
            ])
            .hint("tell the administrator if it stays: the node does not take pods as they have to be")
            .more("The next attempt prefers another node")
            .of_the_node(),
        NodeHung: Row::interrupted("a process of the run, or of the helper, hangs in the node's kernel and cannot be \
            killed")
            .hint("it keeps its memory and its GPUs until the node is rebooted: tell the administrator")
            .more("A disk, a network file system or a GPU driver gives it no answer; the message names the process. \
                What could be read of the output is saved. The next attempt prefers another node")
            .of_the_node(),
        NodeLost: Row::interrupted("the node was silent for longer than the administrator waits (`nodeLost.giveUpAfter`)")
            .hint("tell the administrator: the command of that attempt may still run on the node")
            .more("The next attempt runs on another node"),
        NeverStarted: Row::interrupted("the run container ended before it began, or the node could not make it")
            .hint("tell the administrator if it stays: the node does not start the container")
            .more("The next attempt prefers another node")
            .of_the_node(),
        RunnerDied: Row::interrupted("the run container was killed from outside")
            .hint("tell the administrator if it stays"),
        HelperDied: Row::interrupted("the helper container left no report").hint("tell the administrator if it stays"),
        StartedTwice: Row::interrupted("Kubernetes started the container a second time")
            .hint("tell the administrator if it stays")
            .more("The command was not started again"),
        RequestUnreadable: Row::interrupted("the request did not reach the container")
            .hint("tell the administrator if it stays"),
        RunnerFailed: Row::interrupted("the runner could not do its work").hint("tell the administrator if it stays"),
        StagingFailed: Row::interrupted("the inputs could not be put in place")
            .hint("the message says why: see that the server or the registry that it names runs and that pods can reach it, \
                or tell the administrator")
            .more("Of who gives no answer it is said after ten minutes; else a disk is full, or `deadlines.staging` has \
                passed")
            .of_the_node()
            .before_the_command(),
        StoreRefused: Row::interrupted("the store refused the output, or an input that is in it, before the command had \
            started, for two minutes")
            .hint("the store's login in this namespace, its repository or its certificate is not in order: tell the \
                administrator")
            .more("The message says which (`StoreDenied`, `StoreNotFound`, `StoreTls`). The command has not run: its \
                output would have been lost")
            .before_the_command(),
        Unknown: Row::interrupted("the pod ended without any report of the command")
            .hint("tell the administrator if it stays"),
    }
}

impl Cause {
    /// What is on the object; where Kubernetes' own reason is, the first of those known.
    pub(crate) fn name(self) -> &'static str {
        self.names().first().copied().unwrap_or_else(|| self.variant())
    }

    /// All that can be on the object, as far as it is known.
    pub(crate) fn names(self) -> Vec<&'static str> {
        match self.row().names {
            [] => vec![self.variant()],
            names => names.to_vec(),
        }
    }

    /// A cause of this name.
    pub(crate) fn named(name: &str) -> Option<(Self, &'static str)> {
        let found = |cause: &Self| cause.names().into_iter().find(|known| *known == name).map(|name| (*cause, name));
        Self::ALL.iter().find_map(found)
    }

    /// What the runner or the helper has told.
    pub(in crate::plan) fn seen_in_the_pod(cause: contract::Cause) -> Self {
        use contract::Cause as Seen;
        match cause {
            Seen::TimeLimitExceeded => Self::TimeLimitExceeded,
            Seen::DiskLimitExceeded => Self::DiskLimitExceeded,
            Seen::BashrcEndedShell => Self::BashrcEndedShell,
            Seen::NoShell => Self::NoShell,
            Seen::CommandNotFound => Self::CommandNotFound,
            Seen::CommandNotExecutable => Self::CommandNotExecutable,
            Seen::StartedTwice => Self::StartedTwice,
            Seen::RequestUnreadable => Self::RequestUnreadable,
            Seen::RunnerFailed => Self::RunnerFailed,
            Seen::StagingFailed => Self::StagingFailed,
            Seen::StoreRefused => Self::StoreRefused,
            Seen::InputNotFound => Self::InputNotFound,
            Seen::InputDenied => Self::InputDenied,
            Seen::InputUnreachable => Self::InputUnreachable,
            Seen::InputInvalid => Self::InputInvalid,
            Seen::InputTooLarge => Self::InputTooLarge,
            Seen::InputChanged => Self::InputChanged,
            Seen::GpuUnavailable => Self::GpuUnavailable,
        }
    }

    /// Kubernetes ended a pod, or did not take it, for a reason of its own.
    pub(in crate::plan) fn of_kubernetes(reason: &str) -> Self {
        if Self::NotAdmitted.names().contains(&reason) { Self::NotAdmitted } else { Self::Disrupted }
    }

    pub(crate) fn subject(self) -> Subject {
        self.row().subject
    }

    pub(crate) fn verdict(self) -> Verdict {
        self.row().verdict
    }

    pub(crate) fn blame(self) -> Option<Blame> {
        self.row().blame
    }

    /// In Markdown.
    pub(crate) fn means(self) -> &'static str {
        self.row().means
    }

    /// As it begins the message.
    pub(in crate::plan) fn words(self) -> String {
        plain(self.means())
    }

    /// As it is on the object.
    pub(in crate::plan) fn hint(self) -> Option<String> {
        self.row().hint.map(plain)
    }

    /// The hint and what else there is to say, in Markdown.
    pub(crate) fn what_to_do(self) -> [&'static str; 2] {
        let Row { hint, more, .. } = self.row();
        [hint.unwrap_or_default(), more]
    }

    /// The container ran, and the command did not: what stood in its way may still be there.
    pub(in crate::plan) fn is_before_the_command(self) -> bool {
        self.row().before_the_command
    }

    /// The next attempt had better be on another node.
    pub(in crate::plan) fn is_of_the_node(self) -> bool {
        self.row().of_the_node
    }
}
