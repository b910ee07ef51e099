//! Whatever the command's processes do, and whatever befalls ours: the run ends, and is told as it was.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use bundlerun::api::Phase;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::Api;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::admission::PodPolicy;
use crate::common::{Space, cause, eventually, left, output, saved_file, seconds, starts, stdout, together, traced};
use crate::node::{self, Dead};

fn trace_volume() -> Value {
    json!([{"path": "trace", "claim": {"name": "trace"}}])
}

fn lines(directory: &Path, file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(directory.join(file)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn terminated(pod: &Pod, container: &str) -> bool {
    let status = pod.status.as_ref().unwrap();
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    all.filter(|c| c.name == container).any(|c| c.state.as_ref().is_some_and(|s| s.terminated.is_some()))
}

fn restarts(pod: &Pod, container: &str) -> i32 {
    let status = pod.status.as_ref().unwrap();
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    all.filter(|c| c.name == container).map(|c| c.restart_count).sum()
}

/// By the kubelet's clock.
fn helper_ended(pod: &Pod) -> Timestamp {
    let containers = pod.status.as_ref().unwrap().init_container_statuses.iter().flatten();
    let ended = containers
        .filter(|container| container.name == "bundle")
        .find_map(|container| container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref().map(|at| at.0));
    ended.unwrap_or_else(|| panic!("the helper has not ended: {pod:#?}"))
}

#[tokio::test]
async fn daemons_are_gone_when_the_run_ends_and_hold_it_up_no_longer_than_the_drain() {
    let space = Space::new().await;
    let trace = space.claim("trace").await;
    let forks = |output: &str| {
        format!(
            "import os, time\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\n{output}\nopen('trace/up', 'a').write('up\\n')\nwhile True: time.sleep(1)"
        )
    };
    let quiet = forks("for fd in 0, 1, 2: os.close(fd)");
    let spec = |program: &str| {
        let start = format!("python3 -c \"{program}\"; until [ -e trace/up ]; do sleep 0.05; done; rm trace/up");
        json!({"command": start, "volumes": trace_volume(), "resources": {"cpus": "500m"}})
    };
    for (name, program, drain) in [("quiet", quiet, 0), ("holds-output", forks(""), 2)] {
        space.start(name, spec(&program)).await;
        let ended = space.end_of(name).await;
        assert_eq!(cause(&ended), "Completed", "{name}: {ended:#?}");
        let pod = space.pods().get(&format!("{name}-1")).await.unwrap();
        let container = pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].clone();
        let run_ended = container.state.unwrap().terminated.unwrap().finished_at.unwrap().0;
        let started = ended.start_time.as_ref().unwrap().0;
        let command = seconds(ended.usage.unwrap().wall_milliseconds);
        let after = (run_ended - started).total(k8s_openapi::jiff::Unit::Second).unwrap() - command;
        println!("{name}: the container ended {after:.1} s after the command, times of the kubelet are whole seconds");
        assert!(after < f64::from(drain) + 2.0, "{name}: {after}");
    }
    assert!(lines(&trace, "up").is_empty());
    space.end().await;
}

/// Forks until the kernel refuses, keeps all children, says how many.
const STORM: &str = "import os, time\ncount = 0\nwhile True:\n    try:\n        if os.fork() == 0:\n            time.sleep(3600)\n        count += 1\n    except OSError as error:\n        print(count, error.strerror, flush=True)\n        break\nopen('trace/full', 'w').write('full\\n')\n";

#[tokio::test]
async fn a_fork_storm_ends_with_its_run_and_harms_nobody_else() {
    let space = Space::new().await;
    let trace = space.claim("trace").await;
    let resources = json!({"cpus": "500m", "memory": "1Gi"});
    let storm = |after: &str| json!({"argv": ["python3", "-c", format!("{STORM}{after}")], "volumes": trace_volume(), "resources": resources});
    let mut full = storm("time.sleep(3600)");
    full["timeLimit"] = json!("30s");
    let bomb =
        json!({"command": "bomb() { bomb | bomb & }; bomb; sleep 1h", "timeLimit": "8s", "resources": resources});
    let neighbour = "while [ ! -e trace/full ]; do sleep 0.1; done; sh -c 'echo I fork'; echo and live";
    space.start("neighbour", json!({"command": neighbour, "volumes": trace_volume()})).await;
    let (full, neighbour) = tokio::join!(space.run("full", full), space.end_of("neighbour"));
    assert_eq!((cause(&full), full.signal), ("TimeLimitExceeded", Some(15)), "{full:#?}");
    let said: Vec<&str> = stdout(&full).split_whitespace().collect();
    let count: u32 = said[0].parse().unwrap();
    println!("fork refused after {count} children: {said:?}");
    assert!((900..1024).contains(&count), "podPidsLimit is 1024: {said:?}");
    assert_eq!((cause(&neighbour), stdout(&neighbour)), ("Completed", "I fork\nand live\n"));

    let (ends, bomb) = tokio::join!(space.run("ends", storm("")), space.run("bomb", bomb));
    assert_eq!(cause(&ends), "Completed", "the storm's own program ends well: {ends:#?}");
    assert_eq!(cause(&bomb), "TimeLimitExceeded", "{bomb:#?}");
    let nodes: Api<Node> = Api::all(space.client.clone());
    let node = nodes.get(&std::env::var("NODE_NAME").unwrap()).await.unwrap();
    let ready = node.status.unwrap().conditions.unwrap().into_iter().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!(ready.status, "True");
    assert!(!lines(&trace, "full").is_empty());
    space.end().await;
}

#[tokio::test]
async fn a_command_that_closes_its_output_runs_on_to_its_own_end() {
    let space = Space::new().await;
    let command = "echo before; exec >&- 2>&-; sleep 2; date +%s >ended; exit 4";
    let ended = space.run("closed", json!({"command": command})).await;
    assert_eq!((cause(&ended), ended.exit_code), ("CommandFailed", Some(4)), "{ended:#?}");
    let own_end: i64 = saved_file(&ended, "ended").trim().parse().unwrap();
    let told = ended.finish_time.as_ref().unwrap().0.as_second();
    assert!(told >= own_end, "{told} {own_end}");
    // Less than the two seconds, as a starved runner notes the beginning late.
    let wall = seconds(ended.usage.as_ref().unwrap().wall_milliseconds);
    assert!(wall > 1.0, "{wall}");
    assert_eq!(stdout(&ended), "before\n");
    space.end().await;
}

#[tokio::test]
async fn a_gigabyte_of_log_costs_neither_runner_nor_helper_any_memory() {
    let space = Space::new().await;
    let bytes: u64 = 1 << 30;
    let trace = space.claim("trace").await;
    // Held at the end: what the processes used can be read only while they live.
    let command = format!(
        "yes $(printf '%01000d' 0) | head -c {bytes}; echo; echo the end; echo written >trace/written; until [ -e trace/go ]; do sleep 0.1; done"
    );
    let resources = json!({"disk": "3Gi", "cpus": "1", "memory": "256Mi"});
    let begin = Instant::now();
    space.start("log", json!({"command": command, "volumes": trace_volume(), "resources": resources})).await;
    let pod = space.pod_running("log-1").await;
    left(&trace, "written").await;
    let took = begin.elapsed();
    let peak = |container: &str| {
        let process = node::first_process(&node::container_id(&pod, container));
        node::status_bytes(process, "VmHWM").unwrap()
    };
    let (runner, helper) = (peak("run"), peak("bundle"));
    let rotated = logs_of(&space, "log-1");
    std::fs::write(trace.join("go"), "").unwrap();
    let ended = space.end_of("log").await;
    println!(
        "1 GiB in {:.0} s; peak of the runner {} KiB, of the helper {} KiB; {} MiB of log on the node in {} files",
        took.as_secs_f64(),
        runner >> 10,
        helper >> 10,
        rotated.iter().sum::<u64>() >> 20,
        rotated.len(),
    );
    assert_eq!(cause(&ended), "Completed", "{ended:#?}");
    assert!(stdout(&ended).ends_with("the end\n"));
    assert_eq!(ended.output.unwrap().bytes, Some(bytes + 9));
    assert!(runner < 8 << 20, "{runner}");
    assert!(helper < 16 << 20, "its limit is 64 MiB: {helper}");
    assert!(rotated.len() > 1, "the kubelet rotates: {rotated:?}");
    space.end().await;
}

/// Sizes of the log files of a pod's run container.
fn logs_of(space: &Space, pod: &str) -> Vec<u64> {
    let root = Path::new(&std::env::var("LOGS").unwrap()).join("pods");
    let of_pod = |name: &str| name.starts_with(&format!("{}_{pod}_", space.name));
    let pods = std::fs::read_dir(root).unwrap().flatten().filter(|entry| of_pod(&entry.file_name().to_string_lossy()));
    let files = pods.flat_map(|entry| std::fs::read_dir(entry.path().join("run")).unwrap().flatten());
    files.map(|file| file.metadata().unwrap().len()).collect()
}

/// Sends a signal to every process whose name the runner has.
const BY_NAME: &str = "by_name() { for p in /proc/[0-9]*; do if [ \"$(cat $p/comm)\" = bundle-runner ]; then kill -$1 ${p#/proc/}; echo hit; fi; done; }; ";

#[tokio::test]
async fn a_command_that_kills_all_it_can_reach_is_told_truthfully() {
    let space = Space::new().await;
    let by_name = |signal: &str| format!("{BY_NAME} by_name {signal}; sleep 0.3; echo alive");
    let cases = [
        // The kernel spares PID 1 and the sender.
        ("everything", "sleep 100 & kill -9 -1; echo alive".to_owned(), "Completed", Some(0), None),
        ("from-a-child", "sh -c 'kill -9 -1; sleep 100'; echo alive".into(), "CommandKilled", None, Some(9)),
        ("first", "kill -9 1; kill -STOP 1; sleep 0.3; echo alive".into(), "Completed", Some(0), None),
        ("by-name", by_name("KILL"), "Completed", Some(0), None),
        // What the runner passes on is the command's own doing, and nobody asked the run to stop.
        ("term-by-name", by_name("TERM"), "CommandKilled", None, Some(15)),
        ("term-trapped", "trap 'echo caught' TERM; kill 1; sleep 0.3; exit 3".into(), "CommandFailed", Some(3), None),
        ("term-ignored", "trap '' TERM; kill 1; sleep 0.3; echo alive".into(), "Completed", Some(0), None),
    ];
    let ended = together(cases.iter().map(|(name, command, ..)| space.run(name, json!({"command": command})))).await;
    for ((name, _, expected, exit_code, signal), got) in cases.iter().zip(&ended) {
        assert_eq!((cause(got), got.exit_code, got.signal), (*expected, *exit_code, *signal), "{name}: {got:#?}");
        assert_eq!(got.attempt, Some(1), "{name}: {got:#?}");
        if *exit_code == Some(0) {
            assert!(stdout(got).ends_with("alive\n"), "{name}: {got:#?}");
        }
    }
    assert!(stdout(&ended[3]).starts_with("hit\n"), "{:#?}", ended[3]);
    space.end().await;
}

#[tokio::test]
async fn zombies_do_not_pile_up_and_do_not_hold_up_the_end() {
    let space = Space::new().await;
    // 300 orphans that end, which PID 1 has to reap, and 300 children that their parent never waits for.
    let program = "import os, time\nfor i in range(300):\n    if os.fork() == 0:\n        if os.fork() == 0: os._exit(0)\n        os._exit(0)\n\
        def zombies():\n    count = {}\n    for pid in filter(str.isdigit, os.listdir('/proc')):\n        try: stat = open('/proc/' + pid + '/stat').read().rsplit(')')[-1].split()\n        except OSError: continue\n        if stat[0] == 'Z': count[stat[1]] = count.get(stat[1], 0) + 1\n    return count\n\
        until = time.monotonic() + 20\nwhile time.monotonic() < until:\n    count = zombies()\n    if count.get(str(os.getpid())) == 300 and '1' not in count: break\n    time.sleep(0.1)\nprint(count.get(str(os.getpid()), 0), count.get('1', 0))";
    let spec = json!({"command": format!("python3 -c \"{program}\""), "resources": {"cpus": "500m"}});
    let ended = space.run("zombies", spec).await;
    assert_eq!((cause(&ended), stdout(&ended)), ("Completed", "300 0\n"), "{ended:#?}");
    space.end().await;
}

/// For the kubelet a container that the runtime does not know is one that never started: it starts it, although the
/// pod is to be restarted never. The helper is held still, because it would end the pod within the second.
#[tokio::test]
async fn a_container_removed_behind_the_kubelets_back_never_starts_the_command_twice() {
    let space = Space::exclusive().await;
    let trace = space.claim("trace").await;
    let command = "echo \"$BUNDLE_ATTEMPT\" >>trace/starts; sleep 1h";
    let spec = json!({"command": command, "volumes": trace_volume(), "retry": {"interruptions": 0}});
    space.start("twice", spec).await;
    let pod = space.pod_running("twice-1").await;
    left(&trace, "starts").await;
    let first = node::container_id(&pod, "run");
    let helper = node::first_process(&node::container_id(&pod, "bundle"));
    kill_process(helper, Signal::STOP).unwrap();
    node::kill(&pod, "run");
    node::forget_container(&first).await;
    space
        .pod_until("twice-1", "to have another container", |pod| {
            node::known_container_id(pod, "run").is_some_and(|id| id != first) && terminated(pod, "run")
        })
        .await;
    kill_process(helper, Signal::CONT).unwrap();
    let ended = space.end_of("twice").await;
    println!("{}: {}", cause(&ended), ended.message.as_deref().unwrap());
    assert_eq!((cause(&ended), ended.phase), ("StartedTwice", Some(Phase::Failed)), "{ended:#?}");
    assert_eq!(lines(&trace, "starts"), ["1"]);
    space.end().await;
}

#[tokio::test]
async fn a_helper_that_is_killed_goes_on_from_its_marks() {
    let space = Space::new().await;
    let trace = space.claim("trace").await;
    let command = "echo \"$BUNDLE_ATTEMPT\" >>trace/starts; until [ -e trace/go ]; do sleep 0.1; done; echo done";
    let resources = json!({"disk": "20Mi"});
    let fill = "echo \"$BUNDLE_ATTEMPT\" >>trace/starts; until [ -e trace/go ]; do sleep 0.1; done; head -c 40M /dev/zero >large; sleep 1h";
    for (name, command, expected) in [("goes-on", command, "Completed"), ("watches-on", fill, "DiskLimitExceeded")] {
        space.start(name, json!({"command": command, "volumes": trace_volume(), "resources": resources})).await;
        let pod = space.pod_running(&format!("{name}-1")).await;
        left(&trace, "starts").await;
        node::kill(&pod, "bundle");
        space.pod_until(&format!("{name}-1"), "to have a new helper", |pod| restarts(pod, "bundle") == 1).await;
        std::fs::write(trace.join("go"), "").unwrap();
        let ended = space.end_of(name).await;
        assert_eq!((cause(&ended), ended.attempt), (expected, Some(1)), "{ended:#?}");
        assert_eq!(lines(&trace, "starts"), ["1"]);
        for file in ["go", "starts"] {
            std::fs::remove_file(trace.join(file)).unwrap();
        }
    }
    space.end().await;
}

/// The kubelet starts no sidecar again once the main container has ended. What is held here by a stopped helper is
/// the moment between the two ends.
#[tokio::test]
async fn a_helper_that_is_killed_before_its_report_is_an_interruption() {
    let space = Space::new().await;
    let trace = space.claim("trace").await;
    let command = "echo \"$BUNDLE_ATTEMPT\" >>trace/starts; until [ -e trace/go ]; do sleep 0.1; done";
    let spec = json!({"command": command, "volumes": trace_volume(), "retry": {"interruptions": 0}});
    space.start("unreported", spec).await;
    let pod = space.pod_running("unreported-1").await;
    left(&trace, "starts").await;
    let helper = node::first_process(&node::container_id(&pod, "bundle"));
    kill_process(helper, Signal::STOP).unwrap();
    std::fs::write(trace.join("go"), "").unwrap();
    space.pod_until("unreported-1", "to have ended its command", |pod| terminated(pod, "run")).await;
    kill_process(helper, Signal::KILL).unwrap();
    let ended = space.end_of("unreported").await;
    println!("{}: {}", cause(&ended), ended.message.as_deref().unwrap());
    assert_eq!(ended.phase, Some(Phase::Failed), "exit 0 without a report is no success: {ended:#?}");
    assert_eq!(cause(&ended), "HelperDied", "{ended:#?}");
    space.end().await;
}

#[tokio::test]
async fn a_runner_killed_from_the_host_is_an_interruption_and_is_tried_again() {
    let space = Space::new().await;
    let trace = space.claim("trace").await;
    let command = "echo \"$BUNDLE_ATTEMPT\" >>trace/starts; [ \"$BUNDLE_ATTEMPT\" = 2 ] || sleep 1h";
    space.start("runner", json!({"command": command, "volumes": trace_volume()})).await;
    let pod = space.pod_running("runner-1").await;
    left(&trace, "starts").await;
    node::kill(&pod, "run");
    let ended = space.end_of("runner").await;
    let causes: Vec<_> = ended.attempts.iter().map(|a| a.cause.clone().unwrap()).collect();
    assert_eq!(
        (ended.phase, causes),
        (Some(Phase::Succeeded), vec!["RunnerDied".into(), "Completed".into()]),
        "{ended:#?}"
    );
    assert_eq!(lines(&trace, "starts"), ["1", "2"]);
    space.end().await;
}

/// Its containers live on without it.
#[tokio::test]
async fn a_container_runtime_that_is_restarted_or_away_costs_a_run_nothing() {
    let space = Space::exclusive().await;
    let trace = space.claim("trace").await;
    let command = "echo here >trace/$BUNDLE_NAME.here; until [ -e trace/$BUNDLE_NAME.go ]; do sleep 0.1; done; \
        echo fine >good; echo said; echo there >trace/$BUNDLE_NAME.there";
    let goes_on = |name: &str| std::fs::write(trace.join(format!("{name}.go")), "").unwrap();
    for name in ["restarted", "away"] {
        space.start(name, traced(command)).await;
        left(&trace, &format!("{name}.here")).await;
    }

    output("deploy/local/cluster", &["restart", "containerd"]);
    let socket = std::env::var("CONTAINERD_SOCKET").unwrap();
    eventually("the container runtime to be back", async || {
        let asked = Command::new("ctr").args(["--address", &socket, "version"]).output().unwrap();
        if asked.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&asked.stderr).into_owned()) }
    })
    .await;
    goes_on("restarted");
    let restarted = space.end_of("restarted").await;

    let containerd = Dead::kill("containerd");
    goes_on("away");
    // The command ends while nobody hears of it.
    left(&trace, "away.there").await;
    drop(containerd);
    let away = space.end_of("away").await;

    for ended in [restarted, away] {
        assert_eq!((cause(&ended), ended.attempt, ended.attempts.len()), ("Completed", Some(1), 1), "{ended:#?}");
        assert_eq!((saved_file(&ended, "good").as_str(), stdout(&ended)), ("fine\n", "said\n"));
    }
    assert_eq!(starts(&trace), ["away 1", "restarted 1"]);
    space.end().await;
}

