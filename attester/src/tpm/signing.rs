//! Signing with a credential key: the TPM signs only while the PCRs are those of the key's policy.

use rootbound_common::tpm::{PcrSelection, Signature, SignatureValue};
use tss_esapi::constants::tss::{TPM2_RH_NULL, TPM2_ST_HASHCHECK};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::structures::{Digest as TssDigest, HashcheckTicket, SignatureScheme};
use tss_esapi::traits::Marshall;
use tss_esapi::tss2_esys::TPMT_TK_HASHCHECK;

use super::device::{Device, NO_SESSION};
use super::keys::{KeyRing, stack};
use super::response::Class;
use super::{CredentialKeyBlob, TpmError, pcr};

/// How often a signature is tried anew because some PCR moved between TPM2_PolicyPCR and TPM2_Sign.
const ATTEMPTS: u32 = 10;

/// Signs a SHA-256 digest by ECDSA P-256; gives r and s, 32 bytes each.
///
/// A session counts for one use, so each attempt takes a new one. TPM_RC_PCR_CHANGED says that *any* PCR of the TPM
/// moved, also one that the policy leaves out, as PCR 10 does while a machine works; the next attempt finds out
/// whether it was one that counts.
pub(super) fn sign(
    device: &Device,
    ring: &mut KeyRing,
    key: &CredentialKeyBlob,
    policy: &PcrSelection,
    digest: &[u8; 32],
) -> Result<[u8; 64], TpmError> {
    let list = pcr::to_tss(policy)?;
    let digest = TssDigest::try_from(digest.as_slice()).map_err(|error| stack("TPM2_Sign", &error))?;
    let ticket = TPMT_TK_HASHCHECK { tag: TPM2_ST_HASHCHECK, hierarchy: TPM2_RH_NULL, ..Default::default() };
    let loaded = ring.load_credential_key(device, key)?;
    for _ in 0..ATTEMPTS {
        let session = device.policy_session(HashingAlgorithm::Sha256)?;
        device.run("TPM2_PolicyPCR", NO_SESSION, |context| {
            context.policy_pcr(session.policy(), TssDigest::default(), list.clone())
        })?;
        let sessions = (Some(session.authorization()), None, None);
        let signed = device.run("TPM2_Sign", sessions, |context| {
            let ticket = HashcheckTicket::try_from(ticket)?;
            context.sign(loaded.key(), digest.clone(), SignatureScheme::Null, ticket)
        });
        match signed {
            Ok(signature) => {
                let bytes = signature.marshall().map_err(|error| stack("TPMT_SIGNATURE", &error))?;
                return fixed_size(&bytes);
            }
            Err(failure) if failure.class == Class::PcrChanged => {}
            Err(failure) => return Err(failure.into()),
        }
    }
    Err(TpmError::PcrsMoving { operation: "TPM2_Sign", attempts: ATTEMPTS })
}

/// r and s of a TPMT_SIGNATURE, padded: a TPM may leave leading zeros out.
fn fixed_size(signature: &[u8]) -> Result<[u8; 64], TpmError> {
    const BAD: TpmError = TpmError::Inconsistent("TPM2_Sign gives no ECDSA P-256 signature");
    let Ok(Signature { value: SignatureValue::Ecdsa { r, s }, .. }) = Signature::parse(signature) else {
        return Err(BAD);
    };
    let mut fixed = [0; 64];
    let (left, right) = fixed.split_at_mut(32);
    for (half, number) in [(left, r), (right, s)] {
        let start = half.len().checked_sub(number.len()).ok_or(BAD)?;
        half.get_mut(start..).ok_or(BAD)?.copy_from_slice(number);
    }
    Ok(fixed)
}

#[cfg(test)]
mod tests {
    use rootbound_common::tpm::{HashAlgorithm, SignatureScheme};

    use super::*;

    #[test]
    fn short_numbers_of_a_signature_are_padded_on_the_left() {
        let scheme = SignatureScheme::Ecdsa(HashAlgorithm::Sha256);
        let signature = |r, s| Signature { scheme, value: SignatureValue::Ecdsa { r, s } }.to_bytes();
        let fixed = fixed_size(&signature(&[1; 31], &[2; 32])).unwrap();
        assert_eq!(fixed, [&[0][..], &[1; 31], &[2; 32]].concat()[..]);
        assert!(fixed_size(&signature(&[1; 33], &[2; 32])).is_err());
        let rsa = Signature {
            scheme: SignatureScheme::RsaSsa(HashAlgorithm::Sha256),
            value: SignatureValue::Rsa(&[1; 256]),
        };
        assert!(fixed_size(&rsa.to_bytes()).is_err());
    }
}
