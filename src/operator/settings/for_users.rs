//! Of the settings what users of the cluster may want to know: what a run gets that says nothing, and which GPU profiles
//! there are.

use serde_json::{Map, Value, json};

use crate::api::Quantity;
use crate::plan::Settings;

/// As YAML.
pub(in crate::operator) fn for_users(settings: &Settings) -> String {
    let profiles: Map<_, _> = settings
        .gpu_profiles
        .iter()
        .map(|(name, profile)| {
            let told = json!({"resourceName": profile.resource_name, "nodeSelector": profile.node_selector});
            (name.clone(), told)
        })
        .collect();
    let told: Value = json!({
        "images": {"cpu": settings.cpu_image, "gpu": settings.gpu_image},
        "disk": Quantity::of_bytes(settings.disk_bytes),
        "sharedMemory": Quantity::of_bytes(settings.shared_memory_bytes),
        "stopGrace": format!("{}s", settings.stop_grace.as_secs()),
        "maxStopGrace": format!("{}s", settings.max_stop_grace.as_secs()),
        "podRetention": format!("{}s", settings.pod_retention.as_secs()),
        "keepsOutputs": settings.store.is_some(),
        "gpuProfiles": profiles,
    });
    serde_saphyr::to_string(&told).unwrap_or_default() // there is nothing in it that YAML cannot say
}
