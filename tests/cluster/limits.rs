//! What a run may use is kept, and what it used is told as it was.

use bundlerun::api::status::Blame;
use bundlerun::api::{BundleRunStatus, Phase};
use bundlerun::names::volumes;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::admission::{PodPolicy, of_volume};
use crate::common::{
    Space, cause, condition, eventually, export, is_long, saved_file, seconds, stdout, together, tried,
};
use crate::node;

const MI: u64 = 1 << 20;

fn cpu_seconds(status: &BundleRunStatus) -> f64 {
    let usage = status.usage.as_ref().unwrap();
    seconds(usage.cpu_user_milliseconds) + seconds(usage.cpu_system_milliseconds)
}

fn wall_seconds(status: &BundleRunStatus) -> f64 {
    seconds(status.usage.as_ref().unwrap().wall_milliseconds)
}

fn memory_peak(status: &BundleRunStatus) -> u64 {
    status.usage.as_ref().unwrap().memory_peak_bytes.unwrap()
}

/// Three shells, one of them in a session of its own, that tell of TERM on a claim; `then` is what they do about it.
fn tree(then: &str, grace: &str) -> Value {
    let member = |name: &str| {
        format!("trap 'echo {name} >>trace/told; {then}' TERM; echo {name} >>trace/up; while :; do sleep 0.1; done")
    };
    let command = format!(
        "cat >leaf.sh <<'END'\n{}\nEND\ncat >branch.sh <<'END'\nsetsid sh ./leaf.sh &\n{}\nEND\nsh ./branch.sh & {}",
        member("leaf"),
        member("branch"),
        member("root"),
    );
    json!({"command": command, "timeLimit": "3s", "stopGrace": grace,
        "volumes": [{"path": "trace", "claim": {"name": "trace"}}]})
}

#[tokio::test]
async fn the_time_limit_ends_every_process_first_with_term_then_with_kill() {
    // Whose processes have all ended waits for no grace, and a grace that is over is not waited for any longer.
    for (then, grace, seconds) in [("kill -KILL $$", "10m", 3.0..600.0), ("true", "4s", 7.0..120.0)] {
        let space = Space::new().await;
        let trace = space.claim("trace").await;
        let ended = space.run("tree", tree(then, grace)).await;
        assert_eq!((cause(&ended), ended.signal), ("TimeLimitExceeded", Some(9)), "{ended:#?}");
        assert!(seconds.contains(&wall_seconds(&ended)), "limit 3 s, grace {grace}: {ended:#?}");
        let text = |file: &str| std::fs::read_to_string(trace.join(file)).unwrap_or_default();
        for process in ["root", "branch", "leaf"] {
            assert!(text("up").lines().any(|line| line == process), "{then}: {process} is not up: {}", text("up"));
        }
        // Who waits for one that handles it is told when that has ended, and here it ends only where it kills itself.
        let told = text("told").lines().count();
        assert!(if then == "true" { (1..=3).contains(&told) } else { told == 3 }, "{then}: {}", text("told"));
        space.end().await;
    }
}

#[tokio::test]
async fn a_run_has_its_own_time_between_term_and_kill() {
    let space = Space::new().await;
    // The setting of the tests is 4 s.
    let handler = |seconds: u32| {
        format!(
            "trap 'sleep {seconds}; echo saved; exit 0' TERM; echo $BUNDLE_TIME_LIMIT_SECONDS; while :; do sleep 0.1; done"
        )
    };
    let run = |name, grace: &str, seconds| {
        space.run(name, json!({"command": handler(seconds), "timeLimit": "3s", "stopGrace": grace}))
    };
    let (longer, shorter) = tokio::join!(run("longer", "1m", 8), run("shorter", "1s", 3));
    for (ended, printed, exit) in [(&longer, "3\nsaved\n", (Some(0), None)), (&shorter, "3\n", (None, Some(9)))] {
        assert_eq!((cause(ended), stdout(ended)), ("TimeLimitExceeded", printed), "{ended:#?}");
        assert_eq!((ended.exit_code, ended.signal), exit, "{ended:#?}");
    }
    let grace = space.pods().get("longer-1").await.unwrap().spec.unwrap().termination_grace_period_seconds;
    // Two minutes are for the output, and thirty seconds for the report.
    assert_eq!(grace, Some(60 + 120 + 30));

    let refused = space.run("refused", json!({"command": "true", "stopGrace": "11m"})).await;
    let message = refused.message.clone().unwrap_or_default();
    assert!(cause(&refused) == "InvalidSpec" && message.contains("spec.stopGrace: at most 600s"), "{refused:#?}");
    space.end().await;
}

