//! The closed lists of algorithms that this system knows: hashes, curves, signature schemes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ParseError;

/// A hash algorithm of a PCR bank, a Name or a signature (Part 2, table 9, TPM_ALG_ID).
///
/// SHA-1 is here because banks and boot logs use it; signature verification refuses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HashAlgorithm {
    /// SHA-1, 20 bytes.
    Sha1,
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-384, 48 bytes.
    Sha384,
    /// SHA-512, 64 bytes.
    Sha512,
}

impl HashAlgorithm {
    /// Every member, in the order of their identifiers.
    pub const ALL: [Self; 4] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    /// The algorithm with a TPM_ALG_ID.
    pub fn from_tpm(id: u16, what: &'static str) -> Result<Self, ParseError> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.tpm_id() == id)
            .ok_or(ParseError::Unknown { what, id: u32::from(id) })
    }

    /// The TPM_ALG_ID.
    #[must_use]
    pub const fn tpm_id(self) -> u16 {
        match self {
            Self::Sha1 => 0x0004,
            Self::Sha256 => 0x000b,
            Self::Sha384 => 0x000c,
            Self::Sha512 => 0x000d,
        }
    }

    /// Bytes of a digest.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The name that tpm2-tools and this system print: `sha256`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }
}

impl fmt::Display for HashAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text names no hash algorithm that this system knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not one of sha1, sha256, sha384, sha512")]
pub struct UnknownHashAlgorithm;

impl FromStr for HashAlgorithm {
    type Err = UnknownHashAlgorithm;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == text).ok_or(UnknownHashAlgorithm)
    }
}

/// An elliptic curve (Part 2, table 10, TPM_ECC_CURVE). Smaller ones are refused as unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Curve {
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
}

impl Curve {
    /// The curve with a TPM_ECC_CURVE.
    pub fn from_tpm(id: u16) -> Result<Self, ParseError> {
        match id {
            0x0003 => Ok(Self::P256),
            0x0004 => Ok(Self::P384),
            _ => Err(ParseError::Unknown { what: "curve", id: u32::from(id) }),
        }
    }

    /// The TPM_ECC_CURVE.
    #[must_use]
    pub const fn tpm_id(self) -> u16 {
        match self {
            Self::P256 => 0x0003,
            Self::P384 => 0x0004,
        }
    }

    /// Bytes of a coordinate.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }
}

/// A signature scheme with its hash (Part 2, tables 164 to 168).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignatureScheme {
    /// RSASSA-PKCS1-v1_5.
    RsaSsa(HashAlgorithm),
    /// RSASSA-PSS.
    RsaPss(HashAlgorithm),
    /// ECDSA.
    Ecdsa(HashAlgorithm),
}

impl SignatureScheme {
    pub(super) const NULL: u16 = 0x0010;

    /// The scheme with a TPM_ALG_ID and a hash.
    pub fn from_tpm(id: u16, hash: HashAlgorithm) -> Result<Self, ParseError> {
        match id {
            0x0014 => Ok(Self::RsaSsa(hash)),
            0x0016 => Ok(Self::RsaPss(hash)),
            0x0018 => Ok(Self::Ecdsa(hash)),
            _ => Err(ParseError::Unknown { what: "signature scheme", id: u32::from(id) }),
        }
    }

    /// The TPM_ALG_ID, without the hash.
    #[must_use]
    pub const fn tpm_id(self) -> u16 {
        match self {
            Self::RsaSsa(_) => 0x0014,
            Self::RsaPss(_) => 0x0016,
            Self::Ecdsa(_) => 0x0018,
        }
    }

    /// The hash of the message.
    #[must_use]
    pub const fn hash(self) -> HashAlgorithm {
        match self {
            Self::RsaSsa(hash) | Self::RsaPss(hash) | Self::Ecdsa(hash) => hash,
        }
    }
}

impl fmt::Display for SignatureScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self {
            Self::RsaSsa(_) => "rsassa",
            Self::RsaPss(_) => "rsapss",
            Self::Ecdsa(_) => "ecdsa",
        };
        write!(f, "{scheme}-{}", self.hash())
    }
}
