//! Images that are broken or odd: the command runs all the same, or the object says what to mend.

use bundlerun::api::{BundleRunStatus, Phase};
use serde_json::{Value, json};

use crate::common::{Space, cause, output, stdout, together};
use crate::recipe::Recipe;

/// One image, what to run in it, and what the object says in the end.
struct Case {
    name: &'static str,
    recipe: Recipe,
    spec: Value,
    cause: &'static str,
    stdout: &'static str,
    /// Parts of message and hint.
    told: Vec<&'static str>,
}

fn case(name: &'static str, recipe: Recipe, command: &str) -> Case {
    Case { name, recipe, spec: json!({"command": command}), cause: "Completed", stdout: "", told: vec![] }
}

impl Case {
    /// Goes on, with this output.
    fn prints(self, stdout: &'static str) -> Self {
        Self { stdout, ..self }
    }

    fn tells(self, told: impl Into<Vec<&'static str>>) -> Self {
        Self { told: told.into(), ..self }
    }

    fn ends(self, cause: &'static str) -> Self {
        Self { cause, ..self }
    }

    fn check(&self, status: &BundleRunStatus) -> Result<(), String> {
        let hint = status.result.as_ref().and_then(|r| r.hint.as_deref()).unwrap_or_default();
        let text = format!("{} | {hint}", status.message.as_deref().unwrap_or_default());
        let as_said = cause(status) == self.cause
            && (status.phase == Some(Phase::Succeeded)) == (self.cause == "Completed")
            && stdout(status) == self.stdout
            && self.told.iter().all(|part| text.contains(part))
            && (self.cause != "Completed" || !self.told.is_empty() || text == "the command exited with 0 | ");
        println!("{:<22}{:<22}{text}", self.name, cause(status));
        if as_said { Ok(()) } else { Err(format!("{}: {status:#?}", self.name)) }
    }
}

