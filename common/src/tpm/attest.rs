//! TPMS_ATTEST: what a TPM states and an AK signs.

use super::{HashAlgorithm, Name, ParseError, PcrSelection, Reader};

/// TPM_GENERATED_VALUE (Part 2, table 7): a restricted key signs nothing else that begins like this.
pub const TPM_GENERATED: u32 = 0xff54_4347;

/// TPMI_ST_ATTEST: the kind of statement (Part 2, table 135).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttestKind {
    /// TPM2_NV_Certify of contents.
    Nv,
    /// TPM2_NV_Certify of a digest.
    NvDigest,
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
}

impl AttestKind {
    fn from_tpm(id: u16) -> Result<Self, ParseError> {
        match id {
            0x8014 => Ok(Self::Nv),
            0x8015 => Ok(Self::CommandAudit),
            0x8016 => Ok(Self::SessionAudit),
            0x8017 => Ok(Self::Certify),
            0x8018 => Ok(Self::Quote),
            0x8019 => Ok(Self::Time),
            0x801a => Ok(Self::Creation),
            0x801c => Ok(Self::NvDigest),
            _ => Err(ParseError::Unknown { what: "attest type", id: u32::from(id) }),
        }
    }
}

/// TPMS_CLOCK_INFO with the firmware version: when, in the TPM's own counting (Part 2, table 112).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockState {
    /// Milliseconds that the TPM has been powered; survives restarts, may fall back a little after a power cut.
    pub clock: u64,
    /// TPM Resets (boots) so far.
    pub reset_count: u32,
    /// TPM Restarts or Resumes (suspends) since the last reset.
    pub restart_count: u32,
    /// `false` until `clock` is past any value that was reported before a power cut.
    pub safe: bool,
}

/// TPMU_ATTEST: the statement itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attested<'a> {
    /// TPMS_QUOTE_INFO.
    Quote {
        /// The banks and PCRs that the digest is over.
        selection: PcrSelection,
        /// The hash of their values, in the hash of the signature scheme.
        pcr_digest: &'a [u8],
    },
    /// TPMS_CERTIFY_INFO.
    Certify {
        /// The Name of the certified object.
        name: Name,
        /// Its Qualified Name.
        qualified_name: Name,
    },
    /// TPMS_CREATION_INFO.
    Creation {
        /// The Name of the created object.
        object_name: Name,
        /// The hash of its TPMS_CREATION_DATA.
        creation_hash: &'a [u8],
    },
    /// A kind that this system has no use for; its body is not looked at.
    Other(AttestKind),
}

impl Attested<'_> {
    /// The kind of statement.
    #[must_use]
    pub fn kind(&self) -> AttestKind {
        match self {
            Self::Quote { .. } => AttestKind::Quote,
            Self::Certify { .. } => AttestKind::Certify,
            Self::Creation { .. } => AttestKind::Creation,
            Self::Other(kind) => *kind,
        }
    }
}

/// TPMS_ATTEST (Part 2, table 136). Parsed is not verified: a signature over the bytes must follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attest<'a> {
    /// Qualified Name of the key that signs, as the TPM states it.
    pub qualified_signer: Name,
    /// What the caller of the command passed in: here the binding to a challenge.
    pub extra_data: &'a [u8],
    /// The TPM's clock and counters.
    pub clock: ClockState,
    /// TPM vendor's firmware version.
    pub firmware_version: u64,
    /// The statement.
    pub attested: Attested<'a>,
}

impl<'a> Attest<'a> {
    /// TPM2B_ATTEST holds at most this (Part 2, table 137: the size of the largest TPMS_ATTEST, an NV certify).
    pub const MAX: usize = 2304;

    /// Parses a TPMS_ATTEST; nothing may follow it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        if bytes.len() > Self::MAX {
            return Err(ParseError::TooLong { what: "attest", length: bytes.len(), limit: Self::MAX });
        }
        let mut reader = Reader::new(bytes);
        let magic = reader.u32("magic")?;
        if magic != TPM_GENERATED {
            return Err(ParseError::Magic { found: magic });
        }
        let kind = AttestKind::from_tpm(reader.u16("attest type")?)?;
        let qualified_signer = Name::parse(reader.sized(Name::MAX, "qualified signer")?)?;
        // TPM2B_DATA: at most a TPMT_HA (Part 2, table 76).
        let extra_data = reader.sized(66, "extraData")?;
        let clock = ClockState {
            clock: reader.u64("clock")?,
            reset_count: reader.u32("resetCount")?,
            restart_count: reader.u32("restartCount")?,
            safe: match reader.u8("safe")? {
                0 => false,
                1 => true,
                _ => return Err(ParseError::Invalid { what: "safe", rule: "TPMI_YES_NO is 0 or 1" }),
            },
        };
        let firmware_version = reader.u64("firmwareVersion")?;
        let attested = match kind {
            AttestKind::Quote => Attested::Quote {
                selection: PcrSelection::read(&mut reader)?,
                pcr_digest: reader.sized(HashAlgorithm::Sha512.size(), "PCR digest")?,
            },
            AttestKind::Certify => Attested::Certify {
                name: Name::parse(reader.sized(Name::MAX, "certified name")?)?,
                qualified_name: Name::parse(reader.sized(Name::MAX, "certified qualified name")?)?,
            },
            AttestKind::Creation => Attested::Creation {
                object_name: Name::parse(reader.sized(Name::MAX, "created name")?)?,
                creation_hash: reader.sized(HashAlgorithm::Sha512.size(), "creation hash")?,
            },
            AttestKind::Nv
            | AttestKind::NvDigest
            | AttestKind::CommandAudit
            | AttestKind::SessionAudit
            | AttestKind::Time => {
                reader.bytes(reader.rest().len(), "attested")?;
                Attested::Other(kind)
            }
        };
        reader.finish("attest")?;
        Ok(Self { qualified_signer, extra_data, clock, firmware_version, attested })
    }
}
