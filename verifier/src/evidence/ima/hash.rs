//! Digests of files, in any hash that the kernel names.

use rootbound_common::crypto::Digest;
use rootbound_common::tpm::HashAlgorithm;

use super::{ImaError, Shown};

/// A hash algorithm by the kernel's names (`crypto/hash_info.c`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileHash {
    /// One that TPM banks have, too.
    Tpm(HashAlgorithm),
    /// MD5, 16 bytes.
    Md5,
    /// RIPEMD-160, 20 bytes.
    Rmd160,
    /// SHA-224, 28 bytes.
    Sha224,
    /// SM3, 32 bytes.
    Sm3,
    /// Streebog-256, 32 bytes.
    Streebog256,
    /// Streebog-512, 64 bytes.
    Streebog512,
    /// SHA3-256, 32 bytes.
    Sha3_256,
    /// SHA3-384, 48 bytes.
    Sha3_384,
    /// SHA3-512, 64 bytes.
    Sha3_512,
}

impl FileHash {
    /// Longest name, and the longest that is looked at.
    pub(super) const MAX_NAME: usize = 11;

    /// The algorithm that a list names. SM3 had other spellings before Linux 5.10.
    #[must_use]
    pub fn of_name(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"sha256" => Self::Tpm(HashAlgorithm::Sha256),
            b"sha1" => Self::Tpm(HashAlgorithm::Sha1),
            b"sha384" => Self::Tpm(HashAlgorithm::Sha384),
            b"sha512" => Self::Tpm(HashAlgorithm::Sha512),
            b"md5" => Self::Md5,
            b"rmd160" => Self::Rmd160,
            b"sha224" => Self::Sha224,
            b"sm3" | b"sm3-256" | b"sm3_256" => Self::Sm3,
            b"streebog256" => Self::Streebog256,
            b"streebog512" => Self::Streebog512,
            b"sha3-256" => Self::Sha3_256,
            b"sha3-384" => Self::Sha3_384,
            b"sha3-512" => Self::Sha3_512,
            _ => return None,
        })
    }

    /// The kernel's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tpm(hash) => hash.name(),
            Self::Md5 => "md5",
            Self::Rmd160 => "rmd160",
            Self::Sha224 => "sha224",
            Self::Sm3 => "sm3",
            Self::Streebog256 => "streebog256",
            Self::Streebog512 => "streebog512",
            Self::Sha3_256 => "sha3-256",
            Self::Sha3_384 => "sha3-384",
            Self::Sha3_512 => "sha3-512",
        }
    }

    /// Bytes of a digest.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Tpm(hash) => hash.size(),
            Self::Md5 => 16,
            Self::Rmd160 => 20,
            Self::Sha224 => 28,
            Self::Sm3 | Self::Streebog256 | Self::Sha3_256 => 32,
            Self::Sha3_384 => 48,
            Self::Streebog512 | Self::Sha3_512 => 64,
        }
    }
}

/// What a digest is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DigestKind {
    /// The content of a file, or a buffer.
    Content,
    /// An fs-verity descriptor (template field `d-ngv2`, type `verity`).
    Verity,
}

/// A digest as an entry states it: of exactly the algorithm's size, but for violations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileDigest<'a> {
    /// What it is over.
    pub kind: DigestKind,
    /// The algorithm.
    pub algorithm: FileHash,
    /// The bytes.
    pub bytes: &'a [u8],
}

impl<'a> FileDigest<'a> {
    /// Field `d-ng`: `<algorithm>:` NUL digest; field `d-ngv2`: `<type>:<algorithm>:` NUL digest.
    ///
    /// In a violation the digest is zeros, of 20 bytes whatever the algorithm before Linux 5.15.
    pub(super) fn parse(
        entry: u64,
        field: &'a [u8],
        with_type: bool,
        violation: bool,
    ) -> Result<Self, ImaError> {
        const FIELD: &str = "digest";
        const LONGEST: usize = FileHash::MAX_NAME + "verity::".len();
        let (kind, algorithm, bytes) = match field {
            // Nearly every entry.
            [b's', b'h', b'a', b'2', b'5', b'6', b':', 0, bytes @ ..] if !with_type => {
                (DigestKind::Content, FileHash::Tpm(HashAlgorithm::Sha256), bytes)
            }
            _ => {
                let end = field.iter().take(LONGEST + 1).position(|byte| *byte == 0);
                let (prefix, rest) = end
                    .and_then(|end| field.split_at_checked(end))
                    .ok_or(ImaError::field(entry, FIELD, "names no algorithm"))?;
                let prefix = prefix.strip_suffix(b":").ok_or(ImaError::field(
                    entry,
                    FIELD,
                    "no colon after the algorithm",
                ))?;
                let (kind, name) = match (with_type, prefix) {
                    (false, name) => (DigestKind::Content, name),
                    (true, [b'i', b'm', b'a', b':', name @ ..]) => (DigestKind::Content, name),
                    (true, [b'v', b'e', b'r', b'i', b't', b'y', b':', name @ ..]) => {
                        (DigestKind::Verity, name)
                    }
                    (true, _) => {
                        return Err(ImaError::field(entry, FIELD, "its type is neither ima nor verity"));
                    }
                };
                let algorithm = FileHash::of_name(name)
                    .ok_or_else(|| ImaError::UnknownHash { entry, name: Shown::of(name) })?;
                (kind, algorithm, rest.get(1..).unwrap_or_default())
            }
        };
        if violation {
            if bytes.len() > 64 || bytes.iter().any(|byte| *byte != 0) {
                return Err(ImaError::field(entry, FIELD, "a violation has a digest of zeros"));
            }
        } else if bytes.len() != algorithm.size() {
            return Err(ImaError::field(entry, FIELD, "is not of its algorithm's size"));
        }
        Ok(Self { kind, algorithm, bytes })
    }

    /// The digest, where its algorithm is one of a TPM's.
    #[must_use]
    pub fn of_tpm(&self) -> Option<Digest> {
        match self.algorithm {
            FileHash::Tpm(algorithm) => Digest::from_slice(algorithm, self.bytes),
            FileHash::Md5
            | FileHash::Rmd160
            | FileHash::Sha224
            | FileHash::Sm3
            | FileHash::Streebog256
            | FileHash::Streebog512
            | FileHash::Sha3_256
            | FileHash::Sha3_384
            | FileHash::Sha3_512 => None,
        }
    }
}

impl std::fmt::Display for FileDigest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            DigestKind::Content => "",
            DigestKind::Verity => "verity:",
        };
        write!(f, "{kind}{}:{}", self.algorithm.name(), data_encoding::HEXLOWER.encode(self.bytes))
    }
}
