//! Answers as real registries give them, for tests: `tests/registry-shapes`.

use super::meaning::Step;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

#[derive(Deserialize)]
struct Shapes {
    registry: String,
    exchanges: Vec<Exchange>,
}

/// One answer, and what it means.
#[derive(Deserialize)]
pub(super) struct Exchange {
    #[serde(skip)]
    registry: String,
    name: String,
    step: String,
    pub(super) status: u16,
    headers: BTreeMap<String, String>,
    pub(super) body: Option<String>,
    pub(super) expect: Value,
}

impl Exchange {
    pub(super) fn name(&self) -> String {
        format!("{}: {}", self.registry, self.name)
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Of an error: at which request it came.
    pub(super) fn error_step(&self) -> Step {
        match self.expected("at") {
            Some("token") => Step::Token,
            Some("upload-end") => Step::UploadEnd,
            _ => Step::Other,
        }
    }

    /// Of an error: what comes of its body to a client.
    pub(super) fn error_body(&self) -> &str {
        self.body.as_deref().filter(|_| self.expected("at") != Some("blob-head")).unwrap_or_default()
    }

    /// A text of what is expected.
    pub(super) fn expected(&self, name: &str) -> Option<&str> {
        self.expect.get(name).and_then(Value::as_str)
    }
}

/// All errors, as requests and their answers: step, status, body.
pub(super) fn errors() -> Vec<(Step, u16, String)> {
    let errors = of_step("error").into_iter().filter(|exchange| exchange.status >= 300);
    errors.map(|exchange| (exchange.error_step(), exchange.status, exchange.error_body().to_owned())).collect()
}

/// All answers to a step, of all registries.
pub(super) fn of_step(step: &str) -> Vec<Exchange> {
    let mut all = all();
    all.retain(|exchange| exchange.step == step);
    assert!(!all.is_empty(), "{step}");
    all
}

/// The steps that there are answers to.
pub(super) fn steps() -> BTreeSet<String> {
    all().into_iter().map(|exchange| exchange.step).collect()
}

fn all() -> Vec<Exchange> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/registry-shapes");
    let mut all = vec![];
    for file in std::fs::read_dir(dir).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let Shapes { registry, exchanges } = serde_json::from_str(&text).unwrap();
        all.extend(exchanges.into_iter().map(|exchange| Exchange { registry: registry.clone(), ..exchange }));
    }
    all
}
