//! What the operator tells an OpenTelemetry collector.

use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::routing::post;
use serde_json::{Value, json};

use crate::common::{Space, cause, eventually};
use crate::node;
use crate::settings;

type Received = Arc<Mutex<Vec<Value>>>;

/// Takes spans by OTLP and keeps them.
async fn collector() -> (String, Received) {
    async fn take(State(received): State<Received>, body: String) -> &'static str {
        let request: Value = serde_json::from_str(&body).unwrap();
        for resource in request["resourceSpans"].as_array().unwrap() {
            for scope in resource["scopeSpans"].as_array().unwrap() {
                for span in scope["spans"].as_array().unwrap() {
                    let mut span = span.clone();
                    span["resource"] = resource["resource"]["attributes"].clone();
                    received.lock().unwrap().push(span);
                }
            }
        }
        "{}"
    }
    let received = Received::default();
    let listener = tokio::net::TcpListener::bind((node::link_address(), 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = axum::Router::new().route("/v1/traces", post(take)).with_state(received.clone());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (url, received)
}

fn has(attributes: &Value, key: &str, value: &str) -> bool {
    let mut attributes = attributes.as_array().unwrap().iter();
    attributes.any(|attribute| attribute["key"] == key && attribute["value"]["stringValue"] == value)
}

#[tokio::test]
async fn every_look_at_a_run_is_a_trace_with_its_steps() {
    let space = Space::with_own_operators().await;
    let (collector, received) = collector().await;
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.as_str()), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")];
    settings::with_env(&space, env.map(|(name, value)| json!({"name": name, "value": value})).into()).await;
    assert_eq!(cause(&space.run("traced", json!({"command": "true"})).await), "Completed");
    let of_the_run = || {
        let spans = received.lock().unwrap().clone();
        let looks: Vec<_> = spans.iter().filter(|span| has(&span["attributes"], "name", "traced")).collect();
        let step_of = |name: &str| {
            spans.iter().any(|step| {
                step["name"] == name
                    && looks
                        .iter()
                        .any(|look| look["traceId"] == step["traceId"] && look["spanId"] == step["parentSpanId"])
            })
        };
        let missing: Vec<_> =
            ["create pod", "write status", "remove finalizer"].into_iter().filter(|name| !step_of(name)).collect();
        if missing.is_empty() { Ok(looks.into_iter().cloned().collect()) } else { Err((missing, spans.len())) }
    };
    let looks: Vec<Value> = eventually("the spans of a run", async || of_the_run()).await;
    for look in looks {
        assert_eq!(look["name"], "run");
        assert!(has(&look["attributes"], "namespace", &space.name), "{look:#}");
        assert!(has(&look["resource"], "service.name", "bundle-operator"), "{look:#}");
    }
    space.end().await;
}
