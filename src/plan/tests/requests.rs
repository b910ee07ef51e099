//! Raw spec -> validated request.

use super::*;
use crate::contract::{Command, Request};
use crate::plan::pod::valid_run::ValidRun;
use crate::plan::validate::validate;

fn request(spec: Value) -> Result<ValidRun, Vec<String>> {
    validate(&run_of(spec), &settings())
}

fn travels(spec: Value) -> Request {
    request(spec).unwrap().request
}

#[test]
fn all_problems_are_told_at_once_and_name_their_field() {
    let problems = request(json!({
        "command": "true", "argv": ["true"], "timeLimit": "soon", "gpuProfile": "none",
        "resources": {"cpus": "many", "memory": "much", "disk": "little", "sharedMemory": "some"},
    }))
    .unwrap_err();
    let fields: Vec<_> = problems.iter().map(|p| p.split(':').next().unwrap()).collect();
    let resources =
        ["spec.resources.cpus", "spec.resources.memory", "spec.resources.disk", "spec.resources.sharedMemory"];
    let expected: Vec<_> = ["spec"].into_iter().chain(resources).chain(["spec.timeLimit", "spec.gpuProfile"]).collect();
    assert_eq!(fields, expected);
}

#[test]
fn gpus_are_no_extended_resource() {
    let asked = json!({"command": "true", "resources": {"extended": {"nvidia.com/gpu": 8, "rdma/hca": 1}}});
    assert_eq!(
        request(asked).unwrap_err(),
        ["spec.resources.extended: \"nvidia.com/gpu\" is that of the GPU profile \"default\": ask for it with gpus"]
    );
}

#[test]
fn what_is_there_twice_in_a_stored_run_is_told_of_every_list() {
    let claim = json!({"name": "mine"});
    let problems = request(json!({
        "command": "true",
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}, {"name": "A", "value": "1"}, {"name": "A", "value": "2"}],
        "inputs": [{"path": "a", "text": ""}, {"path": "a", "text": ""}],
        "volumes": [{"path": "v", "claim": claim}, {"path": "v", "claim": claim}],
        "imagePullSecrets": [{"name": "login"}, {"name": "login"}],
    }))
    .unwrap_err();
    let twice: Vec<_> = problems.iter().filter(|p| p.contains("is that of")).map(String::as_str).collect();
    assert_eq!(
        twice,
        [
            "spec.env[2].name: \"A\" is that of spec.env[0]",
            "spec.env[3].name: \"A\" is that of spec.env[0]",
            "spec.inputs[1].path: \"a\" is that of spec.inputs[0]",
            "spec.volumes[1].path: \"v\" is that of spec.volumes[0]",
            "spec.imagePullSecrets[1].name: \"login\" is that of spec.imagePullSecrets[0]",
        ]
    );
}

#[test]
fn a_spec_that_cannot_be_run_ends_the_run_with_all_its_problems() {
    let run = run_of(json!({"timeLimit": "soon", "podRetention": "later"}));
    let plan = look(&run, PodSeen::Absent, 1);
    assert_eq!(words(&plan), ["Write Failed", "Tell InvalidSpec"]);
    let message = written(&plan).message.unwrap();
    for field in ["command", "spec.timeLimit", "spec.podRetention"] {
        assert!(message.contains(field), "{field}: {message}");
    }
}

#[test]
fn what_runs_is_not_ended_by_the_settings_of_today() {
    let run = run_of(json!({"command": "true", "gpuProfile": "gone"}));
    assert_eq!(words(&look_at(&run, &pod().running(5), 60)), ["Write Running"]);
    assert_eq!(words(&look_at(&run, &pod().reported(&record(0)), 60))[0], "Write Succeeded");
}

#[test]
fn exactly_one_of_command_and_argv() {
    assert_eq!(travels(json!({"command": "a && b"})).command, Command::Shell("a && b".into()));
    assert_eq!(travels(json!({"argv": ["a", "b"]})).command, Command::Argv(vec!["a".into(), "b".into()]));
    for spec in [json!({}), json!({"argv": []}), json!({"command": "a", "argv": ["a"]})] {
        assert!(request(spec).is_err());
    }
}

#[test]
fn what_is_not_said_has_a_default() {
    let request = request(json!({"command": "true"})).unwrap();
    assert_eq!((request.cpu_millis, request.memory_bytes), (1000, 2 << 30));
    assert_eq!((request.disk_bytes, request.shared_memory_bytes), (10 << 30, 1 << 30));
    assert_eq!(request.gpus.count, 0);
    assert_eq!(travels(json!({"command": "true"})).time_limit_seconds, None);
}

#[test]
fn shared_memory_is_never_more_than_memory() {
    let shared = |resources| request(json!({"command": "true", "resources": resources})).map(|r| r.shared_memory_bytes);
    assert_eq!(shared(json!({"memory": "512Mi"})), Ok(512 << 20), "a default that does not fit shrinks");
    assert_eq!(shared(json!({"memory": "4Gi", "sharedMemory": "4Gi"})), Ok(4 << 30));
    assert!(
        shared(json!({"memory": "1Gi", "sharedMemory": "2Gi"})).unwrap_err()[0]
            .starts_with("spec.resources.sharedMemory")
    );
}

#[test]
fn limits_travel_with_the_command() {
    let request = travels(json!({"command": "true", "timeLimit": "1h30m", "resources": {"disk": "1Gi"}}));
    assert_eq!(
        (request.time_limit_seconds, request.disk_bytes, request.stop_grace_seconds),
        (Some(5400), Some(1 << 30), 30)
    );
}

