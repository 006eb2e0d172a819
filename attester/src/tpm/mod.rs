//! The TPM: one thread owns it and takes a closed enum of requests; nothing outside sees a tss-esapi type.
//!
//! [`Tpm`] is the handle, cheap to clone. Behind it a thread of its own holds the only context, since one TPM answers
//! one command at a time and libtss2 blocks. What goes in and comes out are plain TPM structures, as bytes or as types
//! of `rootbound_common::tpm`.
//!
//! At rest the TPM holds nothing of ours: keys are blobs (they survive reboots) and, as long as the TPM accepts them,
//! saved contexts in memory. Objects and sessions are guards that flush on drop, so a failure in between leaves
//! nothing behind. An answer is sent only after the guards are gone.
//!
//! Every key has noDA: a TPM counts a power cut after use of a DA-protected key as a failed try, and three of them
//! would lock it (Part 1, 19.8.4).
//!
//! - `owner`: the thread: connect, serve, rebuild; `request`: the enum and the replies
//! - `device`: one context with its guards and the retries; `response`: what response codes mean
//! - `keys`, `endorsement`, `template`: keys and how they are made; `nv`: EK certificates
//! - `statement`, `signing`, `pcr`, `identity`: what is asked of them

mod blob;
mod config;
mod device;
mod endorsement;
mod error;
mod handle;
mod identity;
mod keys;
mod library_log;
mod nv;
mod owner;
mod pcr;
mod request;
mod response;
mod signing;
mod statement;
mod template;

pub use blob::{AkBlob, CredentialKeyBlob, KeyBlob, KeyBlobError};
pub use config::{BadHost, Host, NetworkTpm, TctiConfig};
pub use endorsement::{EkKind, EndorsementKey};
pub use error::{Consequence, TpmError};
pub use handle::{Ending, Limits, Tpm};
pub use identity::{Lockout, TpmIdentity};
pub use keys::AkAlgorithm;
pub use library_log::{LOG_TARGET, silence_library_log};
pub use response::ResponseCode;
pub use statement::{Quote, Statement};
