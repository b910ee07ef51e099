//! One step of a plan -> one call. The API server's refusals are answers the next plan can use.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, Preconditions};
use kube::core::Status;
use kube::{Api, Client, Resource, ResourceExt};
use kube_runtime::events;
use kube_runtime::reflector::ObjectRef;
use serde_json::{Value, json};
use tracing::{Instrument, info, info_span, warn};

use crate::api::{BundleRun, BundleRunStatus};
use crate::cluster::observe::Cluster;
use crate::cluster::{Error, bounded, failed, helper_progress, patch_params, pod_events, post};
use crate::contract::{Progress, both_ends};
use crate::names;
use crate::plan::{
    Event, EventType, InvalidField, PodEvent, PodFacts, PodKept, PodRef, Refusal, Step, is_told_by_admission,
};

/// What came of a step.
#[derive(Debug, PartialEq)]
pub enum StepResult {
    /// It is done, or was already.
    Done,
    /// The API server will not take the pod: worth another plan.
    Refused(Refusal),
    /// The API server will not have the pod changed or deleted: what else was planned can be done.
    Kept(PodKept),
    /// A helper was asked: worth another plan.
    Progress(Option<Box<Progress>>),
    /// Whoever was asked does not answer at once: the same step has the answer after this.
    Later(Duration),
    /// A service account was read: worth another plan.
    PullSecrets(Vec<String>),
    /// Events were read: worth another plan.
    Events(Vec<PodEvent>),
    /// Somebody else changed the run since it was observed: plan again when the cache has caught up.
    Stale,
    /// The run is gone.
    Gone,
}

impl Cluster {
    /// Carries out one step for a run.
    ///
    /// # Errors
    /// When there is no answer, or one that says nothing about the step (the server is overloaded, for instance).
    pub async fn carry_out(&self, run: &BundleRun, step: Step) -> Result<StepResult, Error> {
        let span = info_span!("step", otel.name = step.name());
        self.act(run, step).instrument(span).await
    }

    async fn act(&self, run: &BundleRun, step: Step) -> Result<StepResult, Error> {
        match step {
            Step::CreatePod(pod) => self.create_pod(run, *pod).await,
            Step::WriteStatus(status) => self.write_status(run, *status).await,
            Step::DeletePod { pod, grace } => self.delete_pod(&pod, grace).await,
            Step::OrderStop { pod, order } => self.tell(&pod, names::STOP_ANNOTATION, &order.to_string()).await,
            Step::TellOfRuns { pod, runs } => self.tell(&pod, names::AWAITED_RUNS_ANNOTATION, &runs).await,
            Step::RemoveFinalizer(pod) => self.release(&pod).await,
            Step::DeleteRun => self.delete_run(run).await,
            Step::AskProgress { ip } => Ok(match self.helpers.ask(&ip).await {
                Some(answer) => StepResult::Progress(answer.map(Box::new)),
                None => StepResult::Later(helper_progress::LATER),
            }),
            Step::AskPullSecrets { namespace, account } => {
                let names = self.pull_secrets.of(&self.client, &namespace, &account).await?;
                Ok(StepResult::PullSecrets(names))
            }
            Step::AskEvents(pod) => Ok(StepResult::Events(pod_events::warnings(&self.client, &pod).await)),
            Step::Event(event) => {
                self.create_event(run, event).await;
                Ok(StepResult::Done)
            }
        }
    }

    async fn create_pod(&self, run: &BundleRun, pod: Pod) -> Result<StepResult, Error> {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let action = format!("create pod {namespace}/{name}");
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        match bounded(&action, api.create(&post(), &pod)).await? {
            Ok(_) => {
                info!(pod = name, "created the pod");
                Ok(StepResult::Done)
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let there = self.get_pod(&namespace, &name).await?;
                let owner = there.as_ref().and_then(PodFacts::owner).map(|(_, uid)| uid);
                if owner.is_some() && owner == run.metadata.uid.as_deref() {
                    info!(pod = name, "adopted the pod: it was made for this very run");
                    return Ok(StepResult::Done);
                }
                Ok(StepResult::Refused(Refusal::NameTaken(there.map(Box::new))))
            }
            Err(kube::Error::Api(status)) => {
                let fields = invalid_fields(&status);
                Ok(StepResult::Refused(Refusal::of(status.code, status.message).naming(fields)))
            }
            Err(error) => Err(failed(&action, error)),
        }
    }

