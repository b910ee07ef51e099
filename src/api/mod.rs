//! The `BundleRun` resource: its types, its schema and the rules the API server enforces. No decisions.
//!
//! | file | subject |
//! |---|---|
//! | [`spec`] | what the user asks for |
//! | [`status`] | what the operator records |
//! | [`quantity`], [`duration`] | exact values of the two notations used in a spec |
//! | `schema` | patterns, and schemas of Kubernetes types |
//! | [`rules`] | what the API server checks in CEL |
//! | [`crd`] | the `CustomResourceDefinition`, with the rules put in |
//! | [`skew`] | the definition that is installed, beside that one |

pub mod crd;
pub mod quantity;
pub mod rules;
mod schema;
pub mod skew;
pub mod spec;
pub mod status;

pub use crate::contract::duration;
pub use quantity::Quantity;
#[cfg(test)]
pub(crate) use schema::CONDITION_REASON;
pub use skew::Skew;
pub use spec::{BundleRun, BundleRunSpec};
pub use status::{BundleRunStatus, Phase};
