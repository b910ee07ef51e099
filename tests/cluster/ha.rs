//! More than one operator at once: harmless without the lease, quiet with it; and what an operator tells of itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bundlerun::api::Phase;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::RoleBinding;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::{Client, ResourceExt};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::audit;
use crate::common::{
    Operators, Space, cause, eventually, is_long, operator_pods, operators, scale_operator, starts, stdout,
    the_operators, together, traced,
};
use crate::node::{container_id, first_process};
use crate::webhook::{Answer, Webhook};

/// Every run succeeded at its first attempt, its command began once, one pod was made for it and one event told.
async fn nothing_happened_twice(space: &Space, trace: &Path, names: &[String]) {
    for name in names {
        let status = space.end_of(name).await;
        assert_eq!((status.phase, status.attempt), (Some(Phase::Succeeded), Some(1)), "{name}: {status:#?}");
        assert_eq!((status.attempts.len(), stdout(&status)), (1, "done\n"), "{name}");
    }
    let expected: Vec<_> = names.iter().map(|name| format!("{name} 1")).collect();
    assert_eq!(starts(trace), expected);
    assert_eq!(space.pods().list(&ListParams::default()).await.unwrap().items.len(), names.len());
    let pods: Vec<_> = names.iter().map(|name| format!("{name}-1")).collect();
    together(pods.iter().map(|pod| space.pod_until(pod, "to be let go", |pod| pod.finalizers().is_empty()))).await;
    let events: Api<k8s_openapi::api::events::v1::Event> = space.api();
    let mut told: BTreeMap<String, usize> = BTreeMap::new();
    for event in events.list(&ListParams::default()).await.unwrap() {
        let regarding = event.regarding.unwrap_or_default();
        if regarding.kind.as_deref() == Some("BundleRun") && event.reason.as_deref() == Some("Completed") {
            *told.entry(regarding.name.unwrap_or_default()).or_default() += 1;
        }
    }
    // An event that a stopped operator could not write any more is lost; none is told twice.
    assert!(told.values().all(|n| *n == 1), "{told:#?}");
    println!("{} runs, {} of their endings told", names.len(), told.len());
}

/// Name of the pod that leads.
async fn leader(client: &Client) -> Option<String> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "bundlerun");
    let holder = leases.get_opt("bundle-operator").await.unwrap()?.spec?.holder_identity?;
    Some(holder.rsplit_once('_')?.0.to_owned())
}

async fn some_leader(client: &Client) -> Pod {
    let name = eventually("a leader", async || leader(client).await.ok_or("none")).await;
    operator_pods(client).get(&name).await.unwrap()
}

/// Waits until the lease names another pod, and says how long that took.
async fn another_leads(client: &Client, before: &Pod) -> (Pod, Duration) {
    let since = Instant::now();
    let name = eventually("another leader", async || {
        leader(client).await.filter(|name| *name != before.name_any()).ok_or("the same or none")
    })
    .await;
    (operator_pods(client).get(&name).await.unwrap(), since.elapsed())
}

async fn metrics(client: &Client, pod: &str) -> String {
    let path = format!("/api/v1/namespaces/bundlerun/pods/{pod}:8080/proxy/metrics");
    client.request_text(http::Request::get(path).body(Vec::new()).unwrap()).await.unwrap()
}

/// The value of a line of an exposition.
fn value(exposition: &str, series: &str) -> f64 {
    let line = exposition.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} is not in\n{exposition}")).parse().unwrap()
}