    /// Replaces the whole status of exactly the version that was observed, so that neither a stale cache nor a second
    /// operator can undo an ending. Nothing but the status is sent: a spec can be a hundred times as large.
    async fn write_status(&self, run: &BundleRun, status: BundleRunStatus) -> Result<StepResult, Error> {
        let (namespace, name) = (run.namespace().unwrap_or_default(), run.name_any());
        let action = format!("write status of {namespace}/{name}");
        let api: Api<BundleRun> = Api::namespaced(self.client.clone(), &namespace);
        let (phase, reason) = (status.phase, status.reason.clone());
        let mut status = status;
        let write = async |status: &BundleRunStatus| {
            let patch = Patch::<()>::Json(status_patch(run, status).map_err(|e| failed(&action, e))?);
            bounded(&action, api.patch_status(&name, &patch_params(), &patch)).await
        };
        let mut answer = write(&status).await?;
        if let Err(kube::Error::Api(refused)) = &answer
            && refused.is_invalid()
        {
            // A value that the schema does not take must not keep the ending off the object for ever.
            warn!(
                error = refused.message,
                "the status was refused: it is written without its measured parts and the blame"
            );
            status.usage = None;
            status.output = None;
            status.timeline = None;
            status.duration = None;
            status.gpus = Vec::new();
            // An older definition does not know every word for whose matter it is.
            if let Some(result) = &mut status.result {
                result.blame = None;
            }
            answer = write(&status).await?;
        }
        match answer {
            Ok(written) => {
                info!(phase = phase.map(|p| format!("{p:?}")), reason, "wrote the status");
                self.remember(written);
                Ok(StepResult::Done)
            }
            Err(kube::Error::Api(status)) if status.is_conflict() => Ok(StepResult::Stale),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(StepResult::Gone),
            Err(error) => {
                if matches!(&error, kube::Error::Api(status) if status.is_invalid()) {
                    self.create_event(run, status_refused(&error.to_string())).await;
                }
                Err(failed(&action, error))
            }
        }
    }

