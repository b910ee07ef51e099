//! A list of many pages after the API server forgot what the watch had seen, with runs made meanwhile.

use std::time::Duration;

use bundlerun::api::{BundleRun, Phase};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use rustix::process::{Signal, kill_process};
use serde_json::json;

use crate::audit::{self, text};
use crate::common::{Space, eventually, operator_pods, output, run, the_operators, together};
use crate::node::{container_id, first_process};

/// More than two pages of the watch's list.
const MANY: usize = 1_001;

#[tokio::test]
async fn runs_made_while_a_list_of_many_pages_comes_in_start() {
    let space = Space::exclusive().await;
    // They wait for a run that nobody makes: no pod, one write each.
    let waits = json!({"command": "true", "inputs": [{"path": "a", "run": {"name": "nobody"}}]});
    for chunk in (0..MANY).collect::<Vec<_>>().chunks(50) {
        together(chunk.iter().map(async |i| space.start(&format!("many-{i:04}"), waits.clone()).await)).await;
    }
    space.waits_at(&format!("many-{:04}", MANY - 1), "Inputs").await;

    let operators = the_operators(&space.client).await;
    let process = first_process(&container_id(&operators[0], "operator"));
    kill_process(process, Signal::STOP).unwrap();
    // A new API server knows nothing of before: a watch that goes on from there gets a 410.
    space.start("a-while-paused", json!({"command": "true"})).await;
    output("deploy/local/cluster", &["restart", "kube-apiserver", "--name", &std::env::var("CLUSTER_NAME").unwrap()]);
    let runs: Api<BundleRun> = space.runs();
    eventually("the API server to be back", async || {
        runs.create(&PostParams::default(), &run("a-when-back", json!({"command": "true"})))
            .await
            .map(drop)
            .map_err(|e| e.to_string())
    })
    .await;
    let resumed = Timestamp::now();
    kill_process(process, Signal::CONT).unwrap();

    let mut made = vec!["a-while-paused".to_owned(), "a-when-back".to_owned()];
    for i in 0..20 {
        let name = format!("a-meanwhile-{i:02}");
        space.start(&name, json!({"command": "true"})).await;
        made.push(name);
        tokio::time::sleep(Duration::from_millis(100)).await; // spread over the list
    }
    let ended = together(made.iter().map(|name| space.end_of(name))).await;
    assert!(ended.iter().all(|status| status.phase == Some(Phase::Succeeded) && status.attempt == Some(1)));
    // A watch whose version is still known goes on and lists nothing: only a 410 makes the same process list again.
    let operator = operators[0].name_any();
    let pages = audit::of_operator(|event| {
        text(event, "/verb") == "list"
            && text(event, "/objectRef/resource") == "bundleruns"
            && audit::pod(event) == operator
            && audit::received(event) >= resumed
    });
    let now = operator_pods(&space.client).get(&operator).await.unwrap();
    assert_eq!(first_process(&container_id(&now, "operator")), process, "the operator was started again");
    assert!(pages.len() > MANY / 500, "no list of several pages after the pause: {pages:#?}");
    space.runs().delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    space.end().await;
}
