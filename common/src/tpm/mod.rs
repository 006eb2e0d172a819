//! The structures of TPM 2.0 Part 2 that evidence consists of: parsed, marshalled, never sent to a device.
//!
//! Every parser takes a slice, bounds each length before it is used, refuses what it does not know, and ends with
//! [`Reader::finish`], so that no byte is left over. Table numbers are those of the TPM 2.0 Library, Part 2,
//! revision 1.59.

mod algorithm;
mod attest;
mod creation;
mod name;
mod pcr;
mod policy;
mod public;
mod reader;
mod signature;

pub use algorithm::{Curve, HashAlgorithm, SignatureScheme};
pub use attest::{Attest, AttestKind, Attested, ClockState, TPM_GENERATED};
pub use creation::CreationData;
pub use name::Name;
pub use pcr::{PcrDigestError, PcrIndex, PcrSelection, PcrSet, PcrValues};
pub use policy::policy_pcr;
pub use public::{Attributes, KeyParameters, Public, Symmetric};
pub use reader::{ParseError, Reader, put_sized};
pub use signature::{Signature, SignatureValue};
