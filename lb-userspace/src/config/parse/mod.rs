//! Text → [`Config`]. A section of the file is a file here; [`shape`] lists the keys of each.

mod conflicts;
mod forwarding;
mod report;
mod section;
mod service;
mod settings;
mod shape;
mod syntax;
mod values;

#[cfg(test)]
mod tests;

use std::string::FromUtf8Error;

use toml::de::DeTable;

use self::{report::Report, section::Section};
use super::{Config, ConfigError, source::Source};
use crate::model::Desired;

pub(super) fn parse(text: &str, file: &str) -> Result<Config, ConfigError> {
    let source = Source::new(file, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut report = Report::default();
    if !errors.is_empty() {
        // What the parser guessed after a syntax error is not worth a second opinion.
        syntax::report(&errors, &source, &mut report);
        return Err(report.into_error(&source));
    }
    let root = Section::open(
        document.get_ref(),
        document.span(),
        &shape::ROOT,
        &mut report,
    );
    let config = config(root);
    if report.is_empty() {
        Ok(config)
    } else {
        Err(report.into_error(&source))
    }
}

/// The error for a file that is not UTF-8, at its first byte that is none.
pub(super) fn not_utf8(error: &FromUtf8Error, file: &str) -> ConfigError {
    let valid = error.utf8_error().valid_up_to();
    let text = String::from_utf8_lossy(error.as_bytes());
    let mut report = Report::default();
    report.error(valid..valid, "the file is not UTF-8: save it as UTF-8");
    report.into_error(&Source::new(file, &text))
}

/// What the file says; defaults stand in for what was reported.
fn config(mut root: Section<'_, '_>) -> Config {
    let daemon = root
        .table("daemon", &shape::DAEMON)
        .map(settings::daemon)
        .unwrap_or_default();
    let interfaces = settings::interfaces(&mut root);
    let conntrack = root
        .table("conntrack", &shape::CONNTRACK)
        .map(settings::conntrack)
        .unwrap_or_default();
    let icmp = root
        .table("icmp", &shape::ICMP)
        .map(settings::icmp)
        .unwrap_or_default();
    let (services, places) = root
        .tables("service", &shape::SERVICE, service::service)
        .into_iter()
        .flatten()
        .unzip();
    let desired = Desired { services };
    conflicts::report(&desired, places, root.report());
    Config {
        daemon,
        interfaces,
        conntrack,
        icmp,
        desired,
    }
}
