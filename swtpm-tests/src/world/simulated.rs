//! A node of software keys.

use rootbound_attester::client::{Client, RequestError};
use rootbound_common::binding::{Purpose, extra_data};
use rootbound_common::blob::Blob;
use rootbound_common::id::NodeId;
use rootbound_common::nonce::Nonce;
use rootbound_common::wire::v1::{
    ActivateResponse, Challenge, ChallengeRequest, EnrollRequest, EnrollResponse, EvidenceRequest,
    EvidenceResponse,
};

use crate::certificate_request::RequestParts;
use crate::manual::activation;
use crate::software_tpm::{Signed, SoftwareKey, SoftwareTpm, Statement, Template};

/// A node whose TPM is made of software keys: labelled as such wherever figures are given.
pub struct Simulated {
    /// Its id.
    pub node: NodeId,
    /// Its keys, PCRs and clock.
    pub tpm: SoftwareTpm,
    /// Its connection.
    pub client: Client,
}

impl Simulated {
    /// Enrols with the AK that it has now.
    pub async fn enroll(&self) -> Result<ActivateResponse, RequestError> {
        let begun = self.client.enroll(&self.enroll_request()).await?;
        self.client.activate(&activation(&begun, &self.open(&begun))).await
    }

    /// The secret in what the verifier made for its EK and its AK.
    ///
    /// # Panics
    /// Where it was made for others.
    pub fn open(&self, begun: &EnrollResponse) -> Vec<u8> {
        let name = self.tpm.attestation_key.public().name();
        let (blob, secret) = (begun.credential_blob.as_bytes(), begun.encrypted_secret.as_bytes());
        self.tpm.endorsement_key.activate_credential(&name, blob, secret).expect("our own EK and AK")
    }

    /// What it sends to enrol.
    pub fn enroll_request(&self) -> EnrollRequest {
        EnrollRequest {
            ek_public: Blob::new(self.tpm.endorsement_key.public_area()).expect("an EK"),
            ek_certificates: Vec::new(),
            ak_public: Blob::new(self.tpm.attestation_key.public_area()).expect("an AK"),
            join_token: None,
        }
    }

    /// Asks for a challenge.
    pub async fn challenge(&self) -> Result<Challenge, RequestError> {
        self.client.challenge(&ChallengeRequest { node: self.node }).await
    }

    /// An honest answer, without a request for a credential.
    pub fn answer(&self, challenge: &Challenge) -> EvidenceRequest {
        self.evidence(challenge, self.quote(challenge, None).sign(&self.tpm.attestation_key), None)
    }

    /// An honest answer with a request for a credential, and the key that it is for.
    pub fn answer_with_request(&self, challenge: &Challenge) -> (EvidenceRequest, SoftwareKey) {
        let policy = self.tpm.policy(&challenge.credential_policy.selection());
        let key = SoftwareKey::p256(Template::credential(policy.as_bytes()));
        let extra = extra_data(Purpose::Certify, &nonce(challenge), &[]);
        let certify = self.tpm.certify(&key, extra.as_bytes()).sign(&self.tpm.attestation_key);
        let csr = RequestParts::honest(&key, &certify).sign(&key);
        let signed = self.quote(challenge, Some(&csr)).sign(&self.tpm.attestation_key);
        (self.evidence(challenge, signed, Some(csr)), key)
    }

    /// The quote that an honest TPM makes for a challenge; to be changed, then signed.
    pub fn quote(&self, challenge: &Challenge, csr: Option<&[u8]>) -> Statement {
        let parts = EvidenceRequest::bound_parts(csr);
        let extra = extra_data(Purpose::Quote, &nonce(challenge), &parts);
        self.tpm.quote(&challenge.selection, extra.as_bytes())
    }

    /// A message of these parts, with the values of the PCRs that the challenge asks for.
    pub fn evidence(&self, challenge: &Challenge, quote: Signed, csr: Option<Vec<u8>>) -> EvidenceRequest {
        EvidenceRequest {
            challenge: challenge.token.clone(),
            quote: Blob::new(quote.attest).expect("a short statement"),
            signature: Blob::new(quote.signature).expect("a short signature"),
            pcrs: self.tpm.values(&challenge.selection),
            certificate_request: csr.map(|csr| Blob::new(csr).expect("a short request")),
            boot_log: None,
            ima: None,
        }
    }

    /// Sends evidence.
    pub async fn submit(&self, evidence: EvidenceRequest) -> Result<EvidenceResponse, RequestError> {
        self.client.evidence(&evidence).await
    }
}

/// The nonce of a challenge.
pub fn nonce(challenge: &Challenge) -> Nonce {
    Nonce::from_bytes(challenge.nonce.as_bytes().try_into().expect("32 bytes"))
}
