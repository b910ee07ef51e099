//! Figures, not claims: `tests/cluster/run bench --ignored`.

use std::time::Instant;

use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::common::{Space, watch_until};

const ROUNDS: usize = 11;

/// The same two containers without anything of ours: a sidecar with a postStart hook that ends when it is told to.
fn bare_pod(name: &str) -> Pod {
    let image = "localhost:5000/debian:bookworm";
    let waits = "trap 'exit 0' TERM; touch /tmp/up; sleep 1000 & wait";
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never", "automountServiceAccountToken": false,
            "initContainers": [{"name": "bundle", "image": image, "command": ["bash", "-c", waits], "restartPolicy": "Always",
                "lifecycle": {"postStart": {"exec": {"command": ["bash", "-c", "until [ -e /tmp/up ]; do sleep 0.01; done"]}}}}],
            "containers": [{"name": "run", "image": image, "command": ["true"]}],
        }
    }))
    .unwrap()
}

async fn bare(space: &Space, name: &str) -> f64 {
    let begin = Instant::now();
    space.pods().create(&PostParams::default(), &bare_pod(name)).await.unwrap();
    watch_until(space.pods(), name, "to succeed", |pod: Option<&Pod>| {
        pod.and_then(|pod| pod.status.as_ref()?.phase.as_deref()) == Some("Succeeded")
    })
    .await;
    begin.elapsed().as_secs_f64()
}

async fn run(space: &Space, name: &str, inputs: Value) -> f64 {
    let command = if inputs.as_array().unwrap().is_empty() { "head -c 1000 /dev/zero >out" } else { "cp in/out out" };
    let begin = Instant::now();
    space.run(name, json!({"command": command, "inputs": inputs})).await;
    begin.elapsed().as_secs_f64()
}

#[tokio::test]
#[ignore = "a benchmark: it prints figures and claims nothing"]
async fn bench_what_staging_and_saving_one_kilobyte_add_to_a_run() {
    let space = Space::exclusive().await;
    space.run("parent", json!({"command": "head -c 1000 /dev/zero >out"})).await;
    let from_parent = json!([{"path": "in", "run": {"name": "parent"}}]);
    let mut seconds: [Vec<f64>; 3] = Default::default();
    for round in 0..ROUNDS {
        seconds[0].push(bare(&space, &format!("bare-{round}")).await);
        seconds[1].push(run(&space, &format!("saves-{round}"), json!([])).await);
        seconds[2].push(run(&space, &format!("stages-{round}"), from_parent.clone()).await);
    }
    for (what, seconds) in
        ["two bare containers", "a run that saves 1 KB", "a run that stages and saves 1 KB"].iter().zip(&mut seconds)
    {
        seconds.sort_by(f64::total_cmp);
        println!(
            "{what}: min {:.2} s, median {:.2} s, max {:.2} s",
            seconds[0],
            seconds[ROUNDS / 2],
            seconds[ROUNDS - 1]
        );
    }
    println!(
        "medians over the bare pod's: saving {:+.2} s, staging and saving {:+.2} s",
        seconds[1][ROUNDS / 2] - seconds[0][ROUNDS / 2],
        seconds[2][ROUNDS / 2] - seconds[0][ROUNDS / 2]
    );
    space.end().await;
}