#[tokio::test]
async fn two_operators_at_once_without_a_lease_do_nothing_twice() {
    let space = Space::exclusive().await;
    operators(&space.client, &Operators { replicas: 2, ..Operators::default() }).await;
    let trace = space.claim("trace").await;
    let runs = if is_long() { 100 } else { 32 };
    let names: Vec<_> = (0..runs).map(|i| format!("run-{i:03}")).collect();
    together(names.iter().map(|name| space.start(name, traced("sleep 1; echo done")))).await;
    // So many pods at once take a small node minutes.
    let since = Instant::now();
    loop {
        let ended =
            space.runs().list(&ListParams::default()).await.unwrap().into_iter().filter_map(|run| run.status?.phase);
        let left = names.len() - ended.filter(|phase| phase.is_terminal()).count();
        if left == 0 {
            break;
        }
        assert!(since.elapsed() < Duration::from_mins(10), "{left} runs have not ended");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    println!("{} runs ended within {:?}", names.len(), since.elapsed());
    nothing_happened_twice(&space, &trace, &names).await;

    // Both were at work, and what both tried only one was given.
    let (mut taken, mut refused, mut by_pod) = (0, 0, BTreeMap::new());
    for event in audit::of_operator(|event| audit::text(event, "/objectRef/namespace") == space.name) {
        let what = (audit::text(&event, "/verb"), audit::text(&event, "/objectRef/resource"));
        let code = event.pointer("/responseStatus/code").and_then(Value::as_u64).unwrap_or_default();
        match (what.0.as_str(), what.1.as_str(), code) {
            ("create", "pods", 201) => taken += 1,
            ("create", "pods", 409) | ("update", "bundleruns", 409) => refused += 1,
            _ => {}
        }
        *by_pod.entry(audit::pod(&event)).or_insert(0) += 1;
    }
    println!("pods made: {taken}; refused as done already: {refused}; requests by operator: {by_pod:?}");
    assert_eq!((taken, by_pod.len()), (names.len(), 2));
    operators(&space.client, &Operators::default()).await;
    space.end().await;
}

#[tokio::test]
async fn the_second_replica_takes_over_from_a_leader_that_is_killed_or_deleted() {
    let space = Space::exclusive().await;
    operators(&space.client, &Operators { replicas: 2, leader_election: true, ..Operators::default() }).await;
    let trace = space.claim("trace").await;
    let names: Vec<_> = (0..12).map(|i| format!("run-{i:03}")).collect();
    let first = some_leader(&space.client).await;
    for pod in the_operators(&space.client).await {
        let leads = value(
            &metrics(&space.client, &pod.name_any()).await,
            "leader_election_master_status{name=\"bundle-operator\"}",
        );
        assert_eq!(leads > 0.0, pod.name_any() == first.name_any());
    }

    together(names[..4].iter().map(|name| space.start(name, traced("sleep 8; echo done")))).await;
    space.until(&names[0], "to run", |s| s.phase == Some(Phase::Running)).await;
    kill_process(first_process(&container_id(&first, "operator")), Signal::KILL).unwrap();
    together(names[4..8].iter().map(|name| space.start(name, traced("echo done")))).await;
    let (second, by_expiry) = another_leads(&space.client, &first).await;
    println!("the leader was killed: another led after {by_expiry:?}");
    assert_ne!(second.name_any(), first.name_any());
    for name in &names[..8] {
        space.end_of(name).await;
    }

    // It is waiting for an answer, which does not come, when it is asked to stop.
    let slow = space.beside().await;
    let webhook = Webhook::start(&slow, Answer::Silent).await;
    slow.start("held", json!({"command": "true"})).await;
    eventually("the webhook to be asked", async || match webhook.asked_before(Timestamp::now()) {
        0 => Err("not yet"),
        _ => Ok(()),
    })
    .await;
    operator_pods(&space.client).delete(&second.name_any(), &DeleteParams::default()).await.unwrap();
    together(names[8..].iter().map(|name| space.start(name, traced("echo done")))).await;
    let (_, took) = another_leads(&space.client, &second).await;
    println!("the leader was asked to stop: another led after {took:?}");
    assert!(took < by_expiry, "it lets the lease go: {took:?}");
    nothing_happened_twice(&space, &trace, &names).await;
    webhook.answers(Answer::Allows);
    assert_eq!(slow.end_of("held").await.phase, Some(Phase::Succeeded));
    webhook.end().await;
    slow.end().await;
    operators(&space.client, &Operators::default()).await;
    space.end().await;
}

#[tokio::test]
async fn a_leader_that_is_paused_for_a_minute_ends_without_a_write_when_it_goes_on() {
    let space = Space::exclusive().await;
    let patient = Operators { replicas: 2, leader_election: true, probe_failures: 30, ..Operators::default() };
    operators(&space.client, &patient).await;
    let trace = space.claim("trace").await;
    let names: Vec<_> = (0..40).map(|i| format!("run-{i:03}")).collect();
    let paused = some_leader(&space.client).await;
    let process = first_process(&container_id(&paused, "operator"));
    // In the midst of work: some runs end, some begin.
    together(names[..8].iter().map(|name| space.start(name, traced("sleep 2; echo done")))).await;
    space.until(&names[0], "to have begun", |s| s.start_time.is_some()).await;
    // With more before it than it can do at once, it has something to write at the moment it goes on.
    let pause = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        kill_process(process, Signal::STOP).unwrap();
    };
    tokio::join!(together(names[8..32].iter().map(|name| space.start(name, traced("sleep 1; echo done")))), pause);
    let since = Instant::now();
    let (other, took) = another_leads(&space.client, &paused).await;
    println!("the leader was paused: another led after {took:?}");
    together(names[32..].iter().map(|name| space.start(name, traced("echo done")))).await;
    nothing_happened_twice(&space, &trace, &names).await;

    tokio::time::sleep(Duration::from_mins(1).saturating_sub(since.elapsed())).await; // the span of the claim
    assert_eq!(
        container_id(&operator_pods(&space.client).get(&paused.name_any()).await.unwrap(), "operator"),
        container_id(&paused, "operator"),
        "it still is the same process"
    );
    let resumed = Timestamp::now();
    kill_process(process, Signal::CONT).unwrap();
    let ended = eventually("the paused leader to end", async || {
        let pod = operator_pods(&space.client).get(&paused.name_any()).await.unwrap();
        let statuses = pod.status.unwrap().container_statuses.unwrap_or_default();
        let last = statuses.first().and_then(|c| c.last_state.clone()?.terminated);
        last.ok_or("it runs")
    })
    .await;
    println!("it ended with {}: {:?}", ended.exit_code, ended.message.unwrap_or_default().lines().last());
    assert_eq!(ended.exit_code, 1);
    tokio::time::sleep(Duration::from_secs(5)).await; // for the audit log, and for writes that must not come
    let writes: Vec<_> = audit::of_operator(|event| audit::received(event) > resumed)
        .into_iter()
        .filter(|event| audit::pod(event) == paused.name_any())
        .filter(|event| !["get", "list", "watch"].contains(&audit::text(event, "/verb").as_str()))
        .collect();
    assert!(writes.is_empty(), "{writes:#?}");
    assert_eq!(leader(&space.client).await, Some(other.name_any()));
    operators(&space.client, &Operators::default()).await;
    space.end().await;
}

