//! A word that must not be seen: it is not printed, logged or serialised, only [`Secret::reveal`]ed where it is sent.

use serde::{Deserialize, Deserializer, de};
use std::fmt;

/// A password or another credential.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The word itself, for whoever sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(word: &str) -> Self {
        Self(word.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl<'de> Deserialize<'de> for Secret {
    /// The error of what is no text does not repeat it, as serde's own would.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)
            .map(Self)
            .map_err(|_| de::Error::custom("a secret is a text in quotes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_revealed_on_purpose_only() {
        let secret = Secret::from("open sesame");

        assert_eq!(secret.reveal(), "open sesame");
        assert_eq!(format!("{:?}", Some(secret)), "Some(…)");
    }

    #[test]
    fn what_is_no_secret_is_refused_without_being_repeated() {
        let error = serde_json::from_str::<Secret>("4711").expect_err("a number");

        assert!(!error.to_string().contains("4711"), "{error}");
    }
}
