//! The bytes of a bundle.
//!
//! | file | subject |
//! |---|---|
//! | `image` | manifests and configurations |
//! | `listing` | the list of entries, and its index |
//! | `tar_header` | headers of tar files, written |
//! | `tar_reader` | tar files, read |

pub(in crate::bundle) mod image;
pub(in crate::bundle) mod listing;
pub(in crate::bundle) mod tar_header;
pub(in crate::bundle) mod tar_reader;
