//! The working directory is in the store while the command runs, and the next attempt goes on from there.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::http::Method;
use bundlerun::api::{BundleRunStatus, Phase};
use bundlerun::names::{files, volumes};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::audit;
use crate::common::{Space, cause, condition, eventually, output, registry_digest, stdout, together};
use crate::node;
use crate::proxy::Fault;
use crate::settings;
use crate::store::Store;
use crate::store_outages::until;

/// Keeps one step, makes another that is not kept, and waits for its end, unless it goes on from a step.
const TRAINING: &str = r#"
if [ -n "$BUNDLE_RESUMED_FROM" ]; then
    echo "goes on from $BUNDLE_RESUMED_FROM with step $(cat step) of $(stat -c %u:%a:%Y step), $(ls -A | tr '\n' ' ')"
    exit 0
fi
mkdir -m 700 state
echo secret >state/weights
echo 1 >step
chmod 640 step
touch -d @1000000000 step
reference=$("$BUNDLE_SNAPSHOT") || exit 5
echo "kept as $reference"
echo 2 >step
echo lost >lost
echo ready
sleep 1h
"#;

fn training(more: &Value) -> Value {
    let mut spec = json!({"command": TRAINING, "retry": {"resume": true}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

/// Waits until the command says this.
async fn until_said(space: &Space, pod: &str, text: &str) {
    eventually(text, async || {
        let said = space.logs(pod).await;
        if said.contains(text) { Ok(()) } else { Err(said) }
    })
    .await;
}

/// Waits until the command has its second step, and returns its pod.
async fn at_second_step(space: &Space, name: &str) -> Pod {
    let pod = space.pod_running(&format!("{name}-1")).await;
    until_said(space, &pod.name_any(), "ready").await;
    pod
}

/// What the program printed in such a pod.
async fn printed(space: &Space, pod: &Pod) -> String {
    let said = space.logs(&pod.name_any()).await;
    let kept = said.lines().find_map(|line| line.strip_prefix("kept as "));
    kept.unwrap_or_else(|| panic!("{said}")).to_owned()
}

/// The tag of the snapshots of a run's first attempt.
async fn snapshot_tag(space: &Space, name: &str) -> String {
    let uid = space.runs().get(name).await.unwrap().uid().unwrap();
    format!("{name}.1.{}.s", uid.split_once('-').unwrap().0)
}

/// Whether the store of the namespace has this tag.
async fn is_in_store(space: &Space, tag: &str) -> bool {
    let registry = std::env::var("REGISTRY_HOST").unwrap();
    let manifest = format!("http://{registry}/v2/bundles/{}/manifests/{tag}", space.name);
    let accepts = "application/vnd.oci.image.manifest.v1+json";
    let head = reqwest::Client::new().head(manifest).header("accept", accepts);
    head.send().await.unwrap().status().is_success()
}

/// What the second attempt found.
fn assert_resumed(status: &BundleRunStatus, user: &str) {
    assert_eq!((status.phase, cause(status)), (Some(Phase::Succeeded), "Completed"), "{status:#?}");
    let [first, second] = status.attempts.as_slice() else { panic!("{status:#?}") };
    let from = second.resumed_from.as_deref().unwrap();
    assert_eq!(first.resumed_from, None);
    let wanted = format!("goes on from {from} with step 1 of {user}:640:1000000000, state step \n");
    assert_eq!(stdout(status), wanted, "{status:#?}");
}

#[tokio::test]
async fn an_attempt_goes_on_from_the_last_snapshot_of_the_one_before() {
    let space = Space::new().await;
    let users = [
        ("root", json!({}), "0"),
        ("image-user", json!({"image": "localhost:5000/nonroot:local"}), "1000"),
        ("uid", json!({"runAsUser": 4321}), "4321"),
    ];
    together(users.map(async |(name, more, user)| {
        let begun = Timestamp::now();
        space.start(name, training(&more)).await;
        let pod = at_second_step(&space, name).await;
        let ready = Timestamp::now();
        let writes = audit::of_operator(|event| {
            let at = audit::received(event);
            begun < at && at < ready && audit::text(event, "/objectRef/name") == name
        });
        let writes: Vec<_> = writes.iter().map(|event| audit::text(event, "/verb")).collect();
        assert!(writes.len() <= 1, "a snapshot is no matter of the API server's: {writes:?}");
        node::kill(&pod, "run");
        assert_resumed(&space.end_of(name).await, user);
    }))
    .await;
    space.end().await;
}

#[tokio::test]
async fn without_a_store_or_a_snapshot_the_command_is_told_and_begins_anew() {
    let space = Space::new().await;
    let command = r#"
echo "from: ${BUNDLE_RESUMED_FROM-nothing}, $(ls -A | wc -l) files"
"$BUNDLE_SNAPSHOT" --timeout 1x; echo "usage: $?"
[ "$BUNDLE_ATTEMPT" = 2 ] && exit 0
echo ready; sleep 1h"#;
    space.start("none", json!({"command": command, "retry": {"resume": true}})).await;
    let pod = at_second_step(&space, "none").await;
    node::kill(&pod, "run");
    let ended = space.end_of("none").await;
    assert_eq!(stdout(&ended), "from: nothing, 0 files\nusage: 2\n", "{ended:#?}");
    assert_eq!(ended.attempts.last().unwrap().resumed_from, None);
    space.end().await;
}

/// Many ask at once; a schedule takes them without a word of the command.
#[tokio::test]
async fn who_asks_at_once_is_answered_and_a_schedule_needs_nobody_to_ask() {
    let space = Space::new().await;
    let command = r#"
head -c 20000000 /dev/urandom >data
for n in 1 2 3 4 5 6 7 8; do ("$BUNDLE_SNAPSHOT" >"/tmp/$n" 2>&1; echo "$n: $?") & done; wait
cat /tmp/[1-8] | sort -u | wc -l"#;
    // With a fraction of a CPU they would not begin at once.
    let ended = space.run("at-once", json!({"command": command, "resources": {"cpus": "1"}})).await;
    let mut lines: Vec<&str> = stdout(&ended).lines().collect();
    let different: u32 = lines.pop().unwrap().trim().parse().unwrap();
    lines.sort_unstable();
    let expected: Vec<_> = (1..=8).map(|n| format!("{n}: 0")).collect();
    assert_eq!(lines, expected, "{ended:#?}");
    assert!(different < 8, "those that ask together share one: {different}");

    let command =
        r#"[ "$BUNDLE_ATTEMPT" = 2 ] && { cat n; exit 0; }; n=0; while :; do echo $((n += 1)) >n; sleep 1; done"#;
    let spec = json!({"command": command, "retry": {"resume": true}, "outputs": {"snapshots": {"every": "10s"}}});
    space.start("schedule", spec).await;
    let pod = space.pod_running("schedule-1").await;
    let status = space.until("schedule", "to run", |status| status.phase == Some(Phase::Running)).await;
    let tag = snapshot_tag(&space, "schedule").await;
    eventually("a snapshot", async || if is_in_store(&space, &tag).await { Ok(()) } else { Err(status.phase) }).await;
    node::kill(&pod, "run");
    let ended = space.end_of("schedule").await;
    assert!(stdout(&ended).trim().parse::<u32>().unwrap() >= 5, "{ended:#?}");
    space.end().await;
}

/// How many requests of a pod wait for an answer, or for being read.
fn requests(pod: &Pod) -> usize {
    let directory = node::volume(pod, volumes::RECORD).join(files::SNAPSHOTS);
    std::fs::read_dir(directory).unwrap().count()
}

/// More than the helper looks at in one go.
#[tokio::test]
async fn hundreds_of_requests_that_nobody_waits_for_are_answered_and_hold_up_no_other() {
    let space = Space::new().await;
    let command = r#"[ "$BUNDLE_ATTEMPT" = 2 ] && { cat step; exit 0; }
        for n in $(seq 300); do "$BUNDLE_SNAPSHOT" --no-wait || exit 4; done
        "$BUNDLE_SNAPSHOT" >/dev/null || exit 5
        echo last >step; "$BUNDLE_SNAPSHOT" --no-wait || exit 6
        echo ready; sleep 1h"#;
    // With a fraction of a CPU three hundred programs take a while to start.
    let spec = json!({"command": command, "retry": {"resume": true}, "resources": {"cpus": "500m"}});
    space.start("unawaited", spec).await;
    let pod = at_second_step(&space, "unawaited").await;
    eventually("all requests to be answered", async || match requests(&pod) {
        0 => Ok(()),
        left => Err(left),
    })
    .await;
    node::kill(&pod, "run");
    assert_eq!(stdout(&space.end_of("unawaited").await), "last\n");
    space.end().await;
}

/// Starts a run that asks, waiting for `TIME` at most, and asks again without waiting. Returns what it was told.
async fn answer(space: &Space, time: &str) -> String {
    let command = r#""$BUNDLE_SNAPSHOT" --timeout TIME >/tmp/told 2>&1; echo "exit code $?: $(cat /tmp/told)"
        "$BUNDLE_SNAPSHOT" --no-wait 2>/dev/null; echo "without waiting: $?"
        sleep 1h"#;
    let spec = json!({"command": command.replace("TIME", time), "retry": {"interruptions": 0}});
    space.start("asks", spec).await;
    space.pod_running("asks-1").await;
    until_said(space, "asks-1", "without waiting: ").await;
    let said = space.logs("asks-1").await;
    println!("{said}");
    said
}

/// Whoever would wait for a store that is not there would wait for an hour.
async fn without_a_store(space: &Space) {
    let said = answer(space, "1h").await;
    assert!(said.starts_with("exit code 3: snapshot: this cluster has no store"), "{said}");
    assert!(said.ends_with("without waiting: 3\n"), "{said}");
    space.stop("asks").await;
    space.end_of("asks").await;
}

/// Whether a request is the last of a snapshot.
fn publishes(method: &Method, path: &str) -> bool {
    *method == Method::PUT && path.contains("/manifests/") && path.rsplit('.').next() == Some("s")
}

/// The store does this with what a command pushes until that was told, or with manifests alone.
async fn in_vain(store: &Store, fault: Fault, only_manifests: bool, time: &str, told: &[&str]) {
    let recovered = Arc::new(AtomicBool::new(false));
    // The store is asked before the command starts, and accepts.
    let of_writes = until(&recovered, false, fault);
    let of_manifests = move |m: &Method, path: &str| if publishes(m, path) { fault } else { Fault::None };
    let rule = move |m: &Method, path: &str| if only_manifests { of_manifests(m, path) } else { of_writes(m, path) };
    let space = store.namespace(rule).await;
    let said = answer(&space, time).await;
    assert!(told.iter().all(|words| said.contains(words)), "{fault:?}: {said}");
    assert!(said.ends_with("without waiting: 0\n"), "{fault:?}: {said}");
    recovered.store(true, Ordering::Relaxed);
    space.stop("asks").await;
    let ended = space.end_of("asks").await;
    assert_eq!((ended.phase, condition(&ended, "OutputSaved")), (Some(Phase::Stopped), Some("True")), "{ended:#?}");
    space.end().await;
}

/// What was written after a snapshot had been asked for is in the one that was asked for after that, also where the first is
/// still being taken: here it is complete but for the manifest's arrival.
async fn gets_the_next(store: &Store) {
    let begun = AtomicBool::new(false);
    let first_manifest = move |method: &Method, path: &str| {
        if publishes(method, path) && !begun.swap(true, Ordering::Relaxed) { Fault::HoldBack } else { Fault::None }
    };
    let space = store.namespace(first_manifest).await;
    let trace = space.claim("trace").await;
    let command = r#"
        [ "$BUNDLE_ATTEMPT" = 2 ] && { echo "$BUNDLE_RESUMED_FROM has" $(ls first second); exit 0; }
        touch first; "$BUNDLE_SNAPSHOT" >/tmp/first &
        until [ -e /trace/go ]; do sleep 0.1; done
        touch second; second=$("$BUNDLE_SNAPSHOT") || exit 5
        wait; echo "$(cat /tmp/first) $second ready"; sleep 1h"#;
    let volumes = json!([{"path": "/trace", "claim": {"name": "trace"}}]);
    space.start("asks", json!({"command": command, "retry": {"resume": true}, "volumes": volumes})).await;
    let pod = space.pod_running("asks-1").await;
    store.holds(&[&space]).await;
    std::fs::write(trace.join("go"), "").unwrap();
    eventually("the second to ask", async || match requests(&pod) {
        2 => Ok(()),
        other => Err(other),
    })
    .await;
    store.proxy.seen.let_one_go();
    until_said(&space, "asks-1", "ready").await;
    let said = space.logs("asks-1").await;
    let [first, second, _] = said.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{said}") };
    assert_ne!(first, second);
    node::kill(&pod, "run");
    assert_eq!(stdout(&space.end_of("asks").await), format!("{second} has first second\n"));
    space.end().await;
}

#[tokio::test]
async fn whoever_asks_is_told_where_a_store_is_missing_refuses_or_is_silent_and_gets_the_next_where_one_is_taken() {
    let first = Space::with_own_operators().await;
    let without = first.beside().await;
    let store = Store::with_operator(&first, 4, Duration::from_mins(1)).await;
    let remove = |settings: &mut Value| drop(settings.as_object_mut().unwrap().remove("store"));
    settings::changed(&without, remove).await;
    let denied = Fault::Status(403);
    tokio::join!(
        without_a_store(&without),
        in_vain(&store, denied, false, "1h", &["exit code 1: snapshot: ", "403"]),
        in_vain(&store, denied, true, "1h", &["exit code 1: snapshot: ", "403"]),
        in_vain(&store, Fault::HoldRequest, false, "1s", &["exit code 4: snapshot: no answer within 1 s"]),
        gets_the_next(&store),
    );
    without.end().await;
    first.end().await;
}

/// A command that hears of the end and saves: the next attempt has what it saved, without a snapshot of its own. One that dies
/// of the signal may have left half of something: the next attempt has the last snapshot.
#[tokio::test]
async fn what_a_command_saves_when_its_node_is_drained_is_there_in_the_next_attempt() {
    let space = Space::new().await;
    let command = |trap: &str| {
        let text = r#"[ "$BUNDLE_ATTEMPT" = 2 ] && { cat step; exit 0; }
            TRAP
            echo 1 >step; "$BUNDLE_SNAPSHOT"; echo 2 >step; echo ready
            while :; do sleep 0.1; done"#;
        json!({"command": text.replace("TRAP", trap), "retry": {"resume": true}})
    };
    let cases = [("saves", "trap 'echo saved >step; exit 0' TERM", "saved\n"), ("dies", "", "1\n")];
    together(cases.map(async |(name, trap, expected)| {
        space.start(name, command(trap)).await;
        let pod = at_second_step(&space, name).await;
        space.pods().delete(&pod.name_any(), &DeleteParams::default()).await.unwrap();
        let ended = space.end_of(name).await;
        assert_eq!((ended.phase, stdout(&ended)), (Some(Phase::Succeeded), expected), "{ended:#?}");
    }))
    .await;
    space.end().await;
}

#[tokio::test]
async fn a_preempted_run_goes_on_on_another_node_from_its_last_snapshot() {
    let space = Space::with_devices().await;
    let class = space.priority_class().await;
    let node = std::env::var("NODE_NAME").unwrap();
    let all = |node: &str| json!({"gpus": node::allocatable_gpus(node)});
    let closed = format!("{node}-2");
    space.start("preempted", training(&json!({"resources": all(&closed)}))).await;
    let kept = printed(&space, &at_second_step(&space, "preempted").await).await;
    let second = node::SecondNode::open(&space);
    let first = json!({"command": "sleep 1h", "priorityClassName": class, "resources": all(&node),
        "nodeSelector": {"kubernetes.io/hostname": node}});
    space.start("first", first).await;
    let ended = space.end_of("preempted").await;
    assert_eq!(ended.attempts[0].cause.as_deref(), Some("PreemptionByScheduler"), "{ended:#?}");
    assert_eq!([0, 1].map(|i| ended.attempts[i].node.clone().unwrap()), [node, second.name.clone()]);
    assert_resumed(&ended, "0");
    assert_eq!(ended.attempts[1].resumed_from, Some(kept));
    space.stop("first").await;
    space.end_of("first").await;
    space.end().await;
}

/// What a command saves at the end is the last snapshot of its attempt; where it dies of the signal, that is the one that it
/// asked for.
#[tokio::test]
async fn a_run_whose_node_is_drained_goes_on_on_another_from_the_snapshot_that_its_record_names() {
    let space = Space::exclusive().await;
    let saves = TRAINING.replace("echo ready\n", "trap 'echo 1 >step; exit 0' TERM; echo ready; sleep 1h & wait\n");
    let runs = [("saves", saves.as_str()), ("dies", TRAINING)];
    let kept = together(runs.map(async |(name, command)| {
        space.start(name, json!({"command": command, "retry": {"resume": true}})).await;
        printed(&space, &at_second_step(&space, name).await).await
    }))
    .await;
    let (drained, second) = (node::Cordoned::first(&space), node::SecondNode::open(&space));
    drained.drain_runs();
    let nodes = [std::env::var("NODE_NAME").unwrap(), second.name.clone()];
    for ((name, _), kept) in runs.iter().zip(&kept) {
        let ended = space.end_of(name).await;
        assert_eq!((ended.phase, ended.attempts.len()), (Some(Phase::Succeeded), 2), "{ended:#?}");
        assert_eq!(ended.attempts[0].cause.as_deref(), Some("EvictionByEvictionAPI"), "{ended:#?}");
        assert_eq!([0, 1].map(|i| ended.attempts[i].node.clone().unwrap()), nodes, "{name}");
        let from = ended.attempts[1].resumed_from.as_deref().unwrap();
        let tag = format!("bundles/{}:{}", space.name, snapshot_tag(&space, name).await);
        assert_eq!(from.split_once('@').unwrap().1, registry_digest(&tag), "{name}");
        assert!(stdout(&ended).starts_with(&format!("goes on from {from} with step 1 ")), "{ended:#?}");
        assert_eq!(from == kept, *name == "dies", "{name} printed {kept}: {ended:#?}");
    }
    space.end().await;
}

/// Changes one of its files at each step, every other one through a mapping, and keeps every third step. What an attempt
/// finds is compared with what the step says: a mix of two steps shows.
const SWEPT: &str = r"
import mmap, os, subprocess, sys
FILES, SIZE, ATTEMPT = int(os.environ['FILES']), int(os.environ['SIZE']), os.environ['BUNDLE_ATTEMPT']
def log(text):
    with open('/trace/log', 'a') as file:
        file.write(ATTEMPT + ' ' + text + '\n')
def content(step, i):
    return str(max(step - (step - i) % FILES, 0)).rjust(SIZE).encode()
names = ['f%d' % i for i in range(FILES)]
if 'BUNDLE_RESUMED_FROM' in os.environ:
    step = int(open('step').read())
    wrong = [name for i, name in enumerate(names) if open(name, 'rb').read() != content(step, i)]
    log('resumed %d %s from %s' % (step, wrong or 'whole', os.environ['BUNDLE_RESUMED_FROM']))
else:
    step = 0
    for i, name in enumerate(names):
        open(name, 'wb').write(content(0, i))
    log('empty')
if ATTEMPT == '4':
    sys.exit(0)
files = [open(name, 'r+b') for name in names]
maps = [mmap.mmap(file.fileno(), 0) for file in files]
while True:
    step += 1
    i = step % FILES
    if i % 2:
        maps[i][:] = content(step, i)
    else:
        os.pwrite(files[i].fileno(), content(step, i), 0)
    open('step', 'w').write(str(step))
    if step % 3 == 0:
        asked = subprocess.run([os.environ['BUNDLE_SNAPSHOT']], stdout=subprocess.PIPE, text=True)
        if asked.returncode == 0:
            log('kept %d as %s' % (step, asked.stdout.strip()))
";

/// What ends an attempt, or only disturbs it.
#[derive(Clone, Copy, Debug)]
enum Kill {
    Runner,
    Pod,
    Helper,
    HelpersChild,
}

impl Kill {
    async fn carry_out(self, space: &Space, pod: &Pod) {
        match self {
            Self::Runner => node::kill(pod, "run"),
            Self::Pod => {
                let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
                space.pods().delete(&pod.name_any(), &at_once).await.unwrap();
            }
            Self::Helper => node::kill(pod, "bundle"),
            // The last one: of a snapshot, if one is being taken.
            Self::HelpersChild => {
                let processes = node::processes(&node::container_id(pod, "bundle"));
                if let [_, .., child] = processes.as_slice() {
                    let _ = kill_process(*child, Signal::KILL);
                }
            }
        }
    }
}

/// The same for the same seed.
struct Moments(u64);

impl Moments {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// The lines of an attempt.
fn lines_of(trace: &Path, attempt: u32) -> Vec<String> {
    let text = std::fs::read_to_string(trace.join("log")).unwrap_or_default();
    let prefix = format!("{attempt} ");
    text.lines().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect()
}

/// The steps that an attempt knows to be kept, with what the program printed.
fn told_by(trace: &Path, attempt: u32) -> Vec<(u32, String)> {
    let told = |line: &String| {
        let (step, reference) = line.strip_prefix("kept ")?.split_once(" as ")?;
        Some((step.parse().ok()?, reference.to_owned()))
    };
    lines_of(trace, attempt).iter().filter_map(told).collect()
}

/// The steps alone.
fn kept_by(trace: &Path, attempt: u32) -> Vec<u32> {
    told_by(trace, attempt).into_iter().map(|(step, _)| step).collect()
}

/// The step that an attempt went on from, and the snapshot. It began once, and found all files as of that step.
fn found_by(trace: &Path, attempt: u32) -> (u32, String) {
    let begins: Vec<_> = lines_of(trace, attempt).into_iter().filter(|line| !line.starts_with("kept ")).collect();
    let found = match begins.as_slice() {
        [line] => line.strip_prefix("resumed ").and_then(|rest| rest.split_once(" whole from ")),
        _ => None,
    };
    let (step, reference) = found.unwrap_or_else(|| panic!("attempt {attempt}: {begins:?}"));
    (step.parse().unwrap(), reference.to_owned())
}

/// How many files a swept command has, and their size in bytes.
const FEW: (u32, u32) = (20, 100_000);
const MANY: (u32, u32) = (100, 2_000_000);

fn swept((files, size): (u32, u32)) -> Value {
    let volumes = json!([{"path": "/trace", "claim": {"name": "trace"}}]);
    let env = json!([{"name": "FILES", "value": files.to_string()}, {"name": "SIZE", "value": size.to_string()}]);
    // The disk that the tests' settings give by default has no room for the large ones.
    let resources =
        if (files, size) == MANY { json!({"cpus": "200m", "memory": "512Mi", "disk": "1Gi"}) } else { json!({}) };
    json!({"argv": ["python3", "-c", SWEPT], "env": env, "retry": {"resume": true}, "volumes": volumes,
        "resources": resources})
}

/// What the operator wrote in the namespace in these times.
fn written(space: &Space, times: &[(Timestamp, Timestamp)]) -> Vec<String> {
    let is_meant = |event: &Value| {
        let at = audit::received(event);
        audit::text(event, "/objectRef/namespace") == space.name
            && !["get", "list", "watch"].contains(&audit::text(event, "/verb").as_str())
            && times.iter().any(|(since, until)| *since < at && at < *until)
    };
    let said = |event: &Value| {
        let [verb, uri] = ["/verb", "/requestURI"].map(|path| audit::text(event, path));
        format!("{verb} {uri} at {}", audit::received(event))
    };
    audit::of_operator(is_meant).iter().map(said).collect()
}

/// Three attempts of a run are killed. Returns a row for each: what was done, and what the next one found.
async fn sweep(space: &Space, seed: u64, files: (u32, u32)) -> Vec<String> {
    let space = space.beside().await;
    let (trace, mut moments) = (space.claim("trace").await, Moments(seed));
    space.start("swept", swept(files)).await;
    let (mut done, mut running) = (vec![], vec![]);
    for attempt in 1..=3 {
        let pod = space.pod_running(&format!("swept-{attempt}")).await;
        let until_kept = async |count: usize| {
            let kept = || kept_by(&trace, attempt).len();
            eventually("a step to be kept", async || if kept() >= count { Ok(()) } else { Err(kept()) }).await;
            kept()
        };
        let first = until_kept(1).await;
        let since = Instant::now();
        let kept = until_kept(first + 1).await;
        // From one snapshot to the next, with three steps between them.
        let cycle = since.elapsed();
        // What it tells of its start it has told then, and that the store was away, if it was.
        let runs = |status: &BundleRunStatus| {
            (status.phase, status.attempt) == (Some(Phase::Running), Some(attempt))
                && condition(status, "OutputSaved").is_none()
        };
        space.until("swept", "to be told as running", runs).await;
        let begun = Timestamp::now();
        let mut kills = vec![];
        // The pod's record may be forgotten by force, and what had begun in the helper with it.
        match moments.next(3) {
            0 => kills.push(Kill::Helper),
            1 => kills.push(Kill::HelpersChild),
            _ => {}
        }
        kills.push(if moments.next(2) == 0 { Kill::Runner } else { Kill::Pod });
        let mut row = format!("seed {seed}, attempt {attempt}:");
        for (number, kill) in kills.into_iter().enumerate() {
            until_kept(kept + number).await;
            // Somewhere in a snapshot or between two.
            let wait = cycle.mul_f64(f64::from(u32::try_from(moments.next(1000)).unwrap()) / 1000.0);
            tokio::time::sleep(wait).await;
            if !matches!(kill, Kill::Helper | Kill::HelpersChild) {
                running.push((begun, Timestamp::now()));
            }
            kill.carry_out(&space, &pod).await;
            row.extend([format!(" {kill:?} after {wait:?},")]);
        }
        done.push(row);
    }
    let ended = space.end_of("swept").await;
    assert_eq!((ended.phase, ended.attempt), (Some(Phase::Succeeded), Some(4)), "{ended:#?}");
    let first: Vec<_> = lines_of(&trace, 1).into_iter().filter(|line| !line.starts_with("kept ")).collect();
    assert_eq!(first, ["empty"], "the first attempt began once");
    for (attempt, row) in (1..=3).zip(&mut done) {
        let (found, from) = found_by(&trace, attempt + 1);
        let (kept, reference) = told_by(&trace, attempt).pop().unwrap();
        row.extend([format!(" kept {kept}; then resumed {found}")]);
        // Or the one that was complete in the store when the kill came, of which nobody was told.
        assert!((found == kept && from == reference) || (found == kept + 3 && from != reference), "{row} from {from}");
        let told = ended.attempts.iter().find(|told| told.attempt == attempt + 1).unwrap();
        assert_eq!(told.resumed_from.as_ref(), Some(&from), "{row}");
    }
    let writes = written(&space, &running);
    assert!(running.len() == 3 && writes.is_empty(), "seed {seed}, {running:?}: {writes:#?}");
    space.end().await;
    done
}

/// Short form; see `a_hundred_kills_lose_nothing_that_was_kept`.
#[tokio::test]
async fn kills_lose_nothing_that_was_kept() {
    let space = Space::new().await;
    let rows = together((0..2).map(|seed| sweep(&space, seed, FEW))).await;
    rows.iter().flatten().for_each(|row| println!("{row}"));
    space.end().await;
}

#[tokio::test]
#[ignore = "half an hour: make test-cluster-long"]
async fn a_hundred_kills_lose_nothing_that_was_kept() {
    let space = Space::exclusive().await;
    let mut rows = vec![];
    let sweeps = async {
        for round in 0..7 {
            rows.extend(together((0..5).map(|seed| sweep(&space, 100 + round * 5 + seed, MANY))).await);
        }
    };
    let mut outages = 0;
    let registry = async {
        let mut moments = Moments(7);
        loop {
            tokio::time::sleep(Duration::from_secs(10 + moments.next(40))).await;
            let held = node::HeldRegistry::hold();
            outages += 1;
            tokio::time::sleep(Duration::from_secs(20)).await; // how long it is away
            drop(held);
        }
    };
    tokio::select! { () = sweeps => {}, () = registry => {} }
    rows.iter().flatten().for_each(|row| println!("{row}"));
    println!("meanwhile the registry was away {outages} times for 20 s");
    assert!(rows.iter().flatten().count() >= 100 && outages > 0);
    space.end().await;
}

/// The node's kubelet is dead, the node is declared out of service, and what it runs goes on: the command works, and its
/// helper takes snapshots, while the next attempt does.
#[tokio::test]
#[ignore = "takes minutes: make test-cluster-long"]
async fn a_node_that_is_cut_off_goes_on_pushing_and_mixes_nothing() {
    let space = Space::exclusive().await;
    let second = node::SecondNode::open(&space);
    let spaces = together((0..5).map(|_| space.beside())).await;
    let traces = together(spaces.iter().map(|space| space.claim("trace"))).await;
    let first = node::Cordoned::first(&space);
    together(spaces.iter().map(async |space| {
        space.start("swept", swept(FEW)).await;
        space.pod_running("swept-1").await;
    }))
    .await;
    drop(first);
    let kept = async |attempt: u32, than: usize| {
        together(traces.iter().map(async |trace| {
            eventually("a step to be kept", async || {
                let kept = kept_by(trace, attempt);
                if kept.len() > than { Ok(kept.len()) } else { Err(kept) }
            })
            .await
        }))
        .await
    };
    kept(1, 1).await;
    let kubelet = node::Dead::kill("kubelet-2");
    let is_silent =
        |s: &BundleRunStatus| s.waiting.as_ref().is_some_and(|w| w.reason.as_deref() == Some("NodeNotResponding"));
    together(spaces.iter().map(async |space| {
        space.until("swept", "to tell that its node is silent", is_silent).await;
    }))
    .await;
    let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    let lost = async |attempt: u32| {
        let pod = format!("swept-{attempt}");
        together(spaces.iter().map(async |space| drop(space.pods().delete(&pod, &at_once).await.unwrap()))).await
    };
    let before: Vec<_> = traces.iter().map(|trace| kept_by(trace, 1).last().copied().unwrap()).collect();
    second.declare_out_of_service();
    // The second attempt keeps steps of its own while the first does, and ends as badly.
    kept(2, 2).await;
    let still = kept(1, 0).await;
    kept(1, *still.iter().max().unwrap()).await;
    lost(2).await;
    kept(3, 0).await;
    lost(3).await;
    for ((space, trace), before) in spaces.iter().zip(&traces).zip(before) {
        let ended = space.end_of("swept").await;
        assert_eq!((ended.phase, ended.attempt), (Some(Phase::Succeeded), Some(4)), "{ended:#?}");
        let found = |attempt: u32| found_by(trace, attempt).0;
        println!("cut off after step {before}: attempt 2 went on from {}, 3 from {}", found(2), found(3));
        // It began while the first went on: with what that had kept by then, which is no less than before.
        assert!(found(2) >= before && found(2) <= kept_by(trace, 1).last().unwrap() + 3);
        let of_the_second = *kept_by(trace, 2).last().unwrap();
        assert!([of_the_second, of_the_second + 3].contains(&found(3)), "never from the node that was cut off");
    }
    drop(kubelet);
    drop(second);
    together(spaces.into_iter().map(Space::end)).await;
    space.end().await;
}

/// What a command does, again and again, with how many seconds it took on the last line. Both change a file of 2 MB of 80
/// each second or so.
const CPU_BOUND: &str = r"
import os, time
for i in range(40): open('f%d' % i, 'wb').write(os.urandom(2_000_000))
start = time.monotonic()
for step in range(40):
    open('f%d' % step, 'wb').write(os.urandom(2_000_000))
    for _ in range(10_000_000): pass
print(time.monotonic() - start)
";
const DISK_BOUND: &str = r"
import os, time
data = os.urandom(20_000_000)
start = time.monotonic()
for step in range(100):
    with open('f%d' % (step % 4), 'wb') as file:
        file.write(data)
        os.fsync(file.fileno())
print(time.monotonic() - start)
";

#[tokio::test]
#[ignore = "a benchmark: it prints figures and claims nothing"]
async fn bench_what_snapshots_cost_a_command() {
    let space = Space::exclusive().await;
    let took = async |name: &str, program: &str, outputs: Value| {
        let spec = json!({"argv": ["python3", "-c", program], "outputs": outputs,
            "resources": {"cpus": "1", "memory": "512Mi", "disk": "1Gi"}});
        let ended = space.run(name, spec).await;
        stdout(&ended).trim().parse::<f64>().unwrap_or_else(|_| panic!("{ended:#?}"))
    };
    for (name, program) in [("cpu", CPU_BOUND), ("disk", DISK_BOUND)] {
        let (mut off, mut on) = (vec![], vec![]);
        for round in 0..5 {
            off.push(took(&format!("{name}-off-{round}"), program, json!({})).await);
            on.push(took(&format!("{name}-on-{round}"), program, json!({"snapshots": {"every": "10s"}})).await);
        }
        let [off, on] = [&mut off, &mut on].map(|all| {
            all.sort_by(f64::total_cmp);
            (all[all.len() / 2], all[0], all[all.len() - 1])
        });
        let slower = (on.0 / off.0 - 1.0) * 100.0;
        println!("{name}-bound, seconds (median, least, most): without {off:.2?}, with {on:.2?}: {slower:+.1} %");
    }
    space.end().await;
}

/// A node that was cut off may push snapshots of its attempt while the next one runs, and after it.
#[tokio::test]
async fn what_a_node_that_was_cut_off_still_pushes_is_not_resumed_from() {
    let space = Space::new().await;
    let keeps = r#"echo "from $BUNDLE_RESUMED_FROM: $(cat step 2>/dev/null)"
        [ "$BUNDLE_ATTEMPT" = 3 ] && exit 0
        [ "$BUNDLE_ATTEMPT" = 1 ] && { echo "$BUNDLE_NAME" >step; "$BUNDLE_SNAPSHOT"; }
        echo ready; sleep 1h"#;
    for name in ["fenced", "other"] {
        space.start(name, json!({"command": keeps, "retry": {"resume": true}})).await;
    }
    // One whose first attempt had none when the second began.
    let nothing = keeps.replace("= 1 ] &&", "= 0 ] &&");
    space.start("empty", json!({"command": nothing, "retry": {"resume": true}})).await;
    let first = at_second_step(&space, "fenced").await;
    at_second_step(&space, "other").await;
    let empty = space.pod_running("empty-1").await;
    until_said(&space, "empty-1", "ready").await;
    node::kill(&first, "run");
    node::kill(&empty, "run");
    let second = space.pod_running("fenced-2").await;
    until_said(&space, "fenced-2", "ready").await;
    let empty = space.pod_running("empty-2").await;
    until_said(&space, "empty-2", "ready").await;
    // As if the first attempts' helpers had gone on.
    let repository = format!("{}/bundles/{}", std::env::var("REGISTRY_HOST").unwrap(), space.name);
    let pushed = format!("{repository}:{}", snapshot_tag(&space, "other").await);
    output("crane", &["tag", "--insecure", &pushed, &snapshot_tag(&space, "fenced").await]);
    output("crane", &["tag", "--insecure", &pushed, &snapshot_tag(&space, "empty").await]);
    node::kill(&second, "run");
    node::kill(&empty, "run");
    let empty = space.end_of("empty").await;
    assert_eq!((stdout(&empty), empty.attempt), ("from : \n", Some(3)), "{empty:#?}");
    let ended = space.end_of("fenced").await;
    let [_, second, third] = ended.attempts.as_slice() else { panic!("{ended:#?}") };
    assert_eq!(second.resumed_from, third.resumed_from);
    let from = third.resumed_from.as_deref().unwrap();
    assert_eq!(stdout(&ended), format!("from {from}: fenced\n"), "{ended:#?}");
    space.stop("other").await;
    space.end_of("other").await;
    space.end().await;
}

/// A run that is evaluated while it trains: who has its snapshot as an input waits for the first one, keeps that one, and does
/// not care how the other ends.
#[tokio::test]
async fn the_last_snapshot_of_a_run_is_an_input_of_another_while_it_goes_on() {
    let space = Space::new().await;
    let trace = space.claim("trace").await;
    let of_train = json!([{"path": "model", "run": {"name": "train", "snapshot": "latest"}}]);
    let command = r#"cat model/step; [ "$BUNDLE_ATTEMPT" = 2 ] && exit 0; echo ready; sleep 1h"#;
    space.start("eval", json!({"command": command, "inputs": of_train})).await;
    let waits_for = |wanted: &'static str| {
        move |status: &BundleRunStatus| status.waiting.as_ref().and_then(|w| w.reason.as_deref()) == Some(wanted)
    };
    space.until("eval", "to wait for the other", waits_for("InputMissing")).await;
    let train = r#"
        for step in 1 2; do
            until [ -e /trace/$step ]; do sleep 0.1; done
            echo $step >step; "$BUNDLE_SNAPSHOT" || exit 5; echo "kept $step"
        done; sleep 1h"#;
    let volumes = json!([{"path": "/trace", "claim": {"name": "trace"}}]);
    space.start("train", json!({"command": train, "volumes": volumes, "suspend": true})).await;
    let waiting = space.until("eval", "to wait for its start", waits_for("InputNotStarted")).await.waiting.unwrap();
    assert_eq!((waiting.stage.as_deref(), waiting.until.as_deref()), (Some("Inputs"), Some("no deadline")));
    let goes_on = Patch::Merge(json!({"spec": {"suspend": false}}));
    space.runs().patch("train", &PatchParams::default(), &goes_on).await.unwrap();
    let waiting = space.until("eval", "to wait for a snapshot", waits_for("InputHasNoSnapshot")).await.waiting.unwrap();
    assert!(waiting.message.as_ref().unwrap().contains("run train has no snapshot yet"), "{waiting:#?}");
    assert!(waiting.until.as_ref().unwrap().ends_with("then the run ends: InputNotFound"), "{waiting:#?}");
    let train_pod = space.pod_running("train-1").await.name_any();

    std::fs::write(trace.join("1"), "").unwrap();
    let first = at_second_step(&space, "eval").await;
    std::fs::write(trace.join("2"), "").unwrap();
    until_said(&space, &train_pod, "kept 2").await;
    node::kill(&first, "run");
    let ended = space.end_of("eval").await;
    assert_eq!((ended.phase, ended.attempt, stdout(&ended)), (Some(Phase::Succeeded), Some(2), "1\n"), "{ended:#?}");
    let [found] = ended.inputs.as_slice() else { panic!("{ended:#?}") };
    assert_eq!(found.run_uid, space.runs().get("train").await.unwrap().uid());
    let digest = found.digest.as_deref().unwrap();
    assert_eq!(found.reference.as_deref().unwrap().split_once('@').unwrap().1, digest, "{ended:#?}");

    // Another one has what is the last by then; so has one that comes after the end.
    let later = space.run("later", json!({"command": "cat model/step", "inputs": of_train})).await;
    assert_eq!(stdout(&later), "2\n", "{later:#?}");
    space.stop("train").await;
    assert_eq!(space.end_of("train").await.phase, Some(Phase::Stopped));
    let step = json!([{"path": "step", "run": {"name": "train", "path": "step", "snapshot": "latest"}}]);
    let after = space.run("after", json!({"command": "cat step", "inputs": step})).await;
    assert_eq!(stdout(&after), "2\n", "{after:#?}");

    let none = json!([{"path": "model", "run": {"name": "after", "snapshot": "latest"}}]);
    let none = space.run("none", json!({"command": "true", "inputs": none})).await;
    assert_eq!(cause(&none), "InputNotFound", "{none:#?}");
    assert!(none.message.as_ref().unwrap().contains("run after has ended and has no snapshot"), "{none:#?}");
    space.end().await;
}

#[tokio::test]
async fn who_waits_for_the_first_snapshot_of_a_run_hears_of_its_end() {
    let space = Space::new().await;
    let trace = space.claim("trace").await;
    let volumes = json!([{"path": "/trace", "claim": {"name": "trace"}}]);
    let train = "until [ -e /trace/go ]; do sleep 0.1; done";
    space.start("train", json!({"command": train, "volumes": volumes})).await;
    let of_train = json!([{"path": "model", "run": {"name": "train", "snapshot": "latest"}}]);
    space.start("eval", json!({"command": "true", "inputs": of_train})).await;
    let waits = |status: &BundleRunStatus| status.reason.as_deref() == Some("InputHasNoSnapshot");
    space.until("eval", "to wait for a snapshot", waits).await;
    std::fs::write(trace.join("go"), "").unwrap();
    let ended = space.end_of("eval").await;
    assert_eq!((cause(&ended), ended.attempt), ("InputNotFound", Some(1)), "{ended:#?}");
    assert!(ended.message.as_ref().unwrap().contains("run train has ended and has no snapshot"), "{ended:#?}");
    space.end().await;
}
