//! What will go wrong is told while the command runs.

use bundlerun::api::BundleRunStatus;
use serde_json::{Value, json};

use crate::common::{Space, cause, condition_of, left};
use crate::settings;

fn running_until_told(command: &str, disk: &str) -> Value {
    json!({"command": format!("{command}; echo >/trace/written; until [ -e /trace/go ]; do {command_again}; sleep 0.2; done",
            command_again = "[ ! -e growing ] || echo more >>growing"),
        "volumes": [{"path": "/trace", "claim": {"name": "trace"}}], "resources": {"disk": disk}})
}

/// The events of type Warning with this reason.
async fn warned_of(space: &Space, run: &str, reason: &str) -> usize {
    let events = space.events(run).await;
    let is_it = |event: &&k8s_openapi::api::events::v1::Event| {
        event.reason.as_deref() == Some(reason) && event.type_.as_deref() == Some("Warning")
    };
    events.iter().filter(is_it).count()
}

fn says(status: &BundleRunStatus, type_: &str, reason: &str, words: &str) -> bool {
    let condition = condition_of(status, type_).filter(|condition| condition.reason == reason);
    condition.is_some_and(|condition| condition.message.contains(words))
        && status.message.as_deref().is_some_and(|message| message.contains(words))
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_is_told_of_once() {
    let space = Space::new().await;
    let trace = space.claim("trace").await;
    space.start("fills", running_until_told("head -c 93M /dev/zero >most", "100Mi")).await;
    left(&trace, "written").await;
    let words = "MiB of 100.0 MiB (resources.disk)";
    let is_told = |status: &BundleRunStatus| says(status, "DiskNearlyFull", "DiskNearlyFull", words);
    space.until("fills", "to be told of the disk", is_told).await;
    std::fs::write(trace.join("go"), "").unwrap();
    let ended = space.end_of("fills").await;
    assert_eq!(cause(&ended), "Completed", "{ended:#?}");
    assert!(condition_of(&ended, "DiskNearlyFull").is_none(), "{ended:#?}");
    assert_eq!(warned_of(&space, "fills", "DiskNearlyFull").await, 1);
    space.end().await;
}

#[tokio::test]
async fn a_deadline_that_will_not_hold_is_told_of_once_a_rate_is_known() {
    let space = Space::with_own_operators().await;
    settings::changed(&space, |settings| {
        settings["store"]["deadline"] = json!("1s");
        settings["store"]["background"] = json!({"quiet": "2s"});
    })
    .await;
    let trace = space.claim("trace").await;
    // The first is pushed, which takes some time; the other grows until the end. Its hole, which costs the disk nothing, is too
    // small for it to be saved as a sparse file.
    let writes = "head -c 70M /dev/urandom >first; truncate -s 1000M growing";
    let mut spec = running_until_told(writes, "200Mi");
    spec["retry"] = json!({"interruptions": 0});
    space.start("late", spec).await;
    left(&trace, "written").await;
    let is_told = |status: &BundleRunStatus| says(status, "OutputSaved", "SaveDeadlineExceeded", "saving has 1s");
    let told = space.until("late", "to be told of the deadline", is_told).await;
    println!("{}", told.message.as_deref().unwrap_or_default());
    assert_eq!(warned_of(&space, "late", "SaveDeadlineExceeded").await, 1);
    space.end().await;
}
