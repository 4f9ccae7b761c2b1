use std::{borrow::Borrow, fmt, net::SocketAddr, str::FromStr};

use serde::{Deserialize, Serialize};

/// Name of a service or a backend: 1 to 63 characters of `A-Z a-z 0-9 . _ : -`, not beginning with `-`.
///
/// The characters are those that need no quoting in a shell, a URL path segment, TOML or a
/// Prometheus label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text is not a [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a name cannot be empty")]
    Empty,
    #[error("a name has at most 63 characters, this one has {0}")]
    TooLong(usize),
    #[error("a name is made of letters, digits, '.', '_', ':' and '-', not {0:?}")]
    Character(char),
    #[error("a name cannot begin with '-'")]
    LeadingHyphen,
}

impl Name {
    const MAX: usize = 63;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if let Some(bad) = text
            .chars()
            .find(|c| !(c.is_ascii_alphanumeric() || ['.', '_', ':', '-'].contains(c)))
        {
            return Err(NameError::Character(bad));
        }
        if text.len() > Self::MAX {
            return Err(NameError::TooLong(text.len()));
        }
        if text.starts_with('-') {
            return Err(NameError::LeadingHyphen);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

/// The name of a backend that was given none: `10.0.0.1:80`, and `2001:db8::1:80` without brackets.
/// Two addresses never share a name.
impl From<SocketAddr> for Name {
    fn from(address: SocketAddr) -> Self {
        Self(format!("{}:{}", address.ip(), address.port()))
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shell_and_url_safe() {
        for good in ["web", "web-1", "10.0.0.1:80", "a_b.c", "X"] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        assert_eq!("".parse::<Name>(), Err(NameError::Empty));
        assert_eq!("a b".parse::<Name>(), Err(NameError::Character(' ')));
        assert_eq!("a/b".parse::<Name>(), Err(NameError::Character('/')));
        assert_eq!("-a".parse::<Name>(), Err(NameError::LeadingHyphen));
        assert_eq!("a".repeat(64).parse::<Name>(), Err(NameError::TooLong(64)));
    }
    #[test]
    fn an_address_makes_a_name() {
        for (address, name) in [
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("[2001:db8::1]:80", "2001:db8::1:80"),
            ("[::]:65535", ":::65535"),
            ("[fe80::1%3]:80", "fe80::1:80"),
        ] {
            let made = Name::from(address.parse::<SocketAddr>().unwrap());
            assert_eq!(made, name.parse().unwrap());
        }
    }
}
