//! The pod, as a whole. `UPDATE=1 cargo test --lib plan` writes the snapshots anew.

use std::{env, fs, path::Path};

use super::bundles::{annotation, with_store};
use super::*;

fn check(name: &str, run: &BundleRun) {
    check_pod(name, &look(run, PodSeen::Absent, 0));
}

/// Compares the pod that a plan makes with a file as values: key order and quoting do not matter.
pub(super) fn check_pod(name: &str, plan: &Plan) {
    let pod = serde_json::to_value(created(plan)).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plan/tests").join(name);
    if env::var_os("UPDATE").is_some() {
        fs::write(&file, serde_saphyr::to_string(&pod).unwrap()).unwrap();
    }
    let expected: Value = serde_saphyr::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(pod, expected, "{name}: run UPDATE=1 cargo test --lib plan, and read the difference");
}

#[test]
fn a_simple_run_has_this_pod() {
    check("simple.yaml", &run());
}

#[test]
fn a_run_that_says_everything_has_this_pod() {
    let mut run = run_of(json!({
        "argv": ["train", "--fast"],
        "env": [{"name": "HOME", "value": "/data/$USER"}, {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        "volumes": [{"path": "ckpt", "claim": {"name": "mine"}}, {"path": "/data", "claim": {"name": "sets", "path": "a"}}],
        "resources": {"gpus": 2, "cpus": "2500m", "memory": "8Gi", "disk": "20Gi", "sharedMemory": "2Gi",
            "extended": {"rdma/hca": 1, "hugepages-2Mi": "512Mi"}},
        "timeLimit": "2h", "stopGrace": "5m", "runAsUser": 1000, "runAsGroup": 2000, "fsGroup": 3000,
        "podLabels": {"team": "ml"}, "podAnnotations": {"karpenter.sh/do-not-disrupt": "true"}, "nodeSelector": {"zone": "a"},
        "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoSchedule"}], "priorityClassName": "low",
        "schedulerName": "volcano", "imagePullSecrets": [{"name": "login"}], "serviceAccountName": "research",
    }));
    run.metadata.labels = Some(BTreeMap::from([
        ("kueue.x-k8s.io/queue-name".into(), "team".into()),
        ("argocd.argoproj.io/instance".into(), "not for pods".into()),
    ]));
    run.metadata.annotations = Some(BTreeMap::from([
        ("bundlerun.dev/created-by".into(), "ann".into()),
        ("argocd.argoproj.io/tracking-id".into(), "not for pods".into()),
    ]));
    check("everything.yaml", &run);
}

#[test]
fn a_variable_is_set_once() {
    let run = run_of(
        json!({"command": "true", "env": [{"name": "HOME", "value": "/x"}, {"name": "CODALAB", "value": "no"}]}),
    );
    let plan = look(&run, PodSeen::Absent, 0);
    let env = created(&plan).spec.as_ref().unwrap().containers[0].env.clone().unwrap();
    for name in ["HOME", "CODALAB"] {
        assert_eq!(env.iter().filter(|v| v.name == name).count(), 1, "{name}");
    }
    assert_eq!(env.iter().find(|v| v.name == "HOME").unwrap().value.as_deref(), Some("/x"));
}

#[test]
fn a_pod_says_which_attempt_it_is() {
    let plan = look(&in_attempt(2), PodSeen::Absent, 0);
    let pod = created(&plan);
    assert_eq!(pod.metadata.name.as_deref(), Some("r-2"));
    assert_eq!(pod.metadata.labels.as_ref().unwrap()["bundlerun.dev/attempt"], "2");
    let env = pod.spec.as_ref().unwrap().containers[0].env.clone().unwrap();
    assert!(env.iter().any(|v| v.name == "BUNDLE_ATTEMPT" && v.value.as_deref() == Some("2")));
}

