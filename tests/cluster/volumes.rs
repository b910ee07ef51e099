//! Volumes that a node cannot attach or mount: the kubelet and the controllers say why by events alone.

use bundlerun::api::status::Blame;
use bundlerun::api::{BundleRunStatus, Phase};
use serde_json::{Value, json};

use crate::common::{Space, cause, together};
use crate::settings;

fn spec(claim: &str) -> Value {
    json!({"command": "true", "retry": {"interruptions": 0}, "volumes": [{"path": "v", "claim": {"name": claim}}]})
}

fn tells_of_the_volume(status: &BundleRunStatus) -> bool {
    let reason = status.waiting.as_ref().and_then(|waiting| waiting.reason.as_deref());
    ["FailedMount", "FailedAttachVolume"].map(Some).contains(&reason)
}

/// Starts a run with this claim, and waits until it tells of the volume.
async fn told(space: &Space, name: &str, says: &str) -> BundleRunStatus {
    space.start(name, spec(name)).await;
    let status = space.until(name, "to tell of its volume", tells_of_the_volume).await;
    let waiting = status.waiting.as_ref().unwrap();
    println!("{name}: {}: {}", waiting.reason.as_deref().unwrap(), waiting.message.as_deref().unwrap());
    assert_eq!((status.phase, waiting.stage.as_deref()), (Some(Phase::Pending), Some("Starting")), "{status:#?}");
    assert!(waiting.message.as_deref().unwrap().contains(says), "{status:#?}");
    assert!(waiting.hint.as_deref().unwrap().contains("the claim and its volume"), "{status:#?}");
    assert!(waiting.deadline.is_some(), "{status:#?}");
    assert_eq!(waiting.until.as_deref(), Some("the deadline, then the attempt ends: VolumeNotMounted"));
    status
}

#[tokio::test]
async fn a_volume_that_cannot_be_mounted_is_told_and_given_up() {
    let space = Space::with_own_operators().await;
    settings::changed(&space, |settings| settings["deadlines"]["starting"] = json!("90s")).await;
    space.claim_of_nothing("too-late").await;
    told(&space, "too-late", "does not exist").await;
    let ended = space.end_of("too-late").await;
    assert_eq!((ended.phase, cause(&ended)), (Some(Phase::Failed), "VolumeNotMounted"), "{ended:#?}");
    let result = ended.result.unwrap();
    assert_eq!(result.blame, Some(Blame::Platform));
    assert!(result.hint.unwrap().contains("the administrator of the storage"));
    assert!(ended.message.unwrap().contains("does not exist"));
    space.end().await;
}

#[tokio::test]
async fn a_volume_that_cannot_be_attached_or_mounted_goes_on_when_it_can() {
    let space = Space::waiting().await;
    let directory = space.claim_of_nothing("mended").await;
    let driver = json!({"csi": {"driver": "nowhere.bundlerun.test", "volumeHandle": "v"}});
    space.claim_of("detached", driver).await;
    together([("mended", "does not exist"), ("detached", "")].map(|(name, says)| told(&space, name, says))).await;
    std::fs::create_dir(directory).unwrap();
    let ended = space.end_of("mended").await;
    assert_eq!((ended.phase, cause(&ended)), (Some(Phase::Succeeded), "Completed"), "{ended:#?}");
    space.stop("detached").await;
    assert_eq!(space.end_of("detached").await.phase, Some(Phase::Stopped));
    space.end().await;
}
