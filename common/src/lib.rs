//! What the attester and the verifier share: TPM structures, cryptography, wire messages and the small words.
//!
//! Nothing in this crate talks to a TPM, opens a file or a socket, or reads a clock on its own. What a stranger
//! sends is parsed here, by bounded parsers that consume all of their input.
//!
//! - [`tpm`]: the structures of TPM 2.0 Part 2 that evidence consists of
//! - [`crypto`]: hashes, key derivation, signature verification
//! - [`attestation_attribute`]: how a certification request carries the TPM's statement about its key
//! - [`binding`]: the value that ties a TPM's statement to one challenge and one request
//! - [`wire`]: the messages of the HTTP protocol
//! - [`id`], [`nonce`], [`clock`], [`random`], [`secret`], [`blob`]: newtypes
//! - [`text`]: which characters are fit for a log
#![forbid(unsafe_code)]

pub mod attestation_attribute;
pub mod binding;
pub mod blob;
pub mod clock;
pub mod crypto;
pub mod id;
pub mod nonce;
pub mod random;
pub mod secret;
pub mod text;
pub mod tpm;
pub mod wire;
