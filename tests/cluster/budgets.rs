//! What a run costs the API server, counted in its audit log.

use std::collections::BTreeMap;
use std::time::Duration;

use bundlerun::api::Phase;
use k8s_openapi::api::core::v1::ResourceQuota;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use crate::audit::{self, text};
use crate::common::{Space, eventually, together, watch_until};

/// The operator's requests, as `verb resource[/subresource]`, that `are_meant` by their event in the audit log.
fn requests(are_meant: impl Fn(&Value) -> bool) -> Vec<String> {
    let said = |event: &Value| {
        let subresource = text(event, "/objectRef/subresource");
        let slash = if subresource.is_empty() { "" } else { "/" };
        format!("{} {}{slash}{subresource}", text(event, "/verb"), text(event, "/objectRef/resource"))
    };
    audit::of_operator(are_meant).iter().map(said).collect()
}

/// How many writes more a run may cost: one for a start that takes ten seconds, one for a short run whose end is told when
/// it has been seen running for two, one for a save that takes ten.
async fn slowness(space: &Space, name: &str) -> usize {
    let status = space.end_of(name).await;
    let timeline = status.timeline.unwrap();
    let start = [timeline.waiting_milliseconds, timeline.scheduling_milliseconds, timeline.pulling_milliseconds];
    let start: u64 = start.iter().flatten().sum();
    // As the operator sees it: from the kubelet's start, in whole seconds, to the write of the end. Until two seconds
    // have passed it writes nothing.
    let pod = space.pods().get(&format!("{name}-1")).await.unwrap();
    let run = pod.status.unwrap().container_statuses.unwrap().swap_remove(0);
    let ended = run.state.unwrap().terminated.unwrap();
    let [started, finished] = [ended.started_at, ended.finished_at].map(|time| time.unwrap().0.as_second());
    let told = status.conditions.iter().find(|c| c.type_ == "Complete").unwrap().last_transition_time.0.as_second();
    let seen_running = name.starts_with("short") && told - started >= 2;
    [start >= 9000, seen_running, told - finished >= 9].into_iter().map(usize::from).sum()
}

/// A start that takes ten seconds has the operator look why.
fn assert_few_looks(counts: &mut BTreeMap<String, usize>, slow: usize) {
    let looks = counts.remove("list events").unwrap_or_default();
    assert!(looks <= slow, "{looks} looks at events, {slow} slow starts or ends");
}

fn counted(requests: Vec<String>) -> BTreeMap<String, usize> {
    requests.into_iter().fold(BTreeMap::new(), |mut counts, request| {
        *counts.entry(request).or_default() += 1;
        counts
    })
}

#[tokio::test]
async fn a_run_that_never_waits_costs_four_writes_one_event_and_no_read() {
    let space = Space::quiet().await;
    let short: Vec<_> = (0..5).map(|i| format!("short-{i}")).collect();
    let long: Vec<_> = (0..5).map(|i| format!("long-{i}")).collect();
    for name in &short {
        space.run(name, json!({"command": "true"})).await;
    }
    together(long.iter().map(|name| space.run(name, json!({"command": "sleep 6"})))).await;

    // The event is the last of a run's requests, and the log is written a moment later.
    let all = eventually("all requests to be in the audit log", async || {
        let all = requests(|event| text(event, "/objectRef/namespace") == space.name);
        let events = all.iter().filter(|what| *what == "create events").count();
        if events >= 10 { Ok(all) } else { Err(events) }
    })
    .await;
    let mut counts = counted(all);
    println!("requests of the operator for 5 short and 5 long runs: {counts:#?}");
    let slow = together(short.iter().chain(&long).map(|name| slowness(&space, name))).await.into_iter().sum::<usize>();
    println!("writes more that a busy node is good for: {slow}");
    let writes = counts["patch bundleruns/status"];
    assert_few_looks(&mut counts, slow);
    assert!((15..=15 + slow).contains(&writes), "{writes} status writes");
    let exact = [("create events", 10), ("create pods", 10), ("patch pods", 10), ("patch bundleruns/status", writes)];
    assert_eq!(counts, exact.map(|(what, n)| (what.to_owned(), n)).into());

    let object = space.runs().get("long-0").await.unwrap();
    let pod = space.pods().get("long-0-1").await.unwrap();
    let size = |value: Value| serde_json::to_string(&value).unwrap().len();
    let object_bytes = size(serde_json::to_value(&object).unwrap());
    let mut pod = serde_json::to_value(&pod).unwrap();
    pod["status"] = Value::Null;
    pod["metadata"]["managedFields"] = Value::Null;
    let pod_bytes = size(pod);
    println!("bytes: object {object_bytes}, pod without status {pod_bytes}");
    // A sixteenth over 4 KiB: each of its conditions says of which generation it is.
    assert!(object_bytes < 4352 && pod_bytes < 7 * 1024, "object {object_bytes}, pod {pod_bytes}");
    space.end().await;
}

