//! Outputs become bundles, however a run ends, and inputs are what they were.

use std::path::Path;
use std::time::Duration;

use bundlerun::api::Phase;
use bundlerun::names;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use k8s_openapi::api::policy::v1::Eviction;
use kube::api::{Api, DeleteParams, PostParams};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::common::{
    Space, cause, condition, condition_of, eventually, export, left, output, saved_file, seconds, stdout, together,
};
use crate::node;
use crate::settings;

const LISTING: &str = include_str!("listing.py");
const ODDITIES: &str = include_str!("oddities.py");

async fn scripts(space: &Space) {
    let scripts: Api<ConfigMap> = space.api();
    let map = json!({"metadata": {"name": "scripts"}, "data": {"listing.py": LISTING, "oddities.py": ODDITIES}});
    scripts.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
}

#[tokio::test]
async fn what_its_command_closed_is_missing_in_an_output_and_its_inputs_say_so() {
    let space = Space::new().await;
    let closes = "echo fine >good; echo secret >key; mkdir -p shut; echo in >shut/in; chmod 000 key shut";
    let made = space.run("make", json!({"command": closes, "runAsUser": 1000})).await;
    assert_eq!((cause(&made), made.phase), ("SavedInPart", Some(Phase::Succeeded)), "{made:#?}");
    let saved = condition_of(&made, "OutputSaved").unwrap();
    assert_eq!((&*saved.status, &*saved.reason), ("True", "SavedInPart"), "{saved:#?}");
    for name in ["key (cannot be read", "shut (cannot be read"] {
        assert!(saved.message.contains(name), "{saved:#?}");
    }
    let reads = json!({"command": "ls data", "inputs": [{"path": "data", "run": {"name": "make"}}]});
    let read = space.run("read", reads).await;
    assert_eq!((cause(&read), stdout(&read)), ("Completed", "good\nstderr\nstdout\n"), "{read:#?}");
    let inputs = &read.inputs;
    assert_eq!(inputs.iter().map(|input| input.in_part).collect::<Vec<_>>(), [true], "{inputs:#?}");
    space.end().await;
}

/// What `listing.py` says of a directory of this machine.
fn listed(root: &Path, ignored: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/listing.py");
    let args: Vec<_> =
        [script.to_str().unwrap(), root.to_str().unwrap()].into_iter().chain(ignored.iter().copied()).collect();
    output("python3", &args)
}

#[tokio::test]
async fn a_tree_of_oddities_comes_back_as_it_was() {
    let space = Space::new().await;
    scripts(&space).await;
    let script = |key: &str| json!({"path": format!("/scripts/{key}"), "configMap": {"name": "scripts", "key": key}});
    let trace = space.claim("trace").await;
    let volumes = json!([{"path": "/trace", "claim": {"name": "trace"}}]);
    let resources = json!({"cpus": "500m", "memory": "512Mi"});
    let oddities = json!({
        "command": "python3 /scripts/oddities.py && python3 /scripts/listing.py . fifo stdout stderr >/trace/written",
        "inputs": [script("oddities.py"), script("listing.py")], "volumes": volumes, "resources": resources});
    let made = space.run("make", oddities).await;
    assert_eq!(cause(&made), "Completed", "{made:#?}");
    let saved = condition_of(&made, "OutputSaved").unwrap();
    assert!(saved.status == "True" && saved.message.starts_with("1 entry"), "the FIFO: {saved:#?}");

    let read = |name: &str, source: Value| {
        let mut input = source;
        input["path"] = json!("/data");
        json!({"command": format!("python3 /scripts/listing.py /data stdout stderr >/trace/{name}"),
            "inputs": [script("listing.py"), input], "volumes": volumes, "resources": resources})
    };
    let bundle = made.output.clone().unwrap().bundle.unwrap();
    let by_run = space.run("by-run", read("by-run", json!({"run": {"name": "make"}}))).await;
    let by_image = space.run("by-image", read("by-image", json!({"image": {"reference": bundle}}))).await;
    assert_eq!((cause(&by_run), cause(&by_image)), ("Completed", "Completed"), "{by_run:#?} {by_image:#?}");
    let text = |name: &str| std::fs::read_to_string(trace.join(name)).unwrap().trim().to_owned();
    // Whatever the user of an image, it can read its inputs.
    let readable = text("written")
        .replace("'closed' directory 0o700", "'closed' directory 0o755")
        .replace("'closed/private' file 0o600", "'closed/private' file 0o644");
    assert!(text("written").lines().count() > 2050 && readable != text("written"));
    assert_eq!(text("by-run"), readable);
    assert_eq!(text("by-image"), readable);

    // An independent reader knows nothing of names that would be deletions.
    let exported = export(&made);
    let plain = |text: &str| text.lines().filter(|l| !l.contains(".wh.")).collect::<Vec<_>>().join("\n");
    let contents = listed(&exported.path().join("contents"), &["stdout", "stderr"]);
    assert_eq!(plain(&contents), plain(&text("written")));
    assert!(!contents.contains(".wh."));

    // The same tree, at another time and by another user.
    let again = |user: Value| {
        let command = "mkdir d; echo same >d/f; ln -s d/f l; chmod 755 d; chmod 644 d/f";
        json!({"command": command, "outputs": {"exclude": ["std*"]}, "runAsUser": user})
    };
    let (one, two) = tokio::join!(space.run("one", again(Value::Null)), space.run("two", again(json!(1234))));
    let digest = |status: &bundlerun::api::BundleRunStatus| status.output.clone().unwrap().bundle.unwrap();
    assert_eq!(digest(&one), digest(&two));
    space.end().await;
}

