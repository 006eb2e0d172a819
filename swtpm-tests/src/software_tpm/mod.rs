//! A TPM made of software keys: it states whatever a test wants stated.
//!
//! No command interface, no policy, no lockout: [`SoftwareTpm`] fabricates the bytes that a TPM would return, honest by
//! default and wrong in any single place where a test says so. Every field of a [`Statement`] and of a [`Template`] is
//! open. Where a test needs a TPM that refuses, it needs swtpm.
//!
//! ```
//! # use rootbound_swtpm_tests::software_tpm::SoftwareTpm;
//! # use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrSelection};
//! let tpm = SoftwareTpm::new();
//! let selection = PcrSelection::of_bank(HashAlgorithm::Sha256, (0..8).filter_map(PcrIndex::new).collect());
//! let honest = tpm.quote(&selection, b"nonce").sign(&tpm.attestation_key);
//! let mut forged = tpm.quote(&selection, b"nonce");
//! forged.magic = 0;
//! let forged = forged.sign(&tpm.attestation_key);
//! # assert_ne!(honest.attest, forged.attest);
//! ```

mod answer;
mod endorsement;
mod key;
mod statement;

pub use endorsement::EndorsementKey;
pub use key::{SoftwareKey, Template};
pub use statement::{Kind, Signed, Statement};

use rootbound_common::crypto::{Digest, hash};
use rootbound_common::tpm::{ClockState, HashAlgorithm, Name, PcrIndex, PcrSelection, PcrValues, policy_pcr};

use crate::swtpm::{MEASURED_PCRS, measured};

/// TPM_RH_ENDORSEMENT: the Qualified Name of the endorsement hierarchy.
pub const ENDORSEMENT_HIERARCHY: [u8; 4] = [0x40, 0x00, 0x00, 0x0b];

/// A machine's TPM, after a boot that left every PCR of the SHA-256 bank at its reset value.
#[derive(Debug)]
pub struct SoftwareTpm {
    /// EK, a primary object of the endorsement hierarchy.
    pub endorsement_key: EndorsementKey,
    /// AK, a primary object of the endorsement hierarchy.
    pub attestation_key: SoftwareKey,
    /// The clock that statements carry.
    pub clock: ClockState,
    /// The firmware version that statements carry.
    pub firmware_version: u64,
    /// The values that quotes are over.
    pub pcrs: PcrValues,
}

impl Default for SoftwareTpm {
    fn default() -> Self {
        Self::new()
    }
}

impl SoftwareTpm {
    /// A TPM with a P-256 EK and an ECDSA P-256 AK.
    #[must_use]
    pub fn new() -> Self {
        Self::with_keys(EndorsementKey::p256(), SoftwareKey::p256(Template::attestation_p256()))
    }

    /// A TPM with an RSA-2048 EK and an RSASSA-2048 AK.
    #[must_use]
    pub fn with_rsa() -> Self {
        Self::with_keys(EndorsementKey::rsa2048(), SoftwareKey::rsa2048(Template::attestation_rsa()))
    }

    /// A TPM with P-256 keys, after the boot of seed 0 that a [`Swtpm`](crate::Swtpm) measures: both show the same
    /// values.
    ///
    /// # Panics
    /// Never: the measured PCRs are PCRs.
    #[must_use]
    pub fn booted(banks: &[HashAlgorithm]) -> Self {
        let mut tpm = Self::new();
        for pcr in MEASURED_PCRS {
            let index = PcrIndex::new(pcr).expect("a PCR number");
            for bank in banks {
                tpm.extend(index, hash(*bank, &[measured(0, pcr).as_bytes()]));
            }
        }
        tpm
    }

    /// A TPM with these keys.
    #[must_use]
    pub fn with_keys(endorsement_key: EndorsementKey, attestation_key: SoftwareKey) -> Self {
        let mut pcrs = PcrValues::default();
        for index in (0..PcrIndex::COUNT).filter_map(PcrIndex::new) {
            pcrs.insert(index, after_reset(HashAlgorithm::Sha256, index));
        }
        Self {
            endorsement_key,
            attestation_key,
            clock: ClockState { clock: 60_000, reset_count: 7, restart_count: 0, safe: true },
            firmware_version: 0x0001_0002_0003_0004,
            pcrs,
        }
    }

    /// TPM2_PCR_Extend of one bank.
    pub fn extend(&mut self, index: PcrIndex, digest: Digest) {
        let bank = digest.algorithm();
        let old = self.pcrs.get(bank, index).copied().unwrap_or(after_reset(bank, index));
        self.pcrs.insert(index, hash(bank, &[old.as_bytes(), digest.as_bytes()]));
    }

    /// A reboot: PCRs reset in the banks in use, resetCount one higher.
    pub fn reboot(&mut self) {
        let indices: Vec<_> = self.pcrs.iter().map(|(bank, index, _)| (bank, index)).collect();
        for (bank, index) in indices {
            self.pcrs.insert(index, after_reset(bank, index));
        }
        self.clock.reset_count += 1;
        self.clock.restart_count = 0;
        self.clock.clock += 1_000;
    }

    /// The values of the selected PCRs, as they go with a quote.
    #[must_use]
    pub fn values(&self, selection: &PcrSelection) -> PcrValues {
        let mut values = PcrValues::default();
        for (bank, index, value) in self.pcrs.iter() {
            if selection.pcrs(bank).contains(index) {
                values.insert(index, *value);
            }
        }
        values
    }

