//! Colours of ours, which only a terminal gets.

use crate::api::Phase;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Red,
    Green,
    Yellow,
    Cyan,
}

/// Whether there are colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Paint {
    is_on: bool,
}

impl Paint {
    /// `NO_COLOR` is what people set who want none anywhere.
    pub(super) fn on(is_terminal: bool) -> Self {
        let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { is_on: is_terminal && !is_unwanted && !is_dumb }
    }

    #[cfg(test)]
    pub(super) fn always() -> Self {
        Self { is_on: true }
    }

    /// The text must be clean already.
    pub(super) fn text(self, text: &str, colour: Option<Colour>) -> String {
        let code = match colour.filter(|_| self.is_on && !text.is_empty()) {
            None => return text.to_owned(),
            Some(Colour::Red) => 31,
            Some(Colour::Green) => 32,
            Some(Colour::Yellow) => 33,
            Some(Colour::Cyan) => 36,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// Of a phase.
pub(super) fn colour(phase: Phase) -> Option<Colour> {
    match phase {
        Phase::Waiting | Phase::Pending => Some(Colour::Yellow),
        Phase::Running | Phase::Finalizing => Some(Colour::Cyan),
        Phase::Succeeded => Some(Colour::Green),
        Phase::Failed => Some(Colour::Red),
        Phase::Stopped => None,
    }
}