    /// Deletes a pod, with its own grace if none is given; one that is gone is deleted.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn delete_pod(&self, pod: &PodRef, grace: Option<Duration>) -> Result<StepResult, Error> {
        let action = format!("delete pod {}/{}", pod.namespace, pod.name);
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let only_this = Preconditions { uid: Some(pod.uid.clone()), resource_version: None };
        let grace_period_seconds = grace.map(|grace| u32::try_from(grace.as_secs()).unwrap_or(u32::MAX));
        let params = DeleteParams { grace_period_seconds, ..DeleteParams::default() }.preconditions(only_this);
        match bounded(&action, api.delete(&pod.name, &params)).await? {
            Ok(_) => {
                info!(pod = pod.name, "deleted the pod");
                Ok(StepResult::Done)
            }
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(StepResult::Done),
            Err(kube::Error::Api(status)) if is_refusal(&status) => {
                Ok(StepResult::Kept(PodKept { is_deletion: true, words: status.message }))
            }
            Err(error) => Err(failed(&action, error)),
        }
    }

    /// Deletes exactly the version of the run that was observed, so that what it says now of how long it is kept counts; its
    /// pods go with it.
    async fn delete_run(&self, run: &BundleRun) -> Result<StepResult, Error> {
        let (namespace, name) = (run.namespace().unwrap_or_default(), run.name_any());
        let action = format!("delete run {namespace}/{name}");
        let api: Api<BundleRun> = Api::namespaced(self.client.clone(), &namespace);
        let metadata = &run.metadata;
        let only_this =
            Preconditions { uid: metadata.uid.clone(), resource_version: metadata.resource_version.clone() };
        match bounded(&action, api.delete(&name, &DeleteParams::background().preconditions(only_this))).await? {
            Ok(_) => {
                info!("deleted the run: its ttlSecondsAfterFinished have passed");
                Ok(StepResult::Done)
            }
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(StepResult::Gone),
            Err(kube::Error::Api(status)) if status.is_conflict() => Ok(StepResult::Stale),
            Err(error) => Err(failed(&action, error)),
        }
    }

    /// Writes what the helper has to know where it sees it. Nobody has to be told in a pod that is gone.
    async fn tell(&self, pod: &PodRef, annotation: &str, text: &str) -> Result<StepResult, Error> {
        let action = format!("write annotation {annotation} of pod {}/{}", pod.namespace, pod.name);
        let place = format!("/metadata/annotations/{}", annotation.replace('/', "~1"));
        let write = json!({"op": "replace", "path": place, "value": text});
        match patch_pod(&self.client, &action, pod, vec![write]).await? {
            Patched::Done => info!(pod = pod.name, annotation, "told the helper"),
            Patched::IsAnother => {}
            Patched::Refused(words) => return Ok(StepResult::Kept(PodKept { is_deletion: false, words })),
        }
        Ok(StepResult::Done)
    }

    /// Takes our finalizer off a pod, and no other: as the cache has the pod, or else as the API server has it now.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn release(&self, pod: &PodRef) -> Result<StepResult, Error> {
        let action = format!("release pod {}/{}", pod.namespace, pod.name);
        let cached = self.pods.get(&ObjectRef::new(&pod.name).within(&pod.namespace));
        let kept = |words| Ok(StepResult::Kept(PodKept { is_deletion: false, words }));
        if let Some(facts) = cached.filter(|p| p.metadata.uid.as_ref() == Some(&pod.uid)) {
            match remove_finalizer(&self.client, &action, pod, &facts).await? {
                Patched::Done => return Ok(StepResult::Done),
                Patched::Refused(words) => return kept(words),
                Patched::IsAnother => {}
            }
        }
        let Some(facts) = self.get_pod(&pod.namespace, &pod.name).await? else { return Ok(StepResult::Done) };
        match remove_finalizer(&self.client, &action, pod, &facts).await? {
            Patched::Done => Ok(StepResult::Done),
            Patched::Refused(words) => kept(words),
            Patched::IsAnother => Ok(StepResult::Stale),
        }
    }

    /// An event that cannot be written is lost with a line in the log: it is news, not state.
    async fn create_event(&self, run: &BundleRun, what: Event) {
        let event = events::Event {
            type_: match what.type_ {
                EventType::Normal => events::EventType::Normal,
                EventType::Warning => events::EventType::Warning,
            },
            action: "Run".into(),
            reason: what.reason.chars().take(128).collect(),
            // Kubernetes allows 1024 bytes.
            note: Some(both_ends(&what.note, 1000)).filter(|note| !note.is_empty()),
            secondary: None,
        };
        let told = bounded("write an event", self.recorder.publish(&event, &run.object_ref(&()))).await;
        if let Err(error) = told.and_then(|r| r.map_err(|e| failed("write an event", e))) {
            warn!(reason = what.reason, %error, "an event was lost");
        }
    }

    /// Whether the API server has the run in this very version.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn is_current(&self, run: &BundleRun) -> Result<bool, Error> {
        let (namespace, name) = (run.namespace().unwrap_or_default(), run.name_any());
        let action = format!("get run {namespace}/{name}");
        let api: Api<BundleRun> = Api::namespaced(self.client.clone(), &namespace);
        let now = bounded(&action, api.get_metadata_opt(&name)).await?.map_err(|e| failed(&action, e))?;
        Ok(now.is_some_and(|now| now.metadata.resource_version == run.metadata.resource_version))
    }

    /// Whether a run with this uid exists, as the API server knows it now.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn run_exists(&self, namespace: &str, name: &str, uid: &str) -> Result<bool, Error> {
        let action = format!("get run {namespace}/{name}");
        let api: Api<BundleRun> = Api::namespaced(self.client.clone(), namespace);
        let run = bounded(&action, api.get_metadata_opt(name)).await?.map_err(|e| failed(&action, e))?;
        Ok(run.is_some_and(|r| r.metadata.uid.as_deref() == Some(uid)))
    }
}

/// With every status the API server looks at the whole object: one that was stored under another definition may be such
/// that none is taken. Then an event is all that can be told.
fn status_refused(words: &str) -> Event {
    Event {
        type_: EventType::Warning,
        reason: "StatusRefused".into(),
        note: format!(
            "the API server takes no status for this run as it is stored, so nothing of it can be recorded: apply it \
             again under another name; {words}"
        ),
    }
}