/// The one that takes over was paused while the other ended attempts and began others: what it knows is of before.
#[tokio::test]
async fn a_leader_that_missed_what_the_last_one_wrote_starts_nothing_twice() {
    let space = Space::exclusive().await;
    let patient = Operators { replicas: 2, leader_election: true, probe_failures: 30, ..Operators::default() };
    operators(&space.client, &patient).await;
    let trace = space.claim("trace").await;
    let names: Vec<_> = (0..16).map(|i| format!("run-{i:03}")).collect();
    together(names.iter().map(|name| space.start(name, traced("[ $BUNDLE_ATTEMPT = 2 ] || sleep 1h; echo done"))))
        .await;
    together(names.iter().map(|name| space.until(name, "to run", |s| s.start_time.is_some()))).await;

    let first = some_leader(&space.client).await;
    let process = |pod: &Pod| first_process(&container_id(pod, "operator"));
    let all = the_operators(&space.client).await;
    let other = all.iter().find(|pod| pod.name_any() != first.name_any()).unwrap();
    let (leader, standby) = (process(&first), process(other));
    kill_process(standby, Signal::STOP).unwrap();
    together(names.iter().map(async |name| {
        space.pods().delete(&format!("{name}-1"), &DeleteParams::default()).await.unwrap();
        space.until(name, "to end in its second attempt", |s| s.phase == Some(Phase::Succeeded)).await
    }))
    .await;
    kill_process(leader, Signal::STOP).unwrap();
    kill_process(standby, Signal::CONT).unwrap();
    another_leads(&space.client, &first).await;

    // The new leader goes through all runs before it makes the pod of a new one.
    space.run("after", traced("echo done")).await;
    for name in &names {
        let status = space.end_of(name).await;
        assert_eq!((status.phase, status.attempt), (Some(Phase::Succeeded), Some(2)), "{name}: {status:#?}");
    }
    let mut expected: Vec<_> = names.iter().flat_map(|name| [format!("{name} 1"), format!("{name} 2")]).collect();
    expected.insert(0, "after 1".to_owned());
    assert_eq!(starts(&trace), expected);
    kill_process(leader, Signal::CONT).unwrap();
    operators(&space.client, &Operators::default()).await;
    space.end().await;
}

