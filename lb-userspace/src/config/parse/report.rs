use super::{
    super::{
        ConfigError, Mistake,
        source::{Source, Span},
    },
    values::cut,
};

/// The mistakes found so far.
#[derive(Default)]
pub(super) struct Report {
    found: Vec<Finding>,
}

struct Finding {
    span: Span,
    message: String,
    other: Option<Span>,
}

impl Report {
    /// Mistakes that are shown; the rest are counted.
    const SHOWN: usize = 20;
    /// Characters of a message; only one that quotes a hostile value is longer.
    const LENGTH: usize = 500;

    pub(super) fn error(&mut self, span: Span, message: impl Into<String>) {
        self.found.push(Finding {
            span,
            message: message.into(),
            other: None,
        });
    }

    /// A mistake that two places make together.
    pub(super) fn collision(
        &mut self,
        span: Span,
        message: impl Into<String>,
        other: Option<Span>,
    ) {
        self.found.push(Finding {
            span,
            message: message.into(),
            other,
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// In the order of the file.
    pub(super) fn into_error(mut self, source: &Source<'_>) -> ConfigError {
        self.found.sort_by_key(|finding| finding.span.start);
        ConfigError::Invalid {
            more: self.found.len().saturating_sub(Self::SHOWN),
            mistakes: self
                .found
                .into_iter()
                .take(Self::SHOWN)
                .map(|finding| Mistake {
                    place: source.place(&finding.span),
                    message: cut(&finding.message, Self::LENGTH),
                    other: finding.other.map(|span| source.place(&span)),
                })
                .collect(),
        }
    }
}
