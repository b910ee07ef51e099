//! What may be said of a run: tables of causes, reasons to wait and conditions. Status, events, metrics and the generated
//! pages have their words from here.

pub(crate) mod cause;
pub(crate) mod condition;
pub(crate) mod message;
mod table;
pub(crate) mod wait_reason;
