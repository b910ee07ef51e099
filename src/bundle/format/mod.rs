//! The bytes of a bundle.
//!
//! | file | subject |
//! |---|---|
//! | `image` | manifests and configurations |
//! | `listing` | the list of entries |
//! | `path_text` | paths in JSON |
//! | `list_index` | where in it is what |
//! | `sparse` | files that are hardly anything but holes |
//! | `tar_header` | headers of tar files, written |
//! | `tar_reader` | tar files, read |

pub(in crate::bundle) mod image;
pub(in crate::bundle) mod list_index;
pub(in crate::bundle) mod listing;
pub(in crate::bundle) mod path_text;
pub(in crate::bundle) mod sparse;
pub(in crate::bundle) mod tar_header;
pub(in crate::bundle) mod tar_reader;
