//! Every reason that a run can wait for: what is awaited, until when, and what to do. Waits are told by this table, and
//! `docs/endings.md` is generated from it.
//!
//! Texts are Markdown, without a capital at the begin and a full stop at the end.

use std::time::Duration;

use super::table::table;
use crate::api::status::Waiting;
use crate::plan::facts::pod::{Wait, WaitKind};
use crate::plan::facts::settings::Settings;
use crate::plan::outcome::gave_up;
use crate::plan::words::cause::Cause;

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
    /// How long the operator waits.
    fn after(self, settings: &Settings) -> Option<Duration> {
        match self {
            Self::None | Self::Staging | Self::Store => None,
            Self::AtOnce => Some(Duration::ZERO),
            Self::ImagePull => Some(settings.image_deadline),
            Self::Configuration => Some(settings.config_deadline),
        }
    }

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
    kind: WaitKind,
    /// Only where the kind's is not right.
    deadline: Option<Deadline>,
    /// Reasons of Kubernetes; empty: it is ours, and the variant's name.
    names: &'static [&'static str],
    awaited: &'static str,
    to_do: &'static str,
}

impl Row {
    const fn new(kind: WaitKind, awaited: &'static str) -> Self {
        Self { kind, deadline: None, names: &[], awaited, to_do: "" }
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

    const fn without_deadline(self) -> Self {
        self.until(Deadline::None)
    }
}

table! {
    /// Why a run waits: `status.waiting.reason`.
    enum Reason: Row {
        InputMissing: Row::new(WaitKind::Inputs, "runs that are inputs do not exist")
            .to_do("create them, in any order; the message names them"),
        InputNotFinished: Row::new(WaitKind::Inputs, "runs that are inputs have not ended")
            .to_do("nothing: it goes on when they have"),
        QuotaExceeded: Row::new(WaitKind::Admission, "the namespace's quota is used up")
            .to_do("nothing: it goes on when other runs end. Or ask for less")
            .without_deadline(),
        AdmissionUnavailable: Row::new(WaitKind::Admission, "the API server cannot decide: a webhook does not answer")
            .to_do("tell the administrator if it stays")
            .without_deadline(),
        Forbidden: Row::new(WaitKind::Admission, "the API server refuses the pod")
            .to_do("see the cause of this name; what is mended before the deadline lets the run go on"),
        PodNameTaken: Row::new(WaitKind::Admission, "a pod of the run's name exists and is not the run's")
            .to_do("delete that pod, or use another name"),
        Unschedulable: Row::new(WaitKind::Scheduling, "no node has room, or none fits. What else the scheduler says is \
            passed on, too")
            .to_do("wait, or ask for less: the message counts the nodes by reason")
            .of_kubernetes(&["Unschedulable", "SchedulingGated"]),
        NotSeenByScheduler: Row::new(WaitKind::Scheduling, "no scheduler has looked at the pod")
            .to_do("does a scheduler of the name in `schedulerName` run?"),
        InvalidImageName: Row::new(WaitKind::ImageName, "the container runtime does not take the image's name")
            .to_do("correct it in a new run")
            .of_kubernetes(&["InvalidImageName"]),
        ImageNotPulled: Row::new(WaitKind::Image, "the image cannot be pulled, or not yet")
            .to_do("see `ImagePullFailed`; an image that is pushed before the deadline lets the run go on")
            .of_kubernetes(&[
                "ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable",
                "SignatureValidationFailed",
            ]),
        ConfigurationMissing: Row::new(WaitKind::Config, "a Secret, ConfigMap or key of `env` does not exist")
            .to_do("create it before the deadline, and the run goes on")
            .of_kubernetes(&["CreateContainerConfigError"]),
        ContainerNotCreated: Row::new(WaitKind::Config, "the container runtime refuses to make the container")
            .to_do("see the cause of this name")
            .of_kubernetes(&["CreateContainerError", "RunContainerError", "CrashLoopBackOff"]),
        ContainerCreating: Row::new(WaitKind::Starting, "a large image is being pulled, or a volume is slow to mount")
            .to_do("nothing"),
        StagingInputs: Row::new(WaitKind::Staging, "inputs are being put in place; the message says how far")
            .to_do("nothing"),
        StoreRefused: Row::new(WaitKind::Staging, "the store refuses the output; the command has not started")
            .to_do("tell the administrator: the store's login in this namespace, its repository or its certificate is \
                not in order. The command starts when the store accepts")
            .until(Deadline::Store),
        NodeNotResponding: Row::new(WaitKind::Node, "the node does not confirm that the pod has ended: the command may \
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
        let of_a_container = |r: &&Self| matches!(r.kind(), WaitKind::Image | WaitKind::ImageName | WaitKind::Config);
        Self::ALL.iter().filter(of_a_container).find(|r| r.row().names.contains(&reason)).copied()
    }

    pub(crate) fn kind(self) -> WaitKind {
        self.row().kind
    }

    pub(crate) fn deadline(self) -> Deadline {
        self.row().deadline.unwrap_or_else(|| self.kind().deadline())
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
    pub(crate) fn kinds(self) -> Vec<WaitKind> {
        let kind = self.kind();
        let of_the_helper = kind.of_the_helper().filter(|other| other.deadline() == kind.deadline());
        [kind].into_iter().chain(of_the_helper).collect()
    }

    /// The cause of the run's end at the deadline, or of the attempt's, for each of its stages; empty: there is no
    /// deadline.
    pub(crate) fn given_up_as(self) -> Vec<String> {
        let at = |kind: &WaitKind| {
            let stage = Some(kind.stage().to_owned());
            let waiting = Waiting { stage, reason: Some(self.name().to_owned()), ..Waiting::default() };
            gave_up(&waiting).cause().to_owned()
        };
        match self.deadline() {
            Deadline::None => Vec::new(),
            Deadline::Staging => vec![Cause::StagingFailed.name().to_owned()],
            Deadline::Store => vec![Cause::StoreRefused.name().to_owned()],
            Deadline::AtOnce | Deadline::ImagePull | Deadline::Configuration => self.kinds().iter().map(at).collect(),
        }
    }

    /// For one of ours.
    pub(in crate::plan) fn wait(self, message: &str) -> Wait<'_> {
        Wait { kind: self.kind(), reason: self.name(), message }
    }

    pub(in crate::plan) fn given_up_after(self, settings: &Settings) -> Option<Duration> {
        self.deadline().after(settings)
    }
}

impl WaitKind {
    fn deadline(self) -> Deadline {
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

    /// Whatever the reason is.
    pub(in crate::plan) fn given_up_after(self, settings: &Settings) -> Option<Duration> {
        self.deadline().after(settings)
    }
}