#[test]
fn a_runs_own_grace_is_used_wherever_the_settings_is_and_is_bounded_by_them() {
    let longer = run_of(json!({"command": "true", "stopGrace": "5m", "timeLimit": "10s"}));
    let grace = |run: &BundleRun| {
        let plan = look(run, PodSeen::Absent, 0);
        created(&plan).spec.as_ref().unwrap().termination_grace_period_seconds
    };
    assert_eq!((grace(&run()), grace(&longer)), (Some(60), Some(330)), "without a store");
    assert_eq!(travels(json!({"command": "true", "stopGrace": "5m"})).stop_grace_seconds, 300);

    // What others put into a pod.
    let ended = pod().reported(&record(0)).beside_another(false);
    assert!(words(&look_at(&longer, &ended, 12)).contains(&"Delete r-1 within 300 s".to_owned()));

    assert!(request(json!({"command": "true", "stopGrace": "10m"})).is_ok());
    let most = "spec.stopGrace: at most 600s here, by the administrator's setting maxStopGrace";
    assert_eq!(request(json!({"command": "true", "stopGrace": "601s"})).unwrap_err(), [most]);
    // What runs is not ended by it.
    assert_eq!(
        words(&look_at(&run_of(json!({"command": "true", "stopGrace": "1d"})), &pod().running(5), 60)),
        ["Write Running"]
    );
}

#[test]
fn a_command_that_fits_no_pod_is_refused_and_the_longest_fits() {
    assert!(request(json!({"command": "x".repeat(100_000)})).is_ok());
    let problems = request(json!({"command": "\u{1}".repeat(100_000)})).unwrap_err();
    assert!(problems[0].starts_with("spec.command: takes 600"), "{problems:?}");
}

#[test]
fn literal_env_values_have_their_dollars_doubled() {
    let env = json!([{"name": "A", "value": "$(HOME) $$ $"},
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": true}}},
        {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}]);
    let env = request(json!({"command": "true", "env": env})).unwrap().env;
    assert_eq!(env[0].value.as_deref(), Some("$$(HOME) $$$$ $$"));
    let secret = env[1].value_from.as_ref().unwrap().secret_key_ref.as_ref().unwrap();
    assert_eq!((secret.name.as_str(), secret.key.as_str(), secret.optional), ("s", "k", Some(true)));
    assert!(env[2].value_from.as_ref().unwrap().config_map_key_ref.is_some());
}

#[test]
fn relative_volumes_are_in_the_working_directory() {
    let volumes =
        json!([{"path": "ckpt", "claim": {"name": "a"}}, {"path": "/data", "claim": {"name": "b", "path": "x"}}]);
    let volumes = request(json!({"command": "true", "volumes": volumes})).unwrap().volumes;
    let seen: Vec<_> =
        volumes.iter().map(|v| (v.mount_path.as_str(), v.claim.as_str(), v.sub_path.as_deref())).collect();
    assert_eq!(seen, [("/bundle/ckpt", "a", None), ("/data", "b", Some("x"))]);
}

#[test]
fn an_input_is_not_fetched_from_the_pod_itself() {
    let reference = |reference: &str| {
        request(json!({"command": "true", "inputs": [{"path": "a", "image": {"reference": reference}}]}))
    };
    for local in ["localhost:5000/a", "localhost/a:1", "127.0.0.1:5000/a", "127.1.2.3/a", "[::1]:5000/a"] {
        let problems = reference(local).unwrap_err();
        assert!(problems[0].starts_with("spec.inputs[0].image.reference: ") && problems[0].contains("pods can reach"));
    }
    for other in ["busybox", "localhost.example/a", "10.0.0.1:5000/a", "[fd00::1]:5000/a", "registry:5000/localhost"] {
        assert!(reference(other).is_ok(), "{other}");
    }
    assert!(request(json!({"command": "true", "image": "localhost:5000/a"})).is_ok(), "the node pulls that");

    let url = |href: &str| {
        let url = json!({"href": href, "sha256": "0".repeat(64)});
        request(json!({"command": "true", "inputs": [{"path": "a", "url": url}]}))
    };
    for local in ["http://localhost/f", "https://user:secret@127.1/f?secret", "http://[::]:80/", "http://0.0.0.0/f"] {
        let problems = url(local).unwrap_err();
        assert!(problems[0].starts_with("spec.inputs[0].url.href: ") && problems[0].contains("pods can reach"));
        assert!(!problems[0].contains("secret"), "{problems:?}");
    }
    assert!(url("https://example.com/127.0.0.1").is_ok());
}

/// JSON makes six bytes of a control character, which the API server cannot count.
#[test]
fn what_does_not_fit_a_pod_is_told_of_the_field_that_takes_the_room() {
    let large = "\u{1}".repeat(59_000);
    let texts = json!([{"path": "a", "text": "a"}, {"path": "b", "text": large}]);
    let problems = |spec: Value| request(spec).unwrap_err().join("; ");
    let of_text = problems(json!({"command": "true", "inputs": texts}));
    assert!(of_text.starts_with("spec.inputs[1].text: takes "), "{of_text}");
    let of_command = problems(json!({"command": large}));
    assert!(of_command.starts_with("spec.command: takes "), "{of_command}");
    let of_argv = problems(json!({"argv": ["true", large]}));
    assert!(of_argv.starts_with("spec.argv: takes "), "{of_argv}");
}