#[tokio::test]
async fn a_whole_bundle_that_everybody_may_read_is_mounted_by_the_node() {
    let space = Space::new().await;
    scripts(&space).await;
    let trace = space.claim("trace").await;
    let volumes = json!([{"path": "/trace", "claim": {"name": "trace"}}]);
    let script = json!({"path": "/listing.py", "configMap": {"name": "scripts", "key": "listing.py"}});
    let writes = "set -e; umask 022; mkdir -p d/e empty; echo deep >d/e/f; ln -s d/e/f link; ln d/e/f second; chmod 755 d/e/f; \
        python3 /listing.py . stdout stderr >/trace/written";
    let made = space.run("make", json!({"command": writes, "volumes": volumes, "inputs": [script]})).await;
    assert_eq!(made.output.as_ref().unwrap().mountable, Some(true), "{made:#?}");
    let read = "python3 /listing.py data stdout stderr >/trace/read";
    let inputs = json!([script, {"path": "data", "run": {"name": "make"}}]);
    let reader =
        json!({"image": "localhost:5000/nonroot:local", "command": read, "volumes": volumes, "inputs": inputs});
    let ended = space.run("read", reader).await;
    assert_eq!(cause(&ended), "Completed", "{ended:#?}");
    let pod = space.pods().get("read-1").await.unwrap();
    let images: Vec<_> = pod.spec.unwrap().volumes.unwrap().into_iter().filter_map(|v| v.image?.reference).collect();
    assert_eq!(images, [made.output.unwrap().bundle.unwrap()]);
    let text = |name: &str| std::fs::read_to_string(trace.join(name)).unwrap();
    assert_eq!(text("read"), text("written"));
    space.end().await;
}

/// What `oras` finds of how a bundle was made.
fn made_by(bundle: &str) -> Value {
    let found = output("oras", &["discover", "--format", "json", "--plain-http", bundle]);
    let found: Value = serde_json::from_str(&found).unwrap();
    let artifact = found["referrers"][0]["reference"].as_str().unwrap();
    let dir = tempfile::tempdir().unwrap();
    output("oras", &["pull", "--plain-http", "--output", dir.path().to_str().unwrap(), artifact]);
    serde_json::from_slice(&std::fs::read(dir.path().join("provenance.json")).unwrap()).unwrap()
}

