use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    super::source::Span,
    report::Report,
    shape::Shape,
    values::{Fault, found},
};

/// A table of the file while it is read. Every mistake goes into the report, and reading goes on.
pub(super) struct Section<'a, 'r> {
    table: &'a DeTable<'a>,
    /// Of its header, or of the braces of an inline table.
    span: Span,
    shape: &'static Shape,
    report: &'r mut Report,
}

impl<'a, 'r> Section<'a, 'r> {
    /// Reports the keys that the shape does not have.
    pub(super) fn open(
        table: &'a DeTable<'a>,
        span: Span,
        shape: &'static Shape,
        report: &'r mut Report,
    ) -> Self {
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if !shape.keys.contains(&name) {
                report.error(key.span(), shape.unknown(name));
            }
        }
        Self {
            table,
            span,
            shape,
            report,
        }
    }

    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Where the value of a key stands.
    pub(super) fn span_of(&self, key: &str) -> Option<Span> {
        let (_, value) = self.table.get_key_value(key)?;
        Some(value.span())
    }

    pub(super) fn report(&mut self) -> &mut Report {
        self.report
    }

    /// The key's value, if the key is there and the value is right.
    pub(super) fn value<T>(
        &mut self,
        key: &'static str,
        convert: impl FnOnce(&DeValue<'_>) -> Result<T, Fault>,
    ) -> Option<Spanned<T>> {
        debug_assert!(self.shape.keys.contains(&key), "{key} is not in the shape");
        let (_, value) = self.table.get_key_value(key)?;
        match convert(value.get_ref()) {
            Ok(converted) => Some(Spanned::new(value.span(), converted)),
            Err(fault) => {
                self.report.error(value.span(), format!("{key}: {fault}"));
                None
            }
        }
    }

    /// The same without its place.
    pub(super) fn plain<T>(
        &mut self,
        key: &'static str,
        convert: impl FnOnce(&DeValue<'_>) -> Result<T, Fault>,
    ) -> Option<T> {
        self.value(key, convert).map(Spanned::into_inner)
    }

    /// What `convert` makes of each element of a list that is not empty; one that stands alone
    /// needs no brackets. Elements that are wrong are reported, and left out.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        convert: impl Fn(&DeValue<'_>) -> Result<T, Fault>,
    ) -> Vec<Spanned<T>> {
        debug_assert!(self.shape.keys.contains(&key), "{key} is not in the shape");
        let Some((_, value)) = self.table.get_key_value(key) else {
            return Vec::new();
        };
        let elements: &[Spanned<DeValue<'a>>] = match value.get_ref() {
            DeValue::Array(elements) => elements,
            _ => std::slice::from_ref(value),
        };
        if elements.is_empty() {
            let message = format!("{key}: the list is empty: take the line out, or fill it");
            self.report.error(value.span(), message);
        }
        let mut converted = Vec::new();
        for element in elements {
            match convert(element.get_ref()) {
                Ok(value) => converted.push(Spanned::new(element.span(), value)),
                Err(fault) => self.report.error(element.span(), format!("{key}: {fault}")),
            }
        }
        converted
    }

    /// As [`Self::value`]; a missing key is a mistake.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        convert: impl FnOnce(&DeValue<'_>) -> Result<T, Fault>,
    ) -> Option<Spanned<T>> {
        if !self.has(key) {
            let message = format!("{} has no {key}: add {key} = {example}", self.shape.title);
            self.report.error(self.span(), message);
        }
        self.value(key, convert)
    }

    /// The subsection of that key.
    pub(super) fn table(
        &mut self,
        key: &'static str,
        shape: &'static Shape,
    ) -> Option<Section<'a, '_>> {
        debug_assert!(self.shape.keys.contains(&key), "{key} is not in the shape");
        let (_, value) = self.table.get_key_value(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(Section::open(table, value.span(), shape, self.report)),
            other => {
                let message = format!(
                    "{key} is a section of its own, once: write {}, not {}",
                    shape.title,
                    found(other)
                );
                self.report.error(value.span(), message);
                None
            }
        }
    }

    /// What `read` makes of each subsection of that key.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        shape: &'static Shape,
        mut read: impl FnMut(Section<'a, '_>) -> T,
    ) -> Vec<T> {
        debug_assert!(self.shape.keys.contains(&key), "{key} is not in the shape");
        let Some((_, value)) = self.table.get_key_value(key) else {
            return Vec::new();
        };
        let elements: &[Spanned<DeValue<'a>>] = match value.get_ref() {
            DeValue::Array(elements) => elements,
            _ => std::slice::from_ref(value),
        };
        let is_array = value.get_ref().is_array();
        let mut results = Vec::new();
        for element in elements {
            match element.get_ref() {
                DeValue::Table(table) if is_array => {
                    let section = Section::open(table, element.span(), shape, self.report);
                    results.push(read(section));
                }
                other => {
                    let message = format!(
                        "{key} is a section that may repeat: begin each with {}; this is {}",
                        shape.title,
                        found(other)
                    );
                    self.report.error(element.span(), message);
                }
            }
        }
        results
    }
}
