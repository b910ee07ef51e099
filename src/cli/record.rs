//! Text in two columns, a name and what it is, as `kubectl describe` has it.

use std::fmt::Write as _;

use super::clean;

/// As wide as the longest name.
const WIDTH: usize = 12;

/// Lines of a description.
#[derive(Default)]
pub(super) struct Record {
    text: String,
}

impl Record {
    /// One line; none of what is empty.
    pub(super) fn line(&mut self, name: &str, value: impl AsRef<str>) -> &mut Self {
        let value = clean::line(value.as_ref());
        if !value.is_empty() {
            let _ = writeln!(self.text, "{:WIDTH$} {value}", format!("{name}:"));
        }
        self
    }

    /// The same of what may be missing.
    pub(super) fn maybe(&mut self, name: &str, value: Option<impl AsRef<str>>) -> &mut Self {
        if let Some(value) = value {
            self.line(name, value);
        }
        self
    }

    /// Several lines below a name, each behind a bar, so that none is taken for one of ours.
    pub(super) fn block(&mut self, name: &str, value: &str) -> &mut Self {
        let value = clean::text(value);
        if !value.trim().is_empty() {
            let _ = writeln!(self.text, "{name}:");
            for line in value.trim_end().lines() {
                let _ = writeln!(self.text, "  | {line}");
            }
        }
        self
    }

    /// Lines that are clean already, below a name.
    pub(super) fn below(&mut self, name: &str, lines: &str) -> &mut Self {
        if !lines.is_empty() {
            let _ = writeln!(self.text, "{name}:");
            for line in lines.lines() {
                let _ = writeln!(self.text, "  {line}");
            }
        }
        self
    }

    pub(super) fn text(self) -> String {
        self.text
    }
}
