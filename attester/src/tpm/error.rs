//! What can go wrong with a TPM, told apart by what has to happen next.

use std::time::Duration;

use super::{EkKind, ResponseCode};

/// Why the TPM did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TpmError {
    /// Nobody answers at the other end of the transport.
    #[error("the TPM cannot be reached ({operation}: {code})")]
    Unreachable {
        /// The command.
        operation: &'static str,
        /// As libtss2 says it.
        code: ResponseCode,
    },
    /// The TPM has not been started up, which firmware does at boot.
    #[error("the TPM has not been started up ({operation})")]
    NotStarted {
        /// The command.
        operation: &'static str,
    },
    /// The TPM failed a self-test and refuses everything.
    #[error("the TPM is in failure mode ({operation})")]
    FailureMode {
        /// The command.
        operation: &'static str,
    },
    /// The TPM does not know an object or session any more that it had a moment ago, and again when asked anew.
    #[error("the TPM keeps being reset ({operation}: {code})")]
    WasReset {
        /// The command.
        operation: &'static str,
        /// As the TPM says it.
        code: ResponseCode,
    },
    /// The TPM was busy each time.
    #[error("the TPM is busy ({operation}: {code}, {attempts} attempts)")]
    Busy {
        /// The command.
        operation: &'static str,
        /// As the TPM said it last.
        code: ResponseCode,
        /// How often it was tried.
        attempts: u32,
    },
    /// PCRs moved each time between two commands that have to see the same values.
    #[error("PCRs keep moving ({operation}, {attempts} attempts)")]
    PcrsMoving {
        /// The command.
        operation: &'static str,
        /// How often it was tried.
        attempts: u32,
    },
    /// More requests wait for the TPM than it makes sense to queue.
    #[error("too many requests wait for the TPM")]
    Overloaded,
    /// No answer in time; the request may still be served, its answer is dropped.
    #[error("no answer from the TPM within {after:?}")]
    Timeout {
        /// The limit.
        after: Duration,
    },
    /// Too many failed authorizations, or unclean stops while a DA-protected object was in use.
    #[error("the TPM is in dictionary-attack lockout ({operation})")]
    Lockout {
        /// The command.
        operation: &'static str,
    },
    /// No slot is left for an object or a session: somebody else holds them.
    #[error("the TPM is out of memory ({operation}: {code})")]
    OutOfMemory {
        /// The command.
        operation: &'static str,
        /// Which memory.
        code: ResponseCode,
    },
    /// The PCRs are not those that the key is bound to.
    #[error(
        "the key's policy is not satisfied: the PCRs differ from those it is bound to ({operation}: {code})"
    )]
    PolicyFailed {
        /// The command.
        operation: &'static str,
        /// As the TPM says it.
        code: ResponseCode,
    },
    /// A password is wanted that this system does not have.
    #[error("authorization refused: a hierarchy or key has a password ({operation}: {code})")]
    AuthorizationFailed {
        /// The command.
        operation: &'static str,
        /// As the TPM says it.
        code: ResponseCode,
    },
    /// The key was made by another TPM, or before this one was cleared.
    #[error("the key does not belong to this TPM, or the TPM was cleared since{}", in_brackets(*code))]
    ForeignKey {
        /// As the TPM says it; nothing where it makes another key instead.
        code: Option<ResponseCode>,
    },
    /// What was sent to be activated was not made for this EK and this AK.
    #[error("the credential was not made for this TPM's EK and this AK ({code})")]
    ForeignCredential {
        /// As the TPM says it.
        code: ResponseCode,
    },
    /// The TPM lacks a command or an algorithm.
    #[error("the TPM does not support this ({operation}: {code})")]
    Unsupported {
        /// The command.
        operation: &'static str,
        /// What it lacks.
        code: ResponseCode,
    },
    /// The TPM cannot make an EK of that kind.
    #[error("the TPM has no {0} endorsement key")]
    NoEndorsementKey(EkKind),
    /// Another answer than success.
    #[error("the TPM refuses ({operation}: {code})")]
    Refused {
        /// The command.
        operation: &'static str,
        /// As the TPM says it.
        code: ResponseCode,
    },
    /// libtss2 or its binding does not go along.
    #[error("the TPM software stack fails ({operation}: {detail})")]
    Stack {
        /// The command.
        operation: &'static str,
        /// In its words.
        detail: String,
    },
    /// An answer that contradicts another one or itself.
    #[error("the TPM's answer does not make sense: {0}")]
    Inconsistent(&'static str),
    /// The caller asked for something that no TPM does.
    #[error("{0}")]
    InvalidArgument(&'static str),
    /// The configuration cannot be expressed to libtss2.
    #[error("the TPM's address cannot be used: {0}")]
    Address(String),
    /// The thread that owns the TPM has ended.
    #[error("the TPM's thread has ended")]
    Stopped,
}

/// What a [`TpmError`] means for the machine: the four things that must not be mixed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consequence {
    /// Nothing is known to be wrong with the machine or its keys: it *cannot attest* now, and tries again later.
    CannotAttestNow,
    /// It cannot attest until an operator acts; trying again later does no harm.
    NeedsOperator,
    /// The key is lost: make new ones, that is, enrol again.
    KeyLost,
    /// The machine booted or became something else: the key stays unusable, attest anew for another one.
    StateChanged,
}

