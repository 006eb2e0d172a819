//! TPMS_ATTEST, field by field.

use rootbound_common::tpm::{ClockState, Name, PcrSelection, TPM_GENERATED, put_sized};

use super::SoftwareKey;

/// TPMI_ST_ATTEST (Part 2, table 135).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// TPM2_NV_Certify of contents.
    Nv,
    /// TPM2_GetCommandAuditDigest.
    CommandAudit,
    /// TPM2_GetSessionAuditDigest.
    SessionAudit,
    /// TPM2_Certify.
    Certify,
    /// TPM2_Quote.
    Quote,
    /// TPM2_GetTime.
    Time,
    /// TPM2_CertifyCreation.
    Creation,
    /// TPM2_NV_Certify of a digest.
    NvDigest,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Nv,
        Self::CommandAudit,
        Self::SessionAudit,
        Self::Certify,
        Self::Quote,
        Self::Time,
        Self::Creation,
        Self::NvDigest,
    ];

    /// The constant on the wire.
    #[must_use]
    pub const fn tpm_id(self) -> u16 {
        match self {
            Self::Nv => 0x8014,
            Self::CommandAudit => 0x8015,
            Self::SessionAudit => 0x8016,
            Self::Certify => 0x8017,
            Self::Quote => 0x8018,
            Self::Time => 0x8019,
            Self::Creation => 0x801a,
            Self::NvDigest => 0x801c,
        }
    }
}

/// A TPMS_ATTEST (Part 2, table 136) before it is signed; change any field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// TPM_GENERATED_VALUE, or a lie.
    pub magic: u32,
    /// TPMI_ST_ATTEST as on the wire.
    pub kind: u16,
    /// Content of the TPM2B_NAME.
    pub qualified_signer: Vec<u8>,
    /// Content of the TPM2B_DATA.
    pub extra_data: Vec<u8>,
    /// TPMS_CLOCK_INFO.
    pub clock: ClockState,
    /// firmwareVersion.
    pub firmware_version: u64,
    /// TPMU_ATTEST, marshalled.
    pub attested: Vec<u8>,
}

/// A statement with its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// TPMS_ATTEST.
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE.
    pub signature: Vec<u8>,
}

impl Statement {
    /// What every honest statement begins with.
    pub const TPM_GENERATED: u32 = TPM_GENERATED;

    /// TPMS_QUOTE_INFO, with any digest.
    #[must_use]
    pub fn quoted(selection: &PcrSelection, digest: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        selection.marshal(&mut out);
        put_sized(&mut out, digest);
        out
    }

    /// TPMS_CERTIFY_INFO.
    #[must_use]
    pub fn certified(name: &Name, qualified_name: &Name) -> Vec<u8> {
        let mut out = Vec::new();
        put_sized(&mut out, &name.to_bytes());
        put_sized(&mut out, &qualified_name.to_bytes());
        out
    }

    /// TPMS_CREATION_INFO.
    #[must_use]
    pub fn created(name: &Name, creation_hash: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_sized(&mut out, &name.to_bytes());
        put_sized(&mut out, creation_hash);
        out
    }

    /// The TPMS_ATTEST.
    #[must_use]
    pub fn marshal(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(192);
        out.extend(self.magic.to_be_bytes());
        out.extend(self.kind.to_be_bytes());
        put_sized(&mut out, &self.qualified_signer);
        put_sized(&mut out, &self.extra_data);
        out.extend(self.clock.clock.to_be_bytes());
        out.extend(self.clock.reset_count.to_be_bytes());
        out.extend(self.clock.restart_count.to_be_bytes());
        out.push(u8::from(self.clock.safe));
        out.extend(self.firmware_version.to_be_bytes());
        out.extend(&self.attested);
        out
    }

    /// Signs the TPMS_ATTEST as it stands.
    #[must_use]
    pub fn sign(&self, key: &SoftwareKey) -> Signed {
        let attest = self.marshal();
        let signature = key.sign(&attest);
        Signed { attest, signature }
    }
}
