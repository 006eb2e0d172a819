//! Policy digests, computed without a TPM.

use super::{HashAlgorithm, PcrSelection};
use crate::crypto::{Digest, hash};

/// TPM_CC_PolicyPCR (Part 2, table 12).
const TPM_CC_POLICY_PCR: u32 = 0x0000_017f;

/// The authPolicy of an object whose whole policy is one TPM2_PolicyPCR (Part 3, 23.7):
/// `H(0…0 ‖ TPM_CC_PolicyPCR ‖ TPML_PCR_SELECTION ‖ pcrDigest)`, all in `algorithm`, the object's nameAlg.
///
/// `pcr_digest` is the hash over the selected values, in the same algorithm: [`super::PcrValues::digest`].
#[must_use]
pub fn policy_pcr(algorithm: HashAlgorithm, selection: &PcrSelection, pcr_digest: &Digest) -> Digest {
    let mut marshalled = Vec::with_capacity(64);
    selection.marshal(&mut marshalled);
    let start = [0u8; 64];
    let start = start.get(..algorithm.size()).unwrap_or(&start);
    hash(algorithm, &[start, &TPM_CC_POLICY_PCR.to_be_bytes(), &marshalled, pcr_digest.as_bytes()])
}
