//! What a boot did that its rules do not expect.

use std::fmt;

use rootbound_common::crypto::{Digest, TaggedDigest};
use rootbound_common::tpm::{HashAlgorithm, PcrIndex};

use super::command_line::CommandLineFault;
use crate::evidence::boot_log::text::shown;
use crate::evidence::boot_log::{ConfigurationVariable, MeasuredEvent, SecureBootState};

/// An event as a deviation names it: where it is, what it extended the PCR with, and what the log says that it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedEvent {
    /// Its place in the log.
    pub index: usize,
    /// The PCR.
    pub pcr: PcrIndex,
    /// What it extended the PCR with.
    pub digest: Digest,
    /// What it was, in the log's words: bounded, and escaped.
    pub what: String,
}

impl NamedEvent {
    pub(super) fn of(event: &MeasuredEvent) -> Self {
        Self {
            index: event.index(),
            pcr: event.pcr(),
            digest: *event.digest(),
            what: format!("{}: {}", event.claimed_type(), event.words()),
        }
    }
}

impl fmt::Display for NamedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "event {} of PCR {} (`{}`, {})", self.index, self.pcr, self.what, TaggedDigest(self.digest))
    }
}

/// A boot that its rules do not explain, or a judgement that could not be made: both count the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootDeviation {
    /// The rules are for another bank than the history.
    #[error("boot rules are for bank {expected}, the boot log was authenticated in {found}")]
    OtherBank {
        /// Of the rules.
        expected: HashAlgorithm,
        /// Of the history.
        found: HashAlgorithm,
    },
    /// The history does not have the events of a PCR that the rules are about.
    #[error("PCR {pcr} is to be explained, and the boot log was not authenticated for it")]
    NotExplained {
        /// The PCR.
        pcr: PcrIndex,
    },
    /// Something was measured that is denied.
    #[error("{event} is denied: {label}")]
    Denied {
        /// The event.
        event: NamedEvent,
        /// The operator's word for it.
        label: String,
    },
    /// No rule accounts for an event.
    #[error("{event} is not explained by any rule")]
    Unexplained {
        /// The event.
        event: NamedEvent,
    },
    /// A part of the firmware is none of the accepted ones.
    #[error("firmware: {event} is none of the accepted")]
    FirmwareNotAccepted {
        /// The event.
        event: NamedEvent,
    },
    /// A driver is none of the accepted ones.
    #[error("driver or option ROM: {event} is none of the accepted")]
    DriverNotAccepted {
        /// The event.
        event: NamedEvent,
    },
    /// A boot application is none of the accepted ones.
    #[error("boot application: {event} is none of the accepted")]
    BootApplicationNotAccepted {
        /// The event.
        event: NamedEvent,
    },
    /// Nothing that was started is an accepted boot application.
    #[error("no accepted boot application was measured into PCR 4: what was started is not known")]
    NoBootApplication,
    /// An initrd is none of the accepted ones.
    #[error("initrd: {event} is none of the accepted")]
    InitrdNotAccepted {
        /// The event.
        event: NamedEvent,
    },
    /// No accepted initrd was measured.
    #[error("no accepted initrd was measured into PCR 9")]
    NoInitrd,
    /// A command line is not accepted.
    #[error("command line: {event} {fault}")]
    CommandLineNotAccepted {
        /// The event.
        event: NamedEvent,
        /// Why.
        fault: CommandLineFault,
    },
    /// A second event of one PCR is said to be the command line.
    #[error("command line: {event} is the second in its PCR; only the log says which one was used")]
    SecondCommandLine {
        /// The event.
        event: NamedEvent,
    },
    /// No accepted command line was measured.
    #[error("no accepted command line was measured")]
    NoCommandLine,
    /// Firmware never said that it hands over.
    #[error("PCR {pcr} has no separator")]
    NoSeparator {
        /// The PCR.
        pcr: PcrIndex,
    },
    /// Firmware can hand over once.
    #[error("{event} is a second separator")]
    SecondSeparator {
        /// The event.
        event: NamedEvent,
    },
    /// Firmware failed to measure.
    #[error("{event} says that firmware failed to measure")]
    ErrorSeparator {
        /// The event.
        event: NamedEvent,
    },
    /// Something was measured where firmware was done.
    #[error("{event} follows the separator, where nothing may")]
    AfterSeparator {
        /// The event.
        event: NamedEvent,
    },
    /// Images were not checked.
    #[error("Secure Boot is {found}, required is on")]
    SecureBootNotOn {
        /// What the variable says.
        found: SecureBootState,
    },
    /// Secure Boot says that it is on, and nothing was checked.
    #[error("Secure Boot says that it is on, but no image was checked by an accepted authority")]
    NoAuthority,
    /// An image was checked by something that is not accepted.
    #[error("authority: {event} is none of the accepted")]
    AuthorityNotAccepted {
        /// The event.
        event: NamedEvent,
    },
    /// A key or hash is none of the accepted ones.
    #[error("{variable}: {event} is not accepted: {why}")]
    VariableNotAccepted {
        /// The variable.
        variable: ConfigurationVariable,
        /// The event.
        event: NamedEvent,
        /// What is wrong with it.
        why: String,
    },
    /// The machine's dbx does not hold what the deny list asks for, or is not proved to hold anything.
    #[error("dbx lacks what is denied: {label}")]
    DbxLacks {
        /// The operator's word for it.
        label: String,
    },
    /// A variable is missing, twice, out of order or not proved.
    #[error("PCR 7 cannot be read: {what}")]
    SecureBootUnreadable {
        /// What is wrong with it.
        what: String,
    },
    /// A variable of the configuration after the separator proves nothing.
    #[error("event {index} of PCR 7 claims to be {variable}, after the separator: it proves nothing")]
    ConfigurationAfterSeparator {
        /// The place of the event.
        index: usize,
        /// The variable that it claims to be.
        variable: ConfigurationVariable,
    },
    /// Revocations are too old, or not measured.
    #[error("SBAT level is {}, at least {minimum} is required", found.map_or("not measured".to_owned(), |level| level.to_string()))]
    SbatTooOld {
        /// The level; nothing where none was measured.
        found: Option<u64>,
        /// The least that is accepted.
        minimum: u64,
    },
    /// A debugger could reach the firmware.
    #[error("{event} says that a debugger can reach the firmware")]
    DebuggerEnabled {
        /// The event.
        event: NamedEvent,
    },
    /// Devices could write to memory.
    #[error("{event} says that devices can write to memory")]
    DmaUnprotected {
        /// The event.
        event: NamedEvent,
    },
    /// There is more than this that deviates.
    #[error("{more} more deviations of this boot")]
    More {
        /// How many.
        more: usize,
    },
}

