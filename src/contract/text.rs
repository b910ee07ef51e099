//! Text for people within documents of a bounded size.

/// Longest `detail` of a record, in bytes.
pub const DETAIL_MAX_BYTES: usize = 200;

/// Text for a `detail`: one line, without control characters, at most [`DETAIL_MAX_BYTES`].
#[must_use]
pub fn one_line(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    first_bytes(text.trim(), DETAIL_MAX_BYTES)
}

pub(super) fn first_bytes(text: &str, most: usize) -> String {
    text.split_at(text.floor_char_boundary(most)).0.trim_end().to_owned()
}
