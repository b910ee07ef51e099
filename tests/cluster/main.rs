//! Tests on a real cluster: API server, kubelet, containers, registry, device plugin. `tests/cluster/run` starts one.

#![allow(unreachable_pub, clippy::large_futures)] // one crate of modules; a watch is a large future
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::expect_used)]

mod admission;
#[path = "../bundle/archives.rs"]
mod archives;
mod audit;
mod awaited_inputs;
mod bad_input;
mod bench;
#[path = "../blocks/mod.rs"]
mod blocks;
mod budgets;
mod bundles;
mod cli;
mod commands;
mod common;
mod crd;
mod deletion;
mod dependencies;
mod disk_faults;
mod early;
mod endings;
mod examples;
#[path = "../faulty_disk/mod.rs"]
mod faulty_disk;
mod gpu_driver;
mod gpu_faults;
mod gpus;
mod guide;
mod ha;
mod hostile;
mod hostile_archives;
mod images;
mod limits;
mod matrix;
mod node;
mod node_loss;
mod once;
mod orphans;
mod pod_fields;
mod private_registry;
mod processes;
mod produced;
#[path = "../bundle/proxy.rs"]
mod proxy;
#[path = "../bundle/push.rs"]
mod push;
mod recipe;
mod refusals;
#[path = "../bundle/registry.rs"]
mod registry;
mod relists;
mod retention;
mod security;
mod settings;
mod skew;
mod snapshots;
mod stop;
mod store;
mod store_faults;
mod store_outages;
mod suspend;
mod traces;
mod turns;
mod unusual_images;
mod volumes;
mod waits;
mod warnings;
mod webhook;
