//! The definition of `BundleRun` on a real API server: it is accepted, and each case of `tests/crd/cases` gets the
//! verdict it got in process, for the same fields and with the same words.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../crd/cases/mod.rs"]
pub(crate) mod cases;

use bundlerun::api::BundleRun;
use bundlerun::api::crd::crd;
use cases::Case;
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::response::StatusCause;
use kube::{Client, ResourceExt};
use kube_runtime::wait::{await_condition, conditions};
use serde_json::{Value, json};

/// Requests under way at once: the cases are independent.
const AT_ONCE: usize = 8;

#[tokio::test]
async fn the_api_server_says_what_every_case_claims() {
    let _turn = crate::turns::Turn::shared().await;
    let client = Client::try_default().await.unwrap();
    install(&client).await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"generateName": "bundlerun-crd-"}})).unwrap();
    let namespace = namespaces.create(&PostParams::default(), &namespace).await.unwrap().name_any();
    let runs: Api<DynamicObject> = Api::namespaced_with(client, &namespace, &ApiResource::erase::<BundleRun>(&()));

    let wrong: Vec<String> = stream::iter(cases::all())
        .map(|case| {
            let runs = runs.clone();
            async move {
                let verdict = ask(&runs, &case).await;
                (!case.agrees(&verdict)).then(|| format!("{}: {:?}\n  got {verdict:#?}", case.name, case.errors))
            }
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(async |wrong| wrong)
        .collect()
        .await;

    namespaces.delete(&namespace, &DeleteParams::default()).await.unwrap();
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn a_new_run_is_in_progress_before_the_operator_saw_it() {
    let _turn = crate::turns::Turn::shared().await;
    let client = Client::try_default().await.unwrap();
    install(&client).await;
    let runs: Api<DynamicObject> = Api::default_namespaced_with(client, &ApiResource::erase::<BundleRun>(&()));
    let run = object("run", &json!({"command": "true"}));
    let created = runs.create(&PostParams { dry_run: true, ..PostParams::default() }, &run).await.unwrap();
    let status = &created.data["status"];
    assert_eq!((&status["observedGeneration"], &status["phase"]), (&json!(-1), &json!("Waiting")));
    assert!(status["message"].as_str().unwrap().starts_with("nothing is known of it yet"), "{status}");
}

/// Puts the definition in, as an upgrade would, and waits until the API server uses it.
async fn install(client: &Client) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let crd = crd().unwrap();
    let name = crd.name_any();
    let before = definitions.get_opt(&name).await.unwrap().and_then(|crd| crd.metadata.generation);
    let params = PatchParams::apply("bundlerun-tests").force();
    let after = definitions.patch(&name, &params, &Patch::Apply(&crd)).await.unwrap().metadata.generation;
    await_condition(definitions, &name, conditions::is_crd_established()).await.unwrap();
    if before != after {
        // Nothing tells when a changed schema is in use; API servers read it within a second or two.
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    }
}

fn object(name: &str, spec: &Value) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "bundlerun.dev/v1alpha1",
        "kind": "BundleRun",
        "metadata": {"name": name},
        "spec": spec,
    }))
    .unwrap()
}

/// All errors of the API server as (field, message).
async fn ask(runs: &Api<DynamicObject>, case: &Case) -> Vec<(String, String)> {
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let answer = match &case.old {
        None => runs.create(&dry_run, &object(&case.object_name, &case.spec)).await,
        Some(old) => {
            let mut first = object("", old);
            first.metadata.name = None;
            first.metadata.generate_name = Some("case-".to_owned());
            let name = runs.create(&PostParams::default(), &first).await.unwrap().name_any();
            replace(runs, &name, case, &dry_run).await
        }
    };
    match answer {
        Ok(_) => Vec::new(),
        Err(kube::Error::Api(status)) => status
            .details
            .map(|details| details.causes)
            .unwrap_or_default()
            .into_iter()
            .filter(|cause| !is_remark(cause))
            .map(|cause| (if cause.field == "<nil>" { String::new() } else { cause.field }, cause.message))
            .collect(),
        Err(error) => panic!("{}: {error}", case.name),
    }
}

/// What the API server adds to an error that it reports for its field as well.
fn is_remark(cause: &StatusCause) -> bool {
    let message = &cause.message;
    cause.field == "<nil>"
        && (message.contains("some validation rules were not checked") || message.contains("Checked value must be"))
}

/// A running operator may write the object at the same time: then once more.
async fn replace(
    runs: &Api<DynamicObject>,
    name: &str,
    case: &Case,
    dry_run: &PostParams,
) -> Result<DynamicObject, kube::Error> {
    loop {
        let mut changed = runs.get(name).await?;
        changed.data["spec"] = case.spec.clone();
        match runs.replace(name, dry_run, &changed).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            answer => return answer,
        }
    }
}
