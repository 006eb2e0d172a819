//! Credentials: what a request must prove, who signs, and what is signed.
//!
//! - [`request`]: a PKCS#10 with the TPM's statement about its key → [`request::BoundKey`]
//! - [`authority`]: the issuing CA, its own root or an intermediate under the operator's CA; [`files`]: its files
//! - [`issue`]: [`request::BoundKey`] → X.509-SVID, in two steps, so that a serial number is on record before its
//!   certificate exists
//! - `epoch`: what a certificate says of the state in which its node was
//! - [`presented`]: an X.509-SVID that comes back over mTLS
//! - [`token_keys`]: the keys that sign tokens, and how they follow each other
//! - [`ear`]: an attestation result as a signed token; [`result_key`]: the key that signs it, which is not the CA's
//!
//! Apart from [`files`] nothing here does I/O, and nothing here reads a clock or draws a random number on its own.

pub mod authority;
pub(crate) mod certificate;
pub mod ear;
mod epoch;
pub mod files;
pub mod issue;
pub mod presented;
pub mod request;
mod request_error;
pub mod result_key;
pub mod serial;
pub mod token_keys;