impl BootDeviation {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::OtherBank { .. } => "boot_other_bank",
            Self::NotExplained { .. } => "boot_pcr_not_explained",
            Self::Denied { .. } => "boot_denied",
            Self::Unexplained { .. } => "boot_event_unexplained",
            Self::FirmwareNotAccepted { .. } => "boot_firmware",
            Self::DriverNotAccepted { .. } => "boot_driver",
            Self::BootApplicationNotAccepted { .. } => "boot_application",
            Self::NoBootApplication => "boot_application_missing",
            Self::InitrdNotAccepted { .. } => "boot_initrd",
            Self::NoInitrd => "boot_initrd_missing",
            Self::CommandLineNotAccepted { .. } => "boot_command_line",
            Self::SecondCommandLine { .. } => "boot_command_line_twice",
            Self::NoCommandLine => "boot_command_line_missing",
            Self::NoSeparator { .. } => "boot_separator_missing",
            Self::SecondSeparator { .. } => "boot_separator_twice",
            Self::ErrorSeparator { .. } => "boot_separator_error",
            Self::AfterSeparator { .. } => "boot_event_after_separator",
            Self::SecureBootNotOn { .. } => "secure_boot_not_on",
            Self::NoAuthority => "secure_boot_no_authority",
            Self::AuthorityNotAccepted { .. } => "secure_boot_authority",
            Self::VariableNotAccepted { .. } => "secure_boot_variable",
            Self::DbxLacks { .. } => "secure_boot_dbx_lacks",
            Self::SecureBootUnreadable { .. } => "secure_boot_unreadable",
            Self::ConfigurationAfterSeparator { .. } => "secure_boot_after_separator",
            Self::SbatTooOld { .. } => "secure_boot_sbat",
            Self::DebuggerEnabled { .. } => "boot_debugger",
            Self::DmaUnprotected { .. } => "boot_dma_unprotected",
            Self::More { .. } => "boot_more_deviations",
        }
    }

    /// Whether a reference value would explain it. None explains what is denied by name, and a boot of which the log says too
    /// little to know that nothing of it is.
    #[must_use]
    pub const fn is_explicable(&self) -> bool {
        match self {
            Self::OtherBank { .. }
            | Self::NotExplained { .. }
            | Self::Denied { .. }
            | Self::DbxLacks { .. }
            | Self::SecureBootUnreadable { .. }
            | Self::ConfigurationAfterSeparator { .. } => false,
            Self::Unexplained { .. }
            | Self::FirmwareNotAccepted { .. }
            | Self::DriverNotAccepted { .. }
            | Self::BootApplicationNotAccepted { .. }
            | Self::NoBootApplication
            | Self::InitrdNotAccepted { .. }
            | Self::NoInitrd
            | Self::CommandLineNotAccepted { .. }
            | Self::SecondCommandLine { .. }
            | Self::NoCommandLine
            | Self::NoSeparator { .. }
            | Self::SecondSeparator { .. }
            | Self::ErrorSeparator { .. }
            | Self::AfterSeparator { .. }
            | Self::SecureBootNotOn { .. }
            | Self::NoAuthority
            | Self::AuthorityNotAccepted { .. }
            | Self::VariableNotAccepted { .. }
            | Self::SbatTooOld { .. }
            | Self::DebuggerEnabled { .. }
            | Self::DmaUnprotected { .. }
            | Self::More { .. } => true,
        }
    }

    /// The event that it is about, where it is about one.
    #[must_use]
    pub const fn event(&self) -> Option<&NamedEvent> {
        match self {
            Self::Denied { event, .. }
            | Self::Unexplained { event }
            | Self::FirmwareNotAccepted { event }
            | Self::DriverNotAccepted { event }
            | Self::BootApplicationNotAccepted { event }
            | Self::InitrdNotAccepted { event }
            | Self::CommandLineNotAccepted { event, .. }
            | Self::SecondCommandLine { event }
            | Self::SecondSeparator { event }
            | Self::ErrorSeparator { event }
            | Self::AfterSeparator { event }
            | Self::AuthorityNotAccepted { event }
            | Self::VariableNotAccepted { event, .. }
            | Self::DebuggerEnabled { event }
            | Self::DmaUnprotected { event } => Some(event),
            Self::OtherBank { .. }
            | Self::NotExplained { .. }
            | Self::NoBootApplication
            | Self::NoInitrd
            | Self::NoCommandLine
            | Self::NoSeparator { .. }
            | Self::SecureBootNotOn { .. }
            | Self::NoAuthority
            | Self::DbxLacks { .. }
            | Self::SecureBootUnreadable { .. }
            | Self::ConfigurationAfterSeparator { .. }
            | Self::SbatTooOld { .. }
            | Self::More { .. } => None,
        }
    }
}

/// A fault with what it quotes of the log escaped and cut.
pub(super) fn fit_to_show(fault: CommandLineFault) -> CommandLineFault {
    match fault {
        CommandLineFault::Forbidden(token) => CommandLineFault::Forbidden(shown(&token)),
        CommandLineFault::NotAllowed(token) => CommandLineFault::NotAllowed(shown(&token)),
        CommandLineFault::Repeated(token) => CommandLineFault::Repeated(shown(&token)),
        same @ (CommandLineFault::NotListed
        | CommandLineFault::NotProved
        | CommandLineFault::Unreadable(_)
        | CommandLineFault::Missing(_)) => same,
    }
}
