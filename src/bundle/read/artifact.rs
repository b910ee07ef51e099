//! What the layers of an image are: archives. Those of an artifact, as `oras push` makes it, are files with their names.

use super::layer_path::{path_of, whiteout};
use crate::bundle::Error;
use crate::bundle::error::shown;
use crate::bundle::format::image::{Descriptor, Manifest, TITLE};
use std::collections::BTreeSet;

/// `true`: the layer is the archive of a directory, with the directory's name in all its paths (as ORAS makes it).
const UNPACK: &str = "io.deis.oras.content.unpack";

/// What a layer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::bundle) enum Content {
    /// A tar file, compressed or not.
    Archive,
    /// The content of this one file.
    File { path: Vec<u8>, size: u64 },
}

impl Content {
    /// Of each layer; an error, if it is an artifact whose layers are no files with names.
    pub(in crate::bundle) fn of(manifest: &Manifest, reference: &str) -> Result<Vec<Self>, Error> {
        let Some(artifact_type) = manifest.artifact_type() else {
            return Ok(vec![Self::Archive; manifest.layers.len()]);
        };
        let artifact_type = shown(artifact_type.as_bytes());
        let wrong = |why: String| {
            Error::invalid(format!("{reference} is an artifact of type {artifact_type}, not an image, and {why}"))
        };
        if manifest.layers.is_empty() {
            return Err(wrong("has no files".to_owned()));
        }
        let contents: Vec<_> = manifest.layers.iter().map(file).collect::<Result<_, _>>().map_err(wrong)?;
        one_place_each(&contents).map_err(wrong)?;
        Ok(contents)
    }
}

/// No file is where another is, or below it: only one of them could be had.
fn one_place_each(contents: &[Content]) -> Result<(), String> {
    let mut known = BTreeSet::new();
    let files = || {
        contents.iter().filter_map(|content| if let Content::File { path, .. } = content { Some(path) } else { None })
    };
    for path in files() {
        if !known.insert(path.as_slice()) {
            return Err(format!("two files in it have the name {:?}", shown(path)));
        }
    }
    for path in files() {
        let mut above = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| path.split_at(end).0);
        if let Some(file) = above.find(|above| known.contains(above)) {
            return Err(format!(
                "{:?} in it is a file, and the name of {:?} leads through it",
                shown(file),
                shown(path)
            ));
        }
    }
    Ok(())
}

/// A layer of an artifact, or why it cannot be had.
fn file(layer: &Descriptor) -> Result<Content, String> {
    let title = layer.annotations.get(TITLE);
    let title = title.ok_or_else(|| format!("{} in it has no name ({TITLE})", layer.digest))?;
    if layer.annotations.get(UNPACK).is_some_and(|unpack| unpack == "true") {
        return Ok(Content::Archive);
    }
    match path_of(title.as_bytes()) {
        // In archives of layers such a name is a deletion.
        Ok(path) if !path.is_empty() && whiteout(path).is_none() => {
            Ok(Content::File { path: path.to_vec(), size: layer.size })
        }
        _ => Err(format!("a file in it has the name {:?}, which is no path below an input", shown(title.as_bytes()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const ZEROS: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

    fn contents(artifact_type: Option<&str>, config: &str, layers: &[Value]) -> Result<Vec<Content>, String> {
        let descriptor = |media_type: &str, annotations: &Value| json!({"mediaType": media_type, "digest": ZEROS, "size": 7, "annotations": annotations});
        let mut manifest = json!({
            "schemaVersion": 2,
            "config": descriptor(config, &json!({})),
            "layers": layers.iter().map(|layer| descriptor("text/plain", layer)).collect::<Vec<_>>(),
        });
        if let Some(artifact_type) = artifact_type {
            manifest["artifactType"] = json!(artifact_type);
        }
        let manifest: Manifest = serde_json::from_value(manifest).unwrap();
        Content::of(&manifest, "r/a:1").map_err(|error| error.message)
    }

    const EMPTY: &str = "application/vnd.oci.empty.v1+json";

    #[test]
    fn the_layers_of_an_image_are_archives_whatever_is_said_beside() {
        let image = "application/vnd.oci.image.config.v1+json";
        for (config, artifact_type) in
            [(image, None), (image, Some("x/y")), ("application/vnd.docker.container.image.v1+json", None)]
        {
            let layers = [json!({}), json!({TITLE: "a"})];
            assert_eq!(contents(artifact_type, config, &layers), Ok(vec![Content::Archive, Content::Archive]));
        }
    }

    #[test]
    fn the_layers_of_an_artifact_are_files_under_their_names() {
        let layers = [json!({TITLE: "a"}), json!({TITLE: "./b/c d"}), json!({TITLE: "dir", UNPACK: "true"})];
        let file = |path: &str| Content::File { path: path.into(), size: 7 };
        assert_eq!(contents(Some("x/y"), EMPTY, &layers), Ok(vec![file("a"), file("b/c d"), Content::Archive]));
    }

    #[test]
    fn an_artifact_that_is_no_files_is_told_with_its_type() {
        for (artifact_type, config, says) in
            [(Some("x/y"), EMPTY, "of type x/y,"), (None, "helm/config", "of type helm/config,")]
        {
            for layers in [vec![], vec![json!({})], vec![json!({TITLE: "a"}), json!({})]] {
                let why = contents(artifact_type, config, &layers).unwrap_err();
                assert!(why.starts_with("r/a:1 is an artifact ") && why.contains(says), "{why}");
            }
        }
        for (titles, says) in [
            (["a", "./a"], "two files in it have the name \"a\""),
            (["a/b", "a"], "\"a\" in it is a file, and the name of \"a/b\" leads through it"),
        ] {
            let why = contents(Some("x/y"), EMPTY, &titles.map(|title| json!({TITLE: title}))).unwrap_err();
            assert!(why.ends_with(says), "{why}");
        }
        for title in ["", ".", "/etc/passwd", "../a", "a/../../b", "a//b", ".wh.a", "a/.wh..wh..opq", "a\0b"] {
            let why = contents(Some("x/y"), EMPTY, &[json!({TITLE: title})]).unwrap_err();
            assert!(why.contains("which is no path below an input"), "{title}: {why}");
        }
    }
}