/// The whole status of this version of a run. The version is set and not tested: a test that fails is answered like a status
/// that the schema does not take (422), another version like any other conflict (409).
fn status_patch(run: &BundleRun, status: &BundleRunStatus) -> Result<json_patch::Patch, kube::Error> {
    let version = json!({"op": "replace", "path": "/metadata/resourceVersion", "value": run.metadata.resource_version});
    let status = json!({"op": "add", "path": "/status", "value": status});
    let patch = if bug!("any version is written") { json!([status]) } else { json!([version, status]) };
    serde_json::from_value(patch).map_err(kube::Error::SerdeError)
}

/// What came of a change of a pod's metadata.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cluster) enum Patched {
    /// It is done, or the pod is gone.
    Done,
    /// The pod is not as the patch says.
    IsAnother,
    /// The API server refuses it, in these words.
    Refused(String),
}

/// `Done`: the finalizer is gone.
pub(in crate::cluster) async fn remove_finalizer(
    client: &Client,
    action: &str,
    pod: &PodRef,
    facts: &PodFacts,
) -> Result<Patched, Error> {
    let finalizers = facts.metadata.finalizers.iter().flatten();
    let Some(index) = finalizers.into_iter().position(|f| f == names::POD_FINALIZER) else {
        return Ok(Patched::Done);
    };
    let ours = format!("/metadata/finalizers/{index}");
    let is_ours = json!({"op": "test", "path": ours, "value": names::POD_FINALIZER});
    let mut patch = vec![is_ours, json!({"op": "remove", "path": ours})];
    if matches!(facts.status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        // Who wrote which field is a third of the object, and the API server stores all of it with this change.
        patch.push(json!({"op": "add", "path": "/metadata/managedFields", "value": [{}]}));
    }
    patch_pod(client, action, pod, patch).await
}

/// Changes the metadata of a pod, and of no later one of its name.
async fn patch_pod(client: &Client, action: &str, pod: &PodRef, mut patch: Vec<Value>) -> Result<Patched, Error> {
    patch.insert(0, json!({"op": "test", "path": "/metadata/uid", "value": pod.uid}));
    let patch: json_patch::Patch =
        serde_json::from_value(patch.into()).map_err(|e| failed(action, kube::Error::SerdeError(e)))?;
    let api: Api<PodFacts> = Api::namespaced(client.clone(), &pod.namespace);
    match bounded(action, api.patch_metadata(&pod.name, &patch_params(), &Patch::<()>::Json(patch))).await? {
        Ok(_) => Ok(Patched::Done),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(Patched::Done),
        // A test of the patch failed. A policy says 422, too, unless it was told otherwise.
        Err(kube::Error::Api(status)) if status.is_invalid() && !is_told_by_admission(&status.message) => {
            Ok(Patched::IsAnother)
        }
        Err(kube::Error::Api(status)) if is_refusal(&status) => Ok(Patched::Refused(status.message)),
        Err(error) => Err(failed(action, error)),
    }
}

/// What is wrong with an object that the API server does not take, where it says that field by field.
fn invalid_fields(status: &Status) -> Vec<InvalidField> {
    let causes = status.details.iter().flat_map(|details| &details.causes).filter(|cause| !cause.field.is_empty());
    causes.map(|cause| InvalidField { path: cause.field.clone(), words: cause.message.clone() }).collect()
}

