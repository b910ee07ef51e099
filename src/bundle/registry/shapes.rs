//! Answers as real registries give them, for tests: `tests/registry-shapes`.

use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
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

    /// A text of what is expected.
    pub(super) fn expected(&self, name: &str) -> Option<&str> {
        self.expect.get(name).and_then(Value::as_str)
    }
}

/// All answers to a step, of all registries.
pub(super) fn of_step(step: &str) -> Vec<Exchange> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/registry-shapes");
    let mut all = vec![];
    for file in std::fs::read_dir(dir).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let Shapes { registry, exchanges } = serde_json::from_str(&text).unwrap();
        let of_step = exchanges.into_iter().filter(|exchange| exchange.step == step);
        all.extend(of_step.map(|exchange| Exchange { registry: registry.clone(), ..exchange }));
    }
    assert!(!all.is_empty(), "{step}");
    all
}