impl TpmError {
    /// What this means for the machine.
    #[must_use]
    pub const fn consequence(&self) -> Consequence {
        match self {
            Self::Unreachable { .. }
            | Self::NotStarted { .. }
            | Self::WasReset { .. }
            | Self::Busy { .. }
            | Self::PcrsMoving { .. }
            | Self::Overloaded
            | Self::Timeout { .. }
            | Self::Lockout { .. }
            | Self::OutOfMemory { .. } => Consequence::CannotAttestNow,
            Self::FailureMode { .. }
            | Self::AuthorizationFailed { .. }
            | Self::Unsupported { .. }
            | Self::NoEndorsementKey(_)
            | Self::Refused { .. }
            | Self::Stack { .. }
            | Self::Inconsistent(_)
            | Self::InvalidArgument(_)
            | Self::Address(_)
            | Self::Stopped => Consequence::NeedsOperator,
            Self::ForeignKey { .. } | Self::ForeignCredential { .. } => Consequence::KeyLost,
            Self::PolicyFailed { .. } => Consequence::StateChanged,
        }
    }

    /// What an operator can do about it.
    #[must_use]
    pub const fn advice(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } | Self::Address(_) => {
                "check the [tpm] section, that the device exists, and that this user may open it (group tss)"
            }
            Self::NotStarted { .. } => "the firmware did not start the TPM: check its settings and reboot",
            Self::FailureMode { .. } => {
                "power the machine off and on; a TPM that stays in failure mode is broken"
            }
            Self::Busy { .. }
            | Self::WasReset { .. }
            | Self::Overloaded
            | Self::Timeout { .. }
            | Self::PcrsMoving { .. } => "nothing, if it passes; else see what else uses the TPM",
            Self::Lockout { .. } => {
                "wait for the lockout to end, or `tpm2_dictionarylockout --clear-lockout` with the lockout password"
            }
            Self::OutOfMemory { .. } => {
                "another program holds the TPM's slots: use /dev/tpmrm0, or flush what it left (`tpm2_flushcontext -t`)"
            }
            Self::PolicyFailed { .. } => {
                "nothing: the machine changed since the key was made; it will attest anew"
            }
            Self::AuthorizationFailed { .. } => {
                "the owner and endorsement hierarchies need empty passwords (`tpm2_changeauth -c owner`)"
            }
            Self::ForeignKey { .. } | Self::ForeignCredential { .. } => {
                "nothing: the attester makes new keys and enrols again"
            }
            Self::Unsupported { .. } | Self::NoEndorsementKey(_) => {
                "a TPM 2.0 with RSA-2048 or NIST P-256 is needed; look for a firmware update"
            }
            Self::Refused { .. } | Self::Stack { .. } | Self::Inconsistent(_) => {
                "look the code up with tpm2_rc_decode; look for a firmware or libtss2 update"
            }
            Self::InvalidArgument(_) | Self::Stopped => "this is a defect of the attester: please report it",
        }
    }
}

fn in_brackets(code: Option<ResponseCode>) -> String {
    code.map(|code| format!(" ({code})")).unwrap_or_default()
}