/// Whether the API server, a policy or a webhook says no: asking again soon is in vain.
fn is_refusal(status: &Status) -> bool {
    matches!(status.code, 400 | 403 | 422) || is_told_by_admission(&status.message)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use http::{Request, Response};
    use kube::client::Body;
    use kube_runtime::{reflector, watcher};
    use reflector::store::Writer;

    use super::*;
    use crate::cluster::{GuardedRun, Nodes};

    /// What was asked of the API server, in order.
    type Asked = Arc<Mutex<Vec<(http::Method, String, Value)>>>;

    /// An API server that answers every request so, and a cluster that asks it.
    fn cluster(
        answer: impl Fn(usize) -> (u16, Value) + Clone + Send + 'static,
    ) -> (Cluster, Writer<GuardedRun>, Asked) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let asked = Asked::default();
        let noted = Arc::clone(&asked);
        let service = tower::service_fn(move |request: Request<Body>| {
            let (noted, answer) = (Arc::clone(&noted), answer.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let number = {
                    let mut noted = noted.lock().unwrap();
                    let body = serde_json::from_slice(&body).unwrap_or_default();
                    noted.push((head.method, head.uri.path().to_owned(), body));
                    noted.len()
                };
                let (code, answer) = answer(number);
                let body = Body::from(answer.to_string().into_bytes());
                Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
            }
        });
        let (runs, writer) = reflector::store();
        let cluster =
            Cluster::new(Client::new(service, "n"), runs, reflector::store().0, Nodes::default(), None).unwrap();
        (cluster, writer, asked)
    }

    fn run(version: &str, status: &Value) -> Value {
        json!({"apiVersion": "bundlerun.dev/v1alpha1", "kind": "BundleRun",
            "metadata": {"name": "r", "namespace": "n", "uid": "u", "resourceVersion": version},
            "spec": {"command": "true"}, "status": status})
    }

    fn decoded(run: Value) -> BundleRun {
        serde_json::from_value(run).unwrap()
    }

    fn failure(code: u16, reason: &str) -> (u16, Value) {
        (
            code,
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "m"}),
        )
    }

    fn succeeded() -> BundleRunStatus {
        serde_json::from_value(json!({"phase": "Succeeded", "usage": {"memoryPeakBytes": 1}})).unwrap()
    }

    #[tokio::test]
    async fn a_status_goes_alone_and_for_the_version_that_was_seen() {
        let answer = |_| (200, run("6", &json!({"phase": "Succeeded"})));
        let (cluster, _writer, asked) = cluster(answer);
        let seen = decoded(run("5", &json!({"phase": "Running", "observedGeneration": 1})));
        let wrote = cluster.write_status(&seen, succeeded()).await.unwrap();
        assert_eq!(wrote, StepResult::Done);
        let path = "/apis/bundlerun.dev/v1alpha1/namespaces/n/bundleruns/r/status".to_owned();
        let sent = json!([
            {"op": "replace", "path": "/metadata/resourceVersion", "value": "5"},
            {"op": "add", "path": "/status", "value": succeeded()},
        ]);
        assert_eq!(*asked.lock().unwrap(), [(http::Method::PATCH, path, sent)]);
    }

    #[tokio::test]
    async fn a_run_that_somebody_else_changed_is_planned_anew() {
        let (cluster, _writer, asked) = cluster(|_| failure(409, "Conflict"));
        let wrote = cluster.write_status(&decoded(run("5", &json!({}))), succeeded()).await.unwrap();
        assert_eq!((wrote, asked.lock().unwrap().len()), (StepResult::Stale, 1));
    }

    #[tokio::test]
    async fn a_status_that_is_refused_goes_without_its_measured_parts() {
        let answer = |number| match number {
            1 => failure(422, "Invalid"),
            _ => (200, run("6", &json!({"phase": "Succeeded"}))),
        };
        let (cluster, _writer, asked) = cluster(answer);
        let wrote = cluster.write_status(&decoded(run("5", &json!({}))), succeeded()).await.unwrap();
        assert_eq!(wrote, StepResult::Done);
        let written = |at: usize| asked.lock().unwrap()[at].2[1]["value"].clone();
        assert_eq!((written(0)["usage"].is_object(), written(1)["usage"].is_object()), (true, false));
        assert_eq!(written(1)["phase"], "Succeeded");
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_pod_comes_field_by_field() {
        let answer = |_| {
            let (code, mut status) = failure(422, "Invalid");
            status["message"] = json!("Pod \"r-1\" is invalid: spec.containers[1].image: Required value");
            status["details"] = json!({"name": "r-1", "kind": "Pod", "causes": [
                {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.containers[1].image"},
                {"reason": "UnexpectedServerResponse", "message": "of no field"}]});
            (code, status)
        };
        let (cluster, _writer, _asked) = cluster(answer);
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "r-1", "namespace": "n"}})).unwrap();
        let refused = cluster.create_pod(&decoded(run("5", &json!({}))), pod).await.unwrap();
        let StepResult::Refused(Refusal::Invalid { fields, .. }) = refused else { panic!("{refused:?}") };
        let field = InvalidField { path: "spec.containers[1].image".into(), words: "Required value".into() };
        assert_eq!(fields, [field]);
    }

    /// A finished run is not looked at again: what is kept of it is kept for its life. The watch may be faster than the
    /// answer, or slower.
    #[tokio::test]
    async fn what_was_written_is_kept_until_the_cache_has_it() {
        let answer = |_| (200, run("6", &json!({"phase": "Succeeded"})));
        for watch_is_first in [false, true] {
            let (cluster, mut writer, _asked) = cluster(answer);
            let kept = || cluster.written.lock().unwrap().len();
            let mut watch = |version: &str, status: &Value| {
                let seen: GuardedRun = serde_json::from_value(run(version, status)).unwrap();
                let event = watcher::Event::Apply(seen.clone());
                writer.apply_watcher_event(&event);
                cluster.is_cached(seen.0.as_ref().unwrap());
            };
            watch("5", &json!({"phase": "Running"}));
            if watch_is_first {
                watch("6", &json!({"phase": "Succeeded"}));
            }
            let before = decoded(run("5", &json!({"phase": "Running"})));
            cluster.write_status(&before, succeeded()).await.unwrap();
            if !watch_is_first {
                assert_eq!(kept(), 1);
                let seen = cluster.observe(&before).await.unwrap();
                assert!(seen.run.is_over());
                watch("5", &json!({"phase": "Running"}));
                assert_eq!(kept(), 1);
                watch("6", &json!({"phase": "Succeeded"}));
            }
            assert_eq!(kept(), 0);
        }
    }

    /// A list is in the cache when all of it is there: until then, what was written is known from nowhere else.
    #[tokio::test]
    async fn what_was_written_is_kept_while_runs_are_listed_anew() {
        let (cluster, mut writer, _asked) = cluster(|_| (200, run("6", &json!({"phase": "Succeeded"}))));
        let version = |version: &str, phase: &str| -> GuardedRun {
            serde_json::from_value(run(version, &json!({"phase": phase}))).unwrap()
        };
        writer.apply_watcher_event(&watcher::Event::Apply(version("5", "Running")));
        let before = decoded(run("5", &json!({"phase": "Running"})));
        cluster.write_status(&before, succeeded()).await.unwrap();
        for event in [watcher::Event::Init, watcher::Event::InitApply(version("6", "Succeeded"))] {
            writer.apply_watcher_event(&event);
            let cached = cluster.runs.get(&ObjectRef::new("r").within("n")).unwrap();
            assert!(cluster.newest(cached.0.as_ref().unwrap()).is_over());
        }
        writer.apply_watcher_event(&watcher::Event::InitDone);
        cluster.is_listed();
        assert_eq!(cluster.written.lock().unwrap().len(), 0);
    }

    /// Who wrote what of a pod is a third of it, and of no use once the pod has ended.
    #[tokio::test]
    async fn a_pod_that_has_ended_is_let_go_without_who_wrote_what() {
        let pod = PodRef { namespace: "n".into(), name: "r-1".into(), uid: "p".into() };
        for (phase, patches) in [("Running", 3), ("Succeeded", 4), ("Failed", 4)] {
            let (cluster, _writer, asked) =
                cluster(|_| (200, json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "r-1"}})));
            let facts: PodFacts =
                serde_json::from_value(json!({"metadata": {"name": "r-1", "namespace": "n", "uid": "p",
                "finalizers": ["a/b", names::POD_FINALIZER]}, "spec": {}, "status": {"phase": phase}}))
                .unwrap();
            assert_eq!(remove_finalizer(&cluster.client, "a", &pod, &facts).await.unwrap(), Patched::Done);
            let mut expected = vec![
                json!({"op": "test", "path": "/metadata/uid", "value": "p"}),
                json!({"op": "test", "path": "/metadata/finalizers/1", "value": names::POD_FINALIZER}),
                json!({"op": "remove", "path": "/metadata/finalizers/1"}),
                json!({"op": "add", "path": "/metadata/managedFields", "value": [{}]}),
            ];
            expected.truncate(patches);
            assert_eq!(asked.lock().unwrap()[0].2, Value::from(expected), "{phase}");
        }
    }
}
