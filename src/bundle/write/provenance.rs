//! How a bundle was made: an artifact with the bundle as its subject, which registries list as a referrer.

use crate::bundle::Error;
use crate::bundle::digest::Digest;
use crate::bundle::format::image::{Descriptor, EMPTY_TYPE, INDEX_TYPE, MANIFEST_TYPE};
use crate::bundle::registry::Repository;
use crate::names::bundle::PROVENANCE;
use bytes::Bytes;
use serde_json::{Value, json};

/// The one configuration of artifacts that have none.
const EMPTY: &[u8] = b"{}";

/// Pushes `made_by` and makes it known. Returns how many bytes went out.
pub(in crate::bundle) async fn push(
    repository: &Repository,
    subject: &Descriptor,
    made_by: &Value,
) -> Result<u64, Error> {
    let content = Bytes::from(made_by.to_string());
    let mut pushed = repository.push_small(&content).await?;
    pushed += repository.push_small(&Bytes::from_static(EMPTY)).await?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": PROVENANCE,
        "config": Descriptor::new(EMPTY_TYPE, Digest::of(EMPTY), EMPTY.len() as u64),
        "layers": [Descriptor::new(PROVENANCE, Digest::of(&content), content.len() as u64)],
        "subject": subject,
    });
    let body = Bytes::from(manifest.to_string());
    let digest = Digest::of(&body);
    if !repository.put_manifest(&digest.to_string(), MANIFEST_TYPE, &body).await? {
        let mut descriptor = Descriptor::new(MANIFEST_TYPE, digest, body.len() as u64);
        descriptor.artifact_type = Some(PROVENANCE.into());
        add_to_tag(repository, &subject.digest, &descriptor).await?;
    }
    Ok(pushed)
}

/// The fallback of the specification for registries that know no subjects: an index under a tag made of the subject's
/// digest. Two writers at once can lose one entry there; a bundle is pushed by one.
async fn add_to_tag(repository: &Repository, subject: &Digest, referrer: &Descriptor) -> Result<(), Error> {
    let tag = subject.to_string().replace(':', "-");
    let known = repository.manifest(&tag).await;
    let mut manifests: Vec<Value> = match known {
        Ok(fetched) => {
            let index: Value = serde_json::from_slice(&fetched.body).unwrap_or_default();
            index.get("manifests").and_then(Value::as_array).cloned().unwrap_or_default()
        }
        Err(error) if error.kind == crate::bundle::ErrorKind::NotFound => vec![],
        Err(error) => return Err(error),
    };
    let referrer = json!(referrer);
    if manifests.iter().any(|known| known.get("digest") == referrer.get("digest")) {
        return Ok(());
    }
    manifests.push(referrer);
    let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests});
    repository.put_manifest(&tag, INDEX_TYPE, &Bytes::from(index.to_string())).await?;
    Ok(())
}
