//! What the operator's binary does once and then ends.

mod smoke_test;
mod uninstall;

pub use smoke_test::{SmokeTest, smoke_test};
pub use uninstall::{Uninstall, uninstall};
