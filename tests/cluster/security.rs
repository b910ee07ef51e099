//! What a hostile command can see, alter and make us believe: nothing that is not its own.

use std::process::Command;

use bundlerun::api::{BundleRunStatus, Phase};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::common::{Space, cause, condition, condition_of, eventually, export, left, stdout, together, tried};
use crate::hostile::{RECORDS, RECORDS_PRELUDE, TREES, TRIED, search};
use crate::node;

/// As the image's own user, who is root, and as one without rights.
const USERS: [Option<i64>; 2] = [None, Some(1000)];

fn name(of: &str, user: Option<i64>) -> String {
    format!("{of}-{}", if user.is_some() { "user" } else { "root" })
}

/// Makes a spec one for this user.
fn run_as(user: Option<i64>, mut spec: Value) -> Value {
    if let Some(user) = user {
        spec["runAsUser"] = json!(user);
    }
    spec
}

/// Credentials of the store, which the helper gets and the command must not see.
async fn store_login(space: &Space, marker: &str) {
    let login = json!({"auths": {"registry.invalid": {"username": marker, "password": marker}}}).to_string();
    let store = json!({"metadata": {"name": "bundle-store"}, "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": login}});
    space.api().create(&PostParams::default(), &serde_json::from_value::<Secret>(store).unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_hostile_command_finds_no_credential_and_no_way_out() {
    let space = Space::new().await;
    let marker = format!("marker-of-{}", space.name);
    let secrets: Api<Secret> = space.api();
    let secret = json!({"metadata": {"name": "another"}, "stringData": {"key": marker}});
    secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    store_login(&space, &marker).await;
    let node = std::env::var("NODE_IP").unwrap();
    let argv = search(&marker, &space.name, &node);
    let runs = USERS.map(|user| {
        let (space, argv) = (&space, argv.clone());
        async move {
            let name = name("search", user);
            let ended = space.run(&name, run_as(user, json!({"argv": argv}))).await;
            assert_eq!(cause(&ended), "Completed", "{ended:#?}");
            space.logs(&format!("{name}-1")).await
        }
    });
    for log in together(runs).await {
        eprintln!("{log}");
        assert_eq!(log.lines().filter(|line| line.starts_with("FOUND")).collect::<Vec<_>>(), [""; 0]);
        assert!(log.contains(&format!("tried {} as ", TRIED.len())), "{log}");
    }
    space.end().await;
}

#[tokio::test]
async fn a_hostile_tree_leads_the_helper_nowhere() {
    let space = Space::new().await;
    let ended = together(tried(&TREES, &USERS, 2).map(|((of, command), user)| {
        let space = &space;
        async move {
            // Commands that need root fail as a user: the tree is what counts.
            let resources = if *of == "many" { json!({"cpus": "500m", "disk": "1Gi"}) } else { json!({}) };
            let spec = json!({"command": format!("{command}\nexit 0"), "resources": resources});
            let name = name(of, user);
            (space.run(&name, run_as(user, spec)).await, name)
        }
    }))
    .await;
    for (ended, name) in &ended {
        assert_eq!(cause(ended), "Completed", "{name}: {ended:#?}");
        let saved = condition_of(ended, "OutputSaved").unwrap();
        assert_eq!(saved.reason, "Saved", "{name}");
        let output = ended.output.as_ref().unwrap();
        // What is no text shows as replacement characters; the file without end is all NUL.
        assert_eq!(stdout(ended).trim_matches(char::REPLACEMENT_CHARACTER), "", "{name}");
        // mknod and ln may say why they could not.
        let said = output.stderr_tail.as_deref().unwrap_or_default();
        for stolen in ["PATH=", "HOSTNAME=", "KUBERNETES", "root:x:", "ELF", "diskBytes", "r-xp"] {
            assert!(!said.contains(stolen), "{name}: {said}");
        }
        let (files, bytes) = (output.files.unwrap(), output.bytes.unwrap());
        eprintln!("{name}: {files} files, {bytes} bytes");
        match name.rsplit_once('-').unwrap().0 {
            "deep" => assert!(files >= 3 && bytes >= 1, "{name}: the deepest file is counted"),
            "many" => assert_eq!(files, 100_002),
            "hard-links" => assert_eq!(files, 3),
            // All holes.
            "stdout-sparse" => assert!(bytes >= 10 << 40, "{name}: {bytes} bytes"),
            "names" => assert_eq!(files, 15),
            _ => assert!(files <= 4 && bytes < 4096, "{name}: {files} files, {bytes} bytes"),
        }
    }
    space.end().await;
}

const SWAPS: &str = include_str!("../bundle/swaps.py");

/// First the command swaps, which races the watch over its disk; then, as nothing of it is left when its output is
/// saved, a process of the host does so in the same directory, until all is saved.
#[tokio::test]
async fn who_swaps_what_the_helper_walks_and_saves_gains_nothing_and_stops_nothing() {
    let space = Space::new().await;
    let marker = format!("marker-of-{}", space.name);
    store_login(&space, &marker).await;
    // What only the helper can see: were it to follow a link to there, it would find these.
    let stolen = ["/.bundlerun/credentials/0/.dockerconfigjson", "/.bundlerun/request/request.json"];
    let trace = space.claim("trace").await;
    let go = "echo swapped >/trace/$BUNDLE_NAME; until [ -e /trace/go-$BUNDLE_NAME ]; do sleep 0.1; done";
    let runs = stolen.iter().enumerate().map(async |(index, secret)| {
        let name = format!("swaps-{index}");
        let command = format!(
            "echo stays >quiet; mkdir filler; for i in $(seq 3000); do echo $i >filler/$i; done; \
             timeout 4 python3 /swaps.py {secret}; [ $? = 124 ] || exit; {go}"
        );
        let spec = json!({"command": command, "inputs": [{"path": "/swaps.py", "text": SWAPS}],
            "volumes": [{"path": "/trace", "claim": {"name": "trace"}}], "resources": {"cpus": "500m"}});
        space.start(&name, spec).await;
        left(&trace, &name).await;
        let bundle = node::volume(&space.pods().get(&format!("{name}-1")).await.unwrap(), "bundle").join("work");
        let mut swaps = Command::new("python3")
            .args(["-c", SWAPS, secret, "stdout", "stderr"])
            .current_dir(&bundle)
            .spawn()
            .unwrap();
        let is_there = || std::fs::symlink_metadata(bundle.join("stdout")).is_ok();
        eventually("the host to swap", async || if is_there() { Ok(()) } else { Err("not yet") }).await;
        std::fs::write(trace.join(format!("go-{name}")), "").unwrap();
        let ended = space.end_of(&name).await;
        // It ends by itself only where the kubelet has already taken the directory away.
        let by_itself = swaps.try_wait().unwrap();
        assert!(by_itself.is_none_or(|status| status.success()), "{by_itself:?}");
        swaps.kill().unwrap();
        swaps.wait().unwrap();
        (name, ended)
    });
    for (name, ended) in together(runs).await {
        // What keeps changing is left out, and the record says so.
        assert!(["Completed", "SavedInPart"].contains(&cause(&ended)), "{name}: {ended:#?}");
        assert_eq!(condition(&ended, "OutputSaved"), Some("True"), "{name}: {ended:#?}");
        let exported = export(&ended);
        let contents = exported.path().join("contents");
        assert_eq!(std::fs::read_to_string(contents.join("quiet")).unwrap(), "stays\n");
        assert_eq!(std::fs::read_dir(contents.join("filler")).unwrap().count(), 3000);
        let words = format!("{marker}|diskBytes|PATH=|KUBERNETES");
        let found = Command::new("grep").args(["-rlaE", &words]).arg(exported.path()).output().unwrap();
        assert_eq!((found.status.code(), found.stdout), (Some(1), vec![]), "{name}");
        assert!(!format!("{:?}", ended.output).contains(&marker), "{name}");
        let said = &condition_of(&ended, "OutputSaved").unwrap().message;
        println!("{name}: {} files saved; {said}", ended.output.as_ref().unwrap().files.unwrap());
    }
    space.end().await;
}

#[tokio::test]
async fn whatever_a_command_does_to_its_record_the_kubelet_knows_better() {
    let space = Space::new().await;
    let ended = together(tried(&RECORDS, &USERS, 2).map(|((of, command, expected), user)| {
        let space = &space;
        async move {
            let command = format!("{RECORDS_PRELUDE}echo began; {command}\nexit 3");
            let spec = json!({"command": command});
            let name = name(of, user);
            (space.run(&name, run_as(user, spec)).await, name, *expected)
        }
    }))
    .await;
    for (ended, name, expected) in &ended {
        assert_eq!((ended.phase, cause(ended)), (Some(Phase::Failed), *expected), "{name}: {ended:#?}");
        assert_eq!(ended.attempt, Some(1), "{name}: the platform is not to blame");
        if *expected == "CommandFailed" {
            assert_eq!(ended.exit_code, Some(3), "{name}");
            assert_eq!(stdout(ended), "began\n", "{name}");
        } else {
            assert!(hint(ended).contains("/.bundlerun"), "{name}: {ended:#?}");
        }
    }
    space.end().await;
}

const NEST: &str = "python3 -c 'import os
for i in range(600):
  os.mkdir(\"d\"); os.chdir(\"d\")
os.execvp(\"sh\", [\"sh\", \"-c\", os.environ[\"WRITE\"]])'";

#[tokio::test]
async fn hiding_the_start_or_nesting_deep_gives_no_more_disk() {
    let space = Space::new().await;
    let write = "for i in $(seq 30); do head -c 10000000 /dev/zero >f$i; done; sleep 1h";
    let nested = format!("export WRITE='{write}'\n{NEST}");
    let hidden = format!("rm -f /.bundlerun/record/*; {write}");
    let ended = together([("hidden", hidden), ("nested", nested)].map(|(name, command)| {
        let space = &space;
        async move {
            let spec = json!({"command": command, "resources": {"disk": "50Mi"}});
            space.run(name, spec).await
        }
    }))
    .await;
    for ended in &ended {
        assert_eq!(cause(ended), "DiskLimitExceeded", "{ended:#?}");
    }
    space.end().await;
}

#[tokio::test]
async fn pods_fit_the_pod_security_levels_and_a_refusal_names_the_field_that_helps() {
    let baseline = Space::new().await;
    let restricted = baseline.beside().await;
    for (space, level) in [(&baseline, "baseline"), (&restricted, "restricted")] {
        let namespaces: Api<Namespace> = Api::all(space.client.clone());
        let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}});
        namespaces.patch(&space.name, &PatchParams::default(), &Patch::Merge(labels)).await.unwrap();
        space.claim("cache").await;
    }
    let everything = json!({"command": "id -u; echo x > /cache/x-$(id -u)", "volumes": [{"path": "/cache", "claim": {"name": "cache"}}],
        "resources": {"gpus": 1}, "env": [{"name": "A", "value": "b"}]});
    let ended = together(
        [
            (&baseline, "image-user", None),
            (&baseline, "user", Some(1000)),
            (&baseline, "zero", Some(0)),
            (&restricted, "user", Some(1000)),
            (&restricted, "large", Some(2_147_483_647)),
            (&restricted, "image-user", None),
            (&restricted, "zero", Some(0)),
        ]
        .map(|(space, name, user)| space.run(name, run_as(user, everything.clone()))),
    )
    .await;
    for (ended, uid) in ended.iter().zip(["0", "1000", "0", "1000", "2147483647"]) {
        assert_eq!((cause(ended), stdout(ended).trim()), ("Completed", uid), "{ended:#?}");
    }
    for (ended, help) in ended[5..].iter().zip(["set runAsUser, such as", "another user than 0"]) {
        assert_eq!((ended.phase, cause(ended)), (Some(Phase::Failed), "PodSecurity"), "{ended:#?}");
        assert!(hint(ended).contains(help), "{ended:#?}");
        assert!(ended.message.as_deref().unwrap().contains("violates PodSecurity \"restricted"), "{ended:#?}");
    }
    restricted.end().await;
    baseline.end().await;
}

fn hint(status: &BundleRunStatus) -> &str {
    status.result.as_ref().and_then(|r| r.hint.as_deref()).unwrap_or_default()
}
