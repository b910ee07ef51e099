//! Image references and digests: what was asked for, what ran, what to pull.

use crate::api::{BundleRun, BundleRunStatus};
use crate::oci::{Digest, without_tag_and_digest};
use crate::plan::facts::settings::Settings;

/// What was asked for: the spec's image, or else the default of the day the run began. The admin may have set another
/// default since, and the recorded digest is none of that one's.
pub(in crate::plan) fn requested(run: &BundleRun, settings: &Settings) -> String {
    let recorded = || run.status.as_ref()?.image.as_ref()?.requested.clone();
    let default = || if run.spec.resources.gpus == 0 { &settings.cpu_image } else { &settings.gpu_image };
    run.spec.image.clone().or_else(recorded).unwrap_or_else(|| default().clone())
}

/// The digest of a container's `imageID`. The repository before it may be another one that holds the same digest.
/// Without one it is the id of an image's configuration, which the runtime shows for images that no registry gave it:
/// nothing can be pulled by that.
pub(in crate::plan) fn digest_of(image_id: &str) -> Option<Digest> {
    let (_, digest) = image_id.rsplit_once('@')?;
    Digest::parse(digest).ok()
}

/// What to pull for an attempt: the requested reference first, later `<its repository>@<digest>`, so that all attempts
/// run the same image.
pub(in crate::plan) fn image_to_pull(requested: &str, status: Option<&BundleRunStatus>, attempt: u32) -> String {
    let digest = status.and_then(|s| s.image.as_ref()?.digest.as_deref()).filter(|_| attempt > 1);
    match digest {
        Some(digest) => format!("{}@{digest}", without_tag_and_digest(requested)),
        None => requested.to_owned(),
    }
}

/// The registry and the repository that a reference names, each written in one way only. Of `host` alone the repository
/// is empty.
pub(in crate::plan) fn place(reference: &str) -> (String, String) {
    let has_host = |first: &str| first.contains(['.', ':']) || first == "localhost";
    let (host, repository) = match reference.split_once('/') {
        Some((host, rest)) if has_host(host) => (host, without_tag_and_digest(rest)),
        None if has_host(reference) && !reference.contains('@') && !without_tag_and_digest(reference).is_empty() => {
            // `python:3` is an image, `host:5000` a registry: a tag is no number with a dot or `localhost` before it.
            match reference.split_once(':') {
                Some((name, _)) if !has_host(name) => ("docker.io", name),
                _ => (reference, ""),
            }
        }
        _ => ("docker.io", without_tag_and_digest(reference)),
    };
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix(":443").or_else(|| host.strip_suffix(":80")).unwrap_or(&host).trim_end_matches('.');
    let host = if matches!(host, "index.docker.io" | "registry-1.docker.io") { "docker.io" } else { host };
    (host.to_owned(), repository.to_owned())
}
