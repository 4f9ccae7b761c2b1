//! Mistakes in the TOML itself.

use toml::de::Error;

use super::{super::source::Source, report::Report};

/// Reports the first error of each line: the parser goes on after an error, and most of what it
/// says of the same line follows from the first.
pub(super) fn report(errors: &[Error], source: &Source<'_>, report: &mut Report) {
    let mut lines = std::collections::HashSet::new();
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        if lines.insert(source.line(span.start)) {
            report.error(span.clone(), explain(error.message(), source.text(&span)));
        }
    }
}

/// The parser's message, with the mend where it leaves that open.
fn explain(message: &str, text: &str) -> String {
    let what = message
        .strip_suffix(", expected nothing")
        .unwrap_or(message);
    if what.starts_with("string values must be quoted") {
        return if text.is_empty() {
            "the value is missing".to_owned()
        } else {
            format!(
                "text stands in quotes: write {:?}",
                super::values::shorten(text)
            )
        };
    }
    match what {
        "duplicate key" => format!(
            "{:?} stands here for the second time: remove one of the two (a section that may repeat is written [[…]], every time)",
            super::values::shorten(text)
        ),
        "invalid float" | "invalid integer" | "unexpected leading zero" => {
            format!("{what}: text, as an address or a duration is, stands in quotes")
        }
        "recursion limit" => "nested too deeply".to_owned(),
        what => what.to_owned(),
    }
}
