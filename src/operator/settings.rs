//! The settings file: raw YAML -> [`Settings`]. Unknown fields are errors, and all problems are told at once.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::Toleration;
use serde::Deserialize;

use super::Failure;
use crate::api::spec::DEFAULT_GPU_PROFILE;
use crate::api::{Quantity, duration};
use crate::plan::{GpuProfile, Settings};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Raw {
    images: RawImages,
    #[serde(default)]
    defaults: RawDefaults,
    #[serde(default)]
    deadlines: RawDeadlines,
    #[serde(default = "default_stop_grace")]
    stop_grace: String,
    #[serde(default)]
    gpu_profiles: BTreeMap<String, RawGpuProfile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawImages {
    cpu: String,
    gpu: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RawDefaults {
    disk: Quantity,
    shared_memory: Quantity,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RawDeadlines {
    image_pull: String,
    configuration: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawGpuProfile {
    resource_name: String,
    #[serde(default)]
    runtime_class_name: Option<String>,
    #[serde(default)]
    tolerations: Vec<Toleration>,
    #[serde(default)]
    node_selector: BTreeMap<String, String>,
}

impl Default for RawDefaults {
    fn default() -> Self {
        Self { disk: "10Gi".into(), shared_memory: "1Gi".into() }
    }
}

impl Default for RawDeadlines {
    fn default() -> Self {
        Self { image_pull: "10m".into(), configuration: "5m".into() }
    }
}

fn default_stop_grace() -> String {
    "30s".into()
}

/// Reads and validates the file.
pub(super) fn load(path: &Path, helper_image: &str) -> Result<Settings, Failure> {
    let text =
        std::fs::read_to_string(path).map_err(|e| format!("cannot read the settings {}: {e}", path.display()))?;
    parse(&text, helper_image).map_err(|e| format!("settings {}: {e}", path.display()).into())
}

fn parse(text: &str, helper_image: &str) -> Result<Settings, String> {
    if text.trim().is_empty() {
        return Err("the file is empty: set at least images.cpu and images.gpu".into());
    }
    let raw: Raw = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
    let mut problems = Vec::new();
    let mut check = |field: &str, result: Result<u64, String>| {
        result.unwrap_or_else(|problem| {
            problems.push(format!("{field}: {problem}"));
            0
        })
    };
    let seconds = |text: &str| duration::parse_seconds(text).map_err(|e| e.to_string());
    let disk_bytes = check("defaults.disk", raw.defaults.disk.bytes().map_err(|e| e.to_string()));
    let shared_memory_bytes =
        check("defaults.sharedMemory", raw.defaults.shared_memory.bytes().map_err(|e| e.to_string()));
    let stop_grace = check("stopGrace", seconds(&raw.stop_grace));
    let image_deadline = check("deadlines.imagePull", seconds(&raw.deadlines.image_pull));
    let config_deadline = check("deadlines.configuration", seconds(&raw.deadlines.configuration));
    for (field, image) in [("images.cpu", &raw.images.cpu), ("images.gpu", &raw.images.gpu)] {
        if image.is_empty() {
            problems.push(format!("{field}: name an image"));
        }
    }
    if helper_image.is_empty() {
        problems.push("the operator's own image is not known: set --helper-image or HELPER_IMAGE".into());
    }
    let mut gpu_profiles: BTreeMap<_, _> =
        raw.gpu_profiles.into_iter().map(|(name, profile)| (name, profile.into())).collect();
    gpu_profiles
        .entry(DEFAULT_GPU_PROFILE.to_owned())
        .or_insert_with(|| GpuProfile { resource_name: "nvidia.com/gpu".into(), ..GpuProfile::default() });
    if !problems.is_empty() {
        return Err(problems.join("; "));
    }
    Ok(Settings {
        cpu_image: raw.images.cpu,
        gpu_image: raw.images.gpu,
        helper_image: helper_image.to_owned(),
        disk_bytes,
        shared_memory_bytes,
        stop_grace: Duration::from_secs(stop_grace),
        image_deadline: Duration::from_secs(image_deadline),
        config_deadline: Duration::from_secs(config_deadline),
        gpu_profiles,
    })
}

impl From<RawGpuProfile> for GpuProfile {
    fn from(raw: RawGpuProfile) -> Self {
        Self {
            resource_name: raw.resource_name,
            runtime_class_name: raw.runtime_class_name,
            tolerations: raw.tolerations,
            node_selector: raw.node_selector,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_images_are_enough() {
        let settings = parse("images: {cpu: a, gpu: b}", "us").unwrap();
        assert_eq!((settings.cpu_image.as_str(), settings.gpu_image.as_str()), ("a", "b"));
        assert_eq!(settings.disk_bytes, 10 << 30);
        assert_eq!(settings.gpu_profiles["default"].resource_name, "nvidia.com/gpu");
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let text = "images: {cpu: '', gpu: b}\ndefaults: {disk: 10Q}\nstopGrace: soon";
        let problems = parse(text, "us").unwrap_err();
        for field in ["images.cpu", "defaults.disk", "stopGrace"] {
            assert!(problems.contains(field), "{problems}");
        }
    }

    #[test]
    fn an_unknown_field_is_an_error() {
        assert!(parse("images: {cpu: a, gpu: b}\nimage: c", "us").unwrap_err().contains("image"));
    }
}
