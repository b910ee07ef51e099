//! `suspend`, at every phase: what is there is saved, nothing is charged, and the next attempt goes on.

use bundlerun::api::{BundleRunStatus, Phase};
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use crate::awaited_inputs::free_address;
use crate::common::{Space, cause, condition_of, saved_file, stdout, together};

async fn set(space: &Space, run: &str, suspend: bool) {
    let patch = Patch::Merge(json!({"spec": {"suspend": suspend}}));
    space.runs().patch(run, &PatchParams::default(), &patch).await.unwrap();
}

async fn held(space: &Space, run: &str) -> BundleRunStatus {
    let held = space.waits_at(run, "Suspended").await;
    let waiting = held.waiting.as_ref().unwrap();
    assert_eq!((held.phase, waiting.until.as_deref()), (Some(Phase::Waiting), Some("no deadline")), "{held:#?}");
    assert!(held.suspended_at.is_some(), "{held:#?}");
    let told = |type_: &str| condition_of(&held, type_).map(|c| (c.status.clone(), c.reason.clone())).unwrap();
    assert_eq!(told("Ready"), ("Unknown".to_owned(), "Suspended".to_owned()));
    assert_eq!(told("Reconciling").0, "False");
    held
}

/// A run that counts, one number a second, in a file that it goes on with.
fn counts() -> serde_json::Value {
    let command = "trap 'echo asked; exit 1' TERM; n=$(cat n 2>/dev/null || echo 0); echo \"begins at $n\"; \
        while [ \"$n\" -lt 1000 ]; do n=$((n + 1)); echo $n >n.new; mv n.new n; \
        [ -e /trace/end ] && exit 0; sleep 0.1; done";
    json!({"command": command, "retry": {"interruptions": 0, "resume": true},
        "volumes": [{"path": "/trace", "claim": {"name": "trace"}}]})
}

#[tokio::test]
async fn a_run_that_is_suspended_resumes_where_it_was_and_is_charged_nothing() {
    let space = Space::new().await;
    let trace = space.claim("trace").await;
    space.start("counts", counts()).await;
    for attempt in 1..=2 {
        let runs = |s: &BundleRunStatus| s.phase == Some(Phase::Running) && s.attempt == Some(attempt);
        space.until("counts", "to run", runs).await;
        set(&space, "counts", true).await;
        let status = held(&space, "counts").await;
        assert_eq!((status.attempt, status.suspensions), (Some(attempt + 1), Some(attempt)), "{status:#?}");
        let last = status.attempts.last().unwrap();
        let message = last.message.as_deref().unwrap();
        assert_eq!((last.cause.as_deref(), last.bundle.is_some()), (Some("Suspended"), true), "{status:#?}");
        assert!(message.starts_with("ended because suspend was set: the command exited with 1"), "{message}");
        // Nothing runs, and nothing is held.
        space
            .pod_until(&format!("counts-{attempt}"), "to be over and let go", |pod| {
                let is_over = pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Failed");
                is_over && pod.metadata.finalizers.as_ref().is_none_or(Vec::is_empty)
            })
            .await;
        assert_eq!(space.pods().list(&ListParams::default()).await.unwrap().items.len(), attempt as usize);
        set(&space, "counts", false).await;
    }
    let runs = |s: &BundleRunStatus| s.phase == Some(Phase::Running) && s.attempt == Some(3);
    let third = space.until("counts", "to run", runs).await;
    assert_eq!(third.suspended_at, None);
    std::fs::write(trace.join("end"), "").unwrap();
    let ended = space.end_of("counts").await;
    assert_eq!((cause(&ended), ended.attempts.len(), ended.suspensions), ("Completed", 3, Some(2)), "{ended:#?}");
    let resumed = ended.attempts.iter().skip(1).all(|attempt| attempt.resumed_from.is_some());
    assert!(resumed, "each goes on from the last snapshot of the one before: {ended:#?}");
    assert!(!stdout(&ended).contains("begins at 0"), "{ended:#?}");
    assert!(saved_file(&ended, "n").trim().parse::<u32>().unwrap() > 2);
    space.end().await;
}

#[tokio::test]
async fn suspend_holds_a_run_in_every_phase_before_its_command() {
    let space = Space::new().await;
    let silent = json!({"href": format!("http://{}/f", free_address()), "sha256": "0".repeat(64)});
    let cases = [
        ("made-so", json!({"command": "echo done", "suspend": true})),
        ("unschedulable", json!({"command": "echo done", "nodeSelector": {"no": "where"}})),
        ("no-server", json!({"command": "echo done", "inputs": [{"path": "a", "url": silent}]})),
        ("no-input", json!({"command": "echo done", "inputs": [{"path": "a", "run": {"name": "nobody"}}]})),
    ];
    together(cases.into_iter().map(async |(name, spec)| {
        space.start(name, spec.clone()).await;
        if spec.get("suspend").is_none() {
            space.until(name, "to wait", |s| s.waiting.is_some()).await;
            set(&space, name, true).await;
        }
        held(&space, name).await;
        set(&space, name, false).await;
        if name == "made-so" {
            let ended = space.end_of(name).await;
            assert_eq!((cause(&ended), ended.attempt), ("Completed", Some(1)), "{ended:#?}");
            return;
        }
        // What it waited for before, it waits for again.
        let again = |s: &BundleRunStatus| s.waiting.as_ref().is_some_and(|w| w.stage.as_deref() != Some("Suspended"));
        let status = space.until(name, "to wait as before", again).await;
        assert_eq!(status.suspended_at, None, "{status:#?}");
        set(&space, name, true).await;
        held(&space, name).await;
        space.stop(name).await;
        let ended = space.end_of(name).await;
        assert_eq!((ended.phase, cause(&ended)), (Some(Phase::Stopped), "Stopped"), "{ended:#?}");
    }))
    .await;
    space.end().await;
}