#[tokio::test]
async fn how_a_bundle_was_made_is_in_the_registry_when_all_else_is_gone() {
    let space = Space::new().await;
    let maps: Api<ConfigMap> = space.api();
    let map = json!({"metadata": {"name": "settings"}, "data": {"rate": "0.1", "code.py": "print(1)"}});
    maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
    let secrets: Api<Secret> = space.api();
    let secret = json!({"metadata": {"name": "token"}, "stringData": {"t": "hidden-value"}});
    secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    let made = space
        .run(
            "make",
            json!({"command": "true", "runAsUser": 1000, "runAsGroup": 2000,
                "env": [{"name": "SEED", "value": "$7"},
                    {"name": "RATE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "rate"}}},
                    {"name": "NONE", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k", "optional": true}}},
                    {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "t"}}}],
                "inputs": [{"path": "text", "text": "hello"},
                    {"path": "code.py", "configMap": {"name": "settings", "key": "code.py"}},
                    {"path": "/token", "secret": {"name": "token", "key": "t"}}]}),
        )
        .await;
    assert_eq!(cause(&made), "Completed", "{made:#?}");
    space.runs().delete("make", &DeleteParams::default()).await.unwrap();
    maps.delete("settings", &DeleteParams::default()).await.unwrap();
    space.gone::<Pod>("make-1").await;

    let told = made_by(made.output.unwrap().bundle.as_deref().unwrap());
    assert!(!told.to_string().contains("hidden-value"), "{told}");
    assert_eq!(
        told["env"],
        json!([{"name": "SEED", "value": "$7"},
            {"name": "RATE", "value": "0.1", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "rate"}}},
            {"name": "NONE", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k", "optional": true}}},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "t"}}}])
    );
    assert_eq!((&told["command"]["shell"], &told["record"]["exitCode"]), (&json!("true"), &json!(0)), "{told}");
    assert_eq!((&told["runAsUser"], &told["runAsGroup"], &told["attempt"]), (&json!(1000), &json!(2000), &json!(1)));
    let input = |index: usize| &told["inputs"][index];
    assert_eq!((&input(0)["text"], &input(1)["data"]["code.py"]), (&json!("hello"), &json!("print(1)")), "{told}");
    assert!([input(0), input(1)].iter().all(|input| input["digest"].as_str().unwrap().starts_with("sha256:")));
    space.end().await;
}

/// The layers of a bundle.
fn layers(status: &bundlerun::api::BundleRunStatus) -> Vec<String> {
    let manifest =
        output("crane", &["manifest", "--insecure", status.output.as_ref().unwrap().bundle.as_deref().unwrap()]);
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    manifest["layers"].as_array().unwrap().iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_file_of_a_thousand_that_grows_costs_two_layers_and_the_list() {
    let space = Space::new().await;
    let resources = json!({"cpus": "500m", "memory": "256Mi", "disk": "1500Mi"});
    // Pseudo-random, the same each time, and of a GiB.
    let make = "import random\nfor n in range(1000):\n    random.seed(n)\n    open(str(n), 'wb').write(random.randbytes(1 << 20))\n";
    let grow = format!("{make}open('500', 'ab').write(b'more' * 100000)\n");
    let spec = |program: &str| json!({"argv": ["python3", "-c", program], "resources": resources});
    let (before, after) = (space.run("before", spec(make)).await, space.run("after", spec(&grow)).await);
    assert_eq!((cause(&before), cause(&after)), ("Completed", "Completed"), "{before:#?} {after:#?}");
    let (old, new) = (layers(&before), layers(&after));
    let pushed = new.iter().filter(|layer| !old.contains(layer)).count();
    println!("{} layers of 1 GiB, {pushed} of them and of the list are new after one file grew", new.len());
    assert!(old.len() > 3 && pushed <= 3, "two and the list: {old:#?} {new:#?}");
    space.end().await;
}

#[tokio::test]
async fn every_source_of_an_input_is_there_read_only_and_no_part_of_the_output() {
    let space = Space::new().await;
    let trace = space.claim("store").await;
    std::fs::create_dir_all(trace.join("sub")).unwrap();
    std::fs::write(trace.join("sub/claimed"), "claim").unwrap();
    let maps: Api<ConfigMap> = space.api();
    let map = json!({"metadata": {"name": "map"}, "data": {"one": "1", "two": "2"}});
    maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
    let secrets: Api<Secret> = space.api();
    let secret = json!({"metadata": {"name": "hidden"}, "stringData": {"token": "t"}});
    secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    space.run("parent", json!({"command": "mkdir -p d/e; echo deep >d/e/f; echo top >t; echo dot >dotted"})).await;
    let inputs = json!([
        {"path": "a/b/text", "text": "text"},
        {"path": "map", "configMap": {"name": "map"}},
        {"path": "key", "configMap": {"name": "map", "key": "two"}},
        {"path": "secret", "secret": {"name": "hidden"}},
        {"path": "/secrets/token", "secret": {"name": "hidden", "key": "token"}},
        {"path": "claim", "claim": {"name": "store", "path": "sub"}},
        {"path": "all", "run": {"name": "parent"}},
        {"path": "/opt/inputs/part", "run": {"name": "parent", "path": "d"}},
        {"path": "file", "run": {"name": "parent", "path": "d/e/f"}},
        {"path": "image", "image": {"reference": format!("{}/bashrc:local", std::env::var("REGISTRY_HOST").unwrap()), "path": "opt/env"}},
        {"path": ".", "run": {"name": "parent", "path": "d"}},
    ]);
    let command = "set -e; cat a/b/text map/one key secret/token /secrets/token claim/claimed all/t /opt/inputs/part/e/f file e/f; \
        ls -A map; test -s image/.bashrc; echo mine >a/b/beside; echo out >out; \
        for f in a/b/text map/one key secret/token claim/claimed all/t file e/f; do \
            if echo no >$f || rm -f $f; then echo \"changed $f\"; exit 1; fi; done 2>/dev/null; \
        if rmdir map || mv key other; then exit 1; fi 2>/dev/null";
    for (name, user) in [("as-root", None), ("as-user", Some(1000))] {
        let ended = space.run(name, json!({"command": command, "inputs": inputs, "runAsUser": user})).await;
        assert_eq!(cause(&ended), "Completed", "{ended:#?}");
        assert_eq!(stdout(&ended), "text12ttclaimtop\ndeep\ndeep\ndeep\none\ntwo\n");
        let exported = export(&ended);
        let contents = listed(&exported.path().join("contents"), &[]);
        let names: Vec<_> = contents.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
        assert_eq!(names, ["b'a'", "b'out'", "b'stderr'", "b'stdout'", "b'a/b'", "b'a/b/beside'"], "{contents}");
        let digests: Vec<_> =
            ended.inputs.iter().filter(|input| input.digest.is_some()).map(|i| i.path.as_str()).collect();
        assert_eq!(digests, ["a/b/text", "map", "key", "all", "/opt/inputs/part", "file", "image", "."]);
    }
    space.end().await;
}

#[tokio::test]
async fn a_user_writes_beside_an_input_and_moves_its_directory() {
    let space = Space::new().await;
    space.run("parent", json!({"command": "echo in >f"})).await;
    // The user has /home/user from the image; what is made in it for a mount is the container runtime's, as the page says.
    let command = "set -e; echo out >data/out; mkdir data/more; mv data moved; cat moved/in/f; \
        if rm -rf moved/in || echo x >moved/in/g; then exit 1; fi 2>/dev/null; rmdir moved/more; \
        echo mine >/home/user/beside; cat /home/user/own /home/user/.cache/x/shared; \
        if echo no >/home/user/.cache/x/beside; then exit 1; fi 2>/dev/null";
    let inputs = json!([
        {"path": "data/in", "run": {"name": "parent"}},
        {"path": "/home/user/own", "text": "own "},
        {"path": "/home/user/.cache/x/shared", "text": "shared"},
    ]);
    let spec = json!({"image": "localhost:5000/nonroot:local", "command": command, "inputs": inputs});
    let ended = space.run("mover", spec).await;
    assert_eq!((cause(&ended), stdout(&ended)), ("Completed", "in\nown shared"), "{ended:#?}");
    let exported = export(&ended);
    let contents = exported.path().join("contents");
    assert_eq!(std::fs::read_to_string(contents.join("moved/out")).unwrap(), "out\n");
    assert_eq!(std::fs::read_dir(contents.join("moved")).unwrap().count(), 1, "nothing of the input");
    space.end().await;
}

#[tokio::test]
async fn the_working_directory_is_the_commands_alone() {
    let space = Space::new().await;
    // What `git clone URL .` asks for.
    let command = "ls -A; echo more >f; rm -rf ./* && echo told; echo why >&2";
    let emptied = space.run("emptied", json!({"image": "localhost:5000/debian:bookworm", "command": command}));
    let taken = space.run("taken", json!({"command": "echo mine >stdout; echo ours; cat $BUNDLE_STDOUT >copy"}));
    let (emptied, taken) = tokio::join!(emptied, taken);
    assert_eq!((cause(&emptied), stdout(&emptied)), ("Completed", "told\n"), "{emptied:#?}");
    assert_eq!((saved_file(&emptied, "stdout"), saved_file(&emptied, "stderr")), ("told\n".into(), "why\n".into()));
    assert_eq!((cause(&taken), stdout(&taken)), ("Completed", "ours\n"), "{taken:#?}");
    let files = ["stdout", "stdout.run", "copy"].map(|file| saved_file(&taken, file));
    assert_eq!(files, ["mine\n", "ours\n", "ours\n"]);
    assert!(taken.message.as_deref().unwrap().contains("stdout.run"), "{taken:#?}");
    space.end().await;
}

/// git is one of those who refuse what is somebody else's.
#[tokio::test]
async fn the_working_directory_is_its_users() {
    let space = Space::new().await;
    let command = "set -e; [ -O . ] && [ -O parent ]; mkdir parent/mine; echo owned; echo kept >kept; chmod 000 .";
    let users = [
        ("as-root", json!({"image": "localhost:5000/debian:bookworm"})),
        ("as-asked", json!({"image": "localhost:5000/debian:bookworm", "runAsUser": 1000})),
        ("as-image", json!({"image": "localhost:5000/nonroot:local"})),
    ];
    together(users.map(async |(name, mut spec)| {
        spec["command"] = json!(command);
        spec["inputs"] = json!([{"path": "parent/text", "text": "text"}]);
        let ended = space.run(name, spec).await;
        assert_eq!(cause(&ended), "Completed", "{name}: {ended:#?}");
        assert_eq!(stdout(&ended), "owned\n", "{name}: {ended:#?}");
        assert_eq!(saved_file(&ended, "kept"), "kept\n", "{name}: also of a directory that it has closed");
    }))
    .await;
    space.end().await;
}

/// What every run below leaves before it is ended.
const LEAVES: &str = "echo told; echo kept >kept; echo more >&2";

fn assert_saved(name: &str, status: &bundlerun::api::BundleRunStatus) {
    assert_eq!(condition(status, "OutputSaved"), Some("True"), "{name}: {status:#?}");
    assert_eq!(saved_file(status, "kept"), "kept\n", "{name}");
    assert_eq!(
        (saved_file(status, "stdout"), saved_file(status, "stderr")),
        ("told\n".into(), "more\n".into()),
        "{name}"
    );
}

#[tokio::test]
async fn what_was_written_is_saved_however_the_command_ends() {
    let space = Space::new().await;
    let waits = format!("{LEAVES}; touch ready; sleep 1h");
    let ready = async |name: &str| {
        space.pod_running(name).await;
        // Either stream may come first.
        eventually("what the command says", async || {
            let logs = space.logs(name).await;
            if logs.contains("told") && logs.contains("more") { Ok(()) } else { Err(logs) }
        })
        .await;
    };
    let ends: [(&str, Value, &str); 5] = [
        ("exits", json!({"command": format!("{LEAVES}; exit 4")}), "CommandFailed"),
        ("limited", json!({"command": waits, "timeLimit": "5s"}), "TimeLimitExceeded"),
        ("killed", json!({"command": waits, "retry": {"interruptions": 0}}), "RunnerDied"),
        ("deleted", json!({"command": waits, "retry": {"interruptions": 0}}), "PodDeleted"),
        ("evicted", json!({"command": waits, "retry": {"interruptions": 0}}), "EvictionByEvictionAPI"),
    ];
    together(ends.into_iter().map(async |(name, spec, expected)| {
        space.start(name, spec).await;
        let pod = format!("{name}-1");
        match name {
            "killed" => {
                ready(&pod).await;
                node::kill(&space.pods().get(&pod).await.unwrap(), names::RUN_CONTAINER);
            }
            "deleted" => {
                ready(&pod).await;
                space.pods().delete(&pod, &DeleteParams::default()).await.unwrap();
            }
            "evicted" => {
                ready(&pod).await;
                let eviction: Eviction = serde_json::from_value(json!({"metadata": {"name": pod}})).unwrap();
                let _: Value =
                    space.pods().create_subresource("eviction", &pod, &PostParams::default(), &eviction).await.unwrap();
            }
            _ => {}
        }
        let ended = space.end_of(name).await;
        assert_eq!(cause(&ended), expected, "{name}: {ended:#?}");
        assert_saved(name, &ended);
    }))
    .await;
    space.start("stopped", json!({"command": waits})).await;
    ready("stopped-1").await;
    space.stop("stopped").await;
    let stopped = space.end_of("stopped").await;
    assert_eq!((stopped.phase, stopped.signal), (Some(Phase::Stopped), Some(15)), "{stopped:#?}");
    assert_saved("stopped", &stopped);
    space.end().await;
}

#[tokio::test]
async fn stop_before_there_is_anything_to_stop_ends_a_run_at_once() {
    let space = Space::new().await;
    space.start("waits", json!({"command": "true", "inputs": [{"path": "a", "run": {"name": "nothing"}}]})).await;
    space.start("queued", json!({"command": "true", "resources": {"gpus": 64}})).await;
    space.waits_at("waits", "Inputs").await;
    space.waits_at("queued", "Scheduling").await;
    for name in ["waits", "queued"] {
        space.stop(name).await;
        let ended = space.end_of(name).await;
        assert_eq!((ended.phase, ended.start_time), (Some(Phase::Stopped), None), "{name}");
    }
    space.gone::<Pod>("queued-1").await;
    space.end().await;
}

/// The processes of a pod's helper that save, by their number on the host.
fn savers(helper: &Path) -> Vec<Pid> {
    let saves = |pid: &Pid| {
        let line = std::fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        line.split('\0').any(|word| word == "save")
    };
    node::processes_in(helper).into_iter().filter(saves).collect()
}

#[tokio::test]
async fn saving_goes_on_when_what_saves_is_killed_three_times() {
    let space = Space::new().await;
    // Large enough that who saves it is met while it does.
    let spec = json!({"command": format!("{LEAVES}; head -c 300M /dev/urandom >large"),
        "resources": {"cpus": "500m", "disk": "1Gi"}});
    space.start("killed", spec).await;
    let pod = space.pod_running("killed-1").await;
    // Found once: who saves is soon done.
    let helper = node::cgroup("memory", &node::container_id(&pod, names::HELPER_CONTAINER));
    let mut killed = vec![];
    while killed.len() < 3 {
        assert!(helper.exists(), "saved after {} kills", killed.len());
        for pid in savers(&helper) {
            if !killed.contains(&pid) && kill_process(pid, Signal::KILL).is_ok() {
                killed.push(pid);
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let ended = space.end_of("killed").await;
    assert_eq!(cause(&ended), "Completed", "{ended:#?}");
    assert_saved("killed", &ended);
    assert_eq!(std::fs::metadata(export(&ended).path().join("contents/large")).unwrap().len(), 300 << 20);
    space.end().await;
}

#[tokio::test]
async fn a_store_that_is_away_for_a_while_is_waited_for_and_one_that_stays_away_is_told() {
    let space = Space::exclusive().await;
    let trace = space.claim("trace").await;
    let spec = json!({"command": format!("{LEAVES}; touch trace/ended-$BUNDLE_NAME"),
        "volumes": [{"path": "trace", "claim": {"name": "trace"}}]});
    let mut waits = spec.clone();
    waits["command"] =
        json!(format!("{LEAVES}; until [ -e trace/go ]; do sleep 0.1; done; echo ended >trace/ended-$BUNDLE_NAME"));
    // Their images are there before the registry goes.
    for name in ["back", "away"] {
        space.start(name, waits.clone()).await;
        space.pod_running(&format!("{name}-1")).await;
    }
    let held = node::HeldRegistry::hold();
    std::fs::write(trace.join("go"), "").unwrap();
    tokio::join!(left(&trace, "ended-back"), left(&trace, "ended-away"));
    tokio::time::sleep(std::time::Duration::from_secs(15)).await; // how long it is away
    drop(held);
    for name in ["back", "away"] {
        let status = space.end_of(name).await;
        assert_eq!(cause(&status), "Completed", "{status:#?}");
        assert_saved(name, &status);
    }
    std::fs::remove_file(trace.join("go")).unwrap();
    settings::changed_alone(&space, |settings| settings["store"]["deadline"] = json!("30s")).await;
    space.start("lost", waits.clone()).await;
    space.pod_running("lost-1").await;
    let held = node::HeldRegistry::hold();
    std::fs::write(trace.join("go"), "").unwrap();
    let status = space.end_of("lost").await;
    drop(held);
    assert_eq!((status.phase, cause(&status), status.exit_code), (Some(Phase::Failed), "OutputNotSaved", Some(0)));
    assert_eq!(condition(&status, "OutputSaved"), Some("False"));
    let saving = seconds(status.timeline.unwrap().saving_milliseconds);
    println!("given up after {saving} s; the deadline is 30 s");
    assert!(saving >= 29.0, "{saving}");
    space.end().await;
}
