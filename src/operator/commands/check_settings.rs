//! A settings file, checked before it is anywhere near a cluster.

use std::io::Read;
use std::path::Path;

use crate::operator::Failure;
use crate::operator::settings;

/// Reads a settings file, `-` for the standard input, and tells what it means, a line for each part.
///
/// # Errors
/// The file cannot be read, or something in it is wrong: one line for each problem, beginning with the path of its field.
pub fn check_settings(file: &Path) -> Result<String, Failure> {
    let text = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    let text = text.map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    // The operator's own image is not the file's to say.
    let settings = settings::parse(&text, "this image").map_err(|problems| problems.join("\n"))?;
    let profiles: Vec<_> =
        settings.gpu_profiles.iter().map(|(name, profile)| format!("{name} ({})", profile.resource_name)).collect();
    let store = settings.store.as_ref().map_or("none: outputs go with their pods", |store| &store.prefix);
    Ok(format!(
        "images: {} without GPUs, {} with\nstore: {store}\nGPU profiles: {}\n",
        settings.cpu_image,
        settings.gpu_image,
        profiles.join(", ")
    ))
}
