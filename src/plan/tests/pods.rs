//! The pod, as a whole. `UPDATE=1 cargo test --lib plan` writes the snapshots anew.

use std::{env, fs, path::Path};

use super::*;

/// Compares with a file as values: key order and quoting do not matter.
fn check(name: &str, run: &BundleRun) {
    let plan = look(run, PodSeen::Absent, 0);
    let pod = serde_json::to_value(created(&plan)).unwrap();
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
        "resources": {"gpus": 2, "cpus": "2500m", "memory": "8Gi", "disk": "20Gi", "sharedMemory": "2Gi"},
        "timeLimit": "2h", "runAsUser": 1000, "nodeSelector": {"zone": "a"},
        "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoSchedule"}], "priorityClassName": "low",
        "schedulerName": "volcano", "imagePullSecrets": [{"name": "login"}], "serviceAccountName": "research",
    }));
    run.metadata.labels = Some(BTreeMap::from([
        ("kueue.x-k8s.io/queue-name".into(), "team".into()),
        ("argocd.argoproj.io/instance".into(), "not for pods".into()),
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
fn a_backstop_never_overflows() {
    let run = run_of(json!({"command": "true", "resources": {"disk": "9223372036854775807"}}));
    let _ = look(&run, PodSeen::Absent, 0);
}
