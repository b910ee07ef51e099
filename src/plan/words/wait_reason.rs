//! Every reason that a run can wait for: what is awaited, until when, and what to do. Waits are told by this table, and
//! `docs/endings.md` is generated from it.
//!
//! Texts are Markdown, without a capital at the begin and a full stop at the end.

use super::cause::Cause;
use super::table::table;

/// The setting that says when a wait is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// It may take as long as it takes.
    None,
    /// Waiting is pointless.
    AtOnce,
    ImagePull,
    Configuration,
    /// Kept by the helper in the pod, which ends the attempt: not a deadline of the operator's.
    Staging,
    /// The same, and no setting.
    Store,
}

impl Deadline {
    /// Its name in the settings file.
    pub(crate) fn setting(self) -> Option<&'static str> {
        match self {
            Self::None | Self::AtOnce | Self::Store => None,
            Self::ImagePull => Some("deadlines.imagePull"),
            Self::Configuration => Some("deadlines.configuration"),
            Self::Staging => Some("deadlines.staging"),
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
    awaited: &'static str,
    to_do: &'static str,
}

impl Row {
    const fn new(stage: WaitStage, awaited: &'static str) -> Self {
        Self { stage, deadline: None, names: &[], ends_as: None, awaited, to_do: "" }
    }

    const fn to_do(self, to_do: &'static str) -> Self {
        Self { to_do, ..self }
    }

    const fn of_kubernetes(self, names: &'static [&'static str]) -> Self {
        Self { names, ..self }
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

table! {
    /// Why a run waits: `status.waiting.reason`.
    enum Reason: Row {
        InputMissing: Row::new(WaitStage::Inputs, "runs that are inputs do not exist")
            .to_do("create them, in any order; the message names them"),
        InputNotFinished: Row::new(WaitStage::Inputs, "runs that are inputs have not ended")
            .to_do("nothing: it goes on when they have"),
        QuotaExceeded: Row::new(WaitStage::Admission, "the namespace's quota is used up")
            .to_do("nothing: it goes on when other runs end. Or ask for less")
            .without_deadline(),
        AdmissionUnavailable: Row::new(WaitStage::Admission, "the API server cannot decide: a webhook does not answer")
            .to_do("tell the administrator if it stays")
            .without_deadline(),
        Forbidden: Row::new(WaitStage::Admission, "the API server refuses the pod")
            .to_do("see the cause of this name; what is mended before the deadline lets the run go on")
            .ends_as(Cause::ForbiddenByPolicy),
        PodNameTaken: Row::new(WaitStage::Admission, "a pod of the run's name exists and is not the run's")
            .to_do("delete that pod, or use another name")
            .ends_as(Cause::PodNameTaken),
        PreviousPod: Row::new(WaitStage::Admission, "the pod of an earlier run of this name has not ended: it may still be \
            saving its output")
            .to_do("nothing: the run starts when that pod is gone. The message says how long it may take")
            .without_deadline(),
        Unschedulable: Row::new(WaitStage::Scheduling, "no node has room, or none fits. What else the scheduler says is \
            passed on, too")
            .to_do("wait, or ask for less: the message counts the nodes by reason")
            .of_kubernetes(&["Unschedulable", "SchedulingGated"]),
        NotSeenByScheduler: Row::new(WaitStage::Scheduling, "no scheduler has looked at the pod")
            .to_do("does a scheduler of the name in `schedulerName` run?"),
        InvalidImageName: Row::new(WaitStage::ImageName, "the container runtime does not take the image's name")
            .to_do("correct it in a new run")
            .of_kubernetes(&["InvalidImageName"]),
        ImageNotPulled: Row::new(WaitStage::Image, "the image cannot be pulled, or not yet")
            .to_do("see `ImagePullFailed`; an image that is pushed before the deadline lets the run go on")
            .of_kubernetes(&[
                "ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable",
                "SignatureValidationFailed",
            ]),
        ConfigurationMissing: Row::new(WaitStage::Config, "a Secret, ConfigMap or key of `env` does not exist")
            .to_do("create it before the deadline, and the run goes on")
            .of_kubernetes(&["CreateContainerConfigError"])
            .ends_as(Cause::CreateContainerConfigError),
        ContainerNotCreated: Row::new(WaitStage::Config, "the container runtime refuses to make the container")
            .to_do("see the cause of this name")
            .of_kubernetes(&["CreateContainerError", "RunContainerError", "CrashLoopBackOff"]),
        ContainerCreating: Row::new(WaitStage::Starting, "a large image is being pulled, or a volume is slow to mount")
            .to_do("nothing"),
        StagingInputs: Row::new(WaitStage::Staging, "inputs are being put in place; the message says how far")
            .to_do("nothing"),
        StoreRefused: Row::new(WaitStage::Staging, "the store refuses the output; the command has not started")
            .to_do("tell the administrator: the store's login in this namespace, its repository or its certificate is \
                not in order. The command starts when the store accepts")
            .until(Deadline::Store)
            .ends_as(Cause::StoreRefused),
        NodeNotResponding: Row::new(WaitStage::Node, "the node does not confirm that the pod has ended: the command may \
            still run there")
            .to_do("tell the administrator: it goes on when the node is back, or when its Node object is deleted"),
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

    /// The reason of a container that waits.
    pub(in crate::plan) fn of_the_kubelet(reason: &str) -> Option<Self> {
        let of_a_container =
            |r: &&Self| matches!(r.stage(), WaitStage::Image | WaitStage::ImageName | WaitStage::Config);
        Self::ALL.iter().filter(of_a_container).find(|r| r.row().names.contains(&reason)).copied()
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
        let of_the_helper = stage.of_the_helper().filter(|other| other.deadline() == stage.deadline());
        [stage].into_iter().chain(of_the_helper).collect()
    }

    /// The cause of the run's end at the deadline, or of the attempt's, for each of its stages; empty: there is no
    /// deadline.
    pub(crate) fn given_up_as(self) -> Vec<&'static str> {
        if self.deadline() == Deadline::None {
            return Vec::new();
        }
        self.stages().into_iter().map(|stage| given_up_as(Some(stage), self.name()).name()).collect()
    }

    /// For one of ours.
    pub(in crate::plan) fn wait(self, message: &str) -> Wait<'_> {
        Wait { stage: self.stage(), reason: self.name(), message }
    }
}

/// The cause of a wait that is given up, by what the object says of it.
pub(in crate::plan) fn given_up_as(stage: Option<WaitStage>, reason: &str) -> Cause {
    let of_reason = Reason::ALL.iter().find(|known| Some(known.stage()) == stage && known.names().contains(&reason));
    let of_stage = || stage.map_or(Cause::DeadlineExceeded, WaitStage::given_up_as);
    of_reason.and_then(|known| known.row().ends_as).unwrap_or_else(of_stage)
}

/// What a pod waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wait<'a> {
    /// Decides deadline, blame and hint.
    pub stage: WaitStage,
    /// Kubernetes' reason.
    pub reason: &'a str,
    /// Kubernetes' message.
    pub message: &'a str,
}