/// Handles SIGTERM for longer than a shell lives that gets it, and than any process that does not handle it.
const TRAINER: &str = "import os, signal, sys, time
def save(*_):
    time.sleep(int(os.environ['SAVES_FOR']))
    open('checkpoint', 'w').write('whole')
    print('saved', flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print('up', flush=True)
while True: time.sleep(0.1)
";

#[tokio::test]
async fn who_handles_sigterm_saves_at_every_ordered_end() {
    let space = Space::new().await;
    let commands = [
        ("child", "python3 /t.py; echo next"),
        ("grandchild", "sh -c 'setsid python3 /t.py; echo next'; echo next"),
        ("pipe", "python3 /t.py | tee log; echo next"),
        (
            "file",
            "touch log; { until grep -q up log; do sleep 0.1; done; echo up; } & python3 /t.py >log 2>&1; echo next",
        ),
    ];
    let ends = ["limit", "stop", "delete", "drain"];
    let ended = together(tried(&commands, &ends, 2).map(async |((of, command), end)| {
        let name = format!("{of}-{end}");
        let spec = json!({"command": format!("touch began; {command}"), "inputs": [{"path": "/t.py", "text": TRAINER}],
            "env": [{"name": "SAVES_FOR", "value": if is_long() { "20" } else { "6" }}],
            "timeLimit": if end == "limit" { "8s" } else { "200s" }, "retry": {"interruptions": 0}, "stopGrace": "1m",
            "resources": {"cpus": "100m", "memory": "128Mi"}});
        space.start(&name, spec).await;
        let pod = format!("{name}-1");
        // Its handler is there; at the limit it has had time for that.
        if end != "limit" {
            space.pod_running(&pod).await;
            said(&space, &pod, "up").await;
        }
        match end {
            "stop" => space.stop(&name).await,
            "delete" => drop(space.pods().delete(&pod, &DeleteParams::default()).await.unwrap()),
            "drain" => space.evict(&pod, Value::Null).await,
            _ => {}
        }
        (space.end_of(&name).await, name, end)
    }))
    .await;
    for (ended, name, end) in &ended {
        let expected = match *end {
            "limit" => "TimeLimitExceeded",
            "stop" => "Stopped",
            "drain" => "EvictionByEvictionAPI",
            _ => "PodDeleted",
        };
        assert_eq!(cause(ended), expected, "{name}: {ended:#?}");
        assert_eq!(saved_file(ended, "checkpoint"), "whole", "{name}: {ended:#?}");
        let log = if name.starts_with("pipe") || name.starts_with("file") { "log" } else { "stdout" };
        assert_eq!(saved_file(ended, log), "up\nsaved\n", "{name}");
        assert!(!stdout(ended).contains("next"), "{name}: {ended:#?}");
    }
    space.end().await;
}

#[tokio::test]
async fn an_oom_of_any_process_is_told_and_a_signal_or_exit_code_that_looks_like_one_is_not() {
    let space = Space::new().await;
    let cases = [
        ("command", "exec tail /dev/zero", "OutOfMemory"),
        ("child", "tail /dev/zero; echo went on", "OutOfMemory"),
        ("grandchild", "sh -c 'sh -c \"tail /dev/zero\"; true'; echo went on", "OutOfMemory"),
        ("background", "tail /dev/zero & wait; echo went on", "OutOfMemory"),
        ("daemon", "setsid sh -c 'tail /dev/zero' & wait; echo went on", "OutOfMemory"),
        ("exit-137", "exit 137", "CommandFailed"),
        ("killed", "kill -9 $$", "CommandKilled"),
        ("child-killed", "sh -c 'kill -9 $$'; exit 5", "CommandFailed"),
        ("malloc-fails", "ulimit -v 32768; tail /dev/zero; exit 6", "CommandFailed"),
    ];
    let spec = |command: &str| json!({"command": command, "resources": {"memory": "64Mi"}});
    let ended = together(cases.iter().map(|(name, command, _)| space.run(name, spec(command)))).await;
    for ((name, _, expected), got) in cases.iter().zip(&ended) {
        assert_eq!((cause(got), got.phase), (*expected, Some(Phase::Failed)), "{name}: {got:#?}");
        let full = memory_peak(got) > 60 * MI;
        assert_eq!(full, *expected == "OutOfMemory", "{name}: {got:#?}");
        if full {
            // The kernel may take the shell as well, for what the first one still holds.
            let went_on = stdout(got).ends_with("went on\n");
            let end = if went_on { (Some(0), None) } else { (None, Some(9)) };
            assert_eq!((got.exit_code, got.signal), end, "{name}: {got:#?}");
        }
    }
    // Kubernetes says of the same pod that all went well.
    let phase = if ended[1].exit_code == Some(0) { "Succeeded" } else { "Failed" };
    let is_so = |pod: &Pod| pod.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some(phase));
    space.pod_until("child-1", "to have ended likewise", is_so).await;
    space.end().await;
}