async fn all_end_as_said(cases: Vec<Case>) {
    let space = Space::new().await;
    let ended = together(cases.iter().map(|case| {
        let mut spec = case.spec.clone();
        spec["image"] = json!(case.recipe.push(&format!("unusual/{}:test", case.name)));
        space.run(case.name, spec)
    }))
    .await;
    let wrong: Vec<_> = cases.iter().zip(&ended).filter_map(|(case, status)| case.check(status).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    space.end().await;
}

fn busybox() -> Recipe {
    Recipe { base: "busybox:local", ..Recipe::default() }
}

fn with_file(recipe: Recipe, path: &'static str, content: &[u8], mode: u32) -> Recipe {
    let mut files = recipe.files.clone();
    files.push((path, content.to_vec(), mode));
    Recipe { files, ..recipe }
}

/// A valid program for another machine: only the header counts.
fn program_for_arm() -> Vec<u8> {
    let mut header = vec![0; 64];
    header[..20].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xb7\0");
    header[52] = 64;
    header
}

#[tokio::test]
async fn a_shell_that_does_not_start_is_passed_over_and_named() {
    let which = "echo ${BASH_VERSION:+bash}sh";
    let bash = |content: &[u8], mode| with_file(busybox(), "/usr/bin/bash", content, mode);
    let needs_loader = std::fs::read("/bin/bash").unwrap();
    let no_shell_starts = with_file(
        with_file(Recipe { base: "debian:bookworm", ..Recipe::default() }, "/usr/bin/bash", &program_for_arm(), 0o755),
        "/usr/bin/dash",
        b"not a program",
        0o755,
    );
    let passed_over = |case: Case, why| case.prints("sh\n").tells(vec!["sh ran the command", "(/usr/bin/bash: ", why]);
    all_end_as_said(vec![
        passed_over(case("not-executable", bash(&needs_loader, 0o644), which), "Permission denied"),
        passed_over(case("no-loader", bash(&needs_loader, 0o755), which), "loader it names is missing"),
        passed_over(case("other-machine", bash(&program_for_arm(), 0o755), which), "Exec format error"),
        passed_over(case("no-program", bash(b"not a program", 0o755), which), "Exec format error"),
        passed_over(case("ends-at-once", bash(b"#!/bin/sh\nexit 0\n", 0o755), which), "exit status 0"),
        case("bash-is-a-directory", Recipe { directories: vec![("/usr/bin/bash", 0o755)], ..busybox() }, which)
            .prints("sh\n"),
        case("no-shell-starts", no_shell_starts, which).ends("NoShell").tells([
            "/usr/bin/bash: Exec format error",
            "/usr/bin/sh: Exec format error",
            "use argv",
        ]),
        case("no-shell", Recipe { base: "scratch:local", ..Recipe::default() }, which)
            .ends("NoShell")
            .tells(["it has none", "use argv instead of command"]),
    ])
    .await;
}

#[tokio::test]
async fn users_paths_and_working_directories_of_all_kinds() {
    let user = |user| Recipe { user: Some(user), ..busybox() };
    let workdir = |workdir| Recipe { workdir: Some(workdir), ..busybox() };
    let mut closed = with_file(user("4242"), "/closed/.bashrc", b"export FROM_BASHRC=yes", 0o644);
    closed.directories.push(("/closed", 0o700));
    closed.workdir = Some("/closed");
    let shell_alone = with_file(Recipe::default(), "/bin/sh", &std::fs::read("/bin/busybox").unwrap(), 0o755);
    all_end_as_said(vec![
        case("path-empty", Recipe { env: vec!["PATH="], ..busybox() }, "echo \"[$PATH]\"; /bin/ls -d /etc")
            .prints("[]\n/etc\n"),
        case("path-unset", shell_alone, "echo \"$PATH\"")
            .prints("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"),
        case(
            "no-passwd-entry",
            user("4242"),
            "id -u; echo $HOME; touch mine ~/mine; mkdir -p \"$XDG_CACHE_HOME\"; pwd",
        )
        .prints("4242\n/bundle\n/bundle\n"),
        case("user-unknown", user("nosuch"), "true")
            .ends("CreateContainerError")
            .tells(["the image's USER is a name", "set runAsUser"]),
        Case { spec: json!({"command": "id -u", "runAsUser": 4242}), ..case("user-given", user("nosuch"), "") }
            .prints("4242\n"),
        Case {
            recipe: Recipe { base: "scratch:local", user: Some("nosuch"), ..Recipe::default() },
            spec: json!({"argv": ["/hello"]}),
            ..case("user-without-passwd", busybox(), "")
                .ends("CreateContainerError")
                .tells(["the image's USER is a name"])
        },
        // Kubernetes takes only the user of it.
        case("group-left-out", user("4242:7"), "id -u; id -g").prints("4242\n0\n"),
        case("group-unknown", user("4242:nosuch"), "id -g").prints("0\n"),
        case(
            "group-of-the-user",
            with_file(user("4242:7"), "/etc/passwd", b"a:x:4242:77::/:/bin/sh\n", 0o644),
            "id -g",
        )
        .prints("77\n"),
        case("workdir-missing", workdir("/no/such/dir"), "pwd").prints("/bundle\n"),
        case("workdir-closed", closed, "echo ${FROM_BASHRC-no}; pwd")
            .prints("no\n/bundle\n")
            .tells(["may not enter the image's WORKDIR"]),
        case("workdir-a-file", workdir("/etc/passwd"), "true").ends("ContainerCannotStart").tells(["/etc/passwd"]),
    ])
    .await;
}

#[tokio::test]
async fn an_image_for_another_machine_is_told_as_such() {
    let space = Space::new().await;
    let registry = std::env::var("REGISTRY_HOST").unwrap();
    let tag = |name: &str| format!("{registry}/unusual/arm:{name}");
    let crane = |words: &[&str]| output("crane", &[&["--insecure"], words].concat());
    crane(&["mutate", "--set-platform", "linux/arm64", "--tag", &tag("one"), &format!("{registry}/scratch:local")]);
    crane(&["index", "append", "--manifest", &tag("one"), "--tag", &tag("index")]);
    let image = |name: &str| format!("{}/unusual/arm:{name}", std::env::var("REGISTRY_NODE").unwrap());
    let ended = space.run("arm", json!({"image": image("index"), "argv": ["/hello"]})).await;
    assert_eq!(cause(&ended), "ImagePullFailed", "{ended:#?}");
    assert!(ended.message.as_deref().unwrap().contains("no match for platform"), "{ended:#?}");
    assert!(ended.result.as_ref().unwrap().hint.as_deref().unwrap().contains("architecture"), "{ended:#?}");
    space.end().await;
}

/// No field of ours makes the root file system read-only; a policy of the cluster may.
#[tokio::test]
async fn a_read_only_root_that_a_policy_brings_leaves_the_bundle_writable() {
    let space = Space::new().await;
    let policy = read_only_root_policy(&space.name);
    apply("apply", &policy);
    let image = |name: &str| format!("localhost:5000/{name}");
    let command = "touch /etc/x 2>/dev/null || echo read-only; touch mine && cat <<'END'\ndocument\nEND\nls";
    // A policy takes a moment to come into force.
    let mut first = None;
    for i in 0..10 {
        let spec = json!({"image": image("busybox:local"), "command": command});
        let status = space.run(&format!("first-{i}"), spec).await;
        if stdout(&status).starts_with("read-only") {
            first = Some(status);
            break;
        }
    }
    let first = first.expect("the policy to be in force after ten runs");
    let (bash, env, argv) = tokio::join!(
        space.run("bash", json!({"image": image("debian:bookworm"), "command": command})),
        space.run("bashrc", json!({"image": image("bashrc:local"), "command": "greet $FROM_BASHRC"})),
        space.run("argv", json!({"image": image("scratch:local"), "argv": ["/hello"]})),
    );
    apply("delete", &policy);
    for status in [&first, &bash] {
        assert_eq!(stdout(status), "read-only\ndocument\nmine\n", "{status:#?}");
    }
    assert_eq!(stdout(&env), "hello from a function, yes\n");
    assert_eq!(cause(&argv), "Completed");
    space.end().await;
}

fn read_only_root_policy(namespace: &str) -> Value {
    let name = format!("read-only-root-{namespace}");
    let here = json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}});
    let rules = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]);
    let change = "Object{spec: Object.spec{containers: [Object.spec.containers{name: 'run', \
        securityContext: Object.spec.containers.securityContext{readOnlyRootFilesystem: true}}]}}";
    let group = "admissionregistration.k8s.io/v1";
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": group, "kind": "MutatingAdmissionPolicy", "metadata": {"name": name}, "spec": {
            "matchConstraints": {"namespaceSelector": here, "resourceRules": rules},
            "failurePolicy": "Fail", "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": change}}]}},
        {"apiVersion": group, "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": name},
            "spec": {"policyName": name}},
    ]})
}

fn apply(verb: &str, list: &Value) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("list.json");
    std::fs::write(&file, list.to_string()).unwrap();
    output("kubectl", &[verb, "--filename", file.to_str().unwrap()]);
}
