//! Figures, not claims: `tests/cluster/run bench --ignored`.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::common::{Space, watch_until};

const ROUNDS: u32 = 11;

const IMAGE: &str = "localhost:5000/debian:bookworm";

/// What a run has by default, more than the runs of other tests: the runtime starts a container within its limit of CPU
/// time, and one of a fiftieth of a CPU takes a second longer for that alone.
fn resources() -> Value {
    json!({"cpus": "1", "memory": "128Mi"})
}

/// A pod without anything of ours, with the resources of a run.
fn pod(name: &str, command: &[&str], sidecars: &Value) -> Pod {
    let resources = json!({"limits": {"cpu": "1", "memory": "128Mi"}});
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never", "automountServiceAccountToken": false, "initContainers": sidecars,
            "containers": [{"name": "run", "image": IMAGE, "command": command, "resources": resources}],
        }
    }))
    .unwrap()
}

/// The two containers of a run: a sidecar with a postStart hook that ends when it is told to.
fn two_containers(name: &str) -> Pod {
    let waits = "trap 'exit 0' TERM; touch /tmp/up; sleep 1000 & wait";
    let until_up = ["bash", "-c", "until [ -e /tmp/up ]; do sleep 0.01; done"];
    let sidecar = json!({"name": "bundle", "image": IMAGE, "command": ["bash", "-c", waits], "restartPolicy": "Always",
        "lifecycle": {"postStart": {"exec": {"command": until_up}}}});
    pod(name, &["true"], &json!([sidecar]))
}

/// The kubelet looks at its containers once a second, and what begins just after the end of another is seen at the best
/// or at the worst moment each time: all of a round begin at the same moment of a second, each round at another.
async fn moment_of(round: u32) {
    let second = Duration::from_secs(1);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    let moment = second + second * round / ROUNDS;
    tokio::time::sleep(moment.saturating_sub(Duration::from_nanos(now.into()))).await;
}

/// Seconds from creating a pod to its success.
async fn bare(space: &Space, round: u32, pod: &Pod) -> f64 {
    moment_of(round).await;
    let begin = Instant::now();
    let name = pod.metadata.name.clone().unwrap();
    space.pods().create(&PostParams::default(), pod).await.unwrap();
    watch_until(space.pods(), &name, "to succeed", |pod: Option<&Pod>| {
        pod.and_then(|pod| pod.status.as_ref()?.phase.as_deref()) == Some("Succeeded")
    })
    .await;
    begin.elapsed().as_secs_f64()
}

/// Seconds from creating a run to its success, with its output saved.
async fn run(space: &Space, round: u32, name: &str, command: &str, inputs: Value) -> f64 {
    let name = &format!("{name}-{round}");
    let spec = json!({"image": IMAGE, "command": command, "inputs": inputs, "resources": resources()});
    moment_of(round).await;
    let begin = Instant::now();
    let ended = space.run(name, spec).await;
    let seconds = begin.elapsed().as_secs_f64();
    assert!(ended.output.as_ref().is_some_and(|output| output.bundle.is_some()), "{ended:#?}");
    seconds
}

/// Prints a line for each of what was measured, and returns their medians.
fn figures<const N: usize>(measured: [(&str, Vec<f64>); N]) -> [f64; N] {
    measured.map(|(what, mut seconds)| {
        seconds.sort_by(f64::total_cmp);
        let (rounds, median) = (seconds.len(), seconds[seconds.len() / 2]);
        let (min, max) = (seconds[0], seconds[rounds - 1]);
        println!("{what}: {rounds} rounds, min {min:.2} s, median {median:.2} s, max {max:.2} s");
        median
    })
}

#[tokio::test]
#[ignore = "a benchmark: it prints figures and claims nothing"]
async fn bench_what_staging_and_saving_one_kilobyte_add_to_a_run() {
    let space = Space::exclusive().await;
    let makes = "head -c 1000 /dev/zero >out";
    run(&space, 0, "parent", makes, json!([])).await;
    // Of a part of a bundle nobody knows yet whether it is a file: it is staged, whatever the node can mount.
    let from_parent = json!([{"path": "in/out", "run": {"name": "parent-0", "path": "out"}}]);
    let (mut bares, mut saves, mut stages) = (vec![], vec![], vec![]);
    for round in 0..ROUNDS {
        bares.push(bare(&space, round, &two_containers(&format!("bare-{round}"))).await);
        saves.push(run(&space, round, "saves", makes, json!([])).await);
        stages.push(run(&space, round, "stages", "cp in/out out", from_parent.clone()).await);
    }
    let [bare, saves, stages] = figures([
        ("two bare containers", bares),
        ("a run that saves 1 KB", saves),
        ("a run that stages and saves 1 KB", stages),
    ]);
    println!("medians over the bare pod's: saving {:+.2} s, staging and saving {:+.2} s", saves - bare, stages - bare);
    space.end().await;
}

#[tokio::test]
#[ignore = "a benchmark: it prints figures and claims nothing"]
async fn bench_from_apply_to_succeeded() {
    let space = Space::exclusive().await;
    let (mut bares, mut runs) = (vec![], vec![]);
    for round in 0..ROUNDS {
        let pod = pod(&format!("bare-{round}"), &["sh", "-c", "echo hi"], &json!([]));
        bares.push(bare(&space, round, &pod).await);
        runs.push(run(&space, round, "run", "echo hi", json!([])).await);
    }
    let [bare, run] = figures([("a bare pod to Succeeded", bares), ("a run to Succeeded, its output saved", runs)]);
    println!("the run takes {:.2} of the bare pod's time, by their medians", run / bare);
    space.end().await;
}
