//! Hashing by SHA-256.

use sha2::Digest as _;

pub(super) use crate::oci::Digest;

impl Digest {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self::new(sha2::Sha256::digest(bytes).into())
    }
}

/// `sha256:<hex>` of some bytes.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

/// Hashes what passes.
#[derive(Clone, Default)]
pub(crate) struct Digester(sha2::Sha256);

impl Digester {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Digest {
        Digest::new(self.0.finalize().into())
    }
}
