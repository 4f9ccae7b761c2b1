//! Texts that mean harm, or nothing.

use proptest::prelude::*;

use super::WEB;
use crate::config::Config;

#[test]
fn hostile_texts_are_refused_in_few_words() {
    let megabyte = 1 << 20;
    for text in [
        "[".repeat(megabyte),
        "a=".to_owned() + &"[".repeat(megabyte),
        "a=".to_owned() + &"{a=".repeat(megabyte / 3),
        "a.".repeat(megabyte / 2) + "a=1",
        "\0".repeat(megabyte),
        "a\n".repeat(megabyte / 2),
        "a=1\n".repeat(megabyte / 4),
        "[[service]]\n".repeat(megabyte / 12),
        "x".repeat(megabyte) + "=1",
        format!("[[service]]\nname='{}'", "x".repeat(megabyte)),
        format!("[[service]]\ntimeouts.reset='{}'", "1s".repeat(megabyte)),
        format!("[[service]]\nlisten='{}'", ":".repeat(megabyte)),
        format!(
            "{WEB}{}",
            "[[service.backend]]\naddress='10.0.0.1:80'\n".repeat(20_000)
        ),
    ] {
        let error = Config::parse(&text, "lb.toml").unwrap_err().to_string();
        assert!(error.starts_with("lb.toml:"), "{error}");
        assert!(error.len() < 40_000, "{}", error.len());
    }
}

#[test]
fn a_truncated_file_is_parsed_or_refused() {
    let example = include_str!("../../../../lb.example.toml");
    let mut refused = 0;
    for (end, _) in example.char_indices() {
        refused += usize::from(Config::parse(&example[..end], "lb.toml").is_err());
    }
    assert!(refused > 100, "{refused}");
}

proptest! {
    /// Text that looks like a configuration here and there.
    #[test]
    fn no_text_makes_it_panic(
        parts in prop::collection::vec(
            prop_oneof![
                "\\PC{0,8}",
                any::<String>(),
                prop::sample::select(vec![
                    "[[service]]\n", "name", "listen", "=", "\"", "'", "\n", "[", "]", "{", "}",
                    "[service.check]\n", "[[service.backend]]\n", "address = '10.0.0.1:80'\n",
                    "weight=", "-1", "1e999", "9999999999999999999", "\u{1b}[2J", "\\u0000",
                    "interval = \"1s\"\n", "[conntrack]\n", "[daemon]\nsocket = ", "0x", "1979-05-27",
                ]).prop_map(str::to_owned),
            ],
            0..30,
        )
    ) {
        let text = parts.concat();
        if let Err(error) = Config::parse(&text, "lb.toml") {
            let error = error.to_string();
            prop_assert!(error.starts_with("lb.toml:"));
            prop_assert!(!error.contains(|c: char| c.is_control() && c != '\n'), "{:?}", error);
        }
    }
}
