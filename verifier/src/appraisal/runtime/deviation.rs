//! What no rule explains.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::evidence::ima::Shown;

/// Why a signature does not vouch for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignatureProblem {
    /// It is not a `signature_v2_hdr` with its signature.
    #[error("its signature is malformed")]
    Malformed,
    /// A version that is refused: 1 signs with SHA-1 and a key id of another kind.
    #[error("its signature is of version {version}, not 2 or 3")]
    Version {
        /// As stated.
        version: u8,
    },
    /// EVM's, over metadata.
    #[error("its signature is EVM's: over metadata, not over the content")]
    Evm,
    /// Made over a hash that is refused, or not known.
    #[error("its signature is over hash {id}, not SHA-256, SHA-384 or SHA-512")]
    Hash {
        /// `enum hash_algo`.
        id: u8,
    },
    /// Over another hash than the file was measured with.
    #[error("its signature is over another hash than the measured one")]
    OtherHash,
    /// Over fs-verity's digest where the content was measured, or the reverse.
    #[error("its signature is over another kind of digest than the measured one")]
    OtherKind,
    /// No trusted key has this id.
    #[error("no trusted key has the id {} of its signature", Id(id))]
    UnknownKey {
        /// As stated.
        id: [u8; 4],
    },
    /// Trusted keys have this id, and none made it.
    #[error("its signature verifies under no trusted key with the id {}", Id(id))]
    Invalid {
        /// As stated.
        id: [u8; 4],
    },
    /// After so many wrong ones.
    #[error("its signature was not verified, after so many in this list that were wrong")]
    NotTried,
}

struct Id<'a>(&'a [u8; 4]);

impl fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(self.0))
    }
}

/// Something in the list that the rules do not accept. Entries are counted from 0, over the whole boot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "deviation")]
pub enum RuntimeDeviation {
    /// The first entry does not tie the list to the quoted boot.
    #[error("{problem}")]
    BootAggregate {
        /// In words.
        problem: String,
    },
    /// Another kernel was started without the firmware.
    #[error("entry {entry}: another kernel was started by kexec, which no boot log covers")]
    Kexec {
        /// The entry.
        entry: u64,
    },
    /// A later boot_aggregate is not the first one's.
    #[error("entry {entry}: a second boot_aggregate differs from the first")]
    OtherBootAggregate {
        /// The entry.
        entry: u64,
    },
    /// The kernel could not tell what was used.
    #[error(
        "entry {entry}: `{path}` was open for writing while it was measured, so that what was used is not known"
    )]
    Violation {
        /// The entry.
        entry: u64,
        /// As stated; nothing vouches for it.
        path: Shown,
    },
    /// A digest that is denied by name.
    #[error("entry {entry}: `{path}` with {digest} is denied{}", by.as_ref().map_or(String::new(), |by| format!(": {by}")))]
    Denied {
        /// The entry.
        entry: u64,
        /// Of the file, or of the event.
        path: Shown,
        /// The digest.
        digest: String,
        /// The label and the version of the deny list; `None`: by the profile itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// A digest of an algorithm that the rules do not accept.
    #[error(
        "entry {entry}: `{path}` is measured as {digest}; the rules ask for {least} or longer of the SHA family"
    )]
    WeakDigest {
        /// The entry.
        entry: u64,
        /// The file.
        path: Shown,
        /// The digest.
        digest: String,
        /// The least.
        least: String,
    },
    /// A file that nothing accepts.
    #[error("entry {entry}: `{path}` with {digest} is in none of the digest sets")]
    UnknownFile {
        /// The entry.
        entry: u64,
        /// The file.
        path: Shown,
        /// The digest.
        digest: String,
    },
    /// A file that is accepted elsewhere.
    #[error("entry {entry}: `{path}` has {digest}, which is accepted at other paths only")]
    OtherPath {
        /// The entry.
        entry: u64,
        /// The file.
        path: Shown,
        /// The digest.
        digest: String,
    },
    /// A file that is in no set, with a signature that does not help.
    #[error("entry {entry}: `{path}` with {digest} is in none of the digest sets, and {problem}")]
    Signature {
        /// The entry.
        entry: u64,
        /// The file.
        path: Shown,
        /// The digest.
        digest: String,
        /// What is wrong with it.
        problem: SignatureProblem,
    },
    /// A key was loaded that the rules do not list for this keyring.
    #[error("entry {entry}: a key with {digest} was loaded into `{keyring}`, for which it is not listed")]
    KeyLoad {
        /// The entry.
        entry: u64,
        /// The keyring.
        keyring: Shown,
        /// SHA-256 of what was loaded.
        digest: String,
    },
    /// A policy was loaded that the rules do not list.
    #[error("entry {entry}: the IMA policy `{path}` with {digest} was loaded, which is not listed")]
    PolicyLoad {
        /// The entry.
        entry: u64,
        /// The file, or the event.
        path: Shown,
        /// Its digest.
        digest: String,
    },
    /// A device-mapper event that the rules do not list.
    #[error("entry {entry}: device-mapper event `{event}` with {digest} is not listed")]
    DeviceMapper {
        /// The entry.
        entry: u64,
        /// The event.
        event: Shown,
        /// SHA-256 of what was measured.
        digest: String,
    },
    /// Another kernel than those that are listed.
    #[error("entry {entry}: the kernel says that it is `{version}`, which is not listed")]
    KernelVersion {
        /// The entry.
        entry: u64,
        /// As measured.
        version: Shown,
    },
    /// A kernel is to be started by kexec with a command line that is not listed.
    #[error("entry {entry}: kexec was given the command line `{command_line}`, which is not listed")]
    KexecCommandLine {
        /// The entry.
        entry: u64,
        /// As measured.
        command_line: Shown,
    },
    /// Critical data that the rules do not list.
    #[error("entry {entry}: event `{event}` with {digest} is not listed")]
    CriticalData {
        /// The entry.
        entry: u64,
        /// The event.
        event: Shown,
        /// SHA-256 of what was measured.
        digest: String,
    },
    /// The digest of an event is not that of its buffer.
    #[error("entry {entry}: the digest of event `{event}` is not that of its buffer")]
    BufferDigest {
        /// The entry.
        entry: u64,
        /// The event.
        event: Shown,
    },
    /// A list in which nothing is measured is no list without fault.
    #[error(
        "IMA has measured {covered} entries under the quote, the rules ask for {least}: its policy measures too little"
    )]
    TooFewEntries {
        /// Under the quote.
        covered: u64,
        /// By the rules.
        least: u64,
    },
    /// The kernel extends the bank with SHA-1.
    #[error("the kernel extends the quoted bank with SHA-1 and zeros, which the rules do not accept")]
    PaddedSha1,
}