/// cgroup v2 kills the whole container (`memory.oom.group`), v1 never does: there the host points the kernel at the
/// runner, and the rest is the kernel's and the kubelet's own doing.
#[tokio::test]
async fn an_oom_that_takes_the_runner_is_told_by_the_kubelets_word() {
    let space = Space::new().await;
    let command = "echo ready; until [ -e trace/go ]; do sleep 0.1; done; tail /dev/zero";
    let trace = space.claim("trace").await;
    let volumes = json!([{"path": "trace", "claim": {"name": "trace"}}]);
    let resources = json!({"memory": "64Mi"});
    space.start("whole", json!({"command": command, "volumes": volumes, "resources": resources})).await;
    let pod = space.pod_running("whole-1").await;
    said(&space, "whole-1", "ready").await;
    let run = node::container_id(&pod, "run");
    let runner = node::first_process(&run);
    std::fs::write(format!("/proc/{}/oom_score_adj", runner.as_raw_nonzero()), "1000").unwrap();
    std::fs::write(trace.join("go"), "").unwrap();
    let ended = space.end_of("whole").await;
    assert_eq!(
        (cause(&ended), ended.phase, ended.attempt),
        ("OutOfMemory", Some(Phase::Failed), Some(1)),
        "{ended:#?}"
    );
    assert_eq!(stdout(&ended), "ready\n");
    space.end().await;
}

/// The pod's own cgroup stands for a node that is full: the container's limit is far away.
#[tokio::test]
async fn an_oom_for_want_of_memory_elsewhere_is_an_interruption() {
    let space = Space::new().await;
    let trace = space.claim("trace").await;
    let fill = "python3 -c \"held = bytearray(b'x') * 200_000_000\"";
    let command = format!(
        "echo ready; [ $BUNDLE_ATTEMPT = 2 ] || {{ until [ -e trace/go ]; do sleep 0.1; done; {fill}; exit 0; }}"
    );
    let volumes = json!([{"path": "trace", "claim": {"name": "trace"}}]);
    space.start("node", json!({"command": command, "volumes": volumes, "resources": {"memory": "512Mi"}})).await;
    let pod = space.pod_running("node-1").await;
    said(&space, "node-1", "ready").await;
    let of_pod = node::cgroup("memory", &node::container_id(&pod, "run")).parent().unwrap().to_owned();
    std::fs::write(of_pod.join("memory.limit_in_bytes"), (96 * MI).to_string()).unwrap();
    std::fs::write(trace.join("go"), "").unwrap();
    let ended = space.end_of("node").await;
    let causes: Vec<_> = ended.attempts.iter().map(|a| a.cause.clone().unwrap()).collect();
    assert_eq!((ended.phase, causes), (Some(Phase::Succeeded), vec!["NodeOutOfMemory".into(), "Completed".into()]));
    space.end().await;
}

