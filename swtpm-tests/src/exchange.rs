//! A node in the middle of an exchange: it has a challenge, and its quote counts as authenticated.

use rootbound_common::attestation_attribute::CertifyStatement;
use rootbound_common::crypto::{VerifyingKey, hash};
use rootbound_common::nonce::Nonce;
use rootbound_common::tpm::{HashAlgorithm, Name, PcrIndex, PcrSelection, PcrSet, PcrValues};
use rootbound_common::wire::v1::CredentialPolicy;
use rootbound_verifier::credential::request::{BoundKey, Demand, ParsedRequest, RequestError};

use crate::certificate_request::RequestParts;
use crate::software_tpm::{Signed, SoftwareKey, SoftwareTpm, Statement, Template};

const SHA256: HashAlgorithm = HashAlgorithm::Sha256;

/// A set of PCRs by their numbers.
///
/// # Panics
/// Where a number is not below 24.
pub fn pcrs(indices: impl IntoIterator<Item = u8>) -> PcrSet {
    indices.into_iter().map(|index| PcrIndex::new(index).expect("a PCR number")).collect()
}

/// What both sides of an exchange know when a certificate request is judged.
#[derive(Debug)]
pub struct Exchange {
    /// The node's TPM.
    pub tpm: SoftwareTpm,
    /// Its AK, as enrolled.
    pub attestation_key: VerifyingKey,
    /// The quote's signer.
    pub qualified_signer: Name,
    /// The challenge's nonce.
    pub nonce: Nonce,
    /// The policy that the challenge demands: PCRs 0, 2, 4 and 7.
    pub policy: CredentialPolicy,
    /// PCRs 0 to 14, as quoted.
    pub quoted: PcrValues,
}

impl Default for Exchange {
    fn default() -> Self {
        Self::new()
    }
}

impl Exchange {
    /// An exchange with a P-256 TPM.
    #[must_use]
    pub fn new() -> Self {
        Self::of(SoftwareTpm::new())
    }

    /// An exchange with a TPM, on whose machine something has booted.
    #[must_use]
    pub fn of(mut tpm: SoftwareTpm) -> Self {
        for index in pcrs([0, 4, 7, 10, 14]).iter() {
            tpm.extend(index, hash(SHA256, &[b"event", &[index.get()]]));
        }
        Self {
            attestation_key: VerifyingKey::of_public_area(&tpm.attestation_key.public())
                .expect("a usable AK"),
            qualified_signer: tpm.qualified_signer(),
            nonce: Nonce::from_bytes([7; 32]),
            policy: CredentialPolicy { bank: SHA256, pcrs: pcrs([0, 2, 4, 7]) },
            quoted: tpm.values(&PcrSelection::of_bank(SHA256, pcrs(0..15))),
            tpm,
        }
    }

    /// The template of an honest credential key.
    #[must_use]
    pub fn template(&self) -> Template {
        Template::credential(self.tpm.policy(&self.policy.selection()).as_bytes())
    }

    /// An honest credential key.
    #[must_use]
    pub fn key(&self) -> SoftwareKey {
        SoftwareKey::p256(self.template())
    }

    /// What TPM2_Certify states of a key, for this challenge.
    #[must_use]
    pub fn statement(&self, key: &SoftwareKey) -> Statement {
        self.tpm.certify(key, CertifyStatement::extra_data(&self.nonce).as_bytes())
    }

    /// The same, signed by the AK.
    #[must_use]
    pub fn certify(&self, key: &SoftwareKey) -> Signed {
        self.statement(key).sign(&self.tpm.attestation_key)
    }

    /// What the verifier demands.
    #[must_use]
    pub fn demand(&self) -> Demand<'_> {
        Demand {
            attestation_key: &self.attestation_key,
            qualified_signer: &self.qualified_signer,
            nonce: &self.nonce,
            policy: self.policy,
            pcrs: &self.quoted,
        }
    }

    /// What becomes of a request.
    pub fn judge(&self, request: &[u8]) -> Result<BoundKey, RequestError> {
        ParsedRequest::parse(request)?.verify(&self.demand())
    }

    /// What becomes of an honest request for a key.
    pub fn ask_for(&self, key: &SoftwareKey) -> Result<BoundKey, RequestError> {
        self.judge(&RequestParts::honest(key, &self.certify(key)).sign(key))
    }

    /// A key that passed.
    ///
    /// # Panics
    /// Where it did not.
    #[must_use]
    pub fn bound_key(&self) -> BoundKey {
        self.ask_for(&self.key()).expect("an honest key")
    }
}
