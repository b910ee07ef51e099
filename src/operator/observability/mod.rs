//! What others can see of the operator: metrics, health and logs.

pub(in crate::operator) mod http;
mod logging;
pub(in crate::operator) mod metrics;

pub use logging::{Log, LogFormat, start_log};
pub use metrics::{Metric, metrics};
