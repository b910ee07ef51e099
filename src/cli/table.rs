//! Tables as those of `kubectl`: columns with two spaces between them, no lines.

use unicode_width::UnicodeWidthStr;

use super::clean;
use super::paint::{Colour, Paint};

/// Between two columns.
const GAP: usize = 2;

/// What stands in one place of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    colour: Option<Colour>,
}

impl Cell {
    /// With a colour of ours, on a terminal.
    pub(super) fn coloured(text: &str, colour: Option<Colour>) -> Self {
        Self { colour, ..Self::from(text) }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self { text: clean::line(text), colour: None }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

/// A table that is written as its rows come: a column is as wide as what it had so far.
pub(super) struct Table {
    headers: Vec<&'static str>,
    widths: Vec<usize>,
    has_begun: bool,
    paint: Paint,
}

impl Table {
    pub(super) fn new(headers: Vec<&'static str>, paint: Paint) -> Self {
        let widths = headers.iter().map(|header| header.width()).collect();
        Self { headers, widths, has_begun: false, paint }
    }

    /// The next rows, below the headers if they are the first.
    pub(super) fn rows(&mut self, rows: &[Vec<Cell>]) -> String {
        for row in rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.width());
            }
        }
        let mut text = String::new();
        if !self.has_begun && !rows.is_empty() {
            self.has_begun = true;
            let headers: Vec<Cell> = self.headers.iter().map(|header| Cell::from(*header)).collect();
            self.row(&headers, &mut text);
        }
        for row in rows {
            self.row(row, &mut text);
        }
        text
    }

    fn row(&self, row: &[Cell], text: &mut String) {
        let last = row.len().saturating_sub(1);
        for (number, (cell, width)) in row.iter().zip(&self.widths).enumerate() {
            text.push_str(&self.paint.text(&cell.text, cell.colour));
            if number < last {
                let missing = (width + GAP).saturating_sub(cell.text.width());
                text.extend(std::iter::repeat_n(' ', missing));
            }
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(row: &[&str]) -> Vec<Cell> {
        row.iter().map(|text| Cell::from(*text)).collect()
    }

    #[test]
    fn columns_are_as_wide_as_what_is_seen_of_them() {
        let mut table = Table::new(vec!["NAME", "WHY", "AGE"], Paint::default());
        assert_eq!(table.rows(&[]), "");
        let first = table.rows(&[cells(&["漢字", "a", "1s"]), cells(&["long-name", "", ""])]);
        assert_eq!(first, "NAME       WHY  AGE\n漢字       a    1s\nlong-name\n");
        assert_eq!(table.rows(&[cells(&["x", "wider", "2s"])]), "x          wider  2s\n");
    }

    #[test]
    fn a_cell_is_one_line_without_escapes_and_its_colour_has_no_width() {
        let mut table = Table::new(vec!["A", "B"], Paint::always());
        let row = vec![Cell::coloured("x\u{1b}[2J\ny", Some(Colour::Red)), Cell::from("b")];
        assert_eq!(table.rows(&[row]), "A    B\n\u{1b}[31mx y\u{1b}[0m  b\n");
    }
}
