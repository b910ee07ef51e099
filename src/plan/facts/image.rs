//! Image references and digests: what was asked for, what ran, what to pull.

use crate::api::{BundleRun, BundleRunStatus};
use crate::oci::by_digest;
use crate::plan::facts::pod::PodFacts;
use crate::plan::facts::settings::Settings;

/// What was asked for: the spec's image, or else the default of the day the run began, as its pod or its status has it.
/// The admin may have set another default since, and the recorded digest is none of that one's.
pub(in crate::plan) fn requested(run: &BundleRun, pod: Option<&PodFacts>, settings: &Settings) -> String {
    let pinned = || pod?.pins().default_image;
    let recorded = || run.status.as_ref()?.image.as_ref()?.requested.clone();
    let default = || if run.spec.resources.gpus == 0 { &settings.cpu_image } else { &settings.gpu_image };
    run.spec.image.clone().or_else(recorded).or_else(pinned).unwrap_or_else(|| default().clone())
}

/// What to pull for an attempt: the requested reference first, later `<its repository>@<digest>`, so that all attempts
/// run the same image.
pub(in crate::plan) fn image_to_pull(requested: &str, status: Option<&BundleRunStatus>, attempt: u32) -> String {
    let digest = status.and_then(|s| s.image.as_ref()?.digest.as_deref()).filter(|_| attempt > 1);
    match digest {
        Some(digest) => by_digest(requested, digest),
        None => requested.to_owned(),
    }
}
