//! Warnings about a pod: why its volumes or its network are not there stands in no field of it.

use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use kube::{Api, Client};
use tracing::info;

use crate::cluster::{bounded, failed};
use crate::plan::{PodEvent, PodRef};

/// More than the kinds of warnings that a pod has: repetitions are counted in one.
const MAX: u32 = 100;

/// None where they cannot be read: the run waits as well without their words.
pub(in crate::cluster) async fn warnings(client: &Client, pod: &PodRef) -> Vec<PodEvent> {
    let action = format!("list the events of pod {}/{}", pod.namespace, pod.name);
    let api: Api<Event> = Api::namespaced(client.clone(), &pod.namespace);
    let about = ListParams::default().fields(&format!("regarding.uid={},type=Warning", pod.uid)).limit(MAX);
    let answer = bounded(&action, api.list(&about)).await;
    match answer.and_then(|answer| answer.map_err(|error| failed(&action, error))) {
        Ok(events) => events.items.into_iter().map(pod_event).collect(),
        Err(error) => {
            info!(pod = pod.name, %error, "it is not told why the node does not prepare a pod");
            Vec::new()
        }
    }
}

/// The kubelet writes events as they were before `events.k8s.io`.
fn pod_event(event: Event) -> PodEvent {
    let seen = event.series.map(|series| series.last_observed_time.0);
    let seen = seen.or(event.deprecated_last_timestamp.map(|t| t.0)).or(event.event_time.map(|t| t.0));
    PodEvent { reason: event.reason.unwrap_or_default(), note: event.note.unwrap_or_default(), seen }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    async fn read(status: u16, answer: Value) -> Vec<PodEvent> {
        let service = tower::service_fn(move |request: Request<Body>| {
            let query = request.uri().query().unwrap_or_default();
            assert!(query.contains("regarding.uid%3Du%2Ctype%3DWarning"), "{query}");
            let answer = Response::builder().status(status).body(Body::from(answer.to_string().into_bytes())).unwrap();
            async move { Ok::<_, Infallible>(answer) }
        });
        let pod = PodRef { namespace: "n".into(), name: "r-1".into(), uid: "u".into() };
        warnings(&Client::new(service, "default"), &pod).await
    }

    #[tokio::test]
    async fn events_of_the_kubelet_and_of_others_have_a_time() {
        let event = |more: Value| {
            let mut event = json!({"metadata": {}, "eventTime": null, "reason": "FailedMount", "note": "why"});
            event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            event
        };
        let of_kubelet = event(json!({"deprecatedLastTimestamp": "2026-01-01T00:00:02Z"}));
        let series = json!({"count": 2, "lastObservedTime": "2026-01-01T00:00:03.000000Z"});
        let of_others = event(json!({"eventTime": "2026-01-01T00:00:01.000000Z", "series": series}));
        let list = json!({"kind": "EventList", "apiVersion": "events.k8s.io/v1", "metadata": {},
            "items": [of_kubelet, of_others, event(json!({}))]});
        let seen: Vec<_> = read(200, list).await.into_iter().map(|e| (e.reason, e.note, e.seen)).collect();
        let expected =
            |seen: Option<&str>| ("FailedMount".to_owned(), "why".to_owned(), seen.map(|seen| seen.parse().unwrap()));
        let times = [Some("2026-01-01T00:00:02Z"), Some("2026-01-01T00:00:03Z"), None];
        assert_eq!(seen, times.map(expected));
    }

    #[tokio::test]
    async fn no_answer_is_no_event() {
        for code in [403, 500] {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": "r", "code": code});
            assert_eq!(read(code, status).await, []);
        }
    }
}
