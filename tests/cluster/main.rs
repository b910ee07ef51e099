//! Tests on a real cluster: API server, kubelet, containers, registry, device plugin. `tests/cluster/run` starts one.

#![allow(unreachable_pub, clippy::large_futures)] // one crate of modules; a watch is a large future
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::expect_used)]

mod budgets;
mod common;
mod crd;
mod deletion;
mod endings;
mod examples;
mod gpus;
mod images;
mod limits;
mod node;
mod once;
mod processes;
mod refusals;
