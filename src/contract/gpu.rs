//! The GPU part of the contracts: what the runner needs to know, and what it found.

use serde::{Deserialize, Serialize};

use super::one_line;

/// What the runner does for a run with GPUs: the part of an admin's GPU profile that concerns it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GpuRequest {
    /// How many the run asked for.
    pub count: u32,
    /// What must be there before the command starts.
    pub preflight: Preflight,
    /// Where the host's driver is mounted; none: the container runtime brings it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<HostDriver>,
}

/// What must be there before the command of a run with GPUs starts; else the cause is
/// [`GpuUnavailable`](crate::contract::Cause::GpuUnavailable).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Preflight {
    /// Absolute globs of the device nodes, one for each device: `/dev/nvidia[0-9]*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// How many of them there must be.
    pub count: DeviceCount,
    /// File names of libraries that programs must find: `libcuda.so.1`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub libraries: Vec<String>,
}

/// How the number of device nodes is compared with the number of GPUs that the run asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeviceCount {
    /// As many.
    Exact,
    /// As many or more.
    AtLeast,
    /// Not at all: slices of one device share its node.
    #[default]
    Off,
}

/// A folder of the host with its GPU driver, mounted read-only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HostDriver {
    /// Where the container sees it, absolute.
    pub mount_path: String,
    /// Absolute paths of the directories with its libraries.
    pub library_dirs: Vec<String>,
    /// Absolute paths of the directories with its programs.
    pub bin_dirs: Vec<String>,
    /// Globs of file names that are the driver's, besides those the runner knows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub library_files: Vec<String>,
}

/// The GPUs of a container. Grouped by model, because a termination message has little room.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GpuFacts {
    /// Version of the driver; none: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// The devices, by model.
    pub models: Vec<GpuModel>,
}

/// Devices of one model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GpuModel {
    /// Such as `NVIDIA H200`; none: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Unique ids of the devices.
    pub uuids: Vec<String>,
}

impl GpuFacts {
    /// The same, each text one line of a bounded length.
    pub(super) fn readable(&self) -> Self {
        let model = |model: &GpuModel| GpuModel {
            name: model.name.as_deref().map(one_line),
            uuids: model.uuids.iter().map(|uuid| one_line(uuid)).collect(),
        };
        Self { driver: self.driver.as_deref().map(one_line), models: self.models.iter().map(model).collect() }
    }

    /// Leaves the last device out. False: there was none.
    pub(super) fn shorten(&mut self) -> bool {
        let Some(last) = self.models.last_mut() else { return false };
        last.uuids.pop();
        if last.uuids.is_empty() {
            self.models.pop();
        }
        true
    }
}
