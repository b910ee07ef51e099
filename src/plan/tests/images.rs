//! Which image is pulled, and what is recorded of it.

use super::*;
use crate::oci::{digest_of, without_tag_and_digest};

fn pulled(run: &BundleRun) -> (String, String) {
    let plan = look(run, PodSeen::Absent, 0);
    let container = created(&plan).spec.as_ref().unwrap().containers[0].clone();
    (container.image.unwrap(), container.image_pull_policy.unwrap())
}

#[test]
fn a_digest_is_what_follows_the_at_sign() {
    let cases = [
        (format!("registry/image@{DIGEST}"), Some(DIGEST)),
        (format!("docker-pullable://registry:5000/image@{DIGEST}"), Some(DIGEST)),
        // The id of a configuration: the image came from no registry.
        (DIGEST.to_owned(), None),
        ("registry/image:v1".to_owned(), None),
        ("registry/image@md5:1".to_owned(), None),
        (String::new(), None),
    ];
    for (image_id, digest) in cases {
        assert_eq!(digest_of(&image_id).map(|digest| digest.to_string()).as_deref(), digest, "{image_id}");
    }
}

#[test]
fn a_repository_is_a_reference_without_tag_and_digest() {
    let digest = format!("a/b@{DIGEST}");
    let both = format!("host:5000/a/b:v1@{DIGEST}");
    let cases = [
        ("busybox", "busybox"),
        ("busybox:1", "busybox"),
        ("a/b:v1", "a/b"),
        ("host:5000/a/b", "host:5000/a/b"),
        ("host:5000/a/b:v1", "host:5000/a/b"),
        (digest.as_str(), "a/b"),
        (both.as_str(), "host:5000/a/b"),
    ];
    for (reference, expected) in cases {
        assert_eq!(without_tag_and_digest(reference), expected);
    }
}

#[test]
fn a_default_image_is_that_of_the_day_the_pod_was_made() {
    let run = run_of(json!({"command": "true"}));
    let pod_made = created(&look(&run, PodSeen::Absent, 0)).clone();
    let mut pod = pod().running(5);
    pod.0["metadata"]["annotations"] = json!(pod_made.metadata.annotations);
    let mut today = settings();
    today.cpu_image = "registry:5000/cpu:2".into();
    let facts = pod.facts();
    let plan = plan(&nothing_but(&run, PodSeen::Ours(&facts)), &today, at(8));
    assert_eq!(written(&plan).image.unwrap().requested.as_deref(), Some("registry:5000/cpu:1"));
    let next = with_status(&run, &written(&plan));
    let interrupted = written(&super::plan(&nothing_but(&next, PodSeen::Absent), &today, at(9)));
    let plan = super::plan(&nothing_but(&with_status(&run, &interrupted), PodSeen::Absent), &today, at(99));
    let image = created(&plan).spec.as_ref().unwrap().containers[0].image.clone();
    assert_eq!(image.unwrap(), format!("registry:5000/cpu@{DIGEST}"), "nor does another attempt run another image");
}

#[test]
fn a_run_that_waits_before_it_has_a_pod_keeps_the_default_image_of_its_day() {
    let held = json!({"command": "true", "suspend": true});
    let orphan = json!({"command": "true", "inputs": [{"path": "a", "run": {"name": "nobody"}}]});
    for spec in [held, orphan] {
        let told = with_status(&run_of(spec.clone()), &written(&look(&run_of(spec), PodSeen::Absent, 1)));
        let mut goes_on = told.clone();
        (goes_on.spec.suspend, goes_on.spec.inputs) = (false, vec![]);
        goes_on.status.as_mut().unwrap().suspended_at = None;
        let mut today = settings();
        today.cpu_image = "registry:5000/cpu:2".into();
        let plan = plan(&nothing_but(&goes_on, PodSeen::Absent), &today, at(99));
        let image = created(&plan).spec.as_ref().unwrap().containers[0].image.clone();
        assert_eq!(image.as_deref(), Some("registry:5000/cpu:1"));
    }
}

#[test]
fn attempt_1_pulls_what_was_asked_for() {
    assert_eq!(pulled(&run()), ("registry:5000/team/image:v1".into(), "Always".into()));
    let pinned = format!("image@{DIGEST}");
    assert_eq!(pulled(&run_of(json!({"command": "true", "image": pinned}))), (pinned, "IfNotPresent".into()));
}

#[test]
fn attempt_2_pulls_the_digest_of_attempt_1() {
    let expected = format!("registry:5000/team/image@{DIGEST}");
    assert_eq!(pulled(&in_attempt(2)), (expected, "IfNotPresent".into()));
}

#[test]
fn attempt_2_pulls_the_tag_when_no_digest_is_known() {
    let mut run = in_attempt(2);
    run.status.as_mut().unwrap().image = None;
    assert_eq!(pulled(&run).0, "registry:5000/team/image:v1");
}

#[test]
fn another_default_image_does_not_change_what_a_run_asked_for() {
    let mut run = in_attempt(2);
    run.spec.image = None;
    let changed = Settings { cpu_image: "elsewhere/cpu:2".into(), ..settings() };
    let observed = nothing_but(&run, PodSeen::Absent);
    let plan = plan(&observed, &changed, at(0));
    let image = created(&plan).spec.as_ref().unwrap().containers[0].image.clone();
    assert_eq!(image, Some(format!("registry:5000/team/image@{DIGEST}")));
}

#[test]
fn the_digest_is_recorded_while_the_run_runs() {
    let image = written(&look_at(&run(), &pod().running(5), 60)).image.unwrap();
    assert_eq!(
        (image.requested.as_deref(), image.digest.as_deref()),
        (Some("registry:5000/team/image:v1"), Some(DIGEST))
    );
    assert_eq!(image.reference, Some(format!("registry:5000/team/image@{DIGEST}")));
    let waits = written(&look_at(&run(), &pod().bound().run_waits("ErrImagePull"), 60));
    assert_eq!(waits.image.and_then(|image| image.reference), None);
}

#[test]
fn a_digest_that_is_known_is_not_forgotten() {
    let plan = look_at(&in_attempt(2), &pod().of_attempt(2).bound().failed("OutOfcpu", ""), 60);
    assert_eq!(written(&plan).image.unwrap().digest.as_deref(), Some(DIGEST));
}
