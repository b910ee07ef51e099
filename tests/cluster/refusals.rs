//! What the API server refuses is told on the object.

use bundlerun::api::Phase;
use bundlerun::api::status::{Blame, BundleRunStatus};
use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::admission::PodPolicy;
use crate::common::{Space, cause, run, together};
use crate::settings;
use crate::webhook::{self, Answer, Webhook};

fn blame(status: &BundleRunStatus) -> Option<Blame> {
    status.result.as_ref().and_then(|result| result.blame)
}

#[tokio::test]
async fn a_used_up_quota_is_waited_for_and_the_run_goes_on_when_there_is_room() {
    let space = Space::new().await;
    let quotas: Api<ResourceQuota> = space.api();
    let quota = json!({"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
    crate::common::watch_until(quotas.clone(), "none", "to count", |q: Option<&ResourceQuota>| {
        q.and_then(|q| q.status.as_ref()).is_some_and(|s| s.hard.is_some())
    })
    .await;
    space.start("queued", json!({"command": "true"})).await;
    let waiting = space.waits_at("queued", "Admission").await;
    assert_eq!((waiting.phase, waiting.reason.as_deref()), (Some(Phase::Pending), Some("QuotaExceeded")));
    assert!(waiting.message.unwrap().contains("exceeded quota: none"));
    quotas.delete("none", &DeleteParams::default()).await.unwrap();
    assert_eq!(space.end_of("queued").await.phase, Some(Phase::Succeeded));
    space.end().await;
}

#[tokio::test]
async fn a_restricted_namespace_runs_with_run_as_user_and_says_so_without() {
    let space = Space::new().await;
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(space.client.clone());
    let restricted = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    namespaces.patch(&space.name, &PatchParams::default(), &Patch::Merge(restricted)).await.unwrap();
    let (with, without) = tokio::join!(
        space.run("with", json!({"command": "id -u", "runAsUser": 1000})),
        space.run("without", json!({"command": "id -u"})),
    );
    assert_eq!(with.phase, Some(Phase::Succeeded), "{with:#?}");
    assert_eq!((cause(&without), blame(&without)), ("PodSecurity", Some(Blame::Policy)), "{without:#?}");
    assert!(without.result.unwrap().hint.unwrap().contains("runAsUser"));
    space.end().await;
}

#[tokio::test]
async fn a_missing_service_account_is_told_and_ends_the_run_at_its_deadline() {
    let space = Space::new().await;
    let ended = space.run("nobody", json!({"command": "true", "serviceAccountName": "nobody"})).await;
    assert_eq!((ended.phase, cause(&ended)), (Some(Phase::Failed), "Forbidden"));
    assert!(ended.message.unwrap().contains("nobody"));
    space.end().await;
}

#[tokio::test]
async fn what_a_policy_denies_is_told_and_starts_when_it_is_allowed() {
    let space = Space::waiting().await;
    let labelled = "has(object.metadata.labels) && 'team' in object.metadata.labels";
    let denial = PodPolicy::denying(&space, "CREATE", labelled, "every pod needs a label team").await;
    space.start("denied", json!({"command": "true"})).await;
    space.start("too-late", json!({"command": "true"})).await;
    let waiting = space.waits_at("denied", "Admission").await;
    assert_eq!((waiting.phase, waiting.reason.as_deref()), (Some(Phase::Pending), Some("Forbidden")));
    assert!(waiting.message.unwrap().contains("every pod needs a label team"));
    assert!(waiting.waiting.unwrap().deadline.is_some());
    let ended = space.end_of("too-late").await;
    assert_eq!((cause(&ended), blame(&ended)), ("Forbidden", Some(Blame::Policy)), "{ended:#?}");
    space.start("allowed-at-last", json!({"command": "true"})).await;
    space.waits_at("allowed-at-last", "Admission").await;
    denial.end(&space).await;
    assert_eq!(space.end_of("allowed-at-last").await.phase, Some(Phase::Succeeded));
    space.end().await;
}

/// However a webhook fails: the run says so in its words, waits without a deadline, and starts when it is mended.
#[tokio::test]
async fn a_webhook_that_fails_is_told_after_its_first_answer_and_the_run_starts_when_it_is_mended() {
    let space = Space::waiting().await;
    let faults = [
        (Answer::Fails(500), "an error on the server"),
        (Answer::Fails(404), "could not find the requested resource"),
        (Answer::HangsUp, "EOF"),
        // The API server gives it thirty seconds: "context deadline exceeded", or "Client.Timeout exceeded".
        (Answer::Silent, "exceeded"),
    ];
    together(faults.map(async |(fault, says)| {
        let space = space.beside().await;
        let asked = Webhook::start(&space, fault).await;
        space.start("refused", json!({"command": "true"})).await;
        let told = space.waits_at("refused", "Admission").await;
        let waiting = told.waiting.clone().unwrap();
        let message = waiting.message.clone().unwrap();
        println!("{fault:?}: {message}");
        // Each question may take the API server's thirty seconds: words that wait for another come too late.
        let asked_before = asked.asked_before(waiting.since.unwrap().0);
        assert!(asked_before <= 1, "asked {asked_before} times: {told:#?}");
        assert_eq!((told.phase, waiting.reason.as_deref()), (Some(Phase::Pending), Some("AdmissionUnavailable")));
        assert_eq!((waiting.deadline, waiting.until.as_deref()), (None, Some("no deadline")));
        assert!(message.contains(webhook::NAME) && message.contains(says), "{message}");
        assert!(waiting.hint.unwrap().contains("tell the administrator"));
        asked.answers(Answer::Allows);
        let ended = space.end_of("refused").await;
        assert_eq!((ended.phase, cause(&ended)), (Some(Phase::Succeeded), "Completed"), "{ended:#?}");
        asked.end().await;
        space.end().await;
    }))
    .await;
    space.end().await;
}

#[tokio::test]
async fn a_webhook_that_denies_with_400_has_a_deadline_and_the_run_starts_when_it_allows() {
    let space = Space::waiting().await;
    let asked = Webhook::start(&space, Answer::Denies(400, "every pod needs a label team")).await;
    space.start("too-late", json!({"command": "true"})).await;
    let waiting = space.waits_at("too-late", "Admission").await.waiting.unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("Forbidden"));
    assert!(waiting.message.unwrap().ends_with("denied the request: every pod needs a label team"));
    assert!(waiting.deadline.is_some());
    let ended = space.end_of("too-late").await;
    assert_eq!((cause(&ended), blame(&ended)), ("Forbidden", Some(Blame::Policy)), "{ended:#?}");
    assert!(ended.result.unwrap().hint.unwrap().contains("the message says which"));
    space.start("in-time", json!({"command": "true"})).await;
    space.waits_at("in-time", "Admission").await;
    asked.answers(Answer::Allows);
    assert_eq!(space.end_of("in-time").await.phase, Some(Phase::Succeeded));
    asked.end().await;
    space.end().await;
}

/// As a mutating webhook may do.
#[tokio::test]
async fn a_wrong_field_that_something_puts_into_the_pod_is_not_the_users() {
    let space = Space::waiting().await;
    let container = "JSONPatch{op: 'add', path: '/spec/containers/-', value: Object.spec.containers{name: 'A b'}}";
    let label = "JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'c d'}";
    let wrong = PodPolicy::mutating(&space, &format!("[{container}, {label}]")).await;
    space.start("too-late", json!({"command": "true", "podLabels": {"mine": "e"}})).await;
    let waiting = space.waits_at("too-late", "Admission").await.waiting.unwrap();
    let message = waiting.message.unwrap();
    println!("{message}");
    assert_eq!(waiting.reason.as_deref(), Some("PodInvalid"), "{message}");
    assert_eq!(waiting.until.as_deref(), Some("the deadline, then the run ends: PodInvalid"));
    assert!(waiting.hint.unwrap().starts_with("tell the administrator"));
    let (_, not_ours) = message.split_once("; changed after the operator made it: ").unwrap();
    assert!(["spec.containers[1].name", "metadata.labels"].iter().all(|path| not_ours.contains(path)), "{message}");
    let ended = space.end_of("too-late").await;
    assert_eq!((cause(&ended), blame(&ended)), ("PodInvalid", Some(Blame::Platform)), "{ended:#?}");
    space.start("in-time", json!({"command": "true"})).await;
    space.waits_at("in-time", "Admission").await;
    wrong.end(&space).await;
    assert_eq!(space.end_of("in-time").await.phase, Some(Phase::Succeeded));
    space.end().await;
}

#[tokio::test]
async fn a_claim_that_does_not_exist_is_told_and_the_run_starts_when_it_does() {
    let space = Space::new().await;
    let volumes = |claim: &str| json!({"command": "true", "volumes": [{"path": "data", "claim": {"name": claim}}]});
    let ended = space.run("never-comes", volumes("typo")).await;
    assert_eq!((cause(&ended), blame(&ended)), ("CreateContainerConfigError", Some(Blame::User)), "{ended:#?}");
    assert!(ended.message.unwrap().contains("\"typo\" not found"));
    space.start("soon", volumes("data-soon")).await;
    let waiting = space.waits_at("soon", "Configuration").await.waiting.unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("ClaimMissing"));
    assert!(waiting.deadline.is_some() && waiting.message.unwrap().contains("\"data-soon\" not found"));
    space.claim("data-soon").await;
    assert_eq!(space.end_of("soon").await.phase, Some(Phase::Succeeded));
    space.end().await;
}