#[tokio::test]
async fn every_metric_is_there_and_counts() {
    let space = Space::exclusive().await;
    space.run("good", json!({"command": "echo data >file; sleep 1"})).await;
    space.run("bad", json!({"command": "exit 3"})).await;
    space.start("goes-on", json!({"command": "sleep 1h"})).await;
    space.until("goes-on", "to run", |s| s.phase == Some(Phase::Running)).await;
    let pod = the_operators(&space.client).await.first().unwrap().name_any();
    let text = metrics(&space.client, &pod).await;
    let names = [
        "controller_runtime_reconcile_total",
        "controller_runtime_reconcile_errors_total",
        "controller_runtime_reconcile_time_seconds_bucket",
        "controller_runtime_active_workers",
        "workqueue_depth",
        "workqueue_adds_total",
        "rest_client_requests_total",
        "leader_election_master_status",
        "bundlerun_runs",
        "bundlerun_completions_total",
        "bundlerun_waiting_seconds_bucket",
        "bundlerun_run_duration_seconds_bucket",
        "bundlerun_attempts_retried_total",
        "bundlerun_saved_bytes_total",
        "bundlerun_invalid_objects",
        "bundlerun_unknown_messages_total",
        "bundlerun_build_info",
    ];
    // `bundlerun_gpu_seconds_total` is of namespaces with GPUs: tests/chart/monitoring.sh.
    let missing: Vec<_> = names.iter().filter(|name| !text.lines().any(|line| line.starts_with(**name))).collect();
    assert!(missing.is_empty(), "{missing:?} are not in\n{text}");
    println!("{} lines of metrics", text.lines().count());
    let failed = "bundlerun_completions_total{phase=\"Failed\",cause=\"CommandFailed\",blame=\"User\"}";
    for (series, least) in [
        (failed, 1.0),
        ("bundlerun_completions_total{phase=\"Succeeded\",cause=\"Completed\",blame=\"None\"}", 1.0),
        ("bundlerun_runs{phase=\"Running\"}", 1.0),
        ("bundlerun_run_duration_seconds_count", 2.0),
        ("bundlerun_saved_bytes_total", 5.0),
        ("rest_client_requests_total{code=\"201\",method=\"POST\"}", 5.0),
        ("leader_election_master_status{name=\"bundle-operator\"}", 1.0),
    ] {
        assert!(value(&text, series) >= least, "{series}: {}", value(&text, series));
    }
    assert!(!text.contains("goes-on") && !text.contains(&space.name), "no label names a run");
    space.end().await;
}

