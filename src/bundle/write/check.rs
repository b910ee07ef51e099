//! Whether the store would accept an output.

use crate::bundle::registry::{Purpose, Repository};
use crate::bundle::{Access, Error};
use crate::oci::Reference;

/// Begins an upload to `repository` (`host[:port]/name`) and cancels it: one try, so that the caller can say at once what
/// is wrong, and nothing that stays in the store.
///
/// # Errors
/// What a save would fail with at its first request.
pub async fn check_store(repository: &str, access: &Access) -> Result<(), Error> {
    let reference = Reference::parse_repository(repository)?;
    Repository::new(&reference, access, Purpose::Push)?.try_upload().await
}
