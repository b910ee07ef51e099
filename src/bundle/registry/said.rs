//! What an error's body says: of a registry, of the store behind it, or of a proxy before it.

use serde_json::Value;

use crate::contract::beginning;

/// As much of an error's text is shown, in bytes.
const LONGEST_TEXT: usize = 300;
/// As much of one detail is shown, in bytes.
const LONGEST_DETAIL: usize = 160;

/// The words of who refused.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Of all errors; of S3 and the like, that of their XML.
    pub(super) codes: Vec<String>,
    /// All that was said, for people: one line, of any length.
    text: String,
    /// What was said in a sentence: neither names that are quoted in it, nor links, nor a page for browsers.
    words: String,
}

impl Said {
    /// `{"errors": [{"code", "message", "detail"}]}`, `{"error": "..."}`, XML of a store, a page, or any text.
    pub(super) fn read(body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let text = text.trim();
        if let Ok(value) = serde_json::from_str::<Value>(text)
            && value.is_object()
        {
            return Self::of_json(&value);
        }
        if let (Some(code), true) = (between(text, "<Code>", "</Code>"), text.contains("<Error>")) {
            let message = between(text, "<Message>", "</Message>").unwrap_or_default();
            let codes = vec![code.to_owned()];
            return Self { codes, text: one_line(&format!("{code} ({message})")), words: sentence(message) };
        }
        if text.starts_with('<') {
            let lower = text.to_ascii_lowercase();
            // The same offsets: ASCII letters keep their length.
            let title = between(&lower, "<title>", "</title>").and_then(|title| {
                let start = lower.find(title)?;
                text.get(start..start + title.len())
            });
            let title = title.map(str::trim).filter(|title| !title.is_empty());
            let text = title.map_or_else(|| "a page for browsers".to_owned(), |title| format!("a page, {title:?}"));
            return Self { codes: vec![], text: one_line(&text), words: String::new() };
        }
        Self { codes: vec![], text: one_line(text), words: sentence(text) }
    }

    fn of_json(value: &Value) -> Self {
        let mut said = Self::default();
        let errors = value.get("errors").and_then(Value::as_array);
        let errors: Vec<&Value> = match errors {
            Some(errors) if !errors.is_empty() => errors.iter().collect(),
            _ => vec![value],
        };
        let mut texts: Vec<String> = vec![];
        for error in errors {
            let field = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default().trim();
            let code = field("code");
            let message = [field("message"), field("error"), field("error_description"), field("details")];
            let message = once(message.into_iter().find(|text| !text.is_empty()).unwrap_or_default());
            let detail = error.get("detail").map(detail).unwrap_or_default();
            let detail = if detail == message { String::new() } else { detail };
            let both = |detail: &str| {
                let texts = [message, detail].into_iter().filter(|text| !text.is_empty());
                texts.collect::<Vec<_>>().join(": ")
            };
            let (words, text) = (both(&detail), both(&beginning(&detail, LONGEST_DETAIL)));
            let text = match (code.is_empty(), text.is_empty()) {
                (true, _) => text,
                (_, true) => code.to_owned(),
                _ => format!("{code} ({text})"),
            };
            if !code.is_empty() {
                said.codes.push(code.to_owned());
            }
            said.words.push_str(&sentence(&words));
            said.words.push(' ');
            if !text.is_empty() && !texts.contains(&text) {
                texts.push(text);
            }
        }
        if texts.is_empty() {
            texts.push(value.to_string());
        }
        said.text = one_line(&texts.join("; "));
        said
    }

    pub(super) fn has_code(&self, code: &str) -> bool {
        self.codes.iter().any(|known| known == code)
    }

    /// Any of these is in what was said; in lower case.
    pub(super) fn says(&self, any: &[&str]) -> bool {
        any.iter().any(|words| self.words.contains(words))
    }

    /// This is in it anywhere; in lower case.
    fn quotes(&self, words: &str) -> bool {
        self.text.to_lowercase().contains(words)
    }

    /// An image has more layers than the registry takes.
    pub(super) fn is_of_too_many_layers(&self) -> bool {
        self.quotes("limit on number of layers")
    }

    /// There is no code of its own for it: registries say it in words.
    pub(super) fn is_of_quota(&self) -> bool {
        let of_storage = self.says(&["exceed"]) && self.says(&["storage"]);
        of_storage || self.says(&["quota", "storage limit", "maximum allowed number of images"])
    }

