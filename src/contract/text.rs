//! Text for people: within documents of a bounded size, sizes and times.

/// Longest `detail` of a record, in bytes.
pub const DETAIL_MAX_BYTES: usize = 200;

/// Text for a `detail`: one line, without control characters, at most [`DETAIL_MAX_BYTES`].
#[must_use]
pub fn one_line(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    beginning(text.trim(), DETAIL_MAX_BYTES)
}

/// Text of others as one line in which nothing hides: control characters, and what else ends or reorders a line, as their
/// escapes.
#[must_use]
pub fn printable(text: &str) -> String {
    let is_escaped = |c: char| c.is_control() || reorders_or_hides(c);
    let shown = |c: char| if is_escaped(c) { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

/// Characters that end a line, or with which one name looks like another. Joiners stay: scripts and emoji need them.
#[must_use]
pub fn reorders_or_hides(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Of many names so many are told.
const NAMES_TOLD: usize = 5;

/// `a, b`, or the first of many: `a, b, c, d, e and 2 more`.
#[must_use]
pub fn first_of(names: &[impl AsRef<str>]) -> String {
    let first = names.iter().take(NAMES_TOLD).map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES_TOLD) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// Writes one line to standard error, whatever is in it: a file's name, or the words of a server, must not look like
/// another line of the log.
#[cfg(feature = "operator")]
macro_rules! log_line {
    ($($words:tt)*) => {
        eprintln!("{}", $crate::contract::printable(&format!($($words)*)))
    };
}
#[cfg(feature = "operator")]
pub(crate) use log_line;

/// What is left out of a text.
const ELLIPSIS: &str = "...";
/// A word that is longer is cut through.
const LONGEST_WORD: usize = 40;

/// The beginning of a text, in at most `most` bytes: at the end of a word, with an ellipsis, where it was longer.
#[must_use]
pub fn beginning(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let Some(room) = most.checked_sub(ELLIPSIS.len()) else { return String::new() };
    let start = text.split_at(text.floor_char_boundary(room)).0;
    let next = text.get(start.len()..).and_then(|rest| rest.chars().next());
    let whole =
        if next.is_some_and(char::is_whitespace) { Some(start.len()) } else { start.rfind(char::is_whitespace) };
    let end = whole.filter(|end| start.len() - end <= LONGEST_WORD).unwrap_or(start.len());
    let start = start.split_at(end).0.trim_end();
    // It may have been cut before.
    format!("{}{ELLIPSIS}", start.strip_suffix(ELLIPSIS).unwrap_or(start))
}

/// Both ends of a text, in at most `most` bytes: who says it is at the begin, and why at the end, where the last of many
/// errors stands.
#[must_use]
pub fn both_ends(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let half = most.saturating_sub(ELLIPSIS.len() + 2) / 2;
    let begin = beginning(text, half + ELLIPSIS.len());
    let rest = text.split_at(text.ceil_char_boundary(text.len() - half)).1;
    let before = text.strip_suffix(rest).and_then(|before| before.chars().next_back());
    let whole = if before.is_some_and(char::is_whitespace) { Some(0) } else { rest.find(char::is_whitespace) };
    let end = rest.split_at(whole.filter(|at| *at <= LONGEST_WORD).unwrap_or(0)).1.trim_start();
    format!("{} {ELLIPSIS} {end}", begin.strip_suffix(ELLIPSIS).unwrap_or(&begin))
}

/// As people read it: `1.2 GiB`.
#[must_use]
pub fn size_for_people(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut tenths = u128::from(bytes) * 10;
    let mut unit = "B";
    for next in UNITS {
        if tenths < 10_240 {
            break;
        }
        tenths /= 1024;
        unit = next;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{}.{} {unit}", tenths / 10, tenths % 10) }
}

/// A duration for people, in the notation of `timeLimit`: its two largest units, and milliseconds below a second.
#[must_use]
pub fn time_for_people(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes, seconds % 60) {
        (0, 0, 0, 0) => format!("{ms}ms"),
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (0, hours, minutes, _) => format!("{hours}h{minutes}m"),
        (days, hours, _, _) => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_makes_no_line_of_its_own_in_a_log() {
        let name = "a\nbundle-operator helper: all is well\r\u{1b}[2J\u{9b}1m\u{85}\u{2028}\u{2029}\u{202e}ünï";
        let shown = printable(&format!("cannot open {name}"));
        assert_eq!(
            shown,
            r"cannot open a\nbundle-operator helper: all is well\r\u{1b}[2J\u{9b}1m\u{85}\u{2028}\u{2029}\u{202e}ünï"
        );
    }

    #[test]
    fn a_long_text_is_cut_between_words() {
        for (text, most, cut) in [
            ("", 0, ""),
            ("one two", 7, "one two"),
            ("one two three", 12, "one two..."),
            ("one two three", 11, "one two..."),
            ("one two three", 10, "one two..."),
            ("one two three", 9, "one..."),
            ("one two...", 9, "one..."),
            ("onetwothree", 9, "onetwo..."),
            ("ääääää", 8, "ää..."),
            ("one two", 3, "..."),
            ("one two", 2, ""),
        ] {
            assert_eq!(beginning(text, most), cut, "{text} {most}");
        }
        let path = format!("cannot read {}", "x".repeat(100));
        assert_eq!(beginning(&path, 60), format!("cannot read {}...", "x".repeat(45)), "words have an end");
        let cut = beginning("one two three", 11);
        assert_eq!(beginning(&cut, cut.len() - 1), "one...");
    }

    #[test]
    fn of_a_long_text_both_ends_are_kept() {
        let words = "one two three four five six seven";
        for (most, cut) in
            [(33, words), (26, "one two ... six seven"), (22, "one two ... seven"), (21, "one two ... seven")]
        {
            assert_eq!(both_ends(words, most), cut, "{most}");
        }
        for text in ["ä".repeat(5000), format!("a{}", "ä".repeat(5000))] {
            let cut = both_ends(&text, 1024);
            assert!((1000..=1024).contains(&cut.len()) && cut.contains("ä ... ä"), "{cut}");
        }
    }

    #[test]
    fn sizes_are_for_people() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16383.9 PiB"),
        ] {
            assert_eq!(size_for_people(bytes), shown);
        }
    }

    #[test]
    fn durations_have_their_two_largest_units() {
        let (second, minute, hour, day) = (1_000, 60_000, 3_600_000, 86_400_000);
        for (ms, words) in [
            (0, "0ms"),
            (999, "999ms"),
            (second, "1s"),
            (3_999, "3s"),
            (minute - 1, "59s"),
            (minute, "1m0s"),
            (hour - 1, "59m59s"),
            (hour, "1h0m"),
            (day - 1, "23h59m"),
            (day, "1d0h"),
            (9 * day + 5 * hour + 59 * minute, "9d5h"),
        ] {
            assert_eq!(time_for_people(ms), words, "{ms}");
        }
    }
}
