//! Why a boot log proves nothing.

use rootbound_common::crypto::Digest;
use rootbound_common::tpm::{HashAlgorithm, ParseError, PcrIndex};

/// Why a boot log is refused. First what makes bytes no log, then what makes a log no evidence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootLogError {
    /// Nothing was measured, or nothing was sent.
    #[error("boot log is empty")]
    Empty,
    /// More bytes than any firmware writes.
    #[error("boot log has {length} bytes, at most {limit} are accepted")]
    TooLong {
        /// Its length.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// More events than any boot has.
    #[error("boot log has more than {limit} events")]
    TooManyEvents {
        /// The limit.
        limit: usize,
    },
    /// The first event lies about what follows.
    #[error("boot log's Spec ID event: {0}")]
    SpecId(#[source] ParseError),
    /// An event is cut off, or a length in it is wrong.
    #[error("event {event}: {error}")]
    Event {
        /// Its place, 0 for the first.
        event: usize,
        /// What is wrong.
        #[source]
        error: ParseError,
    },
    /// What follows the last event is neither an event nor padding.
    #[error("event {event}: {left} bytes that are neither an event nor padding")]
    Garbage {
        /// The place where an event should be.
        event: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// An event names a PCR that there is not.
    #[error("event {event} is for PCR {pcr}, and there are 24")]
    NoSuchPcr {
        /// Its place.
        event: usize,
        /// The number.
        pcr: u32,
    },
    /// The locality of TPM2_Startup is malformed, stated twice, or stated after PCR 0 was extended.
    #[error("event {event}: StartupLocality {rule}")]
    StartupLocality {
        /// Its place.
        event: usize,
        /// The rule that is broken.
        rule: &'static str,
    },
    /// No log was sent.
    #[error("there is no boot log")]
    NoLog,
    /// More logs than anybody resumes.
    #[error("{count} boot logs, at most {limit} are accepted")]
    TooManyLogs {
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// Nothing is to be explained.
    #[error("no PCR is to be explained by the boot log")]
    NothingNeeded,
    /// The log has no digests of the quoted bank.
    #[error("boot log has no {bank} digests")]
    BankNotInLog {
        /// The bank.
        bank: HashAlgorithm,
    },
    /// The TPM vouches for no value to compare with.
    #[error("{bank} PCR {pcr} was not quoted")]
    NotQuoted {
        /// The bank.
        bank: HashAlgorithm,
        /// The PCR.
        pcr: PcrIndex,
    },
    /// The log is silent about a PCR: nothing was measured, or its events were removed (CVE-2022-0317).
    #[error("boot log has no event for PCR {pcr}")]
    NoEvents {
        /// The PCR.
        pcr: PcrIndex,
    },
    /// An event does not say what it extended the quoted bank with.
    #[error("event {event} for PCR {pcr} has no {bank} digest")]
    MissingDigest {
        /// Its place.
        event: usize,
        /// The PCR.
        pcr: PcrIndex,
        /// The bank.
        bank: HashAlgorithm,
    },
    /// The events are not those that the TPM was told.
    #[error("boot log gives {bank} PCR {pcr} the value {replayed}, quoted is {quoted}")]
    Replay {
        /// The bank.
        bank: HashAlgorithm,
        /// The PCR.
        pcr: PcrIndex,
        /// By the log.
        replayed: Box<Digest>,
        /// By the TPM.
        quoted: Box<Digest>,
    },
}

impl BootLogError {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Empty => "boot_log_empty",
            Self::TooLong { .. } => "boot_log_too_long",
            Self::TooManyEvents { .. } => "boot_log_too_many_events",
            Self::SpecId(_) => "boot_log_spec_id",
            Self::Event { .. } => "boot_log_event_malformed",
            Self::Garbage { .. } => "boot_log_trailing_garbage",
            Self::NoSuchPcr { .. } => "boot_log_no_such_pcr",
            Self::StartupLocality { .. } => "boot_log_startup_locality",
            Self::NoLog => "boot_log_missing",
            Self::TooManyLogs { .. } => "boot_log_too_many",
            Self::NothingNeeded => "boot_log_nothing_needed",
            Self::BankNotInLog { .. } => "boot_log_bank_missing",
            Self::NotQuoted { .. } => "boot_log_pcr_not_quoted",
            Self::NoEvents { .. } => "boot_log_no_events",
            Self::MissingDigest { .. } => "boot_log_digest_missing",
            Self::Replay { .. } => "boot_log_replay_mismatch",
        }
    }
}
