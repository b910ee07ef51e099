//! Tests on a real cluster: API server, kubelet, containers, registry, device plugin. `tests/cluster/run` starts one.

#![allow(unreachable_pub)] // one crate of modules
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::expect_used)]

mod common;
mod crd;
mod endings;
mod gpus;
mod images;
mod budgets;
mod deletion;
mod examples;
mod once;
mod refusals;
