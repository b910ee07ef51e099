//! Input at its limits really runs or ends with a cause; nonsense that got past the API server holds up nobody; settings
//! with mistakes in them are told at the start.
//!
//! What the API server refuses, with the field that it names, is in `tests/crd/cases` and asked of it in `crd`.

use std::collections::BTreeMap;
use std::time::Instant;

use bundlerun::api::crd::crd;
use bundlerun::api::{BundleRun, Phase};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, PostParams};
use serde_json::{Value, json};

use crate::common::{Space, cause, eventually, scale_operator, together};
use crate::crd::cases;
use crate::settings::OwnOperator;

/// What becomes of a run.
enum Becomes {
    Ended(&'static str),
    Waiting(&'static str),
}
use Becomes::{Ended, Waiting};

#[allow(clippy::too_many_lines)] // a table
fn at_their_limits() -> Vec<(String, Value, Becomes)> {
    let emoji = "🦀".repeat(25_000);
    let many = |count: usize, item: &dyn Fn(usize) -> Value| (0..count).map(item).collect::<Vec<_>>();
    let argv = |rest: Vec<String>| [vec!["true".to_owned()], rest].concat();
    let selector: BTreeMap<String, String> = (0..32).map(|n| (format!("l{n}"), "v".repeat(63))).collect();
    let shell = |command: &str, fields: Value| {
        let mut spec = fields;
        spec["command"] = json!(command);
        spec
    };
    let fields = |fields: Value| shell("true", fields);
    let resources = |resources: Value| json!({"command": "true", "resources": resources});
    let volume = |path: &str| json!({"command": "true", "volumes": [{"path": path, "claim": {"name": "claim"}}]});
    let long = "a".repeat(253);
    let cases = vec![
        ("command-bytes", shell(&format!("true #{}", "x".repeat(99_994)), json!({})), Ended("Completed")),
        ("command-multibyte", shell(&format!("true  #{}", "é".repeat(49_996)), json!({})), Ended("Completed")),
        ("command-controls", shell(&format!("true #{}", "\u{1}".repeat(60_000)), json!({})), Ended("InvalidSpec")),
        ("argv-items", json!({"argv": argv(vec!["x".to_owned(); 1023])}), Ended("Completed")),
        ("argv-bytes", json!({"argv": argv(vec!["x".repeat(19_999); 5])}), Ended("Completed")),
        (
            "env-256",
            shell(
                "test $(env | grep -c ^A) = 256",
                json!({"env": many(256, &|n| json!({"name": format!("A{n}"), "value": "1"}))}),
            ),
            Ended("Completed"),
        ),
        (
            "env-value",
            shell("test ${#A} = 32768", json!({"env": [{"name": "A", "value": "$".repeat(32_768)}]})),
            Ended("Completed"),
        ),
        (
            "env-bytes",
            shell(
                "printf %s \"$A\" | wc -c | grep -x 100000",
                json!({"env": [{"name": "A", "value": emoji}, {"name": "B", "value": emoji}]}),
            ),
            Ended("Completed"),
        ),
        (
            "env-name",
            shell(
                "env | grep -c '^-x.x' | grep -x 1",
                json!({"env": [{"name": format!("-x.{}", "x".repeat(253)), "value": "1"}]}),
            ),
            Ended("Completed"),
        ),
        (
            "no-such-secret",
            fields(json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": long, "key": long}}}]})),
            Ended("CreateContainerConfigError"),
        ),
        (
            "volumes-16",
            shell(
                "touch v0/x && test -e v15/x",
                json!({"volumes": many(16, &|n| json!({"path": format!("v{n}"), "claim": {"name": "claim"}}))}),
            ),
            Ended("Completed"),
        ),
        ("path-parts", volume(&format!("{}bc", "a/".repeat(255))), Ended("Completed")),
        ("path-name", volume(&"p".repeat(255)), Ended("Completed")),
        ("path-longer-than-any-file", volume(&"p".repeat(512)), Ended("ContainerCannotStart")),
        ("path-unicode", volume("/home/é"), Ended("Completed")),
        (
            "no-such-claim",
            json!({"command": "true", "volumes": [{"path": "a", "claim": {"name": long}}]}),
            Waiting("ClaimMissing"),
        ),
        ("labels", fields(json!({"nodeSelector": selector})), Waiting("Unschedulable")),
        (
            "tolerations",
            fields(
                json!({"tolerations": many(32, &|n| json!({"key": format!("k{n}"), "value": "v".repeat(63), "effect": "NoExecute", "tolerationSeconds": i64::MAX}))}),
            ),
            Ended("Completed"),
        ),
        (
            "pull-secrets",
            fields(json!({"imagePullSecrets": many(16, &|n| json!({"name": format!("s{n}")}))})),
            Ended("Completed"),
        ),
        ("largest-user", shell("id -u | grep -x 2147483647", json!({"runAsUser": 2_147_483_647})), Ended("Completed")),
        ("memory-least", resources(json!({"memory": "16Mi", "sharedMemory": "1Mi"})), Ended("Completed")),
        ("disk-least", resources(json!({"disk": "1Mi"})), Ended("Completed")),
        ("cpus-most", resources(json!({"cpus": 1024})), Waiting("Unschedulable")),
        ("memory-most", resources(json!({"memory": "64Ti", "sharedMemory": "64Ti"})), Waiting("Unschedulable")),
        ("disk-most", resources(json!({"disk": "1Pi"})), Waiting("Unschedulable")),
        ("gpus-most", resources(json!({"gpus": 1024})), Waiting("Unschedulable")),
        ("time-most", fields(json!({"timeLimit": "364d23h59m60s"})), Ended("Completed")),
        ("time-least", shell("sleep 1h", json!({"timeLimit": "1s"})), Ended("TimeLimitExceeded")),
        (
            "image-longest",
            fields(json!({"image": format!("localhost:5000/{}", "b".repeat(497))})),
            Ended("ImagePullFailed"),
        ),
        ("priority-longest", fields(json!({"priorityClassName": long})), Ended("Forbidden")),
        ("account-longest", fields(json!({"serviceAccountName": long})), Ended("Forbidden")),
        ("scheduler-longest", fields(json!({"schedulerName": long})), Waiting("NotSeenByScheduler")),
    ];
    let mut cases: Vec<_> = cases.into_iter().map(|(name, spec, becomes)| (name.to_owned(), spec, becomes)).collect();
    cases.push(("n".repeat(52), json!({"command": "true"}), Ended("Completed")));
    cases
}

#[tokio::test]
async fn what_is_accepted_at_its_limit_runs_or_ends_with_a_cause_or_says_what_it_waits_for() {
    let space = Space::new().await;
    space.claim("claim").await;
    let cases = at_their_limits();
    let seen = together(cases.iter().map(|(name, spec, becomes)| {
        let space = &space;
        async move {
            space.start(name, spec.clone()).await;
            match becomes {
                Ended(_) => space.end_of(name).await,
                Waiting(reason) => {
                    space
                        .until(name, reason, |s| s.waiting.as_ref().and_then(|w| w.reason.as_deref()) == Some(reason))
                        .await
                }
            }
        }
    }))
    .await;
    let mut wrong = Vec::new();
    for ((name, _, becomes), status) in cases.iter().zip(&seen) {
        let (is, message) = (cause(status), status.message.as_deref().unwrap_or_default());
        eprintln!("{name}: {:?} {is} {}", status.phase, message.chars().take(160).collect::<String>());
        if matches!(becomes, Ended(cause) if *cause != is) {
            wrong.push(format!("{name}: {status:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    space.end().await;
}

#[tokio::test]
async fn nonsense_stored_under_a_laxer_definition_holds_up_no_other_run() {
    let space = Space::exclusive().await;
    let mut canary = Canary { space: &space, number: 0 };
    let alone = canary.three().await;

    define(&space, lax()).await;
    until_answer(&space, &json!({"env": "nonsense"}), true).await;
    let nonsense = store_nonsense(&space, "nonsense").await;
    let beside = canary.three().await;
    // The same again, which the operator first sees under its own definition: that refuses some writes of a status for
    // what is in the spec.
    scale_operator(&space.client, 0).await;
    store_nonsense(&space, "later").await;
    define(&space, serde_json::to_value(crd().unwrap()).unwrap()).await;
    until_answer(&space, &json!({"env": "nonsense"}), false).await;
    scale_operator(&space.client, 1).await;
    let after = canary.three().await;

    eprintln!(
        "canary, seconds: alone {alone:.1?}, beside {nonsense} nonsense runs {beside:.1?}, after a restart {after:.1?}"
    );
    assert!(nonsense >= 60, "{nonsense}");
    let most = 3.0 * alone.iter().copied().fold(0.0, f64::max) + 5.0;
    // The first after a restart comes behind all that the operator looks at when it starts: how long that takes depends on
    // the machine.
    assert!(beside.iter().chain(after.iter().skip(1)).all(|seconds| *seconds < most), "more than {most:.1} s");

    let told = eventually("every nonsense run to be told of", async || tell_all(&space).await).await;
    for (what, names) in &told {
        eprintln!("{what}: {}, such as {}", names.len(), names[0]);
    }
    assert!(told.contains_key("event Undecodable") && told.contains_key("InvalidSpec"), "{told:#?}");
    space.end().await;
}

/// Everything the API server refuses to create, stored. Names that are nonsense themselves are there after the first time.
async fn store_nonsense(space: &Space, prefix: &str) -> usize {
    let mut specs: Vec<(String, Value)> = cases::all()
        .into_iter()
        .filter(|case| case.old.is_none() && !case.errors.is_empty())
        .map(|case| (case.object_name, case.spec))
        .collect();
    let others = [
        json!("text"),
        json!(7),
        json!([]),
        json!({}),
        json!({"command": ["a"]}),
        json!({"command": "true", "resources": {"gpus": "many"}}),
        json!({"command": "true", "resources": {"memory": {"a": 1}}}),
        json!({"command": "true", "timeLimit": 3}),
        json!({"command": "true", "tolerations": {"key": "a"}}),
        json!({"command": "true", "runAsUser": 1.5}),
        json!({"command": "true", "resources": {"gpus": 9_223_372_036_854_775_807_i64}}),
        json!({"argv": [null]}),
    ];
    specs.extend(others.map(|spec| ("run".to_owned(), spec)));
    let runs = untyped(space);
    let count = specs.len();
    for (index, (name, spec)) in specs.into_iter().enumerate() {
        let name = if name == "run" { format!("{prefix}-{index}") } else { name };
        match runs.create(&PostParams::default(), &object(&name, &spec)).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_already_exists() && !name.starts_with(prefix) => {}
            Err(error) => panic!("{name}: {spec}: {error}"),
        }
    }
    count
}

/// All runs that are not over and not canaries, by what is said of them; an error while nothing is said of some.
async fn tell_all(space: &Space) -> Result<BTreeMap<String, Vec<String>>, Vec<String>> {
    let events: Api<Event> = space.api();
    let events = events.list(&ListParams::default()).await.unwrap();
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut silent = Vec::new();
    let by_event = ["Undecodable", "StatusRefused"];
    for run in untyped(space).list(&ListParams::default()).await.unwrap() {
        let name = run.name_any();
        let status = &run.data["status"];
        let event = events.iter().find(|e| {
            e.reason.as_deref().is_some_and(|reason| by_event.contains(&reason))
                && e.regarding.as_ref().is_some_and(|r| r.name.as_deref() == Some(&name))
        });
        let what = match (status["phase"].as_str(), status["waiting"]["reason"].as_str(), event) {
            (Some("Succeeded" | "Failed"), ..) => status["reason"].as_str().map(str::to_owned),
            (_, Some(reason), _) => Some(format!("waiting for {reason}")),
            (.., Some(event)) => event.reason.as_ref().map(|reason| format!("event {reason}")),
            _ => None,
        };
        match what {
            Some(what) => told.entry(what).or_default().push(format!("{name}: {}", status["message"])),
            None => silent.push(format!("{name}: {}", run.data)),
        }
    }
    if silent.is_empty() { Ok(told) } else { Err(silent) }
}

/// A run that does nothing, to see how long it takes.
struct Canary<'a> {
    space: &'a Space,
    number: u32,
}

impl Canary<'_> {
    /// Seconds from create to the end seen, three times.
    async fn three(&mut self) -> Vec<f64> {
        let mut seconds = Vec::new();
        for _ in 0..3 {
            self.number += 1;
            let start = Instant::now();
            let ended = self.space.run(&format!("canary-{}", self.number), json!({"command": "true"})).await;
            assert_eq!(ended.phase, Some(Phase::Succeeded), "{ended:#?}");
            seconds.push(start.elapsed().as_secs_f64());
        }
        seconds
    }
}

/// The definition without any rule for the spec or the name.
fn lax() -> Value {
    let mut crd = serde_json::to_value(crd().unwrap()).unwrap();
    let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema.as_object_mut().unwrap().remove("x-kubernetes-validations");
    schema["properties"]["spec"] = json!({"x-kubernetes-preserve-unknown-fields": true});
    crd
}

/// Installs a definition.
pub async fn define(space: &Space, mut crd: Value) {
    let definitions: Api<CustomResourceDefinition> = Api::all(space.client.clone());
    let name = crd["metadata"]["name"].as_str().unwrap().to_owned();
    let version = definitions.get(&name).await.unwrap().metadata.resource_version;
    crd["metadata"]["resourceVersion"] = json!(version);
    definitions.replace(&name, &PostParams::default(), &serde_json::from_value(crd).unwrap()).await.unwrap();
}

/// Nothing but its answers tells when the API server uses a changed definition.
pub async fn until_answer(space: &Space, spec: &Value, accepts: bool) {
    let runs = untyped(space);
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    eventually("the definition to be used", async || {
        let accepted = runs.create(&dry_run, &object("probe", spec)).await.is_ok();
        if accepted == accepts { Ok(()) } else { Err(accepted) }
    })
    .await;
}

pub fn untyped(space: &Space) -> Api<DynamicObject> {
    Api::namespaced_with(space.client.clone(), &space.name, &ApiResource::erase::<BundleRun>(&()))
}

pub fn object(name: &str, spec: &Value) -> DynamicObject {
    let kind =
        json!({"apiVersion": "bundlerun.dev/v1alpha1", "kind": "BundleRun", "metadata": {"name": name}, "spec": spec});
    serde_json::from_value(kind).unwrap()
}

/// Settings, and what the operator says of them.
const SETTINGS: [(&str, &[&str]); 6] = [
    ("images: {cpu: a, gpu: b}\nimage: c", &["image"]),
    ("images: {cpu: a, gpu: b}\ndefaults: {disk: 10Q}\nstopGrace: soon", &["defaults.disk", "stopGrace"]),
    ("images: [a", &["settings"]),
    ("images: {cpu: a}", &["gpu"]),
    ("", &["images"]),
    ("images: {cpu: a, gpu: b}\ngpuProfiles: {a: {driver: nowhere}}", &["gpuProfiles"]),
];

#[tokio::test]
async fn mistakes_in_the_settings_are_told_in_the_pods_status_and_the_operator_is_not_ready() {
    let space = Space::with_own_operators().await;
    let said = together(SETTINGS.iter().enumerate().map(async |(number, (settings, _))| {
        let own = OwnOperator::start(&space, &format!("-{number}"), &[], settings, json!([])).await;
        own.last_words().await
    }))
    .await;
    for ((settings, words), (ready, message)) in SETTINGS.iter().zip(&said) {
        eprintln!("{settings:?}\n  {message}");
        assert!(!ready, "{settings}");
        assert!(message.contains("/etc/bundlerun/settings.yaml"), "{settings}: {message}");
        assert!(words.iter().all(|word| message.contains(word)), "{settings}: {message}");
    }
    space.end().await;
}
