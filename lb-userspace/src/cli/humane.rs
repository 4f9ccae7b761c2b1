//! Numbers and texts as people read them.

/// Without control characters but line feeds: what comes from a backend or a file must not steer
/// the terminal.
pub(super) fn printable(text: &str) -> String {
    text.replace(|c: char| c.is_control() && c != '\n', " ")
}

/// Exact to six digits, then with three: `999999`, `1.23M`.
pub(super) fn count(number: u64) -> String {
    const EXACT: u64 = 1_000_000;
    if number < EXACT {
        return number.to_string();
    }
    scaled(number, 1_000, "", &["k", "M", "G", "T", "P", "E"])
}

/// With three digits and a binary unit: `512 B`, `1.50 KiB`.
pub(super) fn bytes(number: u64) -> String {
    if number < 1024 {
        return format!("{number} B");
    }
    scaled(
        number,
        1024,
        " ",
        &["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"],
    )
}

fn scaled(number: u64, base: u32, space: &str, units: &[&str]) -> String {
    // Three digits are shown, which a float holds exactly enough.
    let (base, mut value) = (f64::from(base), number as f64);
    let mut unit = "";
    for next in units {
        // What would be rounded up to a full unit is shown in the next one.
        if value < base - 0.5 && !unit.is_empty() {
            break;
        }
        value /= base;
        unit = next;
    }
    let decimals = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}{space}{unit}")
}

/// The two largest units: `45s`, `2m05s`, `3h12m`, `4d07h`.
pub(super) fn seconds(number: u64) -> String {
    let (minutes, hours, days) = (number / 60, number / 3_600, number / 86_400);
    if days > 0 {
        format!("{days}d{:02}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h{:02}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m{:02}s", number % 60)
    } else {
        format!("{number}s")
    }
}

/// How long ago that is: tenths of seconds matter in the first minute.
pub(super) fn ago(age_s: f64) -> String {
    if age_s < 60.0 {
        format!("{age_s:.1}s ago")
    } else {
        format!("{} ago", seconds(age_s as u64))
    }
}

/// `part` of `whole` in percent; nothing of nothing is 0 %.
pub(super) fn percent(part: u64, whole: u64) -> String {
    format!("{:.1}%", part as f64 * 100.0 / whole.max(1) as f64)
}

/// `1 backend`, `2 backends`.
pub(super) fn plural(number: u64, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {noun}{ending}", count(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(printable("a\n\x1b[2Jb\r\u{9b}c\n"), "a\n [2Jb  c\n");
    }

    #[test]
    fn counts() {
        for (number, text) in [
            (0, "0"),
            (999_999, "999999"),
            (1_000_000, "1.00M"),
            (1_234_567, "1.23M"),
            (12_345_678, "12.3M"),
            (999_499_999, "999M"),
            (999_999_999, "1.00G"),
            (u64::MAX, "18.4E"),
        ] {
            assert_eq!(count(number), text, "{number}");
        }
    }

    #[test]
    fn sizes() {
        for (number, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1536, "1.50 KiB"),
            (1_048_575, "1.00 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(number), text, "{number}");
        }
    }

    #[test]
    fn spans() {
        for (number, text) in [
            (0, "0s"),
            (59, "59s"),
            (125, "2m05s"),
            (3_600, "1h00m"),
            (86_399, "23h59m"),
            (4 * 86_400 + 7 * 3_600, "4d07h"),
        ] {
            assert_eq!(seconds(number), text, "{number}");
        }
    }

    #[test]
    fn ages() {
        for (number, text) in [
            (0.0, "0.0s ago"),
            (3.21, "3.2s ago"),
            (59.94, "59.9s ago"),
            (60.0, "1m00s ago"),
            (7_260.9, "2h01m ago"),
        ] {
            assert_eq!(ago(number), text, "{number}");
        }
    }

    #[test]
    fn shares_and_plurals() {
        assert_eq!(percent(0, 0), "0.0%");
        assert_eq!(percent(1, 3), "33.3%");
        assert_eq!(plural(1, "backend"), "1 backend");
        assert_eq!(plural(0, "backend"), "0 backends");
    }
}
