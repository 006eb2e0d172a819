//! Short forms of what many tests ask of a TPM.

use rootbound_attester::tpm::{AkBlob, CredentialKeyBlob, Statement, Tpm};
use rootbound_common::crypto::{VerifyingKey, hash};
use rootbound_common::tpm::{
    Attest, HashAlgorithm, PcrIndex, PcrSelection, Public, Signature, SignatureScheme, SignatureValue,
    policy_pcr,
};

/// PCRs of the SHA-256 bank.
///
/// # Panics
/// Where one is over 23.
#[must_use]
pub fn sha256_pcrs(pcrs: &[u8]) -> PcrSelection {
    bank_pcrs(HashAlgorithm::Sha256, pcrs)
}

/// PCRs of a bank.
///
/// # Panics
/// Where one is over 23.
#[must_use]
pub fn bank_pcrs(bank: HashAlgorithm, pcrs: &[u8]) -> PcrSelection {
    let pcrs = pcrs.iter().map(|pcr| PcrIndex::new(*pcr).expect("0 to 23")).collect();
    PcrSelection::of_bank(bank, pcrs)
}

/// A credential key that is bound to the values that these PCRs have now.
///
/// # Panics
/// Where the TPM does not go along.
pub async fn bound_key(tpm: &Tpm, selection: &PcrSelection) -> CredentialKeyBlob {
    let values = tpm.read_pcrs(selection).await.expect("PCR values");
    let digest = values.digest(selection, HashAlgorithm::Sha256).expect("all of them");
    let policy = policy_pcr(HashAlgorithm::Sha256, selection, &digest);
    tpm.create_credential_key(&policy).await.expect("a credential key")
}

/// The statement, parsed, if the AK signed it.
///
/// # Panics
/// Where it did not.
pub fn signed_statement<'s>(ak: &AkBlob, statement: &'s Statement) -> Attest<'s> {
    let signature = Signature::parse(&statement.signature).expect("a TPMT_SIGNATURE");
    VerifyingKey::of_public_area(ak.public())
        .expect("an AK verifies")
        .verify(&statement.attest, &signature)
        .expect("the AK's signature");
    Attest::parse(&statement.attest).expect("a TPMS_ATTEST")
}

/// Signs a message with a credential key, on whatever TPM, and checks the signature.
///
/// # Panics
/// Where the signature does not verify.
pub async fn sign(
    tpm: &Tpm,
    key: &CredentialKeyBlob,
    policy: &PcrSelection,
    message: &[u8],
) -> Result<(), rootbound_attester::tpm::TpmError> {
    let digest = hash(HashAlgorithm::Sha256, &[message]);
    let digest = digest.as_bytes().try_into().expect("32 bytes");
    let signature = tpm.sign(key, policy, digest).await?;
    verify_p256(key.public(), message, &signature);
    Ok(())
}

/// Checks r ‖ s over a message.
///
/// # Panics
/// Where it does not verify.
pub fn verify_p256(public: &Public, message: &[u8], signature: &[u8; 64]) {
    let (r, s) = signature.split_at(32);
    let scheme = SignatureScheme::Ecdsa(HashAlgorithm::Sha256);
    let signature = Signature { scheme, value: SignatureValue::Ecdsa { r, s } };
    VerifyingKey::of_public_area(public)
        .expect("the key verifies")
        .verify(message, &signature)
        .expect("the key's signature");
}