impl RuntimeDeviation {
    /// Whether a reference value would explain it. None explains what is denied by name, and a list that says nothing, or is not
    /// of this boot.
    #[must_use]
    pub const fn is_explicable(&self) -> bool {
        !matches!(
            self,
            Self::Denied { .. }
                | Self::BootAggregate { .. }
                | Self::OtherBootAggregate { .. }
                | Self::TooFewEntries { .. }
        )
    }

    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BootAggregate { .. } => "runtime_boot_aggregate",
            Self::Kexec { .. } => "runtime_kexec",
            Self::OtherBootAggregate { .. } => "runtime_boot_aggregate_changed",
            Self::Violation { .. } => "runtime_violation",
            Self::Denied { .. } => "runtime_denied",
            Self::WeakDigest { .. } => "runtime_weak_digest",
            Self::UnknownFile { .. } => "runtime_unknown_file",
            Self::OtherPath { .. } => "runtime_other_path",
            Self::Signature { .. } => "runtime_signature",
            Self::KeyLoad { .. } => "runtime_key_load",
            Self::PolicyLoad { .. } => "runtime_policy_load",
            Self::DeviceMapper { .. } => "runtime_device_mapper",
            Self::KernelVersion { .. } => "runtime_kernel_version",
            Self::KexecCommandLine { .. } => "runtime_kexec_command_line",
            Self::CriticalData { .. } => "runtime_critical_data",
            Self::BufferDigest { .. } => "runtime_buffer_digest",
            Self::TooFewEntries { .. } => "runtime_too_few_entries",
            Self::PaddedSha1 => "runtime_padded_sha1",
        }
    }

    /// The entry that deviates; none where the list as a whole does.
    #[must_use]
    pub const fn entry(&self) -> Option<u64> {
        match self {
            Self::Kexec { entry }
            | Self::OtherBootAggregate { entry }
            | Self::Violation { entry, .. }
            | Self::Denied { entry, .. }
            | Self::WeakDigest { entry, .. }
            | Self::UnknownFile { entry, .. }
            | Self::OtherPath { entry, .. }
            | Self::Signature { entry, .. }
            | Self::KeyLoad { entry, .. }
            | Self::PolicyLoad { entry, .. }
            | Self::DeviceMapper { entry, .. }
            | Self::KernelVersion { entry, .. }
            | Self::KexecCommandLine { entry, .. }
            | Self::CriticalData { entry, .. }
            | Self::BufferDigest { entry, .. } => Some(*entry),
            Self::BootAggregate { .. } => Some(0),
            Self::TooFewEntries { .. } | Self::PaddedSha1 => None,
        }
    }

    /// Whether it says the same of another entry.
    #[must_use]
    pub(super) fn is_like(&self, other: &Self) -> bool {
        use RuntimeDeviation as D;
        match (self, other) {
            (D::Violation { path: a, .. }, D::Violation { path: b, .. })
            | (D::BufferDigest { event: a, .. }, D::BufferDigest { event: b, .. })
            | (D::KernelVersion { version: a, .. }, D::KernelVersion { version: b, .. })
            | (D::KexecCommandLine { command_line: a, .. }, D::KexecCommandLine { command_line: b, .. }) => {
                a == b
            }
            (D::Kexec { .. }, D::Kexec { .. })
            | (D::OtherBootAggregate { .. }, D::OtherBootAggregate { .. }) => true,
            (D::Denied { path: a, digest: x, .. }, D::Denied { path: b, digest: y, .. })
            | (D::WeakDigest { path: a, digest: x, .. }, D::WeakDigest { path: b, digest: y, .. })
            | (D::UnknownFile { path: a, digest: x, .. }, D::UnknownFile { path: b, digest: y, .. })
            | (D::OtherPath { path: a, digest: x, .. }, D::OtherPath { path: b, digest: y, .. })
            | (D::KeyLoad { keyring: a, digest: x, .. }, D::KeyLoad { keyring: b, digest: y, .. })
            | (D::PolicyLoad { path: a, digest: x, .. }, D::PolicyLoad { path: b, digest: y, .. })
            | (D::DeviceMapper { event: a, digest: x, .. }, D::DeviceMapper { event: b, digest: y, .. })
            | (D::CriticalData { event: a, digest: x, .. }, D::CriticalData { event: b, digest: y, .. }) => {
                a == b && x == y
            }
            (
                D::Signature { path: a, digest: x, problem: p, .. },
                D::Signature { path: b, digest: y, problem: q, .. },
            ) => a == b && x == y && p == q,
            (one, other) => one == other,
        }
    }
}
