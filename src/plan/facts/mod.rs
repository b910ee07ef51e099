//! What is seen of a run: its pod and that one's node, the runs that are its inputs, the settings of the cluster.

pub(in crate::plan) mod image;
pub mod node;
pub mod parents;
pub mod pod;
pub mod pod_events;
pub mod settings;
pub mod stage;
pub mod wish;
