//! GPU counts and device nodes.

use bundlerun::api::Phase;
use serde_json::json;

use crate::common::{Space, eventually, stdout};

const DEVICES: &str = "ls /dev | grep -E '^nvidia[0-9]+$' | sort -u | wc -l; echo $BUNDLE_GPUS $NVIDIA_VISIBLE_DEVICES";

#[tokio::test]
async fn two_gpus_are_exactly_two_devices_and_none_are_none() {
    let space = Space::new().await;
    let (two, none) = tokio::join!(
        space.run("two", json!({"command": DEVICES, "resources": {"gpus": 2}})),
        space.run("none", json!({"image": "localhost:5000/gpu:local", "command": DEVICES})),
    );
    let (devices, visible) = stdout(&two).split_once("\n2 ").unwrap();
    assert_eq!(devices, "2");
    let mut uuids: Vec<_> = visible.trim().split(',').collect();
    uuids.dedup();
    assert_eq!(uuids.len(), 2, "{visible}");
    // The image bakes in NVIDIA_VISIBLE_DEVICES=all.
    assert_eq!(stdout(&none), "0\n0 void\n");
    space.end().await;
}

#[tokio::test]
async fn more_gpus_than_the_node_has_wait_with_the_schedulers_words() {
    let space = Space::new().await;
    space.start("greedy", json!({"command": "true", "resources": {"gpus": 5}})).await;
    let waiting = space.waits_at("greedy", "Scheduling").await;
    assert_eq!(waiting.phase, Some(Phase::Pending));
    assert_eq!(waiting.reason.as_deref(), Some("Unschedulable"));
    assert!(waiting.message.unwrap().contains("Insufficient nvidia.com/gpu"));
    let event = eventually("the event", async || space.events("greedy").await.pop().ok_or("none yet")).await;
    assert_eq!((event.type_.as_deref(), event.reason.as_deref()), (Some("Warning"), Some("Unschedulable")));
    space.end().await;
}
