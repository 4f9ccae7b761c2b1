use std::time::Duration;

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("a duration needs a unit: write \"{0}s\" or \"{0}ms\"")]
    NoUnit(String),
    #[error(
        "{0:?} is not a duration: write a number and a unit (ms, s, m, h, d), as in \"500ms\" or \"1h30m\""
    )]
    Malformed(String),
    #[error("{0:?} is longer than this program can count")]
    TooLong(String),
}

/// Parses `500ms`, `2s`, `5m`, `1h30m`, `2d`: one or more whole numbers, each with its unit.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let malformed = || DurationError::Malformed(text.to_owned());
    if text.is_empty() {
        return Err(malformed());
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.len()
            - tail
                .trim_start_matches(|c: char| c.is_ascii_alphabetic())
                .len();
        let (unit, tail) = tail.split_at(letters);
        if number.is_empty() {
            return Err(malformed());
        }
        let too_long = || DurationError::TooLong(text.to_owned());
        let count: u64 = number.parse().map_err(|_| too_long())?;
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "" if digits == text.len() => return Err(DurationError::NoUnit(text.to_owned())),
            _ => return Err(malformed()),
        };
        let part = count.checked_mul(milliseconds).ok_or_else(too_long)?;
        total = total
            .checked_add(Duration::from_millis(part))
            .ok_or_else(too_long)?;
        rest = tail;
    }
    Ok(total)
}

/// The shortest text that [`parse_duration`] reads back as the same duration, to the millisecond.
pub fn format_duration(duration: Duration) -> String {
    let mut rest = duration.as_millis();
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, size) in [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ] {
        let count = rest / size;
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
            rest %= size;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in ["500ms", "2s", "5m", "1h30m", "2d", "2h4m", "1s500ms"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
        assert_eq!(parse_duration("0s"), Ok(Duration::ZERO));
    }

    #[test]
    fn says_what_is_missing() {
        assert_eq!(parse_duration("5"), Err(DurationError::NoUnit("5".into())));
        for bad in ["", "s", "5 s", "-1s", "1.5s", "5x", "1h30"] {
            assert!(
                matches!(parse_duration(bad), Err(DurationError::Malformed(_))),
                "{bad}"
            );
        }
        assert!(matches!(
            parse_duration("99999999999999999999s"),
            Err(DurationError::TooLong(_))
        ));
    }
}
