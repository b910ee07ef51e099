//! Large files are in the store before the command ends.

use std::time::{SystemTime, UNIX_EPOCH};

use bundlerun::api::Phase;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::common::{Space, cause, eventually, left, output, stdout};
use crate::node;
use crate::settings;

/// The layers that a helper keeps the digests of.
fn kept(pod: &Pod) -> Vec<String> {
    let text = std::fs::read(node::volume(pod, "bin").join("digests.json")).unwrap_or_else(|_| b"[]".to_vec());
    let kept: Vec<(String, Value)> = serde_json::from_slice(&text).unwrap();
    kept.into_iter().map(|(_, layer)| layer["blobs"][0]["digest"].as_str().unwrap().to_owned()).collect()
}

/// Waits until so many layers of a running run are in the store, and returns them.
async fn pushed(space: &Space, pod: &Pod, count: usize) -> Vec<String> {
    let registry = std::env::var("REGISTRY_HOST").unwrap();
    let are_there = async |layers: &[String]| {
        for digest in layers {
            let blob = format!("http://{registry}/v2/bundles/{}/blobs/{digest}", space.name);
            if !reqwest::Client::new().head(blob).send().await.unwrap().status().is_success() {
                return false;
            }
        }
        layers.len() == count
    };
    eventually("large files to be pushed", async || {
        let layers = kept(pod);
        if are_there(&layers).await { Ok(layers) } else { Err(layers) }
    })
    .await
}

#[tokio::test]
async fn large_files_are_in_the_store_before_the_command_ends() {
    let space = Space::new().await;
    let trace = space.claim("trace").await;
    let writes = "for i in 1 2 3; do head -c 70M /dev/urandom >$i; done; sha256sum 1 2 3; echo small >small; \
        echo written >/trace/written; until [ -e /trace/go ]; do sleep 0.1; done";
    let large = json!({"cpus": "200m", "memory": "256Mi", "disk": "500Mi"});
    let volumes = json!([{"path": "/trace", "claim": {"name": "trace"}}]);
    space.start("make", json!({"command": writes, "volumes": volumes, "resources": large})).await;
    left(&trace, "written").await;
    space.until("make", "to run", |status| status.phase == Some(Phase::Running)).await;
    let version = space.runs().get("make").await.unwrap().resource_version();
    let pod = space.pods().get("make-1").await.unwrap();
    let early = pushed(&space, &pod, 3).await;
    assert_eq!(space.runs().get("make").await.unwrap().resource_version(), version, "written meanwhile");

    std::fs::write(trace.join("go"), "").unwrap();
    let made = space.end_of("make").await;
    assert_eq!(cause(&made), "Completed", "{made:#?}");
    let bundle = made.output.as_ref().unwrap().bundle.clone().unwrap();
    let manifest: Value = serde_json::from_str(&output("crane", &["manifest", "--insecure", &bundle])).unwrap();
    let layers: Vec<&str> =
        manifest["layers"].as_array().unwrap().iter().map(|layer| layer["digest"].as_str().unwrap()).collect();
    assert!(early.iter().all(|layer| layers.contains(&layer.as_str())), "{early:?} {layers:?}");
    let reads = json!({"command": "cd in; sha256sum 1 2 3", "inputs": [{"path": "in", "run": {"name": "make"}}],
        "resources": large});
    let read = space.run("read", reads).await;
    assert_eq!(stdout(&read), stdout(&made));
    space.end().await;
}

/// Seconds from the end of a command that has written files and then done other work, until its containers have ended,
/// and until the run is Succeeded.
async fn after_the_end(space: &Space, name: &str, writes: &str, disk: &str) -> (f64, f64) {
    let trace = space.claim(name).await;
    let command = format!("set -e; {writes}; sleep 90; date +%s.%N >/trace/end");
    let spec = json!({"command": command, "volumes": [{"path": "/trace", "claim": {"name": name}}],
        "resources": {"cpus": "1", "memory": "256Mi", "disk": disk}});
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    space.start(name, spec).await;
    let pod = format!("{name}-1");
    let free = async {
        let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
        let is_over = |pod: &Pod| matches!(phase(pod).as_deref(), Some("Succeeded" | "Failed"));
        space.pod_until(&pod, "to end", is_over).await;
        now()
    };
    let ended = async { (space.end_of(name).await, now()) };
    let (free, (status, ended)) = tokio::join!(free, ended);
    assert_eq!(cause(&status), "Completed", "{status:#?}");
    let end: f64 = std::fs::read_to_string(trace.join("end")).unwrap().trim().parse().unwrap();
    (free - end, ended - end)
}

#[tokio::test]
#[ignore = "a benchmark: it prints figures and claims nothing"]
async fn bench_from_the_end_of_a_command_to_succeeded() {
    let space = Space::exclusive().await;
    let four = "for i in 1 2 3 4; do head -c 1G /dev/urandom >$i; done";
    let many = "for i in $(seq 130); do head -c $((70 + i % 31))M /dev/urandom >$i; done";
    for (name, enabled, writes, disk) in
        [("four-off", false, four, "6Gi"), ("four-on", true, four, "6Gi"), ("many-on", true, many, "16Gi")]
    {
        let space = space.beside().await;
        settings::changed_alone(&space, |settings| {
            settings["store"]["background"] = json!({"enabled": enabled});
            settings["store"]["deadline"] = json!("10m");
        })
        .await;
        let (free, ended) = after_the_end(&space, name, writes, disk).await;
        println!("{name}: from the command's end, devices are free after {free:.2} s, Succeeded after {ended:.2} s");
        space.end().await;
    }
    space.end().await;
}
