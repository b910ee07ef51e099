//! Manifests and configurations of images: ours as they are written, those of others as they are read.

use super::list_index::IndexPlace;
use super::listing::ListLayer;
use crate::bundle::Error;
use crate::bundle::digest::Digest;
use crate::names::bundle::{INDEX, LAYOUT, LAYOUT_V1, MARK, SNAPSHOT};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

/// Annotation of a layer of an artifact: the path of the file that it is (OCI image specification).
pub(in crate::bundle) const TITLE: &str = "org.opencontainers.image.title";
pub(in crate::bundle) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(in crate::bundle) const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
pub(in crate::bundle) const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// The one configuration of artifacts that have none.
pub(in crate::bundle) const EMPTY: &[u8] = b"{}";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG_TYPE: &str = "application/vnd.docker.container.image.v1+json";
const TAR_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
const GZIP_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What points to a blob or a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::bundle) struct Descriptor {
    pub(in crate::bundle) media_type: String,
    pub(in crate::bundle) digest: Digest,
    pub(in crate::bundle) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::bundle) artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::bundle) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(in crate::bundle) annotations: BTreeMap<String, String>,
}

impl Descriptor {
    pub(in crate::bundle) fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        let (artifact_type, platform, annotations) = (None, None, BTreeMap::new());
        Self { media_type: media_type.to_owned(), digest, size, artifact_type, platform, annotations }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::bundle) struct Platform {
    architecture: String,
    os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
}

/// An image of any origin.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::bundle) struct Manifest {
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    pub(in crate::bundle) config: Descriptor,
    pub(in crate::bundle) layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

/// What a manifest's bytes are.
pub(in crate::bundle) enum Read {
    Image(Box<Manifest>),
    /// The image for this machine's platform.
    Index(Digest),
}

/// Reads a manifest or an index.
pub(in crate::bundle) fn read(body: &[u8]) -> Result<Read, Error> {
    let wrong = |why: &str| Error::invalid(format!("no image: {why}"));
    let value: serde_json::Value = serde_json::from_slice(body).map_err(|_| wrong("its manifest is no JSON"))?;
    if value.get("manifests").is_some() {
        let index: Index = serde_json::from_value(value).map_err(|error| wrong(&error.to_string()))?;
        let ours = Platform { architecture: architecture().to_owned(), os: "linux".into(), variant: None };
        let fits = |platform: &Platform| platform.architecture == ours.architecture && platform.os == ours.os;
        let found = index.manifests.iter().find(|manifest| manifest.platform.as_ref().is_some_and(fits));
        // An index of one image needs no platforms.
        let found = found.or(match index.manifests.as_slice() {
            [only] if only.platform.is_none() => Some(only),
            _ => None,
        });
        let found = found.ok_or_else(|| wrong(&format!("it is for other platforms than linux/{}", architecture())))?;
        return Ok(Read::Index(found.digest));
    }
    if value.get("schemaVersion").and_then(serde_json::Value::as_u64) != Some(2) {
        return Err(wrong("its manifest has another schemaVersion than 2"));
    }
    serde_json::from_value(value).map(Box::new).map(Read::Image).map_err(|error| wrong(&error.to_string()))
}

/// The tag of the index of referrers where a registry has no list of its own (OCI distribution specification).
pub(in crate::bundle) fn referrers_tag(subject: &Digest) -> String {
    subject.to_string().replace(':', "-")
}

/// What an index of referrers lists.
pub(in crate::bundle) fn referrers(body: &[u8]) -> Result<Vec<Descriptor>, Error> {
    let index: Result<Index, _> = serde_json::from_slice(body);
    index.map(|index| index.manifests).map_err(|error| Error::invalid(format!("no index of referrers: {error}")))
}

/// As Go and OCI name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

impl Manifest {
    /// The type of an artifact; none: it is an image.
    pub(in crate::bundle) fn artifact_type(&self) -> Option<&str> {
        let config = self.config.media_type.as_str();
        if [CONFIG_TYPE, DOCKER_CONFIG_TYPE].contains(&config) {
            return None;
        }
        Some(self.artifact_type.as_deref().unwrap_or(config))
    }

    /// Where the list of entries is, if the image is one of our bundles: in the last layer.
    pub(in crate::bundle) fn bundle_index(&self) -> Result<Option<(&Descriptor, IndexPlace)>, Error> {
        match self.annotations.get(MARK).map(String::as_str) {
            None => return Ok(None),
            Some(LAYOUT | LAYOUT_V1) => {}
            Some(other) => return Err(Error::invalid(format!("a bundle of layout {other:?}, which is unknown here"))),
        }
        let last = self.layers.last().ok_or_else(|| Error::invalid("a bundle without layers"))?;
        let annotation = last.annotations.get(INDEX);
        let annotation = annotation.ok_or_else(|| Error::invalid("a bundle without a list of entries"))?;
        let place = IndexPlace::read(annotation)?;
        if place.offset.checked_add(place.size).is_none_or(|end| end > last.size) {
            return Err(Error::invalid("a bundle whose index is outside of its layer"));
        }
        Ok(Some((last, place)))
    }
}

/// The configuration of a bundle. It is the same on every machine: a bundle has no architecture, and tools want one.
pub(in crate::bundle) fn config(diff_ids: &[Digest]) -> Bytes {
    let rootfs = json!({"type": "layers", "diff_ids": diff_ids});
    let config = json!({"architecture": "amd64", "config": {}, "os": "linux", "rootfs": rootfs});
    config.to_string().into()
}

/// The manifest of a bundle of content layers and the list of entries.
pub(in crate::bundle) fn manifest(config: &Bytes, layers: &[(Digest, u64)], list: &ListLayer) -> Result<Bytes, Error> {
    written(None, Descriptor::new(CONFIG_TYPE, Digest::of(config), config.len() as u64), layers, list)
}

/// The manifest of a snapshot. Its layers are no image: they have entries that are no part of it any more, and only the list
/// says which.
pub(in crate::bundle) fn snapshot_manifest(layers: &[(Digest, u64)], list: &ListLayer) -> Result<Bytes, Error> {
    let config = Descriptor::new(EMPTY_TYPE, Digest::of(EMPTY), EMPTY.len() as u64);
    written(Some(SNAPSHOT.to_owned()), config, layers, list)
}

fn written(
    artifact_type: Option<String>,
    config: Descriptor,
    layers: &[(Digest, u64)],
    list: &ListLayer,
) -> Result<Bytes, Error> {
    let content = layers.iter().map(|(digest, size)| Descriptor::new(TAR_TYPE, *digest, *size));
    let mut index = Descriptor::new(GZIP_TYPE, list.digest, list.size);
    index.annotations.insert(INDEX.into(), list.index.annotation());
    let manifest = Manifest {
        schema_version: 2,
        media_type: MANIFEST_TYPE.into(),
        artifact_type,
        config,
        layers: content.chain([index]).collect(),
        annotations: [(MARK.to_owned(), LAYOUT.to_owned())].into(),
    };
    serde_json::to_vec(&manifest).map(Bytes::from).map_err(|error| Error::invalid(format!("no manifest: {error}")))
}