    /// `ENOSPC` is 28; Go's errors are shown as their fields.
    pub(super) fn is_of_a_full_disk(&self) -> bool {
        self.says(&["no space left on device", "disk quota exceeded", "\"err\":28}", "\"err\":28,"])
    }

    /// Tags that can be written once.
    pub(super) fn is_of_an_immutable_tag(&self) -> bool {
        self.has_code("TAG_IMMUTABLE") || self.says(&["immutable"])
    }

    /// The registry, or its store, lets nobody write for a while.
    pub(super) fn is_of_maintenance(&self) -> bool {
        self.says(&["read-only", "read only", "currently disabled", "maintenance"])
    }

    /// For people: one line of a bounded length, or nothing.
    pub(super) fn shown(&self) -> String {
        beginning(&self.text, LONGEST_TEXT)
    }
}

/// A detail can be anything: Quay's reason is in its `message`.
fn detail(detail: &Value) -> String {
    match detail {
        Value::String(text) => text.trim().to_owned(),
        Value::Object(fields) if fields.is_empty() => String::new(),
        Value::Array(items) if items.is_empty() => String::new(),
        Value::Null => String::new(),
        _ => match detail.get("message").and_then(Value::as_str) {
            Some(message) => message.trim().to_owned(),
            None => detail.to_string(),
        },
    }
}

/// Harbor says all twice: `x: x`.
fn once(message: &str) -> &str {
    let half = message.len().saturating_sub(2) / 2;
    match (message.get(..half), message.get(half..half + 2), message.get(half + 2..)) {
        (Some(first), Some(": "), Some(second)) if first == second && !first.is_empty() => first,
        _ => message,
    }
}

/// The words of a text in lower case, without what is a name or an address and could be called anything.
fn sentence(text: &str) -> String {
    let is_word = |word: &&str| !word.contains("//") && !word.starts_with(['/', '\'', '"', '`']);
    let words: Vec<&str> = text.split_whitespace().filter(is_word).collect();
    words.join(" ").to_lowercase()
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    Some(text.split_once(start)?.1.split_once(end)?.0.trim())
}

fn one_line(text: &str) -> String {
    text.replace(char::is_control, "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_was_said_is_shown() {
        for (body, shown) in [
            (r#"{"errors":[{"code":"A","message":"a"},{"code":"B","message":"b"}]}"#, "A (a); B (b)"),
            (r#"{"errors":[{"code":"A","message":"a"},{"code":"A","message":"a"}]}"#, "A (a)"),
            (r#"{"errors":[{"code":"A","message":"unknown error","detail":"why"}]}"#, "A (unknown error: why)"),
            (r#"{"errors":[{"code":"A","message":"a","detail":{}}]}"#, "A (a)"),
            (r#"{"errors":[{"code":"A","message":"a","detail":{"message":"why"}}]}"#, "A (a: why)"),
            (r#"{"errors":[{"code":"A","message":"a","detail":{"Err":28}}]}"#, r#"A (a: {"Err":28})"#),
            (r#"{"errors":[{"code":"A","message":"no x: no x"}]}"#, "A (no x)"),
            (r#"{"error":"a"}"#, "a"),
            (r#"{"unknown":1}"#, r#"{"unknown":1}"#),
            ("<html>\r\n<head><TITLE>413 Too Large</TITLE></head>\r\n<body>", "a page, \"413 Too Large\""),
            ("<html><body>", "a page for browsers"),
            ("<?xml?>\n<Error><Code>SlowDown</Code><Message>m</Message></Error>", "SlowDown (m)"),
            ("Too Many Requests\n", "Too Many Requests"),
            ("", ""),
        ] {
            assert_eq!(Said::read(body.as_bytes()).shown(), shown, "{body}");
        }
        let long = format!(r#"{{"errors":[{{"code":"A","message":"{}the end"}}]}}"#, "x ".repeat(400));
        let said = Said::read(long.as_bytes());
        assert!(said.says(&["the end"]) && said.shown().len() < 320);
    }

    #[test]
    fn names_and_addresses_are_no_words() {
        for (text, quota) in [
            ("Repository \"quota-a\" not found", false),
            ("see https://h.example/quota", false),
            ("visit /help/quotas.md.", false),
            ("your quota is used up", true),
        ] {
            assert_eq!(Said::read(text.as_bytes()).is_of_quota(), quota, "{text}");
        }
    }
}
