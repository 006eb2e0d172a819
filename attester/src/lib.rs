//! The attester: proves with the machine's TPM 2.0 what booted, and gets credentials that only this TPM can use.
//!
//! - [`tpm`]: the one thread that owns the TPM, and what can be asked of it
//! - [`enroll`], [`attest`], [`renew`]: the stories, each readable top to bottom
//! - [`control`], [`watch`]: reasons to attest before the time, which ring the [`alarm`]
//! - [`collect`]: the boot event log and the IMA list
//! - [`keep`]: state on disk; [`deliver`]: what workloads read; [`client`]: TLS with a key that lives in the TPM
//! - [`token`]: tokens for workloads, and proofs by the key in the TPM
//! - [`certificate_request`]: a PKCS#10 request with the TPM's own statement about the key
#![forbid(unsafe_code)]

pub mod alarm;
pub mod attest;
pub mod certificate_request;
pub mod cli;
pub mod client;
pub mod collect;
pub mod config;
pub mod control;
pub mod deliver;
pub mod enroll;
pub mod keep;
pub mod renew;
pub mod telemetry;
pub mod token;
pub mod tpm;
pub mod watch;
pub mod within;
