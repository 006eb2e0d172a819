//! The EK: the key that a TPM is known by, and who vouches for it.

mod asn1;
mod certificate;
mod chain;
mod crl;
mod error;
mod extensions;
mod leaf;
mod load;
mod name;
mod pem;
mod public;
mod roots;
#[cfg(test)]
mod tests;

use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use rootbound_common::tpm::{Public, Symmetric};

pub use asn1::MalformedCertificate;
pub use crl::{CrlError, RevocationPolicy};
pub use error::EndorsementError;
pub use leaf::EkCertificate;
pub use pem::PemError;
pub(super) use public::EncryptingKey;
pub use public::EndorsementKeyError;
pub use roots::{EndorsementRoots, RootsError};

/// The public part of a key that follows every rule of an EK, for which nobody vouches yet.
#[derive(Debug, Clone)]
pub struct UnendorsedKey {
    public: Public,
    node_id: NodeId,
    encrypting_key: EncryptingKey,
}

impl UnendorsedKey {
    /// Checks a TPMT_PUBLIC. The list of what is established is that of [`EndorsementKeyError`].
    pub fn parse(public_area: &[u8]) -> Result<Self, EndorsementKeyError> {
        let (public, encrypting_key, subject_public_key_info) = public::check(public_area)?;
        let node_id = NodeId::of_endorsement_key(&subject_public_key_info);
        Ok(Self { public, node_id, encrypting_key })
    }

    /// The machine, if this key is its EK: SHA-256 over the DER SubjectPublicKeyInfo.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// The public area.
    #[must_use]
    pub fn public(&self) -> &Public {
        &self.public
    }

    /// Asks the manufacturer: one of `certificates` is for this key, and a chain leads from it to one of `roots`.
    ///
    /// `certificates` come from the machine: the EK certificate, at any position, and perhaps intermediates. None of
    /// them is ever a trust anchor. What is established is listed at [`EndorsementError`].
    pub fn endorse_by_chain(
        &self,
        certificates: &[&[u8]],
        roots: &EndorsementRoots,
        revocation: RevocationPolicy,
        now: Timestamp,
    ) -> Result<EndorsedKey, EndorsementError> {
        let (certificate, anchor) = chain::verify(&self.public, certificates, roots, revocation, now)?;
        let endorsement = Endorsement::VendorChain { certificate: Box::new(certificate), anchor };
        Ok(EndorsedKey { key: self.clone(), endorsement })
    }

    /// Asks the operator: the inventory lists this very key and says that its chain need not be walked.
    pub fn endorse_by_waiver(&self, waiver: ChainWaiver) -> Result<EndorsedKey, WaiverError> {
        if waiver.node != self.node_id {
            return Err(WaiverError { listed: waiver.node, found: self.node_id });
        }
        Ok(EndorsedKey { key: self.clone(), endorsement: Endorsement::ListedKey })
    }
}

/// The operator's word for one EK. Made from an inventory entry that says so, and from nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainWaiver {
    node: NodeId,
}

impl ChainWaiver {
    /// The waiver of an inventory entry that lists the EK with this hash and waives its vendor chain.
    #[must_use]
    pub const fn of_inventory_entry(node: NodeId) -> Self {
        Self { node }
    }
}

/// A waiver lists another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the waiver is for EK {listed}, not for {found}")]
pub struct WaiverError {
    /// The key of the waiver.
    pub listed: NodeId,
    /// The key at hand.
    pub found: NodeId,
}

/// An EK for which someone vouches whom the operator trusts. Only the checks of [`UnendorsedKey`] make it.
#[derive(Debug, Clone)]
pub struct EndorsedKey {
    key: UnendorsedKey,
    endorsement: Endorsement,
}

impl EndorsedKey {
    /// The machine.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.key.node_id
    }

    /// The public area.
    #[must_use]
    pub fn public(&self) -> &Public {
        &self.key.public
    }

    /// Who vouches.
    #[must_use]
    pub fn endorsement(&self) -> &Endorsement {
        &self.endorsement
    }

    /// The key, for encryption to its TPM.
    pub(super) fn encrypting_key(&self) -> &EncryptingKey {
        &self.key.encrypting_key
    }

    /// How the key protects what is sent to it.
    pub(super) fn symmetric(&self) -> Symmetric {
        self.key.public.parameters().symmetric()
    }

    /// The key of a row. All is checked but the chain: that it was walked is what the row says.
    pub(crate) fn from_stored(
        public_area: &[u8],
        stored: &StoredEndorsement,
    ) -> Result<Self, StoredKeyError> {
        let key = UnendorsedKey::parse(public_area)?;
        let endorsement = match stored {
            StoredEndorsement::ListedKey => Endorsement::ListedKey,
            StoredEndorsement::VendorChain { certificate, anchor } => {
                let certificate = certificate::Certificate::parse(certificate)?;
                if !certificate.is_for(&key.public) {
                    return Err(StoredKeyError::OtherKey);
                }
                let certificate = Box::new(EkCertificate::describe(&certificate)?);
                Endorsement::VendorChain { certificate, anchor: *anchor }
            }
        };
        Ok(Self { key, endorsement })
    }
}

impl PartialEq for EndorsedKey {
    fn eq(&self, other: &Self) -> bool {
        self.key.public == other.key.public && self.endorsement == other.endorsement
    }
}

impl Eq for EndorsedKey {}

/// Who vouches for an EK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endorsement {
    /// The manufacturer: a chain leads from the EK certificate to a trust anchor.
    VendorChain {
        /// The EK certificate.
        certificate: Box<EkCertificate>,
        /// SHA-256 of the trust anchor's DER certificate.
        anchor: [u8; 32],
    },
    /// The operator, who listed this very key. What made it is not known.
    ListedKey,
}

impl Endorsement {
    /// What the store keeps.
    #[must_use]
    pub fn to_stored(&self) -> StoredEndorsement {
        match self {
            Self::VendorChain { certificate, anchor } => {
                StoredEndorsement::VendorChain { certificate: certificate.der().to_vec(), anchor: *anchor }
            }
            Self::ListedKey => StoredEndorsement::ListedKey,
        }
    }
}

/// The columns of an [`Endorsement`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredEndorsement {
    /// See [`Endorsement::VendorChain`].
    VendorChain {
        /// The EK certificate, DER.
        certificate: Vec<u8>,
        /// SHA-256 of the trust anchor's DER certificate.
        anchor: [u8; 32],
    },
    /// See [`Endorsement::ListedKey`].
    ListedKey,
}

/// A row that is no endorsed EK.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoredKeyError {
    /// The public area.
    #[error(transparent)]
    PublicArea(#[from] EndorsementKeyError),
    /// The certificate.
    #[error(transparent)]
    Certificate(#[from] MalformedCertificate),
    /// Both are well-formed, but of different keys.
    #[error("the certificate is for another key")]
    OtherKey,
}
