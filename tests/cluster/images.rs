//! Which image runs, and what is recorded of it.

use bundlerun::api::BundleRunStatus;
use bundlerun::api::status::Blame;
use k8s_openapi::jiff::SignedDuration;
use serde_json::json;

use crate::common::{Space, cause, condition, registry_digest, stdout, together};
use crate::node::Dead;
use crate::settings;

fn image(status: &BundleRunStatus) -> (String, String) {
    let image = status.image.clone().unwrap();
    (image.requested.unwrap(), image.digest.unwrap())
}

#[tokio::test]
async fn the_default_image_depends_on_the_gpu_count() {
    let space = Space::new().await;
    let command = "test -e /usr/local/cuda && echo cuda || echo none";
    let (cpu, gpu) = tokio::join!(
        space.run("cpu", json!({"command": command})),
        space.run("gpu", json!({"command": command, "resources": {"gpus": 1}})),
    );
    assert_eq!(image(&cpu), ("localhost:5000/debian:bookworm".into(), registry_digest("debian:bookworm")));
    assert_eq!(image(&gpu), ("localhost:5000/gpu:local".into(), registry_digest("gpu:local")));
    assert_eq!((stdout(&cpu), stdout(&gpu)), ("none\n", "cuda\n"));
    space.end().await;
}

#[tokio::test]
async fn a_requested_image_runs_by_tag_and_by_digest_and_the_recorded_digest_is_the_registrys() {
    let space = Space::new().await;
    let digest = registry_digest("busybox:local");
    let by_digest = format!("localhost:5000/busybox@{digest}");
    let (tag, pinned) = tokio::join!(
        space.run("tag", json!({"image": "localhost:5000/busybox:local", "command": "busybox | head -n 1"})),
        space.run("digest", json!({"image": by_digest, "command": "busybox | head -n 1"})),
    );
    assert_eq!(image(&tag), ("localhost:5000/busybox:local".into(), digest.clone()));
    assert_eq!(image(&pinned), (by_digest, digest));
    assert!(stdout(&tag).starts_with("BusyBox"), "{tag:#?}");
    space.end().await;
}

#[tokio::test]
async fn images_of_many_kinds_run() {
    let space = Space::new().await;
    let cases = [
        ("scratch", json!({"image": "localhost:5000/scratch:local", "argv": ["/hello", "a b", "$HOME", "$(HOME)"]})),
        ("bashrc", json!({"image": "localhost:5000/bashrc:local", "command": "greet $FROM_BASHRC; pwd"})),
        ("nonroot", json!({"image": "localhost:5000/nonroot:local", "command": "id -u; touch mine && pwd"})),
        ("as-user", json!({"runAsUser": 1234, "command": "id -u; touch mine && pwd"})),
    ];
    let ended = together(cases.map(|(name, spec)| space.run(name, spec))).await;
    let out: Vec<_> = ended.iter().map(stdout).collect();
    assert_eq!(out[0], "arg 0: /hello\narg 1: a b\narg 2: $HOME\narg 3: $(HOME)\nHOME: /bundle\ncwd: /bundle\n");
    assert_eq!(out[1], "hello from a function, yes\n/bundle\n");
    assert_eq!(out[2], "1000\n/bundle\n");
    assert_eq!(out[3], "1234\n/bundle\n");
    space.end().await;
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_is_told_at_once_and_ends_the_run_at_its_deadline() {
    let space = Space::new().await;
    space.start("typo", json!({"image": "localhost:5000/debian:bookwurm", "command": "true"})).await;
    let waiting = space.waits_at("typo", "ImagePull").await;
    let wait = waiting.waiting.clone().unwrap();
    assert!(wait.deadline.is_some() && waiting.message.unwrap().contains("not found"), "{wait:#?}");
    let ended = space.end_of("typo").await;
    assert_eq!(cause(&ended), "ImagePullFailed");
    assert_eq!(condition(&ended, "Failed"), Some("True"));
    assert_eq!(ended.exit_code, None);
    assert!(ended.message.unwrap().contains("bookwurm"));
    space.end().await;
}

/// The settings of the tests have shorter deadlines.
#[tokio::test]
async fn by_the_usual_settings_an_image_that_does_not_exist_is_given_up_in_under_a_minute() {
    let space = Space::with_own_operators().await;
    settings::changed(&space, |settings| drop(settings["deadlines"].as_object_mut().unwrap().remove("imagePull")))
        .await;
    space.start("typo", json!({"image": "localhost:5000/debian:bookwurm", "command": "true"})).await;
    let waiting = space.waits_at("typo", "ImagePull").await.waiting.unwrap();
    let (since, deadline) = (waiting.since.unwrap().0, waiting.deadline.unwrap().0);
    assert_eq!(deadline.duration_since(since), SignedDuration::from_secs(40), "{:?}", waiting.message);
    assert_eq!(waiting.until.as_deref(), Some("the deadline, then the run ends: ImagePullFailed"));
    let ended = space.end_of("typo").await;
    let result = ended.result.clone().unwrap();
    assert_eq!((cause(&ended), result.blame), ("ImagePullFailed", Some(Blame::User)), "{ended:#?}");
    let finished = ended.finish_time.unwrap().0;
    assert!(finished >= deadline, "{finished} is before {deadline}");
    // What is between the deadline and the end is the kubelet's, and a busy node's.
    println!("ended {} s after it was told", finished.duration_since(since).as_secs());
    space.end().await;
}

/// The node has the image: a tag is looked up each time.
#[tokio::test]
async fn an_image_whose_registry_is_gone_is_waited_for_and_runs_when_it_is_back() {
    let space = Space::exclusive().await;
    let registry = Dead::kill("registry");
    space.start("waits", json!({"image": "localhost:5000/busybox:local", "command": "echo here"})).await;
    let waiting = space.waits_at("waits", "ImagePull").await.waiting.unwrap();
    println!("{}", waiting.message.as_deref().unwrap());
    assert_eq!((waiting.deadline, waiting.until.as_deref()), (None, Some("no deadline")), "{:?}", waiting.message);
    assert!(waiting.hint.unwrap().contains("tell the administrator if it stays"));
    drop(registry);
    let ended = space.end_of("waits").await;
    assert_eq!((cause(&ended), ended.attempt, stdout(&ended)), ("Completed", Some(1), "here\n"), "{ended:#?}");
    space.end().await;
}

#[tokio::test]
async fn a_missing_secret_is_told_and_when_it_comes_the_run_goes_on() {
    let space = Space::new().await;
    let env = json!([{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "late", "key": "token"}}}]);
    space.start("waits", json!({"env": env, "command": "echo $TOKEN"})).await;
    let waiting = space.waits_at("waits", "Configuration").await;
    assert!(waiting.message.unwrap().contains("late"));
    let secrets: kube::Api<k8s_openapi::api::core::v1::Secret> = space.api();
    let secret = json!({"metadata": {"name": "late"}, "stringData": {"token": "$(HOME) is $$"}});
    secrets.create(&kube::api::PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    let ended = space.end_of("waits").await;
    assert_eq!(stdout(&ended), "$(HOME) is $$\n");
    space.end().await;
}