/// Stages of waiting, by who can end them: `waiting.stage` of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WaitStage {
    /// Runs whose outputs are inputs do not exist or have not ended.
    Inputs,
    /// The API server refuses the pod: a quota, a policy, a missing service account.
    Admission,
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
}

impl WaitStage {
    /// All of them.
    pub const ALL: [Self; 11] = [
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
    ];

    /// What `status.waiting.stage` shows.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Inputs => "Inputs",
            Self::Staging => "Staging",
            Self::Admission => "Admission",
            Self::Scheduling => "Scheduling",
            Self::Image => "ImagePull",
            Self::ImageName => "ImageName",
            Self::HelperImage => "HelperImagePull",
            Self::Helper => "Helper",
            Self::Node => "Node",
            Self::Config => "Configuration",
            Self::Starting => "Starting",
        }
    }

    pub(in crate::plan) fn deadline(self) -> Deadline {
        match self {
            Self::Inputs | Self::Scheduling | Self::Starting | Self::Node => Deadline::None,
            Self::Staging => Deadline::Staging,
            Self::ImageName => Deadline::AtOnce,
            Self::Image | Self::HelperImage => Deadline::ImagePull,
            Self::Helper | Self::Config | Self::Admission => Deadline::Configuration,
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
            Self::Inputs | Self::Admission | Self::Scheduling | Self::Node | Self::Starting => Cause::DeadlineExceeded,
        }
    }
}