/// As meshes and agents do. As PID 1 without a handler it does not hear TERM.
#[tokio::test]
async fn a_container_that_others_put_into_the_pod_holds_the_gpu_no_longer_than_the_grace() {
    let space = Space::with_devices().await;
    let injected = "[JSONPatch{op: 'add', path: '/spec/containers/-', value: Object.spec.containers{name: 'proxy', \
        image: 'localhost:5000/debian:bookworm', command: ['sleep', 'infinity']}}]";
    let policy = PodPolicy::mutating(&space, injected).await;
    let all = json!({"gpus": 4});
    space.start("first", json!({"command": "echo done", "resources": all, "stopGrace": "7s"})).await;
    let deleted = space.pod_until("first-1", "to be deleted", |pod| pod.metadata.deletion_timestamp.is_some()).await;
    let ended = space.end_of("first").await;
    assert_eq!(cause(&ended), "Completed", "{ended:#?}");
    // The kubelet keeps to it: the run's own grace, and not the pod's, in which there is time to save.
    assert_eq!(deleted.metadata.deletion_grace_period_seconds, Some(7));
    // It was asked as soon as the helper had ended, and not when the time for saving was over (2m, settings.yaml).
    let asked = deleted.metadata.deletion_timestamp.as_ref().unwrap().0 - SignedDuration::from_secs(7);
    let waited = asked.duration_since(helper_ended(&deleted));
    assert!(waited < SignedDuration::from_mins(2), "deleted {waited:#} after the helper's end");
    policy.end(&space).await;
    // It gets all GPUs of the node as soon as the pod before has let them go.
    let next = space.run("next", json!({"command": "true", "resources": all})).await;
    assert_eq!(cause(&next), "Completed", "{next:#?}");
    space.gone::<Pod>("first-1").await;
    space.end().await;
}
