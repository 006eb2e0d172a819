//! Enrolment: which TPM is this, who vouches for it, and does the key that will sign its evidence live in it?
//!
//! The road, each step a type that only the step before can make:
//!
//! 1. [`UnendorsedKey::parse`]: the EK's public area follows the rules of an EK; its hash is the [`NodeId`].
//! 2. [`UnendorsedKey::endorse_by_chain`] or [`UnendorsedKey::endorse_by_waiver`]: someone whom the operator trusts
//!    vouches for the EK: its manufacturer by a certificate, or the operator by listing it. Gives [`EndorsedKey`].
//! 3. [`AttestationKey::parse`]: the AK's public area follows the rules of an AK.
//! 4. [`PendingActivation::begin`]: a secret that only the TPM with this EK *and* this AK can open.
//! 5. [`PendingActivation::complete`]: the TPM opened it. Gives [`ActivatedKeys`].
//!
//! Pure: time and randomness are arguments; only [`EndorsementRoots::load`] reads files.
//!
//! [`NodeId`]: rootbound_common::id::NodeId

mod activation;
mod ak;
mod codes;
mod ek;
mod make_credential;
#[cfg(test)]
mod testing;

pub use activation::{
    ActivatedKeys, ActivationError, PendingActivation, StoredActivation, StoredActivationError,
};
pub use ak::{AttestationKey, AttestationKeyError};
pub use ek::{
    ChainWaiver, CrlError, EkCertificate, EndorsedKey, Endorsement, EndorsementError, EndorsementKeyError,
    EndorsementRoots, MalformedCertificate, PemError, RevocationPolicy, RootsError, StoredEndorsement,
    StoredKeyError, UnendorsedKey, WaiverError,
};
pub use make_credential::{EncryptedCredential, MakeCredentialError, make_credential};
