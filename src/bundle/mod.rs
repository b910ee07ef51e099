//! A bundle as an OCI image: packing a working directory, pushing it, pulling it or a part of it, reading one file.
//!
//! | room | subject |
//! |---|---|
//! | `model`, `error` | what callers give and get |
//! | `write` | a tree becomes a bundle: walk, plan, hash, push, read back |
//! | `read` | what a reference means, and getting what is in it |
//! | `format` | the bytes of a bundle: headers of tar files, the list of entries, manifests and configurations |
//! | `registry` | the registry's protocol, with logins |
//! | `moving_tag` | a tag that is of one manifest after the other |
//! | `retry`, `transport` | trying requests again, and why one failed |
//! | `digest` | hashing |
//! | `untrusted` | reading files that a stranger wrote |
//! | `blocking` | work for threads |
//! | `memory` | vectors of millions |

mod blocking;
mod digest;
mod error;
mod format;
mod memory;
mod model;
mod moving_tag;
mod read;
mod registry;
pub(crate) mod retry;
pub(crate) mod transport;
pub(crate) mod untrusted;
mod write;

pub(crate) use blocking::blocking;
pub(crate) use digest::{Digester, sha256};
pub(crate) use error::is_full;
pub use error::{Error, ErrorKind};
pub use model::{
    Access, FileId, GivenUp, Kind, Limits, ListEntry, ListEntryKind, Progress, Resolved, SavedBundle, StoreAccess,
    Tree, free_name,
};
pub use read::inspect::{download, list, read_file, read_part};
pub use read::part::{Part, part_of_file};
pub use read::provenance::provenance;
pub use read::verify::{Verified, verify};
pub use read::{Budget, add_tag, fetch, find_snapshot, resolve, resolve_telling, restore};
pub use write::check::check_store;
pub use write::early::{EarlyPushes, Outlook};
pub(crate) use write::memory_of;
pub use write::present::{list_present, open_present};
pub use write::save;
pub use write::snapshot::{Snapshot, SnapshotWanted, snapshot};
