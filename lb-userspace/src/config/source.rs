//! Byte spans of the text → line, column and an excerpt with a caret.

use std::{fmt, ops::Range};

/// Bytes of the text.
pub(super) type Span = Range<usize>;

/// A file's name and text.
pub(super) struct Source<'a> {
    file: &'a str,
    text: &'a str,
    /// Where each line begins.
    lines: Vec<usize>,
}

impl<'a> Source<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        let after_newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            file,
            text,
            lines: std::iter::once(0).chain(after_newlines).collect(),
        }
    }

    pub(super) fn text(&self, span: &Span) -> &'a str {
        self.text.get(span.clone()).unwrap_or_default()
    }

    /// Number of the line that a byte stands in, from 0.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|&begin| begin <= offset) - 1
    }

    /// The line that a byte stands in, without its end.
    pub(super) fn line_span(&self, offset: usize) -> Span {
        let begin = self.lines[self.line(offset)];
        let text = self.text[begin..].lines().next().unwrap_or_default();
        begin..begin + text.len()
    }

    pub(super) fn place(&self, span: &Span) -> Place {
        let start = self.char_boundary(span.start);
        let line = self.line_span(start);
        // A span that runs over several lines is marked on its first.
        let end = self.char_boundary(span.end).min(line.end).max(start);
        let column = self.text[line.start..start].chars().count();
        let (excerpt, caret) = window(&self.text[line.clone()], column);
        let shown = excerpt.chars().count().saturating_sub(caret);
        Place {
            file: self.file.to_owned(),
            line: self.line(start) + 1,
            column: column + 1,
            caret_width: self.text[start..end].chars().count().min(shown).max(1),
            excerpt,
            caret,
        }
    }

    fn char_boundary(&self, offset: usize) -> usize {
        let offset = offset.min(self.text.len());
        (0..=offset)
            .rev()
            .find(|&at| self.text.is_char_boundary(at))
            .unwrap_or(0)
    }
}

/// Where in a file something stands. Displayed as `file:line:column`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The line, or of a long one the part around the column, fit for a terminal.
    excerpt: String,
    /// Characters of the excerpt before the caret.
    caret: usize,
    caret_width: usize,
}

impl Place {
    /// The line with its number, and carets below; without a newline at the end.
    pub fn excerpt(&self) -> impl fmt::Display + '_ {
        Excerpt(self)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

struct Excerpt<'a>(&'a Place);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.0;
        writeln!(f, "{:5} | {}", place.line, place.excerpt)?;
        let (indent, carets) = (place.caret, place.caret_width);
        write!(f, "      | {:indent$}{:^<carets$}", "", "")
    }
}

/// The part of a line that is shown, and the characters of it that stand before `column`.
fn window(line: &str, column: usize) -> (String, usize) {
    const WIDTH: usize = 120;
    const BEFORE: usize = 60;
    let skipped = if line.chars().nth(WIDTH).is_none() {
        0
    } else {
        column.saturating_sub(BEFORE)
    };
    let mut rest = line.chars().skip(skipped);
    let mut shown: String = rest.by_ref().take(WIDTH).map(printable).collect();
    if rest.next().is_some() {
        shown.push('…');
    }
    if skipped > 0 {
        shown.insert(0, '…');
    }
    (shown, column - skipped + usize::from(skipped > 0))
}

/// A file must not be able to move the cursor of the terminal that shows its mistakes.
fn printable(c: char) -> char {
    match c {
        '\t' => ' ',
        '"' | '\'' | '\\' => c,
        _ if c.escape_debug().count() == 1 => c,
        _ => '\u{fffd}',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, span: Span) -> String {
        let place = Source::new("f", text).place(&span);
        format!("{place}\n{}", place.excerpt())
    }

    #[test]
    fn columns_count_characters_from_one() {
        assert_eq!(
            shown("a = 1\nü = \"x\"\n", 11..14),
            "f:2:5\n    2 | ü = \"x\"\n      |     ^^^"
        );
        assert_eq!(shown("", 0..0), "f:1:1\n    1 | \n      | ^");
    }

    #[test]
    fn the_end_of_the_text_has_a_place() {
        assert_eq!(shown("a =", 3..3), "f:1:4\n    1 | a =\n      |    ^");
        assert_eq!(shown("a =\n", 4..4), "f:2:1\n    2 | \n      | ^");
        assert_eq!(shown("a =", 99..100), "f:1:4\n    1 | a =\n      |    ^");
    }

    #[test]
    fn a_span_of_several_lines_is_marked_on_its_first() {
        assert_eq!(
            shown("a = [\r\n1]", 4..9),
            "f:1:5\n    1 | a = [\n      |     ^"
        );
    }

    #[test]
    fn a_long_line_is_cut_around_the_column() {
        let text = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let expected = format!(
            "f:1:501\n    1 | …{}X{}…\n      | {}^",
            "a".repeat(60),
            "b".repeat(59),
            " ".repeat(61)
        );
        assert_eq!(shown(&text, 500..501), expected);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(
            shown("\tx = \"\u{1b}[2J\u{202e}\"", 1..2),
            "f:1:2\n    1 |  x = \"\u{fffd}[2J\u{fffd}\"\n      |  ^"
        );
    }
}
