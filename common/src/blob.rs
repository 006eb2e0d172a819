//! Bytes on the wire: base64url without padding, bounded, one encoding per value.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// At most `MAX` bytes, in JSON a string of base64url without padding (RFC 4648, 5). Another spelling of the same
/// bytes (padding, trailing bits, the other alphabet) is refused.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Blob<const MAX: usize>(Vec<u8>);

impl<const MAX: usize> Blob<MAX> {
    /// The bytes, unless there are more than `MAX`.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        if bytes.len() <= MAX { Some(Self(bytes)) } else { None }
    }

    /// As many bytes as fit, known when compiling.
    #[must_use]
    pub fn from_array(bytes: [u8; MAX]) -> Self {
        Self(bytes.to_vec())
    }

    /// No bytes.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Vec::new())
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, by value.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl<const MAX: usize> fmt::Debug for Blob<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}

impl<const MAX: usize> Serialize for Blob<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Blob<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text<const MAX: usize>;
        impl<const MAX: usize> de::Visitor<'_> for Text<MAX> {
            type Value = Blob<MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "base64url of at most {MAX} bytes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Blob<MAX>, E> {
                if text.len() > BASE64URL_NOPAD.encode_len(MAX) {
                    return Err(E::custom(format_args!("over the limit of {MAX} bytes")));
                }
                let bytes = BASE64URL_NOPAD
                    .decode(text.as_bytes())
                    .map_err(|_| E::custom("not base64url without padding"))?;
                Blob::new(bytes).ok_or_else(|| E::custom(format_args!("over the limit of {MAX} bytes")))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_one_spelling() {
        let blob: Blob<4> = serde_json::from_str("\"_-8\"").unwrap();
        assert_eq!(blob.as_bytes(), [0xff, 0xef]);
        assert_eq!(serde_json::to_string(&blob).unwrap(), "\"_-8\"");
        for bad in ["\"_-8=\"", "\"_-9\"", "\"/+8\"", "\"_-8 \"", "\"AAAAAAA\"", "7"] {
            assert!(serde_json::from_str::<Blob<4>>(bad).is_err(), "{bad}");
        }
    }
}
