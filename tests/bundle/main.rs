//! Bundles in a real registry (CNCF distribution), judged by programs that are not ours.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::string_slice)]

mod archives;
mod attempts;
#[allow(dead_code)] // it is for other tests, too
#[path = "../blocks/mod.rs"]
mod blocks;
mod common;
mod disk_faults;
mod early;
mod egress;
mod faults;
#[path = "../faulty_disk/mod.rs"]
mod faulty_disk;
#[path = "../sandbox/helper.rs"]
mod helping;
mod hostile;
mod images;
mod large;
mod logins;
mod mapped;
mod parts;
mod proxy;
mod push;
mod races;
mod readers;
mod referrers;
mod registry;
mod round_trip;
#[path = "../sandbox/mod.rs"]
mod sandbox;
mod snapshots;
mod upload;
mod verify;