#[test]
fn a_helper_knows_whether_another_attempt_may_have_sent_the_same() {
    let mut began = in_attempt(2);
    began.status.as_mut().unwrap().attempts[0].start_time = Some(Time(at(0)));
    for (run, follows) in [(run(), false), (in_attempt(2), false), (began, true)] {
        let plan = plan(&nothing_but(&run, PodSeen::Absent), &with_store(), at(0));
        let request: crate::contract::Request = annotation(&plan, crate::names::REQUEST_ANNOTATION);
        assert_eq!(request.save.unwrap().follows_command, follows);
    }
}

/// Requests and limits of the helper, and those of the pod: CPU and memory each.
fn resources(settings: &Settings) -> [Option<(String, String)>; 4] {
    let plan = plan(&nothing_but(&run(), PodSeen::Absent), settings, at(0));
    let spec = created(&plan).spec.clone().unwrap();
    let helper = spec.init_containers.unwrap()[0].resources.clone().unwrap();
    let pod = spec.resources.unwrap_or_default();
    [helper.requests, helper.limits, pod.requests, pod.limits].map(|all| {
        let all = all?;
        let of = |name: &str| all.get(name).map_or_else(String::new, |quantity| quantity.0.clone());
        Some((of("cpu"), of("memory")))
    })
}

#[test]
fn the_helpers_resources_and_the_quality_of_service_are_the_admins() {
    let some = |cpu: &str, memory: &str| Some((cpu.to_owned(), memory.to_owned()));
    let usual = settings();
    assert_eq!(resources(&usual), [some("10m", "16Mi"), some("", "64Mi"), None, None]);
    let helper = HelperResources {
        cpu_request_millis: Some(50),
        cpu_limit_millis: Some(1000),
        memory_request_bytes: Some(64 << 20),
        memory_limit_bytes: Some(256 << 20),
    };
    let set = Settings { helper, ..settings() };
    assert_eq!(resources(&set), [some("50m", "64Mi"), some("1000m", "256Mi"), None, None]);

    // The run has 1 CPU and 2Gi.
    let guaranteed = Settings { qos: Qos::Guaranteed, ..settings() };
    let whole = some("1010m", "2214592512");
    assert_eq!(resources(&guaranteed), [some("10m", "16Mi"), some("", "64Mi"), whole.clone(), whole]);
    let older = Settings { pod_resources: false, ..guaranteed };
    assert_eq!(resources(&older), [some("500m", "64Mi"), some("500m", "64Mi"), None, None]);
}

#[test]
fn the_operators_labels_and_annotations_win_over_the_admins_and_those_over_the_runs() {
    let words = |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    let admins =
        [("team", "admin"), ("all", "admin"), ("bundlerun.dev/run", "admin"), ("bundlerun.dev/request", "admin")];
    let set = Settings { pod_labels: words(&admins), pod_annotations: words(&admins), ..settings() };
    // The API server refuses the last two.
    let theirs = json!({"team": "run", "own": "run", "bundlerun.dev/run": "run", "bundlerun.dev/request": "run"});
    let run = run_of(json!({"command": "true", "podLabels": theirs, "podAnnotations": theirs}));
    let plan = plan(&nothing_but(&run, PodSeen::Absent), &set, at(0));
    let metadata = &created(&plan).metadata;
    for of in [metadata.labels.as_ref().unwrap(), metadata.annotations.as_ref().unwrap()] {
        assert_eq!(["team", "all", "own"].map(|key| of[key].as_str()), ["admin", "admin", "run"]);
    }
    assert_eq!(metadata.labels.as_ref().unwrap()["bundlerun.dev/run"], "r");
    assert!(metadata.annotations.as_ref().unwrap()["bundlerun.dev/request"].starts_with('{'));
}

#[test]
fn a_backstop_never_overflows() {
    let run = run_of(json!({"command": "true", "resources": {"disk": "9223372036854775807"}}));
    let _ = look(&run, PodSeen::Absent, 0);
}
