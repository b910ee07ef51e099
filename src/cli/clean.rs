//! Text that a stranger wrote, for a terminal: names, messages, logs and files can hold sequences that move the cursor,
//! change the title or hide what is shown.

use crate::contract::reorders_or_hides;
use std::str;

/// Stands for a character that is not shown.
const SHOWN_AS: char = '\u{fffd}';

/// Lines and tabs stay, everything else that a terminal acts on does not.
pub(super) fn text(text: &str) -> String {
    let mut cleaner = Cleaner::default();
    let mut out = String::with_capacity(text.len());
    cleaner.feed(text.as_bytes(), &mut out);
    cleaner.finish(&mut out);
    out
}

/// The same in one line.
pub(super) fn line(line: &str) -> String {
    let clean = text(line).replace(['\n', '\t'], " ");
    clean.trim_end().to_owned()
}

/// What comes in pieces. A line may be of any length: nothing of it is held back but a few bytes.
#[derive(Default)]
pub(super) struct Cleaner {
    state: State,
    /// Of a character that is not whole yet.
    partial: Vec<u8>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After a carriage return: it stands for the end of a line, as progress bars have it, and so does `\r\n`.
    CarriageReturn,
    /// After ESC.
    Escape,
    /// In a control sequence such as `ESC [ 31 m`.
    Control,
    /// In a string such as a title, up to BEL or `ESC \`.
    String,
    /// After ESC in a string.
    StringEscape,
}

impl Cleaner {
    /// Adds what may be shown of these bytes.
    pub(super) fn feed(&mut self, bytes: &[u8], out: &mut String) {
        let mut all = std::mem::take(&mut self.partial);
        all.extend_from_slice(bytes);
        let mut rest = &all[..];
        loop {
            match str::from_utf8(rest) {
                Ok(valid) => {
                    self.push(valid, out);
                    return;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    self.push(str::from_utf8(valid).unwrap_or_default(), out);
                    let Some(length) = error.error_len() else {
                        self.partial = after.to_vec();
                        return;
                    };
                    self.push("\u{fffd}", out);
                    rest = after.get(length..).unwrap_or_default();
                }
            }
        }
    }

    /// At the end of the text.
    pub(super) fn finish(&mut self, out: &mut String) {
        if self.state == State::CarriageReturn {
            out.push('\n');
        }
        if !self.partial.is_empty() {
            out.push(SHOWN_AS);
        }
        *self = Self::default();
    }

    fn push(&mut self, text: &str, out: &mut String) {
        for c in text.chars() {
            self.state = self.next(c, out);
        }
    }

    fn next(&self, c: char, out: &mut String) -> State {
        match self.state {
            State::Text => plain(c, out),
            State::CarriageReturn => {
                out.push('\n');
                if c == '\n' { State::Text } else { plain(c, out) }
            }
            State::Escape => match c {
                '[' => State::Control,
                ']' | 'P' | 'X' | '^' | '_' => State::String,
                ' '..='/' => State::Escape,
                '0'..='~' => State::Text,
                other => plain(other, out),
            },
            State::Control => match c {
                ' '..='?' => State::Control,
                '@'..='~' => State::Text,
                other => plain(other, out),
            },
            // A string that never ends would hide all that follows.
            State::String | State::StringEscape if c == '\n' => plain(c, out),
            State::StringEscape if c == '\\' => State::Text,
            State::String | State::StringEscape => match c {
                '\u{7}' | '\u{9c}' => State::Text,
                '\u{1b}' => State::StringEscape,
                _ => State::String,
            },
        }
    }
}

fn plain(c: char, out: &mut String) -> State {
    match c {
        '\r' => return State::CarriageReturn,
        '\u{1b}' => return State::Escape,
        '\u{9b}' => return State::Control,
        '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}' => return State::String,
        '\n' | '\t' => out.push(c),
        c if c.is_control() || reorders_or_hides(c) => out.push(SHOWN_AS),
        c => out.push(c),
    }
    State::Text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_terminal_would_act_on_is_taken_out() {
        for (given, shown) in [
            ("plain ünïcode 漢字 🦀\ttab\nline", "plain ünïcode 漢字 🦀\ttab\nline"),
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("\u{1b}[?1049h\u{1b}[2J\u{1b}[Hgone", "gone"),
            ("\u{1b}]0;title\u{7}text", "text"),
            ("\u{1b}]8;;http://evil\u{1b}\\link\u{1b}]8;;\u{1b}\\", "link"),
            ("\u{1b}Pq#0;2;0;0;0\u{1b}\\sixel", "sixel"),
            ("\u{1b}(Bset \u{1b}c reset", "set  reset"),
            ("\u{9b}31mC1\u{9d}0;t\u{9c}", "C1"),
            ("\u{1b}]0;never ends\nnext", "\nnext"),
            ("bell \u{7} back \u{8} del \u{7f}", "bell \u{fffd} back \u{fffd} del \u{fffd}"),
            ("10%\r20%\r\ndone\r", "10%\n20%\ndone\n"),
            ("evil\u{202e}txt.exe\u{200b}", "evil\u{fffd}txt.exe\u{fffd}"),
            ("end \u{1b}", "end "),
            ("\u{1b}[31", ""),
        ] {
            assert_eq!(text(given), shown, "{given:?}");
        }
    }

    #[test]
    fn a_name_is_one_line() {
        assert_eq!(line("a\nb\tc\u{1b}[2Kd\r\n"), "a b cd");
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_such() {
        let mut out = String::new();
        let mut cleaner = Cleaner::default();
        cleaner.feed(b"a\xffb\xe2\x82", &mut out);
        cleaner.finish(&mut out);
        assert_eq!(out, "a\u{fffd}b\u{fffd}");
    }

    proptest! {
        #[test]
        fn nothing_gets_through_however_it_is_cut(bytes: Vec<u8>, at: prop::sample::Index) {
            let (first, second) = bytes.split_at(at.index(bytes.len() + 1));
            let mut cut = String::new();
            let mut cleaner = Cleaner::default();
            cleaner.feed(first, &mut cut);
            cleaner.feed(second, &mut cut);
            cleaner.finish(&mut cut);
            prop_assert!(!cut.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{cut:?}");
            let mut whole = String::new();
            cleaner.feed(&bytes, &mut whole);
            cleaner.finish(&mut whole);
            prop_assert_eq!(cut, whole);
        }
    }
}
