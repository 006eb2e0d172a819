//! Answers to challenges: what an honest attester sends.

use rootbound_attester::certificate_request::UnsignedRequest;
use rootbound_common::attestation_attribute::CertifyStatement;
use rootbound_common::binding::{Purpose, extra_data};
use rootbound_common::blob::Blob;
use rootbound_common::nonce::Nonce;
use rootbound_common::tpm::PcrSelection;
use rootbound_common::wire::v1::{Challenge, ChallengeToken, EvidenceRequest};

use super::{SoftwareKey, SoftwareTpm};

impl SoftwareTpm {
    /// The attester's own PKCS#10 request for a key of this TPM, with the AK's statement about it for this challenge.
    ///
    /// # Panics
    /// For a key that is not on P-256.
    #[must_use]
    pub fn certificate_request(&self, key: &SoftwareKey, nonce: &Nonce) -> Vec<u8> {
        let statement = self.certify(key, CertifyStatement::extra_data(nonce).as_bytes());
        let signed = statement.sign(&self.attestation_key);
        let unsigned = UnsignedRequest::new(&key.public(), &signed.attest, &signed.signature)
            .expect("a request for a P-256 key");
        let (r, s) = key.sign_ecdsa(unsigned.to_be_signed());
        unsigned.assemble(&r, &s).expect("an ECDSA signature")
    }

    /// Evidence for a challenge: a quote, the values under it, and a request for a credential where one is given.
    ///
    /// # Panics
    /// Where a selected PCR has no value.
    #[must_use]
    pub fn evidence(
        &self,
        token: ChallengeToken,
        nonce: &Nonce,
        selection: &PcrSelection,
        certificate_request: Option<Vec<u8>>,
    ) -> EvidenceRequest {
        let parts = EvidenceRequest::bound_parts(certificate_request.as_deref());
        let binding = extra_data(Purpose::Quote, nonce, &parts);
        let signed = self.quote(selection, binding.as_bytes()).sign(&self.attestation_key);
        EvidenceRequest {
            challenge: token,
            quote: Blob::new(signed.attest).expect("a quote of the usual size"),
            signature: Blob::new(signed.signature).expect("a signature of the usual size"),
            pcrs: self.values(selection),
            certificate_request: certificate_request
                .map(|request| Blob::new(request).expect("a short request")),
            boot_log: None,
            ima: None,
        }
    }

    /// Answers a challenge as it came over the wire, with a request for a credential on `key` where one is given.
    ///
    /// # Panics
    /// Where the challenge has no nonce, or a selected PCR has no value.
    #[must_use]
    pub fn answer(&self, challenge: &Challenge, key: Option<&SoftwareKey>) -> EvidenceRequest {
        let nonce = challenge.nonce.as_bytes().try_into().expect("a nonce of 32 bytes");
        let nonce = Nonce::from_bytes(nonce);
        let request = key.map(|key| self.certificate_request(key, &nonce));
        self.evidence(challenge.token.clone(), &nonce, &challenge.selection, request)
    }
}
