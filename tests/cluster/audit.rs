//! What the operator asked of the API server, from its audit log.

use std::io::{BufRead, BufReader};

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

const OPERATOR: &str = "system:serviceaccount:bundlerun:bundle-operator";

/// The operator's finished requests that `are_meant`, as events of the audit log.
pub fn of_operator(are_meant: impl Fn(&Value) -> bool) -> Vec<Value> {
    let log = std::fs::File::open(std::env::var("AUDIT_LOG").unwrap()).unwrap();
    BufReader::new(log)
        .lines()
        .map_while(Result::ok)
        .filter(|line| line.contains(OPERATOR))
        .filter_map(|line| serde_json::from_str::<Value>(&line).ok())
        .filter(|event| text(event, "/user/username") == OPERATOR && text(event, "/stage") == "ResponseComplete")
        .filter(|event| are_meant(event))
        .collect()
}

/// A field of an event.
pub fn text(event: &Value, path: &str) -> String {
    event.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// When the API server got the request.
pub fn received(event: &Value) -> Timestamp {
    text(event, "/requestReceivedTimestamp").parse().unwrap()
}

/// Name of the pod that asked.
pub fn pod(event: &Value) -> String {
    text(event, "/user/extra/authentication.kubernetes.io~1pod-name/0")
}
