//! `BundleRun`: run a command in a container on a GPU cluster and keep what came out.
//!
//! The map; a module uses only modules above it (`tests/structure` checks):
//!
//! | module | what it is | may touch |
//! |---|---|---|
//! | `bugs` | mistakes that tests must notice; made in test builds alone | the environment |
//! | [`names`] | every string we own | nothing |
//! | [`oci`] | names of images: digests and references | serde |
//! | [`contract`] | the contracts operator -> runner -> helper -> operator | serde |
//! | `api` | the `BundleRun` resource: types, schema, CEL | serde, schemars, kube's derive |
//! | `bundle` | a bundle as an OCI image: pack, push, pull, read one file | files, registries |
//! | `plan` | PURE: observed facts in, steps and status out | no I/O, no clock |
//! | `cluster` | the only Kubernetes I/O: observe, carry out, events | the API server |
//! | `operator` | settings, wiring, reconcile, release loop, lease, metrics, health | everything above |
//! | `docs` | the pages of `docs` that are generated | nothing |
//! | `runner` | PID 1 of the run container: exec, signals, tee, limits, usage | system calls, no kube |
//! | `helper` | the native sidecar: prepare, stage, watch, save, report | files, registries, no kube |
//! | `cli` | `kubectl bundle`: what users type, and what they see | the API server, registries, the terminal |

#[cfg(feature = "operator")]
#[macro_use]
mod bugs;
pub mod contract;
pub mod names;
pub mod oci;

#[cfg(feature = "operator")]
pub mod api;
#[cfg(feature = "operator")]
pub mod bundle;
#[cfg(feature = "operator")]
pub mod cli;
#[cfg(feature = "operator")]
pub mod cluster;
#[cfg(feature = "operator")]
pub mod docs;
#[cfg(feature = "operator")]
pub mod helper;
#[cfg(feature = "operator")]
pub mod operator;
#[cfg(feature = "operator")]
pub mod plan;
pub mod runner;
