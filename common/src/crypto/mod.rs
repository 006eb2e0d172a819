//! Hashes, TPM key derivation, and verification of TPM signatures.

mod digest;
mod kdf;
mod spki;
mod tagged;
mod verify;

pub use self::spki::subject_public_key_info;
pub use digest::{Digest, Hasher, hash, sha256};
pub use kdf::{hmac, kdfa, kdfe};
pub use tagged::{NotADigest, TaggedDigest};
pub use verify::{SignatureError, VerifyingKey, VerifyingKeyError};
