//! Mistakes in the TOML itself.

use std::collections::HashSet;

use toml::de::Error;

use super::{
    super::source::{Source, Span},
    report::Report,
    values::shorten,
};

/// Reports the first error of each line: the parser goes on after an error, and most of what it
/// says of the same line follows from the first.
pub(super) fn report(errors: &[Error], source: &Source<'_>, report: &mut Report) {
    let mut lines = HashSet::new();
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        if lines.insert(source.line(span.start)) {
            let (span, message) = explain(error.message(), span, source);
            report.error(span, message);
        }
    }
}

/// The parser's message, with the mend where it leaves that open.
fn explain(message: &str, span: Span, source: &Source<'_>) -> (Span, String) {
    let (what, _) = message.split_once(", expected").unwrap_or((message, ""));
    match what {
        "string values must be quoted" | "invalid float" | "invalid integer" => {
            let value = value_around(&span, source);
            match shorten(source.text(&value)) {
                nothing if nothing.is_empty() => (span, "the value is missing".to_owned()),
                text => (value, format!("text stands in quotes: write {text:?}")),
            }
        }
        "duplicate key" => {
            let key = shorten(source.text(&span));
            let message = format!(
                "{key:?} stands here for the second time: remove one of the two (a section that may repeat is written [[…]], every time)"
            );
            (span, message)
        }
        "unexpected leading zero" => (span, "a number does not begin with 0".to_owned()),
        "recursion limit" => (span, "nested too deeply".to_owned()),
        _ => {
            let stripped = message.strip_suffix(", expected nothing");
            (span, stripped.unwrap_or(message).to_owned())
        }
    }
}

/// All of an unquoted value that the parser took offence at part of: `10.0.0.1:80`, not `.0.1:80`.
fn value_around(span: &Span, source: &Source<'_>) -> Span {
    let line = source.line_span(span.start);
    let ends = |c: char| c.is_whitespace() || "=,[]{}#\"'".contains(c);
    let before = source.text(&(line.start..span.start));
    let after = source.text(&(span.start..line.end));
    let start = before.rfind(ends).map_or(0, |at| at + 1);
    let end = after.find(ends).unwrap_or(after.len());
    line.start + start..span.start + end
}
