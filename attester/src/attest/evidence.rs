//! What goes to the verifier in answer to a challenge: a quote, and a request for a credential where one is due.
//!
//! 1. the challenge asks for something that a TPM can do
//! 2. the PCRs of the credential policy are read: is there a credential, is its key tied to these values, is it young?
//! 3. where not: a key is made whose policy is these values, the AK certifies it, it signs a certificate request
//! 4. the AK quotes, over a nonce that covers the request: no one can put another request beside the quote
//! 5. the logs that the challenge asks for are read, after the quote: what it covers is in them

use rootbound_common::attestation_attribute::CertifyStatement;
use rootbound_common::binding::{Purpose, extra_data};
use rootbound_common::blob::Blob;
use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::Digest;
use rootbound_common::nonce::Nonce;
use rootbound_common::tpm::{Attest, HashAlgorithm, ParseError, PcrDigestError, policy_pcr};
use rootbound_common::wire::v1::{CertificateRequestBlob, Challenge, CredentialPolicy, EvidenceRequest};

use crate::certificate_request::{CertificateRequestError, UnsignedRequest};
use crate::collect::{CollectError, Logs};
use crate::keep::Credential;
use crate::tpm::{AkBlob, CredentialKeyBlob, Tpm, TpmError};

/// Why there is no answer to a challenge.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// The TPM does not do its part.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// A challenge without the 32 bytes that tie an answer to it.
    #[error("the challenge's nonce has {length} bytes, must be 32")]
    Nonce {
        /// How many it has.
        length: usize,
    },
    /// A challenge that asks for no PCR: a TPM would sign that.
    #[error("the challenge selects no PCR")]
    NothingSelected,
    /// A challenge whose credential policy no quote can bear out.
    #[error("the challenge's credential policy is not over some of the PCRs that it selects")]
    CredentialPolicy,
    /// The TPM has no value for a PCR that the challenge is about: its bank is not active.
    #[error("the challenge is about PCRs that the TPM does not have: {0}")]
    InactiveBank(#[from] PcrDigestError),
    /// The request for a certificate cannot be made.
    #[error(transparent)]
    CertificateRequest(#[from] CertificateRequestError),
    /// A log cannot be read.
    #[error(transparent)]
    Collect(#[from] CollectError),
    /// The TPM's own quote cannot be read.
    #[error("the quote is malformed: {0}")]
    Quote(#[from] ParseError),
    /// A structure is longer than version 1 of the protocol allows.
    #[error("the {what} is too long for version 1 of the protocol")]
    TooLong {
        /// What.
        what: &'static str,
    },
}

/// Why a credential is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// There is none.
    First,
    /// The key of the one that there is is tied to other PCRs, or other values: the TPM refuses to use it.
    StateChanged,
    /// It is time.
    RenewalDue,
}

impl Occasion {
    /// Why a credential is to be asked for, if it is.
    #[must_use]
    pub fn of(
        credential: Option<&Credential>,
        policy: CredentialPolicy,
        pcr_digest: &Digest,
        now: Timestamp,
    ) -> Option<Self> {
        let Some(credential) = credential else { return Some(Self::First) };
        if credential.policy != policy || credential.pcr_digest.as_bytes() != pcr_digest.as_bytes() {
            return Some(Self::StateChanged);
        }
        (now >= credential.renew_at).then_some(Self::RenewalDue)
    }
}

/// A key that waits for its certificate. It is kept over refusals: making one takes a TPM up to seconds.
#[derive(Debug, Clone)]
pub struct PreparedKey {
    /// The key.
    pub key: CredentialKeyBlob,
    /// The PCRs that it is tied to.
    pub policy: CredentialPolicy,
    /// SHA-256 over their values.
    pub pcr_digest: Digest,
}

/// Has the TPM answer a challenge. Where the answer asks for a credential, the key for it is in `prepared` then: one
/// that was there already and still fits, or a new one.
pub async fn make(
    tpm: &Tpm,
    attestation_key: &AkBlob,
    challenge: &Challenge,
    credential: Option<&Credential>,
    prepared: &mut Option<PreparedKey>,
    logs: &mut Logs,
    now: Timestamp,
) -> Result<EvidenceRequest, EvidenceError> {
    let nonce = check(challenge)?;
    let policy = challenge.credential_policy;
    let values = tpm.read_pcrs(&policy.selection()).await?;
    let pcr_digest = values.digest(&policy.selection(), HashAlgorithm::Sha256)?;
    let certificate_request = match Occasion::of(credential, policy, &pcr_digest, now) {
        None => None,
        Some(occasion) => {
            tracing::debug!(?occasion, "asking for a credential");
            let fits = |key: &PreparedKey| key.policy == policy && key.pcr_digest == pcr_digest;
            let key = match prepared.take().filter(fits) {
                Some(key) => key,
                None => prepare(tpm, policy, pcr_digest).await?,
            };
            let key = prepared.insert(key);
            Some(request_certificate(tpm, attestation_key, key, &nonce).await?)
        }
    };
    let bound = EvidenceRequest::bound_parts(certificate_request.as_ref().map(Blob::as_bytes));
    let extra_data = extra_data(Purpose::Quote, &nonce, &bound);
    let quote = tpm.quote(attestation_key, &challenge.selection, extra_data.as_bytes()).await?;
    // Of a bank that is not active a TPM quotes no PCR, and signs that.
    quote.values.digest(&challenge.selection, HashAlgorithm::Sha256)?;
    let boot = Attest::parse(&quote.statement.attest)?.clock.reset_count;
    let logs = logs.collect(&challenge.logs, boot).await?;
    Ok(EvidenceRequest {
        challenge: challenge.token.clone(),
        quote: Blob::new(quote.statement.attest).ok_or(EvidenceError::TooLong { what: "quote" })?,
        signature: Blob::new(quote.statement.signature)
            .ok_or(EvidenceError::TooLong { what: "quote's signature" })?,
        pcrs: quote.values,
        certificate_request,
        boot_log: logs.boot_log,
        ima: logs.ima,
    })
}

/// What a challenge must be for an answer to be worth anything.
fn check(challenge: &Challenge) -> Result<Nonce, EvidenceError> {
    let nonce = challenge.nonce.as_bytes();
    let nonce = <[u8; 32]>::try_from(nonce).map_err(|_| EvidenceError::Nonce { length: nonce.len() })?;
    if challenge.selection.is_empty() {
        return Err(EvidenceError::NothingSelected);
    }
    let CredentialPolicy { bank, pcrs } = challenge.credential_policy;
    if pcrs.is_empty() || !pcrs.is_subset_of(challenge.selection.pcrs(bank)) {
        return Err(EvidenceError::CredentialPolicy);
    }
    Ok(Nonce::from_bytes(nonce))
}

async fn prepare(
    tpm: &Tpm,
    policy: CredentialPolicy,
    pcr_digest: Digest,
) -> Result<PreparedKey, EvidenceError> {
    let auth_policy = policy_pcr(HashAlgorithm::Sha256, &policy.selection(), &pcr_digest);
    let key = tpm.create_credential_key(&auth_policy).await?;
    Ok(PreparedKey { key, policy, pcr_digest })
}

async fn request_certificate(
    tpm: &Tpm,
    attestation_key: &AkBlob,
    prepared: &PreparedKey,
    nonce: &Nonce,
) -> Result<CertificateRequestBlob, EvidenceError> {
    let extra_data = CertifyStatement::extra_data(nonce);
    let statement = tpm.certify(attestation_key, &prepared.key, extra_data.as_bytes()).await?;
    let unsigned = UnsignedRequest::new(prepared.key.public(), &statement.attest, &statement.signature)?;
    let signature = tpm.sign(&prepared.key, &prepared.policy.selection(), &unsigned.digest()).await?;
    let (r, s) = signature.split_at(32);
    let request = unsigned.assemble(r, s)?;
    Blob::new(request).ok_or(EvidenceError::TooLong { what: "certificate request" })
}

#[cfg(test)]
mod tests {
    use rootbound_common::crypto::hash;
    use rootbound_common::id::NodeId;
    use rootbound_common::tpm::{PcrIndex, PcrSelection, PcrSet};
    use rootbound_common::wire::v1::LogsAsked;

    use super::*;
    use crate::keep::SavedKey;

    fn pcrs(indices: &[u8]) -> PcrSet {
        indices.iter().filter_map(|index| PcrIndex::new(*index)).collect()
    }

    fn policy(indices: &[u8]) -> CredentialPolicy {
        CredentialPolicy { bank: HashAlgorithm::Sha256, pcrs: pcrs(indices) }
    }

    fn challenge(nonce: usize, selected: &[u8], credential_policy: CredentialPolicy) -> Challenge {
        Challenge {
            token: Blob::new(vec![1]).unwrap(),
            nonce: Blob::new(vec![7; nonce]).unwrap(),
            selection: PcrSelection::of_bank(HashAlgorithm::Sha256, pcrs(selected)),
            credential_policy,
            logs: LogsAsked::default(),
            attest_in: 0,
            expires_in: 60,
        }
    }

    #[test]
    fn challenge_that_no_tpm_can_answer_sensibly_is_refused() {
        assert!(check(&challenge(32, &[0, 7], policy(&[7]))).is_ok());
        assert!(matches!(
            check(&challenge(31, &[0, 7], policy(&[7]))),
            Err(EvidenceError::Nonce { length: 31 })
        ));
        assert!(matches!(check(&challenge(0, &[0], policy(&[0]))), Err(EvidenceError::Nonce { length: 0 })));
        assert!(matches!(check(&challenge(32, &[], policy(&[7]))), Err(EvidenceError::NothingSelected)));
        let sha1 = CredentialPolicy { bank: HashAlgorithm::Sha1, ..policy(&[0]) };
        for bad in [policy(&[]), policy(&[1]), policy(&[0, 1]), sha1] {
            let refused = check(&challenge(32, &[0, 7], bad));
            assert!(matches!(refused, Err(EvidenceError::CredentialPolicy)), "{bad:?}");
        }
    }

    #[test]
    fn credential_is_asked_for_when_there_is_none_that_works_and_lasts() {
        let digest = |value: &[u8]| hash(HashAlgorithm::Sha256, &[value]);
        let credential = Credential {
            node: NodeId::from_bytes([0; 32]),
            enrolled_at: Timestamp::from_millis(0),
            key: SavedKey { public: Blob::new(vec![]).unwrap(), private: Blob::new(vec![]).unwrap() },
            policy: policy(&[0, 7]),
            pcr_digest: Blob::new(digest(b"boot").as_bytes().to_vec()).unwrap(),
            certificate_chain: String::new(),
            trust_bundle: String::new(),
            not_after: Timestamp::from_millis(300),
            renew_at: Timestamp::from_millis(200),
        };
        let at = Timestamp::from_millis;
        for (credential, policy, state, now, expected) in [
            (None, policy(&[0, 7]), "boot", 0, Some(Occasion::First)),
            (Some(&credential), policy(&[0, 7]), "boot", 199, None),
            (Some(&credential), policy(&[0, 7]), "boot", 200, Some(Occasion::RenewalDue)),
            (Some(&credential), policy(&[0, 7]), "drift", 0, Some(Occasion::StateChanged)),
            (Some(&credential), policy(&[0]), "boot", 0, Some(Occasion::StateChanged)),
            (Some(&credential), policy(&[0]), "drift", 400, Some(Occasion::StateChanged)),
        ] {
            let occasion = Occasion::of(credential, policy, &digest(state.as_bytes()), at(now));
            assert_eq!(occasion, expected, "{policy:?} {state} {now}");
        }
    }
}