#[tokio::test]
async fn shared_memory_has_the_size_asked_and_counts_as_memory() {
    let space = Space::new().await;
    let size = "df -k /dev/shm | tail -1 | awk '{print $2}'; head -c 30M /dev/zero >/dev/shm/x || echo full";
    let fill = "cat /dev/zero >/dev/shm/x; echo filled";
    // In less than 100 MB a thousandth is so little that the smallest of programs (busybox) are smaller than the runner.
    let memory = json!({"memory": "256Mi", "sharedMemory": "256Mi", "cpus": "500m"});
    let (sized, filled) = tokio::join!(
        space.run("sized", json!({"command": size, "resources": {"sharedMemory": "24Mi"}})),
        space.run("filled", json!({"command": fill, "resources": memory})),
    );
    assert_eq!((cause(&sized), stdout(&sized)), ("Completed", "24576\nfull\n"), "{sized:#?}");
    assert_eq!(cause(&filled), "OutOfMemory", "{filled:#?}");
    let hint = filled.result.as_ref().unwrap().hint.as_deref().unwrap();
    assert!(hint.contains("/dev/shm"), "{hint}");
    assert!(filled.usage.is_some(), "the record is complete although memory was full to the end: {filled:#?}");
    assert!(memory_peak(&filled) > 250 * MI, "{filled:#?}");
    space.end().await;
}

#[tokio::test]
async fn a_run_gets_the_cpus_it_asked_for_and_no_more() {
    let space = Space::new().await;
    let spin = "timeout 8 sh -c 'while :; do :; done'; exit 0";
    let ended = space.run("spin", json!({"command": spin, "resources": {"cpus": "200m"}})).await;
    let share = cpu_seconds(&ended) / wall_seconds(&ended);
    println!("cpus: 200m, spinning: {share:.3} CPUs");
    // A machine that is busy with other things gives less, never more.
    assert!(share > 0.0 && share < 0.26, "{share}: {ended:#?}");
    space.end().await;
}

#[tokio::test]
async fn the_usage_of_known_loads_is_recorded() {
    let space = Space::new().await;
    let two_seconds = "import time\nheld = bytearray(b'x') * 300_000_000\nwhile time.process_time() < 2: pass";
    // The kernel does not add what a child used to a parent that ignores its end: only the cgroup knows of it.
    let nobody_waits = "import os, signal, time\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nif os.fork() == 0:\n    while time.process_time() < 2: pass\n    os._exit(0)\ntry: os.wait()\nexcept ChildProcessError: pass";
    let spec =
        |program: &str| json!({"argv": ["python3", "-c", program], "resources": {"cpus": "1", "memory": "512Mi"}});
    let (load, unwaited) =
        tokio::join!(space.run("load", spec(two_seconds)), space.run("unwaited", spec(nobody_waits)));
    for (name, ended) in [("load", &load), ("unwaited", &unwaited)] {
        assert_eq!(cause(ended), "Completed", "{name}: {ended:#?}");
        let cpu = cpu_seconds(ended);
        println!("{name}: {cpu:.3} CPU seconds, {:.3} s wall, {} bytes", wall_seconds(ended), memory_peak(ended));
        // A slow machine needs longer to start the interpreter.
        assert!((2.0..3.0).contains(&cpu), "{name}: 2 CPU seconds recorded as {cpu}");
        assert!(wall_seconds(ended) >= 1.9, "{name}: {ended:#?}");
    }
    assert!((300_000_000..345_000_000).contains(&memory_peak(&load)), "{load:#?}");
    assert!(memory_peak(&unwaited) < 60_000_000, "{unwaited:#?}");
    space.end().await;
}

