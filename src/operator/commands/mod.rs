//! What the operator's binary does once and then ends.

mod check_settings;
mod smoke_test;
mod uninstall;

pub use check_settings::check_settings;
pub use smoke_test::{SmokeTest, smoke_test};
pub use uninstall::{Uninstall, uninstall};
