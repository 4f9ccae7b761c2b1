use std::fmt;

use comfy_table::{CellAlignment, ContentArrangement, Table as Grid, presets::NOTHING};

/// Columns of text without lines or colours, as `lbctl` prints them.
pub(super) struct Table {
    grid: Grid,
}

impl Table {
    /// Columns whose heading begins with `>` are aligned to the right.
    pub(super) fn new(headings: &[&str]) -> Self {
        let mut grid = Grid::new();
        grid.load_preset(NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(headings.iter().map(|h| h.trim_start_matches('>')));
        for (column, heading) in grid.column_iter_mut().zip(headings) {
            column.set_padding((0, 2));
            if heading.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self { grid }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.grid.add_row(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.grid.lines() {
            writeln!(f, "  {}", line.trim_end())?;
        }
        Ok(())
    }
}

/// 1234567 as `1 234 567`, as the project's texts write numbers.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_stand_in_groups_of_three() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1 000"),
            (65_537, "65 537"),
            (1_234_567, "1 234 567"),
        ] {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn columns_are_aligned_and_nothing_trails() {
        let mut table = Table::new(&["NAME", ">COUNT"]);
        table.row(["a".to_owned(), "1".to_owned()]);
        table.row(["longer".to_owned(), "12345".to_owned()]);
        assert_eq!(
            table.to_string(),
            "  NAME    COUNT\n  a           1\n  longer  12345\n"
        );
    }
}