    /// The AK's Qualified Name.
    #[must_use]
    pub fn qualified_signer(&self) -> Name {
        self.attestation_key.name().qualified_under(&ENDORSEMENT_HIERARCHY)
    }

    /// What TPM2_Quote states by the AK; [`Statement::sign`] signs it.
    ///
    /// # Panics
    /// Where a selected PCR has no value.
    #[must_use]
    pub fn quote(&self, selection: &PcrSelection, extra_data: &[u8]) -> Statement {
        let algorithm = self.attestation_key.scheme_hash();
        let digest = self.values(selection).digest(selection, algorithm).expect("values of the selection");
        self.statement(Kind::Quote, extra_data, Statement::quoted(selection, digest.as_bytes()))
    }

    /// What TPM2_Certify of a child of the EK states by the AK; [`Statement::sign`] signs it.
    #[must_use]
    pub fn certify(&self, key: &SoftwareKey, extra_data: &[u8]) -> Statement {
        let parent = self.endorsement_key.name().qualified_under(&ENDORSEMENT_HIERARCHY);
        let qualified = key.name().qualified_under(&parent.to_bytes());
        self.statement(Kind::Certify, extra_data, Statement::certified(&key.name(), &qualified))
    }

    /// A statement of any kind, with this TPM's signer, clock and firmware.
    #[must_use]
    pub fn statement(&self, kind: Kind, extra_data: &[u8], attested: Vec<u8>) -> Statement {
        Statement {
            magic: Statement::TPM_GENERATED,
            kind: kind.tpm_id(),
            qualified_signer: self.qualified_signer().to_bytes(),
            extra_data: extra_data.to_vec(),
            clock: self.clock,
            firmware_version: self.firmware_version,
            attested,
        }
    }

    /// The authPolicy of one TPM2_PolicyPCR over the present values, for a key with nameAlg SHA-256.
    ///
    /// # Panics
    /// Where a selected PCR has no value.
    #[must_use]
    pub fn policy(&self, selection: &PcrSelection) -> Digest {
        let algorithm = HashAlgorithm::Sha256;
        let digest = self.values(selection).digest(selection, algorithm).expect("values of the selection");
        policy_pcr(algorithm, selection, &digest)
    }

    /// A new credential key: signs by ECDSA P-256, used by PolicyPCR over the present values only.
    ///
    /// # Panics
    /// Where a selected PCR has no value.
    #[must_use]
    pub fn credential_key(&self, selection: &PcrSelection) -> SoftwareKey {
        SoftwareKey::p256(Template::credential(self.policy(selection).as_bytes()))
    }
}

/// What a PCR holds after a reset: ones for those of dynamic launch, zeros for the rest (PC Client profile, 4.6).
fn after_reset(bank: HashAlgorithm, index: PcrIndex) -> Digest {
    let byte = if (17..=22).contains(&index.get()) { 0xff } else { 0 };
    Digest::from_slice(bank, &vec![byte; bank.size()]).unwrap_or(Digest::zero(bank))
}

#[cfg(test)]
mod tests {
    use rootbound_common::crypto::VerifyingKey;
    use rootbound_common::tpm::{Attest, Attested, Public, Signature};

    use super::*;

    fn selection() -> PcrSelection {
        PcrSelection::of_bank(
            HashAlgorithm::Sha256,
            [0, 7, 10, 17].into_iter().filter_map(PcrIndex::new).collect(),
        )
    }

    #[test]
    fn quotes_and_certificates_of_both_kinds_of_key_verify() {
        for mut tpm in [SoftwareTpm::new(), SoftwareTpm::with_rsa()] {
            tpm.extend(PcrIndex::new(7).unwrap(), hash(HashAlgorithm::Sha256, &[b"event"]));
            let public = Public::parse(&tpm.attestation_key.public_area()).unwrap();
            let key = VerifyingKey::of_public_area(&public).unwrap();

            let quote = tpm.quote(&selection(), b"nonce").sign(&tpm.attestation_key);
            key.verify(&quote.attest, &Signature::parse(&quote.signature).unwrap()).unwrap();
            let attest = Attest::parse(&quote.attest).unwrap();
            assert_eq!((attest.extra_data, attest.clock), (&b"nonce"[..], tpm.clock));
            assert_eq!(attest.qualified_signer, tpm.qualified_signer());
            let digest = tpm.values(&selection()).digest(&selection(), HashAlgorithm::Sha256).unwrap();
            assert_eq!(
                attest.attested,
                Attested::Quote { selection: selection(), pcr_digest: digest.as_bytes() }
            );

            let credential = tpm.credential_key(&selection());
            let certify = tpm.certify(&credential, b"other").sign(&tpm.attestation_key);
            key.verify(&certify.attest, &Signature::parse(&certify.signature).unwrap()).unwrap();
            let Attested::Certify { name, .. } = Attest::parse(&certify.attest).unwrap().attested else {
                panic!("not a certify statement");
            };
            assert_eq!(name, Public::parse(&credential.public_area()).unwrap().name());
        }
    }

    #[test]
    fn reboot_resets_pcrs_and_counts() {
        let (mut tpm, before) = (SoftwareTpm::new(), SoftwareTpm::new());
        tpm.extend(PcrIndex::new(0).unwrap(), hash(HashAlgorithm::Sha256, &[b"event"]));
        assert_ne!(tpm.pcrs, before.pcrs);
        tpm.reboot();
        assert_eq!(tpm.pcrs, before.pcrs);
        assert_eq!(tpm.clock.reset_count, before.clock.reset_count + 1);
    }
}
