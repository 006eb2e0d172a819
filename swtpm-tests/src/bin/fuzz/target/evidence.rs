//! The body of `POST /v1/evidence`, and what is inside.

use rootbound_common::crypto::VerifyingKey;
use rootbound_common::nonce::Nonce;
use rootbound_common::tpm::{
    Attest, Attested, HashAlgorithm, PcrIndex, PcrSelection, PcrSet, PcrValues, Signature,
};
use rootbound_common::wire::v1::{
    ActivateRequest, ChallengeRequest, ChallengeToken, CredentialPolicy, EnrollRequest, EvidenceRequest,
    JoinToken,
};
use rootbound_swtpm_tests::software_tpm::{SoftwareKey, SoftwareTpm};
use rootbound_verifier::credential::request::{Demand, ParsedRequest};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Outcome, Target};
use crate::mutate::mutate_json;
use crate::pool::Pool;
use rootbound_swtpm_tests::random::Random;

/// Each input is read as JSON of every request, and as a PKCS#10 request.
pub(super) struct EvidenceTarget {
    tpm: SoftwareTpm,
    attestation_key: VerifyingKey,
    credential_key: SoftwareKey,
    nonce: Nonce,
    selection: PcrSelection,
    policy: CredentialPolicy,
    quoted: PcrValues,
}

fn pcrs(indices: impl IntoIterator<Item = u8>) -> PcrSet {
    indices.into_iter().filter_map(PcrIndex::new).collect()
}

impl EvidenceTarget {
    pub(super) fn new() -> Self {
        let tpm = SoftwareTpm::new();
        let selection = PcrSelection::of_bank(HashAlgorithm::Sha256, pcrs(0..11));
        let policy = CredentialPolicy { bank: HashAlgorithm::Sha256, pcrs: pcrs([0, 2, 4, 7]) };
        Self {
            attestation_key: VerifyingKey::of_public_area(&tpm.attestation_key.public()).expect("an AK"),
            credential_key: tpm.credential_key(&policy.selection()),
            nonce: Nonce::from_bytes([7; 32]),
            quoted: tpm.values(&selection),
            selection,
            policy,
            tpm,
        }
    }

    fn evidence(&self, certificate_request: Option<Vec<u8>>) -> EvidenceRequest {
        let token = ChallengeToken::new(vec![1; 150]).expect("a token");
        self.tpm.evidence(token, &self.nonce, &self.selection, certificate_request)
    }

    /// The certificate request; accepted only where it is for the key that the TPM vouches for.
    fn certificate_request(&self, input: &[u8]) -> Result<bool, String> {
        let request = ParsedRequest::parse(input).map_err(|error| format!("{error:?}"))?;
        assert!(ParsedRequest::parse(&[input, &[0]].concat()).is_err(), "nothing may follow a request");
        let qualified_signer = self.tpm.qualified_signer();
        let demand = Demand {
            attestation_key: &self.attestation_key,
            qualified_signer: &qualified_signer,
            nonce: &self.nonce,
            policy: self.policy,
            pcrs: &self.quoted,
        };
        match request.verify(&demand) {
            Ok(key) => {
                assert_eq!(key.name(), self.credential_key.name(), "the TPM vouches for one key");
                Ok(true)
            }
            Err(error) => Err(error.code().to_owned()),
        }
    }
}

impl Target for EvidenceTarget {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let request = self.tpm.certificate_request(&self.credential_key, &self.nonce);
        let enroll = EnrollRequest {
            ek_public: rootbound_common::blob::Blob::new(self.tpm.endorsement_key.public_area())
                .expect("short"),
            ek_certificates: vec![rootbound_common::blob::Blob::new(vec![0x30; 900]).expect("short")],
            ak_public: rootbound_common::blob::Blob::new(self.tpm.attestation_key.public_area())
                .expect("short"),
            join_token: Some(JoinToken("rbjt_AAAA".to_owned())),
        };
        vec![
            json(&self.evidence(None)),
            json(&self.evidence(Some(request.clone()))),
            request,
            json(&self.quoted),
            json(&self.selection),
            json(&enroll),
            br#"{"enrollment":"AAAA","secret":"AAAA"}"#.to_vec(),
            format!(r#"{{"node":"{}"}}"#, "ab".repeat(32)).into_bytes(),
        ]
    }

    fn run(&mut self, input: &[u8]) -> Outcome {
        let mut classes = Vec::new();
        let mut accepted = false;
        let evidence = round_trip::<EvidenceRequest>(input);
        if let Ok(evidence) = &evidence {
            classes.push(structures(evidence));
            if let Some(request) = &evidence.certificate_request {
                classes.push(format!("{:?}", self.certificate_request(request.as_bytes())));
            }
        }
        let request = self.certificate_request(input);
        accepted |= request.is_ok();
        for outcome in [
            evidence.map(|_| "evidence"),
            request.map(|_| "request"),
            round_trip::<PcrValues>(input).map(|_| "values"),
            round_trip::<PcrSelection>(input).map(|_| "selection"),
            round_trip::<EnrollRequest>(input).map(|_| "enroll"),
            round_trip::<ActivateRequest>(input).map(|_| "activate"),
            round_trip::<ChallengeRequest>(input).map(|_| "challenge"),
        ] {
            accepted |= outcome.is_ok();
            classes.push(outcome.map_or_else(|error| error, str::to_owned));
        }
        Outcome { accepted, class: classes.join(" ") }
    }

    fn mutate(&self, pool: &Pool, random: &mut Random) -> Vec<u8> {
        // Twice as long as the longest evidence: a quote, a signature, 96 PCR values and a request, in base64url and hex.
        const LIMIT: usize = 64 * 1024;
        mutate_json(pool, LIMIT, random)
    }
}

fn json(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("JSON")
}

/// Parses; what was accepted is written in one form, which is read as the same, and nothing may follow it.
fn round_trip<T: DeserializeOwned + Serialize>(input: &[u8]) -> Result<T, String> {
    let parsed = serde_json::from_slice::<T>(input).map_err(class)?;
    let written = json(&parsed);
    let again: T = serde_json::from_slice(&written).expect("what was written is read");
    assert_eq!(json(&again), written, "a message is written in one form");
    assert!(serde_json::from_slice::<T>(&[input, b"x"].concat()).is_err(), "nothing may follow a message");
    Ok(parsed)
}

/// The words of a JSON error up to what it quotes of the input.
fn class(error: serde_json::Error) -> String {
    let words = error.to_string();
    words.split(['`', '"']).next().unwrap_or_default().to_owned()
}

/// Parses what is inside of a message, as `authenticate` does.
fn structures(evidence: &EvidenceRequest) -> String {
    let signature = Signature::parse(evidence.signature.as_bytes()).map(|signature| signature.scheme);
    let digest = Attest::parse(evidence.quote.as_bytes()).map(|attest| match attest.attested {
        Attested::Quote { selection, .. } => evidence.pcrs.digest(&selection, HashAlgorithm::Sha256).is_ok(),
        Attested::Certify { .. } | Attested::Creation { .. } | Attested::Other(_) => false,
    });
    format!("{signature:?} {digest:?}")
}
