//! Why a list proves nothing.

use rootbound_common::crypto::Digest;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex};

use super::{MAX_BYTES, MAX_ENTRIES, MAX_ENTRY, Shown};

/// Why a measurement list is refused. Entries are counted from 0, over the whole boot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImaError {
    /// An entry is longer than any that the kernel makes.
    #[error("entry {entry}: its {what} has {length} bytes, at most {limit} are accepted")]
    TooLong {
        /// Its number.
        entry: u64,
        /// The part.
        what: &'static str,
        /// As stated.
        length: u64,
        /// The limit.
        limit: usize,
    },
    /// More entries than one boot has.
    #[error("the list has more than {MAX_ENTRIES} entries")]
    TooManyEntries,
    /// More bytes than one boot has.
    #[error("the list has more than {MAX_BYTES} bytes")]
    TooManyBytes,
    /// The list ends inside an entry.
    #[error("the list ends inside entry {entry}, with {left} bytes of it")]
    Truncated {
        /// Its number.
        entry: u64,
        /// What there is of it.
        left: usize,
    },
    /// An entry was made for another PCR.
    #[error("entry {entry} is for PCR {pcr}, IMA extends PCR {}", super::PCR)]
    OtherPcr {
        /// Its number.
        entry: u64,
        /// As stated.
        pcr: u32,
    },
    /// An entry of a template that is not known: its data would be skipped, not judged.
    #[error("entry {entry} is of the unknown template `{name}`")]
    UnknownTemplate {
        /// Its number.
        entry: u64,
        /// As stated.
        name: Shown,
    },
    /// A digest of an algorithm that is not known.
    #[error("entry {entry}: `{name}` is no hash algorithm that is known")]
    UnknownHash {
        /// Its number.
        entry: u64,
        /// As stated.
        name: Shown,
    },
    /// A field breaks a rule of its template.
    #[error("entry {entry}: {field}: {rule}")]
    Field {
        /// Its number.
        entry: u64,
        /// The field.
        field: &'static str,
        /// The rule that is broken.
        rule: &'static str,
    },
    /// The template hash is not the hash of the template data.
    #[error("entry {entry}: its template hash is not the hash of its data")]
    TemplateHash {
        /// Its number.
        entry: u64,
    },
    /// No value on the way is the quoted one: entries were dropped, added, moved or changed.
    #[error("{0}")]
    NotReached(Box<NotReached>),
    /// Entries that an earlier list had after the value quoted then are still not covered by a quote.
    #[error("an earlier list had {claimed} entries, this quote covers {covered}")]
    TailNotCovered {
        /// By the earlier list.
        claimed: u64,
        /// By this quote.
        covered: u64,
    },
    /// Entries that an earlier list had after the value quoted then are not those that PCR 10 has.
    #[error("the first {entries} entries are not those that an earlier list had")]
    TailChanged {
        /// As many as the earlier list had.
        entries: u64,
    },
    /// The prefix is of another bank than the quote.
    #[error("the verified prefix is of bank {prefix}, the quote of bank {quoted}")]
    OtherBank {
        /// Of the prefix.
        prefix: HashAlgorithm,
        /// Of the quote.
        quoted: HashAlgorithm,
    },
    /// Stored progress is not what a walk leaves behind.
    #[error("stored progress is inconsistent: {rule}")]
    Stored {
        /// The rule that is broken.
        rule: &'static str,
    },
    /// The list does not begin with boot_aggregate.
    #[error("entry {entry} is `{name}`, not boot_aggregate: nothing ties the list to this boot")]
    NoBootAggregate {
        /// Its number.
        entry: u64,
        /// Its name.
        name: Shown,
    },
    /// The kernel found no TPM when it made boot_aggregate, or the entry is a violation.
    #[error("boot_aggregate is empty: the kernel found no TPM when IMA started")]
    EmptyBootAggregate,
    /// boot_aggregate is of a hash that no PCR bank has.
    #[error("boot_aggregate is a {found} digest, for which there is no bank")]
    BootAggregateHash {
        /// As stated.
        found: &'static str,
    },
    /// A PCR that boot_aggregate is over was not quoted.
    #[error("boot_aggregate is over {bank} PCR {pcr}, which was not quoted")]
    BootAggregateNotQuoted {
        /// The bank.
        bank: HashAlgorithm,
        /// The PCR.
        pcr: PcrIndex,
    },
    /// boot_aggregate is over other boot PCRs than the quoted ones.
    #[error("boot_aggregate is {found}, in none of its forms the hash of the quoted boot PCRs")]
    BootAggregateMismatch {
        /// As stated.
        found: Digest,
    },
    /// A line of the ASCII form is no entry.
    #[error("entry {entry}: {rule}")]
    Line {
        /// Its number.
        entry: u64,
        /// The rule that is broken.
        rule: &'static str,
    },
}

/// Where a list went that did not go through the quoted value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "PCR 10 is quoted as {quoted}, and the list goes through no such value: after {entries} entries it is {value}"
)]
pub struct NotReached {
    /// Entries of the boot, with those of the prefix.
    pub entries: u64,
    /// What they come to.
    pub value: Digest,
    /// As quoted.
    pub quoted: Digest,
}

impl ImaError {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "ima_entry_too_long",
            Self::TooManyEntries => "ima_too_many_entries",
            Self::TooManyBytes => "ima_too_many_bytes",
            Self::Truncated { .. } => "ima_truncated",
            Self::OtherPcr { .. } => "ima_other_pcr",
            Self::UnknownTemplate { .. } => "ima_unknown_template",
            Self::UnknownHash { .. } => "ima_unknown_hash",
            Self::Field { .. } => "ima_entry_malformed",
            Self::TemplateHash { .. } => "ima_template_hash_mismatch",
            Self::NotReached(_) => "ima_quoted_value_not_reached",
            Self::TailNotCovered { .. } => "ima_tail_not_covered",
            Self::TailChanged { .. } => "ima_tail_changed",
            Self::OtherBank { .. } => "ima_other_bank",
            Self::Stored { .. } => "ima_progress_inconsistent",
            Self::NoBootAggregate { .. } => "ima_no_boot_aggregate",
            Self::EmptyBootAggregate => "ima_boot_aggregate_empty",
            Self::BootAggregateHash { .. } => "ima_boot_aggregate_hash",
            Self::BootAggregateNotQuoted { .. } => "ima_boot_aggregate_not_quoted",
            Self::BootAggregateMismatch { .. } => "ima_boot_aggregate_mismatch",
            Self::Line { .. } => "ima_line_malformed",
        }
    }

    pub(super) fn field(entry: u64, field: &'static str, rule: &'static str) -> Self {
        Self::Field { entry, field, rule }
    }

    pub(super) fn too_long(entry: u64, what: &'static str, length: u64) -> Self {
        Self::TooLong { entry, what, length, limit: MAX_ENTRY }
    }
}