/// Writes 100 MB/s and says when it is over the limit; `first` comes before.
fn writer(first: &str, limit: u64) -> String {
    format!(
        "import os, signal, time\n{first}\nblock = bytes(10_000_000)\nbegin = time.monotonic()\nwritten = 0\nover = False\n\
         with open('large', 'wb', buffering=0) as file:\n    while True:\n        written += file.write(block)\n        \
         if written > {limit} and not over:\n            over = True\n            print(time.monotonic() - begin, flush=True)\n        \
         time.sleep(max(0, begin + written / 1e8 - time.monotonic()))\n"
    )
}

#[tokio::test]
async fn a_run_that_fills_its_disk_is_ended_by_the_helper_and_its_record_is_complete() {
    let space = Space::new().await;
    let limit = 200 * MI;
    let resources = json!({"disk": "200Mi", "cpus": "500m", "memory": "512Mi"});
    let spec = |first| json!({"argv": ["python3", "-c", writer(first, limit)], "resources": resources});
    let stubborn = "signal.signal(signal.SIGTERM, signal.SIG_IGN)";
    // One after the other: two at a time would share the disk.
    for (name, first, signal) in [("willing", "", 15), ("stubborn", stubborn, 9)] {
        let ended = space.run(name, spec(first)).await;
        assert_eq!((cause(&ended), ended.signal), ("DiskLimitExceeded", Some(signal)), "{name}: {ended:#?}");
        assert_eq!(ended.result.as_ref().unwrap().blame, Some(Blame::User));
        let output = ended.output.as_ref().unwrap();
        let crossed: f64 = stdout(&ended).trim().parse().unwrap();
        let late = wall_seconds(&ended) - crossed;
        let over = output.bytes.unwrap().saturating_sub(limit);
        println!("{name}: ended {late:.2} s and {} MB after it crossed {limit} bytes", over / 1_000_000);
        assert_eq!(output.files, Some(3), "{name}: large, stdout, stderr");
        assert!(cpu_seconds(&ended) > 0.0 && memory_peak(&ended) > MI && ended.finish_time.is_some(), "{ended:#?}");
        let pod = space.pods().get(&format!("{name}-1")).await.unwrap().status.unwrap();
        assert_ne!(pod.reason.as_deref(), Some("Evicted"), "{name}");
    }
    space.end().await;
}

/// The helper watches by the limit in the request. Here the API server takes it out on the way, so that all else is as
/// always and only the kubelet's backstop is left.
#[tokio::test]
async fn without_our_watch_the_kubelets_eviction_is_told_as_what_it_is() {
    let space = Space::new().await;
    let expression = "[JSONPatch{op: 'replace', path: '/metadata/annotations/bundlerun.dev~1request', \
        value: object.metadata.annotations['bundlerun.dev/request'].replace('diskBytes', 'noDiskBytes')}]";
    let unwatched = PodPolicy::mutating(&space, expression).await;
    // The kubelet allows twice 1Mi and 1Gi.
    let fill = "head -c 1300M /dev/zero >large; echo written; sleep 1h";
    let resources = json!({"disk": "1Mi", "memory": "512Mi", "cpus": "500m"});
    space.start("evicted", json!({"command": fill, "resources": resources})).await;
    let pod = space.pod_running("evicted-1").await;
    let request = pod.annotations()["bundlerun.dev/request"].clone();
    let ended = space.end_of("evicted").await;
    unwatched.end(&space).await;
    assert!(!request.contains("\"diskBytes\""), "the watch is off: {request}");
    println!("{}: {}", cause(&ended), ended.message.as_deref().unwrap());
    assert_eq!((cause(&ended), ended.phase), ("EmptyDirLimitExceeded", Some(Phase::Failed)), "{ended:#?}");
    let says = "Usage of EmptyDir volume \"bundle\" exceeds the limit";
    assert!(ended.message.unwrap().contains(says));
    assert!(ended.result.unwrap().hint.unwrap().contains("resources.disk"));
    space.end().await;
}