#[tokio::test]
async fn an_operator_of_two_namespaces_needs_no_right_beyond_them() {
    let space = Space::exclusive().await;
    let (second, elsewhere) = (space.beside().await, space.beside().await);
    let account = "bundle-operator-narrow";
    let accounts: Api<ServiceAccount> = Api::namespaced(space.client.clone(), "bundlerun");
    let narrow = serde_json::from_value(json!({"metadata": {"name": account}})).unwrap();
    accounts.create(&PostParams::default(), &narrow).await.unwrap();
    let all = ("ClusterRole", "bundle-operator");
    let lease = ("Role", "bundle-operator-lease");
    for (namespace, (kind, role)) in [(space.name.as_str(), all), (second.name.as_str(), all), ("bundlerun", lease)] {
        let binding = json!({"metadata": {"name": account},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": "bundlerun"}]});
        let api: Api<RoleBinding> = Api::namespaced(space.client.clone(), namespace);
        api.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
    }
    let namespaces = format!("{},{}", space.name, second.name);
    let narrow = Operators { namespaces, account, leader_election: true, ..Operators::default() };
    operators(&space.client, &narrow).await;

    elsewhere.start("not-ours", json!({"command": "true"})).await;
    let (one, two) =
        tokio::join!(space.run("one", json!({"command": "true"})), second.run("two", json!({"command": "true"})));
    assert_eq!((cause(&one), cause(&two)), ("Completed", "Completed"));
    // Also what is deleted is let go.
    second.runs().delete("two", &DeleteParams::default()).await.unwrap();
    second.gone::<Pod>("two-1").await;
    let untouched = elsewhere.runs().get("not-ours").await.unwrap().status.unwrap();
    assert_eq!(untouched.observed_generation, Some(-1));

    operators(&space.client, &Operators::default()).await;
    assert_eq!(cause(&elsewhere.end_of("not-ours").await), "Completed", "an operator of all namespaces sees it");
    let bindings: Api<RoleBinding> = Api::namespaced(space.client.clone(), "bundlerun");
    bindings.delete(account, &DeleteParams::default()).await.unwrap();
    accounts.delete(account, &DeleteParams::default()).await.unwrap();
    tokio::join!(second.end(), elsewhere.end());
    space.end().await;
}

fn command(args: &[&str]) -> (bool, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_bundle-operator")).args(args).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    println!("{args:?}\n{text}");
    (out.status.success(), text)
}

#[tokio::test]
async fn the_smoke_test_says_whether_runs_run() {
    let space = Space::new().await;
    let namespace = space.name.as_str();
    let (works, text) = command(&["smoke-test", "--namespace", namespace]);
    assert!(works && text.contains("the run succeeded"), "{text}");
    let bad = ["smoke-test", "--namespace", namespace, "--image", "localhost:5000/nothing:here", "--timeout", "90s"];
    let (works, text) = command(&bad);
    assert!(!works && text.contains("ImagePull"), "{text}");
    eventually("the runs to be gone", async || {
        let left = space.runs().list(&ListParams::default()).await.unwrap().items.len();
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await;
    space.end().await;
}

#[tokio::test]
async fn uninstall_stops_the_operator_and_removes_every_finalizer() {
    let space = Space::exclusive().await;
    let names = ["a", "b", "c"];
    together(names.iter().map(|name| space.start(name, json!({"command": "sleep 1h"})))).await;
    together(names.iter().map(|name| space.until(name, "to run", |s| s.phase == Some(Phase::Running)))).await;
    let uninstall = ["uninstall", "--scale-down", "bundle-operator", "--namespace", "bundlerun", "--timeout", "60s"];
    let (done, text) = command(&uninstall);
    assert!(done, "{text}");
    // What has ended may be listed for a moment more.
    eventually("the operator to be gone", async || {
        let left = the_operators(&space.client).await.len();
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await;
    for pod in space.pods().list(&ListParams::default()).await.unwrap() {
        assert!(pod.finalizers().is_empty(), "{}", pod.name_any());
    }
    // Nothing holds the namespace's end, and nobody is there to help.
    let client = space.client.clone();
    space.end().await;
    scale_operator(&client, 1).await;
}
