//! How a bundle was made: the artifacts that refer to it.

use crate::bundle::digest::Digest;
use crate::bundle::format::image::{self, Descriptor, Read};
use crate::bundle::registry::{Purpose, Repository};
use crate::bundle::{Access, Error, ErrorKind};
use crate::names::bundle::PROVENANCE;
use crate::oci::Reference;
use serde_json::Value;

/// As many are read of one bundle.
const MOST: usize = 20;
/// No one is larger: a helper writes less.
const LARGEST: u64 = 4 << 20;

/// How a bundle was made: a document, `provenance.json`, of each run that made it; none where the store says nothing, as of
/// other images.
///
/// # Errors
/// See [`ErrorKind`].
pub async fn provenance(reference: &str, access: &Access) -> Result<Vec<Value>, Error> {
    let reference = Reference::parse(reference)?;
    let repository = Repository::new(&reference, access, Purpose::Pull)?;
    let digest = match Digest::parse(&reference.manifest) {
        Ok(digest) => digest,
        Err(_) => repository.manifest(&reference.manifest).await?.digest,
    };
    let mut documents = vec![];
    for referrer in referrers(&repository, &digest).await?.iter().take(MOST) {
        documents.push(document(&repository, referrer).await?);
    }
    Ok(documents)
}

/// As the registry lists them, or the tag that stands for its list.
async fn referrers(repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
    let ours = |body: &[u8]| -> Result<Vec<Descriptor>, Error> {
        let mut referrers = image::referrers(body)?;
        referrers.retain(|referrer| referrer.artifact_type.as_deref() == Some(PROVENANCE));
        Ok(referrers)
    };
    // What a registry answers that has no such list can be anything.
    let has_none = |error: &Error| {
        matches!(error.kind, ErrorKind::NotFound | ErrorKind::Denied | ErrorKind::Invalid | ErrorKind::TooLarge)
    };
    match repository.referrers(subject, PROVENANCE).await.and_then(|body| ours(&body)) {
        Ok(found) if !found.is_empty() => return Ok(found),
        Err(error) if !has_none(&error) => return Err(error),
        _ => {}
    }
    match repository.manifest(&image::referrers_tag(subject)).await {
        Ok(fetched) => ours(&fetched.body),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(vec![]),
        Err(error) => Err(error),
    }
}

async fn document(repository: &Repository, referrer: &Descriptor) -> Result<Value, Error> {
    let wrong = |why: &str| Error::invalid(format!("{} of {} {why}", referrer.digest, repository.host()));
    let fetched = repository.manifest(&referrer.digest.to_string()).await?;
    let Read::Image(manifest) = image::read(&fetched.body)? else { return Err(wrong("is an index")) };
    let layer =
        manifest.layers.first().filter(|layer| layer.size <= LARGEST).ok_or_else(|| wrong("has no document"))?;
    let text = repository.blob_part(&layer.digest, 0, layer.size).await?;
    if Digest::of(&text) != layer.digest {
        return Err(wrong("has another document than it says"));
    }
    serde_json::from_slice(&text).map_err(|_| wrong("has a document that is no JSON"))
}