/// Makes a volume of the pods a file system in memory of this size: when it is full, it is full as a disk is.
fn small(volume: &str, size: &str) -> String {
    let size = format!("value: '{size}'");
    let of = |field: &str, value: &str| of_volume(volume, "add", &format!("emptyDir/{field}"), value);
    format!("{} + {}", of("medium", "value: 'Memory'"), of("sizeLimit", &size))
}

#[tokio::test]
async fn a_full_disk_makes_no_false_success_and_is_told_as_such() {
    let space = Space::new().await;
    let resources = json!({"cpus": "100m", "memory": "256Mi"});
    let parent = json!({"command": "head -c 6000000 /dev/urandom >large", "resources": resources});
    let parent = space.run("parent", parent).await;
    assert_eq!(cause(&parent), "Completed", "{parent:#?}");

    let full = PodPolicy::mutating(&space, &small(volumes::INPUTS, "4Mi")).await;
    let reads = json!({"command": "cat large | wc -c", "resources": resources,
        "inputs": [{"path": "large", "run": {"name": "parent", "path": "large"}}]});
    let mut once = reads.clone();
    once["retry"] = json!({"interruptions": 0});
    let staged = space.run("staged", once).await;
    full.end(&space).await;
    println!("{}: {}", cause(&staged), staged.message.as_deref().unwrap());
    assert_eq!((cause(&staged), staged.exit_code), ("StagingFailed", None), "{staged:#?}");
    assert!(staged.message.unwrap().contains("the disk of the node is full"));

    let full = PodPolicy::mutating(&space, &small(volumes::BUNDLE, "8Mi")).await;
    let fills = "echo before; head -c 20M /dev/zero >large || { echo after; exit 7; }";
    let kept = space.run("kept", json!({"command": fills, "resources": resources})).await;
    full.end(&space).await;
    println!("{}: {}", cause(&kept), kept.message.as_deref().unwrap());
    assert_eq!((cause(&kept), kept.exit_code), ("CommandFailed", Some(7)), "{kept:#?}");
    // The output that is kept is what was on the disk, whole.
    assert_eq!(condition(&kept, "OutputSaved"), Some("True"), "{kept:#?}");
    let on_disk = kept.output.as_ref().unwrap().bytes.unwrap();
    // What the command said is on another disk.
    assert!((7 * MI..=8 * MI + 4096).contains(&on_disk), "{on_disk}");
    let exported = export(&kept);
    let size = |file: &str| std::fs::metadata(exported.path().join("contents").join(file)).unwrap().len();
    assert_eq!(["large", "stdout", "stderr"].map(size).iter().sum::<u64>(), on_disk);

    let full = PodPolicy::mutating(&space, &small(volumes::BIN, "1Mi")).await;
    let no_room = space.run("no-room", json!({"command": "true", "resources": resources})).await;
    full.end(&space).await;
    println!("{}: {}", cause(&no_room), no_room.message.as_deref().unwrap());
    assert_eq!((cause(&no_room), no_room.exit_code), ("HelperFailed", None), "{no_room:#?}");
    assert!(no_room.message.unwrap().contains("No space left on device"));

    let read = space.run("read", reads).await;
    assert_eq!((cause(&read), stdout(&read).trim()), ("Completed", "6000000"), "{read:#?}");
    space.end().await;
}

/// Waits until the run container said something.
async fn said(space: &Space, pod: &str, word: &str) {
    eventually(&format!("{pod} to say {word}"), async || {
        let log = space.logs(pod).await;
        if log.contains(word) { Ok(()) } else { Err(log) }
    })
    .await;
}
