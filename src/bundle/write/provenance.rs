//! How a bundle was made: an artifact with the bundle as its subject, which registries list as a referrer.

use crate::bundle::digest::Digest;
use crate::bundle::format::image::{Descriptor, EMPTY, EMPTY_TYPE, INDEX_TYPE, MANIFEST_TYPE, TITLE, referrers_tag};
use crate::bundle::registry::Repository;
use crate::bundle::{Error, ErrorKind};
use crate::names::bundle::PROVENANCE;
use bytes::Bytes;
use serde_json::{Value, json};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

/// Its file, for tools that get files, and as an input.
const FILE: &str = "provenance.json";
/// So often an index is written that others write too.
const MOST_WRITES: u32 = 20;
const SHORTEST_LOOK: Duration = Duration::from_millis(20);
const LONGEST_LOOK: Duration = Duration::from_secs(5);

/// Pushes `made_by` and makes it known. Returns how many bytes went out.
pub(in crate::bundle) async fn push(
    repository: &Repository,
    subject: &Descriptor,
    made_by: &Value,
) -> Result<u64, Error> {
    let content = Bytes::from(made_by.to_string());
    let mut pushed = repository.push_small(&content).await?;
    pushed += repository.push_small(&Bytes::from_static(EMPTY)).await?;
    let mut layer = Descriptor::new(PROVENANCE, Digest::of(&content), content.len() as u64);
    layer.annotations.insert(TITLE.to_owned(), FILE.to_owned());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": PROVENANCE,
        "config": Descriptor::new(EMPTY_TYPE, Digest::of(EMPTY), EMPTY.len() as u64),
        "layers": [layer],
        "subject": subject,
    });
    let body = Bytes::from(manifest.to_string());
    let digest = Digest::of(&body);
    let understood = repository.put_manifest(&digest.to_string(), MANIFEST_TYPE, &body).await?;
    if understood.is_none_or(|understood| understood != subject.digest.to_string()) {
        let mut descriptor = Descriptor::new(MANIFEST_TYPE, digest, body.len() as u64);
        descriptor.artifact_type = Some(PROVENANCE.into());
        add_to_tag(repository, &subject.digest, &descriptor).await?;
    }
    Ok(pushed)
}

/// The fallback of the specification for registries that know no subjects: an index under a tag made of the subject's
/// digest. Runs that make the same bundle at the same time write the same tag, and no registry has a "write if it is
/// still what I read". So whoever has written looks again after some times as long as reading and writing took, which is
/// what another needs between the two, and writes again if it is not there any more.
async fn add_to_tag(repository: &Repository, subject: &Digest, referrer: &Descriptor) -> Result<(), Error> {
    let tag = referrers_tag(subject);
    let referrer = json!(referrer);
    for _ in 0..MOST_WRITES {
        let began = Instant::now();
        let known = match repository.manifest(&tag).await {
            Ok(fetched) => Some(fetched.body),
            Err(error) if error.kind == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let more = with_referrer(known.as_deref(), &referrer)
            .map_err(|why| Error::invalid(format!("{}: {tag} {why}, and is left as it is", repository.host())))?;
        let Some(index) = more else { return Ok(()) };
        repository.put_manifest(&tag, INDEX_TYPE, &Bytes::from(index.to_string())).await?;
        // Not all at once.
        let parts = u32::try_from(RandomState::new().build_hasher().finish() % 4).unwrap_or_default();
        tokio::time::sleep((began.elapsed() * (2 + parts)).clamp(SHORTEST_LOOK, LONGEST_LOOK)).await;
    }
    let why = format!("{}: others have overwritten {tag} {MOST_WRITES} times", repository.host());
    Err(Error::new(ErrorKind::Unreachable, why))
}

/// An index and one referrer more, or none if it is there.
fn with_referrer(known: Option<&[u8]>, referrer: &Value) -> Result<Option<Value>, &'static str> {
    let mut index = match known {
        Some(known) => serde_json::from_slice(known).map_err(|_| "is no JSON")?,
        None => json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": []}),
    };
    let is_index = index.get("mediaType").is_none_or(|media_type| media_type == INDEX_TYPE);
    let manifests = index.get_mut("manifests").and_then(Value::as_array_mut).filter(|_| is_index);
    let manifests = manifests.ok_or("is no index of referrers")?;
    if manifests.iter().any(|known| known.get("digest") == referrer.get("digest")) {
        return Ok(None);
    }
    manifests.push(referrer.clone());
    Ok(Some(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_index_is_written_again() {
        let (one, two) = (json!({"digest": "sha256:1"}), json!({"digest": "sha256:2"}));
        let first = with_referrer(None, &one).unwrap().unwrap();
        assert_eq!(first["manifests"], json!([one]));
        let known = json!({"schemaVersion": 2, "manifests": [one], "annotations": {"a": "b"}}).to_string();
        assert_eq!(with_referrer(Some(known.as_bytes()), &one), Ok(None));
        let both = with_referrer(Some(known.as_bytes()), &two).unwrap().unwrap();
        assert_eq!((&both["manifests"], &both["annotations"]["a"]), (&json!([one, two]), &json!("b")));
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "manifests": []}).to_string();
        for other in ["<html>sign in</html>", "", "[]", "{}", r#"{"manifests": {}}"#, &manifest] {
            assert!(with_referrer(Some(other.as_bytes()), &one).is_err(), "{other}");
        }
    }
}
