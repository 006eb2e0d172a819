//! A digest as people and files write it: with the name of its algorithm.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Digest;

/// A digest with its algorithm, written `sha256:` and lower-case hex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaggedDigest(pub Digest);

/// A text is no digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest is written `sha256:` and lower-case hex of its size; sha1, sha384 and sha512 alike")]
pub struct NotADigest;

impl FromStr for TaggedDigest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let (algorithm, hex) = text.split_once(':').ok_or(NotADigest)?;
        let algorithm = algorithm.parse().map_err(|_| NotADigest)?;
        Digest::from_hex(algorithm, hex).map(Self).ok_or(NotADigest)
    }
}

impl fmt::Display for TaggedDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0.algorithm(), self.0)
    }
}

impl Serialize for TaggedDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TaggedDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'_, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_way_to_write_a_digest() {
        for (algorithm, bytes) in [("sha1", 20), ("sha256", 32), ("sha384", 48), ("sha512", 64)] {
            let text = format!("{algorithm}:{}", "0a".repeat(bytes));
            let digest: TaggedDigest = text.parse().unwrap();
            assert_eq!((digest.to_string(), digest.0.as_bytes()), (text.clone(), &[0x0a; 64][..bytes]));
            assert_eq!(serde_json::to_value(digest).unwrap(), text.as_str());
            assert_eq!(serde_json::from_value::<TaggedDigest>(text.into()).unwrap(), digest);
        }
        let hex = "0a".repeat(32);
        for odd in [
            hex.clone(),
            format!("sha256{hex}"),
            format!("md5:{}", "0a".repeat(16)),
            format!("SHA256:{hex}"),
            format!("sha256:{}", hex.to_uppercase()),
            format!("sha256:{hex}0a"),
            format!("sha256:{}", "0a".repeat(31)),
            format!("sha256: {hex}"),
        ] {
            assert_eq!(odd.parse::<TaggedDigest>(), Err(NotADigest), "{odd}");
            assert!(serde_json::from_value::<TaggedDigest>(odd.into()).is_err());
        }
    }
}
