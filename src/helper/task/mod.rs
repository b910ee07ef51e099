//! What the children of the helper's main process do.
//!
//! | file | subject |
//! |---|---|
//! | `look_up` | what inputs from registries are |
//! | `stage`, `url`, `config_map`, `links` | putting inputs in place |
//! | `check_store` | whether the store would accept the output |
//! | `resume` | putting the last snapshot of an earlier attempt back |
//! | `save`, `push_early`, `snapshot` | saving the output, and what can be saved of it before |
//! | `measure`, `watch_disk` | counting what is in the working directory, and keeping its limits |
//! | `login` | who we are to registries |

pub(super) mod check_store;
mod copy;
pub(super) mod links;
mod login;
pub(super) mod look_up;
pub(super) mod measure;
pub(super) mod push_early;
pub(super) mod resume;
pub(super) mod save;
pub(super) mod snapshot;
pub(super) mod stage;
mod url;
pub(super) mod watch_disk;
