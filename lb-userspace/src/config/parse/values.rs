//! What a single value may be, and what is said of one that may not.

use std::{
    fmt::Display,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    str::FromStr,
    time::Duration,
};

use toml::de::DeValue;

use crate::model::{DurationError, format_duration, nearest, parse_duration};

/// What is wrong with a value and how to mend it, for the operator.
pub(super) type Fault = String;

/// A text in quotes.
pub(super) fn text(value: &DeValue<'_>) -> Result<String, Fault> {
    value
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| expected("text in quotes", value))
}

/// A text that a type reads.
pub(super) fn parsed<T>(value: &DeValue<'_>) -> Result<T, Fault>
where
    T: FromStr,
    T::Err: Display,
{
    text(value)?
        .parse()
        .map_err(|error: T::Err| error.to_string())
}

/// A whole number within bounds.
pub(super) fn number<T>(range: RangeInclusive<T>) -> impl FnOnce(&DeValue<'_>) -> Result<T, Fault>
where
    T: Copy + Display + TryFrom<i128> + PartialOrd,
{
    move |value| {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        let integer = value.as_integer().ok_or_else(|| {
            let quoted = value.as_str().is_some_and(|s| s.parse::<i128>().is_ok());
            let mend = if quoted { ": take the quotes away" } else { "" };
            expected(&wanted, value) + mend
        })?;
        i128::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .and_then(|number| T::try_from(number).ok())
            .filter(|number| range.contains(number))
            .ok_or_else(|| expected(&wanted, value))
    }
}

/// A duration with its unit, within bounds.
pub(super) fn duration(
    range: RangeInclusive<Duration>,
) -> impl FnOnce(&DeValue<'_>) -> Result<Duration, Fault> {
    move |value| {
        if let Some(integer) = value.as_integer() {
            return Err(DurationError::NoUnit(shorten(integer.as_str())).to_string());
        }
        let wanted = format!(
            "a duration from {} to {}",
            format_duration(*range.start()),
            format_duration(*range.end())
        );
        let text = value
            .as_str()
            .ok_or_else(|| expected(&format!("{wanted}, in quotes"), value))?;
        let duration = parse_duration(text).map_err(|error| error.to_string())?;
        if range.contains(&duration) {
            Ok(duration)
        } else {
            Err(expected(&wanted, value))
        }
    }
}

/// A duration in whole seconds, within bounds: the packet path counts no finer ones.
pub(super) fn seconds(
    range: RangeInclusive<Duration>,
) -> impl FnOnce(&DeValue<'_>) -> Result<Duration, Fault> {
    move |value| {
        let exact = duration(range)(value)?;
        if exact.subsec_nanos() == 0 {
            Ok(exact)
        } else {
            Err(expected("whole seconds", value))
        }
    }
}

/// One of a few words; `later` are those of later versions.
pub(super) fn choice<T: Copy>(
    words: &[(&'static str, T)],
    later: &[&str],
) -> impl FnOnce(&DeValue<'_>) -> Result<T, Fault> {
    move |value| {
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
        let wanted = match &quoted[..] {
            [only] => only.clone(),
            several => format!("one of {}", several.join(", ")),
        };
        let word = value.as_str().ok_or_else(|| expected(&wanted, value))?;
        if let Some((_, choice)) = words.iter().find(|(name, _)| *name == word) {
            return Ok(*choice);
        }
        if later.contains(&word) {
            return Err(format!(
                "this version has no {word:?} yet: it has {}",
                quoted.join(", ")
            ));
        }
        Err(match nearest(word, names.iter().copied()) {
            Some(near) => format!("{:?} is unknown: did you mean {near:?}?", shorten(word)),
            None => expected(&wanted, value),
        })
    }
}

/// An IP address and a port.
pub(super) fn address(value: &DeValue<'_>) -> Result<SocketAddr, Fault> {
    const EXAMPLES: &str = "\"192.0.2.10:80\" or \"[2001:db8::10]:80\"";
    let text = value.as_str().ok_or_else(|| {
        expected(
            &format!("an IP address and a port, as in {EXAMPLES}"),
            value,
        )
    })?;
    text.parse().map_err(|_| {
        let shown = shorten(text);
        let unbracketed = text.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = unbracketed.parse::<IpAddr>() {
            let example = SocketAddr::new(ip, 80);
            format!("{shown:?} has no port: add one, as in \"{example}\"")
        } else if let Some((ip, port)) = text.rsplit_once(':')
            && ip.parse::<Ipv6Addr>().is_ok()
        {
            format!("{shown:?}: an IPv6 address with a port has brackets: \"[{ip}]:{port}\"")
        } else {
            format!(
                "{shown:?} is not an IP address and a port, as in {EXAMPLES}; host names are not looked up"
            )
        }
    })
}

/// What was wanted and what is there.
pub(super) fn expected(wanted: &str, value: &DeValue<'_>) -> Fault {
    format!("expected {wanted}, found {}", found(value))
}

/// A value in an error.
pub(super) fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{:?}", shorten(text)),
        DeValue::Integer(number) => shorten(&number.to_string()),
        DeValue::Float(number) => shorten(number.as_str()),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(date) => date.to_string(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a single section".to_owned(),
    }
}

/// A text that the file's author chose, cut to a length that fits an error.
pub(super) fn shorten(text: &str) -> String {
    cut(text, 60)
}

/// At most `limit` characters, and an ellipsis where some are missing.
pub(super) fn cut(text: &str, limit: usize) -> String {
    let mut chars = text.chars();
    let mut shown: String = chars.by_ref().take(limit).collect();
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}
