//! What is left out of a bundle because the run says so.

use crate::bundle::Error;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// `*` and `?` match no slash, so `*.tmp` is about the top directory and `**/*.tmp` about all. A slash at the begin is
/// the working directory, as in gitignore; one at the end says nothing.
pub(super) fn exclude(globs: &[String]) -> Result<GlobSet, Error> {
    let wrong = |glob: &str, error: &globset::Error| Error::invalid(format!("{glob:?} is no glob: {}", error.kind()));
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        let plain = glob.strip_prefix("./").or_else(|| glob.strip_prefix('/')).unwrap_or(glob);
        let plain = plain.strip_suffix('/').unwrap_or(plain);
        set.add(GlobBuilder::new(plain).literal_separator(true).build().map_err(|error| wrong(glob, &error))?);
    }
    set.build().map_err(|error| wrong("exclude", &error))
}
