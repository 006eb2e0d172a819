//! The life of sets: boot sets, updates that are staged and promoted, and the deny list.

use async_trait::async_trait;
use rootbound_common::clock::Timestamp;

use super::StoreError;
use crate::audit::AuditRecord;
use crate::node::Name;
use crate::reference::{BootSet, BootSetVersion, DenyList, Provenance, SetContent, SetKind, Versioned};

/// A version of a set in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetRecord {
    /// Its kind.
    pub kind: SetKind,
    /// Its name and version.
    pub id: Versioned,
    /// How many values it has.
    pub values: u64,
    /// Whether it is withdrawn.
    pub withdrawn: bool,
    /// Who made it.
    pub provenance: Provenance,
}

/// A set that accepts an update beside what it accepted before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staging {
    /// The kind of the set.
    pub kind: SetKind,
    /// The version that accepts both: the current one.
    pub staged: Versioned,
    /// The version before.
    pub over: u32,
}

/// How an update ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateEnd {
    /// What was new becomes the next version.
    Promoted,
    /// The version that accepts both is withdrawn, so that the one before is current again.
    Unstaged,
}

/// What became of a step of an update. The version that it was made on is compared in the transaction that writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetChange {
    /// Done: this version is current now.
    Done {
        /// Which.
        version: u32,
    },
    /// There is no version that is not withdrawn.
    Missing,
    /// Another version is current than the one that was named: somebody was faster.
    Overtaken {
        /// The current one.
        current: u32,
    },
    /// An update is staged already.
    AlreadyStaged {
        /// The version that accepts both.
        version: u32,
    },
    /// No update is staged.
    NotStaged,
}

/// Where a document comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentFrom {
    /// Who signed it, as the configuration calls them; empty: nobody.
    pub signer: String,
    /// Whose it says to be.
    pub origin: String,
    /// When it says to be made.
    pub made_at: Option<Timestamp>,
    /// Whether an operator takes it although it is older than what was imported.
    pub older: bool,
}

/// What is written beside sets.
#[derive(Debug, Clone, Default)]
pub struct Beside {
    /// Where they come from, if from a document.
    pub from: Option<DocumentFrom>,
    /// The next version of the deny list, and who wrote it.
    pub denied: Option<(DenyList, Provenance)>,
}

/// What became of sets that are written together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetsWritten {
    /// Written: their versions, in the same order.
    Done(Vec<Versioned>),
    /// A later document from there was imported, with this set.
    Older {
        /// The set.
        name: Name,
        /// When the later one was made.
        last: Timestamp,
    },
    /// Somebody else has written the deny list.
    DenyListOvertaken,
}

/// The life of sets. A version, once written, never changes; it can only be withdrawn.
#[async_trait]
pub trait SetStore: Send + Sync {
    /// Writes the next version of a boot set; the record is told which.
    async fn put_boot_set(
        &self,
        name: Name,
        set: BootSet,
        provenance: Provenance,
        record: AuditRecord,
    ) -> Result<BootSetVersion, StoreError>;

    /// Every version of every boot set, withdrawn ones too (`true`), by name and rising version.
    async fn boot_sets(&self) -> Result<Vec<(BootSetVersion, bool)>, StoreError>;

    /// Withdraws every version of a boot set; `false`: there is none that is not withdrawn, and nothing is recorded.
    async fn withdraw_boot_set(
        &self,
        name: &Name,
        provenance: Provenance,
        record: AuditRecord,
    ) -> Result<bool, StoreError>;

    /// Every version of every set of every kind, by kind, name and rising version.
    async fn set_records(&self) -> Result<Vec<SetRecord>, StoreError>;

    /// The values of a version, withdrawn or not.
    async fn set_content(&self, kind: SetKind, id: &Versioned) -> Result<Option<SetContent>, StoreError>;

    /// Stages an update on top of version `over`, if that is current: `both` becomes the next version, and `part`, what is
    /// new of it, is remembered.
    async fn stage_set(
        &self,
        name: Name,
        over: u32,
        both: SetContent,
        part: SetContent,
        provenance: Provenance,
        record: AuditRecord,
    ) -> Result<SetChange, StoreError>;

    /// Ends an update. `over`: only if this is the current version.
    async fn end_update(
        &self,
        how: UpdateEnd,
        kind: SetKind,
        name: &Name,
        over: Option<u32>,
        provenance: Provenance,
        record: AuditRecord,
    ) -> Result<SetChange, StoreError>;

    /// The updates that are staged now.
    async fn stagings(&self) -> Result<Vec<Staging>, StoreError>;

    /// Writes sets of whatever kinds as their next versions, and what is beside them, all of it or nothing. Where it comes from is
    /// compared in the transaction that writes.
    async fn put_sets(
        &self,
        sets: Vec<(Name, SetContent, Provenance)>,
        beside: Beside,
        record: AuditRecord,
    ) -> Result<SetsWritten, StoreError>;

    /// Writes a version of the deny list, if it follows the one that is in force; `false`: somebody was faster.
    async fn put_deny_list(
        &self,
        list: DenyList,
        provenance: Provenance,
        record: AuditRecord,
    ) -> Result<bool, StoreError>;

    /// A version of the deny list, and who wrote it; the one in force where none is named.
    async fn deny_list(&self, version: Option<u32>) -> Result<Option<(DenyList, Provenance)>, StoreError>;
}
