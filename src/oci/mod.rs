//! How OCI names things: digests and references to images.
//!
//! | file | subject |
//! |---|---|
//! | `digest` | `sha256:<hex>` |
//! | `reference` | `host/repository:tag` and `host/repository@digest` |

mod digest;
mod reference;

pub use digest::Digest;
pub use reference::{Reference, by_digest, digest_of, place, without_tag_and_digest};

use std::fmt;

/// A text is not what it should name. For people: one line, with the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}
