//! Requests for a credential with statements that a TPM made.

use rootbound_attester::certificate_request::UnsignedRequest;
use rootbound_attester::tpm::{AkAlgorithm, AkBlob, CredentialKeyBlob, Quote, Statement, Tpm};
use rootbound_common::attestation_attribute::CertifyStatement;
use rootbound_common::crypto::VerifyingKey;
use rootbound_common::nonce::Nonce;
use rootbound_common::tpm::{Attest, HashAlgorithm, policy_pcr};
use rootbound_common::wire::v1::CredentialPolicy;
use rootbound_swtpm_tests::Swtpm;
use rootbound_swtpm_tests::exchange::pcrs;
use rootbound_verifier::credential::request::{BoundKey, Demand, ParsedRequest, RequestError};

const NONCE: Nonce = Nonce::from_bytes([7; 32]);

/// A node that has quoted its boot PCRs, and has a key tied to them.
struct Node {
    swtpm: Swtpm,
    tpm: Tpm,
    ak: AkBlob,
    policy: CredentialPolicy,
    quote: Quote,
    key: CredentialKeyBlob,
}

impl Node {
    async fn boot(algorithm: AkAlgorithm) -> Self {
        let swtpm = Swtpm::manufacture();
        swtpm.measured_boot(1);
        let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
        let ak = tpm.create_ak(Some(algorithm)).await.unwrap();
        let policy = CredentialPolicy { bank: HashAlgorithm::Sha256, pcrs: pcrs([0, 2, 4, 7, 14]) };
        let quote = tpm.quote(&ak, &policy.selection(), b"").await.unwrap();
        let digest = quote.values.digest(&policy.selection(), HashAlgorithm::Sha256).unwrap();
        let auth_policy = policy_pcr(HashAlgorithm::Sha256, &policy.selection(), &digest);
        let key = tpm.create_credential_key(&auth_policy).await.unwrap();
        Self { swtpm, tpm, ak, policy, quote, key }
    }

    async fn certify(&self, nonce: &Nonce) -> Statement {
        let extra = CertifyStatement::extra_data(nonce);
        self.tpm.certify(&self.ak, &self.key, extra.as_bytes()).await.unwrap()
    }

    /// What becomes of a request for the key with a statement about it.
    async fn ask(&self, statement: &Statement) -> Result<BoundKey, RequestError> {
        let unsigned =
            UnsignedRequest::new(self.key.public(), &statement.attest, &statement.signature).unwrap();
        let digest = unsigned.digest();
        let signature = self.tpm.sign(&self.key, &self.policy.selection(), &digest).await.unwrap();
        let (r, s) = signature.split_at(32);
        self.judge(&unsigned.assemble(r, s).unwrap(), &self.quote)
    }

    fn judge(&self, request: &[u8], quote: &Quote) -> Result<BoundKey, RequestError> {
        let attest = Attest::parse(&quote.statement.attest).unwrap();
        let attestation_key = VerifyingKey::of_public_area(self.ak.public()).unwrap();
        ParsedRequest::parse(request)?.verify(&Demand {
            attestation_key: &attestation_key,
            qualified_signer: &attest.qualified_signer,
            nonce: &NONCE,
            policy: self.policy,
            pcrs: &quote.values,
        })
    }
}

#[tokio::test]
async fn key_of_a_tpm_is_bound_whatever_the_algorithm_of_its_ak() {
    for algorithm in [AkAlgorithm::EcdsaP256, AkAlgorithm::RsaSsa2048] {
        let node = Node::boot(algorithm).await;
        let bound = node.ask(&node.certify(&NONCE).await).await.unwrap();
        assert_eq!(bound.name(), node.key.name());
        assert_eq!(bound.policy_digest().as_bytes(), node.key.public().auth_policy());
    }
}

#[tokio::test]
async fn statements_of_a_tpm_for_something_else_are_refused() {
    let node = Node::boot(AkAlgorithm::EcdsaP256).await;

    let stale = node.certify(&Nonce::from_bytes([8; 32])).await;
    assert_eq!(node.ask(&stale).await.unwrap_err().code(), "certify_extra_data");

    let extra = CertifyStatement::extra_data(&NONCE);
    let quote = node.tpm.quote(&node.ak, &node.policy.selection(), extra.as_bytes()).await.unwrap();
    assert_eq!(node.ask(&quote.statement).await.unwrap_err().code(), "certify_kind");

    let other_key = node.tpm.create_credential_key(&extra).await.unwrap();
    let other = node.tpm.certify(&node.ak, &other_key, extra.as_bytes()).await.unwrap();
    assert_eq!(node.ask(&other).await.unwrap_err().code(), "certify_name");

    let other_ak = node.tpm.create_ak(Some(AkAlgorithm::EcdsaP256)).await.unwrap();
    let other = node.tpm.certify(&other_ak, &node.key, extra.as_bytes()).await.unwrap();
    assert_eq!(node.ask(&other).await.unwrap_err().code(), "certify_signature");
}

#[tokio::test]
async fn key_of_an_earlier_boot_state_is_refused_and_of_no_use() {
    let node = Node::boot(AkAlgorithm::EcdsaP256).await;
    let statement = node.certify(&NONCE).await;
    let unsigned = UnsignedRequest::new(node.key.public(), &statement.attest, &statement.signature).unwrap();
    let digest = unsigned.digest();
    let signature = node.tpm.sign(&node.key, &node.policy.selection(), &digest).await.unwrap();
    let request = unsigned.assemble(&signature[..32], &signature[32..]).unwrap();
    assert!(node.judge(&request, &node.quote).is_ok());

    node.swtpm.extend(14, b"something else was started");
    let quote = node.tpm.quote(&node.ak, &node.policy.selection(), b"").await.unwrap();
    assert_eq!(node.judge(&request, &quote).unwrap_err().code(), "key_policy");
    assert!(node.tpm.sign(&node.key, &node.policy.selection(), &digest).await.is_err());
}