#[tokio::test]
async fn a_run_that_is_told_of_its_disk_costs_one_write_and_one_event_more() {
    let space = Space::quiet().await;
    // It is told of within half a minute: the probe fails twice, ten seconds apart.
    space
        .run("long-full", json!({"command": "head -c 93M /dev/zero >most; sleep 75", "resources": {"disk": "100Mi"}}))
        .await;
    let all = eventually("all requests to be in the audit log", async || {
        let all = requests(|event| text(event, "/objectRef/namespace") == space.name);
        let events = all.iter().filter(|what| *what == "create events").count();
        if events >= 2 { Ok(all) } else { Err(events) }
    })
    .await;
    let mut counts = counted(all);
    println!("requests of the operator for a run whose disk is nearly full: {counts:#?}");
    let slow = slowness(&space, "long-full").await;
    let writes = counts["patch bundleruns/status"];
    assert_few_looks(&mut counts, slow);
    assert!((3..=3 + slow).contains(&writes), "{writes} status writes");
    let exact = [("create events", 2), ("create pods", 1), ("patch pods", 1), ("patch bundleruns/status", writes)];
    assert_eq!(counts, exact.map(|(what, n)| (what.to_owned(), n)).into());
    space.end().await;
}

#[tokio::test]
async fn an_operator_with_nothing_to_do_makes_no_requests_but_its_watches() {
    let space = Space::exclusive().await;
    // Runs in every phase that lasts: a finished one, a running one, a waiting one.
    space.run("finished", json!({"command": "true"})).await;
    space.start("running", json!({"command": "sleep 1h"})).await;
    space.start("waiting", json!({"command": "true", "resources": {"gpus": 64}})).await;
    space.until("running", "to run", |s| s.phase == Some(Phase::Running)).await;
    space.until("waiting", "to wait", |s| s.waiting.is_some()).await;

    let from = Timestamp::now();
    tokio::time::sleep(Duration::from_mins(1)).await; // the span that is measured
    let counts = counted(requests(|event| audit::received(event) > from && text(event, "/verb") != "watch"));
    println!("requests of the operator in an idle minute, watches apart: {counts:?}");
    assert!(counts.is_empty(), "{counts:#?}");
    space.end().await;
}

/// Three runs that wait side by side, for a quota, for a node and for a registry, and what each has asked of the API server
/// since its start and for so many seconds: name, writes, all requests.
async fn waited(seconds: u64) -> Vec<(&'static str, usize, usize)> {
    let quota = Space::quiet().await;
    let (node, registry) = (quota.beside().await, quota.beside().await);
    let quotas: Api<ResourceQuota> = quota.api();
    let no_pods = json!({"metadata": {"name": "no-pods"}, "spec": {"hard": {"pods": "0"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(no_pods).unwrap()).await.unwrap();
    watch_until(quotas, "no-pods", "to count", |q: Option<&ResourceQuota>| {
        q.and_then(|q| q.status.as_ref()).is_some_and(|s| s.hard.is_some())
    })
    .await;
    let host = std::env::var("NODE_IP").unwrap();
    quota.start("waits", json!({"command": "true"})).await;
    node.start("waits", json!({"command": "true", "resources": {"gpus": 64}})).await;
    registry.start("waits", json!({"command": "true", "image": format!("{host}:1/team/image:v1")})).await;
    quota.waits_at("waits", "Admission").await;
    node.waits_at("waits", "Scheduling").await;
    registry.waits_at("waits", "ImagePull").await;
    tokio::time::sleep(Duration::from_secs(seconds)).await; // the span that is measured
    let counts = [("quota", &quota), ("node", &node), ("registry", &registry)].map(|(name, space)| {
        let all = requests(|event| text(event, "/objectRef/namespace") == space.name);
        let writes = all.iter().filter(|what| what.ends_with("bundleruns/status")).count();
        println!("{name}: {writes} writes, {} requests in {seconds} s: {:?}", all.len(), counted(all.clone()));
        (name, writes, all.len())
    });
    together([quota, node, registry].map(Space::end)).await;
    counts.to_vec()
}

/// What a wait may cost in so many seconds: it is told again after a quarter of the time that it has lasted, after fifteen
/// seconds at the soonest and five minutes at the latest, and a refused pod is tried again after an eighth of it, after
/// fifteen seconds to one minute.
fn may_cost(seconds: u64) -> (usize, usize) {
    let steps = |part: u64, least: u64, most: u64| {
        let (mut at, mut steps) = (0, 0);
        while at < seconds {
            at += (at / part).clamp(least, most);
            steps += 1;
        }
        steps
    };
    // The first, and one that a busy node is good for.
    let writes = steps(4, 15, 300) + 2;
    (writes, writes + steps(8, 15, 60) + 2)
}

async fn cost_no_more_than_they_may(seconds: u64) {
    let (writes, all) = may_cost(seconds);
    println!("each may cost {writes} writes and {all} requests");
    for (name, written, asked) in waited(seconds).await {
        assert!(written <= writes && asked <= all, "{name}: {written} writes, {asked} requests");
    }
}

#[tokio::test]
async fn runs_that_wait_cost_a_few_requests_and_fewer_with_time() {
    cost_no_more_than_they_may(75).await;
}

/// By its end all of them are asked as seldom as they ever are: an hour costs a write more in each five minutes, and a try in
/// each minute. `plan::tests::budgets` has the whole hour.
#[tokio::test]
#[ignore = "takes twenty minutes: make test-cluster-long"]
async fn runs_that_wait_for_long_cost_hardly_more() {
    cost_no_more_than_they_may(1200).await;
}
