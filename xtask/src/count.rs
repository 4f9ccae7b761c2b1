//! Counting tests from what cargo prints.

use std::fmt;

/// Tests that ran, and tests that did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Count {
    /// From `test result: ok. 27 passed; 0 failed; 1 ignored; …`.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let number = |what: &str| {
            counts
                .split("; ")
                .find_map(|part| part.strip_suffix(what)?.trim().parse().ok())
        };
        Some(Self {
            passed: number("passed")?,
            failed: number("failed")?,
            skipped: number("ignored")?,
        })
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_and_added() {
        let line = "test result: FAILED. 27 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.03s";
        let mut count = Count::parse(line).unwrap();
        assert_eq!(
            count,
            Count {
                passed: 27,
                failed: 2,
                skipped: 1
            }
        );
        count.add(Count {
            passed: 1,
            ..Count::default()
        });
        assert_eq!(count.to_string(), "28 passed, 2 failed, 1 skipped");
    }

    #[test]
    fn other_lines_are_no_results() {
        for line in [
            "running 27 tests",
            "test result: ok",
            "test result: ok. many passed; 0 failed; 0 ignored",
            "",
        ] {
            assert_eq!(Count::parse(line), None, "{line}");
        }
        assert_eq!(Count::default().to_string(), "0 passed, 0 failed");
    }
}