/// The run was as it may be when it was first looked at.
#[tokio::test]
async fn a_setting_that_changes_while_a_run_waits_is_told_and_the_platforms() {
    let space = Space::with_own_operators().await;
    let profile = json!({"resourceName": "nvidia.com/gpu"});
    let operator = settings::changed(&space, |settings| settings["gpuProfiles"]["gone-soon"] = profile.clone()).await;
    let quotas: Api<ResourceQuota> = space.api();
    let quota = json!({"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
    let counts = |quota: Option<&ResourceQuota>| {
        quota.and_then(|quota| quota.status.as_ref()).is_some_and(|status| status.hard.is_some())
    };
    crate::common::watch_until(quotas, "none", "to count", counts).await;
    space.start("waits", json!({"command": "true", "gpuProfile": "gone-soon", "resources": {"gpus": 1}})).await;
    assert_eq!(space.waits_at("waits", "Admission").await.reason.as_deref(), Some("QuotaExceeded"));
    operator.change(|settings| drop(settings["gpuProfiles"].as_object_mut().unwrap().remove("gone-soon"))).await;
    let is_told = |s: &BundleRunStatus| s.reason.as_deref() == Some("SettingsChanged") && s.waiting.is_some();
    let waiting = space.until("waits", "to say that a setting was changed", is_told).await.waiting.unwrap();
    assert_eq!(waiting.until.as_deref(), Some("the deadline, then the run ends: SettingsChanged"));
    let ended = space.end_of("waits").await;
    assert_eq!((cause(&ended), blame(&ended)), ("SettingsChanged", Some(Blame::Platform)), "{ended:#?}");
    assert!(ended.message.unwrap().contains("gpuProfile"));
    space.end().await;
}

/// What a namespace of a shared cluster often has: a quota on `limits.cpu`, which no pod without limits may use.
async fn quota_on_limits(space: &Space) {
    let quotas: Api<ResourceQuota> = space.api();
    let quota = json!({"metadata": {"name": "cpus"}, "spec": {"hard": {"limits.cpu": "4"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
}

/// The least that a container must ask for: more than the helper does by default.
async fn least_of_a_container(space: &Space) {
    let ranges: Api<LimitRange> = space.api();
    let range =
        json!({"metadata": {"name": "least"}, "spec": {"limits": [{"type": "Container", "min": {"cpu": "50m"}}]}});
    ranges.create(&PostParams::default(), &serde_json::from_value(range).unwrap()).await.unwrap();
}

fn asks_for_cpu() -> Value {
    json!({"command": "true", "resources": {"cpus": "100m"}})
}

#[tokio::test]
async fn quotas_on_limits_and_limit_ranges_are_told_with_the_setting_that_meets_them() {
    let space = Space::new().await;
    let other = space.beside().await;
    quota_on_limits(&space).await;
    least_of_a_container(&other).await;
    let of_quota = "the helper container (bundle) has no CPU limit: tell the administrator, whose settings can give it one \
        (helper.resources.limits.cpu, or qos: Guaranteed); so can a LimitRange of the namespace with a default";
    let of_range =
        "tell the administrator: helper.resources of the operator's settings, or the LimitRange, has to change";
    let told = async |space: &Space, spec: Value, hint: &str, whose: Blame| {
        space.start("refused", spec).await;
        let waiting = space.waits_at("refused", "Admission").await.waiting.unwrap();
        let while_it_waits = format!("{hint}; if that changes before the deadline, the run goes on");
        assert_eq!(waiting.hint.as_ref(), Some(&while_it_waits), "{waiting:#?}");
        let refused = space.end_of("refused").await;
        assert_eq!((cause(&refused), blame(&refused)), ("Forbidden", Some(whose)), "{refused:#?}");
        assert_eq!(refused.result.unwrap().hint.as_deref(), Some(hint));
    };
    tokio::join!(
        told(&space, json!({"command": "true"}), of_quota, Blame::Quota),
        told(&other, asks_for_cpu(), of_range, Blame::Policy),
    );
    tokio::join!(space.end(), other.end());
}

#[tokio::test]
async fn quotas_on_limits_and_limit_ranges_are_met_by_settings() {
    let space = Space::with_own_operators().await;
    settings::changed(&space, |settings| {
        settings["qos"] = json!("Guaranteed");
        settings["helper"] = json!({"resources": {"requests": {"cpu": "50m"}}});
    })
    .await;
    quota_on_limits(&space).await;
    least_of_a_container(&space).await;
    let ran = space.run("guaranteed", asks_for_cpu()).await;
    assert_eq!(ran.phase, Some(Phase::Succeeded), "{ran:#?}");
    let pod = space.pods().get("guaranteed-1").await.unwrap();
    assert_eq!(pod.status.unwrap().qos_class.as_deref(), Some("Guaranteed"));
    space.end().await;
}

#[tokio::test]
async fn a_bad_spec_is_refused_at_once_naming_the_field() {
    let space = Space::new().await;
    let both = run("both", json!({"command": "true", "argv": ["true"]}));
    let error = space.runs().create(&PostParams::default(), &both).await.unwrap_err().to_string();
    assert!(error.contains("command") && error.contains("argv"), "{error}");
    space.end().await;
}
