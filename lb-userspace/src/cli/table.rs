use std::fmt;

use comfy_table::{CellAlignment, ContentArrangement, Table as Grid, presets::NOTHING};

/// Columns of text without lines or colours, as `ip` and `kubectl` print them.
pub(super) struct Table {
    grid: Grid,
}

impl Table {
    /// Columns whose heading begins with `>` are aligned to the right.
    pub(super) fn new(headings: &[&str]) -> Self {
        let mut grid = Grid::new();
        grid.load_preset(NOTHING)
            // The width of a terminal must not change what `grep` and `awk` see.
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

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        // A cell is one line, whatever a probe's answer or an interface's note may hold.
        let cells = cells
            .into_iter()
            .map(|cell| cell.replace(char::is_control, " "));
        self.grid.add_row(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.grid.lines() {
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_nothing_trails() {
        let mut table = Table::new(&["NAME", ">COUNT", "NOTE"]);
        table.row(["a".into(), "1".into(), "two\nlines".into()]);
        table.row(["longer".into(), "12345".into(), String::new()]);
        assert_eq!(
            table.to_string(),
            "NAME    COUNT  NOTE\n\
             a           1  two lines\n\
             longer  12345\n"
        );
    }
}
