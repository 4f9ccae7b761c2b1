/// The candidate that `word` is most likely a misspelling of.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    // One letter in three may be wrong, so that short words are not taken for one another;
    // neighbours that have changed places count once.
    let tolerated = (word.len() / 3).clamp(1, 3);
    if word.len() > LONGEST {
        return None;
    }
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| {
            (
                strsim::osa_distance(&word, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, _)| *distance <= tolerated)
        .min()
        .map(|(_, candidate)| candidate)
}

/// No key and no name is longer, and comparing costs the product of the lengths.
const LONGEST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_word_is_suggested_and_a_far_one_is_not() {
        let names = ["web", "database", "mail"];
        assert_eq!(nearest("wbe", names), Some("web"));
        assert_eq!(nearest("Databse", names), Some("database"));
        assert_eq!(nearest("xyz", names), None);
        assert_eq!(nearest(&"w".repeat(65), names), None);
    }
}
