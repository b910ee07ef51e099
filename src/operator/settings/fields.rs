//! Reading a map field by field: every problem is noted with its path, and none hides another.

use std::cell::RefCell;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The problems found so far, each beginning with the path of its field.
#[derive(Default)]
pub(in crate::operator) struct Problems(RefCell<Vec<String>>);

impl Problems {
    pub(in crate::operator) fn note(&self, path: &str, problem: impl std::fmt::Display) {
        self.0.borrow_mut().push(format!("{path}: {problem}"));
    }

    /// Keeps the value, or notes the problem.
    pub(in crate::operator) fn check<T>(&self, path: &str, result: Result<T, impl std::fmt::Display>) -> Option<T> {
        result.map_err(|problem| self.note(path, problem)).ok()
    }

    pub(in crate::operator) fn into_result(self) -> Result<(), Vec<String>> {
        let problems = self.0.into_inner();
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

/// A map of the file. When it is dropped, what nobody asked for is noted as unknown.
pub(in crate::operator) struct Fields<'a> {
    path: String,
    values: Map<String, Value>,
    known: Vec<&'static str>,
    problems: &'a Problems,
}

impl<'a> Fields<'a> {
    /// Of a map, or of nothing for one that is not there.
    pub(in crate::operator) fn of(path: &str, value: Option<Value>, problems: &'a Problems) -> Self {
        let values = match value {
            Some(Value::Object(values)) => values,
            None | Some(Value::Null) => Map::new(),
            Some(other) => {
                problems.note(path, format_args!("must be a map of fields, not {other}"));
                Map::new()
            }
        };
        Self { path: path.to_owned(), values, known: Vec::new(), problems }
    }

    /// The path of one of its fields.
    pub(in crate::operator) fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The value as it is.
    pub(in crate::operator) fn raw(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.values.remove(name).filter(|value| !value.is_null())
    }

    /// A map within.
    pub(in crate::operator) fn section(&mut self, name: &'static str) -> Fields<'a> {
        let value = self.raw(name);
        Fields::of(&self.path(name), value, self.problems)
    }

    /// A value of this type, if it is there.
    pub(in crate::operator) fn get<T: DeserializeOwned>(&mut self, name: &'static str) -> Option<T> {
        let value = self.raw(name)?;
        self.problems.check(&self.path(name), serde_json::from_value(value))
    }

    /// A text that must be there and not be empty.
    pub(in crate::operator) fn required(&mut self, name: &'static str, what: &str) -> String {
        let before = self.problems.0.borrow().len();
        let text: String = self.get(name).unwrap_or_default();
        if text.is_empty() && self.problems.0.borrow().len() == before {
            self.problems.note(&self.path(name), format_args!("name {what}"));
        }
        text
    }
}

impl Drop for Fields<'_> {
    fn drop(&mut self) {
        for name in self.values.keys() {
            self.problems.note(&self.path(name), format_args!("unknown field; there are: {}", self.known.join(", ")));
        }
    }
}
