use std::{fmt, io};

use super::{Config, source::Place};

/// Why a file is no configuration. Its text is for the operator, as it stands.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {file}: {cause}")]
    Read { file: String, cause: io::Error },
    #[error("{file} is larger than {} MiB: that is no configuration", Config::MAX_BYTES >> 20)]
    TooLarge { file: String },
    #[error("{}", Listing { mistakes, more: *more })]
    Invalid {
        /// The first ones, in the order of the file.
        mistakes: Vec<Mistake>,
        /// How many there are beside them.
        more: usize,
    },
}

/// One mistake in a file: where, what, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    pub place: Place,
    pub message: String,
    /// What it collides with.
    pub other: Option<Place>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}\n{}",
            self.place,
            self.message,
            self.place.excerpt()
        )?;
        if let Some(other) = &self.other {
            write!(f, "\n{other}: it collides with this\n{}", other.excerpt())?;
        }
        Ok(())
    }
}

struct Listing<'a> {
    mistakes: &'a [Mistake],
    more: usize,
}

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{mistake}")?;
        }
        match self.more {
            0 => Ok(()),
            1 => write!(f, "\nand 1 more mistake"),
            more => write!(f, "\nand {more} more mistakes"),
        }
    }
}
