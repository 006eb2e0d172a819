//! What the journeys and attacks in `tests/` stand on. Only this crate knows the attester and the verifier at once;
//! being for tests, it may panic, and says why.
//!
//! - [`swtpm`]: TPMs that run: manufactured, booted, cut off and rolled back at will
//! - [`challenges`]: challenges by the hundred, minted and spent
//! - [`corpus`]: evidence of real machines, where the environment names a folder of it
//! - [`keys`]: short forms of what many tests ask of a TPM
//! - [`world`]: a verifier, its clock and its machines, all in one process
//! - [`software_tpm`]: TPM statements fabricated by keys in software, for load and for what no TPM would say
#![forbid(unsafe_code)]

pub mod certificate_request;
pub mod challenges;
pub mod corpus;
pub mod exchange;
pub mod keys;
pub mod openssl;
pub mod software_tpm;
pub mod swtpm;
pub mod world;

pub use swtpm::{Action, Interposer, Manufacturer, Snapshot, Swtpm, SwtpmBuilder};
